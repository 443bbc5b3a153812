//! Trace look-up as Grafana's Tempo data source does it.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message as _;

use crate::support::{TestServer, get, now};

/// One span whose clock ran backwards, under a resource without attributes.
fn bare(server: &TestServer) {
    let span = Span {
        trace_id: vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        span_id: vec![9; 8],
        name: "bare".to_owned(),
        start_time_unix_nano: now().0,
        end_time_unix_nano: now().0 - 1_000_000,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    server.deliver(&ExportTraceServiceRequest { resource_spans });
}

#[test]
fn save_and_test_is_answered_with_echo() {
    let answer = TestServer::new().get("/api/echo");
    assert_eq!((answer.status, answer.text().as_str()), (200, "echo"));
}

#[test]
fn a_trace_opens_by_any_spelling_of_its_id_in_both_versions_and_encodings() {
    let server = TestServer::new();
    bare(&server);
    for id in ["00000000000000000102030405060708", "102030405060708", "0102030405060708"] {
        let url = |version: &str| format!("http://{}/api/{version}traces/{id}", server.addresses.http);
        let v1 = get(&url(""), &[("accept", "application/protobuf")]);
        assert_eq!((v1.status, v1.header("content-type")), (200, "application/protobuf"), "{id}");
        let v2 = get(&url("v2/"), &[("accept", "application/protobuf")]);
        assert_eq!(v2.body[0], 0x0a, "field 1 of the v2 answer is the trace");
        assert!(v2.body.windows(v1.body.len()).any(|window| window == v1.body), "v2 wraps the same trace");
        let batches = get(&url(""), &[]).json();
        assert_eq!(batches["batches"][0]["scopeSpans"][0]["spans"][0]["traceId"], "AAAAAAAAAAABAgMEBQYHCA==");
        let trace = get(&url("v2/"), &[("accept", "application/json")]).json();
        assert_eq!(trace["trace"]["resourceSpans"], batches["batches"]);
    }
}

#[test]
fn every_span_comes_with_resource_scope_and_status_and_never_ends_before_it_starts() {
    let server = TestServer::new();
    bare(&server);
    let url = format!("http://{}/api/traces/102030405060708", server.addresses.http);
    let stored = TracesData::decode(get(&url, &[("accept", "application/protobuf")]).body.as_slice()).expect("a trace");
    let resource = stored.resource_spans[0].resource.as_ref().expect("the resource is there");
    assert_eq!(resource.attributes[0].key, "service.name", "a resource without attributes would hide its spans");
    let scope = &stored.resource_spans[0].scope_spans[0];
    assert!(scope.scope.is_some() && scope.spans[0].status.is_some());
    assert_eq!(scope.spans[0].end_time_unix_nano, scope.spans[0].start_time_unix_nano);
}

#[test]
fn bi_139_an_unknown_id_is_404_and_what_is_no_id_is_400_in_plain_text() {
    let server = TestServer::new();
    let long = "1".repeat(33);
    for (id, status) in [("abc", 404), ("zz", 400), ("0x12", 400), (long.as_str(), 400), ("..%2f", 400), ("%00", 400)] {
        for version in ["", "v2/"] {
            let answer = server.get(&format!("/api/{version}traces/{id}"));
            assert_eq!(answer.status, status, "{version}{id}");
            assert!(!answer.text().contains('<'), "never HTML: {}", answer.text());
        }
    }
}
