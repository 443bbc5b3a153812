//! A trace by its id, from wherever its spans lie.

use std::collections::HashSet;

use crate::limits::TRACE_SPANS_MAX;
use crate::model::{SpanBatch, SpanCopier, TraceId};
use crate::store::{HeadPart, OpenPartition, Snapshot, TraceBlocks};

use super::{ATTEMPTS, Coverage, Query, QueryError, coverage_of};

/// A trace.
#[derive(Debug, Default)]
pub struct TraceAnswer {
    /// Its spans by start time, each once; empty when none is stored.
    pub batch: SpanBatch,
    /// Says so when spans are missing: cut at `limits::TRACE_SPANS_MAX`, or unreadable.
    pub coverage: Coverage,
}

impl Query {
    /// All stored spans of a trace. Cost: a few hundred bytes of each sealed partition's index, a filter probe per block of
    /// the unsealed ones, one or two row groups per block that holds it, and one pass over the ids of the head.
    ///
    /// # Errors
    /// `Starting`. An unknown trace is an empty answer; what cannot be read is named in the coverage.
    pub fn trace(&self, id: TraceId) -> Result<TraceAnswer, QueryError> {
        let mut answer = self.trace_once(id)?;
        for _ in 1..ATTEMPTS {
            if !answer.coverage.is_outdated() {
                break;
            }
            answer = self.trace_once(id)?;
        }
        Ok(answer)
    }

    fn trace_once(&self, id: TraceId) -> Result<TraceAnswer, QueryError> {
        let snapshot = self.store()?.snapshot();
        let TraceAnswer { batch, coverage: of_trace } = self.trace_in(&snapshot, id)?;
        let mut coverage = coverage_of(&snapshot);
        coverage.also(of_trace);
        Ok(TraceAnswer { batch, coverage })
    }

    /// What a snapshot holds of a trace; the coverage speaks of the trace alone.
    pub(super) fn trace_in(&self, snapshot: &Snapshot, id: TraceId) -> Result<TraceAnswer, QueryError> {
        let store = self.store()?;
        let mut coverage = Coverage::default();
        let mut found = SpanCopier::default();
        for (partition, visible) in &snapshot.partitions {
            let blocks = match partition.blocks_of_trace(id) {
                TraceBlocks::Known(blocks) if blocks.is_empty() => continue,
                TraceBlocks::Known(blocks) => blocks,
                TraceBlocks::Unknown => (1..=*visible).collect(),
            };
            match store.open_partition(partition) {
                Ok(open) => self.trace_in_blocks(id, &open, &blocks, &mut found, &mut coverage),
                Err(error) => self.unreadable(&mut coverage, &format!("partition {}", partition.name()), &error),
            }
        }
        for head in &snapshot.heads {
            trace_in_head(id, head, &mut found);
        }
        Ok(TraceAnswer { batch: once_in_order(&found.batch, &mut coverage), coverage })
    }

    fn trace_in_blocks(
        &self,
        id: TraceId,
        open: &OpenPartition,
        blocks: &[u64],
        found: &mut SpanCopier,
        coverage: &mut Coverage,
    ) {
        for block_no in blocks {
            match open.spans_of_trace(*block_no, id, TRACE_SPANS_MAX) {
                Ok(spans) => found.copy(&spans, 0..u32::try_from(spans.spans.len()).unwrap_or(u32::MAX)),
                Err(error) => self.unreadable(coverage, &format!("block {block_no}"), &error),
            }
        }
    }
}

fn trace_in_head(id: TraceId, head: &HeadPart, found: &mut SpanCopier) {
    for batch in &head.batches {
        let rows = (0..).zip(&batch.spans).filter(|(_, span)| span.trace_id == id).map(|(row, _)| row);
        let rows: Vec<u32> = rows.collect();
        if !rows.is_empty() {
            found.copy(batch, rows);
        }
    }
}

/// First copy of each span, by start time, at most `TRACE_SPANS_MAX`.
fn once_in_order(batch: &SpanBatch, coverage: &mut Coverage) -> SpanBatch {
    let mut seen = HashSet::with_capacity(batch.spans.len());
    let mut order: Vec<u32> =
        (0..).zip(&batch.spans).filter(|(_, span)| seen.insert(span.key())).map(|(row, _)| row).collect();
    order.sort_by_key(|row| batch.spans.get(*row as usize).map(crate::model::Span::key));
    if TRACE_SPANS_MAX < order.len() {
        coverage.missing(format!("the trace has {} spans, {TRACE_SPANS_MAX} are shown", order.len()));
        order.truncate(TRACE_SPANS_MAX);
    }
    let mut once = SpanCopier::default();
    once.copy(batch, order);
    once.batch
}
