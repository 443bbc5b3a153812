//! The server's answers as the command line reads them: the native API's JSON (`services`, `percentile`), a trace as
//! OTLP JSON, and Tempo's for a search.
//!
//! Reading is lenient (unknown fields pass, missing ones are empty), as an older client may meet a newer server.
//! Nothing here is escaped for a terminal; `render` does that.

mod metrics;
mod trace;

#[cfg(test)]
mod tests;

pub use metrics::{LabelView, MetricsExemplarView, MetricsSeriesView, MetricsView, SampleView};
pub use trace::{RankView, ResourceView, SpanView, TraceView};

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::UnixNanos;

/// Answer of `/spandrel/v1/services`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServicesView {
    /// One per service.
    pub services: Vec<ServiceView>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceView {
    /// `service.name`.
    pub name: String,
    /// `service.namespace`, empty when there is none.
    pub namespace: String,
    /// Stored spans.
    pub span_count: u64,
    /// When its newest span came; 0 when unknown.
    #[serde(deserialize_with = "unix_nanos")]
    pub last_seen_unix_nano: UnixNanos,
}

/// Answer of `/api/search`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SearchView {
    /// The newest first.
    pub traces: Vec<FoundTraceView>,
}

/// A trace that was found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FoundTraceView {
    /// Its id.
    #[serde(rename = "traceID")]
    pub trace_id: String,
    /// Service of its root.
    pub root_service_name: String,
    /// Name of its root.
    pub root_trace_name: String,
    /// Earliest start of a span.
    #[serde(deserialize_with = "unix_nanos")]
    pub start_time_unix_nano: UnixNanos,
    /// Whole milliseconds from there to the latest end.
    pub duration_ms: u64,
    /// One.
    pub span_sets: Vec<SpanSetView>,
    /// By service.
    pub service_stats: BTreeMap<String, ServiceStatsView>,
}

/// The spans of a trace that match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SpanSetView {
    /// How many.
    pub matched: u64,
}

/// Spans of one service in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatsView {
    /// All.
    pub span_count: u64,
    /// Failed ones.
    pub error_count: u64,
}

/// Answer of `/spandrel/v1/pins`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PinsView {
    /// The newest first.
    pub pins: Vec<PinView>,
}

/// One pinned trace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PinView {
    /// Its trace.
    pub trace_id: String,
    /// Why.
    pub note: String,
    /// When.
    #[serde(deserialize_with = "unix_nanos")]
    pub pinned_at_unix_nano: UnixNanos,
    /// Until when, in unix nanoseconds; for ever when missing.
    pub expires_unix_nano: Option<String>,
}

/// Answer of `/spandrel/v1/percentile`, and one group of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PercentileView {
    /// `service.name`.
    pub service: String,
    /// What makes this group, by attribute; empty for the whole. No value: the spans without that attribute.
    pub labels: BTreeMap<String, Option<String>>,
    /// First instant of the window.
    #[serde(deserialize_with = "unix_nanos")]
    pub start_unix_nano: UnixNanos,
    /// First instant after the window.
    #[serde(deserialize_with = "unix_nanos")]
    pub end_unix_nano: UnixNanos,
    /// Spans in the window.
    pub count: u64,
    /// As asked for.
    pub quantiles: Vec<QuantileView>,
    /// Spans of this group in the tail of the whole.
    pub tail_count: u64,
    /// How many there would be, were the group like the whole.
    pub tail_expected: f64,
    /// The same per group, when asked for `by`.
    pub groups: Vec<PercentileView>,
    /// Groups beyond those.
    pub rest: Option<RestView>,
    /// An earlier window, when asked for `vs`.
    pub versus: Option<Box<PercentileView>>,
    /// What the numbers leave out.
    pub coverage: CoverageView,
}

/// Groups that are not shown one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RestView {
    /// How many.
    pub groups: u64,
    /// Their spans.
    pub count: u64,
}

/// Answer of `/spandrel/v1/graph`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GraphView {
    /// By client and server.
    pub edges: Vec<EdgeView>,
    /// What the numbers leave out.
    pub coverage: CoverageView,
}

/// Calls of one service to another.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EdgeView {
    /// Who calls.
    pub client: String,
    /// Whom.
    pub server: String,
    /// Empty for a call between two services.
    pub connection_type: String,
    /// As the server saw it.
    pub server_side: SideView,
    /// The slowest first.
    pub exemplars: Vec<ExemplarView>,
}

/// One end of an edge.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SideView {
    /// Calls.
    pub count: u64,
    /// Those that failed.
    pub error_count: u64,
    /// Calls per second of the window.
    pub rate_per_second: f64,
    /// As asked for.
    pub quantiles: Vec<QuantileView>,
}

/// One quantile and the traces that show it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct QuantileView {
    /// In `0..=1`.
    pub q: f64,
    /// Upper edge of the bucket; `None` when nothing was recorded.
    pub value_ns: Option<u64>,
    /// The bucket; `None` when nothing was recorded.
    pub bucket: Option<BucketView>,
    /// How far the value may lie above the exact one, as a share of it.
    pub relative_error_max: Option<f64>,
    /// Which span it is, counted from the fastest, 1 first.
    pub rank: Option<u64>,
    /// The best one first.
    pub exemplars: Vec<ExemplarView>,
}

/// Bounds of a bucket, both inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct BucketView {
    /// Lowest duration in it.
    pub low_ns: u64,
    /// Highest duration in it.
    pub high_ns: u64,
}

/// A span that stands for a number.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExemplarView {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// How long it took.
    pub duration_ns: u64,
    /// When it started.
    #[serde(deserialize_with = "unix_nanos")]
    pub time_unix_nano: UnixNanos,
    /// Its name.
    pub span_name: String,
    /// Whether it failed.
    pub error: bool,
    /// Where it ran: values of the peel dimensions, numbers as they are written.
    #[serde(deserialize_with = "texts")]
    pub attributes: BTreeMap<String, String>,
    /// Whether it lies in the quantile's very bucket, or only near it.
    pub in_bucket: bool,
}

/// Whether an answer speaks of all spans of its window.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct CoverageView {
    /// Nothing is missing.
    pub complete: bool,
    /// What is, otherwise; objects are kept as JSON.
    #[serde(deserialize_with = "text_list")]
    pub reasons: Vec<String>,
}

impl Default for CoverageView {
    fn default() -> Self {
        Self { complete: true, reasons: Vec::new() }
    }
}

/// Nanoseconds as JSON carries them: a string, as a double would round them; a number is taken too.
fn unix_nanos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixNanos, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let nanos = value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok());
    nanos.map(UnixNanos).ok_or_else(|| serde::de::Error::custom("a time is a string of nanoseconds since 1970"))
}

fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(key, value)| (key, text(value))).collect())
}

fn text_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<Value>::deserialize(deserializer)?.into_iter().map(text).collect())
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
