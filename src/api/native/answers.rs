//! The shapes of the native API. Ids are hex, times decimal strings (they pass 2^53), durations numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::DurationNanos;
use crate::query::{
    Counted, ExemplarAnswer, Group, PercentileAnswer, QuantileRow, Rest, ServiceRow, SpanIds, StepRow, StoreStatus,
};

use super::Doors;

#[derive(Debug, Serialize)]
pub(super) struct ServicesJson {
    services: Vec<ServiceJson>,
}

#[derive(Debug, Serialize)]
struct ServiceJson {
    name: String,
    namespace: String,
    span_count: u64,
    last_seen_unix_nano: String,
}

#[derive(Debug, Serialize)]
pub(super) struct PercentileJson {
    service: String,
    start_unix_nano: String,
    end_unix_nano: String,
    #[serde(flatten)]
    counted: CountedJson,
    /// One per group when `by` is asked for, those that add most to the tail first.
    groups: Vec<GroupJson>,
    /// What the groups are ranked by: every span in the bucket of this quantile or above.
    #[serde(skip_serializing_if = "Option::is_none")]
    tail: Option<TailJson>,
    /// The groups that are not shown, in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<RestJson>,
    /// One per step with a span when `step` is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    series: Vec<StepJson>,
    /// The window that `vs` asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    versus: Option<Box<PercentileJson>>,
    coverage: CoverageJson,
}

/// What one histogram says, with rate, errors and duration.
#[derive(Debug, Serialize)]
pub(super) struct CountedJson {
    count: u64,
    error_count: u64,
    rate_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_ns: Option<f64>,
    quantiles: Vec<QuantileJson>,
}

#[derive(Debug, Serialize)]
struct GroupJson {
    /// One label; null for the spans without such an attribute.
    labels: BTreeMap<String, Option<String>>,
    #[serde(flatten)]
    counted: CountedJson,
    tail_count: u64,
    tail_expected: f64,
}

#[derive(Debug, Serialize)]
struct TailJson {
    q: f64,
    low_ns: u64,
    count: u64,
}

#[derive(Debug, Serialize)]
struct RestJson {
    groups: usize,
    #[serde(flatten)]
    counted: CountedJson,
}

#[derive(Debug, Serialize)]
struct StepJson {
    start_unix_nano: String,
    #[serde(flatten)]
    counted: CountedJson,
}

#[derive(Debug, Serialize)]
struct QuantileJson {
    q: f64,
    value_ns: u64,
    bucket: BucketJson,
    relative_error_max: f64,
    rank: u64,
    exemplars: Vec<ExemplarJson>,
}

#[derive(Debug, Serialize)]
struct BucketJson {
    low_ns: u64,
    high_ns: u64,
}

#[derive(Debug, Serialize)]
struct ExemplarJson {
    trace_id: String,
    span_id: String,
    duration_ns: u64,
    time_unix_nano: String,
    span_name: String,
    error: bool,
    attributes: BTreeMap<String, String>,
    in_bucket: bool,
}

/// A span that shows a number, by its ids.
#[derive(Debug, Serialize)]
pub(super) struct SpanIdsJson {
    trace_id: String,
    span_id: String,
    duration_ns: u64,
}

impl From<SpanIds> for SpanIdsJson {
    fn from(ids: SpanIds) -> Self {
        let SpanIds { trace_id, span_id, duration } = ids;
        Self { trace_id: trace_id.to_string(), span_id: span_id.to_string(), duration_ns: duration.0 }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct CoverageJson {
    pub(super) complete: bool,
    pub(super) reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct StatusJson {
    version: &'static str,
    ready: bool,
    phase: String,
    durability: &'static str,
    retry_window_seconds: u64,
    spans_in_memory: u64,
    disk_bytes: u64,
    partitions: Vec<PartitionJson>,
    quarantined: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PartitionJson {
    name: String,
    sealed: bool,
    blocks: u64,
}

impl From<Vec<ServiceRow>> for ServicesJson {
    fn from(rows: Vec<ServiceRow>) -> Self {
        let services = rows.into_iter().map(|row| ServiceJson {
            name: row.name,
            namespace: row.namespace,
            span_count: row.span_count,
            last_seen_unix_nano: row.last_seen.0.to_string(),
        });
        Self { services: services.collect() }
    }
}

impl PercentileJson {
    /// `step` as it was asked for: rates of the series are per second of a step.
    pub(super) fn new(answer: PercentileAnswer, step: Option<DurationNanos>) -> Self {
        let secs = (answer.range.end.0.saturating_sub(answer.range.start.0)) as f64 / 1e9;
        let step_secs = step.map_or(secs, |step| step.0 as f64 / 1e9);
        Self {
            service: answer.service,
            start_unix_nano: answer.range.start.0.to_string(),
            end_unix_nano: answer.range.end.0.to_string(),
            counted: CountedJson::new(answer.whole, secs),
            groups: answer.groups.into_iter().map(|group| GroupJson::new(group, secs)).collect(),
            tail: answer.tail.map(|tail| TailJson { q: tail.quantile.get(), low_ns: tail.low.0, count: tail.count }),
            rest: answer.rest.map(|rest| RestJson::new(rest, secs)),
            series: answer.steps.into_iter().map(|row| StepJson::new(row, step_secs)).collect(),
            versus: answer.versus.map(|earlier| Box::new(Self::new(*earlier, step))),
            coverage: answer.coverage.into(),
        }
    }
}

impl CountedJson {
    pub(super) fn new(counted: Counted, secs: f64) -> Self {
        let mean_ns = (0 < counted.count).then(|| counted.sum_ns as f64 / counted.count as f64);
        Self {
            count: counted.count,
            error_count: counted.errors,
            rate_per_second: counted.count as f64 / secs,
            mean_ns,
            quantiles: counted.quantiles.into_iter().map(QuantileJson::from).collect(),
        }
    }
}

impl GroupJson {
    fn new(group: Group, secs: f64) -> Self {
        Self {
            labels: BTreeMap::from([group.label]),
            counted: CountedJson::new(group.counted, secs),
            tail_count: group.tail_count,
            tail_expected: group.tail_expected,
        }
    }
}

impl RestJson {
    fn new(rest: Rest, secs: f64) -> Self {
        Self { groups: rest.groups, counted: CountedJson::new(rest.counted, secs) }
    }
}

impl StepJson {
    fn new(row: StepRow, secs: f64) -> Self {
        Self { start_unix_nano: row.start.0.to_string(), counted: CountedJson::new(row.counted, secs) }
    }
}

impl From<QuantileRow> for QuantileJson {
    fn from(row: QuantileRow) -> Self {
        Self {
            q: row.quantile.get(),
            value_ns: row.value.0,
            bucket: BucketJson { low_ns: row.low.0, high_ns: row.high.0 },
            relative_error_max: row.relative_error_max,
            rank: row.rank,
            exemplars: row.exemplars.into_iter().map(ExemplarJson::from).collect(),
        }
    }
}

impl From<ExemplarAnswer> for ExemplarJson {
    fn from(exemplar: ExemplarAnswer) -> Self {
        Self {
            trace_id: exemplar.trace_id.to_string(),
            span_id: exemplar.span_id.to_string(),
            duration_ns: exemplar.duration.0,
            time_unix_nano: exemplar.time.0.to_string(),
            span_name: exemplar.span_name,
            error: exemplar.error,
            attributes: exemplar.attributes.into_iter().collect(),
            in_bucket: exemplar.in_bucket,
        }
    }
}

impl StatusJson {
    pub(super) fn new(doors: &Doors, store: StoreStatus) -> Self {
        let readiness = doors.readiness();
        let partitions = store.partitions.into_iter();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            ready: readiness.ready,
            phase: readiness.phase,
            durability: readiness.durability,
            retry_window_seconds: doors.ingest.retry_window_secs(),
            spans_in_memory: store.spans_in_memory,
            disk_bytes: store.disk_bytes,
            partitions: partitions.map(|(name, sealed, blocks)| PartitionJson { name, sealed, blocks }).collect(),
            quarantined: store.quarantined,
        }
    }
}
