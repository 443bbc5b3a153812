//! The collector's own numbers: plain counters that every layer may raise and `/metrics` shows.
//!
//! The books balance at rest, and a test holds them to it:
//! `received + replayed = stored + in_head + duplicate + rejected + refused` (spans).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// An error with its causes in one line: what a log line or a status says of it.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it by `by`.
    pub fn add(&self, by: u64) {
        let _before = self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters under a stable reason word. A few words, raised rarely: a mutex is enough.
#[derive(Debug, Default)]
pub struct ReasonCounter(Mutex<BTreeMap<&'static str, u64>>);

impl ReasonCounter {
    /// Raises the counter of `reason` by `by`.
    pub fn add(&self, reason: &'static str, by: u64) {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *values.entry(reason).or_default() += by;
    }

    /// Every reason seen so far with its value, sorted.
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(reason, value)| (*reason, *value)).collect()
    }

    /// Sum over all reasons.
    pub fn total(&self) -> u64 {
        self.values().iter().map(|(_, value)| value).sum()
    }
}

/// Counters under names that clients choose: the first twenty have one of their own, the rest share one.
#[derive(Debug, Default)]
pub struct NameCounter(Mutex<BTreeMap<String, u64>>);

impl NameCounter {
    const NAMES_MAX: usize = 20;
    const OTHER: &str = "other";

    /// Raises the counter of `name`.
    pub fn add(&self, name: &str) {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = values.get_mut(name) {
            *value += 1;
            return;
        }
        let name = if values.len() < Self::NAMES_MAX { name } else { Self::OTHER };
        *values.entry(name.to_owned()).or_default() += 1;
    }

    /// Every name with its value, sorted.
    pub fn values(&self) -> Vec<(String, u64)> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.iter().map(|(name, value)| (name.clone(), *value)).collect()
    }
}

/// Every counter of the process, shared by all layers.
#[derive(Debug, Default)]
pub struct Counters {
    /// Export requests whose body arrived whole.
    pub requests_received: Counter,
    /// Requests answered with success, partial success included.
    pub requests_accepted: Counter,
    /// Requests recognised as a retry of an accepted one.
    pub requests_repeated: Counter,
    /// Requests refused with a retryable status, by reason.
    pub requests_refused: ReasonCounter,
    /// Requests refused for good (undecodable, too large, every span bad), by reason.
    pub requests_failed: ReasonCounter,
    /// Requests refused for their credentials, by reason.
    pub requests_denied: ReasonCounter,
    /// Export requests by `User-Agent`.
    pub requests_by_agent: NameCounter,
    /// Connections accepted.
    pub connections_opened: Counter,
    /// Connections that have ended; the others are open.
    pub connections_closed: Counter,
    /// Connections closed before their first request, by reason.
    pub connections_refused: ReasonCounter,
    /// Connections closed because the peer was too slow, by what it was slow at.
    pub connections_timed_out: ReasonCounter,
    /// Requests that ended by a panic: each is a bug.
    pub panics: Counter,
    /// Spans decoded from requests.
    pub spans_received: Counter,
    /// Spans read back from the journal at start.
    pub spans_replayed: Counter,
    /// Spans written into blocks.
    pub spans_stored: Counter,
    /// Spans not stored because they are there already, by how that was seen.
    pub spans_duplicate: ReasonCounter,
    /// Spans not stored because they are invalid, by reason code.
    pub spans_rejected: ReasonCounter,
    /// Spans of refused requests.
    pub spans_refused: Counter,
    /// Spans stored with a remark, by reason code.
    pub spans_warned: ReasonCounter,
    /// Bytes of request bodies after inflation.
    pub body_bytes: Counter,
    /// Journal records written and synced.
    pub journal_records: Counter,
    /// Bytes written to the journal.
    pub journal_bytes: Counter,
    /// Group commits: each is one fdatasync.
    pub journal_syncs: Counter,
    /// Nanoseconds spent in those fdatasyncs.
    pub journal_sync_nanos: Counter,
    /// Journal records that were damaged and skipped at start.
    pub journal_damaged: Counter,
    /// Bytes of unfinished records that were cut off at start.
    pub journal_torn_bytes: Counter,
    /// Checkpoints: one block each.
    pub checkpoints: Counter,
    /// Nanoseconds spent in checkpoints.
    pub checkpoint_nanos: Counter,
    /// Partitions sealed.
    pub partitions_sealed: Counter,
    /// Partitions removed by retention.
    pub partitions_dropped: Counter,
    /// Times that retention could not do all that it should.
    pub retention_failures: Counter,
    /// Partitions moved to quarantine.
    pub partitions_quarantined: Counter,
    /// Reads that met a damaged page.
    pub damaged_reads: Counter,
    /// Entry spans counted under `__overflow__` of a peel dimension.
    pub series_overflow_spans: Counter,
    /// Queries answered, by door.
    pub queries: ReasonCounter,
    /// Queries refused or failed, by door.
    pub query_errors: ReasonCounter,
    /// Nanoseconds spent on queries, by door.
    pub query_nanos: ReasonCounter,
}
