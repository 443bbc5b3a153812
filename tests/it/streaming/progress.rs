//! What a search tells of itself on its way.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use spandrel::clock::Clock;
use spandrel::model::{TimeRange, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::{Query, SearchQuestion, TraceConditions};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;

use crate::tempo_search::{of_service, span};

use super::SECOND;

/// 2026-11-23T10:00:00Z
const NOW: u64 = 1_795_428_000_000_000_000;

fn at(hour: u64, minute: u64) -> u64 {
    NOW - 86_400 * SECOND + (hour * 60 + minute) * 60 * SECOND
}

/// Sealed partitions of the hours 1 to 4, each with traces of that hour at its minutes 10, 20 and 30: 11, 12, 13 to 41, 42, 43.
/// Trace 99 is in the partitions of hours 2 and 4, and begins at minute 25 of hour 2. Nothing is in memory.
fn hours(dir: &std::path::Path) -> Query {
    let (clock, counters) = (Clock::manual(UnixNanos(NOW)), Arc::new(Counters::default()));
    let store = Store::open(StoreConfig::keeping_all(dir), clock.clone(), Arc::clone(&counters)).expect("it opens");
    for hour in 1..=4_u8 {
        let partition = store.start_partition().expect("a partition");
        let of = |no: u8| span(hour * 10 + no, 1, at(hour.into(), u64::from(no) * 10), "work", Vec::new());
        let mut spans: Vec<Span> = (1..=3).map(of).collect();
        match hour {
            2 => spans.push(span(99, 1, at(2, 25), "work", Vec::new())),
            4 => spans.push(span(99, 2, at(4, 15), "work", Vec::new())),
            _ => {}
        }
        let request = ExportTraceServiceRequest { resource_spans: vec![of_service("shop", spans)] };
        let batch = decode(request.encode_to_vec(), &DecodeOptions::default()).expect("good spans").batch;
        store.push([(hour.into(), UnixNanos(NOW), Arc::new(batch))]);
        let _written = store.checkpoint(&store.freeze(&partition).expect("a head")).expect("a block");
        let _manifest = store.seal(&partition).expect("it seals");
    }
    let query = Query::new(clock, counters);
    query.attach(Arc::new(store));
    query
}

#[test]
fn traces_are_settled_once_everything_that_may_be_newer_was_looked_at() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let query = hours(dir.path());
    let searched = |traces_max| {
        let (range, trace) = (TimeRange::ALL, TraceConditions::default());
        let question =
            SearchQuestion { query: "{}".parse().expect("a query"), range, trace, traces_max, spans_per_set_max: 3 };
        let id = |trace: &spandrel::query::SearchTrace| trace.trace_id.0[15];
        let mut told = Vec::new();
        let answer = query.search_with(&question, &mut |progress| {
            assert_eq!(progress.jobs, 5, "memory and four partitions");
            told.push((progress.jobs_done, progress.settled.iter().map(|trace| id(trace)).collect::<Vec<_>>()));
        });
        let answer = answer.expect("an answer");
        assert_eq!(answer.jobs, 5);
        (told, answer.traces.iter().map(id).collect::<Vec<_>>())
    };
    let all = [43, 42, 41, 33, 32, 31, 23, 99, 22, 21, 13, 12, 11];
    let settled = |n: &[usize]| (1..).zip(n).map(|(done, n)| (done, all[..*n].to_vec())).collect::<Vec<_>>();
    assert_eq!(searched(20), (settled(&[0, 3, 6, 10]), all.to_vec()));
    assert_eq!(searched(8), (settled(&[0, 3, 6, 8]), all[..8].to_vec()));
    assert_eq!(searched(2), (settled(&[0, 2, 2, 2]), all[..2].to_vec()));
}
