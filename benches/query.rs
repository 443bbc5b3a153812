//! Questions to a store of 131,072 spans in two blocks, and a head of 8,192.

use std::collections::VecDeque;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::Clock;
use spandrel::model::{Span, SpanBatch, SpanId, TimeRange, TraceId, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::{PercentileQuestion, Quantile, Query, critical_paths};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;

fn filled(dir: &std::path::Path) -> (Query, TraceId) {
    let config = StoreConfig::keeping_all(dir);
    let (clock, counters) = (Clock::system(), Arc::new(Counters::default()));
    let store = Store::open(config, clock.clone(), Arc::clone(&counters)).expect("a fresh directory opens");
    let partition = store.start_partition().expect("there is space");
    let mut ring = PreEncoded::new(1, 272, Grouping::Collector);
    let mut push = |requests: u64| {
        for sequence in 1..=requests {
            let body = ring.next(clock.now()).to_vec();
            let batch: SpanBatch = decode(body, &DecodeOptions::default()).expect("good spans").batch;
            store.push([(sequence, clock.now(), Arc::new(batch))]);
        }
    };
    for _block in 0..2 {
        push(128);
        let frozen = store.freeze(&partition).expect("the head holds spans");
        let _done = store.checkpoint(&frozen).expect("the disk works");
    }
    let stored = store.open_partition(&partition).expect("it is open");
    let trace = stored.spans(1, &[30_000]).expect("the row exists").spans.first().map(|span| span.trace_id);
    push(16);
    let query = Query::new(clock, counters);
    query.attach(Arc::new(store));
    (query, trace.expect("the row exists"))
}

/// One trace: each span has ten children, one after the other.
fn deep_and_wide(spans: u64) -> SpanBatch {
    let mut batch = SpanBatch::default();
    let mut windows = VecDeque::from([(1_000, 1 << 50)]);
    for no in 0..spans {
        let (start, length) = windows.pop_front().unwrap_or_default();
        windows.extend((0..10).map(|child| (start + length / 11 * child, length / 11)));
        batch.spans.push(Span {
            span_id: SpanId((no + 1).to_be_bytes()),
            parent_span_id: SpanId(if no == 0 { 0 } else { (no - 1) / 10 + 1 }.to_be_bytes()),
            start_time_unix_nano: UnixNanos(start),
            end_time_unix_nano: UnixNanos(start + length),
            ..Span::default()
        });
    }
    batch
}

fn bench(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (query, trace) = filled(dir.path());
    let quantile = |q: f64| Quantile::try_from(q).expect("between 0 and 1");
    let question =
        PercentileQuestion::plain("checkout", [0.5, 0.9, 0.99, 0.999, 1.0].map(quantile).to_vec(), TimeRange::ALL, 5);
    let _criterion = criterion.bench_function("percentile: 5 quantiles with exemplars", |bencher| {
        bencher.iter(|| query.percentile(&question).expect("checkout is stored").whole.count);
    });
    let _criterion = criterion.bench_function("trace by id", |bencher| {
        bencher.iter(|| query.trace(trace).expect("the store answers").batch.spans.len());
    });
    let spans = query.trace(trace).expect("the store answers").batch;
    let _criterion = criterion.bench_function("trace by id: ranks of its spans", |bencher| {
        bencher.iter(|| query.ranks(&spans).expect("the store answers").ranks.len());
    });
    let _criterion = criterion.bench_function("trace by id: critical path", |bencher| {
        bencher.iter(|| critical_paths(&spans).len());
    });
    let deep = deep_and_wide(100_000);
    let _criterion = criterion.bench_function("critical path of 100,000 spans", |bencher| {
        bencher.iter(|| critical_paths(&deep).len());
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
