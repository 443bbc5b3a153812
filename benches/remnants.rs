//! What roll-ups and pinned traces take once their spans have left, and how long letting go takes: days of the shop, hour by
//! hour, each hour sealed and let go. Prints bytes; there is nothing to compare a time with.
//!
//! `SPANDREL_HOURS=48 SPANDREL_REQUESTS=256 cargo bench --bench remnants`; a request has 512 spans.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads its own settings and the clock")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::Clock;
use spandrel::model::{DurationNanos, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;

/// 2026-11-23T00:00:00Z
const NOW: u64 = 1_795_392_000_000_000_000;
const HOUR: u64 = 3_600_000_000_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let (hours, requests) = (setting("SPANDREL_HOURS", 2), setting("SPANDREL_REQUESTS", 16));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock::manual(UnixNanos(NOW));
    let config = StoreConfig { retention: Some(DurationNanos(HOUR)), ..StoreConfig::keeping_all(dir.path()) };
    let store = Store::open(config, clock.clone(), Arc::new(Counters::default())).expect("a fresh directory opens");
    let mut ring = PreEncoded::new(1, 272, Grouping::Collector);
    let (mut live, mut letting_go, mut sequence) = (0, Duration::ZERO, 0);
    for hour in 0..hours {
        let partition = store.start_partition().expect("there is space");
        for request in 0..requests {
            let now = UnixNanos(NOW + hour * HOUR + request * HOUR / requests);
            clock.set(now);
            sequence += 1;
            let batch = decode(ring.next(now).to_vec(), &DecodeOptions::default()).expect("good spans").batch;
            store.push([(sequence, now, Arc::new(batch))]);
            if request % 128 == 127 || request + 1 == requests {
                let frozen = store.freeze(&partition).expect("the head holds spans");
                let _done = store.checkpoint(&frozen).expect("the disk works");
            }
        }
        let _manifest = store.seal(&partition).expect("it verifies");
        live += bytes(partition.dir());
        let began = Instant::now();
        let _dropped = store.enforce_retention().expect("it can be done");
        letting_go += began.elapsed();
    }
    clock.set(UnixNanos(NOW + (hours + 3) * HOUR));
    let began = Instant::now();
    let _dropped = store.enforce_retention().expect("it can be done");
    letting_go += began.elapsed();
    report(&store, live, letting_go);
    for days in [31, 91] {
        clock.set(UnixNanos(NOW + (hours + days * 24) * HOUR));
        for _ in 0..hours {
            let _dropped = store.enforce_retention().expect("it can be done");
        }
        println!("after {days} days: {} bytes", store.disk_bytes());
    }
}

fn report(store: &Store, live: u64, letting_go: Duration) {
    let (mut counted, mut stored, mut series) = (0, 0, 0);
    for partition in store.partitions() {
        let Some(manifest) = partition.manifest() else { continue };
        counted += manifest.counted_services().map(|service| service.spans).sum::<u64>();
        stored += manifest.spans;
        let open = store.open_partition(&partition).expect("it is whole");
        series = open.rollup_series().expect("it is whole").len().max(series);
        println!("{}  {} bytes, {} spans", partition.name(), bytes(partition.dir()), manifest.spans);
    }
    let left = store.disk_bytes();
    println!("{counted} spans in {live} bytes; left of them {stored} spans and {left} bytes, {series} series");
    println!("letting go: {letting_go:?}");
}

fn bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}
