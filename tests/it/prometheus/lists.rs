//! What there is, and why there is no answer.

use serde_json::{Value, json};

use super::Filled;
use super::sent::{SPAN_LABELS, ask, encoded, secs};
use crate::support::{TestServer, get, post};

#[test]
fn prom_10_11_13_14_15_16_lists_have_what_was_sent() {
    let filled = Filled::new();
    let server = &filled.server;
    let data = |path: &str| server.json(&format!("/api/v1/{path}"))["data"].clone();
    let names = data("label/__name__/values?limit=40000");
    let names: Vec<&str> = names.as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert!(names.is_sorted() && names.contains(&"traces_spanmetrics_latency") && names.len() == 5, "{names:?}");
    let labels = |metric: &str| data(&format!("labels?match[]={metric}"));
    assert_eq!(labels("traces_spanmetrics_latency_bucket"), json!([&["__name__", "le"][..], &SPAN_LABELS].concat()));
    assert_eq!(labels("traces_spanmetrics_latency"), json!([&["__name__"][..], &SPAN_LABELS].concat()));
    for (path, values) in [
        ("label/service/values", json!(["cart", "checkout", "stock"])),
        ("label/service/values?match[]=traces_spanmetrics_calls_total&limit=2", json!(["cart", "checkout"])),
        ("label/service/values?match[]=%7Bservice!=%22cart%22,span_kind=~%22.%2B%22%7D", json!(["checkout", "stock"])),
        ("label/U__span__name/values", json!(["call 0", "call 1", "call 2"])),
        ("label/U__no_2e_such/values", json!([])),
        ("label/span_name/values?start=1&end=2", json!([])),
        ("label/service/values?match[]=up", json!([])),
        ("rules", json!({ "groups": [] })),
        ("rules?type=alert", json!({ "groups": [] })),
        ("alerts", json!({ "alerts": [] })),
        ("series?match[]=up", json!([])),
    ] {
        assert_eq!(data(path), values, "{path}");
    }
    let metadata = data("metadata?limit=40000");
    assert_eq!(metadata.as_object().map(serde_json::Map::len), Some(15));
    assert_eq!(metadata["traces_spanmetrics_latency"][0]["type"], "histogram");
    assert_eq!(metadata["traces_spanmetrics_calls_total"][0]["type"], "counter");
    assert_eq!(data("metadata?metric=traces_spanmetrics_calls_total").as_object().map(serde_json::Map::len), Some(1));
    let buildinfo = data("status/buildinfo");
    let keys: Vec<&String> = buildinfo.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["branch", "buildDate", "buildUser", "goVersion", "revision", "version"]);
}

#[test]
fn prom_13_series_of_several_selectors_are_those_with_spans_in_the_range() {
    let filled = Filled::new();
    let (start, end) = (filled.first + 600_000, filled.first + 660_000);
    let range =
        (u64::try_from(start).expect("after 1970") * 1_000_000, u64::try_from(end).expect("after 1970") * 1_000_000);
    let selectors = [
        (r#"traces_spanmetrics_calls_total{service="cart"}"#, "cart"),
        (r#"{__name__="traces_spanmetrics_latency",service=~"st.*"}"#, "stock"),
    ];
    let mut expected: Vec<String> = Vec::new();
    for (selector, service) in selectors {
        let is_timed = selector.starts_with('{');
        let name = if is_timed { "traces_spanmetrics_latency" } else { "traces_spanmetrics_calls_total" };
        let there = |sent: &&super::Sent| {
            sent.service == service
                && (sent.latency.is_some() || !is_timed)
                && (range.0..range.1 + 10_000_000_000).contains(&sent.start)
        };
        for sent in filled.all.iter().filter(there) {
            let labels = SPAN_LABELS.map(|label| format!("{label}={}", sent.label(label))).join(",");
            expected.push(format!("__name__={name},{labels}"));
        }
    }
    expected.sort();
    expected.dedup();
    let (start, end) = (secs(start), secs(end));
    let pairs = [("match[]", selectors[0].0), ("match[]", selectors[1].0), ("start", &start), ("end", &end)];
    let answer = ask(&filled.server, "series", &pairs);
    let text = |series: &Value| {
        super::sent::labels_text(
            series.as_object().expect("labels").iter().map(|(name, value)| (name, value.as_str().expect("a text"))),
        )
    };
    let mut found: Vec<String> = answer["data"].as_array().expect("series").iter().map(text).collect();
    found.sort();
    assert_eq!(found, expected);
    let few = ask(&filled.server, "series", &[&pairs[..], &[("limit", "5")]].concat());
    assert_eq!(few["data"].as_array().map(Vec::len), Some(5));
    assert_eq!(few["warnings"], json!(["results truncated due to limit"]));
}

/// Asked by GET and as a form, unless the path takes one alone.
fn both(server: &TestServer, path: &str, pairs: &[(&str, &str)]) -> Vec<(u16, String)> {
    let url = format!("http://{}/api/v1/{path}", server.addresses.http);
    let form =
        [("content-type", "application/x-www-form-urlencoded"), ("x-scope-orgid", "a"), ("x-grafana-org-id", "1")];
    let text = encoded(pairs);
    let asked = get(&format!("{url}?{text}"), &[("accept-encoding", "gzip")]);
    let sent = post(&url, &form, text.as_bytes());
    // What a client adds to the address of a form is read as well.
    let mixed = post(&format!("{url}?foo=1&{text}"), &form, b"stats=all&timeout=60s");
    [asked, sent, mixed].into_iter().map(|answer| (answer.status, answer.text())).collect()
}

fn range<'a>(query: &'a str, start: &'a str, end: &'a str, step: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![("query", query), ("start", start), ("end", end), ("step", step)]
}

#[test]
fn prom_02_08_09_20_errors_have_envelopes_that_say_what_is_wrong_and_where() {
    let server = TestServer::new();
    let instant = |query| vec![("query", query)];
    let error = |kind: &str, text: &str| (kind.to_owned(), text.to_owned());
    let resolution =
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
    for (path, pairs, status, (kind, text)) in [
        ("query", instant("sum("), 400, error("bad_data", "1:4: parse error: ")),
        ("query", instant("1 +\n  \u{e9} + * 2"), 400, error("bad_data", ": parse error: ")),
        ("query", vec![("time", "4")], 400, error("bad_data", "'query' is required")),
        ("query", vec![("query", "1"), ("time", "soon")], 400, error("bad_data", "invalid parameter \"time\"")),
        ("query", instant("no_such_function(vector(1))"), 400, error("bad_data", "no_such_function")),
        (
            "query",
            instant("predict_linear(up[5m], 1)"),
            422,
            error("execution", "function predict_linear is not supported"),
        ),
        ("query", instant("up[5m]"), 422, error("execution", "is not supported")),
        ("query", instant("{service=~\"(\"}"), 400, error("bad_data", "parse error")),
        ("query_range", range("1", "0", "11001", "1"), 400, error("bad_data", resolution)),
        ("query_range", range("1", "0", "1e300", "1"), 400, error("bad_data", resolution)),
        (
            "query_range",
            range("1", "5", "4", "1"),
            400,
            error("bad_data", "end timestamp must not be before start time"),
        ),
        ("query_range", range("1", "0", "4", "0"), 400, error("bad_data", "invalid parameter \"step\"")),
        ("query_range", range("1", "0", "4", "-1s"), 400, error("bad_data", "invalid parameter \"step\"")),
        ("query_range", range("1", "", "4", "1"), 400, error("bad_data", "invalid parameter \"start\"")),
        ("query_range", range("'a'", "0", "4", "1"), 400, error("bad_data", "parse error")),
        (
            "query_range",
            range(
                "vector(1) + on() label_replace(vector(1), 'a', 'b', '', '') or vector(2) * on() group_left() (vector(1) or label_replace(vector(1), 'a', 'b', '', ''))",
                "0",
                "4",
                "1",
            ),
            422,
            error("execution", ""),
        ),
        ("query_exemplars", range("sum(", "0", "4", "1"), 400, error("bad_data", "1:4: parse error")),
        ("query_exemplars", instant("up"), 400, error("bad_data", "invalid parameter \"start\"")),
        ("series", Vec::new(), 400, error("bad_data", "no match[] parameter provided")),
        ("series", vec![("match[]", "rate(up[1m])")], 400, error("bad_data", "parse error")),
        ("series", vec![("match[]", "up"), ("limit", "many")], 400, error("bad_data", "invalid parameter \"limit\"")),
        ("labels", vec![("match[]", "{")], 400, error("bad_data", "parse error")),
    ] {
        for (found, body) in both(&server, path, &pairs) {
            let answer: Value =
                serde_json::from_str(&body).unwrap_or_else(|error| panic!("{pairs:?}: {error}: {body}"));
            assert_eq!(
                (found, &answer["status"], &answer["errorType"]),
                (status, &json!("error"), &json!(kind)),
                "{path} {pairs:?}: {body}"
            );
            assert!(answer["error"].as_str().is_some_and(|error| error.contains(&text)), "{path} {pairs:?}: {body}");
            assert_eq!(answer.as_object().map(serde_json::Map::len), Some(3));
        }
    }
}

#[test]
fn prom_01_02_03_17_19_20_answers_have_the_form_of_prometheus_and_what_is_unknown_is_passed_over() {
    let server = TestServer::new();
    for (path, pairs, body) in [
        (
            "query",
            vec![("query", "1+1"), ("time", "4")],
            r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#,
        ),
        (
            "query",
            vec![("query", "'a'"), ("time", "4.5")],
            r#"{"status":"success","data":{"resultType":"string","result":[4.500,"a"]}}"#,
        ),
        (
            "query",
            vec![("query", "vector(1)"), ("time", "2020-01-01T00:00:00.25Z"), ("limit", "100")],
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1577836800.250,"1"]}]}}"#,
        ),
        (
            "query",
            vec![("query", "vector(1) == BOOL 1 OR vector(2) # or\n UNLESS vector(3)"), ("time", "0")],
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[0,"1"]}]}}"#,
        ),
        (
            "query",
            vec![("query", "traces_spanmetrics_calls_total"), ("time", "")],
            r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
        ),
        (
            "query",
            vec![("query", "vector(0/0) or vector(1)"), ("time", "9")],
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[9,"NaN"]}]}}"#,
        ),
        (
            "query",
            vec![("query", "-1/0"), ("time", "9")],
            r#"{"status":"success","data":{"resultType":"scalar","result":[9,"-Inf"]}}"#,
        ),
        (
            "query_range",
            range("1", "0.5", "60", "30s"),
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[0.500,"1"],[30.500,"1"]]}]}}"#,
        ),
    ] {
        for found in both(&server, path, &pairs) {
            assert_eq!(found, (200, body.to_owned()), "{path} {pairs:?}");
        }
    }
    let eleven_thousand = ask(&server, "query_range", &range("1", "0", "11000", "1"));
    assert_eq!(eleven_thousand["data"]["result"][0]["values"].as_array().map(Vec::len), Some(11_001));
    for path in ["format_query", "parse_query", "targets", "status/config", "status/tsdb"] {
        let answer = server.get(&format!("/api/v1/{path}"));
        let answer = (answer.status, answer.json());
        assert_eq!(
            (answer.0, &answer.1["status"], &answer.1["errorType"]),
            (404, &json!("error"), &json!("not_found"))
        );
    }
}
