//! The whole way, measured from outside: the real server as a child process, spans through its gRPC port, then questions,
//! then `kill -9`.
//!
//! ```text
//! cargo bench --bench end_to_end -- --spans 10000000 --partition-size 40MiB      one run
//! cargo bench --bench end_to_end -- --spans 100000,1000000,10000000              a curve, 12 partitions each
//! cargo bench --bench end_to_end -- --spans 1000000 --rate 20000                 at a steady rate, for the acks
//! cargo bench --bench end_to_end -- --spans 1000000 --deaths 4                   while so many clients ask for everything
//! ```

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench prints its figures, and may end by a panic"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use spandrel::cli::shop::{Grouping, PreEncoded};
use spandrel::clock::{Clock, instant};
use spandrel::model::TraceId;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

/// Requests that each sender patches and sends again: enough that strings repeat no more than in real traffic.
const TEMPLATES: usize = 100;
const TRACE_QUESTIONS: usize = 2_000;
const PERCENTILE_QUESTIONS: usize = 1_000;
/// Partitions of a run that does not say how large they are, at about this many bytes per span.
const PARTITIONS: u64 = 12;
const BYTES_PER_SPAN: u64 = 26;
/// No single step of a run takes longer.
const STEP_WITHIN: Duration = Duration::from_mins(15);

/// What one run does.
#[derive(Clone, Debug)]
struct Plan {
    spans: u64,
    partition_size: String,
    /// Calls in flight.
    senders: u64,
    /// Spans per second of all senders together; as many as go through when 0.
    rate: u64,
    /// Clients that ask queries of death while spans are sent.
    deaths: usize,
    /// More arguments for `serve`.
    serve: Vec<String>,
}

fn main() -> Outcome<()> {
    // `cargo test` and `cargo bench` without a filter call every bench with flags of their own.
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let default = if args.iter().any(|arg| arg == "--test") { "10000" } else { "1000000" };
    for spans in value("--spans").unwrap_or_else(|| default.to_owned()).split(',') {
        let spans = spans.parse()?;
        let plan = Plan {
            spans,
            partition_size: value("--partition-size").unwrap_or_else(|| partition_bytes(spans)),
            senders: value("--senders").map_or(Ok(4), |senders| senders.parse())?,
            rate: value("--rate").map_or(Ok(0), |rate| rate.parse())?,
            deaths: value("--deaths").map_or(Ok(0), |deaths| deaths.parse())?,
            serve: value("--serve").map(|args| args.split(' ').map(str::to_owned).collect()).unwrap_or_default(),
        };
        run(&plan)?;
        println!();
    }
    Ok(())
}

/// So that the spans fill `PARTITIONS` of them.
fn partition_bytes(spans: u64) -> String {
    format!("{}KiB", (spans * BYTES_PER_SPAN / PARTITIONS).div_ceil(1024).max(64))
}

fn run(plan: &Plan) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let mut server = Server::start(dir.path(), plan)?;
    let (before, began) = (own_cpu(), instant());
    let is_over = AtomicBool::new(false);
    let (sent, deaths) = std::thread::scope(|scope| {
        let die = || die_until(&server.http, &is_over);
        let dying: Vec<_> = (0..plan.deaths).map(|_| scope.spawn(die)).collect();
        let sent = runtime.block_on(send(&server.otlp_grpc, plan));
        let wall = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let deaths: Vec<Duration> = dying.into_iter().filter_map(|client| client.join().ok()).flatten().collect();
        (sent.map(|sent| (sent, wall)), deaths)
    });
    let (mut sent, wall) = sent?;
    if 0 < plan.deaths {
        row("queries of death, ended", deaths.len());
        row("queries of death, p50 / p99 / max, ms", quantiles(deaths));
    }
    let generator = own_cpu() - before;
    row("spans", format!("{}, {} calls in flight, partitions of {}", sent.spans, plan.senders, plan.partition_size));
    row("acknowledged", format!("in {:.1} s, {:.0} spans/s", wall.as_secs_f64(), rate(sent.spans, wall)));
    row("ack p50 / p99 / max, ms", quantiles(std::mem::take(&mut sent.acks)));
    row("calls refused and sent again", sent.refused);
    row("bytes per span, sent", format!("{:.0}", per(sent.bytes, sent.spans)));
    let per_million = |cpu: f64| format!("{:.2}", cpu * 1e6 / sent.spans as f64);
    row("server CPU s per M spans, acknowledged", per_million(server.cpu()?));
    row("generator CPU s per M spans", per_million(generator));
    let partitions = server.wait_until_sealed()?;
    row("server CPU s per M spans, sealed", per_million(server.cpu()?));
    row("partitions, the last one unsealed", partitions);
    row("peak RSS until sealed, MiB", format!("{:.0}", server.peak_rss_mib()?));
    ask(&server, &sent)?;
    row("peak RSS, MiB", format!("{:.0}", server.peak_rss_mib()?));
    let killed = instant();
    server.kill()?;
    let again = Server::start(dir.path(), plan)?;
    row("ready again after kill -9, s", format!("{:.2}", killed.elapsed().as_secs_f64()));
    row("peak RSS of that start, MiB", format!("{:.0}", again.peak_rss_mib()?));
    again.stop()?;
    let (store, journal) = disk(dir.path());
    row("bytes per span, store", format!("{:.1}", per(store, sent.spans)));
    row("bytes per span, journal of the unsealed one", format!("{:.1}", per(journal, sent.spans)));
    Ok(())
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("{name:<42} {value}");
}

fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn per(amount: u64, count: u64) -> f64 {
    amount as f64 / count as f64
}

/// User and system CPU seconds of a process.
fn cpu_of(pid: &str) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

fn own_cpu() -> f64 {
    cpu_of("self").unwrap_or(0.0)
}

struct Server {
    child: Child,
    otlp_grpc: String,
    http: String,
}

impl Server {
    /// Returns once it is ready.
    fn start(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spandrel"))
            .args(["serve", "--log-format", "json", "--data-dir"])
            .arg(dir)
            .args(["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--partition-size", &plan.partition_size])
            .args(&plan.serve)
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("the child has no stderr")?;
        let (mut otlp_grpc, mut http) = (String::new(), String::new());
        let mut lines = BufReader::new(stderr).lines();
        for line in lines.by_ref() {
            let line: serde_json::Value = serde_json::from_str(&line?)?;
            let fields = &line["fields"];
            let address = fields["address"].as_str().unwrap_or_default().to_owned();
            match (fields["message"].as_str(), fields["name"].as_str()) {
                (Some("listening"), Some("otlp-grpc")) => otlp_grpc = address,
                (Some("listening"), Some("http")) => http = address,
                (Some("ready"), _) => break,
                _ => {}
            }
        }
        let drain =
            move || lines.map_while(Result::ok).filter(|line| line.contains("ERROR")).for_each(|l| eprintln!("{l}"));
        let _reader = std::thread::Builder::new().spawn(drain)?;
        if http.is_empty() {
            return Err("the server did not start".into());
        }
        Ok(Self { child, otlp_grpc, http })
    }

    fn cpu(&self) -> Outcome<f64> {
        cpu_of(&self.child.id().to_string())
    }

    fn peak_rss_mib(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<f64>().ok());
        Ok(kib.ok_or("no VmHWM in /proc")? / 1024.0)
    }

    /// Number of partitions, once only the last one is unsealed.
    fn wait_until_sealed(&self) -> Outcome<usize> {
        let deadline = instant() + STEP_WITHIN;
        loop {
            let status: serde_json::Value = serde_json::from_str(&self.get("/spandrel/v1/status")?)?;
            let partitions = status["partitions"].as_array().ok_or("no partitions in the status")?;
            if partitions.iter().filter(|partition| partition["sealed"] == false).count() <= 1 {
                return Ok(partitions.len());
            }
            if deadline < instant() {
                return Err("partitions stay unsealed".into());
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    fn get(&self, path: &str) -> Outcome<String> {
        Ok(ureq::get(format!("http://{}{path}", self.http)).call()?.body_mut().read_to_string()?)
    }

    fn kill(&mut self) -> Outcome<()> {
        self.child.kill()?;
        let _status = self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and at most 30 s.
    fn stop(mut self) -> Outcome<()> {
        let _sent = Command::new("kill").arg(self.child.id().to_string()).status()?;
        let deadline = instant() + Duration::from_secs(30);
        while self.child.try_wait()?.is_none() {
            if deadline < instant() {
                self.kill()?;
                return Err("the server did not stop".into());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Asks for everything in turn, until told to end; how long each question took.
fn die_until(address: &str, is_over: &AtomicBool) -> Vec<Duration> {
    // Searches as the query string has them: { a } >> { b } and the like.
    const DEATHS: [&str; 6] = [
        "/api/search?limit=1000&q=%7B%7D%20%3E%3E%20%7B%20status%20%3D%20error%20%7D%20%7C%20count()%20%3E%20100",
        "/api/search?limit=1000&q=%7B%20.nobody%20%3D~%20%22(a%2B)%2B(b%2B)%2Bz%22%20%7D",
        "/api/search?limit=10000&spss=0&q=%7B%7D",
        "/api/metrics/query_range?since=720h&q=%7B%7D%20%7C%20rate()%20by(span:id)",
        "/api/metrics/query_range?since=720h&q=%7B%7D%20%7C%20quantile_over_time(duration,.5,.99)%20by(name)",
        "/api/metrics/query_range?since=720h&q=%7B%7D%20%7C%20compare(%7Bstatus%20%3D%20error%7D)",
    ];
    let mut times = Vec::new();
    for path in DEATHS.iter().cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
        let asked = instant();
        let answer = ureq::get(format!("http://{address}{path}")).call();
        if let Ok(mut answer) = answer {
            let _whole = answer.body_mut().with_config().limit(1 << 30).read_to_vec();
        }
        times.push(asked.elapsed());
    }
    times
}

#[derive(Default)]
struct Sent {
    spans: u64,
    bytes: u64,
    traces: Vec<String>,
    /// How long each call took.
    acks: Vec<Duration>,
    /// Calls that were refused and sent again.
    refused: u64,
}

/// Closed loop: each sender has one call in flight.
async fn send(address: &str, plan: &Plan) -> Outcome<Sent> {
    let channel = tonic::transport::Endpoint::new(format!("http://{address}"))?.connect().await?;
    let (share, rate) = (plan.spans.div_ceil(plan.senders), plan.rate / plan.senders);
    let senders: Vec<_> =
        (0..plan.senders).map(|seed| tokio::spawn(send_share(channel.clone(), seed, share, rate))).collect();
    let mut all = Sent::default();
    for sender in senders {
        let sent = sender.await??;
        all.spans += sent.spans;
        all.bytes += sent.bytes;
        all.traces.extend(sent.traces);
        all.acks.extend(sent.acks);
        all.refused += sent.refused;
    }
    Ok(all)
}

async fn send_share(channel: tonic::transport::Channel, seed: u64, spans: u64, rate: u64) -> Outcome<Sent> {
    let mut client = tonic::client::Grpc::new(channel);
    let mut requests = PreEncoded::new(seed, TEMPLATES, Grouping::Collector);
    let path = http::uri::PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let (clock, mut sent) = (Clock::system(), Sent::default());
    let began = tokio::time::Instant::now();
    while sent.spans < spans {
        if let Some(due_nanos) = (sent.spans * 1_000_000_000).checked_div(rate) {
            tokio::time::sleep_until(began + Duration::from_nanos(due_nanos)).await;
        }
        let body = Bytes::copy_from_slice(requests.next(clock.now()));
        sent.bytes += body.len() as u64;
        sent.traces.extend(trace_id(&body));
        loop {
            let called = instant();
            client.ready().await?;
            match client.unary(Request::new(body.clone()), path.clone(), RawCodec).await {
                Ok(_answer) => {
                    sent.acks.push(called.elapsed());
                    break;
                }
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    sent.refused += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(status) => return Err(status.into()),
            }
        }
        sent.spans += requests.last_span_count() as u64;
    }
    Ok(sent)
}

/// The trace id of a span in the middle of a request: field 1 of 16 bytes, then field 2 of 8 bytes.
fn trace_id(body: &[u8]) -> Option<String> {
    let found = body
        .windows(20)
        .skip(body.len() / 2)
        .find(|window| window.starts_with(&[0x0a, 16]) && window.ends_with(&[0x12, 8]))?;
    Some(TraceId(found[2..18].try_into().ok()?).to_string())
}

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

fn ask(server: &Server, sent: &Sent) -> Outcome<()> {
    let step = (sent.traces.len() / TRACE_QUESTIONS).max(1);
    for (name, rank) in [("", "false"), (" with ranks", "true")] {
        let mut times = Vec::new();
        for trace in sent.traces.iter().step_by(step).cycle().take(TRACE_QUESTIONS) {
            let began = instant();
            let answer = server.get(&format!("/spandrel/v1/traces/{trace}?rank={rank}"))?;
            times.push(began.elapsed());
            assert!(answer.contains(trace), "trace {trace} is there");
        }
        row(&format!("trace by id{name}, p50 / p99 / max ms"), quantiles(times));
    }
    let services: serde_json::Value = serde_json::from_str(&server.get("/spandrel/v1/services")?)?;
    let services: Vec<&str> =
        services["services"].as_array().into_iter().flatten().filter_map(|s| s["name"].as_str()).collect();
    for (name, windows) in [("all", &["-1h", "-15m", "-3m"][..]), ("last minute", &["-1m"])] {
        let mut times = Vec::new();
        for no in 0..PERCENTILE_QUESTIONS {
            let (service, start) = (services[no % services.len()], windows[no / services.len() % windows.len()]);
            let began = instant();
            let _answer = server.get(&format!("/spandrel/v1/percentile?service={service}&start={start}"))?;
            times.push(began.elapsed());
        }
        row(&format!("percentile x5 + exemplars, {name}, ms"), quantiles(times));
    }
    Ok(())
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64() * 1e3;
    format!("{:.2} / {:.2} / {:.2}", at(50), at(99), at(100))
}

/// Bytes taken on disk by databases and by journals.
fn disk(data_dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let (mut store, mut journal) = (0, 0);
    let mut dirs = vec![data_dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(meta) = entry.metadata() {
                let of =
                    if path.components().any(|part| part.as_os_str() == "journal") { &mut journal } else { &mut store };
                *of += meta.blocks() * 512;
            }
        }
    }
    (store, journal)
}
