//! Traces with spans of several kinds: a window and filters over the blocks and heads of a store. Unlike `RowScan`, spans
//! without a latency are found as well: nothing is counted here.

use std::ops::{ControlFlow, RangeInclusive};

use super::columns::{BlockFields, GroupFields};
use super::compile::Condition;
use super::{Filter, SpanScan, bounds, skip};
use crate::block::{BlockError, BlockScan, BlockSummary, ServiceCount, SkipIndex};
use crate::model::{DurationNanos, SpanBatch, TimeRange, TraceId, UnixNanos};
use crate::store::{OpenPartition, StoreError};

/// Which spans are wanted.
#[derive(Clone, Copy, Debug)]
pub struct TraceScan<'f> {
    /// One of these must be true of them; at most `FILTERS_MAX`.
    pub filters: &'f [Filter],
    /// When they start, as their sender says. A start that is not set is 0.
    pub range: TimeRange,
}

/// Sees a trace, which of the filters are true of spans of it in one place, by the bits of their positions, and the earliest
/// start of those spans; a break ends the scan.
pub type EachTrace<'a> = &'a mut dyn FnMut(TraceId, u64, UnixNanos) -> ControlFlow<()>;

/// A filter while a block is read.
pub(super) struct Wanted<'f> {
    /// By its position.
    bit: u64,
    /// Outside of these it is true of no span.
    latencies: RangeInclusive<DurationNanos>,
    /// The row groups that it may be true in.
    groups: Vec<bool>,
    filter: &'f Filter,
    condition: Condition<'f>,
}

impl Wanted<'_> {
    /// The rows that last as long as they must, by one column: often none does, and no other column is read.
    fn may_last(&self, fields: &GroupFields<'_>) -> Result<Vec<bool>, BlockError> {
        if self.latencies == bounds::ANY {
            return Ok(vec![true; fields.group.n_rows()]);
        }
        let durations = fields.group.durations()?.iter();
        Ok(durations.map(|duration| self.latencies.contains(&DurationNanos(*duration))).collect())
    }
}

impl<'f> TraceScan<'f> {
    fn scans(&self) -> impl Iterator<Item = SpanScan<'f>> + use<'f> {
        let range = self.range;
        self.filters.iter().map(move |filter| SpanScan { filter: Some(filter), range })
    }

    /// Whether a block can hold spans that are wanted, as far as its summary tells.
    pub fn may_be_in(&self, summary: &BlockSummary) -> bool {
        self.scans().any(|scan| scan.may_be_in(summary))
    }

    /// Whether wanted spans may be among some that start between these, or have no start.
    pub fn may_lie_between(&self, min_start: UnixNanos, max_start: UnixNanos) -> bool {
        self.scans().any(|scan| scan.may_lie_between(min_start, max_start))
    }

    /// Whether spans of the wanted services are among these.
    pub fn is_among<'s, S: Iterator<Item = &'s ServiceCount>>(&self, services: impl Fn() -> S) -> bool {
        self.scans().any(|scan| scan.is_among(services()))
    }

    /// Calls `each` with the traces of the wanted spans of a block, in their order, until it breaks; a trace that goes on in
    /// another row group comes again.
    ///
    /// # Errors
    /// `Block` or `Damaged`; `each` may have been called before.
    pub fn scan_block(&self, open: &OpenPartition, block_no: u64, each: EachTrace<'_>) -> Result<(), StoreError> {
        let wanted = open.skip_index(block_no, |index| self.wanted(index))?;
        if wanted.is_empty() { Ok(()) } else { open.scan(block_no, |scan| self.scan_columns(scan, wanted, each)) }
    }

    /// The filters that may be true in a block, as far as can be said without a look at tables and columns.
    pub(super) fn wanted(&self, index: &SkipIndex<'_>) -> Result<Vec<Wanted<'f>>, BlockError> {
        let mut wanted = Vec::new();
        for (number, filter) in (0..).zip(self.filters) {
            if !(SpanScan { filter: Some(filter), range: self.range }).may_be_in(index.summary()) {
                continue;
            }
            let groups = skip::groups(&filter.root, index)?;
            if groups.contains(&true) {
                let (bit, latencies) = (1_u64.checked_shl(number).unwrap_or(0), bounds::latencies(&filter.root));
                wanted.push(Wanted { bit, latencies, groups, filter, condition: Condition::of(&filter.root) });
            }
        }
        Ok(wanted)
    }

    pub(super) fn scan_columns(
        &self,
        scan: &BlockScan<'_>,
        wanted: Vec<Wanted<'f>>,
        each: EachTrace<'_>,
    ) -> Result<(), BlockError> {
        let mut names = Vec::new();
        self.filters.iter().for_each(|filter| filter.root.fields(&mut |field| names.push(field)));
        let fields = BlockFields::find(scan, &names)?;
        let mut possible = Vec::with_capacity(wanted.len());
        for mut wanted in wanted {
            if let Some(groups) = skip::groups_of_series(&wanted.filter.root, scan)? {
                wanted.groups = groups;
            }
            if wanted.groups.contains(&true) && wanted.condition.may_hold(&fields)? {
                possible.push(wanted);
            }
        }
        for number in 0..scan.n_groups() {
            let wanted = possible.iter_mut().filter(|wanted| wanted.groups.get(number) == Some(&true));
            if self.scan_group(&fields.group(number), wanted, each)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_group<'w>(
        &self,
        fields: &GroupFields<'_>,
        wanted: impl Iterator<Item = &'w mut Wanted<'f>>,
        each: EachTrace<'_>,
    ) -> Result<ControlFlow<()>, BlockError>
    where
        'f: 'w,
    {
        let mut found: Vec<(u64, Vec<bool>)> = Vec::new();
        for wanted in wanted {
            let mut rows = wanted.may_last(fields)?;
            // Starts are read of what was found alone, but for conditions that are asked row by row.
            if wanted.condition.is_by_row() {
                self.keep_within(fields, &mut rows)?;
            }
            let mut rows = wanted.condition.select(fields, rows)?;
            if rows.contains(&true) {
                self.keep_within(fields, &mut rows)?;
                found.push((wanted.bit, rows));
            }
        }
        if found.iter().all(|(_, rows)| !rows.contains(&true)) {
            return Ok(ControlFlow::Continue(()));
        }
        let starts = fields.group.starts()?;
        for (trace, rows) in fields.group.traces()? {
            let (mut met, mut first) = (0, usize::MAX);
            for (bit, of_filter) in &found {
                let at = of_filter.get(rows.clone()).and_then(|of_trace| of_trace.iter().position(|found| *found));
                if let Some(at) = at {
                    met |= bit;
                    first = first.min(at);
                }
            }
            // Rows of a trace are in the order of their starts.
            let start = starts.get(rows.start.saturating_add(first));
            if start.is_some_and(|start| met != 0 && each(trace, met, UnixNanos(*start)).is_break()) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Forgets rows that start outside of the range.
    fn keep_within(&self, fields: &GroupFields<'_>, rows: &mut [bool]) -> Result<(), BlockError> {
        if rows.contains(&true) {
            for (row, start) in rows.iter_mut().zip(fields.group.starts()?) {
                *row &= self.range.contains(UnixNanos(*start));
            }
        }
        Ok(())
    }

    /// Calls `each` for every wanted span of a batch, until it breaks.
    pub fn scan_batch(&self, batch: &SpanBatch, each: EachTrace<'_>) {
        for (row, span) in batch.spans.iter().enumerate() {
            if !self.range.contains(span.start_time_unix_nano) {
                continue;
            }
            let bit = |(number, filter): (u32, &Filter)| {
                if filter.matches(batch, row) { 1_u64.checked_shl(number).unwrap_or(0) } else { 0 }
            };
            let met = (0..).zip(self.filters).map(bit).fold(0, |met, bit| met | bit);
            if met != 0 && each(span.trace_id, met, span.start_time_unix_nano).is_break() {
                return;
            }
        }
    }
}
