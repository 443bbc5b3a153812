//! Small batches for tests.

use super::{Attribute, Resource, Rows, Scope, Span, SpanBatch, SpanId, Text, TraceId, UnixNanos, Value};

/// A SERVER span in as many words as a test needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) service: &'static str,
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) start: u64,
    pub(crate) duration: u64,
}

/// One batch with one resource per service.
pub(crate) fn batch(samples: &[Sample]) -> SpanBatch {
    let mut batch = SpanBatch::default();
    let mut services: Vec<&str> = Vec::new();
    for sample in samples {
        let scope = services.iter().position(|known| *known == sample.service).unwrap_or_else(|| {
            add_service(&mut batch, sample.service);
            services.push(sample.service);
            services.len() - 1
        });
        let name = text(&mut batch, "POST /pay");
        batch.spans.push(Span {
            trace_id: TraceId(sample.trace.to_be_bytes()),
            span_id: SpanId(sample.span.to_be_bytes()),
            start_time_unix_nano: UnixNanos(sample.start),
            end_time_unix_nano: UnixNanos(sample.start + sample.duration),
            kind: 2,
            scope: u32::try_from(scope).unwrap(),
            name,
            ..Span::default()
        });
    }
    batch
}

fn add_service(batch: &mut SpanBatch, service: &str) {
    let (key, service) = (text(batch, "service.name"), text(batch, service));
    let start = u32::try_from(batch.attributes.len()).unwrap();
    batch.attributes.push(Attribute { key, value: Value::String(service) });
    let resource = u32::try_from(batch.resources.len()).unwrap();
    batch.resources.push(Resource { attributes: Rows { start, len: 1 }, service, ..Resource::default() });
    batch.scopes.push(Scope { resource, ..Scope::default() });
}

fn text(batch: &mut SpanBatch, text: &str) -> Text {
    batch.push_bytes(text.as_bytes()).unwrap()
}
