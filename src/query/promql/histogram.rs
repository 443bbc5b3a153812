//! Native histograms: counts of the buckets of our HDR histograms, which `rate` and `avg` make fractions of.
//!
//! ```text
//! counts   bucket 17,408 (1.048576 ms ..): 3.5, ..                  as fine as latency is stored
//! cells    (1.048575 ms, 1.179647 ms]: 12.25, ..                    eight steps of a power of two: what answers show
//! le       "0.001048575", .. "+Inf"                                 the same steps, cumulative, in a fixed layout
//! ```

use std::sync::LazyLock;

use crate::latency::Bucket;
use crate::model::DurationNanos;

/// Steps of the classic layout, `+Inf` among them.
pub const N_BOUNDS: usize = 194;
/// Cells below the first power of two that is split in eight: 512 ns each, as wide as a bucket.
const NARROW_CELLS: u64 = 8;

/// The last nanoseconds of the classic layout's finite steps.
static BOUNDS_NANOS: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let split = (13..=36_u32).flat_map(|octave| (0..8).map(move |step| ((8 + step) << octave) / 8));
    split.chain([1 << 37]).map(|edge: u64| edge - 1).collect()
});

/// The texts of label `le`, ascending: one table for every answer (contract 3.3).
pub static BOUNDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let finite = BOUNDS_NANOS.iter().map(|nanos| seconds_text(*nanos));
    finite.chain(["+Inf".to_owned()]).collect()
});

/// Nanoseconds as seconds in plain decimal, without trailing zeros.
fn seconds_text(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The upper bounds of the classic layout in seconds.
pub fn bounds_secs() -> impl Iterator<Item = f64> {
    BOUNDS_NANOS.iter().map(|nanos| secs(*nanos)).chain([f64::INFINITY])
}

fn secs(nanos: u64) -> f64 {
    // The text and the number are the same to the last bit: nanoseconds below 2^53 are exact, and so is one division.
    precise(nanos) / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "latencies are below 2^42 ns")]
fn precise(number: u64) -> f64 {
    number as f64
}

/// The first bound of the classic layout that holds such a latency.
pub fn bound_of(latency: DurationNanos) -> usize {
    // Bounds end cells: the first one cell 15, at 2^13 ns.
    let bound = cell_of(latency.0).saturating_sub(2 * NARROW_CELLS - 1);
    usize::try_from(bound).map_or(N_BOUNDS - 1, |bound| bound.min(N_BOUNDS - 1))
}

/// The bucket of a native histogram of schema 3 that holds a latency, as Prometheus numbers them: bucket i reaches up to
/// 2^(i / 8) seconds.
pub fn exponential_bucket(latency: DurationNanos) -> i32 {
    let exact = (precise(latency.0.max(1)) / 1e9).log2() * 8.0;
    #[expect(clippy::cast_possible_truncation, reason = "latencies are below 2^64 ns")]
    let bucket = exact.ceil() as i32;
    bucket
}

/// A native histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Ascending by bucket.
    counts: Vec<(Bucket, f64)>,
    /// Of the latencies, in seconds.
    sum: f64,
}

/// One cell of an answer: above `lower` to `upper`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Not in it.
    pub lower: f64,
    /// In it.
    pub upper: f64,
    /// Spans, or a fraction of them.
    pub count: f64,
}

impl Histogram {
    /// Makes it one of counts that ascend by bucket, and the sum of the latencies, `factor` times.
    pub(super) fn set(&mut self, counts: impl Iterator<Item = (Bucket, u64)>, sum_ns: u128, factor: f64) {
        #[expect(clippy::cast_precision_loss, reason = "a double is what answers show")]
        let sum = sum_ns as f64 / 1e9 * factor;
        self.sum = sum;
        self.counts.clear();
        self.counts.extend(counts.map(|(bucket, count)| (bucket, precise(count) * factor)));
    }

    /// Spans, or a fraction of them.
    pub fn count(&self) -> f64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Of the latencies, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Adds what another one counted, `factor` times.
    pub fn add(&mut self, other: &Self, factor: f64) {
        let mut merged = Vec::with_capacity(self.counts.len() + other.counts.len());
        let mut own = self.counts.iter().copied().peekable();
        for (bucket, count) in &other.counts {
            while let Some(before) = own.next_if(|(own, _)| own < bucket) {
                merged.push(before);
            }
            let same = own.next_if(|(own, _)| own == bucket).map_or(0.0, |(_, count)| count);
            merged.push((*bucket, same + count * factor));
        }
        merged.extend(own);
        merged.retain(|(_, count)| *count != 0.0);
        self.counts = merged;
        self.sum += other.sum * factor;
    }

    /// The same, `factor` times.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let counts = self.counts.iter().map(|(bucket, count)| (*bucket, count * factor)).collect();
        Self { counts, sum: self.sum * factor }
    }

    /// What answers show: eight steps of each power of two, without empty ones.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<(u64, f64)> = Vec::new();
        for (bucket, count) in &self.counts {
            let number = cell_of(bucket.high().0);
            match cells.last_mut().filter(|(last, _)| *last == number) {
                Some((_, known)) => *known += count,
                None => cells.push((number, *count)),
            }
        }
        let edge = |number: u64| (precise(edge_of(number)) - 1.0) / 1e9;
        cells.into_iter().map(|(number, count)| Cell { lower: edge(number), upper: edge(number + 1), count }).collect()
    }

    /// The cumulative counts of the classic layout.
    pub fn cumulative(&self) -> Vec<f64> {
        let mut counts = vec![0.0; N_BOUNDS];
        for (bucket, count) in &self.counts {
            let bound = if Bucket::of(bucket.high()) == *bucket { bound_of(bucket.high()) } else { N_BOUNDS - 1 };
            if let Some(slot) = counts.get_mut(bound) {
                *slot += count;
            }
        }
        let mut sum = 0.0;
        for count in &mut counts {
            sum += *count;
            *count = sum;
        }
        counts
    }

    /// The quantile in seconds; `NaN` of nothing, infinite outside of [0, 1]. Linear within a bucket, which is narrower than
    /// a thousandth of the value.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let total = self.count();
        if quantile.is_nan() || total == 0.0 || total.is_nan() {
            return f64::NAN;
        }
        if quantile < 0.0 {
            return f64::NEG_INFINITY;
        }
        if 1.0 < quantile {
            return f64::INFINITY;
        }
        let (rank, mut below) = (quantile * total, 0.0);
        for (bucket, count) in &self.counts {
            if rank <= below + count {
                let (low, high) = (precise(bucket.low().0), precise(bucket.high().0));
                return (low + (high - low) * ((rank - below) / count).clamp(0.0, 1.0)) / 1e9;
            }
            below += count;
        }
        self.counts.last().map_or(f64::NAN, |(bucket, _)| precise(bucket.high().0) / 1e9)
    }

    /// In square seconds; what a bucket counts is taken to lie in its middle.
    pub fn variance(&self) -> f64 {
        let total = self.count();
        let mean = self.sum / total;
        let part = |(bucket, count): &(Bucket, f64)| {
            let middle = (precise(bucket.low().0) + precise(bucket.high().0)) / 2e9;
            count * (middle - mean) * (middle - mean)
        };
        self.counts.iter().map(part).sum::<f64>() / total
    }

    /// Which part of the spans took between `lower` and `upper` seconds; `NaN` of nothing.
    pub fn fraction(&self, lower: f64, upper: f64) -> f64 {
        let total = self.count();
        if total == 0.0 || lower.is_nan() || upper.is_nan() {
            return f64::NAN;
        }
        if upper <= lower {
            return 0.0;
        }
        let below = |secs: f64| -> f64 {
            let part = |(bucket, count): &(Bucket, f64)| {
                let (low, high) = (precise(bucket.low().0), precise(bucket.high().0));
                let width = (high - low).max(1.0);
                count * ((secs * 1e9 - low) / width).clamp(0.0, 1.0)
            };
            self.counts.iter().map(part).sum()
        };
        (below(upper) - below(lower)) / total
    }
}

/// The cell that a latency lies in.
fn cell_of(nanos: u64) -> u64 {
    match nanos.checked_ilog2() {
        Some(octave @ 12..) => NARROW_CELLS + u64::from(octave - 12) * 8 + ((nanos >> (octave - 3)) & 7),
        _ => nanos >> 9,
    }
}

/// The first nanosecond of a cell.
fn edge_of(cell: u64) -> u64 {
    match cell.checked_sub(NARROW_CELLS) {
        Some(above) => (8 + above % 8) << (12 + above / 8 - 3),
        None => cell << 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grafana_3_3_bounds_are_the_fixed_layout() {
        assert_eq!(BOUNDS.len(), N_BOUNDS);
        assert_eq!(BOUNDS.first().unwrap(), "0.000008191");
        assert_eq!(BOUNDS.get(1).unwrap(), "0.000009215");
        assert_eq!(BOUNDS.get(N_BOUNDS - 2).unwrap(), "137.438953471");
        assert_eq!(BOUNDS.last().unwrap(), "+Inf");
        for (text, secs) in BOUNDS.iter().zip(bounds_secs()).take(N_BOUNDS - 1) {
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), secs.to_bits(), "{text}");
        }
    }

    #[test]
    fn the_bound_of_a_latency_is_the_first_that_is_not_below_it() {
        for edge in BOUNDS_NANOS.iter().copied().chain([0, 1 << 12, 1 << 36, 1 << 42, u64::MAX - 1]) {
            for latency in edge.saturating_sub(1)..=edge + 1 {
                let expected = BOUNDS_NANOS.partition_point(|bound| *bound < latency);
                assert_eq!(bound_of(DurationNanos(latency)), expected, "{latency} ns");
            }
        }
    }

    #[test]
    fn a_cell_begins_where_the_one_before_ends() {
        for cell in 0..300 {
            let first = edge_of(cell);
            assert_eq!(cell_of(first), cell);
            assert_eq!(cell_of(edge_of(cell + 1) - 1), cell);
        }
        assert_eq!(edge_of(16), 1 << 13, "the first bound of the classic layout");
    }
}
