//! Spans with their events and links.

use super::attribute::AttributeList;
use super::decode::{Decoder, Policy, Stop, row_count};
use super::outcome::{Rejection, Warning};
use super::text::shorten_trace_state;
use super::wire::{Field, Reader, Wire, low_i32, low_u32};
use crate::limits::{
    EVENT_ATTRIBUTES_MAX, FUTURE_SECS_MAX, SPAN_ATTRIBUTES_MAX, SPAN_BYTES_MAX, SPAN_EVENTS_MAX, SPAN_LINKS_MAX,
    TRACE_STATE_BYTES_MAX,
};
use crate::model::{DurationNanos, Event, Link, Span, SpanId, Text, TraceId, UnixNanos};

/// Nominal bytes of an `Event`.
const COST_EVENT: u64 = 64;
/// Nominal bytes of a `Link`.
const COST_LINK: u64 = 104;

/// Id fields as sent, of any length.
#[derive(Debug, Default)]
struct Ids {
    trace: Text,
    span: Text,
    parent: Text,
}

impl Decoder<'_> {
    /// Reads the span in `piece` of the body. Its attributes, events and links are in the tables afterwards; after an
    /// error the caller takes them back.
    pub(super) fn span(&mut self, piece: Text, scope: u32) -> Result<Span, Stop> {
        let first_row = self.attributes.len();
        let mut list = AttributeList::new(first_row, SPAN_ATTRIBUTES_MAX);
        let mut span = Span { scope, ..Span::default() };
        let mut ids = Ids::default();
        let mut inner_rows = None;
        let mut reader = Reader::of(self.body, piece);
        loop {
            let before = reader;
            let Some(field) = reader.field()? else { break };
            match (field.number, field.wire) {
                (9, Wire::Bytes(piece)) => self.attribute(&mut list, piece)?,
                (11 | 13, Wire::Bytes(_)) => drop(inner_rows.get_or_insert(before)),
                _ => self.span_field(field, &mut span, &mut ids)?,
            }
        }
        let source = self.source();
        span.name = self.text(source, span.name);
        span.status_message = self.text(source, span.status_message);
        span.trace_state = self.trace_state(span.trace_state)?;
        span.attributes = self.end_attributes(&list);
        span.dropped_attributes_count = span.dropped_attributes_count.saturating_add(list.n_dropped);
        self.set_ids(&ids, &mut span)?;
        self.check_times(&span)?;
        if let Some(reader) = inner_rows {
            self.events_and_links(reader, &mut span)?;
        }
        if SPAN_BYTES_MAX < piece.len as usize {
            self.fit(&span, first_row)?;
        }
        Ok(span)
    }

    fn span_field(&mut self, field: Field, span: &mut Span, ids: &mut Ids) -> Result<(), Stop> {
        match (field.number, field.wire) {
            (1, Wire::Bytes(id)) => ids.trace = id,
            (2, Wire::Bytes(id)) => ids.span = id,
            (3, Wire::Bytes(state)) => span.trace_state = state,
            (4, Wire::Bytes(id)) => ids.parent = id,
            (5, Wire::Bytes(name)) => span.name = name,
            (6, Wire::Varint(kind)) => span.kind = low_i32(kind),
            (7, Wire::Fixed64(nanos)) => span.start_time_unix_nano = UnixNanos(nanos),
            (8, Wire::Fixed64(nanos)) => span.end_time_unix_nano = UnixNanos(nanos),
            (10, Wire::Varint(count)) => span.dropped_attributes_count = low_u32(count),
            (12, Wire::Varint(count)) => span.dropped_events_count = low_u32(count),
            (14, Wire::Varint(count)) => span.dropped_links_count = low_u32(count),
            (15, Wire::Bytes(piece)) => self.status(piece, span)?,
            (16, Wire::Fixed32(flags)) => span.flags = flags,
            (1..=16, _) => return Err(field.wrong_wire().into()),
            _ => {}
        }
        Ok(())
    }

    fn status(&mut self, piece: Text, span: &mut Span) -> Result<(), Stop> {
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (2, Wire::Bytes(message)) => span.status_message = message,
                (3, Wire::Varint(code)) => span.status_code = low_i32(code),
                (2 | 3, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn set_ids(&mut self, ids: &Ids, span: &mut Span) -> Result<(), Stop> {
        span.trace_id = self.trace_id(ids.trace).ok_or(Stop::Rejected(Rejection::InvalidTraceId))?;
        span.span_id = self.span_id(ids.span).ok_or(Stop::Rejected(Rejection::InvalidSpanId))?;
        if ids.parent.len != 0 {
            match self.arena(ids.parent).try_into() {
                Ok(id) => span.parent_span_id = SpanId(id),
                Err(_) => self.warn(Warning::BadParent),
            }
        }
        Ok(())
    }

    fn trace_id(&self, id: Text) -> Option<TraceId> {
        let pad = match self.policy {
            Policy::Check(options) => options.pad_64bit_trace_ids,
            // An id of 8 bytes is in the journal only because it was padded then.
            Policy::Replay(_) => true,
        };
        let bytes = self.arena(id);
        let id = match <[u8; 8]>::try_from(bytes) {
            Ok(low) if pad => u128::from(u64::from_be_bytes(low)).to_be_bytes(),
            _ => bytes.try_into().ok()?,
        };
        Some(TraceId(id)).filter(|id| !id.is_zero())
    }

    fn span_id(&self, id: Text) -> Option<SpanId> {
        Some(SpanId(self.arena(id).try_into().ok()?)).filter(|id| !id.is_zero())
    }

    fn check_times(&mut self, span: &Span) -> Result<(), Stop> {
        if span.start_time_unix_nano.is_unset() || span.end_time_unix_nano.is_unset() {
            self.warn(Warning::MissingTime);
        } else if span.end_time_unix_nano < span.start_time_unix_nano {
            self.warn(Warning::NegativeDuration);
        }
        let Policy::Check(options) = self.policy else { return Ok(()) };
        let at = span.index_time();
        if let Some(retention) = options.retention
            && !at.is_unset()
            && at < options.now.saturating_sub(retention)
        {
            return Err(Stop::Rejected(Rejection::OutsideRetention));
        }
        if options.now.saturating_add(DurationNanos::from_secs(FUTURE_SECS_MAX)) < at {
            self.counters.future_spans += 1;
        }
        Ok(())
    }

    /// Reads events and links from the first of them on, now that the span's own attributes stand together.
    fn events_and_links(&mut self, mut reader: Reader<'_>, span: &mut Span) -> Result<(), Stop> {
        span.events.start = row_count(&self.events);
        span.links.start = row_count(&self.links);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (11, Wire::Bytes(piece)) => {
                    self.charge(COST_EVENT)?;
                    if SPAN_EVENTS_MAX <= span.events.len as usize {
                        self.over_limit(&mut span.dropped_events_count);
                        continue;
                    }
                    let event = self.event(piece)?;
                    self.events.push(event);
                    span.events.len += 1;
                }
                (13, Wire::Bytes(piece)) => {
                    self.charge(COST_LINK)?;
                    if SPAN_LINKS_MAX <= span.links.len as usize {
                        self.over_limit(&mut span.dropped_links_count);
                        continue;
                    }
                    match self.link(piece)? {
                        Some(link) => {
                            self.links.push(link);
                            span.links.len += 1;
                        }
                        None => span.dropped_links_count = span.dropped_links_count.saturating_add(1),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn over_limit(&mut self, dropped: &mut u32) {
        *dropped = dropped.saturating_add(1);
        self.warn(Warning::LimitApplied);
    }

    fn event(&mut self, piece: Text) -> Result<Event, Stop> {
        let mut list = AttributeList::new(self.attributes.len(), EVENT_ATTRIBUTES_MAX);
        let mut event = Event::default();
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (1, Wire::Fixed64(nanos)) => event.time_unix_nano = UnixNanos(nanos),
                (2, Wire::Bytes(name)) => event.name = name,
                (3, Wire::Bytes(piece)) => self.attribute(&mut list, piece)?,
                (4, Wire::Varint(count)) => event.dropped_attributes_count = low_u32(count),
                (1..=4, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        event.name = self.text(self.source(), event.name);
        event.attributes = self.end_attributes(&list);
        event.dropped_attributes_count = event.dropped_attributes_count.saturating_add(list.n_dropped);
        Ok(event)
    }

    /// `None`, with a warning, for a link that points nowhere.
    fn link(&mut self, piece: Text) -> Result<Option<Link>, Stop> {
        let first_row = self.attributes.len();
        let mut list = AttributeList::new(first_row, EVENT_ATTRIBUTES_MAX);
        let mut link = Link::default();
        let mut ids = Ids::default();
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (1, Wire::Bytes(id)) => ids.trace = id,
                (2, Wire::Bytes(id)) => ids.span = id,
                (3, Wire::Bytes(state)) => link.trace_state = state,
                (4, Wire::Bytes(piece)) => self.attribute(&mut list, piece)?,
                (5, Wire::Varint(count)) => link.dropped_attributes_count = low_u32(count),
                (6, Wire::Fixed32(flags)) => link.flags = flags,
                (1..=6, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        let (Some(trace_id), Some(span_id)) = (self.trace_id(ids.trace), self.span_id(ids.span)) else {
            self.warn(Warning::BadLink);
            self.attributes.truncate(first_row);
            return Ok(None);
        };
        link.trace_id = trace_id;
        link.span_id = span_id;
        link.trace_state = self.trace_state(link.trace_state)?;
        link.attributes = self.end_attributes(&list);
        link.dropped_attributes_count = link.dropped_attributes_count.saturating_add(list.n_dropped);
        Ok(Some(link))
    }

    fn trace_state(&mut self, state: Text) -> Result<Text, Stop> {
        if state.len as usize <= TRACE_STATE_BYTES_MAX {
            return Ok(self.text(self.source(), state));
        }
        let short = shorten_trace_state(self.arena(state));
        self.warn(Warning::Truncated);
        if std::str::from_utf8(&short).is_err() {
            self.warn(Warning::InvalidUtf8);
        }
        self.push_extra(&short)
    }
}
