//! The list of bad inputs against a running server: each over gRPC, HTTP/protobuf and HTTP/JSON, plain, gzip and zstd, its exact
//! answer and effect; and after each a good batch on the same connection is stored.

mod envelope;
mod json;
mod span;
mod value;
mod wire_format;

use futures_util::FutureExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use serde_json::Value as Json;

use crate::support::{Answer, ChildServer, now, serve};
use crate::wire::{Coding, Reply, Transport, Wire};

/// Good spans beside the bad one.
const NEIGHBOURS: usize = 511;
/// Resident memory that the server may reach, whatever it is sent: `--memory` (256 MiB) and its allowance.
const RSS_MAX_MIB: u64 = 300;

/// The right answer.
#[derive(Clone, Debug)]
enum Expect {
    Ok,
    /// Everything stored, with these codes in the message.
    Warned(&'static [&'static str]),
    /// So many spans rejected, for this reason.
    Partial(i64, &'static str),
    /// Nothing stored; the message says this.
    Invalid(&'static str),
    TooLarge,
}

/// What JSON it is sent as.
enum AsJson {
    /// The same messages as prost understands them.
    Transcoded,
    /// JSON cannot say it.
    No,
    Text(Box<dyn Fn(&Run) -> String>),
}

/// One run of a case: its trace id makes every run a request of its own.
struct Run {
    trace: [u8; 16],
}

/// The protobuf body of a run.
type Body = Box<dyn Fn(&Run) -> Vec<u8>>;

/// Looks at the case's own span (the first of its trace), as the native API shows it.
type Look = fn(&Json);

struct Case {
    id: &'static str,
    /// The protobuf body; `None`: JSON only.
    body: Option<Body>,
    json: AsJson,
    expect: Expect,
    /// Spans of the run's trace that are stored in the end.
    stored: usize,
    look: Option<Look>,
}

impl Case {
    fn new(id: &'static str, body: impl Fn(&Run) -> Vec<u8> + 'static, expect: Expect, stored: usize) -> Self {
        Self { id, body: Some(Box::new(body)), json: AsJson::Transcoded, expect, stored, look: None }
    }

    /// One changed span among good ones. It has span id 1.
    fn among(id: &'static str, expect: Expect, change: impl Fn(&mut Span) + 'static) -> Self {
        let kept = usize::from(!matches!(expect, Expect::Partial(..)));
        let body = move |run: &Run| {
            let mut spans = vec![run.span(1)];
            change(&mut spans[0]);
            spans.extend((2..2 + NEIGHBOURS as u64).map(|no| run.span(no)));
            request(spans).encode_to_vec()
        };
        Self::new(id, body, expect, NEIGHBOURS + kept)
    }

    /// The same of raw bytes behind a good span's own; JSON cannot say it.
    fn raw_among(id: &'static str, expect: Expect, tail: impl Fn() -> Vec<u8> + 'static) -> Self {
        let kept = usize::from(!matches!(expect, Expect::Partial(..)));
        let body = move |run: &Run| {
            let own = [run.span(1).encode_to_vec(), tail()].concat();
            let good = (2..2 + NEIGHBOURS as u64).map(|no| field(2, &run.span(no).encode_to_vec()));
            let scope_spans: Vec<u8> = std::iter::once(field(2, &own)).chain(good).flatten().collect();
            field(1, &[field(1, &service("corpus").encode_to_vec()), field(2, &scope_spans)].concat())
        };
        Self { json: AsJson::No, ..Self::new(id, body, expect, NEIGHBOURS + kept) }
    }

    fn looking(self, look: Look) -> Self {
        Self { look: Some(look), ..self }
    }

    fn without_json(self) -> Self {
        Self { json: AsJson::No, ..self }
    }
}

impl Run {
    /// The trace id in hex.
    fn id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace))
    }

    fn span(&self, no: u64) -> Span {
        Span {
            trace_id: self.trace.to_vec(),
            span_id: no.to_be_bytes().to_vec(),
            name: "work".to_owned(),
            kind: 2,
            start_time_unix_nano: now().0 - 1_000_000,
            end_time_unix_nano: now().0,
            ..Span::default()
        }
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource = Some(service("corpus"));
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

fn service(name: &str) -> Resource {
    Resource { attributes: vec![text("service.name", name)], ..Resource::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A field of wire type 2.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

/// The running server and a connection for each transport.
struct Bench {
    server: ChildServer,
    wires: Vec<(Transport, Wire)>,
    runs: u64,
}

impl Bench {
    async fn new(dir: &std::path::Path) -> Self {
        let server = ChildServer::from(&mut serve(dir)).expect("it starts");
        let mut wires = Vec::new();
        for (transport, address) in [
            (Transport::Grpc, &server.otlp_grpc),
            (Transport::Protobuf, &server.otlp_http),
            (Transport::Json, &server.otlp_http),
        ] {
            wires.push((transport, Wire::connect(address.parse().expect("an address"), transport).await));
        }
        Self { server, wires, runs: 0 }
    }

    fn run(&mut self) -> Run {
        self.runs += 1;
        let mut trace = [0xc0; 16];
        trace[8..].copy_from_slice(&self.runs.to_be_bytes());
        Run { trace }
    }

    async fn check(&mut self, case: &Case) {
        for at in 0..self.wires.len() {
            let transport = self.wires[at].0;
            for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
                let run = self.run();
                let Some(body) = case.body_for(transport, &run) else { continue };
                let place = format!("{} over {transport:?} with {coding:?}", case.id);
                let reply = self.wires[at].1.export(coding, &body).await;
                check_reply(&place, transport, &reply, &case.expect);
                self.check_stored(&place, &run, case);
                let good = self.run();
                let body = as_sent(transport, &request(vec![good.span(1)]));
                let reply = self.wires[at].1.export(Coding::Identity, &body).await;
                check_reply(&format!("a good batch after {place}"), transport, &reply, &Expect::Ok);
            }
        }
    }

    fn trace(&self, run: &Run) -> Answer {
        self.server.get(&format!("/spandrel/v1/traces/{}", run.id()))
    }

    fn check_stored(&self, place: &str, run: &Run, case: &Case) {
        let answer = self.trace(run);
        if case.stored == 0 {
            assert_eq!(answer.status, 404, "{place}: nothing is stored");
            return;
        }
        assert_eq!(answer.status, 200, "{place}: {}", answer.text());
        // Counted in the text: no parser of JSON goes as deep as some of these values do.
        let id = run.id();
        let text = answer.text();
        assert_eq!(text.matches(&format!("\"traceId\":\"{id}\"")).count(), case.stored, "{place}: spans stored");
        if let Some(look) = case.look {
            let json = answer.json();
            let own = spans(&json).find(|span| span["spanId"] == "0000000000000001");
            look(own.unwrap_or_else(|| panic!("{place}: the span is there")));
        }
    }

    /// The books balance, and nothing took more memory than it may.
    fn check_end(&self) {
        let status = self.server.get("/spandrel/v1/status");
        assert_eq!(status.status, 200);
        let metrics = self.server.get("/metrics").text();
        let value = |name: &str| -> u64 {
            let lines = metrics.lines().filter(|line| !line.starts_with('#'));
            let mine = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
            mine.map(|line| line.rsplit(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()).sum()
        };
        let total = |name: &str| value(&format!("spandrel_{name}_total"));
        assert_eq!(
            total("ingest_spans_received"),
            total("ingest_spans_stored")
                + value("spandrel_ingest_spans_in_head")
                + total("ingest_spans_duplicate")
                + total("ingest_spans_rejected")
                + total("ingest_spans_refused"),
            "rel_28: every span is accounted for"
        );
        assert_eq!(total("panics"), 0);
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(peak_kib / 1024 <= RSS_MAX_MIB, "peak RSS {} MiB", peak_kib / 1024);
    }
}

impl Case {
    fn body_for(&self, transport: Transport, run: &Run) -> Option<Vec<u8>> {
        match (transport, &self.json) {
            (Transport::Grpc | Transport::Protobuf, _) => self.body.as_ref().map(|body| body(run)),
            (Transport::Json, AsJson::No) => None,
            (Transport::Json, AsJson::Text(text)) => Some(text(run).into_bytes()),
            (Transport::Json, AsJson::Transcoded) => {
                let message = ExportTraceServiceRequest::decode(self.body.as_ref()?(run).as_slice());
                Some(as_sent(transport, &message.expect("a body that prost reads")))
            }
        }
    }
}

/// As an exporter would send it.
fn as_sent(transport: Transport, message: &ExportTraceServiceRequest) -> Vec<u8> {
    match transport {
        Transport::Grpc | Transport::Protobuf => message.encode_to_vec(),
        Transport::Json => serde_json::to_vec(message).expect("it is JSON"),
    }
}

fn spans(trace: &Json) -> impl Iterator<Item = &Json> {
    let resources = trace["resourceSpans"].as_array().into_iter().flatten();
    let scopes = resources.flat_map(|resource| resource["scopeSpans"].as_array().into_iter().flatten());
    scopes.flat_map(|scope| scope["spans"].as_array().into_iter().flatten())
}

#[track_caller]
fn check_reply(place: &str, transport: Transport, reply: &Reply, expect: &Expect) {
    let is_grpc = transport == Transport::Grpc;
    let (grpc, http) = match expect {
        Expect::Ok | Expect::Warned(_) | Expect::Partial(..) => (0, 200),
        Expect::Invalid(_) => (3, 400),
        Expect::TooLarge => (8, 413),
    };
    if is_grpc {
        assert_eq!((reply.status, reply.grpc_status), (200, Some(grpc)), "{place}: {reply:?}");
    } else {
        assert_eq!(reply.status, http, "{place}: {reply:?}");
        let content_type = if transport == Transport::Json { "application/json" } else { "application/x-protobuf" };
        assert_eq!(reply.header("content-type"), content_type, "otlp_37: {place}");
    }
    let message = match expect {
        Expect::Ok => {
            let expected: &[u8] = match transport {
                Transport::Grpc => &[0; 5],
                Transport::Protobuf => b"",
                Transport::Json => b"{}",
            };
            let said = String::from_utf8_lossy(&reply.body);
            assert_eq!(reply.body, expected, "otlp_20, otlp_38: {place}: {said}");
            return;
        }
        Expect::Warned(codes) => {
            let (rejected, message) = reply.partial();
            assert_eq!(rejected, 0, "{place}: {message}");
            for code in *codes {
                assert!(message.contains(code), "{place}: {code} is not in {message:?}");
            }
            message
        }
        Expect::Partial(n, reason) => {
            let (rejected, message) = reply.partial();
            assert_eq!(rejected, *n, "{place}: {message}");
            assert!(message.contains(&format!("{reason}={n}")), "{place}: {reason} is not in {message:?}");
            message
        }
        Expect::Invalid(reason) => {
            let message = reply.error();
            assert!(message.contains(reason), "{place}: {reason:?} is not in {message:?}");
            message
        }
        Expect::TooLarge => {
            assert_eq!((reply.header("retry-after"), reply.header("google.rpc.retryinfo-bin")), ("", ""), "{place}");
            reply.error()
        }
    };
    assert!(message.len() <= 1_024 && message.is_ascii(), "{place}: {message:?}");
}

fn cases() -> impl Iterator<Item = Case> {
    [envelope::cases(), span::cases(), value::cases(), wire_format::cases(), json::cases()].into_iter().flatten()
}

/// The list of bad inputs for fuzzing, each with few spans around the bad one: those of at most `bytes_max`.
pub(crate) fn seeds(transport: Transport, bytes_max: usize) -> Vec<(String, Vec<u8>)> {
    let run = Run { trace: [0xc0; 16] };
    let few = |mut case: Case| {
        let body = case.body.take().map(|body| few_spans(&body(&run), 0));
        Case { body: body.map(|body| Box::new(move |_: &Run| body.clone()) as Body), ..case }
    };
    let name = |case: &Case| case.id.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let seeds = cases().map(few).filter_map(|case| Some((name(&case), case.body_for(transport, &run)?)));
    seeds.filter(|(_, body)| body.len() <= bytes_max).collect()
}

/// A request (0), its resource (1) or its scope (2) with the first spans only; what is no such message stays as it is.
fn few_spans(mut bytes: &[u8], level: u32) -> Vec<u8> {
    const SPANS: usize = 2;
    let (whole, mut few, mut n_spans) = (bytes, Vec::new(), 0);
    while !bytes.is_empty() {
        let start = bytes;
        let Ok((number, prost::encoding::WireType::LengthDelimited)) = prost::encoding::decode_key(&mut bytes) else {
            return whole.to_vec();
        };
        let len = prost::encoding::decode_varint(&mut bytes).ok().and_then(|len| usize::try_from(len).ok());
        let Some((content, rest)) = len.and_then(|len| bytes.split_at_checked(len)) else { return whole.to_vec() };
        match (level, number) {
            (0, 1) | (1, 2) => few.extend(field(number, &few_spans(content, level + 1))),
            (2, 2) if SPANS <= n_spans => {}
            _ => few.extend_from_slice(&start[..start.len() - rest.len()]),
        }
        n_spans += usize::from(number == 2);
        bytes = rest;
    }
    few
}

#[test]
fn otlp_18_23_41_61_66_67_69_bi_001_to_bi_092_every_bad_input_has_its_exact_answer_and_effect_over_every_transport() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut bench = Bench::new(dir.path()).await;
        let (mut n, mut failed) = (0, Vec::new());
        for case in cases() {
            // A panic has said what is wrong; the other cases are still worth knowing.
            if std::panic::AssertUnwindSafe(bench.check(&case)).catch_unwind().await.is_err() {
                failed.push(case.id);
            }
            n += 1;
        }
        let said = bench.server.said();
        assert!(failed.is_empty(), "{} of {n} cases failed: {failed:?}; the server said:\n{said}", failed.len());
        assert!(100 < n, "the cases were found: {n}");
        bench.check_end();
    });
}
