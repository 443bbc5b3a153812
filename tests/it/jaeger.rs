//! Jaeger's query API; ids are those of the contract with Grafana.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::{Value, json};

use crate::support::{TestServer, get};
use crate::two_services::{A, B, C, LINKED, QUOTED, TRACE, base_nanos, neighbours, of_service, request, span, url};

fn tag(key: &str, kind: &str, value: impl Into<Value>) -> Value {
    json!({ "key": key, "type": kind, "value": value.into() })
}

fn text(key: &str, value: &str) -> Value {
    tag(key, "string", value)
}

fn reference(kind: &str, trace: &str, span: &str) -> Value {
    json!({ "refType": kind, "traceID": trace, "spanID": span })
}

fn span_json(id: u64, process: &str, name: &str, start: u64, duration: u64) -> Value {
    json!({
        "traceID": TRACE, "spanID": format!("{id:016x}"), "processID": process, "operationName": name,
        "startTime": start, "duration": duration, "references": [], "tags": [], "logs": [], "warnings": null, "flags": 1,
    })
}

fn with(mut span: Value, members: &[(&str, Value)]) -> Value {
    for (name, value) in members {
        span[*name] = value.clone();
    }
    span
}

/// What Jaeger's page is to get for `request(base)`.
fn expected(base: u64) -> Value {
    let micros = |after_ms: u64| base / 1_000 + after_ms * 1_000;
    let of_scope = [text("otel.scope.name", "http"), text("otel.scope.version", "1.2")];
    let root_tags = [
        text("text", "a \"b\" \u{e9}"),
        tag("bool", "bool", true),
        tag("int", "int64", 500),
        tag("int.large", "int64", "-9007199254740992"),
        tag("double", "float64", 0.5),
        tag("double.whole", "float64", 2.0),
        text("double.nan", "NaN"),
        text("bytes", "AP8="),
        text("array", r#"["x \"y\"",1]"#),
        text("list", r#"{"k":false}"#),
        text("nothing", ""),
        text("span.kind", "server"),
        text("otel.status_code", "OK"),
        text("w3c.tracestate", "vendor=1"),
    ];
    let call_tags = [
        text("peer.service", "bank"),
        text("network.peer.address", "10.0.0.9"),
        tag("network.peer.port", "int64", 443),
        text("span.kind", "client"),
        tag("otel.dropped_attributes_count", "int64", 3),
        tag("otel.dropped_events_count", "int64", 2),
        tag("otel.dropped_links_count", "int64", 1),
    ];
    let charge_tags = [
        text("span.kind", "server"),
        text("otel.status_code", "ERROR"),
        tag("error", "bool", true),
        text("otel.status_description", "card declined"),
    ];
    let logs = json!([
        { "timestamp": micros(30), "fields": [
            text("event", "exception"), text("exception.type", "Declined"), tag("attempts", "int64", 2)] },
        { "timestamp": micros(40), "fields": [text("event", "retry")] },
        { "timestamp": micros(50), "fields": [tag("n", "int64", 1)] },
    ]);
    let child_of = |parent: u64| reference("CHILD_OF", TRACE, &format!("{parent:016x}"));
    let backwards = "the span ends before it starts: its duration is shown as 0";
    let scoped = |tags: &[Value]| json!([&of_scope, tags].concat());
    json!({
        "traceID": TRACE,
        "spans": [
            with(span_json(1, "p1", "GET /", micros(0), 250_000), &[("tags", scoped(&root_tags))]),
            with(span_json(2, "p1", "charge", micros(10), 100_000), &[
                ("tags", scoped(&call_tags)),
                ("references", json!([child_of(1), reference("FOLLOWS_FROM", LINKED, "0808080808080808")])),
            ]),
            with(span_json(3, "p2", "POST /charge", micros(20), 90_000), &[
                ("tags", json!(charge_tags)), ("references", json!([child_of(2)])), ("logs", logs),
            ]),
            with(span_json(4, "p2", "check", micros(60), 0), &[
                ("references", json!([child_of(3)])), ("warnings", json!([backwards])),
            ]),
        ],
        "processes": {
            "p1": { "serviceName": "shop", "tags": [text("host.name", "web-1"), tag("process.pid", "int64", 4242)] },
            "p2": { "serviceName": "bank", "tags": [] },
        },
        "warnings": null,
    })
}

fn envelope(data: impl Into<Value>) -> Value {
    let data: Value = data.into();
    let total = data.as_array().map_or(0, Vec::len);
    json!({ "data": data, "total": total, "limit": 0, "offset": 0, "errors": null })
}

fn failure(code: u16, msg: &str) -> Value {
    json!({ "data": null, "total": 0, "limit": 0, "offset": 0, "errors": [{ "code": code, "msg": msg }] })
}

fn shop_and_bank() -> (TestServer, u64) {
    let (server, base) = (TestServer::new(), base_nanos());
    server.deliver(&request(base));
    (server, base)
}

#[test]
fn jaeger_01_services_come_in_an_envelope_with_their_number() {
    let server = TestServer::new();
    assert_eq!(server.json("/jaeger/api/services"), envelope(json!([])));
    server.deliver(&request(base_nanos()));
    assert_eq!(server.json("/jaeger/api/services"), envelope(json!(["bank", "shop"])));
}

#[test]
fn jaeger_02_operations_of_a_service_come_as_names_and_in_the_newer_form_with_kinds() {
    let (server, base) = shop_and_bank();
    let spans = vec![span(base, 9, 0, 3, "GET /", 0, 1), span(base, 8, 0, 0, "a", 0, 1)];
    server.deliver(&ExportTraceServiceRequest { resource_spans: vec![of_service("zoo/a b?%", spans)] });
    let names = |service: &str| server.json(&format!("/jaeger/api/services/{service}/operations"));
    assert_eq!(names("shop"), envelope(json!(["GET /", "charge"])));
    assert_eq!(names("zoo%2Fa%20b%3F%25"), envelope(json!(["GET /", "a"])), "percent-encoded");
    assert_eq!(names("nobody"), envelope(json!([])));
    let kinds = |query: &str| server.json(&format!("/jaeger/api/operations?{query}"));
    let row = |name: &str, kind: &str| json!({ "name": name, "spanKind": kind });
    assert_eq!(kinds("service=shop"), envelope(json!([row("GET /", "server"), row("charge", "client")])));
    assert_eq!(kinds("service=shop&spanKind=server&more=1"), envelope(json!([row("GET /", "server")])));
    assert_eq!(kinds("service=bank"), envelope(json!([row("POST /charge", "server"), row("check", "internal")])));
    let missing = server.get("/jaeger/api/operations?service=");
    assert_eq!((missing.status, missing.json()), (400, failure(400, "parameter 'service' is required")));
}

#[test]
fn jaeger_02_operations_are_the_same_in_heads_in_blocks_and_in_roll_ups() {
    let server = TestServer::with(|config| {
        config.ingest.checkpoint_spans = 100;
        config.ingest.partition_bytes_max = 4_000;
    });
    let base = base_nanos();
    for first in (0..1_200_u64).step_by(40) {
        let named = |no: u64| span(base, 100 + no, 0, 2, &format!("op {:02}", no % 60), no, 1);
        let spans = (first..first + 40).map(named).collect();
        server.deliver(&ExportTraceServiceRequest { resource_spans: vec![of_service("many", spans)] });
    }
    let expected = envelope((0..60).map(|no| format!("op {no:02}")).collect::<Vec<String>>());
    assert_eq!(server.json("/jaeger/api/services/many/operations"), expected);
    server.wait_for_sealed();
    assert_eq!(server.json("/jaeger/api/services/many/operations"), expected);
}

#[test]
fn jaeger_04_a_trace_has_processes_references_and_tags_of_every_type() {
    let (server, base) = shop_and_bank();
    for id in [TRACE, "102030405060708", "0102030405060708"] {
        let answer = server.json(&format!("/jaeger/api/traces/{id}?start=1&end=2"));
        assert_eq!(answer, envelope(json!([expected(base)])), "{id}");
    }
}

#[test]
fn jaeger_04_times_that_were_not_sent_are_said_in_warnings() {
    let (server, base) = (TestServer::new(), base_nanos());
    let (mut no_start, mut no_end) = (span(base, 1, 0, 1, "a", 0, 1), span(base, 2, 0, 1, "b", 0, 1));
    (no_start.start_time_unix_nano, no_end.end_time_unix_nano) = (0, 0);
    server.deliver(&ExportTraceServiceRequest { resource_spans: vec![of_service("s", vec![no_start, no_end])] });
    let trace = server.json(&format!("/jaeger/api/traces/{TRACE}"))["data"][0].clone();
    let shown = |at: usize| {
        let span = &trace["spans"][at];
        json!([span["startTime"], span["duration"], span["warnings"], span["tags"]])
    };
    let internal = text("span.kind", "internal");
    let warning = "the span has no start time: its end is shown as its start";
    assert_eq!(shown(0), json!([base / 1_000 + 1_000, 0, [warning], [&internal]]));
    let warning = "the span has no end time: its duration is shown as 0";
    assert_eq!(shown(1), json!([base / 1_000, 0, [warning], [&internal]]));
}

#[test]
fn jaeger_04_an_unknown_id_is_404_and_what_is_no_id_400_with_errors() {
    let server = TestServer::new();
    let answer = server.get("/jaeger/api/traces/0123456789abcdef0123456789abcdef");
    assert_eq!((answer.status, answer.json()), (404, failure(404, "trace not found")));
    let answer = server.get("/jaeger/api/traces/xyz");
    let msg = "a trace id has 1 to 32 hex digits (0-9, a-f) and nothing else";
    assert_eq!((answer.status, answer.json()), (400, failure(400, msg)));
}

#[test]
fn jaeger_05_dependencies_are_calls_between_services_in_a_window_of_milliseconds() {
    let (server, base) = shop_and_bank();
    let now_ms = base / 1_000_000 + 60_000;
    let dependencies = |query: &str| server.json(&format!("/jaeger/api/dependencies?{query}"));
    let calls = envelope(json!([{ "parent": "shop", "child": "bank", "callCount": 1 }]));
    assert_eq!(dependencies(&format!("endTs={now_ms}&lookback=3600000")), calls);
    assert_eq!(dependencies(""), calls, "the last day");
    assert_eq!(dependencies(&format!("endTs={}&lookback=3600000", now_ms - 3_600_000)), envelope(json!([])));
    let answer = server.get("/jaeger/api/dependencies?endTs=yesterday");
    let msg = "endTs=yesterday is not a number of milliseconds";
    assert_eq!((answer.status, answer.json()), (400, failure(400, msg)));
}

#[test]
fn jaeger_06_tempo_keeps_its_path_and_unknown_paths_are_404_in_plain_text() {
    let (server, _) = shop_and_bank();
    let url = format!("http://{}/api/traces/{TRACE}", server.addresses.http);
    assert_eq!(get(&url, &[("accept", "application/protobuf")]).body[0], b'\n', "protobuf of Tempo");
    for path in ["/jaeger", "/jaeger/", "/jaeger/api", "/jaeger/api/v3/services", "/jaeger/api/services/a", "/jaeger/x"]
    {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (404, "text/plain; charset=utf-8"), "{path}");
        assert!(!answer.text().contains('<'), "never HTML: {}", answer.text());
    }
}

/// The ids of the traces that are found, in order.
#[track_caller]
fn found(server: &TestServer, parameters: &[(&str, &str)]) -> Vec<String> {
    let answer = server.json(&url("/jaeger/api/traces", parameters));
    let traces = answer["data"].as_array().unwrap_or_else(|| panic!("{parameters:?}: {answer}"));
    assert_eq!((&answer["total"], &answer["errors"]), (&json!(traces.len()), &Value::Null));
    traces.iter().map(|trace| trace["traceID"].as_str().expect("an id").to_owned()).collect()
}

fn shop_and_neighbours() -> (TestServer, u64) {
    let (server, base) = shop_and_bank();
    server.deliver(&neighbours(base));
    (server, base)
}

#[test]
fn jaeger_03_search_takes_every_condition_of_one_span_newest_first() {
    let (server, base) = shop_and_neighbours();
    let micros = |secs: u64| (base / 1_000 + secs * 1_000_000).to_string();
    let json_tags = |key: &str, value: &str| json!({ key: value }).to_string();
    let (one, two) = (micros(1), micros(2));
    let quoted_logfmt = format!("http.status_code=500 q={}", json!(QUOTED));
    let tags = |key, value| ("tags", json_tags(key, value));
    let empty = ["operation", "tags", "minDuration", "maxDuration", "lookback"].map(|name| (name, String::new()));
    let own = |parameters: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    for (conditions, expected) in [
        (own(&[]), &[B, A, TRACE][..]),
        (empty.to_vec(), &[B, A, TRACE]),
        (own(&[("limit", "2")]), &[B, A]),
        (own(&[("operation", "GET /")]), &[A, TRACE]),
        (own(&[("operation", "GET")]), &[]),
        (vec![tags("error", "true")], &[B]),
        (vec![tags("error", "false")], &[A, TRACE]),
        (vec![tags("http.status_code", "500")], &[B, A]),
        (vec![tags("q", QUOTED)], &[A]),
        (vec![tags("host.name", "web-1")], &[TRACE]),
        (vec![tags("span.kind", "client")], &[TRACE]),
        (vec![tags("otel.status_code", "OK")], &[TRACE]),
        (vec![tags("otel.scope.name", "http")], &[TRACE]),
        (vec![tags("bool", "true"), tags("double", "0.5"), tags("array", "1")], &[]),
        (vec![tags("bool", "true"), tags("double", "0.5")], &[TRACE]),
        (own(&[("tags", &quoted_logfmt)]), &[A]),
        (own(&[("tag", "http.status_code:500"), ("operation", "GET /cart")]), &[B]),
        (own(&[("minDuration", "20ms")]), &[B, TRACE]),
        (own(&[("maxDuration", "0.015s")]), &[A]),
        (own(&[("minDuration", "20ms"), ("maxDuration", "20ms")]), &[B]),
        (own(&[("start", &one), ("end", &two)]), &[B, A]),
        (own(&[("end", &one)]), &[A, TRACE]),
        (own(&[("lookback", "1h"), ("unknown", "1")]), &[B, A, TRACE]),
        (own(&[("end", &one), ("lookback", "500ms")]), &[A]),
    ] {
        let conditions = conditions.iter().map(|(name, value)| (*name, value.as_str()));
        let parameters: Vec<(&str, &str)> = std::iter::once(("service", "shop")).chain(conditions).collect();
        assert_eq!(found(&server, &parameters), expected, "{parameters:?}");
    }
    assert_eq!(found(&server, &[("service", "bank"), ("tags", r#"{"error":true}"#)]), [TRACE]);
    assert_eq!(found(&server, &[("service", "shop\" || true || \"")]), [""; 0]);
    assert_eq!(
        found(&server, &[("traceID", C), ("traceID", A), ("traceID", LINKED)]),
        [C, A],
        "by id, without a service"
    );
}

#[test]
fn jaeger_03_what_is_found_is_the_whole_trace() {
    let (server, base) = shop_and_neighbours();
    let path = url("/jaeger/api/traces", &[("service", "bank"), ("operation", "POST /charge")]);
    assert_eq!(server.json(&path), envelope(json!([expected(base)])));
}

#[test]
fn jaeger_03_spans_without_a_service_are_found_by_the_name_they_are_shown_with() {
    let (server, base) = shop_and_bank();
    let mut nameless = of_service("", vec![span(base, 9, 0, 1, "a", 0, 1)]);
    server.deliver(&ExportTraceServiceRequest { resource_spans: vec![nameless.clone()] });
    nameless.scope_spans[0].spans[0].trace_id = vec![9; 16];
    nameless.resource = None;
    server.deliver(&ExportTraceServiceRequest { resource_spans: vec![nameless] });
    let traces = found(&server, &[("service", "unknown_service")]);
    assert_eq!(traces.into_iter().collect::<BTreeSet<_>>(), [TRACE, LINKED].map(str::to_owned).into());
}

#[test]
fn jaeger_03_parameters_that_cannot_be_used_are_400_with_errors() {
    let server = TestServer::new();
    let limit = "limit=0 is not a whole number from 1 to 1500";
    let length = "minDuration=5 is not a length of time, such as 100us, 1.5s or 1h30m";
    for (parameters, msg) in [
        (&[("service", "")][..], "parameter 'service' is required"),
        (&[("service", "a"), ("limit", "0")], limit),
        (&[("service", "a"), ("minDuration", "5")], length),
        (&[("service", "a"), ("start", "now")], "start=now is not a number of microseconds"),
        (&[("service", "a"), ("lookback", "long")], "lookback=long is not a length of time, such as 1h or 2d"),
        (&[("service", "a"), ("tag", "b")], "tag=b is not of the form key:value"),
        (&[("traceID", "xyz")], "a trace id has 1 to 32 hex digits (0-9, a-f) and nothing else"),
    ] {
        let answer = server.get(&url("/jaeger/api/traces", parameters));
        assert_eq!((answer.status, answer.json()), (400, failure(400, msg)));
    }
    for tags in ["{\"a\"", "[1]x\"", "a=\"b"] {
        let answer = server.get(&url("/jaeger/api/traces", &[("service", "a"), ("tags", tags)]));
        let expected = if tags.starts_with('[') { 200 } else { 400 };
        assert_eq!(answer.status, expected, "{tags}: {}", answer.text());
    }
}

#[test]
fn jaeger_03_an_answer_of_whole_traces_ends_after_32_mib_and_says_so() {
    let (server, base) = (TestServer::new(), base_nanos());
    for trace in 1..=40_u128 {
        let mut span = span(base, 1, 0, 2, "large", 0, 1);
        span.trace_id = trace.to_be_bytes().to_vec();
        let large = "x".repeat(60 * 1024);
        span.attributes = (0..16).map(|no| crate::two_services::text(&format!("k{no:02}"), &large)).collect();
        server.deliver(&ExportTraceServiceRequest { resource_spans: vec![of_service("s", vec![span])] });
    }
    let answer = server.get("/jaeger/api/traces?service=s");
    let n_traces = answer.json()["data"].as_array().expect("a list").len();
    let said = format!("more traces were found than an answer may hold: {n_traces} are shown");
    assert_eq!((answer.status, answer.header("spandrel-coverage")), (200, said.as_str()));
    assert!((32 << 20..33 << 20).contains(&answer.body.len()), "{}", answer.body.len());
}
