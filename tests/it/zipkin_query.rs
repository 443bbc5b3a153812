//! Zipkin's query API; ids are those of the contract with Grafana.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::{Value, json};

use crate::support::{TestServer, post};
use crate::two_services::{A, B, C, QUOTED, TRACE, base_nanos, neighbours, of_service, request, span, url};

fn shop_and_bank() -> (TestServer, u64) {
    let (server, base) = (TestServer::new(), base_nanos());
    server.deliver(&request(base));
    (server, base)
}

/// What Zipkin's page is to get for `request(base)`.
fn expected(base: u64) -> Value {
    let micros = |after_ms: u64| base / 1_000 + after_ms * 1_000;
    let shared_tags =
        [("host.name", "web-1"), ("process.pid", "4242"), ("otel.scope.name", "http"), ("otel.scope.version", "1.2")];
    let tags = |own: &[(&str, &str)]| -> Value {
        let all = shared_tags.iter().chain(own);
        Value::Object(all.map(|(key, value)| ((*key).to_owned(), json!(value))).collect())
    };
    let root_tags = tags(&[
        ("text", "a \"b\" \u{e9}"),
        ("bool", "true"),
        ("int", "500"),
        ("int.large", "-9007199254740992"),
        ("double", "0.5"),
        ("double.whole", "2"),
        ("double.nan", "NaN"),
        ("bytes", "AP8="),
        ("array", r#"["x \"y\"",1]"#),
        ("list", r#"{"k":false}"#),
        ("nothing", ""),
        ("otel.status_code", "OK"),
    ]);
    let call_tags =
        tags(&[("peer.service", "bank"), ("network.peer.address", "10.0.0.9"), ("network.peer.port", "443")]);
    let annotations = json!([
        { "timestamp": micros(30), "value": r#""exception": {"attempts":2,"exception.type":"Declined"}"# },
        { "timestamp": micros(40), "value": "retry" },
        { "timestamp": micros(50), "value": r#""": {"n":1}"# },
    ]);
    json!([
        {
            "traceId": TRACE, "id": "0000000000000001", "name": "GET /", "kind": "SERVER", "timestamp": micros(0),
            "duration": 250_000, "localEndpoint": { "serviceName": "shop" }, "tags": root_tags, "annotations": [],
        },
        {
            "traceId": TRACE, "id": "0000000000000002", "parentId": "0000000000000001", "name": "charge",
            "kind": "CLIENT", "timestamp": micros(10), "duration": 100_000, "localEndpoint": { "serviceName": "shop" },
            "remoteEndpoint": { "serviceName": "bank", "ipv4": "10.0.0.9", "port": 443 }, "tags": call_tags,
            "annotations": [],
        },
        {
            "traceId": TRACE, "id": "0000000000000003", "parentId": "0000000000000002", "name": "POST /charge",
            "kind": "SERVER", "timestamp": micros(20), "duration": 90_000, "localEndpoint": { "serviceName": "bank" },
            "tags": { "otel.status_code": "ERROR", "error": "card declined" }, "annotations": annotations,
        },
        {
            "traceId": TRACE, "id": "0000000000000004", "parentId": "0000000000000003", "name": "check",
            "timestamp": micros(60), "duration": 1, "localEndpoint": { "serviceName": "bank" }, "tags": {},
            "annotations": [],
        },
    ])
}

#[test]
fn zipkin_01_services_are_a_list_of_names() {
    let server = TestServer::new();
    assert_eq!(server.json("/zipkin/api/v2/services"), json!([]));
    server.deliver(&request(base_nanos()));
    assert_eq!(server.json("/zipkin/api/v2/services"), json!(["bank", "shop"]));
}

#[test]
fn zipkin_02_span_names_of_a_service_are_a_list() {
    let (server, _) = shop_and_bank();
    assert_eq!(server.json("/zipkin/api/v2/spans?serviceName=shop"), json!(["GET /", "charge"]));
    assert_eq!(server.json("/zipkin/api/v2/spans?serviceName=nobody"), json!([]));
    let answer = server.get("/zipkin/api/v2/spans?serviceName=");
    assert_eq!((answer.status, answer.text().as_str()), (400, "the parameter serviceName is missing\n"));
}

#[test]
fn zipkin_02_a_trace_has_times_of_at_least_1_and_texts_for_tags() {
    let (server, base) = shop_and_bank();
    for id in [TRACE, "102030405060708"] {
        assert_eq!(server.json(&format!("/zipkin/api/v2/trace/{id}")), expected(base), "{id}");
    }
}

#[test]
fn zipkin_02_times_that_were_not_sent_are_at_least_1() {
    let (server, base) = (TestServer::new(), base_nanos());
    let mut timeless = span(base, 1, 0, 4, "a", 0, 0);
    (timeless.start_time_unix_nano, timeless.end_time_unix_nano) = (0, 0);
    server.deliver(&ExportTraceServiceRequest { resource_spans: vec![of_service("s", vec![timeless])] });
    let span = server.json(&format!("/zipkin/api/v2/trace/{TRACE}"))[0].clone();
    assert_eq!((&span["timestamp"], &span["duration"], &span["kind"]), (&json!(1), &json!(1), &json!("PRODUCER")));
}

#[test]
fn zipkin_02_an_unknown_id_is_404_and_what_is_no_id_400_in_plain_text() {
    let server = TestServer::new();
    for (id, status) in [("abc", 404), ("xyz", 400)] {
        let answer = server.get(&format!("/zipkin/api/v2/trace/{id}"));
        assert_eq!((answer.status, answer.header("content-type")), (status, "text/plain; charset=utf-8"), "{id}");
    }
}

#[test]
fn zipkin_02_what_came_in_as_zipkin_leaves_as_it_came() {
    let server = TestServer::with(|config| config.zipkin = Some(([127, 0, 0, 1], 0).into()));
    let micros = base_nanos() / 1_000;
    let local = |service: &str, at: &str| json!({ "serviceName": service, "ipv4": at, "port": 8080 });
    let sent = json!([
        {
            "traceId": TRACE, "id": "000000000000000a", "name": "get /stock", "kind": "CLIENT", "timestamp": micros,
            "duration": 1_500, "localEndpoint": local("shop", "10.0.0.7"),
            "remoteEndpoint": { "serviceName": "stock", "ipv6": "2001:db8::c001", "port": 80 },
            "tags": { "http.method": "GET", "error": "" },
            "annotations": [{ "timestamp": micros + 1, "value": "ws" }],
        },
        {
            "traceId": TRACE, "id": "000000000000000a", "name": "get /stock", "kind": "SERVER", "timestamp": micros + 10,
            "duration": 1_000, "localEndpoint": local("stock", "10.0.0.8"), "tags": {}, "annotations": [], "shared": true,
        },
    ]);
    let url = format!("http://{}/api/v2/spans", server.addresses.zipkin.expect("it is switched on"));
    let answer = post(&url, &[("content-type", "application/json")], sent.to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let mut came_back = server.json(&format!("/zipkin/api/v2/trace/{TRACE}"));
    // What OTLP has names for is there under these names as well.
    for span in came_back.as_array_mut().expect("a list") {
        let tags = span["tags"].as_object_mut().expect("tags");
        tags.retain(|key, _| !key.starts_with("network.") && key != "peer.service" && key != "otel.status_code");
    }
    assert_eq!(came_back, sent);
}

#[test]
fn zipkin_02_dependencies_and_remote_services_are_what_a_service_called() {
    let (server, base) = shop_and_bank();
    let now_ms = base / 1_000_000 + 60_000;
    let calls = json!([{ "parent": "shop", "child": "bank", "callCount": 1, "errorCount": 1 }]);
    assert_eq!(server.json(&format!("/zipkin/api/v2/dependencies?endTs={now_ms}&lookback=3600000")), calls);
    let long_ago = format!("/zipkin/api/v2/dependencies?endTs={}", now_ms - 86_400_000);
    assert_eq!(server.json(&long_ago), json!([]));
    assert_eq!(server.json("/zipkin/api/v2/remoteServices?serviceName=shop"), json!(["bank"]));
    assert_eq!(server.json("/zipkin/api/v2/remoteServices?serviceName=bank"), json!([]));
    assert_eq!(server.get("/zipkin/api/v2/dependencies?lookback=-1").status, 400);
}

#[test]
fn zipkin_02_there_is_nothing_to_complete_and_unknown_paths_are_404_in_plain_text() {
    let server = TestServer::new();
    assert_eq!(server.json("/zipkin/api/v2/autocompleteKeys"), json!([]));
    assert_eq!(server.json("/zipkin/api/v2/autocompleteValues?key=a"), json!([]));
    for path in ["/zipkin", "/zipkin/", "/zipkin/api/v1/services", "/zipkin/api/v2", "/zipkin/config.json"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (404, "text/plain; charset=utf-8"), "{path}");
        assert!(!answer.text().contains('<'), "never HTML: {}", answer.text());
    }
}

/// The ids of the traces that are found, in order.
#[track_caller]
fn found(server: &TestServer, path: &str, parameters: &[(&str, &str)]) -> Vec<String> {
    let answer = server.json(&url(&format!("/zipkin/api/v2/{path}"), parameters));
    let traces = answer.as_array().unwrap_or_else(|| panic!("{parameters:?}: {answer}"));
    traces.iter().map(|spans| spans[0]["traceId"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn zipkin_02_search_takes_every_condition_of_one_span_newest_first() {
    let (server, base) = shop_and_bank();
    server.deliver(&neighbours(base));
    let ms = |secs: u64| (base / 1_000_000 + secs * 1_000).to_string();
    let tagged = format!("http.status_code=500 and q={QUOTED}");
    let shop = ("serviceName", "shop");
    for (parameters, expected) in [
        (&[][..], &[C, B, A, TRACE][..]),
        (&[shop], &[B, A, TRACE]),
        (&[shop, ("spanName", "all"), ("minDuration", ""), ("annotationQuery", "")], &[B, A, TRACE]),
        (&[shop, ("limit", "1")], &[B]),
        (&[shop, ("spanName", "GET /")], &[A, TRACE]),
        (&[shop, ("annotationQuery", "error")], &[B]),
        (&[("annotationQuery", "retry")], &[TRACE]),
        (&[("annotationQuery", "http.status_code")], &[B, A]),
        (&[("annotationQuery", &tagged)], &[A]),
        (&[("remoteServiceName", "bank")], &[TRACE]),
        (&[shop, ("minDuration", "20000")], &[B, TRACE]),
        (&[shop, ("minDuration", "20000"), ("maxDuration", "20000")], &[B]),
        (&[("endTs", &ms(1))], &[A, TRACE]),
        (&[("endTs", &ms(2)), ("lookback", "1000")], &[B, A]),
    ] {
        assert_eq!(found(&server, "traces", parameters), expected, "{parameters:?}");
    }
    let whole = url("/zipkin/api/v2/traces", &[("serviceName", "bank"), ("spanName", "check")]);
    assert_eq!(server.json(&whole), json!([expected(base)]));
    let ids = format!("{C},{TRACE},c,{}", "9".repeat(32));
    assert_eq!(found(&server, "traceMany", &[("traceIds", &ids)]), [C, TRACE]);
}

#[test]
fn zipkin_02_parameters_that_cannot_be_used_are_400_in_plain_text() {
    let server = TestServer::new();
    for path in
        ["traces?limit=0", "traces?minDuration=1ms", "traces?endTs=now", "traces?annotationQuery==a", "traceMany"]
    {
        let answer = server.get(&format!("/zipkin/api/v2/{path}"));
        assert_eq!((answer.status, answer.header("content-type")), (400, "text/plain; charset=utf-8"), "{path}");
    }
}
