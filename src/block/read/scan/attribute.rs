//! One attribute of spans in columns.
//!
//! A key may have values of several types in a block: each type has a column, or shares one when it is rare. The shape of a
//! row says which of them holds the last value of the key, which is the one that counts.

use super::texts::TextColumn;
use super::{BlockScan, RowGroup};
use crate::block::codec::Malformed;
use crate::block::columns::{self as column, ColumnId, GROUP_VALUES_MAX, Kind, Owner, ValueType};
use crate::block::error::BlockError;

use super::super::attributes::range_of;
use super::super::tables::damaged;

/// No part, for shapes without the key.
const NO_PART: u8 = u8::MAX;

/// Where the values of one key are: the same for all row groups of a block.
#[derive(Debug)]
pub struct SpanAttribute {
    parts: Vec<Part>,
    /// Per shape: the part that has the last value of the key, and which of the values that the shape puts into that
    /// part's column it is.
    last: Vec<(u8, u32)>,
}

/// The values of one type.
#[derive(Debug)]
struct Part {
    value_type: ValueType,
    column: Option<(ColumnId, Kind)>,
    /// Per shape: values that it puts into the column, of whatever attribute.
    n_values: Vec<u32>,
}

impl Part {
    /// Whether events, links and other attributes have values in the column, too.
    fn is_shared(&self) -> bool {
        self.column.is_some_and(|(column, _)| column < column::FIRST_DYNAMIC)
    }
}

/// The values of one type in a row group.
#[derive(Debug)]
pub enum AttributeValues {
    /// `Value::Empty`, in each of them.
    Empty,
    /// 0 or 1.
    Bools(Vec<u64>),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Doubles.
    Doubles(Vec<f64>),
    /// Strings, as sent.
    Strings(TextColumn),
    /// Bytes.
    Bytes(TextColumn),
    /// Arrays and key-value lists, encoded.
    Nested(TextColumn),
}

/// One attribute in a row group.
#[derive(Debug)]
pub struct AttributeColumn {
    parts: Vec<AttributeValues>,
    /// Per row: the part, and the value in it.
    places: Vec<(u8, u32)>,
}

impl AttributeColumn {
    /// The values, by type; a type without any in this group is `Empty`.
    pub fn parts(&self) -> &[AttributeValues] {
        &self.parts
    }

    /// Where the value of a row is: its part, and its number there. `None` when the row has no such attribute.
    pub fn place(&self, row: usize) -> Option<(usize, usize)> {
        let (part, value) = self.places.get(row).copied()?;
        (part != NO_PART).then_some((usize::from(part), value as usize))
    }
}

impl SpanAttribute {
    /// Whether no span of the block has it.
    pub fn is_absent(&self) -> bool {
        self.parts.is_empty()
    }

    /// Looks `key` up in the tables. Cost: O(attributes of all shapes).
    pub(super) fn find(scan: &BlockScan<'_>, key: &[u8]) -> Result<Self, BlockError> {
        let shapes = scan.shapes;
        let is_key = |row: &super::super::tables::AttributeRow<'_>| row.owner == Owner::Span as u8 && row.key == key;
        let members: Vec<u32> =
            (0..).zip(&shapes.attributes).filter(|(_, row)| is_key(row)).map(|(member, _)| member).collect();
        let rows = members.iter().filter_map(|member| shapes.attributes.get(*member as usize));
        let mut parts: Vec<Part> =
            rows.map(|row| Part { value_type: row.value_type, column: row.column, n_values: Vec::new() }).collect();
        if usize::from(NO_PART) <= parts.len() {
            return Err(damaged(Malformed("an attribute has more types than there are")));
        }
        let mut last = Vec::new();
        if !parts.is_empty() {
            for shape in 0..shapes.n_shapes() {
                last.push(last_of(shapes.members(shape).map_err(damaged)?, &members, scan, &mut parts));
            }
        }
        Ok(Self { parts, last })
    }
}

/// Counts the values that a shape puts into the columns of the parts; gives the last one of the key.
fn last_of(shape: &[u32], key: &[u32], scan: &BlockScan<'_>, parts: &mut [Part]) -> (u8, u32) {
    let mut last = (NO_PART, 0);
    for part in parts.iter_mut() {
        part.n_values.push(0);
    }
    for member in shape {
        let column = scan.shapes.attributes.get(*member as usize).and_then(|row| row.column);
        for ((number, part), own) in (0..).zip(parts.iter_mut()).zip(key) {
            let Some(n_values) = part.n_values.last_mut() else { continue };
            if member == own {
                last = (number, *n_values);
            }
            if column.is_some() && part.column == column {
                *n_values += 1;
            }
        }
    }
    last
}

/// `RowGroup::collect` for a key whose values are of one type and in a column of their own; whether there are any.
fn collect_one(
    attribute: &SpanAttribute,
    part: &Part,
    shapes: &[u32],
    places: &mut [(u8, u32)],
    owners: &mut Vec<u16>,
) -> Option<bool> {
    owners.reserve(shapes.len());
    for ((owner, shape), place) in (0_u16..).zip(shapes).zip(places) {
        let (number, value) = *attribute.last.get(*shape as usize)?;
        if number != NO_PART {
            *place = (number, u32::try_from(owners.len()).ok()?.saturating_add(value));
            let n_values = *part.n_values.get(*shape as usize)? as usize;
            if GROUP_VALUES_MAX < owners.len() + n_values {
                return None;
            }
            owners.extend(std::iter::repeat_n(owner, n_values));
        }
    }
    Some(!owners.is_empty())
}

impl RowGroup<'_> {
    /// The values of an attribute. Reads its columns, those that tell them, and what all columns may follow from.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn attribute(&self, attribute: &SpanAttribute) -> Result<AttributeColumn, BlockError> {
        let mut places = vec![(NO_PART, 0); self.n_rows()];
        let mut owners: Vec<Vec<u16>> = vec![Vec::new(); attribute.parts.len()];
        let mut is_used = vec![false; attribute.parts.len()];
        if !attribute.parts.is_empty() {
            let shapes = self.shapes_of_rows()?;
            self.collect(attribute, shapes, &mut places, &mut owners, &mut is_used)?;
        }
        let mut parts = Vec::with_capacity(attribute.parts.len());
        for ((part, owners), is_used) in attribute.parts.iter().zip(&owners).zip(is_used) {
            parts.push(match part.column {
                Some((column, kind)) if is_used => self.values(part.value_type, column, kind, owners)?,
                _ => AttributeValues::Empty,
            });
        }
        Ok(AttributeColumn { parts, places })
    }

    /// Finds the value of each row, and the row of each value in the columns.
    fn collect(
        &self,
        attribute: &SpanAttribute,
        shapes: &[u32],
        places: &mut [(u8, u32)],
        owners: &mut [Vec<u16>],
        is_used: &mut [bool],
    ) -> Result<(), BlockError> {
        const MISSING: Malformed = Malformed("a row has a shape that does not exist");
        if let ([part], [owners], [is_used]) = (attribute.parts.as_slice(), &mut *owners, &mut *is_used)
            && !part.is_shared()
        {
            *is_used = collect_one(attribute, part, shapes, places, owners).ok_or_else(|| self.damaged(MISSING))?;
            return Ok(());
        }
        let items = if attribute.parts.iter().any(Part::is_shared) { Some(self.item_shapes()?) } else { None };
        for (((row, owner), shape), place) in (0..).zip(0_u16..).zip(shapes).zip(places) {
            let (number, value) = *attribute.last.get(*shape as usize).ok_or_else(|| self.damaged(MISSING))?;
            for ((at, part), owners) in (0_u8..).zip(&attribute.parts).zip(owners.iter_mut()) {
                let before = owners.len();
                if at == number {
                    let value = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(value);
                    *place = (number, value);
                    if let Some(is_used) = is_used.get_mut(usize::from(at)) {
                        *is_used = true;
                    }
                }
                let n_values = |shape: u32| part.n_values.get(shape as usize).copied().unwrap_or(0) as usize;
                let mut end = before + n_values(*shape);
                if let Some(items) = items.filter(|_| part.is_shared()) {
                    let of_row = range_of(&items.event_ends, row).map(|event| items.events.index(event));
                    let of_row = of_row.chain(range_of(&items.link_ends, row).map(|link| items.links.index(link)));
                    for shape in of_row {
                        let shape = u32::try_from(shape).ok().filter(|shape| (*shape as usize) < attribute.last.len());
                        end += n_values(shape.ok_or_else(|| self.damaged(MISSING))?);
                    }
                }
                if GROUP_VALUES_MAX < end {
                    return Err(self.damaged(Malformed("shapes claim more values than a row group holds")));
                }
                owners.resize(end, owner);
            }
        }
        Ok(())
    }

    fn values(
        &self,
        value_type: ValueType,
        column: ColumnId,
        kind: Kind,
        owners: &[u16],
    ) -> Result<AttributeValues, BlockError> {
        Ok(match value_type {
            ValueType::Empty => AttributeValues::Empty,
            ValueType::Bool => AttributeValues::Bools(self.numbers_of(column, owners)?),
            ValueType::Int => {
                let numbers = self.numbers_of(column, owners)?;
                let int = |number: u64| crate::block::codec::unzigzag(number).cast_signed();
                AttributeValues::Ints(numbers.into_iter().map(int).collect())
            }
            ValueType::Double => {
                let numbers = self.numbers_of(column, owners)?;
                AttributeValues::Doubles(numbers.into_iter().map(f64::from_bits).collect())
            }
            ValueType::String => AttributeValues::Strings(self.texts_of(column, kind, owners)?),
            ValueType::Bytes => AttributeValues::Bytes(self.texts_of(column, kind, owners)?),
            ValueType::Nested => AttributeValues::Nested(self.texts_of(column, kind, owners)?),
        })
    }

    fn numbers_of(&self, column: ColumnId, owners: &[u16]) -> Result<Vec<u64>, BlockError> {
        let contexts = self.contexts(&[(column, Kind::Numbers)])?.of(owners);
        let mut group = self.group.borrow_mut();
        Ok(group.numbers(column, owners.len(), contexts)?.into_values(owners.len()))
    }

    fn texts_of(&self, column: ColumnId, kind: Kind, owners: &[u16]) -> Result<TextColumn, BlockError> {
        if kind != Kind::Texts {
            return Err(damaged(Malformed("two attributes of different types share a column")));
        }
        let contexts = self.contexts(&[(column, kind)])?.of(owners);
        let told_by = self.group.borrow().predictor(column).filter(|by| *by < column);
        let texts = match told_by {
            Some(by) => {
                let told_by = self.told_by(by, owners)?;
                self.group.borrow_mut().texts_told(column, &told_by)?
            }
            None => self.group.borrow_mut().texts(column, owners.len(), contexts)?,
        };
        TextColumn::of(texts, owners.len(), column).map_err(|malformed| self.damaged(malformed))
    }

    /// The values of the column that tells another one, which has a value for exactly the same rows.
    fn told_by(&self, by: ColumnId, owners: &[u16]) -> Result<Vec<u64>, BlockError> {
        const NO_NUMBERS: Malformed = Malformed("a column is told by none like it");
        let columns = self.scan.shapes.attributes.iter().filter_map(|row| row.column);
        let kind = columns.into_iter().find(|(column, _)| *column == by).map(|(_, kind)| kind);
        let kind = kind.ok_or_else(|| self.damaged(NO_NUMBERS))?;
        let contexts = self.contexts(&[(by, kind)])?.of(owners);
        let mut group = self.group.borrow_mut();
        let n = owners.len();
        let numbers = match kind {
            Kind::Numbers => group.numbers(by, n, contexts)?,
            Kind::Texts if group.predictor(by).is_none() => match group.texts(by, n, contexts)? {
                crate::block::codec::Texts::Coded { codes, .. } => codes,
                _ => return Err(group.damaged(NO_NUMBERS)),
            },
            Kind::Raw | Kind::Ints | Kind::Scopes | Kind::Texts => {
                return Err(group.damaged(NO_NUMBERS));
            }
        };
        Ok(numbers.into_values(n))
    }
}
