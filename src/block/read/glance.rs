//! Spans at a glance: who they are and where they stand, from the few columns that say it.

use super::super::Sections;
use super::super::codec::Malformed;
use super::super::columns::{self as column, GROUP_ROWS};
use super::super::error::BlockError;
use super::Block;
use super::group::{Group, Run};
use super::known::RowsKnown;
use super::spans::nth;
use super::tables::{ScopeCopier, Tables};
use crate::model::{SpanBatch, SpanId, TraceId, UnixNanos};

/// What the fixed columns say of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanGlance {
    /// Trace.
    pub trace_id: TraceId,
    /// Span.
    pub span_id: SpanId,
    /// As sent.
    pub start: UnixNanos,
    /// Index into `Block::series`.
    pub series: u32,
    /// Row in `Block::scopes`.
    pub scope: u32,
}

const MISSING: Malformed = Malformed("a row has no identity");

impl Block {
    /// The spans of `rows`, which ascend and exist, at a glance. Reads seven columns of the row groups concerned.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn glances(&self, sections: &dyn Sections, rows: &[u32]) -> Result<Vec<SpanGlance>, BlockError> {
        let mut glances = Vec::with_capacity(rows.len());
        for of_group in rows.chunk_by(|a, b| group_of(*a) == group_of(*b)) {
            let Some(first) = of_group.first() else { continue };
            let mut group = Group::new(&self.header, sections, group_of(*first));
            group.fetch(|column| {
                matches!(
                    column,
                    column::TRACE
                        | column::SPAN_ID
                        | column::PARENT
                        | column::TRACE_START
                        | column::START_DELTA
                        | column::SERIES
                        | column::SCOPE
                )
            })?;
            let known = RowsKnown::read(&mut group)?;
            let span_ids = group.raw(column::SPAN_ID)?;
            for row in of_group.iter().map(|row| *row as usize % GROUP_ROWS) {
                let run = known.run_of_row.get(row).and_then(|run| known.runs.get(*run as usize));
                let (Some(run), Some(start)) = (run, known.starts.get(row)) else { return Err(group.damaged(MISSING)) };
                glances.push(SpanGlance {
                    trace_id: run.trace_id,
                    span_id: SpanId(nth(span_ids, row).ok_or_else(|| group.damaged(MISSING))?),
                    start: UnixNanos(*start),
                    series: known.series.get(row).copied().unwrap_or_default(),
                    scope: known.scopes.get(row).copied().unwrap_or_default(),
                });
            }
        }
        Ok(glances)
    }

    /// The ids of `rows`, which ascend and exist. Reads two columns of the row groups concerned.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn ids(&self, sections: &dyn Sections, rows: &[u32]) -> Result<Vec<(TraceId, SpanId)>, BlockError> {
        let mut ids = Vec::with_capacity(rows.len());
        for of_group in rows.chunk_by(|a, b| group_of(*a) == group_of(*b)) {
            let Some(first) = of_group.first() else { continue };
            let mut group = Group::new(&self.header, sections, group_of(*first));
            group.fetch(|column| matches!(column, column::TRACE | column::SPAN_ID))?;
            let runs = group.runs()?;
            let span_ids = group.raw(column::SPAN_ID)?;
            for row in of_group.iter().map(|row| *row as usize % GROUP_ROWS) {
                let id = trace_of(&runs, row).zip(nth(span_ids, row));
                let (trace, span) = id.ok_or_else(|| group.damaged(MISSING))?;
                ids.push((trace, SpanId(span)));
            }
        }
        Ok(ids)
    }

    /// Every scope and resource of the block, under its number, and no span.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn scopes(&self, sections: &dyn Sections) -> Result<SpanBatch, BlockError> {
        let tables = Tables::read(&self.header, sections)?;
        let mut copier = ScopeCopier::new(tables.scopes()?);
        let mut scopes = SpanBatch::default();
        for scope in 0..self.header.n_scopes {
            let _row = copier.copy(scope, &mut scopes)?;
        }
        Ok(scopes)
    }
}

fn group_of(row: u32) -> usize {
    row as usize / GROUP_ROWS
}

fn trace_of(runs: &[Run], row: usize) -> Option<TraceId> {
    let at = runs.partition_point(|run| run.start <= row).checked_sub(1)?;
    runs.get(at).map(|run| run.trace_id)
}
