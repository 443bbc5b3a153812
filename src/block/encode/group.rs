//! The second pass: spreads the spans of one row group over the columns.

use std::collections::HashMap;

use super::column::Column;
use super::survey::{Located, Survey};
use crate::block::codec::{NO_ROW, put_varint, zigzag};
use crate::block::columns as column;
use crate::block::columns::ColumnId;
use crate::model::{Rows, Span, SpanBatch, SpanId, Value};

/// Runs longer than this get a map from span id to row.
const SCANNED_RUN_MAX: usize = 24;

/// Columns by number.
pub(super) struct Columns<'a>(pub(super) Vec<Column<'a>>);

impl<'a> Columns<'a> {
    fn number(&mut self, column: ColumnId, value: u64) {
        if let Some(column) = self.0.get_mut(usize::from(column)) {
            column.numbers.push(value);
        }
    }

    fn owned_number(&mut self, column: ColumnId, row: u16, value: u64) {
        if let Some(column) = self.0.get_mut(usize::from(column)) {
            column.numbers.push(value);
            column.owners.push(row);
        }
    }

    fn text(&mut self, column: ColumnId, text: &'a [u8]) {
        if let Some(column) = self.0.get_mut(usize::from(column)) {
            column.texts.push(text);
        }
    }

    fn owned_text(&mut self, column: ColumnId, row: u16, text: &'a [u8]) {
        if let Some(column) = self.0.get_mut(usize::from(column)) {
            column.texts.push(text);
            column.owners.push(row);
        }
    }

    fn raw(&mut self, column: ColumnId, bytes: &[u8]) {
        if let Some(column) = self.0.get_mut(usize::from(column)) {
            column.raw.extend_from_slice(bytes);
        }
    }
}

/// Position in the lists of the survey that do not go by rows.
#[derive(Default)]
pub(super) struct Cursor {
    event: usize,
    link: usize,
}

/// What the rows of a group are to each other.
pub(super) struct Filled {
    /// The run (rows of one trace) of each row.
    pub(super) runs: Vec<u32>,
    /// The row of each row's parent, or `NO_ROW`.
    pub(super) parents: Vec<u16>,
}

/// Fills the columns with the spans of a group, whose first one is row `first` of the block.
pub(super) fn fill<'a>(
    columns: &mut Columns<'a>,
    spans: &[Located<'a>],
    first: usize,
    survey: &Survey<'a>,
    cursor: &mut Cursor,
) -> Filled {
    let mut runs = Vec::with_capacity(spans.len());
    let mut parents = Vec::with_capacity(spans.len());
    let mut start_row: u16 = 0;
    let by_trace = |a: &Located<'_>, b: &Located<'_>| a.1.trace_id == b.1.trace_id;
    for (number, run) in (0..).zip(spans.chunk_by(by_trace)) {
        runs.resize(runs.len() + run.len(), number);
        fill_run(columns, run);
        fill_parents(columns, run, &mut parents);
        for (offset, (batch, span)) in (0_u16..).zip(run) {
            let row = start_row + offset;
            fill_span(columns, batch, span, row, first + usize::from(row), survey);
            fill_events(columns, batch, span, row, survey, cursor);
            fill_links(columns, batch, span, row, survey, cursor);
        }
        start_row = start_row.saturating_add(u16::try_from(run.len()).unwrap_or(u16::MAX));
    }
    Filled { runs, parents }
}

/// Trace and start times: rows of one trace are neighbours and ascend.
fn fill_run(columns: &mut Columns<'_>, run: &[Located<'_>]) {
    let Some((_, first)) = run.first() else { return };
    let mut length = Vec::new();
    put_varint(&mut length, run.len() as u64);
    columns.raw(column::TRACE, &length);
    columns.raw(column::TRACE, &first.trace_id.0);
    columns.number(column::TRACE_START, first.start_time_unix_nano.0);
    for (before, after) in run.iter().zip(run.iter().skip(1)) {
        let delta = after.1.start_time_unix_nano.0.wrapping_sub(before.1.start_time_unix_nano.0);
        columns.number(column::START_DELTA, delta);
    }
}

fn fill_parents(columns: &mut Columns<'_>, run: &[Located<'_>], parents: &mut Vec<u16>) {
    let start = parents.len();
    let rows: HashMap<SpanId, usize> = if SCANNED_RUN_MAX < run.len() {
        run.iter().enumerate().map(|(row, (_, span))| (span.span_id, row)).collect()
    } else {
        HashMap::new()
    };
    for (row, (_, span)) in run.iter().enumerate() {
        let parent = span.parent_span_id;
        let parent_row = if rows.is_empty() {
            run.iter().position(|(_, other)| other.span_id == parent)
        } else {
            rows.get(&parent).copied()
        };
        let in_group = parent_row.filter(|_| !parent.is_zero()).and_then(|row| u16::try_from(start + row).ok());
        parents.push(in_group.unwrap_or(NO_ROW));
        let code = match parent_row {
            _ if parent.is_zero() => 0,
            Some(parent_row) => 2 + zigzag((row as u64).wrapping_sub(parent_row as u64)),
            None => {
                columns.raw(column::PARENT_RAW, &parent.0);
                1
            }
        };
        columns.number(column::PARENT, code);
    }
}

fn fill_span<'a>(
    columns: &mut Columns<'a>,
    batch: &'a SpanBatch,
    span: &Span,
    row: u16,
    block_row: usize,
    survey: &Survey<'a>,
) {
    let of_row = |ids: &[u32]| ids.get(block_row).copied().unwrap_or(0);
    let (series, shape) = (of_row(&survey.row_series), of_row(&survey.row_shapes));
    columns.raw(column::SPAN_ID, &span.span_id.0);
    let duration = span.end_time_unix_nano.0.wrapping_sub(span.start_time_unix_nano.0);
    for (column, value) in [
        (column::DURATION, duration),
        (column::SERIES, u64::from(series)),
        (column::SCOPE, u64::from(of_row(&survey.row_scopes))),
        (column::FLAGS, u64::from(span.flags)),
        (column::SHAPE, u64::from(shape)),
        (column::DROPPED_ATTRIBUTES, u64::from(span.dropped_attributes_count)),
        (column::DROPPED_EVENTS, u64::from(span.dropped_events_count)),
        (column::DROPPED_LINKS, u64::from(span.dropped_links_count)),
        (column::EVENT_COUNT, batch.events(span.events).len() as u64),
        (column::LINK_COUNT, batch.links(span.links).len() as u64),
    ] {
        columns.number(column, value);
    }
    columns.text(column::TRACE_STATE, batch.text(span.trace_state));
    columns.text(column::STATUS_MESSAGE, batch.text(span.status_message));
    let exceptions = survey.row_exceptions.get(block_row).copied().unwrap_or(0);
    fill_exceptions(columns, batch, span, row, exceptions);
    fill_attributes(columns, batch, span.attributes, row, survey, shape);
}

fn fill_exceptions<'a>(columns: &mut Columns<'a>, batch: &'a SpanBatch, span: &Span, row: u16, exceptions: u8) {
    if exceptions & 1 != 0 {
        columns.owned_text(column::RAW_NAME, row, batch.text(span.name));
    }
    if exceptions & 2 != 0 {
        columns.owned_number(column::RAW_KIND, row, u64::from(span.kind.cast_unsigned()));
    }
    if exceptions & 4 != 0 {
        columns.owned_number(column::RAW_STATUS, row, u64::from(span.status_code.cast_unsigned()));
    }
    columns.number(column::EXCEPTIONS, u64::from(exceptions));
}

fn fill_attributes<'a>(
    columns: &mut Columns<'a>,
    batch: &'a SpanBatch,
    attributes: Rows,
    row: u16,
    survey: &Survey<'a>,
    shape: u32,
) {
    for (attribute, column) in batch.attributes(attributes).iter().zip(survey.shapes.columns(shape)) {
        let Some(column) = column else { continue };
        match attribute.value {
            Value::Empty => {}
            Value::Bool(value) => columns.owned_number(column, row, u64::from(value)),
            Value::Int(value) => columns.owned_number(column, row, zigzag(value.cast_unsigned())),
            Value::Double(value) => columns.owned_number(column, row, value.to_bits()),
            Value::String(text) | Value::Bytes(text) | Value::Nested(text) => {
                columns.owned_text(column, row, batch.text(text));
            }
        }
    }
}

fn fill_events<'a>(
    columns: &mut Columns<'a>,
    batch: &'a SpanBatch,
    span: &Span,
    row: u16,
    survey: &Survey<'a>,
    cursor: &mut Cursor,
) {
    for event in batch.events(span.events) {
        let shape = survey.event_shapes.get(cursor.event).copied().unwrap_or(0);
        cursor.event += 1;
        let since_start = event.time_unix_nano.0.wrapping_sub(span.start_time_unix_nano.0);
        columns.number(column::EVENT_TIME, zigzag(since_start));
        columns.owned_text(column::EVENT_NAME, row, batch.text(event.name));
        columns.owned_number(column::EVENT_SHAPE, row, u64::from(shape));
        columns.owned_number(column::EVENT_DROPPED, row, u64::from(event.dropped_attributes_count));
        fill_attributes(columns, batch, event.attributes, row, survey, shape);
    }
}

fn fill_links<'a>(
    columns: &mut Columns<'a>,
    batch: &'a SpanBatch,
    span: &Span,
    row: u16,
    survey: &Survey<'a>,
    cursor: &mut Cursor,
) {
    for link in batch.links(span.links) {
        let shape = survey.link_shapes.get(cursor.link).copied().unwrap_or(0);
        cursor.link += 1;
        columns.raw(column::LINK_TRACE, &link.trace_id.0);
        columns.raw(column::LINK_SPAN, &link.span_id.0);
        columns.owned_text(column::LINK_TRACE_STATE, row, batch.text(link.trace_state));
        columns.owned_number(column::LINK_SHAPE, row, u64::from(shape));
        columns.owned_number(column::LINK_DROPPED, row, u64::from(link.dropped_attributes_count));
        columns.owned_number(column::LINK_FLAGS, row, u64::from(link.flags));
        fill_attributes(columns, batch, link.attributes, row, survey, shape);
    }
}
