//! What Zipkin spans become; `BI` ids are those of the list of bad inputs.

use proptest::prelude::*;

use super::super::tests::{NOW, options};
use super::super::writer::MessageWriter;
use super::super::{Decoded, JsonDialect, Rejection, Translated, Undecodable, Warning, decode, encode_json};
use super::*;
use crate::model::{Span, TraceId, Value};

/// Ids and a start that nothing is wrong with; `NOW` in microseconds.
const GOOD: &str =
    r#""traceId":"5b8efff798038103d269b633813fc60c","id":"eee19b7ec3c1b174","timestamp":1795435200000000"#;

fn decoded(translated: Result<Translated, Undecodable>) -> Result<Decoded, Undecodable> {
    let Translated { protobuf, warnings } = translated?;
    let mut decoded = decode(protobuf, &options())?;
    decoded.warnings.merge(warnings);
    Ok(decoded)
}

fn json(text: &str) -> Result<Decoded, Undecodable> {
    decoded(zipkin_json_to_otlp(text.replace("GOOD", GOOD).as_bytes(), &options()))
}

/// OTLP/JSON of the spans in this list.
#[track_caller]
fn otlp(list: &str) -> String {
    String::from_utf8(encode_json(&json(list).unwrap().batch, JsonDialect::Otlp).into()).unwrap()
}

/// The one span of this list, kept with these warnings.
#[track_caller]
fn check_kept(list: &str, warnings: &[Warning]) -> Span {
    let decoded = json(list).unwrap();
    let given: Vec<_> = Warning::ALL.into_iter().filter(|warning| 0 < decoded.warnings.count(*warning)).collect();
    assert_eq!(given, warnings, "{list}");
    assert_eq!((decoded.batch.spans.len(), decoded.rejected.total()), (1, 0), "{list}");
    decoded.batch.spans[0]
}

/// Keys and values of the attributes of the one span of this list.
#[track_caller]
fn attributes(list: &str) -> Vec<(String, String)> {
    let batch = json(list).unwrap().batch;
    let text = |value| match value {
        Value::String(text) => batch.text_lossy(text).into_owned(),
        other => format!("{other:?}"),
    };
    let rows = batch.attributes(batch.spans[0].attributes).iter();
    rows.map(|row| (batch.text_lossy(row.key).into_owned(), text(row.value))).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// A span with everything, in JSON.
const FULL: &str = r#"[{"traceId":"5B8EFFF798038103d269b633813fc60c","parentId":"EEE19B7EC3C1B173","id":"eee19b7ec3c1b174",
    "kind":"SERVER","name":"get /cart","timestamp":1795435200000000,"duration":"150000","debug":true,"shared":true,
    "localEndpoint":{"serviceName":"Shop","ipv4":"10.0.0.7","ipv6":"::1","port":8080},
    "remoteEndpoint":{"serviceName":"edge","ipv6":"2001:db8::2","port":"40000"},
    "annotations":[{"timestamp":1795435200000100,"value":"ws"}],
    "tags":{"http.method":"GET","error":"it broke"}}]"#;

const FULL_OTLP: &str = concat!(
    r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"Shop"}}]},"#,
    r#""scopeSpans":[{"scope":{},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","#,
    r#""parentSpanId":"eee19b7ec3c1b173","name":"get /cart","kind":2,"startTimeUnixNano":"1795435200000000000","#,
    r#""endTimeUnixNano":"1795435200150000000","attributes":["#,
    r#"{"key":"network.local.address","value":{"stringValue":"10.0.0.7"}},"#,
    r#"{"key":"network.local.port","value":{"intValue":"8080"}},"#,
    r#"{"key":"peer.service","value":{"stringValue":"edge"}},"#,
    r#"{"key":"network.peer.address","value":{"stringValue":"2001:db8::2"}},"#,
    r#"{"key":"network.peer.port","value":{"intValue":"40000"}},"#,
    r#"{"key":"error","value":{"stringValue":"it broke"}},"#,
    r#"{"key":"http.method","value":{"stringValue":"GET"}}],"#,
    r#""events":[{"timeUnixNano":"1795435200000100000","name":"ws"}],"#,
    r#""status":{"message":"it broke","code":2},"flags":1}]}]}]}"#,
);

/// The same in protobuf.
fn full_protobuf() -> Vec<u8> {
    let mut out = MessageWriter::default();
    out.open(1);
    out.bytes(1, &0x5b8e_fff7_9803_8103_d269_b633_813f_c60c_u128.to_be_bytes());
    out.bytes(2, &0xeee1_9b7e_c3c1_b173_u64.to_be_bytes());
    out.bytes(3, &0xeee1_9b7e_c3c1_b174_u64.to_be_bytes());
    out.varint(4, 2);
    out.bytes(5, b"get /cart");
    out.fixed64(6, 1_795_435_200_000_000);
    out.varint(7, 150_000);
    out.open(8);
    out.bytes(1, b"Shop");
    out.bytes(2, &[10, 0, 0, 7]);
    out.bytes(3, &1_u128.to_be_bytes());
    out.varint(4, 8_080);
    out.close();
    out.open(9);
    out.bytes(1, b"edge");
    out.bytes(3, &0x2001_0db8_0000_0000_0000_0000_0000_0002_u128.to_be_bytes());
    out.varint(4, 40_000);
    out.close();
    out.open(10);
    out.fixed64(1, 1_795_435_200_000_100);
    out.bytes(2, b"ws");
    out.close();
    for (key, value) in [("http.method", "GET"), ("error", "it broke")] {
        out.open(11);
        out.bytes(1, key.as_bytes());
        out.bytes(2, value.as_bytes());
        out.close();
    }
    out.varint(12, 1);
    out.varint(13, 1);
    out.finish()
}

#[test]
fn a_full_span_is_the_same_from_json_and_from_protobuf() {
    assert_eq!(otlp(FULL), FULL_OTLP);
    let batch = decoded(zipkin_protobuf_to_otlp(&full_protobuf(), &options())).unwrap().batch;
    assert_eq!(encode_json(&batch, JsonDialect::Otlp), FULL_OTLP);
}

#[test]
fn bi_151_an_empty_list_or_body_is_an_empty_request() {
    for list in ["[]", "", " [ ] "] {
        let decoded = json(list).unwrap();
        assert!(decoded.batch.spans.is_empty() && decoded.message().is_none() && !decoded.is_all_rejected(), "{list}");
    }
    assert!(decoded(zipkin_protobuf_to_otlp(b"", &options())).unwrap().batch.spans.is_empty());
}

#[test]
fn bi_152_what_is_no_list_of_v2_spans_is_undecodable() {
    let list = "expected a list of Zipkin v2 spans";
    for (text, message) in [
        ("{}", list),
        ("nonsense", list),
        (r#"{"resourceSpans":[]}"#, list),
        ("\n\x0a\x01\x02", "looks like protobuf"),
        (r#"[{GOOD,"binaryAnnotations":[]}]"#, "(v1 is not supported)"),
        ("[{GOOD}", "expected ',' or ']'"),
        ("[{GOOD}]]", "expected the end of the text"),
        ("[{GOOD,}]", "expected a string"),
    ] {
        let error = json(text).unwrap_err().to_string();
        assert!(error.starts_with("undecodable JSON at line ") && error.contains(message), "{text}: {error}");
    }
    let deep = format!("[{}", "[".repeat(1_000_000));
    assert!(json(&deep).unwrap_err().to_string().contains("at most 10000"));
    for (body, message) in [(&b"[{}]"[..], "looks like JSON"), (b"\x08\x01", "field 1 at byte 0"), (b"\x0a\x05a", "")] {
        let error = decoded(zipkin_protobuf_to_otlp(body, &options())).unwrap_err().to_string();
        assert!(error.contains("send a Zipkin ListOfSpans") && error.contains(message), "{error}");
    }
}

#[test]
fn bi_153_trace_ids_of_16_digits_are_padded_and_case_does_not_matter() {
    let list = r#"[{"traceId":"5AF7183fb1d4cf5f","id":"352BFF9A74ca9ad2","timestamp":1795435200000000,"duration":1}]"#;
    let span = check_kept(list, &[]);
    assert_eq!(span.trace_id, TraceId(0x5af7_183f_b1d4_cf5f_u128.to_be_bytes()));
    let mut out = MessageWriter::default();
    out.open(1);
    out.bytes(1, &[7; 8]);
    out.bytes(3, &[1; 8]);
    out.fixed64(6, NOW.0 / 1_000);
    let batch = decoded(zipkin_protobuf_to_otlp(&out.finish(), &options())).unwrap().batch;
    assert_eq!(batch.spans[0].trace_id, TraceId(0x0707_0707_0707_0707_u128.to_be_bytes()));
}

#[test]
fn bi_154_bad_ids_cost_their_span_alone() {
    let id = "\"id\":\"eee19b7ec3c1b174\"";
    let trace = "\"traceId\":\"5b8efff798038103\"";
    for (bad, reason) in [
        (format!("{id},\"traceId\":\"5b8efff79803810\""), Rejection::InvalidTraceId),
        (format!("{id},\"traceId\":\"5b8efff7980381030\""), Rejection::InvalidTraceId),
        (format!("{id},\"traceId\":\"5b8efff79803810x\""), Rejection::InvalidTraceId),
        (format!("{id},\"traceId\":\"0000000000000000\""), Rejection::InvalidTraceId),
        (format!("{id},\"traceId\":null"), Rejection::InvalidTraceId),
        (id.to_owned(), Rejection::InvalidTraceId),
        (format!("{trace},\"id\":\"1\""), Rejection::InvalidSpanId),
        (format!("{trace},\"id\":\"5b8efff798038103d269b633813fc60c\""), Rejection::InvalidSpanId),
        (trace.to_owned(), Rejection::InvalidSpanId),
        ("GOOD,\"timestamp\":\"soon\"".to_owned(), Rejection::MalformedSpan),
        ("GOOD,\"duration\":1.5".to_owned(), Rejection::MalformedSpan),
        ("GOOD,\"name\":7".to_owned(), Rejection::MalformedSpan),
        ("GOOD,\"tags\":[]".to_owned(), Rejection::MalformedSpan),
        ("GOOD,\"annotations\":[7]".to_owned(), Rejection::MalformedSpan),
        ("GOOD,\"localEndpoint\":{\"serviceName\":7}".to_owned(), Rejection::MalformedSpan),
    ] {
        let decoded = json(&format!("[{{GOOD}},{{{bad}}},{{GOOD}}]")).unwrap();
        assert_eq!((decoded.rejected.count(reason), decoded.rejected.total()), (1, 1), "{bad}");
        assert_eq!((decoded.batch.spans.len(), decoded.rejected_ordinals), (2, vec![1]), "{bad}");
        assert!(json(&format!("[{{{bad}}}]")).unwrap().is_all_rejected());
    }
    assert_eq!(json("[{GOOD},7,null,[[]]]").unwrap().rejected.count(Rejection::MalformedSpan), 3);
    let bad_inside = [full_protobuf(), b"\x0a\x02\x0a\x05".to_vec(), full_protobuf()].concat();
    let decoded = decoded(zipkin_protobuf_to_otlp(&bad_inside, &options())).unwrap();
    assert_eq!((decoded.rejected.count(Rejection::MalformedSpan), decoded.batch.spans.len()), (1, 2));
}

#[test]
fn a_bad_parent_makes_a_root() {
    for (parent, warnings) in [
        ("\"\"", &[][..]),
        ("null", &[]),
        ("\"0000000000000000\"", &[]),
        ("\"eee19b7ec3c1b17\"", &[Warning::BadParent]),
    ] {
        let span = check_kept(&format!("[{{GOOD,\"duration\":1,\"parentId\":{parent}}}]"), warnings);
        assert!(span.parent_span_id.is_zero());
    }
}

#[test]
fn sd_08_bi_155_missing_times_are_kept_as_missing() {
    let start = NOW.0;
    let missing = &[Warning::MissingTime][..];
    for (times, started, ended, warnings) in [
        (r#""duration":12"#, start, start + 12_000, &[][..]),
        (r#""duration":"12""#, start, start + 12_000, &[]),
        (r#""duration":1.2e1"#, start, start + 12_000, &[]),
        (r#""duration":0"#, start, 0, missing),
        (r#""duration":-1"#, start, 0, missing),
        (r#""duration":null"#, start, 0, missing),
        (r#""duration":"""#, start, 0, missing),
        (r#""duration":1e30"#, start, u64::MAX, &[]),
        (r#""timestamp":null,"duration":12"#, start, start + 12_000, &[]),
        (r#""timestamp":0,"duration":12"#, 0, 0, missing),
        (r#""timestamp":-5,"duration":12"#, 0, 0, missing),
    ] {
        let span = check_kept(&format!("[{{GOOD,{times}}}]"), warnings);
        assert_eq!((span.start_time_unix_nano.0, span.end_time_unix_nano.0), (started, ended), "{times}");
    }
    let partial = r#"[{"traceId":"5b8efff798038103","id":"eee19b7ec3c1b174","tags":{"late":"yes"}}]"#;
    assert!(check_kept(partial, missing).start_time_unix_nano.is_unset());
}

#[test]
fn bi_156_tags_that_are_no_strings_become_their_json_text() {
    let list = r#"[{GOOD,"duration":1,"tags":{"n":1.50,"b":true,"z":null,"l":[1, 2],"o":{"a":"b"},"s":"1"}}]"#;
    let expected = [("n", "1.50"), ("b", "true"), ("z", "null"), ("l", "[1, 2]"), ("o", r#"{"a":"b"}"#), ("s", "1")];
    assert_eq!(attributes(list), expected.map(|(key, value)| pair(key, value)));
    let decoded = json(list).unwrap();
    assert_eq!(decoded.message().unwrap(), "stored with warnings: stringified_tag=5");
}

#[test]
fn bi_157_both_halves_of_a_shared_span_are_kept() {
    let halves = r#"[{GOOD,"kind":"CLIENT"},{GOOD,"kind":"SERVER","shared":true}]"#;
    let spans = json(halves).unwrap().batch.spans;
    assert_eq!((spans[0].span_id, spans[0].kind, spans[1].kind), (spans[1].span_id, 3, 2));
}

#[test]
fn kinds_have_the_numbers_of_otlp() {
    for (name, number, wire) in [("PRODUCER", 4, 3), ("CONSUMER", 5, 4), ("server", 0, 0), ("LOCAL", 0, 9)] {
        assert_eq!(check_kept(&format!("[{{GOOD,\"duration\":1,\"kind\":\"{name}\"}}]"), &[]).kind, number);
        let mut out = MessageWriter::default();
        out.open(1);
        out.bytes(1, &[7; 8]);
        out.bytes(3, &[1; 8]);
        out.varint(4, wire);
        assert_eq!(decoded(zipkin_protobuf_to_otlp(&out.finish(), &options())).unwrap().batch.spans[0].kind, number);
    }
}

#[test]
fn the_status_of_otlp_comes_back_and_an_error_tag_is_one() {
    for (tags, code, message, left) in [
        (r#""otel.status_code":"OK""#, 1, "", &[][..]),
        (r#""otel.status_code":"ERROR","error":"why""#, 2, "why", &[]),
        (r#""error":"why","otel.status_code":"ERROR""#, 2, "why", &[]),
        (r#""otel.status_code":"ERROR""#, 2, "", &[]),
        (r#""otel.status_code":"OK","error":"handled""#, 1, "", &[("error", "handled")]),
        (r#""otel.status_code":"odd""#, 0, "", &[("otel.status_code", "odd")]),
        (r#""error":"why""#, 2, "why", &[("error", "why")]),
        (r#""error":"""#, 2, "", &[("error", "")]),
        (r#""error":true"#, 2, "true", &[("error", "true")]),
        ("", 0, "", &[]),
    ] {
        let list = format!("[{{GOOD,\"duration\":1,\"tags\":{{{tags}}}}}]");
        let batch = json(&list).unwrap().batch;
        let span = batch.spans[0];
        assert_eq!((span.status_code, batch.text(span.status_message)), (code, message.as_bytes()), "{tags}");
        let left: Vec<_> = left.iter().map(|(key, value)| pair(key, value)).collect();
        assert_eq!(attributes(&list), left, "{tags}");
    }
}

#[test]
fn a_tag_beats_what_the_endpoint_says() {
    let list = r#"[{GOOD,"tags":{"peer.service":"tagged"},"remoteEndpoint":{"serviceName":"edge","ipv4":"10.0.0.9"}}]"#;
    let expected = [pair("network.peer.address", "10.0.0.9"), pair("peer.service", "tagged")];
    assert_eq!(attributes(list), expected);
}

#[test]
fn ports_and_addresses_that_are_none_are_unknown() {
    for endpoint in
        [r#"{"port":0}"#, r#"{"port":70000}"#, r#"{"port":-1}"#, r#"{"port":null,"ipv4":null}"#, "{}", "null"]
    {
        assert_eq!(attributes(&format!("[{{GOOD,\"localEndpoint\":{endpoint}}}]")), [], "{endpoint}");
    }
    let mut out = MessageWriter::default();
    out.open(1);
    out.bytes(1, &[7; 8]);
    out.bytes(3, &[1; 8]);
    out.open(9);
    out.bytes(2, &[1; 5]);
    out.bytes(3, &[1; 4]);
    out.varint(4, u64::MAX);
    let batch = decoded(zipkin_protobuf_to_otlp(&out.finish(), &options())).unwrap().batch;
    assert_eq!(batch.spans[0].attributes.len, 0);
}

#[test]
fn neighbours_of_one_service_share_a_resource() {
    let span = |service: &str| format!("{{GOOD,\"localEndpoint\":{{\"serviceName\":\"{service}\"}}}}");
    let list = format!("[{},{},{},{{GOOD}},{}]", span("a"), span("a"), span("B"), span("a"));
    let decoded = json(&list).unwrap();
    let batch = &decoded.batch;
    let services: Vec<_> = batch.resources.iter().map(|resource| batch.text_lossy(resource.service)).collect();
    assert_eq!(services, ["a", "B", "", "a"]);
    assert_eq!(batch.spans.iter().map(|span| batch.scope(span).resource).collect::<Vec<_>>(), [0, 0, 1, 2, 3]);
    assert_eq!(decoded.counters.service_name_missing, 1);
}

#[test]
fn bi_158_tiny_elements_stop_at_the_element_budget() {
    let spans = format!("[{}0]", "0,".repeat(1 << 20));
    let tags = format!("[{{\"tags\":{{{}\"\":0}}}}]", "\"\":0,".repeat(1 << 20));
    for text in [spans, tags] {
        assert!(matches!(json(&text), Err(Undecodable::TooManyElements { .. })));
    }
    let empty = decoded(zipkin_protobuf_to_otlp(&b"\x0a\x00".repeat(1 << 20), &options()));
    assert!(matches!(empty, Err(Undecodable::TooManyElements { .. })));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _any_outcome = decoded(zipkin_protobuf_to_otlp(&bytes, &options()));
        let _any_outcome = decoded(zipkin_json_to_otlp(&bytes, &options()));
    }

    #[test]
    fn random_text_never_panics(text in "\\[\\{[\\[\\]{}:,\"\\\\u0-9a-zA-Z .+-]{0,80}") {
        let _any_outcome = json(&text);
    }

    #[test]
    fn damaged_requests_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = FULL.as_bytes().to_vec();
        let place = at.index(text.len());
        text[place] = byte;
        let _any_outcome = decoded(zipkin_json_to_otlp(&text, &options()));
        let mut protobuf = full_protobuf();
        let place = at.index(protobuf.len());
        protobuf[place] = byte;
        let _any_outcome = decoded(zipkin_protobuf_to_otlp(&protobuf, &options()));
    }
}
