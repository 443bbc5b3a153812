//! Packs traces into export requests.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use super::trace::{Trace, group};
use super::walk::Emitted;

/// Spans of a full request: `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` of the OpenTelemetry SDKs.
pub const REQUEST_SPANS_MAX: usize = 512;

/// Who sends the spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Each process its own, as SDKs do: one resource per request, and a trace comes in many requests.
    Process,
    /// A Collector for all: many resources per request, and a trace comes mostly in one.
    Collector,
}

/// Collects traces until requests are full. Holds up to `REQUEST_SPANS_MAX` spans per process.
#[derive(Debug)]
pub struct Requests {
    grouping: Grouping,
    waiting: BTreeMap<usize, Vec<Emitted>>,
}

impl Requests {
    /// Nothing waiting.
    pub fn new(grouping: Grouping) -> Self {
        Self { grouping, waiting: BTreeMap::new() }
    }

    /// Adds a trace; the requests that it filled, each of exactly `REQUEST_SPANS_MAX` spans.
    pub fn add(&mut self, trace: Trace) -> Vec<ExportTraceServiceRequest> {
        let mut full = Vec::new();
        for emitted in trace.spans {
            let sender = match self.grouping {
                Grouping::Process => emitted.process.number,
                Grouping::Collector => 0,
            };
            let waiting = self.waiting.entry(sender).or_default();
            waiting.push(emitted);
            if waiting.len() == REQUEST_SPANS_MAX {
                full.push(request(std::mem::take(waiting)));
            }
        }
        full
    }

    /// What still waits, in requests that are not full.
    pub fn flush(&mut self) -> Vec<ExportTraceServiceRequest> {
        let waiting = std::mem::take(&mut self.waiting).into_values();
        waiting.filter(|spans| !spans.is_empty()).map(request).collect()
    }
}

fn request(spans: Vec<Emitted>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans: group(spans) }
}
