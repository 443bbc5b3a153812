//! Windows over the intervals of a histogram that move on: what comes in is added, what falls out subtracted.

use std::ops::Range;
use std::rc::Rc;

use super::histogram::Histogram;
use super::pile::Pile;
use crate::latency::Bucket;

/// So few intervals are put together as fast as a window moves on.
const FEW: usize = 2;

/// The window last asked for.
pub(super) struct Sliding<'a> {
    /// Their entries ascend.
    intervals: &'a [Option<Pile>],
    /// That values are given times.
    factor: f64,
    window: Range<usize>,
    /// Ascending by bucket.
    counts: Vec<(Bucket, u64)>,
    sum_ns: u128,
    histogram: Histogram,
    shared: Option<Rc<Histogram>>,
    /// Used again.
    changed: Vec<(Bucket, u64)>,
}

impl<'a> Sliding<'a> {
    pub(super) fn over(intervals: &'a [Option<Pile>], factor: f64) -> Self {
        let (window, counts, sum_ns, histogram, shared, changed) = Default::default();
        Self { intervals, factor, window, counts, sum_ns, histogram, shared, changed }
    }

    /// What was counted in the intervals of a window. Cost: what it counts, what comes in and what falls out.
    pub(super) fn window(&mut self, start: usize, end: usize) -> &Histogram {
        let before = std::mem::replace(&mut self.window, start..end);
        let goes_on = before.start <= start && before.end <= end && start < before.end;
        let (entering, leaving) = if goes_on && FEW < end - start {
            (self.piles(before.end..end), self.piles(before.start..start))
        } else {
            self.counts.clear();
            self.sum_ns = 0;
            (self.piles(start..end), Vec::new())
        };
        let is_changed = !entering.is_empty() || !leaving.is_empty() || self.counts.is_empty();
        if is_changed {
            self.sum_ns += entering.iter().map(|pile| pile.sum_ns()).sum::<u128>();
            self.sum_ns = self.sum_ns.saturating_sub(leaving.iter().map(|pile| pile.sum_ns()).sum());
            self.change(&Together::of(&entering), &Together::of(&leaving));
            self.histogram.set(self.counts.iter().copied(), self.sum_ns, self.factor);
            self.shared = None;
        }
        &self.histogram
    }

    /// The same to be kept; windows that follow each other and are alike share one.
    pub(super) fn shared(&mut self, start: usize, end: usize) -> Rc<Histogram> {
        let _moved_on = self.window(start, end);
        Rc::clone(self.shared.get_or_insert_with(|| Rc::new(self.histogram.clone())))
    }

    fn piles(&self, range: Range<usize>) -> Vec<&'a Pile> {
        self.intervals.get(range).unwrap_or_default().iter().flatten().collect()
    }

    /// Makes the counts what they are with what enters and without what leaves, in one pass.
    fn change(&mut self, entering: &Together<'_>, leaving: &Together<'_>) {
        if self.counts.is_empty() {
            return self.counts.extend(entering.entries());
        }
        self.changed.clear();
        let (mut entering, mut leaving) = (entering.entries().peekable(), leaving.entries().peekable());
        let mut known = self.counts.iter().copied().peekable();
        loop {
            let places = [known.peek(), entering.peek(), leaving.peek()];
            let Some(bucket) = places.into_iter().flatten().map(|(bucket, _)| *bucket).min() else { break };
            let is_here = |(of, _): &(Bucket, u64)| *of == bucket;
            let mut count = known.next_if(is_here).map_or(0, |(_, before)| before);
            while let Some((_, more)) = entering.next_if(is_here) {
                count = count.saturating_add(more);
            }
            while let Some((_, less)) = leaving.next_if(is_here) {
                count = count.saturating_sub(less);
            }
            if 0 < count {
                self.changed.push((bucket, count));
            }
        }
        std::mem::swap(&mut self.counts, &mut self.changed);
    }
}

/// Piles as one that ascends.
enum Together<'a> {
    One(&'a Pile),
    Many(Pile),
}

impl<'a> Together<'a> {
    fn of(piles: &[&'a Pile]) -> Self {
        match piles {
            [one] => Self::One(one),
            many => Self::Many(Pile::of(many).sorted()),
        }
    }

    fn entries(&self) -> impl Iterator<Item = (Bucket, u64)> {
        match self {
            Self::One(one) => one.entries(),
            Self::Many(all) => all.entries(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::SparseHistogram;
    use crate::model::DurationNanos;

    #[test]
    fn a_window_counts_what_its_intervals_count_wherever_the_one_before_was() {
        let pile = |number: u64| {
            let mut slot = SparseHistogram::default();
            for span in 0..number % 7 {
                slot.record(DurationNanos((number * 31 + span * 17) % 23 * 1_000_000));
            }
            let mut pile = Pile::default();
            pile.add(&slot);
            (number % 5 != 3).then(|| pile.sorted())
        };
        let intervals: Vec<Option<Pile>> = (0..40).map(pile).collect();
        for (length, step) in [(1, 1), (2, 1), (2, 3), (5, 1), (5, 2), (9, 30), (40, 1)] {
            let mut sliding = Sliding::over(&intervals, 0.5);
            for end in (0..=40_usize).step_by(step) {
                let start = end.saturating_sub(length);
                let mut expected = Histogram::default();
                let piles: Vec<&Pile> = intervals[start..end].iter().flatten().collect();
                let all = Pile::of(&piles).sorted();
                expected.set(all.entries(), all.sum_ns(), 0.5);
                assert_eq!(*sliding.window(start, end), expected, "{start}..{end}");
                assert_eq!(*sliding.shared(start, end), expected, "{start}..{end} again");
            }
        }
    }
}
