//! The accumulator of queries: every bucket has its counter.

use super::{Bucket, Quantile, QuantileAnswer, SparseHistogram};
use crate::model::DurationNanos;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializeError, V2DeflateSerializer};
use std::fmt;

/// Counts of all buckets: 192 KiB, so make one and reuse it with `clear`.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64]>, // Bucket::COUNT of them
    count: u64,
    sum_ns: u128,
    saturated: u64,
}

/// A histogram that HdrHistogram's format cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// HdrHistogram was not made or filled; its layout no longer is ours.
    #[error("histogram does not fit HdrHistogram's layout: {0}")]
    Layout(String),
    /// A count above 2^63 - 1, or the encoder failed.
    #[error("histogram could not be written as HdrHistogram V2")]
    Encode(#[source] V2DeflateSerializeError),
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { counts: vec![0; Bucket::COUNT].into_boxed_slice(), count: 0, sum_ns: 0, saturated: 0 }
    }

    /// Forgets everything and keeps the memory. Cost: O(buckets), a few microseconds.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.count, self.sum_ns, self.saturated) = (0, 0, 0);
    }

    /// Counts one latency.
    pub fn record(&mut self, latency: DurationNanos) {
        self.record_n(latency, 1);
    }

    /// Counts `latency` `n` times.
    pub fn record_n(&mut self, latency: DurationNanos, n: u64) {
        self.count_in(Bucket::of(latency), n);
        self.sum_ns = self.sum_ns.saturating_add(u128::from(latency.0) * u128::from(n));
        if Bucket::saturates(latency) {
            self.saturated = self.saturated.saturating_add(n);
        }
    }

    /// Adds what a slot counted. Cost: O(entries).
    pub fn add(&mut self, slot: &SparseHistogram) {
        for (bucket, count) in slot.entries() {
            self.count_in(*bucket, *count);
        }
        self.add_totals(slot.sum_ns(), slot.saturated());
    }

    /// Adds what another histogram counted. Cost: O(buckets).
    pub fn add_all(&mut self, other: &Self) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours = ours.saturating_add(*theirs);
        }
        self.count = self.count.saturating_add(other.count);
        self.add_totals(other.sum_ns, other.saturated);
    }

    /// Latencies counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Exact sum of the latencies, saturated ones at their full length.
    pub fn sum_ns(&self) -> u128 {
        self.sum_ns
    }

    /// How many latencies were longer than `Bucket::TOP`, where they are counted.
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// How many latencies are in `bucket`.
    pub fn count_of(&self, bucket: Bucket) -> u64 {
        self.counts.get(usize::from(bucket.index())).copied().unwrap_or(0)
    }

    /// Latency at `quantile`; `None` when nothing was counted. Cost: O(buckets), a few microseconds.
    ///
    /// The value is the upper edge of its HDR bucket: never below the exact nearest-rank latency, and above it by at most
    /// 0.1 % or 511 ns, whichever is more. So it can exceed the largest sample. It is HdrHistogram's `value_at_quantile`
    /// for every quantile but 0, where that answers with the lower edge of the bucket.
    pub fn at(&self, quantile: Quantile) -> Option<QuantileAnswer> {
        if self.count == 0 {
            return None;
        }
        let rank = quantile.rank(self.count);
        let mut seen: u64 = 0;
        let index = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= rank
        })?;
        let bucket = Bucket::from_index(index as u64)?;
        Some(QuantileAnswer::new(bucket, rank, bucket == Bucket::TOP && self.saturated > 0))
    }

    /// The highest bucket that was hit. Cost: O(buckets).
    pub fn slowest(&self) -> Option<Bucket> {
        self.counts.iter().rposition(|count| 0 < *count).and_then(|index| Bucket::from_index(index as u64))
    }

    /// Buckets that were hit, ascending, each with its count (never 0). Cost: O(buckets) to walk all.
    pub fn iter(&self) -> impl Iterator<Item = (Bucket, u64)> + '_ {
        let buckets = (0..).map_while(Bucket::from_index);
        buckets.zip(self.counts.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// The counts as HdrHistogram V2 + DEFLATE, which other HdrHistogram tools read (lowest 1,000 ns, 3 digits, 1 h).
    ///
    /// Each latency stands at the lower edge of its bucket; the exact sum and the saturated count are not part of it.
    ///
    /// # Errors
    /// `Encode` when a count is above 2^63 - 1.
    pub fn to_hdr_v2_deflate(&self) -> Result<Vec<u8>, ExportError> {
        const HOUR: u64 = 3_600_000_000_000;
        let layout = |error: &dyn fmt::Display| ExportError::Layout(error.to_string());
        let mut hdr = hdrhistogram::Histogram::<u64>::new_with_bounds(1_000, HOUR, 3).map_err(|e| layout(&e))?;
        for (bucket, count) in self.iter() {
            hdr.record_n(bucket.low().0, count).map_err(|e| layout(&e))?;
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&hdr, &mut bytes).map_err(ExportError::Encode)?;
        Ok(bytes)
    }

    fn count_in(&mut self, bucket: Bucket, n: u64) {
        if let Some(count) = self.counts.get_mut(usize::from(bucket.index())) {
            *count = count.saturating_add(n);
            self.count = self.count.saturating_add(n);
        }
    }

    fn add_totals(&mut self, sum_ns: u128, saturated: u64) {
        self.sum_ns = self.sum_ns.saturating_add(sum_ns);
        self.saturated = self.saturated.saturating_add(saturated);
    }
}

impl From<&Histogram> for SparseHistogram {
    fn from(dense: &Histogram) -> Self {
        let mut sparse = Self::default();
        for (bucket, count) in dense.iter() {
            sparse.push(bucket, count);
        }
        sparse.set_totals(dense.sum_ns, dense.saturated);
        sparse
    }
}
