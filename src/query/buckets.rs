//! Counts of the buckets that were hit, each with a lead to where it was counted last: 24 bytes for each.

use std::borrow::Cow;

use crate::latency::{Bucket, Quantile, QuantileAnswer, SparseHistogram};
use crate::model::DurationNanos;

use super::walk::Lead;

/// What waits to be merged, at least.
const ADDED_MAX: usize = 32;

/// A bucket that was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    bucket: Bucket,
    lead: Lead,
    count: u64,
}

/// See the module page.
#[derive(Clone, Debug, Default)]
pub(super) struct Buckets {
    /// One for each bucket, ascending.
    settled: Vec<Hit>,
    /// In no order: to merge slot by slot would go through all buckets for each of them.
    added: Vec<Hit>,
    count: u64,
    sum_ns: u128,
    saturated: u64,
}

impl Buckets {
    /// Counts that ascend by bucket, and lead nowhere; those of 0 are left out.
    pub(super) fn from_parts(entries: &[(Bucket, u64)], sum_ns: u128, saturated: u64) -> Self {
        let hits = entries.iter().map(|(bucket, count)| Hit { bucket: *bucket, lead: Lead::NOWHERE, count: *count });
        let settled: Vec<Hit> = hits.filter(|hit| 0 < hit.count).collect();
        let count = settled.iter().fold(0, |sum: u64, hit| sum.saturating_add(hit.count));
        Self { settled, added: Vec::new(), count, sum_ns, saturated }
    }

    pub(super) fn add(&mut self, histogram: &SparseHistogram, lead: Lead) {
        for (bucket, count) in histogram.entries() {
            self.hit(Hit { bucket: *bucket, lead, count: *count });
        }
        self.add_totals(histogram.sum_ns(), histogram.saturated());
    }

    pub(super) fn record(&mut self, latency: DurationNanos) {
        self.hit(Hit { bucket: Bucket::of(latency), lead: Lead::NOWHERE, count: 1 });
        self.add_totals(u128::from(latency.0), u64::from(Bucket::saturates(latency)));
    }

    fn hit(&mut self, hit: Hit) {
        self.count = self.count.saturating_add(hit.count);
        self.added.push(hit);
        if self.settled.len().max(ADDED_MAX) < self.added.len() {
            self.settle();
        }
    }

    fn add_totals(&mut self, sum_ns: u128, saturated: u64) {
        self.sum_ns = self.sum_ns.saturating_add(sum_ns);
        self.saturated = self.saturated.saturating_add(saturated);
    }

    /// Merges what was added, so that reading costs less.
    pub(super) fn settle(&mut self) {
        if !self.added.is_empty() {
            self.settled = self.merged();
            self.added = Vec::new();
        }
    }

    fn merged(&self) -> Vec<Hit> {
        let mut all = self.settled.clone();
        all.extend_from_slice(&self.added);
        all.sort_unstable();
        all.dedup_by(|later, kept| {
            let is_same = later.bucket == kept.bucket;
            if is_same {
                (kept.count, kept.lead) = (kept.count.saturating_add(later.count), later.lead);
            }
            is_same
        });
        all
    }

    fn hits(&self) -> Cow<'_, [Hit]> {
        if self.added.is_empty() { Cow::Borrowed(&self.settled) } else { Cow::Owned(self.merged()) }
    }

    pub(super) fn histogram(&self) -> SparseHistogram {
        let entries = self.hits().iter().map(|hit| (hit.bucket, hit.count)).collect();
        SparseHistogram::from_parts(entries, self.sum_ns, self.saturated)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    pub(super) fn saturated(&self) -> u64 {
        self.saturated
    }

    pub(super) fn at(&self, quantile: Quantile) -> Option<QuantileAnswer> {
        let hits = self.hits();
        let entries = hits.iter().map(|hit| (hit.bucket, hit.count));
        QuantileAnswer::among(entries, self.count, self.saturated, quantile)
    }

    /// How many are in `bucket` or above.
    pub(super) fn count_from(&self, bucket: Bucket) -> u64 {
        self.hits().iter().filter(|hit| bucket <= hit.bucket).map(|hit| hit.count).sum()
    }

    /// How many are in `bucket`, and where one of them was counted.
    pub(super) fn of(&self, bucket: Bucket) -> (u64, Lead) {
        let hits = self.hits();
        let found = hits.binary_search_by_key(&bucket, |hit| hit.bucket).ok().and_then(|at| hits.get(at));
        found.map_or((0, Lead::NOWHERE), |hit| (hit.count, hit.lead))
    }

    /// The highest bucket that was hit.
    pub(super) fn slowest(&self) -> Option<Bucket> {
        self.hits().last().map(|hit| hit.bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Settled or not, they are what a histogram of the same slots is.
        #[test]
        fn buckets_are_the_merged_histogram(slots in prop::collection::vec(prop::collection::vec(0_u64..1 << 43, 0..40), 0..20), q in 0.0..=1.0, settle in any::<bool>()) {
            let (mut buckets, mut expected) = (Buckets::default(), SparseHistogram::default());
            for slot in slots {
                let mut histogram = SparseHistogram::default();
                for ns in slot {
                    histogram.record(DurationNanos(ns));
                }
                expected.merge(&histogram);
                buckets.add(&histogram, Lead::NOWHERE);
            }
            if settle {
                buckets.settle();
            }
            let quantile = Quantile::try_from(q).expect("between 0 and 1");
            prop_assert_eq!(buckets.histogram(), expected.clone());
            prop_assert_eq!(buckets.at(quantile), expected.at(quantile));
            prop_assert_eq!(buckets.count(), expected.count());
            prop_assert_eq!(buckets.slowest(), expected.entries().last().map(|entry| entry.0));
            for (bucket, count) in expected.entries() {
                prop_assert_eq!(buckets.of(*bucket).0, *count);
            }
        }
    }
}
