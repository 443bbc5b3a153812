//! The few semantic conventions that decide what a number means (OpenTelemetry semantic conventions 1.44).

use super::{Span, SpanBatch, SpanKind};

/// Service name of a resource that has none.
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// Resource attributes that say where a span ran: exemplars should differ in them, and are shown with them.
pub const PEEL_DIMENSIONS: [&str; 7] = [
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.node.name",
    "k8s.pod.name",
    "host.name",
    "service.version",
];

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
