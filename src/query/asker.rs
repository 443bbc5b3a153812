//! Who waits for an answer, and how much of the machine the question may take meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::QueryError;

/// A question that goes on for longer lets everything else on the machine go first: ingest above all.
const GIVES_WAY_AFTER: Duration = Duration::from_millis(100);
/// Weighs about a thirtieth of a thread that gives no way (Linux, `sched(7)`).
const NICE: i32 = 15;

/// Lives as long as somebody waits for answers; its end ends the questions that read much.
#[derive(Debug)]
pub struct Asker(Arc<Asked>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

/// What a question knows of its asker. The default waits for ever, on a thread that does other things as well.
#[derive(Debug, Default)]
pub(super) struct Asked {
    abandoned: AtomicBool,
    /// The thread is there for this question alone, and goes on as fast as others.
    may_give_way: AtomicBool,
}

impl Asked {
    /// A question on a thread of its own.
    pub(super) fn on_own_thread() -> (Arc<Self>, Asker) {
        let asked = Arc::new(Self { abandoned: AtomicBool::new(false), may_give_way: AtomicBool::new(true) });
        (Arc::clone(&asked), Asker(asked))
    }

    /// Between two steps of a question that may be long: whether to go on.
    pub(super) fn may_go_on(&self, began: Instant, within: Duration) -> Result<(), QueryError> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(QueryError::Abandoned);
        }
        let elapsed = began.elapsed();
        if GIVES_WAY_AFTER < elapsed && self.may_give_way.swap(false, Ordering::Relaxed) {
            give_way();
        }
        if within < elapsed { Err(QueryError::TooLong { within }) } else { Ok(()) }
    }
}

/// Of this thread, for the rest of its life: nobody may take it back without privileges.
#[cfg(target_os = "linux")]
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "a long question keeps its priority");
    }
}

/// Elsewhere priorities are those of whole processes.
#[cfg(not(target_os = "linux"))]
fn give_way() {
    let _ = NICE;
}
