//! The bodies of remote write, compressed: `prometheus.WriteRequest` of 1.0 and `io.prometheus.write.v2.Request` of 2.0. Native
//! histograms are the same message in both.

mod one;
mod two;

use prost::Message;

use crate::query::promql::series::Millis;
use crate::query::promql::sparse::{SCHEMA, Sparse};
use crate::query::promql::totals::{Total, Totals};

use super::series::Series;

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    One,
    Two,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            // Receivers of 1.0 need not know the longer text for it.
            Self::One => "application/x-protobuf",
            Self::Two => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// Of `X-Prometheus-Remote-Write-Version`.
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::One => "0.1.0",
            Self::Two => "2.0.0",
        }
    }

    /// The body that brings some series of an edge.
    pub(super) fn body(self, totals: &Totals, series: &[Series<'_>]) -> Vec<u8> {
        let plain = match self {
            Self::One => one::request(totals, series).encode_to_vec(),
            Self::Two => two::request(totals, series).encode_to_vec(),
        };
        // Bodies are far below 4 GiB, which is all that can go wrong.
        snap::raw::Encoder::new().compress_vec(&plain).unwrap_or_default()
    }
}

/// Without a reset hint: a receiver compares each one with the one before.
#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count_int: u64,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    zero_count_int: Option<u64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    /// Of 2.0 alone.
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl Histogram {
    fn of(total: &Total, at: Millis, start_timestamp: Millis) -> Self {
        let sparse = Sparse::of(&total.exponential);
        let spans = sparse.runs.iter().map(|run| BucketSpan { offset: run.offset, length: run.length });
        Self {
            count_int: total.timed,
            sum: total.sum_secs(),
            schema: SCHEMA,
            // Latencies of 0 are counted in the bucket of 1 ns.
            zero_threshold: 0.0,
            zero_count_int: Some(0),
            positive_spans: spans.collect(),
            positive_deltas: sparse.deltas,
            timestamp: at,
            start_timestamp,
        }
    }
}
