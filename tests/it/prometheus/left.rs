//! Counters of spans that have left: their roll-ups have longer slots.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use spandrel::clock::Clock;
use spandrel::model::{DurationNanos, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::Query;
use spandrel::query::promql::series::Samples;
use spandrel::query::promql::{Instants, PromValue};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;
use tempfile::TempDir;

use super::sent::{SECOND, Sent};
use crate::support::Random;

/// 2026-11-23T00:00:00Z
const START: u64 = 1_795_392_000_000_000_000;
const HOUR: u64 = 3_600 * SECOND;
const MINUTE: i64 = 60_000;

/// Three hours of spans, of which roll-ups are left; and when each of them started.
fn days_after() -> (TempDir, Query, Vec<u64>) {
    let (dir, clock, counters) =
        (tempfile::tempdir().expect("a directory"), Clock::manual(UnixNanos(START)), Counters::default());
    let counters = Arc::new(counters);
    let query = Query::new(clock.clone(), Arc::clone(&counters));
    let config = StoreConfig { retention: Some(DurationNanos(HOUR)), ..StoreConfig::keeping_all(dir.path()) };
    let store = Arc::new(Store::open(config, clock.clone(), counters).expect("it opens"));
    query.attach(Arc::clone(&store));
    let (mut random, mut starts) = (Random(5), Vec::new());
    for hour in 0..3 {
        let partition = store.start_partition().expect("there is space");
        let mut spans = Vec::new();
        for no in 0..400 {
            let start = START + hour * HOUR + random.below(HOUR);
            starts.push(start);
            let (id, kind, status, latency) = (hour * 1_000 + no + 1, 2, 0, Some(SECOND / 10));
            let (name, attributes) = ("work".to_owned(), Vec::new());
            spans.push(Sent {
                trace: id,
                id,
                parent: 0,
                namespace: "",
                service: "shop",
                name,
                kind,
                status,
                start,
                latency,
                attributes,
            });
        }
        clock.set(UnixNanos(START + (hour + 1) * HOUR));
        let request = ExportTraceServiceRequest { resource_spans: spans.iter().map(Sent::message).collect() };
        let batch = decode(request.encode_to_vec(), &DecodeOptions::default()).expect("good spans").batch;
        store.push([(hour + 1, clock.now(), Arc::new(batch))]);
        let frozen = store.freeze(&partition).expect("it has spans");
        let _done = store.checkpoint(&frozen).expect("it can be written");
        let _manifest = store.seal(&partition).expect("it verifies");
    }
    clock.set(UnixNanos(START + 24 * HOUR));
    let _dropped = store.enforce_retention().expect("it can be done");
    (dir, query, starts)
}

/// Values of the one series of a query, and whether something is said to be missing.
fn values(query: &Query, text: &str, instants: Instants) -> (Vec<f64>, bool) {
    let answer = query.promql(&text.parse().expect("it is PromQL"), instants).expect("an answer");
    let PromValue::Vector(series) = answer.value else { panic!("{text}: no vector") };
    let Some(Samples::Floats(values)) = series.first().map(|one| &one.samples) else { panic!("{text}: no numbers") };
    (values.iter().map(|value| value.unwrap_or(0.0)).collect(), !answer.warnings.is_empty())
}

#[test]
fn prom_5_6_counters_of_roll_ups_are_exact_at_their_edges_and_the_same_wherever_a_range_begins() {
    let (_dir, query, starts) = days_after();
    let millis = |nanos: u64| i64::try_from(nanos / 1_000_000).expect("small");
    let (first, last) = (millis(START), millis(START + 3 * HOUR));
    let before = |at: i64| starts.iter().filter(|start| millis(**start) < at).count() as f64;
    let calls = "sum(traces_spanmetrics_calls_total)";
    let at = |at: i64| values(&query, calls, Instants::Instant(at)).0;
    for begin in [first + 7 * MINUTE, first + 7 * MINUTE + 20_000, first + 61 * MINUTE + 30_000] {
        let step = 50_000;
        let (found, is_partial) = values(&query, calls, Instants::Range { start: begin, end: last, step });
        assert!(is_partial, "slots are longer than ten seconds: a warning says so");
        assert!(found.is_sorted());
        for (no, value) in (0..).zip(&found) {
            let now = begin + no * step;
            let floor = now / MINUTE * MINUTE;
            let bounds = before(floor)..=before(if now == floor { now } else { floor + MINUTE });
            assert!(bounds.contains(value), "{value} at {now} of a range from {begin}: {bounds:?}");
            if no % 20 == 0 {
                assert_eq!(at(now), [*value], "an instant has what the range has");
            }
        }
    }
    let grown =
        values(&query, "sum(increase(traces_spanmetrics_calls_total[10m]))", Instants::Instant(first + 70 * MINUTE));
    assert_eq!(grown.0, [before(first + 70 * MINUTE) - before(first + 60 * MINUTE)]);
    assert_eq!(at(last), [1_200.0]);
}
