//! Whatever OTLP can carry comes back exactly: prost types in, through decoding, a block and encoding, prost types out.
//!
//! "Exactly" is bit for bit of prost's own encoding, so NaN, the order of attributes and empty values count. Within the
//! limits nothing is cut, and that is what is generated here; what the limits cut is tested where they are applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use spandrel::block::{self, Block};
use spandrel::limits::VALUE_DEPTH_MAX;
use spandrel::model::{Conventions, UnixNanos};
use spandrel::otlp::{DecodeOptions, Utf8, decode, encode_traces};

/// Nesting that prost still reads: it stops at 100 messages inside each other. Deeper values are compared as bytes.
const PROST_DEPTH_MAX: usize = 36;

/// Trace id, start, span id and kind: a block holds each once.
type Identity = (Vec<u8>, u64, Vec<u8>, i32);
/// Every span with what it was sent under.
type Sent = BTreeMap<Identity, (ResourceSpans, ScopeSpans)>;

/// Texts that look alike get one column and one form there, so most come from a few families.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        4 => prop::sample::select(vec!["GET", "/cart/{id}", "checkout", "eu-1b"]).prop_map(str::to_owned),
        2 => (0..70_u32).prop_map(|n| format!("worker-{n}")),
        2 => any::<[u32; 2]>().prop_map(|[a, b]| format!("http://shop:8080/users/{a}/orders/{b}?page=1")),
        1 => any::<u32>().prop_map(|n| format!("/users/{n:08}")),
        1 => any::<u128>().prop_map(|n| format!("{n:032x}")),
        1 => any::<u64>().prop_map(|n| format!("{:08x}-{:04x}-4a", n >> 32, n & 0xffff)),
        1 => "[0-9]{1,40}",
        1 => "\\PC{0,6}",
        1 => "[a-z0-9]{300,700}",
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0),
        Just(i64::MIN),
        Just(i64::MAX),
        prop::sample::select(vec![200, 201, 503]),
        -40..40_i64,
        any::<i64>(),
    ]
}

fn unsigned() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(0), 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![0.0, -0.0, 199.99, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324]),
        Just(f64::from_bits(0x7ff8_0000_0000_0007)),
        Just(f64::from_bits(0xfff0_0000_0000_0001)),
        (0..50_000_u32).prop_map(|cents| f64::from(cents) / 100.0),
        any::<u64>().prop_map(f64::from_bits),
    ]
}

fn scalar() -> impl Strategy<Value = AnyValue> {
    let value = prop_oneof![
        4 => text().prop_map(Value::StringValue),
        1 => any::<bool>().prop_map(Value::BoolValue),
        2 => number().prop_map(Value::IntValue),
        1 => double().prop_map(Value::DoubleValue),
        1 => vec(any::<u8>(), 0..20).prop_map(Value::BytesValue),
    ];
    prop_oneof![1 => Just(AnyValue { value: None }), 9 => value.prop_map(any_of)]
}

fn any_of(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn key_value(key: String, value: AnyValue) -> KeyValue {
    KeyValue { key, value: Some(value), ..KeyValue::default() }
}

/// A list inside a list, `depth` times.
fn chain(depth: usize, inside: AnyValue) -> AnyValue {
    (0..depth).fold(inside, |value, level| {
        any_of(if level % 2 == 0 {
            Value::ArrayValue(ArrayValue { values: vec![value] })
        } else {
            Value::KvlistValue(KeyValueList { values: vec![key_value("k".to_owned(), value)] })
        })
    })
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let lists = scalar().prop_recursive(3, 12, 4, |inner| {
        let entry = (text(), inner.clone()).prop_map(|(key, value)| key_value(key, value));
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| any_of(Value::ArrayValue(ArrayValue { values }))),
            vec(entry, 0..4).prop_map(|values| any_of(Value::KvlistValue(KeyValueList { values }))),
        ]
    });
    let deep = (1..=PROST_DEPTH_MAX, scalar()).prop_map(|(depth, inside)| chain(depth, inside));
    prop_oneof![12 => scalar().boxed(), 2 => lists.boxed(), 1 => deep.boxed()].boxed()
}

/// Keys repeat, within one list too.
fn attributes(n_max: usize) -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof![
        8 => prop::sample::select(vec!["http.route", "url.full", "thread.id", "thread.name", "user.id"]).prop_map(str::to_owned),
        1 => "[a-z.]{1,6}",
        1 => "\\PC{1,3}",
    ];
    vec((key, any_value()).prop_map(|(key, value)| key_value(key, value)), 0..n_max).boxed()
}

/// Unset, close together, or anything.
fn time() -> impl Strategy<Value = u64> {
    let near = 1_795_435_200_000_000_000_u64;
    prop_oneof![1 => Just(0), 1 => Just(u64::MAX), 6 => near..near + 9_000_000_000, 1 => any::<u64>()]
}

fn enumeration() -> impl Strategy<Value = i32> {
    prop_oneof![6 => 0..6_i32, 1 => Just(-1), 1 => Just(i32::MAX), 1 => any::<i32>()]
}

/// A few traces, so that spans meet.
fn trace_id() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (1..4_u8).prop_map(|trace| vec![trace; 16]),
        1 => any::<[u8; 16]>().prop_filter("not zero", |id| *id != [0; 16]).prop_map(Vec::from),
    ]
}

/// Below 40: other spans may have it.
fn span_id() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![(1..40_u64).prop_map(|id| id.to_be_bytes().to_vec()), Just(vec![0xff; 8])]
}

prop_compose! {
    fn event()(time_unix_nano in time(), name in text(), attributes in attributes(3),
        dropped_attributes_count in unsigned()) -> Event {
        Event { time_unix_nano, name, attributes, dropped_attributes_count }
    }
}

prop_compose! {
    fn link()(trace_id in trace_id(), span_id in span_id(), trace_state in text(), attributes in attributes(3),
        dropped_attributes_count in unsigned(), flags in unsigned()) -> Link {
        Link { trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags }
    }
}

prop_compose! {
    fn span()(ids in (trace_id(), span_id(), prop_oneof![Just(Vec::new()), span_id()]), trace_state in text(),
        numbers in (unsigned(), enumeration(), enumeration()), name in text(), times in (time(), time()),
        attributes in attributes(6), dropped in (unsigned(), unsigned(), unsigned()), events in vec(event().boxed(), 0..3),
        links in vec(link().boxed(), 0..3), message in text()) -> Span {
        Span {
            trace_id: ids.0, span_id: ids.1, parent_span_id: ids.2, trace_state, flags: numbers.0, name,
            kind: numbers.1, start_time_unix_nano: times.0, end_time_unix_nano: times.1, attributes,
            dropped_attributes_count: dropped.0, events, dropped_events_count: dropped.1, links,
            dropped_links_count: dropped.2, status: Some(Status { message, code: numbers.2 }),
        }
    }
}

prop_compose! {
    fn resource()(attributes in attributes(4), service in text(), dropped_attributes_count in unsigned(),
        refs in vec((text(), text(), vec(text(), 0..2), vec(text(), 0..2)), 0..3)) -> Resource {
        let entity_refs = refs.into_iter().map(|(schema_url, r#type, id_keys, description_keys)| {
            EntityRef { schema_url, r#type, id_keys, description_keys }
        });
        let mut attributes = attributes;
        attributes.push(key_value("service.name".to_owned(), any_of(Value::StringValue(service))));
        Resource { attributes, dropped_attributes_count, entity_refs: entity_refs.collect() }
    }
}

prop_compose! {
    fn scope_spans()(scope in (text(), text(), attributes(3), unsigned()), spans in vec(span().boxed(), 0..8),
        schema_url in text()) -> ScopeSpans {
        let (name, version, attributes, dropped_attributes_count) = scope;
        let scope = Some(InstrumentationScope { name, version, attributes, dropped_attributes_count });
        ScopeSpans { scope, spans, schema_url }
    }
}

prop_compose! {
    fn resource_spans()(resource in resource(), scope_spans in vec(scope_spans().boxed(), 0..3),
        schema_url in text()) -> ResourceSpans {
        ResourceSpans { resource: Some(resource), scope_spans, schema_url }
    }
}

fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    vec(resource_spans(), 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

/// Every span by itself, the first of each identity: a block keeps that one.
fn spans_of(requests: Vec<Vec<ResourceSpans>>) -> Sent {
    let mut sent = Sent::new();
    for resource_spans in requests.into_iter().flatten() {
        for scope_spans in &resource_spans.scope_spans {
            for span in &scope_spans.spans {
                let identity = (span.trace_id.clone(), span.start_time_unix_nano, span.span_id.clone(), span.kind);
                let scope = ScopeSpans { spans: vec![span.clone()], ..scope_spans.clone() };
                let resource = ResourceSpans { scope_spans: Vec::new(), ..resource_spans.clone() };
                let _first = sent.entry(identity).or_insert((resource, scope));
            }
        }
    }
    sent
}

/// Through decoding, a block of its own, and encoding.
fn through(bodies: Vec<Vec<u8>>) -> Vec<u8> {
    let batches: Vec<_> = bodies
        .into_iter()
        .map(|body| {
            let decoded = decode(body, &DecodeOptions::default()).expect("prost wrote it");
            assert_eq!(decoded.rejected.total(), 0, "{:?}", decoded.message());
            Arc::new(decoded.batch)
        })
        .collect();
    let ordered = block::order(&batches);
    let sections =
        block::encode(&batches, &ordered.rows, UnixNanos(0), &Conventions::default()).expect("few spans").sections;
    let opened = Block::open(&sections).expect("it was just written");
    let rows: Vec<u32> = (0..opened.summary().spans).collect();
    let read = opened.spans(&sections, &rows).expect("it was just written");
    encode_traces(&read, Utf8::Verbatim)
}

#[track_caller]
fn check(requests: Vec<ExportTraceServiceRequest>) {
    let bodies = requests.iter().map(prost::Message::encode_to_vec).collect();
    let came_back = TracesData::decode(through(bodies).as_slice()).expect("prost reads it");
    let came_back = spans_of(vec![came_back.resource_spans]);
    let sent = spans_of(requests.into_iter().map(|request| request.resource_spans).collect());
    assert_eq!(came_back.len(), sent.len());
    for ((identity, (resource, scope)), (same, (resource_back, scope_back))) in sent.iter().zip(&came_back) {
        assert_eq!(identity, same);
        // Not `==`: NaN differs from itself, and -0.0 equals 0.0.
        assert_eq!(resource.encode_to_vec(), resource_back.encode_to_vec(), "{resource:?}\n{resource_back:?}");
        assert_eq!(scope.encode_to_vec(), scope_back.encode_to_vec(), "{scope:?}\n{scope_back:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_otlp_can_carry_comes_back_from_a_block_exactly(requests in vec(request(), 1..4)) {
        check(requests);
    }

    #[test]
    fn values_down_to_the_depth_limit_come_back_byte_for_byte(depth in 1..=VALUE_DEPTH_MAX, inside in scalar()) {
        let deepest = chain(VALUE_DEPTH_MAX, inside.clone());
        let body = of_one_scope(vec![corner(0, chain(depth, inside)), corner(1, deepest)]).encode_to_vec();
        prop_assert_eq!(through(vec![body.clone()]), body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Columns and dictionaries of their own begin at 64 values.
    #[test]
    fn repeated_spans_of_any_kind_come_back_from_a_block_exactly(scope in scope_spans().boxed(), copies in 64..80_u64) {
        let mut request = of_one_scope(Vec::new());
        request.resource_spans[0].scope_spans = vec![ScopeSpans { spans: scope.spans.into_iter().take(2).collect(), ..scope }];
        let copy = |no: u64| {
            let mut copy = request.clone();
            let id = |no: u64, span: &Span| [&no.to_be_bytes()[4..], &span.span_id[4..]].concat();
            let number = |value: u64| any_of(Value::IntValue(value.cast_signed()));
            let string = |value: String| any_of(Value::StringValue(value));
            for span in copy.resource_spans.iter_mut().flat_map(|r| &mut r.scope_spans).flat_map(|s| &mut s.spans) {
                // Traces of four spans below each other, with what real ones say: this makes every form of a column.
                let trace = no / 4;
                span.parent_span_id = if no.is_multiple_of(4) { Vec::new() } else { id(no - 1, span) };
                span.span_id = id(no, span);
                span.trace_id = vec![u8::try_from(trace).unwrap_or(0) + 9; 16];
                span.start_time_unix_nano = span.start_time_unix_nano.wrapping_add(no * 1_001);
                span.attributes.extend([
                    key_value("session.id".to_owned(), string(format!("{:032x}", u128::from(trace + 7).pow(19)))),
                    key_value("http.size".to_owned(), number((no / 2 + 3).pow(9))),
                    key_value("worker.id".to_owned(), number(no * no % 7)),
                    key_value("worker.name".to_owned(), string(format!("worker-{}", no * no % 7))),
                    key_value("path".to_owned(), string(format!("/users/{}{}", no * 7_919, ["", "/cart"][no as usize % 2]))),
                ]);
            }
            copy
        };
        check((0..copies).map(copy).collect());
    }
}

/// A span of extremes.
fn corner(no: u64, value: AnyValue) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: (no + 1).to_be_bytes().to_vec(),
        kind: i32::MIN,
        start_time_unix_nano: u64::MAX,
        end_time_unix_nano: 1,
        flags: u32::MAX,
        attributes: vec![key_value("a".to_owned(), value.clone()), key_value("a".to_owned(), value)],
        status: Some(Status { code: i32::MAX, message: String::new() }),
        ..Span::default()
    }
}

fn of_one_scope(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { scope: Some(InstrumentationScope::default()), spans, ..ScopeSpans::default() }];
    let resource = Some(Resource::default());
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

/// Corners that chance meets rarely, one span each.
#[test]
fn the_corners_come_back_exactly() {
    let values = [
        AnyValue { value: None },
        any_of(Value::StringValue(String::new())),
        any_of(Value::BytesValue(Vec::new())),
        any_of(Value::BytesValue(vec![0xff; 3])),
        any_of(Value::IntValue(i64::MIN)),
        any_of(Value::DoubleValue(f64::from_bits(0x7ff0_0000_0000_0001))),
        any_of(Value::DoubleValue(-0.0)),
        any_of(Value::ArrayValue(ArrayValue::default())),
        any_of(Value::KvlistValue(KeyValueList::default())),
        chain(PROST_DEPTH_MAX, AnyValue { value: None }),
    ];
    check(vec![of_one_scope((0..).zip(values).map(|(no, value)| corner(no, value)).collect())]);
}
