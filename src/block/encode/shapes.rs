//! Shapes: the sequences of attributes that spans, events and links have.
//!
//! The order of attributes comes back because the shape says it; the values lie in the columns of the attributes.

use super::index::{ContentIndex, hash_of, mix};
use crate::block::codec::{Packer, put_blob, put_text, put_varint};
use crate::block::columns::{
    ColumnId, DYNAMIC_MAX, DYNAMIC_VALUES_MIN, FIRST_DYNAMIC, Kind, Owner, RARE_NUMBERS, RARE_TEXTS, ValueType,
};
use crate::model::{Attribute, Rows, SpanBatch};

/// A key as one kind of owner uses it with one type of value.
struct Known<'a> {
    key: &'a [u8],
    owner: Owner,
    value_type: ValueType,
    n_values: u32,
    /// Where its values go; only its own after `assign_columns`.
    column: Option<ColumnId>,
}

/// All shapes of a block. Shape 0 has no attributes.
pub(super) struct Shapes<'a> {
    attributes: Vec<Known<'a>>,
    attribute_index: ContentIndex,
    /// Indexes into `attributes`, shape after shape.
    members: Vec<u32>,
    /// Where each shape ends in `members`.
    ends: Vec<usize>,
    /// Rows of each shape.
    n_rows: Vec<u32>,
    shape_index: ContentIndex,
    /// The shape being looked up.
    wanted: Vec<u32>,
}

impl<'a> Shapes<'a> {
    pub(super) fn new() -> Self {
        let mut shape_index = ContentIndex::default();
        let _empty = shape_index.push(0);
        Self {
            attributes: Vec::new(),
            attribute_index: ContentIndex::default(),
            members: Vec::new(),
            ends: vec![0],
            n_rows: vec![0],
            shape_index,
            wanted: Vec::new(),
        }
    }

    /// The shape of these attributes; `guess` is tried first.
    pub(super) fn row(&mut self, batch: &'a SpanBatch, owner: Owner, rows: Rows, guess: Option<u32>) -> u32 {
        let attributes = batch.attributes(rows);
        let shape = match guess.filter(|guess| self.fits(*guess, batch, owner, attributes)) {
            Some(guess) => guess,
            None if attributes.is_empty() => 0,
            None => self.look_up(batch, owner, attributes),
        };
        if let Some(n_rows) = self.n_rows.get_mut(shape as usize) {
            *n_rows += 1;
        }
        shape
    }

    fn fits(&self, shape: u32, batch: &SpanBatch, owner: Owner, attributes: &[Attribute]) -> bool {
        let members = self.members(shape);
        members.len() == attributes.len()
            && members.iter().zip(attributes).all(|(member, attribute)| {
                self.attributes.get(*member as usize).is_some_and(|known| is(known, batch, owner, attribute))
            })
    }

    fn look_up(&mut self, batch: &'a SpanBatch, owner: Owner, attributes: &[Attribute]) -> u32 {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.clear();
        let mut hash = 0;
        for attribute in attributes {
            let member = self.attribute(batch, owner, attribute);
            hash = mix(hash, u64::from(member) + 1);
            wanted.push(member);
        }
        let found = self.shape_index.find(hash, |shape| self.members(shape) == wanted);
        let shape = found.unwrap_or_else(|| {
            self.members.extend_from_slice(&wanted);
            self.ends.push(self.members.len());
            self.n_rows.push(0);
            self.shape_index.push(hash)
        });
        self.wanted = wanted;
        shape
    }

    fn attribute(&mut self, batch: &'a SpanBatch, owner: Owner, attribute: &Attribute) -> u32 {
        let value_type = ValueType::of(attribute.value);
        let key = batch.text(attribute.key);
        let hash = mix(hash_of(key), u64::from(owner as u8) << 8 | u64::from(value_type as u8));
        let known = |at: u32| self.attributes.get(at as usize).is_some_and(|known| is(known, batch, owner, attribute));
        if let Some(found) = self.attribute_index.find(hash, known) {
            return found;
        }
        self.attributes.push(Known { key, owner, value_type, n_values: 0, column: None });
        self.attribute_index.push(hash)
    }

    /// Owners and keys of the attributes, by number.
    pub(super) fn keys(&self) -> impl Iterator<Item = (Owner, &[u8])> {
        self.attributes.iter().map(|known| (known.owner, known.key))
    }

    /// The numbers of a shape's attributes, in their order.
    pub(super) fn members(&self, shape: u32) -> &[u32] {
        let shape = shape as usize;
        let start = shape.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(shape).and_then(|end| self.members.get(start..*end)).unwrap_or_default()
    }

    /// The columns of a shape's attributes, in their order; `None` for those that have no value to store.
    pub(super) fn columns(&self, shape: u32) -> impl Iterator<Item = Option<ColumnId>> {
        self.members(shape).iter().map(|member| self.attributes.get(*member as usize).and_then(|known| known.column))
    }

    /// Kinds of the columns from `FIRST_DYNAMIC` on.
    pub(super) fn dynamic_kinds(&self) -> Vec<Kind> {
        let own = |known: &&Known<'_>| known.column.is_some_and(|column| FIRST_DYNAMIC <= column);
        self.attributes.iter().filter(own).filter_map(|known| known.value_type.kind()).collect()
    }

    /// Gives the frequent attributes columns of their own, in the order of their first appearance.
    pub(super) fn assign_columns(&mut self) {
        for shape in 0..self.ends.len() {
            let n_rows = self.n_rows.get(shape).copied().unwrap_or(0);
            let start = shape.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            let end = self.ends.get(shape).copied().unwrap_or(start);
            for member in self.members.get(start..end).unwrap_or_default() {
                if let Some(known) = self.attributes.get_mut(*member as usize) {
                    known.n_values = known.n_values.saturating_add(n_rows);
                }
            }
        }
        let stored = self.attributes.iter().filter(|known| known.value_type.kind().is_some());
        let mut frequent: Vec<u32> =
            stored.map(|known| known.n_values).filter(|n_values| DYNAMIC_VALUES_MIN <= *n_values).collect();
        frequent.sort_unstable_by(|a, b| b.cmp(a));
        let fewest = frequent.get(DYNAMIC_MAX - 1).copied().unwrap_or(0).max(DYNAMIC_VALUES_MIN);
        let mut own = (FIRST_DYNAMIC..).take(DYNAMIC_MAX);
        for known in &mut self.attributes {
            let Some(kind) = known.value_type.kind() else { continue };
            let rare = if kind == Kind::Texts { RARE_TEXTS } else { RARE_NUMBERS };
            let frequent = fewest <= known.n_values;
            known.column = Some(if frequent { own.next().unwrap_or(rare) } else { rare });
        }
    }

    /// `n:varint (owner:u8 type:u8 column:varint key:text)*  n:varint (n:varint (attribute:varint)*)*`, as a blob.
    pub(super) fn encode(&self, packer: &mut Packer) -> Vec<u8> {
        let mut raw = Vec::new();
        put_varint(&mut raw, self.attributes.len() as u64);
        for known in &self.attributes {
            raw.extend_from_slice(&[known.owner as u8, known.value_type as u8]);
            put_varint(&mut raw, known.column.map_or(0, u64::from));
            put_text(&mut raw, known.key);
        }
        put_varint(&mut raw, self.ends.len() as u64);
        for shape in 0..u32::try_from(self.ends.len()).unwrap_or(u32::MAX) {
            let members = self.members(shape);
            put_varint(&mut raw, members.len() as u64);
            for member in members {
                put_varint(&mut raw, u64::from(*member));
            }
        }
        let mut out = Vec::new();
        put_blob(&mut out, &raw, packer);
        out
    }
}

fn is(known: &Known<'_>, batch: &SpanBatch, owner: Owner, attribute: &Attribute) -> bool {
    known.value_type == ValueType::of(attribute.value) && known.owner == owner && known.key == batch.text(attribute.key)
}
