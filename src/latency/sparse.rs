//! The histogram of a closed slot.

use super::{Bucket, Quantile, QuantileAnswer};
use crate::model::DurationNanos;
use std::cmp::Ordering;

/// Counts of the buckets that were hit, in order, and the exact sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseHistogram {
    entries: Vec<(Bucket, u64)>, // ascending, counts > 0, their sum fits into u64
    sum_ns: u128,
    saturated: u64, // <= the count of Bucket::TOP
}

impl SparseHistogram {
    /// Counts one latency. Cost: O(1) when latencies come in ascending order, else O(entries).
    pub fn record(&mut self, latency: DurationNanos) {
        let bucket = Bucket::of(latency);
        self.sum_ns = self.sum_ns.saturating_add(u128::from(latency.0));
        self.saturated += u64::from(Bucket::saturates(latency));
        let place = match self.entries.last() {
            Some((last, _)) if *last >= bucket => self.entries.binary_search_by_key(&bucket, |entry| entry.0),
            _ => Err(self.entries.len()),
        };
        match place {
            Ok(at) => {
                if let Some((_, count)) = self.entries.get_mut(at) {
                    *count += 1;
                }
            }
            Err(at) => self.entries.insert(at, (bucket, 1)),
        }
    }

    /// Makes this the histogram of everything that either has counted. Cost: O(entries of both).
    pub fn merge(&mut self, other: &Self) {
        let mut merged = Vec::with_capacity(self.entries.len() + other.entries.len());
        let (mut ours, mut theirs) =
            (self.entries.iter().copied().peekable(), other.entries.iter().copied().peekable());
        while let (Some(our), Some(their)) = (ours.peek().copied(), theirs.peek().copied()) {
            merged.push(match our.0.cmp(&their.0) {
                Ordering::Less => our,
                Ordering::Greater => their,
                Ordering::Equal => (our.0, our.1.saturating_add(their.1)),
            });
            ours.next_if(|entry| entry.0 <= their.0);
            theirs.next_if(|entry| entry.0 <= our.0);
        }
        merged.extend(ours.chain(theirs));
        self.entries = merged;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.saturated = self.saturated.saturating_add(other.saturated);
    }

    /// Buckets that were hit, ascending, each with its count (never 0).
    pub fn entries(&self) -> &[(Bucket, u64)] {
        &self.entries
    }

    /// Latencies counted. Cost: O(entries).
    pub fn count(&self) -> u64 {
        self.entries.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Exact sum of the latencies, saturated ones at their full length.
    pub fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    /// How many latencies were longer than `Bucket::TOP`.
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// Latency at `quantile`, as `Histogram::at` gives it; `None` when nothing was counted. Cost: O(entries).
    pub fn at(&self, quantile: Quantile) -> Option<QuantileAnswer> {
        QuantileAnswer::among(self.entries.iter().copied(), self.count(), self.saturated, quantile)
    }

    /// Whether `bucket` was hit. Cost: O(log entries).
    pub fn contains(&self, bucket: Bucket) -> bool {
        self.entries.binary_search_by_key(&bucket, |entry| entry.0).is_ok()
    }

    /// How often `bucket` was hit. Cost: O(log entries).
    pub fn count_of(&self, bucket: Bucket) -> u64 {
        let found = self.entries.binary_search_by_key(&bucket, |entry| entry.0).ok();
        found.and_then(|at| self.entries.get(at)).map_or(0, |(_, count)| *count)
    }

    /// A histogram of these counts, which ascend by bucket; those of 0 are left out.
    pub fn from_parts(mut entries: Vec<(Bucket, u64)>, sum_ns: u128, saturated: u64) -> Self {
        entries.retain(|(_, count)| 0 < *count);
        Self { entries, sum_ns, saturated }
    }

    /// What the lower edges of the buckets add up to: the least that the sum can be.
    pub(super) fn sum_of_lows(&self) -> u128 {
        self.entries.iter().map(|(bucket, count)| u128::from(bucket.low().0) * u128::from(*count)).sum()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        (self.sum_ns, self.saturated) = (0, 0);
    }

    /// Appends a bucket above all others, with its count, not 0.
    pub(super) fn push(&mut self, bucket: Bucket, count: u64) {
        debug_assert!(count > 0 && self.entries.last().is_none_or(|(last, _)| *last < bucket));
        self.entries.push((bucket, count));
    }

    pub(super) fn set_totals(&mut self, sum_ns: u128, saturated: u64) {
        (self.sum_ns, self.saturated) = (sum_ns, saturated);
    }
}
