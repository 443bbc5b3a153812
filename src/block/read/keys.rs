//! Rows by what they are rather than what they hold: the traces of a block, the rows of some series, and which of given
//! spans are there already.

use std::ops::Range;

use super::super::codec::{Ints, Malformed};
use super::super::columns::{self as column, GROUP_ROWS};
use super::super::error::BlockError;
use super::super::header::Header;
use super::super::{Block, Sections};
use super::block_row;
use super::group::{Group, run_of_row};
use super::known::RowsKnown;
use super::spans::{narrow, nth, rows_where};
use crate::model::{SeriesKey, SpanId, SpanKey, TraceId, UnixNanos};

impl Block {
    /// Calls `each` with every trace of the block, ascending; one that spans row groups comes once per group. Reads one
    /// column.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails; `each` may have been called before.
    pub fn traces(&self, sections: &dyn Sections, each: &mut dyn FnMut(TraceId)) -> Result<(), BlockError> {
        for number in 0..self.header.groups.len() {
            let mut group = Group::new(&self.header, sections, number);
            group.fetch(|column| column == column::TRACE)?;
            group.runs()?.iter().for_each(|run| each(run.trace_id));
        }
        Ok(())
    }

    /// Every trace of the block with its rows, ascending; one that spans row groups comes once per group. Reads one column.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn trace_runs(&self, sections: &dyn Sections) -> Result<Vec<(TraceId, Range<u32>)>, BlockError> {
        let mut runs = Vec::new();
        for number in 0..self.header.groups.len() {
            let mut group = Group::new(&self.header, sections, number);
            group.fetch(|column| column == column::TRACE)?;
            let first = number * GROUP_ROWS;
            let rows = |start: usize, len: usize| block_row(first + start)..block_row(first + start + len);
            runs.extend(group.runs()?.iter().map(|run| (run.trace_id, rows(run.start, run.len))));
        }
        Ok(runs)
    }

    /// The rows whose series, by its number, is `wanted`; ascending. Reads two columns.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn rows_of_series(&self, sections: &dyn Sections, wanted: &[bool]) -> Result<Vec<u32>, BlockError> {
        let mut rows = Vec::new();
        for number in 0..self.header.groups.len() {
            let mut group = Group::new(&self.header, sections, number);
            group.fetch(|column| matches!(column, column::TRACE | column::SERIES))?;
            let series = group.series(&run_of_row(&group.runs()?))?;
            let is_wanted = |series: &u32| wanted.get(*series as usize).copied().unwrap_or(false);
            let found = series.iter().enumerate().filter(|(_, series)| is_wanted(series));
            rows.extend(found.map(|(row, _)| block_row(number * GROUP_ROWS + row)));
        }
        Ok(rows)
    }

    /// The rows of those of `keys`, which ascend, that the block holds, with their positions in `keys`.
    ///
    /// Reads one column of the row groups between whose fences a key lies, and the identities of those that hold a trace
    /// of it: each group once, however many keys there are.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn rows_of_keys(&self, sections: &dyn Sections, keys: &[SpanKey]) -> Result<Vec<(usize, u32)>, BlockError> {
        let (mut found, mut series) = (Vec::new(), None);
        let fences = &self.header.fences;
        for (number, fence) in fences.iter().enumerate() {
            // A trace may go on in the group behind the one that it began in.
            let start = keys.partition_point(|key| key.trace_id < *fence);
            let end =
                fences.get(number + 1).map_or(keys.len(), |next| keys.partition_point(|key| key.trace_id <= *next));
            let Some(wanted) = keys.get(start..end).filter(|wanted| !wanted.is_empty()) else { continue };
            let mut group = Group::new(&self.header, sections, number);
            group.fetch(|column| column == column::TRACE)?;
            let runs = group.runs()?;
            let is_here = |key: &SpanKey| runs.binary_search_by_key(&key.trace_id, |run| run.trace_id).is_ok();
            if !wanted.iter().any(is_here) {
                continue;
            }
            let series = match &series {
                Some(series) => series,
                None => series.insert(self.series(sections)?),
            };
            let stored = keys_of(&mut group, &self.header, series)?;
            for (at, key) in wanted.iter().enumerate() {
                if let Ok(row) = stored.binary_search(key) {
                    found.push((start + at, block_row(number * GROUP_ROWS + row)));
                }
            }
        }
        Ok(found)
    }
}

/// The identity of each row of a group whose column of traces was fetched; they ascend.
fn keys_of(group: &mut Group<'_>, header: &Header, series: &[SeriesKey<'static>]) -> Result<Vec<SpanKey>, BlockError> {
    group.fetch(|column| {
        matches!(
            column,
            column::SPAN_ID
                | column::PARENT
                | column::TRACE_START
                | column::START_DELTA
                | column::SERIES
                | column::EXCEPTIONS
                | column::RAW_KIND
                | column::SCOPE
        )
    })?;
    let known = RowsKnown::read(group)?;
    let rows = known.contexts(header);
    let exceptions = group.numbers(column::EXCEPTIONS, group.n_rows, rows)?;
    let n_looked_at = if let Ints::Constant(0) = exceptions { 0 } else { group.n_rows };
    let kind_rows = rows_where(n_looked_at, |row| exceptions.get(row) & 2 != 0);
    let kinds = group.numbers(column::RAW_KIND, kind_rows.len(), rows.of(&kind_rows))?;
    let span_ids = group.raw(column::SPAN_ID)?;
    let key = |row: usize| {
        let owner = u16::try_from(row).unwrap_or(u16::MAX);
        let kind = match kind_rows.binary_search(&owner) {
            Ok(at) => narrow(&kinds, at)?.cast_signed(),
            Err(_) => known
                .series
                .get(row)
                .and_then(|row| series.get(*row as usize))
                .map_or(0, |key| i32::from(key.kind as u8)),
        };
        let run = known.run_of_row.get(row).and_then(|run| known.runs.get(*run as usize));
        let (Some(run), Some(start), Some(span_id)) = (run, known.starts.get(row), nth(span_ids, row)) else {
            return Err(Malformed("a row has no identity"));
        };
        let start_time_unix_nano = UnixNanos(*start);
        Ok(SpanKey { trace_id: run.trace_id, start_time_unix_nano, span_id: SpanId(span_id), kind })
    };
    let keys = (0..group.n_rows).map(key).collect::<Result<Vec<_>, _>>();
    keys.map_err(|malformed| group.damaged(malformed))
}
