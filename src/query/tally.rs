//! What was counted for one group, or one step of time: a histogram, failures, and candidates for exemplars.

use std::ops::RangeInclusive;

use crate::latency::{
    Bucket, Exemplar, Histogram, Quantile, QuantileAnswer, SlotLatency, SparseHistogram, keep_chosen,
};
use crate::model::DurationNanos;

use super::buckets::Buckets;
use super::walk::Lead;

/// Candidates after which the usual three of each band are chosen, so that their number is bounded: 256 KiB of them.
const CANDIDATES_MAX: usize = 16_384;
/// The same for one of many.
const CANDIDATES_OF_ONE_MAX: usize = 4_096;

/// A histogram being added up, and for each bucket a place where it was counted.
#[derive(Clone, Debug)]
enum Counts {
    /// 384 KiB, but quick to add to.
    Dense { histogram: Box<Histogram>, leads: Box<[Lead]> },
    /// 24 bytes per bucket that was hit.
    Sparse(Buckets),
}

/// See the module page.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    counts: Counts,
    errors: u64,
    /// Their blocks are numbered throughout the question, see `Places`.
    exemplars: Vec<Exemplar>,
}

impl Tally {
    /// For the one that everything is added to.
    pub(super) fn dense() -> Self {
        let leads = vec![Lead::NOWHERE; Bucket::COUNT].into_boxed_slice();
        Self { counts: Counts::Dense { histogram: Box::default(), leads }, errors: 0, exemplars: Vec::new() }
    }

    /// For one of many.
    pub(super) fn sparse() -> Self {
        Self { counts: Counts::Sparse(Buckets::default()), errors: 0, exemplars: Vec::new() }
    }

    /// Adds a slot that `lead` leads to.
    pub(super) fn add(&mut self, latency: &SlotLatency, is_error: bool, lead: Lead) {
        match &mut self.counts {
            Counts::Dense { histogram, leads } => {
                histogram.add(&latency.histogram);
                for (bucket, _) in latency.histogram.entries().iter().filter(|_| lead != Lead::NOWHERE) {
                    if let Some(known) = leads.get_mut(usize::from(bucket.index())) {
                        *known = lead.max(*known);
                    }
                }
            }
            Counts::Sparse(buckets) => buckets.add(&latency.histogram, lead),
        }
        if is_error {
            self.errors += latency.histogram.count();
        }
        self.add_exemplars(&latency.exemplars);
    }

    pub(super) fn record(&mut self, exemplar: Exemplar, is_error: bool) {
        match &mut self.counts {
            Counts::Dense { histogram, .. } => histogram.record(exemplar.latency),
            Counts::Sparse(buckets) => buckets.record(exemplar.latency),
        }
        self.errors += u64::from(is_error);
        self.add_exemplars(&[exemplar]);
    }

    /// Says that nothing more will be added, so that reading costs less.
    pub(super) fn settle(&mut self) {
        if let Counts::Sparse(buckets) = &mut self.counts {
            buckets.settle();
        }
    }

    fn add_exemplars(&mut self, exemplars: &[Exemplar]) {
        self.exemplars.extend_from_slice(exemplars);
        let most = match self.counts {
            Counts::Dense { .. } => CANDIDATES_MAX,
            Counts::Sparse(_) => CANDIDATES_OF_ONE_MAX,
        };
        if most < self.exemplars.len() {
            keep_chosen(&mut self.exemplars);
        }
    }

    /// Adds all that another one counted.
    pub(super) fn add_tally(&mut self, other: &Self) {
        let slot = SlotLatency { histogram: other.sparse_histogram(), exemplars: other.exemplars.clone() };
        self.add(&slot, false, Lead::NOWHERE);
        self.errors += other.errors;
    }

    /// What is left when `parts`, each a part of this, are taken away; the candidates stay.
    pub(super) fn without<'a>(&self, parts: impl Iterator<Item = &'a Self>) -> Self {
        let mut counts: Vec<(Bucket, u64)> = self.sparse_histogram().entries().to_vec();
        let (mut errors, mut sum_ns, mut saturated) = (self.errors, self.sum_ns(), self.saturated());
        for part in parts {
            for (bucket, count) in part.sparse_histogram().entries() {
                if let Ok(at) = counts.binary_search_by_key(bucket, |entry| entry.0)
                    && let Some((_, left)) = counts.get_mut(at)
                {
                    *left = left.saturating_sub(*count);
                }
            }
            errors = errors.saturating_sub(part.errors);
            sum_ns = sum_ns.saturating_sub(part.sum_ns());
            saturated = saturated.saturating_sub(part.saturated());
        }
        let buckets = Buckets::from_parts(&counts, sum_ns, saturated);
        Self { counts: Counts::Sparse(buckets), errors, exemplars: self.exemplars.clone() }
    }

    fn sparse_histogram(&self) -> SparseHistogram {
        match &self.counts {
            Counts::Dense { histogram, .. } => SparseHistogram::from(&**histogram),
            Counts::Sparse(buckets) => buckets.histogram(),
        }
    }

    pub(super) fn count(&self) -> u64 {
        match &self.counts {
            Counts::Dense { histogram, .. } => histogram.count(),
            Counts::Sparse(buckets) => buckets.count(),
        }
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    pub(super) fn sum_ns(&self) -> u128 {
        match &self.counts {
            Counts::Dense { histogram, .. } => histogram.sum_ns(),
            Counts::Sparse(buckets) => buckets.sum_ns(),
        }
    }

    pub(super) fn saturated(&self) -> u64 {
        match &self.counts {
            Counts::Dense { histogram, .. } => histogram.saturated(),
            Counts::Sparse(buckets) => buckets.saturated(),
        }
    }

    pub(super) fn at(&self, quantile: Quantile) -> Option<QuantileAnswer> {
        match &self.counts {
            Counts::Dense { histogram, .. } => histogram.at(quantile),
            Counts::Sparse(buckets) => buckets.at(quantile),
        }
    }

    /// How many are in `bucket` or above.
    pub(super) fn count_from(&self, bucket: Bucket) -> u64 {
        match &self.counts {
            Counts::Dense { histogram, .. } => {
                histogram.iter().filter(|(hit, _)| bucket <= *hit).map(|(_, count)| count).sum()
            }
            Counts::Sparse(buckets) => buckets.count_from(bucket),
        }
    }

    /// The highest bucket that was hit.
    pub(super) fn slowest(&self) -> Option<Bucket> {
        match &self.counts {
            Counts::Dense { histogram, .. } => histogram.slowest(),
            Counts::Sparse(buckets) => buckets.slowest(),
        }
    }

    /// How many are in `bucket`, and a lead to one of them.
    pub(super) fn of(&self, bucket: Bucket) -> (u64, Lead) {
        match &self.counts {
            Counts::Dense { histogram, leads } => {
                let lead = leads.get(usize::from(bucket.index())).copied();
                (histogram.count_of(bucket), lead.unwrap_or_default())
            }
            Counts::Sparse(buckets) => buckets.of(bucket),
        }
    }

    /// Candidates with these latencies, the slowest first.
    pub(super) fn candidates(&self, within: &RangeInclusive<DurationNanos>) -> Vec<Exemplar> {
        let mut found: Vec<Exemplar> =
            self.exemplars.iter().filter(|one| within.contains(&one.latency)).copied().collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found
    }
}
