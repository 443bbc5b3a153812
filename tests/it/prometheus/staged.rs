//! A store whose spans go on when a test says so: from the head into a block, into a sealed partition, and away.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use spandrel::clock::Clock;
use spandrel::model::UnixNanos;
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::Query;
use spandrel::query::promql::series::Samples;
use spandrel::query::promql::{Instants, PromValue};
use spandrel::store::{Partition, Store, StoreConfig};
use spandrel::telemetry::Counters;
use tempfile::TempDir;

use super::sent::{Numbers, SECOND, Sent, labels_text};

/// 2026-11-23T00:00:00Z
pub(super) const START: u64 = 1_795_392_000_000_000_000;
pub(super) const HOUR: u64 = 3_600 * SECOND;

pub(super) struct Staged {
    pub(super) clock: Clock,
    pub(super) query: Query,
    store: Arc<Store>,
    partition: Option<Arc<Partition>>,
    sequence: u64,
    _dir: TempDir,
}

/// A span of `shop` that starts at `START`.
pub(super) fn span(id: u64, latency: Option<u64>) -> Sent {
    let (name, attributes) = ("work".to_owned(), Vec::new());
    let (namespace, service, kind, status) = ("", "shop", 2, 0);
    Sent { trace: id, id, parent: 0, namespace, service, name, kind, status, start: START, latency, attributes }
}

impl Staged {
    pub(super) fn new(now: u64, change: impl FnOnce(&mut StoreConfig)) -> Self {
        let (dir, clock, counters) =
            (tempfile::tempdir().expect("a directory"), Clock::manual(UnixNanos(now)), Counters::default());
        let counters = Arc::new(counters);
        let query = Query::new(clock.clone(), Arc::clone(&counters));
        let mut config = StoreConfig::keeping_all(dir.path());
        change(&mut config);
        let store = Arc::new(Store::open(config, clock.clone(), counters).expect("it opens"));
        query.attach(Arc::clone(&store));
        Self { clock, query, store, partition: None, sequence: 0, _dir: dir }
    }

    pub(super) fn push(&mut self, spans: &[Sent]) {
        self.push_request(&ExportTraceServiceRequest { resource_spans: spans.iter().map(Sent::message).collect() });
    }

    pub(super) fn push_request(&mut self, request: &ExportTraceServiceRequest) {
        let batch = decode(request.encode_to_vec(), &DecodeOptions::default()).expect("good spans").batch;
        self.sequence += 1;
        if self.partition.is_none() {
            self.partition = Some(self.store.start_partition().expect("there is space"));
        }
        self.store.push([(self.sequence, self.clock.now(), Arc::new(batch))]);
    }

    pub(super) fn block(&self) {
        let partition = self.partition.as_ref().expect("spans were pushed");
        let frozen = self.store.freeze(partition).expect("it has spans");
        let _done = self.store.checkpoint(&frozen).expect("it can be written");
    }

    pub(super) fn seal(&mut self) {
        let partition = self.partition.take().expect("spans were pushed");
        let _manifest = self.store.seal(&partition).expect("it verifies");
    }

    pub(super) fn leave(&self, now: UnixNanos) {
        self.clock.set(now);
        let _dropped = self.store.enforce_retention().expect("it can be done");
    }

    /// The numbers of a query at `start`, `start + step`, .. up to `end`, in milliseconds.
    pub(super) fn numbers(&self, text: &str, (start, end, step): (i64, i64, i64)) -> Numbers {
        let answer = self.query.promql(&text.parse().expect("it is PromQL"), Instants::Range { start, end, step });
        let PromValue::Vector(series) = answer.expect("an answer").value else { panic!("{text}: no vector") };
        let mut numbers = Numbers::new();
        for one in series {
            let Samples::Floats(values) = one.samples else { panic!("{text}: no numbers") };
            let at = |(no, value): (i64, Option<f64>)| Some((start + no * step, value?));
            let points: BTreeMap<i64, f64> = (0..).zip(values).filter_map(at).collect();
            let twice = numbers.insert(labels_text(one.labels.iter()), points);
            assert!(twice.is_none(), "{text}: no two series have the same labels");
        }
        numbers
    }
}
