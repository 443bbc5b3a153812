//! The newest spans, in memory, as they arrived. No index: a question scans at most one block's worth of rows, which
//! is cheaper than keeping a second bookkeeping in step with the first (`docs/adr/0003-head-without-bookkeeping.md`).

use std::sync::Arc;

use crate::model::{SpanBatch, UnixNanos};

use super::Partition;

/// Batches in arrival order. Cloning clones references.
#[derive(Clone, Debug, Default)]
pub struct HeadPart {
    /// Arrival order, which decides between duplicates.
    pub batches: Vec<Arc<SpanBatch>>,
    /// Spans in them.
    pub spans: u64,
    /// Latest arrival: counting instants are clamped by it.
    pub horizon: UnixNanos,
    /// Journal sequence of the last batch.
    pub last_sequence: u64,
}

/// A head that is becoming a block of `partition`.
#[derive(Debug)]
pub struct FrozenHead {
    /// Where its block goes.
    pub partition: Arc<Partition>,
    /// Its spans.
    pub part: HeadPart,
}

#[derive(Debug, Default)]
pub(super) struct Head {
    part: HeadPart,
    memory_bytes: usize,
}

impl Head {
    pub(super) fn push(&mut self, sequence: u64, arrived: UnixNanos, batch: Arc<SpanBatch>) {
        self.memory_bytes += batch.memory_bytes();
        self.part.spans += batch.spans.len() as u64;
        self.part.horizon = self.part.horizon.max(arrived);
        self.part.last_sequence = sequence;
        self.part.batches.push(batch);
    }

    pub(super) fn spans(&self) -> u64 {
        self.part.spans
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub(super) fn part(&self) -> Option<HeadPart> {
        (!self.part.batches.is_empty()).then(|| self.part.clone())
    }

    pub(super) fn take(&mut self) -> Option<HeadPart> {
        if self.part.batches.is_empty() {
            return None;
        }
        Some(std::mem::take(self).part)
    }
}
