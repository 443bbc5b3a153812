//! The two OTLP doors: encodings, codings, and every refusal with its exact status.

use std::io::Write as _;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::EntityRef;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_types::StatusExt as _;

use crate::support::{TestServer, block_on, get, grpc, post, request};

fn with_bad_ids(n: u64, first: u64, bad: impl Fn(usize) -> bool) -> ExportTraceServiceRequest {
    let mut request = request(n, first);
    for (at, span) in request.resource_spans[0].scope_spans[0].spans.iter_mut().enumerate() {
        if bad(at) {
            span.span_id.clear();
        }
    }
    request
}

fn stored(server: &TestServer) -> usize {
    let trace = server.json("/spandrel/v1/traces/07070707070707070707070707070707");
    trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map_or(0, Vec::len)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory does not fail")
}

#[test]
fn otlp_01_02_11_13_20_every_coding_over_both_transports_stores_the_same() {
    let server = TestServer::new();
    block_on(async {
        for (first, coding) in [(1, None), (11, Some(CompressionEncoding::Gzip)), (21, Some(CompressionEncoding::Zstd))]
        {
            let client = grpc(server.addresses.otlp_grpc).await;
            let mut client = match coding {
                Some(coding) => client.send_compressed(coding),
                None => client,
            };
            let answer = client.export(request(10, first)).await.expect("it is stored").into_inner();
            assert_eq!(answer, ExportTraceServiceResponse { partial_success: None }, "otlp_20: unset on full success");
        }
    });
    let url = format!("http://{}/v1/traces", server.addresses.otlp_http);
    let body = |first| request(10, first).encode_to_vec();
    let zlib = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory does not fail")
    };
    let zstd = zstd::encode_all(body(51).as_slice(), 3).expect("memory does not fail");
    for (coding, body) in [("", body(31)), ("GZIP", gzip(&body(41))), ("zstd", zstd), ("deflate", zlib(&body(61)))] {
        let answer = post(&url, &[("content-type", "application/x-protobuf"), ("content-encoding", coding)], &body);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "otlp_38: {coding}");
    }
    assert_eq!(stored(&server), 70);
}

#[test]
fn otlp_19_an_empty_request_is_a_success() {
    let server = TestServer::new();
    assert_eq!(server.post("application/x-protobuf", b"").status, 200);
    let answer = server.post("application/json; charset=utf-8", b"{}");
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    block_on(async {
        let answer = grpc(server.addresses.otlp_grpc).await.export(ExportTraceServiceRequest::default()).await;
        assert_eq!(answer.expect("success").into_inner().partial_success, None);
    });
}

#[test]
fn otlp_21_22_d_2_bi_016_one_bad_span_costs_itself_and_is_counted() {
    let server = TestServer::new();
    let answer = block_on(async {
        let request = with_bad_ids(512, 1, |at| at == 256);
        grpc(server.addresses.otlp_grpc).await.export(request).await.expect("the others are stored").into_inner()
    });
    let partial = answer.partial_success.expect("partial success");
    assert_eq!(partial.rejected_spans, 1);
    assert!(
        partial.error_message.starts_with("rejected 1 of 512 spans: invalid_span_id=1"),
        "{}",
        partial.error_message
    );
    assert_eq!(stored(&server), 511);
    let answer = server.send(&with_bad_ids(10, 1_000, |at| at < 3));
    let partial = ExportTraceServiceResponse::decode(answer.body.as_slice()).expect("a response").partial_success;
    assert_eq!((answer.status, partial.expect("partial success").rejected_spans), (200, 3));
}

#[test]
fn otlp_25_39_42_bi_017_a_request_of_bad_spans_alone_is_invalid() {
    let server = TestServer::new();
    let bad = with_bad_ids(5, 1, |_| true);
    let status =
        block_on(async { grpc(server.addresses.otlp_grpc).await.export(bad.clone()).await }).expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.get_details_bad_request().is_some() && status.message().contains("invalid_span_id=5"));
    let answer = server.send(&bad);
    let body = tonic_types::Status::decode(answer.body.as_slice()).expect("otlp_39: the body is a google.rpc.Status");
    assert_eq!((answer.status, body.code), (400, Code::InvalidArgument as i32));
}

#[test]
fn otlp_17_27_40_d_4_too_large_is_final_before_and_after_inflation() {
    let server = TestServer::with(|config| config.body_bytes_max = 4_096);
    for (coding, request) in [(None, request(200, 1)), (Some(CompressionEncoding::Gzip), request(2_000, 1))] {
        let status = block_on(async {
            let client = grpc(server.addresses.otlp_grpc).await;
            match coding {
                Some(coding) => client.send_compressed(coding),
                None => client,
            }
            .export(request)
            .await
        });
        let status = status.expect_err("too large");
        assert_eq!(status.code(), Code::ResourceExhausted, "{coding:?}");
        assert!(status.get_details_retry_info().is_none(), "no hint: it would not help");
    }
    let url = format!("http://{}/v1/traces", server.addresses.otlp_http);
    let zeros = gzip(&vec![0; 1 << 20]);
    for (coding, body) in [("identity", vec![0; 5_000]), ("gzip", zeros)] {
        let answer = post(&url, &[("content-type", "application/x-protobuf"), ("content-encoding", coding)], &body);
        assert_eq!((answer.status, answer.header("retry-after")), (413, ""), "{coding}");
    }
    assert_eq!(server.send(&request(10, 1)).status, 200, "the next good request is stored");
}

#[test]
fn otlp_37_42_47_d_3_http_refusals_have_their_exact_status() {
    let server = TestServer::new();
    let base = format!("http://{}", server.addresses.otlp_http);
    let protobuf = ("content-type", "application/x-protobuf");
    for (headers, path, body, status, said) in [
        (vec![protobuf], "/v1/traces", &b"\xff\xff"[..], 400, "undecodable"),
        (vec![("content-type", "application/json")], "/v1/traces", b"[]", 400, "undecodable JSON"),
        (vec![protobuf], "/v1/traces", b"{\"resourceSpans\":[]}", 400, "JSON"),
        (vec![("content-type", "text/plain")], "/v1/traces", b"", 415, "send application/x-protobuf"),
        (vec![protobuf, ("content-encoding", "br")], "/v1/traces", b"x", 415, "\"br\" is not supported"),
        (vec![protobuf, ("content-encoding", "gzip, gzip")], "/v1/traces", b"x", 415, "not supported"),
        (vec![protobuf, ("content-encoding", "gzip")], "/v1/traces", b"not gzip", 400, "does not inflate"),
        (vec![protobuf], "/v1/traces/", b"", 404, "/v1/traces"),
        (vec![protobuf], "/v1/metrics", b"", 404, "/v1/traces"),
    ] {
        let answer = post(&format!("{base}{path}"), &headers, body);
        assert_eq!(answer.status, status, "{path} {headers:?}: {}", answer.text());
        assert!(answer.text().contains(said), "{path} {headers:?}: {}", answer.text());
    }
    let wrong_method = get(&format!("{base}/v1/traces"), &[]);
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, "POST"));
    let unknown_coding = post(&format!("{base}/v1/traces"), &[protobuf, ("content-encoding", "br")], b"x");
    assert_eq!(unknown_coding.header("accept-encoding"), "gzip, zstd, deflate");
}

#[test]
fn otlp_32_another_signal_is_unimplemented_and_the_connection_stays() {
    let server = TestServer::new();
    block_on(async {
        let endpoint =
            tonic::transport::Endpoint::new(format!("http://{}", server.addresses.otlp_grpc)).expect("a URL");
        let channel = endpoint.connect().await.expect("the port answers");
        let mut raw = tonic::client::Grpc::new(channel.clone());
        raw.ready().await.expect("the channel is ready");
        let path =
            http::uri::PathAndQuery::from_static("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");
        let codec = tonic_prost::ProstCodec::<ExportTraceServiceRequest, ExportTraceServiceResponse>::default();
        let status = raw.unary(tonic::Request::new(request(1, 1)), path, codec).await.expect_err("no such service");
        assert_eq!(status.code(), Code::Unimplemented);
        let _stored = TraceServiceClient::new(channel).export(request(1, 1)).await.expect("traces go on");
    });
}

#[test]
fn bi_054_entity_refs_to_missing_keys_are_counted() {
    let server = TestServer::new();
    let mut request = request(1, 1);
    let refers_to =
        |key: &str| EntityRef { r#type: "host".to_owned(), id_keys: vec![key.to_owned()], ..EntityRef::default() };
    let resource = Resource { entity_refs: vec![refers_to("host.id"), refers_to("host.name")], ..Resource::default() };
    request.resource_spans[0].resource = Some(resource);
    let answer = server.send(&request);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("spandrel_ingest_spans_warned_total{code=\"entity_ref_missing\"} 2"), "{metrics}");
}

#[test]
fn a_request_that_memory_can_never_hold_is_final_and_names_the_setting() {
    let server = TestServer::with(|config| config.ingest.body_bytes_in_flight_max = 64 * 1024);
    let answer = server.send(&request(1_000, 1));
    assert_eq!((answer.status, answer.header("retry-after")), (413, ""), "{}", answer.text());
    assert!(answer.text().contains("raise --memory"), "{}", answer.text());
    assert_eq!(server.send(&request(100, 1)).status, 200, "the next good request is stored");
}
