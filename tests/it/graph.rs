//! The service graph against the calls that were sent, also where the halves of a call come in different blocks.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use crate::support::{Random, TestServer, now};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

struct Half {
    service: &'static str,
    span: Span,
}

fn half(service: &'static str, trace: u64, id: u64, parent: u64, kind: i32, duration_ms: u64) -> Half {
    // Longer ago than any wait for another half.
    let start = now().0 - 60_000_000_000;
    let bytes = |id: u64| if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    let span = Span {
        trace_id: u128::from(trace).to_be_bytes().to_vec(),
        span_id: bytes(id),
        parent_span_id: bytes(parent),
        name: "work".to_owned(),
        kind,
        start_time_unix_nano: start,
        end_time_unix_nano: start + duration_ms * 1_000_000,
        ..Span::default()
    };
    Half { service, span }
}

fn send(server: &TestServer, halves: Vec<Half>) {
    let resource_spans = halves.into_iter().map(|half| ResourceSpans {
        resource: Some(Resource { attributes: vec![text("service.name", half.service)], ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans: vec![half.span], ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    let request = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
    server.deliver(&request);
}

/// Count and failures by (client, server, connection type).
fn edges(server: &TestServer) -> BTreeMap<(String, String, String), (u64, u64)> {
    let answer = server.json("/spandrel/v1/graph?start=-1h&exemplars=1");
    assert_eq!(answer["coverage"]["complete"], true, "{answer}");
    let mut edges = BTreeMap::new();
    for edge in answer["edges"].as_array().expect("edges") {
        let name = |key: &str| edge[key].as_str().expect("a name").to_owned();
        let side = &edge["server_side"];
        let counts = (side["count"].as_u64().expect("a count"), side["error_count"].as_u64().expect("a count"));
        for exemplar in edge["exemplars"].as_array().expect("a list") {
            let trace = format!("/spandrel/v1/traces/{}", exemplar["trace_id"].as_str().expect("an id"));
            assert_eq!(server.get(&trace).status, 200, "{edge}");
        }
        let _none = edges.insert((name("client"), name("server"), name("connection_type")), counts);
    }
    edges
}

#[test]
fn every_kind_of_edge_is_told_by_its_spans() {
    let server = TestServer::new();
    let with = |mut half: Half, attributes: &[(&str, &str)]| {
        half.span.attributes = attributes.iter().map(|(key, value)| text(key, value)).collect();
        half
    };
    let failed = |mut half: Half| {
        half.span.status = Some(Status { code: 2, ..Status::default() });
        half
    };
    send(
        &server,
        vec![
            half("frontend", 1, 1, 0, SERVER, 50),
            half("frontend", 1, 2, 1, CLIENT, 40),
            failed(half("cart", 1, 3, 2, SERVER, 30)),
            with(half("cart", 1, 4, 3, CLIENT, 20), &[("db.system", "postgresql"), ("server.address", "db-1")]),
            with(half("cart", 1, 5, 3, CLIENT, 20), &[("db.system.name", "redis")]),
            half("cart", 1, 6, 3, PRODUCER, 1),
            half("email", 1, 7, 6, CONSUMER, 10),
            with(half("cart", 1, 8, 3, CLIENT, 9), &[("peer.service", "bank")]),
            half("cart", 1, 9, 3, CLIENT, 9),
            // A Zipkin server shares the id of its client.
            half("cart", 2, 20, 19, CLIENT, 9),
            half("stock", 2, 20, 19, SERVER, 8),
        ],
    );
    let edge = |client: &str, server: &str, connection: &str, counts| {
        ((client.to_owned(), server.to_owned(), connection.to_owned()), counts)
    };
    let expected = BTreeMap::from([
        edge("user", "frontend", "virtual_node", (1, 0)),
        edge("frontend", "cart", "", (1, 1)),
        edge("cart", "db-1", "database", (1, 0)),
        edge("cart", "redis", "database", (1, 0)),
        edge("cart", "email", "messaging_system", (1, 0)),
        edge("cart", "bank", "virtual_node", (1, 0)),
        edge("cart", "stock", "", (1, 0)),
    ]);
    assert_eq!(edges(&server), expected);
}

#[test]
fn no_call_is_missed_or_counted_twice_when_its_halves_come_apart_and_in_any_order() {
    const CALLS: u64 = 2_000;
    let server = TestServer::with(|config| {
        config.ingest.checkpoint_spans = 300;
        config.ingest.partition_bytes_max = 40_000;
    });
    let mut random = Random(11);
    let mut halves: Vec<Half> = Vec::new();
    for call in 1..=CALLS {
        let recent = |half: &mut Half| {
            // The wait for its other half begins where it ends: not while this test runs, on however slow a machine.
            half.span.start_time_unix_nano = now().0;
            half.span.end_time_unix_nano = now().0 + 600_000_000_000;
        };
        let mut pair = [half("a", call, call * 2, 1, CLIENT, 1), half("b", call, call * 2 + 1, call * 2, SERVER, 1)];
        pair.iter_mut().for_each(recent);
        halves.extend(pair);
    }
    // Neighbours stay within a few hundred spans of each other, so nearly every block cuts through some calls.
    for at in 0..halves.len() {
        let other = (at + usize::try_from(random.below(200)).expect("small")).min(halves.len() - 1);
        halves.swap(at, other);
    }
    while !halves.is_empty() {
        let rest = halves.split_off(halves.len().min(50));
        send(&server, std::mem::replace(&mut halves, rest));
    }
    let counted = edges(&server);
    let name = |text: &str| text.to_owned();
    assert_eq!(counted, BTreeMap::from([((name("a"), name("b"), String::new()), (CALLS, 0))]));
}
