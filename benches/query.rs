//! Questions to a store of 131,072 spans in two blocks, and a head of 8,192.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::Clock;
use spandrel::model::{SpanBatch, TimeRange, TraceId};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::{PercentileQuestion, Quantile, Query};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;

fn filled(dir: &std::path::Path) -> (Query, TraceId) {
    let config = StoreConfig {
        data_dir: dir.to_path_buf(),
        cache_bytes: 8 << 20,
        open_partitions_max: 8,
        retention: None,
        rollup_retention: None,
        remnants_merged_at_once: 16,
        keep: Vec::new(),
        disk_bytes_max: u64::MAX,
        verify_at_start_bytes_max: u64::MAX,
    };
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

fn bench(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (query, trace) = filled(dir.path());
    let quantile = |q: f64| Quantile::try_from(q).expect("between 0 and 1");
    let question = PercentileQuestion {
        service: "checkout".to_owned(),
        namespace: None,
        quantiles: [0.5, 0.9, 0.99, 0.999, 1.0].map(quantile).to_vec(),
        range: TimeRange::ALL,
        exemplars_max: 5,
    };
    let _criterion = criterion.bench_function("percentile: 5 quantiles with exemplars", |bencher| {
        bencher.iter(|| query.percentile(&question).expect("checkout is stored").count);
    });
    let _criterion = criterion.bench_function("trace by id", |bencher| {
        bencher.iter(|| query.trace(trace).expect("the store answers").batch.spans.len());
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
