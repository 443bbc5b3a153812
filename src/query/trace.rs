//! Traces by their ids, from wherever their spans lie. What several of them share is read once for all: the index of a
//! partition, the tables of a block, the columns of a row group.

mod places;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};

use crate::block::{RunPart, SpanParts};
use crate::limits::TRACE_SPANS_MAX;
use crate::model::{Span, SpanBatch, SpanCopier, TraceId};
use crate::store::{Snapshot, StoreError};

use self::places::{Failures, HeadRows, Place, Places, READS_MUCH, SPANS_AT_ONCE, TraceNo};
use super::{ATTEMPTS, Coverage, Query, QueryError, coverage_of};

/// A trace.
#[derive(Debug, Default)]
pub struct TraceAnswer {
    /// Its spans by start time, each once; empty when none is stored.
    pub batch: SpanBatch,
    /// Says so when spans are missing: cut at `limits::TRACE_SPANS_MAX`, or unreadable.
    pub coverage: Coverage,
}

/// A trace while it is being looked at, in a batch that it may share with others.
#[derive(Debug)]
pub(super) struct TraceView<'a> {
    pub(super) batch: &'a SpanBatch,
    /// The rows of its spans there, by start time, each once; none when no span is stored.
    pub(super) rows: Range<usize>,
    /// As in a `TraceAnswer`.
    pub(super) coverage: &'a Coverage,
}

/// Sees a trace; an error of it ends the reading.
pub(super) type EachTraceView<'a> = &'a mut dyn FnMut(TraceId, TraceView<'_>) -> Result<(), QueryError>;

impl TraceView<'_> {
    /// The trace alone.
    pub(super) fn answer(&self) -> TraceAnswer {
        let mut own = SpanCopier::default();
        own.copy(self.batch, (0..).take(self.rows.end).skip(self.rows.start));
        TraceAnswer { batch: own.batch, coverage: self.coverage.clone() }
    }
}

impl Query {
    /// All stored spans of a trace. Cost: a few hundred bytes of each sealed partition's index, a filter probe per block of
    /// the unsealed ones, one or two row groups per block that holds it, and one pass over the ids of the head.
    ///
    /// # Errors
    /// `Starting`. An unknown trace is an empty answer; what cannot be read is named in the coverage.
    pub fn trace(&self, id: TraceId) -> Result<TraceAnswer, QueryError> {
        Ok(self.traces(&[id])?.pop().unwrap_or_default())
    }

    /// The same of several traces, in the order of `ids`, for less than one by one.
    ///
    /// # Errors
    /// `Starting`.
    pub fn traces(&self, ids: &[TraceId]) -> Result<Vec<TraceAnswer>, QueryError> {
        let mut answers = self.traces_once(ids)?;
        for _ in 1..ATTEMPTS {
            if !answers.iter().any(|answer| answer.coverage.is_outdated()) {
                break;
            }
            answers = self.traces_once(ids)?;
        }
        Ok(answers)
    }

    fn traces_once(&self, ids: &[TraceId]) -> Result<Vec<TraceAnswer>, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut answers = self.traces_in(&snapshot, ids)?;
        for answer in &mut answers {
            let of_trace = std::mem::replace(&mut answer.coverage, coverage_of(&snapshot));
            answer.coverage.also(of_trace);
        }
        Ok(answers)
    }

    /// What a snapshot holds of traces, in the order of `ids`; the coverage speaks of the trace alone.
    pub(super) fn traces_in(&self, snapshot: &Snapshot, ids: &[TraceId]) -> Result<Vec<TraceAnswer>, QueryError> {
        let mut answers: Vec<TraceAnswer> = Vec::new();
        answers.resize_with(ids.len(), TraceAnswer::default);
        let mut order: Vec<(TraceId, usize)> = ids.iter().copied().zip(0..).collect();
        order.sort_unstable();
        self.each_trace_in(snapshot, ids, SpanParts::All, &mut |id, trace| {
            let asked = order.partition_point(|(known, _)| *known < id);
            for (_, at) in order.iter().skip(asked).take_while(|(known, _)| *known == id) {
                if let Some(answer) = answers.get_mut(*at) {
                    *answer = trace.answer();
                }
            }
            Ok(())
        })?;
        Ok(answers)
    }

    /// Shows each of these traces once, with so much of its spans or more, in the order in which they lie in the store. Memory: the spans of some row groups, and
    /// of the traces that are not whole yet, `SPANS_AT_ONCE` at most and those of one trace.
    ///
    /// # Errors
    /// `Starting`, `NoTurn`, `Abandoned`, or as `each` fails.
    pub(super) fn each_trace_in(
        &self,
        snapshot: &Snapshot,
        ids: &[TraceId],
        parts: SpanParts,
        each: EachTraceView<'_>,
    ) -> Result<(), QueryError> {
        self.each_trace_of(snapshot, ids, parts, SPANS_AT_ONCE, each)
    }

    fn each_trace_of(
        &self,
        snapshot: &Snapshot,
        ids: &[TraceId],
        parts: SpanParts,
        spans_at_once: u64,
        each: EachTraceView<'_>,
    ) -> Result<(), QueryError> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let Places { chunks, heads, failures } = Places::of(self, snapshot, &ids, spans_at_once)?;
        let mut reading = Reading { query: self, ids: &ids, parts, heads, failures, unfinished: HashMap::new(), each };
        for chunk in &chunks {
            if READS_MUCH < chunk.spans {
                self.asked.may_take_much()?;
            }
            for place in &chunk.places {
                reading.place(place)?;
            }
            for trace in &chunk.in_no_block {
                reading.finish(*trace, None)?;
            }
        }
        Ok(())
    }
}

/// Traces while they are put together.
struct Reading<'a> {
    query: &'a Query,
    ids: &'a [TraceId],
    parts: SpanParts,
    heads: HeadRows<'a>,
    failures: Failures<'a>,
    /// What was found so far of traces with spans in several places.
    unfinished: HashMap<TraceNo, SpanCopier>,
    each: EachTraceView<'a>,
}

impl Reading<'_> {
    fn place(&mut self, place: &Place<'_>) -> Result<(), QueryError> {
        let Place { partition, block_no, runs } = place;
        let rows: Vec<Range<u32>> = runs.iter().map(|run| run.rows.clone()).collect();
        let open = match self.query.store()?.open_partition(partition) {
            Ok(open) => open,
            Err(error) => return self.unread(place, &format!("partition {}", partition.name()), &error),
        };
        let mut outcome = Ok(());
        let read = open.spans_of_runs(*block_no, &rows, self.parts, &mut |parts, read| {
            outcome = self.parts(place, parts, read);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outcome?;
        read.or_else(|error| self.unread(place, &format!("block {block_no}"), &error))
    }

    /// Nothing of a place can be read.
    fn unread(&mut self, place: &Place<'_>, what: &str, error: &StoreError) -> Result<(), QueryError> {
        self.failures.note(place.runs.iter().map(|run| run.trace), place.partition, what, error);
        let ended = place.runs.iter().filter(|run| run.is_last);
        ended.into_iter().try_for_each(|run| self.finish(run.trace, None))
    }

    /// The spans of parts of a place's runs, one part behind the other.
    fn parts(
        &mut self,
        place: &Place<'_>,
        parts: &[RunPart],
        read: Result<SpanBatch, StoreError>,
    ) -> Result<(), QueryError> {
        let batch = read.unwrap_or_else(|error| {
            let traces = parts.iter().filter_map(|part| place.runs.get(part.run)).map(|run| run.trace);
            self.failures.note(traces, place.partition, &format!("block {}", place.block_no), &error);
            SpanBatch::default()
        });
        let mut end = 0;
        for part in parts {
            let rows = end..end + (part.rows.end - part.rows.start);
            end = rows.end;
            let Some(run) = place.runs.get(part.run) else { continue };
            if run.is_last && run.rows.end == part.rows.end {
                self.finish(run.trace, Some((&batch, rows)))?;
            } else {
                self.unfinished.entry(run.trace).or_default().copy(&batch, rows);
            }
        }
        Ok(())
    }

    /// Shows a trace whose last rows in blocks are these.
    fn finish(&mut self, trace: TraceNo, rows: Option<(&SpanBatch, Range<u32>)>) -> Result<(), QueryError> {
        let Some(id) = self.ids.get(trace) else { return Ok(()) };
        let mut coverage = self.failures.take(trace);
        let mut in_heads = self.heads.of_trace(trace).peekable();
        let before = self.unfinished.remove(&trace);
        if let (None, None, Some((batch, rows))) = (&before, in_heads.peek(), &rows) {
            let rows = rows.start as usize..rows.end as usize;
            if is_in_order(batch.spans.get(rows.clone()).unwrap_or_default()) {
                return (self.each)(*id, TraceView { batch, rows, coverage: &coverage });
            }
        }
        let mut found = before.unwrap_or_default();
        if let Some((batch, rows)) = rows {
            found.copy(batch, rows);
        }
        for (batch, rows) in in_heads {
            found.copy(batch, rows);
        }
        let batch = once_in_order(found.batch, &mut coverage);
        (self.each)(*id, TraceView { batch: &batch, rows: 0..batch.spans.len(), coverage: &coverage })
    }
}

/// Whether these are spans as an answer has them: by start time, each once, and not too many.
fn is_in_order(spans: &[Span]) -> bool {
    spans.len() <= TRACE_SPANS_MAX && spans.is_sorted_by(|a, b| a.key() < b.key())
}

/// First copy of each span, by start time, at most `TRACE_SPANS_MAX`.
fn once_in_order(batch: SpanBatch, coverage: &mut Coverage) -> SpanBatch {
    if is_in_order(&batch.spans) {
        return batch;
    }
    let mut seen = HashSet::with_capacity(batch.spans.len());
    let mut order: Vec<u32> =
        (0..).zip(&batch.spans).filter(|(_, span)| seen.insert(span.key())).map(|(row, _)| row).collect();
    order.sort_by_key(|row| batch.spans.get(*row as usize).map(Span::key));
    if TRACE_SPANS_MAX < order.len() {
        coverage.missing(format!("the trace has {} spans, {TRACE_SPANS_MAX} are shown", order.len()));
        order.truncate(TRACE_SPANS_MAX);
    }
    let mut once = SpanCopier::default();
    once.copy(&batch, order);
    once.batch
}
