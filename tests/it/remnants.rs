//! Days of a shop in minutes: partitions come and go under a retention of a few hours while spans come late and the process
//! starts over; whatever answer is given at whatever time, its exemplars open as whole traces and nothing is miscounted.
//!
//! Sixteen hours by default; `SPANDREL_REMNANT_HOURS=240 cargo test --release --test it remnants` for the long form, in which
//! every exemplar is fetched again for each window that shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message as _;
use spandrel::cli::shop::{Grouping, Requests, Shop};
use spandrel::clock::Clock;
use spandrel::model::{DurationNanos, SpanBatch, SpanId, TimeRange, TraceId, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::{ExemplarAnswer, PercentileQuestion, Query};
use spandrel::store::{Partition, Store, StoreConfig};
use spandrel::telemetry::Counters;
use tempfile::TempDir;

use crate::crawl::{Shown, ShownBy, crawl, open, quantiles, rank};
use crate::support::Random;

/// 2026-11-23T00:00:00Z
const NOW: u64 = 1_795_392_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;
const TRACES_PER_HOUR: u64 = 40;
/// By default.
const HOURS: u64 = 16;
/// One service in so many is asked about at once.
const FEW: usize = 4;
const RETENTION_HOURS: u64 = 3;
const ROLLUP_HOURS: u64 = 9;
/// One in so many requests comes in a later partition.
const LATE: u64 = 3;

/// What one partition got, and when it let it go.
#[derive(Debug, Default)]
struct Received {
    spans: BTreeSet<(TraceId, SpanId)>,
    /// In hours.
    sealed: Option<u64>,
    left: Option<u64>,
}

struct Life {
    dir: TempDir,
    clock: Clock,
    store: Option<Arc<Store>>,
    query: Query,
    random: Random,
    sequence: u64,
    /// By partition number.
    received: BTreeMap<u64, Received>,
    /// Of each trace, the partitions with spans of it.
    places: BTreeMap<TraceId, BTreeSet<u64>>,
    /// Requests that come late.
    held_back: Vec<Arc<SpanBatch>>,
    /// Traces that are pinned, and since when.
    pinned: BTreeMap<TraceId, u64>,
    hour: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let clock = Clock::manual(UnixNanos(NOW));
        let query = Query::new(clock.clone(), Arc::new(Counters::default()));
        let dir = tempfile::tempdir().expect("a directory");
        let (received, places, pinned) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let held_back = Vec::new();
        let random = Random(seed);
        let mut life =
            Self { dir, clock, store: None, query, random, sequence: 1, received, places, held_back, pinned, hour: 0 };
        life.open();
        life
    }

    fn open(&mut self) {
        self.store = None;
        self.query = Query::new(self.clock.clone(), Arc::new(Counters::default()));
        let config = StoreConfig {
            cache_bytes: 1 << 20,
            open_partitions_max: 4,
            retention: Some(DurationNanos(RETENTION_HOURS * HOUR)),
            rollup_retention: Some(DurationNanos(ROLLUP_HOURS * HOUR)),
            remnants_merged_at_once: 4,
            verify_at_start_bytes_max: 64 << 20,
            ..StoreConfig::keeping_all(self.dir.path())
        };
        let counters = Arc::new(Counters::default());
        let store = Arc::new(Store::open(config, self.clock.clone(), Arc::clone(&counters)).expect("it opens"));
        self.query = Query::new(self.clock.clone(), counters);
        self.query.attach(Arc::clone(&store));
        self.store = Some(store);
    }

    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("it is open")
    }

    fn push(&mut self, partition: &Partition, batch: Arc<SpanBatch>) {
        let received = self.received.entry(partition.seq()).or_default();
        for span in &batch.spans {
            let _new = received.spans.insert((span.trace_id, span.span_id));
            let _new = self.places.entry(span.trace_id).or_default().insert(partition.seq());
        }
        let arrived = self.clock.now();
        self.store().push([(self.sequence, arrived, batch)]);
        self.sequence += 1;
    }

    /// An hour of visits into a partition of their own, which is sealed some time after.
    fn live_an_hour(&mut self, shop: &mut Shop) {
        let partition = self.store().start_partition().expect("there is space");
        let _new = self.received.entry(partition.seq()).or_default();
        let mut requests = Requests::new(Grouping::Process);
        let begin = NOW + self.hour * HOUR;
        for no in 0..TRACES_PER_HOUR {
            let at = UnixNanos(begin + no * HOUR / TRACES_PER_HOUR);
            self.clock.set(UnixNanos(at.0 + SECOND));
            let mut full = requests.add(shop.next_trace(at));
            if no % 6 == 5 {
                full.extend(requests.flush());
            }
            for request in full {
                let batch = decode(request.encode_to_vec(), &DecodeOptions::default()).expect("good spans").batch;
                let batch = Arc::new(batch);
                if self.random.one_in(LATE) { self.held_back.push(batch) } else { self.push(&partition, batch) }
            }
            if self.random.one_in(20) {
                self.checkpoint(&partition);
            }
        }
        for batch in std::mem::take(&mut self.held_back) {
            if self.random.one_in(3) { self.held_back.push(batch) } else { self.push(&partition, batch) }
        }
        self.checkpoint(&partition);
        self.hour += 1;
        self.clock.set(UnixNanos(NOW + self.hour * HOUR));
    }

    fn checkpoint(&self, partition: &Arc<Partition>) {
        if let Some(frozen) = self.store().freeze(partition) {
            let _done = self.store().checkpoint(&frozen).expect("it can be written");
        }
    }

    fn seal_some(&mut self) {
        let unsealed = self.store().unsealed();
        let all_but = usize::from(self.random.one_in(3));
        for partition in unsealed.iter().rev().skip(all_but) {
            let _manifest = self.store().seal(partition).expect("it verifies");
            self.received.get_mut(&partition.seq()).expect("it is known").sealed = Some(self.hour);
        }
    }

    fn let_go(&mut self) {
        let _dropped = self.store().enforce_retention().expect("it can be done");
        for partition in self.store().partitions() {
            let is_live = partition.manifest().is_none_or(|manifest| manifest.is_live());
            for seq in partition.seq()..=partition.last_seq() {
                if let Some(received) = self.received.get_mut(&seq).filter(|_| !is_live) {
                    let _first = received.left.get_or_insert(self.hour);
                }
            }
        }
    }

    fn found(&self, trace: TraceId) -> BTreeSet<SpanId> {
        let found = open(&self.query, trace);
        if is_long() || trace.low_u64().is_multiple_of(8) {
            rank(&self.query, &found);
        }
        found.spans.iter().map(|span| span.span_id).collect()
    }

    /// Everything of its trace that had not left when the partition of the exemplar was sealed is there.
    #[track_caller]
    fn check_whole(&self, trace: TraceId, span: Option<SpanId>, since: Option<u64>, found: &BTreeSet<SpanId>) {
        let places = || self.places[&trace].iter().map(|seq| &self.received[seq]);
        let holds = |received: &&Received| span.is_none_or(|span| received.spans.contains(&(trace, span)));
        let of_exemplar = places().filter(holds).map(|received| received.sealed.unwrap_or(self.hour)).max();
        let chosen = since.or(of_exemplar).expect("it was sent");
        for received in places().filter(|received| received.left.is_none_or(|left| chosen <= left)) {
            for (_, span) in received.spans.range((trace, SpanId([0; 8]))..=(trace, SpanId([0xff; 8]))) {
                assert!(found.contains(span), "{trace} opens without {span}, hour {}", self.hour);
            }
        }
    }

    /// Asks for everything that can be asked for and opens what is shown. In the long form a trace is fetched anew for each
    /// window that shows it.
    fn crawl(&self, fetched: &mut ShownBy) {
        let services: Vec<String> =
            self.query.services().expect("it is open").into_iter().map(|service| service.name).collect();
        let (mut opened, mut traces) = (BTreeSet::new(), BTreeMap::new());
        for (no, window) in self.windows().into_iter().enumerate() {
            // A few each time in the short form.
            let asked =
                services.iter().skip(if is_long() { 0 } else { no % FEW }).step_by(if is_long() { 1 } else { FEW });
            let asked: Vec<String> = asked.cloned().collect();
            crawl(&self.query, &asked, window, &mut |Shown { by, trace, span }| {
                if opened.insert((trace, span)) {
                    *fetched.entry(by).or_default() += 1;
                    let found = traces.entry(trace).or_insert_with(|| self.found(trace));
                    self.check_whole(trace, Some(span), None, found);
                }
            });
            if is_long() {
                opened.clear();
                traces.clear();
            }
        }
        for (trace, since) in &self.pinned {
            self.check_whole(*trace, None, Some(*since), &self.found(*trace));
        }
    }

    fn windows(&self) -> Vec<TimeRange> {
        let now = self.clock.now().0;
        let window = |from: u64, to: u64| TimeRange { start: UnixNanos(from), end: UnixNanos(to) };
        let hours = (0..=self.hour).step_by(5).map(|hour| window(NOW + hour * HOUR, NOW + (hour + 1) * HOUR));
        let odd = (0..=self.hour)
            .step_by(7)
            .map(|hour| window(NOW + hour * HOUR + 17 * SECOND, NOW + hour * HOUR + 1_900 * SECOND));
        hours.chain(odd).chain([window(0, now + HOUR), window(now - 3 * HOUR, now)]).collect()
    }

    fn exemplars(&self, service: &str, range: TimeRange) -> Vec<ExemplarAnswer> {
        let quantiles = quantiles(&[0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]);
        let question = PercentileQuestion::plain(service, quantiles, range, 4);
        let answer = self.query.percentile(&question).expect("the service is known");
        answer.whole.quantiles.into_iter().flat_map(|row| row.exemplars).collect()
    }

    /// As many spans as were sent, whatever has left.
    fn check_counts(&self) {
        let sent: usize = self.received.values().map(|received| received.spans.len()).sum();
        let counted: u64 = self.query.services().expect("it is open").iter().map(|service| service.span_count).sum();
        if self.hour <= ROLLUP_HOURS {
            assert_eq!(counted, sent as u64, "hour {}", self.hour);
        }
    }
}

fn hours() -> u64 {
    std::env::var("SPANDREL_REMNANT_HOURS").ok().map_or(HOURS, |hours| hours.parse().expect("a number"))
}

fn is_long() -> bool {
    HOURS < hours()
}

#[test]
fn rel_20_every_exemplar_opens_as_a_whole_trace_whatever_has_left() {
    let (mut life, mut shop) = (Life::new(7), Shop::new(7));
    let mut shown_by = ShownBy::new();
    for hour in 0..hours() {
        life.live_an_hour(&mut shop);
        if hour % 6 == 3 {
            let (trace, _) = *life.received.values().last().expect("one an hour").spans.first().expect("it has spans");
            let _pin = life.query.pin(trace, "seen".to_owned(), None).expect("it is stored");
            let _first = life.pinned.entry(trace).or_insert(life.hour);
        }
        life.seal_some();
        life.let_go();
        if life.random.one_in(3) {
            life.open();
        }
        if hour % 3 == 2 {
            life.crawl(&mut shown_by);
        }
        life.check_counts();
    }
    let n_partitions = life.store().partitions().len();
    let left = life.received.values().filter(|received| received.left.is_some()).count();
    let fetches: u64 = shown_by.values().sum();
    println!(
        "{fetches} exemplars fetched, {left} partitions let their spans go, {n_partitions} are there; {shown_by:?}"
    );
    assert!(hours() - RETENTION_HOURS - 3 <= left as u64, "{left}");
    assert_eq!(shown_by.len(), 6, "each kind of answer showed some that no other did: {shown_by:?}");
    assert!(n_partitions < 9 + left / 2, "remnants become few: {n_partitions}");
}

/// The window begins in a minute and ends in another: only whole minutes are left.
#[test]
fn windows_over_what_has_left_are_whole_slots_and_the_answer_says_so() {
    let (mut life, mut shop) = (Life::new(3), Shop::new(3));
    for _ in 0..2 {
        life.live_an_hour(&mut shop);
        for partition in life.store().unsealed() {
            let _manifest = life.store().seal(&partition).expect("it verifies");
        }
    }
    let count = |life: &Life, from: u64, to: u64| {
        let question = PercentileQuestion::plain(
            "frontend",
            Vec::new(),
            TimeRange { start: UnixNanos(NOW + from * SECOND), end: UnixNanos(NOW + to * SECOND) },
            0,
        );
        let answer = life.query.percentile(&question).expect("the service is known");
        (answer.whole.count, answer.coverage.reasons)
    };
    let windows = [(0_u64, 60_u64), (60, 600), (7, 100), (610, 1_790), (0, 7_200), (1_000, 4_000)];
    let before = windows.map(|(from, to)| count(&life, from / 60 * 60, to.next_multiple_of(60)));
    life.hour = 2 + RETENTION_HOURS + 2;
    life.clock.set(UnixNanos(NOW + life.hour * HOUR));
    life.let_go();
    assert!(life.received.values().all(|received| received.left.is_some()));
    for ((from, to), (expected, _)) in windows.into_iter().zip(before) {
        let (found, reasons) = count(&life, from, to);
        assert_eq!(found, expected, "{from} to {to}");
        let is_whole = from % 60 == 0 && to % 60 == 0;
        assert_eq!(reasons.is_empty(), is_whole, "{from} to {to}: {reasons:?}");
        assert!(is_whole || reasons[0].contains("whole slots of 60 s"), "{reasons:?}");
    }
}

/// Exemplars are kept decoded by their places, and places change when spans leave.
#[test]
fn what_was_shown_before_is_not_shown_in_the_place_of_another_span() {
    let (mut life, mut shop) = (Life::new(4), Shop::new(4));
    for _ in 0..2 {
        life.live_an_hour(&mut shop);
        for partition in life.store().unsealed() {
            let _manifest = life.store().seal(&partition).expect("it verifies");
            life.received.get_mut(&partition.seq()).expect("it is known").sealed = Some(life.hour);
        }
    }
    let every_ten_minutes: Vec<TimeRange> = (0..12)
        .map(|no| TimeRange { start: UnixNanos(NOW + no * HOUR / 6), end: UnixNanos(NOW + (no + 1) * HOUR / 6) })
        .collect();
    let all = |life: &Life| -> Vec<ExemplarAnswer> {
        let services = life.query.services().expect("it is open").into_iter();
        let of_service =
            |name: String| every_ten_minutes.iter().flat_map(|range| life.exemplars(&name, *range)).collect::<Vec<_>>();
        services.flat_map(|service| of_service(service.name)).collect()
    };
    let before = all(&life).len();
    life.hour = 2 + RETENTION_HOURS + 2;
    life.clock.set(UnixNanos(NOW + life.hour * HOUR));
    life.let_go();
    let after = all(&life);
    assert!(!after.is_empty() && after.len() < before, "{} of {before}", after.len());
    for exemplar in after {
        let found = life.found(exemplar.trace_id);
        assert!(found.contains(&exemplar.span_id), "{exemplar:?}");
        life.check_whole(exemplar.trace_id, Some(exemplar.span_id), None, &found);
    }
}
