//! Slots of time, and the instant a span is counted at.

use crate::limits::{FUTURE_SECS_MAX, SLOT_SECS};
use crate::model::{DurationNanos, Span, UnixNanos};

/// Number of a slot since the Unix epoch, at a resolution that stands beside it: Unix seconds / 10 at the finest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    /// Every slot but the very last number.
    pub const ALL: std::ops::Range<Self> = Self(0)..Self(u64::MAX);
}

/// How long a slot is. Each is a whole multiple of the one before, aligned to UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Resolution {
    /// 10 s: what blocks hold.
    TenSeconds = 0,
    /// 1 min.
    Minute = 1,
    /// 10 min.
    TenMinutes = 2,
    /// 1 h.
    Hour = 3,
    /// 1 d of UTC.
    Day = 4,
}

impl Resolution {
    /// Finest first.
    pub const ALL: [Self; 5] = [Self::TenSeconds, Self::Minute, Self::TenMinutes, Self::Hour, Self::Day];

    /// The next finer one; `None` for the finest.
    pub fn finer(self) -> Option<Self> {
        Self::ALL.into_iter().rev().find(|finer| *finer < self)
    }

    /// The slots of `finer` that lie in these of this resolution.
    pub fn refine(self, slots: &std::ops::Range<Slot>, finer: Self) -> std::ops::Range<Slot> {
        let n = self.secs() / finer.secs();
        Slot(slots.start.0.saturating_mul(n))..Slot(slots.end.0.saturating_mul(n))
    }

    /// Seconds of one slot.
    pub const fn secs(self) -> u64 {
        match self {
            Self::TenSeconds => SLOT_SECS,
            Self::Minute => 60,
            Self::TenMinutes => 600,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// The slot that `at` lies in.
    pub fn slot_of(self, at: UnixNanos) -> Slot {
        Slot(at.0 / DurationNanos::from_secs(self.secs()).0)
    }

    /// First instant of `slot`; the end of time when that is later.
    pub fn start_of(self, slot: Slot) -> UnixNanos {
        UnixNanos(slot.0.saturating_mul(DurationNanos::from_secs(self.secs()).0))
    }

    /// The slot of `coarser` that `slot` of this resolution lies in; `None` when `coarser` is finer than this.
    pub fn coarsen(self, slot: Slot, coarser: Self) -> Option<Slot> {
        (self <= coarser).then(|| Slot(slot.0 / (coarser.secs() / self.secs())))
    }

    /// The resolution written as `code` (its discriminant); `None` when there is none.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|resolution| *resolution as u8 == code)
    }
}

/// The one instant a span is counted at: its start, but no later than an hour after `horizon`, the latest arrival.
///
/// A clock that runs ahead can so neither hide a span from "the last 15 minutes" for ever nor open slots without end.
pub fn counting_instant(start: UnixNanos, horizon: UnixNanos) -> UnixNanos {
    start.min(horizon.saturating_add(DurationNanos::from_secs(FUTURE_SECS_MAX)))
}

/// The same for any span: one without a start is counted at its end, one with neither when it came.
pub fn instant_of(span: &Span, horizon: UnixNanos) -> UnixNanos {
    let at = span.shown_start();
    if at.is_unset() { horizon } else { counting_instant(at, horizon) }
}
