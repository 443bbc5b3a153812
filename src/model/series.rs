//! What one latency histogram speaks of.

use super::{STATUS_CODE_ERROR, Span, SpanBatch, UNKNOWN_SERVICE, is_service_entry};
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
    /// Whether its spans count toward the service's latency (see `is_service_entry`).
    pub entry: bool,
}

impl<'a> SeriesKey<'a> {
    /// The series that `span` of `batch` belongs to.
    pub fn of(batch: &'a SpanBatch, span: &Span) -> Self {
        let resource = batch.resource(span);
        let service = batch.text_lossy(resource.service);
        Self {
            namespace: batch.text_lossy(resource.namespace),
            service: if service.is_empty() { Cow::Borrowed(UNKNOWN_SERVICE) } else { service },
            span_name: batch.text_lossy(span.name),
            kind: SpanKind::from(span.kind),
            status: SpanStatus::from(span.status_code),
            entry: is_service_entry(batch, span),
        }
    }
}
