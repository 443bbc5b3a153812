//! The native API: what it answers, and how it refuses.

use spandrel::cli::shop::{Grouping, Requests, Shop};

use crate::support::{TestServer, now};

fn with_spans() -> TestServer {
    let server = TestServer::new();
    let (mut shop, mut requests) = (Shop::new(5), Requests::new(Grouping::Collector));
    for _ in 0..50 {
        for request in requests.add(shop.next_trace(now())) {
            server.deliver(&request);
        }
    }
    for request in requests.flush() {
        server.deliver(&request);
    }
    server
}

#[test]
fn a_question_that_cannot_be_answered_names_what_is_wrong_and_what_would_be_right() {
    let server = with_spans();
    for (path, status, said) in [
        ("percentile?service=chekout", 404, "known are checkout"),
        ("percentile", 400, "parameter \"service\" is missing"),
        ("percentile?service=checkout&q=1.5", 400, "1.5"),
        ("percentile?service=checkout&q=-0.1", 400, "-0.1"),
        ("percentile?service=checkout&q=NaN", 400, "NaN"),
        ("percentile?service=checkout&q=p99", 400, "q=p99 is not a number"),
        ("percentile?service=checkout&start=-15m&end=-20m", 400, "not after start"),
        ("percentile?service=checkout&start=yesterday", 400, "start=yesterday is not a time; use RFC 3339"),
        ("percentile?service=checkout&wehre={}", 400, "unknown parameter \"wehre\""),
        ("percentile?service=checkout&where=%7Bduration%3E%7D", 400, "where={duration>}: line 1, column 11"),
        ("percentile?service=checkout&where=%7B%7D%7Ccount()", 400, "not supported"),
        ("percentile?service=checkout&by=zone", 400, "by=zone: line 1, column 1"),
        ("percentile?service=checkout&by=peel&where=%7B%7D", 400, "by=peel is not supported together with where="),
        ("percentile?service=checkout&by=peel&spans=client", 400, "by=peel speaks of spans=entry alone"),
        ("percentile?service=checkout&spans=servers", 400, "spans=servers is not known; use entry"),
        ("percentile?service=checkout&step=7", 400, "step 7s cannot be used"),
        ("percentile?service=checkout&step=10s&start=-30d", 400, "at most 11000 steps"),
        ("percentile?service=checkout&step=soon", 400, "step=soon is not a length of time"),
        ("percentile?service=checkout&vs=1d", 400, "vs=1d is not a distance into the past, such as -1d"),
        ("heatmap?service=checkout&step=10s&start=-30d", 400, "at most 2000 steps"),
        ("heatmap?service=checkout&exemplars=4", 400, "from 0 to 3"),
        ("graph?start=-15m&end=-20m", 400, "not after start"),
        ("percentile?service=checkout&exemplars=1000", 400, "from 0 to 100"),
        ("traces/xyz", 400, "1 to 32 hex digits"),
        ("traces/abc", 404, "no span of trace 00000000000000000000000000000abc is stored"),
    ] {
        let answer = server.get(&format!("/spandrel/v1/{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let error = answer.json()["error"].as_str().expect("errors are JSON").to_owned();
        assert!(error.contains(said), "{path}: {error}");
    }
}

#[test]
fn times_are_taken_in_every_form_and_the_window_is_whole_slots() {
    let server = with_spans();
    let (end, start) = (now().0 / 1_000_000_000 + 60, now().0 / 1_000_000_000 - 600);
    let rfc3339 = |secs: u64| jiff::Timestamp::from_second(secs.cast_signed()).expect("a time").to_string();
    let windows = [
        format!("start={start}&end={end}"),
        format!("start={start}000&end={end}000"),
        format!("start={start}000000000&end={end}000000000"),
        format!("start={}&end={}", rfc3339(start), rfc3339(end)),
    ];
    let answers =
        windows.map(|window| server.json(&format!("/spandrel/v1/percentile?service=checkout&q=0.5&{window}")));
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
        assert!(0 < answer["count"].as_u64().expect("a number"));
        for edge in ["start_unix_nano", "end_unix_nano"] {
            assert!(answer[edge].as_str().expect("a string").ends_with("0000000000"), "whole 10 s: {}", answer[edge]);
        }
    }
}

#[test]
fn a_percentile_answer_has_the_shape_of_its_manual() {
    let server = with_spans();
    let answer = server.json("/spandrel/v1/percentile?service=checkout&q=0.5,0.99&exemplars=2");
    let row = &answer["quantiles"][1];
    assert_eq!(row["q"], 0.99);
    let (value, low, high) = (&row["value_ns"], &row["bucket"]["low_ns"], &row["bucket"]["high_ns"]);
    assert!(value == high && low.as_u64() < high.as_u64(), "{row}");
    let exemplar = &row["exemplars"][0];
    let id = exemplar["trace_id"].as_str().expect("a string");
    assert_eq!((id.len(), exemplar["span_id"].as_str().expect("a string").len()), (32, 16));
    assert!(exemplar["attributes"]["cloud.availability_zone"].is_string(), "{exemplar}");
    let opened = server.get(&format!("/spandrel/v1/traces/{id}"));
    assert!(opened.status == 200 && opened.text().contains(exemplar["span_id"].as_str().expect("a string")));
    assert_eq!(answer["coverage"], serde_json::json!({ "complete": true, "reasons": [] }));
    assert_eq!(
        server.json("/spandrel/v1/percentile?service=checkout&q=0.5&exemplars=0")["quantiles"][0]["exemplars"],
        serde_json::json!([])
    );
}

#[test]
fn a_window_without_spans_has_a_count_of_zero_and_no_numbers() {
    let answer = with_spans().json("/spandrel/v1/percentile?service=checkout&start=1000&end=2000");
    assert_eq!((&answer["count"], &answer["quantiles"]), (&0.into(), &serde_json::json!([])));
}

#[test]
fn namespaces_tell_services_of_one_name_apart() {
    let server = with_spans();
    let count = |query: &str| server.json(&format!("/spandrel/v1/percentile?service=checkout{query}"))["count"].clone();
    assert_eq!(count(""), count("&namespace=sales"));
    assert_eq!(server.get("/spandrel/v1/percentile?service=checkout&namespace=other").status, 404);
}

#[test]
fn health_status_and_the_page_answer() {
    let server = TestServer::new();
    assert_eq!(server.get("/healthz").text(), "ok\n");
    let ready = server.json("/ready");
    assert_eq!((&ready["ready"], &ready["durability"]), (&true.into(), &"fsync".into()));
    assert_eq!(server.json("/spandrel/v1/status")["partitions"].as_array().map(Vec::len), Some(1));
    let page = server.get("/");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"));
    assert!(page.text().contains("/ui/app.js") && server.get("/ui/app.js").status == 200);
    let unknown = server.get("/api/v1/no-such");
    assert!(unknown.status == 404 && !unknown.text().contains('<'), "never HTML for an API path");
}

#[test]
fn relaxed_durability_is_announced() {
    let server = TestServer::with(|config| config.ingest.durability = spandrel::journal::Durability::Relaxed);
    let ready = server.json("/ready");
    assert_eq!(ready["durability"], "relaxed");
    assert!(ready["reasons"][0].as_str().expect("a reason").contains("power cut"), "{ready}");
}

#[test]
fn internal_spans_make_the_latency_of_those_services_alone_that_a_setting_names() {
    let server = TestServer::with(|config| {
        let mut conventions = spandrel::model::Conventions::default();
        let _new = conventions.entry_span_services.insert("cron".to_owned());
        config.store.conventions = std::sync::Arc::new(conventions);
        // In the head, in a block, and in roll-ups alike.
        config.ingest.checkpoint_spans = 4;
        config.ingest.partition_bytes_max = 10_000;
    });
    for (service, first) in [("cron", 1_u64), ("batch", 1_000)] {
        for no in 0..6 {
            let mut request = crate::support::request(4, first + no * 4);
            let resource_spans = &mut request.resource_spans[0];
            let value = opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(service.to_owned());
            let value = Some(opentelemetry_proto::tonic::common::v1::AnyValue { value: Some(value) });
            let key = "service.name".to_owned();
            let name = opentelemetry_proto::tonic::common::v1::KeyValue { key, value, ..Default::default() };
            let attributes = vec![name];
            resource_spans.resource =
                Some(opentelemetry_proto::tonic::resource::v1::Resource { attributes, ..Default::default() });
            // A root, two children of which one came from elsewhere, and one of another kind.
            let spans = &mut resource_spans.scope_spans[0].spans;
            for (span, (parent, flags, kind)) in
                spans.iter_mut().zip([(vec![], 0, 1), (vec![1; 8], 0x300, 1), (vec![1; 8], 0x100, 1), (vec![], 0, 3)])
            {
                (span.parent_span_id, span.flags, span.kind) = (parent, flags, kind);
            }
            server.deliver(&request);
        }
    }
    let count = |service| server.json(&format!("/spandrel/v1/percentile?service={service}&q=1"))["count"].clone();
    assert_eq!((count("cron"), count("batch")), (12.into(), 0.into()));
}
