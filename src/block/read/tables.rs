//! Section 3 as read: attributes and shapes, resources and scopes, series.

use std::borrow::Cow;
use std::ops::Range;

use super::super::codec::{Malformed, Reader, Unpacker, unzigzag};
use super::super::columns::{ColumnId, DYNAMIC_MAX, FIRST_DYNAMIC, Kind, RARE_NUMBERS, RARE_TEXTS, ValueType};
use super::super::error::BlockError;
use super::super::header::Header;
use super::super::summary::read_string;
use super::super::{SectionId, Sections};
use crate::model::{Attribute, Resource, Rows, Scope, SeriesKey, SpanBatch, SpanKind, SpanStatus, Text, Value};

/// An attribute of the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttributeRow<'a> {
    pub(super) key: &'a [u8],
    /// As numbered by `columns::Owner`.
    pub(super) owner: u8,
    pub(super) value_type: ValueType,
    /// `None` when its values need none.
    pub(super) column: Option<(ColumnId, Kind)>,
}

/// The table of attributes and shapes.
pub(super) struct Shapes<'a> {
    pub(super) attributes: Vec<AttributeRow<'a>>,
    members: Vec<u32>,
    ends: Vec<usize>,
}

/// The unpacked bytes of the three tables.
pub(super) struct Tables {
    attributes: Vec<u8>,
    scopes: Vec<u8>,
    series: Vec<u8>,
}

pub(super) fn damaged(malformed: Malformed) -> BlockError {
    malformed.in_section(SectionId::TABLES)
}

impl Tables {
    /// Reads all three tables.
    pub(super) fn read(header: &Header, sections: &dyn Sections) -> Result<Self, BlockError> {
        let lengths = header.tables;
        let all =
            [lengths.attributes, lengths.scopes, lengths.series].iter().fold(0, |sum, len| len.saturating_add(sum));
        let bytes = sections.read(SectionId::TABLES, 0..all)?;
        let mut reader = Reader::new(&bytes);
        let mut unpacker = Unpacker::new();
        let mut table = |len: u32| Reader::new(reader.bytes(len as usize)?).blob(&mut unpacker);
        let mut tables = || {
            Ok(Self {
                attributes: table(lengths.attributes)?,
                scopes: table(lengths.scopes)?,
                series: table(lengths.series)?,
            })
        };
        tables().map_err(damaged)
    }

    pub(super) fn shapes(&self) -> Result<Shapes<'_>, BlockError> {
        Shapes::decode(&mut Reader::new(&self.attributes)).map_err(damaged)
    }

    pub(super) fn scopes(&self) -> Result<ScopeTables<'_>, BlockError> {
        let mut reader = Reader::new(&self.scopes);
        let mut rows = || {
            let n_rows = reader.count()?;
            (0..n_rows).map(|_| reader.text()).collect::<Result<Vec<_>, _>>()
        };
        let mut tables = || Ok(ScopeTables { resources: rows()?, scopes: rows()? });
        tables().map_err(damaged)
    }

    /// The series, ascending.
    pub(super) fn series(&self, n_series: u32) -> Result<Vec<SeriesKey<'static>>, BlockError> {
        decode_series(&self.series, n_series).map_err(damaged)
    }
}

/// Only the table of series.
pub(super) fn read_series(header: &Header, sections: &dyn Sections) -> Result<Vec<SeriesKey<'static>>, BlockError> {
    let lengths = header.tables;
    let start = lengths.attributes.saturating_add(lengths.scopes);
    let bytes = sections.read(SectionId::TABLES, start..start.saturating_add(lengths.series))?;
    let raw = Reader::new(&bytes).blob(&mut Unpacker::new()).map_err(damaged)?;
    decode_series(&raw, header.n_series).map_err(damaged)
}

fn decode_series(raw: &[u8], n_series: u32) -> Result<Vec<SeriesKey<'static>>, Malformed> {
    let mut reader = Reader::new(raw);
    let mut series = Vec::new();
    for _ in 0..n_series {
        series.push(SeriesKey {
            namespace: Cow::Owned(read_string(&mut reader)?),
            service: Cow::Owned(read_string(&mut reader)?),
            span_name: Cow::Owned(read_string(&mut reader)?),
            kind: SpanKind::from(i32::from(reader.u8()?)),
            status: SpanStatus::from(i32::from(reader.u8()?)),
            entry: reader.u8()? == 1,
            family: None,
        });
    }
    Ok(series)
}

impl<'a> Shapes<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let n_attributes = reader.count()?;
        let attributes = (0..n_attributes).map(|_| AttributeRow::decode(reader)).collect::<Result<Vec<_>, _>>()?;
        let n_shapes = reader.count()?;
        let (mut members, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..n_shapes {
            let n_members = reader.count()?;
            for _ in 0..n_members {
                let member = reader.varint_u32()?;
                if attributes.len() <= member as usize {
                    return Err(Malformed("a shape names an attribute that does not exist"));
                }
                members.push(member);
            }
            ends.push(members.len());
        }
        Ok(Self { attributes, members, ends })
    }

    pub(super) fn n_shapes(&self) -> usize {
        self.ends.len()
    }

    /// Indexes of a shape's attributes, in their order.
    pub(super) fn members(&self, shape: usize) -> Result<&[u32], Malformed> {
        let start = shape.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let range: Option<Range<usize>> = self.ends.get(shape).map(|end| start..*end);
        range.and_then(|range| self.members.get(range)).ok_or(Malformed("a row has a shape that does not exist"))
    }
}

impl<'a> AttributeRow<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let owner = reader.u8()?;
        let value_type = ValueType::from_number(reader.u8()?).ok_or(Malformed("unknown type of value"))?;
        let column = u16::try_from(reader.varint()?).map_err(|_| Malformed("a column number is above 16 bits"))?;
        let key = reader.text()?;
        let column = value_type.kind().map(|kind| (column, kind));
        let known = |(column, kind): (ColumnId, Kind)| match column {
            RARE_NUMBERS => kind == Kind::Numbers,
            RARE_TEXTS => kind == Kind::Texts,
            _ => FIRST_DYNAMIC <= column && usize::from(column - FIRST_DYNAMIC) < DYNAMIC_MAX,
        };
        if column.is_some_and(|column| !known(column)) {
            return Err(Malformed("an attribute names a column that is not for attributes"));
        }
        Ok(Self { key, owner, value_type, column })
    }
}

/// Rows of resources and scopes, decoded when a span needs them.
pub(super) struct ScopeTables<'a> {
    resources: Vec<&'a [u8]>,
    scopes: Vec<&'a [u8]>,
}

/// Copies resources and scopes into an answer, each once.
pub(super) struct ScopeCopier<'a> {
    tables: ScopeTables<'a>,
    resources: Vec<Option<u32>>,
    scopes: Vec<Option<u32>>,
}

impl<'a> ScopeCopier<'a> {
    pub(super) fn new(tables: ScopeTables<'a>) -> Self {
        let (resources, scopes) = (vec![None; tables.resources.len()], vec![None; tables.scopes.len()]);
        Self { tables, resources, scopes }
    }

    /// The answer's row for a scope of the block.
    pub(super) fn copy(&mut self, scope: u32, out: &mut SpanBatch) -> Result<u32, BlockError> {
        const MISSING: Malformed = Malformed("a row names a scope that does not exist");
        let at = scope as usize;
        if let Some(known) = self.scopes.get(at).copied().flatten() {
            return Ok(known);
        }
        let mut reader = Reader::new(self.tables.scopes.get(at).ok_or(damaged(MISSING))?);
        let resource = reader.varint_u32().map_err(damaged)?;
        let resource = self.copy_resource(resource, out)?;
        let copied = Scope {
            resource,
            name: copy_text(&mut reader, out)?,
            version: copy_text(&mut reader, out)?,
            schema_url: copy_text(&mut reader, out)?,
            dropped_attributes_count: reader.varint_u32().map_err(damaged)?,
            attributes: copy_attributes(&mut reader, out)?,
        };
        let row = n_rows(&out.scopes)?;
        out.scopes.push(copied);
        if let Some(known) = self.scopes.get_mut(at) {
            *known = Some(row);
        }
        Ok(row)
    }

    fn copy_resource(&mut self, resource: u32, out: &mut SpanBatch) -> Result<u32, BlockError> {
        const MISSING: Malformed = Malformed("a scope names a resource that does not exist");
        let at = resource as usize;
        if let Some(known) = self.resources.get(at).copied().flatten() {
            return Ok(known);
        }
        let mut reader = Reader::new(self.tables.resources.get(at).ok_or(damaged(MISSING))?);
        let copied = Resource {
            service: copy_text(&mut reader, out)?,
            namespace: copy_text(&mut reader, out)?,
            schema_url: copy_text(&mut reader, out)?,
            entity_refs: copy_text(&mut reader, out)?,
            dropped_attributes_count: reader.varint_u32().map_err(damaged)?,
            attributes: copy_attributes(&mut reader, out)?,
        };
        let row = n_rows(&out.resources)?;
        out.resources.push(copied);
        if let Some(known) = self.resources.get_mut(at) {
            *known = Some(row);
        }
        Ok(row)
    }
}

/// Number of rows of an answer's table.
pub(super) fn n_rows<T>(table: &[T]) -> Result<u32, BlockError> {
    u32::try_from(table.len()).map_err(|_| BlockError::TooLarge { what: "an answer" })
}

/// Appends a text to an answer; empty ones share no bytes.
pub(super) fn push_text(out: &mut SpanBatch, text: &[u8]) -> Result<Text, BlockError> {
    if text.is_empty() {
        return Ok(Text::default());
    }
    out.push_bytes(text).ok_or(BlockError::TooLarge { what: "an answer" })
}

fn copy_text(reader: &mut Reader<'_>, out: &mut SpanBatch) -> Result<Text, BlockError> {
    push_text(out, reader.text().map_err(damaged)?)
}

fn copy_attributes(reader: &mut Reader<'_>, out: &mut SpanBatch) -> Result<Rows, BlockError> {
    const UNKNOWN: Malformed = Malformed("unknown type of value");
    let n_attributes = reader.count().map_err(damaged)?;
    let start = n_rows(&out.attributes)?;
    for _ in 0..n_attributes {
        let key = copy_text(reader, out)?;
        let value_type = reader.u8().map_err(damaged)?;
        let value = match ValueType::from_number(value_type).ok_or(damaged(UNKNOWN))? {
            ValueType::Empty => Value::Empty,
            ValueType::Bool => Value::Bool(reader.u8().map_err(damaged)? == 1),
            ValueType::Int => Value::Int(unzigzag(reader.varint().map_err(damaged)?).cast_signed()),
            ValueType::Double => Value::Double(f64::from_bits(u64::from_be_bytes(reader.array().map_err(damaged)?))),
            ValueType::String => Value::String(copy_text(reader, out)?),
            ValueType::Bytes => Value::Bytes(copy_text(reader, out)?),
            ValueType::Nested => Value::Nested(copy_text(reader, out)?),
        };
        out.attributes.push(Attribute { key, value });
    }
    Ok(Rows { start, len: n_rows(&out.attributes)? - start })
}
