//! The fewest slots that make up a window.

use super::{Resolution, Slot};
use crate::limits::SLOT_SECS;
use crate::model::{DurationNanos, TimeRange};
use std::ops::Range;

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
