//! From a batch to JSON, in OTLP's mapping or in that of Tempo, which differ in ids and enums.
//!
//! ```text
//! OTLP:   {"resourceSpans":[{"resource":{..},"scopeSpans":[{"scope":{..},"spans":[{"traceId":"5b8e..","kind":2}]}]}]}
//! Tempo:  the same array with  "traceId":"W44..=","kind":"SPAN_KIND_SERVER"
//! ```
//!
//! Written by hand into one string: no tree of values, and the order of fields is that of their numbers.

use std::fmt::Write as _;

use super::binary_text::{write_base64, write_hex};
use super::encode::{ResourceGroup, ScopeGroup, grouped};
use super::json::schema::{SPAN_KINDS, STATUS_CODES};
use super::value::{Frame, ListKind, Member, Step, Walk};
use super::wire::{Reader, Wire};
use crate::model::{Event, Link, Resource, Rows, Scope, Span, SpanBatch, Text, Value};

/// Doubles from here on are written with an exponent.
const PLAIN_DOUBLE_MAX: f64 = 1e16;
/// Doubles below this are written with an exponent.
const PLAIN_DOUBLE_MIN: f64 = 1e-5;

/// Whose JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonDialect {
    /// Ids in hex, enums as numbers (OTLP 1.11, "JSON Protobuf Encoding").
    Otlp,
    /// Ids in base64, enums by name, unknown ones as numbers (proto3 JSON).
    Tempo,
}

/// All spans as `{"resourceSpans":[..]}`, grouped by resource and scope. Cost: O(bytes).
///
/// 64-bit integers are strings, bytes are base64, NaN and the infinities are strings; invalid UTF-8 is U+FFFD.
pub fn encode_json(batch: &SpanBatch, dialect: JsonDialect) -> String {
    let mut out = String::from("{\"resourceSpans\":");
    write_resource_spans_json(batch, dialect, &mut out);
    out.push('}');
    out
}

/// Appends the array of `ResourceSpans` alone, to be wrapped by the caller.
pub fn write_resource_spans_json(batch: &SpanBatch, dialect: JsonDialect, out: &mut String) {
    let mut writer = JsonWriter { batch, dialect, out, frames: Vec::new() };
    writer.array(&grouped(batch), JsonWriter::resource_group);
}

struct JsonWriter<'a> {
    batch: &'a SpanBatch,
    dialect: JsonDialect,
    out: &'a mut String,
    frames: Vec<Frame>,
}

impl<'a> JsonWriter<'a> {
    /// A comma, unless this is the first in its object or array.
    fn separate(&mut self) {
        // No value ends in these, a string ends in its quote.
        if !self.out.ends_with(['{', '[', ':']) {
            self.out.push(',');
        }
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    fn array<T>(&mut self, items: &[T], write: fn(&mut Self, &T)) {
        self.out.push('[');
        for item in items {
            self.separate();
            self.out.push('{');
            write(self, item);
            self.out.push('}');
        }
        self.out.push(']');
    }

    fn array_member<T>(&mut self, key: &str, items: &[T], write: fn(&mut Self, &T)) {
        if !items.is_empty() {
            self.key(key);
            self.array(items, write);
        }
    }

    fn resource_group(&mut self, group: &ResourceGroup<'_>) {
        self.key("resource");
        self.resource(&group.resource);
        self.key("scopeSpans");
        self.array(&group.scopes, Self::scope_group);
        self.text("schemaUrl", group.resource.schema_url);
    }

    fn resource(&mut self, resource: &Resource) {
        self.out.push('{');
        self.attributes(resource.attributes);
        self.count("droppedAttributesCount", resource.dropped_attributes_count);
        if resource.entity_refs.len != 0 {
            self.key("entityRefs");
            self.entity_refs(resource.entity_refs);
        }
        self.out.push('}');
    }

    fn entity_refs(&mut self, refs: Text) {
        let bytes = self.batch.text(refs);
        let mut reader = Reader::new(bytes);
        let mut pieces = Vec::new();
        while let Ok(Some(field)) = reader.field() {
            if let (3, Wire::Bytes(piece)) = (field.number, field.wire) {
                pieces.push(Text { start: refs.start + piece.start, len: piece.len });
            }
        }
        self.array(&pieces, |writer, piece| writer.entity_ref(*piece));
    }

    fn entity_ref(&mut self, piece: Text) {
        let (mut schema_url, mut kind) = (Text::default(), Text::default());
        let (mut id_keys, mut description_keys) = (Vec::new(), Vec::new());
        let mut reader = Reader::of(&self.batch.bytes, piece);
        while let Ok(Some(field)) = reader.field() {
            match (field.number, field.wire) {
                (1, Wire::Bytes(text)) => schema_url = text,
                (2, Wire::Bytes(text)) => kind = text,
                (3, Wire::Bytes(text)) => id_keys.push(text),
                (4, Wire::Bytes(text)) => description_keys.push(text),
                _ => {}
            }
        }
        self.text("schemaUrl", schema_url);
        self.text("type", kind);
        self.texts("idKeys", &id_keys);
        self.texts("descriptionKeys", &description_keys);
    }

    fn texts(&mut self, key: &str, texts: &[Text]) {
        if texts.is_empty() {
            return;
        }
        self.key(key);
        self.out.push('[');
        for text in texts {
            self.separate();
            self.string(self.batch.text(*text));
        }
        self.out.push(']');
    }

    fn scope_group(&mut self, group: &ScopeGroup<'_>) {
        self.key("scope");
        self.scope(&group.scope);
        self.key("spans");
        self.array(&group.spans, |writer, span| writer.span(span));
        self.text("schemaUrl", group.scope.schema_url);
    }

    fn scope(&mut self, scope: &Scope) {
        self.out.push('{');
        self.text("name", scope.name);
        self.text("version", scope.version);
        self.attributes(scope.attributes);
        self.count("droppedAttributesCount", scope.dropped_attributes_count);
        self.out.push('}');
    }

    fn span(&mut self, span: &Span) {
        self.id("traceId", &span.trace_id.0);
        self.id("spanId", &span.span_id.0);
        self.text("traceState", span.trace_state);
        if !span.parent_span_id.is_zero() {
            self.id("parentSpanId", &span.parent_span_id.0);
        }
        self.text("name", span.name);
        self.number("kind", span.kind, &SPAN_KINDS);
        self.decimal("startTimeUnixNano", span.start_time_unix_nano.0);
        self.decimal("endTimeUnixNano", span.end_time_unix_nano.0);
        self.attributes(span.attributes);
        self.count("droppedAttributesCount", span.dropped_attributes_count);
        self.array_member("events", self.batch.events(span.events), Self::event);
        self.count("droppedEventsCount", span.dropped_events_count);
        self.array_member("links", self.batch.links(span.links), Self::link);
        self.count("droppedLinksCount", span.dropped_links_count);
        self.key("status");
        self.out.push('{');
        self.text("message", span.status_message);
        self.number("code", span.status_code, &STATUS_CODES);
        self.out.push('}');
        self.count("flags", span.flags);
    }

    fn event(&mut self, event: &Event) {
        self.decimal("timeUnixNano", event.time_unix_nano.0);
        self.text("name", event.name);
        self.attributes(event.attributes);
        self.count("droppedAttributesCount", event.dropped_attributes_count);
    }

    fn link(&mut self, link: &Link) {
        self.id("traceId", &link.trace_id.0);
        self.id("spanId", &link.span_id.0);
        self.text("traceState", link.trace_state);
        self.attributes(link.attributes);
        self.count("droppedAttributesCount", link.dropped_attributes_count);
        self.count("flags", link.flags);
    }

    fn attributes(&mut self, rows: Rows) {
        self.array_member("attributes", self.batch.attributes(rows), |writer, attribute| {
            writer.key("key");
            writer.string(writer.batch.text(attribute.key));
            writer.key("value");
            writer.value(&attribute.value);
        });
    }

    fn value(&mut self, value: &Value) {
        match *value {
            Value::Empty => self.scalar(Member::Empty),
            Value::String(text) => self.scalar(Member::String(text)),
            Value::Bool(value) => self.scalar(Member::Bool(value)),
            Value::Int(value) => self.scalar(Member::Int(value)),
            Value::Double(value) => self.scalar(Member::Double(value)),
            Value::Bytes(bytes) => self.scalar(Member::Bytes(bytes)),
            Value::Nested(text) => self.nested(text),
        }
    }

    fn nested(&mut self, text: Text) {
        let mut frames = std::mem::take(&mut self.frames);
        let mut walk = Walk::new(&self.batch.bytes, text, &mut frames);
        let mut around: Vec<ListKind> = Vec::new();
        // The value was walked when it came in; should it not read now, what was open is closed.
        while let Ok(Some(step)) = walk.step() {
            match step {
                Step::Key { key, .. } => {
                    self.separate();
                    self.out.push('{');
                    self.key("key");
                    self.string(self.batch.text(key));
                    self.key("value");
                    continue;
                }
                Step::ListStart(kind) => {
                    self.separate();
                    self.out.push_str(match kind {
                        ListKind::Array => "{\"arrayValue\":{\"values\":[",
                        ListKind::Kvlist => "{\"kvlistValue\":{\"values\":[",
                    });
                    around.push(kind);
                    continue;
                }
                Step::Scalar(member) => {
                    self.separate();
                    self.scalar(member);
                }
                Step::TooDeep => {
                    self.separate();
                    self.scalar(Member::Empty);
                }
                Step::ListEnd(_) => {
                    self.out.push_str("]}}");
                    let _ended = around.pop();
                }
            }
            if around.last() == Some(&ListKind::Kvlist) {
                self.out.push('}');
            }
        }
        while around.pop().is_some() {
            self.out.push_str("]}}");
        }
        self.frames = frames;
    }

    fn scalar(&mut self, member: Member) {
        self.out.push('{');
        match member {
            Member::Empty | Member::Strindex | Member::List { .. } => {}
            Member::String(text) => {
                self.key("stringValue");
                self.string(self.batch.text(text));
            }
            Member::Bool(value) => {
                self.key("boolValue");
                self.out.push_str(if value { "true" } else { "false" });
            }
            Member::Int(value) => {
                self.key("intValue");
                let _written = write!(self.out, "\"{value}\"");
            }
            Member::Double(value) => {
                self.key("doubleValue");
                self.double(value);
            }
            Member::Bytes(bytes) => {
                self.key("bytesValue");
                self.base64(self.batch.text(bytes));
            }
        }
        self.out.push('}');
    }

    fn double(&mut self, value: f64) {
        write_double(value, self.out);
    }

    fn id(&mut self, key: &str, id: &[u8]) {
        self.key(key);
        match self.dialect {
            JsonDialect::Otlp => {
                self.out.push('"');
                write_hex(id, self.out);
                self.out.push('"');
            }
            JsonDialect::Tempo => self.base64(id),
        }
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push('"');
        write_base64(bytes, self.out);
        self.out.push('"');
    }

    fn text(&mut self, key: &str, text: Text) {
        if text.len != 0 {
            self.key(key);
            self.string(self.batch.text(text));
        }
    }

    fn string(&mut self, bytes: &'a [u8]) {
        write_string(bytes, self.out);
    }

    fn count(&mut self, key: &str, count: u32) {
        if count != 0 {
            self.key(key);
            let _written = write!(self.out, "{count}");
        }
    }

    fn decimal(&mut self, key: &str, value: u64) {
        if value != 0 {
            self.key(key);
            let _written = write!(self.out, "\"{value}\"");
        }
    }

    fn number(&mut self, key: &str, value: i32, names: &[&str]) {
        if value == 0 {
            return;
        }
        self.key(key);
        let name = usize::try_from(value).ok().and_then(|value| names.get(value));
        let _written = match (self.dialect, name) {
            (JsonDialect::Tempo, Some(name)) => write!(self.out, "\"{name}\""),
            (JsonDialect::Tempo, None) | (JsonDialect::Otlp, _) => write!(self.out, "{value}"),
        };
    }
}

/// A number, or NaN and the infinities as strings.
pub(super) fn write_double(value: f64, out: &mut String) {
    let plain = value == 0.0 || (PLAIN_DOUBLE_MIN..PLAIN_DOUBLE_MAX).contains(&value.abs());
    let _written = if value.is_nan() {
        write!(out, "\"NaN\"")
    } else if value.is_infinite() {
        write!(out, "\"{}Infinity\"", if value < 0.0 { "-" } else { "" })
    } else if plain {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
}

/// A string in its quotes; invalid UTF-8 is U+FFFD.
pub(super) fn write_string(bytes: &[u8], out: &mut String) {
    out.push('"');
    let text = String::from_utf8_lossy(bytes);
    let mut rest = &*text;
    let special = |byte: u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    while let Some(at) = rest.bytes().position(special) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        let mut characters = from.chars();
        match characters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some(control) => {
                let _written = write!(out, "\\u{:04x}", u32::from(control));
            }
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.push('"');
}
