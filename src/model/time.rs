//! Times and durations in nanoseconds. Arithmetic saturates here, so that nobody else can wrap.

/// Nanoseconds since the Unix epoch; 0 means "not set", as in OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationNanos(pub u64);

impl UnixNanos {
    /// Not set by the sender.
    pub fn is_unset(self) -> bool {
        self.0 == 0
    }

    /// Later by `by`, at most the end of time.
    pub fn saturating_add(self, by: DurationNanos) -> Self {
        Self(self.0.saturating_add(by.0))
    }

    /// Earlier by `by`, at least the epoch.
    pub fn saturating_sub(self, by: DurationNanos) -> Self {
        Self(self.0.saturating_sub(by.0))
    }

    /// How long after `earlier`; zero when it is not after.
    pub fn since(self, earlier: Self) -> DurationNanos {
        DurationNanos(self.0.saturating_sub(earlier.0))
    }
}

impl DurationNanos {
    /// Whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }
}

impl From<std::time::Duration> for DurationNanos {
    fn from(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Half-open: `start <= t < end`. Empty when `end <= start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First instant inside.
    pub start: UnixNanos,
    /// First instant after.
    pub end: UnixNanos,
}

impl TimeRange {
    /// Every instant but the very last.
    pub const ALL: Self = Self { start: UnixNanos(0), end: UnixNanos(u64::MAX) };

    /// Whether `at` is inside.
    pub fn contains(&self, at: UnixNanos) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether the closed interval `[min, max]` and this range share an instant.
    pub fn meets(&self, min: UnixNanos, max: UnixNanos) -> bool {
        self.start <= max && min < self.end
    }
}
