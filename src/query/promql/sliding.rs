//! Windows over the intervals of a histogram that move on: what comes in is added, what falls out subtracted.

use std::rc::Rc;

use super::histogram::Histogram;
use super::pile::Pile;
use crate::latency::Bucket;

/// The window last asked for.
pub(super) struct Sliding {
    /// That values are given times.
    factor: f64,
    start: usize,
    end: usize,
    /// Ascending by bucket.
    counts: Vec<(Bucket, u64)>,
    sum_ns: u128,
    last: Option<Rc<Histogram>>,
    /// Used again.
    changed: Vec<(Bucket, u64)>,
}

impl Sliding {
    pub(super) fn new(factor: f64) -> Self {
        let (start, end, counts, sum_ns, last, changed) = Default::default();
        Self { factor, start, end, counts, sum_ns, last, changed }
    }

    /// What was counted in the intervals of a window, whose entries ascend. Cost: what it counts, what comes in and what falls out.
    pub(super) fn window(&mut self, intervals: &[Option<Pile>], start: usize, end: usize) -> Rc<Histogram> {
        // What has nothing in common with the window before begins anew.
        if start < self.start || end < self.end || self.end <= start {
            self.counts.clear();
            (self.start, self.end, self.sum_ns, self.last) = (start, start, 0, None);
        }
        let of = |range: std::ops::Range<usize>| -> Vec<&Pile> {
            intervals.get(range).unwrap_or_default().iter().flatten().collect()
        };
        let (entering, leaving) = (of(self.end..end), of(self.start..start));
        (self.start, self.end) = (start, end);
        if let Some(same) = self.last.as_ref().filter(|_| entering.is_empty() && leaving.is_empty()) {
            return Rc::clone(same);
        }
        self.sum_ns += entering.iter().map(|pile| pile.sum_ns()).sum::<u128>();
        self.sum_ns = self.sum_ns.saturating_sub(leaving.iter().map(|pile| pile.sum_ns()).sum());
        self.change(&Together::of(&entering), &Together::of(&leaving));
        let new = Rc::new(Histogram::of(self.counts.iter().copied(), self.sum_ns, self.factor));
        self.last = Some(Rc::clone(&new));
        new
    }

    /// Makes the counts what they are with what enters and without what leaves, in one pass.
    fn change(&mut self, entering: &Together<'_>, leaving: &Together<'_>) {
        self.changed.clear();
        let (mut entering, mut leaving) = (entering.entries().peekable(), leaving.entries().peekable());
        let mut known = self.counts.iter().copied().peekable();
        loop {
            let places = [known.peek(), entering.peek(), leaving.peek()];
            let Some(bucket) = places.into_iter().flatten().map(|(bucket, _)| *bucket).min() else { break };
            let mut count = 0_u64;
            while let Some((_, before)) = known.next_if(|(of, _)| *of == bucket) {
                count = count.saturating_add(before);
            }
            while let Some((_, more)) = entering.next_if(|(of, _)| *of == bucket) {
                count = count.saturating_add(more);
            }
            while let Some((_, less)) = leaving.next_if(|(of, _)| *of == bucket) {
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
