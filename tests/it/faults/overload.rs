//! REL-07, REL-08: more load than the machine can take. First the most that goes through when each sender waits for its answer;
//! then ten times as many requests as that, sent whether others were answered or not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spandrel::cli::shop::{Grouping, PreEncoded};
use tokio::time::Instant;

use crate::support::{ChildServer, now};
use crate::wire::framed;

use super::{count, say};

/// How much more than goes through.
const TIMES: u32 = 10;
/// Each carries a share of the requests.
const CONNECTIONS: u64 = 16;
/// Requests of one connection without an answer yet; the server allows 200 streams.
const IN_FLIGHT_MAX: usize = 150;
/// `--memory` is 256 MiB; a limit that ends the process is to be set a quarter above it (REL-07).
const RSS_MAX_MIB: u64 = 320;

/// What became of the requests.
#[derive(Debug, Default)]
struct Tally {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    acknowledged_spans: AtomicU64,
    refused: AtomicU64,
    /// Of requests that the disk did not confirm in time: they may be stored, and a retry would be recognised.
    late_spans: AtomicU64,
    /// Answered by anything else, or not at all: none may be.
    others: AtomicU64,
}

impl Tally {
    fn take(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("the port answers");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let _detached = tokio::spawn(connection);
    sender
}

async fn call(mut sender: SendRequest<Full<Bytes>>, address: SocketAddr, body: Bytes, spans: u64, tally: Arc<Tally>) {
    const EXPORT: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let request = Request::post(format!("http://{address}/{EXPORT}")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(Full::new(body)).expect("a request");
    let _before = tally.sent.fetch_add(1, Ordering::Relaxed);
    let answer = async {
        let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
        let trailers = body.collect().await.ok()?.trailers().cloned().unwrap_or_default();
        let status = parts.headers.get("grpc-status").or(trailers.get("grpc-status"))?.to_str().ok()?.to_owned();
        // A refusal is worth a retry only when it says when.
        let has_hint = parts.headers.contains_key("google.rpc.retryinfo-bin");
        let message = parts.headers.get("grpc-message").or(trailers.get("grpc-message")).cloned();
        let is_late = message.is_some_and(|text| text.to_str().is_ok_and(|text| text.contains("confirm")));
        Some((status, has_hint, is_late))
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), answer).await.ok().flatten();
    if answer.as_ref().is_some_and(|(.., is_late)| *is_late) {
        let _before = tally.late_spans.fetch_add(spans, Ordering::Relaxed);
    }
    let counter = match answer.as_ref().map(|(status, has_hint, _)| (status.as_str(), *has_hint)) {
        Some(("0", _)) => {
            let _before = tally.acknowledged_spans.fetch_add(spans, Ordering::Relaxed);
            &tally.acknowledged
        }
        Some(("14", true)) => &tally.refused,
        _ => {
            say(&format!("answered {answer:?}"));
            &tally.others
        }
    };
    let _before = counter.fetch_add(1, Ordering::Relaxed);
}

/// Sends for so long; with `every`, a request is due in that interval, answered or not.
async fn send(address: SocketAddr, seed: u64, within: Duration, every: Option<Duration>, tally: Arc<Tally>) {
    let sender = connect(address).await;
    let mut requests = PreEncoded::new(seed, 20, Grouping::Collector);
    let mut calls = tokio::task::JoinSet::new();
    let began = Instant::now();
    let mut due = began;
    while began.elapsed() < within {
        let body = Bytes::from(framed(0, requests.next(now())));
        let spans = requests.last_span_count() as u64;
        let call = call(sender.clone(), address, body, spans, Arc::clone(&tally));
        match every {
            None => call.await,
            Some(every) => {
                let _handle = calls.spawn(call);
                while calls.try_join_next().is_some() {}
                if IN_FLIGHT_MAX <= calls.len() {
                    let _answered = calls.join_next().await;
                }
                due += every;
                tokio::time::sleep_until(due).await;
            }
        }
    }
    while calls.join_next().await.is_some() {}
}

async fn all(address: SocketAddr, first_seed: u64, n: u64, within: Duration, every: Option<Duration>) -> Tally {
    let tally = Arc::new(Tally::default());
    let senders: Vec<_> =
        (0..n).map(|at| tokio::spawn(send(address, first_seed + at, within, every, Arc::clone(&tally)))).collect();
    for sender in senders {
        sender.await.expect("no panic");
    }
    Arc::into_inner(tally).expect("all are back")
}

fn stored(server: &ChildServer) -> u64 {
    let services = server.get("/spandrel/v1/services").json();
    let services = services["services"].as_array().cloned().unwrap_or_default();
    services.iter().map(|service| service["span_count"].as_u64().expect("a count")).sum()
}

fn cpu_secs(server: &ChildServer) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

#[test]
fn rel_07_rel_08_ten_times_too_much_is_refused_with_a_hint_and_nothing_acknowledged_is_lost() {
    let secs = count("SPANDREL_OVERLOAD_SECS", 4, 60);
    let within = Duration::from_secs(secs);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = ChildServer::start(dir.path()).expect("it starts");
    let address: SocketAddr = server.otlp_grpc.parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");

    let most = runtime.block_on(all(address, 1, 4, within, None));
    let rate = Tally::take(&most.acknowledged_spans) / secs;
    let requests_per_sec = (Tally::take(&most.acknowledged) / secs).max(1);
    let cpu_before = cpu_secs(&server);
    let every = Duration::from_secs(1) * u32::try_from(CONNECTIONS).expect("few")
        / TIMES
        / u32::try_from(requests_per_sec).expect("not that many");
    let much = runtime.block_on(all(address, 1_000, CONNECTIONS, within, Some(every)));

    let goodput = Tally::take(&much.acknowledged_spans) / secs;
    let (sent, refused) = (Tally::take(&much.sent), Tally::take(&much.refused));
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak_mib = peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024;
    say(&format!(
        "overload: {rate} spans/s at most when senders wait; {sent} requests in {secs} s ({:.1} times as many), {refused} \
         refused, {goodput} spans/s acknowledged ({:.0} %), {:.1} CPU s of the server, peak RSS {peak_mib} MiB",
        sent as f64 / (requests_per_sec * secs) as f64,
        100.0 * goodput as f64 / rate as f64,
        cpu_secs(&server) - cpu_before,
    ));
    for tally in [&most, &much] {
        assert_eq!(Tally::take(&tally.others), 0, "every request is acknowledged, or refused with a hint");
    }
    assert!(0 < Tally::take(&much.acknowledged));
    assert!(peak_mib <= RSS_MAX_MIB, "peak RSS {peak_mib} MiB");
    let acknowledged = Tally::take(&most.acknowledged_spans) + Tally::take(&much.acknowledged_spans);
    let late = Tally::take(&most.late_spans) + Tally::take(&much.late_spans);
    let may_be_there = acknowledged..=acknowledged + late;
    let there = stored(&server);
    assert!(may_be_there.contains(&there), "{there} spans of {acknowledged} acknowledged and {late} late ones");
    server.kill();
    let server = ChildServer::start(dir.path()).expect("it starts again");
    let there = stored(&server);
    assert!(may_be_there.contains(&there), "after a kill: {there} of {acknowledged} acknowledged and {late} late ones");
}
