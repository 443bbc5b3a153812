//! Quantiles of any numbers, from a histogram whose buckets are narrow everywhere.
//!
//! A bucket holds the doubles with the same sign, exponent and upper 10 bits of the fraction: 1,024 to each power of two, as
//! HdrHistogram has with 3 digits, for negative numbers as well. Whole numbers below 2,048 have buckets of their own. A quantile
//! is the largest number that was met in its bucket: never below the exact one, above it by less than 0.1 %.

use crate::latency::Quantile;

/// Bits of the fraction that a bucket does not tell apart.
const REST_BITS: u32 = f64::MANTISSA_DIGITS - 1 - 10;
/// What waits to be sorted in, at least.
const ADDED_MAX: usize = 32;

/// A bucket, in the order of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ValueBucket(u64);

/// The order of doubles as an order of whole numbers: negative ones are turned around.
fn ordered(value: f64) -> u64 {
    // -0 is 0.
    let bits = (value + 0.0).to_bits();
    if bits >> (u64::BITS - 1) == 0 { bits | 1 << (u64::BITS - 1) } else { !bits }
}

impl ValueBucket {
    /// The bucket of a number.
    pub(super) fn of(value: f64) -> Self {
        Self(ordered(value) >> REST_BITS)
    }
}

/// A bucket that was hit.
#[derive(Clone, Copy, Debug)]
struct Hit {
    bucket: ValueBucket,
    count: u64,
    largest: f64,
}

/// Counts of the buckets that were hit.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueHistogram {
    /// Ascending.
    settled: Vec<Hit>,
    /// In no order.
    added: Vec<f64>,
}

impl ValueHistogram {
    /// Counts a number, which is not NaN. Gives how many buckets it grew by.
    pub(super) fn record(&mut self, value: f64) -> usize {
        self.added.push(value);
        if self.added.len() < self.settled.len().max(ADDED_MAX) { 0 } else { self.settle() }
    }

    /// Sorts in what was added; gives how many buckets are new.
    pub(super) fn settle(&mut self) -> usize {
        let before = self.settled.len();
        self.added.sort_unstable_by_key(|value| ordered(*value));
        let mut merged: Vec<Hit> = Vec::with_capacity(before + self.added.len());
        let mut old = std::mem::take(&mut self.settled).into_iter().peekable();
        for value in self.added.drain(..) {
            let bucket = ValueBucket::of(value);
            while let Some(hit) = old.next_if(|hit| hit.bucket <= bucket) {
                merged.push(hit);
            }
            match merged.last_mut() {
                Some(last) if last.bucket == bucket => {
                    last.count = last.count.saturating_add(1);
                    last.largest = last.largest.max(value);
                }
                _ => merged.push(Hit { bucket, count: 1, largest: value }),
            }
        }
        merged.extend(old);
        self.added.shrink_to(merged.len().max(ADDED_MAX));
        merged.shrink_to_fit();
        self.settled = merged;
        self.settled.len() - before
    }

    /// The nearest-rank quantile of what was settled, and its bucket; `None` when nothing was.
    pub(super) fn at(&self, quantile: Quantile) -> Option<(f64, ValueBucket)> {
        let count = self.settled.iter().fold(0_u64, |sum, hit| sum.saturating_add(hit.count));
        let rank = quantile.rank(count);
        let mut seen = 0_u64;
        let hit = self.settled.iter().find(|hit| {
            seen = seen.saturating_add(hit.count);
            rank <= seen
        })?;
        Some((hit.largest, hit.bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quantile(q: f64) -> Quantile {
        Quantile::try_from(q).expect("between 0 and 1")
    }

    fn histogram(values: &[f64]) -> ValueHistogram {
        let mut histogram = ValueHistogram::default();
        let grown: usize = values.iter().map(|value| histogram.record(*value)).sum();
        let grown = grown + histogram.settle();
        assert_eq!(grown, histogram.settled.len());
        histogram
    }

    #[test]
    fn whole_numbers_below_2048_are_exact() {
        let values: Vec<f64> = (-2_047..2_048).map(f64::from).collect();
        let histogram = histogram(&values);
        for (rank, value) in (1_u32..).zip(&values) {
            let q = (f64::from(rank) - 0.5) / values.len() as f64;
            assert_eq!(histogram.at(quantile(q)).map(|at| at.0), Some(*value), "{q}");
        }
        assert_eq!(ValueBucket::of(0.0), ValueBucket::of(-0.0));
    }

    #[test]
    fn infinities_are_the_ends() {
        let histogram = histogram(&[1.0, f64::INFINITY, f64::NEG_INFINITY]);
        let at = |q| histogram.at(quantile(q)).map(|at| at.0);
        assert_eq!((at(0.0), at(0.5), at(1.0)), (Some(f64::NEG_INFINITY), Some(1.0), Some(f64::INFINITY)));
        assert_eq!(ValueHistogram::default().at(quantile(0.5)), None);
    }

    proptest! {
        /// Small numbers are whole or not, large ones of any size, some negative.
        #[test]
        fn a_quantile_is_a_number_that_was_met_and_at_most_a_thousandth_above_the_exact_one(
            values in prop::collection::vec(prop_oneof![-3_000.0..3_000.0, (-5_i32..5).prop_map(f64::from), -1e300..1e300, 1e-9..1e-3], 1..400),
            q in 0.0..=1.0,
        ) {
            let (found, bucket) = histogram(&values).at(quantile(q)).expect("something was counted");
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let exact = sorted[usize::try_from(quantile(q).rank(values.len() as u64)).expect("a rank") - 1];
            prop_assert!(values.contains(&found));
            prop_assert!(exact <= found && found - exact <= exact.abs() * 0.001, "{found} for {exact}");
            prop_assert_eq!(bucket, ValueBucket::of(exact));
        }
    }
}
