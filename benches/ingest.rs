//! The pieces of the way in: decoding a request, journaling it, building a block.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use spandrel::block;
use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::Clock;
use spandrel::journal::{Durability, Journal, JournalConfig, RealDisk, RecordLabel};
use spandrel::model::{Conventions, SpanBatch};
use spandrel::otlp::{DecodeOptions, decode};

fn requests(n: usize) -> Vec<Vec<u8>> {
    let mut ring = PreEncoded::new(1, n, Grouping::Collector);
    (0..n).map(|_| ring.next(Clock::system().now()).to_vec()).collect()
}

fn batch(body: Vec<u8>) -> SpanBatch {
    decode(body, &DecodeOptions::default()).expect("the shop sends good spans").batch
}

fn bench(criterion: &mut Criterion) {
    let bodies = requests(64);
    let body = bodies.first().expect("there are 64").clone();
    let mut group = criterion.benchmark_group("ingest");
    let _group = group.throughput(Throughput::Elements(512));
    let _group = group.bench_function("decode a request of 512 spans", |bencher| {
        bencher.iter_batched(|| body.clone(), batch, BatchSize::SmallInput);
    });
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config =
        JournalConfig { dir: dir.path().to_path_buf(), segment_bytes: 64 << 20, durability: Durability::Fsync };
    let mut journal = Journal::new(config, Arc::new(RealDisk), 0, 1);
    let _group = group.bench_function("journal it: append, write, fdatasync", |bencher| {
        bencher.iter(|| {
            let _sequence = journal.append(RecordLabel::default(), &body).expect("it is short enough");
            journal.commit().expect("the disk works")
        });
    });
    let batches: Vec<Arc<SpanBatch>> = bodies.into_iter().map(|body| Arc::new(batch(body))).collect();
    let horizon = Clock::system().now();
    let _group = group.sample_size(10).throughput(Throughput::Elements(64 * 512));
    let _group = group.bench_function("order and encode a block of 32,768 spans", |bencher| {
        bencher.iter(|| {
            let ordered = block::order(&batches);
            block::encode(&batches, &ordered.rows, horizon, &Conventions::default()).expect("it fits").sections.len()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
