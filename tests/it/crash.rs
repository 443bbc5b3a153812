//! `kill -9` under load: what was acknowledged is there, once, and the numbers agree with the spans.
//!
//! Five kills by default; `SPANDREL_KILLS=50 cargo test --test it crash` for the long form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use spandrel::cli::shop::{Grouping, Requests, Shop};

use crate::support::{ChildServer, block_on, grpc, now};

/// Trace id -> span ids.
type Traces = BTreeMap<String, BTreeSet<String>>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn note(request: &ExportTraceServiceRequest, traces: &mut Traces) {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    for span in scopes.flat_map(|scope| &scope.spans) {
        let _new = traces.entry(hex(&span.trace_id)).or_default().insert(hex(&span.span_id));
    }
}

/// What a test sent, and what of it was acknowledged.
#[derive(Default)]
struct Witness {
    sent: Traces,
    acknowledged: Traces,
}

/// Sends until `traces` are through or the server dies; every acknowledgement is noted before the next request.
fn send(otlp_grpc: &str, shop: &mut Shop, traces: usize, witness: &mut Witness) {
    let mut requests = Requests::new(Grouping::Process);
    let mut waiting: Vec<_> = (0..traces).flat_map(|_| requests.add(shop.next_trace(now()))).collect();
    waiting.extend(requests.flush());
    block_on(async {
        let Ok(mut client) = TraceServiceClient::connect(format!("http://{otlp_grpc}")).await else { return };
        for request in waiting {
            note(&request, &mut witness.sent);
            if client.export(request.clone()).await.is_err() {
                return;
            }
            note(&request, &mut witness.acknowledged);
        }
    });
}

/// A service's spans that count toward its latency, by the trace API.
fn recount(server: &ChildServer, traces: &Traces) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (id, acknowledged) in traces {
        let answer = server.get(&format!("/spandrel/v1/traces/{id}"));
        let mut stored = BTreeSet::new();
        if answer.status == 200 {
            let json = answer.json();
            for resource in json["resourceSpans"].as_array().into_iter().flatten() {
                let attributes = resource["resource"]["attributes"].as_array().expect("attributes");
                let service = attributes.iter().find(|a| a["key"] == "service.name").expect("a service");
                let service = service["value"]["stringValue"].as_str().expect("text").to_owned();
                for span in resource["scopeSpans"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .flat_map(|s| s["spans"].as_array().expect("spans"))
                {
                    let id = span["spanId"].as_str().expect("an id").to_owned();
                    assert!(stored.insert(id), "a span came twice: {span}");
                    *counts.entry(service.clone()).or_default() += u64::from(span["kind"] == 2 || span["kind"] == 5);
                }
            }
        }
        assert!(acknowledged.is_subset(&stored), "trace {id}: acknowledged {acknowledged:?}, stored {stored:?}");
    }
    counts
}

fn assert_sound(server: &ChildServer, witness: &Witness) {
    let mut expected = witness.acknowledged.clone();
    for id in witness.sent.keys() {
        let _undecided = expected.entry(id.clone()).or_default();
    }
    for (service, counted) in recount(server, &expected) {
        if counted == 0 {
            continue;
        }
        let answer = server.get(&format!("/spandrel/v1/percentile?service={service}&start=-1h&q=0.5,0.99,1")).json();
        assert_eq!(answer["count"], counted, "{service}: the histogram equals the spans");
        for row in answer["quantiles"].as_array().expect("rows") {
            let exemplar = &row["exemplars"][0];
            let trace =
                server.get(&format!("/spandrel/v1/traces/{}", exemplar["trace_id"].as_str().expect("an exemplar")));
            assert!(
                trace.status == 200 && trace.text().contains(exemplar["span_id"].as_str().expect("a span")),
                "{row}"
            );
        }
    }
}

fn kills() -> u64 {
    std::env::var("SPANDREL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(5)
}

#[test]
fn rel_01_no_acknowledged_span_is_lost_by_kill_9_and_the_numbers_agree() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut shop = Shop::new(17);
    let mut witness = Witness::default();
    for round in 0..kills() {
        let mut server = ChildServer::start(dir.path()).expect("it starts after any kill");
        let address = server.otlp_grpc.clone();
        // Somewhere between the first request and long after the last one of the round.
        let delay = Duration::from_millis(50 + (round * 7_919) % 900);
        std::thread::scope(|scope| {
            let _sender = scope.spawn(|| send(&address, &mut shop, 120, &mut witness));
            std::thread::park_timeout(delay);
            server.kill();
        });
    }
    let server = ChildServer::start(dir.path()).expect("it starts after any kill");
    assert!(!witness.acknowledged.is_empty(), "something was acknowledged");
    assert_sound(&server, &witness);
}

fn replayed(server: &ChildServer) -> String {
    let metrics = server.get("/metrics").text();
    metrics
        .lines()
        .find(|line| line.starts_with("spandrel_ingest_spans_replayed_total"))
        .expect("the metric")
        .to_owned()
}

#[test]
fn rel_10_sigterm_is_clean_and_the_next_start_replays_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut witness = Witness::default();
    let mut server = ChildServer::start(dir.path()).expect("it starts");
    send(&server.otlp_grpc.clone(), &mut Shop::new(1), 60, &mut witness);
    assert_eq!(server.terminate(Duration::from_secs(5)), Some(0));
    let server = ChildServer::start(dir.path()).expect("it starts again");
    assert_eq!(replayed(&server), "spandrel_ingest_spans_replayed_total 0");
    assert_sound(&server, &witness);
}

#[test]
fn rel_21_a_second_server_on_the_directory_ends_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = ChildServer::start(dir.path()).expect("it starts");
    let refused = spandrel_serve(dir.path());
    assert!(refused.contains(&format!("process {}", first.child.id())), "{refused}");
    assert!(refused.contains("--data-dir"), "with a remedy: {refused}");
}

fn spandrel_serve(dir: &Path) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_spandrel"))
        .args([
            "serve",
            "--otlp-grpc",
            "127.0.0.1:0",
            "--otlp-http",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(dir)
        .output()
        .expect("the binary runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Files may not grow past 8 MiB here, so the 64 MiB of a journal segment cannot be had: as on a full disk.
#[test]
fn rel_06_without_space_ingest_is_refused_with_a_hint_and_questions_go_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = std::process::Command::new("sh");
    let serve = format!(
        "trap '' XFSZ; ulimit -f 8192; exec {} serve --log-format json --otlp-grpc 127.0.0.1:0 --otlp-http 127.0.0.1:0 \
         --http 127.0.0.1:0 --data-dir {}",
        env!("CARGO_BIN_EXE_spandrel"),
        dir.path().display()
    );
    let server = ChildServer::from(command.args(["-c", &serve])).expect("it starts");
    let mut requests = Requests::new(Grouping::Collector);
    let _not_full = requests.add(Shop::new(1).next_trace(now()));
    let request = requests.flush().remove(0);
    let status = block_on(async { grpc(server.otlp_grpc.parse().expect("an address")).await.export(request).await });
    let status = status.expect_err("nothing can be stored");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
    let retry = tonic_types::StatusExt::get_details_retry_info(&status).and_then(|info| info.retry_delay);
    assert_eq!(retry, Some(Duration::from_secs(3)), "d_5");
    assert!(status.metadata().get_bin("google.rpc.retryinfo-bin").is_some(), "otlp_31: where Python looks");
    let ready = server.get("/ready");
    assert!(ready.status == 503 && ready.text().contains("no space for the journal"), "{}", ready.text());
    assert_eq!(server.get("/spandrel/v1/services").status, 200);
}
