//! Hours of a shop, one sealed partition each, whose spans are let go on a manual clock; and the oracle of that: every partition
//! once, the numbers of every hour as they were, every trace that is shown as it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use prost::Message as _;
use spandrel::cli::shop::{Grouping, Requests, Shop};
use spandrel::clock::Clock;
use spandrel::model::{DurationNanos, SpanBatch, SpanId, TimeRange, TraceId, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::{PercentileQuestion, Query};
use spandrel::store::{IdleDir, Store, StoreConfig};
use spandrel::telemetry::Counters;
use tempfile::TempDir;

use crate::crawl::{Shown, crawl, quantiles};
use crate::support::Random;

use super::fixture::copy_tree;
use super::mount::memory_dir;

/// 2026-11-23T00:00:00Z
const NOW: u64 = 1_795_392_000_000_000_000;
const HOUR: u64 = 3_600_000_000_000;
/// Hours of the shop, and so partitions.
pub(super) const HOURS: u64 = 5;
const TRACES_PER_HOUR: u64 = 6;
const RETENTION_HOURS: u64 = 3;
/// When, in hours, retention is asked for: some partitions leave; all have left; roll-ups are of ten minutes; of hours.
pub(super) const STAGES: [u64; 4] = [HOURS, HOURS + RETENTION_HOURS + 1, 32 * 24, 92 * 24];

/// Spans and three percentiles by service and hour.
type Numbers = BTreeMap<(String, u64), (u64, Vec<u64>)>;

/// The directory as nothing has left it, and what was put in.
pub(super) struct Days {
    dir: TempDir,
    sent: BTreeMap<TraceId, BTreeSet<SpanId>>,
    /// Begun in the last hours, which are there as a whole in the first stage.
    recent: BTreeSet<TraceId>,
    by_hand: TraceId,
    numbers: Numbers,
    /// Checks done: each asks for the numbers of all services and for the traces of some, in turn.
    turn: AtomicUsize,
}

/// A store over a directory, and questions to it.
pub(super) struct Opened {
    pub(super) store: Arc<Store>,
    pub(super) query: Query,
    pub(super) counters: Arc<Counters>,
    clock: Clock,
}

fn settings(dir: &Path) -> StoreConfig {
    StoreConfig {
        retention: Some(DurationNanos(RETENTION_HOURS * HOUR)),
        rollup_retention: Some(DurationNanos(400 * 24 * HOUR)),
        remnants_merged_at_once: 2,
        ..StoreConfig::keeping_all(dir)
    }
}

impl Opened {
    pub(super) fn at(dir: &Path, hour: u64) -> Self {
        let (clock, counters) = (Clock::manual(UnixNanos(NOW + hour * HOUR)), Arc::new(Counters::default()));
        let query = Query::new(clock.clone(), Arc::clone(&counters));
        let store = Store::open(settings(dir), clock.clone(), Arc::clone(&counters)).expect("it opens");
        let store = Arc::new(store);
        query.attach(Arc::clone(&store));
        Self { store, query, counters, clock }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.store.partitions().iter().map(|partition| partition.name()).collect()
    }

    /// Asks for retention until there is nothing left to be done. `Err` is what an operator reads.
    pub(super) fn let_go(&self) -> Result<(), String> {
        loop {
            let before = self.names();
            let outcome = self.store.enforce_retention();
            let _dropped = outcome.map_err(|error| spandrel::telemetry::with_causes(&error))?;
            if before == self.names() {
                return Ok(());
            }
        }
    }

    fn numbers(&self) -> Numbers {
        let mut numbers = Numbers::new();
        for service in self.services() {
            for hour in 0..=HOURS {
                let range = TimeRange { start: UnixNanos(NOW + hour * HOUR), end: UnixNanos(NOW + (hour + 1) * HOUR) };
                let question = PercentileQuestion::plain(&service, quantiles(&[0.5, 0.99, 1.0]), range, 0);
                let answer = self.query.percentile(&question).expect("the service is known");
                assert_eq!(answer.coverage.reasons, [""; 0], "{service}, hour {hour}");
                let values = answer.whole.quantiles.iter().map(|row| row.value.0).collect();
                let _new = numbers.insert((service.clone(), hour), (answer.whole.count, values));
            }
        }
        numbers
    }

    fn services(&self) -> Vec<String> {
        self.query.services().expect("it is open").into_iter().map(|service| service.name).collect()
    }
}

impl Days {
    /// The same for every test.
    pub(super) fn shared() -> &'static Self {
        static DAYS: OnceLock<Days> = OnceLock::new();
        DAYS.get_or_init(Self::make)
    }

    /// One request in three comes an hour late, into the next partition.
    fn make() -> Self {
        let (dir, mut shop, mut random) = (memory_dir(), Shop::new(15), Random(15));
        let opened = Opened::at(dir.path(), 0);
        let (mut sent, mut recent) = (BTreeMap::<TraceId, BTreeSet<SpanId>>::new(), BTreeSet::new());
        let (mut late, mut sequence) = (Vec::new(), 1);
        for hour in 0..HOURS {
            let partition = opened.store.start_partition().expect("there is space");
            let mut batches = std::mem::take(&mut late);
            for no in 0..TRACES_PER_HOUR {
                let at = UnixNanos(NOW + hour * HOUR + no * HOUR / TRACES_PER_HOUR);
                for batch in visit(&mut shop, at) {
                    if HOURS - RETENTION_HOURS < hour {
                        recent.extend(batch.spans.iter().map(|span| span.trace_id));
                    }
                    if random.one_in(3) && hour + 1 < HOURS { late.push(batch) } else { batches.push(batch) }
                }
            }
            opened.clock.set(UnixNanos(NOW + (hour + 1) * HOUR));
            for half in batches.chunks(batches.len().div_ceil(2)) {
                for batch in half {
                    for span in &batch.spans {
                        let _new = sent.entry(span.trace_id).or_default().insert(span.span_id);
                    }
                    opened.store.push([(sequence, opened.clock.now(), Arc::clone(batch))]);
                    sequence += 1;
                }
                let frozen = opened.store.freeze(&partition).expect("it holds spans");
                let _done = opened.store.checkpoint(&frozen).expect("it can be written");
            }
            let _manifest = opened.store.seal(&partition).expect("it verifies");
        }
        let by_hand = *sent.keys().find(|trace| !recent.contains(*trace)).expect("there are some");
        let _pin = opened.query.pin(by_hand, "kept".to_owned(), None).expect("it is stored");
        let numbers = opened.numbers();
        Self { dir, sent, recent, by_hand, numbers, turn: AtomicUsize::new(0) }
    }

    pub(super) fn copy_to(&self, dir: &Path) {
        copy_tree(self.dir.path(), dir);
    }

    /// Whatever has left by now, or was about to.
    #[track_caller]
    pub(super) fn check(&self, opened: &Opened, stage: usize, context: &str) {
        let covered = opened.store.partitions();
        let covered: Vec<u64> = covered.iter().flat_map(|one| one.seq()..=one.last_seq()).collect();
        assert_eq!(covered, (1..=HOURS).collect::<Vec<_>>(), "{context}: every partition once: {:?}", opened.names());
        assert_eq!(opened.store.quarantined(), [""; 0], "{context}");
        let numbers = opened.numbers();
        let differs = self.numbers.iter().find(|(of, expected)| numbers.get(of) != Some(expected));
        assert!(differs.is_none(), "{context}: {differs:?}, not {:?}", differs.map(|(of, _)| &numbers[of]));
        let whole = |trace: TraceId| {
            let answer = opened.query.trace(trace).expect("it is open");
            let found: BTreeSet<SpanId> = answer.batch.spans.iter().map(|span| span.span_id).collect();
            assert_eq!((found, answer.coverage.reasons), (self.sent[&trace].clone(), Vec::new()), "{context}: {trace}");
        };
        let everything = TimeRange { start: UnixNanos(NOW), end: UnixNanos(NOW + (HOURS + 1) * HOUR) };
        let (mut shown, mut known) = (BTreeSet::new(), true);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let asked: Vec<String> = opened.services().into_iter().skip(turn % 4).step_by(4).collect();
        crawl(&opened.query, &asked, everything, &mut |Shown { trace, span, .. }| {
            known &= self.sent[&trace].contains(&span);
            let _new = shown.insert(trace);
        });
        assert!(known && !shown.is_empty(), "{context}: {} traces are shown", shown.len());
        shown.into_iter().chain([self.by_hand]).for_each(whole);
        if stage == 0 {
            self.recent.iter().copied().for_each(whole);
        }
    }

    /// The same as a start finds it, then everything that `spandrel check` reads.
    #[track_caller]
    pub(super) fn check_dir(&self, dir: &Path, stage: usize, context: &str) {
        self.check(&Opened::at(dir, STAGES[stage]), stage, context);
        let idle = IdleDir::lock(dir).expect("nobody uses it");
        assert_eq!(idle.leftovers(), [""; 0], "{context}");
        for partition in idle.partitions() {
            let report = partition.check(&settings(dir), &mut |_| {});
            assert_eq!(report.faults, [""; 0], "{context}: {}", partition.name());
        }
    }
}

fn visit(shop: &mut Shop, at: UnixNanos) -> Vec<Arc<SpanBatch>> {
    let mut requests = Requests::new(Grouping::Process);
    let mut full = requests.add(shop.next_trace(at));
    full.extend(requests.flush());
    let batch = |body: Vec<u8>| decode(body, &DecodeOptions::default()).expect("good spans").batch;
    full.iter().map(|request| Arc::new(batch(request.encode_to_vec()))).collect()
}
