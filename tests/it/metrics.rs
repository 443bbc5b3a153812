//! TraceQL metrics against a count of the spans that were sent, in blocks, sealed partitions and the head.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::Value;

use crate::support::{Random, TestServer, now};

const SECOND: u64 = 1_000_000_000;
const SPANS: u64 = 3_000;
const STEP: u64 = 30 * SECOND;

/// A span that was sent.
struct Known {
    service: &'static str,
    name: String,
    is_error: bool,
    /// Of the attribute `code`, which some lack.
    code: Option<i64>,
    start: u64,
    duration: u64,
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn filled(server: &TestServer, first: u64) -> Vec<Known> {
    let mut random = Random(5);
    let known = |_| Known {
        service: random.pick(&["cart", "checkout", "stock"]),
        name: format!("call {}", random.below(3)),
        is_error: random.one_in(5),
        code: (!random.one_in(3)).then(|| random.pick(&[200, 404, 500])),
        start: first + random.below(1_800 * SECOND),
        duration: 1 << random.below(33) | 1,
    };
    let all: Vec<Known> = (0..SPANS).map(known).collect();
    for (piece, some) in (0..).zip(all.chunks(100)) {
        let resource_spans = (0..).zip(some).map(|(no, known): (u64, &Known)| {
            let id = piece * 100 + no + 1;
            let code = known.code.map(|code| attribute("code", any_value::Value::IntValue(code)));
            let span = Span {
                trace_id: u128::from(id).to_be_bytes().to_vec(),
                span_id: id.to_be_bytes().to_vec(),
                name: known.name.clone(),
                kind: 2,
                start_time_unix_nano: known.start,
                end_time_unix_nano: known.start + known.duration,
                attributes: code.into_iter().collect(),
                status: Some(Status { code: if known.is_error { 2 } else { 0 }, ..Status::default() }),
                ..Span::default()
            };
            let name = attribute("service.name", any_value::Value::StringValue(known.service.to_owned()));
            let resource = Some(Resource { attributes: vec![name], ..Resource::default() });
            let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
            ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
        });
        server.deliver(&ExportTraceServiceRequest { resource_spans: resource_spans.collect() });
    }
    all
}

/// A filter, and what it means.
type Meant = (&'static str, fn(&Known) -> bool);

/// Values by labels (as text) and end of the interval in seconds.
type Numbers = BTreeMap<String, BTreeMap<u64, f64>>;

fn labels_of(series: &Value) -> String {
    let one = |label: &Value| {
        let value = label["value"].as_object().expect("a value").iter().next().expect("one form");
        format!("{}={}", label["key"].as_str().expect("a key"), value.1.to_string().trim_matches('"'))
    };
    series["labels"].as_array().expect("labels").iter().map(one).collect::<Vec<_>>().join(",")
}

fn answered(answer: &Value) -> Numbers {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).expect("digits");
    let of = |series: &Value| {
        let samples = series["samples"].as_array().expect("samples");
        let points = samples
            .iter()
            .map(|point| (number(&point["timestampMs"]) / 1_000, point["value"].as_f64().expect("a number")));
        (labels_of(series), points.collect())
    };
    answer["series"].as_array().expect("series").iter().map(of).collect()
}

/// What a question must answer, by the definition of intervals.
fn expected(spans: &[&Known], function: &str, by: &str, start: u64, end: u64) -> Numbers {
    let (first, last) = (start / STEP * STEP, end.div_ceil(STEP) * STEP);
    let ends: Vec<u64> = (0..=(last - first) / STEP).map(|at| first + at * STEP).collect();
    let mut groups: BTreeMap<String, BTreeMap<u64, Vec<u64>>> = BTreeMap::new();
    for known in spans {
        let at = known.start.div_ceil(STEP) * STEP;
        let too_short = function.starts_with("histogram") && known.duration < 2;
        if at < first || last < at || too_short {
            continue;
        }
        let code = || known.code.map_or("nil".to_owned(), |code| code.to_string());
        let group = match by {
            "" => String::new(),
            "name" => format!("name={}", known.name),
            "span.code" => format!("span.code={}", code()),
            _ => format!("resource.service.name={}", known.service),
        };
        let bucket = format!("__bucket={}", Value::from(known.duration.next_power_of_two() as f64 / 1e9));
        let labels: Vec<String> = match function {
            "histogram_over_time(duration)" => vec![group, bucket],
            "quantile_over_time(duration, 0.5)" => vec![group, "p=0.5".to_owned()],
            _ if by.is_empty() => vec![format!("__name__={}", function.split('(').next().expect("a name"))],
            _ => vec![group],
        };
        let labels = labels.into_iter().filter(|label| !label.is_empty()).collect::<Vec<_>>().join(",");
        groups.entry(labels).or_default().entry(at).or_default().push(known.duration);
    }
    let number = |durations: &[u64]| {
        let (count, sum) =
            (durations.len() as f64, durations.iter().map(|ns| u128::from(*ns)).sum::<u128>() as f64 / 1e9);
        match function.split('(').next().expect("a name") {
            "rate" => count / 30.0,
            "count_over_time" | "histogram_over_time" => count,
            "min_over_time" => *durations.iter().min().expect("some") as f64 / 1e9,
            "max_over_time" => *durations.iter().max().expect("some") as f64 / 1e9,
            "sum_over_time" => sum,
            "avg_over_time" => sum / count,
            _ => {
                let mut sorted = durations.to_vec();
                sorted.sort_unstable();
                sorted[sorted.len().div_ceil(2) - 1] as f64 / 1e9
            }
        }
    };
    let counts = ["rate()", "count_over_time()", "histogram_over_time(duration)"].contains(&function);
    let series = |cells: BTreeMap<u64, Vec<u64>>| -> BTreeMap<u64, f64> {
        let zeros = ends.iter().filter(|_| counts).map(|end| (end / SECOND, 0.0));
        zeros.chain(cells.iter().map(|(end, durations)| (end / SECOND, number(durations)))).collect()
    };
    groups.into_iter().map(|(labels, cells)| (labels, series(cells))).collect()
}

#[test]
fn tqm_01_02_03_04_05_18_numbers_of_every_function_and_group_are_those_of_the_spans_that_were_sent() {
    let server = TestServer::with(|config| {
        config.ingest.checkpoint_spans = 700;
        config.ingest.partition_bytes_max = 40_000;
    });
    let first = now().0 / SECOND * SECOND - 3_600 * SECOND;
    let all = filled(&server, first);
    let filters: [Meant; 3] = [
        ("{}", |_| true),
        ("{status = error && name != \"call 2\"}", |known| known.is_error && known.name != "call 2"),
        ("{duration > 1ms || span.code = 500}", |known| 1_000_000 < known.duration || known.code == Some(500)),
    ];
    let functions = [
        "rate()",
        "count_over_time()",
        "min_over_time(duration)",
        "max_over_time(duration)",
        "sum_over_time(duration)",
        "avg_over_time(duration)",
        "quantile_over_time(duration, 0.5)",
        "histogram_over_time(duration)",
    ];
    let windows = [(first, first + 1_800 * SECOND), (first + 313 * SECOND, first + 777 * SECOND)];
    for (filter, is_meant) in filters {
        for function in functions {
            for by in ["", "name", "span.code", "resource.service.name"] {
                for (start, end) in windows {
                    let grouped = if by.is_empty() { String::new() } else { format!(" by({by})") };
                    let q = format!("{filter} | {function}{grouped} with(sample=true)");
                    let path = format!(
                        "/api/metrics/query_range?q={}&start={}&end={}&step=30s",
                        url(&q),
                        start / SECOND,
                        end / SECOND
                    );
                    let answer = server.json(&path);
                    let meant: Vec<&Known> = all.iter().filter(|known| is_meant(known)).collect();
                    let (found, expected) = (answered(&answer), expected(&meant, function, by, start, end));
                    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{q}");
                    // Buckets are at least half a microsecond wide.
                    let quantile = if function.starts_with("quantile") { 1.0 } else { 1e-6 };
                    for (labels, points) in &expected {
                        let found = &found[labels];
                        assert_eq!(found.keys().collect::<Vec<_>>(), points.keys().collect::<Vec<_>>(), "{q} {labels}");
                        for (at, value) in points {
                            let wrong = (found[at] - value).abs() > value * 0.001 + 512e-9 * quantile;
                            assert!(!wrong, "{q} {labels} at {at}: {} for {value}", found[at]);
                        }
                    }
                    follow(&server, &answer, &q);
                }
            }
        }
    }
}

/// Every exemplar of some answers opens, and says what its span says.
fn follow(server: &TestServer, answer: &Value, q: &str) {
    let all = answer["series"].as_array().expect("series").iter();
    let exemplars: Vec<&Value> = all.flat_map(|series| series["exemplars"].as_array().expect("exemplars")).collect();
    assert!(!exemplars.is_empty() && exemplars.len() <= 100, "{q}: {}", exemplars.len());
    for exemplar in exemplars.iter().step_by(40) {
        let label = |at: usize| exemplar["labels"][at]["value"]["stringValue"].as_str().expect("an id");
        assert_eq!(
            (exemplar["labels"][0]["key"].as_str(), exemplar["labels"][1]["key"].as_str()),
            (Some("trace:id"), Some("span:id"))
        );
        let trace = server.json(&format!("/api/v2/traces/{}", label(0)));
        let span = &trace["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        let nanos = |key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok()).expect("nanoseconds");
        let (start, end) = (nanos("startTimeUnixNano"), nanos("endTimeUnixNano"));
        assert_eq!(exemplar["timestampMs"], (start / 1_000_000).to_string(), "{q}");
        let of_duration = ["min_", "max_", "sum_", "avg_", "quantile_"].iter().any(|name| q.contains(name));
        if of_duration {
            assert_eq!(exemplar["value"].as_f64(), Some((end - start) as f64 / 1e9), "{q}");
        }
    }
}

#[test]
fn tqm_11_instant_metrics_have_one_value_over_the_whole_range_and_strict_keys() {
    let server = TestServer::new();
    let first = now().0 / SECOND * SECOND - 3_600 * SECOND;
    let all = filled(&server, first);
    let (start, end) = (first / SECOND + 60, first / SECOND + 360);
    let answer = server
        .json(&format!("/api/metrics/query?q={}&start={start}&end={end}", url("{} | count_over_time() by(name)")));
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for known in all.iter().filter(|known| start * SECOND < known.start && known.start <= end * SECOND) {
        *counts.entry(&known.name).or_default() += 1;
    }
    let series = answer["series"].as_array().expect("series");
    let found = series.iter().map(|series| (labels_of(series), series["value"].as_f64().expect("a number")));
    let expected = counts.iter().map(|(name, count)| (format!("name={name}"), *count as f64));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected.collect());
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&answer), ["message", "metrics", "series", "status"]);
    assert_eq!(keys(&series[0]), ["labels", "value"]);
}

#[test]
fn tqm_12_13_metrics_that_cannot_be_answered_say_why_in_plain_text() {
    let server = TestServer::new();
    for (query, why) in [
        ("q=%7B%7D%20%7C%20rate(", "invalid TraceQL query: parse error at line 1, col 11: found the end, expected `)`"),
        ("q=%7B%7D%20%7C%20compare(%7B%7D)", "unsupported TraceQL: `compare` at line 1, col 6"),
        ("", "invalid TraceQL query: parse error at line 1, col 1: found the end, expected `{`"),
        ("q=%7B%7D%20%7C%20rate()&start=20&end=20", "end must be greater than start"),
        ("q=%7B%7D%20%7C%20rate()&step=0", "invalid step \"0\": it must be a duration above zero"),
        ("q=%7B%7D%20%7C%20rate()&start=0&end=86400&step=1", "86401 points are too many"),
        ("q=%7B%7D%20%7C%20rate()&start=soon", "invalid start \"soon\""),
    ] {
        let answer = server.get(&format!("/api/metrics/query_range?{query}"));
        assert_eq!((answer.status, answer.header("content-type")), (400, "text/plain; charset=utf-8"), "{query}");
        assert!(answer.text().contains(why), "{query}: {}", answer.text());
    }
    let empty = server.json("/api/metrics/query_range?query=%7B%7D%20%7C%20rate()&since=5m&unknown=1");
    assert_eq!((&empty["series"], &empty["status"]), (&serde_json::json!([]), &serde_json::json!("COMPLETE")));
}

fn url(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    });
    escaped.collect()
}
