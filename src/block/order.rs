//! The order of spans in a block, and which of two spans with one identity stays.

use std::cmp::Ordering;
use std::sync::Arc;

use super::RowRef;
use crate::model::{Attribute, Rows, Span, SpanBatch, Text, Value};

/// Spans of many batches in block order, each identity once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ordered {
    /// In `SpanKey` order, without duplicates.
    pub rows: Vec<RowRef>,
    /// Spans left out because an earlier one has their key.
    pub duplicates: u64,
    /// Those of `duplicates` that differ from the earlier one in content.
    pub conflicting_duplicates: u64,
}

/// The part of the key that decides nearly always, beside where the span is.
struct Place {
    trace_id: u128,
    start: u64,
    row: RowRef,
}

/// Sorts the spans of `batches`, given in arrival order, and leaves out all but the first of each key.
///
/// Cost: O(n log n) comparisons of 24 bytes; a span's content is only looked at for duplicates.
pub fn order(batches: &[Arc<SpanBatch>]) -> Ordered {
    let mut places: Vec<Place> = Vec::with_capacity(batches.iter().map(|batch| batch.spans.len()).sum());
    for (batch, spans) in (0..).zip(batches) {
        places.extend((0..).zip(&spans.spans).map(|(row, span)| Place {
            trace_id: u128::from_be_bytes(span.trace_id.0),
            start: span.start_time_unix_nano.0,
            row: RowRef { batch, row },
        }));
    }
    places.sort_unstable_by(|a, b| compare(batches, a, b));

    let mut ordered = Ordered { rows: Vec::with_capacity(places.len()), ..Ordered::default() };
    for place in places {
        let earlier = ordered.rows.last().and_then(|row| find(batches, *row));
        match (earlier, find(batches, place.row)) {
            (Some(earlier), Some(later)) if earlier.1.key() == later.1.key() => {
                ordered.duplicates += 1;
                ordered.conflicting_duplicates += u64::from(!same_content(earlier, later));
            }
            _ => ordered.rows.push(place.row),
        }
    }
    ordered
}

fn compare(batches: &[Arc<SpanBatch>], a: &Place, b: &Place) -> Ordering {
    let coarse = (a.trace_id, a.start).cmp(&(b.trace_id, b.start));
    coarse.then_with(|| {
        let key = |place: &Place| find(batches, place.row).map(|(_, span)| (span.span_id, span.kind));
        key(a).cmp(&key(b)).then_with(|| (a.row.batch, a.row.row).cmp(&(b.row.batch, b.row.row)))
    })
}

/// A span and the batch it points into.
pub type Located<'a> = (&'a SpanBatch, &'a Span);

/// The span that `row` names; `None` when there is none.
pub fn find(batches: &[Arc<SpanBatch>], row: RowRef) -> Option<Located<'_>> {
    let batch = batches.get(row.batch as usize)?;
    batch.spans.get(row.row as usize).map(|span| (batch.as_ref(), span))
}

/// Whether two spans say the same, their resource and scope included.
pub fn same_content(a: Located<'_>, b: Located<'_>) -> bool {
    let scalars = |span: &Span| {
        let counts = [span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count, span.flags];
        (span.key(), span.parent_span_id, span.end_time_unix_nano, span.status_code, counts)
    };
    let texts = |span: &Span| [span.name, span.trace_state, span.status_message];
    scalars(a.1) == scalars(b.1)
        && same_texts((a.0, texts(a.1)), (b.0, texts(b.1)))
        && same_attributes((a.0, a.1.attributes), (b.0, b.1.attributes))
        && same_events(a, b)
        && same_links(a, b)
        && same_scope(a, b)
}

fn same_texts<const N: usize>(a: (&SpanBatch, [Text; N]), b: (&SpanBatch, [Text; N])) -> bool {
    a.1.iter().zip(&b.1).all(|(of_a, of_b)| a.0.text(*of_a) == b.0.text(*of_b))
}

fn same_attributes(a: (&SpanBatch, Rows), b: (&SpanBatch, Rows)) -> bool {
    let (of_a, of_b) = (a.0.attributes(a.1), b.0.attributes(b.1));
    let same = |(x, y): (&Attribute, &Attribute)| {
        a.0.text(x.key) == b.0.text(y.key) && same_value((a.0, x.value), (b.0, y.value))
    };
    of_a.len() == of_b.len() && of_a.iter().zip(of_b).all(same)
}

fn same_value(a: (&SpanBatch, Value), b: (&SpanBatch, Value)) -> bool {
    match (a.1, b.1) {
        (Value::Empty, Value::Empty) => true,
        (Value::Bool(x), Value::Bool(y)) => x == y,
        (Value::Int(x), Value::Int(y)) => x == y,
        (Value::Double(x), Value::Double(y)) => x.to_bits() == y.to_bits(),
        (Value::String(x), Value::String(y))
        | (Value::Bytes(x), Value::Bytes(y))
        | (Value::Nested(x), Value::Nested(y)) => a.0.text(x) == b.0.text(y),
        _ => false,
    }
}

fn same_events(a: Located<'_>, b: Located<'_>) -> bool {
    let (of_a, of_b) = (a.0.events(a.1.events), b.0.events(b.1.events));
    of_a.len() == of_b.len()
        && of_a.iter().zip(of_b).all(|(x, y)| {
            (x.time_unix_nano, x.dropped_attributes_count) == (y.time_unix_nano, y.dropped_attributes_count)
                && same_texts((a.0, [x.name]), (b.0, [y.name]))
                && same_attributes((a.0, x.attributes), (b.0, y.attributes))
        })
}

fn same_links(a: Located<'_>, b: Located<'_>) -> bool {
    let (of_a, of_b) = (a.0.links(a.1.links), b.0.links(b.1.links));
    of_a.len() == of_b.len()
        && of_a.iter().zip(of_b).all(|(x, y)| {
            let scalars =
                |link: &crate::model::Link| (link.trace_id, link.span_id, link.dropped_attributes_count, link.flags);
            scalars(x) == scalars(y)
                && same_texts((a.0, [x.trace_state]), (b.0, [y.trace_state]))
                && same_attributes((a.0, x.attributes), (b.0, y.attributes))
        })
}

fn same_scope(a: Located<'_>, b: Located<'_>) -> bool {
    let (x, y) = (a.0.scope(a.1), b.0.scope(b.1));
    let (of_x, of_y) = (a.0.resource(a.1), b.0.resource(b.1));
    x.dropped_attributes_count == y.dropped_attributes_count
        && of_x.dropped_attributes_count == of_y.dropped_attributes_count
        && same_texts((a.0, [x.name, x.version, x.schema_url]), (b.0, [y.name, y.version, y.schema_url]))
        && same_texts((a.0, [of_x.schema_url, of_x.entity_refs]), (b.0, [of_y.schema_url, of_y.entity_refs]))
        && same_attributes((a.0, x.attributes), (b.0, y.attributes))
        && same_attributes((a.0, of_x.attributes), (b.0, of_y.attributes))
}
