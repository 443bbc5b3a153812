//! Lines of the OTLP checklist that are not tested where their subject is: statuses, paths, methods, what comes back.

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::TracesData;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use prost::Message as _;

use crate::support::{Answer, TestServer, answer, block_on, get, post, request};
use crate::wire::{Coding, Transport, Wire, framed};

const TRACE: &str = "/spandrel/v1/traces/07070707070707070707070707070707";

fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let config = ureq::Agent::config_builder().http_status_as_error(false).allow_non_standard_methods(true).build();
    answer(ureq::Agent::from(config).run(request.body(body.to_vec()).expect("a request")))
}

#[test]
fn otlp_35_46_bi_107_bi_111_bi_114_other_paths_and_methods_say_which_is_right() {
    let server = TestServer::new();
    let base = format!("http://{}", server.addresses.otlp_http);
    for path in ["/", "/v1/traces/", "/v1", "/v1/metrics", "/v1/logs", "/v1development/profiles"] {
        for (content_type, is_json) in [("application/json", true), ("application/x-protobuf", false)] {
            let answer = post(&format!("{base}{path}"), &[("content-type", content_type)], b"");
            assert_eq!((answer.status, answer.header("content-type")), (404, content_type), "{path}");
            let message = if is_json {
                answer.json()["message"].as_str().expect("a message").to_owned()
            } else {
                tonic_types::Status::decode(answer.body.as_slice()).expect("a google.rpc.Status").message
            };
            assert!(message.contains("/v1/traces"), "{path}: {message}");
        }
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"] {
        let answer = ask(method, &format!("{base}/v1/traces"), &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, "POST"), "{method}");
    }
}

#[test]
fn otlp_36_37_bi_108_to_bi_110_media_types_in_every_spelling() {
    let server = TestServer::new();
    let url = format!("http://{}/v1/traces", server.addresses.otlp_http);
    for (content_type, status, answered) in [
        ("application/json", 200, "application/json"),
        ("application/json; charset=utf-8", 200, "application/json"),
        ("application/json;charset=UTF-8", 200, "application/json"),
        ("APPLICATION/JSON", 200, "application/json"),
        (" application/json ", 200, "application/json"),
        ("Application/Json ; x=y", 200, "application/json"),
        ("text/json", 415, "application/json"),
        ("text/plain", 415, "application/json"),
        ("", 415, "application/json"),
        ("application/jsonx", 415, "application/json"),
        ("application/x-protobuffer", 415, "application/json"),
        ("application/grpc-web", 415, "application/json"),
    ] {
        let answer = post(&url, &[("content-type", content_type)], b"{}");
        assert_eq!((answer.status, answer.header("content-type")), (status, answered), "{content_type:?}");
    }
    for content_type in ["application/x-protobuf", "application/x-protobuf;proto=x", "Application/X-Protobuf"] {
        let answer = post(&url, &[("content-type", content_type)], b"");
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-protobuf"), "{content_type:?}");
    }
    assert_eq!(ask("POST", &url, &[], b"{}").status, 415, "none at all");
}

#[test]
fn otlp_11_32_bi_114_bi_123_another_grpc_path_is_unimplemented_and_the_connection_stays() {
    let server = TestServer::new();
    block_on(async {
        let mut wire = Wire::connect(server.addresses.otlp_grpc, Transport::Grpc).await;
        for path in [
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
            "/opentelemetry.proto.collector.trace.v2.TraceService/Export",
            "/opentelemetry.proto.collector.trace.v1.TraceService/Exprot",
            "/grpc.health.v1.Health/Watch",
        ] {
            let reply = wire.call(path, &[], framed(0, b"")).await;
            assert_eq!((reply.status, reply.grpc_status), (200, Some(12)), "{path}: {reply:?}");
        }
        let reply = wire.export(Coding::Identity, &request(1, 1).encode_to_vec()).await;
        assert_eq!(reply.grpc_status, Some(0), "the same connection");
    });
}

#[test]
fn otlp_73_the_grpc_health_service_says_serving() {
    let server = TestServer::new();
    block_on(async {
        let mut wire = Wire::connect(server.addresses.otlp_grpc, Transport::Grpc).await;
        let reply = wire.call("/grpc.health.v1.Health/Check", &[], framed(0, b"")).await;
        assert_eq!((reply.grpc_status, reply.body.as_slice()), (Some(0), framed(0, b"\x08\x01").as_slice()));
    });
    for path in ["/healthz", "/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn otlp_12_two_hundred_calls_at_once_on_one_connection_are_answered() {
    let server = TestServer::new();
    block_on(async {
        let client = crate::support::grpc(server.addresses.otlp_grpc).await;
        let calls = (0..200).map(|at| {
            let mut client = client.clone();
            tokio::spawn(async move { client.export(request(1, at + 1)).await })
        });
        for call in calls.collect::<Vec<_>>() {
            let answer = call.await.expect("no panic").expect("it is stored").into_inner();
            assert_eq!(answer.partial_success, None, "otlp_13, otlp_20");
        }
    });
}

#[test]
fn otlp_06_http_and_grpc_over_http2_with_prior_knowledge() {
    let server = TestServer::new();
    block_on(async {
        let mut wire = Wire::connect(server.addresses.otlp_http, Transport::Grpc).await;
        let reply = wire.call("/v1/traces", &[("content-type", "application/json")], b"{}".to_vec()).await;
        assert_eq!((reply.status, reply.body.as_slice()), (200, &b"{}"[..]));
    });
}

/// Everything that a span of one trace may carry, as the protobuf of the native API gives it back.
fn back(server: &TestServer) -> TracesData {
    let url = format!("http://{}{TRACE}", server.addresses.http);
    let answer = get(
        &format!("{}/api/v2/traces/07070707070707070707070707070707", url.trim_end_matches(TRACE)),
        &[("accept", "application/protobuf")],
    );
    assert_eq!(answer.status, 200);
    // `TraceByIDResponse { trace = 1 }` of Tempo wraps what OTLP calls TracesData.
    let mut body = answer.body.as_slice();
    let key = prost::encoding::decode_varint(&mut body).expect("a key");
    assert_eq!(key, 0x0a);
    let length = usize::try_from(prost::encoding::decode_varint(&mut body).expect("a length")).expect("it fits");
    TracesData::decode(&body[..length]).expect("TracesData")
}

#[test]
fn otlp_64_65_sd_05_sd_13_sd_17_sd_18_sd_22_sd_23_what_was_sent_comes_back() {
    let server = TestServer::new();
    let mut sent = request(1, 1);
    let resource = &mut sent.resource_spans[0];
    resource.schema_url = "https://opentelemetry.io/schemas/1.44.0".to_owned();
    let scope = &mut resource.scope_spans[0];
    scope.schema_url = "javascript:alert(1)".to_owned();
    scope.scope = Some(InstrumentationScope {
        name: "scope".to_owned(),
        version: "1.2".to_owned(),
        dropped_attributes_count: 3,
        ..InstrumentationScope::default()
    });
    let span = &mut scope.spans[0];
    span.flags = u32::MAX;
    span.dropped_attributes_count = u32::MAX;
    let bytes = any_value::Value::BytesValue(vec![0, 0xff, 0x80]);
    span.attributes =
        vec![KeyValue { key: "bytes".to_owned(), value: Some(AnyValue { value: Some(bytes) }), ..KeyValue::default() }];
    span.events =
        [9, 3, 0].map(|time_unix_nano| Event { time_unix_nano, name: "event".to_owned(), ..Event::default() }).into();
    assert_eq!(server.send(&sent).status, 200);
    let got = back(&server);
    let (got, sent) = (&got.resource_spans[0], &sent.resource_spans[0]);
    assert_eq!(got.schema_url, sent.schema_url);
    assert_eq!(got.scope_spans[0].schema_url, sent.scope_spans[0].schema_url, "never a link, always there");
    assert_eq!(got.scope_spans[0].scope, sent.scope_spans[0].scope);
    let (got, sent) = (&got.scope_spans[0].spans[0], &sent.scope_spans[0].spans[0]);
    assert_eq!((got.flags, got.dropped_attributes_count), (u32::MAX, u32::MAX));
    assert_eq!((&got.attributes, &got.events), (&sent.attributes, &sent.events));
}

#[test]
fn sd_24_sd_25_sd_26_spans_without_a_service_are_of_unknown_service() {
    let server = TestServer::new();
    assert_eq!(server.send(&request(1, 1)).status, 200);
    let services = server.json("/spandrel/v1/services");
    assert_eq!(services["services"][0]["name"], "unknown_service");
    let counted = server.json("/spandrel/v1/percentile?service=unknown_service&q=0.5&start=-15m");
    assert_eq!(counted["count"], 1);
}

#[test]
fn sd_31_sd_32_bi_009_children_first_orphans_and_cycles_are_stored_and_shown() {
    let server = TestServer::new();
    let mut sent = request(4, 1);
    let ids: Vec<Vec<u8>> =
        sent.resource_spans[0].scope_spans[0].spans.iter().map(|span| span.span_id.clone()).collect();
    let spans = &mut sent.resource_spans[0].scope_spans[0].spans;
    spans[0].parent_span_id.clone_from(&ids[1]);
    spans[1].parent_span_id.clone_from(&ids[0]);
    spans[2].parent_span_id.clone_from(&ids[2]);
    spans[3].parent_span_id = vec![9; 8];
    assert_eq!(server.send(&sent).status, 200);
    assert_eq!(back(&server).resource_spans[0].scope_spans[0].spans.len(), 4);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_spandrel"))
        .args(["trace", "07070707070707070707070707070707", "--url", &format!("http://{}", server.addresses.http)])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("work").count(), 4, "each is drawn once");
}

#[test]
fn otlp_68_bi_014_the_same_request_five_times_and_five_at_once_is_counted_once() {
    let server = TestServer::new();
    let body = request(3, 1).encode_to_vec();
    let url = format!("http://{}/v1/traces", server.addresses.otlp_http);
    let send = || post(&url, &[("content-type", "application/x-protobuf")], &body).status;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..5).map(|_| scope.spawn(send)).collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 200);
        }
    });
    for _ in 0..5 {
        assert_eq!(send(), 200);
    }
    let counted = server.json("/spandrel/v1/percentile?service=unknown_service&q=0.5&start=-15m");
    assert_eq!(counted["count"], 3);
}

#[test]
fn otlp_70_who_sends_is_in_the_metrics() {
    let server = TestServer::new();
    let url = format!("http://{}/v1/traces", server.addresses.otlp_http);
    let headers = [("content-type", "application/json"), ("user-agent", "OTel-OTLP-Exporter-Python/1.45\"")];
    for _ in 0..3 {
        assert_eq!(post(&url, &headers, b"{}").status, 200);
    }
    let metrics = server.get("/metrics").text();
    let line = "spandrel_ingest_requests_by_agent_total{user_agent=\"OTel-OTLP-Exporter-Python/1.45\\\"\"} 3";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn otlp_63_messages_of_other_versions_are_taken() {
    let server = TestServer::new();
    let now = crate::support::now().0;
    // A span as version 0.20 knew it: no flags, status with the deprecated code 1, and a field that a later version has.
    let mut span = Vec::new();
    for (number, bytes) in [(1, &[7_u8; 16][..]), (2, &[1; 8]), (5, b"old"), (77, b"new")] {
        prost::encoding::bytes::encode(number, &bytes.to_vec(), &mut span);
    }
    prost::encoding::fixed64::encode(7, &now, &mut span);
    prost::encoding::fixed64::encode(8, &now, &mut span);
    prost::encoding::bytes::encode(15, &b"\x08\x01\x12\x00".to_vec(), &mut span);
    let wrap = |content: Vec<u8>, number| {
        let mut out = Vec::new();
        prost::encoding::bytes::encode(number, &content, &mut out);
        out
    };
    let body = wrap(wrap(wrap(span, 2), 2), 1);
    assert_eq!(server.post("application/x-protobuf", &body).status, 200);
    assert_eq!(back(&server).resource_spans[0].scope_spans[0].spans[0].name, "old");
}
