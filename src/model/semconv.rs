//! The few semantic conventions that decide what a number means (OpenTelemetry semantic conventions 1.44), and what of
//! them a server may set.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{Rows, Span, SpanBatch, SpanKind};

/// Service name of a resource that has none.
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// Resource attributes that say where a span ran, unless a setting names others: exemplars should differ in them and are
/// shown with them, and each splits a service's latency into families of its own.
pub const PEEL_DIMENSIONS: [&str; 7] = [
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.node.name",
    "k8s.pod.name",
    "host.name",
    "service.version",
];

/// Bits 8 and 9 of OTLP `Span.flags`: it is known whether the parent is remote, and it is.
const PARENT_IS_REMOTE: u32 = 0x300;

/// What a server's settings say about its spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conventions {
    /// Resource attributes, see `PEEL_DIMENSIONS`.
    pub peel_dimensions: Vec<String>,
    /// Those of them that metrics of entry spans have as labels.
    pub metric_dimensions: Vec<MetricDimension>,
    /// Services that emit only INTERNAL spans: their roots, and those whose parent is remote, count as entries too.
    pub entry_span_services: BTreeSet<String>,
}

/// A resource attribute as a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricDimension {
    /// Its key.
    pub attribute: String,
    /// The name of the label.
    pub label: String,
}

impl MetricDimension {
    /// With the label that Prometheus makes of the key when it takes OTLP: `_` for what a label cannot have, `key_` in front of a
    /// digit, `key` in front of `_`.
    pub fn of(attribute: String) -> Self {
        let legal = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        let label: String = attribute.chars().map(legal).collect();
        let front = match label.chars().next() {
            Some('0'..='9') => "key_",
            Some('_') => "key",
            _ => "",
        };
        Self { label: format!("{front}{label}"), attribute }
    }
}

impl Default for Conventions {
    fn default() -> Self {
        let peel_dimensions = PEEL_DIMENSIONS.map(str::to_owned).to_vec();
        Self { peel_dimensions, metric_dimensions: Vec::new(), entry_span_services: BTreeSet::new() }
    }
}

impl Conventions {
    /// Whether the span counts toward its service's latency: SERVER, CONSUMER that does not merely receive, and for the
    /// services of `entry_span_services` INTERNAL spans that nobody in the same service called.
    ///
    /// Older instrumentation emits `receive` as CONSUMER; its duration includes waiting for a message.
    pub fn is_service_entry(&self, batch: &SpanBatch, span: &Span) -> bool {
        match SpanKind::from(span.kind) {
            SpanKind::Server => true,
            SpanKind::Consumer => {
                let operation = batch
                    .string_attribute(span.attributes, "messaging.operation.type")
                    .or_else(|| batch.string_attribute(span.attributes, "messaging.operation"));
                operation.is_none_or(|operation| operation == "process" || operation == "deliver")
            }
            SpanKind::Internal => {
                let is_outermost = span.parent_span_id.is_zero() || span.flags & PARENT_IS_REMOTE == PARENT_IS_REMOTE;
                is_outermost && self.entry_span_services.contains(&*batch.service_of(span).1)
            }
            SpanKind::Client | SpanKind::Producer => false,
        }
    }

    /// Whether spans of this service and kind are entries or not by more than that.
    pub fn entry_depends_on_span(&self, batch: &SpanBatch, span: &Span) -> bool {
        match SpanKind::from(span.kind) {
            SpanKind::Consumer => true,
            SpanKind::Internal => {
                !self.entry_span_services.is_empty() && self.entry_span_services.contains(&*batch.service_of(span).1)
            }
            SpanKind::Server | SpanKind::Client | SpanKind::Producer => false,
        }
    }

    /// The peel dimensions that a resource with these attributes has, with their values.
    pub fn peel_values<'a>(
        &'a self,
        batch: &'a SpanBatch,
        resource: Rows,
    ) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let value =
            move |dimension: &'a String| Some((dimension.as_str(), batch.string_attribute(resource, dimension)?));
        self.peel_dimensions.iter().filter_map(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_named_as_prometheus_names_attributes_of_otlp() {
        for (attribute, label) in [
            ("cloud.availability_zone", "cloud_availability_zone"),
            ("k8s.pod.name", "k8s_pod_name"),
            ("Rack-No", "Rack_No"),
            ("2nd.zone", "key_2nd_zone"),
            ("_cell", "key_cell"),
            (".cell", "key_cell"),
            ("gr\u{f6}\u{df}e", "gr__e"),
        ] {
            assert_eq!(MetricDimension::of(attribute.to_owned()).label, label);
        }
    }
}
