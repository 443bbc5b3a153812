//! Costs of latency histograms: counting, merging, asking, writing.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use spandrel::latency::{Histogram, Quantile, Resolution, Slot, SlotLatency, SlotTableBuilder, SparseHistogram};
use spandrel::model::{DurationNanos, UnixNanos};
use std::hint::black_box;

/// Spans of a full block.
const BLOCK_SPANS: u32 = 64 * 1024;
/// Series of the reference load: 20 services of 10 operations.
const SERIES: u32 = 200;
const START: u64 = 1_795_392_000_000_000_000;

/// Deterministic numbers, good enough to spread latencies.
fn mixed(n: u64) -> u64 {
    let mixed = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 1
}

/// About 1 to 60 ms, one of a hundred ten times as long.
fn latency(n: u64) -> DurationNanos {
    let random = mixed(n);
    let body = 1_000_000 + (random % 4_000) * (random / 4_096 % 4_000) * 4;
    DurationNanos(if random.is_multiple_of(100) { body * 10 } else { body })
}

fn slot(seed: u64, spans: u64) -> SparseHistogram {
    let mut histogram = Histogram::new();
    for n in 0..spans {
        histogram.record(latency(seed * spans + n));
    }
    SparseHistogram::from(&histogram)
}

fn record(c: &mut Criterion) {
    let latencies: Vec<_> = (0..10_000).map(latency).collect();
    let mut group = c.benchmark_group("latency/record");
    group.throughput(Throughput::Elements(10_000));
    let mut ours = Histogram::new();
    group.bench_function("spandrel", |b| b.iter(|| latencies.iter().for_each(|one| ours.record(black_box(*one)))));
    let mut hdr = hdr();
    group.bench_function("hdrhistogram", |b| {
        b.iter(|| {
            for one in &latencies {
                hdr.record(black_box(one.0)).expect("within an hour");
            }
        });
    });
    group.finish();
}

fn merge(c: &mut Criterion) {
    let slots: Vec<_> = (0..100).map(|seed| slot(seed, 2_000)).collect();
    let mut window = Histogram::new();
    let mut group = c.benchmark_group("latency/merge_100_slots");
    group.bench_function("dense", |b| {
        b.iter(|| {
            window.clear();
            for slot in &slots {
                window.add(slot);
            }
            window.count()
        });
    });
    group.bench_function("sparse", |b| {
        b.iter(|| {
            let mut window = SparseHistogram::default();
            for slot in &slots {
                window.merge(slot);
            }
            window.count()
        });
    });
    group.finish();
}

fn quantile(c: &mut Criterion) {
    let mut histogram = Histogram::new();
    for n in 0..1_000_000 {
        histogram.record(latency(n));
    }
    let p999 = Quantile::try_from(0.999).expect("in range");
    c.bench_function("latency/quantile", |b| b.iter(|| histogram.at(black_box(p999))));
}

/// A table of a full block that spans 10 s, and the same slots as HdrHistogram V2 (which has no exemplars).
fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("latency/encode_block");
    group.throughput(Throughput::Elements(u64::from(BLOCK_SPANS)));
    group.bench_function("spandrel", |b| b.iter(|| block_table().len()));
    let slots: Vec<_> = (0..u64::from(SERIES)).map(|seed| slot(seed, u64::from(BLOCK_SPANS / SERIES))).collect();
    group.bench_function("hdrhistogram_v2_deflate", |b| b.iter(|| slots.iter().map(hdr_bytes).sum::<usize>()));
    group.finish();
    let (ours, theirs) = (block_table().len(), slots.iter().map(hdr_bytes).sum::<usize>());
    eprintln!("latency/encode_block: {ours} bytes with exemplars; HdrHistogram V2 + DEFLATE {theirs} bytes without");
    let (lone, lone_theirs) = (lone_spans().len(), hdr_bytes(&slot(0, 1)) * 10_000);
    eprintln!(
        "latency/10,000 lone spans: {lone} bytes with exemplars; HdrHistogram V2 + DEFLATE {lone_theirs} without"
    );
}

fn block_table() -> Vec<u8> {
    let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
    for row in 0..BLOCK_SPANS {
        let at = UnixNanos(START + u64::from(row) * 150_000);
        let diversity = mixed(u64::from(row)) % 12;
        builder.record(row % SERIES, at, latency(u64::from(row)), row, diversity);
    }
    builder.finish().expect("a block fits")
}

fn lone_spans() -> Vec<u8> {
    let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
    for n in 0..10_000_u32 {
        let row = u32::try_from(mixed(u64::from(n)) % u64::from(BLOCK_SPANS)).expect("below 64 Ki");
        builder.record(n, UnixNanos(START), latency(u64::from(n)), row, 0);
    }
    builder.finish().expect("fits")
}

fn roll_up(c: &mut Criterion) {
    let slots: Vec<_> =
        (0..360).map(|seed| SlotLatency { histogram: slot(seed, 500), exemplars: Vec::new() }).collect();
    c.bench_function("latency/roll_up_an_hour_of_one_series", |b| {
        b.iter(|| {
            let mut hour = SlotTableBuilder::new(Resolution::Hour);
            for slot in &slots {
                hour.add(1, Slot(498_720), slot);
            }
            hour.finish().expect("fits").len()
        });
    });
}

fn hdr() -> hdrhistogram::Histogram<u64> {
    hdrhistogram::Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).expect("legal bounds")
}

fn hdr_bytes(slot: &SparseHistogram) -> usize {
    let mut hdr = hdr();
    for (bucket, count) in slot.entries() {
        hdr.record_n(bucket.low().0, *count).expect("within an hour");
    }
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&hdr, &mut bytes).expect("counts are small")
}

criterion_group!(benches, record, merge, quantile, encode, roll_up);
criterion_main!(benches);
