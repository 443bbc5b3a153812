//! Spans of chosen rows, and the rows of chosen traces: whatever several traces share is read once for all of them.

use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use super::super::columns::{self as column, GROUP_ROWS};
use super::super::error::BlockError;
use super::group::Group;
use super::spans::{SpanParts, SpanReader, SpanSource};
use super::tables::Tables;
use super::{Block, Sections, block_row};
use crate::model::{SpanBatch, TraceId};

/// The part of a run of rows that lies in one row group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPart {
    /// Position of the run.
    pub run: usize,
    /// Its rows in the row group, as rows of the block.
    pub rows: Range<u32>,
}

/// Sees the spans of parts of runs, which follow each other in the batch, or why they cannot be read.
pub type EachParts<'a, E = BlockError> = &'a mut dyn FnMut(&[RunPart], Result<SpanBatch, E>) -> ControlFlow<()>;

impl Block {
    /// The rows of those of `traces`, which ascend, that the block holds, with their positions in `traces`. Reads one
    /// column of the row groups between whose fences one lies.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn rows_of_traces(
        &self,
        sections: &dyn Sections,
        traces: &[TraceId],
    ) -> Result<Vec<(usize, Range<u32>)>, BlockError> {
        let mut found: Vec<(usize, Range<u32>)> = Vec::new();
        let fences = &self.header.fences;
        for (number, fence) in fences.iter().enumerate() {
            // A trace may go on in the group behind the one that it began in.
            let start = traces.partition_point(|trace| trace < fence);
            let next = fences.get(number + 1);
            let end = next.map_or(traces.len(), |next| traces.partition_point(|trace| trace <= next));
            let Some(wanted) = traces.get(start..end).filter(|wanted| !wanted.is_empty()) else { continue };
            let mut group = Group::new(&self.header, sections, number);
            group.fetch(|column| column == column::TRACE)?;
            let runs = group.runs()?;
            for (at, trace) in (start..).zip(wanted) {
                let first = runs.partition_point(|run| run.trace_id < *trace);
                let Some(run) = runs.get(first).filter(|run| run.trace_id == *trace) else { continue };
                let row = number * GROUP_ROWS + run.start;
                let rows = block_row(row)..block_row(row + run.len);
                match found.last_mut() {
                    Some((last, before)) if *last == at => before.end = rows.end,
                    _ => found.push((at, rows)),
                }
            }
        }
        Ok(found)
    }

    /// The rows of a trace, empty when it has none. Reads one column of one row group, of more if the trace fills them.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn rows_of_trace(&self, sections: &dyn Sections, trace: TraceId) -> Result<Range<u32>, BlockError> {
        let found = self.rows_of_traces(sections, &[trace])?;
        Ok(found.into_iter().next().map_or(0..0, |(_, rows)| rows))
    }

    /// The spans of `rows`, which ascend, as one batch: everything as it was sent, resources and scopes each once.
    /// Rows that do not exist are passed over. Reads the fixed columns of the row groups concerned, and of the
    /// attributes only those that the rows have.
    ///
    /// # Errors
    /// `Damaged`, `TooLarge` when the answer would pass 4 GiB, or as `sections` fails.
    pub fn spans(&self, sections: &dyn Sections, rows: &[u32]) -> Result<SpanBatch, BlockError> {
        let exist = |row: &u32| *row < self.header.summary.spans;
        let rows: Vec<u32> = rows.iter().copied().filter(exist).collect();
        if rows.is_empty() {
            return Ok(SpanBatch::default());
        }
        self.read_rows(sections, SpanParts::All, |source| read_spans(source, rows))
    }

    /// The spans of `runs` of rows, which exist, ascend and do not overlap, row group by row group, until `each` breaks. When a group cannot be read for
    /// all of its runs, it is read for each alone: they may need different columns.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails, when nothing of the block can be read; else `each` is told.
    pub fn spans_of_runs(
        &self,
        sections: &dyn Sections,
        runs: &[Range<u32>],
        parts: SpanParts,
        each: EachParts<'_>,
    ) -> Result<(), BlockError> {
        self.read_rows(sections, parts, |source| {
            for parts in parts_by_group(runs) {
                let seen = match read_spans(source, parts.iter().flat_map(|part| part.rows.clone())) {
                    Err(_) if 1 < parts.len() => parts
                        .iter()
                        .try_for_each(|part| each(std::slice::from_ref(part), read_spans(source, part.rows.clone()))),
                    read => each(&parts, read),
                };
                if seen.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Gives `read` what it needs to read spans.
    fn read_rows<T>(
        &self,
        sections: &dyn Sections,
        parts: SpanParts,
        read: impl FnOnce(&SpanSource<'_>) -> Result<T, BlockError>,
    ) -> Result<T, BlockError> {
        let tables = Tables::read(&self.header, sections)?;
        let (shapes, series) = (tables.shapes()?, tables.series(self.header.n_series)?);
        let (header, dictionaries) = (&self.header, Rc::default());
        read(&SpanSource { header, sections, tables: &tables, shapes: &shapes, series: &series, dictionaries, parts })
    }
}

/// The spans of ascending rows, all of which exist.
fn read_spans(source: &SpanSource<'_>, rows: impl IntoIterator<Item = u32>) -> Result<SpanBatch, BlockError> {
    let rows: Vec<usize> = rows.into_iter().map(|row| row as usize).collect();
    let mut reader = SpanReader::new(source.clone())?;
    // Rows out of order cost a second reading of their group, nothing else.
    for of_group in rows.chunk_by(|a, b| a / GROUP_ROWS == b / GROUP_ROWS && a < b) {
        let Some(first) = of_group.first() else { continue };
        let in_group: Vec<usize> = of_group.iter().map(|row| row % GROUP_ROWS).collect();
        reader.read_group(first / GROUP_ROWS, &in_group)?;
    }
    Ok(reader.finish())
}

/// The runs cut where row groups meet; those of one group together.
fn parts_by_group(runs: &[Range<u32>]) -> Vec<Vec<RunPart>> {
    let mut groups: Vec<Vec<RunPart>> = Vec::new();
    for (run, rows) in runs.iter().enumerate() {
        let mut start = rows.start;
        while start < rows.end {
            let group = start as usize / GROUP_ROWS;
            let end = block_row((group + 1) * GROUP_ROWS).min(rows.end);
            let part = RunPart { run, rows: start..end };
            match groups.last_mut() {
                Some(parts) if parts.last().is_some_and(|last| last.rows.start as usize / GROUP_ROWS == group) => {
                    parts.push(part);
                }
                _ => groups.push(vec![part]),
            }
            start = end;
        }
    }
    groups
}
