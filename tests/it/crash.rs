//! How a server ends and starts: cleanly, beside another one, without space. Kills and worse: `faults`.

use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use spandrel::cli::shop::{Grouping, Requests, Shop};

use crate::faults::witness::{Door, Sender, Witness};
use crate::support::{ChildServer, block_on, grpc, now, post, request, serve};

fn replayed(server: &ChildServer) -> String {
    let metrics = server.get("/metrics").text();
    metrics
        .lines()
        .find(|line| line.starts_with("spandrel_ingest_spans_replayed_total"))
        .expect("the metric")
        .to_owned()
}

#[test]
fn rel_10_otlp_72_bi_134_sigterm_is_clean_and_the_next_start_replays_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let witness = Witness::default();
    let mut server = ChildServer::start(dir.path()).expect("it starts");
    Sender::new(Door::Grpc, 1).send(&server, 60, &witness);
    assert_eq!(server.terminate(Duration::from_secs(5)), Some(0));
    let server = ChildServer::start(dir.path()).expect("it starts again");
    assert_eq!(replayed(&server), "spandrel_ingest_spans_replayed_total 0");
    witness.assert_everything(&server);
}

#[test]
fn rel_21_a_second_server_on_the_directory_ends_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = ChildServer::start(dir.path()).expect("it starts");
    let refused = spandrel_serve(dir.path());
    assert!(refused.contains(&format!("process {}", first.child.id())), "{refused}");
    assert!(refused.contains("--data-dir"), "with a remedy: {refused}");
}

/// Requests that do not add up to a block of 65,536 spans, one of them larger than a block, and a kill before any block.
#[test]
fn rel_01_a_head_of_more_spans_than_a_block_takes_is_replayed_and_becomes_blocks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = ChildServer::start(dir.path()).expect("it starts");
    let (mut sent, mut first) = (0, 1);
    for n in [40_000, 25_000, 70_000, 300] {
        let body = request(n, first).encode_to_vec();
        let url = format!("http://{}/v1/traces", server.otlp_http);
        assert_eq!(post(&url, &[("content-type", "application/x-protobuf")], &body).status, 200);
        (sent, first) = (sent + n, first + n);
        if n == 70_000 {
            server.kill();
            server = ChildServer::start(dir.path()).expect("it starts again");
        }
    }
    assert_eq!(server.terminate(Duration::from_secs(30)), Some(0), "everything becomes blocks");
    let server = ChildServer::start(dir.path()).expect("it starts again");
    assert_eq!(replayed(&server), "spandrel_ingest_spans_replayed_total 0");
    let exported = server.get("/spandrel/v1/export").text();
    assert_eq!(exported.matches("\"spanId\"").count() as u64, sent);
}

fn spandrel_serve(dir: &Path) -> String {
    let output = serve(dir).output().expect("the binary runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Files may not grow past 8 MiB here, so the 64 MiB of a journal segment cannot be had: as on a full disk.
#[test]
fn rel_06_otlp_24_31_44_d_5_bi_131_without_space_ingest_is_refused_with_a_hint_and_questions_go_on() {
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
