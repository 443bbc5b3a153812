//! What every other column of a row group may follow from: traces, starts, series, parents, scopes and callers of its rows.

pub(super) use super::super::codec::callers as callers_of;
use super::super::codec::{Contexts, NO_ROW, RowIds, unzigzag};
use super::super::columns as column;
use super::super::error::BlockError;
use super::super::header::Header;
use super::group::{Group, Run, run_of_row};

/// One entry per row, but for the runs.
pub(super) struct RowsKnown {
    pub(super) runs: Vec<Run>,
    pub(super) run_of_row: Vec<u32>,
    pub(super) starts: Vec<u64>,
    pub(super) series: Vec<u32>,
    /// As the parent column says it.
    pub(super) parents: Vec<u64>,
    /// The row of the parent, or `NO_ROW`.
    parent_rows: Vec<u16>,
    pub(super) scopes: Vec<u32>,
    /// Series and parent's scope, numbered, and how many there are.
    callers: (Vec<u32>, usize),
}

impl RowsKnown {
    /// Reads them from chunks that were fetched.
    pub(super) fn read(group: &mut Group<'_>) -> Result<Self, BlockError> {
        let runs = group.runs()?;
        let run_of_row = run_of_row(&runs);
        let starts = group.starts(&runs)?;
        let series = group.series(&run_of_row)?;
        let (parents, parent_rows) = parents_of_rows(group, &run_of_row, &series)?;
        let known = Contexts {
            series: RowIds { ids: &series, n: group.n_series() },
            traces: RowIds { ids: &run_of_row, n: run_of_row.len() },
            parents: &parent_rows,
            ..Contexts::NONE
        };
        let scopes = group.scopes(known)?;
        let callers = callers_of(&scopes, &known);
        Ok(Self { runs, run_of_row, starts, series, parents, parent_rows, scopes, callers })
    }

    /// For reading the other columns.
    pub(super) fn contexts(&self, header: &Header) -> Contexts<'_> {
        Contexts {
            owners: None,
            series: RowIds { ids: &self.series, n: header.n_series as usize },
            scopes: RowIds { ids: &self.scopes, n: header.n_scopes as usize },
            traces: RowIds { ids: &self.run_of_row, n: self.run_of_row.len() },
            parents: &self.parent_rows,
            callers: RowIds { ids: &self.callers.0, n: self.callers.1 },
        }
    }
}

/// What the parent column says of each row, and the row that it names or `NO_ROW`.
pub(super) fn parents_of_rows(
    group: &mut Group<'_>,
    run_of_row: &[u32],
    series: &[u32],
) -> Result<(Vec<u64>, Vec<u16>), BlockError> {
    let n = group.n_rows;
    let known = Contexts {
        series: RowIds { ids: series, n: group.n_series() },
        traces: RowIds { ids: run_of_row, n: run_of_row.len() },
        ..Contexts::NONE
    };
    let parents = group.numbers(column::PARENT, n, known)?.into_values(n);
    let parent_rows = parents.iter().enumerate().map(|(row, code)| parent_row_or_none(row, *code, n)).collect();
    Ok((parents, parent_rows))
}

/// The row that a code of the parent column names.
pub(super) fn parent_row(row: usize, code: u64) -> Option<usize> {
    let distance = unzigzag(code.checked_sub(2)?);
    usize::try_from((row as u64).wrapping_sub(distance)).ok()
}

/// The same, if it is in the group.
fn parent_row_or_none(row: usize, code: u64, n_rows: usize) -> u16 {
    let parent = parent_row(row, code).filter(|parent| *parent < n_rows);
    parent.and_then(|parent| u16::try_from(parent).ok()).unwrap_or(NO_ROW)
}
