//! From a batch to OTLP protobuf: spans grouped by resource and scope, in the order in which these first appear.
//!
//! `resource`, `scope` and `status` are always there, even empty: some readers hide spans without them.

use super::rewrite::{Rewritten, rewrite_value};
use super::value::Frame;
use super::wire::{Reader, Wire};
use super::writer::MessageWriter;
use crate::model::{Attribute, Event, Link, Resource, Rows, Scope, Span, SpanBatch, SpanId, Text, UnixNanos, Value};

/// What becomes of texts that are no UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Utf8 {
    /// They stay as sent: for copies that lose nothing.
    Verbatim,
    /// U+FFFD stands in for what is invalid: for clients, whose decoders refuse the whole message otherwise.
    Replaced,
}

/// Encodes all spans as OTLP `TracesData`, field by field in the order of field numbers.
///
/// Cost: O(bytes), and sorting of the spans by scope.
pub fn encode_traces(batch: &SpanBatch, utf8: Utf8) -> Vec<u8> {
    let mut encoder = Encoder { batch, utf8, out: MessageWriter::default(), frames: Vec::new() };
    for resource in grouped(batch) {
        encoder.out.open(1);
        encoder.resource(&resource.resource);
        for scope in &resource.scopes {
            encoder.out.open(2);
            encoder.scope(&scope.scope);
            for span in &scope.spans {
                encoder.span(span);
            }
            encoder.text(3, scope.scope.schema_url);
            encoder.out.close();
        }
        encoder.text(3, resource.resource.schema_url);
        encoder.out.close();
    }
    encoder.out.finish()
}

/// Spans of one resource.
pub(crate) struct ResourceGroup<'a> {
    pub(crate) resource: Resource,
    pub(crate) scopes: Vec<ScopeGroup<'a>>,
}

/// Spans of one scope, in the order of the batch.
pub(crate) struct ScopeGroup<'a> {
    pub(crate) scope: Scope,
    pub(crate) spans: Vec<&'a Span>,
}

/// Groups the spans by the rows of their resource and scope, in the order in which these first appear.
pub(crate) fn grouped(batch: &SpanBatch) -> Vec<ResourceGroup<'_>> {
    let mut groups: Vec<ResourceGroup<'_>> = Vec::new();
    // Row of a resource or scope -> its place in `groups`.
    let mut resource_places: Vec<Option<usize>> = vec![None; batch.resources.len()];
    let mut scope_places: Vec<Option<(usize, usize)>> = vec![None; batch.scopes.len()];
    for span in &batch.spans {
        let scope = batch.scope(span);
        let known = scope_places.get(span.scope as usize).copied().flatten();
        let (resource_place, scope_place) = known.unwrap_or_else(|| {
            let known = resource_places.get(scope.resource as usize).copied().flatten();
            let resource_place = known.unwrap_or_else(|| {
                groups.push(ResourceGroup { resource: batch.resource(span), scopes: Vec::new() });
                groups.len() - 1
            });
            if let Some(place) = resource_places.get_mut(scope.resource as usize) {
                *place = Some(resource_place);
            }
            let scopes = groups.get_mut(resource_place).map(|group| &mut group.scopes);
            let scope_place = scopes.map_or(0, |scopes| {
                scopes.push(ScopeGroup { scope, spans: Vec::new() });
                scopes.len() - 1
            });
            if let Some(place) = scope_places.get_mut(span.scope as usize) {
                *place = Some((resource_place, scope_place));
            }
            (resource_place, scope_place)
        });
        let group = groups.get_mut(resource_place).and_then(|group| group.scopes.get_mut(scope_place));
        if let Some(group) = group {
            group.spans.push(span);
        }
    }
    groups
}

struct Encoder<'a> {
    batch: &'a SpanBatch,
    utf8: Utf8,
    out: MessageWriter,
    frames: Vec<Frame>,
}

impl Encoder<'_> {
    fn resource(&mut self, resource: &Resource) {
        self.out.open(1);
        self.attributes(1, resource.attributes);
        self.count(2, resource.dropped_attributes_count);
        match self.utf8 {
            Utf8::Verbatim => self.out.raw(self.batch.text(resource.entity_refs)),
            Utf8::Replaced => self.entity_refs(resource.entity_refs),
        }
        self.out.close();
    }

    /// Entity references with valid texts; what they hold was checked when they came in.
    fn entity_refs(&mut self, refs: Text) {
        let bytes = self.batch.text(refs);
        let mut reader = Reader::new(bytes);
        while let Ok(Some(field)) = reader.field() {
            let (3, Wire::Bytes(piece)) = (field.number, field.wire) else { continue };
            self.out.open(3);
            let mut inner = Reader::of(bytes, piece);
            while let Ok(Some(field)) = inner.field() {
                if let (1..=4, Wire::Bytes(text)) = (field.number, field.wire) {
                    let text = bytes.get(text.start as usize..(text.start + text.len) as usize).unwrap_or_default();
                    self.out.bytes(field.number, String::from_utf8_lossy(text).as_bytes());
                }
            }
            self.out.close();
        }
    }

    fn scope(&mut self, scope: &Scope) {
        self.out.open(1);
        self.text(1, scope.name);
        self.text(2, scope.version);
        self.attributes(3, scope.attributes);
        self.count(4, scope.dropped_attributes_count);
        self.out.close();
    }

    fn span(&mut self, span: &Span) {
        self.out.open(2);
        self.out.bytes(1, &span.trace_id.0);
        self.out.bytes(2, &span.span_id.0);
        self.text(3, span.trace_state);
        if span.parent_span_id != SpanId::default() {
            self.out.bytes(4, &span.parent_span_id.0);
        }
        self.text(5, span.name);
        self.number(6, span.kind);
        self.time(7, span.start_time_unix_nano);
        self.time(8, span.end_time_unix_nano);
        self.attributes(9, span.attributes);
        self.count(10, span.dropped_attributes_count);
        for event in self.batch.events(span.events) {
            self.event(event);
        }
        self.count(12, span.dropped_events_count);
        for link in self.batch.links(span.links) {
            self.link(link);
        }
        self.count(14, span.dropped_links_count);
        self.out.open(15);
        self.text(2, span.status_message);
        self.number(3, span.status_code);
        self.out.close();
        self.flags(16, span.flags);
        self.out.close();
    }

    fn event(&mut self, event: &Event) {
        self.out.open(11);
        self.time(1, event.time_unix_nano);
        self.text(2, event.name);
        self.attributes(3, event.attributes);
        self.count(4, event.dropped_attributes_count);
        self.out.close();
    }

    fn link(&mut self, link: &Link) {
        self.out.open(13);
        self.out.bytes(1, &link.trace_id.0);
        self.out.bytes(2, &link.span_id.0);
        self.text(3, link.trace_state);
        self.attributes(4, link.attributes);
        self.count(5, link.dropped_attributes_count);
        self.flags(6, link.flags);
        self.out.close();
    }

    fn attributes(&mut self, number: u32, rows: Rows) {
        for attribute in self.batch.attributes(rows) {
            self.out.open(number);
            self.text(1, attribute.key);
            self.value(attribute);
            self.out.close();
        }
    }

    fn value(&mut self, attribute: &Attribute) {
        if let Value::Nested(nested) = attribute.value {
            let batch = self.batch;
            match self.utf8 {
                Utf8::Verbatim => self.out.bytes(2, batch.text(nested)),
                Utf8::Replaced => {
                    let rewritten = rewrite_value(&batch.bytes, nested, &mut self.frames, Rewritten::Utf8);
                    // The value was walked when it came in; if it does not read now, it is shown as empty.
                    self.out.bytes(2, &rewritten.unwrap_or_default());
                }
            }
            return;
        }
        self.out.open(2);
        match attribute.value {
            Value::Empty | Value::Nested(_) => {}
            Value::String(text) => self.text_always(1, text),
            Value::Bool(value) => self.out.varint(2, u64::from(value)),
            Value::Int(value) => self.out.varint(3, value.cast_unsigned()),
            Value::Double(value) => self.out.fixed64(4, value.to_bits()),
            Value::Bytes(bytes) => self.out.bytes(7, self.batch.text(bytes)),
        }
        self.out.close();
    }

    fn text(&mut self, number: u32, text: Text) {
        if text.len != 0 {
            self.text_always(number, text);
        }
    }

    /// Also when empty: an empty string is not the same as no value.
    fn text_always(&mut self, number: u32, text: Text) {
        match self.utf8 {
            Utf8::Verbatim => self.out.bytes(number, self.batch.text(text)),
            Utf8::Replaced => self.out.bytes(number, self.batch.text_lossy(text).as_bytes()),
        }
    }

    fn count(&mut self, number: u32, count: u32) {
        if count != 0 {
            self.out.varint(number, u64::from(count));
        }
    }

    fn number(&mut self, number: u32, value: i32) {
        if value != 0 {
            // Negative enum numbers are sign-extended on the wire.
            self.out.varint(number, i64::from(value).cast_unsigned());
        }
    }

    fn time(&mut self, number: u32, at: UnixNanos) {
        if !at.is_unset() {
            self.out.fixed64(number, at.0);
        }
    }

    fn flags(&mut self, number: u32, flags: u32) {
        if flags != 0 {
            self.out.fixed32(number, flags);
        }
    }
}
