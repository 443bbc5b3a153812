//! Servers to test against: in this process, or as the real binary in a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message as _;
use spandrel::cli::serve::{Addresses, Server};
use spandrel::clock::Clock;
use spandrel::config::{Config, RawConfig};
use spandrel::model::UnixNanos;
use tempfile::TempDir;
use tonic::transport::Channel;

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_mins(1)));
    config.build().into()
}

pub(crate) fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.expect("the server answers");
    let headers = response.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let headers = headers.collect();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().expect("the body arrives whole");
    Answer { status: response.status().as_u16(), headers, body }
}

pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    answer(headers.iter().fold(agent().get(url), |request, (name, value)| request.header(*name, *value)).call())
}

pub(crate) fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    answer(headers.iter().fold(agent().post(url), |request, (name, value)| request.header(*name, *value)).send(body))
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(work)
}

pub(crate) async fn grpc(address: std::net::SocketAddr) -> TraceServiceClient<Channel> {
    TraceServiceClient::connect(format!("http://{address}")).await.expect("the gRPC port answers")
}

/// A request of `n` spans of one trace, its span ids from `first` on.
pub(crate) fn request(n: u64, first: u64) -> ExportTraceServiceRequest {
    let span = |no: u64| Span {
        trace_id: vec![7; 16],
        span_id: (first + no).to_be_bytes().to_vec(),
        name: "work".to_owned(),
        kind: 2,
        start_time_unix_nano: now().0,
        end_time_unix_nano: now().0 + 1_000_000,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..n).map(span).collect(), ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

/// A server in this process, with a data directory of its own.
pub(crate) struct TestServer {
    server: Option<Server>,
    change: Box<dyn Fn(&mut Config)>,
    dir: TempDir,
    pub(crate) addresses: Addresses,
}

impl TestServer {
    /// Until roll-ups take part in answers.
    pub(crate) fn wait_for_sealed(&self) {
        let is_sealed = || {
            let status = self.json("/spandrel/v1/status");
            status["partitions"].as_array().expect("a list").iter().any(|partition| partition["sealed"] == true)
        };
        let began = std::time::Instant::now();
        while !is_sealed() {
            assert!(began.elapsed() < Duration::from_mins(1), "nothing was sealed");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl Fn(&mut Config) + 'static) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = start(dir.path(), &change);
        Self { addresses: server.addresses, server: Some(server), change: Box::new(change), dir }
    }

    /// Stops cleanly and starts again on the same directory.
    pub(crate) fn restart(&mut self) {
        self.server.take().expect("it runs").stop();
        let server = start(self.dir.path(), &*self.change);
        self.addresses = server.addresses;
        self.server = Some(server);
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(&format!("http://{}{path}", self.addresses.http), &[])
    }

    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        self.get(path).json()
    }

    /// Sends a request over OTLP/HTTP as protobuf.
    pub(crate) fn send(&self, request: &ExportTraceServiceRequest) -> Answer {
        self.post("application/x-protobuf", &request.encode_to_vec())
    }

    /// The same until it is taken: a slow machine refuses for a while.
    pub(crate) fn deliver(&self, request: &ExportTraceServiceRequest) {
        for _ in 0..200 {
            let answer = self.send(request);
            if answer.status != 503 {
                assert_eq!(answer.status, 200, "{}", answer.text());
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("refused for too long");
    }

    pub(crate) fn post(&self, content_type: &str, body: &[u8]) -> Answer {
        post(&format!("http://{}/v1/traces", self.addresses.otlp_http), &[("content-type", content_type)], body)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// Settings for a server on ports of its own, with small journal segments.
pub(crate) fn config(dir: &Path) -> Config {
    let loopback = || Some("127.0.0.1:0".to_owned());
    let raw = RawConfig {
        data_dir: Some(dir.to_path_buf()),
        otlp_grpc: loopback(),
        otlp_http: loopback(),
        http: loopback(),
        ..RawConfig::default()
    };
    let mut config = raw.resolve().expect("the settings are sound");
    config.ingest.journal_segment_bytes = 1 << 20;
    config
}

fn start(dir: &Path, change: &dyn Fn(&mut Config)) -> Server {
    let mut config = config(dir);
    change(&mut config);
    Server::start(config).expect("the server starts")
}

/// The command line of a server on ports of its own, logging as JSON.
pub(crate) fn serve(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spandrel"));
    let _command = command.args(["serve", "--log-format", "json", "--otlp-grpc", "127.0.0.1:0"]);
    let _command = command.args(["--otlp-http", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(dir);
    command
}

/// The real binary in a process of its own.
pub(crate) struct ChildServer {
    pub(crate) child: Child,
    pub(crate) otlp_grpc: String,
    pub(crate) otlp_http: String,
    pub(crate) http: String,
    said: Arc<Mutex<Vec<String>>>,
    agent: ureq::Agent,
}

impl ChildServer {
    /// Returns once it is ready; `Err` holds what it said when it is not.
    pub(crate) fn start(dir: &Path) -> Result<Self, String> {
        Self::from(&mut serve(dir))
    }

    /// The same for a command line of one's own; it must log as JSON.
    pub(crate) fn from(command: &mut Command) -> Result<Self, String> {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let (mut otlp_grpc, mut otlp_http, mut http) = (String::new(), String::new(), String::new());
        let mut said = Vec::new();
        for line in lines.by_ref().map_while(Result::ok) {
            said.push(line.clone());
            let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
            let field = |name: &str| event["fields"][name].as_str().unwrap_or_default().to_owned();
            match (field("message").as_str(), field("name").as_str()) {
                ("listening", "otlp-grpc") => otlp_grpc = field("address"),
                ("listening", "otlp-http") => otlp_http = field("address"),
                ("listening", "http") => http = field("address"),
                ("ready", _) => {
                    let said = Arc::new(Mutex::new(said));
                    let heard = Arc::clone(&said);
                    let _drain = std::thread::spawn(move || {
                        lines.map_while(Result::ok).for_each(|line| heard.lock().expect("no panic").push(line));
                    });
                    return Ok(Self { child, otlp_grpc, otlp_http, http, said, agent: agent() });
                }
                _ => {}
            }
        }
        let _status = child.wait();
        Err(said.join("\n"))
    }

    /// What it logged so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic").join("\n")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(path, "*/*")
    }

    /// GET over a connection that stays open; `accept` says which encoding is wanted.
    pub(crate) fn ask(&self, path: &str, accept: &str) -> Answer {
        answer(self.agent.get(format!("http://{}{path}", self.http)).header("accept", accept).call())
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        let _status = self.child.wait().expect("it can be waited for");
    }

    /// SIGTERM; the exit code if it ends within `within`.
    pub(crate) fn terminate(&mut self, within: Duration) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("kill runs").success());
        let began = std::time::Instant::now();
        while began.elapsed() < within {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) fn now() -> UnixNanos {
    Clock::system().now()
}

/// Spans with their resource and scope, by span id and kind: what must come back, however it is grouped. A status that
/// was left out is the same as an empty one, which answers always carry.
pub(crate) fn flattened(data: &TracesData) -> BTreeMap<(Vec<u8>, i32), (String, String, Span)> {
    let mut spans = BTreeMap::new();
    for resource in &data.resource_spans {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let of = (
                    format!("{:?} {}", resource.resource, resource.schema_url),
                    format!("{:?} {}", scope.scope, scope.schema_url),
                );
                let span = Span { status: Some(span.status.clone().unwrap_or_default()), ..span.clone() };
                let twice = spans.insert((span.span_id.clone(), span.kind), (of.0, of.1, span.clone()));
                assert!(twice.is_none(), "span {:02x?} came twice", span.span_id);
            }
        }
    }
    spans
}

/// Numbers that a seed repeats (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Even in `[0, bound)`; `bound` is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}
