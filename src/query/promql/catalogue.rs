//! The metrics that are offered: every one of them is counted in slots already (contract 6.2).

use crate::model::{Family, SeriesKey, SpanKind, SpanStatus};

use super::labels::{Labels, METRIC_NAME};

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Spans, by service, name, kind and status.
    Spans,
    /// Entry spans, by service, status and one place where they ran; where a setting names such.
    Entries,
    /// Calls as the server saw them, or the client where the server sends no spans; by client, server and connection.
    Calls,
    /// Calls as the client saw them.
    ClientCalls,
}

/// What of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// How many: a counter.
    Total,
    /// How many its histogram holds: a counter.
    Count,
    /// How many failed: a counter.
    Failed,
    /// Seconds: a counter.
    Sum,
    /// How long they took: a native histogram.
    Histogram,
    /// The same as a classic one.
    Buckets,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As `__name__` has it.
    pub name: &'static str,
    /// What it counts.
    pub subject: Subject,
    /// What of it.
    pub part: Part,
    /// One sentence.
    pub help: &'static str,
}

const fn metric(name: &'static str, subject: Subject, part: Part, help: &'static str) -> Metric {
    Metric { name, subject, part, help }
}

const SECONDS: &str = "Latency of spans in seconds.";
const ENTRY_SECONDS: &str = "Latency of entry spans in seconds, once for each place where they ran.";
const SERVER_SECONDS: &str = "Time of calls between two services in seconds, as the server saw it.";
const CLIENT_SECONDS: &str = "Time of calls between two services in seconds, as the client saw it.";

/// All of them, ascending by name.
pub const METRICS: [Metric; 20] = [
    metric("traces_service_graph_request_client_seconds", Subject::ClientCalls, Part::Histogram, CLIENT_SECONDS),
    metric("traces_service_graph_request_client_seconds_bucket", Subject::ClientCalls, Part::Buckets, CLIENT_SECONDS),
    metric("traces_service_graph_request_client_seconds_count", Subject::ClientCalls, Part::Count, CLIENT_SECONDS),
    metric("traces_service_graph_request_client_seconds_sum", Subject::ClientCalls, Part::Sum, CLIENT_SECONDS),
    metric(
        "traces_service_graph_request_failed_total",
        Subject::Calls,
        Part::Failed,
        "Calls between two services of which either side failed.",
    ),
    metric("traces_service_graph_request_server_seconds", Subject::Calls, Part::Histogram, SERVER_SECONDS),
    metric("traces_service_graph_request_server_seconds_bucket", Subject::Calls, Part::Buckets, SERVER_SECONDS),
    metric("traces_service_graph_request_server_seconds_count", Subject::Calls, Part::Count, SERVER_SECONDS),
    metric("traces_service_graph_request_server_seconds_sum", Subject::Calls, Part::Sum, SERVER_SECONDS),
    metric("traces_service_graph_request_total", Subject::Calls, Part::Total, "Calls between two services."),
    metric("traces_spanmetrics_calls_total", Subject::Spans, Part::Total, "Spans."),
    metric("traces_spanmetrics_entries_latency", Subject::Entries, Part::Histogram, ENTRY_SECONDS),
    metric("traces_spanmetrics_entries_latency_bucket", Subject::Entries, Part::Buckets, ENTRY_SECONDS),
    metric("traces_spanmetrics_entries_latency_count", Subject::Entries, Part::Count, ENTRY_SECONDS),
    metric("traces_spanmetrics_entries_latency_sum", Subject::Entries, Part::Sum, ENTRY_SECONDS),
    metric(
        "traces_spanmetrics_entries_total",
        Subject::Entries,
        Part::Total,
        "Entry spans with a latency, once for each place where they ran.",
    ),
    metric("traces_spanmetrics_latency", Subject::Spans, Part::Histogram, SECONDS),
    metric("traces_spanmetrics_latency_bucket", Subject::Spans, Part::Buckets, SECONDS),
    metric("traces_spanmetrics_latency_count", Subject::Spans, Part::Count, SECONDS),
    metric("traces_spanmetrics_latency_sum", Subject::Spans, Part::Sum, SECONDS),
];

impl Subject {
    /// Whether a stored series may be one of it.
    pub(super) fn has(self, key: &SeriesKey<'_>) -> bool {
        match self {
            Self::Spans => matches!(key.family, None | Some(Family::Untimed)),
            Self::Entries => matches!(key.family, Some(Family::Peel { .. })),
            Self::Calls | Self::ClientCalls => matches!(key.family, Some(Family::Edge { .. })),
        }
    }

    /// The labels of a stored series, without a name; `None` when it counts something else.
    pub fn labels(self, key: &SeriesKey<'_>) -> Option<Labels> {
        match (self, &key.family) {
            (Self::Spans, None | Some(Family::Untimed)) => Some(Labels::of([
                ("service", &*key.service),
                ("span_kind", kind_text(key.kind)),
                ("span_name", &*key.span_name),
                ("status_code", status_text(key.status)),
            ])),
            (Self::Calls | Self::ClientCalls, Some(Family::Edge { namespace, client, connection })) => {
                Some(Labels::of([
                    ("client", &**client),
                    ("client_service_namespace", &**namespace),
                    ("connection_type", connection.as_str()),
                    ("server", &*key.service),
                    ("server_service_namespace", &*key.namespace),
                ]))
            }
            _ => None,
        }
    }
}

impl Metric {
    /// As `/metadata` has it.
    pub fn type_text(&self) -> &'static str {
        if matches!(self.part, Part::Histogram | Part::Buckets) { "histogram" } else { "counter" }
    }

    /// The labels with the name.
    pub fn named(&self, labels: Labels) -> Labels {
        labels.with(METRIC_NAME, self.name)
    }
}

fn kind_text(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Internal => "SPAN_KIND_INTERNAL",
        SpanKind::Server => "SPAN_KIND_SERVER",
        SpanKind::Client => "SPAN_KIND_CLIENT",
        SpanKind::Producer => "SPAN_KIND_PRODUCER",
        SpanKind::Consumer => "SPAN_KIND_CONSUMER",
    }
}

pub(super) fn status_text(status: SpanStatus) -> &'static str {
    match status {
        SpanStatus::Unset => "STATUS_CODE_UNSET",
        SpanStatus::Ok => "STATUS_CODE_OK",
        SpanStatus::Error => "STATUS_CODE_ERROR",
    }
}
