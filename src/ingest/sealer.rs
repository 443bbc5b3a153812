//! The background threads: one makes blocks of heads, the other seals full partitions and lets old ones go, so that a
//! long sealing never holds up a block.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::journal::{self, Disk, RecordHeader};
use crate::store::{FrozenHead, Partition, Store};
use crate::telemetry::{Counters, with_causes};

use super::recover::sequence_before;
use super::{Ingest, IngestConfig, Shared, StartError, payload};

const CHECKPOINTER: &str = "spandrel-blocks";
const SEALER: &str = "spandrel-sealer";
const RETRY_EVERY: Duration = Duration::from_secs(1);
const RETENTION_EVERY: Duration = Duration::from_secs(30);

/// What the writer hands over, in order.
#[derive(Debug)]
pub(super) enum Work {
    Checkpoint(Arc<FrozenHead>),
    Seal(Arc<Partition>),
}

/// The writer's end: hands over work and sees how much is waiting.
#[derive(Debug)]
pub(super) struct WorkSender {
    work: Sender<Work>,
    backlog: Arc<Backlog>,
}

/// Heads waiting for their block.
#[derive(Debug, Default)]
struct Backlog {
    state: Mutex<BacklogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct BacklogState {
    waiting: usize,
    stopping: bool,
    /// Why the oldest of them could not be written so far.
    failing: Option<String>,
}

impl WorkSender {
    /// `false` when the thread is gone.
    pub(super) fn send(&self, work: Work) -> bool {
        if matches!(work, Work::Checkpoint(_)) {
            self.backlog.state.lock().waiting += 1;
        }
        self.work.send(work).is_ok()
    }

    /// Why no block can be written at the moment.
    pub(super) fn failing(&self) -> Option<String> {
        self.backlog.state.lock().failing.clone()
    }

    /// From now on a block that cannot be written is left to the journal.
    pub(super) fn stop_retrying(&self) {
        self.backlog.state.lock().stopping = true;
        let _woken = self.backlog.changed.notify_all();
    }

    /// Waits until no head is waiting for its block; `false` when it takes longer than `within`.
    pub(super) fn wait_idle(&self, within: Duration) -> bool {
        let mut state = self.backlog.state.lock();
        let _timeout = self.backlog.changed.wait_while_for(&mut state, |state| 0 < state.waiting, within);
        state.waiting == 0
    }
}

impl Backlog {
    fn done(&self) {
        {
            let mut state = self.state.lock();
            state.waiting -= 1;
            state.failing = None;
        }
        let _woken = self.changed.notify_all();
    }

    /// Waits; `true` when there is no point in trying again.
    fn wait_for_stop(&self, within: Duration) -> bool {
        let mut state = self.state.lock();
        let _timeout = self.changed.wait_while_for(&mut state, |state| !state.stopping, within);
        state.stopping
    }
}

/// Starts both threads. They end when the sender is dropped and what it sent is done.
pub(super) fn spawn(
    ingest: &Ingest,
    store: &Arc<Store>,
    to_seal: Vec<Arc<Partition>>,
) -> Result<(WorkSender, [JoinHandle<()>; 2]), StartError> {
    let (work, inbox) = channel();
    let (full, to_seal_inbox) = channel();
    let backlog = Arc::new(Backlog::default());
    let sender = WorkSender { work, backlog: Arc::clone(&backlog) };
    for partition in to_seal {
        let _sent = full.send(partition);
    }
    let own = Arc::clone(store);
    let checkpointer = named(CHECKPOINTER, move || write_blocks(&own, &inbox, &full, &backlog))?;
    let sealer = Sealer {
        store: Arc::clone(store),
        config: ingest.config.clone(),
        disk: Arc::clone(&ingest.disk),
        counters: Arc::clone(&ingest.counters),
        shared: Arc::clone(&ingest.shared),
    };
    let sealer = named(SEALER, move || sealer.run(&to_seal_inbox))?;
    Ok((sender, [checkpointer, sealer]))
}

fn named(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(|source| StartError::Thread { name, source })
}

/// Blocks are written in the order of arrival: one that fails is tried again before the next.
fn write_blocks(store: &Store, inbox: &Receiver<Work>, full: &Sender<Arc<Partition>>, backlog: &Backlog) {
    while let Ok(work) = inbox.recv() {
        match work {
            Work::Checkpoint(frozen) => {
                while let Err(error) = store.checkpoint(&frozen) {
                    let error = with_causes(&error);
                    tracing::error!(error, "no block written; it is tried again");
                    backlog.state.lock().failing = Some(error);
                    if backlog.wait_for_stop(RETRY_EVERY) {
                        return;
                    }
                }
                backlog.done();
            }
            Work::Seal(partition) => {
                let _sealer_gone = full.send(partition);
            }
        }
    }
}

/// Seals what is full, lets go what is old.
struct Sealer {
    store: Arc<Store>,
    config: IngestConfig,
    disk: Arc<dyn Disk>,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
}

impl Sealer {
    fn run(&self, inbox: &Receiver<Arc<Partition>>) {
        self.store.verify_unsealed();
        let mut full: VecDeque<Arc<Partition>> = VecDeque::new();
        loop {
            match inbox.recv_timeout(if full.is_empty() { RETENTION_EVERY } else { RETRY_EVERY }) {
                Ok(partition) => full.push_back(partition),
                Err(RecvTimeoutError::Timeout) => {}
                // What is not sealed now is sealed after the next start.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(partition) = full.pop_front()
                && let Err(unsealed) = self.seal(partition)
            {
                full.push_back(unsealed);
            }
            if let Err(error) = self.store.enforce_retention() {
                tracing::error!(error = &error as &dyn std::error::Error, "retention could not remove a partition");
            }
        }
    }

    /// `Err` has the partition as it is to be tried again.
    fn seal(&self, partition: Arc<Partition>) -> Result<(), Arc<Partition>> {
        let error = match self.store.seal(&partition) {
            Ok(manifest) => {
                tracing::info!(partition = partition.name(), spans = manifest.spans, "partition sealed");
                return Ok(());
            }
            Err(error) => error,
        };
        if !error.is_damage() {
            tracing::error!(error = &error as &dyn std::error::Error, "not sealed; it is tried again");
            return Err(partition);
        }
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the database is damaged; rebuilding it from its journal"
        );
        Err(self.rebuild(&partition).unwrap_or_else(|error| {
            tracing::error!(error = &*error, "not rebuilt; it is tried again");
            partition
        }))
    }

    /// The journal of a partition that takes no more requests, into a new database.
    fn rebuild(&self, damaged: &Arc<Partition>) -> Result<Arc<Partition>, Box<dyn std::error::Error + Send + Sync>> {
        let config = &self.config;
        let mut rebuild = self.store.begin_rebuild(damaged, config.checkpoint_spans, config.checkpoint_bytes)?;
        let mut visit = |header: &RecordHeader, payload: Option<&[u8]>| {
            let Some(payload) = payload else { return Ok(()) };
            let batch = Arc::new(payload::decode(payload)?);
            Ok(rebuild.push(header.sequence, header.label.arrived_unix_nano, batch)?)
        };
        let before = sequence_before(&self.store, damaged)?;
        let found = journal::recover(&damaged.journal_dir(), &*self.disk, before, &mut visit)?;
        self.shared.note_losses(damaged, &found, &self.counters);
        Ok(self.store.finish_rebuild(damaged, rebuild)?)
    }
}
