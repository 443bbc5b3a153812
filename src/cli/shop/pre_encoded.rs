//! Requests encoded once and sent many times: only ids and times change, in place.
//!
//! An encoded id or time has a fixed length in protobuf (16 or 8 bytes, fixed64), so a request keeps its layout and the
//! places to write are found once. Attribute values repeat from cycle to cycle.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

use super::requests::{Grouping, REQUEST_SPANS_MAX, Requests};
use super::rng::{Rng, mix};
use super::{Shop, Trace};
use crate::model::{DurationNanos, UnixNanos};

/// The template's traces start evenly within this time.
const SPREAD: DurationNanos = DurationNanos::from_secs(1);
/// A trace's times are squeezed by 768..1024 of 1024, another factor in each cycle, so that no two cycles are alike.
const SQUEEZE_LOW: u64 = 768;
const SQUEEZE_ONE: u64 = 1024;

/// A ring of encoded `ExportTraceServiceRequest`s. Memory: its bytes and about 30 bytes per id or time in them.
#[derive(Debug)]
pub struct PreEncoded {
    templates: Vec<Template>,
    traces: Vec<LiveTrace>,
    /// Spans in one cycle; each has its number in it.
    span_count: u64,
    /// Ids are `mix(counter)`, so a counter that never repeats gives ids that never repeat.
    span_counter: u64,
    trace_counter: u64,
    /// Position in `templates`; a new cycle begins at 0.
    position: usize,
}

#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    patches: Vec<Patch>,
    span_count: usize,
}

/// A place in a template whose content changes.
#[derive(Debug)]
enum Patch {
    TraceId { at: usize, trace: usize },
    SpanId { at: usize, span: u64 },
    Time { at: usize, trace: usize, since_start: u64 },
}

/// A trace of the template: where it lies, and what it is in the running cycle.
#[derive(Debug, Default)]
struct LiveTrace {
    /// How long before the cycle's `now` it starts.
    before_now: u64,
    id: [u8; 16],
    start: u64,
    squeeze: u64,
}

impl PreEncoded {
    /// Encodes traces of `Shop::new(seed)`: `requests` of `REQUEST_SPANS_MAX` spans each, at least one. With
    /// `Grouping::Process` there are more requests, some of them smaller, so that no trace is cut.
    ///
    /// Two rings with the same seed send the same ids.
    pub fn new(seed: u64, requests: usize, grouping: Grouping) -> Self {
        let mut rng = Rng::new(!seed);
        let (requests, starts) = generate(seed, requests.max(1), grouping);
        let mut scan = Scan::new(starts);
        let templates: Vec<Template> = requests.iter().map(|request| scan.template(request)).collect();
        Self {
            templates,
            traces: scan.live_traces(),
            span_count: scan.spans.len() as u64,
            span_counter: rng.next_u64(),
            trace_counter: rng.next_u64(),
            position: 0,
        }
    }

    /// The next request, as if its spans had just ended. All requests of a cycle share the `now` of the first one, as
    /// traces lie across them: every span ends at most a template's length (seconds) before that, none after.
    ///
    /// Every span and trace id is new in each cycle. Cost: about 5 eight-byte writes per span.
    pub fn next(&mut self, now: UnixNanos) -> &[u8] {
        if self.position == 0 {
            self.begin_cycle(now);
        }
        let at = self.position;
        self.position = (at + 1) % self.templates.len().max(1);
        let Some(template) = self.templates.get_mut(at) else { return &[] };
        template.patch(&self.traces, self.span_counter);
        &template.bytes
    }

    /// Number of spans in the request that `next` gave last.
    pub fn last_span_count(&self) -> usize {
        let last = self.position.checked_sub(1).unwrap_or(self.templates.len().saturating_sub(1));
        self.templates.get(last).map_or(0, |template| template.span_count)
    }

    /// Requests of one cycle.
    pub fn request_count(&self) -> usize {
        self.templates.len()
    }

    fn begin_cycle(&mut self, now: UnixNanos) {
        self.span_counter = self.span_counter.wrapping_add(self.span_count);
        for trace in &mut self.traces {
            self.trace_counter = self.trace_counter.wrapping_add(1);
            let low = mix(self.trace_counter);
            let id = (u128::from(mix(low)) << 64) | u128::from(low);
            trace.id = id.to_be_bytes();
            trace.start = now.0.saturating_sub(trace.before_now);
            trace.squeeze = SQUEEZE_LOW + low % (SQUEEZE_ONE - SQUEEZE_LOW);
        }
    }
}

impl Template {
    fn patch(&mut self, traces: &[LiveTrace], span_counter: u64) {
        for patch in &self.patches {
            match *patch {
                Patch::TraceId { at, trace } => {
                    let Some(trace) = traces.get(trace) else { continue };
                    write(&mut self.bytes, at, &trace.id);
                }
                Patch::SpanId { at, span } => {
                    write(&mut self.bytes, at, &mix(span_counter.wrapping_add(span)).to_be_bytes());
                }
                Patch::Time { at, trace, since_start } => {
                    let Some(trace) = traces.get(trace) else { continue };
                    let time = trace.start + since_start * trace.squeeze / SQUEEZE_ONE;
                    // Protobuf's fixed64 is little-endian; this is its format, not one of ours.
                    let mut encoded = time.to_be_bytes();
                    encoded.reverse();
                    write(&mut self.bytes, at, &encoded);
                }
            }
        }
    }
}

fn write(bytes: &mut [u8], at: usize, content: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + content.len()) {
        place.copy_from_slice(content);
    }
}

/// The requests, and when each of their traces starts and how long before the last end of all.
fn generate(
    seed: u64,
    wanted: usize,
    grouping: Grouping,
) -> (Vec<ExportTraceServiceRequest>, HashMap<Vec<u8>, TraceStart>) {
    let origin = UnixNanos(1 << 60);
    let mut shop = Shop::new(seed);
    let mut rng = Rng::new(seed);
    let mut requests = Requests::new(grouping);
    let (mut ready, mut starts, mut spans, mut last_end) = (Vec::new(), HashMap::new(), 0, 0);
    while spans < wanted * REQUEST_SPANS_MAX {
        let start = origin.saturating_add(DurationNanos(rng.below(SPREAD.0)));
        let trace = shop.next_trace(start);
        spans += trace.span_count();
        last_end = end(&trace).max(last_end);
        let _new = starts.insert(trace.trace_id().0.to_vec(), TraceStart { at: start.0, before_now: 0 });
        ready.extend(requests.add(trace));
    }
    if grouping == Grouping::Process {
        ready.extend(requests.flush());
    }
    for start in starts.values_mut() {
        start.before_now = last_end - start.at;
    }
    (ready, starts)
}

fn end(trace: &Trace) -> u64 {
    trace.spans.iter().map(|emitted| emitted.span.end_time_unix_nano).max().unwrap_or(0)
}

#[derive(Debug)]
struct TraceStart {
    at: u64,
    before_now: u64,
}

/// Numbers traces and spans as they are met, over all templates.
#[derive(Debug)]
struct Scan {
    starts: HashMap<Vec<u8>, TraceStart>,
    traces: HashMap<Vec<u8>, usize>,
    before_now: Vec<u64>,
    spans: HashMap<Vec<u8>, u64>,
}

impl Scan {
    fn new(starts: HashMap<Vec<u8>, TraceStart>) -> Self {
        Self { starts, traces: HashMap::new(), before_now: Vec::new(), spans: HashMap::new() }
    }

    fn live_traces(&self) -> Vec<LiveTrace> {
        self.before_now.iter().map(|before_now| LiveTrace { before_now: *before_now, ..LiveTrace::default() }).collect()
    }

    fn template(&mut self, request: &ExportTraceServiceRequest) -> Template {
        let bytes = request.encode_to_vec();
        let mut template = Template { patches: Vec::new(), span_count: 0, bytes: Vec::new() };
        // ExportTraceServiceRequest.resource_spans = 1, ResourceSpans.scope_spans = 2, ScopeSpans.spans = 2.
        for resource_spans in fields(&bytes, 0).filter(|field| field.number == 1) {
            for scope_spans in resource_spans.inside().filter(|field| field.number == 2) {
                for span in scope_spans.inside().filter(|field| field.number == 2) {
                    template.span_count += 1;
                    self.span(&span, &mut template.patches);
                }
            }
        }
        template.bytes = bytes;
        template
    }

    fn span(&mut self, span: &Field<'_>, patches: &mut Vec<Patch>) {
        // Field 1 comes first: prost writes fields by number.
        let Some(id) = span.inside().find(|field| field.number == 1) else { return };
        let trace = self.trace(id.content);
        let start = self.starts.get(id.content).map_or(0, |start| start.at);
        for field in span.inside() {
            match field.number {
                1 => patches.push(Patch::TraceId { at: field.at, trace }),
                2 | 4 => self.span_id(&field, patches),
                7 | 8 => patches.push(time(&field, trace, start)),
                // Event.time_unix_nano = 1.
                11 => patches.extend(field.inside().filter(|at| at.number == 1).map(|at| time(&at, trace, start))),
                13 => self.link(&field, patches),
                _ => {}
            }
        }
    }

    fn link(&mut self, link: &Field<'_>, patches: &mut Vec<Patch>) {
        for field in link.inside() {
            match field.number {
                1 => patches.push(Patch::TraceId { at: field.at, trace: self.trace(field.content) }),
                2 => self.span_id(&field, patches),
                _ => {}
            }
        }
    }

    fn trace(&mut self, id: &[u8]) -> usize {
        if let Some(known) = self.traces.get(id) {
            return *known;
        }
        let new = self.before_now.len();
        self.before_now.push(self.starts.get(id).map_or(0, |start| start.before_now));
        let _none = self.traces.insert(id.to_vec(), new);
        new
    }

    fn span_id(&mut self, field: &Field<'_>, patches: &mut Vec<Patch>) {
        if field.content.is_empty() {
            return;
        }
        let next = self.spans.len() as u64;
        let span = *self.spans.entry(field.content.to_vec()).or_insert(next);
        patches.push(Patch::SpanId { at: field.at, span });
    }
}

fn time(field: &Field<'_>, trace: usize, start: u64) -> Patch {
    let encoded = field.content.iter().rev().fold(0, |time, byte| (time << 8) | u64::from(*byte));
    Patch::Time { at: field.at, trace, since_start: encoded.saturating_sub(start) }
}

/// One field of a protobuf message: where its content lies in the whole request.
struct Field<'a> {
    number: u32,
    at: usize,
    content: &'a [u8],
}

impl<'a> Field<'a> {
    fn inside(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        fields(self.content, self.at)
    }
}

/// The fields of a message that lies at `base`. Ends at what is no field: our own encoder writes none.
fn fields(message: &[u8], base: usize) -> impl Iterator<Item = Field<'_>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let (number, wire_type) = prost::encoding::decode_key(&mut rest).ok()?;
        let before = rest;
        let (skip, length) = match wire_type {
            prost::encoding::WireType::Varint => {
                let _value = prost::encoding::decode_varint(&mut rest).ok()?;
                (0, before.len() - rest.len())
            }
            prost::encoding::WireType::SixtyFourBit => (0, 8),
            prost::encoding::WireType::ThirtyTwoBit => (0, 4),
            prost::encoding::WireType::LengthDelimited => {
                let length = usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
                (before.len() - rest.len(), length)
            }
            prost::encoding::WireType::StartGroup | prost::encoding::WireType::EndGroup => return None,
        };
        let content = before.get(skip..skip + length)?;
        let at = base + (message.len() - before.len()) + skip;
        rest = before.get(skip + length..)?;
        Some(Field { number, at, content })
    })
}
