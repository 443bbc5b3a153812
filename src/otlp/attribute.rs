//! Attributes: one `KeyValue` at a time into a row, with the rules for keys, values and limits.

use super::decode::{Decoder, Source, Stop, row_count};
use super::outcome::Warning;
use super::rewrite::{Rewritten, rewrite_value};
use super::text::floor_char_boundary;
use super::value::{self, Member, Step, Walk};
use super::wire::{Reader, Wire};
use crate::limits::TEXT_BYTES_MAX;
use crate::model::{Attribute, Rows, Text, Value};

/// Nominal bytes of a `KeyValue`.
const COST_KEY_VALUE: u64 = 64;
/// Nominal bytes of an `AnyValue` in a list.
const COST_ELEMENT: u64 = 32;
/// Up to this many attributes, comparing each with each beats sorting.
const PAIRWISE_MAX: usize = 32;

/// The attributes of one owner while they are read.
#[derive(Debug)]
pub(crate) struct AttributeList {
    /// First row.
    start: usize,
    /// Rows kept at most.
    n_max: usize,
    /// Attributes not kept.
    pub(crate) n_dropped: u32,
    /// A set of key hashes; only a hit in it makes the keys be compared.
    seen: [u64; 4],
    suspect: bool,
}

impl AttributeList {
    /// A list that starts at row `start`.
    pub(crate) fn new(start: usize, n_max: usize) -> Self {
        Self { start, n_max, n_dropped: 0, seen: [0; 4], suspect: false }
    }

    /// Notes a key; most lists without duplicates are never looked at again.
    fn note(&mut self, key: &[u8]) {
        let tail = key.last_chunk::<8>().map_or_else(
            || key.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            |tail| u64::from_be_bytes(*tail),
        );
        let middle = key.get(key.len() / 2).copied().map_or(0, u64::from);
        let hash = (tail ^ (key.len() as u64) << 40 ^ middle << 52).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bit = 1 << (hash >> 58);
        if let Some(word) = self.seen.get_mut((hash >> 56 & 3) as usize) {
            self.suspect |= *word & bit != 0;
            *word |= bit;
        }
    }
}

impl Decoder<'_> {
    /// Reads the `KeyValue` in `piece` of the body into the next row, unless a rule drops it.
    pub(super) fn attribute(&mut self, list: &mut AttributeList, piece: Text) -> Result<(), Stop> {
        // Charged also when it is dropped: the sender made us read it.
        self.charge(COST_KEY_VALUE)?;
        if list.n_max <= self.attributes.len() - list.start {
            self.warn(Warning::LimitApplied);
            list.n_dropped = list.n_dropped.saturating_add(1);
            return Ok(());
        }
        let source = self.source();
        let entry = value::key_value(source.bytes, piece)?;
        if entry.strindex {
            self.warn(Warning::Strindex);
        }
        let value = if entry.n_values < 2 { self.value(source, entry.value)? } else { self.merged_value(piece)? };
        if entry.key.len == 0 {
            self.warn(Warning::EmptyKey);
            list.n_dropped = list.n_dropped.saturating_add(1);
            return Ok(());
        }
        let key = self.text(source, entry.key);
        list.note(self.arena(key));
        self.attributes.push(Attribute { key, value });
        Ok(())
    }

    /// The rows of a finished list; counts duplicate keys.
    pub(super) fn end_attributes(&mut self, list: &AttributeList) -> Rows {
        let len = row_count(&self.attributes) - row_count(self.attributes.get(..list.start).unwrap_or_default());
        let rows = Rows { start: row_count(&self.attributes) - len, len };
        if list.suspect {
            let n = self.duplicate_keys(list.start);
            self.warn_times(Warning::DuplicateKey, n);
        }
        rows
    }

    /// How many rows from `start` on have a key that stood before.
    fn duplicate_keys(&self, start: usize) -> u32 {
        let own = self.attributes.get(start..).unwrap_or_default();
        let mut keys: Vec<&[u8]> = own.iter().map(|attribute| self.arena(attribute.key)).collect();
        let repeated = if keys.len() <= PAIRWISE_MAX {
            keys.iter().enumerate().filter(|(n, key)| keys.iter().take(*n).any(|before| before == *key)).count()
        } else {
            keys.sort_unstable();
            keys.iter().zip(keys.iter().skip(1)).filter(|(key, next)| key == next).count()
        };
        u32::try_from(repeated).unwrap_or(u32::MAX)
    }

    /// Several `value` fields of one `KeyValue` merge: their concatenation encodes the merged message.
    #[cold]
    fn merged_value(&mut self, piece: Text) -> Result<Value, Stop> {
        let mut merged = Vec::new();
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            if let (2, Wire::Bytes(value)) = (field.number, field.wire) {
                merged.extend_from_slice(self.arena(value));
            }
        }
        let place = self.push_extra(&merged)?;
        let source = Source { bytes: &merged, base: place.start };
        self.value(source, Text { start: 0, len: place.len })
    }

    /// Reads the `AnyValue` in `piece` of `source`.
    fn value(&mut self, source: Source<'_>, piece: Text) -> Result<Value, Stop> {
        Ok(match value::member(source.bytes, piece)? {
            Member::Empty => Value::Empty,
            Member::String(text) => Value::String(self.text(source, text)),
            Member::Bool(value) => Value::Bool(value),
            Member::Int(value) => Value::Int(value),
            Member::Double(value) => Value::Double(value),
            Member::Bytes(bytes) => {
                let kept = self.bytes(bytes);
                Value::Bytes(Text { start: kept.start + source.base, ..kept })
            }
            Member::Strindex => {
                self.warn(Warning::Strindex);
                Value::Empty
            }
            Member::List { .. } => Value::Nested(self.nested(source, piece)?),
        })
    }

    /// Checks a list with all that is in it, and cuts what is nested too deep or too long.
    fn nested(&mut self, source: Source<'_>, piece: Text) -> Result<Text, Stop> {
        let mut frames = std::mem::take(&mut self.frames);
        let checked = self.check_nested(Walk::new(source.bytes, piece, &mut frames), source);
        let rewritten = match checked {
            Ok(true) => None,
            Ok(false) => Some(rewrite_value(source.bytes, piece, &mut frames, Rewritten::Cut)),
            Err(stop) => {
                self.frames = frames;
                return Err(stop);
            }
        };
        self.frames = frames;
        match rewritten {
            None => Ok(Text { start: piece.start + source.base, len: piece.len }),
            Some(rewritten) => self.push_extra(&rewritten?),
        }
    }

    /// Returns whether the list may stay as it is.
    fn check_nested(&mut self, mut walk: Walk<'_>, source: Source<'_>) -> Result<bool, Stop> {
        let mut fits = true;
        while let Some(step) = walk.step()? {
            match step {
                Step::Key { key, strindex } => {
                    self.charge(COST_KEY_VALUE)?;
                    if strindex {
                        self.warn(Warning::Strindex);
                    }
                    fits &= self.text(source, key).len == key.len;
                }
                Step::Scalar(Member::String(text)) => {
                    self.charge(COST_ELEMENT)?;
                    fits &= self.text(source, text).len == text.len;
                }
                Step::Scalar(Member::Bytes(bytes)) => {
                    self.charge(COST_ELEMENT)?;
                    fits &= self.bytes(bytes).len == bytes.len;
                }
                Step::Scalar(Member::Strindex) => self.warn(Warning::Strindex),
                Step::Scalar(_) | Step::ListStart(_) => self.charge(COST_ELEMENT)?,
                Step::ListEnd(_) => {}
                Step::TooDeep => {
                    self.warn(Warning::Depth);
                    fits = false;
                }
            }
        }
        Ok(fits)
    }

    /// Bytes cut to their limit.
    fn bytes(&mut self, bytes: Text) -> Text {
        if TEXT_LEN_MAX < bytes.len {
            self.warn(Warning::Truncated);
        }
        Text { len: bytes.len.min(TEXT_LEN_MAX), ..bytes }
    }

    /// A text of `source` as a text of the arena: cut to its limit, checked for UTF-8.
    pub(super) fn text(&mut self, source: Source<'_>, text: Text) -> Text {
        if text.len == 0 {
            return Text::default();
        }
        let (start, end) = (text.start as usize, (text.start + text.len) as usize);
        let mut bytes = source.bytes.get(start..end).unwrap_or_default();
        if TEXT_BYTES_MAX < bytes.len() {
            let kept = floor_char_boundary(bytes, TEXT_BYTES_MAX);
            self.warn(Warning::Truncated);
            bytes = bytes.get(..kept).unwrap_or_default();
        }
        if std::str::from_utf8(bytes).is_err() {
            self.warn(Warning::InvalidUtf8);
        }
        Text { start: text.start + source.base, len: u32::try_from(bytes.len()).unwrap_or(text.len) }
    }
}

/// `limits::TEXT_BYTES_MAX` as the length of a text.
#[expect(clippy::cast_possible_truncation, reason = "a constant, asserted to fit")]
const TEXT_LEN_MAX: u32 = TEXT_BYTES_MAX as u32;
const _: () = assert!(TEXT_LEN_MAX as usize == TEXT_BYTES_MAX, "the longest text must fit a text's length");
