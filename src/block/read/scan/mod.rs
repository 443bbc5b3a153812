//! Reading a block column by column, for questions about many spans: searches, percentiles of some spans, graphs.
//!
//! ```text
//! block.scan(sections, |scan| {
//!     let route = scan.span_attribute(b"http.route")?;       looked up in the tables once
//!     for number in 0..scan.n_groups() {
//!         let group = scan.group(number);                    nothing is read yet
//!         if group.durations()?.iter().all(..) { continue }  one column
//!         let routes = group.attribute(&route)?;             shapes, the column, and what it may follow from
//!     }
//! })
//! ```
//! Every column of a row group is read when it is asked for, once. Most numbers are a list with one number per row; texts are
//! entries of a dictionary ([`TextColumn`]); what is rare is a list of exceptions by row; what a whole scope or series shares
//! stands in a table, and rows point into it. Nothing here knows what is being searched for.

mod attribute;
mod texts;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

pub use self::attribute::{AttributeColumn, AttributeValues, SpanAttribute};
pub use self::texts::{Dictionary, TextColumn};
use super::attributes::ShapeLists;
use super::group::{Dictionaries, Group, Run, run_of_row};
use super::known::{callers_of, parent_row, parents_of_rows};
use super::spans::{SpanParts, SpanReader, SpanSource, items, narrow, nth, rows_where};
use super::tables::{ScopeCopier, Shapes, Tables};
use super::{Block, BlockError, BlockSummary, GROUP_ROWS, Header, Sections, block_row};
use crate::block::codec::{Contexts, Ints, Malformed, Needs, RowIds, Unpacker};
use crate::block::columns::{self as column, ColumnId, Kind, Owner};
use crate::block::skip::{SkipIndex, Zones};
use crate::model::{DurationNanos, SeriesKey, Span, SpanBatch, SpanId, TraceId, UnixNanos};

impl Block {
    /// Gives `read` the block to read column by column. Reads the tables of attributes, scopes and series.
    ///
    /// # Errors
    /// `Damaged`, as `sections` fails, or as `read` does.
    pub fn scan<T>(
        &self,
        sections: &dyn Sections,
        read: impl FnOnce(&BlockScan<'_>) -> Result<T, BlockError>,
    ) -> Result<T, BlockError> {
        let tables = Tables::read(&self.header, sections)?;
        let shapes = tables.shapes()?;
        read(&BlockScan {
            header: &self.header,
            zones: &self.zones,
            sections,
            tables: &tables,
            shapes: &shapes,
            dictionaries: Rc::default(),
            unpacker: Cell::new(None),
            series: OnceCell::new(),
            scopes: OnceCell::new(),
        })
    }
}

/// A block whose columns are being read.
pub struct BlockScan<'a> {
    header: &'a Header,
    zones: &'a Zones,
    sections: &'a dyn Sections,
    tables: &'a Tables,
    shapes: &'a Shapes<'a>,
    dictionaries: Rc<Dictionaries>,
    /// The decompressor of the last group: making one costs as much as a column.
    unpacker: Cell<Option<Unpacker>>,
    series: OnceCell<Vec<SeriesKey<'static>>>,
    scopes: OnceCell<SpanBatch>,
}

/// What has an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeOwner {
    /// A span.
    Span,
    /// An event of a span.
    Event,
    /// A link of a span.
    Link,
}

impl BlockScan<'_> {
    /// Counts and bounds.
    pub fn summary(&self) -> &BlockSummary {
        &self.header.summary
    }

    /// What the block cannot hold.
    pub fn skip_index(&self) -> SkipIndex<'_> {
        SkipIndex::of(self.header, self.sections, self.zones)
    }

    /// Row groups; all but the last have 4,096 rows.
    pub fn n_groups(&self) -> usize {
        self.header.groups.len()
    }

    /// A row group, of which nothing is read yet. One that does not exist has no rows.
    pub fn group(&self, number: usize) -> RowGroup<'_> {
        RowGroup::new(self, number)
    }

    /// The series, ascending: rows name them by their place.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn series(&self) -> Result<&[SeriesKey<'static>], BlockError> {
        once(&self.series, || self.tables.series(self.header.n_series)).map(Vec::as_slice)
    }

    /// The scopes with their resources, as a batch without spans: rows name its scopes by their place.
    ///
    /// # Errors
    /// `Damaged`, or `TooLarge`.
    pub fn scopes(&self) -> Result<&SpanBatch, BlockError> {
        once(&self.scopes, || {
            let mut copier = ScopeCopier::new(self.tables.scopes()?);
            let mut batch = SpanBatch::default();
            for scope in 0..self.header.n_scopes {
                let _same = copier.copy(scope, &mut batch)?;
            }
            Ok(batch)
        })
    }

    /// The attributes of spans, events and links; one with values of several types comes several times.
    pub fn attribute_keys(&self) -> impl Iterator<Item = (AttributeOwner, &[u8])> {
        self.shapes.attributes.iter().map(|row| {
            let owner = match row.owner {
                owner if owner == Owner::Event as u8 => AttributeOwner::Event,
                owner if owner == Owner::Link as u8 => AttributeOwner::Link,
                _ => AttributeOwner::Span,
            };
            (owner, row.key)
        })
    }

    /// Where the values of an attribute of spans are.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn span_attribute(&self, key: &[u8]) -> Result<SpanAttribute, BlockError> {
        SpanAttribute::find(self, key)
    }
}

/// A row group whose columns are read as they are asked for.
pub struct RowGroup<'a> {
    scan: &'a BlockScan<'a>,
    number: usize,
    group: RefCell<Group<'a>>,
    durations: OnceCell<Vec<u64>>,
    runs: OnceCell<Vec<Run>>,
    run_of_row: OnceCell<Vec<u32>>,
    starts: OnceCell<Vec<u64>>,
    series: OnceCell<Vec<u32>>,
    parents: OnceCell<(Vec<u64>, Vec<u16>)>,
    scopes: OnceCell<Vec<u32>>,
    callers: OnceCell<(Vec<u32>, usize)>,
    exceptions: OnceCell<Exceptions>,
    shapes: OnceCell<Vec<u32>>,
    items: OnceCell<ShapeLists>,
    status_messages: OnceCell<TextColumn>,
}

/// Kinds and status codes that differ from what the series says, with their rows, ascending. Names need none: what a series
/// calls its spans is their name as shown.
#[derive(Debug, Default)]
pub struct Exceptions {
    /// OTLP numbers.
    pub kinds: Vec<(u16, i32)>,
    /// OTLP numbers.
    pub statuses: Vec<(u16, i32)>,
}

impl Exceptions {
    /// The kind of a row, if it is an exception.
    pub fn kind(&self, row: usize) -> Option<i32> {
        find(&self.kinds, row)
    }

    /// The status code of a row, if it is an exception.
    pub fn status(&self, row: usize) -> Option<i32> {
        find(&self.statuses, row)
    }
}

fn find(exceptions: &[(u16, i32)], row: usize) -> Option<i32> {
    let at = exceptions.binary_search_by_key(&row, |(owner, _)| usize::from(*owner)).ok()?;
    exceptions.get(at).map(|(_, number)| *number)
}

impl Drop for RowGroup<'_> {
    fn drop(&mut self) {
        self.scan.unpacker.set(Some(self.group.get_mut().take_unpacker()));
    }
}

impl<'a> RowGroup<'a> {
    fn new(scan: &'a BlockScan<'a>, number: usize) -> Self {
        let unpacker = scan.unpacker.take().unwrap_or_else(Unpacker::new);
        let group = Group::sharing(scan.header, scan.sections, number, Rc::clone(&scan.dictionaries), unpacker);
        Self {
            scan,
            number,
            group: RefCell::new(group),
            durations: OnceCell::new(),
            runs: OnceCell::new(),
            run_of_row: OnceCell::new(),
            starts: OnceCell::new(),
            series: OnceCell::new(),
            parents: OnceCell::new(),
            scopes: OnceCell::new(),
            callers: OnceCell::new(),
            exceptions: OnceCell::new(),
            shapes: OnceCell::new(),
            items: OnceCell::new(),
            status_messages: OnceCell::new(),
        }
    }

    /// Rows of the group.
    pub fn n_rows(&self) -> usize {
        self.scan.header.group_rows(self.number)
    }

    /// The block's number of a row of the group.
    pub fn block_row(&self, row: usize) -> u32 {
        block_row(self.number * GROUP_ROWS + row)
    }

    fn damaged(&self, malformed: Malformed) -> BlockError {
        self.group.borrow().damaged(malformed)
    }

    /// End minus start of each row, modulo 2^64. Reads one column.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn durations(&self) -> Result<&[u64], BlockError> {
        let read = || {
            let mut group = self.group.borrow_mut();
            group.fetch(|column| column == column::DURATION)?;
            group.all_ints(column::DURATION, self.n_rows())
        };
        once(&self.durations, read).map(Vec::as_slice)
    }

    fn runs(&self) -> Result<&[Run], BlockError> {
        let read = || {
            let mut group = self.group.borrow_mut();
            group.fetch(|column| column == column::TRACE)?;
            group.runs()
        };
        once(&self.runs, read).map(Vec::as_slice)
    }

    fn run_of_row(&self) -> Result<&[u32], BlockError> {
        once(&self.run_of_row, || Ok(run_of_row(self.runs()?))).map(Vec::as_slice)
    }

    /// The traces with their rows, in row order; a trace may go on in the next group. Reads one column.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn traces(&self) -> Result<impl Iterator<Item = (TraceId, std::ops::Range<usize>)>, BlockError> {
        let runs = self.runs()?;
        Ok(runs.iter().map(|run| (run.trace_id, run.start..run.start + run.len)))
    }

    /// Trace of a row. Reads one column.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn trace_id(&self, row: usize) -> Result<TraceId, BlockError> {
        let (runs, run_of_row) = (self.runs()?, self.run_of_row()?);
        let run = run_of_row.get(row).and_then(|run| runs.get(*run as usize));
        run.map(|run| run.trace_id).ok_or_else(|| self.damaged(Malformed("a row has no trace")))
    }

    /// Start of each row. Reads three columns.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn starts(&self) -> Result<&[u64], BlockError> {
        let read = || {
            let runs = self.runs()?;
            let mut group = self.group.borrow_mut();
            group.fetch(|column| matches!(column, column::TRACE_START | column::START_DELTA))?;
            group.starts(runs)
        };
        once(&self.starts, read).map(Vec::as_slice)
    }

    /// `Span::latency` of a row, given what `starts` and `durations` say of it.
    pub fn latency(start: u64, duration: u64) -> Option<DurationNanos> {
        let span = Span {
            start_time_unix_nano: UnixNanos(start),
            end_time_unix_nano: UnixNanos(start.wrapping_add(duration)),
            ..Span::default()
        };
        span.latency()
    }

    /// Series of each row, a place in `BlockScan::series`. Reads two columns.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn series(&self) -> Result<&[u32], BlockError> {
        let read = || {
            let run_of_row = self.run_of_row()?;
            let mut group = self.group.borrow_mut();
            group.fetch(|column| column == column::SERIES)?;
            group.series(run_of_row)
        };
        once(&self.series, read).map(Vec::as_slice)
    }

    fn parents(&self) -> Result<&(Vec<u64>, Vec<u16>), BlockError> {
        once(&self.parents, || {
            let run_of_row = self.run_of_row()?;
            let series = self.series()?;
            let mut group = self.group.borrow_mut();
            group.fetch(|column| column == column::PARENT)?;
            parents_of_rows(&mut group, run_of_row, series)
        })
    }

    /// What is known of the rows without their scopes.
    fn contexts_without_scopes(&self) -> Result<Contexts<'_>, BlockError> {
        let run_of_row = self.run_of_row()?;
        let (_, parent_rows) = self.parents()?;
        Ok(Contexts {
            series: RowIds { ids: self.series()?, n: self.scan.header.n_series as usize },
            traces: RowIds { ids: run_of_row, n: run_of_row.len() },
            parents: parent_rows,
            ..Contexts::NONE
        })
    }

    /// Scope of each row, a place among those of `BlockScan::scopes`. Reads four columns.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn scopes(&self) -> Result<&[u32], BlockError> {
        let read = || {
            let known = self.contexts_without_scopes()?;
            let mut group = self.group.borrow_mut();
            group.fetch(|column| column == column::SCOPE)?;
            group.scopes(known)
        };
        once(&self.scopes, read).map(Vec::as_slice)
    }

    /// Reads the chunks of these columns, and what they follow from: no more than they need.
    fn contexts(&self, columns: &[(ColumnId, Kind)]) -> Result<Contexts<'_>, BlockError> {
        let mut needs = Needs::NONE;
        {
            let mut group = self.group.borrow_mut();
            group.fetch(|wanted| columns.iter().any(|(column, _)| *column == wanted))?;
            for (column, kind) in columns {
                needs = needs.and(group.needs(*column, *kind)?);
            }
        }
        let run_of_row = self.run_of_row()?;
        let mut known = Contexts { traces: RowIds { ids: run_of_row, n: run_of_row.len() }, ..Contexts::NONE };
        if needs.include(Needs::SERIES) {
            known.series = RowIds { ids: self.series()?, n: self.scan.header.n_series as usize };
        }
        if needs.include(Needs::PARENTS) {
            known.parents = &self.parents()?.1;
        }
        if needs.include(Needs::SCOPES) {
            known.scopes = RowIds { ids: self.scopes()?, n: self.scan.header.n_scopes as usize };
        }
        if needs.include(Needs::CALLERS) {
            let scopes = self.scopes()?;
            let of_scopes = self.contexts_without_scopes()?;
            let (callers, n_callers) = once(&self.callers, || Ok(callers_of(scopes, &of_scopes)))?;
            known.callers = RowIds { ids: callers, n: *n_callers };
        }
        Ok(known)
    }

    /// The same for columns that are not of attributes.
    fn contexts_of_fixed(&self, columns: &[ColumnId]) -> Result<Contexts<'_>, BlockError> {
        let columns: Vec<_> = columns.iter().map(|column| (*column, column::kind_of_fixed(*column))).collect();
        self.contexts(&columns)
    }

    /// Where kinds and statuses are not those of the series. Reads four columns, three more when there are any.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn exceptions(&self) -> Result<&Exceptions, BlockError> {
        once(&self.exceptions, || {
            if !self.has(column::EXCEPTIONS) {
                return Ok(Exceptions::default());
            }
            let contexts = self.contexts_of_fixed(&[column::EXCEPTIONS, column::RAW_KIND, column::RAW_STATUS])?;
            let mut group = self.group.borrow_mut();
            let bits = group.numbers(column::EXCEPTIONS, self.n_rows(), contexts)?;
            let mut read = |bit: u64, column: ColumnId| {
                let rows = rows_where(self.n_rows(), |row| bits.get(row) & bit != 0);
                let numbers = group.numbers(column, rows.len(), contexts.of(&rows))?;
                let number = |at: usize| narrow(&numbers, at).map(u32::cast_signed);
                let listed = rows.iter().enumerate().map(|(at, row)| Ok((*row, number(at)?)));
                listed.collect::<Result<Vec<_>, _>>().map_err(|malformed| group.damaged(malformed))
            };
            Ok(Exceptions { kinds: read(2, column::RAW_KIND)?, statuses: read(4, column::RAW_STATUS)? })
        })
    }

    /// Whether a column has anything but zeros and empty texts here.
    fn has(&self, column: ColumnId) -> bool {
        self.scan.header.chunk(self.number, column).is_some()
    }

    /// Span id of a row. Reads one column.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn span_id(&self, row: usize) -> Result<SpanId, BlockError> {
        let mut group = self.group.borrow_mut();
        group.fetch(|column| column == column::SPAN_ID)?;
        let id = nth(group.raw(column::SPAN_ID)?, row).map(SpanId);
        id.ok_or_else(|| group.damaged(Malformed("a row has no span id")))
    }

    /// Parent of a row, zero for a root. Reads five columns.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn parent_id(&self, row: usize) -> Result<SpanId, BlockError> {
        const MISSING: Malformed = Malformed("a parent is missing");
        let (codes, _) = self.parents()?;
        match codes.get(row).copied().unwrap_or_default() {
            0 => Ok(SpanId::default()),
            1 => {
                let mut group = self.group.borrow_mut();
                group.fetch(|column| column == column::PARENT_RAW)?;
                let at = codes.iter().take(row).filter(|code| **code == 1).count();
                let id = nth(group.raw(column::PARENT_RAW)?, at).map(SpanId);
                id.ok_or_else(|| group.damaged(MISSING))
            }
            code => self.span_id(parent_row(row, code).ok_or_else(|| self.damaged(MISSING))?),
        }
    }

    /// Status message of each row. Reads five columns.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn status_messages(&self) -> Result<&TextColumn, BlockError> {
        once(&self.status_messages, || {
            let contexts = self.contexts_of_fixed(&[column::STATUS_MESSAGE])?;
            let mut group = self.group.borrow_mut();
            let texts = group.texts(column::STATUS_MESSAGE, self.n_rows(), contexts)?;
            TextColumn::of(texts, self.n_rows(), column::STATUS_MESSAGE).map_err(|malformed| group.damaged(malformed))
        })
    }

    fn shapes_of_rows(&self) -> Result<&[u32], BlockError> {
        const MISSING: Malformed = Malformed("a row has a shape that does not exist");
        let read = || {
            let contexts = self.contexts_of_fixed(&[column::SHAPE])?;
            let mut group = self.group.borrow_mut();
            let shapes = group.numbers(column::SHAPE, self.n_rows(), contexts)?.into_values(self.n_rows());
            let shape = |number: u64| u32::try_from(number).map_err(|_| group.damaged(MISSING));
            shapes.into_iter().map(shape).collect()
        };
        once(&self.shapes, read).map(Vec::as_slice)
    }

    /// Shapes of events and links; those of the spans are left out.
    fn item_shapes(&self) -> Result<&ShapeLists, BlockError> {
        once(&self.items, || {
            let of_items = [column::EVENT_COUNT, column::EVENT_SHAPE, column::LINK_COUNT, column::LINK_SHAPE];
            let contexts = self.contexts_of_fixed(&of_items)?;
            let mut group = self.group.borrow_mut();
            let (event_ends, event_rows) = items(&mut group, column::EVENT_COUNT, contexts)?;
            let (link_ends, link_rows) = items(&mut group, column::LINK_COUNT, contexts)?;
            let events = group.numbers(column::EVENT_SHAPE, event_rows.len(), contexts.of(&event_rows))?;
            let links = group.numbers(column::LINK_SHAPE, link_rows.len(), contexts.of(&link_rows))?;
            Ok(ShapeLists { spans: Ints::Constant(0), events, links, event_ends, link_ends })
        })
    }

    /// The whole spans of ascending rows, events and links included: for what has no column of its own here. Reads most
    /// columns of the group anew.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn spans(&self, rows: &[usize]) -> Result<SpanBatch, BlockError> {
        let source = SpanSource {
            header: self.scan.header,
            sections: self.scan.sections,
            tables: self.scan.tables,
            shapes: self.scan.shapes,
            series: self.scan.series()?,
            dictionaries: Rc::clone(&self.scan.dictionaries),
            parts: SpanParts::All,
        };
        let mut reader = SpanReader::new(source)?;
        let exist: Vec<usize> = rows.iter().copied().filter(|row| *row < self.n_rows()).collect();
        reader.read_group(self.number, &exist)?;
        Ok(reader.finish())
    }
}

/// What the cell holds, or what `read` makes of it the first time.
fn once<T>(cell: &OnceCell<T>, read: impl FnOnce() -> Result<T, BlockError>) -> Result<&T, BlockError> {
    if let Some(known) = cell.get() {
        return Ok(known);
    }
    let value = read()?;
    Ok(cell.get_or_init(|| value))
}
