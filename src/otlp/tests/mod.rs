//! Tests of the module as a whole. `prost` is the reference for what OTLP bytes mean.

mod bad_inputs;
mod large_inputs;
mod roundtrip;
pub(super) use self::roundtrip::traces;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message as _;

use super::*;

/// 2026-11-23T12:00:00Z.
pub(super) const NOW: UnixNanos = UnixNanos(1_795_435_200_000_000_000);

pub(super) fn options() -> DecodeOptions {
    DecodeOptions { now: NOW, retention: Some(DurationNanos::from_secs(86_400)), ..DecodeOptions::default() }
}

fn any_of(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn string_attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(any_of(any_value::Value::StringValue(value.to_owned())));
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// A span that nothing is wrong with.
fn good_span(n: u64) -> Span {
    Span {
        trace_id: u128::from(n + 1).to_be_bytes().to_vec(),
        span_id: (n + 1).to_be_bytes().to_vec(),
        name: "GET /".to_owned(),
        kind: 2,
        start_time_unix_nano: NOW.0 - 2_000_000,
        end_time_unix_nano: NOW.0 - 1_000_000,
        attributes: vec![string_attribute("http.route", "/")],
        ..Span::default()
    }
}

/// A request of one resource and scope.
fn request(spans: Vec<Span>) -> TracesData {
    TracesData {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![string_attribute("service.name", "shop")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

fn encode(request: &TracesData) -> Vec<u8> {
    request.encode_to_vec()
}

/// `key: value` as a field of wire type 2.
fn delimited(number: u32, content: &[u8]) -> Vec<u8> {
    let mut writer = writer::MessageWriter::default();
    writer.bytes(number, content);
    writer.finish()
}

/// A request of 511 good spans around these bytes as one more span.
fn among_511(span: &[u8]) -> Vec<u8> {
    let mut spans = Vec::new();
    for n in 0..511 {
        spans.extend(delimited(2, &good_span(n).encode_to_vec()));
        if n == 255 {
            spans.extend(delimited(2, span));
        }
    }
    let service = Resource { attributes: vec![string_attribute("service.name", "shop")], ..Resource::default() };
    let resource_spans = [delimited(1, &service.encode_to_vec()), delimited(2, &spans)].concat();
    delimited(1, &resource_spans)
}
