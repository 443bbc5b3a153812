//! A column of texts as a search sees it: each value is an entry of a dictionary, so that a text is looked at once, however
//! often it stands there.

use std::sync::Arc;

use crate::block::codec::{Malformed, Texts};
use crate::block::columns::ColumnId;
use crate::block::error::BlockError;

use super::super::tables::damaged;

/// Texts by number.
#[derive(Clone, Debug)]
pub struct Dictionary {
    texts: Arc<Texts>,
    n_entries: usize,
    column: Option<ColumnId>,
}

impl Dictionary {
    /// Number of texts, of which some may be equal.
    pub fn n_entries(&self) -> usize {
        self.n_entries
    }

    /// A number by which the same dictionary is known in other row groups of the block; `None` when it is this group's
    /// own. Answers about its entries can be kept for the whole block.
    pub fn id(&self) -> Option<u16> {
        self.column
    }

    /// Appends a text to `out`.
    ///
    /// # Errors
    /// `Damaged`, also for an entry that does not exist.
    pub fn write(&self, entry: u32, out: &mut Vec<u8>) -> Result<(), BlockError> {
        self.texts.write(entry as usize, out).map_err(damaged)
    }
}

/// One value after the other, as entries of a dictionary.
#[derive(Clone, Debug)]
pub struct TextColumn {
    entries: Entries,
    dictionary: Dictionary,
}

#[derive(Clone, Debug)]
enum Entries {
    /// All are the first.
    One,
    /// Value n is entry n.
    Each,
    Listed(Vec<u32>),
}

impl TextColumn {
    /// The dictionary. A text may stand in it several times.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// The entry of value `value`.
    pub fn entry(&self, value: usize) -> u32 {
        match &self.entries {
            Entries::One => 0,
            Entries::Each => u32::try_from(value).unwrap_or(u32::MAX),
            Entries::Listed(entries) => entries.get(value).copied().unwrap_or(u32::MAX),
        }
    }

    /// Takes the `n` values of `column` as they were read.
    pub(super) fn of(texts: Texts, n: usize, column: ColumnId) -> Result<Self, Malformed> {
        let own = |texts: Texts, n_entries: usize| Dictionary { texts: Arc::new(texts), n_entries, column: None };
        let shared = |texts: Arc<Texts>, n_entries: usize| Dictionary { texts, n_entries, column: Some(column) };
        let below = |code: u64, n_entries: usize| {
            let entry = u32::try_from(code).ok().filter(|entry| (*entry as usize) < n_entries);
            entry.ok_or(Malformed("a code is not in its dictionary"))
        };
        let (entries, dictionary) = match texts {
            Texts::Empty => (Entries::One, own(Texts::Empty, 1)),
            Texts::Coded { codes, dictionary, n_entries } => {
                let entries = codes.into_values(n).into_iter().map(|code| below(code, n_entries));
                (Entries::Listed(entries.collect::<Result<_, _>>()?), shared(dictionary, n_entries))
            }
            Texts::Same { places, stored } => {
                let n_stored = places.iter().copied().max().map_or(0, |last| last as usize + 1);
                match *stored {
                    Texts::Coded { codes, dictionary, n_entries } => {
                        let entries = places.iter().map(|place| below(codes.get(*place as usize), n_entries));
                        (Entries::Listed(entries.collect::<Result<_, _>>()?), shared(dictionary, n_entries))
                    }
                    stored => (Entries::Listed(places), own(stored, n_stored)),
                }
            }
            plain @ (Texts::Bytes { .. } | Texts::Decimal { .. } | Texts::Fixed { .. } | Texts::Kinds(_)) => {
                (Entries::Each, own(plain, n))
            }
        };
        Ok(Self { entries, dictionary })
    }
}
