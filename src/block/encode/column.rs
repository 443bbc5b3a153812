//! One column while a row group is collected, and its dictionary while the block is.

use super::index::{ContentIndex, hash_of};
use crate::block::codec::{
    ByNumber, Contexts, Packer, Repeats, Source, put_codes, put_ints, put_numbers, put_scopes, put_texts, put_varint,
};
use crate::block::columns::{ColumnId, DICTIONARY_ENTRIES_MAX, FIRST_DYNAMIC, Kind};

/// Form of a chunk of texts: the values themselves.
pub(crate) const TEXTS_PLAIN: u8 = 0;
/// Form of a chunk of texts: codes into the column's dictionary.
pub(crate) const TEXTS_CODED: u8 = 1;
/// Form of a chunk of texts: flags of repetitions, then the stored values in one of the forms above.
pub(crate) const TEXTS_SAME: u8 = 2;
/// Form of a chunk of texts: codes into the column's dictionary, predicted by the values of another column.
pub(crate) const TEXTS_CODED_BY: u8 = 3;
/// A chunk with fewer values says too little about the column to give up its dictionary for good.
const TELLING_VALUES_MIN: usize = 256;
/// One new entry in so many values is too many for a dictionary, where values repeat within traces.
const GROWTH_SHARE_MAX: usize = 32;
/// Columns that are remembered as predictors of others, in one row group.
const PREDICTORS_MAX: usize = 16;

/// Values of one column in one row group.
pub(super) struct Column<'a> {
    kind: Kind,
    pub(super) numbers: Vec<u64>,
    pub(super) texts: Vec<&'a [u8]>,
    pub(super) raw: Vec<u8>,
    /// Row of each value, for columns that have not exactly one per row.
    pub(super) owners: Vec<u16>,
    dictionary: Dictionary<'a>,
    /// Its values repeat within traces rather than in the block: no dictionary for all of them.
    repeating: bool,
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
            repeating: false,
        }
    }

    /// Appends the chunk of the collected values, nothing when all are zero or empty, and forgets them.
    pub(super) fn finish_group(
        &mut self,
        out: &mut Vec<u8>,
        contexts: &Contexts<'_>,
        predictors: &mut Predictors,
        packer: &mut Packer,
    ) {
        let owners = std::mem::take(&mut self.owners);
        let of_owners = contexts.of(&owners);
        let contexts = if owners.is_empty() { contexts } else { &of_owners };
        let something =
            self.numbers.iter().any(|number| *number != 0) || self.texts.iter().any(|text| !text.is_empty());
        let start = out.len();
        match self.kind {
            Kind::Raw => out.extend_from_slice(&self.raw),
            Kind::Ints if something => put_ints(out, &self.numbers, packer),
            Kind::Scopes if something => put_scopes(out, &self.numbers, contexts, packer),
            Kind::Numbers if something => {
                put_numbers(out, &self.numbers, contexts, packer);
                predictors.offer(out.len() - start, &owners, &self.numbers);
            }
            Kind::Texts if something => {
                let texts = std::mem::take(&mut self.texts);
                self.put_texts(out, &texts, contexts, predictors, packer);
                self.texts = texts;
            }
            Kind::Ints | Kind::Numbers | Kind::Scopes | Kind::Texts => {}
        }
        self.numbers.clear();
        self.texts.clear();
        self.raw.clear();
        self.owners = owners;
        self.owners.clear();
        predictors.column += 1;
    }

    /// Appends the dictionary and gives its number of entries; nothing when there are none.
    pub(super) fn finish_dictionary(&self, out: &mut Vec<u8>, packer: &mut Packer) -> usize {
        if !self.dictionary.entries.is_empty() {
            put_texts(out, &self.dictionary.entries, &Contexts::NONE, packer);
        }
        self.dictionary.entries.len()
    }
}

impl<'a> Column<'a> {
    fn put_texts(
        &mut self,
        out: &mut Vec<u8>,
        texts: &[&'a [u8]],
        contexts: &Contexts<'_>,
        predictors: &mut Predictors,
        packer: &mut Packer,
    ) {
        let same = || Repeats::find(texts.len(), Source::Trace, contexts, |a, b| texts.get(a) == texts.get(b));
        let n_known = self.dictionary.entries.len();
        let codes = if self.repeating { None } else { self.dictionary.codes(texts) };
        let mut repeats = None;
        if let Some(codes) = codes {
            let n_new = self.dictionary.entries.len() - n_known;
            // New entries all the time are values of one trace each, which a dictionary only keeps from being found alone.
            if GROWTH_SHARE_MAX * n_new < texts.len() {
                self.put_coded(out, &codes, contexts, predictors, packer);
                return;
            }
            repeats = same().filter(|repeats| repeats.reach(4));
            if repeats.is_none() {
                self.put_coded(out, &codes, contexts, predictors, packer);
                return;
            }
            self.dictionary.forget_from(n_known);
            self.repeating = true;
        }
        let Some(repeats) = repeats.or_else(|| same().filter(|repeats| repeats.reach(8))) else {
            self.put_alone(out, texts, contexts, packer);
            return;
        };
        out.push(TEXTS_SAME);
        repeats.put(out, contexts, packer);
        self.put_alone(out, &repeats.pick(texts), &contexts.of(&repeats.owners), packer);
    }

    fn put_alone(&mut self, out: &mut Vec<u8>, texts: &[&'a [u8]], contexts: &Contexts<'_>, packer: &mut Packer) {
        if let Some(codes) = self.dictionary.codes(texts) {
            out.push(TEXTS_CODED);
            put_codes(out, &codes, self.dictionary.entries.len(), contexts, packer);
            return;
        }
        out.push(TEXTS_PLAIN);
        put_texts(out, texts, contexts, packer);
    }

    /// Codes, predicted by what the rows are about or by another column.
    fn put_coded(
        &mut self,
        out: &mut Vec<u8>,
        codes: &[u64],
        contexts: &Contexts<'_>,
        predictors: &mut Predictors,
        packer: &mut Packer,
    ) {
        let start = out.len();
        out.push(TEXTS_CODED);
        put_codes(out, codes, self.dictionary.entries.len(), contexts, packer);
        if let Some(owners) = contexts.owners.filter(|_| codes.len() < 16 * (out.len() - start))
            && let Some((column, predicted)) = predictors.predict(owners, codes)
        {
            let mut form = vec![TEXTS_CODED_BY];
            put_varint(&mut form, u64::from(column));
            put_ints(&mut form, &predicted, packer);
            if form.len() < out.len() - start {
                out.truncate(start);
                out.extend_from_slice(&form);
                return;
            }
        }
        if let Some(owners) = contexts.owners {
            predictors.offer(out.len() - start, owners, codes);
        }
    }
}

/// Columns of a row group that may tell the values of a later one: a thread's number tells its name.
#[derive(Default)]
pub(super) struct Predictors {
    /// The column that is being written.
    column: ColumnId,
    offers: Vec<Offer>,
}

struct Offer {
    column: ColumnId,
    owners: Vec<u16>,
    values: Vec<u64>,
}

impl Predictors {
    /// Takes a column that says something: one of `bytes` for these values.
    fn offer(&mut self, bytes: usize, owners: &[u16], values: &[u64]) {
        if FIRST_DYNAMIC <= self.column && values.len() < 16 * bytes && self.offers.len() < PREDICTORS_MAX {
            self.offers.push(Offer { column: self.column, owners: owners.to_vec(), values: values.to_vec() });
        }
    }

    /// The column that tells nearly all of these codes: 0 as the last code beside the same value, c + 1 = code c.
    fn predict(&self, owners: &[u16], codes: &[u64]) -> Option<(ColumnId, Vec<u64>)> {
        let told = |offer: &Offer| {
            let mut last: ByNumber<u64> = ByNumber::default();
            let mut misses_left = codes.len() / 8;
            let mut predicted = Vec::with_capacity(codes.len());
            for (code, value) in codes.iter().zip(&offer.values) {
                let is_told = last.insert(*value, *code) == Some(*code);
                predicted.push(if is_told { 0 } else { code + 1 });
                if !is_told {
                    misses_left = misses_left.checked_sub(1)?;
                }
            }
            Some((offer.column, predicted))
        };
        self.offers.iter().filter(|offer| offer.owners == owners).find_map(told)
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
        let n_max = (n_known + texts.len() * 3 / 5).min(DICTIONARY_ENTRIES_MAX);
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
