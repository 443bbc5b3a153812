//! The size of a span as it is stored, and what is cut from one that is too large.

use std::cmp::Reverse;

use super::decode::{Decoder, Policy, Stop};
use super::outcome::{Rejection, Warning};
use super::rewrite::{Rewritten, ShorterLeaf, rewrite_value};
use super::text::floor_char_boundary;
use super::value::{Member, Step, Walk};
use super::writer::field_len;
use crate::limits::SPAN_BYTES_MAX;
use crate::model::{Attribute, Rows, Span, Text, Value};

/// Ids, times, flags, kind, status code and counts of a span with their tags, at most.
const SPAN_FIXED_BYTES: usize = 100;
/// The same of an event or link.
const INNER_FIXED_BYTES: usize = 48;

/// A string or bytes of a span; sorted, the largest come first, then document order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cuttable {
    len: Reverse<u32>,
    row: usize,
    /// Place inside a nested value, else 0.
    leaf: u32,
    /// In the arena.
    start: u32,
}

/// A string or bytes to be shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cut {
    row: usize,
    leaf: u32,
    kept: u32,
}

impl Decoder<'_> {
    /// Makes a span fit into `limits::SPAN_BYTES_MAX`, whose attributes are the rows from `first_row` on: its largest
    /// values are cut first, those of equal size in document order. What was acknowledged is never refused on replay.
    #[cold]
    pub(super) fn fit(&mut self, span: &Span, first_row: usize) -> Result<(), Stop> {
        let excess = self.stored_len(span).saturating_sub(SPAN_BYTES_MAX);
        if excess == 0 {
            return Ok(());
        }
        let cuts = self.choose_cuts(first_row, excess)?;
        for of_row in cuts.chunk_by(|cut, next| cut.row == next.row) {
            self.apply(of_row)?;
        }
        self.warn_times(Warning::Truncated, u32::try_from(cuts.len()).unwrap_or(u32::MAX));
        if SPAN_BYTES_MAX < self.stored_len(span) && matches!(self.policy, Policy::Check(_)) {
            return Err(Stop::Rejected(Rejection::SpanTooLarge));
        }
        Ok(())
    }

    /// Bytes of the span in OTLP, at most. What was dropped, unknown or sent twice does not count.
    fn stored_len(&self, span: &Span) -> usize {
        let inner = |texts: usize, rows| {
            let fields = INNER_FIXED_BYTES + texts + self.attributes_len(rows);
            field_len(fields)
        };
        let events = self.events.get(span.events.start as usize..).unwrap_or_default();
        let events = events.iter().take(span.events.len as usize);
        let links = self.links.get(span.links.start as usize..).unwrap_or_default();
        let links = links.iter().take(span.links.len as usize);
        let texts = [span.name, span.trace_state, span.status_message];
        SPAN_FIXED_BYTES
            + texts.iter().map(|text| field_len(text.len as usize)).sum::<usize>()
            + self.attributes_len(span.attributes)
            + events.map(|event| inner(field_len(event.name.len as usize), event.attributes)).sum::<usize>()
            + links.map(|link| inner(field_len(link.trace_state.len as usize), link.attributes)).sum::<usize>()
    }

    fn attributes_len(&self, rows: Rows) -> usize {
        let rows_from_here = self.attributes.get(rows.start as usize..).unwrap_or_default();
        rows_from_here.iter().take(rows.len as usize).map(attribute_len).sum()
    }

    /// Which values to shorten so that `excess` bytes go, by row and place.
    fn choose_cuts(&mut self, first_row: usize, mut excess: usize) -> Result<Vec<Cut>, Stop> {
        let mut cuttable = self.cuttable(first_row)?;
        cuttable.sort_unstable();
        let mut cuts = Vec::new();
        for Cuttable { len: Reverse(len), row, leaf, start } in cuttable {
            if excess == 0 {
                break;
            }
            let bytes = self.arena(Text { start, len });
            let kept = floor_char_boundary(bytes, bytes.len().saturating_sub(excess));
            excess = excess.saturating_sub(bytes.len() - kept);
            cuts.push(Cut { row, leaf, kept: u32::try_from(kept).unwrap_or(len) });
        }
        cuts.sort_unstable();
        Ok(cuts)
    }

    fn cuttable(&mut self, first_row: usize) -> Result<Vec<Cuttable>, Stop> {
        let mut found = Vec::new();
        let mut frames = std::mem::take(&mut self.frames);
        for (row, attribute) in self.attributes.iter().enumerate().skip(first_row) {
            match attribute.value {
                Value::String(Text { start, len }) | Value::Bytes(Text { start, len }) => {
                    found.push(Cuttable { len: Reverse(len), row, leaf: 0, start });
                }
                Value::Nested(nested) => {
                    let mut leaf = 0;
                    let piece = Text { start: 0, len: nested.len };
                    let mut walk = Walk::new(self.arena(nested), piece, &mut frames);
                    while let Some(step) = walk.step()? {
                        let Step::Scalar(Member::String(text) | Member::Bytes(text)) = step else { continue };
                        found.push(Cuttable { len: Reverse(text.len), row, leaf, start: nested.start + text.start });
                        leaf += 1;
                    }
                }
                Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => {}
            }
        }
        self.frames = frames;
        found.retain(|cuttable| cuttable.len != Reverse(0));
        Ok(found)
    }

    /// Shortens what is in one row.
    fn apply(&mut self, cuts: &[Cut]) -> Result<(), Stop> {
        let Some(Cut { row, kept, .. }) = cuts.first().copied() else { return Ok(()) };
        let Some(value) = self.attributes.get(row).map(|attribute| attribute.value) else { return Ok(()) };
        let shorter = match value {
            Value::String(text) => Value::String(Text { len: kept, ..text }),
            Value::Bytes(bytes) => Value::Bytes(Text { len: kept, ..bytes }),
            Value::Nested(nested) => {
                let leaves: Vec<_> = cuts.iter().map(|cut| ShorterLeaf { leaf: cut.leaf, kept: cut.kept }).collect();
                let mut frames = std::mem::take(&mut self.frames);
                let piece = Text { start: 0, len: nested.len };
                let rewritten = rewrite_value(self.arena(nested), piece, &mut frames, Rewritten::Shorter(&leaves));
                self.frames = frames;
                Value::Nested(self.push_extra(&rewritten?)?)
            }
            Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => value,
        };
        if let Some(attribute) = self.attributes.get_mut(row) {
            attribute.value = shorter;
        }
        Ok(())
    }
}

/// Bytes of a `KeyValue` with its tag, at most.
fn attribute_len(attribute: &Attribute) -> usize {
    let value = match attribute.value {
        Value::Empty => 0,
        Value::Bool(_) => 2,
        Value::Int(_) => 11,
        Value::Double(_) => 9,
        Value::String(text) | Value::Bytes(text) => field_len(text.len as usize),
        Value::Nested(text) => text.len as usize,
    };
    field_len(field_len(attribute.key.len as usize) + field_len(value))
}
