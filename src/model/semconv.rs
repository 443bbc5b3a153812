//! The few semantic conventions that decide what a number means (OpenTelemetry semantic conventions 1.44).

use super::{Span, SpanBatch, SpanKind};

/// Service name of a resource that has none.
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// Whether the span counts toward its service's latency: SERVER, or CONSUMER that does not merely receive.
///
/// Older instrumentation emits `receive` as CONSUMER; its duration includes waiting for a message.
pub fn is_service_entry(batch: &SpanBatch, span: &Span) -> bool {
    match SpanKind::from(span.kind) {
        SpanKind::Server => true,
        SpanKind::Consumer => {
            let operation = batch
                .string_attribute(span.attributes, "messaging.operation.type")
                .or_else(|| batch.string_attribute(span.attributes, "messaging.operation"));
            operation.is_none_or(|operation| operation == "process" || operation == "deliver")
        }
        SpanKind::Internal | SpanKind::Client | SpanKind::Producer => false,
    }
}
