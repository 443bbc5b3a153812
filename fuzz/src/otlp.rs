//! Requests: OTLP as protobuf and JSON, Zipkin.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use prost::Message as _;
use spandrel::model::{SpanBatch, UnixNanos};
use spandrel::otlp::{
    DecodeOptions, Decoded, JsonDialect, Translated, Undecodable, Utf8, Warning, encode_json, encode_traces,
    json_to_protobuf, redecode, zipkin_json_to_otlp, zipkin_protobuf_to_otlp,
};

/// 2026-11-25T12:00:00Z; nothing is too old.
const OPTIONS: DecodeOptions = DecodeOptions {
    now: UnixNanos(1_795_608_000_000_000_000),
    retention: None,
    pad_64bit_trace_ids: false,
    element_cost_max: None,
};

/// OTLP protobuf. What is read without a warning is what `prost` reads.
pub fn decode(bytes: &[u8]) {
    let Ok(decoded) = checked(bytes.to_vec()) else { return };
    let Ok(reference) = TracesData::decode(bytes) else { return };
    if let Some(ours) = read(&shown(&decoded.batch)).filter(|_| is_as_sent(&decoded)) {
        assert!(normal(ours.clone()) == normal(reference.clone()), "ours: {ours:?}\nprost: {reference:?}");
    }
}

/// OTLP/JSON. What is read and written again is read as the same.
pub fn json(bytes: &[u8]) {
    let Ok(decoded) = json_to_protobuf(bytes, &OPTIONS).and_then(translated) else { return };
    let written = encode_json(&decoded.batch, JsonDialect::Otlp);
    let again = json_to_protobuf(written.as_bytes(), &OPTIONS).and_then(translated).expect("our own JSON");
    assert_eq!(again.rejected.total(), 0, "{written}");
    assert_eq!(encode_json(&again.batch, JsonDialect::Otlp), written);
    let [again, first] = [again, decoded].map(|decoded| read(&shown(&decoded.batch)).map(normal));
    assert_eq!(again, first, "{written}");
}

/// Zipkin v2, JSON and protobuf. What it is translated to is a request.
pub fn zipkin(bytes: &[u8]) {
    for translate in [zipkin_json_to_otlp, zipkin_protobuf_to_otlp] {
        if let Ok(request) = translate(bytes, &OPTIONS) {
            let decoded = translated(request);
            assert!(matches!(decoded, Ok(_) | Err(Undecodable::TooManyElements { .. })), "{decoded:?}");
        }
    }
}

fn translated(request: Translated) -> Result<Decoded, Undecodable> {
    checked(request.protobuf)
}

/// Decodes; from the journal comes the same, and what is shown is protobuf.
fn checked(body: Vec<u8>) -> Result<Decoded, Undecodable> {
    let decoded = spandrel::otlp::decode(body.clone(), &OPTIONS)?;
    let again = redecode(body, &decoded.rejected_ordinals).expect("it was decoded before");
    assert_eq!(format!("{again:?}"), format!("{:?}", decoded.batch));
    let _message = decoded.message();
    if let Some(read) = read(&shown(&decoded.batch)) {
        assert_eq!(spans(&read).count(), decoded.batch.spans.len());
    }
    Ok(decoded)
}

/// `None` when values are nested deeper than `prost` goes: 100 messages, where ours are up to 64 values of three.
fn read(bytes: &[u8]) -> Option<TracesData> {
    match TracesData::decode(bytes) {
        Ok(traces) => Some(traces),
        Err(error) => {
            assert!(error.to_string().contains("recursion limit"), "{error}");
            None
        }
    }
}

fn shown(batch: &SpanBatch) -> Vec<u8> {
    encode_traces(batch, Utf8::Replaced)
}

/// Every span is kept, and the sender was told of no change. (Times are no change.)
fn is_as_sent(decoded: &Decoded) -> bool {
    let changes = |warning: &Warning| {
        !matches!(
            warning,
            Warning::DuplicateKey | Warning::MissingTime | Warning::NegativeDuration | Warning::ServiceNameType
        )
    };
    decoded.rejected.total() == 0
        && !Warning::ALL.iter().filter(|warning| changes(warning)).any(|warning| 0 < decoded.warnings.count(*warning))
}

fn spans(traces: &TracesData) -> impl Iterator<Item = &Span> {
    traces.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans)
}

/// The bytes of the messages without what says nothing: groups of no spans, and the difference between a message or
/// value that is not there and an empty one. (Bytes, because NaN is not equal to itself.)
fn normal(mut traces: TracesData) -> Vec<u8> {
    for resource in &mut traces.resource_spans {
        attributes(&mut resource.resource.get_or_insert_default().attributes);
        for scope in &mut resource.scope_spans {
            attributes(&mut scope.scope.get_or_insert_default().attributes);
            scope.spans.iter_mut().for_each(span);
        }
        resource.scope_spans.retain(|scope| !scope.spans.is_empty());
    }
    traces.resource_spans.retain(|resource| !resource.scope_spans.is_empty());
    traces.encode_to_vec()
}

fn span(span: &mut Span) {
    let _status = span.status.get_or_insert_default();
    if span.parent_span_id.iter().all(|byte| *byte == 0) {
        span.parent_span_id.clear();
    }
    attributes(&mut span.attributes);
    span.events.iter_mut().for_each(|event| attributes(&mut event.attributes));
    span.links.iter_mut().for_each(|link| attributes(&mut link.attributes));
}

fn attributes(attributes: &mut [KeyValue]) {
    for attribute in attributes {
        value(attribute.value.get_or_insert_default());
    }
}

fn value(any: &mut AnyValue) {
    match &mut any.value {
        Some(any_value::Value::ArrayValue(list)) => list.values.iter_mut().for_each(value),
        Some(any_value::Value::KvlistValue(list)) => attributes(&mut list.values),
        _ => {}
    }
}
