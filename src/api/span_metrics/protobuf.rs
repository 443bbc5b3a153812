//! `io.prometheus.client.MetricFamily`, length-delimited: the form in which Prometheus scrapes native histograms.

use prost::Message;

use crate::query::promql::catalogue::Metric;
use crate::query::promql::exemplars::PromExemplar;
use crate::query::promql::labels::Labels;
use crate::query::promql::series::Millis;
use crate::query::promql::sparse::{SCHEMA, Sparse};
use crate::query::promql::totals::{Total, Totals, exemplar_millis, secs_of};

const COUNTER: i32 = 0;
const HISTOGRAM: i32 = 4;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<MetricRow>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricRow {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<Exemplar>,
    #[prost(message, optional, tag = "3")]
    created_timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    cumulative_count: u64,
    #[prost(double, tag = "2")]
    upper_bound: f64,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Exemplar>,
}

/// A run of buckets: how far behind the one before it begins, and how many there are.
#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    created_timestamp: Option<Timestamp>,
}

pub(super) fn written(totals: &Totals) -> Vec<u8> {
    let mut out = Vec::new();
    for subject in totals.subjects() {
        let of_subject = || totals.series.iter().filter(move |((known, _), _)| *known == subject);
        let mut put = |metric: &Metric, kind: i32, metrics: Vec<MetricRow>| {
            let (name, help) = (metric.name.to_owned(), metric.help.to_owned());
            out.extend(MetricFamily { name, help, kind, metric: metrics }.encode_length_delimited_to_vec());
        };
        let created = Some(timestamp(totals.since));
        if let Some(metric) = subject.counter() {
            let rows = of_subject()
                .map(|((_, labels), total)| counter(labels, total.count, total.exemplar.as_ref(), created.clone()));
            put(metric, COUNTER, rows.collect());
        }
        if let Some(metric) = subject.failures() {
            let rows = of_subject().map(|((_, labels), total)| counter(labels, total.failed, None, created.clone()));
            put(metric, COUNTER, rows.collect());
        }
        if let Some(metric) = subject.histogram() {
            let rows = of_subject().map(|((_, labels), total)| MetricRow {
                label: pairs(labels),
                counter: None,
                histogram: Some(histogram(total, created.clone())),
            });
            put(metric, HISTOGRAM, rows.collect());
        }
    }
    out
}

fn pairs(labels: &Labels) -> Vec<LabelPair> {
    labels.iter().map(|(name, value)| LabelPair { name: name.to_owned(), value: value.to_owned() }).collect()
}

fn timestamp(at: Millis) -> Timestamp {
    let nanos = i32::try_from(at.rem_euclid(1_000) * 1_000_000).unwrap_or(0);
    Timestamp { seconds: at.div_euclid(1_000), nanos }
}

fn exemplar(one: &PromExemplar) -> Exemplar {
    let label = |name: &str, value: String| LabelPair { name: name.to_owned(), value };
    Exemplar {
        label: vec![label("trace_id", one.trace_id.to_string()), label("span_id", one.span_id.to_string())],
        value: secs_of(one.latency),
        timestamp: Some(timestamp(exemplar_millis(one))),
    }
}

fn counter(labels: &Labels, value: u64, shown: Option<&PromExemplar>, created: Option<Timestamp>) -> MetricRow {
    #[expect(clippy::cast_precision_loss, reason = "the form knows doubles alone")]
    let value = value as f64;
    let counter = Counter { value, exemplar: shown.map(exemplar), created_timestamp: created };
    MetricRow { label: pairs(labels), counter: Some(counter), histogram: None }
}

fn histogram(total: &Total, created: Option<Timestamp>) -> Histogram {
    let bucket = total.buckets().map(|octave| Bucket {
        cumulative_count: octave.count,
        upper_bound: octave.secs,
        exemplar: octave.exemplar.map(exemplar),
    });
    let bucket = bucket.collect();
    let sparse = Sparse::of(&total.exponential);
    let positive_span = sparse.runs.iter().map(|run| BucketSpan { offset: run.offset, length: run.length });
    Histogram {
        sample_count: total.timed,
        sample_sum: total.sum_secs(),
        bucket,
        schema: SCHEMA,
        zero_threshold: 0.0,
        zero_count: 0,
        positive_span: positive_span.collect(),
        positive_delta: sparse.deltas,
        created_timestamp: created,
    }
}
