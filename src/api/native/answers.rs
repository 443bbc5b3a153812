//! The shapes of the native API. Ids are hex, times decimal strings (they pass 2^53), durations numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::query::{ExemplarAnswer, PercentileAnswer, QuantileRow, ServiceRow, StoreStatus};

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
    count: u64,
    quantiles: Vec<QuantileJson>,
    /// One per group once `by` is asked for; empty until then.
    groups: Vec<()>,
    coverage: CoverageJson,
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
    attributes: BTreeMap<&'static str, String>,
    in_bucket: bool,
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

impl From<PercentileAnswer> for PercentileJson {
    fn from(answer: PercentileAnswer) -> Self {
        Self {
            service: answer.service,
            start_unix_nano: answer.range.start.0.to_string(),
            end_unix_nano: answer.range.end.0.to_string(),
            count: answer.count,
            quantiles: answer.quantiles.into_iter().map(QuantileJson::from).collect(),
            groups: Vec::new(),
            coverage: answer.coverage.into(),
        }
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
