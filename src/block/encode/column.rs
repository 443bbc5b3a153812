//! One column while a row group is collected, and its dictionary while the block is.

use super::index::{ContentIndex, hash_of};
use crate::block::codec::{Contexts, Packer, put_codes, put_ints, put_numbers, put_texts};
use crate::block::columns::Kind;

/// Form of a chunk of texts: the values themselves.
pub(crate) const TEXTS_PLAIN: u8 = 0;
/// Form of a chunk of texts: codes into the column's dictionary.
pub(crate) const TEXTS_CODED: u8 = 1;
/// A chunk with fewer values says too little about the column to give up its dictionary for good.
const TELLING_VALUES_MIN: usize = 256;

/// Values of one column in one row group.
pub(super) struct Column<'a> {
    kind: Kind,
    pub(super) numbers: Vec<u64>,
    pub(super) texts: Vec<&'a [u8]>,
    pub(super) raw: Vec<u8>,
    /// Row of each value, for columns that have not exactly one per row.
    pub(super) owners: Vec<u16>,
    dictionary: Dictionary<'a>,
}

/// Distinct texts of a column, over all row groups.
#[derive(Default)]
struct Dictionary<'a> {
    entries: Vec<&'a [u8]>,
    index: ContentIndex,
    /// Most values are distinct: no use looking for them any more.
    given_up: bool,
}

impl Column<'_> {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            numbers: Vec::new(),
            texts: Vec::new(),
            raw: Vec::new(),
            owners: Vec::new(),
            dictionary: Dictionary::default(),
        }
    }

    /// Appends the chunk of the collected values, nothing when all are zero or empty, and forgets them.
    pub(super) fn finish_group(&mut self, out: &mut Vec<u8>, contexts: &Contexts<'_>, packer: &mut Packer) {
        let of_owners = contexts.of(&self.owners);
        let contexts = if self.owners.is_empty() { contexts } else { &of_owners };
        let something =
            self.numbers.iter().any(|number| *number != 0) || self.texts.iter().any(|text| !text.is_empty());
        match self.kind {
            Kind::Raw => out.extend_from_slice(&self.raw),
            Kind::Ints if something => put_ints(out, &self.numbers, packer),
            Kind::Numbers if something => put_numbers(out, &self.numbers, contexts, packer),
            Kind::Texts if something => {
                if let Some(codes) = self.dictionary.codes(&self.texts) {
                    out.push(TEXTS_CODED);
                    put_codes(out, &codes, self.dictionary.entries.len(), contexts, packer);
                } else {
                    out.push(TEXTS_PLAIN);
                    put_texts(out, &self.texts, packer);
                }
            }
            Kind::Ints | Kind::Numbers | Kind::Texts => {}
        }
        self.numbers.clear();
        self.texts.clear();
        self.raw.clear();
        self.owners.clear();
    }

    /// Appends the dictionary and gives its number of entries; nothing when there are none.
    pub(super) fn finish_dictionary(&self, out: &mut Vec<u8>, packer: &mut Packer) -> usize {
        if !self.dictionary.entries.is_empty() {
            put_texts(out, &self.dictionary.entries, packer);
        }
        self.dictionary.entries.len()
    }
}

impl<'a> Dictionary<'a> {
    /// The values as codes; `None` when too many of them are new for a dictionary to pay.
    fn codes(&mut self, texts: &[&'a [u8]]) -> Option<Vec<u64>> {
        if self.given_up {
            return None;
        }
        let n_known = self.entries.len();
        // A new entry costs its bytes and a code: more than 3 in 5 new ones never earn that back.
        let n_max = n_known + texts.len() * 3 / 5;
        let mut codes = Vec::with_capacity(texts.len());
        for text in texts {
            let hash = hash_of(text);
            let entries = &self.entries;
            let found = self.index.find(hash, |at| entries.get(at as usize).is_some_and(|known| known == text));
            if let Some(code) = found {
                codes.push(u64::from(code));
                continue;
            }
            if n_max <= self.entries.len() {
                self.forget_from(n_known);
                self.given_up = TELLING_VALUES_MIN <= texts.len();
                return None;
            }
            self.entries.push(text);
            codes.push(u64::from(self.index.push(hash)));
        }
        Some(codes)
    }

    fn forget_from(&mut self, n_known: usize) {
        self.entries.truncate(n_known);
        self.index = ContentIndex::default();
        for entry in &self.entries {
            let _code = self.index.push(hash_of(entry));
        }
    }
}
