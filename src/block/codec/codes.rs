//! Small codes (indexes into a dictionary), predicted by what the row is about.
//!
//! Most attributes follow from the span's series or resource: a route from the span name, a host from the service. So
//! a code is compared with the last one of the same context and becomes 0 when it is the same, `code + 1` otherwise:
//! a dependent column turns into zeros, and no table of dependencies is stored.
//!
//! ```text
//! context:u8 (0 none, 1 series, 2 scope, 3 trace, 4 the code before, 5 caller)   ints
//! ```

use super::bytes::{Malformed, Packer, Reader, Unpacker};
use super::ints::{Ints, put_ints};

const NONE: u8 = 0;
const SERIES: u8 = 1;
const SCOPE: u8 = 2;
const TRACE: u8 = 3;
const PREVIOUS: u8 = 4;
const CALLER: u8 = 5;

/// Which tables of `Contexts` are needed to read a column, as bits; that of traces may always be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs(u8);

impl Needs {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const SERIES: Self = Self(1);
    pub(crate) const SCOPES: Self = Self(2);
    pub(crate) const PARENTS: Self = Self(4);
    pub(crate) const CALLERS: Self = Self(8);
    pub(crate) const ALL: Self = Self(15);

    /// Those of codes that are predicted by `context`.
    pub(crate) fn of_context(context: u8) -> Self {
        match context {
            SERIES => Self::SERIES,
            SCOPE => Self::SCOPES,
            CALLER => Self::CALLERS,
            _ => Self::NONE,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn include(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// One id per row of a group, and what all of them are below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowIds<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) n: usize,
}

impl RowIds<'_> {
    pub(crate) const NONE: Self = Self { ids: &[], n: 0 };
}

/// What the rows of a group are about. Codes without rows (`Contexts::NONE`) are only predicted from each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contexts<'a> {
    /// Row of each value; `None` when value i is of row i.
    pub(crate) owners: Option<&'a [u16]>,
    pub(crate) series: RowIds<'a>,
    pub(crate) scopes: RowIds<'a>,
    /// Runs of rows of one trace.
    pub(crate) traces: RowIds<'a>,
    /// Row of each row's parent, `NO_ROW` without one in the group; empty where it is not known yet.
    pub(crate) parents: &'a [u16],
    /// Of each row: its series and its parent's scope, which tell the process it is in more often than not.
    pub(crate) callers: RowIds<'a>,
}

impl<'a> Contexts<'a> {
    pub(crate) const NONE: Self = Self {
        owners: None,
        series: RowIds::NONE,
        scopes: RowIds::NONE,
        traces: RowIds::NONE,
        parents: &[],
        callers: RowIds::NONE,
    };

    /// The same rows for a column that has values only for `owners`.
    pub(crate) fn of(self, owners: &'a [u16]) -> Self {
        Self { owners: Some(owners), ..self }
    }

    /// The row that a value is of.
    pub(crate) fn row(&self, idx: usize) -> Option<u16> {
        match self.owners {
            Some(owners) => owners.get(idx).copied(),
            None => u16::try_from(idx).ok(),
        }
    }

    fn at(&self, table: RowIds<'_>, idx: usize) -> Option<usize> {
        let row = match self.owners {
            Some(owners) => usize::from(*owners.get(idx)?),
            None => idx,
        };
        table.ids.get(row).map(|id| *id as usize)
    }

    /// Rows' ids; `None` for contexts that are not of rows.
    fn table(&self, context: u8) -> Option<RowIds<'a>> {
        let table = match context {
            SERIES => self.series,
            CALLER => self.callers,
            SCOPE => self.scopes,
            TRACE => self.traces,
            _ => RowIds::NONE,
        };
        if table.ids.is_empty() { None } else { Some(table) }
    }
}

/// Appends codes, all of them below `alphabet`.
pub(crate) fn put_codes(
    out: &mut Vec<u8>,
    codes: &[u64],
    alphabet: usize,
    contexts: &Contexts<'_>,
    packer: &mut Packer,
) {
    let mut best = vec![NONE];
    // A constant needs no prediction.
    if codes.iter().any(|code| Some(code) != codes.first()) {
        let predictions = [SERIES, SCOPE, TRACE, PREVIOUS, CALLER]
            .map(|context| (context, predict(codes, alphabet, context, contexts)));
        let misses = |predicted: &[u64]| predicted.iter().filter(|code| **code != 0).count();
        let fewest = predictions
            .into_iter()
            .filter_map(|(context, predicted)| predicted.map(|predicted| (context, misses(&predicted), predicted)))
            .min_by_key(|(_, misses, _)| *misses);
        if let Some((context, misses, predicted)) = fewest {
            let mut form = vec![context];
            put_ints(&mut form, &predicted, packer);
            if misses * 4 < codes.len() {
                out.extend_from_slice(&form);
                return;
            }
            put_ints(&mut best, codes, packer);
            out.extend_from_slice(if form.len() < best.len() { &form } else { &best });
            return;
        }
    }
    put_ints(&mut best, codes, packer);
    out.extend_from_slice(&best);
}

/// The codes against their predictions; `None` when there is no such context here.
fn predict(codes: &[u64], alphabet: usize, context: u8, contexts: &Contexts<'_>) -> Option<Vec<u64>> {
    let table = contexts.table(context);
    let n_contexts = if context == PREVIOUS { alphabet } else { table?.n };
    let mut last = vec![u64::MAX; n_contexts.max(1)];
    let mut previous = 0;
    let mut predicted = Vec::with_capacity(codes.len());
    for (idx, code) in codes.iter().enumerate() {
        let at = table.map_or(Some(previous), |table| contexts.at(table, idx))?;
        let slot = last.get_mut(at)?;
        predicted.push(if slot == code { 0 } else { code + 1 });
        *slot = *code;
        previous = usize::try_from(*code).ok()?;
    }
    Some(predicted)
}

/// Reads `n` codes. With a context they are known to be below `alphabet`; without one they are as found.
pub(crate) fn read_codes(
    reader: &mut Reader<'_>,
    n: usize,
    alphabet: usize,
    contexts: &Contexts<'_>,
    unpacker: &mut Unpacker,
) -> Result<Ints, Malformed> {
    const UNPREDICTED: Malformed = Malformed("a code is predicted from nothing");
    let context = reader.u8()?;
    if context == NONE {
        return Ints::read(reader, n, unpacker);
    }
    let predicted = Ints::read_values(reader, n, unpacker)?;
    let table = contexts.table(context);
    let n_contexts = match table {
        Some(table) => table.n,
        None if context == PREVIOUS => alphabet,
        None => return Err(Malformed("unknown context")),
    };
    let mut last = vec![u64::MAX; n_contexts.max(1)];
    let mut previous = 0;
    let mut codes = Vec::with_capacity(n);
    for (idx, predicted) in predicted.into_iter().enumerate() {
        let at = table.map_or(Some(previous), |table| contexts.at(table, idx)).ok_or(UNPREDICTED)?;
        let slot = last.get_mut(at).ok_or(UNPREDICTED)?;
        if let Some(code) = predicted.checked_sub(1) {
            *slot = code;
        }
        let code = *slot;
        previous = usize::try_from(code).unwrap_or(usize::MAX);
        if alphabet <= previous {
            return Err(Malformed("a code is not in its dictionary"));
        }
        codes.push(code);
    }
    Ok(Ints::Values(codes))
}
