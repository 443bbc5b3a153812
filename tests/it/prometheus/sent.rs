//! What was sent, and what PromQL must say of it: counted from plain structs, by the edges of slots.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::Value;

use crate::support::{Random, TestServer, now, post};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// Milliseconds of a slot.
const SLOT: i64 = 10_000;
const SPANS: u64 = 2_000;

/// A span that was sent.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) trace: u64,
    pub(crate) id: u64,
    pub(crate) parent: u64,
    pub(crate) namespace: &'static str,
    pub(crate) service: &'static str,
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) status: i32,
    pub(crate) start: u64,
    /// Those without one end before they start, have no start but an end then, or no end.
    pub(crate) latency: Option<u64>,
    pub(crate) attributes: Vec<(&'static str, &'static str)>,
}

pub(crate) const SPAN_LABELS: [&str; 4] = ["service", "span_kind", "span_name", "status_code"];

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

impl Sent {
    pub(crate) fn label(&self, name: &str) -> String {
        let kinds = ["INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
        match name {
            "service" => self.service.to_owned(),
            "span_name" => self.name.clone(),
            "span_kind" => format!("SPAN_KIND_{}", kinds[self.kind as usize]),
            "status_code" => format!("STATUS_CODE_{}", ["UNSET", "OK", "ERROR"][self.status as usize]),
            _ => String::new(),
        }
    }

    pub(crate) fn message(&self) -> ResourceSpans {
        let (start, end) = match (self.latency, self.id % 3) {
            (Some(latency), _) => (self.start, self.start + latency),
            (None, 0) => (self.start, self.start - 1),
            (None, 1) => (0, self.start),
            (None, _) => (self.start, 0),
        };
        let id = |id: u64| if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
        let span = Span {
            trace_id: u128::from(self.trace).to_be_bytes().to_vec(),
            span_id: id(self.id),
            parent_span_id: id(self.parent),
            name: self.name.clone(),
            kind: self.kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes: self.attributes.iter().map(|(key, value)| text(key, value)).collect(),
            status: Some(Status { code: self.status, ..Status::default() }),
            ..Span::default()
        };
        let of_resource = [("service.name", self.service), ("service.namespace", self.namespace)];
        let of_resource = of_resource.into_iter().filter(|(_, value)| !value.is_empty());
        let attributes = of_resource.map(|(key, value)| text(key, value)).collect();
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource = Some(Resource { attributes, ..Resource::default() });
        ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
    }
}

pub(crate) fn send(server: &TestServer, spans: &[Sent]) {
    server.deliver(&ExportTraceServiceRequest { resource_spans: spans.iter().map(Sent::message).collect() });
}

/// A server that writes blocks and seals partitions while a test fills it.
pub(crate) fn busy_server() -> TestServer {
    TestServer::with(|config| {
        config.ingest.checkpoint_spans = 300;
        config.ingest.partition_bytes_max = 15_000;
    })
}

/// An hour ago, at the edge of a minute.
pub(crate) fn an_hour_ago() -> u64 {
    now().0 / (60 * SECOND) * (60 * SECOND) - 3_600 * SECOND
}

/// Spans of half an hour from `first` on: of all kinds and states, some at the very edges of slots and of buckets.
pub(crate) fn spans(first: u64) -> Vec<Sent> {
    let mut random = Random(7);
    let span = |no| {
        let start = first + random.below(1_800 * SECOND);
        let bound = 2 + random.below(39);
        let latency = match random.below(4) {
            0 => edges_nanos()[random.below(193) as usize] - random.below(2),
            1 => random.below(1 << bound),
            _ => SECOND / 1_000 + random.below(400_000_000),
        };
        Sent {
            trace: no,
            id: no,
            parent: u64::MAX,
            namespace: random.pick(&["", "eu"]),
            service: random.pick(&["cart", "checkout", "stock"]),
            name: format!("call {}", random.below(3)),
            kind: i32::try_from(random.below(6)).expect("small"),
            status: random.pick(&[0, 0, 1, 2]),
            start: if random.one_in(6) { start / (10 * SECOND) * (10 * SECOND) } else { start },
            latency: (!random.one_in(20)).then_some(latency),
            attributes: Vec::new(),
        }
    };
    (1..=SPANS).map(span).collect()
}

/// The first nanoseconds behind the finite steps of the classic layout.
pub(crate) fn edges_nanos() -> Vec<u64> {
    let split = (13..=36_u64).flat_map(|octave| (0..8).map(move |step| (1 << octave) / 8 * (8 + step)));
    split.chain([1 << 37]).collect()
}

/// The 194 texts of `le`, ascending.
pub(crate) fn bounds() -> Vec<String> {
    let text = |nanos: u64| format!("{}.{:09}", nanos / SECOND, nanos % SECOND);
    let texts = edges_nanos().into_iter().map(|edge| text(edge - 1).trim_end_matches('0').to_owned());
    texts.chain(["+Inf".to_owned()]).collect()
}

/// Position of the first bound that is not below a latency.
pub(crate) fn bound_of(latency: u64) -> usize {
    edges_nanos().into_iter().filter(|edge| *edge <= latency).count()
}

/// The cell of a native histogram: eight for each power of two, those below 4,096 ns as wide as the ones above.
fn cell_of(latency: u64) -> String {
    let width = latency.max(4_096).ilog2() - 3;
    let low = latency >> width << width;
    let edge = |nanos: u64| (nanos as f64 - 1.0) / 1e9;
    format!("({}, {}]", edge(low), edge(low + (1 << width)))
}

/// A metric of spans or of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Of all, whether they have a latency or not; the others are of those that have.
    Total,
    Count,
    Sum,
    Buckets,
    Native,
}

/// What is counted: when, under which labels, how long it took.
pub(crate) struct Counted {
    pub(crate) labels: BTreeMap<&'static str, String>,
    pub(crate) start: u64,
    pub(crate) latency: Option<u64>,
}

/// The spans that count.
pub(crate) fn counted<'a>(spans: impl IntoIterator<Item = &'a Sent>) -> Vec<Counted> {
    let of = |span: &Sent| {
        let labels = SPAN_LABELS.map(|name| (name, span.label(name))).into();
        Counted { labels, start: span.start, latency: span.latency }
    };
    spans.into_iter().map(of).collect()
}

/// Values by labels (as text) and instant in milliseconds. A native histogram has one for each of its parts.
pub(crate) type Numbers = BTreeMap<String, BTreeMap<i64, f64>>;

pub(crate) fn labels_text<K: AsRef<str>, V: AsRef<str>>(labels: impl IntoIterator<Item = (K, V)>) -> String {
    let pairs = labels.into_iter().filter(|(_, value)| !value.as_ref().is_empty());
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{}={}", name.as_ref(), value.as_ref())).collect();
    pairs.join(",")
}

/// What a part says of these latencies: more labels, or the name of the part of a histogram, and the number.
fn values(part: Part, latencies: &[u64]) -> Vec<(Option<String>, &'static str, String, f64)> {
    let count = latencies.len() as f64;
    let sum = latencies.iter().map(|latency| u128::from(*latency)).sum::<u128>() as f64 / 1e9;
    match part {
        Part::Total | Part::Count => vec![(None, "", String::new(), count)],
        Part::Sum => vec![(None, "", String::new(), sum)],
        Part::Buckets => {
            let positions: Vec<usize> = latencies.iter().map(|latency| bound_of(*latency)).collect();
            let below = |at| positions.iter().filter(|position| **position <= at).count() as f64;
            bounds().into_iter().enumerate().map(|(at, le)| (Some(le), "", String::new(), below(at))).collect()
        }
        Part::Native => {
            let mut cells: BTreeMap<String, f64> = BTreeMap::new();
            for latency in latencies {
                *cells.entry(cell_of(*latency)).or_default() += 1.0;
            }
            let cells = cells.into_iter().map(|(cell, count)| (None, "|", cell, count));
            let whole = [(None, "|", "count".to_owned(), count), (None, "|", "sum".to_owned(), sum)];
            whole.into_iter().chain(cells).collect()
        }
    }
}

/// How a counter is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    /// As it is, from the first span on.
    Raw,
    /// What it grew by in so many milliseconds.
    Increase(i64),
    /// The same for each second.
    Rate(i64),
}

/// What a metric must be at these instants: by groups, or by series with the name `metric`.
pub(crate) fn expected(
    all: &[Counted],
    (metric, part): (&str, Part),
    over: Over,
    by: Option<&[&str]>,
    instants: &[i64],
) -> Numbers {
    let mut groups: BTreeMap<BTreeMap<&str, String>, Vec<&Counted>> = BTreeMap::new();
    for one in all {
        let stays = |name: &str| by.is_none_or(|by| by.contains(&name));
        let labels = one.labels.iter().filter(|(name, _)| stays(name)).map(|(name, value)| (*name, value.clone()));
        let mut labels: BTreeMap<&str, String> = labels.collect();
        if by.is_none() && matches!(over, Over::Raw) {
            let _new = labels.insert("__name__", metric.to_owned());
        }
        groups.entry(labels).or_default().push(one);
    }
    let edge = |at: i64| u64::try_from(at.div_euclid(SLOT) * SLOT).expect("after 1970") * 1_000_000;
    let mut numbers = Numbers::new();
    for (labels, group) in groups {
        for at in instants {
            let (from, factor) = match over {
                Over::Raw => (0, 1.0),
                Over::Increase(range) => (edge(at - range), 1.0),
                Over::Rate(range) => (edge(at - range), 1e3 / range as f64),
            };
            let within = group.iter().filter(|one| (from..edge(*at)).contains(&one.start));
            let counts = within.filter(|one| part == Part::Total || one.latency.is_some());
            let latencies: Vec<u64> = counts.map(|one| one.latency.unwrap_or(0)).collect();
            if latencies.is_empty() {
                continue;
            }
            for (le, mark, of_histogram, value) in values(part, &latencies) {
                let mut labels = labels.clone();
                if let Some(le) = le {
                    let _new = labels.insert("le", le);
                }
                let text = format!("{}{mark}{of_histogram}", labels_text(labels));
                let _new = numbers.entry(text).or_default().insert(*at, value * factor);
            }
        }
    }
    numbers
}

/// The numbers of an answer.
pub(crate) fn answered(answer: &Value) -> Numbers {
    assert_eq!(answer["status"], "success", "{answer}");
    let number =
        |value: &Value| -> f64 { value.as_str().and_then(|text| text.parse().ok()).expect("a number as text") };
    let mut numbers = Numbers::new();
    let mut set = |labels: String, at: i64, value: f64| {
        let twice = numbers.entry(labels).or_default().insert(at, value);
        assert!(twice.is_none(), "no two series have the same labels: {answer}");
    };
    for series in answer["data"]["result"].as_array().expect("series") {
        let metric = series["metric"].as_object().expect("labels");
        let labels = labels_text(metric.iter().map(|(name, value)| (name, value.as_str().expect("a text"))));
        let forms = [("values", true), ("value", false), ("histograms", true), ("histogram", false)];
        let (form, is_list) = forms.into_iter().find(|(form, _)| series.get(form).is_some()).expect("points");
        let one = std::slice::from_ref(&series[form]);
        for point in if is_list { series[form].as_array().expect("points") } else { one } {
            let at = (point[0].as_f64().expect("seconds") * 1e3).round() as i64;
            let Some(histogram) = point[1].as_object() else {
                set(labels.clone(), at, number(&point[1]));
                continue;
            };
            for part in ["count", "sum"] {
                set(format!("{labels}|{part}"), at, number(&histogram[part]));
            }
            for cell in histogram["buckets"].as_array().expect("cells") {
                assert_eq!(cell[0], 0, "above the lower bound, to the upper one");
                set(format!("{labels}|({}, {}]", number(&cell[1]), number(&cell[2])), at, number(&cell[3]));
            }
        }
    }
    numbers
}

/// The same without zeros: a counter that did not move.
pub(crate) fn moved(mut numbers: Numbers) -> Numbers {
    for points in numbers.values_mut() {
        points.retain(|_, value| *value != 0.0);
    }
    numbers.retain(|_, points| !points.is_empty());
    numbers
}

#[track_caller]
pub(crate) fn assert_same(found: &Numbers, expected: &Numbers, query: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{query}");
    for (labels, points) in expected {
        let found = &found[labels];
        assert_eq!(found.keys().collect::<Vec<_>>(), points.keys().collect::<Vec<_>>(), "{query} {labels}");
        for (at, value) in points {
            let is_same = (found[at] - value).abs() <= value.abs() * 1e-9;
            assert!(is_same, "{query} {labels} at {at}: {} for {value}", found[at]);
        }
    }
}

pub(crate) fn secs(millis: i64) -> String {
    format!("{}.{:03}", millis / 1_000, millis % 1_000)
}

pub(crate) fn encoded(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// POST of a form, as Grafana asks.
pub(crate) fn ask(server: &TestServer, path: &str, pairs: &[(&str, &str)]) -> Value {
    let url = format!("http://{}/api/v1/{path}", server.addresses.http);
    let answer = post(&url, &[("content-type", "application/x-www-form-urlencoded")], encoded(pairs).as_bytes());
    assert_eq!(answer.status, 200, "{pairs:?}: {}", answer.text());
    answer.json()
}

/// Evenly spaced instants in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) n: i64,
}

impl Grid {
    pub(crate) fn instants(self) -> Vec<i64> {
        (0..self.n).map(|no| self.start + no * self.step).collect()
    }

    pub(crate) fn ask(self, server: &TestServer, query: &str) -> Value {
        let (end, step) = (self.start + (self.n - 1) * self.step, secs(self.step));
        let pairs = [("query", query), ("start", &secs(self.start)), ("end", &secs(end)), ("step", &step)];
        ask(server, "query_range", &pairs)
    }
}

pub(crate) fn at_instant(server: &TestServer, query: &str, at: i64) -> Value {
    ask(server, "query", &[("query", query), ("time", &secs(at))])
}
