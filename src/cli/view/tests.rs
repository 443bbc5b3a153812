use super::*;

#[test]
fn a_percentile_answer_is_read_as_the_api_draws_it() {
    let view: PercentileView = serde_json::from_str(
        r#"{ "service": "checkout", "start_unix_nano": "1795463000000000000", "end_unix_nano": "1795463900000000001",
             "count": 48211,
             "quantiles": [
               { "q": 0.99, "value_ns": 812646400, "bucket": { "low_ns": 812122112, "high_ns": 812646399 },
                 "relative_error_max": 0.001, "rank": 47729,
                 "exemplars": [ { "trace_id": "9f0c", "span_id": "16", "duration_ns": 812401223,
                                  "time_unix_nano": "1795463712000000000", "span_name": "POST /checkout",
                                  "error": false, "in_bucket": true,
                                  "attributes": { "cloud.availability_zone": "eu-1b", "n": 7 } } ] } ],
             "groups": [ { "labels": { "zone": "a" }, "count": 1, "quantiles": [ { "q": 0.5, "value_ns": null } ] } ],
             "coverage": { "complete": false, "reasons": [ "2 spans late", { "code": "pruned" } ] }, "new": 1 }"#,
    )
    .unwrap();
    assert_eq!((view.count, view.end_unix_nano), (48_211, UnixNanos(1_795_463_900_000_000_001)));
    let p99 = &view.quantiles[0];
    assert_eq!((p99.value_ns, p99.rank, p99.bucket.unwrap().low_ns), (Some(812_646_400), Some(47_729), 812_122_112));
    let attributes = &p99.exemplars[0].attributes;
    assert_eq!((attributes["cloud.availability_zone"].as_str(), attributes["n"].as_str()), ("eu-1b", "7"));
    assert_eq!((view.groups[0].labels["zone"].as_deref().unwrap(), view.groups[0].quantiles[0].value_ns), ("a", None));
    assert_eq!(view.coverage.reasons, ["2 spans late", r#"{"code":"pruned"}"#]);
}

#[test]
fn a_service_without_namespace_or_time_is_read() {
    let view: ServicesView = serde_json::from_str(r#"{"services":[{"name":"cart","span_count":3}]}"#).unwrap();
    assert_eq!(view.services[0], ServiceView { name: "cart".into(), span_count: 3, ..ServiceView::default() });
}

#[test]
fn a_trace_is_read_from_otlp_json() {
    let trace = TraceView::from_otlp_json(
        r#"{"resourceSpans":[
            {"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},
             "scopeSpans":[{"scope":{"name":"s"},"spans":[
               {"traceId":"0AF7651916CD43DD8448EB211C80319C","spanId":"B7AD6B7169203331","parentSpanId":"",
                "name":"GET","kind":2,"startTimeUnixNano":"1795463900000000001","endTimeUnixNano":"1795463900000000009",
                "attributes":[{"key":"n","value":{"intValue":"7"}},{"key":"b","value":{"boolValue":true}},
                              {"key":"l","value":{"arrayValue":{"values":[]}}}, {"key":"e","value":{}}],
                "status":{"code":2,"message":"no"}}]}]},
            {"scopeSpans":[{"spans":[
               {"spanId":"b7ad6b7169203332","parentSpanId":"0000000000000000","kind":"SPAN_KIND_CLIENT",
                "startTimeUnixNano":9,"endTimeUnixNano":"3","status":{}}]}]}]}"#,
    )
    .unwrap();
    assert_eq!(trace.trace_id, "0af7651916cd43dd8448eb211c80319c");
    let [first, second] = trace.spans.as_slice() else { panic!("{trace:?}") };
    assert_eq!((trace.service(first), trace.service(second)), ("cart", "unknown_service"));
    assert_eq!((first.span_id.as_str(), first.kind, first.error), ("b7ad6b7169203331", 2, true));
    assert_eq!(
        (first.start, first.duration()),
        (UnixNanos(1_795_463_900_000_000_001), Some(crate::model::DurationNanos(8)))
    );
    let attributes: Vec<_> = first.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(attributes, ["n=7", "b=true", r#"l={"values":[]}"#, "e="]);
    assert_eq!((second.parent_span_id.as_str(), second.kind, second.duration(), second.error), ("", 3, None, false));
}

#[test]
fn an_error_object_is_no_trace() {
    let error = TraceView::from_otlp_json(r#"{"error":"not found"}"#).unwrap_err();
    assert!(error.to_string().contains("resourceSpans"), "{error}");
}

#[test]
fn what_the_server_makes_of_a_trace_stands_at_its_spans() {
    let trace = TraceView::from_otlp_json(
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
            {"spanId":"0a","kind":3,"startTimeUnixNano":"1","endTimeUnixNano":"9"},
            {"spanId":"0a","kind":2,"startTimeUnixNano":"1","endTimeUnixNano":"9"},
            {"spanId":"0a","kind":2,"startTimeUnixNano":"2","endTimeUnixNano":"9"},
            {"spanId":"0b","startTimeUnixNano":"1","endTimeUnixNano":"9"}]}]}],
            "spandrel":{"criticalPath":[{"rootSpanId":"0a","spanId":"0a","kind":2,"selfTimeNano":7},
                                        {"rootSpanId":"0b","spanId":"0b","kind":0,"selfTimeNano":0}],
                        "ranks":[{"spanId":"0A","kind":3,"percentile":0.973,"count":12345,"series":"cart GET"}]}}"#,
    )
    .unwrap();
    let rank = RankView { percentile: 0.973, count: 12_345, series: "cart GET".into() };
    let nanos = crate::model::DurationNanos;
    let found: Vec<_> = trace.spans.iter().map(|span| (span.rank.clone(), span.on_path)).collect();
    assert_eq!(found, [(Some(rank), None), (None, Some(nanos(7))), (None, None), (None, Some(nanos(0)))]);
    assert_eq!(trace.path_roots, 2);
}
