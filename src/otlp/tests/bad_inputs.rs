//! Bad protobuf inputs and what becomes of them; ids are those of the list of bad inputs.

use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};

use super::large_inputs::event_of_128_keys;
use super::*;
use crate::limits::{ERROR_MESSAGE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::model::{Span as Row, SpanId, TraceId, Value};

pub(super) fn span_with(change: impl FnOnce(&mut Span)) -> Vec<u8> {
    let mut span = good_span(900);
    change(&mut span);
    span.encode_to_vec()
}

pub(super) fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any_of(value)), ..KeyValue::default() }
}

/// Decodes the span among 511 good ones: the outcome without its neighbours, and the row if it was kept.
#[track_caller]
pub(super) fn decode_among(span: &[u8]) -> (Decoded, Option<Row>) {
    let body = among_511(span);
    let decoded = decode(body.clone(), &options()).unwrap();
    let n_kept = decoded.batch.spans.len();
    assert_eq!(n_kept + decoded.rejected.total() as usize, 512);
    assert!(511 <= n_kept, "a neighbour was lost");
    let again = redecode(body, &decoded.rejected_ordinals).unwrap();
    assert_eq!(format!("{again:?}"), format!("{:?}", decoded.batch));
    let row = (n_kept == 512).then(|| decoded.batch.spans[256]);
    (decoded, row)
}

#[track_caller]
pub(super) fn check_rejected(span: &[u8], reason: Rejection) {
    let (decoded, _) = decode_among(span);
    assert_eq!(decoded.rejected.count(reason), 1, "{:?}", decoded.message());
    assert_eq!(decoded.rejected_ordinals, [256]);
    let message = decoded.message().unwrap();
    assert!(message.starts_with(&format!("rejected 1 of 512 spans: {}=1; ", reason.code())), "{message}");
    assert!(decoded.warnings.is_empty(), "{message}");
}

/// The span is kept with exactly these warnings.
#[track_caller]
pub(super) fn check_kept(span: &[u8], warnings: &[(Warning, u32)]) -> (Decoded, Row) {
    let (decoded, row) = decode_among(span);
    let given: Vec<_> = Warning::ALL
        .map(|warning| (warning, decoded.warnings.count(warning)))
        .into_iter()
        .filter(|w| 0 < w.1)
        .collect();
    assert_eq!(given, warnings);
    (decoded, row.expect("the span was refused"))
}

#[test]
fn bi_001_bi_002_empty_requests_and_envelopes_are_fine() {
    assert!(decode(Vec::new(), &options()).unwrap().message().is_none());
    let decoded = decode(encode(&request(Vec::new())), &options()).unwrap();
    assert!(decoded.message().is_none());
    assert_eq!(decoded.counters.empty_envelopes, 1);
    assert!(!decoded.is_all_rejected());
}

#[test]
fn bi_003_a_request_of_bad_spans_only_is_all_rejected() {
    let span = Span { trace_id: Vec::new(), ..good_span(0) };
    let decoded = decode(encode(&request(vec![span])), &options()).unwrap();
    assert!(decoded.is_all_rejected());
}

#[test]
fn sd_01_sd_02_bi_004_bi_006_wrong_ids_are_rejected_alone() {
    for len in [0, 8, 15, 17, 32] {
        check_rejected(&span_with(|span| span.trace_id = vec![1; len]), Rejection::InvalidTraceId);
    }
    check_rejected(&span_with(|span| span.trace_id = vec![0; 16]), Rejection::InvalidTraceId);
    for len in [0, 7, 9, 16] {
        check_rejected(&span_with(|span| span.span_id = vec![1; len]), Rejection::InvalidSpanId);
    }
    check_rejected(&span_with(|span| span.span_id = vec![0; 8]), Rejection::InvalidSpanId);
}

#[test]
fn bi_005_short_trace_ids_are_padded_when_asked_and_on_replay() {
    let body = encode(&request(vec![Span { trace_id: vec![7; 8], ..good_span(0) }]));
    let decoded = decode(body.clone(), &DecodeOptions { pad_64bit_trace_ids: true, ..options() }).unwrap();
    let padded = TraceId([0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
    assert_eq!(decoded.batch.spans[0].trace_id, padded);
    assert_eq!(redecode(body, &[]).unwrap().spans[0].trace_id, padded);
}

#[test]
fn sd_03_bi_007_bi_008_a_parent_that_is_none_makes_a_root() {
    let (_, row) = check_kept(&span_with(|span| span.parent_span_id = vec![0; 8]), &[]);
    assert!(row.parent_span_id.is_zero());
    let (_, row) = check_kept(&span_with(|span| span.parent_span_id = vec![1; 7]), &[(Warning::BadParent, 1)]);
    assert!(row.parent_span_id.is_zero());
    let (_, row) = check_kept(&span_with(|span| span.parent_span_id = vec![1; 8]), &[]);
    assert_eq!(row.parent_span_id, SpanId([1; 8]));
}

#[test]
fn sd_04_bi_010_a_bad_link_is_dropped_and_the_span_kept() {
    let good = Link { trace_id: vec![1; 16], span_id: vec![1; 8], ..Link::default() };
    let bad = Link { trace_id: vec![1; 3], attributes: vec![string_attribute("a", "b")], ..good.clone() };
    let span = span_with(|span| span.links = vec![bad, good]);
    let (decoded, row) = check_kept(&span, &[(Warning::BadLink, 1)]);
    assert_eq!((row.links.len, row.dropped_links_count), (1, 1));
    assert_eq!(decoded.batch.links(row.links)[0].trace_id, TraceId([1; 16]));
}

#[test]
fn bi_011_bi_012_bi_030_the_first_1024_events_and_links_are_kept() {
    let link = Link { trace_id: vec![1; 16], span_id: vec![1; 8], ..Link::default() };
    let full = span_with(|span| {
        span.events = vec![Event::default(); 1_024];
        span.links = vec![link.clone(); 1_024];
    });
    let (_, row) = check_kept(&full, &[]);
    assert_eq!((row.events.len, row.links.len), (1_024, 1_024));

    let over = span_with(|span| {
        span.events = vec![Event::default(); 10_000];
        span.links = vec![link; 10_000];
    });
    let (_, row) = check_kept(&over, &[(Warning::LimitApplied, 2 * 8_976)]);
    assert_eq!((row.dropped_events_count, row.dropped_links_count), (8_976, 8_976));

    let saturated = span_with(|span| {
        span.events = vec![Event::default(); 1_025];
        span.dropped_events_count = u32::MAX;
    });
    let (_, row) = check_kept(&saturated, &[(Warning::LimitApplied, 1)]);
    assert_eq!(row.dropped_events_count, u32::MAX);
}

#[test]
fn bi_016_one_bad_span_of_8193_costs_only_itself() {
    let mut spans: Vec<_> = (0..8_193).map(good_span).collect();
    spans[4_000].span_id.clear();
    let decoded = decode(encode(&request(spans)), &options()).unwrap();
    assert_eq!((decoded.batch.spans.len(), decoded.rejected.total()), (8_192, 1));
    assert_eq!(decoded.rejected_ordinals, [4_000]);
}

#[test]
fn bi_017_five_reasons_fit_one_message() {
    let body = [
        Span { trace_id: Vec::new(), ..good_span(0) }.encode_to_vec(),
        Span { span_id: Vec::new(), ..good_span(1) }.encode_to_vec(),
        Span { start_time_unix_nano: 1, end_time_unix_nano: 2, ..good_span(2) }.encode_to_vec(),
        Span { events: vec![event_of_128_keys(); 1_024], ..good_span(3) }.encode_to_vec(),
        vec![0x00],
    ];
    let spans = body.map(|span| delimited(2, &span)).concat();
    let decoded = decode(delimited(1, &delimited(2, &spans)), &options()).unwrap();
    assert!(decoded.is_all_rejected());
    assert_eq!(
        decoded.message().unwrap(),
        "rejected 5 of 5 spans: invalid_span_id=1, invalid_trace_id=1, malformed_span=1, outside_retention=1, \
         span_too_large=1; set attribute limits in the SDK"
    );
}

#[test]
fn sd_07_sd_08_bi_019_to_bi_024_odd_times_are_kept_as_sent() {
    let times = |start, end| span_with(|span| (span.start_time_unix_nano, span.end_time_unix_nano) = (start, end));
    let now = NOW.0;
    let hour = 3_600_000_000_000;
    for (start, end, warnings, n_future) in [
        (now, now - 1, &[(Warning::NegativeDuration, 1)][..], 0),
        (now, now, &[], 0),
        (0, now, &[(Warning::MissingTime, 1)], 0),
        (now, 0, &[(Warning::MissingTime, 1)], 0),
        (0, 0, &[(Warning::MissingTime, 1)], 0),
        (u64::MAX, 0, &[(Warning::MissingTime, 1)], 1),
        ((1 << 63) - 1, 1 << 63, &[], 1),
        (now, now + hour, &[], 0),
        (now, now + hour + 1, &[], 1),
    ] {
        let (decoded, row) = check_kept(&times(start, end), warnings);
        assert_eq!((row.start_time_unix_nano.0, row.end_time_unix_nano.0), (start, end));
        assert_eq!(decoded.counters.future_spans, n_future, "{start} {end}");
    }
}

#[test]
fn sd_09_bi_025_bi_026_retention_is_judged_by_the_end() {
    let edge = NOW.0 - 86_400_000_000_000;
    let ends_at = |end| span_with(|span| (span.start_time_unix_nano, span.end_time_unix_nano) = (1, end));
    check_rejected(&ends_at(edge - 1), Rejection::OutsideRetention);
    let (_, _) = check_kept(&ends_at(edge), &[]);
    let body = among_511(&ends_at(edge - 1));
    assert_eq!(redecode(body, &[]).unwrap().spans.len(), 512, "replay judges no times");
}

#[test]
fn sd_19_sd_20_bi_028_bi_029_unknown_numbers_are_kept() {
    for kind in [6, 99, -1, i32::MIN] {
        let status = opentelemetry_proto::tonic::trace::v1::Status { code: 7, message: String::new() };
        let (_, row) = check_kept(&span_with(|span| (span.kind, span.status) = (kind, Some(status))), &[]);
        assert_eq!((row.kind, row.status_code), (kind, 7));
    }
}

#[test]
fn sd_10_bi_031_numbers_are_exact() {
    use any_value::Value::{DoubleValue, IntValue};
    let nan = f64::from_bits(0x7ff8_dead_beef_0001);
    let doubles = [nan, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE / 2.0];
    let span = span_with(|span| {
        span.attributes = vec![attribute("min", IntValue(i64::MIN)), attribute("max", IntValue(i64::MAX))];
        span.attributes.extend(doubles.iter().enumerate().map(|(n, d)| attribute(&format!("d{n}"), DoubleValue(*d))));
    });
    let (decoded, row) = check_kept(&span, &[]);
    let rows = decoded.batch.attributes(row.attributes);
    assert_eq!((rows[0].value, rows[1].value), (Value::Int(i64::MIN), Value::Int(i64::MAX)));
    for (row, double) in rows[2..].iter().zip(doubles) {
        let Value::Double(kept) = row.value else { panic!("no double") };
        assert_eq!(kept.to_bits(), double.to_bits());
    }
}

#[test]
fn sd_34_bi_032_invalid_utf8_is_kept_and_replaced_only_for_clients() {
    let bad = b"caf\xe9";
    let value = [delimited(1, b"k"), delimited(2, &delimited(1, bad))].concat();
    let array = delimited(5, &delimited(1, &delimited(1, bad)));
    let nested = [delimited(1, b"n"), delimited(2, &array)].concat();
    let span = [
        good_span(900).encode_to_vec(),
        delimited(5, bad),
        delimited(3, bad),
        delimited(9, &value),
        delimited(9, &nested),
    ]
    .concat();
    let (decoded, row) = check_kept(&span, &[(Warning::InvalidUtf8, 4)]);
    assert_eq!(decoded.batch.text(row.name), bad);
    let verbatim = encode_traces(&decoded.batch, Utf8::Verbatim);
    assert_eq!(verbatim.windows(bad.len()).filter(|window| *window == bad).count(), 4);
    let shown = TracesData::decode(encode_traces(&decoded.batch, Utf8::Replaced).as_slice()).unwrap();
    assert_eq!(shown.resource_spans[0].scope_spans[0].spans[256].name, "caf\u{fffd}");
}

#[test]
fn bi_032_an_invalid_service_name_is_shown_with_u_fffd() {
    let name = [delimited(1, b"service.name"), delimited(2, &delimited(1, b"sh\xffp"))].concat();
    let decoded = decode(delimited(1, &delimited(1, &delimited(1, &name))), &options()).unwrap();
    assert_eq!(decoded.batch.text(decoded.batch.resources[0].service), "sh\u{fffd}p".as_bytes());
    assert_eq!(decoded.warnings.count(Warning::InvalidUtf8), 1);
}

#[test]
fn sd_14_bi_036_bi_050_bi_051_long_texts_are_cut_on_a_character() {
    let exact = "x".repeat(TEXT_BYTES_MAX);
    let (_, row) = check_kept(&span_with(|span| span.attributes = vec![string_attribute("a", &exact)]), &[]);
    assert_eq!(row.attributes.len, 1);
    let long = "\u{20ac}".repeat(1 << 20);
    let span = span_with(|span| {
        span.name.clone_from(&long);
        span.attributes = vec![string_attribute("a", &long), string_attribute(&long, "")];
    });
    let (decoded, row) = check_kept(&span, &[(Warning::Truncated, 3)]);
    assert_eq!(row.name.len as usize, TEXT_BYTES_MAX - 1);
    assert!(std::str::from_utf8(decoded.batch.text(row.name)).is_ok());
}

#[test]
fn sd_25_bi_037_bi_038_a_service_name_that_is_none_is_empty() {
    use any_value::Value::{ArrayValue as Array, IntValue, KvlistValue};
    let no_strings = [IntValue(1), Array(ArrayValue::default()), KvlistValue(KeyValueList::default())];
    for value in no_strings {
        let mut body = request(vec![good_span(0)]);
        body.resource_spans[0].resource.as_mut().unwrap().attributes = vec![attribute("service.name", value)];
        let decoded = decode(encode(&body), &options()).unwrap();
        assert_eq!(decoded.warnings.count(Warning::ServiceNameType), 1);
        assert_eq!(decoded.batch.resources[0].service.len, 0);
    }
    let mut twice = request(vec![good_span(0)]);
    let attributes = &mut twice.resource_spans[0].resource.as_mut().unwrap().attributes;
    attributes.push(string_attribute("service.name", "last"));
    let decoded = decode(encode(&twice), &options()).unwrap();
    assert_eq!(decoded.batch.text(decoded.batch.resources[0].service), b"last");
    assert_eq!(decoded.message().unwrap(), "stored with warnings: duplicate_key=1");
    twice.resource_spans[0].resource = None;
    let decoded = decode(encode(&twice), &options()).unwrap();
    assert!(decoded.message().is_none());
    assert_eq!(decoded.counters.service_name_missing, 1);
}

#[test]
fn sd_15_sd_16_bi_040_to_bi_042_keys() {
    let (_, row) = check_kept(
        &span_with(|span| span.attributes = vec![string_attribute("", "v"), string_attribute("a", "")]),
        &[(Warning::EmptyKey, 1)],
    );
    assert_eq!((row.attributes.len, row.dropped_attributes_count), (1, 1));

    let numbered = |n: u32| string_attribute(&format!("key{n}"), "");
    let (_, row) = check_kept(
        &span_with(|span| span.attributes = (0..10_000).map(numbered).collect()),
        &[(Warning::LimitApplied, 8_976)],
    );
    assert_eq!((row.attributes.len, row.dropped_attributes_count), (1_024, 8_976));

    for n in [2, 32, 33, 1_000] {
        let span = span_with(|span| {
            span.attributes = (0..n).map(numbered).collect();
            span.attributes[1] = attribute("key0", any_value::Value::IntValue(1));
        });
        let (_, row) = check_kept(&span, &[(Warning::DuplicateKey, 1)]);
        assert_eq!(row.attributes.len, n, "both stay");
        let (_, _) = check_kept(&span_with(|span| span.attributes = (0..n).map(numbered).collect()), &[]);
    }
}

#[test]
fn sd_11_bi_043_to_bi_045_empty_values_and_oneofs() {
    let value = |value: &[u8]| [delimited(1, b"k"), delimited(2, value)].concat();
    let span = |entry: &[u8]| [good_span(900).encode_to_vec(), delimited(9, entry)].concat();
    let kept = |entry: &[u8], warnings: &[(Warning, u32)]| {
        let (decoded, row) = check_kept(&span(entry), warnings);
        let value = decoded.batch.attributes(row.attributes)[1].value;
        (value, decoded.batch)
    };
    assert_eq!(kept(&delimited(1, b"k"), &[]).0, Value::Empty);
    assert_eq!(kept(&value(b""), &[]).0, Value::Empty);
    assert_eq!(kept(&value(b"\x0a\x01a\x18\x05"), &[]).0, Value::Int(5));
    assert_eq!(kept(&value(b"\x18\x05\x10\x01"), &[]).0, Value::Bool(true));
    assert_eq!(kept(&value(b"\x40\x05"), &[(Warning::Strindex, 1)]).0, Value::Empty);
    // Of a key inside a value too: it came and went without a word, which is how fuzzing found it.
    let inside = |content| value(&delimited(6, &delimited(1, content)));
    let Value::Nested(_) = kept(&inside(b"\x18\x05"), &[(Warning::Strindex, 1)]).0 else { panic!("no list") };
    // Two values of one KeyValue merge: the second is empty and changes nothing.
    assert_eq!(kept(&[value(b"\x18\x05"), delimited(2, b"")].concat(), &[]).0, Value::Int(5));
    let (string, batch) = kept(&[value(b"\x18\x05"), delimited(2, b"\x0a\x02ab")].concat(), &[]);
    let Value::String(text) = string else { panic!("{string:?}") };
    assert_eq!(batch.text(text), b"ab");
}

#[test]
fn what_a_rejected_span_had_rewritten_leaves_the_arena() {
    let state = vec!["key=value"; 1_000].join(",");
    let span = |id: usize| span_with(|span| (span.trace_state, span.trace_id) = (state.clone(), vec![1; id]));
    check_rejected(&span(15), Rejection::InvalidTraceId);
    assert_eq!(decode_among(&span(15)).0.batch.bytes.len(), among_511(&span(15)).len());
    let (decoded, row) = check_kept(&span(16), &[(Warning::Truncated, 1)]);
    assert_eq!(decoded.batch.text(row.trace_state), vec!["key=value"; 409].join(",").as_bytes());
}

#[test]
fn attributes_events_and_links_may_come_in_any_order() {
    let entry = |key: &[u8]| delimited(1, key);
    let span = [
        delimited(11, &[delimited(3, &entry(b"e1")), delimited(3, &entry(b"e2"))].concat()),
        delimited(9, &entry(b"a1")),
        good_span(900).encode_to_vec(),
        delimited(11, &delimited(3, &entry(b"e3"))),
        delimited(9, &entry(b"a2")),
    ];
    let (decoded, row) = check_kept(&span.concat(), &[]);
    let keys = |rows| {
        let keys = decoded.batch.attributes(rows).iter().map(|row| decoded.batch.text_lossy(row.key).into_owned());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(keys(row.attributes), ["a1", "http.route", "a2"]);
    let events = decoded.batch.events(row.events);
    assert_eq!(keys(events[0].attributes), ["e1", "e2"]);
    assert_eq!(keys(events[1].attributes), ["e3"]);
}

#[test]
fn sd_27_entity_refs_are_kept_also_when_they_stand_apart() {
    let reference = |kind: &[u8]| delimited(3, &delimited(2, kind));
    let attribute = delimited(1, &delimited(1, b"a"));
    let resource = [reference(b"host"), reference(b"pod"), attribute, reference(b"service")].concat();
    let batch = decode(delimited(1, &delimited(1, &resource)), &options()).unwrap().batch;
    let refs = [reference(b"host"), reference(b"pod"), reference(b"service")].concat();
    assert_eq!(batch.text(batch.resources[0].entity_refs), refs);
}

#[test]
fn sd_27_bi_054_entity_refs_that_refer_to_nothing_are_kept_and_counted() {
    let key = |name: &[u8]| delimited(1, &delimited(1, name));
    let of = |fields: &[Vec<u8>]| delimited(3, &fields.concat());
    let (host, id) = (delimited(2, b"host"), |name: &[u8]| delimited(3, name));
    for (refs, n_missing) in [
        (of(&[host.clone(), id(b"host.id"), delimited(4, b"host.name")]), 0),
        (of(&[host.clone(), id(b"host.uid")]), 1),
        (of(&[host.clone(), id(b"host.id"), delimited(4, b"host.type")]), 1),
        (of(&[delimited(2, b""), id(b"host.id")]), 1),
        (of(&[id(b"host.id")]), 1),
        ([of(&[host.clone(), id(b"a"), id(b"b")]), of(&[host, id(b"host.id")]), of(&[])].concat(), 2),
    ] {
        // The attributes may come behind the references.
        let resource = [refs.clone(), key(b"host.id"), key(b"host.name"), key(b"service.name")].concat();
        let decoded = decode(delimited(1, &delimited(1, &resource)), &options()).unwrap();
        assert_eq!(decoded.counters.entity_ref_missing, n_missing, "{refs:?}");
        assert_eq!(decoded.batch.text(decoded.batch.resources[0].entity_refs), refs);
        assert!(decoded.message().is_none(), "the sender is not told");
    }
}

#[test]
fn bi_056_a_request_cut_at_any_byte_is_undecodable_or_ends_on_a_field() {
    let parts: Vec<_> = (0..5).map(|n| encode(&request((0..5).map(|k| good_span(5 * n + k)).collect()))).collect();
    let ends: Vec<_> = parts
        .iter()
        .scan(0, |end, part| {
            *end += part.len();
            Some(*end)
        })
        .collect();
    let body = parts.concat();
    for len in 0..=body.len() {
        let outcome = decode(body[..len].to_vec(), &options());
        assert_eq!(outcome.is_ok(), len == 0 || ends.contains(&len), "{len}");
    }
}

#[test]
fn bi_058_bi_059_framing_faults_cost_the_request_outside_and_the_span_inside() {
    let faults: [&[u8]; 6] = [
        b"\x7a\x05ab",                                       // length past the end
        b"\x38\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", // varint of 11 bytes
        b"\x08\x01",                                         // field 1 is no varint
        b"\x02\x00",                                         // field number 0
        b"\x0f",                                             // wire type 7
        b"\x0c",                                             // end of a group that never began
    ];
    for fault in faults {
        check_rejected(&[good_span(900).encode_to_vec(), fault.to_vec()].concat(), Rejection::MalformedSpan);
        let good = encode(&request(vec![good_span(0)]));
        for body in [[good, fault.to_vec()].concat(), delimited(1, fault), delimited(1, &delimited(2, fault))] {
            let outcome = decode(body, &options());
            assert!(matches!(outcome, Err(Undecodable::Protobuf { .. })), "{outcome:?}");
        }
    }
    // Inside an attribute, an event and a nested value of the span, too.
    for path in [&[9][..], &[9, 2], &[9, 2, 5], &[9, 2, 5, 1], &[9, 2, 6, 1, 2], &[11], &[11, 3], &[13], &[15]] {
        let span = path.iter().rev().fold(b"\x0a\x05ab".to_vec(), |content, number| delimited(*number, &content));
        check_rejected(&[good_span(900).encode_to_vec(), span].concat(), Rejection::MalformedSpan);
    }
}

#[test]
fn bi_060_to_bi_062_unknown_fields_are_skipped_and_groups_bounded() {
    let group = |depth: usize| [[0xa3, 0x06].repeat(depth), [0xa4, 0x06].repeat(depth)].concat();
    let good = encode(&request(vec![good_span(0)]));
    let highest_number = delimited((1 << 29) - 1, &vec![1; 1 << 20]);
    for unknown in [group(1), group(64), highest_number] {
        let decoded = decode([unknown.clone(), good.clone()].concat(), &options()).unwrap();
        assert_eq!((decoded.batch.spans.len(), decoded.message()), (1, None));
        if unknown.len() < 1_000 {
            let (_, _) = check_kept(&[unknown, good_span(900).encode_to_vec()].concat(), &[]);
        }
    }
    for bad in [group(65), vec![0xa3, 0x06], vec![0xa3, 0x06, 0xac, 0x06], [0xa3, 0x06].repeat(1_000_000)] {
        assert!(decode([good.clone(), bad].concat(), &options()).is_err());
    }
}

#[test]
fn bi_063_old_library_spans_are_ignored_with_a_warning() {
    let old = delimited(1000, &delimited(2, &good_span(0).encode_to_vec()));
    let decoded = decode(delimited(1, &old), &options()).unwrap();
    assert_eq!(decoded.message().unwrap(), "stored with warnings: deprecated_field=1");
}

#[test]
fn bi_064_protobuf_merge_rules_hold() {
    let good = encode(&request(vec![good_span(0)]));
    assert_eq!(decode(good.repeat(2), &options()).unwrap().batch.spans.len(), 2);
    let status = |message: &[u8]| delimited(15, message);
    let span = [
        good_span(900).encode_to_vec(),
        delimited(5, b"last"),
        status(&delimited(2, b"why")),
        status(b"\x18\x82\x80\x00"),
    ];
    let (decoded, row) = check_kept(&span.concat(), &[]);
    assert_eq!(decoded.batch.text(row.name), b"last");
    assert_eq!((row.status_code, decoded.batch.text(row.status_message)), (2, &b"why"[..]));

    let resource = |key: &str, value: &str| {
        let attributes = vec![string_attribute(key, value)];
        delimited(1, &Resource { attributes, ..Resource::default() }.encode_to_vec())
    };
    let spans = delimited(2, &delimited(2, &good_span(0).encode_to_vec()));
    let split = [resource("a", "b"), spans, resource("service.name", "shop")].concat();
    let batch = decode(delimited(1, &split), &options()).unwrap().batch;
    assert_eq!(batch.resources[0].attributes.len, 2);
    assert_eq!(batch.text(batch.resources[0].service), b"shop");
}

#[test]
fn bi_065_another_signal_is_all_rejected_with_a_hint() {
    // A `Metric` with name and unit, and a `LogRecord` with a time and a severity.
    for element in [
        [delimited(1, b"requests"), delimited(3, b"1")].concat(),
        b"\x09\x01\x02\x03\x04\x05\x06\x07\x08\x10\x09".to_vec(),
    ] {
        let decoded = decode(delimited(1, &delimited(2, &delimited(2, &element).repeat(3))), &options()).unwrap();
        assert!(decoded.is_all_rejected());
        assert!(decoded.message().unwrap().contains("wrong signal?"));
    }
}

#[test]
fn bi_066_json_sent_as_protobuf_is_named() {
    let error = decode(br#" {"resourceSpans":[]}"#.to_vec(), &options()).unwrap_err();
    assert!(error.to_string().contains("looks like JSON"), "{error}");
}

#[test]
fn bi_068_to_bi_070_tiny_elements_stop_at_the_element_budget() {
    let spans = |bytes: usize| delimited(1, &delimited(2, &[0x12, 0x00].repeat(bytes / 2)));
    let attribute = delimited(9, &delimited(1, b"k"));
    let attributes = delimited(1, &delimited(2, &delimited(2, &attribute.repeat(2_000_000))));
    for body in [spans(4 << 20), [0x0a, 0x00].repeat(2 << 20), attributes] {
        let outcome = decode(body, &options());
        assert!(matches!(outcome, Err(Undecodable::TooManyElements { .. })), "{:?}", outcome.map(|d| d.element_cost));
    }
}

#[test]
fn bi_106_300000_bad_spans_are_counted_in_a_short_message() {
    let mut spans = vec![Span { trace_id: vec![1; 15], ..good_span(1) }; 300_000];
    spans.push(good_span(0));
    let decoded = decode(encode(&request(spans)), &options()).unwrap();
    assert_eq!((decoded.rejected.total(), decoded.batch.spans.len()), (300_000, 1));
    assert!(decoded.message().unwrap().len() <= ERROR_MESSAGE_BYTES_MAX);
}
