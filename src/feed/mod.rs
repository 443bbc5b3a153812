//! Feeding a Prometheus, Mimir or the like: the metrics of the catalogue by remote write, at every third edge of a slot.
//!
//! ```text
//! data/remote-write     "spandrel-remote-write 1\n<milliseconds>\n": every edge up to it was taken, or given up
//! ```
//! What is sent is counted from what is stored, so there is no queue: after an outage or a restart the edges that are due are
//! counted then, a step at a time from `BEHIND_MAX` back, and everything before that in one. A restart begins with counters at 0, as
//! that of any other program does, and 2.0 says when; nothing between the last edge and the next is missed.

mod position;
mod receiver;
mod series;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::query::Query;
use crate::query::promql::series::Millis;
use crate::query::promql::totals::Totals;
use crate::telemetry::with_causes;

use position::Position;
use receiver::{Amount, Outcome, Receiver};
use series::Series;
use wire::Form;

/// Between two samples of a series.
const STEP: Millis = 30_000;
/// What is further behind is not made up sample by sample: the counters jump.
const BEHIND_MAX: Millis = 2 * 3_600_000;
/// Series of one request, some hundred bytes each before they are compressed.
const SERIES_AT_ONCE: usize = 5_000;
/// Between attempts, doubled each time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// Which remote write is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 2.0; 1.0 until the end of the process once the receiver turns out not to know it.
    #[default]
    Auto,
    /// 1.0.
    One,
    /// 2.0.
    Two,
}

/// Which histograms are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Histograms {
    /// Counters of buckets whose bounds are powers of two.
    #[default]
    Classic,
    /// Of schema 3; not every receiver keeps them.
    Native,
    /// The ones beside the others.
    Both,
}

/// Where to write, and what.
#[derive(Clone, Debug)]
pub struct RemoteWrite {
    /// Such as `http://127.0.0.1:9090/api/v1/write`.
    pub url: String,
    /// A file with a token for `Authorization: Bearer`; read again for every request.
    pub token_file: Option<std::path::PathBuf>,
    /// Of remote write.
    pub version: Version,
    /// Beside the counters.
    pub histograms: Histograms,
}

/// A thread that writes; it ends with `stop`.
#[derive(Debug)]
pub struct Feed {
    waiting: Arc<Waiting>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    stopping: Mutex<bool>,
    changed: Condvar,
}

impl Waiting {
    /// `false` when it is time to end.
    fn wait(&self, at_most: Duration) -> bool {
        let mut stopping = self.stopping.lock();
        if !*stopping {
            let _timed_out = self.changed.wait_for(&mut stopping, at_most);
        }
        !*stopping
    }
}

impl Feed {
    /// Begins to write; where it goes on is kept in the data directory.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(settings: RemoteWrite, data_dir: &Path, query: Arc<Query>) -> std::io::Result<Self> {
        let position = Position::of(data_dir);
        let waiting = Arc::new(Waiting::default());
        let of_thread = Arc::clone(&waiting);
        let thread = std::thread::Builder::new().name("spandrel-feed".to_owned()).spawn(move || {
            let form = if settings.version == Version::One { Form::One } else { Form::Two };
            let receiver = Receiver::new(settings.clone());
            Writer { settings, form, receiver, position, query, waiting: &of_thread }.run();
        })?;
        Ok(Self { waiting, thread })
    }

    /// Ends it; a request under way is waited for.
    pub fn stop(self) {
        *self.waiting.stopping.lock() = true;
        let _woken = self.waiting.changed.notify_all();
        if self.thread.join().is_err() {
            tracing::error!("remote write had ended by a panic; please report it with the lines above");
        }
    }
}

/// The next edge to write a sample of: the next one of all, or that after which little is behind.
fn next_edge(until: Millis, due: Millis) -> Millis {
    ((until / STEP + 1) * STEP).max(due.saturating_sub(BEHIND_MAX) / STEP * STEP)
}

struct Writer<'a> {
    settings: RemoteWrite,
    /// What is written now.
    form: Form,
    receiver: Receiver,
    position: Position,
    query: Arc<Query>,
    waiting: &'a Waiting,
}

impl Writer<'_> {
    fn run(&mut self) {
        let mut totals = Totals::since(self.position.read().unwrap_or_else(|| Totals::due(self.now())));
        loop {
            let due = Totals::due(self.now());
            let next = next_edge(totals.until, due);
            if due < next {
                let wait = Duration::from_millis(u64::try_from(next - due).unwrap_or(1_000));
                if self.waiting.wait(wait) {
                    continue;
                }
                return;
            }
            match self.query.advance(&mut totals, next) {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(error = with_causes(&error), "span metrics could not be counted for remote write");
                    if self.waiting.wait(RETRY_AFTER_MAX) {
                        continue;
                    }
                    return;
                }
            }
            if !self.deliver(&totals) {
                return;
            }
        }
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.query.now().0 / 1_000_000).unwrap_or(Millis::MAX)
    }

    /// Sends the counters of an edge until they are taken or refused; `false` when it is time to end.
    fn deliver(&mut self, totals: &Totals) -> bool {
        let mut series = series::of_edge(totals, self.settings.histograms);
        loop {
            let part: Vec<Series<'_>> = series.by_ref().take(SERIES_AT_ONCE).collect();
            if part.is_empty() {
                break;
            }
            if !self.deliver_part(totals, &part) {
                return false;
            }
        }
        if let Err(error) = self.position.write(totals.until) {
            tracing::error!(error = with_causes(&error), "where remote write goes on could not be kept");
        }
        true
    }

    fn deliver_part(&mut self, totals: &Totals, part: &[Series<'_>]) -> bool {
        let url = &self.settings.url;
        let mut body = self.form.body(totals, part);
        let mut retry_after = RETRY_AFTER;
        loop {
            match self.receiver.send(self.form, Amount::of(part), &body) {
                Outcome::Taken => return true,
                Outcome::TakenInPart(why) => {
                    tracing::warn!(url, why, "remote write was taken, but not all of it");
                    return true;
                }
                Outcome::NotKnown(why) if self.settings.version == Version::Auto => {
                    tracing::info!(url, why, "the receiver does not know remote write 2.0; 1.0 is written from now on");
                    self.form = Form::One;
                    body = self.form.body(totals, part);
                }
                Outcome::NotKnown(why) | Outcome::Refused(why) => {
                    tracing::error!(url, why, "remote write was refused; what was not written is given up");
                    return true;
                }
                Outcome::Failed(why) => {
                    tracing::warn!(url, why, "remote write failed; it is tried again");
                    if !self.waiting.wait(retry_after) {
                        return false;
                    }
                    retry_after = (retry_after * 2).min(RETRY_AFTER_MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_follow_each_other_and_what_is_far_behind_is_one_step() {
        assert_eq!(next_edge(0, 40_000), 30_000);
        assert_eq!(next_edge(30_000, 40_000), 60_000);
        assert_eq!(next_edge(10_000, 40_000), 30_000, "a restart begins at any edge of a slot");
        let due = 100 * 3_600_000 + 10_000;
        assert_eq!(next_edge(30_000, due), 98 * 3_600_000);
        assert_eq!(next_edge(98 * 3_600_000, due), 98 * 3_600_000 + STEP);
    }
}
