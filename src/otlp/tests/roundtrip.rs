//! What comes in goes out: against `prost`, for random requests and for the edges of nesting.

use opentelemetry_proto::tonic::common::v1::{ArrayValue, EntityRef, InstrumentationScope, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::{Status, span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::limits::VALUE_DEPTH_MAX;
use crate::model::Value;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,12}", "\\PC{0,6}"]
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let scalar = prop_oneof![
        text().prop_map(any_value::Value::StringValue),
        any::<bool>().prop_map(any_value::Value::BoolValue),
        any::<i64>().prop_map(any_value::Value::IntValue),
        any::<f64>().prop_map(any_value::Value::DoubleValue),
        vec(any::<u8>(), 0..9).prop_map(any_value::Value::BytesValue),
    ];
    let leaf = option::of(scalar).prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 16, 4, |inner| {
        let entry = (text(), inner.clone()).prop_map(|(key, value)| KeyValue {
            key,
            value: Some(value),
            ..KeyValue::default()
        });
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| super::any_of(any_value::Value::ArrayValue(ArrayValue { values }))),
            vec(entry, 0..4).prop_map(|values| super::any_of(any_value::Value::KvlistValue(KeyValueList { values }))),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let attribute = ("[a-z.]{1,6}", any_value());
    vec(attribute.prop_map(|(key, value)| KeyValue { key, value: Some(value), ..KeyValue::default() }), 0..5)
}

fn id<const N: usize>() -> impl Strategy<Value = Vec<u8>> {
    any::<[u8; N]>().prop_filter("not all zero", |id| *id != [0; N]).prop_map(|id| id.to_vec())
}

prop_compose! {
    fn event()(time_unix_nano in any::<u64>(), name in text(), attributes in attributes(),
        dropped_attributes_count in any::<u32>()) -> span::Event {
        span::Event { time_unix_nano, name, attributes, dropped_attributes_count }
    }
}

prop_compose! {
    fn link()(trace_id in id::<16>(), span_id in id::<8>(), trace_state in text(), attributes in attributes(),
        dropped_attributes_count in any::<u32>(), flags in any::<u32>()) -> span::Link {
        span::Link { trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags }
    }
}

prop_compose! {
    fn span()(ids in (id::<16>(), id::<8>(), prop_oneof![Just(Vec::new()), id::<8>()]), trace_state in text(),
        flags in any::<u32>(), name in text(), kind in any::<i32>(), times in any::<(u64, u64)>(),
        attributes in attributes(), dropped in any::<(u32, u32, u32)>(), events in vec(event(), 0..3),
        links in vec(link(), 0..3), status in (text(), any::<i32>())) -> Span {
        Span {
            trace_id: ids.0, span_id: ids.1, parent_span_id: ids.2, trace_state, flags, name, kind,
            start_time_unix_nano: times.0, end_time_unix_nano: times.1, attributes,
            dropped_attributes_count: dropped.0, events, dropped_events_count: dropped.1, links,
            dropped_links_count: dropped.2, status: Some(Status { message: status.0, code: status.1 }),
        }
    }
}

prop_compose! {
    fn resource()(attributes in attributes(), dropped_attributes_count in any::<u32>(),
        refs in vec((text(), text(), vec(text(), 0..2)), 0..3)) -> Resource {
        let entity_refs = refs.into_iter().map(|(schema_url, r#type, id_keys)| {
            EntityRef { schema_url, r#type, id_keys, description_keys: Vec::new() }
        });
        Resource { attributes, dropped_attributes_count, entity_refs: entity_refs.collect() }
    }
}

prop_compose! {
    fn scope_spans()(scope in (text(), text(), attributes(), any::<u32>()), spans in vec(span(), 1..4),
        schema_url in text()) -> ScopeSpans {
        let (name, version, attributes, dropped_attributes_count) = scope;
        let scope = Some(InstrumentationScope { name, version, attributes, dropped_attributes_count });
        ScopeSpans { scope, spans, schema_url }
    }
}

prop_compose! {
    fn resource_spans()(resource in resource(), scope_spans in vec(scope_spans(), 1..3),
        schema_url in text()) -> ResourceSpans {
        ResourceSpans { resource: Some(resource), scope_spans, schema_url }
    }
}

pub(in crate::otlp) fn traces() -> impl Strategy<Value = TracesData> {
    vec(resource_spans(), 0..3).prop_map(|resource_spans| TracesData { resource_spans })
}

fn keep_all() -> DecodeOptions {
    DecodeOptions { now: NOW, ..DecodeOptions::default() }
}

proptest! {
    /// Bit for bit: prost's encoding is in field order, and so is ours.
    #[test]
    fn random_requests_come_back_byte_for_byte(traces in traces()) {
        let body = encode(&traces);
        let decoded = decode(body.clone(), &keep_all()).unwrap();
        prop_assert_eq!(decoded.rejected.total(), 0);
        prop_assert_eq!(&encode_traces(&decoded.batch, Utf8::Verbatim), &body);
        let shown = encode_traces(&decoded.batch, Utf8::Replaced);
        prop_assert_eq!(TracesData::decode(shown.as_slice()).unwrap(), traces);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..2_000)) {
        let _any_outcome = decode(bytes, &options());
    }

    /// One byte changed reaches far deeper than random bytes do.
    #[test]
    fn damaged_requests_never_panic(traces in traces(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = encode(&traces);
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(decoded) = decode(body.clone(), &options()) {
            let again = redecode(body, &decoded.rejected_ordinals).unwrap();
            prop_assert_eq!(format!("{again:?}"), format!("{:?}", decoded.batch));
            let shown = encode_traces(&decoded.batch, Utf8::Replaced);
            prop_assert!(TracesData::decode(shown.as_slice()).is_ok());
        }
    }
}

/// A value of `depth` lists inside each other around the string "x", encoded from the inside out.
fn nested(depth: usize, kinds: &[u32]) -> Vec<u8> {
    // Built back to front, so that also a million levels take linear time.
    let mut reversed = b"x\x01\x0a".to_vec();
    let prefix = |reversed: &mut Vec<u8>, number: u32| {
        let len = reversed.len();
        let mut head = delimited(number, &vec![0; len.min(1)]);
        head.truncate(1);
        let mut rest = len;
        loop {
            let low = u8::try_from(rest & 0x7f).unwrap();
            rest >>= 7;
            head.push(if rest == 0 { low } else { low | 0x80 });
            if rest == 0 {
                break;
            }
        }
        reversed.extend(head.iter().rev());
    };
    for level in 0..depth {
        if kinds[level % kinds.len()] == value::ARRAY_VALUE {
            prefix(&mut reversed, 1);
            prefix(&mut reversed, value::ARRAY_VALUE);
        } else {
            prefix(&mut reversed, 2);
            prefix(&mut reversed, 1);
            prefix(&mut reversed, value::KVLIST_VALUE);
        }
    }
    reversed.reverse();
    reversed
}

fn with_value(value: &[u8]) -> Vec<u8> {
    let attribute = [delimited(1, b"deep"), delimited(2, value)].concat();
    among_511(&[good_span(900).encode_to_vec(), delimited(9, &attribute)].concat())
}

fn decode_value(value: &[u8]) -> (Vec<u8>, u32) {
    let decoded = decode(with_value(value), &options()).unwrap();
    assert_eq!(decoded.rejected.total(), 0);
    let span = decoded.batch.spans[256];
    let Value::Nested(text) = decoded.batch.attributes(span.attributes)[1].value else { panic!("no list") };
    (decoded.batch.text(text).to_vec(), decoded.warnings.count(Warning::Depth))
}

const KINDS: [&[u32]; 3] = [&[value::ARRAY_VALUE], &[value::KVLIST_VALUE], &[value::ARRAY_VALUE, value::KVLIST_VALUE]];

#[test]
fn sd_12_bi_046_values_to_depth_64_are_exact() {
    for kinds in KINDS {
        for depth in [1, 31, 32, 47, 48, 63, 64] {
            let value = nested(depth, kinds);
            assert_eq!(decode_value(&value), (value, 0), "{kinds:?} {depth}");
        }
    }
}

#[test]
fn sd_12_bi_047_to_bi_049_deeper_values_are_empty_below_64() {
    for kinds in KINDS {
        for depth in [65, 100, 1_000, 100_000, 1_000_000] {
            let value = nested(depth, kinds);
            let (kept, warned) = decode_value(&value);
            assert_eq!(warned, 1, "{kinds:?} {depth}");
            let mut frames = Vec::new();
            let whole = crate::model::Text { start: 0, len: u32::try_from(kept.len()).unwrap() };
            let mut walk = value::Walk::new(&kept, whole, &mut frames);
            let mut steps = Vec::new();
            while let Some(step) = walk.step().unwrap() {
                steps.push(step);
            }
            let starts = steps.iter().filter(|step| matches!(step, value::Step::ListStart(_))).count();
            assert_eq!(starts, VALUE_DEPTH_MAX);
            assert!(steps.contains(&value::Step::Scalar(value::Member::Empty)));
            assert!(kept.len() < 1_000);
        }
    }
}
