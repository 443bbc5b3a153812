//! `SpanBatch`: spans as rows that point into one byte arena. The only form of spans in memory: the decoder makes it
//! from the bytes of a request, the head keeps it, a block is built from it and read back into it, answers are
//! encoded from it.
//!
//! ```text
//! bytes:      "....checkout....POST /pay....http.route..../pay...."      (often the request body itself)
//! resources:  [{service: 4+8, attributes: 0..3}]
//! scopes:     [{resource: 0, name: ..}]
//! spans:      [{scope: 0, trace_id, span_id, name: 16+9, attributes: 3..7, events: 0..1, ..}]
//! attributes: [{key: 29+10, value: String(43+4)}, ..]                    (of resources, scopes, spans, events, links)
//! ```
//!
//! Nothing here validates: `otlp` decides what enters, and this module only answers for the pointers.

use std::borrow::Cow;

use super::{DurationNanos, SpanId, TraceId, UNKNOWN_SERVICE, UnixNanos};

/// OTLP `Status.code` for a failed span.
pub const STATUS_CODE_ERROR: i32 = 2;

/// A piece of the batch's bytes. What was sent stays verbatim, so it may hold invalid UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// First byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

/// A run of rows in one of the batch's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// First row.
    pub start: u32,
    /// Number of rows.
    pub len: u32,
}

/// OTLP `AnyValue`. Arrays and key-value lists stay encoded (an `AnyValue` message on the OTLP wire): the store never
/// looks inside, and they come back bit for bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// No value: legal and meaningful, not the same as a missing attribute.
    Empty,
    /// A string, verbatim.
    String(Text),
    /// A boolean.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A double; NaN keeps its bits.
    Double(f64),
    /// Bytes.
    Bytes(Text),
    /// An array or key-value list: one encoded `AnyValue`, at most `limits::VALUE_DEPTH_MAX` deep.
    Nested(Text),
}

/// OTLP `KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute {
    /// Not empty.
    pub key: Text,
    /// Its value.
    pub value: Value,
}

/// OTLP `Resource` with the schema URL of its `ResourceSpans`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resource {
    /// In the order sent, duplicates included.
    pub attributes: Rows,
    /// As sent, raised by what our limits cut.
    pub dropped_attributes_count: u32,
    /// `ResourceSpans.schema_url`.
    pub schema_url: Text,
    /// `entity_refs` as sent: the encoded fields, tags included; empty when there are none.
    pub entity_refs: Text,
    /// `service.name` as shown, valid UTF-8; empty when missing, empty or not a string (then `UNKNOWN_SERVICE`).
    pub service: Text,
    /// `service.namespace` as shown, valid UTF-8; empty when missing.
    pub namespace: Text,
}

/// OTLP `InstrumentationScope` with the schema URL of its `ScopeSpans`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Row in `resources`.
    pub resource: u32,
    /// Scope name.
    pub name: Text,
    /// Scope version.
    pub version: Text,
    /// In the order sent.
    pub attributes: Rows,
    /// As sent, raised by what our limits cut.
    pub dropped_attributes_count: u32,
    /// `ScopeSpans.schema_url`.
    pub schema_url: Text,
}

/// OTLP `Span.Event`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    /// May lie anywhere, also before the span.
    pub time_unix_nano: UnixNanos,
    /// Event name.
    pub name: Text,
    /// In the order sent.
    pub attributes: Rows,
    /// As sent, raised by what our limits cut.
    pub dropped_attributes_count: u32,
}

/// OTLP `Span.Link`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Trace pointed to.
    pub trace_id: TraceId,
    /// Span pointed to.
    pub span_id: SpanId,
    /// W3C tracestate.
    pub trace_state: Text,
    /// In the order sent.
    pub attributes: Rows,
    /// As sent, raised by what our limits cut.
    pub dropped_attributes_count: u32,
    /// All 32 bits verbatim.
    pub flags: u32,
}

/// OTLP `Span`. Times are as sent, also when they make no sense.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Not all zero.
    pub trace_id: TraceId,
    /// Not all zero.
    pub span_id: SpanId,
    /// All zero for a root.
    pub parent_span_id: SpanId,
    /// 0 = not set.
    pub start_time_unix_nano: UnixNanos,
    /// 0 = not set.
    pub end_time_unix_nano: UnixNanos,
    /// All 32 bits verbatim.
    pub flags: u32,
    /// OTLP number; unknown ones are kept.
    pub kind: i32,
    /// OTLP number; unknown ones are kept.
    pub status_code: i32,
    /// Row in `scopes`.
    pub scope: u32,
    /// Span name.
    pub name: Text,
    /// W3C tracestate.
    pub trace_state: Text,
    /// `Status.message`.
    pub status_message: Text,
    /// In the order sent, duplicates included.
    pub attributes: Rows,
    /// Rows in `events`.
    pub events: Rows,
    /// Rows in `links`.
    pub links: Rows,
    /// As sent, raised by what our limits cut.
    pub dropped_attributes_count: u32,
    /// As sent, raised by what our limits cut.
    pub dropped_events_count: u32,
    /// As sent, raised by what our limits cut.
    pub dropped_links_count: u32,
}

/// Identity of a span: a second one with the same key is a duplicate, whatever else it says.
///
/// The order (trace, start, span, kind) is the order of spans in a block and in every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanKey {
    /// Trace.
    pub trace_id: TraceId,
    /// Start time as sent.
    pub start_time_unix_nano: UnixNanos,
    /// Span.
    pub span_id: SpanId,
    /// OTLP number: Zipkin-style shared ids give a client and a server span.
    pub kind: i32,
}

impl Span {
    /// The span's identity.
    pub fn key(&self) -> SpanKey {
        SpanKey {
            trace_id: self.trace_id,
            start_time_unix_nano: self.start_time_unix_nano,
            span_id: self.span_id,
            kind: self.kind,
        }
    }

    /// Latency of the span; `None` when a time is not set or the producer's clock ran backwards: such spans are in
    /// no histogram.
    pub fn latency(&self) -> Option<DurationNanos> {
        if self.start_time_unix_nano.is_unset() || self.end_time_unix_nano.is_unset() {
            return None;
        }
        self.end_time_unix_nano.0.checked_sub(self.start_time_unix_nano.0).map(DurationNanos)
    }

    /// The time by which the span is found: end, else start, else 0.
    pub fn index_time(&self) -> UnixNanos {
        if self.end_time_unix_nano.is_unset() { self.start_time_unix_nano } else { self.end_time_unix_nano }
    }

    /// Where the span begins in a view that needs a time: start, else end, else 0.
    pub fn shown_start(&self) -> UnixNanos {
        if self.start_time_unix_nano.is_unset() { self.end_time_unix_nano } else { self.start_time_unix_nano }
    }

    /// Only status ERROR counts as an error; unknown codes are treated as unset.
    pub fn is_error(&self) -> bool {
        self.status_code == STATUS_CODE_ERROR
    }
}

/// Spans with their resources and scopes; see the module page for the layout. Every `Text` and `Rows` of a batch
/// points into that batch; a pointer past the end reads as empty.
#[derive(Clone, Debug, Default)]
pub struct SpanBatch {
    /// The arena of all texts, bytes and nested values; shorter than 4 GiB.
    pub bytes: Vec<u8>,
    /// Resources.
    pub resources: Vec<Resource>,
    /// Scopes, each of one resource.
    pub scopes: Vec<Scope>,
    /// Spans, each of one scope.
    pub spans: Vec<Span>,
    /// Attributes of all of them.
    pub attributes: Vec<Attribute>,
    /// Events of all spans.
    pub events: Vec<Event>,
    /// Links of all spans.
    pub links: Vec<Link>,
}

impl SpanBatch {
    /// The bytes of a text.
    pub fn text(&self, text: Text) -> &[u8] {
        slice(&self.bytes, text.start, text.len)
    }

    /// The text as shown and indexed: invalid UTF-8 becomes U+FFFD.
    pub fn text_lossy(&self, text: Text) -> Cow<'_, str> {
        String::from_utf8_lossy(self.text(text))
    }

    /// Attributes of a resource, scope, span, event or link.
    pub fn attributes(&self, rows: Rows) -> &[Attribute] {
        slice(&self.attributes, rows.start, rows.len)
    }

    /// Events of a span.
    pub fn events(&self, rows: Rows) -> &[Event] {
        slice(&self.events, rows.start, rows.len)
    }

    /// Links of a span.
    pub fn links(&self, rows: Rows) -> &[Link] {
        slice(&self.links, rows.start, rows.len)
    }

    /// Scope of a span; an empty one if the batch is inconsistent.
    pub fn scope(&self, span: &Span) -> Scope {
        self.scopes.get(span.scope as usize).copied().unwrap_or_default()
    }

    /// Resource of a span; an empty one if the batch is inconsistent.
    pub fn resource(&self, span: &Span) -> Resource {
        self.resources.get(self.scope(span).resource as usize).copied().unwrap_or_default()
    }

    /// `service.namespace` (empty when missing) and `service.name` of a span, as shown.
    pub fn service_of(&self, span: &Span) -> (Cow<'_, str>, Cow<'_, str>) {
        self.service(self.resource(span))
    }

    /// The same of a resource.
    pub fn service(&self, resource: Resource) -> (Cow<'_, str>, Cow<'_, str>) {
        let service = self.text_lossy(resource.service);
        let service = if service.is_empty() { Cow::Borrowed(UNKNOWN_SERVICE) } else { service };
        (self.text_lossy(resource.namespace), service)
    }

    /// The string value of the last attribute named `key`, as shown; `None` when there is none or it is no string.
    pub fn string_attribute(&self, rows: Rows, key: &str) -> Option<Cow<'_, str>> {
        let attribute = self.attributes(rows).iter().rev().find(|a| self.text(a.key) == key.as_bytes())?;
        match attribute.value {
            Value::String(text) => Some(self.text_lossy(text)),
            Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Bytes(_) | Value::Nested(_) => {
                None
            }
        }
    }

    /// Appends bytes to the arena. `None` when it would pass 4 GiB.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Option<Text> {
        let start = u32::try_from(self.bytes.len()).ok()?;
        let len = u32::try_from(bytes.len()).ok()?;
        let _end = start.checked_add(len)?;
        self.bytes.extend_from_slice(bytes);
        Some(Text { start, len })
    }

    /// Gives back what the tables reserved beyond their rows.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.resources.shrink_to_fit();
        self.scopes.shrink_to_fit();
        self.spans.shrink_to_fit();
        self.attributes.shrink_to_fit();
        self.events.shrink_to_fit();
        self.links.shrink_to_fit();
    }

    /// Memory of the batch in bytes, by capacity.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.resources.capacity() * size_of::<Resource>()
            + self.scopes.capacity() * size_of::<Scope>()
            + self.spans.capacity() * size_of::<Span>()
            + self.attributes.capacity() * size_of::<Attribute>()
            + self.events.capacity() * size_of::<Event>()
            + self.links.capacity() * size_of::<Link>()
    }
}

fn slice<T>(table: &[T], start: u32, len: u32) -> &[T] {
    let start = start as usize;
    table.get(start..start.saturating_add(len as usize)).unwrap_or(&[])
}
