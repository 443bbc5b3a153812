//! `/healthz` (the process answers), `/ready` (requests are stored and answered), `/metrics` (OpenMetrics).

use std::collections::HashSet;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

use crate::ingest::Phase;
use crate::telemetry::{Counter, ReasonCounter};

use super::{Doors, text};

/// A retry later than this may be stored a second time.
const RETRY_WINDOW_SECS_MIN: u64 = 600;

pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok\n") }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

/// What `/ready` says.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    pub(super) phase: String,
    pub(super) durability: &'static str,
    /// What an operator should know although the process is ready, and why it is not when it is not.
    pub(super) reasons: Vec<String>,
}

impl Doors {
    pub(super) fn readiness(&self) -> Readiness {
        let (ready, phase, why) = match self.ingest.phase() {
            Phase::Ready => (true, "ready", None),
            Phase::Starting => (false, "starting", Some("the journal is being replayed".to_owned())),
            Phase::Stopping => (false, "stopping", None),
            Phase::DiskFull(why) => (false, "disk full", Some(why)),
            Phase::ReadOnly(why) => (false, "read-only", Some(why)),
        };
        let mut reasons: Vec<String> = why.into_iter().collect();
        let durability = match self.ingest.durability() {
            crate::ingest::Durability::Fsync => "fsync",
            crate::ingest::Durability::Relaxed => {
                reasons.push("durability is relaxed: a power cut loses what was acknowledged last".to_owned());
                "relaxed"
            }
        };
        let reach = self.ingest.retry_window_secs();
        if reach < RETRY_WINDOW_SECS_MIN {
            reasons.push(format!("retries are recognised for {reach} s only"));
        }
        reasons.extend(self.ingest.losses());
        reasons.extend(self.query.warnings());
        Readiness { ready, phase: phase.to_owned(), durability, reasons }
    }
}

async fn ready(State(doors): State<Doors>) -> Response {
    let readiness = doors.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(doors): State<Doors>, headers: HeaderMap) -> Response {
    let mut registry = Registry::with_prefix("spandrel");
    registry.register_collector(Box::new(OwnMetrics(doors)));
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, &registry) {
        Ok(()) if wants_classic(&headers) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], classic(&body)).into_response()
        }
        Ok(()) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Who asks for plain text alone reads no OpenMetrics.
fn wants_classic(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("text/plain") && !accept.contains("openmetrics")
}

/// The same in the older text format: a counter's family is called as its values are, with `_total`.
fn classic(open_metrics: &str) -> String {
    let types = open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"));
    let counters: HashSet<&str> = types.collect();
    let mut out = String::new();
    for line in open_metrics.lines().filter(|line| !line.starts_with("# EOF") && !line.starts_with("# UNIT")) {
        let mut words = line.splitn(4, ' ');
        match [(); 4].map(|()| words.next().unwrap_or_default()) {
            ["#", what, family, rest] if counters.contains(family) => {
                out.extend(["# ", what, " ", family, "_total ", rest, "\n"]);
            }
            _ => out.extend([line, "\n"]),
        }
    }
    out
}

#[derive(Debug)]
struct OwnMetrics(Doors);

impl Collector for OwnMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counters = &self.0.counters;
        for (name, help, counter) in [
            ("ingest_requests_received", "Export requests whose body arrived whole.", &counters.requests_received),
            ("ingest_requests_accepted", "Requests answered with success.", &counters.requests_accepted),
            ("ingest_requests_repeated", "Requests recognised as a retry.", &counters.requests_repeated),
            ("connections_opened", "Connections accepted.", &counters.connections_opened),
            ("panics", "Requests that ended by a panic: each is a bug.", &counters.panics),
            ("ingest_body_bytes", "Bytes of request bodies after inflation.", &counters.body_bytes),
            ("ingest_spans_received", "Spans decoded from requests.", &counters.spans_received),
            ("ingest_spans_replayed", "Spans read back from the journal at start.", &counters.spans_replayed),
            ("ingest_spans_stored", "Spans written into blocks.", &counters.spans_stored),
            ("ingest_spans_refused", "Spans of refused requests.", &counters.spans_refused),
            ("journal_records", "Records written and synced.", &counters.journal_records),
            ("journal_bytes", "Bytes written to the journal.", &counters.journal_bytes),
            ("journal_syncs", "Group commits, one fdatasync each.", &counters.journal_syncs),
            ("journal_damaged", "Records that were damaged or missing at start.", &counters.journal_damaged),
            ("journal_torn_bytes", "Bytes of unfinished records cut off at start.", &counters.journal_torn_bytes),
            ("store_checkpoints", "Blocks written.", &counters.checkpoints),
            ("store_partitions_sealed", "Partitions sealed.", &counters.partitions_sealed),
            ("store_partitions_dropped", "Partitions removed by retention.", &counters.partitions_dropped),
            ("store_retention_failures", "Times spans stayed past retention.", &counters.retention_failures),
            ("store_partitions_quarantined", "Partitions moved to quarantine.", &counters.partitions_quarantined),
            ("series_overflow_spans", "Entry spans without a family of their own.", &counters.series_overflow_spans),
            ("store_damaged_reads", "Reads that met a damaged page.", &counters.damaged_reads),
        ] {
            write_counter(&mut encoder, name, help, counter)?;
        }
        for (name, help, label, counter) in [
            ("ingest_requests_refused", "Requests refused; a retry helps.", "reason", &counters.requests_refused),
            ("ingest_requests_failed", "Requests refused for good.", "reason", &counters.requests_failed),
            ("ingest_spans_duplicate", "Spans that were stored already.", "reason", &counters.spans_duplicate),
            ("ingest_spans_rejected", "Invalid spans, not stored.", "reason", &counters.spans_rejected),
            ("ingest_spans_warned", "Remarks about stored spans.", "code", &counters.spans_warned),
            ("requests_denied", "Requests without valid credentials.", "reason", &counters.requests_denied),
            ("connections_refused", "Connections not served.", "reason", &counters.connections_refused),
            ("connections_timed_out", "Connections of peers too slow.", "reason", &counters.connections_timed_out),
            ("queries", "Questions answered.", "door", &counters.queries),
            ("query_errors", "Questions refused or failed.", "door", &counters.query_errors),
        ] {
            write_reasons(&mut encoder, name, help, label, counter)?;
        }
        write_agents(&mut encoder, &counters.requests_by_agent)?;
        write_seconds(&mut encoder, "journal_sync_duration", "Time in fdatasync.", &counters.journal_sync_nanos)?;
        write_seconds(&mut encoder, "store_checkpoint_duration", "Time in checkpoints.", &counters.checkpoint_nanos)?;
        self.write_gauges(&mut encoder)
    }
}

impl OwnMetrics {
    fn write_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let store = self.0.query.status().unwrap_or_default();
        let counters = &self.0.counters;
        // Closed first: a connection that ends in between is open in both or in none.
        let closed = counters.connections_closed.value();
        let connections = counters.connections_opened.value().saturating_sub(closed);
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("ingest_spans_in_head", "Spans in no block yet.", gauge(store.spans_in_memory)),
            ("store_disk_bytes", "Bytes of all partitions.", gauge(store.disk_bytes)),
            ("store_partitions", "Partitions on disk.", gauge(store.partitions.len() as u64)),
            ("store_quarantined", "Directories in quarantine.", gauge(store.quarantined.len() as u64)),
            ("dedup_window_seconds", "How far back a retry is recognised.", gauge(self.0.ingest.retry_window_secs())),
            ("connections", "Connections that are open.", gauge(connections)),
            ("ingest_budget_bytes", "Bytes that request bodies may hold now.", gauge(self.0.ingest.budget().left())),
            ("ready", "1 when requests are stored and answered.", i64::from(self.0.readiness().ready)),
        ] {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        Ok(())
    }
}

fn write_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counter: &Counter,
) -> Result<(), std::fmt::Error> {
    let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(counter.value()).encode(encoder)
}

fn write_seconds(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    nanos: &Counter,
) -> Result<(), std::fmt::Error> {
    let encoder = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
    ConstCounter::new(nanos.value() as f64 / 1e9).encode(encoder)
}

fn write_reasons(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    counter: &ReasonCounter,
) -> Result<(), std::fmt::Error> {
    let family = Family::<Vec<(&'static str, &'static str)>, prometheus_client::metrics::counter::Counter>::default();
    for (reason, value) in counter.values() {
        let _before = family.get_or_create(&vec![(label, reason)]).inc_by(value);
    }
    let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    family.encode(encoder)
}

/// Who sends: the OTLP exporters by their `User-Agent`, twenty of them by name (OTLP-70).
fn write_agents(
    encoder: &mut DescriptorEncoder<'_>,
    agents: &crate::telemetry::NameCounter,
) -> Result<(), std::fmt::Error> {
    let family = Family::<Vec<(&'static str, String)>, prometheus_client::metrics::counter::Counter>::default();
    for (agent, value) in agents.values() {
        let _before = family.get_or_create(&vec![("user_agent", agent)]).inc_by(value);
    }
    let help = "Export requests by the exporter's User-Agent.";
    let encoder = encoder.encode_descriptor("ingest_requests_by_agent", help, None, MetricType::Counter)?;
    family.encode(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_who_asks_for_it_alone_and_names_counters_as_their_values() {
        let accepted = |accept: &'static str| HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        assert!(wants_classic(&accepted("text/plain;version=0.0.4;q=1,*/*;q=0.1")));
        assert!(!wants_classic(&accepted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")));
        assert!(!wants_classic(&accepted("*/*")) && !wants_classic(&HeaderMap::new()));
        let open = "# HELP a_seconds Time in it.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1.5\n\
                    # HELP b How many.\n# TYPE b gauge\nb{c=\"d e f\"} 2\n# EOF\n";
        let text = "# HELP a_seconds_total Time in it.\n# TYPE a_seconds_total counter\na_seconds_total 1.5\n\
                    # HELP b How many.\n# TYPE b gauge\nb{c=\"d e f\"} 2\n";
        assert_eq!(classic(open), text);
    }
}
