//! A data directory as a kill leaves it, to be damaged a thousand times, and a server without sockets that opens it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message as _;
use spandrel::cli::shop::{Grouping, Requests, Shop};
use spandrel::clock::Clock;
use spandrel::config::Config;
use spandrel::ingest::{Encoding, Ingest, Running};
use spandrel::journal::RealDisk;
use spandrel::model::{DurationNanos, TimeRange, TraceId};
use spandrel::otlp::{Utf8, encode_traces};
use spandrel::query::{PercentileQuestion, Quantile, Query};
use spandrel::store::Store;
use spandrel::telemetry::Counters;
use tempfile::TempDir;

use crate::support::{block_on, config, now};

use super::mount::memory_dir;
use super::witness::{Asked, Findings, Found, Numbers, Witness};

/// A partition of this size stays open.
const OPEN: u64 = 1 << 30;
/// No start and no answer takes this long.
const NEVER_THAT_LONG: Duration = Duration::from_mins(1);

/// Ingest, store and query over one directory, as `cli::serve` puts them together.
struct Opened {
    ingest: Ingest,
    query: Query,
    counters: Arc<Counters>,
    running: Running,
}

fn settings(dir: &Path, partition_bytes_max: u64) -> Config {
    let mut config = config(dir);
    config.ingest.journal_segment_bytes = 24 << 10;
    config.ingest.checkpoint_spans = 150;
    config.ingest.partition_bytes_max = partition_bytes_max;
    config.store.open_partitions_max = 100;
    config
}

/// An error with all its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

impl Opened {
    /// `Err` is what the operator reads.
    fn at(dir: &Path, partition_bytes_max: u64) -> Result<Self, String> {
        let config = settings(dir, partition_bytes_max);
        let (clock, counters) = (Clock::system(), Arc::new(Counters::default()));
        let ingest = Ingest::new(config.ingest, Arc::new(RealDisk), clock.clone(), Arc::clone(&counters));
        let query = Query::new(clock.clone(), Arc::clone(&counters));
        let store = Store::open(config.store, clock, Arc::clone(&counters)).map_err(|error| told(&error))?;
        let store = Arc::new(store);
        let running = ingest.start(&store).map_err(|error| told(&error))?;
        query.attach(store);
        Ok(Self { ingest, query, counters, running })
    }

    fn close(self) {
        self.ingest.stop(self.running);
    }

    /// What an operator is told of losses without asking for a trace.
    fn told_of(&self) -> BTreeSet<String> {
        let mut told: BTreeSet<String> = self.query.status().expect("it is open").quarantined.into_iter().collect();
        told.extend(self.ingest.losses());
        if 0 < self.counters.journal_torn_bytes.value() {
            let _new = told.insert("the journal has a torn end".to_owned());
        }
        told
    }
}

impl Asked for Opened {
    fn trace(&self, id: &[u8]) -> Found {
        let answer = self.query.trace(TraceId(id.try_into().expect("16 bytes"))).expect("it is open");
        let bytes = encode_traces(&answer.batch, Utf8::Verbatim);
        let data = TracesData::decode(bytes.as_slice()).expect("the answer is a trace");
        Found { data, missing: answer.coverage.reasons.join("; ") }
    }

    fn numbers(&self, service: &str) -> Option<Numbers> {
        let end = now().saturating_add(DurationNanos::from_secs(3_600));
        let question = PercentileQuestion::plain(
            service,
            [0.5, 0.99, 1.0].map(|q| Quantile::try_from(q).expect("a quantile")).to_vec(),
            TimeRange { start: end.saturating_sub(DurationNanos::from_secs(3 * 3_600)), end },
            1,
        );
        let answer = self.query.percentile(&question).ok()?;
        let exemplars = answer.whole.quantiles.iter().flat_map(|row| &row.exemplars);
        Some(Numbers {
            count: answer.whole.count,
            exemplars: exemplars.map(|one| (one.trace_id.0.to_vec(), one.span_id.0.to_vec())).collect(),
            missing: answer.coverage.reasons.join("; "),
        })
    }
}

/// Two sealed partitions and an open one with blocks, several journal segments and spans that are in no block.
pub(super) struct Fixture {
    dir: TempDir,
    pub(super) witness: Arc<Witness>,
    /// Every file, from the data directory.
    pub(super) files: Vec<PathBuf>,
}

impl Fixture {
    pub(super) fn make() -> Self {
        let (live, dir) = (memory_dir(), memory_dir());
        let (witness, mut shop) = (Witness::default(), Shop::new(5));
        let server = Opened::at(live.path(), 30_000).expect("an empty directory opens");
        let sealed = || {
            let partitions = server.query.status().expect("it is open").partitions;
            partitions.iter().filter(|(_, sealed, _)| *sealed).count()
        };
        while sealed() < 2 {
            send(&server, &mut shop, 6, &witness);
            std::thread::park_timeout(Duration::from_millis(50));
        }
        server.close();
        // A block or two in the open partition, then what is only in its journal.
        let server = Opened::at(live.path(), OPEN).expect("it opens again");
        for traces in [14, 4] {
            send(&server, &mut shop, traces, &witness);
            std::thread::park_timeout(Duration::from_millis(500));
        }
        copy_tree(live.path(), dir.path());
        server.close();
        let below = |file: PathBuf| file.strip_prefix(dir.path()).expect("below").to_path_buf();
        let files = files_below(dir.path()).into_iter().map(below).collect();
        Self { dir, witness: Arc::new(witness), files }
    }

    /// A copy to damage.
    pub(super) fn copy(&self) -> TempDir {
        let copy = memory_dir();
        copy_tree(self.dir.path(), copy.path());
        copy
    }
}

fn send(server: &Opened, shop: &mut Shop, traces: usize, witness: &Witness) {
    let mut requests = Requests::new(Grouping::Collector);
    for _ in 0..traces {
        let _not_full = requests.add(shop.next_trace(now().saturating_sub(DurationNanos::from_secs(60))));
        for request in requests.flush() {
            witness.note(&request, false);
            let exported = block_on(async {
                let permit = server.ingest.budget().admit(1).await?;
                server.ingest.export(request.encode_to_vec(), Encoding::Protobuf, permit).await
            });
            let _stored = exported.expect("it is acknowledged");
            witness.note(&request, true);
        }
    }
}

pub(super) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("it can be listed").flatten() {
        let path = entry.path();
        if entry.file_type().expect("a type").is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

pub(super) fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("it can be listed").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            std::fs::create_dir(&target).expect("a directory");
            copy_tree(&entry.path(), &target);
        } else {
            let _bytes = std::fs::copy(entry.path(), &target).expect("it is copied");
        }
    }
}

/// How the broken promise begins that spans were lost and nobody was told.
pub(super) const SILENTLY: &str = "lost silently";

/// What a start on a damaged directory came to.
pub(super) enum Outcome {
    /// Nothing is lost.
    Whole,
    /// Spans are lost, and that is said.
    Named,
    /// It did not start; what the operator read.
    Refused(String),
}

/// Opens the directory, asks for everything and closes it again. `Err` is a broken promise.
pub(super) fn open_and_ask(dir: &Path, witness: &Arc<Witness>) -> Result<Outcome, String> {
    listen_for_panics();
    let (done, outcome) = std::sync::mpsc::channel();
    let (own, witness) = (dir.to_path_buf(), Arc::clone(witness));
    let asking = std::thread::spawn(move || {
        let _gave_up = done.send(ask(&own, &witness));
    });
    let outcome = outcome.recv_timeout(NEVER_THAT_LONG).map_err(|error| match error {
        std::sync::mpsc::RecvTimeoutError::Timeout => "it hangs".to_owned(),
        std::sync::mpsc::RecvTimeoutError::Disconnected => "it panicked".to_owned(),
    });
    let heard: Vec<String> = std::mem::take(&mut *PANICS.lock().expect("no panic under the lock"));
    if !heard.is_empty() {
        return Err(format!("panics: {heard:?}"));
    }
    let outcome = outcome??;
    let _ended = asking.join();
    Ok(outcome)
}

fn ask(dir: &Path, witness: &Witness) -> Result<Outcome, String> {
    let server = match Opened::at(dir, OPEN) {
        Ok(server) => server,
        Err(refused) => return Ok(Outcome::Refused(refused)),
    };
    let findings = witness.check_everything(&server);
    let Findings { lost, wrong, mut named, .. } = findings;
    named.extend(server.told_of());
    server.close();
    if !wrong.is_empty() {
        return Err(format!("{} things are wrong: {:?}; named {named:?}", wrong.len(), &wrong[..wrong.len().min(3)]));
    }
    if lost.is_empty() {
        return Ok(Outcome::Whole);
    }
    if named.is_empty() {
        return Err(format!("{SILENTLY}: {} spans, {:?}", lost.len(), &lost[..lost.len().min(3)]));
    }
    Ok(Outcome::Named)
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Panics of the server's own threads would otherwise pass unseen.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("unnamed");
            let ours = name.starts_with("spandrel") || name.starts_with("sled") || name == "unnamed";
            if ours && let Ok(mut panics) = PANICS.lock() {
                panics.push(format!("{name}: {info}"));
            }
            before(info);
        }));
    });
}
