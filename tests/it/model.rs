//! The store against a model: random operations on both, the same answers from both.
//!
//! The model is the journal: a list of records per partition, and when which service of it left. Whatever was frozen,
//! checkpointed, sealed, let go, merged, crashed and opened again in between, a trace is a copy of each of its spans that is
//! still stored, a percentile counts the distinct spans of each partition, whether they are still stored or not, and the
//! exemplars it shows open as whole traces.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message as _;
use spandrel::clock::Clock;
use spandrel::model::{DurationNanos, SpanBatch, TimeRange, TraceId, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::{ExemplarAnswer, PercentileAnswer, PercentileQuestion, Quantile, Query};
use spandrel::store::{FrozenHead, KeepRule, Partition, Store, StoreConfig};
use spandrel::telemetry::Counters;
use tempfile::TempDir;

/// 2026-11-23T10:00:00Z
const NOW: u64 = 1_795_428_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const SERVICES: [&str; 2] = ["checkout", "kept"];
const TRACES: u8 = 6;

/// What can happen to a store.
#[derive(Clone, Debug)]
enum Op {
    /// A request of these spans is acknowledged.
    Push(Vec<Item>),
    Freeze,
    /// The oldest frozen head becomes a block.
    Checkpoint,
    /// The next partition begins.
    Rotate,
    /// The oldest partition that is full is sealed.
    Seal,
    /// Everything but the kept service is out of retention.
    ExpireMost,
    ExpireAll,
    /// So many days later: roll-ups of minutes, and then of ten minutes, are too old.
    Age(u64),
    /// By hand.
    Pin(u8),
    Unpin(u8),
    /// `kill -9`, and the start after it.
    Crash,
}

/// One span. Trace and span make its identity; the variant makes a copy that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    trace: u8,
    span: u8,
    variant: bool,
}

impl Item {
    fn key(self) -> (u8, u8) {
        (self.trace, self.span)
    }

    fn service(self) -> &'static str {
        SERVICES[usize::from((self.trace + self.span) % 2)]
    }

    fn duration(self) -> u64 {
        1_000_000 * (1 + u64::from(self.trace) * 40 + u64::from(self.span)) + 100_000 * u64::from(self.variant)
    }

    fn span(self) -> Span {
        let start = NOW + u64::from(self.trace) * 7 * SECOND;
        Span {
            trace_id: trace_id(self.trace).0.to_vec(),
            span_id: vec![self.span + 1; 8],
            kind: 2,
            name: "POST /pay".to_owned(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + self.duration(),
            ..Span::default()
        }
    }
}

fn trace_id(trace: u8) -> TraceId {
    TraceId([trace + 1; 16])
}

fn request(items: &[Item]) -> SpanBatch {
    let resource_spans = SERVICES.iter().map(|service| {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue((*service).to_owned())) });
        let attributes = vec![KeyValue { key: "service.name".to_owned(), value, ..KeyValue::default() }];
        let spans = items.iter().filter(|item| item.service() == *service).map(|item| item.span()).collect();
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    });
    let request = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
    decode(request.encode_to_vec(), &DecodeOptions::default()).expect("good spans").batch
}

/// What the journal of a partition holds, and what became of the partition: when, in steps.
#[derive(Clone, Debug, Default)]
struct Journal {
    records: Vec<(u64, Vec<Item>)>,
    sealed: Option<usize>,
    /// When each of `SERVICES` left.
    left: [Option<usize>; 2],
}

impl Journal {
    /// The first copy of each span, whether its service has left or not.
    fn spans(&self) -> BTreeMap<(u8, u8), Item> {
        let mut spans = BTreeMap::new();
        // Spans of one request stand by service, as `request` puts them.
        let in_order = self.records.iter().flat_map(|(_, items)| {
            SERVICES.iter().flat_map(|service| items.iter().filter(|item| item.service() == *service))
        });
        for item in in_order {
            let _first = spans.entry(item.key()).or_insert(*item);
        }
        spans
    }

    fn left(&self, item: Item) -> Option<usize> {
        self.left[usize::from(item.service() == "kept")]
    }

    /// Whether a span of it must still be there for whoever chose its trace at that step.
    fn must_hold(&self, item: Item, chosen: usize) -> bool {
        self.left(item).is_none_or(|left| chosen <= left)
    }
}

/// A store and its model.
struct Both {
    dir: TempDir,
    clock: Clock,
    store: Option<Arc<Store>>,
    query: Query,
    frozen: VecDeque<Arc<FrozenHead>>,
    model: BTreeMap<u64, Journal>,
    /// Trace and when it was pinned.
    pinned: BTreeMap<u8, usize>,
    next_sequence: u64,
    step: usize,
}

impl Both {
    fn new() -> Self {
        let clock = Clock::manual(UnixNanos(NOW));
        let query = Query::new(clock.clone(), Arc::new(Counters::default()));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (frozen, model, pinned) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        let mut both = Self { dir, clock, store: None, query, frozen, model, pinned, next_sequence: 1, step: 1 };
        both.open();
        let first = both.store().start_partition().expect("there is space");
        let _new = both.model.insert(first.seq(), Journal::default());
        both
    }

    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("it is open")
    }

    fn open(&mut self) {
        let config = StoreConfig {
            cache_bytes: 1 << 20,
            open_partitions_max: 1,
            retention: Some(DurationNanos::from_secs(3_600)),
            remnants_merged_at_once: 2,
            keep: vec![KeepRule { service: "kept".to_owned(), keep: DurationNanos::from_secs(5 * 3_600) }],
            verify_at_start_bytes_max: 64 << 20,
            ..StoreConfig::keeping_all(self.dir.path())
        };
        let counters = Arc::new(Counters::default());
        let store = Arc::new(Store::open(config, self.clock.clone(), Arc::clone(&counters)).expect("it opens"));
        self.query = Query::new(self.clock.clone(), counters);
        self.query.attach(Arc::clone(&store));
        self.store = Some(store);
    }

    /// The partition that takes what comes.
    fn active(&self) -> Arc<Partition> {
        Arc::clone(self.store().partitions().last().expect("there is always one"))
    }

    fn push(&self, sequence: u64, items: &[Item]) {
        self.store().push([(sequence, UnixNanos(NOW + 100 * SECOND), Arc::new(request(items)))]);
    }

    fn apply(&mut self, op: &Op) {
        self.step += 1;
        match op {
            Op::Push(items) => {
                self.push(self.next_sequence, items);
                let active = self.active().seq();
                let journal = self.model.get_mut(&active).expect("the model knows it");
                journal.records.push((self.next_sequence, items.clone()));
                self.next_sequence += 1;
            }
            Op::Freeze => self.frozen.extend(self.store().freeze(&self.active())),
            Op::Checkpoint => self.checkpoint_one(),
            Op::Rotate => {
                self.frozen.extend(self.store().freeze(&self.active()));
                let next = self.store().start_partition().expect("there is space");
                let _new = self.model.insert(next.seq(), Journal::default());
            }
            Op::Seal => self.seal_one(),
            Op::ExpireMost => self.expire(2, &[0]),
            Op::ExpireAll => self.expire(8, &[0, 1]),
            Op::Age(days) => self.expire(24 * days, &[0, 1]),
            Op::Pin(trace) => self.pin(*trace),
            Op::Unpin(trace) => {
                let was_pinned = self.store().unpin(trace_id(*trace)).expect("the file can be written").is_some();
                assert_eq!(was_pinned, self.pinned.remove(trace).is_some());
            }
            Op::Crash => self.crash(),
        }
    }

    fn checkpoint_one(&mut self) {
        if let Some(oldest) = self.frozen.pop_front() {
            let _done = self.store().checkpoint(&oldest).expect("it can be written");
        }
    }

    fn seal_one(&mut self) {
        let active = self.active().seq();
        let full = self.store().unsealed().into_iter().find(|partition| partition.seq() != active);
        let Some(full) = full else { return };
        while self.frozen.iter().any(|frozen| frozen.partition.seq() == full.seq()) {
            self.checkpoint_one();
        }
        let _manifest = self.store().seal(&full).expect("what was written verifies");
        self.model.get_mut(&full.seq()).expect("the model knows it").sealed = Some(self.step);
    }

    fn expire(&mut self, hours: u64, services: &[usize]) {
        self.clock.set(UnixNanos(NOW + hours * 3_600 * SECOND));
        let _dropped = self.store().enforce_retention().expect("directories can be removed");
        self.clock.set(UnixNanos(NOW));
        for journal in self.model.values_mut().filter(|journal| journal.sealed.is_some()) {
            for service in services {
                let _first = journal.left[*service].get_or_insert(self.step);
            }
        }
    }

    fn pin(&mut self, trace: u8) {
        let is_stored = !self.found(trace).is_empty();
        let _before = self.store().pin(trace_id(trace), "why".to_owned(), None).expect("there is room");
        if is_stored {
            let _first = self.pinned.entry(trace).or_insert(self.step);
        } else {
            let _removed = self.store().unpin(trace_id(trace)).expect("the file can be written");
        }
    }

    /// Everything in memory is gone; each unsealed partition is filled from its journal again.
    fn crash(&mut self) {
        self.frozen.clear();
        self.query = Query::new(self.clock.clone(), Arc::new(Counters::default()));
        self.store = None;
        self.open();
        let unsealed = self.store().unsealed();
        for (at, partition) in unsealed.iter().enumerate() {
            let covered = self.store().open_partition(partition).expect("it opens").covered_sequence();
            for (sequence, items) in &self.model[&partition.seq()].records {
                if covered < *sequence {
                    self.push(*sequence, items);
                }
            }
            if at + 1 < unsealed.len()
                && let Some(frozen) = self.store().freeze(partition)
            {
                let _done = self.store().checkpoint(&frozen).expect("it can be written");
            }
        }
    }

    /// The spans of a trace with their durations, each once.
    fn found(&self, trace: u8) -> BTreeMap<u8, u64> {
        let answer = self.query.trace(trace_id(trace)).expect("it is open");
        assert_eq!(answer.coverage.reasons, [""; 0]);
        let found: BTreeMap<u8, u64> = (answer.batch.spans.iter())
            .map(|span| (span.span_id.0[0] - 1, span.latency().expect("both times are set").0))
            .collect();
        assert_eq!(found.len(), answer.batch.spans.len(), "each span once");
        found
    }

    /// What every partition got of a trace.
    fn sent(&self, trace: u8) -> impl Iterator<Item = (&Journal, Item)> {
        let of_journal = move |journal: &Journal| {
            journal.spans().into_values().filter(move |item| item.trace == trace).collect::<Vec<_>>()
        };
        self.model.values().flat_map(move |journal| of_journal(journal).into_iter().map(move |item| (journal, item)))
    }

    /// Of every trace there is what has not left, and what was pinned before it left; whatever is there was sent so.
    fn check_traces(&self) {
        for trace in 0..TRACES {
            let found = self.found(trace);
            let pinned = self.pinned.get(&trace).copied();
            for (journal, item) in self.sent(trace) {
                let must = journal.left(item).is_none() || pinned.is_some_and(|at| journal.must_hold(item, at));
                assert!(!must || found.contains_key(&item.span), "span {} of trace {trace} is missing", item.span);
            }
            let is_sent = |(span, took): (&u8, &u64)| {
                self.sent(trace).any(|(_, item)| (item.span, item.duration()) == (*span, *took))
            };
            assert!(found.iter().all(is_sent), "trace {trace}");
        }
    }

    /// The exemplar's span lies in some partition. Whatever of its trace had not left when that one chose it must be there.
    fn check_whole(&self, exemplar: &ExemplarAnswer) {
        let trace = exemplar.trace_id.0[0] - 1;
        let span = exemplar.span_id.0[0] - 1;
        let found = self.found(trace);
        assert!(!found.is_empty(), "trace {trace} opens");
        let shows = |(_, item): &(&Journal, Item)| item.span == span && item.duration() == exemplar.duration.0;
        let chosen = self.sent(trace).filter(shows).map(|(journal, item)| match journal.sealed {
            // Of a service that a rule keeps every span is shown, with what else is left of its trace.
            Some(_) if journal.left(item).is_none() && journal.left[0].is_some() => self.step + 1,
            Some(sealed) => sealed,
            None => self.step + 1,
        });
        let chosen = chosen.max().expect("it was sent");
        for (journal, item) in self.sent(trace) {
            let must = journal.must_hold(item, chosen);
            assert!(!must || found.contains_key(&item.span), "{exemplar:?} opens without span {}", item.span);
        }
    }

    /// With nothing in memory, a percentile counts every span of each partition once, and its exemplars open.
    fn check_counts(&mut self) {
        self.frozen.extend(self.store().freeze(&self.active()));
        while !self.frozen.is_empty() {
            self.checkpoint_one();
        }
        for service in SERVICES {
            let counted: Vec<Item> = (self.model.values())
                .flat_map(|journal| journal.spans().into_values())
                .filter(|item| item.service() == service)
                .collect();
            let quantiles = [0.0, 0.3, 0.5, 0.9, 0.99, 1.0].map(|q| Quantile::try_from(q).expect("it is one"));
            for (from, to) in [(NOW - 3_600 * SECOND, NOW + 3_600 * SECOND), (NOW + 7 * SECOND, NOW + 22 * SECOND)] {
                let question = PercentileQuestion::plain(
                    service,
                    quantiles.to_vec(),
                    TimeRange { start: UnixNanos(from), end: UnixNanos(to) },
                    3,
                );
                let Ok(answer) = self.query.percentile(&question) else {
                    assert!(counted.is_empty(), "{service} is unknown");
                    continue;
                };
                answer.whole.quantiles.iter().flat_map(|row| &row.exemplars).for_each(|one| self.check_whole(one));
                if from < NOW {
                    self.check_all(service, &answer, &counted);
                }
            }
        }
    }

    /// All time: every span is counted, and the slowest of all is shown.
    fn check_all(&self, service: &str, answer: &PercentileAnswer, counted: &[Item]) {
        assert_eq!(answer.whole.count, counted.len() as u64, "{service}");
        assert_eq!(answer.coverage.reasons, [""; 0], "whole hours are whole slots");
        let Some(slowest) = counted.iter().map(|item| item.duration()).max() else { return };
        let exemplar = &answer.whole.quantiles.last().expect("one per question").exemplars[0];
        let nothing_left = self.model.values().all(|journal| journal.left == [None; 2]);
        if nothing_left {
            assert_eq!(exemplar.duration.0, slowest, "{service}: the slowest");
        }
        assert!(exemplar.in_bucket, "{service}: the slowest, to the bucket, is shown for as long as it is counted");
    }
}

fn any_item() -> impl Strategy<Value = Item> {
    (0..TRACES, 0..8_u8, any::<bool>()).prop_map(|(trace, span, variant)| Item { trace, span, variant })
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec(any_item(), 1..8).prop_map(Op::Push),
        3 => Just(Op::Freeze),
        3 => Just(Op::Checkpoint),
        2 => Just(Op::Rotate),
        2 => Just(Op::Seal),
        1 => Just(Op::ExpireMost),
        1 => Just(Op::ExpireAll),
        1 => prop_oneof![Just(Op::Age(40)), Just(Op::Age(100))],
        1 => (0..TRACES).prop_map(Op::Pin),
        1 => (0..TRACES).prop_map(Op::Unpin),
        2 => Just(Op::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_its_journal_would_whatever_happens_in_between(ops in prop::collection::vec(any_op(), 1..40)) {
        let mut both = Both::new();
        for op in &ops {
            both.apply(op);
            both.check_traces();
        }
        both.check_counts();
        both.apply(&Op::Crash);
        both.check_traces();
        both.check_counts();
    }
}

/// `SPANDREL_MODEL_CASES=2000 cargo test --release --test it model` for the long form.
fn cases() -> u32 {
    std::env::var("SPANDREL_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20)
}
