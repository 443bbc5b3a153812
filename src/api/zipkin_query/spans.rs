//! Traces as Zipkin v2 has them. OTLP maps as OpenTelemetry says ("OpenTelemetry to Zipkin Transformation"), so what came
//! in as Zipkin leaves as it came:
//!
//! ```text
//! resource -> localEndpoint.serviceName; its other attributes are tags, where the span has none of that name
//! scope    -> tags otel.scope.name, otel.scope.version
//! status   -> tags otel.status_code, error           event -> annotation, with attributes: "name": {attributes}
//! ```
//! Every value of a tag is a text. Links have no place in Zipkin.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::api::open_params::MICRO;
use crate::api::shown::text_of;
use crate::model::{Event, Rows, Span, SpanBatch, SpanId, SpanKind, SpanStatus, Value};
use crate::query::TraceAnswer;

/// Times in microseconds, at least 1.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    timestamp: u64,
    duration: u64,
    local_endpoint: EndpointJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_endpoint: Option<EndpointJson<'a>>,
    tags: BTreeMap<Cow<'a, str>, String>,
    annotations: Vec<AnnotationJson>,
    /// The server half of a call whose halves have one id.
    #[serde(skip_serializing_if = "is_false")]
    shared: bool,
}

#[derive(Serialize, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
struct EndpointJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct AnnotationJson {
    timestamp: u64,
    value: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Appends the array of a trace's spans. Cost: O(bytes).
pub(super) fn write_trace(answer: &TraceAnswer, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let batch = &answer.batch;
    let is_client = |span: &&Span| SpanKind::from(span.kind) == SpanKind::Client;
    let clients: HashSet<SpanId> = batch.spans.iter().filter(is_client).map(|span| span.span_id).collect();
    out.push(b'[');
    for (at, span) in batch.spans.iter().enumerate() {
        if 0 < at {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, &span_of(batch, span, &clients))?;
    }
    out.push(b']');
    Ok(())
}

fn span_of<'a>(batch: &'a SpanBatch, span: &Span, clients: &HashSet<SpanId>) -> SpanJson<'a> {
    let kind = SpanKind::from(span.kind);
    let endpoint = |address, port| endpoint(batch, span.attributes, address, port);
    let local = endpoint("network.local.address", "network.local.port");
    let peer = batch.string_attribute(span.attributes, "peer.service");
    let remote = endpoint("network.peer.address", "network.peer.port");
    let remote = EndpointJson { service_name: peer, ..remote };
    SpanJson {
        trace_id: span.trace_id.to_string(),
        id: span.span_id.to_string(),
        parent_id: (!span.parent_span_id.is_zero()).then(|| span.parent_span_id.to_string()),
        name: batch.text_lossy(span.name),
        kind: match kind {
            SpanKind::Internal => None,
            SpanKind::Server => Some("SERVER"),
            SpanKind::Client => Some("CLIENT"),
            SpanKind::Producer => Some("PRODUCER"),
            SpanKind::Consumer => Some("CONSUMER"),
        },
        timestamp: (span.shown_start().0 / MICRO).max(1),
        duration: span.latency().map_or(1, |latency| (latency.0 / MICRO).max(1)),
        local_endpoint: EndpointJson { service_name: Some(batch.service_of(span).1), ..local },
        remote_endpoint: (remote != EndpointJson::default()).then_some(remote),
        tags: tags(batch, span),
        annotations: batch.events(span.events).iter().map(|event| annotation(batch, event)).collect(),
        shared: kind == SpanKind::Server && clients.contains(&span.span_id),
    }
}

/// Where it is, as far as attributes of these names say so; they stay tags as well.
fn endpoint(batch: &SpanBatch, rows: Rows, address: &str, port: &str) -> EndpointJson<'static> {
    let address: Option<IpAddr> = batch.string_attribute(rows, address).and_then(|text| text.parse().ok());
    let mut attributes = batch.attributes(rows).iter().rev();
    let port = attributes.find(|attribute| batch.text(attribute.key) == port.as_bytes());
    let port = port.and_then(|attribute| text_of(batch, attribute.value).parse().ok());
    EndpointJson {
        ipv4: address.filter(IpAddr::is_ipv4).map(|address| address.to_string()),
        ipv6: address.filter(IpAddr::is_ipv6).map(|address| address.to_string()),
        port: port.filter(|port| *port != 0),
        service_name: None,
    }
}

fn tags<'a>(batch: &'a SpanBatch, span: &Span) -> BTreeMap<Cow<'a, str>, String> {
    let (scope, resource) = (batch.scope(span), batch.resource(span));
    let mut tags = BTreeMap::new();
    for attribute in batch.attributes(resource.attributes) {
        if batch.text(attribute.key) != b"service.name" {
            let _before = tags.insert(batch.text_lossy(attribute.key), text_of(batch, attribute.value));
        }
    }
    for (key, text) in [("otel.scope.name", scope.name), ("otel.scope.version", scope.version)] {
        if text.len != 0 {
            let _before = tags.insert(key.into(), batch.text_lossy(text).into_owned());
        }
    }
    for attribute in batch.attributes(span.attributes) {
        let _before = tags.insert(batch.text_lossy(attribute.key), text_of(batch, attribute.value));
    }
    match SpanStatus::from(span.status_code) {
        SpanStatus::Unset => {}
        SpanStatus::Ok => {
            let _before = tags.insert("otel.status_code".into(), "OK".to_owned());
        }
        SpanStatus::Error => {
            let _before = tags.insert("otel.status_code".into(), "ERROR".to_owned());
            // An empty text is a failure as well: it is the tag that says so.
            let _known =
                tags.entry("error".into()).or_insert_with(|| batch.text_lossy(span.status_message).into_owned());
        }
    }
    tags
}

fn annotation(batch: &SpanBatch, event: &Event) -> AnnotationJson {
    let name = batch.text_lossy(event.name);
    let attributes = batch.attributes(event.attributes);
    let mut value = name.clone().into_owned();
    if !attributes.is_empty() {
        let fields = attributes.iter().map(|one| (batch.text_lossy(one.key), json_of(batch, one.value)));
        let fields: serde_json::Map<String, serde_json::Value> =
            fields.map(|(key, value)| (key.into_owned(), value)).collect();
        value = format!("{}: {}", serde_json::Value::from(name), serde_json::Value::from(fields));
    }
    AnnotationJson { timestamp: (event.time_unix_nano.0 / MICRO).max(1), value }
}

fn json_of(batch: &SpanBatch, value: Value) -> serde_json::Value {
    match value {
        Value::Empty => serde_json::Value::Null,
        Value::Bool(value) => value.into(),
        Value::Int(number) => number.into(),
        Value::Double(number) if number.is_finite() => number.into(),
        Value::Double(_) | Value::String(_) | Value::Bytes(_) | Value::Nested(_) => text_of(batch, value).into(),
    }
}
