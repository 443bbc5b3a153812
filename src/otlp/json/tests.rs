//! OTLP/JSON in and out; `BI` ids are those of the list of bad inputs.

use opentelemetry_proto::tonic::trace::v1::TracesData;
use proptest::prelude::*;

use super::super::tests::{NOW, options, traces};
use super::super::{
    DecodeOptions, Decoded, JsonDialect, Rejection, Utf8, decode, encode_json, encode_traces, for_tempo,
    write_resource_spans_json,
};
use super::*;
use crate::model::{SpanBatch, Value};
use prost::Message as _;

/// Decodes a request of these spans around one good span; each is the inside of an object.
fn spans(spans: &str) -> Decoded {
    let good = format!(
        r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","startTimeUnixNano":"{0}",
        "endTimeUnixNano":"{0}""#,
        NOW.0
    );
    let spans = spans.replace("GOOD", &good);
    request(&format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{good}}},{{{spans}}}]}}]}}]}}"#)).unwrap()
}

fn request(text: &str) -> Result<Decoded, Undecodable> {
    let json = json_to_protobuf(text.as_bytes(), &options())?;
    let mut decoded = decode(json.protobuf, &options())?;
    decoded.warnings.merge(json.warnings);
    Ok(decoded)
}

/// The span is kept with these warnings, in the form of the message.
#[track_caller]
fn check_kept(span: &str, warnings: &str) -> SpanBatch {
    let decoded = spans(span);
    let expected = (!warnings.is_empty()).then(|| format!("stored with warnings: {warnings}"));
    assert_eq!(decoded.message(), expected, "{span}");
    assert_eq!(decoded.batch.spans.len(), 2);
    decoded.batch
}

#[track_caller]
fn check_rejected(span: &str, reason: Rejection) {
    let decoded = spans(span);
    assert_eq!(decoded.rejected.count(reason), 1, "{span}: {:?}", decoded.message());
    assert_eq!(decoded.batch.spans.len(), 1);
}

#[track_caller]
fn check_undecodable(text: &str, message: &str) {
    match request(text) {
        Err(error) => assert_eq!(error.to_string(), message, "{text}"),
        Ok(decoded) => panic!("{text}: {decoded:?}"),
    }
}

/// The value of attribute "k" whose JSON is given.
#[track_caller]
fn value(json: &str, warnings: &str) -> (Value, SpanBatch) {
    let batch = check_kept(&format!(r#"GOOD,"attributes":[{{"key":"k","value":{json}}}]"#), warnings);
    (batch.attributes(batch.spans[1].attributes)[0].value, batch)
}

#[track_caller]
fn bytes_of(json: &str, warnings: &str) -> Vec<u8> {
    match value(json, warnings) {
        (Value::String(text) | Value::Bytes(text), batch) => batch.text(text).to_vec(),
        (other, _) => panic!("{other:?}"),
    }
}

fn keep_all() -> DecodeOptions {
    DecodeOptions { now: NOW, ..DecodeOptions::default() }
}

proptest! {
    #[test]
    fn json_of_random_requests_comes_back_as_the_same_messages(traces in traces()) {
        let batch = decode(traces.encode_to_vec(), &keep_all()).unwrap().batch;
        let text = encode_json(&batch, JsonDialect::Otlp);
        let json = json_to_protobuf(text.as_bytes(), &options()).unwrap();
        prop_assert!(json.warnings.is_empty(), "{:?}", json.warnings);
        let again = decode(json.protobuf, &keep_all()).unwrap();
        prop_assert_eq!(again.rejected.total(), 0);
        // Messages, not bytes: JSON does not tell an empty key of a nested entry from an absent one.
        let again = TracesData::decode(encode_traces(&again.batch, Utf8::Verbatim).as_slice()).unwrap();
        prop_assert_eq!(again, TracesData::decode(encode_traces(&batch, Utf8::Verbatim).as_slice()).unwrap());
    }

    #[test]
    fn random_text_never_panics(text in "[\\[\\]{}:,\"\\\\u0-9a-zA-Z .+-]{0,80}") {
        let _any_outcome = json_to_protobuf(text.as_bytes(), &options());
    }

    #[test]
    fn damaged_requests_never_panic(traces in traces(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let batch = decode(traces.encode_to_vec(), &keep_all()).unwrap().batch;
        let mut text = encode_json(&batch, JsonDialect::Otlp).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(json) = json_to_protobuf(&text, &options()) {
            let _any_outcome = decode(json.protobuf, &options());
        }
    }
}

#[test]
fn otlp_57_bi_071_null_absent_and_empty_are_defaults() {
    for text in ["", "{}", r#"{"resourceSpans":null}"#, r#"{"resourceSpans":[null,{}]}"#] {
        assert!(request(text).unwrap().message().is_none(), "{text}");
    }
    let nulls = r#"GOOD,"traceState":null,"parentSpanId":null,"name":null,"kind":null,"attributes":null,
        "droppedAttributesCount":null,"events":null,"links":null,"status":null,"flags":null"#;
    let _batch = check_kept(nulls, "");
}

#[test]
fn bi_072_a_text_that_is_no_object_is_undecodable() {
    for text in ["[]", "null", "\"\"", "123", " ", "'x'"] {
        check_undecodable(text, "undecodable JSON at line 1, byte 0: expected an object with resourceSpans");
    }
}

#[test]
fn otlp_55_bi_073_bi_074_snake_case_is_unknown_and_named() {
    let decoded = request(r#"{"resource_spans":[{"scope_spans":[]}]}"#).unwrap();
    assert_eq!(decoded.message().unwrap(), "stored with warnings: no_spans=1, unknown_keys=1 (resource_spans)");
    let span = r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","start_time_unix_nano":"1",
        "endTimeUnixNano":"1795435200000000000","my_own_key":1"#;
    let _batch = check_kept(span, "missing_time=1, unknown_keys=1 (start_time_unix_nano)");
}

#[test]
fn otlp_53_bi_075_bi_076_enum_names_are_taken_with_a_warning() {
    for (kind, number) in [("SPAN_KIND_SERVER", 2), ("SPAN_KIND_FOO", 0)] {
        let batch = check_kept(&format!(r#"GOOD,"kind":"{kind}""#), "enum_name=1");
        assert_eq!(batch.spans[1].kind, number);
    }
    let batch = check_kept(r#"GOOD,"kind":-1,"status":{"code":"STATUS_CODE_ERROR","message":"no"}"#, "enum_name=1");
    assert_eq!((batch.spans[1].kind, batch.spans[1].status_code), (-1, 2));
}

#[test]
fn otlp_52_bi_077_bi_078_ids_are_hex_of_any_case() {
    for id in ["W47/95gDgQPSabYzgT/GDA==", "0x5b8efff798038103d269b633813fc60c", "zz", "5b8", ""] {
        check_rejected(&format!(r#"GOOD,"traceId":"{id}""#), Rejection::InvalidTraceId);
        check_rejected(&format!(r#"GOOD,"spanId":"{id}""#), Rejection::InvalidSpanId);
    }
    let _batch = check_kept(r#"GOOD,"parentSpanId":"xyz""#, "bad_parent=1");
    let _batch = check_kept(r#"GOOD,"links":[{"traceId":"xyz","spanId":"eee19b7ec3c1b174"}]"#, "bad_link=1");
    let batch = check_kept(r#"GOOD,"traceId":"5B8EFFF798038103d269b633813FC60C""#, "");
    assert_eq!(batch.spans[0].trace_id, batch.spans[1].trace_id);
}

#[test]
fn otlp_56_bi_079_bi_080_times_are_numbers_or_strings() {
    for time in ["1795435200000000001", "1.795435200000000001e18"] {
        for form in [time.to_owned(), format!("\"{time}\"")] {
            let batch = check_kept(&format!(r#"GOOD,"endTimeUnixNano":{form}"#), "");
            assert_eq!(batch.spans[1].end_time_unix_nano.0, 1_795_435_200_000_000_001);
        }
    }
    for time in ["-1", "\"\"", "\"abc\"", "1e400", "1.5", "true", "{}", "[1]", "18446744073709551616"] {
        check_rejected(&format!(r#"GOOD,"endTimeUnixNano":{time}"#), Rejection::MalformedSpan);
    }
}

#[test]
fn a_value_of_a_wrong_type_costs_its_span_or_outside_of_spans_the_request() {
    for member in [
        r#""name":1"#,
        r#""attributes":{}"#,
        r#""attributes":[1]"#,
        r#""attributes":[{"key":"k","value":{"arrayValue":{"values":[{"boolValue":"x"}]}}}]"#,
        r#""status":[]"#,
        r#""droppedLinksCount":-1"#,
    ] {
        check_rejected(&format!("GOOD,{member}"), Rejection::MalformedSpan);
    }
    let decoded = request(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[5]}]}]}"#).unwrap();
    assert_eq!(decoded.rejected.count(Rejection::MalformedSpan), 1);
    check_undecodable("{\"resourceSpans\":\n5}", "undecodable JSON at line 2, byte 18: expected an array");
    check_undecodable(
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":1}]}}]}"#,
        "undecodable JSON at line 1, byte 52: expected a string",
    );
}

#[test]
fn otlp_58_bi_031_bi_081_numbers_are_exact() {
    let double = |json: &str| match value(json, "").0 {
        Value::Double(value) => value.to_bits(),
        other => panic!("{other:?}"),
    };
    assert_eq!(double(r#"{"doubleValue":"NaN"}"#), f64::NAN.to_bits());
    assert_eq!(double(r#"{"doubleValue":"-Infinity"}"#), f64::NEG_INFINITY.to_bits());
    assert_eq!(double(r#"{"doubleValue":-0.0}"#), (-0.0_f64).to_bits());
    assert_eq!(double(r#"{"doubleValue":"0.1"}"#), 0.1_f64.to_bits());
    assert_eq!(value(r#"{"intValue":"-9223372036854775808"}"#, "").0, Value::Int(i64::MIN));
    assert_eq!(value(r#"{"intValue":9223372036854775807}"#, "").0, Value::Int(i64::MAX));
    let batch = check_kept(r#"GOOD,"flags":"4294967295","droppedEventsCount":"7""#, "");
    assert_eq!((batch.spans[1].flags, batch.spans[1].dropped_events_count), (u32::MAX, 7));
}

#[test]
fn sd_11_empty_values_are_kept() {
    assert_eq!(value("{}", "").0, Value::Empty);
    assert_eq!(value(r#"{"intValue":0}"#, "").0, Value::Int(0));
    assert_eq!(value(r#"{"boolValue":false}"#, "").0, Value::Bool(false));
    for list in [r#"{"arrayValue":{}}"#, r#"{"kvlistValue":{"values":[]}}"#, r#"{"arrayValue":{"values":[{},null]}}"#] {
        assert!(matches!(value(list, "").0, Value::Nested(_)), "{list}");
    }
}

#[test]
fn otlp_59_bi_083_bi_084_base64_in_four_forms() {
    for form in ["+/8=", "-_8=", "+/8", "-_8"] {
        assert_eq!(bytes_of(&format!(r#"{{"bytesValue":"{form}"}}"#), ""), [0xfb, 0xff]);
    }
    assert!(bytes_of(r#"{"bytesValue":"***"}"#, "bad_base64=1").is_empty());
}

#[test]
fn bi_034_strings_are_unescaped_and_lone_surrogates_replaced() {
    let string = |text: &str, warnings: &str| {
        String::from_utf8(bytes_of(&format!(r#"{{"stringValue":"{text}"}}"#), warnings)).unwrap()
    };
    assert_eq!(string(r#"a\"\\\/\b\f\n\r\t\u0041\ud83d\ude00z"#, ""), "a\"\\/\u{8}\u{c}\n\r\tA\u{1f600}z");
    assert_eq!(string(r"\ud800", "invalid_utf8=1"), "\u{fffd}");
    assert_eq!(string(r"\ud800\u0041\udc00", "invalid_utf8=2"), "\u{fffd}A\u{fffd}");
}

#[test]
fn otlp_60_the_last_of_duplicate_keys_wins() {
    let batch = check_kept(r#"GOOD,"name":"a","name":"b","status":{"code":1},"status":{"code":2}"#, "");
    assert_eq!(batch.text(batch.spans[1].name), b"b");
    assert_eq!(batch.spans[1].status_code, 2);
    assert_eq!(value(r#"{"stringValue":"a","intValue":1}"#, "").0, Value::Int(1));
}

#[test]
fn otlp_54_bi_085_bi_086_unknown_values_of_any_shape_are_skipped() {
    let deep = |depth: usize| format!("{}1{}", r#"{"a":["#.repeat(depth / 2), "]}".repeat(depth / 2));
    for unknown in [
        "1",
        "-1.5e3",
        "true",
        "null",
        "[]",
        "{}",
        r#""\u0041\\\"""#,
        r#"[1,[],{},{"a":{"b":[null,"x"]},"c":2}]"#,
        &format!("\"{}\"", "x".repeat(1 << 20)),
        &deep(9_000),
    ] {
        let batch = check_kept(&format!(r#"GOOD,"unknown":{unknown},"name":"n""#), "");
        assert_eq!(batch.text(batch.spans[1].name), b"n");
    }
    for broken in
        ["[1,]", "[1}", r#"{"a"}"#, r#"{"a":1,}"#, "{1:2}", r#"{"a":1 "b":2}"#, "[1 2]", "01", "tru", "\"\\x\""]
    {
        assert!(request(&format!(r#"{{"unknown":{broken}}}"#)).is_err(), "{broken}");
    }
    let error = request(&format!(r#"{{"unknown":{}}}"#, deep(1_000_000))).unwrap_err();
    assert!(error.to_string().ends_with("expected at most 10000 objects and arrays inside each other"), "{error}");
}

#[test]
fn sd_12_bi_046_to_bi_048_nesting_as_in_protobuf() {
    let nested = |depth: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(depth);
        format!(r#"{open}{{"stringValue":"x"}}{}"#, "]}}".repeat(depth))
    };
    for (depth, warnings) in [(63, ""), (64, ""), (65, "depth=1"), (1_000, "depth=1")] {
        let (kept, _) = value(&nested(depth), warnings);
        assert!(matches!(kept, Value::Nested(_)));
    }
    let attribute = format!(r#"{{"attributes":[{{"value":{}}}]}}"#, nested(100_000));
    assert!(request(&format!(r#"{{"resourceSpans":[{{"resource":{attribute}}}]}}"#)).is_err());
}

#[test]
fn bi_082_bi_087_to_bi_090_what_is_no_json_is_undecodable() {
    for text in [
        r#"{"a":NaN}"#,
        r#"{"a":1,}"#,
        r#"{/**/"a":1}"#,
        "{'a':1}",
        "{} x",
        "{}{",
        r#"{"a":"\x"}"#,
        "{\"a\":\"\n\"}",
        r#"{"a":1]"#,
        r#"{"resourceSpans":[}"#,
        "{,}",
        r#"{"a" 1}"#,
    ] {
        assert!(matches!(request(text), Err(Undecodable::Json { .. })), "{text}");
    }
    check_undecodable(
        "{}\n{}",
        "undecodable JSON at line 2, byte 3: expected the end of the text (several documents: send one request for each)",
    );
    assert!(request("\u{feff}{} \r\n\t").unwrap().message().is_none());
    let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let error = json_to_protobuf(&utf16, &options()).unwrap_err().to_string();
    assert!(error.contains("UTF-16"), "{error}");
    assert!(json_to_protobuf(b"{\"a\":\"caf\xe9\"}", &options()).is_err());
    let error = json_to_protobuf(b"\x0a\x05\x12\x03\x0a\x01\x01", &options()).unwrap_err().to_string();
    assert!(error.contains("looks like protobuf"), "{error}");
}

#[test]
fn bi_091_a_request_cut_at_any_byte_is_undecodable() {
    let batch = spans(r#"GOOD,"attributes":[{"key":"k","value":{"stringValue":"v\n"}}]"#).batch;
    let text = encode_json(&batch, JsonDialect::Otlp);
    for len in 1..text.len() {
        assert!(json_to_protobuf(&text.as_bytes()[..len], &options()).is_err(), "{len}");
    }
    assert!(json_to_protobuf(text.as_bytes(), &options()).is_ok());
}

#[test]
fn bi_092_floods_stop_early() {
    assert!(json_to_protobuf(&vec![b'['; 1 << 20], &options()).is_err());
    let empty = format!(r#"{{"resourceSpans":[{}{{}}]}}"#, "{},".repeat(2_000_000));
    assert!(matches!(json_to_protobuf(empty.as_bytes(), &options()), Err(Undecodable::TooManyElements { .. })));
}

const TRACE: &str = concat!(
    r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a\"b"}}],"#,
    r#""entityRefs":[{"type":"service","idKeys":["service.name"]}]},"scopeSpans":[{"scope":{"name":"lib"},"spans":["#,
    r#"{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"n","kind":2,"#,
    r#""startTimeUnixNano":"1795435200000000000","endTimeUnixNano":"1795435199999999999","attributes":["#,
    r#"{"key":"d","value":{"doubleValue":"NaN"}},{"key":"b","value":{"bytesValue":"+/8="}},"#,
    r#"{"key":"l","value":{"arrayValue":{"values":[{"intValue":"1"},{},{"kvlistValue":{"values":["#,
    r#"{"key":"x","value":{"boolValue":true}},{"key":"y","value":{}}]}}]}}}],"status":{"code":2},"flags":257}]}],"#,
    r#""schemaUrl":"u"},{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","#,
    r#""spanId":"eee19b7ec3c1b175","kind":9,"status":{}}]}]}]}"#
);

#[test]
fn otlp_62_our_json_is_that_of_otlp() {
    let batch = request(TRACE).unwrap().batch;
    assert_eq!(encode_json(&batch, JsonDialect::Otlp), TRACE);
}

#[test]
fn tempo_json_has_base64_ids_and_enum_names() {
    let batch = for_tempo(request(TRACE).unwrap().batch);
    let mut text = String::new();
    write_resource_spans_json(&batch, JsonDialect::Tempo, &mut text);
    for part in [
        r#""traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"7uGbfsPBsXQ=""#,
        r#""kind":"SPAN_KIND_SERVER""#,
        r#""status":{"code":"STATUS_CODE_ERROR"}"#,
        r#""kind":9,"status":{}"#,
        r#""startTimeUnixNano":"1795435200000000000","endTimeUnixNano":"1795435200000000000""#,
        r#"{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"unknown_service"}}]}"#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
