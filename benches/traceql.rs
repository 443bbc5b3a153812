//! TraceQL over the shop's traffic: whole traces that arrive within seconds, in the order of their times, spread over a window;
//! sealed partitions, a growing one and a head. Questions are random, so that few answers repeat.
//!
//! ```text
//! cargo bench --bench traceql -- --spans 10000000
//! cargo bench --bench traceql -- --only "min duration" --questions 2000
//! ```
//! Times of a clock suffer from other work on the machine; the processor's time beside them does not.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench prints its figures, and may end by a panic"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::{Clock, instant};
use spandrel::model::{Attribute, DurationNanos, Rows, SpanBatch, TimeRange, TraceId, UnixNanos, Value};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::{MetricsQuestion, Query, QueryError, SearchQuestion, TraceConditions};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;

const SECOND: u64 = 1_000_000_000;
/// Times of the spans lie within this, up to now.
const WINDOW_SECS: u64 = 6 * 3_600;
const REQUESTS_PER_BLOCK: u64 = 128;
/// Sealed ones, at least; blocks are whole, so a small store has more.
const PARTITIONS: u64 = 10;
/// Templates differ, and one of them holds what the shop does in a second.
const RINGS: u64 = 8;
const REQUESTS_PER_RING: usize = 34;
/// One of so many spans carries an attribute that no other span has.
const SPANS_PER_INCIDENT: u64 = 100_000;
const TRACES_WANTED: usize = 20;

/// What stands for something random in the text of a question.
const SERVICE: &str = "$service";
const CALL: &str = "$call";
const LATENCY: &str = "$latency";
const INCIDENT: &str = "$incident";

/// Searches: what they measure, their text, and whether they must find something whatever is put in.
const SEARCHES: [(&str, &str, bool); 10] = [
    ("service + min duration", "{ resource.service.name = $service && duration > $latency }", false),
    ("service + name", "{ $call }", true),
    ("rare text of an attribute", "{ span.shop.incident = $incident }", true),
    ("rare number of an attribute", "{ span.shop.incident.no < 3 }", true),
    ("no such text", "{ span.http.request.method = \"BREW\" }", false),
    ("errors", "{ status = error }", true),
    ("newest", "{ }", true),
    ("calls below a service", "{ resource.service.name = $service } >> { status = error }", false),
    (
        "a service calls another",
        "{ resource.service.name = \"checkout\" } > { resource.service.name = \"payment\" }",
        true,
    ),
    ("rare ancestor", "{ span.shop.incident = $incident } && { kind = server }", false),
];

/// Over the whole window.
const METRICS: [&str; 6] = [
    "{ } | rate()",
    "{ } | rate() by (resource.service.name)",
    "{ status = error } | count_over_time() by (name)",
    "{ kind = server } | quantile_over_time(duration, .99) by (span.http.route)",
    "{ .http.route =~ `/api/.*` } | rate() by (resource.cloud.availability_zone)",
    "{ resource.service.name = `checkout` } >> { status = error } | rate()",
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let is_test = args.iter().any(|arg| arg == "--test");
    let number = |name: &str, default: u64| value(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let spans = number("--spans", if is_test { 150_000 } else { 1_000_000 });
    let n_questions = number("--questions", if is_test { 3 } else { 500 }) as usize;
    let only = value("--only").unwrap_or_default();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let began = instant();
    let filled = Filled::new(dir.path(), spans);
    println!("spans                                  {spans}, made in {:.0} s", began.elapsed().as_secs_f64());
    println!("partitions                             {}", filled.store.partitions().len());
    println!("bytes per span                         {:.1}", filled.store.disk_bytes() as f64 / spans as f64);
    forget_peak();
    println!("{:38} p50 / p99 / max ms | CPU ms each | found on average", "");
    let mut random = Random(7);
    if "trace by id".contains(&only) {
        filled.time("trace by id", n_questions, || {
            let trace = filled.traces[random.below(filled.traces.len() as u64) as usize];
            filled.query.trace(trace).expect("it is stored").batch.spans.len()
        });
    }
    for (name, text, must_find) in SEARCHES.iter().filter(|(name, ..)| name.contains(&only)) {
        let ask = |random: &mut Random| filled.search(&filled.random_text(text, random));
        if ask(&mut random).is_none() {
            continue;
        }
        let found = filled.time(name, n_questions, || ask(&mut random).expect("it was understood before"));
        assert!(!must_find || 0 < found, "{name} found nothing");
    }
    println!("{:38} M spans/s and core", "");
    for text in METRICS.iter().filter(|text| text.contains(&only)) {
        filled.scan(text, spans, if is_test { 1 } else { 5 });
    }
    println!("resident now, at most, MiB             {} / {}", memory_mib("VmRSS"), memory_mib("VmHWM"));
}

/// A store, and what to ask of it.
struct Filled {
    query: Query,
    store: Arc<Store>,
    range: TimeRange,
    /// Some of those that are stored.
    traces: Vec<TraceId>,
    /// Service and name of spans that are stored, as conditions.
    calls: Vec<String>,
    services: Vec<String>,
    n_incidents: u64,
}

impl Filled {
    fn new(dir: &Path, spans: u64) -> Self {
        let (clock, counters) = (Clock::system(), Arc::new(Counters::default()));
        let end = clock.now();
        let start = UnixNanos(end.0 - WINDOW_SECS * SECOND);
        let config = StoreConfig::keeping_all(dir);
        let store =
            Arc::new(Store::open(config, clock.clone(), Arc::clone(&counters)).expect("a fresh directory opens"));
        let query = Query::new(clock, counters);
        query.attach(Arc::clone(&store));
        let range = TimeRange { start, end: UnixNanos(end.0 + SECOND) };
        let (traces, calls, services) = Default::default();
        let mut filled = Self { query, store, range, traces, calls, services, n_incidents: 0 };
        filled.fill(spans);
        filled
    }

    fn fill(&mut self, spans: u64) {
        let mut partition = self.store.start_partition().expect("there is space");
        let mut rings: Vec<PreEncoded> =
            (1..=RINGS).map(|seed| PreEncoded::new(seed, REQUESTS_PER_RING, Grouping::Collector)).collect();
        let (requests, mut n_spans, mut of_ring) = (spans.div_ceil(512), 0, 0);
        // With room for a partition that grows, and a head.
        let blocks_per_partition = (requests * 9 / 10 / REQUESTS_PER_BLOCK / PARTITIONS).max(1);
        for request in 0..requests {
            if of_ring == rings[0].request_count() {
                rings.rotate_left(1);
                of_ring = 0;
            }
            of_ring += 1;
            let window = self.range.end.0 - SECOND - self.range.start.0;
            // The ring ends its spans before the time that it is given.
            let at = UnixNanos(self.range.end.0 - SECOND - window / (requests + 1) * (requests - request - 1));
            let body = rings[0].next(at).to_vec();
            let mut batch: SpanBatch = decode(body, &DecodeOptions::default()).expect("good spans").batch;
            self.note(request, &mut batch, n_spans);
            n_spans += batch.spans.len() as u64;
            self.store.push([(request + 1, at, Arc::new(batch))]);
            if (request + 1) % REQUESTS_PER_BLOCK == 0 {
                let frozen = self.store.freeze(&partition).expect("the head holds spans");
                let _done = self.store.checkpoint(&frozen).expect("the disk works");
                if (request + 1) % (REQUESTS_PER_BLOCK * blocks_per_partition) == 0 {
                    let _manifest = self.store.seal(&partition).expect("the disk works");
                    partition = self.store.start_partition().expect("there is space");
                }
            }
        }
    }

    /// Keeps something to ask for, and plants what is rare.
    fn note(&mut self, request: u64, batch: &mut SpanBatch, n_before: u64) {
        let Some(span) = batch.spans.get(request as usize % batch.spans.len().max(1)) else { return };
        self.traces.push(span.trace_id);
        if self.calls.len() < 500 {
            let (service, name) = (batch.service_of(span).1.into_owned(), batch.text_lossy(span.name));
            self.calls.push(format!("resource.service.name = `{service}` && name = `{name}`"));
            if !self.services.contains(&service) {
                self.services.push(service);
            }
        }
        let due = (n_before + batch.spans.len() as u64).div_ceil(SPANS_PER_INCIDENT);
        if self.n_incidents < due {
            let no = self.n_incidents;
            self.n_incidents += 1;
            plant(batch, request as usize % batch.spans.len(), no);
        }
    }

    /// With random things in place of what begins with `$`.
    fn random_text(&self, text: &str, random: &mut Random) -> String {
        let mut any = |list: &[String]| list[random.below(list.len() as u64) as usize].clone();
        let (service, call) = (format!("\"{}\"", any(&self.services)), any(&self.calls));
        // Evenly over the orders of magnitude from 1 ms to 2 s.
        let latency = format!("{}us", (1_000.0 * 2_000_f64.powf(random.below(1_000) as f64 / 1_000.0)) as u64);
        let incident = format!("\"INC-{}\"", random.below(self.n_incidents));
        text.replace(SERVICE, &service).replace(CALL, &call).replace(LATENCY, &latency).replace(INCIDENT, &incident)
    }

    /// How many traces it finds; `None` when the language does not know it.
    fn search(&self, text: &str) -> Option<usize> {
        let question = SearchQuestion {
            query: text.parse().ok()?,
            range: self.range,
            trace: TraceConditions::default(),
            traces_max: TRACES_WANTED,
            spans_per_set_max: 3,
        };
        let answer = match self.query.search(&question) {
            // On a busy machine the longest ones end so, and their time is shown as any other.
            Err(QueryError::TooLong { .. }) => return Some(0),
            other => other.expect("it is stored"),
        };
        assert!(answer.coverage.is_complete(), "{:?}", answer.coverage);
        Some(answer.traces.len())
    }

    /// Prints how long it takes; how much it found in all.
    #[expect(clippy::unused_self, reason = "reads better where it is called")]
    fn time(&self, name: &str, n: usize, mut ask: impl FnMut() -> usize) -> usize {
        let (mut times, mut found) = (Vec::with_capacity(n), 0);
        let before = cpu_time();
        for _question in 0..n {
            let began = instant();
            found += ask();
            times.push(began.elapsed());
        }
        let cpu = cpu_time().saturating_sub(before).as_secs_f64() * 1e3 / n as f64;
        times.sort_unstable();
        let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
        let average = found as f64 / n as f64;
        println!("{name:38} {:.2} / {:.2} / {:.2} | {cpu:.2} | {average:.1}", at(0.5), at(0.99), at(1.0));
        found
    }

    /// Prints how fast metrics of the whole window are counted; nothing when the language does not know them.
    fn scan(&self, text: &str, spans: u64, n: u32) {
        let Ok(query) = text.parse() else { return };
        let step = DurationNanos::from_secs(60);
        let question = MetricsQuestion { query, range: self.range, step, exemplars_max: 0 };
        let before = cpu_time();
        for _run in 0..n {
            let answer = self.query.metrics(&question).expect("it is stored");
            assert!(0 < answer.spans && answer.coverage.is_complete(), "{text}: {:?}", answer.coverage);
        }
        let each = cpu_time().saturating_sub(before) / n;
        println!("{text:80} {:.1}", spans as f64 / each.as_secs_f64() / 1e6);
    }
}

/// Gives a span two attributes: a text of its own, and its number.
fn plant(batch: &mut SpanBatch, row: usize, no: u64) {
    let own = batch.attributes(batch.spans[row].attributes).to_vec();
    let mut text = |text: &str| batch.push_bytes(text.as_bytes()).expect("a batch is small");
    let incident = Attribute { key: text("shop.incident"), value: Value::String(text(&format!("INC-{no}"))) };
    let number = Attribute { key: text("shop.incident.no"), value: Value::Int(no.cast_signed()) };
    let start = u32::try_from(batch.attributes.len()).expect("a batch is small");
    batch.attributes.extend(own.into_iter().chain([incident, number]));
    batch.spans[row].attributes = Rows { start, len: batch.spans[row].attributes.len + 2 };
}

/// Of all threads.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let nanos = u32::try_from(now.tv_nsec).expect("below a second");
    Duration::new(u64::try_from(now.tv_sec).expect("a process is young"), nanos)
}

/// So that the most memory that the questions take is not what filling the store took. Linux only; elsewhere nothing happens.
fn forget_peak() {
    let _unknown_elsewhere = std::fs::write("/proc/self/clear_refs", "5");
}

fn memory_mib(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
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
