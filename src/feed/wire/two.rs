//! `io.prometheus.write.v2.Request` of remote write 2.0 (`https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/`, 2.0-rc.4):
//! each text is sent once, each series says what it is and when it began to count.

use std::collections::HashMap;

use prost::Message;

use crate::query::promql::catalogue::{Metric, Part};
use crate::query::promql::exemplars::PromExemplar;
use crate::query::promql::totals::{Total, Totals, exemplar_millis, secs_of};

use super::super::series::{Series, Value};
use super::Histogram;

const COUNTER: i32 = 1;
const HISTOGRAM: i32 = 3;

/// Its numbers begin at 4: who takes it for a request of 1.0 finds nothing in it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    /// Each text once; the first one is empty.
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    /// Name and value in turn, in order of the names.
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Exemplar>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(int64, tag = "3")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

/// Without a unit: as a scrape of `/metrics/spans` has it.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
}

pub(super) fn request(totals: &Totals, series: &[Series<'_>]) -> Request {
    let mut symbols = Symbols::default();
    let timeseries = series.iter().map(|one| written(totals, one, &mut symbols)).collect();
    Request { symbols: symbols.texts, timeseries }
}

fn written(totals: &Totals, series: &Series<'_>, symbols: &mut Symbols) -> TimeSeries {
    let (timestamp, start_timestamp) = (totals.until, totals.since);
    let mut of = TimeSeries {
        labels_refs: series.labels.iter().flat_map(|(name, value)| symbols.pair(name, value)).collect(),
        exemplars: series.exemplar.map(|one| exemplar(one, symbols)).into_iter().collect(),
        metadata: Some(metadata(series.metric, symbols)),
        ..TimeSeries::default()
    };
    match series.value {
        Value::Number(value) => {
            let zero = |timestamp| Sample { value: 0.0, timestamp, start_timestamp };
            of.samples.extend(series.zero_at.map(zero));
            of.samples.push(Sample { value, timestamp, start_timestamp });
        }
        Value::Native(total) => {
            let zero = |at| Histogram::of(&Total::default(), at, start_timestamp);
            of.histograms.extend(series.zero_at.map(zero));
            of.histograms.push(Histogram::of(total, timestamp, start_timestamp));
        }
    }
    of
}

fn exemplar(one: &PromExemplar, symbols: &mut Symbols) -> Exemplar {
    let ids = [("span_id", one.span_id.to_string()), ("trace_id", one.trace_id.to_string())];
    Exemplar {
        labels_refs: ids.iter().flat_map(|(name, value)| symbols.pair(name, value)).collect(),
        value: secs_of(one.latency),
        timestamp: exemplar_millis(one),
    }
}

fn metadata(metric: &Metric, symbols: &mut Symbols) -> Metadata {
    let kind = if metric.part == Part::Histogram { HISTOGRAM } else { COUNTER };
    Metadata { kind, help_ref: symbols.at(metric.help) }
}

/// The texts of a request by their places.
struct Symbols {
    texts: Vec<String>,
    places: HashMap<String, u32>,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { texts: vec![String::new()], places: HashMap::from([(String::new(), 0)]) }
    }
}

impl Symbols {
    fn at(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        // A request has far fewer than 2^32 texts.
        let place = u32::try_from(self.texts.len()).unwrap_or(0);
        self.texts.push(text.to_owned());
        let _new = self.places.insert(text.to_owned(), place);
        place
    }

    fn pair(&mut self, name: &str, value: &str) -> [u32; 2] {
        [self.at(name), self.at(value)]
    }
}
