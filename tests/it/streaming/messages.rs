//! The messages of `tempopb.StreamingQuerier` from another hand, and the JSON that HTTP must have said.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use prost::Message;
use serde_json::{Map, Value, json};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SearchRequest {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) tags: BTreeMap<String, String>,
    #[prost(uint32, tag = "2")]
    pub(crate) min_duration_ms: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) max_duration_ms: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) limit: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) start: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) end: u32,
    #[prost(string, tag = "8")]
    pub(crate) query: String,
    #[prost(uint32, tag = "9")]
    pub(crate) spans_per_span_set: u32,
    /// Sent by some clients.
    #[prost(uint32, tag = "10")]
    pub(crate) unknown: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SearchResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) traces: Vec<Trace>,
    #[prost(message, optional, tag = "2")]
    pub(crate) metrics: Option<Metrics>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Trace {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    root_service: String,
    #[prost(string, tag = "3")]
    root_name: String,
    #[prost(uint64, tag = "4")]
    start_unix_nano: u64,
    #[prost(uint32, tag = "5")]
    duration_ms: u32,
    #[prost(bytes = "vec", optional, tag = "6")]
    old_span_set: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) sets: Vec<SpanSet>,
    #[prost(btree_map = "string, message", tag = "8")]
    services: BTreeMap<String, Service>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Service {
    #[prost(uint32, tag = "1")]
    spans: u32,
    #[prost(uint32, tag = "2")]
    errors: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SpanSet {
    #[prost(message, repeated, tag = "1")]
    pub(crate) spans: Vec<Span>,
    #[prost(uint32, tag = "2")]
    pub(crate) matched: u32,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Span {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    start_unix_nano: u64,
    #[prost(uint64, tag = "4")]
    duration_ns: u64,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Metrics {
    #[prost(uint32, tag = "1")]
    inspected_traces: u32,
    #[prost(uint32, tag = "3")]
    total_blocks: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) completed_jobs: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) total_jobs: u32,
    #[prost(uint64, tag = "7")]
    inspected_spans: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TagsRequest {
    #[prost(string, tag = "1")]
    pub(crate) scope: String,
    #[prost(string, tag = "2")]
    pub(crate) query: String,
    #[prost(uint32, tag = "3")]
    pub(crate) start: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) end: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) tags_max: u32,
}

/// Of names and of values.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub(crate) texts: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Scopes {
    #[prost(message, repeated, tag = "1")]
    pub(crate) scopes: Vec<Scope>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) metrics: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    tags: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValuesRequest {
    #[prost(string, tag = "1")]
    pub(crate) tag: String,
    #[prost(string, tag = "2")]
    pub(crate) query: String,
    #[prost(uint32, tag = "4")]
    pub(crate) start: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) end: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) values_max: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypedValues {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<TypedValue>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) metrics: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypedValue {
    #[prost(string, tag = "1")]
    of: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(string, tag = "1")]
    pub(crate) query: String,
    #[prost(uint64, tag = "2")]
    pub(crate) start: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) end: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) step: u64,
    #[prost(uint32, tag = "16")]
    pub(crate) exemplars: u32,
}

/// Of range and instant alike, whose series differ.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Numbers {
    #[prost(message, repeated, tag = "1")]
    pub(crate) series: Vec<Series>,
    #[prost(message, optional, tag = "2")]
    metrics: Option<Metrics>,
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Series {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<KeyValue>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    at_unix_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<KeyValue>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    at_unix_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Instants {
    #[prost(message, repeated, tag = "1")]
    pub(crate) series: Vec<Instant>,
    #[prost(message, optional, tag = "2")]
    metrics: Option<Metrics>,
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Instant {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<KeyValue>,
    #[prost(double, tag = "2")]
    value: f64,
}

/// What HTTP says where gRPC says this.
pub(crate) trait AsJson {
    fn json(&self) -> Value;
}

fn list<T: AsJson>(items: &[T]) -> Vec<Value> {
    items.iter().map(AsJson::json).collect()
}

impl AsJson for KeyValue {
    fn json(&self) -> Value {
        let value = match self.value.as_ref().and_then(|value| value.value.as_ref()).expect("a value") {
            Any::StringValue(text) => json!({ "stringValue": text }),
            Any::BoolValue(value) => json!({ "boolValue": value }),
            Any::IntValue(number) => json!({ "intValue": number.to_string() }),
            Any::DoubleValue(number) => json!({ "doubleValue": number }),
            other => panic!("the data source cannot show {other:?}"),
        };
        json!({ "key": self.key, "value": value })
    }
}

impl AsJson for SearchResponse {
    fn json(&self) -> Value {
        json!({ "traces": list(&self.traces), "metrics": self.metrics.as_ref().expect("metrics").search_json() })
    }
}

impl Metrics {
    fn search_json(&self) -> Value {
        json!({
            "inspectedTraces": self.inspected_traces,
            "totalBlocks": self.total_blocks,
            "completedJobs": self.completed_jobs,
            "totalJobs": self.total_jobs,
            "inspectedSpans": self.inspected_spans.to_string(),
        })
    }

    fn numbers_json(&self) -> Value {
        json!({
            "completedJobs": self.completed_jobs,
            "totalJobs": self.total_jobs,
            "inspectedSpans": self.inspected_spans.to_string(),
        })
    }
}

impl AsJson for Trace {
    fn json(&self) -> Value {
        assert_eq!(self.old_span_set, None);
        let services = self
            .services
            .iter()
            .map(|(name, counts)| (name.clone(), json!({ "spanCount": counts.spans, "errorCount": counts.errors })));
        json!({
            "traceID": self.id,
            "rootServiceName": self.root_service,
            "rootTraceName": self.root_name,
            "startTimeUnixNano": self.start_unix_nano.to_string(),
            "durationMs": self.duration_ms,
            "spanSets": list(&self.sets),
            "serviceStats": services.collect::<Map<String, Value>>(),
        })
    }
}

impl AsJson for SpanSet {
    fn json(&self) -> Value {
        let mut json = json!({ "spans": list(&self.spans), "matched": self.matched });
        if !self.attributes.is_empty() {
            json["attributes"] = list(&self.attributes).into();
        }
        json
    }
}

impl AsJson for Span {
    fn json(&self) -> Value {
        json!({
            "spanID": self.id,
            "name": self.name,
            "startTimeUnixNano": self.start_unix_nano.to_string(),
            "durationNanos": self.duration_ns.to_string(),
            "attributes": list(&self.attributes),
        })
    }
}

impl AsJson for Scopes {
    fn json(&self) -> Value {
        let scope = |scope: &Scope| json!({ "name": scope.name, "tags": scope.tags });
        assert_eq!(self.metrics.as_deref(), Some(&[][..]));
        json!({ "scopes": self.scopes.iter().map(scope).collect::<Vec<_>>(), "metrics": {} })
    }
}

impl AsJson for TypedValues {
    fn json(&self) -> Value {
        let value = |value: &TypedValue| json!({ "type": value.of, "value": value.value });
        assert_eq!(self.metrics.as_deref(), Some(&[][..]));
        json!({ "tagValues": self.values.iter().map(value).collect::<Vec<_>>(), "metrics": {} })
    }
}

/// By their names in JSON.
fn numbers(series: &[Value], metrics: Option<&Metrics>, status: i32, message: &str) -> Value {
    let status = ["COMPLETE", "PARTIAL"][usize::try_from(status).expect("a status")];
    let metrics = metrics.expect("metrics").numbers_json();
    json!({ "series": series, "metrics": metrics, "status": status, "message": message })
}

impl AsJson for Numbers {
    fn json(&self) -> Value {
        numbers(&list(&self.series), self.metrics.as_ref(), self.status, &self.message)
    }
}

impl AsJson for Instants {
    fn json(&self) -> Value {
        numbers(&list(&self.series), self.metrics.as_ref(), self.status, &self.message)
    }
}

impl AsJson for Series {
    fn json(&self) -> Value {
        let millis = |at: i64| at.to_string();
        let samples =
            self.samples.iter().map(|one| json!({ "timestampMs": millis(one.at_unix_ms), "value": one.value }));
        let exemplars = self.exemplars.iter().map(
            |one| json!({ "labels": list(&one.labels), "value": one.value, "timestampMs": millis(one.at_unix_ms) }),
        );
        json!({
            "labels": list(&self.labels),
            "samples": samples.collect::<Vec<_>>(),
            "exemplars": exemplars.collect::<Vec<_>>(),
        })
    }
}

impl AsJson for Instant {
    fn json(&self) -> Value {
        json!({ "labels": list(&self.labels), "value": self.value })
    }
}
