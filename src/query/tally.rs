//! What was counted for one group, or one step of time: a histogram, failures, and candidates for exemplars.

use crate::latency::{
    Bucket, Exemplar, Histogram, Quantile, QuantileAnswer, SlotLatency, SparseHistogram, keep_chosen,
};

/// Candidates after which the usual three of each band are chosen, so that their number is bounded.
const CANDIDATES_MAX: usize = 8_192;

/// A histogram being added up.
#[derive(Clone, Debug)]
enum Counts {
    /// 192 KiB, but quick to add to.
    Dense(Box<Histogram>),
    /// 16 bytes per bucket that was hit.
    Sparse(SparseHistogram),
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
        Self { counts: Counts::Dense(Box::default()), errors: 0, exemplars: Vec::new() }
    }

    /// For one of many.
    pub(super) fn sparse() -> Self {
        Self { counts: Counts::Sparse(SparseHistogram::default()), errors: 0, exemplars: Vec::new() }
    }

    pub(super) fn add(&mut self, latency: &SlotLatency, is_error: bool) {
        match &mut self.counts {
            Counts::Dense(histogram) => histogram.add(&latency.histogram),
            Counts::Sparse(histogram) => histogram.merge(&latency.histogram),
        }
        if is_error {
            self.errors += latency.histogram.count();
        }
        self.add_exemplars(&latency.exemplars);
    }

    pub(super) fn record(&mut self, exemplar: Exemplar, is_error: bool) {
        match &mut self.counts {
            Counts::Dense(histogram) => histogram.record(exemplar.latency),
            Counts::Sparse(histogram) => histogram.record(exemplar.latency),
        }
        self.errors += u64::from(is_error);
        self.add_exemplars(&[exemplar]);
    }

    fn add_exemplars(&mut self, exemplars: &[Exemplar]) {
        self.exemplars.extend_from_slice(exemplars);
        if CANDIDATES_MAX < self.exemplars.len() {
            keep_chosen(&mut self.exemplars);
        }
    }

    /// Adds all that another one counted.
    pub(super) fn add_tally(&mut self, other: &Self) {
        let slot = SlotLatency { histogram: other.sparse_histogram(), exemplars: other.exemplars.clone() };
        self.add(&slot, false);
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
        let histogram = SparseHistogram::from_parts(counts, sum_ns, saturated);
        Self { counts: Counts::Sparse(histogram), errors, exemplars: self.exemplars.clone() }
    }

    fn sparse_histogram(&self) -> SparseHistogram {
        match &self.counts {
            Counts::Dense(histogram) => SparseHistogram::from(&**histogram),
            Counts::Sparse(histogram) => histogram.clone(),
        }
    }

    pub(super) fn count(&self) -> u64 {
        match &self.counts {
            Counts::Dense(histogram) => histogram.count(),
            Counts::Sparse(histogram) => histogram.count(),
        }
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    pub(super) fn sum_ns(&self) -> u128 {
        match &self.counts {
            Counts::Dense(histogram) => histogram.sum_ns(),
            Counts::Sparse(histogram) => histogram.sum_ns(),
        }
    }

    pub(super) fn saturated(&self) -> u64 {
        match &self.counts {
            Counts::Dense(histogram) => histogram.saturated(),
            Counts::Sparse(histogram) => histogram.saturated(),
        }
    }

    pub(super) fn at(&self, quantile: Quantile) -> Option<QuantileAnswer> {
        match &self.counts {
            Counts::Dense(histogram) => histogram.at(quantile),
            Counts::Sparse(histogram) => histogram.at(quantile),
        }
    }

    /// How many are in `bucket` or above.
    pub(super) fn count_from(&self, bucket: Bucket) -> u64 {
        let above = |entries: &mut dyn Iterator<Item = (Bucket, u64)>| {
            entries.filter(|(hit, _)| bucket <= *hit).map(|(_, count)| count).sum()
        };
        match &self.counts {
            Counts::Dense(histogram) => above(&mut histogram.iter()),
            Counts::Sparse(histogram) => above(&mut histogram.entries().iter().copied()),
        }
    }

    /// The highest bucket that was hit.
    pub(super) fn slowest(&self) -> Option<Bucket> {
        match &self.counts {
            Counts::Dense(histogram) => histogram.iter().last().map(|(bucket, _)| bucket),
            Counts::Sparse(histogram) => histogram.entries().last().map(|(bucket, _)| *bucket),
        }
    }

    /// How many are in `bucket`.
    pub(super) fn count_in(&self, bucket: Bucket) -> u64 {
        match &self.counts {
            Counts::Dense(histogram) => histogram.count_of(bucket),
            Counts::Sparse(histogram) => histogram.count_of(bucket),
        }
    }

    /// Candidates whose bucket `wanted` names, the slowest first.
    pub(super) fn candidates(&self, wanted: impl Fn(Bucket) -> bool) -> Vec<Exemplar> {
        let mut found: Vec<Exemplar> = self.exemplars.iter().filter(|one| wanted(one.bucket())).copied().collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found
    }
}
