//! Plays an endpoint of the topology: one pass over its steps with a clock of its own makes the spans of a trace.
//!
//! Children lie inside their parents because the clock only moves forward between a span's opening and its closing.
//! The one exception is a consumer, which starts when its message arrives.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::attributes::{self, HttpCall, Message, Visit, int, text};
use super::fleet::{Fleet, Process, SLOW_ZONE};
use super::rng::Rng;
use super::runtimes::Library;
use super::statements::Query;
use super::topology::{Door, Endpoint, PAYMENT, Step};

/// Spread of own work; the tail of a service comes mostly from adding up, and from the slow zone.
const SIGMA: f64 = 0.35;
/// Share of `payment` calls in the slow zone that are slow: with one zone in three, one checkout in fifty.
const SLOW_SHARE: f64 = 0.06;
/// How much slower they are.
const SLOW_FACTOR: (u64, u64) = (8, 20);
/// Share of failed calls that fail their caller too.
const PASSED_ON: f64 = 0.5;
/// Median way of a request through the network, one direction.
const NETWORK_US: f64 = 180.0;
/// Median time a message waits.
const QUEUE_US: f64 = 35_000.0;

/// W3C flags of a sampled span; OTLP bits 8 and 9 say whether the parent is known to be remote.
const FLAGS_LOCAL: u32 = 0x101;
const FLAGS_REMOTE: u32 = 0x301;

/// A span, with the resource and scope it is sent under.
#[derive(Clone, Debug)]
pub(super) struct Emitted {
    pub(super) process: Arc<Process>,
    pub(super) library: &'static Library,
    pub(super) span: Span,
}

/// A slow `payment` call that a caller asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Planted {
    /// Nanoseconds on top of what the call takes anyway.
    pub(super) payment_extra: u64,
}

/// The parent of a span: which one, and whether it is in another process.
#[derive(Clone, Copy)]
struct Parent<'a> {
    span: Option<usize>,
    caller: Option<&'a Process>,
}

#[derive(Debug)]
pub(super) struct Walk<'a> {
    rng: &'a mut Rng,
    fleet: &'a Fleet,
    visit: Visit,
    trace_id: Vec<u8>,
    /// The clock, Unix nanoseconds.
    now: u64,
    /// How many times slower than usual work is here.
    slowness: f64,
    planted: Option<Planted>,
    /// Parents before children.
    spans: Vec<Emitted>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(rng: &'a mut Rng, fleet: &'a Fleet, start: u64, planted: Option<Planted>) -> Self {
        let visit = Visit::new(rng);
        let trace_id = [rng.next_u64().to_be_bytes(), rng.next_u64().to_be_bytes()].concat();
        Self { rng, fleet, visit, trace_id, now: start, slowness: 1.0, planted, spans: Vec::with_capacity(40) }
    }

    /// The spans of one call of `endpoint` by a visitor, parents before children.
    pub(super) fn play(mut self, endpoint: &'static Endpoint) -> Vec<Emitted> {
        if let Some(process) = self.fleet.any_of(endpoint.service, self.rng) {
            let _failed = self.serve(endpoint, &process, Parent { span: None, caller: None }, None);
        }
        self.spans
    }

    /// A SERVER span and what is below it. Whether it failed.
    fn serve(
        &mut self,
        endpoint: &'static Endpoint,
        process: &Arc<Process>,
        parent: Parent<'_>,
        http: Option<HttpCall>,
    ) -> bool {
        let host = cluster_name(process);
        let runtime = process.service.runtime;
        let (library, name, facts, http) = match &endpoint.door {
            Door::Http { method, route } => {
                let http = http.unwrap_or_else(|| HttpCall::new(self.rng, method, route, "shop.example".to_owned()));
                let facts = http.server(self.rng, &self.visit, parent.caller);
                (&runtime.http, format!("{method} {route}"), facts, Some(http))
            }
            Door::Rpc(method) | Door::Queue(method) => {
                let peer = parent.caller.map_or("", |caller| caller.address.as_str());
                (&runtime.rpc, (*method).to_owned(), attributes::rpc(self.rng, method, &host, peer, true), None)
            }
        };
        let at = self.open(process, library, SpanKind::Server, name, parent);
        self.add(at, facts);
        let failed = self.body(endpoint, process, at);
        self.close(at, failed, &end_of_call(http.as_ref(), failed));
        failed
    }

    /// What an endpoint does between the opening and the closing of its span `at`. Whether it failed.
    fn body(&mut self, endpoint: &'static Endpoint, process: &Arc<Process>, at: usize) -> bool {
        let usual = self.slowness;
        let is_payment = endpoint.service.name == PAYMENT.name;
        if is_payment && self.planted.is_none() && process.zone == SLOW_ZONE && self.rng.chance(SLOW_SHARE) {
            self.slowness = self.rng.between(SLOW_FACTOR.0, SLOW_FACTOR.1) as f64;
        }
        self.work(endpoint.work_us / 2.0);
        if is_payment {
            self.now += self.planted.map_or(0, |planted| planted.payment_extra);
        }
        let below = self.steps(endpoint.steps, process, at);
        self.work(endpoint.work_us / 2.0);
        self.slowness = usual;
        let here = self.planted.is_none() && self.rng.chance(endpoint.failing);
        if here {
            self.throw(at, process.service.name);
        }
        here || (below && self.rng.chance(PASSED_ON))
    }

    fn steps(&mut self, steps: &'static [Step], process: &Arc<Process>, at: usize) -> bool {
        let mut failed = false;
        for step in steps {
            failed |= self.step(step, process, at);
        }
        failed
    }

    /// One step of the span `at`. Whether it failed.
    fn step(&mut self, step: &'static Step, process: &Arc<Process>, at: usize) -> bool {
        match step {
            Step::Call(endpoint) => self.call(endpoint, process, at),
            Step::Inside { function, work_us, steps } => self.inside(function, *work_us, steps, process, at),
            Step::Query(query) => self.query(query, process, at),
            Step::External { host, path, work_us, failing } => {
                self.external((host, path), *work_us, *failing, process, at)
            }
            Step::Publish(endpoint) => self.publish(endpoint, process, at),
            Step::Together(steps) => self.together(steps, process, at),
            Step::Repeat { low, high, step } => {
                let mut failed = false;
                for _ in 0..self.rng.between(*low, *high) {
                    failed |= self.step(step, process, at);
                }
                failed
            }
        }
    }

    fn together(&mut self, steps: &'static [Step], process: &Arc<Process>, at: usize) -> bool {
        let (start, mut end, mut failed) = (self.now, self.now, false);
        for step in steps {
            self.now = start;
            failed |= self.step(step, process, at);
            end = end.max(self.now);
        }
        self.now = end;
        failed
    }

    /// A CLIENT span here and the called endpoint's SERVER span there.
    fn call(&mut self, endpoint: &'static Endpoint, process: &Arc<Process>, at: usize) -> bool {
        let Some(callee) = self.callee(endpoint) else { return false };
        let (host, runtime) = (cluster_name(&callee), process.service.runtime);
        let (library, name, facts, http) = match &endpoint.door {
            Door::Http { method, route } => {
                let http = HttpCall::new(self.rng, method, route, host);
                let facts = http.client(8080, &callee.address, runtime.agent);
                (&runtime.http, format!("{method} {route}"), facts, Some(http))
            }
            Door::Rpc(method) | Door::Queue(method) => {
                let facts = attributes::rpc(self.rng, method, &host, &callee.address, false);
                (&runtime.rpc, (*method).to_owned(), facts, None)
            }
        };
        let client = self.open(process, library, SpanKind::Client, name, Parent { span: Some(at), caller: None });
        self.add(client, facts);
        let ends = [false, true].map(|failed| end_of_call(http.as_ref(), failed));
        self.work(NETWORK_US);
        let failed = self.serve(endpoint, &callee, Parent { span: Some(client), caller: Some(process) }, http);
        self.work(NETWORK_US);
        let [fine, bad] = ends;
        self.close(client, failed, if failed { &bad } else { &fine });
        failed
    }

    /// A planted trace is slow for the same reason as the others: `payment` in the slow zone.
    fn callee(&mut self, endpoint: &Endpoint) -> Option<Arc<Process>> {
        if self.planted.is_some() && endpoint.service.name == PAYMENT.name {
            return self.fleet.in_zone(endpoint.service, SLOW_ZONE);
        }
        self.fleet.any_of(endpoint.service, self.rng)
    }

    fn inside(
        &mut self,
        function: &'static str,
        work_us: f64,
        steps: &'static [Step],
        process: &Arc<Process>,
        at: usize,
    ) -> bool {
        let parent = Parent { span: Some(at), caller: None };
        let name = function.rsplit('.').next().unwrap_or(function).to_owned();
        let inner = self.open(process, &process.service.runtime.http, SpanKind::Internal, name, parent);
        let facts = attributes::inside(self.rng, process, function);
        self.add(inner, facts);
        self.work(work_us / 2.0);
        let failed = self.steps(steps, process, inner);
        self.work(work_us / 2.0);
        self.close(inner, failed, &end_of_work(failed));
        failed
    }

    fn query(&mut self, query: &'static Query, process: &Arc<Process>, at: usize) -> bool {
        let parent = Parent { span: Some(at), caller: None };
        let name = format!("{} {}", query.operation, query.collection);
        let span = self.open(process, &process.service.runtime.data, SpanKind::Client, name, parent);
        let facts = attributes::query(self.rng, query);
        self.add(span, facts);
        self.work(query.work_us);
        self.close(span, false, &[]);
        false
    }

    fn external(
        &mut self,
        (host, path): (&'static str, &'static str),
        work_us: f64,
        failing: f64,
        process: &Arc<Process>,
        at: usize,
    ) -> bool {
        let parent = Parent { span: Some(at), caller: None };
        let runtime = process.service.runtime;
        let http = HttpCall::new(self.rng, "POST", path, host.to_owned());
        let span = self.open(process, &runtime.http, SpanKind::Client, format!("POST {path}"), parent);
        let peer = format!("198.51.100.{}", host.len());
        self.add(span, http.client(443, &peer, runtime.agent));
        self.work(work_us);
        let failed = self.planted.is_none() && self.rng.chance(failing);
        if failed {
            self.throw(span, host);
        }
        self.close(span, failed, &end_of_call(Some(&http), failed));
        failed
    }

    /// A PRODUCER span here; the CONSUMER span starts when the message arrives and may outlive everything else.
    fn publish(&mut self, endpoint: &'static Endpoint, process: &Arc<Process>, at: usize) -> bool {
        let Door::Queue(topic) = endpoint.door else { return false };
        let message = Message::new(self.rng, topic);
        let library = &process.service.runtime.queue;
        let parent = Parent { span: Some(at), caller: None };
        let sent = self.open(process, library, SpanKind::Producer, format!("send {topic}"), parent);
        self.add(sent, message.attributes("send", process));
        self.work(900.0);
        self.close(sent, false, &[]);
        let here = self.now;
        self.work(QUEUE_US);
        self.consume(endpoint, &message, (topic, sent), process);
        self.now = here;
        false
    }

    fn consume(
        &mut self,
        endpoint: &'static Endpoint,
        message: &Message,
        (topic, sent): (&str, usize),
        sender: &Process,
    ) {
        let Some(reader) = self.fleet.any_of(endpoint.service, self.rng) else { return };
        let parent = Parent { span: Some(sent), caller: Some(sender) };
        let library = &reader.service.runtime.queue;
        let at = self.open(&reader, library, SpanKind::Consumer, format!("process {topic}"), parent);
        self.add(at, message.attributes("process", &reader));
        let link = Link {
            trace_id: self.trace_id.clone(),
            span_id: self.spans.get(sent).map(|sent| sent.span.span_id.clone()).unwrap_or_default(),
            flags: FLAGS_REMOTE,
            ..Link::default()
        };
        self.edit(at, |span| span.links.push(link));
        let failed = self.body(endpoint, &reader, at);
        self.close(at, failed, &end_of_work(failed));
    }

    /// Lets time pass: about `median_us`, in total slower where the walk is slow.
    fn work(&mut self, median_us: f64) {
        self.now += nanos(self.rng.log_normal(median_us * self.slowness, SIGMA) * 1_000.0);
    }

    fn open(
        &mut self,
        process: &Arc<Process>,
        library: &'static Library,
        kind: SpanKind,
        name: String,
        parent: Parent<'_>,
    ) -> usize {
        let parent_span_id =
            parent.span.and_then(|at| self.spans.get(at)).map(|parent| parent.span.span_id.clone()).unwrap_or_default();
        let span = Span {
            trace_id: self.trace_id.clone(),
            span_id: self.rng.next_u64().max(1).to_be_bytes().to_vec(),
            parent_span_id,
            flags: if parent.caller.is_some() { FLAGS_REMOTE } else { FLAGS_LOCAL },
            name,
            kind: kind.into(),
            start_time_unix_nano: self.now,
            attributes: self.visit.shared(self.rng),
            ..Span::default()
        };
        self.spans.push(Emitted { process: Arc::clone(process), library, span });
        self.spans.len() - 1
    }

    fn add(&mut self, at: usize, facts: Vec<KeyValue>) {
        self.edit(at, |span| span.attributes.extend(facts));
    }

    /// The failure of the span `at` begins here: an exception event, now.
    fn throw(&mut self, at: usize, what: &str) {
        let now = self.now;
        if let Some(emitted) = self.spans.get_mut(at) {
            emitted.span.events.push(attributes::exception(&emitted.process, now, what));
        }
    }

    fn close(&mut self, at: usize, failed: bool, facts: &[KeyValue]) {
        let now = self.now;
        self.edit(at, |span| {
            span.end_time_unix_nano = now;
            span.attributes.extend_from_slice(facts);
            if failed {
                span.status = Some(Status { message: "deadline exceeded".to_owned(), code: StatusCode::Error.into() });
            }
        });
    }

    fn edit(&mut self, at: usize, change: impl FnOnce(&mut Span)) {
        if let Some(emitted) = self.spans.get_mut(at) {
            change(&mut emitted.span);
        }
    }
}

/// The attributes that are known only when a call has ended.
fn end_of_call(http: Option<&HttpCall>, failed: bool) -> Vec<KeyValue> {
    let mut facts = match http {
        Some(http) => vec![int("http.response.status_code", http.status(failed))],
        None => vec![text("rpc.response.status_code", if failed { "UNAVAILABLE" } else { "OK" })],
    };
    if failed {
        facts.push(text("error.type", if http.is_some() { "503" } else { "UNAVAILABLE" }));
    }
    facts
}

/// The same for a span that answers nobody.
fn end_of_work(failed: bool) -> Vec<KeyValue> {
    failed.then(|| text("error.type", "timeout")).into_iter().collect()
}

fn cluster_name(process: &Process) -> String {
    format!("{}.{}.svc.cluster.local", process.service.name, process.service.namespace)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "log-normal values are positive; `as` saturates"
)]
fn nanos(value: f64) -> u64 {
    value as u64
}
