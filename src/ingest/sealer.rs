//! The background threads: one makes blocks of heads, the other seals full partitions and lets old ones go, so that a
//! long sealing never holds up a block.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::store::{FrozenHead, Partition, Store};

use super::StartError;

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

    /// Waits until fewer than `limit` heads are waiting; `false` when it takes longer than `within`.
    pub(super) fn wait_below(&self, limit: usize, within: Duration) -> bool {
        let mut state = self.backlog.state.lock();
        let _timeout = self.backlog.changed.wait_while_for(&mut state, |state| limit <= state.waiting, within);
        state.waiting < limit
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
    let own = Arc::clone(store);
    let sealer = named(SEALER, move || seal_and_retire(&own, &to_seal_inbox))?;
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
                    tracing::error!(error = &error as &dyn std::error::Error, "no block written; it is tried again");
                    backlog.state.lock().failing = Some(error.to_string());
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

fn seal_and_retire(store: &Store, inbox: &Receiver<Arc<Partition>>) {
    let mut full: VecDeque<Arc<Partition>> = VecDeque::new();
    loop {
        match inbox.recv_timeout(if full.is_empty() { RETENTION_EVERY } else { RETRY_EVERY }) {
            Ok(partition) => full.push_back(partition),
            Err(RecvTimeoutError::Timeout) => {}
            // What is not sealed now is sealed after the next start.
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(partition) = full.pop_front() {
            match store.seal(&partition) {
                Ok(manifest) => {
                    tracing::info!(partition = partition.name(), spans = manifest.spans, "partition sealed");
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "not sealed; it is tried again");
                    full.push_back(partition);
                }
            }
        }
        if let Err(error) = store.enforce_retention() {
            tracing::error!(error = &error as &dyn std::error::Error, "retention could not remove a partition");
        }
    }
}
