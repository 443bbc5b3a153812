//! What metrics queries must answer, counted from plain structs by the definition of intervals.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::Value;

use crate::support::{Random, TestServer};

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const STEP: u64 = 30 * SECOND;
const SPANS: u64 = 3_000;

/// A span that was sent.
pub(super) struct Known {
    pub(super) service: &'static str,
    pub(super) name: String,
    pub(super) is_error: bool,
    /// Of the attribute `code`, which some lack.
    pub(super) code: Option<i64>,
    /// Of the attribute `size`: whole or not, of any sign; of some a text, of some nothing.
    pub(super) size: Option<any_value::Value>,
    /// Of its resource: `weight`.
    pub(super) weight: i64,
    pub(super) start: u64,
    /// Some end before they start.
    pub(super) duration: Option<u64>,
}

impl Known {
    /// A numeric field as it is counted: durations in nanoseconds.
    fn number(&self, field: &str) -> Option<f64> {
        match field {
            "duration" => Some(self.duration? as f64),
            "span.code" => Some(self.code? as f64),
            ".weight" | "resource.weight" => Some(self.weight as f64),
            "span.size" => match self.size.as_ref()? {
                any_value::Value::IntValue(number) => Some(*number as f64),
                any_value::Value::DoubleValue(number) => Some(*number),
                _ => None,
            },
            _ => None,
        }
    }

    /// A field as labels show it.
    pub(super) fn label(&self, field: &str) -> String {
        match field {
            "name" => self.name.clone(),
            "status" => if self.is_error { "error" } else { "unset" }.to_owned(),
            "kind" => "server".to_owned(),
            "span.code" => self.code.map_or("nil".to_owned(), |code| code.to_string()),
            "resource.service.name" => self.service.to_owned(),
            "resource.weight" => self.weight.to_string(),
            _ => "nil".to_owned(),
        }
    }
}

pub(super) fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Sends spans from `first` on, over half an hour.
pub(super) fn filled(server: &TestServer, first: u64) -> Vec<Known> {
    let mut random = Random(5);
    let size = |random: &mut Random| match random.below(6) {
        0 => None,
        1 => Some(any_value::Value::StringValue("large".to_owned())),
        2 => Some(any_value::Value::DoubleValue(random.below(1_000_000) as f64 / 7.0 - 50_000.0)),
        3 => Some(any_value::Value::DoubleValue(random.pick(&[f64::NAN, 0.0, -0.5, 1e200]))),
        _ => Some(any_value::Value::IntValue(i64::try_from(random.below(1 << 40)).expect("small") - (1 << 20))),
    };
    let known = |_| {
        let service = random.pick(&["cart", "checkout", "stock"]);
        Known {
            service,
            name: format!("call {}", random.below(3)),
            is_error: random.one_in(5),
            code: (!random.one_in(3)).then(|| random.pick(&[200, 404, 500])),
            size: size(&mut random),
            weight: i64::try_from(service.len()).expect("short"),
            start: first + random.below(1_800 * SECOND),
            duration: (!random.one_in(20)).then(|| 1 << random.below(33) | 1),
        }
    };
    let all: Vec<Known> = (0..SPANS).map(known).collect();
    for (piece, some) in (0..).zip(all.chunks(100)) {
        let resource_spans =
            (0..).zip(some).map(|(no, known): (u64, &Known)| resource_spans(piece * 100 + no + 1, known));
        server.deliver(&ExportTraceServiceRequest { resource_spans: resource_spans.collect() });
    }
    all
}

fn resource_spans(id: u64, known: &Known) -> ResourceSpans {
    let code = known.code.map(|code| attribute("code", any_value::Value::IntValue(code)));
    let size = known.size.clone().map(|size| attribute("size", size));
    let span = Span {
        trace_id: u128::from(id).to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        name: known.name.clone(),
        kind: 2,
        start_time_unix_nano: known.start,
        end_time_unix_nano: known.duration.map_or(known.start - 1, |duration| known.start + duration),
        attributes: code.into_iter().chain(size).collect(),
        status: Some(Status { code: if known.is_error { 2 } else { 0 }, ..Status::default() }),
        ..Span::default()
    };
    let name = attribute("service.name", any_value::Value::StringValue(known.service.to_owned()));
    let weight = attribute("weight", any_value::Value::IntValue(known.weight));
    let resource = Some(Resource { attributes: vec![name, weight], ..Resource::default() });
    let scope = InstrumentationScope {
        attributes: vec![attribute("level", any_value::Value::IntValue(3))],
        ..InstrumentationScope::default()
    };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: vec![span], ..ScopeSpans::default() }];
    ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
}

/// Values by labels (as text) and end of the interval in seconds.
pub(super) type Numbers = BTreeMap<String, BTreeMap<u64, f64>>;

pub(super) fn labels_of(series: &Value) -> String {
    let one = |label: &Value| {
        let value = label["value"].as_object().expect("a value").iter().next().expect("one form");
        format!("{}={}", label["key"].as_str().expect("a key"), value.1.to_string().trim_matches('"'))
    };
    series["labels"].as_array().expect("labels").iter().map(one).collect::<Vec<_>>().join(",")
}

pub(super) fn answered(answer: &Value) -> Numbers {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).expect("digits");
    let of = |series: &Value| {
        let samples = series["samples"].as_array().expect("samples");
        let points = samples
            .iter()
            .map(|point| (number(&point["timestampMs"]) / 1_000, point["value"].as_f64().expect("a number")));
        (labels_of(series), points.collect())
    };
    let series = answer["series"].as_array().expect("series");
    let all: Numbers = series.iter().map(of).collect();
    assert_eq!(all.len(), series.len(), "no two series have the same labels");
    all
}

/// A function over time, and the field that it is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) field: &'static str,
}

impl Function {
    pub(super) fn text(self) -> String {
        let quantile = if self.name == "quantile_over_time" { ", 0.5" } else { "" };
        format!("{}({}{quantile})", self.name, self.field)
    }

    pub(super) fn counts(self) -> bool {
        ["rate", "count_over_time", "histogram_over_time"].contains(&self.name)
    }

    /// Seconds, or 1.
    fn unit(self) -> f64 {
        if self.field == "duration" { 1e9 } else { 1.0 }
    }

    fn of(self, numbers: &[f64]) -> f64 {
        let count = numbers.len() as f64;
        let sum = || numbers.iter().sum::<f64>();
        let value = match self.name {
            "rate" => return count / 30.0,
            "count_over_time" | "histogram_over_time" => return count,
            "min_over_time" => numbers.iter().copied().fold(f64::INFINITY, f64::min),
            "max_over_time" => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            "sum_over_time" => sum(),
            "avg_over_time" => sum() / count,
            _ => {
                let mut sorted = numbers.to_vec();
                sorted.sort_by(f64::total_cmp);
                sorted[sorted.len().div_ceil(2) - 1]
            }
        };
        value / self.unit()
    }
}

/// The ends of the intervals of a range, in nanoseconds.
pub(super) fn ends(start: u64, end: u64) -> Vec<u64> {
    let (first, last) = (start / STEP * STEP, end.div_ceil(STEP) * STEP);
    (0..=(last - first) / STEP).map(|at| first + at * STEP).collect()
}

/// The labels of a group, and `__bucket` and the like behind them.
fn labels(known: &Known, by: &[&str], more: Option<String>, name: &str) -> String {
    let of_group = by.iter().map(|field| format!("{field}={}", known.label(field)));
    let labels: Vec<String> = of_group.chain(more).collect();
    if labels.is_empty() { format!("__name__={name}") } else { labels.join(",") }
}

pub(super) fn expected(spans: &[&Known], function: Function, by: &[&str], start: u64, end: u64) -> Numbers {
    let ends = ends(start, end);
    let mut groups: BTreeMap<String, BTreeMap<u64, Vec<f64>>> = BTreeMap::new();
    for known in spans {
        let at = known.start.div_ceil(STEP) * STEP;
        let number = if function.field.is_empty() { Some(0.0) } else { known.number(function.field) };
        let Some(number) = number.filter(|number| ends.contains(&at) && !number.is_nan()) else { continue };
        let more = match function.name {
            "histogram_over_time" if number < 2.0 => continue,
            "histogram_over_time" => {
                let power = 2_f64.powf(number.log2().ceil());
                Some(format!("__bucket={}", Value::from(power / function.unit())))
            }
            "quantile_over_time" => Some("p=0.5".to_owned()),
            _ => None,
        };
        let labels = labels(known, by, more, function.name);
        groups.entry(labels).or_default().entry(at).or_default().push(number);
    }
    let series = |cells: BTreeMap<u64, Vec<f64>>| -> BTreeMap<u64, f64> {
        let zeros = ends.iter().filter(|_| function.counts()).map(|end| (end / SECOND, 0.0));
        zeros.chain(cells.iter().map(|(end, numbers)| (end / SECOND, function.of(numbers)))).collect()
    };
    groups.into_iter().map(|(labels, cells)| (labels, series(cells))).collect()
}

/// The same series with the same points: `slack` is how far above the expected number one may lie, as a share of it.
#[track_caller]
pub(super) fn assert_same(found: &Numbers, expected: &Numbers, slack: f64, q: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{q}");
    for (labels, points) in expected {
        let found = &found[labels];
        assert_eq!(found.keys().collect::<Vec<_>>(), points.keys().collect::<Vec<_>>(), "{q} {labels}");
        for (at, value) in points {
            let rounding = value.abs() * 1e-9 + 1e-12;
            let is_right = value - rounding <= found[at] && found[at] <= value + value.abs() * slack + rounding;
            assert!(is_right, "{q} {labels} at {at}: {} for {value}", found[at]);
        }
    }
}

pub(super) fn url(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    });
    escaped.collect()
}
