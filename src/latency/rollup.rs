//! Coarser slots out of finer ones, and the fewest slots that make up a window.

use super::table::{Fetch, ReadError, SlotTableBuilder, SlotTableReader};
use super::{Resolution, Slot, SlotLatency};
use crate::limits::SLOT_SECS;
use crate::model::{DurationNanos, TimeRange};
use std::ops::Range;

/// A table that could not be rolled up.
#[derive(Debug, thiserror::Error)]
pub enum RollUpError<E: std::error::Error + 'static> {
    /// Slots are merged, never split.
    #[error("slots of {from} s cannot be rolled up into {to} s")]
    Finer {
        /// Seconds of a slot of the table.
        from: u64,
        /// Seconds of a slot of the target.
        to: u64,
    },
    /// The table could not be read.
    #[error(transparent)]
    Read(#[from] ReadError<E>),
}

/// Merges every slot of `table` into `target`, at `target`'s resolution.
///
/// `adopt` sees each slot first: it returns the series id that `target` knows the series by, and may renumber the blocks of
/// the exemplars (`SlotLatency::place_in`). Tables may come in any order, and by any number of steps: the result is the same.
///
/// # Errors
/// `Finer` before anything is merged. After `Read`, `target` holds a part of the table and is of no use.
pub fn roll_up<E: std::error::Error + 'static>(
    table: &SlotTableReader,
    fetch: &Fetch<'_, E>,
    adopt: &mut dyn FnMut(u32, &mut SlotLatency) -> u32,
    target: &mut SlotTableBuilder,
) -> Result<(), RollUpError<E>> {
    let (from, to) = (table.resolution(), target.resolution());
    if from > to {
        return Err(RollUpError::Finer { from: from.secs(), to: to.secs() });
    }
    table.read(fetch, 0..u32::MAX, Slot::ALL, &mut |series, slot, latency| {
        let series = adopt(series, latency);
        target.add(series, from.coarsen(slot, to).unwrap_or(slot), latency);
    })?;
    Ok(())
}

/// The fewest slots that make up `range`, as runs in the order of time: finest at both ends, coarsest in the middle.
///
/// Every slot of 10 s that `range` touches is in exactly one of them, so a range that is not aligned to 10 s is widened.
/// At most 84 slots besides the whole days: 5 + 9 + 5 + 23 at either end.
pub fn cover(range: TimeRange) -> Vec<(Resolution, Range<Slot>)> {
    let finest = DurationNanos::from_secs(SLOT_SECS).0;
    let (mut low, mut high) = (range.start.0 / finest, range.end.0.div_ceil(finest));
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    let mut level = Resolution::TenSeconds;
    for coarser in Resolution::ALL.into_iter().skip(1) {
        let ratio = coarser.secs() / level.secs();
        let (whole_low, whole_high) = (low.div_ceil(ratio), high / ratio);
        if whole_low >= whole_high {
            break;
        }
        head.push((level, Slot(low)..Slot(whole_low * ratio)));
        tail.push((level, Slot(whole_high * ratio)..Slot(high)));
        (low, high, level) = (whole_low, whole_high, coarser);
    }
    head.push((level, Slot(low)..Slot(high)));
    head.extend(tail.into_iter().rev());
    head.retain(|(_, slots)| !slots.is_empty());
    head
}
