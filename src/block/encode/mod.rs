//! Writing a block: one pass to learn what the spans have in common, one to put them into columns.

mod column;
mod group;
mod index;
mod scopes;
mod shapes;
mod skip;
mod survey;

pub(super) use column::{TEXTS_CODED, TEXTS_CODED_BY, TEXTS_PLAIN, TEXTS_SAME};

use std::sync::Arc;

use self::column::{Column, Predictors};
use self::group::{Columns, Cursor, Filled, fill};
use self::survey::{Located, Survey, survey};
use super::codec::{Contexts, Packer, RowIds, callers, put_blob, put_text};
use super::columns::{
    ColumnId, FIRST_DYNAMIC, GROUP_ITEMS_MAX, GROUP_ROWS, GROUP_VALUES_MAX, contexts_of, kind_of_fixed,
};
use super::error::BlockError;
use super::filter::TraceFilter;
use super::header::{Chunk, DictionaryChunk, Header, TableLengths};
use super::order::find;
use super::{BlockSummary, RowRef, SectionId};
use crate::limits::BLOCK_SPANS_MAX;
use crate::model::{Conventions, SeriesKey, Span, SpanBatch, TraceId, UnixNanos};

/// A block ready to be stored.
#[derive(Debug)]
pub struct Encoded {
    /// All sections but latency, ascending.
    pub sections: Vec<(SectionId, Vec<u8>)>,
    /// The block's series, ascending: those of one service stand together.
    pub series: Vec<SeriesKey<'static>>,
    /// Per row, its index in `series`.
    pub row_series: Vec<u32>,
    /// As `Block::summary` will give it.
    pub summary: BlockSummary,
}

/// Writes the spans that `rows` names, which must be as `order` gave them: at most `limits::BLOCK_SPANS_MAX`.
///
/// `horizon` is stored as it is. Cost: O(bytes of the spans), two passes; memory about 100 bytes per span.
///
/// # Errors
/// `TooManySpans`, `NoSuchRow`, and `TooLarge` when a section would pass 4 GiB.
pub fn encode(
    batches: &[Arc<SpanBatch>],
    rows: &[RowRef],
    horizon: UnixNanos,
    conventions: &Conventions,
) -> Result<Encoded, BlockError> {
    encode_with(batches, rows, horizon, conventions, Packer::new())
}

/// The same with a packer of the caller's.
pub(super) fn encode_with(
    batches: &[Arc<SpanBatch>],
    rows: &[RowRef],
    horizon: UnixNanos,
    conventions: &Conventions,
    mut packer: Packer,
) -> Result<Encoded, BlockError> {
    if BLOCK_SPANS_MAX < rows.len() {
        return Err(BlockError::TooManySpans { rows: rows.len(), max: BLOCK_SPANS_MAX });
    }
    let located = |row: &RowRef| find(batches, *row).ok_or(BlockError::NoSuchRow { batch: row.batch, row: row.row });
    let spans = rows.iter().map(located).collect::<Result<Vec<Located<'_>>, BlockError>>()?;
    let batch_of: Vec<u32> = rows.iter().map(|row| row.batch).collect();
    let survey = survey(&spans, &batch_of, batches.len(), BlockSummary::empty(horizon), conventions);

    let mut columns = empty_columns(&survey);
    let (mut fences, mut directory, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let mut cursor = Cursor::default();
    for (number, group) in spans.chunks(GROUP_ROWS).enumerate() {
        check_items(group)?;
        fences.push(group.first().map_or(TraceId::default(), |(_, span)| span.trace_id));
        let first = number * GROUP_ROWS;
        let filled = fill(&mut columns, group, first, &survey, &mut cursor);
        let known = contexts(&survey, first, &filled);
        let (ids, n) = callers(known.scopes.ids, &known);
        let known = Contexts { callers: RowIds { ids: &ids, n }, ..known };
        let (bytes, chunks) = finish_group(&mut columns, &known, &mut packer)?;
        groups.push((SectionId::of_group(number), bytes));
        directory.push(chunks);
    }
    let (dictionary_bytes, dictionaries) = finish_dictionaries(&columns, &mut packer)?;
    let (table_bytes, tables) = finish_tables(&survey, &mut packer)?;
    let header = Header {
        summary: survey.summary.clone(),
        n_series: to_u32(survey.series.len(), "the table of series")?,
        n_scopes: to_u32(survey.scopes.n_scopes(), "the table of scopes")?,
        tables,
        fences,
        groups: directory,
        dictionaries,
    };
    let mut sections = vec![
        (SectionId::HEADER, header.encode(&mut packer)),
        (SectionId::FILTER, trace_filter(&spans).encode()),
        (SectionId::DICTIONARIES, dictionary_bytes),
        (SectionId::TABLES, table_bytes),
    ];
    sections.push((SectionId::SKIP, skip::skip_index(&spans, &survey, &mut packer)));
    sections.append(&mut groups);
    let series = survey.series.into_iter().map(SeriesKey::into_owned).collect();
    Ok(Encoded { sections, series, row_series: survey.row_series, summary: survey.summary })
}

fn empty_columns<'a>(survey: &Survey<'_>) -> Columns<'a> {
    let fixed = (0..FIRST_DYNAMIC).map(kind_of_fixed);
    Columns(fixed.chain(survey.shapes.dynamic_kinds()).map(Column::new).collect())
}

/// What a reader would refuse is not written.
fn check_items(group: &[Located<'_>]) -> Result<(), BlockError> {
    let events: usize = group.iter().map(|(batch, span)| batch.events(span.events).len()).sum();
    let links: usize = group.iter().map(|(batch, span)| batch.links(span.links).len()).sum();
    let values: usize = group.iter().map(|(batch, span)| n_values(batch, span)).sum();
    if GROUP_VALUES_MAX < values {
        return Err(BlockError::TooLarge { what: "the attributes of a row group" });
    }
    if GROUP_ITEMS_MAX < events.max(links) {
        return Err(BlockError::TooLarge { what: "the events or links of a row group" });
    }
    Ok(())
}

fn n_values(batch: &SpanBatch, span: &Span) -> usize {
    let of_events: usize = batch.events(span.events).iter().map(|event| batch.attributes(event.attributes).len()).sum();
    let of_links: usize = batch.links(span.links).iter().map(|link| batch.attributes(link.attributes).len()).sum();
    batch.attributes(span.attributes).len() + of_events + of_links
}

fn contexts<'a>(survey: &'a Survey<'_>, first: usize, filled: &'a Filled) -> Contexts<'a> {
    let rows = first..first + filled.runs.len();
    Contexts {
        owners: None,
        series: RowIds { ids: survey.row_series.get(rows.clone()).unwrap_or_default(), n: survey.series.len() },
        scopes: RowIds { ids: survey.row_scopes.get(rows).unwrap_or_default(), n: survey.scopes.n_scopes() },
        traces: RowIds { ids: &filled.runs, n: filled.runs.len() },
        parents: &filled.parents,
        callers: RowIds::NONE,
    }
}

/// The chunks one behind the other, and where each is.
fn finish_group(
    columns: &mut Columns<'_>,
    contexts: &Contexts<'_>,
    packer: &mut Packer,
) -> Result<(Vec<u8>, Vec<Chunk>), BlockError> {
    let (mut bytes, mut chunks) = (Vec::new(), Vec::new());
    let mut predictors = Predictors::default();
    for (number, column) in (0..).zip(&mut columns.0) {
        let start = bytes.len();
        column.finish_group(&mut bytes, &contexts_of(number, *contexts), &mut predictors, packer);
        if start < bytes.len() {
            chunks.push(chunk(number, start, bytes.len())?);
        }
    }
    Ok((bytes, chunks))
}

fn finish_dictionaries(
    columns: &Columns<'_>,
    packer: &mut Packer,
) -> Result<(Vec<u8>, Vec<DictionaryChunk>), BlockError> {
    let (mut bytes, mut dictionaries) = (Vec::new(), Vec::new());
    for (number, column) in (0..).zip(&columns.0) {
        let start = bytes.len();
        let n_entries = to_u32(column.finish_dictionary(&mut bytes, packer), "a dictionary")?;
        if 0 < n_entries {
            dictionaries.push(DictionaryChunk { chunk: chunk(number, start, bytes.len())?, n_entries });
        }
    }
    Ok((bytes, dictionaries))
}

fn chunk(column: ColumnId, start: usize, end: usize) -> Result<Chunk, BlockError> {
    let _end = to_u32(end, "a section")?;
    Ok(Chunk { column, offset: to_u32(start, "a section")?, len: to_u32(end - start, "a section")? })
}

fn finish_tables(survey: &Survey<'_>, packer: &mut Packer) -> Result<(Vec<u8>, TableLengths), BlockError> {
    let attributes = survey.shapes.encode(packer);
    let scopes = survey.scopes.encode(packer);
    let series = encode_series(&survey.series, packer);
    let all = [attributes.as_slice(), &scopes, &series].concat();
    let _end = to_u32(all.len(), "the tables")?;
    let lengths = TableLengths {
        attributes: to_u32(attributes.len(), "the tables")?,
        scopes: to_u32(scopes.len(), "the tables")?,
        series: to_u32(series.len(), "the tables")?,
    };
    Ok((all, lengths))
}

/// `(namespace:text service:text span_name:text kind:u8 status:u8 entry:u8)*`, as a blob.
fn encode_series(series: &[SeriesKey<'_>], packer: &mut Packer) -> Vec<u8> {
    let mut raw = Vec::new();
    for key in series {
        for text in [&key.namespace, &key.service, &key.span_name] {
            put_text(&mut raw, text.as_bytes());
        }
        raw.extend_from_slice(&[key.kind as u8, key.status as u8, u8::from(key.entry)]);
    }
    let mut out = Vec::new();
    put_blob(&mut out, &raw, packer);
    out
}

fn trace_filter(spans: &[Located<'_>]) -> TraceFilter {
    let traces = || spans.chunk_by(|a, b| a.1.trace_id == b.1.trace_id).filter_map(<[_]>::first);
    let mut filter = TraceFilter::sized(traces().count());
    for (_, span) in traces() {
        filter.insert(span.trace_id);
    }
    filter
}

fn to_u32(len: usize, what: &'static str) -> Result<u32, BlockError> {
    u32::try_from(len).map_err(|_| BlockError::TooLarge { what })
}
