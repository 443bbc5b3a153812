//! Roll-ups of a later generation: those of the generations before, count by count, with their exemplars placed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::latency::{Exemplar, Resolution, SeriesWanted, Slot, SlotTableBuilder, Take};
use crate::model::SeriesKey;

use super::super::pack::PackWriter;
use super::super::rollup::{put_series, write_table};
use super::super::{OpenPartition, RollupWindow, SeriesList, StoreError};
use super::copy::Moves;
use super::{Input, Plan};

/// Count and exact sum of latencies per resolution and series.
pub(super) type Totals = BTreeMap<(Resolution, Arc<SeriesKey<'static>>), (u64, u128)>;

/// The series of one input, and what they are called in the new tables.
struct Numbering {
    series: SeriesList,
    /// `None` for one whose roll-ups leave.
    numbers: Vec<Option<u32>>,
}

/// Merges the tables of all inputs, minus what is too fine for the plan, and returns what they count.
///
/// Memory: the slots of one table; of a month when its resolution is hours.
pub(super) fn write(
    inputs: &[Input],
    plan: &Plan<'_>,
    moves: &Moves,
    out: &mut PackWriter,
) -> Result<Totals, StoreError> {
    let mut all = BTreeSet::new();
    for input in inputs {
        let series = input.open.rollup_series()?;
        all.extend(series.iter().filter(|key| stays(plan, key, Resolution::Day)).cloned());
    }
    let all: Vec<Arc<SeriesKey<'static>>> = all.into_iter().collect();
    let mut numberings = Vec::new();
    for input in inputs {
        let series = input.open.rollup_series()?;
        let number = |key| all.binary_search(key).ok().and_then(|at| u32::try_from(at).ok());
        numberings.push(Numbering { numbers: series.iter().map(number).collect(), series });
    }
    let mut totals = Totals::new();
    for resolution in Resolution::ALL {
        let windows: BTreeSet<RollupWindow> =
            inputs.iter().flat_map(|input| input.open.rollup_windows(resolution)).collect();
        for window in windows {
            let mut table = Table { builder: SlotTableBuilder::new(resolution), is_empty: true };
            for (number, (input, numbering)) in inputs.iter().zip(&numberings).enumerate() {
                table.take(number, input, numbering, window, plan, moves, &mut totals)?;
            }
            if !table.is_empty {
                write_table(out, window, table.builder)?;
            }
        }
    }
    put_series(out, &all)?;
    Ok(totals)
}

/// Whether roll-ups of a series are kept at a resolution.
fn stays(plan: &Plan<'_>, key: &SeriesKey<'_>, resolution: Resolution) -> bool {
    plan.staying.contains(&*key.service) || plan.finest.is_some_and(|finest| finest <= resolution)
}

struct Table {
    builder: SlotTableBuilder,
    is_empty: bool,
}

impl Table {
    #[expect(clippy::too_many_arguments, reason = "the loop over inputs is the caller's, all of it is one loop")]
    fn take(
        &mut self,
        input_no: usize,
        input: &Input,
        numbering: &Numbering,
        window: RollupWindow,
        plan: &Plan<'_>,
        moves: &Moves,
        totals: &mut Totals,
    ) -> Result<(), StoreError> {
        input.open.rollup(window).read(
            &SeriesWanted::ALL,
            Slot::ALL,
            Take::Exemplars(&mut |number, slot, latency| {
                let at = number as usize;
                let (Some(key), Some(Some(new))) = (numbering.series.get(at), numbering.numbers.get(at)) else {
                    return;
                };
                if !stays(plan, key, window.resolution) {
                    return;
                }
                replace(&mut latency.exemplars, |block, row| moves.place(input_no, block, row));
                self.builder.add(*new, slot, latency);
                self.is_empty = false;
                let (count, sum) = totals.entry((window.resolution, Arc::clone(key))).or_default();
                *count += latency.histogram.count();
                *sum += latency.histogram.sum_ns();
            }),
        )
    }
}

/// Gives each exemplar its new place; those without one go.
fn replace(exemplars: &mut Vec<Exemplar>, place: impl Fn(u32, u32) -> Option<(u32, u32)>) {
    exemplars.retain_mut(|exemplar| match place(exemplar.block, exemplar.row) {
        Some((block, row)) => {
            (exemplar.block, exemplar.row) = (block, row);
            true
        }
        None => false,
    });
}

/// What the tables of a sealed partition count.
pub(super) fn totals(open: &OpenPartition) -> Result<Totals, StoreError> {
    let series = open.rollup_series()?;
    let mut totals = Totals::new();
    for resolution in Resolution::ALL {
        for window in open.rollup_windows(resolution) {
            open.rollup(window).read(
                &SeriesWanted::ALL,
                Slot::ALL,
                Take::Histograms(&mut |number, _, latency| {
                    let Some(key) = series.get(number as usize) else { return };
                    let (count, sum) = totals.entry((resolution, Arc::clone(key))).or_default();
                    *count += latency.histogram.count();
                    *sum += latency.histogram.sum_ns();
                }),
            )?;
        }
    }
    Ok(totals)
}

#[cfg(test)]
mod table_tests {
    use super::*;
    use crate::model::DurationNanos;

    #[test]
    fn an_exemplar_follows_its_span_and_goes_with_it() {
        let at = |block, row| Exemplar { latency: DurationNanos(900_000), block, row };
        let mut exemplars = vec![at(1, 3), at(1, 9), at(2, 0), at(2, 7)];
        let place = |block, row| match (block, row) {
            (1, 9) => Some((1, 0)),
            (2, 0) => Some((1, 1)),
            _ => None,
        };
        replace(&mut exemplars, place);
        assert_eq!(exemplars, [at(1, 0), at(1, 1)]);
    }
}
