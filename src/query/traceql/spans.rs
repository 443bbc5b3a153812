//! What chosen spans say: window and filter over the blocks and heads of a store. Unlike `RowScan`, spans without a latency
//! are found as well: nothing is counted here.

use std::ops::ControlFlow;

use super::ast::Field;
use super::columns::{FieldAnswers, GroupFields};
use super::compile::{Condition, fields_of};
use super::value::{Datum, FieldValue};
use super::{Filter, bounds, row};
use crate::block::{BlockError, BlockScan, BlockSummary, ServiceCount};
use crate::model::{SpanBatch, TimeRange, UnixNanos};
use crate::store::{OpenPartition, StoreError};

/// Which spans are wanted.
#[derive(Clone, Copy, Debug)]
pub struct SpanScan<'f> {
    /// What must be true of them; `None` takes all.
    pub filter: Option<&'f Filter>,
    /// When they start, as their sender says. A start that is not set is 0.
    pub range: TimeRange,
}

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

    /// Which rows of a group are wanted.
    fn within(&self, fields: &GroupFields<'_>, condition: Option<&mut Condition<'_>>) -> Result<Vec<bool>, BlockError> {
        let starts = fields.group.starts()?;
        let within = starts.iter().map(|start| self.range.contains(UnixNanos(*start))).collect();
        match condition {
            Some(condition) => condition.select(fields, within),
            None => Ok(within),
        }
    }

    /// Whether the span in row `row` is wanted.
    pub fn wants(&self, batch: &SpanBatch, row: usize) -> bool {
        batch.spans.get(row).is_some_and(|span| self.range.contains(span.start_time_unix_nano))
            && self.filter.is_none_or(|filter| filter.matches(batch, row))
    }

    /// Calls `each` with the values that wanted spans of a block have of a field, until it breaks. One value may come several
    /// times, but each text of a dictionary once.
    ///
    /// # Errors
    /// `Block` or `Damaged`; `each` may have been called before.
    pub fn block_values(
        &self,
        open: &OpenPartition,
        block_no: u64,
        field: &Field,
        each: EachValue<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        open.scan(block_no, |scan| self.column_values(scan, field, each))
    }

    fn column_values(
        &self,
        scan: &BlockScan<'_>,
        field: &Field,
        each: EachValue<'_>,
    ) -> Result<ControlFlow<()>, BlockError> {
        let filter = self.filter.map(|filter| &filter.root);
        let fields = fields_of(scan, filter, Some(field))?;
        let mut condition = filter.map(Condition::of);
        let mut answers = FieldAnswers::new(field);
        let mut flow = ControlFlow::Continue(());
        for number in 0..scan.n_groups() {
            let fields = fields.group(number);
            let within = self.within(&fields, condition.as_mut())?;
            if !within.contains(&true) {
                continue;
            }
            if field.is_of_items() {
                let rows: Vec<usize> =
                    within.iter().enumerate().filter(|(_, within)| **within).map(|(row, _)| row).collect();
                let batch = fields.group.spans(&rows)?;
                batch.spans.iter().for_each(|span| give_values(row::of_span(field, &batch, span), each, &mut flow));
            } else {
                let mut ask = |datum: Datum<'_>| {
                    give_values(datum, each, &mut flow);
                    0
                };
                let _none = answers.read(&fields, &within, &mut ask)?;
            }
            if flow.is_break() {
                break;
            }
        }
        Ok(flow)
    }

    /// The same for a batch.
    pub fn batch_values(&self, batch: &SpanBatch, field: &Field, each: EachValue<'_>) {
        let mut flow = ControlFlow::Continue(());
        for (row, span) in batch.spans.iter().enumerate() {
            if flow.is_continue() && self.wants(batch, row) {
                give_values(row::of_span(field, batch, span), each, &mut flow);
            }
        }
    }
}

/// Sees a value; a break ends the scan.
pub type EachValue<'a> = &'a mut dyn FnMut(FieldValue) -> ControlFlow<()>;

/// Of events, links and arrays one by one.
fn give_values(datum: Datum<'_>, each: EachValue<'_>, flow: &mut ControlFlow<()>) {
    match datum {
        Datum::Several(values) | Datum::Array(values) => {
            for value in values {
                give_values(value, each, flow);
            }
        }
        one => {
            if let Some(value) = one.into_value().filter(|_| flow.is_continue()) {
                *flow = each(value);
            }
        }
    }
}
