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

/// Where the spans of a family ran: one value of one peel dimension.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peel<'a> {
    /// Key of a resource attribute.
    pub dimension: Cow<'a, str>,
    /// Its value.
    pub value: Cow<'a, str>,
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
    /// A family: the entry spans of the service that ran there, whatever their name and kind; those are then empty and
    /// INTERNAL, and the status is ERROR or UNSET. Such spans are counted in a series without this as well.
    pub peel: Option<Peel<'a>>,
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
            peel: None,
        }
    }

    /// The family of the entry spans of this series' service that ran where `peel` says.
    pub fn family(&self, peel: Peel<'a>) -> Self {
        Self {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            span_name: Cow::Borrowed(""),
            kind: SpanKind::Internal,
            status: if self.status == SpanStatus::Error { SpanStatus::Error } else { SpanStatus::Unset },
            entry: true,
            peel: Some(peel),
        }
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
            peel: self.peel.map(|peel| Peel { dimension: owned(peel.dimension), value: owned(peel.value) }),
        }
    }
}
