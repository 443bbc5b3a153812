//! One trace of the shop.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::walk::Emitted;
use crate::model::{DurationNanos, SpanId, TraceId};

/// Schema URL of everything the shop sends.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The spans of one visit to the shop.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Parents before children, so the root is first.
    pub(super) spans: Vec<Emitted>,
}

impl Trace {
    /// Its id.
    pub fn trace_id(&self) -> TraceId {
        TraceId(self.root().and_then(|root| root.trace_id.as_slice().try_into().ok()).unwrap_or_default())
    }

    /// The id of its root, a SERVER span of `frontend`.
    pub fn root_span_id(&self) -> SpanId {
        SpanId(self.root().and_then(|root| root.span_id.as_slice().try_into().ok()).unwrap_or_default())
    }

    /// Number of spans.
    pub fn span_count(&self) -> usize {
        self.spans.len()
    }

    /// Duration of the first SERVER span of `service`; zero when the trace has none.
    pub fn server_duration(&self, service: &str) -> DurationNanos {
        self.server(service).map_or(DurationNanos(0), duration)
    }

    /// Grouped as each process would send them: one `ResourceSpans` per process, one `ScopeSpans` per library in it.
    pub fn resource_spans(&self) -> Vec<ResourceSpans> {
        group(self.spans.clone())
    }

    /// Squeezes all times, nesting kept, so that the SERVER span of `service` lasts `wanted`; the root keeps its start.
    /// Leaves a trace alone in which that span is not longer than `wanted`.
    pub(super) fn shrink_server_to(&mut self, service: &str, wanted: DurationNanos) {
        let Some(anchor) = self.server(service).cloned() else { return };
        let actual = duration(&anchor);
        if actual <= wanted || actual.0 == 0 {
            return;
        }
        let start = self.root().map_or(0, |root| root.start_time_unix_nano);
        let squeezed = |time: u64| {
            let scale = |length: u64| u128::from(length) * u128::from(wanted.0) / u128::from(actual.0);
            let origin = anchor.start_time_unix_nano;
            let lead = u64::try_from(scale(origin.saturating_sub(start))).unwrap_or(u64::MAX);
            let after = u64::try_from(scale(time.saturating_sub(origin))).unwrap_or(u64::MAX);
            let before = u64::try_from(scale(origin.saturating_sub(time))).unwrap_or(u64::MAX);
            // Measured from the anchor's start, whose own place is `lead` after the root: its length comes out exact.
            start.saturating_add(lead).saturating_add(after).saturating_sub(before)
        };
        for emitted in &mut self.spans {
            let span = &mut emitted.span;
            span.start_time_unix_nano = squeezed(span.start_time_unix_nano);
            span.end_time_unix_nano = squeezed(span.end_time_unix_nano);
            for event in &mut span.events {
                event.time_unix_nano = squeezed(event.time_unix_nano);
            }
        }
    }

    fn root(&self) -> Option<&Span> {
        self.spans.first().map(|root| &root.span)
    }

    fn server(&self, service: &str) -> Option<&Span> {
        let server = i32::from(SpanKind::Server);
        let found = self.spans.iter().find(|at| at.process.service.name == service && at.span.kind == server);
        found.map(|emitted| &emitted.span)
    }
}

fn duration(span: &Span) -> DurationNanos {
    DurationNanos(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano))
}

/// Groups spans by process and library, each in the order of its first span.
pub(super) fn group(spans: Vec<Emitted>) -> Vec<ResourceSpans> {
    let mut groups: Vec<(usize, ResourceSpans)> = Vec::new();
    for Emitted { process, library, span } in spans {
        let known = groups.iter().position(|(number, _)| *number == process.number);
        let at = known.unwrap_or_else(|| {
            groups.push((process.number, resource_spans(process.resource.clone())));
            groups.len() - 1
        });
        let Some((_, resource_spans)) = groups.get_mut(at) else { continue };
        let scopes = &mut resource_spans.scope_spans;
        let named = |scope: &InstrumentationScope| scope.name == library.name;
        if let Some(known) = scopes.iter_mut().find(|known| known.scope.as_ref().is_some_and(named)) {
            known.spans.push(span);
            continue;
        }
        let scope = InstrumentationScope {
            name: library.name.to_owned(),
            version: library.version.to_owned(),
            ..InstrumentationScope::default()
        };
        scopes.push(ScopeSpans { scope: Some(scope), spans: vec![span], schema_url: SCHEMA_URL.to_owned() });
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn resource_spans(resource: opentelemetry_proto::tonic::resource::v1::Resource) -> ResourceSpans {
    ResourceSpans { resource: Some(resource), scope_spans: Vec::new(), schema_url: SCHEMA_URL.to_owned() }
}
