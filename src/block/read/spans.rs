//! Spans put together again from their columns.

use std::rc::Rc;

use super::super::Sections;
use super::super::codec::{Contexts, Ints, Malformed, Texts, Unpacker, unzigzag};
use super::super::columns::{self as column, ColumnId, GROUP_ITEMS_MAX, RARE_NUMBERS};
use super::super::error::BlockError;
use super::super::header::Header;
use super::attributes::{AttributeColumns, ShapeLists, range_of, write_text};
use super::group::{Dictionaries, Group};
use super::known::{RowsKnown, parent_row};
use super::tables::{ScopeCopier, Shapes, Tables, n_rows, push_text};
use crate::model::{Event, Link, Rows, SeriesKey, Span, SpanBatch, SpanId, Text, TraceId, UnixNanos};

/// How much of a span is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanParts {
    /// Everything as it was sent.
    All,
    /// All but its attributes, events and links, which are half of the work and more.
    Frame,
}

/// What reading the spans of a block needs of it, however often one does.
#[derive(Clone)]
pub(super) struct SpanSource<'a> {
    pub(super) header: &'a Header,
    pub(super) sections: &'a dyn Sections,
    pub(super) tables: &'a Tables,
    pub(super) shapes: &'a Shapes<'a>,
    pub(super) series: &'a [SeriesKey<'static>],
    pub(super) dictionaries: Rc<Dictionaries>,
    pub(super) parts: SpanParts,
}

/// Collects spans of one block into an answer.
pub(super) struct SpanReader<'a> {
    source: SpanSource<'a>,
    scopes: ScopeCopier<'a>,
    /// Names of series and keys of attributes that the answer has already.
    names: Vec<Option<Text>>,
    keys: Vec<Option<Text>>,
    out: SpanBatch,
}

/// The columns of a row group that every span needs.
struct Fixed {
    rows: RowsKnown,
    durations: Ints,
    flags: Ints,
    span_ids: Vec<u8>,
    raw_parents: Vec<u8>,
    /// Rows with a parent in `raw_parents`.
    raw_parent_rows: Vec<u16>,
    trace_states: Texts,
    status_messages: Texts,
    dropped: [Ints; 3],
    exceptions: Exceptions,
    events: Events,
    links: Links,
}

/// Names, kinds and status codes that differ from the series, with their rows.
struct Exceptions {
    name_rows: Vec<u16>,
    names: Texts,
    kind_rows: Vec<u16>,
    kinds: Ints,
    status_rows: Vec<u16>,
    statuses: Ints,
}

struct Events {
    times: Ints,
    names: Texts,
    dropped: Ints,
}

struct Links {
    trace_ids: Vec<u8>,
    span_ids: Vec<u8>,
    trace_states: Texts,
    dropped: Ints,
    flags: Ints,
}

impl<'a> SpanReader<'a> {
    pub(super) fn new(source: SpanSource<'a>) -> Result<Self, BlockError> {
        let (names, keys) = (vec![None; source.series.len()], vec![None; source.shapes.attributes.len()]);
        let scopes = ScopeCopier::new(source.tables.scopes()?);
        Ok(Self { source, scopes, names, keys, out: SpanBatch::default() })
    }

    pub(super) fn finish(self) -> SpanBatch {
        self.out
    }

    /// Appends the spans of ascending rows of a group.
    pub(super) fn read_group(&mut self, number: usize, rows: &[usize]) -> Result<(), BlockError> {
        let SpanSource { header, sections, shapes, ref dictionaries, .. } = self.source;
        let mut group = Group::sharing(header, sections, number, Rc::clone(dictionaries), Unpacker::new());
        group.fetch(|column| column < RARE_NUMBERS)?;
        let (fixed, lists) = read_fixed(&mut group, header)?;
        let contexts = fixed.rows.contexts(header);
        let mut attributes = match self.source.parts {
            SpanParts::All => Some(AttributeColumns::read(&mut group, rows, shapes, &lists, contexts)?),
            SpanParts::Frame => None,
        };
        for row in rows {
            self.read_span(*row, &fixed, &lists, attributes.as_mut()).map_err(|error| match error {
                ReadError::Malformed(malformed) => group.damaged(malformed),
                ReadError::Block(error) => error,
            })?;
        }
        Ok(())
    }

    fn read_span(
        &mut self,
        row: usize,
        fixed: &Fixed,
        lists: &ShapeLists,
        attributes: Option<&mut AttributeColumns<'_>>,
    ) -> Result<(), ReadError> {
        const MISSING: Malformed = Malformed("a row has no id or series");
        let owner = u16::try_from(row).unwrap_or(u16::MAX);
        let run = fixed.rows.run_of_row.get(row).and_then(|run| fixed.rows.runs.get(*run as usize)).ok_or(MISSING)?;
        let start = fixed.rows.starts.get(row).copied().ok_or(MISSING)?;
        let series_row = fixed.rows.series.get(row).copied().ok_or(MISSING)?;
        let scope = fixed.rows.scopes.get(row).copied().ok_or(MISSING)?;
        let (kind, status_code) =
            fixed.exceptions.numbers(self.source.series.get(series_row as usize).ok_or(MISSING)?, owner)?;
        let [dropped_attributes, dropped_events, dropped_links] = &fixed.dropped;
        let mut span = Span {
            trace_id: run.trace_id,
            span_id: fixed.span_id(row)?,
            parent_span_id: fixed.parent(row)?,
            start_time_unix_nano: UnixNanos(start),
            end_time_unix_nano: UnixNanos(start.wrapping_add(fixed.durations.get(row))),
            flags: narrow(&fixed.flags, row)?,
            kind,
            status_code,
            scope: self.scopes.copy(scope, &mut self.out)?,
            name: self.name(series_row, fixed, owner)?,
            trace_state: write_text(&fixed.trace_states, row, &mut self.out)?,
            status_message: write_text(&fixed.status_messages, row, &mut self.out)?,
            dropped_attributes_count: narrow(dropped_attributes, row)?,
            dropped_events_count: narrow(dropped_events, row)?,
            dropped_links_count: narrow(dropped_links, row)?,
            ..Span::default()
        };
        if let Some(attributes) = attributes {
            span.attributes = attributes.copy(owner, lists.spans.index(row), &mut self.keys, &mut self.out)?;
            span.events = self.read_events(row, start, fixed, lists, attributes)?;
            span.links = self.read_links(row, fixed, lists, attributes)?;
        }
        self.out.spans.push(span);
        Ok(())
    }

    /// The raw name of an exception, else the series' own, which the answer holds once.
    fn name(&mut self, series: u32, fixed: &Fixed, owner: u16) -> Result<Text, BlockError> {
        if let Ok(exception) = fixed.exceptions.name_rows.binary_search(&owner) {
            return write_text(&fixed.exceptions.names, exception, &mut self.out);
        }
        let at = series as usize;
        if let Some(known) = self.names.get(at).copied().flatten() {
            return Ok(known);
        }
        let name = self.source.series.get(at).map(|key| key.span_name.as_bytes()).unwrap_or_default();
        let name = push_text(&mut self.out, name)?;
        if let Some(known) = self.names.get_mut(at) {
            *known = Some(name);
        }
        Ok(name)
    }

    fn read_events(
        &mut self,
        row: usize,
        span_start: u64,
        fixed: &Fixed,
        lists: &ShapeLists,
        attributes: &mut AttributeColumns<'_>,
    ) -> Result<Rows, ReadError> {
        let owner = u16::try_from(row).unwrap_or(u16::MAX);
        let start = n_rows(&self.out.events)?;
        for event in range_of(&lists.event_ends, row) {
            let since_start = unzigzag(fixed.events.times.get(event));
            let copied = Event {
                time_unix_nano: UnixNanos(span_start.wrapping_add(since_start)),
                name: write_text(&fixed.events.names, event, &mut self.out)?,
                attributes: attributes.copy(owner, lists.events.index(event), &mut self.keys, &mut self.out)?,
                dropped_attributes_count: narrow(&fixed.events.dropped, event)?,
            };
            self.out.events.push(copied);
        }
        Ok(Rows { start, len: n_rows(&self.out.events)? - start })
    }

    fn read_links(
        &mut self,
        row: usize,
        fixed: &Fixed,
        lists: &ShapeLists,
        attributes: &mut AttributeColumns<'_>,
    ) -> Result<Rows, ReadError> {
        const MISSING: Malformed = Malformed("a link has no id");
        let owner = u16::try_from(row).unwrap_or(u16::MAX);
        let start = n_rows(&self.out.links)?;
        for link in range_of(&lists.link_ends, row) {
            let copied = Link {
                trace_id: TraceId(nth(&fixed.links.trace_ids, link).ok_or(MISSING)?),
                span_id: SpanId(nth(&fixed.links.span_ids, link).ok_or(MISSING)?),
                trace_state: write_text(&fixed.links.trace_states, link, &mut self.out)?,
                attributes: attributes.copy(owner, lists.links.index(link), &mut self.keys, &mut self.out)?,
                dropped_attributes_count: narrow(&fixed.links.dropped, link)?,
                flags: narrow(&fixed.links.flags, link)?,
            };
            self.out.links.push(copied);
        }
        Ok(Rows { start, len: n_rows(&self.out.links)? - start })
    }
}

/// What goes wrong in a row: bytes of the group, or anything that names its section already.
enum ReadError {
    Malformed(Malformed),
    Block(BlockError),
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<BlockError> for ReadError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

impl Fixed {
    fn span_id(&self, row: usize) -> Result<SpanId, Malformed> {
        nth(&self.span_ids, row).map(SpanId).ok_or(Malformed("a row has no span id"))
    }

    fn parent(&self, row: usize) -> Result<SpanId, Malformed> {
        const MISSING: Malformed = Malformed("a parent is missing");
        match self.rows.parents.get(row).copied().unwrap_or_default() {
            0 => Ok(SpanId::default()),
            1 => {
                let owner = u16::try_from(row).unwrap_or(u16::MAX);
                let at = self.raw_parent_rows.binary_search(&owner).map_err(|_| MISSING)?;
                nth(&self.raw_parents, at).map(SpanId).ok_or(MISSING)
            }
            code => nth(&self.span_ids, parent_row(row, code).ok_or(MISSING)?).map(SpanId).ok_or(MISSING),
        }
    }
}

impl Exceptions {
    /// Kind and status code of a row.
    fn numbers(&self, series: &SeriesKey<'_>, owner: u16) -> Result<(i32, i32), Malformed> {
        let kind = match self.kind_rows.binary_search(&owner) {
            Ok(at) => narrow(&self.kinds, at)?.cast_signed(),
            Err(_) => i32::from(series.kind as u8),
        };
        let status_code = match self.status_rows.binary_search(&owner) {
            Ok(at) => narrow(&self.statuses, at)?.cast_signed(),
            Err(_) => i32::from(series.status as u8),
        };
        Ok((kind, status_code))
    }
}

fn read_fixed(group: &mut Group<'_>, header: &Header) -> Result<(Fixed, ShapeLists), BlockError> {
    let n = group.n_rows;
    let known = RowsKnown::read(group)?;
    let rows = known.contexts(header);
    let raw_parent_rows = rows_where(n, |row| known.parents.get(row) == Some(&1));
    let (event_ends, event_rows) = items(group, column::EVENT_COUNT, rows)?;
    let (link_ends, link_rows) = items(group, column::LINK_COUNT, rows)?;
    let lists = ShapeLists {
        spans: group.numbers(column::SHAPE, n, rows)?,
        events: group.numbers(column::EVENT_SHAPE, event_rows.len(), rows.of(&event_rows))?,
        links: group.numbers(column::LINK_SHAPE, link_rows.len(), rows.of(&link_rows))?,
        event_ends,
        link_ends,
    };
    let dropped = [column::DROPPED_ATTRIBUTES, column::DROPPED_EVENTS, column::DROPPED_LINKS];
    let [attributes, events, links] = dropped.map(|column| group.numbers(column, n, rows));
    let fixed = Fixed {
        durations: group.ints(column::DURATION, n)?,
        flags: group.numbers(column::FLAGS, n, rows)?,
        span_ids: group.raw(column::SPAN_ID)?.to_vec(),
        raw_parents: group.raw(column::PARENT_RAW)?.to_vec(),
        trace_states: group.texts(column::TRACE_STATE, n, rows)?,
        status_messages: group.texts(column::STATUS_MESSAGE, n, rows)?,
        dropped: [attributes?, events?, links?],
        exceptions: read_exceptions(group, rows)?,
        events: read_events(group, rows.of(&event_rows), event_rows.len())?,
        links: read_links(group, rows.of(&link_rows), link_rows.len())?,
        raw_parent_rows,
        rows: known,
    };
    Ok((fixed, lists))
}

/// Where the events or links of each row end, and the row of each; no ends when there are none at all.
pub(super) fn items(
    group: &mut Group<'_>,
    column: ColumnId,
    rows: Contexts<'_>,
) -> Result<(Vec<usize>, Vec<u16>), BlockError> {
    let counts = group.numbers(column, group.n_rows, rows)?;
    if let Ints::Constant(0) = counts {
        return Ok((Vec::new(), Vec::new()));
    }
    let (mut ends, mut owners) = (Vec::with_capacity(group.n_rows), Vec::new());
    for (row, owner) in (0..group.n_rows).zip(0_u16..) {
        let end = owners.len().saturating_add(counts.index(row));
        if GROUP_ITEMS_MAX < end {
            return Err(group.damaged(Malformed("more events or links than a row group holds")));
        }
        owners.resize(end, owner);
        ends.push(end);
    }
    Ok((ends, owners))
}

fn read_exceptions(group: &mut Group<'_>, rows: Contexts<'_>) -> Result<Exceptions, BlockError> {
    let n = group.n_rows;
    let exceptions = group.numbers(column::EXCEPTIONS, n, rows)?;
    let n_looked_at = if let Ints::Constant(0) = exceptions { 0 } else { n };
    let [name_rows, kind_rows, status_rows] =
        [1, 2, 4].map(|bit| rows_where(n_looked_at, |row| exceptions.get(row) & bit != 0));
    Ok(Exceptions {
        names: group.texts(column::RAW_NAME, name_rows.len(), rows.of(&name_rows))?,
        kinds: group.numbers(column::RAW_KIND, kind_rows.len(), rows.of(&kind_rows))?,
        statuses: group.numbers(column::RAW_STATUS, status_rows.len(), rows.of(&status_rows))?,
        name_rows,
        kind_rows,
        status_rows,
    })
}

fn read_events(group: &mut Group<'_>, owners: Contexts<'_>, n: usize) -> Result<Events, BlockError> {
    Ok(Events {
        times: group.ints(column::EVENT_TIME, n)?,
        names: group.texts(column::EVENT_NAME, n, owners)?,
        dropped: group.numbers(column::EVENT_DROPPED, n, owners)?,
    })
}

fn read_links(group: &mut Group<'_>, owners: Contexts<'_>, n: usize) -> Result<Links, BlockError> {
    Ok(Links {
        trace_ids: group.raw(column::LINK_TRACE)?.to_vec(),
        span_ids: group.raw(column::LINK_SPAN)?.to_vec(),
        trace_states: group.texts(column::LINK_TRACE_STATE, n, owners)?,
        dropped: group.numbers(column::LINK_DROPPED, n, owners)?,
        flags: group.numbers(column::LINK_FLAGS, n, owners)?,
    })
}

pub(super) fn rows_where(n: usize, is_one: impl Fn(usize) -> bool) -> Vec<u16> {
    (0..n).zip(0_u16..).filter(|(row, _)| is_one(*row)).map(|(_, owner)| owner).collect()
}

/// A number that was 32 bits wide.
pub(super) fn narrow(numbers: &Ints, idx: usize) -> Result<u32, Malformed> {
    u32::try_from(numbers.get(idx)).map_err(|_| Malformed("a number is above 32 bits"))
}

/// The n-th of fixed-size items.
pub(super) fn nth<const N: usize>(items: &[u8], idx: usize) -> Option<[u8; N]> {
    items.get(idx.checked_mul(N)?..)?.first_chunk::<N>().copied()
}
