//! Which traces stay when the spans around them leave.
//!
//! *Pinned* are the traces of long-term exemplars, of this partition and of its neighbours in time, and those that people
//! pinned: exemplars of roll-ups lead to them and to no others. A trace may have spans in several partitions: as long as one
//! shows it, all keep it. Beside those, the spans of traces that a neighbour still holds entirely stay until this partition is
//! rewritten the next time, so that whatever a live partition shows is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::block::Block;
use crate::latency::{Exemplar, Resolution, SeriesWanted, Slot, Take};
use crate::limits::{LONG_TERM_EXEMPLARS_MAX, NEIGHBOUR_SECS, STRADDLING_SECS};
use crate::model::{DurationNanos, SeriesKey, TimeRange, TraceId, UnixNanos};

use super::super::{HeadPart, Manifest, OpenPartition, Partition, Store, StoreError};
use super::{Input, Plan};

/// An exemplar of some input: ordered as `latency::Exemplar` is.
type Candidate = (DurationNanos, usize, u32, u32);

/// What stays beside the services that stay as a whole.
#[derive(Debug, Default)]
pub(super) struct TracesThatStay {
    /// Exemplars may lead to these.
    pub(super) pinned: BTreeSet<TraceId>,
    /// No exemplar of this partition leads to these: a live neighbour may show them.
    pub(super) straddling: BTreeSet<TraceId>,
}

impl TracesThatStay {
    pub(super) fn keeps(&self, trace: TraceId) -> bool {
        self.pinned.contains(&trace) || self.straddling.contains(&trace)
    }
}

impl Store {
    /// Both sets may name traces of which the inputs hold nothing.
    pub(super) fn traces_that_stay(
        &self,
        inputs: &[Input],
        plan: &Plan<'_>,
        by_hand: &BTreeSet<TraceId>,
    ) -> Result<TracesThatStay, StoreError> {
        let mut traces = TracesThatStay { pinned: by_hand.clone(), straddling: BTreeSet::new() };
        if plan.finest.is_some() {
            let showing: Vec<Showing<'_>> =
                inputs.iter().map(|input| Showing::of(&input.partition, &input.open)).collect();
            traces.pinned.append(&mut long_term(&showing)?);
        }
        let mut blocks = Vec::new();
        for input in inputs {
            for block_no in input.open.block_numbers() {
                blocks.push(input.open.readable_block(block_no)?);
            }
        }
        let leaving = Leaving { blocks };
        let snapshot = self.snapshot();
        for (neighbour, visible) in &snapshot.partitions {
            if inputs.iter().any(|input| Arc::ptr_eq(&input.partition, neighbour)) {
                continue;
            }
            let asked = self.ask_neighbour(neighbour, *visible, inputs, &leaving, &mut traces);
            if let Err(error) = asked {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(neighbour = neighbour.name(), error, "not asked which traces it shows");
            }
        }
        snapshot.heads.iter().for_each(|head| straddling_head(head, &leaving, &mut traces.straddling));
        Ok(traces)
    }

    fn ask_neighbour(
        &self,
        neighbour: &Arc<Partition>,
        visible: u64,
        inputs: &[Input],
        leaving: &Leaving,
        traces: &mut TracesThatStay,
    ) -> Result<(), StoreError> {
        let Some(manifest) = neighbour.manifest() else {
            return straddling(&*self.open_partition(neighbour)?, visible, leaving, &mut traces.straddling);
        };
        let touches = |secs| inputs.iter().any(|input| touch(&input.manifest, &manifest, secs));
        if !touches(NEIGHBOUR_SECS) {
            return Ok(());
        }
        if manifest.is_remnant() || manifest.is_live() {
            let find = || {
                let open = self.open_partition(neighbour)?;
                if manifest.is_remnant() { open.pinned() } else { long_term(&[Showing::of(neighbour, &open)]) }
            };
            traces.pinned.extend(neighbour.shown_for_long(find)?.iter());
        }
        if manifest.is_live() && touches(STRADDLING_SECS) {
            straddling(&*self.open_partition(neighbour)?, visible, leaving, &mut traces.straddling)?;
        }
        Ok(())
    }
}

/// Whether two partitions have spans less than so many seconds apart.
fn touch(one: &Manifest, other: &Manifest, secs: u64) -> bool {
    let slack = DurationNanos::from_secs(secs);
    let start = one.min_time.saturating_sub(slack);
    let end = UnixNanos(one.max_time.saturating_add(slack).0.saturating_add(1));
    TimeRange { start, end }.meets(other.min_time, other.max_time)
}

/// The blocks that are about to go, with their filters.
struct Leaving {
    blocks: Vec<Arc<Block>>,
}

impl Leaving {
    fn may_hold(&self, trace: TraceId) -> bool {
        self.blocks.iter().any(|block| block.may_hold(trace))
    }
}

fn straddling(
    open: &OpenPartition,
    visible: u64,
    leaving: &Leaving,
    found: &mut BTreeSet<TraceId>,
) -> Result<(), StoreError> {
    for block_no in 1..=visible {
        open.traces(block_no, &mut |trace| {
            if leaving.may_hold(trace) {
                let _new = found.insert(trace);
            }
        })?;
    }
    Ok(())
}

fn straddling_head(head: &HeadPart, leaving: &Leaving, found: &mut BTreeSet<TraceId>) {
    for batch in &head.batches {
        for run in batch.spans.chunk_by(|a, b| a.trace_id == b.trace_id) {
            found.extend(run.first().map(|span| span.trace_id).filter(|trace| leaving.may_hold(*trace)));
        }
    }
}

/// A partition that shows exemplars.
#[derive(Clone, Copy)]
struct Showing<'a> {
    open: &'a OpenPartition,
    /// Spans have left: only traces that are pinned are still whole.
    is_later: bool,
}

impl<'a> Showing<'a> {
    fn of(partition: &Partition, open: &'a OpenPartition) -> Self {
        Self { open, is_later: 1 < partition.generation() }
    }

    /// The traces of exemplars at these places.
    fn traces_at(&self, places: &BTreeSet<(u32, u32)>) -> Result<BTreeMap<(u32, u32), TraceId>, StoreError> {
        let (mut traces, mut rest) = (BTreeMap::new(), places.iter().copied().peekable());
        while let Some((block, _)) = rest.peek().copied() {
            for (trace, run) in self.open.trace_runs(u64::from(block))? {
                while let Some(place) = rest.next_if(|(of, row)| *of == block && run.contains(row)) {
                    let _new = traces.insert(place, trace);
                }
            }
            while rest.next_if(|(of, _)| *of == block).is_some() {}
        }
        Ok(traces)
    }
}

/// The traces of the long-term exemplars: of each series that counts toward a service's latency and each hour the slowest
/// kept one of every octave of latency, from the slowest octave down.
///
/// What was chosen once is chosen again from what is left, whoever asks: of a later generation only pinned traces can be.
fn long_term(showing: &[Showing<'_>]) -> Result<BTreeSet<TraceId>, StoreError> {
    let mut by_slot: BTreeMap<(Arc<SeriesKey<'static>>, Slot), Vec<Candidate>> = BTreeMap::new();
    let mut traces = Vec::new();
    for (input, one) in showing.iter().enumerate() {
        let series = one.open.rollup_series()?;
        let (mut exemplars, mut places) = (Vec::new(), BTreeSet::new());
        for window in one.open.rollup_windows(Resolution::Hour) {
            one.open.rollup(window).read(
                &SeriesWanted::ALL,
                Slot::ALL,
                Take::Exemplars(&mut |number, slot, latency| {
                    let Some(key) = series.get(number as usize).filter(|key| key.entry && key.family.is_none()) else {
                        return;
                    };
                    for exemplar in &latency.exemplars {
                        exemplars.push((Arc::clone(key), slot, *exemplar));
                        let _new = places.insert((exemplar.block, exemplar.row));
                    }
                }),
            )?;
        }
        let of_input = one.traces_at(&places)?;
        let pinned = if one.is_later { Some(one.open.pinned()?) } else { None };
        let is_whole = |trace: &TraceId| pinned.as_ref().is_none_or(|pinned| pinned.contains(trace));
        for (key, slot, Exemplar { latency, block, row }) in exemplars {
            if of_input.get(&(block, row)).is_some_and(is_whole) {
                by_slot.entry((key, slot)).or_default().push((latency, input, block, row));
            }
        }
        traces.push(of_input);
    }
    let chosen = by_slot.into_values().flat_map(slowest_of_octaves);
    Ok(chosen.filter_map(|(_, input, block, row)| traces.get(input)?.get(&(block, row)).copied()).collect())
}

fn slowest_of_octaves(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    let octave = |candidate: &Candidate| candidate.0.0.max(1).ilog2();
    candidates.dedup_by_key(|candidate| octave(candidate));
    candidates.truncate(LONG_TERM_EXEMPLARS_MAX);
    candidates
}

#[cfg(test)]
mod choice_tests {
    use super::*;

    #[test]
    fn of_each_octave_the_slowest_is_chosen_and_never_more_than_the_bound() {
        let at = |micros: u64, row| (DurationNanos(micros * 1_000), 0, 1, row);
        let chosen = slowest_of_octaves(vec![at(1_000, 1), at(1_020, 2), at(3_000, 3), at(500, 4), at(3_000, 5)]);
        assert_eq!(chosen.iter().map(|chosen| chosen.3).collect::<Vec<_>>(), [5, 2, 4], "{chosen:?}");
        let all = (0..32).map(|octave| at(1 << octave, octave)).collect();
        let chosen = slowest_of_octaves(all);
        assert_eq!(chosen.len(), LONG_TERM_EXEMPLARS_MAX);
        assert!(chosen.is_sorted_by(|a, b| b < a), "the slowest first");
    }
}
