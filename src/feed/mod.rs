//! Feeding a Prometheus, Mimir or the like: the metrics of the catalogue by remote write 1.0, at every third edge of a slot.
//!
//! ```text
//! data/remote-write     "spandrel-remote-write 1\n<milliseconds>\n": every edge up to it was taken, or given up
//! ```
//! What is sent is counted from what is stored, so there is no queue: after an outage or a restart the edges that are due are
//! counted then, a step at a time from `BEHIND_MAX` back, and everything before that in one. A restart begins with counters at 0, as that of any other program
//! does; nothing between the last edge and the next is missed.

mod position;
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

/// Between two samples of a series.
const STEP: Millis = 30_000;
/// What is further behind is not made up sample by sample: the counters jump.
const BEHIND_MAX: Millis = 2 * 3_600_000;
/// A request that takes longer failed.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// Between attempts, doubled each time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// Where to write.
#[derive(Clone, Debug)]
pub struct RemoteWrite {
    /// Such as `http://127.0.0.1:9090/api/v1/write`.
    pub url: String,
    /// A file with a token for `Authorization: Bearer`; read again for every request.
    pub token_file: Option<std::path::PathBuf>,
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
            Writer { settings, position, query, waiting: &of_thread, agent: agent() }.run();
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

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_WITHIN)).http_status_as_error(false);
    config.build().into()
}

/// What a receiver says to a request.
enum Outcome {
    Taken,
    /// It would say the same again.
    Refused(String),
    /// Another time it may be taken.
    Failed(String),
}

struct Writer<'a> {
    settings: RemoteWrite,
    position: Position,
    query: Arc<Query>,
    waiting: &'a Waiting,
    agent: ureq::Agent,
}

impl Writer<'_> {
    fn run(&self) {
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
    fn deliver(&self, totals: &Totals) -> bool {
        for body in wire::requests(totals) {
            let mut retry_after = RETRY_AFTER;
            loop {
                match self.send(&body) {
                    Outcome::Taken => break,
                    Outcome::Refused(why) => {
                        tracing::error!(
                            url = self.settings.url,
                            why,
                            "remote write was refused; these samples are given up"
                        );
                        break;
                    }
                    Outcome::Failed(why) => {
                        tracing::warn!(url = self.settings.url, why, "remote write failed; it is tried again");
                        if !self.waiting.wait(retry_after) {
                            return false;
                        }
                        retry_after = (retry_after * 2).min(RETRY_AFTER_MAX);
                    }
                }
            }
        }
        if let Err(error) = self.position.write(totals.until) {
            tracing::error!(error = with_causes(&error), "where remote write goes on could not be kept");
        }
        true
    }

    fn send(&self, body: &[u8]) -> Outcome {
        let mut request = self
            .agent
            .post(&self.settings.url)
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .header("User-Agent", concat!("spandrel/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.settings.token_file {
            match std::fs::read_to_string(path) {
                Ok(token) => request = request.header("Authorization", format!("Bearer {}", token.trim())),
                Err(error) => return Outcome::Failed(format!("{}: {error}", path.display())),
            }
        }
        match request.send(body) {
            Ok(mut response) => {
                let status = response.status();
                let mut why = || {
                    let said = response.body_mut().with_config().limit(1_024).read_to_string().unwrap_or_default();
                    format!("{status}: {}", said.trim())
                };
                match status.as_u16() {
                    200..=299 => Outcome::Taken,
                    429 | 500..=599 => Outcome::Failed(why()),
                    _ => Outcome::Refused(why()),
                }
            }
            Err(error) => Outcome::Failed(with_causes(&error)),
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
