//! A range cut into the intervals whose ends are the points of a metrics query.

use super::POINTS_MAX;
use crate::model::{DurationNanos, TimeRange, UnixNanos};
use crate::query::QueryError;

/// The intervals of a question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    first_end: u64,
    /// In nanoseconds.
    pub(super) step: u64,
    /// How many: at most `POINTS_MAX`.
    pub(super) n: u64,
}

impl Intervals {
    pub(super) fn of(range: TimeRange, step: DurationNanos) -> Result<Self, QueryError> {
        let (start, end) = (range.start.0, range.end.0);
        if end <= start {
            return Err(QueryError::EmptyWindow { start, end });
        }
        if end - start <= step.0 {
            return Ok(Self { first_end: end, step: end - start, n: 1 });
        }
        let step = step.0.max(1);
        let first = start / step;
        let points = end.div_ceil(step) - first + 1;
        if POINTS_MAX < points {
            return Err(QueryError::TooManyPoints { points });
        }
        Ok(Self { first_end: first * step, step, n: points })
    }

    /// Every instant that lies in one.
    pub(super) fn range(self) -> TimeRange {
        let start = (self.first_end + 1).saturating_sub(self.step);
        TimeRange {
            start: UnixNanos(start),
            end: UnixNanos(self.end(self.numbers().end.saturating_sub(1)).0.saturating_add(1)),
        }
    }

    /// Number of the interval that holds an instant of `range`, from 0.
    pub(super) fn containing(self, at: UnixNanos) -> u32 {
        u32::try_from(at.0.saturating_sub(self.first_end).div_ceil(self.step)).unwrap_or(u32::MAX)
    }

    /// The same, when `last` is a number that it gave: spans that lie together are mostly counted together, and a division
    /// costs more than everything else that is done with one.
    #[inline]
    pub(super) fn containing_near(self, at: UnixNanos, last: (u32, UnixNanos)) -> (u32, UnixNanos) {
        let (_, end) = last;
        if at <= end && end.0 - at.0 < self.step {
            return last;
        }
        let number = self.containing(at);
        (number, self.end(number))
    }

    /// The last instant of an interval, which stands for it.
    pub(super) fn end(self, interval: u32) -> UnixNanos {
        UnixNanos(self.first_end.saturating_add(u64::from(interval).saturating_mul(self.step)))
    }

    /// All of them.
    pub(super) fn numbers(self) -> std::ops::Range<u32> {
        0..u32::try_from(self.n).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(start: u64, end: u64, step: u64) -> (Vec<u64>, Intervals) {
        let range = TimeRange { start: UnixNanos(start), end: UnixNanos(end) };
        let intervals = Intervals::of(range, DurationNanos(step)).unwrap();
        (intervals.numbers().map(|at| intervals.end(at).0).collect(), intervals)
    }

    #[test]
    fn points_are_the_ends_of_intervals_from_the_step_before_the_start_to_the_step_behind_the_end() {
        assert_eq!(intervals(100, 130, 10).0, [100, 110, 120, 130]);
        assert_eq!(intervals(101, 129, 10).0, [100, 110, 120, 130]);
        assert_eq!(intervals(101, 129, 28).0, [129], "a step as long as the range is one interval");
        let (_, whole) = intervals(101, 129, 10);
        assert_eq!(whole.range(), TimeRange { start: UnixNanos(91), end: UnixNanos(131) });
        let of = |at| whole.containing(UnixNanos(at));
        assert_eq!([of(91), of(100), of(101), of(110), of(111), of(130)], [0, 0, 1, 1, 2, 3]);
        let range = TimeRange { start: UnixNanos(0), end: UnixNanos(11_000) };
        assert!(matches!(Intervals::of(range, DurationNanos(1)), Err(QueryError::TooManyPoints { points: 11_001 })));
    }
}
