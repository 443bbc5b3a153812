//! What operators mean, one span and one line at a time.

use crate::model::{Attribute, Event, Link, Resource, Rows, Scope, Span, SpanBatch, SpanId, TraceId, UnixNanos, Value};
use crate::query::traceql::{Field, Filter};

use Given::{Array, B, Bytes, E, F, I, Kvlist, S};

#[derive(Clone, Copy)]
enum Given {
    S(&'static str),
    I(i64),
    F(f64),
    B(bool),
    E,
    Bytes,
    /// Two strings.
    Array(&'static str, &'static str),
    Kvlist,
}

fn attributes(batch: &mut SpanBatch, list: &[(&str, Given)]) -> Rows {
    let start = u32::try_from(batch.attributes.len()).unwrap();
    for (key, value) in list {
        let key = batch.push_bytes(key.as_bytes()).unwrap();
        let value = match value {
            S(text) => Value::String(batch.push_bytes(text.as_bytes()).unwrap()),
            I(number) => Value::Int(*number),
            F(number) => Value::Double(*number),
            B(value) => Value::Bool(*value),
            E => Value::Empty,
            Bytes => Value::Bytes(batch.push_bytes(b"bytes").unwrap()),
            Array(a, b) => {
                let string = |text: &str| {
                    let len = u8::try_from(text.len()).unwrap();
                    [&[0x0a, len + 2, 0x0a, len], text.as_bytes()].concat()
                };
                let values = [string(a), string(b)].concat();
                let encoded = [&[0x2a, u8::try_from(values.len()).unwrap()], values.as_slice()].concat();
                Value::Nested(batch.push_bytes(&encoded).unwrap())
            }
            Kvlist => Value::Nested(batch.push_bytes(&[0x32, 0]).unwrap()),
        };
        batch.attributes.push(Attribute { key, value });
    }
    Rows { start, len: u32::try_from(list.len()).unwrap() }
}

/// One span of everything.
fn one_span() -> SpanBatch {
    let mut batch = SpanBatch::default();
    let rows = attributes(&mut batch, &[("service.name", S("checkout")), ("region", S("eu")), ("both", S("resource"))]);
    batch.resources.push(Resource { attributes: rows, ..Resource::default() });
    let rows = attributes(&mut batch, &[("lang", S("rust"))]);
    let (name, version) = (batch.push_bytes(b"grpc").unwrap(), batch.push_bytes(b"1.2").unwrap());
    batch.scopes.push(Scope { name, version, attributes: rows, ..Scope::default() });
    let rows = attributes(
        &mut batch,
        &[
            ("text", S("500")),
            ("int", I(500)),
            ("float", F(2.5)),
            ("nan", F(f64::NAN)),
            ("yes", B(true)),
            ("no", B(false)),
            ("empty", E),
            ("bytes", Bytes),
            ("list", Kvlist),
            ("array", Array("a", "bb")),
            ("both", S("span")),
            ("twice", S("first")),
            ("twice", I(2)),
            ("region", Bytes),
            ("most", I(i64::MAX)),
        ],
    );
    let first = attributes(&mut batch, &[("e", S("x")), ("n", I(1))]);
    let second = attributes(&mut batch, &[("e", S("y"))]);
    let of_link = attributes(&mut batch, &[("rel", S("child_of"))]);
    let event =
        |name, at: u64, attributes| Event { time_unix_nano: UnixNanos(at), name, attributes, ..Event::default() };
    let (a, b) = (batch.push_bytes(b"first").unwrap(), batch.push_bytes(b"second").unwrap());
    batch.events.extend([event(a, 1_500, first), event(b, 3_000, second)]);
    let (trace_id, span_id) = (TraceId([0xab; 16]), SpanId(7_u64.to_be_bytes()));
    batch.links.push(Link { trace_id, span_id, attributes: of_link, ..Link::default() });
    let (name, message) = (batch.push_bytes(b"POST /pay").unwrap(), batch.push_bytes(b"broken").unwrap());
    batch.spans.push(Span {
        trace_id: TraceId(0xab12_u128.to_be_bytes()),
        span_id: SpanId(0x1a_u64.to_be_bytes()),
        start_time_unix_nano: UnixNanos(1_000),
        end_time_unix_nano: UnixNanos(2_000_001_000),
        kind: 2,
        status_code: 2,
        name,
        status_message: message,
        attributes: rows,
        events: Rows { start: 0, len: 2 },
        links: Rows { start: 0, len: 1 },
        ..Span::default()
    });
    batch
}

#[track_caller]
fn hold(filters: &[&str]) {
    check(filters, true);
}

#[track_caller]
fn do_not_hold(filters: &[&str]) {
    check(filters, false);
}

#[track_caller]
fn check(filters: &[&str], expected: bool) {
    let batch = one_span();
    for text in filters {
        let filter: Filter = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.matches(&batch, 0), expected, "{text}");
    }
    assert!(!"true".parse::<Filter>().unwrap().matches(&batch, 1), "there is no such row");
}

#[test]
fn intrinsics() {
    hold(&[
        "{}",
        "duration = 2s",
        "duration > 1999ms",
        "duration <= 2000000000",
        "name = \"POST /pay\"",
        "status = error",
        "kind = server",
        "statusMessage = \"broken\"",
        "span:id = \"1A\"",
        "span:id != \"1b\"",
        "span:parentID = \"0\"",
        "trace:id = \"ab12\"",
        "trace:id = \"0000000000000000000000000000AB12\"",
        "trace:id =~ \"0+ab12\"",
        "instrumentation:name = \"grpc\"",
        "instrumentation:version = \"1.2\"",
        "name != nil",
    ]);
    do_not_hold(&[
        "duration > 2s",
        "status != error",
        "kind = client",
        "kind = unspecified",
        "name = nil",
        "status = ok",
    ]);
}

#[test]
fn attributes_are_looked_for_where_their_scope_says() {
    hold(&[
        "resource.region = \"eu\"",
        "resource.service.name = \"checkout\"",
        ".service.name = \"checkout\"",
        ".both = \"span\"",
        "resource.both = \"resource\"",
        ".region = \"eu\"",
        "instrumentation.lang = \"rust\"",
        "span.service.name = nil",
        "resource.int = nil",
    ]);
    do_not_hold(&[
        "span.service.name = \"checkout\"",
        ".lang = \"rust\"",
        "resource.int = 500",
        ".both = \"resource\"",
    ]);
}

#[test]
fn the_last_of_several_values_counts() {
    hold(&["span.twice = 2"]);
    do_not_hold(&["span.twice = \"first\"", "span.twice != \"first\""]);
}

#[test]
fn what_is_missing_compares_with_nothing() {
    hold(&[".none = nil", "!(.none = 1)", "!(.none != 1)", ".none = nil || .none = 1", ".int != nil", "!(.int = nil)"]);
    do_not_hold(&[
        ".none",
        "!.none",
        ".none = 1",
        ".none != 1",
        ".none < 1",
        ".none =~ \".*\"",
        ".none !~ \"x\"",
        ".none + 1 = 1",
        ".none + 1 != 1",
        "-.none != 1",
        ".none = .none",
        ".none != nil",
        "nil = nil",
        "nil != nil",
    ]);
    hold(&["span.empty = nil", "span.bytes = nil", "span.list = nil", "(.none + 1) = nil"]);
}

#[test]
fn types_that_differ_compare_with_nothing() {
    do_not_hold(&[
        ".text = 500",
        ".text != 500",
        ".int = \"500\"",
        ".int != \"500\"",
        ".int < \"6\"",
        ".yes = \"true\"",
        ".yes != 1",
        ".text != true",
        ".int =~ \"500\"",
        ".int !~ \"x\"",
        ".int = ok",
        ".int != error",
        ".text = error",
        ".yes > .no",
        ".text != .int",
    ]);
}

#[test]
fn numbers_of_any_kind_compare_as_numbers() {
    hold(&[
        ".int = 500.0",
        ".float > 2",
        ".float < 3",
        ".float != 2",
        ".int = 500ns",
        "duration = 2e9",
        "1 < 1.5",
        ".most = 9223372036854775807",
        ".most > 9223372036854775806",
        ".nan != .nan",
        ".nan != 1",
    ]);
    do_not_hold(&[".float = 2", ".nan = .nan", ".nan < 1", ".nan >= 1", ".most = 9223372036854775806"]);
}

#[test]
fn texts_compare_byte_by_byte_and_patterns_match_whole() {
    hold(&[
        ".text = \"500\"",
        ".text >= \"200\"",
        ".text < \"6\"",
        ".text =~ \"5..\"",
        ".text =~ \"5.*|x\"",
        ".text !~ \"50\"",
        ".text !~ \"00\"",
        "name =~ \"POST .*\"",
        "\"a\\nb\" =~ \"a.b\"",
        "\"x\" !~ \"y\"",
    ]);
    do_not_hold(&[".text =~ \"50\"", ".text =~ \"x|50\"", ".text !~ \"5..\"", ".text > \"6\""]);
}

#[test]
fn booleans() {
    hold(&[
        ".yes",
        "!.no",
        ".yes = true",
        ".no != true",
        ".yes && !.no",
        ".yes != .no",
        ".int || .yes",
        ".yes || .int",
        ".none || .yes",
        "!(.int && .yes)",
        "(.int = 500) = .yes",
    ]);
    do_not_hold(&[".no", "!.yes", ".int", "!.int", ".int && .yes", ".text || .none", ".text", "!!.int"]);
}

#[test]
fn arithmetic() {
    hold(&[
        ".int + 1 = 501",
        ".int - 1 = 499",
        ".int / 3 = 166",
        ".int % 7 = 3",
        ".int * 2 = 1000",
        "2 ^ 3 = 8",
        "2 ^ -1 = 0.5",
        ".int / 3.0 > 166.6",
        ".float * 2 = 5",
        "-.int = -500",
        "duration / 2 = 1s",
        "duration + 1s > 2999ms",
        "1s * 2 = duration",
        "-(1 + 2) = -3",
        "1 - 2 - 3 = -4",
        "2 ^ 3 ^ 2 = 512",
        "2 + 3 * 4 = 14",
    ]);
    do_not_hold(&[
        ".int / 0 = 0",
        ".int / 0 != 0",
        ".int % 0 != 0",
        ".most + 1 != 0",
        ".most * 2 != 0",
        ".text + 1 != 0",
        "-.text != 0",
        ".array + 1 != 0",
    ]);
    hold(&[".int / 0 = nil", ".int / 0.0 > maxInt"]);
}

#[test]
fn an_array_is_its_elements() {
    hold(&[
        ".array = \"a\"",
        ".array = \"bb\"",
        "\"bb\" = .array",
        ".array != \"c\"",
        ".array =~ \"b+\"",
        ".array !~ \"c\"",
        ".array > \"aa\"",
        ".array < \"b\"",
        ".array != nil",
    ]);
    do_not_hold(&[
        ".array = \"c\"",
        ".array != \"a\"",
        ".array != 5",
        ".array !~ \"a\"",
        ".array = .array",
        ".array != .array",
        ".array",
    ]);
}

#[test]
fn events_and_links_hold_when_one_of_them_does() {
    hold(&[
        "event.e = \"x\"",
        "event.e = \"y\"",
        "event.e != \"x\"",
        "event.n = 1",
        "event.n + 1 = 2",
        "event.e =~ \"[yz]\"",
        "event.e != nil",
        "event.none = nil",
        "event:name = \"second\"",
        "event:timeSinceStart = 2us",
        "event:timeSinceStart < 1us",
        "link.rel = \"child_of\"",
        "link:traceID = \"abababababababababababababababab\"",
        "link:spanID = \"7\"",
        "event.e = \"x\" && event.e = \"y\"",
        "!(event.e = \"z\")",
    ]);
    do_not_hold(&[
        "event.e = \"z\"",
        "event.n != 1",
        "event.none != 1",
        "event.e = nil",
        "link.rel != \"child_of\"",
        "event.e = 1",
    ]);
}

#[test]
fn a_span_without_a_latency_has_no_duration() {
    let mut batch = one_span();
    batch.spans[0].end_time_unix_nano = UnixNanos(0);
    for text in ["duration = nil", "!(duration >= 0)", "name != nil"] {
        assert!(text.parse::<Filter>().unwrap().matches(&batch, 0), "{text}");
    }
}

#[track_caller]
fn check_value(field: &str, expected: Option<&str>) {
    let field: Field = field.parse().unwrap();
    let shown = field.value(&one_span(), 0).map(|value| value.to_string());
    assert_eq!(shown.as_deref(), expected, "{field}");
}

#[test]
fn values_are_shown_as_they_are_written() {
    check_value("name", Some("POST /pay"));
    check_value("kind", Some("server"));
    check_value("status", Some("error"));
    check_value("duration", Some("2s"));
    check_value("span.int", Some("500"));
    check_value("span.float", Some("2.5"));
    check_value("span.yes", Some("true"));
    check_value("span.array", Some("[a, bb]"));
    check_value("resource.service.name", Some("checkout"));
    check_value("trace:id", Some("0000000000000000000000000000ab12"));
    check_value("span.empty", None);
    check_value("span.none", None);
    check_value(".region", Some("eu"));
    let mut batch = one_span();
    batch.spans[0].kind = 99;
    batch.spans[0].status_code = -1;
    let shown = |field: &str| field.parse::<Field>().unwrap().value(&batch, 0).unwrap().to_string();
    assert_eq!((shown("kind"), shown("status")), ("kind(99)".to_owned(), "status(-1)".to_owned()));
}
