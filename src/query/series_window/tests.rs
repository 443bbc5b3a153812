use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::clock::Clock;
use crate::latency::Bucket;
use crate::model::samples::{Sample, batch};
use crate::store::{Store, StoreConfig};
use crate::telemetry::Counters;

/// 2026-11-23T10:00:00Z
const NOW: UnixNanos = UnixNanos(1_795_428_000_000_000_000);
const MINUTE: u64 = 60_000_000_000;
const SERVICES: [&str; 3] = ["cart", "checkout", "payment"];
const NAMES: [&str; 3] = ["GET /", "POST /pay", "work"];

/// Spans by (service, name, kind, status), each with its start and bucket.
type Exact = BTreeMap<(String, String, SpanKind, SpanStatus), Vec<(u64, Bucket)>>;

fn query(dir: &Path) -> (Query, Arc<Store>) {
    let config = StoreConfig { open_partitions_max: 2, ..StoreConfig::keeping_all(dir) };
    let (clock, counters) = (Clock::manual(NOW), Arc::new(Counters::default()));
    let store = Arc::new(Store::open(config, clock.clone(), Arc::clone(&counters)).unwrap());
    let query = Query::new(clock, counters);
    query.attach(Arc::clone(&store));
    (query, store)
}

/// `n` spans of the three hours before `NOW`, one after the other through all series.
fn spans(n: u64, first: u64, exact: &mut Exact) -> Arc<SpanBatch> {
    let pick = |of: [&'static str; 3], no: u64| of[usize::try_from(no % 3).unwrap()];
    let sample = |no: u64| Sample {
        service: pick(SERVICES, no),
        trace: u128::from(no),
        span: no,
        start: NOW.0 - no * 7_919 % 180 * MINUTE - no % 59 * 1_000_000_000,
        duration: 1_000_000 + no * 104_729 % 9_000_000,
    };
    let samples: Vec<Sample> = (first..first + n).map(sample).collect();
    let mut batch = batch(&samples);
    for no in first..first + n {
        let name = batch.push_bytes(pick(NAMES, no / 3).as_bytes()).unwrap();
        let span = &mut batch.spans[usize::try_from(no - first).unwrap()];
        (span.name, span.kind, span.status_code) =
            (name, i32::from(2 + u8::from(no % 7 == 0)), i32::from(no % 5 == 0) * 2);
    }
    for span in &batch.spans {
        let key = SeriesKey::of(&batch, span, &crate::model::Conventions::default());
        let key = (key.service.to_string(), key.span_name.to_string(), key.kind, key.status);
        let start = span.start_time_unix_nano.0;
        exact.entry(key).or_default().push((start, Bucket::of(span.latency().unwrap())));
    }
    Arc::new(batch)
}

/// Two sealed partitions, one that grows, a head on its way into a block and one behind it that holds some spans twice.
fn filled(store: &Store) -> Exact {
    let mut exact = Exact::new();
    let mut sequence = 0;
    for _partition in 0..3 {
        let partition = store.start_partition().unwrap();
        for _block in 0..2 {
            sequence += 1;
            store.push([(sequence, NOW, spans(500, sequence * 1_000, &mut exact))]);
            let _written = store.checkpoint(&store.freeze(&partition).unwrap()).unwrap();
        }
        if sequence < 6 {
            let _manifest = store.seal(&partition).unwrap();
            continue;
        }
        let again = spans(500, 7_000, &mut exact);
        store.push([(7, NOW, Arc::clone(&again))]);
        let _on_its_way = store.freeze(&partition).unwrap();
        store.push([(8, NOW, again), (9, NOW, spans(500, 9_000, &mut exact))]);
    }
    exact
}

fn name((service, span_name, kind): (&str, &str, SpanKind)) -> SeriesName {
    SeriesName { namespace: String::new(), service: service.into(), span_name: span_name.into(), kind }
}

#[test]
fn a_window_counts_the_spans_of_the_wanted_series_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (query, store) = query(dir.path());
    let exact = filled(&store);
    let wanted = [
        ("checkout", "POST /pay", SpanKind::Server),
        ("cart", "work", SpanKind::Client),
        ("cart", "none such", SpanKind::Server),
        ("cart", "work", SpanKind::Server),
        ("stranger", "work", SpanKind::Server),
    ];
    let names = wanted.map(name);
    for (from, to) in [(181, 0), (90, 30), (75, 15), (61, 60), (400, 200)] {
        let range = TimeRange { start: UnixNanos(NOW.0 - from * MINUTE), end: UnixNanos(NOW.0 - to * MINUTE + 1) };
        let window = SeriesWindow::of(&names, range);
        let mut found: BTreeMap<(usize, SpanStatus), BTreeMap<Bucket, u64>> = BTreeMap::new();
        let mut coverage = Coverage::default();
        let visited = window.visit(&query, &store.snapshot(), &mut coverage, &mut |counted| {
            assert!(window.range.contains(counted.at));
            let buckets = found.entry((counted.series, counted.status)).or_default();
            match counted.latency {
                CountedLatency::Slot(slot) => {
                    slot.entries().iter().for_each(|(bucket, count)| *buckets.entry(*bucket).or_default() += count);
                }
                CountedLatency::Span(latency) => *buckets.entry(Bucket::of(latency)).or_default() += 1,
            }
        });
        visited.unwrap();
        assert!(coverage.is_complete());
        let mut expected: BTreeMap<(usize, SpanStatus), BTreeMap<Bucket, u64>> = BTreeMap::new();
        for ((service, span_name, kind, status), spans) in &exact {
            let series = wanted.iter().position(|wanted| *wanted == (service, span_name, *kind));
            let inside = spans.iter().filter(|(start, _)| window.range.contains(UnixNanos(*start)));
            for (series, (_, bucket)) in inside.filter_map(|span| Some((series?, span))) {
                *expected.entry((series, *status)).or_default().entry(*bucket).or_default() += 1;
            }
        }
        assert_eq!(expected.is_empty(), 180 < to);
        assert_eq!(found, expected, "{from} to {to} minutes ago");
    }
}

#[test]
fn a_name_that_is_no_utf_8_is_found_as_it_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (query, store) = query(dir.path());
    let partition = store.start_partition().unwrap();
    for sequence in [1, 2] {
        let sample = Sample { service: "cart", trace: 1, span: sequence, start: NOW.0 - 1, duration: 1 };
        let mut batch = batch(&[sample]);
        batch.spans[0].name = batch.push_bytes(b"caf\xe9").unwrap();
        store.push([(sequence, NOW, Arc::new(batch))]);
        if sequence == 1 {
            let _written = store.checkpoint(&store.freeze(&partition).unwrap()).unwrap();
        }
    }
    let names = [name(("cart", "caf\u{fffd}", SpanKind::Server))];
    let mut found = 0;
    let window = SeriesWindow::of(&names, TimeRange::ALL);
    window.visit(&query, &store.snapshot(), &mut Coverage::default(), &mut |_| found += 1).unwrap();
    assert_eq!(found, 2, "one in a block, one in the head");
}

#[test]
fn series_of_another_namespace_are_others() {
    let dir = tempfile::tempdir().unwrap();
    let (query, store) = query(dir.path());
    let _exact = filled(&store);
    let names = [SeriesName { namespace: "sales".into(), ..name(("cart", "work", SpanKind::Server)) }];
    let window = SeriesWindow::of(&names, TimeRange::ALL);
    let visited = window.visit(&query, &store.snapshot(), &mut Coverage::default(), &mut |counted| {
        panic!("{counted:?}");
    });
    visited.unwrap();
}
