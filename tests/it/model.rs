//! The store against a model: random operations on both, the same answers from both.
//!
//! The model is the journal: a list of records per partition. Whatever was frozen, checkpointed, sealed, shrunk, crashed
//! and opened again in between, a trace is the first copy of each of its spans, and a percentile counts the distinct spans of
//! each partition that is still there.

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
use spandrel::query::{PercentileQuestion, Quantile, Query};
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

/// What the journal of a partition holds, and what became of the partition.
#[derive(Clone, Debug, Default)]
struct Journal {
    records: Vec<(u64, Vec<Item>)>,
    sealed: bool,
    only_kept: bool,
    dropped: bool,
}

impl Journal {
    /// The first copy of each span that is still there.
    fn spans(&self) -> BTreeMap<(u8, u8), Item> {
        let mut spans = BTreeMap::new();
        // Spans of one request stand by service, as `request` puts them.
        let in_order = self.records.iter().flat_map(|(_, items)| {
            SERVICES.iter().flat_map(|service| items.iter().filter(|item| item.service() == *service))
        });
        for item in in_order.filter(|item| !self.only_kept || item.service() == "kept").filter(|_| !self.dropped) {
            let _first = spans.entry(item.key()).or_insert(*item);
        }
        spans
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
    next_sequence: u64,
}

impl Both {
    fn new() -> Self {
        let clock = Clock::manual(UnixNanos(NOW));
        let query = Query::new(clock.clone(), Arc::new(Counters::default()));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (frozen, model) = (VecDeque::new(), BTreeMap::new());
        let mut both = Self { dir, clock, store: None, query, frozen, model, next_sequence: 1 };
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
            data_dir: self.dir.path().to_path_buf(),
            cache_bytes: 1 << 20,
            open_partitions_max: 1,
            retention: Some(DurationNanos::from_secs(3_600)),
            rollup_retention: None,
            keep: vec![KeepRule { service: "kept".to_owned(), keep: DurationNanos::from_secs(5 * 3_600) }],
            disk_bytes_max: u64::MAX,
            verify_at_start_bytes_max: 64 << 20,
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
            Op::ExpireMost => self.expire(2, |journal| journal.only_kept = true),
            Op::ExpireAll => self.expire(8, |journal| journal.dropped = true),
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
        self.model.get_mut(&full.seq()).expect("the model knows it").sealed = true;
    }

    fn expire(&mut self, hours: u64, change: fn(&mut Journal)) {
        self.clock.set(UnixNanos(NOW + hours * 3_600 * SECOND));
        let _dropped = self.store().enforce_retention().expect("directories can be removed");
        self.clock.set(UnixNanos(NOW));
        self.model.values_mut().filter(|journal| journal.sealed).for_each(change);
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

    /// Every trace is the first copy of each of its spans.
    fn check_traces(&self) {
        let mut expected: BTreeMap<(u8, u8), Item> = BTreeMap::new();
        for journal in self.model.values() {
            for (key, item) in journal.spans() {
                let _first = expected.entry(key).or_insert(item);
            }
        }
        for trace in 0..TRACES {
            let answer = self.query.trace(trace_id(trace)).expect("it is open");
            assert_eq!(answer.coverage.reasons, [""; 0]);
            let found: BTreeMap<u8, u64> = (answer.batch.spans.iter())
                .map(|span| (span.span_id.0[0] - 1, span.latency().expect("both times are set").0))
                .collect();
            assert_eq!(found.len(), answer.batch.spans.len(), "each span once");
            let of_trace = expected.values().filter(|item| item.trace == trace);
            assert_eq!(found, of_trace.map(|item| (item.span, item.duration())).collect(), "trace {trace}");
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
            let question = PercentileQuestion {
                service: service.to_owned(),
                namespace: None,
                quantiles: vec![Quantile::try_from(1.0).expect("it is one")],
                range: TimeRange { start: UnixNanos(NOW - 3_600 * SECOND), end: UnixNanos(NOW + 3_600 * SECOND) },
                exemplars_max: 3,
            };
            let Ok(answer) = self.query.percentile(&question) else {
                assert!(counted.is_empty(), "{service} is unknown");
                continue;
            };
            assert_eq!(answer.count, counted.len() as u64, "{service}");
            if let Some(slowest) = counted.iter().map(|item| item.duration()).max() {
                let exemplar = &answer.quantiles[0].exemplars[0];
                assert_eq!(exemplar.duration.0, slowest, "{service}: the slowest");
                assert!(!self.query.trace(exemplar.trace_id).expect("it is open").batch.spans.is_empty(), "it opens");
            }
        }
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
