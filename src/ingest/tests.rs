use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::journal::{RealDisk, SegmentFile};
use crate::model::{TraceId, UnixNanos, samples};
use crate::otlp::{Utf8, encode_traces};
use crate::query::Query;
use crate::store::StoreConfig;

/// A disk whose syncs fail from the moment it breaks.
#[derive(Clone, Debug, Default)]
struct BreakingDisk {
    broken: Arc<AtomicBool>,
    syncs: Arc<AtomicU64>,
}

#[derive(Debug)]
struct BreakingFile(Box<dyn SegmentFile>, BreakingDisk);

impl Disk for BreakingDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(BreakingFile(RealDisk.create(path, len)?, self.clone())))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

impl SegmentFile for BreakingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        let _before = self.1.syncs.fetch_add(1, Ordering::SeqCst);
        if self.1.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.0.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

const NOW: UnixNanos = UnixNanos(1_795_428_000_000_000_000);

struct Started {
    ingest: Ingest,
    running: Running,
    query: Query,
    counters: Arc<Counters>,
}

impl Started {
    fn at(dir: &Path, disk: &BreakingDisk) -> Self {
        let config = settings(dir);
        let (clock, counters) = (Clock::manual(NOW), Arc::new(Counters::default()));
        let ingest = Ingest::new(config.0, Arc::new(disk.clone()), clock.clone(), Arc::clone(&counters));
        let store = Arc::new(Store::open(config.1, clock.clone(), Arc::clone(&counters)).unwrap());
        let running = ingest.start(&store).unwrap();
        let query = Query::new(clock, Arc::clone(&counters));
        query.attach(store);
        Self { ingest, running, query, counters }
    }

    fn export(&self, trace: u128) -> Result<Exported, ExportError> {
        let sample = samples::Sample { service: "cart", trace, span: 1, start: NOW.0 - 1_000, duration: 500 };
        let body = encode_traces(&samples::batch(&[sample]), Utf8::Verbatim);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(export(&self.ingest, body))
    }

    fn holds(&self, trace: u128) -> bool {
        !self.query.trace(TraceId(trace.to_be_bytes())).unwrap().batch.spans.is_empty()
    }
}

async fn export(ingest: &Ingest, body: Vec<u8>) -> Result<Exported, ExportError> {
    let permit = ingest.budget().admit(body.len()).await.expect("nobody else is there");
    ingest.export(body, Encoding::Protobuf, permit).await
}

#[test]
fn bi_132_after_a_failed_fsync_nothing_is_acknowledged_until_a_restart_and_questions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = BreakingDisk::default();
    let server = Started::at(dir.path(), &disk);
    assert_eq!(server.export(1).unwrap(), Exported::default());
    disk.broken.store(true, Ordering::SeqCst);
    assert!(matches!(server.export(2), Err(ExportError::ReadOnly)), "the sync failed");
    disk.broken.store(false, Ordering::SeqCst);
    let syncs = disk.syncs.load(Ordering::SeqCst);
    assert!(matches!(server.export(3), Err(ExportError::ReadOnly)), "a sync that works again may lie");
    assert_eq!(disk.syncs.load(Ordering::SeqCst), syncs, "it is not tried again");
    assert!(matches!(server.ingest.phase(), Phase::ReadOnly(_)));
    assert!(server.holds(1) && !server.holds(3));
    assert_eq!(server.counters.spans_refused.value(), 1, "of the request that reached the journal");
    server.ingest.stop(server.running);
    drop(server.query);
    let again = Started::at(dir.path(), &disk);
    assert!(again.holds(1), "what was acknowledged is there");
    assert!(again.export(3).is_ok() && again.holds(3));
    again.ingest.stop(again.running);
}

/// Nothing tried the whole way: the damage is found after the start, the writer leaves the partition, sealing fails, the
/// journal makes a new database, and that one is sealed.
#[test]
fn g_3_a_database_that_lost_a_page_is_rebuilt_from_its_journal_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let server = Started::at(dir.path(), &BreakingDisk::default());
    for trace in 1..=120 {
        assert!(server.export(trace).is_ok());
    }
    server.ingest.stop(server.running);
    drop(server.query);
    let (config, mut store_config) = settings(dir.path());
    store_config.verify_at_start_bytes_max = 0;
    let (clock, counters) = (Clock::manual(NOW), Arc::new(Counters::default()));
    let store = Store::open(store_config.clone(), clock.clone(), Arc::clone(&counters)).unwrap();
    store.open_partition(&store.unsealed()[0]).unwrap().lose_a_page(1);
    drop(store);
    let ingest = Ingest::new(config, Arc::new(RealDisk), clock.clone(), Arc::clone(&counters));
    let store = Arc::new(Store::open(store_config, clock.clone(), Arc::clone(&counters)).unwrap());
    let running = ingest.start(&store).unwrap();
    let query = Query::new(clock, Arc::clone(&counters));
    query.attach(Arc::clone(&store));
    let deadline = std::time::Duration::from_secs(30);
    let began = crate::clock::instant();
    while counters.partitions_sealed.value() == 0 {
        assert!(began.elapsed() < deadline, "it is rebuilt and sealed: {:?}", store.warnings());
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let sealed = store.partitions().remove(0).manifest().unwrap();
    assert_eq!((sealed.spans, store.quarantined().len(), store.snapshot().quarantined.len()), (120, 1, 0));
    for trace in 1..=120_u128 {
        let answer = query.trace(TraceId(trace.to_be_bytes())).unwrap();
        assert!(answer.batch.spans.len() == 1 && answer.coverage.is_complete(), "trace {trace}: {:?}", answer.coverage);
    }
    ingest.stop(running);
}

#[test]
fn rel_18_what_is_acknowledged_is_found_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Started::at(dir.path(), &BreakingDisk::default());
    for trace in 1..=200 {
        assert!(server.export(trace).is_ok() && server.holds(trace), "trace {trace}");
    }
    server.ingest.stop(server.running);
}

#[test]
fn bi_134_a_closed_door_says_whether_it_is_starting_or_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let server = Started::at(dir.path(), &BreakingDisk::default());
    let (config, _) = settings(dir.path());
    let closed = Ingest::new(config, Arc::new(RealDisk), Clock::manual(NOW), Arc::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let export = |ingest: &Ingest| runtime.block_on(export(ingest, Vec::new()));
    assert!(matches!(export(&closed), Err(ExportError::Starting)));
    server.ingest.stop(server.running);
    assert!(matches!(export(&server.ingest), Err(ExportError::Stopping)));
}

/// Shares were counted in bytes and each step was rounded up to permits: a request that grew in odd steps to the whole
/// budget asked for one permit more than there are, was told to come back later, and never got through. The same for a
/// budget that is no multiple of a permit, such as a quarter of 300 MB.
#[test]
fn one_request_may_take_the_whole_budget_in_any_steps() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for steps in [&[1, 1_500, 9_999, 64 * 1_024][..], &[75_000_000], &[58_000, 64 * 1_024], &[0, usize::MAX]] {
            for budget in [64 * 1_024, 75_000_000, 1] {
                let budget = Budget::new(budget);
                let mut permit = budget.admit(0).await.unwrap();
                for bytes in steps {
                    budget.raise(&mut permit, *bytes).await.unwrap();
                }
                drop(permit);
                let _all_of_it = budget.admit(usize::MAX).await.expect("everything was given back");
            }
        }
    });
}

fn settings(dir: &Path) -> (IngestConfig, StoreConfig) {
    let ingest = IngestConfig {
        durability: Durability::Fsync,
        body_bytes_in_flight_max: 1 << 20,
        queue_requests_max: 16,
        retention: None,
        pad_64bit_trace_ids: false,
        checkpoint_spans: 50,
        checkpoint_bytes: 1 << 20,
        checkpoint_interval: DurationNanos::from_secs(60),
        partition_age_max: DurationNanos::from_secs(3_600),
        partition_bytes_max: 1 << 30,
        journal_segment_bytes: 4_096,
    };
    let store =
        StoreConfig { open_partitions_max: 2, verify_at_start_bytes_max: 64 << 20, ..StoreConfig::keeping_all(dir) };
    (ingest, store)
}
