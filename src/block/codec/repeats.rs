//! Values that repeat an earlier one of their trace: a session is named on every span, a caller and its callee say the
//! same of one request. Only the others are stored, with a flag for each value that could have been a repetition.
//!
//! ```text
//! flags: ints(m)   1 = as its source, 0 = stored; for the m values that have a source     then the stored values
//! ```
//! The source of a value is the first value of the row's parent, when that row comes earlier and has one; else the value
//! before, when it is of the same trace.

use super::bytes::{Malformed, Packer, Reader, Unpacker};
use super::codes::Contexts;
use super::ints::{Ints, put_ints};

/// No row of a group.
pub(crate) const NO_ROW: u16 = u16::MAX;
const NO_SOURCE: u32 = u32::MAX;

/// Which values of a column are stored.
pub(crate) struct Repeats {
    flags: Vec<u64>,
    /// Indexes of the stored values, ascending.
    pub(crate) stored: Vec<u32>,
    /// Row of each stored value.
    pub(crate) owners: Vec<u16>,
    n: usize,
}

impl Repeats {
    /// Looks for repetitions among `n` values, of which `same` tells whether two are equal; `None` without sources.
    pub(crate) fn find(n: usize, contexts: &Contexts<'_>, same: impl Fn(usize, usize) -> bool) -> Option<Self> {
        let sources = sources(n, contexts)?;
        let mut found = Self { flags: Vec::with_capacity(n), stored: Vec::new(), owners: Vec::new(), n };
        for (idx, source) in (0_u32..).zip(&sources) {
            let repeats = *source != NO_SOURCE && same(*source as usize, idx as usize);
            if *source != NO_SOURCE {
                found.flags.push(u64::from(repeats));
            }
            if !repeats {
                found.stored.push(idx);
                found.owners.push(contexts.row(idx as usize).unwrap_or(NO_ROW));
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
    pub(crate) fn put(&self, out: &mut Vec<u8>, packer: &mut Packer) {
        put_ints(out, &self.flags, packer);
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
        let sources = sources(n, contexts).ok_or(Malformed("values repeat where nothing is known of their rows"))?;
        let n_flags = sources.iter().filter(|source| **source != NO_SOURCE).count();
        let mut flags = Ints::read(reader, n_flags, unpacker)?.into_values(n_flags).into_iter();
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
fn sources(n: usize, contexts: &Contexts<'_>) -> Option<Vec<u32>> {
    let parents = contexts.parents;
    if parents.is_empty() {
        return None;
    }
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
