//! The oracle: what was sent, what of it was acknowledged, and whether a server still has all of that, once, unaltered.
//!
//! A witness lives in the test's process and so outlives every server. It keeps a hash of each span with its resource and
//! scope; a span that was sent but not acknowledged may be there or not, but never altered and never twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, TracesData};
use prost::Message as _;
use spandrel::cli::shop::{Grouping, Requests, Shop};
use spandrel::model::DurationNanos;

use crate::support::{ChildServer, now};

/// Span id and kind: what makes a span one within its trace.
pub(crate) type SpanKey = (Vec<u8>, i32);

/// One span as it was sent or came back.
struct Content {
    trace: Vec<u8>,
    key: SpanKey,
    hash: u64,
    /// The service whose latency it counts for.
    counts_for: Option<String>,
}

fn contents(resource_spans: &[ResourceSpans]) -> Vec<Content> {
    let mut contents = Vec::new();
    for resource in resource_spans {
        let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
        let service = attributes.filter(|attribute| attribute.key == "service.name").find_map(|attribute| {
            use opentelemetry_proto::tonic::common::v1::any_value::Value;
            match attribute.value.as_ref()?.value.as_ref()? {
                Value::StringValue(name) => Some(name.clone()),
                _ => None,
            }
        });
        let mut around = resource.resource.clone().unwrap_or_default().encode_to_vec();
        around.extend_from_slice(resource.schema_url.as_bytes());
        for scope in &resource.scope_spans {
            let mut around = around.clone();
            around.extend_from_slice(&scope.scope.clone().unwrap_or_default().encode_to_vec());
            around.extend_from_slice(scope.schema_url.as_bytes());
            for span in &scope.spans {
                // A status that was left out is the same as an empty one, which answers always carry.
                let span = Span { status: Some(span.status.clone().unwrap_or_default()), ..span.clone() };
                let mut bytes = around.clone();
                bytes.extend_from_slice(&span.encode_to_vec());
                let counts = span.kind == 2 || span.kind == 5;
                contents.push(Content {
                    hash: xxhash_rust::xxh3::xxh3_64(&bytes),
                    key: (span.span_id, span.kind),
                    trace: span.trace_id,
                    counts_for: service.clone().filter(|_| counts),
                });
            }
        }
    }
    contents
}

#[derive(Debug)]
struct Noted {
    hash: u64,
    acknowledged: bool,
}

#[derive(Debug, Default)]
struct NotedTrace {
    /// The latest round in which one of its spans was acknowledged.
    round: u64,
    spans: BTreeMap<SpanKey, Noted>,
}

/// What a test sent, and what of it was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    traces: Mutex<BTreeMap<Vec<u8>, NotedTrace>>,
    round: AtomicU64,
}

/// A trace as somebody answered it.
pub(crate) struct Found {
    pub(crate) data: TracesData,
    /// What the answer says is missing; empty when it calls itself complete.
    pub(crate) missing: String,
}

/// Latencies of a service as somebody answered them.
pub(crate) struct Numbers {
    pub(crate) count: u64,
    /// Trace and span ids.
    pub(crate) exemplars: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the answer says is missing.
    pub(crate) missing: String,
}

/// Whom a witness asks.
pub(crate) trait Asked {
    fn trace(&self, id: &[u8]) -> Found;
    /// `None` when no such service is stored.
    fn numbers(&self, service: &str) -> Option<Numbers>;
}

/// What came of asking.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Acknowledged spans that were looked for.
    pub(crate) looked_for: u64,
    /// Acknowledged spans that are not there.
    pub(crate) lost: Vec<String>,
    /// Spans that nobody sent, that changed, or that came twice; numbers that disagree with the spans.
    pub(crate) wrong: Vec<String>,
    /// What answers called missing, each sentence once.
    pub(crate) named: BTreeSet<String>,
    /// Spans per service that count for its latency.
    counted: BTreeMap<String, u64>,
}

impl Findings {
    #[track_caller]
    pub(crate) fn assert_clean(&self, context: &str) {
        let first = |faults: &[String]| faults.iter().take(5).cloned().collect::<Vec<_>>();
        assert!(
            self.lost.is_empty() && self.wrong.is_empty() && self.named.is_empty(),
            "{context}: of {} acknowledged spans {} are lost {:?}, {} things are wrong {:?}, called missing: {:?}",
            self.looked_for,
            self.lost.len(),
            first(&self.lost),
            self.wrong.len(),
            first(&self.wrong),
            self.named
        );
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

impl Witness {
    fn traces(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, NotedTrace>> {
        self.traces.lock().expect("no panic under the lock")
    }

    /// What is acknowledged from now on belongs to `round`.
    pub(crate) fn begin_round(&self, round: u64) {
        self.round.store(round, Ordering::SeqCst);
    }

    /// To be called before a request is sent, and again with `true` once it is acknowledged.
    pub(crate) fn note(&self, request: &ExportTraceServiceRequest, acknowledged: bool) {
        let round = self.round.load(Ordering::SeqCst);
        let mut traces = self.traces();
        for content in contents(&request.resource_spans) {
            let trace = traces.entry(content.trace).or_default();
            let span = trace.spans.entry(content.key).or_insert(Noted { hash: content.hash, acknowledged: false });
            span.acknowledged |= acknowledged;
            trace.round = trace.round.max(round);
        }
    }

    /// Acknowledged spans.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.traces().values().flat_map(|trace| trace.spans.values()).filter(|span| span.acknowledged).count() as u64
    }

    /// Asks for every trace that got an acknowledgement in round `since` or later.
    pub(crate) fn check_since(&self, since: u64, asked: &impl Asked) -> Findings {
        let mut findings = Findings::default();
        let traces = self.traces();
        for (id, noted) in traces.iter().filter(|(_, noted)| since <= noted.round) {
            let found = asked.trace(id);
            if !found.missing.is_empty() {
                let _known = findings.named.insert(found.missing);
            }
            let mut stored = BTreeSet::new();
            for content in contents(&found.data.resource_spans) {
                let name = format!("span {} of trace {}", hex(&content.key.0), hex(id));
                match noted.spans.get(&content.key) {
                    None => findings.wrong.push(format!("{name} was never sent")),
                    Some(noted) if noted.hash != content.hash => findings.wrong.push(format!("{name} is altered")),
                    Some(_) => {}
                }
                if let Some(service) = content.counts_for {
                    *findings.counted.entry(service).or_default() += 1;
                }
                if !stored.insert(content.key) {
                    findings.wrong.push(format!("{name} came twice"));
                }
            }
            for (key, _) in noted.spans.iter().filter(|(_, span)| span.acknowledged) {
                findings.looked_for += 1;
                if !stored.contains(key) {
                    findings.lost.push(format!("span {} of trace {}", hex(&key.0), hex(id)));
                }
            }
        }
        findings
    }

    /// Asks for everything, and compares the numbers with what came back.
    pub(crate) fn check_everything(&self, asked: &impl Asked) -> Findings {
        let mut findings = self.check_since(0, asked);
        let counted = findings.counted.clone();
        for (service, spans) in counted {
            let Some(numbers) = asked.numbers(&service) else {
                findings.wrong.push(format!("{service} is unknown but has {spans} spans"));
                continue;
            };
            if !numbers.missing.is_empty() {
                let _known = findings.named.insert(numbers.missing);
            } else if numbers.count != spans {
                findings
                    .wrong
                    .push(format!("{service}: the histogram counts {}, the spans are {spans}", numbers.count));
            }
            for (trace, span) in numbers.exemplars {
                let opened = contents(&asked.trace(&trace).data.resource_spans);
                if !opened.iter().any(|content| content.key.0 == span) {
                    findings.wrong.push(format!("{service}: the exemplar {} does not open", hex(&trace)));
                }
            }
        }
        findings
    }

    #[track_caller]
    pub(crate) fn assert_since(&self, since: u64, server: &ChildServer, context: &str) {
        self.check_since(since, server).assert_clean(context);
    }

    #[track_caller]
    pub(crate) fn assert_everything(&self, server: &ChildServer) {
        assert_ne!(self.acknowledged(), 0, "something was acknowledged");
        self.check_everything(server).assert_clean("everything");
        assert!(!server.said().contains("panicked"), "{}", server.said());
    }
}

/// Tempo's answer, as in `proto/tempo.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct TraceById {
    #[prost(message, tag = "1")]
    trace: Option<TracesData>,
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

impl Asked for ChildServer {
    fn trace(&self, id: &[u8]) -> Found {
        let answer = self.ask(&format!("/api/v2/traces/{}", hex(id)), "application/protobuf");
        if answer.status == 404 {
            return Found { data: TracesData::default(), missing: String::new() };
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let found = TraceById::decode(answer.body.as_slice()).expect("the answer is a trace");
        assert_eq!(found.status == 1, !found.message.is_empty(), "{}", found.message);
        Found { data: found.trace.unwrap_or_default(), missing: found.message }
    }

    fn numbers(&self, service: &str) -> Option<Numbers> {
        let answer = self.get(&format!("/spandrel/v1/percentile?service={service}&start=-2h&q=0.5,0.99,1"));
        if answer.status == 404 {
            return None;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let bytes = |value: &serde_json::Value| unhex(value.as_str().expect("an id"));
        let rows = answer["quantiles"].as_array().expect("rows");
        let exemplars = rows.iter().flat_map(|row| row["exemplars"].as_array().expect("exemplars"));
        let reasons = answer["coverage"]["reasons"].as_array().expect("reasons");
        Some(Numbers {
            count: answer["count"].as_u64().expect("a count"),
            exemplars: exemplars.map(|exemplar| (bytes(&exemplar["trace_id"]), bytes(&exemplar["span_id"]))).collect(),
            missing: reasons.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join("; "),
        })
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// By which door a sender comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Grpc,
    Http,
}

/// A client that sends one request after the other and, as a good exporter does, repeats what was not acknowledged: also
/// to the next server on the same directory.
#[derive(Debug)]
pub(crate) struct Sender {
    door: Door,
    shop: Shop,
    waiting: VecDeque<ExportTraceServiceRequest>,
    /// Answers that told it to come again.
    pub(crate) refused: u64,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Acknowledged,
    /// UNAVAILABLE or 503, with what was said and whether it came with a hint when to try again.
    Refused {
        said: String,
        hint: bool,
    },
    /// The server is gone, or answered something that is no refusal.
    Failed(String),
}

impl Sender {
    pub(crate) fn new(door: Door, seed: u64) -> Self {
        Self { door, shop: Shop::new(seed), waiting: VecDeque::new(), refused: 0 }
    }

    fn refill(&mut self, traces: usize) {
        let mut requests = Requests::new(Grouping::Process);
        for _ in 0..traces {
            let start = now().saturating_sub(DurationNanos::from_secs(10));
            self.waiting.extend(requests.add(self.shop.next_trace(start)));
        }
        self.waiting.extend(requests.flush());
    }

    /// Sends about `traces` traces; ends early when the server is gone.
    pub(crate) fn send(&mut self, server: &ChildServer, traces: usize, witness: &Witness) {
        self.refill(traces);
        self.run(&Addresses::of(server), witness, &AtomicBool::new(false), 0);
    }

    /// Sends what waits, then `traces` more, until `stop` or until the server is gone. A refusal is no end.
    pub(crate) fn run(&mut self, server: &Addresses, witness: &Witness, stop: &AtomicBool, traces: usize) {
        let mut client = Client::new(self.door, server.clone());
        let mut left = traces;
        while !stop.load(Ordering::SeqCst) {
            if self.waiting.is_empty() && left != 0 {
                self.refill(4);
                left = left.saturating_sub(4);
            }
            let Some(request) = self.waiting.front() else { return };
            witness.note(request, false);
            match client.send(request) {
                Sent::Acknowledged => {
                    witness.note(request, true);
                    let _done = self.waiting.pop_front();
                }
                Sent::Refused { .. } => {
                    self.refused += 1;
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                Sent::Failed(_) => return,
            }
        }
    }
}

/// Where a server takes spans.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    otlp_grpc: String,
    otlp_http: String,
}

impl Addresses {
    pub(crate) fn of(server: &ChildServer) -> Self {
        Self { otlp_grpc: server.otlp_grpc.clone(), otlp_http: server.otlp_http.clone() }
    }
}

/// A connection to one of a server's doors.
pub(crate) struct Client {
    door: Door,
    server: Addresses,
    agent: ureq::Agent,
    runtime: tokio::runtime::Runtime,
    grpc: Option<TraceServiceClient<tonic::transport::Channel>>,
}

impl Client {
    pub(crate) fn new(door: Door, server: Addresses) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        Self { door, server, agent: config.build().into(), runtime, grpc: None }
    }

    pub(crate) fn send(&mut self, request: &ExportTraceServiceRequest) -> Sent {
        match self.door {
            Door::Grpc => self.by_grpc(request),
            Door::Http => self.by_http(request),
        }
    }

    fn by_grpc(&mut self, request: &ExportTraceServiceRequest) -> Sent {
        self.runtime.block_on(async {
            if self.grpc.is_none() {
                match TraceServiceClient::connect(format!("http://{}", self.server.otlp_grpc)).await {
                    Ok(client) => self.grpc = Some(client),
                    Err(error) => return Sent::Failed(error.to_string()),
                }
            }
            let Some(client) = &mut self.grpc else { return Sent::Failed("no connection".to_owned()) };
            match client.export(request.clone()).await {
                Ok(_) => Sent::Acknowledged,
                // Without details it is the transport that says so, not the server.
                Err(status) if status.code() == tonic::Code::Unavailable && !status.details().is_empty() => {
                    let hint = tonic_types::StatusExt::get_details_retry_info(&status).is_some();
                    Sent::Refused { said: status.message().to_owned(), hint }
                }
                Err(status) => Sent::Failed(status.to_string()),
            }
        })
    }

    fn by_http(&mut self, request: &ExportTraceServiceRequest) -> Sent {
        let post = self.agent.post(format!("http://{}/v1/traces", self.server.otlp_http));
        let post = post.header("content-type", "application/x-protobuf");
        match post.send(request.encode_to_vec().as_slice()) {
            Ok(answer) if answer.status() == 200 => Sent::Acknowledged,
            Ok(mut answer) if answer.status() == 503 => {
                let hint = answer.headers().contains_key("retry-after");
                let said = answer.body_mut().read_to_vec().unwrap_or_default();
                Sent::Refused { said: String::from_utf8_lossy(&said).into_owned(), hint }
            }
            Ok(answer) => Sent::Failed(answer.status().to_string()),
            Err(error) => Sent::Failed(error.to_string()),
        }
    }
}

/// Several senders at once on threads of their own, for as long as `during` runs.
pub(crate) fn under_load<T>(
    senders: &mut [Sender],
    server: &Addresses,
    witness: &Witness,
    traces: usize,
    during: impl FnOnce() -> T,
) -> T {
    /// Also when `during` panics: the scope waits for the senders.
    struct StopAtEnd<'a>(&'a AtomicBool);
    impl Drop for StopAtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _at_end = StopAtEnd(&stop);
        for sender in senders {
            let stop = &stop;
            let _joined_by_scope = scope.spawn(move || sender.run(server, witness, stop, traces));
        }
        during()
    })
}

/// Two by gRPC, one by HTTP.
pub(crate) fn three_senders(seed: u64) -> [Sender; 3] {
    [Door::Grpc, Door::Http, Door::Grpc].map({
        let mut seeds = seed..;
        move |door| Sender::new(door, seeds.next().unwrap_or(seed))
    })
}
