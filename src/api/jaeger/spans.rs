//! Traces as Jaeger's page reads them. OTLP maps as Jaeger maps it:
//!
//! ```text
//! resource  -> processes.pN: service.name = serviceName, the other attributes = tags
//! scope     -> tags otel.scope.name, otel.scope.version
//! kind      -> tag span.kind            status -> otel.status_code, otel.status_description, error = true
//! parent    -> reference CHILD_OF       link   -> reference FOLLOWS_FROM      event -> log, its name the field event
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::api::open_params::MICRO;
use crate::api::shown::text_of;
use crate::model::{Attribute, Event, Resource, Rows, Span, SpanBatch, SpanId, SpanKind, SpanStatus, TraceId, Value};
use crate::query::TraceAnswer;

/// Whole numbers from here on, and below its negative, are written as texts: JavaScript would round them.
const EXACT_IN_JAVASCRIPT: u64 = 1 << 53;
/// Everything that is stored was sampled.
const SAMPLED: u32 = 1;

#[derive(Serialize)]
struct Tag<'a> {
    key: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: &'static str,
    value: TagValue<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum TagValue<'a> {
    String(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Float(f64),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessJson<'a> {
    service_name: Cow<'a, str>,
    tags: Vec<Tag<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferenceJson {
    ref_type: &'static str,
    #[serde(rename = "traceID")]
    trace: String,
    #[serde(rename = "spanID")]
    span: String,
}

#[derive(Serialize)]
struct LogJson<'a> {
    timestamp: u64,
    fields: Vec<Tag<'a>>,
}

/// Times in microseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    #[serde(rename = "traceID")]
    trace: String,
    #[serde(rename = "spanID")]
    span: String,
    #[serde(rename = "processID")]
    process: String,
    operation_name: Cow<'a, str>,
    start_time: u64,
    duration: u64,
    references: Vec<ReferenceJson>,
    tags: Vec<Tag<'a>>,
    logs: Vec<LogJson<'a>>,
    warnings: Option<Vec<&'static str>>,
    flags: u32,
}

/// Appends a trace of one span at least. Cost: O(bytes).
pub(super) fn write_trace(answer: &TraceAnswer, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let batch = &answer.batch;
    let Some(first) = batch.spans.first() else { return Ok(()) };
    out.extend_from_slice(format!(r#"{{"traceID":"{}","spans":["#, first.trace_id).as_bytes());
    // Equal resources are one row of the batch.
    let mut processes = BTreeMap::new();
    for (at, span) in batch.spans.iter().enumerate() {
        if 0 < at {
            out.push(b',');
        }
        let process = format!("p{}", batch.scope(span).resource + 1);
        let _known = processes.entry(process.clone()).or_insert_with(|| process_of(batch, span));
        serde_json::to_writer(&mut *out, &span_of(batch, span, process))?;
    }
    out.extend_from_slice(br#"],"processes":"#);
    serde_json::to_writer(&mut *out, &processes)?;
    out.extend_from_slice(br#","warnings":"#);
    let reasons = &answer.coverage.reasons;
    serde_json::to_writer(&mut *out, &(!reasons.is_empty()).then_some(reasons))?;
    out.push(b'}');
    Ok(())
}

fn process_of<'a>(batch: &'a SpanBatch, span: &Span) -> ProcessJson<'a> {
    let Resource { attributes, .. } = batch.resource(span);
    let tags = batch.attributes(attributes).iter().filter(|attribute| batch.text(attribute.key) != b"service.name");
    ProcessJson { service_name: batch.service_of(span).1, tags: tags.map(|one| tag(batch, one)).collect() }
}

fn span_of<'a>(batch: &'a SpanBatch, span: &Span, process: String) -> SpanJson<'a> {
    let logs = batch.events(span.events).iter().map(|event| log(batch, event)).collect();
    let warnings = warnings(span);
    SpanJson {
        trace: span.trace_id.to_string(),
        span: span.span_id.to_string(),
        process,
        operation_name: batch.text_lossy(span.name),
        start_time: span.shown_start().0 / MICRO,
        duration: span.latency().map_or(0, |latency| latency.0 / MICRO),
        references: references(batch, span),
        tags: tags(batch, span),
        logs,
        warnings: (!warnings.is_empty()).then_some(warnings),
        flags: SAMPLED,
    }
}

fn references(batch: &SpanBatch, span: &Span) -> Vec<ReferenceJson> {
    let reference = |ref_type, trace: TraceId, span: SpanId| ReferenceJson {
        ref_type,
        trace: trace.to_string(),
        span: span.to_string(),
    };
    let parent = (!span.parent_span_id.is_zero()).then(|| reference("CHILD_OF", span.trace_id, span.parent_span_id));
    let links = batch.links(span.links).iter();
    parent.into_iter().chain(links.map(|link| reference("FOLLOWS_FROM", link.trace_id, link.span_id))).collect()
}

fn tags<'a>(batch: &'a SpanBatch, span: &Span) -> Vec<Tag<'a>> {
    let scope = batch.scope(span);
    let mut tags = Vec::new();
    let text = |tags: &mut Vec<Tag<'a>>, key: &'static str, text: Cow<'a, str>| {
        if !text.is_empty() {
            tags.push(Tag { key: key.into(), kind: "string", value: TagValue::String(text) });
        }
    };
    text(&mut tags, "otel.scope.name", batch.text_lossy(scope.name));
    text(&mut tags, "otel.scope.version", batch.text_lossy(scope.version));
    tags.extend(attributes(batch, span.attributes));
    if span.kind != 0 {
        text(&mut tags, "span.kind", SpanKind::from(span.kind).as_str().into());
    }
    match SpanStatus::from(span.status_code) {
        SpanStatus::Unset => {}
        SpanStatus::Ok => text(&mut tags, "otel.status_code", "OK".into()),
        SpanStatus::Error => {
            text(&mut tags, "otel.status_code", "ERROR".into());
            tags.push(Tag { key: "error".into(), kind: "bool", value: TagValue::Bool(true) });
        }
    }
    text(&mut tags, "otel.status_description", batch.text_lossy(span.status_message));
    text(&mut tags, "w3c.tracestate", batch.text_lossy(span.trace_state));
    let dropped = [
        ("otel.dropped_attributes_count", span.dropped_attributes_count),
        ("otel.dropped_events_count", span.dropped_events_count),
        ("otel.dropped_links_count", span.dropped_links_count),
    ];
    let dropped = dropped.into_iter().filter(|(_, count)| 0 < *count);
    tags.extend(dropped.map(|(key, count)| Tag {
        key: key.into(),
        kind: "int64",
        value: TagValue::Int(i64::from(count)),
    }));
    tags
}

fn log<'a>(batch: &'a SpanBatch, event: &Event) -> LogJson<'a> {
    let name = batch.text_lossy(event.name);
    let name = (!name.is_empty()).then_some(Tag { key: "event".into(), kind: "string", value: TagValue::String(name) });
    let fields = name.into_iter().chain(attributes(batch, event.attributes)).collect();
    LogJson { timestamp: event.time_unix_nano.0 / MICRO, fields }
}

fn attributes(batch: &SpanBatch, rows: Rows) -> impl Iterator<Item = Tag<'_>> {
    batch.attributes(rows).iter().map(|attribute| tag(batch, attribute))
}

fn tag<'a>(batch: &'a SpanBatch, attribute: &Attribute) -> Tag<'a> {
    let text = |value| TagValue::String(Cow::Owned(text_of(batch, value)));
    let (kind, value) = match attribute.value {
        Value::String(text) => ("string", TagValue::String(batch.text_lossy(text))),
        Value::Bool(value) => ("bool", TagValue::Bool(value)),
        Value::Int(number) if number.unsigned_abs() < EXACT_IN_JAVASCRIPT => ("int64", TagValue::Int(number)),
        Value::Int(_) => ("int64", text(attribute.value)),
        Value::Double(number) if number.is_finite() => ("float64", TagValue::Float(number)),
        // JSON has no number for NaN and the infinities, and Jaeger's types none for lists.
        Value::Double(_) | Value::Empty | Value::Bytes(_) | Value::Nested(_) => ("string", text(attribute.value)),
    };
    Tag { key: batch.text_lossy(attribute.key), kind, value }
}

/// What a reader of the times should know.
fn warnings(span: &Span) -> Vec<&'static str> {
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let warnings = [
        (start.is_unset(), "the span has no start time: its end is shown as its start"),
        (end.is_unset(), "the span has no end time: its duration is shown as 0"),
        (!end.is_unset() && end < start, "the span ends before it starts: its duration is shown as 0"),
    ];
    warnings.into_iter().filter(|(is_so, _)| *is_so).map(|(_, warning)| warning).collect()
}
