//! Fields in the columns of a block: the value of any field in any row, and answers about one field for many rows.
//!
//! An answer is a number that follows from a value: whether a condition holds, or which group it belongs to. Each text of a
//! dictionary, each scope and each series is asked about once in a block; only numbers and ids are asked about row by row.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::ast::{AttributeScope, Field, Intrinsic};
use super::value::Datum;
use super::{row, skip};
use crate::block::{
    AttributeColumn, AttributeOwner, AttributeValues, BlockError, BlockScan, Dictionary, RowGroup, SpanAttribute,
};
use crate::model::Span;

/// Attributes of spans that are asked for in a block.
pub(super) struct BlockFields<'b> {
    pub(super) scan: &'b BlockScan<'b>,
    attributes: Vec<(&'b str, SpanAttribute)>,
}

impl<'b> BlockFields<'b> {
    /// Looks the attributes among `fields` up in the block.
    pub(super) fn find(scan: &'b BlockScan<'b>, fields: &[&'b Field]) -> Result<Self, BlockError> {
        let mut attributes: Vec<(&str, SpanAttribute)> = Vec::new();
        for key in fields.iter().filter_map(|field| key_of_span(field)) {
            if attributes.iter().all(|(known, _)| *known != key) {
                attributes.push((key, scan.span_attribute(key.as_bytes())?));
            }
        }
        Ok(Self { scan, attributes })
    }

    /// Whether a span of the block can have a value of the field for which `holds` is true, as far as the tables tell: without
    /// a look at any row. If it is true of one text alone, that is `equal_to`. Cost: O(scopes) or O(series) of the block.
    pub(super) fn may_have(
        &self,
        field: &Field,
        equal_to: Option<&str>,
        holds: &mut dyn FnMut(Datum<'_>) -> bool,
    ) -> Result<bool, BlockError> {
        let is_absent = |key: &str| {
            let mut known = self.attributes.iter();
            known.find(|(known, _)| *known == key).is_some_and(|(_, attribute)| attribute.is_absent())
        };
        match field {
            Field::Intrinsic(Intrinsic::Name) => {
                let names = self.scan.series()?.iter().map(|series| Datum::String(Cow::Borrowed(&series.span_name)));
                Ok(names.into_iter().any(holds))
            }
            Field::Attribute { scope: AttributeScope::Span, key } if is_absent(key) => Ok(holds(Datum::Nil)),
            Field::Attribute { scope: AttributeScope::Unscoped, key } => {
                let may_be_of_span = match equal_to {
                    _ if is_absent(key) => false,
                    Some(text) => skip::may_have_text(AttributeOwner::Span, key, text, &self.scan.skip_index())?,
                    None => true,
                };
                Ok(may_be_of_span || self.scopes_have(field, holds)?)
            }
            field if field.is_of_scope() => self.scopes_have(field, holds),
            _ => Ok(true),
        }
    }

    fn scopes_have(&self, field: &Field, holds: &mut dyn FnMut(Datum<'_>) -> bool) -> Result<bool, BlockError> {
        let scopes = self.scan.scopes()?;
        Ok((0..).zip(&scopes.scopes).any(|(number, _)| holds(row::of_scope(field, scopes, number))))
    }

    /// For each series a scope that stands for those of all its spans, when they all say the same of a field: a series names
    /// the service that a scope names. `None` when some do not, or say what has several forms of one value.
    fn scope_of_series(&self, field: &Field) -> Result<Option<Vec<u32>>, BlockError> {
        let scopes = self.scan.scopes()?;
        let mut of_service: HashMap<(Cow<'_, str>, Cow<'_, str>), (u32, Datum<'_>)> = HashMap::new();
        for scope in (0..).take(scopes.scopes.len()) {
            let says = row::of_scope(field, scopes, scope);
            match of_service.entry(scopes.service_of(&Span { scope, ..Span::default() })) {
                Entry::Vacant(new) => {
                    let _first = new.insert((scope, says));
                }
                Entry::Occupied(known) => {
                    let is_exact = matches!(says, Datum::Nil | Datum::String(_) | Datum::Int(_) | Datum::Bool(_));
                    if !is_exact || known.get().1 != says {
                        return Ok(None);
                    }
                }
            }
        }
        let borrowed = Cow::Borrowed;
        let of_series = self.scan.series()?.iter().map(|series| {
            let (namespace, service) = (series.namespace.as_ref(), series.service.as_ref());
            of_service.get(&(borrowed(namespace), borrowed(service))).map(|(scope, _)| *scope)
        });
        Ok(of_series.collect())
    }

    /// A row group, with nothing read yet.
    pub(super) fn group(&'b self, number: usize) -> GroupFields<'b> {
        let attributes = self.attributes.iter().map(|_| OnceCell::new()).collect();
        GroupFields { block: self, group: self.scan.group(number), attributes }
    }
}

/// The key, if spans have the field as an attribute of their own.
fn key_of_span(field: &Field) -> Option<&str> {
    match field {
        Field::Attribute { scope: AttributeScope::Span | AttributeScope::Unscoped, key } => Some(key),
        Field::Attribute { .. } | Field::Intrinsic(_) => None,
    }
}

/// A row group and the attributes of it that were read.
pub(super) struct GroupFields<'b> {
    block: &'b BlockFields<'b>,
    pub(super) group: RowGroup<'b>,
    attributes: Vec<OnceCell<AttributeColumn>>,
}

impl GroupFields<'_> {
    fn attribute(&self, key: &str) -> Result<Option<&AttributeColumn>, BlockError> {
        let at = self.block.attributes.iter().position(|(known, _)| *known == key);
        let Some((at, (_, attribute))) = at.and_then(|at| Some((at, self.block.attributes.get(at)?))) else {
            return Ok(None);
        };
        let Some(cell) = self.attributes.get(at) else { return Ok(None) };
        if cell.get().is_none() {
            let read = self.group.attribute(attribute)?;
            let _first = cell.set(read);
        }
        Ok(cell.get())
    }

    /// The value of any field but those of events and links, for one row.
    pub(super) fn datum(&self, field: &Field, row: usize) -> Result<Datum<'_>, BlockError> {
        let text = |text: String| Datum::String(Cow::Owned(text));
        Ok(match field {
            Field::Intrinsic(Intrinsic::Duration) => {
                let (start, duration) = (self.group.starts()?.get(row), self.group.durations()?.get(row));
                row::latency(start.zip(duration).and_then(|(start, duration)| RowGroup::latency(*start, *duration)))
            }
            Field::Intrinsic(intrinsic @ (Intrinsic::Name | Intrinsic::Kind | Intrinsic::Status)) => {
                match self.exception(*intrinsic, row)? {
                    Some(exception) => exception,
                    None => self.of_series(*intrinsic, at(self.group.series()?, row))?,
                }
            }
            Field::Intrinsic(Intrinsic::StatusMessage) => {
                let messages = self.group.status_messages()?;
                lossy(messages.dictionary(), messages.entry(row))?
            }
            Field::Intrinsic(Intrinsic::SpanId) => text(self.group.span_id(row)?.to_string()),
            Field::Intrinsic(Intrinsic::ParentId) => text(self.group.parent_id(row)?.to_string()),
            Field::Intrinsic(Intrinsic::TraceId) => text(self.group.trace_id(row)?.to_string()),
            Field::Attribute { scope: AttributeScope::Span, key } => self.of_attribute(key, row)?,
            Field::Attribute { scope: AttributeScope::Unscoped, key } => match self.of_attribute(key, row)? {
                Datum::Nil => self.of_scope(field, at(self.group.scopes()?, row))?,
                found => found,
            },
            field if field.is_of_scope() => self.of_scope(field, at(self.group.scopes()?, row))?,
            Field::Intrinsic(_) | Field::Attribute { .. } => Datum::Nil,
        })
    }

    fn of_attribute(&self, key: &str, row: usize) -> Result<Datum<'_>, BlockError> {
        let Some(column) = self.attribute(key)? else { return Ok(Datum::Nil) };
        let Some((part, value)) = column.place(row) else { return Ok(Datum::Nil) };
        column.parts().get(part).map_or(Ok(Datum::Nil), |part| value_of(part, value))
    }

    fn of_scope(&self, field: &Field, scope: u32) -> Result<Datum<'_>, BlockError> {
        Ok(row::of_scope(field, self.block.scan.scopes()?, scope))
    }

    fn of_series(&self, intrinsic: Intrinsic, series: u32) -> Result<Datum<'_>, BlockError> {
        let Some(series) = self.block.scan.series()?.get(series as usize) else { return Ok(Datum::Nil) };
        Ok(match intrinsic {
            Intrinsic::Name => Datum::String(Cow::Borrowed(&series.span_name)),
            Intrinsic::Kind => Datum::Kind(i32::from(series.kind as u8)),
            Intrinsic::Status => Datum::Status(i32::from(series.status as u8)),
            _ => Datum::Nil,
        })
    }

    /// What a row says itself, where its series says something else.
    fn exception(&self, intrinsic: Intrinsic, row: usize) -> Result<Option<Datum<'static>>, BlockError> {
        Ok(match intrinsic {
            Intrinsic::Kind => self.group.exceptions()?.kind(row).map(Datum::Kind),
            Intrinsic::Status => self.group.exceptions()?.status(row).map(Datum::Status),
            _ => None,
        })
    }
}

fn at(ids: &[u32], row: usize) -> u32 {
    ids.get(row).copied().unwrap_or(u32::MAX)
}

fn lossy(dictionary: &Dictionary, entry: u32) -> Result<Datum<'static>, BlockError> {
    let mut bytes = Vec::new();
    dictionary.write(entry, &mut bytes)?;
    let text = String::from_utf8(bytes);
    Ok(Datum::String(Cow::Owned(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))))
}

/// One value of an attribute.
fn value_of(values: &AttributeValues, value: usize) -> Result<Datum<'static>, BlockError> {
    Ok(match values {
        AttributeValues::Empty | AttributeValues::Bytes(_) => Datum::Nil,
        AttributeValues::Bools(values) => values.get(value).map_or(Datum::Nil, |value| Datum::Bool(*value != 0)),
        AttributeValues::Ints(values) => values.get(value).map_or(Datum::Nil, |value| Datum::Int(*value)),
        AttributeValues::Doubles(values) => values.get(value).map_or(Datum::Nil, |value| Datum::Float(*value)),
        AttributeValues::Strings(texts) => lossy(texts.dictionary(), texts.entry(value))?,
        AttributeValues::Nested(texts) => nested(texts.dictionary(), texts.entry(value))?,
    })
}

fn nested(dictionary: &Dictionary, entry: u32) -> Result<Datum<'static>, BlockError> {
    let mut bytes = Vec::new();
    dictionary.write(entry, &mut bytes)?;
    Ok(row::array(&bytes))
}

/// No answer yet.
const UNASKED: u32 = u32::MAX;
/// There is a text, but no value that compares with anything.
const ABSENT: u32 = u32::MAX - 1;

/// Asks for the answer about a value; below `ABSENT`.
pub(super) type Ask<'a> = &'a mut dyn FnMut(Datum<'_>) -> u32;

/// Answers about one field for the rows of a block.
pub(super) struct FieldAnswers<'f> {
    field: &'f Field,
    /// Of scopes or series.
    of_table: Vec<u32>,
    /// See `BlockFields::scope_of_series`.
    scope_of_series: OnceCell<Option<Vec<u32>>>,
    /// Of dictionaries that hold for the whole block, by id and kind of values.
    of_dictionaries: HashMap<(u16, bool), Vec<u32>>,
    /// Of no value.
    of_nil: u32,
    /// The number asked about last, and its answer.
    last: (u64, u32),
}

impl<'f> FieldAnswers<'f> {
    pub(super) fn new(field: &'f Field) -> Self {
        Self {
            field,
            of_table: Vec::new(),
            scope_of_series: OnceCell::new(),
            of_dictionaries: HashMap::new(),
            of_nil: UNASKED,
            last: (0, UNASKED),
        }
    }

    pub(super) fn field(&self) -> &'f Field {
        self.field
    }

    /// The answers for the rows of a group; those that are not `within` have any.
    pub(super) fn read(
        &mut self,
        group: &GroupFields<'_>,
        within: &[bool],
        ask: Ask<'_>,
    ) -> Result<Vec<u32>, BlockError> {
        let mut answers = vec![0; within.len()];
        match self.field {
            Field::Intrinsic(intrinsic @ (Intrinsic::Name | Intrinsic::Kind | Intrinsic::Status)) => {
                self.of_series(*intrinsic, group, within, ask, &mut answers)?;
            }
            Field::Intrinsic(Intrinsic::StatusMessage) => {
                let texts = group.group.status_messages()?;
                self.of_texts(texts.dictionary(), false, ask, |known, ask| {
                    for (row, answer) in rows_of(within, &mut answers) {
                        *answer = known.of(texts.entry(row), ask)?;
                    }
                    Ok(())
                })?;
            }
            Field::Attribute { scope: AttributeScope::Span | AttributeScope::Unscoped, key } => {
                self.of_attribute(key, group, within, ask, &mut answers)?;
            }
            field if field.is_of_scope() => {
                self.of_scopes(group, within, ask, &mut answers)?;
            }
            field => {
                for (row, answer) in rows_of(within, &mut answers) {
                    *answer = ask(group.datum(field, row)?);
                }
            }
        }
        Ok(answers)
    }

    fn of_series(
        &mut self,
        intrinsic: Intrinsic,
        group: &GroupFields<'_>,
        within: &[bool],
        ask: Ask<'_>,
        answers: &mut [u32],
    ) -> Result<(), BlockError> {
        let series = group.group.series()?;
        let exceptions = match intrinsic {
            Intrinsic::Kind => group.group.exceptions()?.kinds.as_slice(),
            Intrinsic::Status => group.group.exceptions()?.statuses.as_slice(),
            _ => &[],
        };
        let mut exceptions = exceptions.iter().peekable();
        for (row, answer) in rows_of(within, answers) {
            while exceptions.next_if(|(exception, _)| usize::from(*exception) < row).is_some() {}
            if exceptions.peek().is_some_and(|(exception, _)| usize::from(*exception) == row) {
                *answer = ask(group.exception(intrinsic, row)?.unwrap_or(Datum::Nil));
                continue;
            }
            let of_series = at(series, row);
            let known = self.of_table.get(of_series as usize).copied().filter(|known| *known != UNASKED);
            *answer = if let Some(known) = known {
                known
            } else {
                let asked = ask(group.of_series(intrinsic, of_series)?);
                remember(&mut self.of_table, of_series, asked)
            };
        }
        Ok(())
    }

    /// By their series, where these tell: the column of scopes is told by three others.
    fn of_scopes(
        &mut self,
        group: &GroupFields<'_>,
        within: &[bool],
        ask: Ask<'_>,
        answers: &mut [u32],
    ) -> Result<(), BlockError> {
        let of_series = match self.scope_of_series.take() {
            Some(known) => known,
            None => group.block.scope_of_series(self.field)?,
        };
        let numbers = if of_series.is_some() { group.group.series()? } else { group.group.scopes()? };
        for (row, answer) in rows_of(within, answers) {
            let number = at(numbers, row);
            let scope = of_series.as_ref().map_or(number, |of_series| at(of_series, number as usize));
            *answer = self.of_scope(group, scope, ask)?;
        }
        self.scope_of_series = OnceCell::from(of_series);
        Ok(())
    }

    fn of_scope(&mut self, group: &GroupFields<'_>, scope: u32, ask: Ask<'_>) -> Result<u32, BlockError> {
        if let Some(known) = self.of_table.get(scope as usize).copied().filter(|known| *known != UNASKED) {
            return Ok(known);
        }
        let asked = ask(group.of_scope(self.field, scope)?);
        Ok(remember(&mut self.of_table, scope, asked))
    }

    fn of_attribute(
        &mut self,
        key: &str,
        group: &GroupFields<'_>,
        within: &[bool],
        ask: Ask<'_>,
        answers: &mut [u32],
    ) -> Result<(), BlockError> {
        let column = group.attribute(key)?;
        // Rows whose value has a type that compares with nothing count as rows without.
        let mut without: Vec<usize> = Vec::new();
        let place = |row: usize| column.and_then(|column| column.place(row));
        let parts = column.map(AttributeColumn::parts).unwrap_or_default();
        for (row, _) in rows_of(within, answers) {
            let part = place(row).and_then(|(part, _)| parts.get(part));
            if matches!(part, None | Some(AttributeValues::Empty | AttributeValues::Bytes(_))) {
                without.push(row);
            }
        }
        for (number, values) in parts.iter().enumerate() {
            let mut rows = rows_of(within, answers).filter_map(|(row, answer)| {
                let (_, value) = place(row).filter(|(part, _)| *part == number)?;
                Some((value, answer))
            });
            self.of_values(values, &mut rows, ask)?;
        }
        without.extend(rows_of(within, answers).filter(|(_, answer)| **answer == ABSENT).map(|(row, _)| row));
        if without.is_empty() {
            return Ok(());
        }
        let mut is_without = vec![false; within.len()];
        for row in without {
            if let Some(is_without) = is_without.get_mut(row) {
                *is_without = true;
            }
        }
        if matches!(self.field, Field::Attribute { scope: AttributeScope::Unscoped, .. }) {
            return self.of_scopes(group, &is_without, ask, answers);
        }
        if self.of_nil == UNASKED {
            self.of_nil = ask(Datum::Nil);
        }
        rows_of(&is_without, answers).for_each(|(_, answer)| *answer = self.of_nil);
        Ok(())
    }

    fn of_values(
        &mut self,
        values: &AttributeValues,
        rows: &mut dyn Iterator<Item = (usize, &mut u32)>,
        ask: Ask<'_>,
    ) -> Result<(), BlockError> {
        let (texts, is_nested) = match values {
            AttributeValues::Strings(texts) => (texts, false),
            AttributeValues::Nested(texts) => (texts, true),
            AttributeValues::Empty | AttributeValues::Bytes(_) => return Ok(()),
            AttributeValues::Bools(numbers) => return self.of_numbers(values, numbers, rows, ask),
            AttributeValues::Ints(_) | AttributeValues::Doubles(_) => {
                for (value, answer) in rows {
                    *answer = ask(value_of(values, value)?);
                }
                return Ok(());
            }
        };
        self.of_texts(texts.dictionary(), is_nested, ask, |known, ask| {
            for (value, answer) in rows {
                *answer = known.of(texts.entry(value), ask)?;
            }
            Ok(())
        })
    }

    fn of_numbers(
        &mut self,
        values: &AttributeValues,
        numbers: &[u64],
        rows: &mut dyn Iterator<Item = (usize, &mut u32)>,
        ask: Ask<'_>,
    ) -> Result<(), BlockError> {
        self.last = (0, UNASKED);
        for (value, answer) in rows {
            let number = numbers.get(value).copied().unwrap_or_default();
            if self.last != (number, self.last.1) || self.last.1 == UNASKED {
                self.last = (number, ask(value_of(values, value)?));
            }
            *answer = self.last.1;
        }
        Ok(())
    }

    /// Gives `read` what is known of a dictionary, and keeps what it learns.
    fn of_texts(
        &mut self,
        dictionary: &Dictionary,
        is_nested: bool,
        ask: Ask<'_>,
        read: impl FnOnce(&mut KnownTexts<'_>, Ask<'_>) -> Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        let key = dictionary.id().map(|id| (id, is_nested));
        let known = key.and_then(|key| self.of_dictionaries.remove(&key)).unwrap_or_default();
        let mut known = KnownTexts { dictionary, is_nested, known };
        read(&mut known, ask)?;
        if let Some(key) = key {
            let _none = self.of_dictionaries.insert(key, known.known);
        }
        Ok(())
    }
}

/// Answers about the texts of a dictionary.
struct KnownTexts<'a> {
    dictionary: &'a Dictionary,
    is_nested: bool,
    known: Vec<u32>,
}

impl KnownTexts<'_> {
    fn of(&mut self, entry: u32, ask: Ask<'_>) -> Result<u32, BlockError> {
        if let Some(known) = self.known.get(entry as usize).copied().filter(|known| *known != UNASKED) {
            return Ok(known);
        }
        let text = if self.is_nested { nested(self.dictionary, entry)? } else { lossy(self.dictionary, entry)? };
        let answer = if text.exists() { ask(text) } else { ABSENT };
        Ok(remember(&mut self.known, entry, answer))
    }
}

/// Notes an answer; the list grows up to it. Only for numbers of things that exist.
fn remember(known: &mut Vec<u32>, number: u32, answer: u32) -> u32 {
    let at = number as usize;
    if known.len() <= at {
        known.resize(at + 1, UNASKED);
    }
    if let Some(slot) = known.get_mut(at) {
        *slot = answer;
    }
    answer
}

/// The rows within, and the slots of their answers.
fn rows_of<'a>(within: &'a [bool], answers: &'a mut [u32]) -> impl Iterator<Item = (usize, &'a mut u32)> {
    within.iter().zip(answers).enumerate().filter(|(_, (within, _))| **within).map(|(row, (_, answer))| (row, answer))
}
