//! `prometheus.WriteRequest` of remote write 1.0, compressed (`https://prometheus.io/docs/specs/prw/remote_write_spec/`).

use prost::Message;

use crate::query::promql::catalogue::Subject;
use crate::query::promql::exemplars::PromExemplar;
use crate::query::promql::labels::{BUCKET_BOUND, Labels, METRIC_NAME};
use crate::query::promql::series::Millis;
use crate::query::promql::totals::{Total, Totals, exemplar_millis, secs_of};

/// Series of one request, some hundred bytes each before they are compressed.
const SERIES_AT_ONCE: usize = 5_000;

#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TimeSeries {
    /// In order of their names.
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(super) samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub(super) exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    #[prost(int64, tag = "2")]
    pub(super) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(double, tag = "2")]
    pub(super) value: f64,
    #[prost(int64, tag = "3")]
    pub(super) timestamp: i64,
}

/// The bodies that bring all counters of an edge.
pub(super) fn requests(totals: &Totals) -> Vec<Vec<u8>> {
    let mut series: Vec<TimeSeries> = Vec::new();
    for ((subject, labels), total) in &totals.series {
        put(&mut series, *subject, labels, total, totals.until);
    }
    let body = |part: &[TimeSeries]| {
        let plain = WriteRequest { timeseries: part.to_vec() }.encode_to_vec();
        // Bodies are far below 4 GiB, which is all that can go wrong.
        snap::raw::Encoder::new().compress_vec(&plain).unwrap_or_default()
    };
    series.chunks(SERIES_AT_ONCE).map(body).collect()
}

fn put(series: &mut Vec<TimeSeries>, subject: Subject, labels: &Labels, total: &Total, at: Millis) {
    let mut one = |name: &str, bound: Option<&str>, value: f64, exemplar: Option<&PromExemplar>| {
        let labels = labels.clone().with(METRIC_NAME, name).with(BUCKET_BOUND, bound.unwrap_or_default());
        series.push(TimeSeries {
            labels: labels.iter().map(|(name, value)| label(name, value)).collect(),
            samples: vec![Sample { value, timestamp: at }],
            exemplars: exemplar.map(shown).into_iter().collect(),
        });
    };
    #[expect(clippy::cast_precision_loss, reason = "the form knows doubles alone")]
    let number = |count: u64| count as f64;
    if let Some(metric) = subject.counter() {
        one(metric.name, None, number(total.count), total.exemplar.as_ref());
    }
    if let Some(metric) = subject.failures() {
        one(metric.name, None, number(total.failed), None);
    }
    if let Some(metric) = subject.histogram() {
        for bucket in total.buckets() {
            let name = format!("{}_bucket", metric.name);
            one(&name, Some(bucket.bound), number(bucket.count), bucket.exemplar);
        }
        one(&format!("{}_count", metric.name), None, number(total.timed), None);
        one(&format!("{}_sum", metric.name), None, total.sum_secs(), None);
    }
}

fn label(name: &str, value: &str) -> Label {
    Label { name: name.to_owned(), value: value.to_owned() }
}

fn shown(one: &PromExemplar) -> Exemplar {
    Exemplar {
        labels: vec![label("span_id", &one.span_id.to_string()), label("trace_id", &one.trace_id.to_string())],
        value: secs_of(one.latency),
        timestamp: exemplar_millis(one),
    }
}
