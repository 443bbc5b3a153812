//! Metrics of spans that are found by what the other spans of their traces are.
//!
//! A scan of heads and columns says which traces have what the query needs, as for a search. These are read whole, those that
//! lie together together, and what is found in them is measured span by span.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::compare::{self, Tally};
use super::series::Series;
use super::sums::Sums;
use super::{Asking, bounded};
use crate::block::SpanParts;
use crate::latency::counting_instant;
use crate::model::{Span, SpanBatch, SpanId, SpanKey, TimeRange, TraceId, UnixNanos};
use crate::query::QueryError;
use crate::query::contributions::Contributions;
use crate::query::rows::WITHIN;
use crate::query::search::PARTS_MAX;
use crate::query::traceql::{
    CompareScan, ComparedSpan, GroupTable, MeasureScan, MeasuredSpan, Need, SpanMetrics, SpanQuery, TraceScan,
    TraceSpans,
};
use crate::store::{OpenPartition, StoreError};

/// Traces that are read together: neighbours are in the same row groups.
const READ_AT_ONCE_MAX: usize = 65_536;
/// The horizon of spans that are counted at their start.
const FAR: UnixNanos = UnixNanos(u64::MAX);
/// The one place of spans that are found by their traces.
const NO_BLOCK: u32 = 0;

/// A span, but for what it is called.
type AheadKey = (TraceId, SpanId, UnixNanos);

/// Traces in which something may be found.
struct Candidates<'a> {
    need: &'a Need,
    range: TimeRange,
    /// Filters that spans of each meet, and how many traces were met before it.
    met: HashMap<TraceId, (u64, usize)>,
    /// Spans whose clock ran ahead so far that they do not count at their start, with the latest arrival in their place.
    ahead: HashMap<AheadKey, UnixNanos>,
}

impl<'a> Candidates<'a> {
    /// Looks at the spans of a place, the latest of which starts so. Starts are all that a scan knows: where some spans do not
    /// count at them, it looks at all.
    fn scan(&self, latest: UnixNanos, horizon: UnixNanos) -> TraceScan<'a> {
        let range = if is_ahead(latest, horizon) { TimeRange::ALL } else { self.range };
        TraceScan { filters: self.need.filters(), range }
    }

    fn note(&mut self, trace: TraceId, met: u64) -> ControlFlow<()> {
        if self.is_full() {
            return ControlFlow::Break(());
        }
        let before = self.met.len();
        self.met.entry(trace).or_insert((0, before)).0 |= met;
        ControlFlow::Continue(())
    }

    fn note_ahead(&mut self, key: AheadKey, horizon: UnixNanos) {
        if is_ahead(key.2, horizon) && !self.is_full() {
            let _before = self.ahead.insert(key, horizon);
        }
    }

    fn is_full(&self) -> bool {
        PARTS_MAX <= self.met.len().max(self.ahead.len())
    }

    fn is_bounded(&self) -> Result<(), QueryError> {
        if self.is_full() { Err(QueryError::TooManyTraces { traces_max: PARTS_MAX }) } else { Ok(()) }
    }

    fn batch(&mut self, batch: &SpanBatch, horizon: UnixNanos) {
        let latest = batch.spans.iter().map(|span| span.start_time_unix_nano).max().unwrap_or_default();
        self.scan(latest, horizon).scan_batch(batch, &mut |trace, met, _| self.note(trace, met));
        batch.spans.iter().for_each(|span| self.note_ahead(ahead_key(span), horizon));
    }

    fn block(&mut self, open: &OpenPartition, block_no: u64) -> Result<(), StoreError> {
        let Some(block) = open.block(block_no) else { return Ok(()) };
        let (latest, horizon) = (block.summary().max_start, block.summary().horizon);
        let scan = self.scan(latest, horizon);
        if scan.may_be_in(block.summary()) {
            scan.scan_block(open, block_no, &mut |trace, met, _| self.note(trace, met))?;
        }
        if !is_ahead(latest, horizon) {
            return Ok(());
        }
        open.scan(block_no, |scan| {
            for group in (0..scan.n_groups()).map(|number| scan.group(number)) {
                for (row, start) in group.starts()?.iter().enumerate() {
                    if is_ahead(UnixNanos(*start), horizon) {
                        self.note_ahead((group.trace_id(row)?, group.span_id(row)?, UnixNanos(*start)), horizon);
                    }
                }
            }
            Ok(())
        })
    }

    /// Those that have everything the query needs, in the order in which they were met.
    fn complete(&self) -> Vec<TraceId> {
        let complete = self.met.iter().filter(|(_, (met, _))| self.need.holds(*met));
        let mut ordered: Vec<(usize, TraceId)> = complete.map(|(trace, (_, before))| (*before, *trace)).collect();
        ordered.sort_unstable();
        ordered.into_iter().map(|(_, trace)| trace).collect()
    }
}

fn is_ahead(start: UnixNanos, horizon: UnixNanos) -> bool {
    counting_instant(start, horizon) != start
}

fn ahead_key(span: &Span) -> AheadKey {
    (span.trace_id, span.span_id, span.start_time_unix_nano)
}

/// Sees a span that was found: its batch, its row there, and the horizon by which it counts.
type EachRelated<'a> = &'a mut dyn FnMut(&SpanBatch, u32, UnixNanos) -> Result<(), QueryError>;

impl Asking<'_> {
    pub(super) fn summed_related(
        &mut self,
        metrics: &SpanMetrics,
        query: &SpanQuery,
        scan: &MeasureScan<'_>,
    ) -> Result<Vec<Series>, QueryError> {
        let (mut groups, mut kept) = (GroupTable::default(), Vec::new());
        let mut sums = Sums::new(metrics, self.intervals, self.found.len(), self.shows);
        self.each_related(metrics, query, &mut |batch, row, horizon| {
            if let Some(span) = scan.measured_row(batch, row, horizon, &mut groups)
                && sums.span(NO_BLOCK, &MeasuredSpan { row: next_row(&kept), ..span })
            {
                kept.extend(batch.spans.get(row as usize).map(Span::key));
            }
            bounded(metrics, &groups, &sums)
        })?;
        self.spans += sums.spans;
        self.keep(Contributions::default(), metrics, kept);
        Ok(sums.into_series(&groups))
    }

    pub(super) fn compared_related(
        &mut self,
        metrics: &SpanMetrics,
        query: &SpanQuery,
        scan: &CompareScan<'_>,
    ) -> Result<Vec<Series>, QueryError> {
        let (mut table, mut kept) = (compare::table(), Vec::new());
        let mut tally = Tally::new(self.intervals, self.found.len(), self.shows);
        self.each_related(metrics, query, &mut |batch, row, horizon| {
            scan.scan_row(batch, row, horizon, &mut table, &mut |span, attribute, value| {
                if tally.count(NO_BLOCK, &ComparedSpan { row: next_row(&kept), ..span }, attribute, value) {
                    kept.extend(batch.spans.get(row as usize).map(Span::key));
                }
            });
            tally.is_bounded(&table)
        })?;
        self.spans += tally.spans;
        self.keep(Contributions::default(), metrics, kept);
        Ok(tally.into_series(&table, scan.comparison.top, &mut self.coverage))
    }

    fn candidates(&mut self, need: &Need) -> Result<(Vec<TraceId>, HashMap<AheadKey, UnixNanos>), QueryError> {
        let range = self.intervals.range();
        let mut candidates = Candidates { need, range, met: HashMap::new(), ahead: HashMap::new() };
        for head in &self.snapshot.heads {
            for batch in &head.batches {
                self.query.may_go_on(self.began, WITHIN)?;
                candidates.batch(batch, head.horizon);
                candidates.is_bounded()?;
            }
        }
        let _places = self.blocks(|open, block_no, _| {
            candidates.block(open, block_no)?;
            Ok(candidates.is_bounded())
        })?;
        Ok((candidates.complete(), candidates.ahead))
    }

    /// Gives `each` every span that the query finds among those of the range, once.
    fn each_related(
        &mut self,
        metrics: &SpanMetrics,
        query: &SpanQuery,
        each: EachRelated<'_>,
    ) -> Result<(), QueryError> {
        let (traces, ahead) = self.candidates(&query.need())?;
        let parts = if metrics.looks_at_attributes() { SpanParts::All } else { SpanParts::Frame };
        let (range, began, asked, coverage) = (self.intervals.range(), self.began, self.query, &mut self.coverage);
        for ids in traces.chunks(READ_AT_ONCE_MAX) {
            asked.each_trace_in(self.snapshot, ids, parts, &mut |_, view| {
                asked.may_go_on(began, WITHIN)?;
                coverage.also(view.coverage.clone());
                let first = u32::try_from(view.rows.start).unwrap_or(u32::MAX);
                let trace = TraceSpans::new(view.batch, view.rows);
                let horizon = |span: &Span| ahead.get(&ahead_key(span)).copied().unwrap_or(FAR);
                let counts = |span: &Span| range.contains(counting_instant(span.start_time_unix_nano, horizon(span)));
                let rows = (0..).zip(trace.spans()).filter(|(_, span)| counts(span)).map(|(row, _)| row);
                let sets = query.find(&trace, rows.collect());
                let mut found: Vec<u32> = sets.into_iter().flat_map(|set| set.rows).collect();
                found.sort_unstable();
                found.dedup();
                for row in found {
                    let span = trace.spans().get(row as usize);
                    each(view.batch, first.saturating_add(row), span.map_or(FAR, horizon))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn next_row(kept: &[SpanKey]) -> u32 {
    u32::try_from(kept.len()).unwrap_or(u32::MAX)
}
