//! The bucket layout: HdrHistogram's for a lowest discernible value of 1,000 ns, 3 significant digits and 1 h.
//!
//! A bucket is named by HdrHistogram's own index, so both agree on every edge: units of 512 ns, 2,048 buckets one unit
//! wide, then 1,024 buckets per octave, each twice as wide as those of the octave before.

use crate::model::DurationNanos;
use std::ops::RangeInclusive;

/// log2 of the width of the narrowest bucket, in nanoseconds.
const UNIT_BITS: u32 = 9;
/// log2 of the buckets per octave.
const HALF_BITS: u32 = 10;
/// Octaves above the 2,048 buckets of one unit: the least number that tracks an hour.
const OCTAVES: u32 = 22;
/// Longest latency with a bucket of its own: 2^42 - 1 ns, about 73 minutes.
const TRACKED_MAX: u64 = (1 << (UNIT_BITS + HALF_BITS + 1 + OCTAVES)) - 1;

const _: () = assert!(TRACKED_MAX >= 3_600_000_000_000, "an hour must be tracked");
const _: () = assert!(TRACKED_MAX / 2 < 3_600_000_000_000, "HdrHistogram would use fewer octaves");

/// One bucket of latencies, by HdrHistogram's index of its counts. `Ord` is the order of the latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16); // <= TOP

impl Bucket {
    /// The bucket of 73 minutes; longer latencies are counted in it as well, and counted as saturated.
    pub const TOP: Self = Self(24_575);
    /// How many buckets there are.
    pub const COUNT: usize = 24_576;

    /// The bucket that `latency` is counted in.
    pub fn of(latency: DurationNanos) -> Self {
        let units = latency.0.min(TRACKED_MAX) >> UNIT_BITS;
        let octave = (units | ((2 << HALF_BITS) - 1)).ilog2() - HALF_BITS;
        let index = (u64::from(octave) << HALF_BITS) + (units >> octave);
        u16::try_from(index).map_or(Self::TOP, Self)
    }

    /// Whether `latency` is too long for the layout: `TOP` counts it, but does not contain it.
    pub fn saturates(latency: DurationNanos) -> bool {
        latency.0 > TRACKED_MAX
    }

    /// Shortest latency of the bucket.
    pub fn low(self) -> DurationNanos {
        let octave = self.octave();
        let step = u64::from(self.0) - (u64::from(octave) << HALF_BITS);
        DurationNanos(step << (octave + UNIT_BITS))
    }

    /// Longest latency of the bucket, inclusive.
    pub fn high(self) -> DurationNanos {
        DurationNanos(self.low().0 + self.width() - 1)
    }

    /// Every latency that is counted in the bucket: in the top one everything longer as well.
    pub fn latencies(self) -> RangeInclusive<DurationNanos> {
        self.low()..=if self == Self::TOP { DurationNanos(u64::MAX) } else { self.high() }
    }

    /// How many whole nanoseconds the bucket holds: a power of two, at least 512.
    pub fn width(self) -> u64 {
        1 << (self.octave() + UNIT_BITS)
    }

    /// The band that the whole bucket lies in.
    pub fn band(self) -> Band {
        let units = self.low().0 >> UNIT_BITS;
        let band = if units < 4 {
            units
        } else {
            let octave = units.ilog2();
            u64::from(octave - 1) * 4 + ((units >> (octave - 2)) & 3)
        };
        u8::try_from(band).map_or(Band::TOP, Band)
    }

    /// HdrHistogram's index, below `COUNT`.
    pub fn index(self) -> u16 {
        self.0
    }

    /// The bucket at `index`; `None` when there is none.
    pub fn from_index(index: u64) -> Option<Self> {
        u16::try_from(index).ok().map(Self).filter(|bucket| *bucket <= Self::TOP)
    }

    fn octave(self) -> u32 {
        (u32::from(self.0) >> HALF_BITS).saturating_sub(1)
    }
}

/// A range of neighbouring buckets for which exemplars are kept: four equal steps per octave, log-linear.
///
/// Below 4 units (2,048 ns) a band is one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Band(u8); // <= TOP

impl Band {
    /// The band of `Bucket::TOP`.
    pub const TOP: Self = Self(127);
    /// How many bands there are.
    pub const COUNT: usize = 128;

    /// Position among all bands, below `COUNT`.
    pub fn index(self) -> u8 {
        self.0
    }

    /// The band at `index`; `None` when there is none.
    pub fn from_index(index: u8) -> Option<Self> {
        Some(Self(index)).filter(|band| *band <= Self::TOP)
    }

    /// Shortest latency of the band.
    pub fn low(self) -> DurationNanos {
        let band = u64::from(self.0);
        let units = if band < 4 { band } else { (4 + band % 4) << (band / 4 - 1) };
        DurationNanos(units << UNIT_BITS)
    }

    /// Longest latency of the band, inclusive; longer ones are counted in the top one.
    pub fn high(self) -> DurationNanos {
        Self::from_index(self.0 + 1).map_or(Bucket::TOP.high(), |next| DurationNanos(next.low().0 - 1))
    }
}
