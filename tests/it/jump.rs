//! The reason for all of it: from a percentile to its trace, with real exporters.

use std::process::Command;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message as _;
use spandrel::cli::shop::{Grouping, Requests, Shop};
use spandrel::model::DurationNanos;

use crate::support::{TestServer, block_on, flattened, get, grpc, now};

/// Sends a busy minute of the shop with one checkout of nine seconds in it; returns that trace.
fn planted(server: &TestServer) -> spandrel::cli::shop::Trace {
    let (mut shop, mut requests) = (Shop::new(11), Requests::new(Grouping::Process));
    let start = now().saturating_sub(DurationNanos::from_secs(60));
    let slow = shop.plant_slow_trace(start, DurationNanos::from_secs(9));
    let mut all: Vec<ExportTraceServiceRequest> = requests.add(slow.clone());
    for no in 0..300 {
        all.extend(requests.add(shop.next_trace(start.saturating_add(DurationNanos::from_millis(no * 100)))));
    }
    all.extend(requests.flush());
    block_on(async {
        let mut client = grpc(server.addresses.otlp_grpc).await;
        for request in all {
            let answer = client.export(request).await.expect("the request is stored").into_inner();
            assert_eq!(answer.partial_success, None);
        }
    });
    slow
}

fn checkpoint_often(config: &mut spandrel::config::Config) {
    config.ingest.checkpoint_spans = 700;
    config.ingest.partition_bytes_max = 60_000;
}

/// In the head; then from blocks, in several partitions, some of them sealed.
#[test]
fn the_slowest_checkout_leads_to_its_trace_bit_for_bit() {
    for change in [|_: &mut spandrel::config::Config| {}, checkpoint_often] {
        let mut server = TestServer::with(change);
        let slow = planted(&server);
        for _again in 0..2 {
            let id = slow.trace_id().to_string();
            let top = &server.json("/spandrel/v1/percentile?service=checkout&q=1")["quantiles"][0];
            assert_eq!(top["exemplars"][0]["trace_id"], id, "{top}");
            assert_eq!(top["exemplars"][0]["duration_ns"], 9_000_000_000_u64);
            assert_eq!(top["exemplars"][0]["in_bucket"], true);
            let url = format!("http://{}/api/traces/{id}", server.addresses.http);
            let answer = get(&url, &[("accept", "application/protobuf")]);
            let stored = TracesData::decode(answer.body.as_slice()).expect("the answer is a trace");
            let sent = TracesData { resource_spans: slow.resource_spans() };
            assert!(flattened(&stored) == flattened(&sent), "sent {sent:#?}, stored {stored:#?}");
            server.restart();
        }
    }
}

#[test]
fn a_program_with_the_rust_sdk_finds_its_slow_request_by_command_line() {
    let server = TestServer::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let _inside = runtime.enter();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(format!("http://{}", server.addresses.otlp_grpc))
        .build()
        .expect("the exporter is built");
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(opentelemetry_sdk::Resource::builder().with_service_name("till").build())
        .build();
    let tracer = provider.tracer("till");
    let start = SystemTime::now() - Duration::from_secs(20);
    let record = |millis: u64| {
        let builder = SpanBuilder::from_name("POST /pay").with_kind(SpanKind::Server).with_start_time(start);
        let mut span = tracer.build(builder);
        span.end_with_timestamp(start + Duration::from_millis(millis));
        span.span_context().trace_id().to_string()
    };
    for millis in 1..=99 {
        let _fast = record(millis);
    }
    let slow = record(4_000);
    provider.shutdown().expect("everything is exported");
    let spandrel = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_spandrel")).args(args).output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("the output is text")
    };
    let url = format!("http://{}", server.addresses.http);
    let shown = spandrel(&["p99", "till", "--q", "0.5,1", "--url", &url]);
    assert!(shown.contains(&slow) && shown.contains("4.00 s"), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&spandrel(&["p99", "till", "--json", "--url", &url])).expect("JSON");
    assert_eq!(json["count"], 100);
    assert!(spandrel(&["trace", &slow, "--url", &url]).contains("POST /pay"));
    assert!(spandrel(&["services", "--url", &url]).contains("till"));
}

#[test]
fn the_demo_makes_the_jump_and_says_so_with_its_exit_code() {
    let output = Command::new(env!("CARGO_BIN_EXE_spandrel"))
        .args(["demo", "--once", "--duration", "3s", "--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0"])
        .args(["--http", "127.0.0.1:0"])
        .output()
        .expect("the binary runs");
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && shown.contains("checkout") && shown.contains("Open it:"), "{shown}\n{said}");
}

#[test]
fn files_of_spans_are_loaded_through_the_public_port() {
    let server = TestServer::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sent = TracesData { resource_spans: Shop::new(3).next_trace(now()).resource_spans() };
    let protobuf = dir.path().join("trace.bin");
    std::fs::write(&protobuf, sent.encode_to_vec()).expect("the file is written");
    let line = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"loaded"}}}}]}},
            "scopeSpans":[{{"spans":[{{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331",
            "startTimeUnixNano":"{0}","endTimeUnixNano":"{0}"}}]}}]}}]}}"#,
        now().0
    );
    let json = dir.path().join("lines.jsonl");
    std::fs::write(&json, format!("{0}\n\n{0}\n", line.replace('\n', ""))).expect("the file is written");
    let output = Command::new(env!("CARGO_BIN_EXE_spandrel"))
        .args(["load", "--url", &format!("http://{}", server.addresses.otlp_http)])
        .args([&protobuf, &json])
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 requests stored, 0 spans rejected\n");
    assert_eq!(server.get("/spandrel/v1/traces/af7651916cd43dd8448eb211c80319c").status, 200);
}
