//! Traces with chosen spans: window and filter over the blocks and heads of a store. Unlike `RowScan`, spans without a latency
//! are found as well: nothing is counted here.

use std::ops::ControlFlow;

use super::columns::GroupFields;
use super::compile::{Condition, fields_of};
use super::{Filter, bounds};
use crate::block::{BlockError, BlockScan, BlockSummary, ServiceCount};
use crate::model::{SpanBatch, TimeRange, TraceId, UnixNanos};
use crate::store::{OpenPartition, StoreError};

/// Which spans are wanted.
#[derive(Clone, Copy, Debug)]
pub struct SpanScan<'f> {
    /// What must be true of them; `None` takes all.
    pub filter: Option<&'f Filter>,
    /// When they start, as their sender says. A start that is not set is 0.
    pub range: TimeRange,
}

/// Sees a trace and the earliest start of its wanted spans in one place; a break ends the scan.
pub type EachTrace<'a> = &'a mut dyn FnMut(TraceId, UnixNanos) -> ControlFlow<()>;

impl SpanScan<'_> {
    /// Whether a block can hold spans that are wanted, as far as its summary tells.
    pub fn may_be_in(&self, summary: &BlockSummary) -> bool {
        let latencies = self.filter.map_or(bounds::ANY, |filter| bounds::latencies(&filter.root));
        // Without bounds spans without a latency may be wanted, of which the summary says nothing.
        let may_last = latencies == bounds::ANY
            || !latencies.is_empty()
                && *latencies.start() <= summary.max_latency
                && summary.min_latency <= *latencies.end();
        may_last && self.may_lie_between(summary.min_start, summary.max_start) && self.is_among(&summary.services)
    }

    /// Whether wanted spans may be among some that start between these, or have no start.
    pub fn may_lie_between(&self, min_start: UnixNanos, max_start: UnixNanos) -> bool {
        self.range.contains(UnixNanos(0)) || self.range.meets(min_start, max_start)
    }

    /// Whether a service that the filter names is among these.
    pub fn is_among<'s>(&self, services: impl IntoIterator<Item = &'s ServiceCount>) -> bool {
        let named = self.filter.and_then(|filter| bounds::service(&filter.root));
        named.is_none_or(|name| services.into_iter().any(|count| count.service == name))
    }

    /// Calls `each` with the traces of the wanted spans of a block, in their order, until it breaks; a trace that goes on in
    /// another row group comes again.
    ///
    /// # Errors
    /// `Block` or `Damaged`; `each` may have been called before.
    pub fn scan_block(&self, open: &OpenPartition, block_no: u64, each: EachTrace<'_>) -> Result<(), StoreError> {
        open.scan(block_no, |scan| self.scan_columns(scan, each))
    }

    fn scan_columns(&self, scan: &BlockScan<'_>, each: EachTrace<'_>) -> Result<(), BlockError> {
        let filter = self.filter.map(|filter| &filter.root);
        let fields = fields_of(scan, filter, None)?;
        let mut condition = filter.map(Condition::of);
        for number in 0..scan.n_groups() {
            if self.scan_group(&fields.group(number), condition.as_mut(), each)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_group(
        &self,
        fields: &GroupFields<'_>,
        condition: Option<&mut Condition<'_>>,
        each: EachTrace<'_>,
    ) -> Result<ControlFlow<()>, BlockError> {
        let starts = fields.group.starts()?;
        let mut within: Vec<bool> = starts.iter().map(|start| self.range.contains(UnixNanos(*start))).collect();
        if let Some(condition) = condition {
            within = condition.select(fields, within)?;
        }
        if !within.contains(&true) {
            return Ok(ControlFlow::Continue(()));
        }
        for (trace, rows) in fields.group.traces()? {
            let wanted = within.get(rows.clone()).and_then(|within| within.iter().position(|within| *within));
            // Rows of a trace are in the order of their starts.
            let first = wanted.and_then(|at| starts.get(rows.start + at));
            if first.is_some_and(|start| each(trace, UnixNanos(*start)).is_break()) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `each` for every wanted span of a batch, until it breaks.
    pub fn scan_batch(&self, batch: &SpanBatch, each: EachTrace<'_>) {
        for (row, span) in batch.spans.iter().enumerate() {
            let start = span.start_time_unix_nano;
            if self.wants(batch, row) && each(span.trace_id, start).is_break() {
                return;
            }
        }
    }

    /// Whether the span in row `row` is wanted.
    pub fn wants(&self, batch: &SpanBatch, row: usize) -> bool {
        batch.spans.get(row).is_some_and(|span| self.range.contains(span.start_time_unix_nano))
            && self.filter.is_none_or(|filter| filter.matches(batch, row))
    }
}
