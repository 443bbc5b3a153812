//! Questions and their answers. Plain synchronous code over a snapshot of the store; doors in `api` turn it into
//! protocols. Every answer says what it covers and what is missing.

mod asker;
mod buckets;
mod contributions;
mod critical_path;
mod exemplars;
mod export;
mod graph;
mod groups;
mod heatmap;
mod ids;
mod lookup;
mod metrics;
mod operations;
mod percentile;
mod pins;
pub mod promql;
mod rank;
mod rows;
mod search;
mod selection;
mod series_window;
mod services;
mod steps;
mod tags;
mod tally;
#[cfg(test)]
mod tests;
mod trace;
pub mod traceql;
mod turns;
mod walk;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::limits::{PIN_NOTE_BYTES_MAX, PINS_MAX};
use crate::model::{Conventions, DurationNanos, TimeRange, TraceId, UnixNanos};
use crate::store::{Snapshot, Store, StoreError};
use crate::telemetry::Counters;

pub use crate::latency::{Quantile, QuantileOutOfRange};
pub use crate::store::Pin;
use asker::Asked;
pub use asker::Asker;
pub use critical_path::{CriticalPath, PathSpan, critical_paths};
pub use exemplars::ExemplarAnswer;
use exemplars::ExemplarCache;
pub use export::{ExportFormat, ExportQuestion, Exported};
pub use graph::{Edge, EdgeEnds, GraphAnswer, GraphQuestion};
pub use groups::{Group, Rest, Tail};
pub use heatmap::{CELL_EXEMPLARS_MAX, COLUMNS_MAX, HeatmapAnswer, HeatmapCell, HeatmapQuestion};
pub use ids::SpanIds;
pub use metrics::{MetricsAnswer, MetricsExemplar, MetricsQuestion, MetricsSeries, POINTS_MAX};
pub use operations::{CallsAnswer, Operation, OperationsAnswer, ServiceCalls};
pub use percentile::{By, Counted, PercentileAnswer, PercentileQuestion, QuantileRow, STEPS_MAX};
pub use rank::{RankAnswer, SpanRank};
pub use search::{
    ROOT_NOT_RECEIVED, SearchAnswer, SearchProgress, SearchQuestion, SearchReport, SearchSpan, SearchTrace,
    ServiceSpans, SpanSet, TraceConditions,
};
pub use selection::{GroupLabel, Grouping, SpansWanted};
pub use services::ServiceRow;
pub use steps::StepRow;
pub use tags::{TagNames, TagValues, TagValuesQuestion};
pub use trace::TraceAnswer;
use turns::{TURNS, Turns};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store is being opened or replayed.
    #[error("starting: the store is being opened; try again in a moment")]
    Starting,
    /// No span of such a service is stored.
    #[error("no service {service:?} is stored{}", nearest_hint(nearest))]
    UnknownService {
        /// As asked.
        service: String,
        /// Stored names that look alike, best first.
        nearest: Vec<String>,
    },
    /// No span of such a trace is stored.
    #[error("no span of trace {trace} is stored: it was never sent, rejected, or has left with its retention")]
    UnknownTrace {
        /// As asked.
        trace: TraceId,
    },
    /// There is no such pin.
    #[error("trace {trace} is not pinned; /spandrel/v1/pins lists those that are")]
    NotPinned {
        /// As asked.
        trace: TraceId,
    },
    /// There are as many pins as may be.
    #[error("{PINS_MAX} traces are pinned, which is all there may be; remove some first")]
    TooManyPins,
    /// A note that is too long.
    #[error("the note has {bytes} bytes, at most {PIN_NOTE_BYTES_MAX} are kept")]
    LongNote {
        /// Its length.
        bytes: usize,
    },
    /// A quantile that is none.
    #[error(transparent)]
    Quantile(#[from] QuantileOutOfRange),
    /// An empty or reversed window.
    #[error("the window is empty: end {end} is not after start {start} (unix ns)")]
    EmptyWindow {
        /// As asked.
        start: u64,
        /// As asked.
        end: u64,
    },
    /// A step that no series is made of, or one so short that the series would be too long.
    #[error("step {}s cannot be used for {steps} steps: it must be a whole multiple of 10s, and a series has at most {steps_max} steps", step.0 / 1_000_000_000)]
    BadStep {
        /// As asked.
        step: DurationNanos,
        /// How many the window has.
        steps: u64,
        /// How many it may have.
        steps_max: u64,
    },
    /// A series that would be too long.
    #[error("{points} points are too many for one series, at most {POINTS_MAX} are made; ask for a longer step")]
    TooManyPoints {
        /// What was asked for.
        points: u64,
    },
    /// Spans had to be read one by one, and were too many.
    #[error("the question took longer than {}s; ask for a shorter window, or leave out the filter and a by= that is not kept apart", within.as_secs())]
    TooLong {
        /// How long a question may take.
        within: Duration,
    },
    /// Too many others take long as well.
    #[error("the question waited for its turn for {}s: {TURNS} that take long are answered at once; ask again later, or for less: a shorter window, fewer traces", within.as_secs())]
    NoTurn {
        /// How long it may wait, from its beginning.
        within: Duration,
    },
    /// A field with too many values.
    #[error("{key} has more than {groups_max} values in the window; use where= to look at fewer spans, or another by=")]
    TooManyGroups {
        /// The field.
        key: String,
        /// How many there may be.
        groups_max: usize,
    },
    /// A question that would have to remember too many traces.
    #[error(
        "more than {traces_max} traces of the window have a part of what the query needs; ask for a shorter window"
    )]
    TooManyTraces {
        /// How many there may be.
        traces_max: usize,
    },
    /// More things are counted at once than may be.
    #[error(
        "there are more than {bound} {what}; look at fewer spans or a shorter range, group by less, or take a longer step"
    )]
    TooMuchCounted {
        /// Of what, in words.
        what: &'static str,
        /// How much there may be.
        bound: usize,
    },
    /// All peel dimensions at once, and a filter.
    #[error(
        "by=peel is not supported together with where=; name one dimension, such as by=resource.cloud.availability_zone"
    )]
    NoFilterWithPeel,
    /// Whoever asked has gone.
    #[error("nobody waits for the answer any more")]
    Abandoned,
    /// A bug of ours ended the question.
    #[error("the question could not be answered because of an internal error; it is in the log")]
    Failed,
    /// The store failed in a way that leaves nothing to answer.
    #[error("the store could not answer")]
    Store(#[from] StoreError),
}

fn nearest_hint(nearest: &[String]) -> String {
    if nearest.is_empty() { "; none are stored yet".to_owned() } else { format!("; known are {}", nearest.join(", ")) }
}

/// How often a question is asked while partitions are replaced under its hands: they are replaced one by one.
const ATTEMPTS: usize = 5;
/// How the reason ends that asking again removes.
const REPLACED: &str = " was replaced while it was read; ask again";

/// What an answer speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// What is missing, one sentence each; empty when nothing is.
    pub reasons: Vec<String>,
}

impl Coverage {
    /// Nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.reasons.is_empty()
    }

    /// What is missing from the other is missing here as well.
    pub fn also(&mut self, other: Self) {
        other.reasons.into_iter().for_each(|reason| self.missing(reason));
    }

    /// Whether something was replaced while it was read: asking again answers.
    fn is_outdated(&self) -> bool {
        self.reasons.iter().any(|reason| reason.ends_with(REPLACED))
    }

    fn missing(&mut self, reason: String) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

/// Answers questions. Exists before the store is open, so that sockets can answer while it is being opened.
#[derive(Clone, Debug)]
pub struct Query {
    shared: Arc<Shared>,
    asked: Arc<Asked>,
}

/// What all questions share.
#[derive(Debug)]
struct Shared {
    store: OnceLock<Arc<Store>>,
    clock: Clock,
    counters: Arc<Counters>,
    exemplars: ExemplarCache,
    turns: Arc<Turns>,
    /// What could not be read since the start.
    left_out: Mutex<BTreeSet<String>>,
}

/// More kinds of damage than these are not told apart.
const LEFT_OUT_MAX: usize = 20;

/// Sizes for `/spandrel/v1/status`, `/ready` and `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// Spans in no block yet.
    pub spans_in_memory: u64,
    /// Bytes of all partitions.
    pub disk_bytes: u64,
    /// Name, whether sealed, and blocks of each partition, oldest first.
    pub partitions: Vec<(String, bool, u64)>,
    /// Names in `quarantine/`.
    pub quarantined: Vec<String>,
}

impl Query {
    /// Without a store every question is answered `Starting`.
    pub fn new(clock: Clock, counters: Arc<Counters>) -> Self {
        let shared = Shared {
            store: OnceLock::new(),
            clock,
            counters,
            exemplars: ExemplarCache::default(),
            turns: Arc::default(),
            left_out: Mutex::default(),
        };
        Self { shared: Arc::new(shared), asked: Arc::default() }
    }

    /// The same for one question, on a thread that ends with it, of somebody who may go away before.
    pub fn for_asker(&self) -> (Self, Asker) {
        let (asked, ends_with) = Asked::on_own_thread(&self.shared.turns);
        (Self { shared: Arc::clone(&self.shared), asked }, ends_with)
    }

    /// Between two steps of a question that may be long and began then, where it holds little. Waits while others that are long
    /// are before it.
    ///
    /// # Errors
    /// `Abandoned`, `TooLong`, `NoTurn`.
    pub fn may_go_on(&self, began: Instant, within: Duration) -> Result<(), QueryError> {
        self.asked.may_go_on(began, within)
    }

    fn is_in_time(&self, began: Instant, within: Duration) -> Result<(), QueryError> {
        self.asked.is_in_time(began, within)
    }

    /// Opens the door. A second call changes nothing.
    pub fn attach(&self, store: Arc<Store>) {
        let _only_the_first = self.shared.store.set(store);
    }

    /// The time against which relative times are meant.
    pub fn now(&self) -> UnixNanos {
        self.shared.clock.now()
    }

    /// What the settings say of spans.
    ///
    /// # Errors
    /// `Starting`.
    pub fn conventions(&self) -> Result<Arc<Conventions>, QueryError> {
        Ok(Arc::clone(&self.store()?.config().conventions))
    }

    /// Sizes of the store.
    ///
    /// # Errors
    /// `Starting`.
    pub fn status(&self) -> Result<StoreStatus, QueryError> {
        let store = self.store()?;
        Ok(StoreStatus {
            spans_in_memory: store.spans_in_memory(),
            disk_bytes: store.disk_bytes(),
            partitions: store.partitions().iter().map(|p| (p.name(), p.manifest().is_some(), p.n_blocks())).collect(),
            quarantined: store.quarantined(),
        })
    }

    /// What an operator should know of the store, one sentence each: what is in quarantine, damaged, being rebuilt, or was
    /// left out of an answer since the start.
    pub fn warnings(&self) -> Vec<String> {
        let Ok(store) = self.store() else { return Vec::new() };
        let left_out = self.shared.left_out.lock();
        store
            .warnings()
            .into_iter()
            .chain(left_out.iter().map(|what| format!("left out of an answer: {what}")))
            .collect()
    }

    fn store(&self) -> Result<&Arc<Store>, QueryError> {
        self.shared.store.get().ok_or(QueryError::Starting)
    }

    /// Notes a partition or block that could not be read. One that retention removed meanwhile is not missed.
    fn unreadable(&self, coverage: &mut Coverage, what: &str, error: &StoreError) {
        if matches!(error, StoreError::Removed { .. }) {
            return;
        }
        if matches!(error, StoreError::Replaced { .. }) {
            return coverage.missing(format!("{what}{REPLACED}"));
        }
        self.shared.counters.damaged_reads.add(1);
        let mut left_out = self.shared.left_out.lock();
        if left_out.len() < LEFT_OUT_MAX {
            let _new = left_out.insert(error.to_string());
        }
        drop(left_out);
        tracing::error!(what, error = error as &dyn std::error::Error, "left out of an answer");
        coverage.missing(format!("{what} could not be read"));
    }
}

fn coverage_of(snapshot: &Snapshot) -> Coverage {
    let quarantined = snapshot.quarantined.iter().map(|name| format!("{name} is in quarantine"));
    Coverage { reasons: quarantined.chain(snapshot.reservations.iter().cloned()).collect() }
}

/// The window widened to whole slots, which is what histograms can answer.
fn whole_slots(range: TimeRange) -> TimeRange {
    let slot = crate::limits::SLOT_SECS * 1_000_000_000;
    let end = range.end.0.div_ceil(slot).saturating_mul(slot);
    TimeRange { start: UnixNanos(range.start.0 / slot * slot), end: UnixNanos(end) }
}
