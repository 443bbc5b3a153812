//! The way in: a request is decoded, queued, journaled with others under one fsync, shown to queries, acknowledged.
//!
//! ```text
//! export() -- decode on the caller's thread --> queue --> writer thread: append, fsync, head, reply
//!                                                            `--> sealer thread: checkpoint, seal, retention
//! ```
//!
//! Deliberately absent: HTTP, gRPC, status codes. The reply waits for the fsync, never for queue space.

mod payload;
mod queue;
mod recover;
mod retry_window;
mod sealer;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use parking_lot::RwLock;

use crate::journal::{BodyHash, Disk, JournalError};
use crate::limits;
use crate::model::DurationNanos;
use crate::otlp::{self, DecodeOptions, Undecodable};
use crate::store::StoreError;
use crate::telemetry::Counters;
use crate::{clock::Clock, store::Store};

pub use crate::journal::Durability;
pub use queue::{Budget, Permit};
use queue::{Job, Queue};
use retry_window::RetryWindow;

/// Settings of the way in.
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// When a request is acknowledged.
    pub durability: Durability,
    /// Bytes of request bodies in flight; above it requests are refused before they are read.
    pub body_bytes_in_flight_max: usize,
    /// Requests waiting for the writer; at least 1.
    pub queue_requests_max: usize,
    /// Spans older than this are rejected.
    pub retention: Option<DurationNanos>,
    /// 8-byte trace ids are padded instead of rejected.
    pub pad_64bit_trace_ids: bool,
    /// A block is written when the head holds this many spans.
    pub checkpoint_spans: u64,
    /// ... or this many bytes.
    pub checkpoint_bytes: usize,
    /// ... or is this old.
    pub checkpoint_interval: DurationNanos,
    /// A partition is sealed at this age.
    pub partition_age_max: DurationNanos,
    /// ... or when it takes this many bytes on disk.
    pub partition_bytes_max: u64,
    /// Preallocated length of a journal segment.
    pub journal_segment_bytes: u64,
}

/// Encoding of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// OTLP protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
    /// Zipkin v2 as a JSON list.
    ZipkinJson,
    /// Zipkin v2 as a protobuf `ListOfSpans`.
    ZipkinProtobuf,
}

/// What a successful export says: OTLP `ExportTracePartialSuccess`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Spans not stored because they are invalid.
    pub rejected_spans: u64,
    /// Why, and what was remarked about the others; `None` when there is nothing to say.
    pub message: Option<String>,
}

/// Why nothing of a request was stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The bytes are no request, or cost too much.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// Every span is invalid.
    #[error("{message}")]
    AllRejected {
        /// Count per reason.
        message: String,
    },
    /// Too many bytes or requests in flight.
    #[error("overloaded: {what}; retry later")]
    Overloaded {
        /// Which bound was met, and the setting behind it.
        what: &'static str,
    },
    /// The journal is being replayed.
    #[error("starting: the journal is being replayed; retry later")]
    Starting,
    /// The process is about to end.
    #[error("stopping; retry later")]
    Stopping,
    /// There is no space for the journal. Works again once there is.
    #[error("the disk is full; retry later")]
    DiskFull,
    /// An earlier sync failed. A restart replays and continues.
    #[error("read-only after a failed write; retry later")]
    ReadOnly,
    /// The sync took longer than a client waits; the retry will be recognised.
    #[error("the disk did not confirm in time; retry later")]
    Late,
}

/// Why ingest cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What `/ready` says of the way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The journal is being replayed.
    Starting,
    /// Requests are stored.
    Ready,
    /// No space for the journal since the last attempt.
    DiskFull(String),
    /// An earlier sync failed, or the writer died.
    ReadOnly(String),
    /// The process is about to end.
    Stopping,
}

/// The way in. Exists before the store is open, so that sockets can answer while the journal is replayed.
#[derive(Debug)]
pub struct Ingest {
    config: IngestConfig,
    disk: Arc<dyn Disk>,
    clock: Clock,
    counters: Arc<Counters>,
    budget: Budget,
    queue: Queue,
    shared: Arc<Shared>,
}

/// What the writer thread shares with the callers.
#[derive(Debug)]
struct Shared {
    phase: RwLock<Phase>,
    window: parking_lot::Mutex<RetryWindow>,
    /// What replay could not bring back, one sentence each.
    losses: parking_lot::Mutex<Vec<String>>,
}

/// The threads of a started ingest. Dropping it does not stop them: call `stop`.
#[derive(Debug)]
pub struct Running {
    writer: std::thread::JoinHandle<()>,
    background: [std::thread::JoinHandle<()>; 2],
}

impl Ingest {
    /// A closed door: every export is answered `Starting` until `start`. The journal lies on `disk`.
    pub fn new(config: IngestConfig, disk: Arc<dyn Disk>, clock: Clock, counters: Arc<Counters>) -> Self {
        let shared = Shared {
            phase: RwLock::new(Phase::Starting),
            window: parking_lot::Mutex::new(RetryWindow::default()),
            losses: parking_lot::Mutex::default(),
        };
        Self {
            budget: Budget::new(config.body_bytes_in_flight_max),
            queue: Queue::new(config.queue_requests_max),
            shared: Arc::new(shared),
            config,
            disk,
            clock,
            counters,
        }
    }

    /// Replays the journals into the store and opens the door.
    ///
    /// # Errors
    /// When a journal cannot be read, the store not written, or a thread not started.
    pub fn start(&self, store: &Arc<Store>) -> Result<Running, StartError> {
        let recovered = recover::recover(self, store)?;
        let (work, background) = sealer::spawn(self, store, recovered.to_seal)?;
        let writer = writer::spawn(self, store, recovered.partition, recovered.journal, work)?;
        *self.shared.phase.write() = Phase::Ready;
        Ok(Running { writer, background })
    }

    /// Replays the journals into the store and leaves the door closed: for reading a directory without a server. Spans
    /// that fit into the head stay there; the journal goes on holding them.
    ///
    /// # Errors
    /// As `start`.
    pub fn replay(&self, store: &Arc<Store>) -> Result<(), StartError> {
        if store.unsealed().is_empty() {
            return Ok(());
        }
        recover::recover(self, store).map(|_recovered| ())
    }

    /// Closes the door, writes what is in memory into a block, and waits for it.
    pub fn stop(&self, running: Running) {
        *self.shared.phase.write() = Phase::Stopping;
        self.queue.close();
        for thread in [running.writer].into_iter().chain(running.background) {
            if thread.join().is_err() {
                tracing::error!("a thread ended by a panic; the journal replays what it left at the next start");
            }
        }
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.shared.phase.read().clone()
    }

    /// What the journal could not bring back at the start, one sentence each; empty when nothing is missing.
    pub fn losses(&self) -> Vec<String> {
        self.shared.losses.lock().clone()
    }

    /// When requests are acknowledged.
    pub fn durability(&self) -> Durability {
        self.config.durability
    }

    /// Length of the retry window in seconds, as far back as it reaches now.
    pub fn retry_window_secs(&self) -> u64 {
        self.shared.window.lock().reach_secs(self.clock.now())
    }

    /// Permission to hold bytes of a request. To be had before the first byte is read, and raised as it grows.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Stores the spans of one request. Resolves once a journal fsync covers them.
    ///
    /// Decodes on the calling thread: about a microsecond per span. `permit` covers the body; it is raised to what the
    /// spans take, and held until the journal has them, also when nobody waits for the answer any more.
    ///
    /// # Errors
    /// See `ExportError`; nothing of the request is stored then, except after `Late`, where it may be.
    pub async fn export(&self, body: Vec<u8>, encoding: Encoding, permit: Permit) -> Result<Exported, ExportError> {
        let outcome = self.try_export(body, encoding, permit).await;
        self.count(&outcome);
        outcome
    }

    async fn try_export(&self, body: Vec<u8>, encoding: Encoding, mut permit: Permit) -> Result<Exported, ExportError> {
        self.counters.requests_received.add(1);
        self.counters.body_bytes.add(body.len() as u64);
        self.open_door()?;
        let arrived = self.clock.now();
        let hash = body_hash(&body, encoding);
        if let Some(known) = self.shared.window.lock().find(&hash, arrived) {
            self.counters.requests_repeated.add(1);
            self.counters.spans_received.add(known.spans);
            self.counters.spans_duplicate.add("repeated_request", known.spans);
            return Ok(known.exported);
        }
        let Some((mut job, reply)) = self.prepare(body, encoding, arrived, hash)? else {
            return Ok(Exported::default());
        };
        let (spans, exported) = (job.spans(), job.exported.clone());
        let unless_queued = Refused { counters: &self.counters, spans };
        self.budget.raise(&mut permit, job.memory_bytes()).await?;
        job.permit = Some(permit);
        self.queue.push(job)?;
        // From here on the writer keeps the books: after `Late` it may still store the spans.
        std::mem::forget(unless_queued);
        queue::answer(reply).await.map(|()| exported)
    }

    fn open_door(&self) -> Result<(), ExportError> {
        match &*self.shared.phase.read() {
            Phase::Ready | Phase::DiskFull(_) => Ok(()),
            Phase::Starting => Err(ExportError::Starting),
            Phase::Stopping => Err(ExportError::Stopping),
            Phase::ReadOnly(_) => Err(ExportError::ReadOnly),
        }
    }

    /// `None` when there is nothing to store and nothing to complain about.
    fn prepare(
        &self,
        body: Vec<u8>,
        encoding: Encoding,
        arrived: crate::model::UnixNanos,
        hash: BodyHash,
    ) -> Result<Option<(Job, queue::Reply)>, ExportError> {
        let options = DecodeOptions {
            now: arrived,
            retention: self.config.retention,
            pad_64bit_trace_ids: self.config.pad_64bit_trace_ids,
            element_cost_max: Some(element_cost_max(self.config.body_bytes_in_flight_max)),
        };
        let otlp::Translated { protobuf, warnings } = translated(body, encoding, &options)?;
        let body_bytes = protobuf.len();
        let mut decoded = otlp::decode(protobuf, &options)?;
        decoded.warnings.merge(warnings);
        let (rejected, kept) = (u64::from(decoded.rejected.total()), decoded.batch.spans.len() as u64);
        let message = decoded.message();
        self.counters.spans_received.add(rejected + kept);
        self.count_reasons(&decoded);
        if decoded.is_all_rejected() {
            return Err(ExportError::AllRejected { message: message.unwrap_or_default() });
        }
        let exported = Exported { rejected_spans: rejected, message };
        if kept == 0 {
            return if exported.message.is_none() {
                Ok(None)
            } else {
                // Nothing to store, but something to say: the writer acknowledges it without a record.
                Ok(Some(Job::new(decoded.batch, Vec::new(), arrived, hash, exported)))
            };
        }
        let payload = payload::encode(&decoded, body_bytes);
        Ok(Some(Job::new(decoded.batch, payload, arrived, hash, exported)))
    }

    fn count_reasons(&self, decoded: &otlp::Decoded) {
        for reason in otlp::Rejection::ALL {
            let spans = decoded.rejected.count(reason);
            if 0 < spans {
                self.counters.spans_rejected.add(reason.code(), u64::from(spans));
            }
        }
        for warning in otlp::Warning::ALL {
            let times = decoded.warnings.count(warning);
            if 0 < times {
                self.counters.spans_warned.add(warning.code(), u64::from(times));
            }
        }
        for (code, times) in [
            ("service_name_missing", decoded.counters.service_name_missing),
            ("future_spans", decoded.counters.future_spans),
            ("empty_envelope", decoded.counters.empty_envelopes),
            ("entity_ref_missing", decoded.counters.entity_ref_missing),
        ] {
            if 0 < times {
                self.counters.spans_warned.add(code, u64::from(times));
            }
        }
    }

    fn count(&self, outcome: &Result<Exported, ExportError>) {
        let refused = |reason| self.counters.requests_refused.add(reason, 1);
        match outcome {
            Ok(_) => self.counters.requests_accepted.add(1),
            Err(ExportError::Undecodable(_)) => self.counters.requests_failed.add("undecodable", 1),
            Err(ExportError::AllRejected { .. }) => self.counters.requests_failed.add("all_rejected", 1),
            Err(ExportError::Overloaded { .. }) => refused("overloaded"),
            Err(ExportError::Starting) => refused("starting"),
            Err(ExportError::Stopping) => refused("stopping"),
            Err(ExportError::DiskFull) => refused("disk_full"),
            Err(ExportError::ReadOnly) => refused("read_only"),
            Err(ExportError::Late) => refused("late"),
        }
    }
}

/// The body as OTLP protobuf; what was sent is let go of.
fn translated(body: Vec<u8>, encoding: Encoding, options: &DecodeOptions) -> Result<otlp::Translated, Undecodable> {
    match encoding {
        Encoding::Protobuf => Ok(otlp::Translated { protobuf: body, ..otlp::Translated::default() }),
        Encoding::Json => otlp::json_to_protobuf(&body, options),
        Encoding::ZipkinJson => otlp::zipkin_json_to_otlp(&body, options),
        Encoding::ZipkinProtobuf => otlp::zipkin_protobuf_to_otlp(&body, options),
    }
}

/// What a request may cost decoded when `budget_bytes` are there for all of them: see `ELEMENT_COST_PER_BUDGET_BYTE`.
fn element_cost_max(budget_bytes: usize) -> u64 {
    (budget_bytes as u64).saturating_mul(limits::ELEMENT_COST_PER_BUDGET_BYTE as u64)
}

/// Spans that were decoded and went no further, also because their client went away: counted when dropped.
struct Refused<'a> {
    counters: &'a Counters,
    spans: u64,
}

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        self.counters.spans_refused.add(self.spans);
    }
}

/// Spans that a journal record holds.
///
/// # Errors
/// Why it would not be replayed.
pub fn count_spans(payload: &[u8]) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(payload::decode(payload)?.spans.len() as u64)
}

fn body_hash(body: &[u8], encoding: Encoding) -> BodyHash {
    // The journal keeps these hashes: a number is never given to another encoding.
    let number = match encoding {
        Encoding::Protobuf => 0,
        Encoding::Json => 1,
        Encoding::ZipkinJson => 2,
        Encoding::ZipkinProtobuf => 3,
    };
    let mut hasher = blake3::Hasher::new();
    let _hasher = hasher.update(&[number]).update(body);
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    BodyHash(hash)
}
