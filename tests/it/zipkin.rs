//! The Zipkin door on a running server; ids are those of the list of bad inputs.

use std::io::Write as _;
use std::net::TcpStream;

use prost::Message as _;

use crate::support::{Answer, TestServer, get, now, post};

/// zipkin.proto as `prost` encodes it: the reference for what its bytes mean.
#[derive(Clone, PartialEq, prost::Message)]
struct ListOfSpans {
    #[prost(message, repeated, tag = "1")]
    spans: Vec<ZipkinSpan>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ZipkinSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    parent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    #[prost(int32, tag = "4")]
    kind: i32,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "6")]
    timestamp: u64,
    #[prost(uint64, tag = "7")]
    duration: u64,
    #[prost(message, optional, tag = "8")]
    local_endpoint: Option<Endpoint>,
    #[prost(message, optional, tag = "9")]
    remote_endpoint: Option<Endpoint>,
    #[prost(message, repeated, tag = "10")]
    annotations: Vec<Annotation>,
    #[prost(btree_map = "string, string", tag = "11")]
    tags: std::collections::BTreeMap<String, String>,
    #[prost(bool, tag = "12")]
    debug: bool,
    #[prost(bool, tag = "13")]
    shared: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Endpoint {
    #[prost(string, tag = "1")]
    service_name: String,
    #[prost(bytes = "vec", tag = "2")]
    ipv4: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    ipv6: Vec<u8>,
    #[prost(int32, tag = "4")]
    port: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Annotation {
    #[prost(fixed64, tag = "1")]
    timestamp: u64,
    #[prost(string, tag = "2")]
    value: String,
}

fn server() -> TestServer {
    TestServer::with(|config| config.zipkin = Some(([127, 0, 0, 1], 0).into()))
}

fn url(server: &TestServer) -> String {
    format!("http://{}/api/v2/spans", server.addresses.zipkin.expect("it is switched on"))
}

fn send_json(server: &TestServer, body: &str) -> Answer {
    post(&url(server), &[("content-type", "application/json")], body.as_bytes())
}

fn send_protobuf(server: &TestServer, spans: Vec<ZipkinSpan>) -> Answer {
    post(&url(server), &[("content-type", "application/x-protobuf")], &ListOfSpans { spans }.encode_to_vec())
}

fn micros() -> u64 {
    now().0 / 1_000
}

/// The inside of a JSON span of trace 7.
fn good(id: u64) -> String {
    format!(r#""traceId":"{:032x}","id":"{id:016x}","timestamp":{},"duration":1500"#, 7, micros())
}

/// The same in protobuf.
fn good_protobuf(id: u64) -> ZipkinSpan {
    ZipkinSpan {
        trace_id: 7_u128.to_be_bytes().to_vec(),
        id: id.to_be_bytes().to_vec(),
        timestamp: micros(),
        duration: 1_500,
        ..ZipkinSpan::default()
    }
}

/// The stored spans of trace 7 in OTLP/JSON, by span id.
fn stored(server: &TestServer) -> Vec<serde_json::Value> {
    let trace = server.json(&format!("/spandrel/v1/traces/{:032x}", 7));
    let resources = trace["resourceSpans"].as_array().into_iter().flatten();
    let scopes = resources.flat_map(|resource| resource["scopeSpans"].as_array().into_iter().flatten());
    let mut spans: Vec<_> = scopes.flat_map(|scope| scope["spans"].as_array().into_iter().flatten()).cloned().collect();
    spans.sort_by_key(|span| (span["spanId"].to_string(), span["kind"].to_string()));
    spans
}

fn metric(server: &TestServer, name: &str) -> u64 {
    let metrics = server.get("/metrics").text();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a counter is whole"))
}

#[track_caller]
fn assert_stored(answer: &Answer) {
    assert_eq!((answer.status, answer.text().as_str()), (202, ""), "202 without a body");
}

/// Requests for fuzzing, in both encodings.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let full = format!(
        r#"[{{{},"parentId":"3","kind":"SERVER","name":"get /","shared":true,"debug":true,"localEndpoint":{{
        "serviceName":"shop","ipv4":"10.0.0.7","ipv6":"2001:db8::c001","port":8080}},"remoteEndpoint":{{"ipv4":"10.0.0.8"}},
        "annotations":[{{"timestamp":1502787600000000,"value":"ws"}}],"tags":{{"http.method":"GET","error":"","n":1}}}}]"#,
        good(1)
    );
    let endpoint = Endpoint {
        service_name: "shop".to_owned(),
        ipv4: vec![10, 0, 0, 7],
        ipv6: b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\xc0\x01".to_vec(),
        port: 8080,
    };
    let full_protobuf = ZipkinSpan {
        parent_id: 3_u64.to_be_bytes().to_vec(),
        kind: 2,
        name: "get /".to_owned(),
        remote_endpoint: Some(endpoint.clone()),
        local_endpoint: Some(endpoint),
        annotations: vec![Annotation { timestamp: 1_502_787_600_000_000, value: "ws".to_owned() }],
        tags: [("error", ""), ("http.method", "GET")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        debug: true,
        shared: true,
        ..good_protobuf(1)
    };
    let v1 = format!("[{{{},\"binaryAnnotations\":[]}}]", good(1));
    let two = format!("[{{{}}},{{{}, \"kind\": null}}]", good(1), good(2));
    let times =
        r#"[{"traceId":"7","id":"1","timestamp":"1502787600000000.5","duration":1e3,"tags":{"a":[1,{"b":null}]}}]"#;
    let json =
        [("full", full.as_str()), ("v1", &v1), ("two", &two), ("times", times), ("object", "{}"), ("cut", &full[..90])];
    let protobuf = [
        ("full", vec![full_protobuf]),
        ("two", vec![good_protobuf(1), good_protobuf(2)]),
        ("no-ids", vec![ZipkinSpan::default()]),
    ];
    let json = json.into_iter().map(|(name, text)| (format!("{name}.json"), text.as_bytes().to_vec()));
    json.chain(protobuf.map(|(name, spans)| (format!("{name}.pb"), ListOfSpans { spans }.encode_to_vec()))).collect()
}

#[test]
fn the_door_is_closed_unless_it_is_asked_for() {
    assert_eq!(TestServer::new().addresses.zipkin, None);
}

#[test]
fn bi_151_an_empty_list_or_body_is_accepted() {
    let server = server();
    for body in ["[]", ""] {
        assert_stored(&send_json(&server, body));
    }
    assert_stored(&send_protobuf(&server, Vec::new()));
}

#[test]
fn bi_152_what_is_no_list_of_v2_spans_is_refused() {
    let server = server();
    let v1 = format!("[{{{},\"binaryAnnotations\":[]}}]", good(1));
    for (body, said) in [("{}", "a list of Zipkin v2 spans"), (&v1, "v1 is not supported"), ("[{", "undecodable JSON")]
    {
        let answer = send_json(&server, body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(said) && answer.header("content-type").starts_with("text/plain"), "{body}");
    }
    let answer = post(&url(&server), &[("content-type", "application/x-protobuf")], b"[{}]");
    assert!(answer.status == 400 && answer.text().contains("looks like JSON"), "{}", answer.text());
    assert_eq!(stored(&server), Vec::<serde_json::Value>::new());
}

#[test]
fn bi_153_a_trace_of_16_digits_is_found_by_them_also_after_a_restart() {
    let mut server = server();
    let list = format!("[{{{}}}]", good(1).replace(&format!("{:032x}", 7), "5AF7183fb1d4cf5f"));
    assert_stored(&send_json(&server, &list));
    let short = ZipkinSpan { trace_id: 0x5af7_183f_b1d4_cf5f_u64.to_be_bytes().to_vec(), ..good_protobuf(2) };
    assert_stored(&send_protobuf(&server, vec![short]));
    for _ in 0..2 {
        for id in ["5af7183fb1d4cf5f", "00000000000000005AF7183FB1D4CF5F"] {
            let trace = server.json(&format!("/spandrel/v1/traces/{id}")).to_string();
            assert!(trace.contains("0000000000000001") && trace.contains("0000000000000002"), "{trace}");
            assert_eq!(server.get(&format!("/api/traces/{id}")).status, 200);
        }
        server.restart();
    }
}

#[test]
fn bi_154_a_bad_span_is_dropped_and_counted() {
    let server = server();
    let bad = good(2).replace(&format!("{:032x}", 7), "5af7183fb1d4cf5");
    assert_stored(&send_json(&server, &format!("[{{{}}},{{{bad}}},{{{}}}]", good(1), good(3))));
    let short = |id| ZipkinSpan { trace_id: vec![1; 15], ..good_protobuf(id) };
    assert_stored(&send_protobuf(&server, vec![good_protobuf(4), short(5)]));
    assert_eq!(stored(&server).len(), 3);
    let rejected = "spandrel_ingest_spans_rejected_total{reason=\"invalid_trace_id\"}";
    assert_eq!(metric(&server, rejected), 2);
    for answer in [send_json(&server, &format!("[{{{bad}}}]")), send_protobuf(&server, vec![short(6)])] {
        assert_eq!(answer.status, 400);
        assert!(answer.text().starts_with("rejected 1 of 1 spans: invalid_trace_id=1"), "{}", answer.text());
    }
}

#[test]
fn bi_155_spans_without_times_are_kept() {
    let server = server();
    let odd = [r#""timestamp":null"#, r#""duration":0"#, r#""duration":-1"#, r#""duration":"12""#];
    let spans: Vec<_> = (1..).zip(odd).map(|(id, odd)| format!("{{{},{odd}}}", good(id))).collect();
    assert_stored(&send_json(&server, &format!("[{}]", spans.join(","))));
    let partial = ZipkinSpan { timestamp: 0, duration: 0, ..good_protobuf(5) };
    assert_stored(&send_protobuf(&server, vec![partial, ZipkinSpan { duration: u64::MAX, ..good_protobuf(6) }]));
    let stored = stored(&server);
    assert_eq!(stored.len(), 6);
    let nanos =
        |span: &serde_json::Value, key: &str| span[key].as_str().map_or(0, |n| n.parse::<u64>().expect("nanos"));
    let lasts =
        |at: usize| nanos(&stored[at], "endTimeUnixNano").saturating_sub(nanos(&stored[at], "startTimeUnixNano"));
    assert_eq!([lasts(1), lasts(2), lasts(3), lasts(5)], [0, 0, 12_000, 0]);
    assert_eq!(nanos(&stored[4], "startTimeUnixNano"), 0);
}

#[test]
fn bi_156_tags_that_are_no_strings_are_stored_as_text_and_counted() {
    let server = server();
    assert_stored(&send_json(&server, &format!("[{{{},\"tags\":{{\"n\":7,\"b\":true,\"z\":null}}}}]", good(1))));
    let expected = serde_json::json!([
        {"key": "n", "value": {"stringValue": "7"}},
        {"key": "b", "value": {"stringValue": "true"}},
        {"key": "z", "value": {"stringValue": "null"}},
    ]);
    assert_eq!(stored(&server)[0]["attributes"], expected);
    assert_eq!(metric(&server, "spandrel_ingest_spans_warned_total{code=\"stringified_tag\"}"), 3);
}

#[test]
fn bi_157_both_halves_of_a_shared_span_are_kept() {
    let server = server();
    assert_stored(&send_json(&server, &format!("[{{{},\"kind\":\"CLIENT\"}}]", good(1))));
    let half = ZipkinSpan { kind: 2, shared: true, debug: true, ..good_protobuf(1) };
    assert_stored(&send_protobuf(&server, vec![half]));
    let kinds: Vec<_> = stored(&server).iter().map(|span| (span["kind"].clone(), span["flags"].clone())).collect();
    assert_eq!(kinds, [(2.into(), 1.into()), (3.into(), serde_json::Value::Null)]);
}

#[test]
fn bi_158_too_large_is_final_and_overload_is_not() {
    let server = TestServer::with(|config| {
        config.zipkin = Some(([127, 0, 0, 1], 0).into());
        config.body_bytes_max = 4_096;
        config.ingest.body_bytes_in_flight_max = 64 * 1024;
    });
    let large = send_json(&server, &format!("[{}{{}}]", "{},".repeat(2_000)));
    assert_eq!((large.status, large.header("retry-after")), (413, ""));
    // A client whose body is on its way holds 4 KiB at least: so many of them hold all there is.
    let head = "POST /api/v2/spans HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n";
    let address = server.addresses.zipkin.expect("it is switched on");
    let _holders: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut holder = TcpStream::connect(address).expect("the port answers");
            holder.write_all(head.as_bytes()).expect("the head is sent");
            holder
        })
        .collect();
    let refused =
        (1..200).map(|id| send_json(&server, &format!("[{{{}}}]", good(id)))).find(|answer| answer.status != 202);
    let refused = refused.expect("the holders are noticed in the end");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(["1", "2", "3"].contains(&refused.header("retry-after")), "{:?}", refused.headers);
    assert!(refused.text().contains("--memory"), "{}", refused.text());
}

#[test]
fn gzip_bodies_and_retries_are_recognised_in_both_encodings() {
    let server = server();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory does not fail")
    };
    let json = format!("[{{{},\"localEndpoint\":{{\"serviceName\":\"Shop\"}}}}]", good(1));
    let protobuf = ListOfSpans { spans: vec![good_protobuf(2)] }.encode_to_vec();
    for (media_type, body) in [("application/json", json.as_bytes()), ("application/x-protobuf", &protobuf)] {
        for coding in ["identity", "gzip", "gzip"] {
            let body = if coding == "gzip" { gzip(body) } else { body.to_vec() };
            assert_stored(&post(&url(&server), &[("content-type", media_type), ("content-encoding", coding)], &body));
        }
    }
    assert_eq!(stored(&server).len(), 2);
    assert_eq!(metric(&server, "spandrel_ingest_requests_repeated_total"), 4);
    assert!(server.get("/spandrel/v1/services").text().contains("\"Shop\""), "the case of a service name is kept");
    // The same bytes mean something else behind another door.
    assert_eq!(server.post("application/json", json.as_bytes()).status, 400);
}

#[test]
fn refusals_have_their_exact_status() {
    let server = server();
    let base = format!("http://{}", server.addresses.zipkin.expect("it is switched on"));
    let json = ("content-type", "application/json");
    for (headers, path, body, status, said) in [
        (vec![("content-type", "application/x-thrift")], "/api/v2/spans", &b"[]"[..], 415, "send application/json"),
        (vec![], "/api/v2/spans", b"[]", 415, "send application/json"),
        (vec![json, ("content-encoding", "br")], "/api/v2/spans", b"[]", 415, "\"br\" is not supported"),
        (vec![json, ("content-encoding", "gzip")], "/api/v2/spans", b"[]", 400, "does not inflate"),
        (vec![json], "/api/v1/spans", b"[]", 404, "v1 is not supported"),
        (vec![json], "/", b"[]", 404, "/api/v2/spans"),
    ] {
        let answer = post(&format!("{base}{path}"), &headers, body);
        assert_eq!(answer.status, status, "{path} {headers:?}: {}", answer.text());
        assert!(answer.text().contains(said), "{path} {headers:?}: {}", answer.text());
    }
    let wrong_method = get(&url(&server), &[]);
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, "POST"));
}
