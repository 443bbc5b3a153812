//! Values that repeat an earlier one: a session is named on every span, a caller and its callee say the same of one
//! request, a port is random on one side of a connection and fixed on the other. Only the others are stored, with a flag
//! for each value that could have been a repetition.
//!
//! ```text
//! source:u8 (0 trace, 1 series)   flags: codes(m)   1 = as its source, 0 = stored; for the m values with a source
//! ```
//! The source in the trace is the first value of the row's parent, when that row comes earlier and has one; else the value
//! before, when it is of the same trace. The source in the series is the last value of the same series.

use super::bytes::{Malformed, Packer, Reader, Unpacker};
use super::codes::{Contexts, put_codes, read_codes};

/// No row of a group.
pub(crate) const NO_ROW: u16 = u16::MAX;
const NO_SOURCE: u32 = u32::MAX;
/// Stored, or repeated.
const FLAGS: usize = 2;

/// Where a value that may be repeated is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Source {
    Trace = 0,
    Series = 1,
}

/// Which values of a column are stored.
pub(crate) struct Repeats {
    source: Source,
    flags: Vec<u64>,
    /// Row of each flag.
    flag_owners: Vec<u16>,
    /// Indexes of the stored values, ascending.
    pub(crate) stored: Vec<u32>,
    /// Row of each stored value.
    pub(crate) owners: Vec<u16>,
    n: usize,
}

impl Repeats {
    /// Looks for repetitions among `n` values, of which `same` tells whether two are equal; `None` without sources.
    pub(crate) fn find(
        n: usize,
        source: Source,
        contexts: &Contexts<'_>,
        same: impl Fn(usize, usize) -> bool,
    ) -> Option<Self> {
        let sources = sources(n, source, contexts)?;
        let mut found = Self {
            source,
            flags: Vec::with_capacity(n),
            flag_owners: Vec::with_capacity(n),
            stored: Vec::new(),
            owners: Vec::new(),
            n,
        };
        for (idx, source) in (0_u32..).zip(&sources) {
            let repeats = *source != NO_SOURCE && same(*source as usize, idx as usize);
            let row = contexts.row(idx as usize).unwrap_or(NO_ROW);
            if *source != NO_SOURCE {
                found.flags.push(u64::from(repeats));
                found.flag_owners.push(row);
            }
            if !repeats {
                found.stored.push(idx);
                found.owners.push(row);
            }
        }
        Some(found)
    }

    /// Whether at least one value in `share` is a repetition.
    pub(crate) fn reach(&self, share: usize) -> bool {
        self.n <= (self.n - self.stored.len()) * share
    }

    /// Whether the form can be shorter than one of `bytes` for all values.
    pub(crate) fn may_beat(&self, bytes: usize) -> bool {
        let saved = bytes * (self.n - self.stored.len()) / self.n.max(1);
        self.reach(8) && self.flags.len() / 8 < saved + 16
    }

    /// Appends the flags.
    pub(crate) fn put(&self, out: &mut Vec<u8>, contexts: &Contexts<'_>, packer: &mut Packer) {
        out.push(self.source as u8);
        put_codes(out, &self.flags, FLAGS, &contexts.of(&self.flag_owners), packer);
    }

    /// The stored ones of `values`.
    pub(crate) fn pick<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.stored.iter().filter_map(|idx| values.get(*idx as usize)).copied().collect()
    }
}

/// Where each value of a column is among the stored ones.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) of_value: Vec<u32>,
    /// Row of each stored value.
    pub(crate) owners: Vec<u16>,
}

impl Places {
    /// Reads what `Repeats::put` wrote for `n` values.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        n: usize,
        contexts: &Contexts<'_>,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        let source = match reader.u8()? {
            0 => Source::Trace,
            1 => Source::Series,
            _ => return Err(Malformed("values repeat nothing that is known")),
        };
        let sources =
            sources(n, source, contexts).ok_or(Malformed("values repeat where nothing is known of their rows"))?;
        let has_source = |idx: &usize| sources.get(*idx).is_some_and(|source| *source != NO_SOURCE);
        let owners: Vec<u16> = (0..n).filter(has_source).filter_map(|idx| contexts.row(idx)).collect();
        let flags = read_codes(reader, owners.len(), FLAGS, &contexts.of(&owners), unpacker)?;
        let mut flags = flags.into_values(owners.len()).into_iter();
        let mut places = Self { of_value: Vec::with_capacity(n), owners: Vec::new() };
        for (idx, source) in sources.into_iter().enumerate() {
            let known = if source != NO_SOURCE && flags.next() == Some(1) { Some(source as usize) } else { None };
            let place = if let Some(source) = known {
                places.of_value.get(source).copied().unwrap_or(0)
            } else {
                places.owners.push(contexts.row(idx).unwrap_or(NO_ROW));
                u32::try_from(places.owners.len() - 1).unwrap_or(u32::MAX)
            };
            places.of_value.push(place);
        }
        Ok(places)
    }
}

/// The source of each value; `None` when parents are not known, or a value is of no row.
fn sources(n: usize, source: Source, contexts: &Contexts<'_>) -> Option<Vec<u32>> {
    if contexts.parents.is_empty() {
        return None;
    }
    match source {
        Source::Trace => sources_in_trace(n, contexts),
        Source::Series => sources_in_series(n, contexts),
    }
}

fn sources_in_series(n: usize, contexts: &Contexts<'_>) -> Option<Vec<u32>> {
    let mut last = vec![NO_SOURCE; contexts.series.n];
    let of_value = |idx: u32| {
        let series = contexts.series.ids.get(usize::from(contexts.row(idx as usize)?))?;
        last.get_mut(*series as usize).map(|last| std::mem::replace(last, idx))
    };
    (0_u32..).take(n).map(of_value).collect()
}

fn sources_in_trace(n: usize, contexts: &Contexts<'_>) -> Option<Vec<u32>> {
    let parents = contexts.parents;
    let mut first_of_row = vec![NO_SOURCE; parents.len()];
    let mut sources = Vec::with_capacity(n);
    let mut last_trace = None;
    for idx in (0_u32..).take(n) {
        let row = contexts.row(idx as usize)?;
        let trace = contexts.traces.ids.get(usize::from(row));
        let parent = *parents.get(usize::from(row))?;
        let of_parent = if parent < row { first_of_row.get(usize::from(parent)).copied() } else { None };
        let before = if trace.is_some() && last_trace == trace { idx - 1 } else { NO_SOURCE };
        sources.push(of_parent.filter(|source| *source != NO_SOURCE).unwrap_or(before));
        if let Some(first @ &mut NO_SOURCE) = first_of_row.get_mut(usize::from(row)) {
            *first = idx;
        }
        last_trace = trace;
    }
    Some(sources)
}
