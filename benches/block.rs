//! What one full block of the shop's traffic takes, part by part, and what writing and reading it costs.
//!
//! `cargo bench --bench block`: the spans are those of `end_to_end`, in the order in which its four senders send them.
//! The last lines put blocks into a store and compare what was put with what the file system gives its files.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spandrel::block::{self, Block, SectionId};
use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::{Clock, instant};
use spandrel::limits::BLOCK_SPANS_MAX;
use spandrel::model::{Conventions, SpanBatch};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;

/// As in `end_to_end`.
const SENDERS: u64 = 4;
const TEMPLATES: usize = 100;
const REQUEST_SPANS: usize = 512;
/// Blocks that go into the store.
const STORED_BLOCKS: usize = 8;
/// Of which the fastest counts.
const RUNS: usize = 5;
const TRACES: usize = 400;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test");
    let (runs, stored_blocks) = if quick { (1, 1) } else { (RUNS, STORED_BLOCKS) };
    let mut traffic = Traffic::new();
    let bodies = traffic.requests(BLOCK_SPANS_MAX / REQUEST_SPANS);
    let decoding = fastest(runs, || bodies.iter().map(|body| batch(body.clone()).spans.len()).sum::<usize>());
    let batches: Vec<Arc<SpanBatch>> = bodies.into_iter().map(|body| Arc::new(batch(body))).collect();
    let horizon = Clock::system().now();

    let ordered = block::order(&batches);
    let encoded =
        block::encode(&batches, &ordered.rows, horizon, &Conventions::default()).expect("a block's worth of spans");
    let n_spans = ordered.rows.len();
    report_sizes(&encoded.sections, n_spans);

    let opened = Block::open(&encoded.sections).expect("it was just written");
    let rows: Vec<u32> = (0..opened.summary().spans).collect();
    let spans = |rows: &[u32]| opened.spans(&encoded.sections, rows).expect("it was just written");
    let all = spans(&rows);
    let step = (all.spans.len() / TRACES).max(1);
    let traces: Vec<_> = all.spans.iter().step_by(step).map(|span| span.trace_id).collect();
    let trace_rows = |trace| {
        let rows = opened.rows_of_trace(&encoded.sections, trace).expect("it was just written");
        rows.collect::<Vec<u32>>()
    };
    println!();
    cost("decode requests", decoding, n_spans, "span");
    cost("order", fastest(runs, || block::order(&batches).rows.len()), n_spans, "span");
    let encode =
        || block::encode(&batches, &ordered.rows, horizon, &Conventions::default()).expect("as before").sections.len();
    cost("encode a block", fastest(runs, encode), n_spans, "span");
    cost("read all spans of a block", fastest(runs, || spans(&rows).spans.len()), n_spans, "span");
    let find = || traces.iter().map(|trace| trace_rows(*trace).len()).sum::<usize>();
    cost("rows of a trace", fastest(runs, find), traces.len(), "trace");
    let read = || traces.iter().map(|trace| spans(&trace_rows(*trace)).spans.len()).sum::<usize>();
    cost("a trace's rows and spans", fastest(runs, read), traces.len(), "trace");
    println!();
    report_store(&mut traffic, stored_blocks);
}

/// The requests of the senders in turn.
struct Traffic {
    rings: Vec<PreEncoded>,
    turn: usize,
}

impl Traffic {
    fn new() -> Self {
        let ring = |seed| PreEncoded::new(seed, TEMPLATES, Grouping::Collector);
        Self { rings: (0..SENDERS).map(ring).collect(), turn: 0 }
    }

    fn requests(&mut self, n: usize) -> Vec<Vec<u8>> {
        let clock = Clock::system();
        let mut requests = Vec::with_capacity(n);
        for _ in 0..n {
            self.turn = (self.turn + 1) % self.rings.len();
            let ring = self.rings.get_mut(self.turn).expect("the turn is a ring");
            requests.push(ring.next(clock.now()).to_vec());
        }
        requests
    }
}

fn batch(body: Vec<u8>) -> SpanBatch {
    decode(body, &DecodeOptions::default()).expect("the shop sends good spans").batch
}

fn fastest(runs: usize, mut work: impl FnMut() -> usize) -> Duration {
    let once = || {
        let began = instant();
        let _result = black_box(work());
        began.elapsed()
    };
    std::iter::repeat_with(once).take(runs).min().unwrap_or_default()
}

fn cost(what: &str, time: Duration, n: usize, of: &str) {
    println!("{what:<44} {:>9.3} us per {of}", time.as_secs_f64() * 1e6 / n as f64);
}

fn report_sizes(sections: &Vec<(SectionId, Vec<u8>)>, n_spans: usize) {
    let opened = Block::open(sections).expect("it was just written");
    let mut parts = opened.sizes(sections).expect("it was just written");
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes + part.dictionary_bytes));
    let per_span = |bytes: u64| bytes as f64 / n_spans as f64;
    println!("{n_spans} spans, bytes per span{:>25}{:>12}", "in all", "dictionary");
    for part in &parts {
        let all = part.bytes + part.dictionary_bytes;
        println!("{:<48}{:>6.3}{:>12.3}", part.name, per_span(all), per_span(part.dictionary_bytes));
    }
    let all: usize = sections.iter().map(|(_, bytes)| bytes.len()).sum();
    println!("{:<48}{:>6.3}", "block without latency slots", per_span(all as u64));
}

/// Blocks in a store: bytes put (slots included), and bytes that the file system gives.
fn report_store(traffic: &mut Traffic, n_blocks: usize) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = StoreConfig::keeping_all(dir.path());
    let (clock, counters) = (Clock::system(), Arc::new(Counters::default()));
    let store = Store::open(config, clock.clone(), counters).expect("a fresh directory opens");
    let partition = store.start_partition().expect("there is space");
    let mut n_spans = 0;
    for _ in 0..n_blocks {
        for (sequence, body) in (1..).zip(traffic.requests(BLOCK_SPANS_MAX / REQUEST_SPANS)) {
            store.push([(sequence, clock.now(), Arc::new(batch(body)))]);
        }
        let frozen = store.freeze(&partition).expect("the head holds spans");
        n_spans += store.checkpoint(&frozen).expect("the disk works").spans;
    }
    let put = partition.block_bytes();
    drop(store);
    let per_span = |bytes: u64| bytes as f64 / n_spans as f64;
    println!(
        "{:<48}{:>6.3} bytes per span",
        format!("put into the store, {n_blocks} blocks with slots"),
        per_span(put)
    );
    println!("{:<48}{:>6.3} bytes per span", "on disk (st_blocks)", per_span(disk(dir.path())));
}

fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}
