//! Search and tags as Grafana's Tempo data source asks for them. Names cite the contract's checks.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, now};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Any::StringValue(value.to_owned()))
}

/// Spans of a service, all with the scope `lib` 1.2.
pub(crate) fn of_service(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let attributes = vec![text("service.name", service), text("cluster/name", "eu 1")];
    let scope =
        InstrumentationScope { name: "lib".to_owned(), version: "1.2".to_owned(), ..InstrumentationScope::default() };
    ResourceSpans {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

/// Span `no` of a trace, 10 ms long, the child of span 1.
pub(crate) fn span(trace: u8, no: u8, start: u64, name: &str, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: [vec![0; 15], vec![trace]].concat(),
        span_id: vec![0, 0, 0, 0, 0, 0, trace, no],
        parent_span_id: if no == 1 { Vec::new() } else { vec![0, 0, 0, 0, 0, 0, trace, 1] },
        name: name.to_owned(),
        kind: if no == 1 { 2 } else { 3 },
        start_time_unix_nano: start,
        end_time_unix_nano: start + 10 * MS,
        attributes,
        ..Span::default()
    }
}

/// Three traces, the first one the oldest: a minute, 40 and 20 seconds ago. The second has no root; the first lasts 123 ms.
pub(crate) fn filled() -> (TestServer, u64) {
    let server = TestServer::new();
    let base = now().0 / SECOND * SECOND - 60 * SECOND;
    let int = |key: &str, value| attribute(key, Any::IntValue(value));
    let mut root = span(1, 1, base, "GET /", vec![int("code", 200), text("route", "/")]);
    root.end_time_unix_nano = base + 123 * MS + 456;
    let mut failed = span(1, 2, base + MS, "charge", vec![text("code", "declined"), text("a b", "quoted")]);
    failed.status = Some(Status { code: 2, message: "no money".to_owned() });
    failed.events = vec![span::Event {
        time_unix_nano: base + 2 * MS,
        name: "exception".to_owned(),
        attributes: vec![text("exception.type", "Declined")],
        ..span::Event::default()
    }];
    let mut backwards = span(1, 3, base + 3 * MS, "charge", vec![text("zone", "a")]);
    backwards.end_time_unix_nano -= 20 * MS;
    let tags = Any::ArrayValue(ArrayValue {
        values: ["x", "y"].map(|x| AnyValue { value: Some(Any::StringValue(x.to_owned())) }).into(),
    });
    let orphan = span(2, 2, base + 20 * SECOND, "consume", vec![int("size", 1), attribute("tags", tags)]);
    let float =
        span(3, 1, base + 40 * SECOND, "GET /cart", vec![attribute("size", Any::DoubleValue(0.5)), int("code", 404)]);
    let resource_spans = vec![
        of_service("shop", vec![root]),
        of_service("payment", vec![failed, backwards]),
        of_service("worker", vec![orphan]),
        of_service("shop", vec![float]),
    ];
    server.deliver(&ExportTraceServiceRequest { resource_spans });
    (server, base)
}

pub(crate) fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}

fn search(server: &TestServer, q: &str, more: &str) -> Value {
    let answer = server.get(&format!("/api/search?q={}{more}", encoded(q)));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{q}: {}", answer.text());
    answer.json()
}

fn ids(answer: &Value) -> Vec<String> {
    let ids =
        answer["traces"].as_array().expect("traces").iter().map(|trace| trace["traceID"].as_str().expect("an id"));
    ids.map(|id| id[30..].to_owned()).collect()
}

/// Every key that the data source knows; its parser fails on any other.
fn assert_strict(answer: &Value) {
    let keys = |value: &Value, known: &[&str]| {
        for key in value.as_object().expect("an object").keys() {
            assert!(known.contains(&key.as_str()), "{key} is not known in {value}");
        }
    };
    let is_u64 = |value: &Value| assert!(value.as_str().expect("a text").parse::<u64>().is_ok(), "{value}");
    let is_u32 = |value: &Value| assert!(value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()), "{value}");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    keys(answer, &["traces", "metrics"]);
    keys(
        &answer["metrics"],
        &[
            "inspectedTraces",
            "inspectedBytes",
            "totalBlocks",
            "completedJobs",
            "totalJobs",
            "totalBlockBytes",
            "inspectedSpans",
        ],
    );
    is_u64(&answer["metrics"]["inspectedSpans"]);
    let mut types: BTreeMap<String, &str> = BTreeMap::new();
    for trace in list(&answer["traces"]) {
        keys(
            &trace,
            &[
                "traceID",
                "rootServiceName",
                "rootTraceName",
                "startTimeUnixNano",
                "durationMs",
                "spanSets",
                "serviceStats",
            ],
        );
        assert_eq!(trace["traceID"].as_str().expect("an id").len(), 32);
        assert_ne!(trace["rootServiceName"], "");
        is_u64(&trace["startTimeUnixNano"]);
        is_u32(&trace["durationMs"]);
        trace["serviceStats"]
            .as_object()
            .expect("services")
            .values()
            .for_each(|counts| keys(counts, &["spanCount", "errorCount"]));
        for set in list(&trace["spanSets"]) {
            keys(&set, &["spans", "matched", "attributes"]);
            is_u32(&set["matched"]);
            for span in list(&set["spans"]) {
                keys(&span, &["spanID", "name", "startTimeUnixNano", "durationNanos", "attributes"]);
                assert_eq!(span["spanID"].as_str().expect("an id").len(), 16);
                is_u64(&span["startTimeUnixNano"]);
                is_u64(&span["durationNanos"]);
                for attribute in list(&span["attributes"]) {
                    keys(&attribute, &["key", "value"]);
                    keys(&attribute["value"], &["stringValue", "boolValue", "intValue", "doubleValue"]);
                    let value = attribute["value"].as_object().expect("one").keys().next().expect("a type");
                    let column = if value == "stringValue" {
                        "text"
                    } else if value == "boolValue" {
                        "bool"
                    } else {
                        "number"
                    };
                    let known = types.entry(attribute["key"].to_string()).or_insert(column);
                    assert_eq!(*known, column, "{attribute} has two types in one answer");
                }
            }
        }
    }
}

#[test]
fn tempo_21_22_28_an_answer_has_the_allowed_keys_alone_and_its_types() {
    let (server, base) = filled();
    let answer = search(&server, "{ status = error && resource.service.name =~ \"pay.*\" && .code != nil }", "");
    assert_strict(&answer);
    let start = |millis: u64| (base + millis * MS).to_string();
    assert_eq!(
        answer["traces"],
        json!([{
            "traceID": "00000000000000000000000000000001",
            "rootServiceName": "shop", "rootTraceName": "GET /",
            "startTimeUnixNano": start(0), "durationMs": 123,
            "spanSets": [{ "matched": 1, "spans": [{
                "spanID": "0000000000000102", "name": "charge",
                "startTimeUnixNano": start(1), "durationNanos": "10000000",
                "attributes": [
                    { "key": "status", "value": { "stringValue": "error" } },
                    { "key": "service.name", "value": { "stringValue": "payment" } },
                    { "key": "code", "value": { "stringValue": "declined" } },
                ],
            }] }],
            "serviceStats": {
                "payment": { "spanCount": 2, "errorCount": 1 },
                "shop": { "spanCount": 1, "errorCount": 0 },
            },
        }])
    );
    let orphan = search(&server, "{ name = \"consume\" }", "");
    assert_eq!(orphan["traces"][0]["rootServiceName"], "<root span not yet received>");
    assert_eq!(orphan["traces"][0]["rootTraceName"], "");
}

#[test]
fn tempo_20_without_a_hit_the_list_is_empty() {
    let (server, _) = filled();
    let answer = search(&server, "{ name = \"no-such-name\" }", "");
    assert_strict(&answer);
    assert_eq!(answer["traces"], json!([]));
}

#[test]
fn tempo_23_limit_and_spss_cut_the_newest_first_and_matched_counts_all() {
    let (server, _) = filled();
    assert_eq!(ids(&search(&server, "{}", "")), ["03", "02", "01"]);
    assert_eq!(ids(&search(&server, "", "&limit=2")), ["03", "02"]);
    let spans = |spss: &str| {
        let answer = search(&server, "{ resource.service.name != \"worker\" }", spss);
        let set = answer["traces"][1]["spanSets"][0].clone();
        (set["matched"].clone(), set["spans"].as_array().expect("spans").len())
    };
    assert_eq!(spans("&spss=1"), (json!(3), 1));
    assert_eq!(spans("&spss=0"), (json!(3), 3));
    let backwards = search(&server, "{ .zone = \"a\" }", "");
    assert_eq!(backwards["traces"][0]["spanSets"][0]["spans"][0]["durationNanos"], "0", "a clock that ran backwards");
}

#[test]
fn tempo_25_bad_traceql_is_refused_in_plain_text_with_its_place() {
    let (server, _) = filled();
    let refused = |path: &str| -> Answer {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (400, "text/plain; charset=utf-8"), "{path}");
        answer
    };
    let said = refused(&format!("/api/search?q={}", encoded("{ .foo = "))).text();
    assert!(said.starts_with("invalid TraceQL query: parse error at line 1, col 10: "), "{said}");
    let said = refused(&format!("/api/search?q={}", encoded("{ status = error } | rate()"))).text();
    assert!(said.starts_with("unsupported TraceQL: ") && said.contains("line 1, col"), "{said}");
}

#[test]
fn tempo_26_41_start_and_end_are_seconds_and_limits_are_checked() {
    let (server, base) = filled();
    let secs = base / SECOND;
    let range = |start: u64, end: u64| ids(&search(&server, "{}", &format!("&start={start}&end={end}")));
    assert_eq!(range(secs, secs + 21), ["02", "01"]);
    assert_eq!(range(secs + 1, secs + 21), ["02"]);
    for bad in [
        "limit=0",
        "limit=x",
        "spss=x",
        "start=20&end=10",
        "start=20&end=20",
        "start=20",
        "limit=1000000",
        "minDuration=5",
    ] {
        let answer = server.get(&format!("/api/search?{bad}"));
        assert_eq!(answer.status, 400, "{bad}");
        assert!(!answer.text().starts_with(['<', '{']) && !answer.text().is_empty(), "{bad}: {}", answer.text());
    }
}

#[test]
fn tempo_27_tags_and_durations_of_old_grafana_are_conditions_on_the_trace() {
    let (server, _) = filled();
    let found = |query: &str| {
        let answer = server.json(&format!("/api/search?{query}"));
        assert_strict(&answer);
        ids(&answer)
    };
    assert_eq!(found("tags=service.name%3Dshop"), ["03", "01"]);
    assert_eq!(found("tags=service.name%3Dpayment%20code%3D200"), ["01"], "two spans of one trace");
    assert_eq!(found("tags=service.name%3Dshop&minDuration=100ms&maxDuration=1.5s"), ["01"]);
    assert_eq!(found("maxDuration=100ms"), ["03", "02"]);
    assert_eq!(found("tags=cluster%2Fname%3D%22eu%201%22&limit=1"), ["03"]);
    for bad in ["tags=shop", "tags=a%3Db&q=%7B%7D"] {
        assert_eq!(server.get(&format!("/api/search?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn tempo_40_an_attribute_has_one_type_over_the_whole_answer() {
    let (server, _) = filled();
    let values = |q: &str| {
        let answer = search(&server, q, "");
        assert_strict(&answer);
        let traces = answer["traces"].as_array().expect("traces").clone();
        traces
            .iter()
            .map(|trace| trace["spanSets"][0]["spans"][0]["attributes"][0]["value"].clone())
            .collect::<Vec<_>>()
    };
    let text = |value: &str| json!({ "stringValue": value });
    assert_eq!(
        values("{ .code != nil && name != \"charge\" }"),
        [json!({ "intValue": "404" }), json!({ "intValue": "200" })]
    );
    assert_eq!(values("{ .code != nil && name != \"GET /\" }"), [text("404"), text("declined")]);
    assert_eq!(values("{ .size > 0 }"), [json!({ "doubleValue": 0.5 }), json!({ "intValue": "1" })]);
    assert_eq!(values("{ .tags != nil }"), [text("[\"x\",\"y\"]")]);
}

fn tag_values(server: &TestServer, tag: &str, query: &str) -> Vec<(String, String)> {
    let answer = server.get(&format!("/api/v2/search/tag/{tag}/values?limit=5000&{query}"));
    assert_eq!(answer.status, 200, "{tag}: {}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["metrics"], json!({}));
    let field = |value: &Value, name: &str| value[name].as_str().expect("a text").to_owned();
    let values = answer["tagValues"].as_array().expect("values").iter();
    values.map(|value| (field(value, "type"), field(value, "value"))).collect()
}

fn of_type(name: &str, values: &[&str]) -> Vec<(String, String)> {
    values.iter().map(|value| (name.to_owned(), (*value).to_owned())).collect()
}

#[test]
fn tempo_30_tag_names_come_by_scope() {
    let (server, _) = filled();
    let answer = server.json("/api/v2/search/tags?limit=5000");
    let scopes: BTreeMap<String, Value> = answer["scopes"]
        .as_array()
        .expect("scopes")
        .iter()
        .map(|scope| (scope["name"].as_str().expect("a name").to_owned(), scope["tags"].clone()))
        .collect();
    assert_eq!(scopes["resource"], json!(["cluster/name", "service.name"]));
    assert_eq!(scopes["span"], json!(["a b", "code", "route", "size", "tags", "zone"]));
    assert_eq!((&scopes["event"], &scopes["link"]), (&json!(["exception.type"]), &json!([])));
    let intrinsics = scopes["intrinsic"].as_array().expect("tags");
    assert!(
        ["duration", "kind", "name", "status", "trace:rootName"].iter().all(|tag| intrinsics.contains(&json!(tag)))
    );
    assert!(!scopes["intrinsic"].to_string().contains("nestedSet"));
    let one = server.json("/api/v2/search/tags?limit=1&scope=span");
    assert_eq!(one["scopes"].as_array().expect("scopes").len(), 1);
    assert_eq!(one["scopes"][0]["tags"].as_array().expect("tags").len(), 1);
    assert_eq!(server.json("/api/v2/search/tags?start=1000&end=2000")["scopes"][1]["tags"], json!([]));
    assert_eq!(server.get("/api/v2/search/tags?scope=nope").status, 400);
}

#[test]
fn tempo_31_32_values_come_with_their_types() {
    let (server, _) = filled();
    let values = |tag: &str| tag_values(&server, tag, "tag=stray");
    assert_eq!(values("resource.service.name"), of_type("string", &["payment", "shop", "worker"]));
    assert_eq!(values("span.code"), [of_type("string", &["declined"]), of_type("int", &["200", "404"])].concat());
    assert_eq!(values(".size"), [of_type("int", &["1"]), of_type("float", &["0.5"])].concat());
    assert_eq!(values("span.tags"), of_type("string", &["x", "y"]));
    assert_eq!(values("name"), of_type("string", &["GET /", "GET /cart", "charge", "consume"]));
    assert_eq!(values("rootName"), of_type("string", &["GET /", "GET /cart"]));
    assert_eq!(values("trace:rootService"), of_type("string", &["shop"]));
    assert_eq!(values("instrumentation:name"), of_type("string", &["lib"]));
    for (tag, first) in [("status", "unset"), ("kind", "unspecified"), ("span:kind", "unspecified")] {
        let keywords = values(tag);
        assert_eq!(keywords[0], ("keyword".to_owned(), first.to_owned()), "{tag}");
        assert!(keywords.iter().all(|(of, _)| of == "keyword"), "{tag}");
    }
    assert_eq!((values("span.nothing"), values("trace:id"), values("%7Bnonsense")), (vec![], vec![], vec![]));
}

#[test]
fn tempo_33_34_38_values_are_narrowed_by_q_limit_and_window_and_never_refused_for_an_unfinished_q() {
    let (server, base) = filled();
    let names = |q: &str, more: &str| tag_values(&server, "name", &format!("q={}{more}", encoded(q)));
    assert_eq!(names("{ resource.cluster = }", "").len(), 4);
    assert_eq!(names("{ resource.service.name = \"payment\" }", ""), of_type("string", &["charge"]));
    assert_eq!(names("{ resource.service.name = \"no-such-service\" }", ""), []);
    let secs = base / SECOND;
    assert_eq!(names("{}", &format!("&start={}&end={}", secs + 10, secs + 30)), of_type("string", &["consume"]));
    let one = server.json(&format!("/api/v2/search/tag/name/values?limit=1&start={secs}&end={}", secs + 60));
    assert_eq!(one["tagValues"].as_array().expect("values").len(), 1);
    assert_eq!(server.get("/api/v2/search/tag/name/values?limit=x").status, 400);
}

#[test]
fn tempo_35_tags_with_slashes_quotes_and_blanks_are_found_also_encoded_twice() {
    let (server, _) = filled();
    let values = |tag: &str| tag_values(&server, tag, "");
    for tag in ["resource.cluster/name", "resource.cluster%2Fname", "resource.cluster%252Fname", ".cluster/name"] {
        assert_eq!(values(tag), of_type("string", &["eu 1"]), "{tag}");
    }
    for tag in ["span.%22a%20b%22", "span.%2522a%2520b%2522"] {
        assert_eq!(values(tag), of_type("string", &["quoted"]), "{tag}");
    }
    assert_eq!(values("event.exception.type"), of_type("string", &["Declined"]));
    assert_eq!(values("event:name"), of_type("string", &["exception"]));
}

#[test]
fn tempo_37_the_first_version_lists_names_and_values_without_scopes() {
    let (server, _) = filled();
    let names = server.json("/api/search/tags");
    assert_eq!(
        names,
        json!({ "tagNames": ["a b", "cluster/name", "code", "route", "service.name", "size", "tags", "zone"] })
    );
    let values = |tag: &str| server.json(&format!("/api/search/tag/{tag}/values"));
    assert_eq!(values("service.name"), json!({ "tagValues": ["payment", "shop", "worker"] }));
    assert_eq!(values("code"), json!({ "tagValues": ["200", "404", "declined"] }));
    assert_eq!(values("status"), json!({ "tagValues": ["error", "ok", "unset"] }));
    assert_eq!(server.get("/api/search/tag/code").status, 404);
}

#[test]
fn the_command_line_searches_and_shows_a_table_or_the_servers_json() {
    let (server, _) = filled();
    let run = |more: &[&str]| {
        let url = format!("http://{}", server.addresses.http);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_spandrel"));
        let output = command.args(["search", "--url", &url]).args(more).output().expect("the binary runs");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (found, table) = run(&["{ status = error }"]);
    assert!(found && table.contains("00000000000000000000000000000001") && table.contains("123 ms"), "{table}");
    let (_, json) = run(&["{ }", "--json", "--limit", "2", "--last", "30m"]);
    assert_eq!(ids(&serde_json::from_str(&json).expect("JSON")), ["03", "02"]);
    assert_eq!(run(&["{ name = \"none\" }"]), (true, "no such trace in this window; try a longer --last\n".to_owned()));
    let (found, refused) = run(&["{ status = }"]);
    assert!(!found && refused.contains("parse error at line 1, col 12"), "{refused}");
}
