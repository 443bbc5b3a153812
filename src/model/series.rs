//! What one latency histogram speaks of.

use super::{Conventions, STATUS_CODE_ERROR, Span, SpanBatch};
use std::borrow::Cow;

/// Span kind as the views see it: UNSPECIFIED and unknown numbers are INTERNAL (OTLP `Span.SpanKind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SpanKind {
    /// OTLP 0, 1 and every unknown number.
    Internal = 1,
    /// OTLP 2.
    Server = 2,
    /// OTLP 3.
    Client = 3,
    /// OTLP 4.
    Producer = 4,
    /// OTLP 5.
    Consumer = 5,
}

impl From<i32> for SpanKind {
    fn from(number: i32) -> Self {
        match number {
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Internal,
        }
    }
}

impl SpanKind {
    /// Lower-case name, as TraceQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// Span status as the views see it: unknown codes are UNSET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SpanStatus {
    /// OTLP 0 and every unknown number.
    Unset = 0,
    /// OTLP 1.
    Ok = 1,
    /// OTLP 2.
    Error = 2,
}

impl From<i32> for SpanStatus {
    fn from(code: i32) -> Self {
        match code {
            1 => Self::Ok,
            STATUS_CODE_ERROR => Self::Error,
            _ => Self::Unset,
        }
    }
}

impl SpanStatus {
    /// Lower-case name, as TraceQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// What connects the two ends of an edge of the service graph (OpenTelemetry's and Tempo's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Connection {
    /// A client span and the server span it led to.
    Call = 0,
    /// A producer or consumer.
    MessagingSystem = 1,
    /// A client span that names a database.
    Database = 2,
    /// One end sends no spans.
    VirtualNode = 3,
}

impl Connection {
    /// As `connection_type` has it; empty for a call.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "",
            Self::MessagingSystem => "messaging_system",
            Self::Database => "database",
            Self::VirtualNode => "virtual_node",
        }
    }

    /// The one written as `code` (its discriminant).
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Call, Self::MessagingSystem, Self::Database, Self::VirtualNode]
            .into_iter()
            .find(|connection| *connection as u8 == code)
    }
}

/// What a series counts that other series count as well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family<'a> {
    /// Entry spans whose resource has these attributes: all of them when it has one, so that dimensions that say the same
    /// (host and pod, or all that have one value) are counted once. Name and kind of the series are empty and INTERNAL, its
    /// status is ERROR or UNSET.
    Peel {
        /// Keys and values.
        attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    },
    /// Calls from this client to the service of the series: with kind SERVER as the server saw them, with kind CLIENT as the
    /// client did. The name is empty, the status is ERROR when either failed, else UNSET.
    Edge {
        /// `service.namespace` of the client.
        namespace: Cow<'a, str>,
        /// `service.name` of the client, or what names it.
        client: Cow<'a, str>,
        /// How they are connected.
        connection: Connection,
    },
    /// Spans of the series that have no latency: their slots count, and what they say of latencies means nothing.
    Untimed,
}

impl Family<'_> {
    /// The same with texts of its own.
    pub fn into_owned(self) -> Family<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Peel { attributes } => {
                let attributes = attributes.into_iter().map(|(key, value)| (owned(key), owned(value)));
                Family::Peel { attributes: attributes.collect() }
            }
            Self::Edge { namespace, client, connection } => {
                Family::Edge { namespace: owned(namespace), client: owned(client), connection }
            }
            Self::Untimed => Family::Untimed,
        }
    }
}

/// One latency series. Ordered by (namespace, service, ..), so the series of a service stand together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey<'a> {
    /// `service.namespace`, empty when missing.
    pub namespace: Cow<'a, str>,
    /// `service.name`, `UNKNOWN_SERVICE` when missing.
    pub service: Cow<'a, str>,
    /// Span name.
    pub span_name: Cow<'a, str>,
    /// Kind.
    pub kind: SpanKind,
    /// Status.
    pub status: SpanStatus,
    /// Whether its spans count toward the service's latency (see `Conventions::is_service_entry`).
    pub entry: bool,
    /// `None` for the spans of this name, kind and status: each span is in exactly one such series.
    pub family: Option<Family<'a>>,
}

impl<'a> SeriesKey<'a> {
    /// The series that `span` of `batch` belongs to.
    pub fn of(batch: &'a SpanBatch, span: &Span, conventions: &Conventions) -> Self {
        let (namespace, service) = batch.service_of(span);
        Self {
            namespace,
            service,
            span_name: batch.text_lossy(span.name),
            kind: SpanKind::from(span.kind),
            status: SpanStatus::from(span.status_code),
            entry: conventions.is_service_entry(batch, span),
            family: None,
        }
    }

    /// The series that the span is counted in, whether it has a latency or not.
    pub fn counting(batch: &'a SpanBatch, span: &Span, conventions: &Conventions) -> Self {
        let own = Self::of(batch, span, conventions);
        if span.latency().is_some() { own } else { own.untimed() }
    }

    /// The one beside it that counts its spans without a latency.
    #[must_use]
    pub fn untimed(self) -> Self {
        Self { family: Some(Family::Untimed), ..self }
    }

    /// The same with texts of its own.
    pub fn into_owned(self) -> SeriesKey<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        SeriesKey {
            namespace: owned(self.namespace),
            service: owned(self.service),
            span_name: owned(self.span_name),
            kind: self.kind,
            status: self.status,
            entry: self.entry,
            family: self.family.map(Family::into_owned),
        }
    }
}
