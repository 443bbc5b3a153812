//! Quantiles: which rank they mean, and what an answer states about itself.

use super::Bucket;
use crate::model::DurationNanos;

/// A number in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Quantile(f64); // in [0.0, 1.0], never NaN

/// A quantile outside [0, 1], or not a number.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("quantile {value} is not between 0 and 1")]
pub struct QuantileOutOfRange {
    /// What was asked for.
    pub value: f64,
}

impl TryFrom<f64> for Quantile {
    type Error = QuantileOutOfRange;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        if (0.0..=1.0).contains(&value) { Ok(Self(value)) } else { Err(QuantileOutOfRange { value }) }
    }
}

impl Quantile {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Nearest rank among `count` values in ascending order: `ceil(q * count)`, in `[1, count]`; 0 when there are none.
    ///
    /// The product is one `f64` multiplication, as in HdrHistogram's `value_at_quantile`, whose ranks these are. It rounds
    /// most decimal noise away (0.1 of 10 values is rank 1 although the `f64` is above a tenth), but not all: 0.07 of 100
    /// values is rank 8, because the product of the `f64` nearest to 0.07 is above 7. For a `q` of at most six decimals,
    /// only such whole products are one rank off among up to 2^32 values, and any may be up to 2^53.
    pub fn rank(self, count: u64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and `as` saturates where rounding `count` up made it exceed u64"
        )]
        let rank = (self.0 * count as f64).ceil() as u64;
        rank.max(1).min(count)
    }
}

/// The latency at one quantile, with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileAnswer {
    /// Upper edge of `bucket`: never below the exact nearest-rank latency (unless `saturated`), often above every sample.
    pub value: DurationNanos,
    /// The bucket that holds the exact latency; exemplars of this quantile are those in it.
    pub bucket: Bucket,
    /// Nearest rank, in `[1, count]`.
    pub rank: u64,
    /// `value` exceeds the exact latency by at most this share of `value`. Below 0.001 from 524,288 ns on.
    pub relative_error_max: f64,
    /// `value` exceeds the exact latency by at most this many nanoseconds: 511, or less than 0.1 % of the exact latency.
    pub absolute_error_ns: u64,
    /// `bucket` is `Bucket::TOP` and counts latencies longer than it: the exact latency may be above `value` by any amount.
    pub saturated: bool,
}

impl QuantileAnswer {
    /// The latency at `quantile` of `count` that were counted in these buckets, which ascend; `None` when nothing was.
    pub fn among(
        mut entries: impl Iterator<Item = (Bucket, u64)>,
        count: u64,
        saturated: u64,
        quantile: Quantile,
    ) -> Option<Self> {
        let rank = quantile.rank(count);
        let mut seen: u64 = 0;
        let (bucket, _) = entries.find(|(_, count)| {
            seen = seen.saturating_add(*count);
            rank <= seen
        })?;
        Some(Self::new(bucket, rank, bucket == Bucket::TOP && 0 < saturated))
    }

    pub(super) fn new(bucket: Bucket, rank: u64, saturated: bool) -> Self {
        let value = bucket.high();
        let absolute_error_ns = bucket.width() - 1;
        let relative_error_max = absolute_error_ns as f64 / value.0 as f64;
        Self { value, bucket, rank, relative_error_max, absolute_error_ns, saturated }
    }
}
