//! Questions about latency over a month: spans whose times lie within 30 days, 60 services with about 1,000 series by name
//! (`--copies` times 12, and 200), sealed partitions, a growing one and a head. Asks random windows, so that no answer
//! repeats.
//!
//! ```text
//! cargo bench --bench questions -- --spans 10000000
//! cargo bench --bench questions -- --spans 2000000 --copies 50          memory with 10,000 series
//! cargo bench --bench questions -- --only "p99 with"                    those questions alone
//! cargo bench --bench questions -- --spans 10000000 --hours 6 --only dashboard --questions 20
//! ```
//! Times are p50 / p99 / longest of wall clock, and the CPU time of one question.
//! The dashboard is one of 12 panels in PromQL over 6 hours, as Grafana asks for them: a step of 20 s, ranges of 40 s.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench prints its figures, and may end by a panic"
)]

use std::sync::Arc;
use std::time::Duration;

use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::{Clock, instant};
use spandrel::model::{DurationNanos, SpanBatch, TimeRange, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::promql::{Instants, PromQuery};
use spandrel::query::{By, Grouping as Kept, HeatmapQuestion, PercentileQuestion, Quantile, Query, SpansWanted};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;

const DAY: u64 = 86_400_000_000_000;
const HOUR: u64 = 3_600_000_000_000;
const REQUESTS_PER_BLOCK: u64 = 128;
const BLOCKS_PER_PARTITION: u64 = 16;
const SERVICES: [&str; 12] = [
    "frontend",
    "cart",
    "checkout",
    "pricing",
    "payment",
    "shipping",
    "inventory",
    "email",
    "recommendation",
    "search",
    "user",
    "ads",
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let default = if args.iter().any(|arg| arg == "--test") { 20_000 } else { 1_000_000 };
    let spans: u64 = value("--spans").and_then(|text| text.parse().ok()).unwrap_or(default);
    let n: usize = value("--questions").and_then(|text| text.parse().ok()).unwrap_or(1_000);
    // Each of the shop's 12 services is there so often.
    let copies: u64 = value("--copies").and_then(|text| text.parse().ok()).unwrap_or(5);
    let hours: u64 = value("--hours").and_then(|text| text.parse().ok()).unwrap_or(720);
    let length_of_all = hours * HOUR;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let end = Clock::system().now();
    let began = instant();
    let (query, store) = filled(dir.path(), spans, copies, TimeRange { start: UnixNanos(end.0 - length_of_all), end });
    println!("spans                                  {spans}, made in {:.0} s", began.elapsed().as_secs_f64());
    println!("partitions                             {}", store.partitions().len());
    println!("bytes per span                         {:.1}", store.disk_bytes() as f64 / spans as f64);
    let start = UnixNanos(end.0 - length_of_all);
    let mut random = Random(7);
    let window = |random: &mut Random| {
        // Evenly over the orders of magnitude from 10 minutes to 30 days.
        let length = (600.0 * 4_320_f64.powf(random.below(1_000) as f64 / 1_000.0)) as u64 * 1_000_000_000;
        let from = start.0 + random.below(length_of_all - length.min(length_of_all - 1));
        TimeRange { start: UnixNanos(from), end: UnixNanos(from + length) }
    };
    let quantiles = |list: &[f64]| list.iter().map(|q| Quantile::try_from(*q).expect("between 0 and 1")).collect();
    let question = |random: &mut Random, range, exemplars| {
        let service = format!("{}-{}", SERVICES[random.below(12) as usize], random.below(copies));
        PercentileQuestion::plain(&service, quantiles(&[0.5, 0.9, 0.99]), range, exemplars)
    };
    let only = value("--only").unwrap_or_default();
    let mut run = |name: &str, ask: &mut dyn FnMut(&mut Random)| {
        if !name.contains(&only) {
            return;
        }
        let cpu_before = cpu_secs();
        let mut times: Vec<Duration> = (0..n)
            .map(|_| {
                let began = instant();
                ask(&mut random);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
        let cpu_each = (cpu_secs() - cpu_before) * 1e3 / n as f64;
        println!("{name:38} {:.2} / {:.2} / {:.2}, CPU {cpu_each:.2}", at(0.5), at(0.99), at(1.0));
    };
    run("p50 p90 p99, no exemplars, ms", &mut |random| {
        let range = window(random);
        let _answer = query.percentile(&question(random, range, 0)).expect("it is stored");
    });
    run("p50 p90 p99 with exemplars, ms", &mut |random| {
        let range = window(random);
        let _answer = query.percentile(&question(random, range, 5)).expect("it is stored");
    });
    run("p99 with exemplars, ms", &mut |random| {
        let range = window(random);
        let mut question = question(random, range, 5);
        question.quantiles = quantiles(&[0.99]);
        let _answer = query.percentile(&question).expect("it is stored");
    });
    run("... by zone, ms", &mut |random| {
        let range = window(random);
        let mut question = question(random, range, 1);
        (question.by, question.groups_max) = (Some(By::Kept(Kept::Peel("cloud.availability_zone".to_owned()))), 10);
        let _answer = query.percentile(&question).expect("it is stored");
    });
    for exemplars_max in [0, 1, 3] {
        run(&format!("heatmap of 24 h, {exemplars_max} exemplars, ms"), &mut |random| {
            let from = start.0 + random.below(length_of_all.saturating_sub(DAY));
            let heatmap = HeatmapQuestion {
                service: question(random, TimeRange::ALL, 0).service,
                namespace: None,
                spans: SpansWanted::Entries,
                range: TimeRange { start: UnixNanos(from), end: UnixNanos(from + DAY) },
                step: Some(DurationNanos::from_secs(600)),
                exemplars_max,
            };
            let _answer = query.heatmap(&heatmap).expect("it is stored");
        });
    }
    for (panel, text) in PANELS.iter().enumerate() {
        run(&format!("dashboard, panel {}, ms", panel + 1), &mut |random| {
            refresh(&query, &[text], end, random.below(60));
        });
    }
    run("dashboard of 12 panels, ms", &mut |random| refresh(&query, &PANELS, end, random.below(60)));
    println!("resident now, at most, MiB             {} / {}", memory_mib("VmRSS"), memory_mib("VmHWM"));
}

/// CPU time of this thread, which asks and answers.
fn cpu_secs() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// What a dashboard of one service and of all asks.
const PANELS: [&str; 12] = [
    "sum by (service) (rate(traces_spanmetrics_calls_total[40s]))",
    "sum by (service) (rate(traces_spanmetrics_calls_total{status_code=\"STATUS_CODE_ERROR\"}[40s]))",
    "sum(rate(traces_spanmetrics_calls_total[40s]))",
    "topk(5, sum by (span_name) (rate(traces_spanmetrics_calls_total{span_kind=\"SPAN_KIND_SERVER\"}[40s])))",
    "histogram_quantile(0.99, sum by (service) (rate(traces_spanmetrics_latency{span_kind=\"SPAN_KIND_SERVER\"}[40s])))",
    "histogram_quantile(0.95, sum by (le) (rate(traces_spanmetrics_latency_bucket{service=\"checkout-1\"}[40s])))",
    "sum by (le) (rate(traces_spanmetrics_latency_bucket{service=\"checkout-1\"}[40s]))",
    "sum(rate(traces_spanmetrics_latency{service=\"checkout-1\"}[40s]))",
    "sum by (span_name) (rate(traces_spanmetrics_calls_total{service=\"checkout-1\"}[40s]))",
    "sum(rate(traces_spanmetrics_latency_sum{service=\"checkout-1\"}[40s])) / sum(rate(traces_spanmetrics_latency_count{service=\"checkout-1\"}[40s]))",
    "sum by (client, server) (rate(traces_service_graph_request_total[40s]))",
    "sum by (client, server) (rate(traces_service_graph_request_failed_total[40s]))",
];

/// Asks for six hours up to some steps before `end`.
fn refresh(query: &Query, panels: &[&str], end: UnixNanos, steps_before: u64) {
    let end = i64::try_from(end.0 / 20_000_000_000 - steps_before).expect("not in the far future") * 20_000;
    for panel in panels {
        let parsed: PromQuery = panel.parse().expect("PromQL");
        let instants = Instants::Range { start: end - 6 * 3_600_000, end, step: 20_000 };
        let _answer = query.promql(&parsed, instants).expect("it is stored");
    }
}

fn memory_mib(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn filled(dir: &std::path::Path, spans: u64, copies: u64, range: TimeRange) -> (Query, Arc<Store>) {
    let config = StoreConfig::keeping_all(dir);
    let (clock, counters) = (Clock::system(), Arc::new(Counters::default()));
    let store = Arc::new(Store::open(config, clock.clone(), Arc::clone(&counters)).expect("a fresh directory opens"));
    let mut partition = store.start_partition().expect("there is space");
    let mut ring = PreEncoded::new(1, 272, Grouping::Collector);
    let requests = spans.div_ceil(512);
    for request in 0..requests {
        let at = UnixNanos(range.start.0 + (range.end.0 - range.start.0) / requests * request);
        let body = ring.next(at).to_vec();
        let mut batch: SpanBatch = decode(body, &DecodeOptions::default()).expect("good spans").batch;
        rename(&mut batch, request % copies);
        store.push([(request + 1, range.end, Arc::new(batch))]);
        if (request + 1) % REQUESTS_PER_BLOCK == 0 {
            let frozen = store.freeze(&partition).expect("the head holds spans");
            let _done = store.checkpoint(&frozen).expect("the disk works");
            if (request + 1) % (REQUESTS_PER_BLOCK * BLOCKS_PER_PARTITION) == 0 {
                let _manifest = store.seal(&partition).expect("the disk works");
                partition = store.start_partition().expect("there is space");
            }
        }
    }
    let query = Query::new(clock, counters);
    query.attach(Arc::clone(&store));
    (query, store)
}

/// `checkout` becomes `checkout-3`: the shop has 12 services and some 200 series.
fn rename(batch: &mut SpanBatch, copy: u64) {
    for at in 0..batch.resources.len() {
        let service = batch.text_lossy(batch.resources[at].service).into_owned();
        if let Some(renamed) = batch.push_bytes(format!("{service}-{copy}").as_bytes()) {
            batch.resources[at].service = renamed;
        }
    }
}

/// Deterministic numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n.max(1)
    }
}
