//! Latencies and metrics of chosen spans: filters and groups over the columns of 131,072 spans in two sealed-size blocks.
//!
//! `cargo bench --bench scan`: time is that of the processor, so that other work on the machine does not count; "thrpt" is
//! spans looked at per second and core.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::Clock;
use spandrel::model::{DurationNanos, SpanBatch, TimeRange};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::traceql::{Groups, RowScan, ServiceChoice};
use spandrel::query::{MetricsQuestion, Query};
use spandrel::store::{OpenPartition, Store, StoreConfig};
use spandrel::telemetry::Counters;

const BLOCKS: u64 = 2;
const REQUESTS_PER_BLOCK: u64 = 256;

fn filled(dir: &std::path::Path) -> (Arc<Store>, Arc<OpenPartition>) {
    let config = StoreConfig { cache_bytes: 64 << 20, ..StoreConfig::keeping_all(dir) };
    let (clock, counters) = (Clock::system(), Arc::new(Counters::default()));
    let store = Arc::new(Store::open(config, clock.clone(), counters).expect("a fresh directory opens"));
    let partition = store.start_partition().expect("there is space");
    let mut rings: Vec<PreEncoded> = (1..=4).map(|seed| PreEncoded::new(seed, 100, Grouping::Collector)).collect();
    for _block in 0..BLOCKS {
        for sequence in 1..=REQUESTS_PER_BLOCK {
            rings.rotate_left(1);
            let ring = rings.first_mut().expect("there are four");
            let body = ring.next(clock.now()).to_vec();
            let batch: SpanBatch = decode(body, &DecodeOptions::default()).expect("good spans").batch;
            store.push([(sequence, clock.now(), Arc::new(batch))]);
        }
        let frozen = store.freeze(&partition).expect("the head holds spans");
        let _done = store.checkpoint(&frozen).expect("the disk works");
    }
    let open = store.open_partition(&partition).expect("it is open");
    (store, open)
}

fn scan(open: &OpenPartition, wanted: &RowScan) -> (u64, usize) {
    let (mut groups, mut n_found) = (Groups::default(), 0);
    for block_no in open.block_numbers() {
        let scanned = wanted.scan_block(open, block_no, &mut groups, &mut |span| {
            n_found += 1;
            let _used = black_box(span);
            ControlFlow::Continue(())
        });
        scanned.expect("the block is readable");
    }
    (n_found, groups.values().len())
}

fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = u32::try_from(now.tv_nsec).expect("below a second");
    Duration::new(u64::try_from(now.tv_sec).expect("a process is young"), nanos)
}

fn bench(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, open) = filled(dir.path());
    let n_spans: u64 = open
        .blocks(BLOCKS)
        .iter()
        .filter_map(|(_, block)| block.as_ref())
        .map(|block| u64::from(block.summary().spans))
        .sum();
    let checkout = Some(ServiceChoice { name: "checkout".to_owned(), namespace: None });
    let filter = |text: &str| Some(text.parse().expect("a filter"));
    let by = |text: &str| Some(text.parse().expect("a field"));
    let cases = [
        ("everything", RowScan::all()),
        (
            "service, duration > 50ms",
            RowScan { service: checkout, filter: filter("duration > 50ms"), ..RowScan::all() },
        ),
        ("duration > 1h", RowScan { filter: filter("duration > 1h"), ..RowScan::all() }),
        (
            "name, kind, status",
            RowScan { filter: filter("name =~ `GET.*` && kind = server && status = error"), ..RowScan::all() },
        ),
        ("span attribute = text", RowScan { filter: filter("span.http.request.method = \"POST\""), ..RowScan::all() }),
        (
            "span attribute = number",
            RowScan { filter: filter("span.http.response.status_code >= 500"), ..RowScan::all() },
        ),
        ("unscoped attribute", RowScan { filter: filter(".http.route =~ `/api/.*`"), ..RowScan::all() }),
        ("resource attribute", RowScan { filter: filter("resource.service.name = \"checkout\""), ..RowScan::all() }),
        ("by resource attribute", RowScan { by: by("resource.cloud.availability_zone"), ..RowScan::all() }),
        ("by span attribute", RowScan { by: by("span.http.route"), ..RowScan::all() }),
        (
            "event attribute, 1 %",
            RowScan { filter: filter("status = error && event.exception.type != nil"), ..RowScan::all() },
        ),
    ];
    let mut group = criterion.benchmark_group("scan");
    let _group = group.throughput(Throughput::Elements(n_spans)).sample_size(20);
    for (name, wanted) in &cases {
        let (n_found, n_groups) = scan(&open, wanted);
        let name = format!("{name} ({n_found} found, {n_groups} groups)");
        let _group = group.bench_function(name, |bencher| {
            bencher.iter_custom(|n_runs| {
                let began = cpu_time();
                for _run in 0..n_runs {
                    let _found = black_box(scan(&open, wanted));
                }
                cpu_time().saturating_sub(began)
            });
        });
    }
    group.finish();
    metrics(criterion, store, n_spans);
}

/// Whole questions, over an hour in steps of 15 s, with their exemplars.
fn metrics(criterion: &mut Criterion, store: Arc<Store>, n_spans: u64) {
    let query = Query::new(Clock::system(), Arc::new(Counters::default()));
    let end = Clock::system().now();
    let start = end.saturating_sub(DurationNanos::from_secs(3_600));
    query.attach(store);
    let mut group = criterion.benchmark_group("metrics");
    let _group = group.throughput(Throughput::Elements(n_spans)).sample_size(20);
    for text in [
        "{} | rate()",
        "{} | rate() by(resource.service.name)",
        "{} | rate() by(resource.service.name, name, status)",
        "{} | quantile_over_time(duration, 0.5, 0.99) by(resource.service.name)",
        "{} | quantile_over_time(span.http.response.status_code, 0.99)",
        "{} | sum_over_time(span.http.response.status_code)",
        "{} | compare({status = error})",
    ] {
        let question = MetricsQuestion {
            query: text.parse().expect("a metrics query"),
            range: TimeRange { start, end },
            step: DurationNanos::from_secs(15),
            exemplars_max: 100,
        };
        let _group = group.bench_function(text, |bencher| {
            bencher.iter_custom(|n_runs| {
                let began = cpu_time();
                for _run in 0..n_runs {
                    let _answer = black_box(query.metrics(&question).expect("it is answered"));
                }
                cpu_time().saturating_sub(began)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
