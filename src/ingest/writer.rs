//! The writer thread: takes what is waiting, one fsync for all of it, then the head, then the replies.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::clock::Clock;
use crate::journal::{BodyHash, Disk, Journal, JournalError};
use crate::model::{DurationNanos, UnixNanos};
use crate::store::{Partition, Store};
use crate::telemetry::Counters;

use super::queue::Job;
use super::recover::open_journal;
use super::retry_window::Known;
use super::sealer::{Work, WorkSender};
use super::{ExportError, Ingest, IngestConfig, Phase, Shared, StartError};

const NAME: &str = "spandrel-writer";
/// A commit stops growing here, counted in memory: its first request does not wait long, and a head, which ends with a whole
/// commit, outgrows its share by no more. Some 8,000 spans of the usual size, in a journal record a tenth of that.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// How often age is looked at while nothing arrives.
const TICK: Duration = Duration::from_millis(200);
/// How long requests wait for the block of the head before, once theirs is full; then they are refused.
const BLOCK_WITHIN: Duration = Duration::from_secs(2);

struct Writer {
    config: IngestConfig,
    disk: Arc<dyn Disk>,
    clock: Clock,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    store: Arc<Store>,
    partition: Arc<Partition>,
    journal: Journal,
    work: WorkSender,
    /// When the partition took its first request.
    partition_began: Option<UnixNanos>,
    head_began: Option<UnixNanos>,
}

pub(super) fn spawn(
    ingest: &Ingest,
    store: &Arc<Store>,
    partition: Arc<Partition>,
    journal: Journal,
    work: WorkSender,
) -> Result<JoinHandle<()>, StartError> {
    let began = (0 < store.spans_in_memory() || 0 < partition.n_blocks()).then(|| ingest.clock.now());
    let writer = Writer {
        config: ingest.config.clone(),
        disk: Arc::clone(&ingest.disk),
        clock: ingest.clock.clone(),
        counters: Arc::clone(&ingest.counters),
        shared: Arc::clone(&ingest.shared),
        store: Arc::clone(store),
        partition,
        journal,
        work,
        partition_began: began,
        head_began: began,
    };
    let no_thread = |source| StartError::Thread { name: NAME, source };
    let jobs = ingest.queue.take_receiver();
    let jobs = jobs.ok_or_else(|| no_thread(std::io::Error::other("it was started before")))?;
    Builder::new().name(NAME.to_owned()).spawn(move || writer.run(&jobs)).map_err(no_thread)
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(TICK) {
                Ok(first) => {
                    let group = gather(first, jobs);
                    self.commit(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.after_group();
        }
        self.finish();
    }

    /// One fsync for the group; every job is answered.
    fn commit(&mut self, group: Vec<Job>) {
        if self.head_is_full() {
            // Two heads in memory at most: the one that fills, and the one that is becoming a block.
            if !self.work.wait_idle(BLOCK_WITHIN) {
                if let Some(why) = self.work.failing() {
                    self.disk_is_full(format!("no block can be written: {why}"));
                    return self.refuse(group, || ExportError::DiskFull);
                }
                let what = "blocks are written more slowly than spans arrive";
                return self.refuse(group, || ExportError::Overloaded { what });
            }
            self.freeze();
        }
        let mut fresh: Vec<(u64, Job)> = Vec::new();
        let mut repeats = Vec::new();
        let mut in_group: HashSet<BodyHash> = HashSet::new();
        for job in group {
            // A retry may meet its first copy before the sync that covers it: both wait for the same one.
            let known = self.shared.window.lock().find(&job.hash, job.arrived).is_some();
            if known || !in_group.insert(job.hash) || job.payload.is_empty() {
                repeats.push(job);
            } else {
                match self.journal.append(job.label(), &job.payload) {
                    Ok(sequence) => fresh.push((sequence, job)),
                    Err(error) => self.refuse([job], || self.refusal(&error)),
                }
            }
        }
        match self.journal.commit() {
            Ok(committed) => {
                self.counters.journal_records.add(committed.records);
                self.counters.journal_bytes.add(committed.bytes);
                self.counters.journal_syncs.add(u64::from(0 < committed.records));
                self.counters.journal_sync_nanos.add(committed.sync_nanos);
                self.accept(fresh, repeats);
            }
            Err(error) => {
                let jobs = fresh.into_iter().map(|(_, job)| job).chain(repeats);
                self.refuse(jobs, || self.refusal(&error));
            }
        }
    }

    /// Visible first, acknowledged second: a question asked after the answer finds the spans.
    fn accept(&mut self, fresh: Vec<(u64, Job)>, repeats: Vec<Job>) {
        self.recovered_from_full_disk();
        if let Some((_, first)) = fresh.first() {
            let _began = self.partition_began.get_or_insert(first.arrived);
            let _began = self.head_began.get_or_insert(first.arrived);
        }
        self.store.push(fresh.iter().map(|(sequence, job)| (*sequence, job.arrived, Arc::clone(&job.batch))));
        {
            let mut window = self.shared.window.lock();
            for (_, job) in &fresh {
                let known = Known { spans: job.spans(), exported: job.exported.clone() };
                window.insert(job.hash, job.arrived, known);
            }
        }
        for job in repeats {
            if 0 < job.spans() {
                self.counters.requests_repeated.add(1);
                self.counters.spans_duplicate.add("repeated_request", job.spans());
            }
            let _caller_gone = job.reply.send(Ok(()));
        }
        for (_, job) in fresh {
            let _caller_gone = job.reply.send(Ok(()));
        }
    }

    fn refuse(&self, jobs: impl IntoIterator<Item = Job>, error: impl Fn() -> ExportError) {
        for job in jobs {
            self.counters.spans_refused.add(job.spans());
            let _caller_gone = job.reply.send(Err(error()));
        }
    }

    fn refusal(&self, error: &JournalError) -> ExportError {
        let why = error.to_string();
        if let JournalError::Full { .. } = error {
            self.disk_is_full(why);
            return ExportError::DiskFull;
        }
        let mut phase = self.shared.phase.write();
        if !matches!(&*phase, Phase::ReadOnly(_) | Phase::Stopping) {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "ingest is refused until a restart; queries go on"
            );
            *phase = Phase::ReadOnly(why);
        }
        ExportError::ReadOnly
    }

    fn disk_is_full(&self, why: String) {
        let mut phase = self.shared.phase.write();
        if matches!(&*phase, Phase::Ready) {
            tracing::error!(why, "ingest is refused until there is space");
            *phase = Phase::DiskFull(why);
        }
    }

    fn recovered_from_full_disk(&self) {
        let mut phase = self.shared.phase.write();
        if matches!(&*phase, Phase::DiskFull(_)) {
            tracing::info!("there is space again: ingest goes on");
            *phase = Phase::Ready;
        }
    }

    /// Freezes a head that is large or old enough, and changes the partition when it is time.
    fn after_group(&mut self) {
        let head_is_old = self.older_than(self.head_began, self.config.checkpoint_interval);
        if (head_is_old || self.head_is_full()) && self.work.wait_idle(Duration::ZERO) {
            self.freeze();
        }
        let full = self.config.partition_bytes_max <= self.partition.block_bytes();
        let old = self.older_than(self.partition_began, self.config.partition_age_max);
        if full || old || self.partition.is_condemned() {
            self.rotate();
        }
    }

    fn head_is_full(&self) -> bool {
        let (spans, bytes) = self.store.head_size();
        self.config.checkpoint_spans <= spans || self.config.checkpoint_bytes <= bytes
    }

    fn older_than(&self, began: Option<UnixNanos>, age: DurationNanos) -> bool {
        began.is_some_and(|began| age <= self.clock.now().since(began))
    }

    fn freeze(&mut self) {
        self.head_began = None;
        if let Some(frozen) = self.store.freeze(&self.partition) {
            let _sealer_gone = self.work.send(Work::Checkpoint(frozen));
        }
    }

    /// The next partition begins; the full one is sealed in the background. Without space for a new one the old one
    /// goes on.
    fn rotate(&mut self) {
        let next = match self.store.start_partition() {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no new partition; the old one goes on");
                return;
            }
        };
        self.freeze();
        let next_sequence = self.journal.next_sequence();
        let next_journal = open_journal(&self.config, Arc::clone(&self.disk), &next, 0, next_sequence);
        let full_journal = std::mem::replace(&mut self.journal, next_journal);
        let full = std::mem::replace(&mut self.partition, next);
        self.partition_began = None;
        if let Err(error) = full_journal.close() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the full journal keeps its unused end");
        }
        let _sealer_gone = self.work.send(Work::Seal(full));
    }

    /// Everything into blocks, so that the next start replays nothing.
    fn finish(&mut self) {
        self.freeze();
        self.work.stop_retrying();
        let journal = std::mem::replace(
            &mut self.journal,
            open_journal(&self.config, Arc::clone(&self.disk), &self.partition, 0, 0),
        );
        if let Err(error) = journal.close() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the journal keeps its unused end");
        }
    }
}

/// Takes what is waiting, up to a bound.
fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.memory_bytes();
    let mut group = vec![first];
    while bytes < GROUP_BYTES
        && let Ok(job) = jobs.try_recv()
    {
        bytes += job.memory_bytes();
        group.push(job);
    }
    group
}
