//! `prometheus.WriteRequest` of remote write 1.0 (`https://prometheus.io/docs/specs/prw/remote_write_spec/`).

use prost::Message;

use crate::query::promql::exemplars::PromExemplar;
use crate::query::promql::totals::{Total, Totals, exemplar_millis, secs_of};

use super::super::series::{Series, Value};
use super::Histogram;

#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    /// In order of their names.
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

pub(super) fn request(totals: &Totals, series: &[Series<'_>]) -> WriteRequest {
    let written = |one: &Series<'_>| {
        let mut of = TimeSeries {
            labels: one.labels.iter().map(|(name, value)| label(name, value)).collect(),
            exemplars: one.exemplar.map(exemplar).into_iter().collect(),
            ..TimeSeries::default()
        };
        match one.value {
            Value::Number(value) => {
                of.samples.extend(one.zero_at.map(|timestamp| Sample { value: 0.0, timestamp }));
                of.samples.push(Sample { value, timestamp: totals.until });
            }
            Value::Native(total) => {
                of.histograms.extend(one.zero_at.map(|at| Histogram::of(&Total::default(), at, 0)));
                of.histograms.push(Histogram::of(total, totals.until, 0));
            }
        }
        of
    };
    WriteRequest { timeseries: series.iter().map(written).collect() }
}

fn label(name: &str, value: &str) -> Label {
    Label { name: name.to_owned(), value: value.to_owned() }
}

fn exemplar(one: &PromExemplar) -> Exemplar {
    Exemplar {
        labels: vec![label("span_id", &one.span_id.to_string()), label("trace_id", &one.trace_id.to_string())],
        value: secs_of(one.latency),
        timestamp: exemplar_millis(one),
    }
}
