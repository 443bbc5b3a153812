//! TraceQL metrics against a count of the spans that were sent, in blocks, sealed partitions and the head.

mod oracle;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::oracle::{
    Function, Known, Numbers, SECOND, STEP, answered, assert_same, ends, expected, filled, labels_of, url,
};
use crate::support::{TestServer, now};

/// A filter, and what it means.
type Meant = (&'static str, fn(&Known) -> bool);

const FILTERS: [Meant; 3] = [
    ("{}", |_| true),
    ("{status = error && name != \"call 2\"}", |known| known.is_error && known.name != "call 2"),
    ("{duration > 1ms || span.code = 500}", |known| {
        known.duration.is_some_and(|duration| 1_000_000 < duration) || known.code == Some(500)
    }),
];

/// A server with blocks, sealed partitions and a head, and the spans in it.
struct Filled {
    server: TestServer,
    all: Vec<Known>,
    first: u64,
}

impl Filled {
    fn new() -> Self {
        let server = TestServer::with(|config| {
            config.ingest.checkpoint_spans = 700;
            config.ingest.partition_bytes_max = 40_000;
        });
        let first = now().0 / SECOND * SECOND - 3_600 * SECOND;
        let all = filled(&server, first);
        Self { server, all, first }
    }

    fn meant(&self, is_meant: fn(&Known) -> bool) -> Vec<&Known> {
        self.all.iter().filter(|known| is_meant(known)).collect()
    }

    /// The whole half an hour.
    fn window(&self) -> (u64, u64) {
        (self.first, self.first + 1_800 * SECOND)
    }

    fn ask(&self, q: &str, (start, end): (u64, u64)) -> Value {
        let (start, end) = (start / SECOND, end / SECOND);
        self.server.json(&format!("/api/metrics/query_range?q={}&start={start}&end={end}&step=30s", url(q)))
    }

    /// What `q` answers over the whole half an hour is what is expected.
    #[track_caller]
    fn check(&self, q: &str, expected: &Numbers) {
        assert_same(&answered(&self.ask(q, self.window())), expected, 0.0, q);
    }

    /// The rates of spans by fields.
    fn rates(&self, is_meant: fn(&Known) -> bool, by: &[&str]) -> Numbers {
        let (start, end) = self.window();
        expected(&self.meant(is_meant), Function { name: "rate", field: "" }, by, start, end)
    }
}

#[test]
fn tqm_01_02_03_04_05_16_18_numbers_of_every_function_field_and_group_are_those_of_the_spans_that_were_sent() {
    let filled = Filled::new();
    let names = [
        "min_over_time",
        "max_over_time",
        "sum_over_time",
        "avg_over_time",
        "quantile_over_time",
        "histogram_over_time",
    ];
    let fields = ["duration", "span.size", "span.code", "resource.weight", ".weight"];
    let of_fields = names.iter().flat_map(|name| fields.map(|field| Function { name, field }));
    let functions: Vec<Function> =
        [Function { name: "rate", field: "" }, Function { name: "count_over_time", field: "" }]
            .into_iter()
            .chain(of_fields)
            .collect();
    let groups: [&[&str]; 6] = [
        &[],
        &["name"],
        &["span.code"],
        &["resource.service.name"],
        &["span.code", "resource.service.name"],
        &["name", "status", "span.code", "span.missing", "resource.weight"],
    ];
    let (start, end) = filled.window();
    let windows = [(start, end), (start + 313 * SECOND, start + 777 * SECOND)];
    for (at, function) in functions.into_iter().enumerate() {
        for (no, by) in groups.into_iter().enumerate() {
            // Each function meets each group, filter and window, not all of them at once.
            let ((filter, is_meant), window) = (FILTERS[(at + no) % 3], windows[(at + no / 2) % 2]);
            let grouped = if by.is_empty() { String::new() } else { format!(" by({})", by.join(", ")) };
            let q = format!("{filter} | {}{grouped} with(sample=true)", function.text());
            let answer = filled.ask(&q, window);
            let expected = expected(&filled.meant(is_meant), function, by, window.0, window.1);
            let slack = if function.name == "quantile_over_time" { 0.001 } else { 0.0 };
            assert_same(&answered(&answer), &expected, slack, &q);
            assert_eq!(answer["status"], "COMPLETE", "{q}");
            follow(&filled.server, &answer, &q, function);
        }
    }
}

/// Every exemplar of an answer is drawn where its span or its point is; of some that open the rest is compared, too.
fn follow(server: &TestServer, answer: &Value, q: &str, function: Function) {
    let mut n_exemplars = 0;
    for series in answer["series"].as_array().expect("series") {
        let samples = series["samples"].as_array().expect("samples");
        let mut of_interval: BTreeMap<u64, usize> = BTreeMap::new();
        for exemplar in series["exemplars"].as_array().expect("exemplars") {
            n_exemplars += 1;
            let ms: u64 = exemplar["timestampMs"].as_str().and_then(|text| text.parse().ok()).expect("digits");
            let end = (ms * 1_000_000 + 1).div_ceil(STEP) * STEP / 1_000_000;
            *of_interval.entry(end).or_default() += 1;
            let end = end.to_string();
            if function.counts() {
                let point = samples.iter().find(|point| point["timestampMs"].as_str() == Some(&end));
                assert_eq!(point.map(|point| &point["value"]), Some(&exemplar["value"]), "{q}: on the line");
            }
            if n_exemplars % 40 == 1 {
                open(server, exemplar, q, function);
            }
        }
        assert!(of_interval.values().all(|n| *n <= 2), "{q}: {of_interval:?}");
    }
    assert!(0 < n_exemplars && n_exemplars <= 100, "{q}: {n_exemplars}");
}

fn open(server: &TestServer, exemplar: &Value, q: &str, function: Function) {
    let labels: Vec<(String, String)> = exemplar["labels"]
        .as_array()
        .expect("labels")
        .iter()
        .map(|label| {
            let value = label["value"].as_object().and_then(|value| value.values().next()).expect("a value");
            (label["key"].as_str().expect("a key").to_owned(), value.to_string().trim_matches('"').to_owned())
        })
        .collect();
    let keys: Vec<&str> = labels.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys[..3], ["trace:id", "span:id", "name"], "{q}");
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{q}: no name twice");
    let trace = server.json(&format!("/api/v2/traces/{}", labels[0].1));
    let span = &trace["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["name"], labels[2].1, "{q}");
    let nanos = |key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok()).expect("nanoseconds");
    let (start, end) = (nanos("startTimeUnixNano"), nanos("endTimeUnixNano"));
    assert_eq!(exemplar["timestampMs"], (start / 1_000_000).to_string(), "{q}");
    if function.field == "duration" && !function.counts() {
        assert_eq!(exemplar["value"].as_f64(), Some((end - start) as f64 / 1e9), "{q}");
    }
    if function.field == "span.code" && !function.counts() {
        let code = labels.iter().find(|(key, _)| key == "span.code").map(|(_, value)| value.parse::<f64>());
        assert_eq!(code, exemplar["value"].as_f64().map(Ok), "{q}");
    }
}

/// Points of all series by a rule over those of one instant.
fn by_instant(numbers: &Numbers, keep: impl Fn(&[(f64, &str)]) -> Vec<String>) -> Numbers {
    let instants: BTreeSet<u64> = numbers.values().flat_map(BTreeMap::keys).copied().collect();
    let mut left = Numbers::new();
    for at in instants {
        let points: Vec<(f64, &str)> =
            numbers.iter().filter_map(|(labels, points)| Some((*points.get(&at)?, labels.as_str()))).collect();
        for labels in keep(&points) {
            let value = numbers[&labels][&at];
            let _new = left.entry(labels).or_default().insert(at, value);
        }
    }
    left
}

/// The `n` labels that come first, of equal ones in their order.
fn first(points: &[(f64, &str)], n: usize, largest: bool) -> Vec<String> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| if largest { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) }.then(a.1.cmp(b.1)));
    points.iter().take(n).map(|(_, labels)| (*labels).to_owned()).collect()
}

fn mapped(numbers: &Numbers, of: impl Fn(&str, u64, f64) -> Option<f64>) -> Numbers {
    let series = numbers.iter().map(|(labels, points)| {
        let points = points.iter().filter_map(|(at, value)| Some((*at, of(labels, *at, *value)?)));
        (labels.clone(), points.collect::<BTreeMap<_, _>>())
    });
    series.filter(|(_, points)| !points.is_empty()).collect()
}

/// Whether a point stays.
type Holds = fn(f64) -> bool;

#[test]
fn tqm_15_topk_bottomk_and_thresholds_leave_points_by_their_instant() {
    let filled = Filled::new();
    let by = ["name", "span.code"];
    let rates = filled.rates(|_| true, &by);
    for n in [1, 2, 7, 1_000] {
        let (top, bottom) =
            (by_instant(&rates, |points| first(points, n, true)), by_instant(&rates, |points| first(points, n, false)));
        filled.check(&format!("{{}} | rate() by(name, span.code) | topk({n})"), &top);
        filled.check(&format!("{{}} | rate() by(name, span.code) | bottomk({n})"), &bottom);
    }
    let thresholds: [(&str, Holds); 8] = [
        ("> 0.2", |value| value > 0.2),
        (">= 0.2", |value| value >= 0.2),
        ("< 0.2", |value| value < 0.2),
        ("<= 0.2", |value| value <= 0.2),
        ("= 0.2", |value| (value - 0.2).abs() < 1e-12),
        ("!= 0", |value| value != 0.0),
        ("= 0", |value| value == 0.0),
        ("> 100", |_| false),
    ];
    for (threshold, holds) in thresholds {
        let left = mapped(&rates, |_, _, value| Some(value).filter(|value| holds(*value)));
        filled.check(&format!("{{}} | rate() by(name, span.code) {threshold}"), &left);
    }
    let slow = expected(
        &filled.meant(|_| true),
        Function { name: "max_over_time", field: "duration" },
        &["name"],
        filled.window().0,
        filled.window().1,
    );
    let left = by_instant(&mapped(&slow, |_, _, value| Some(value).filter(|value| *value > 0.5)), |points| {
        first(points, 1, true)
    });
    filled.check("{} | max_over_time(duration) by(name) > 500ms | topk(1)", &left);
}

#[test]
fn tqm_15_arithmetic_pairs_series_of_the_same_labels_point_by_point() {
    let filled = Filled::new();
    let (all, errors) = (filled.rates(|_| true, &["name"]), filled.rates(|known| known.is_error, &["name"]));
    let whole = filled.rates(|_| true, &[]);
    let renamed = |numbers: &Numbers, name: &str| -> Numbers {
        numbers.values().map(|points| (format!("__name__={name}"), points.clone())).collect()
    };
    let ratio = |left: f64, right: f64| (right != 0.0).then(|| left / right);
    let a = "({} | rate() by(name))";
    let b = "({status = error} | rate() by(name))";
    filled.check(&format!("{b} / {a}"), &mapped(&errors, |labels, at, value| ratio(value, all[labels][&at])));
    filled.check(&format!("{a} - {b} * 2"), &mapped(&all, |labels, at, value| Some(value - errors[labels][&at] * 2.0)));
    filled.check(
        &format!("({a} + {b}) * 60"),
        &mapped(&all, |labels, at, value| Some((value + errors[labels][&at]) * 60.0)),
    );
    filled.check(
        &format!("1 - {b} / {a} | topk(1)"),
        &by_instant(&mapped(&errors, |labels, at, value| Some(1.0 - ratio(value, all[labels][&at])?)), |points| {
            first(points, 1, true)
        }),
    );
    filled.check(
        &format!("{b} / {a} > 0.3"),
        &mapped(&errors, |labels, at, value| ratio(value, all[labels][&at]).filter(|value| *value > 0.3)),
    );
    // A series that is the only one meets all others.
    let total = &whole["__name__=rate"];
    filled.check(&format!("{a} / ({{}} | rate())"), &mapped(&all, |_, at, value| ratio(value, total[&at])));
    filled.check("({} | rate()) * 60", &renamed(&mapped(&whole, |_, _, value| Some(value * 60.0)), "(rate * 60)"));
    filled.check("({} | rate()) / 0", &Numbers::new());
    filled.check("({} | rate() by(name)) + ({} | rate() by(kind))", &Numbers::new());
    // Some have no errors with that code: what has no partner is left out.
    let (codes, known) =
        (filled.rates(|_| true, &["span.code"]), filled.rates(|known| known.code == Some(404), &["span.code"]));
    let both = mapped(&codes, |labels, at, value| Some(value + known.get(labels)?[&at]));
    assert_eq!(both.len(), 1);
    filled.check("({} | rate() by(span.code)) + ({span.code = 404} | rate() by(span.code))", &both);
    let answer = filled.ask(&format!("{b} / {a}"), filled.window());
    let function = Function { name: "rate", field: "" };
    follow(&filled.server, &answer, "exemplars of both sides", function);
}

/// What `compare` must count: by kind of series, label and value, over one interval.
fn compared(
    filled: &Filled,
    is_meant: fn(&Known) -> bool,
    selects: impl Fn(&Known) -> bool,
    top: usize,
) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<(&str, &str, String), f64> = BTreeMap::new();
    let mut totals: BTreeMap<String, f64> = BTreeMap::new();
    for known in filled.meant(is_meant) {
        let side = if selects(known) { "selection" } else { "baseline" };
        for label in ["name", "kind", "status", "resource.service.name", "resource.weight", "span.code"] {
            if label == "span.code" && known.code.is_none() {
                continue;
            }
            *counts.entry((side, label, known.label(label))).or_default() += 1.0;
            *totals.entry(format!("__meta_type={side}_total,{label}=nil")).or_default() += 1.0;
        }
    }
    let mut series = totals;
    let groups: BTreeSet<(&str, &str)> = counts.keys().map(|(side, label, _)| (*side, *label)).collect();
    for (side, label) in groups {
        let mut values: Vec<(&String, f64)> = counts
            .iter()
            .filter(|(key, _)| (key.0, key.1) == (side, label))
            .map(|(key, count)| (&key.2, *count))
            .collect();
        values.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (value, count) in values.into_iter().take(top) {
            let _new = series.insert(format!("__meta_type={side},{label}={value}"), count);
        }
    }
    series
}

#[test]
fn tqm_06_compare_counts_every_value_of_every_attribute_on_both_sides() {
    let filled = Filled::new();
    let (start, end) = (filled.first + 60 * SECOND, filled.first + 1_500 * SECOND);
    let ask = |q: &str| {
        let (from, to) = (filled.first / SECOND - 1, filled.first / SECOND + 1_801);
        filled.server.json(&format!("/api/metrics/query_range?q={}&start={from}&end={to}&step=1h", url(q)))
    };
    let counted = |answer: &Value| -> BTreeMap<String, f64> {
        let series = answered(answer).into_iter();
        let one = series.filter(|(labels, _)| !labels.starts_with("__meta_error"));
        one.map(|(labels, points)| (labels, points.into_values().sum())).collect()
    };
    let known_labels = |counts: BTreeMap<String, f64>| -> BTreeMap<String, f64> {
        counts
            .into_iter()
            .filter(|(labels, _)| !labels.contains("span.size") && !labels.contains("statusMessage"))
            .collect()
    };
    let within = |known: &Known| start < known.start && known.start <= end;
    let cases: [(&str, BTreeMap<String, f64>); 4] = [
        ("{} | compare({status = error})", compared(&filled, |_| true, |known| known.is_error, 10)),
        (
            "{span.code = 200} | compare({name = \"call 1\"}, 1)",
            compared(&filled, |known| known.code == Some(200), |known| known.name == "call 1", 1),
        ),
        ("{} | compare({})", compared(&filled, |_| true, |_| true, 10)),
        (
            "{} | compare({duration > 1ms}, 10, FROM, TO)",
            compared(
                &filled,
                |_| true,
                |known| within(known) && known.duration.is_some_and(|duration| 1_000_000 < duration),
                10,
            ),
        ),
    ];
    for (q, expected) in cases {
        let q = q.replace("FROM", &start.to_string()).replace("TO", &end.to_string());
        let answer = ask(&q);
        assert_eq!(known_labels(counted(&answer)), expected, "{q}");
        assert_eq!(answer["status"], "COMPLETE", "{q}");
        let notes: Vec<String> =
            answered(&answer).into_keys().filter(|labels| labels.starts_with("__meta_error")).collect();
        let note = |label: &str| format!("__meta_error=__too_many_values__,{label}=nil");
        assert!(notes.contains(&note("span.size")), "{q}: {notes:?}");
        let is_cut =
            expected.keys().filter(|labels| labels.starts_with("__meta_type=baseline,resource.service.name")).count()
                == 1;
        assert_eq!(notes.contains(&note("resource.service.name")), is_cut, "{q}: {notes:?}");
        for forbidden in ["duration=", "trace:id", "span:id", "nestedSet"] {
            assert!(answered(&answer).keys().all(|labels| !labels.contains(forbidden)), "{q}: {forbidden}");
        }
        let exemplars =
            answer["series"].as_array().expect("series").iter().filter_map(|series| series["exemplars"].as_array());
        assert!(0 < exemplars.map(Vec::len).sum::<usize>(), "{q}");
    }
}

#[test]
fn tqm_06_compare_has_a_point_for_every_interval() {
    let filled = Filled::new();
    let answer = answered(&filled.ask("{} | compare({status = error}) with(exemplars=false)", filled.window()));
    let points = &answer["__meta_type=selection,name=call 1"];
    assert_eq!(
        points.keys().copied().collect::<Vec<_>>(),
        ends(filled.window().0, filled.window().1).iter().map(|end| end / SECOND).collect::<Vec<_>>()
    );
    let (start, end) = filled.window();
    let errors = filled.meant(|known| known.is_error && known.name == "call 1");
    let counts = expected(&errors, Function { name: "count_over_time", field: "" }, &[], start, end);
    assert_eq!(points, &counts["__name__=count_over_time"]);
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
        ("q=%7B%7D%20%7C%20select(name)", "found the end, expected `|` and a metrics function"),
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
