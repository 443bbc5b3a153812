//! One row group while it is read: its chunks, and the columns that others depend on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::super::codec::{
    ByNumber, Contexts, Ints, Malformed, Needs, Places, Reader, RowIds, Texts, Unpacker, needs_of_numbers, read_codes,
    read_numbers, read_scopes,
};
use super::super::columns::{self as column, ColumnId, Kind, contexts_of};
use super::super::encode::{TEXTS_CODED, TEXTS_CODED_BY, TEXTS_PLAIN, TEXTS_SAME};
use super::super::error::BlockError;
use super::super::header::{Chunk, Header};
use super::super::{SectionId, Sections};
use crate::model::TraceId;

/// Rows of one trace that follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) trace_id: TraceId,
    /// Row in the group.
    pub(super) start: usize,
    pub(super) len: usize,
}

/// The chunks of a row group that were asked for.
pub(super) struct Group<'a> {
    header: &'a Header,
    sections: &'a dyn Sections,
    number: usize,
    pub(super) n_rows: usize,
    /// Offset in the section, and bytes from there on.
    fetched: Vec<(u32, Vec<u8>)>,
    unpacker: Unpacker,
    dictionaries: Rc<Dictionaries>,
}

/// Dictionaries that were read, with their numbers of entries, by column.
pub(super) type Dictionaries = RefCell<HashMap<ColumnId, (Arc<Texts>, usize)>>;

impl<'a> Group<'a> {
    pub(super) fn new(header: &'a Header, sections: &'a dyn Sections, number: usize) -> Self {
        Self::sharing(header, sections, number, Rc::default(), Unpacker::new())
    }

    /// One of several groups that need the same dictionaries.
    pub(super) fn sharing(
        header: &'a Header,
        sections: &'a dyn Sections,
        number: usize,
        dictionaries: Rc<Dictionaries>,
        unpacker: Unpacker,
    ) -> Self {
        let n_rows = header.group_rows(number);
        Self { header, sections, number, n_rows, fetched: Vec::new(), unpacker, dictionaries }
    }

    pub(super) fn n_series(&self) -> usize {
        self.header.n_series as usize
    }

    fn section(&self) -> SectionId {
        SectionId::of_group(self.number)
    }

    /// The error for chunks of this group.
    pub(super) fn damaged(&self, malformed: Malformed) -> BlockError {
        malformed.in_section(self.section())
    }

    /// Reads the chunks of these columns that were not read before; neighbours in one piece.
    pub(super) fn fetch(&mut self, wanted: impl Fn(ColumnId) -> bool) -> Result<(), BlockError> {
        let chunks = self.header.groups.get(self.number).map(Vec::as_slice).unwrap_or_default();
        let known = chunks.iter().filter(|chunk| wanted(chunk.column) && bytes_of(&self.fetched, **chunk).is_ok());
        let known: Vec<ColumnId> = known.map(|chunk| chunk.column).collect();
        let wanted = |column: ColumnId| wanted(column) && !known.contains(&column);
        let neighbours = chunks.chunk_by(|a, b| wanted(a.column) == wanted(b.column));
        for run in neighbours.filter(|run| run.first().is_some_and(|chunk| wanted(chunk.column))) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let range = first.offset..last.offset.saturating_add(last.len);
            self.fetched.push((first.offset, self.sections.read(self.section(), range)?));
        }
        Ok(())
    }

    /// Bytes of known length; a column without a chunk has none.
    pub(super) fn raw(&self, column: ColumnId) -> Result<&[u8], BlockError> {
        match self.header.chunk(self.number, column) {
            Some(chunk) => bytes_of(&self.fetched, chunk).map_err(|malformed| self.damaged(malformed)),
            None => Ok(&[]),
        }
    }

    pub(super) fn ints(&mut self, column: ColumnId, n: usize) -> Result<Ints, BlockError> {
        let Some(chunk) = self.header.chunk(self.number, column) else { return Ok(Ints::Constant(0)) };
        let bytes = bytes_of(&self.fetched, chunk);
        let ints = bytes.and_then(|bytes| Ints::read(&mut Reader::new(bytes), n, &mut self.unpacker));
        ints.map_err(|malformed| self.damaged(malformed))
    }

    /// All `n` numbers of a column.
    pub(super) fn all_ints(&mut self, column: ColumnId, n: usize) -> Result<Vec<u64>, BlockError> {
        let Some(chunk) = self.header.chunk(self.number, column) else { return Ok(vec![0; n]) };
        let bytes = bytes_of(&self.fetched, chunk);
        let ints = bytes.and_then(|bytes| Ints::read_values(&mut Reader::new(bytes), n, &mut self.unpacker));
        ints.map_err(|malformed| self.damaged(malformed))
    }

    pub(super) fn numbers(&mut self, column: ColumnId, n: usize, contexts: Contexts<'_>) -> Result<Ints, BlockError> {
        let Some(chunk) = self.header.chunk(self.number, column) else { return Ok(Ints::Constant(0)) };
        let contexts = contexts_of(column, contexts);
        let bytes = bytes_of(&self.fetched, chunk);
        let numbers = bytes.and_then(|bytes| read_numbers(&mut Reader::new(bytes), n, &contexts, &mut self.unpacker));
        numbers.map_err(|malformed| self.damaged(malformed))
    }

    pub(super) fn texts(&mut self, column: ColumnId, n: usize, contexts: Contexts<'_>) -> Result<Texts, BlockError> {
        let Some(chunk) = self.header.chunk(self.number, column) else { return Ok(Texts::Empty) };
        let contexts = contexts_of(column, contexts);
        let section = self.section();
        let damaged = |malformed: Malformed| malformed.in_section(section);
        let mut reader = Reader::new(bytes_of(&self.fetched, chunk).map_err(damaged)?);
        let form = reader.u8().map_err(damaged)?;
        let mut forms = TextForms {
            header: self.header,
            sections: self.sections,
            section,
            column,
            unpacker: &mut self.unpacker,
            dictionaries: &self.dictionaries,
        };
        if form != TEXTS_SAME {
            return forms.read(form, &mut reader, n, &contexts);
        }
        let places = Places::read(&mut reader, n, &contexts, forms.unpacker).map_err(damaged)?;
        let form = reader.u8().map_err(damaged)?;
        let stored = forms.read(form, &mut reader, places.owners.len(), &contexts.of(&places.owners))?;
        Ok(Texts::Same { places: places.of_value, stored: Box::new(stored) })
    }

    /// What reading a column of numbers or texts needs to know of the rows; for the texts that another column tells, nothing.
    pub(super) fn needs(&mut self, column: ColumnId, kind: Kind) -> Result<Needs, BlockError> {
        let Some(chunk) = self.header.chunk(self.number, column) else { return Ok(Needs::NONE) };
        let bytes = bytes_of(&self.fetched, chunk);
        let unpacker = &mut self.unpacker;
        let needs = bytes.and_then(|bytes| {
            let mut reader = Reader::new(bytes);
            if kind != Kind::Texts {
                return needs_of_numbers(&mut reader, unpacker);
            }
            match reader.u8()? {
                TEXTS_PLAIN => Texts::needs(&mut reader),
                TEXTS_CODED => reader.u8().map(Needs::of_context),
                TEXTS_CODED_BY => Ok(Needs::NONE),
                _ => Ok(Needs::ALL),
            }
        });
        needs.map_err(|malformed| self.damaged(malformed))
    }

    /// The decompressor, for the next group; another one takes its place when it is needed.
    pub(super) fn take_unpacker(&mut self) -> Unpacker {
        std::mem::replace(&mut self.unpacker, Unpacker::new())
    }

    /// The column that tells the texts of this one, if one does. Chunks that were not fetched have none.
    pub(super) fn predictor(&self, column: ColumnId) -> Option<ColumnId> {
        let chunk = self.header.chunk(self.number, column)?;
        let mut reader = Reader::new(bytes_of(&self.fetched, chunk).ok()?);
        if reader.u8() != Ok(TEXTS_CODED_BY) {
            return None;
        }
        reader.varint().ok().and_then(|column| ColumnId::try_from(column).ok())
    }

    /// Texts that another column tells, which has these values for the same rows.
    pub(super) fn texts_told(&mut self, column: ColumnId, told_by: &[u64]) -> Result<Texts, BlockError> {
        let Some(chunk) = self.header.chunk(self.number, column) else { return Ok(Texts::Empty) };
        let section = self.section();
        let damaged = |malformed: Malformed| malformed.in_section(section);
        let mut reader = Reader::new(bytes_of(&self.fetched, chunk).map_err(damaged)?);
        let mut predicted = || {
            let (_form, _column) = (reader.u8()?, reader.varint()?);
            Ok(Ints::read(&mut reader, told_by.len(), &mut self.unpacker)?.into_values(told_by.len()))
        };
        let mut codes = predicted().map_err(damaged)?;
        let mut last: ByNumber<u64> = ByNumber::default();
        for (code, value) in codes.iter_mut().zip(told_by) {
            *code = match code.checked_sub(1) {
                Some(new) => {
                    let _before = last.insert(*value, new);
                    new
                }
                None => *last.get(value).ok_or(damaged(Malformed("a code is predicted from nothing")))?,
            };
        }
        let (header, sections, unpacker) = (self.header, self.sections, &mut self.unpacker);
        let (dictionary, n_entries) = read_dictionary(header, sections, column, unpacker, &self.dictionaries)?;
        Ok(Texts::Coded { codes: Ints::Values(codes), dictionary, n_entries })
    }

    /// The runs of the group's rows; all of them together are all rows.
    pub(super) fn runs(&self) -> Result<Vec<Run>, BlockError> {
        let read = |bytes| {
            let mut reader = Reader::new(bytes);
            let (mut runs, mut start) = (Vec::new(), 0);
            while !reader.is_empty() {
                let len = reader.varint_u32()? as usize;
                if len == 0 || self.n_rows - start < len {
                    return Err(Malformed("runs of traces pass the last row"));
                }
                runs.push(Run { trace_id: TraceId(reader.array()?), start, len });
                start += len;
            }
            if start == self.n_rows { Ok(runs) } else { Err(Malformed("runs of traces miss rows")) }
        };
        read(self.raw(column::TRACE)?).map_err(|malformed| self.damaged(malformed))
    }

    /// Start time of each row.
    pub(super) fn starts(&mut self, runs: &[Run]) -> Result<Vec<u64>, BlockError> {
        let firsts = self.all_ints(column::TRACE_START, runs.len())?;
        let deltas = self.all_ints(column::START_DELTA, self.n_rows.saturating_sub(runs.len()))?;
        let mut deltas = deltas.as_slice();
        let mut starts = Vec::with_capacity(self.n_rows);
        for (run, first) in runs.iter().zip(firsts) {
            let (of_run, others) = deltas.split_at(deltas.len().min(run.len - 1));
            deltas = others;
            let mut start = first;
            starts.push(start);
            starts.extend(of_run.iter().map(|delta| {
                start = start.wrapping_add(*delta);
                start
            }));
        }
        Ok(starts)
    }

    /// Series of each row.
    pub(super) fn series(&mut self, run_of_row: &[u32]) -> Result<Vec<u32>, BlockError> {
        let traces = RowIds { ids: run_of_row, n: run_of_row.len() };
        let numbers = self.numbers(column::SERIES, self.n_rows, Contexts { traces, ..Contexts::NONE })?;
        self.ids(numbers.into_values(self.n_rows), self.header.n_series)
    }

    /// Scope of each row.
    pub(super) fn scopes(&mut self, contexts: Contexts<'_>) -> Result<Vec<u32>, BlockError> {
        let Some(chunk) = self.header.chunk(self.number, column::SCOPE) else { return Ok(vec![0; self.n_rows]) };
        let contexts = contexts_of(column::SCOPE, contexts);
        let bytes = bytes_of(&self.fetched, chunk);
        let scopes =
            bytes.and_then(|bytes| read_scopes(&mut Reader::new(bytes), self.n_rows, &contexts, &mut self.unpacker));
        self.ids(scopes.map_err(|malformed| self.damaged(malformed))?, self.header.n_scopes)
    }

    /// The numbers as ids, all of them below `n`.
    fn ids(&self, numbers: Vec<u64>, n: u32) -> Result<Vec<u32>, BlockError> {
        const MISSING: Malformed = Malformed("a row names a series or scope that does not exist");
        let mut ids = Vec::with_capacity(numbers.len());
        for number in numbers {
            let id = u32::try_from(number).ok().filter(|id| *id < n);
            ids.push(id.ok_or_else(|| self.damaged(MISSING))?);
        }
        Ok(ids)
    }
}

/// What reading the forms of one chunk of texts needs.
struct TextForms<'a> {
    header: &'a Header,
    sections: &'a dyn Sections,
    section: SectionId,
    column: ColumnId,
    unpacker: &'a mut Unpacker,
    dictionaries: &'a Dictionaries,
}

impl TextForms<'_> {
    /// The forms that hold every value themselves.
    fn read(
        &mut self,
        form: u8,
        reader: &mut Reader<'_>,
        n: usize,
        contexts: &Contexts<'_>,
    ) -> Result<Texts, BlockError> {
        let section = self.section;
        let damaged = |malformed: Malformed| malformed.in_section(section);
        match form {
            TEXTS_PLAIN => Texts::read(reader, n, contexts, self.unpacker).map_err(damaged),
            TEXTS_CODED => {
                let (header, sections, unpacker) = (self.header, self.sections, &mut *self.unpacker);
                let (dictionary, n_entries) =
                    read_dictionary(header, sections, self.column, unpacker, self.dictionaries)?;
                let codes = read_codes(reader, n, n_entries, contexts, self.unpacker).map_err(damaged)?;
                Ok(Texts::Coded { codes, dictionary, n_entries })
            }
            _ => Err(damaged(Malformed("unknown form of a text column"))),
        }
    }
}

/// The run of each row.
pub(super) fn run_of_row(runs: &[Run]) -> Vec<u32> {
    let mut numbers = Vec::with_capacity(runs.last().map_or(0, |last| last.start + last.len));
    for (number, run) in (0..).zip(runs) {
        numbers.extend(std::iter::repeat_n(number, run.len));
    }
    numbers
}

fn bytes_of(fetched: &[(u32, Vec<u8>)], chunk: Chunk) -> Result<&[u8], Malformed> {
    let holds = |(offset, bytes): &&(u32, Vec<u8>)| {
        *offset <= chunk.offset && (chunk.offset - offset) as usize + chunk.len as usize <= bytes.len()
    };
    let (offset, bytes) = fetched.iter().find(holds).ok_or(Malformed("a chunk was not read in full"))?;
    let start = (chunk.offset - offset) as usize;
    bytes.get(start..start + chunk.len as usize).ok_or(Malformed("a chunk was not read in full"))
}

/// A column's dictionary and its number of entries.
fn read_dictionary(
    header: &Header,
    sections: &dyn Sections,
    column: ColumnId,
    unpacker: &mut Unpacker,
    known: &Dictionaries,
) -> Result<(Arc<Texts>, usize), BlockError> {
    if let Some((texts, n_entries)) = known.borrow().get(&column) {
        return Ok((Arc::clone(texts), *n_entries));
    }
    let damaged = |malformed: Malformed| malformed.in_section(SectionId::DICTIONARIES);
    let entry = header.dictionary(column).ok_or(damaged(Malformed("a column's dictionary is missing")))?;
    let range = entry.chunk.offset..entry.chunk.offset.saturating_add(entry.chunk.len);
    let bytes = sections.read(SectionId::DICTIONARIES, range)?;
    let n_entries = entry.n_entries as usize;
    let texts = Texts::read(&mut Reader::new(&bytes), n_entries, &Contexts::NONE, unpacker).map_err(damaged)?;
    let texts = Arc::new(texts);
    let _new = known.borrow_mut().insert(column, (Arc::clone(&texts), n_entries));
    Ok((texts, n_entries))
}
