//! Where async callers meet the writer thread: a bounded queue, replies, and the budget of bytes in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::journal::{BodyHash, RecordLabel};
use crate::model::{SpanBatch, UnixNanos};

use super::{ExportError, Exported};

/// No request waits longer for its answer (a Collector gives up after 5 s and sends again).
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// A request without room is refused after this long.
const PERMIT_WITHIN: Duration = Duration::from_millis(250);
/// Granularity of the byte budget.
const PERMIT_BYTES: usize = 1024;

/// One request on its way to the journal.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Arc<SpanBatch>,
    /// Journal payload; empty when there is nothing to store.
    pub(super) payload: Vec<u8>,
    pub(super) arrived: UnixNanos,
    pub(super) hash: BodyHash,
    /// The answer, once it is durable; kept for a retry.
    pub(super) exported: Exported,
    pub(super) reply: oneshot::Sender<Result<(), ExportError>>,
    /// For its memory, as long as it waits.
    pub(super) permit: Option<Permit>,
}

/// Resolves when the writer has decided.
pub(super) type Reply = oneshot::Receiver<Result<(), ExportError>>;

/// What the writer decided, or `Late`.
pub(super) async fn answer(reply: Reply) -> Result<(), ExportError> {
    match tokio::time::timeout(ANSWER_WITHIN, reply).await {
        Ok(Ok(decided)) => decided,
        Ok(Err(_writer_gone)) => Err(ExportError::ReadOnly),
        Err(_elapsed) => Err(ExportError::Late),
    }
}

impl Job {
    pub(super) fn new(
        mut batch: SpanBatch,
        payload: Vec<u8>,
        arrived: UnixNanos,
        hash: BodyHash,
        exported: Exported,
    ) -> (Self, Reply) {
        batch.shrink();
        let (reply, outcome) = oneshot::channel();
        (Self { batch: Arc::new(batch), payload, arrived, hash, exported, reply, permit: None }, outcome)
    }

    /// What the journal notes beside the payload.
    pub(super) fn label(&self) -> RecordLabel {
        let rejected_spans = u32::try_from(self.exported.rejected_spans).unwrap_or(u32::MAX);
        RecordLabel { arrived_unix_nano: self.arrived, body_hash: self.hash, rejected_spans }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.batch.memory_bytes() + self.payload.len()
    }

    pub(super) fn spans(&self) -> u64 {
        self.batch.spans.len() as u64
    }
}

/// Bounded by requests; a full queue refuses at once.
#[derive(Debug)]
pub(super) struct Queue {
    sender: Mutex<Option<SyncSender<Job>>>,
    receiver: Mutex<Option<Receiver<Job>>>,
}

impl Queue {
    pub(super) fn new(requests_max: usize) -> Self {
        let (sender, receiver) = sync_channel(requests_max);
        Self { sender: Mutex::new(Some(sender)), receiver: Mutex::new(Some(receiver)) }
    }

    /// The writer's end; there is one.
    pub(super) fn take_receiver(&self) -> Option<Receiver<Job>> {
        self.receiver.lock().take()
    }

    pub(super) fn push(&self, job: Job) -> Result<(), ExportError> {
        let sender = self.sender.lock();
        let Some(sender) = &*sender else { return Err(ExportError::Stopping) };
        sender.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => ExportError::Overloaded { what: "the ingest queue is full" },
            TrySendError::Disconnected(_) => ExportError::ReadOnly,
        })
    }

    /// Nothing more comes in; the writer ends when it has taken what is there.
    pub(super) fn close(&self) {
        *self.sender.lock() = None;
    }
}

/// Bytes of request bodies that may be in memory at once. Counted in whole permits, so that shares taken in steps never
/// add up to more than there are.
#[derive(Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    n_permits: usize,
    /// Permits that are waited for.
    waiting: AtomicUsize,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    held: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        let n_permits = (bytes_max / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(n_permits)), n_permits, waiting: AtomicUsize::new(0) }
    }

    /// Bytes that nobody holds.
    pub fn left(&self) -> u64 {
        (self.permits.available_permits() * PERMIT_BYTES) as u64
    }

    /// A share of `bytes`, waited for at most 250 ms.
    ///
    /// # Errors
    /// `Overloaded` when others hold too much.
    pub async fn admit(&self, bytes: usize) -> Result<Permit, ExportError> {
        Ok(Permit { held: self.acquire(self.permits_for(bytes)).await? })
    }

    /// Raises a share to at least `bytes`.
    ///
    /// # Errors
    /// `Overloaded` when others hold too much.
    pub async fn raise(&self, permit: &mut Permit, bytes: usize) -> Result<(), ExportError> {
        let missing = self.permits_for(bytes).saturating_sub(permit.held.num_permits());
        if 0 < missing {
            permit.held.merge(self.acquire(missing).await?);
        }
        Ok(())
    }

    /// More than the whole budget could never be had: the request gets all there is and waits for the others.
    fn permits_for(&self, bytes: usize) -> usize {
        bytes.div_ceil(PERMIT_BYTES).clamp(1, self.n_permits)
    }

    async fn acquire(&self, n_permits: usize) -> Result<OwnedSemaphorePermit, ExportError> {
        let overloaded = ExportError::Overloaded { what: "too many request bytes in flight (--memory)" };
        let n_permits_u32 = u32::try_from(n_permits).unwrap_or(u32::MAX);
        if let Ok(held) = Arc::clone(&self.permits).try_acquire_many_owned(n_permits_u32) {
            return Ok(held);
        }
        // Who could not be served in time anyway is refused at once: a waiting request holds up its whole connection.
        let waiting = Waiting::add(&self.waiting, n_permits);
        if self.n_permits < waiting.before + n_permits && 0 < waiting.before {
            return Err(overloaded);
        }
        let acquire = Arc::clone(&self.permits).acquire_many_owned(n_permits_u32);
        match tokio::time::timeout(PERMIT_WITHIN, acquire).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(_)) | Err(_) => Err(overloaded),
        }
    }
}

/// Permits that are waited for; given back when dropped, also when the client goes away.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    own: usize,
    /// Those of the others.
    before: usize,
}

impl<'a> Waiting<'a> {
    fn add(all: &'a AtomicUsize, own: usize) -> Self {
        Self { all, own, before: all.fetch_add(own, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let _before = self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}
