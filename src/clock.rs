//! The only source of time: real, or moved by hand in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::UnixNanos;

/// Wall time. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until `set`.
    pub fn manual(now: UnixNanos) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(now.0))))
    }

    /// Now.
    pub fn now(&self) -> UnixNanos {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one reading of wall time")]
            Source::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixNanos(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
            }
            Source::Manual(now) => UnixNanos(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; the machine's clock is left alone.
    pub fn set(&self, now: UnixNanos) {
        if let Source::Manual(manual) = &self.0 {
            manual.store(now.0, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reading of the monotonic clock")]
/// The monotonic clock, for measuring how long something took.
pub fn instant() -> Instant {
    Instant::now()
}
