//! Filters, fields, queries and metrics queries of TraceQL.

use std::sync::OnceLock;

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData, span::Event};
use prost::Message as _;
use spandrel::model::SpanBatch;
use spandrel::otlp::DecodeOptions;
use spandrel::query::traceql::{Field, Filter, MetricsQuery, Problem, SpanQuery, TraceSpans};

/// Bytes of what a client is told.
const ERROR_BYTES_MAX: usize = 1024;

/// Any text, as a filter, a query, a field and a metrics query. What is written in normal form is read as the same, and says the same of every span.
pub fn traceql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Filter>() {
        Ok(filter) => same_again(&filter),
        Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}"),
    }
    match text.parse::<SpanQuery>() {
        Ok(query) => finds_again(&query),
        Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}"),
    }
    match text.parse::<Field>() {
        Ok(field) => {
            let again: Field = field.to_string().parse().unwrap_or_else(|error| panic!("{field}: {error}"));
            assert_eq!(again, field);
            (0..spans().spans.len()).for_each(|row| assert_eq!(again.value(spans(), row), field.value(spans(), row)));
        }
        Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}"),
    }
    match text.parse::<MetricsQuery>() {
        Ok(query) => same_metrics_again(&query),
        Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}"),
    }
}

fn same_metrics_again(query: &MetricsQuery) {
    let written = query.to_string();
    match written.parse::<MetricsQuery>() {
        Ok(again) => {
            assert_eq!(again, *query, "{written}");
            assert_eq!(again.to_string(), written);
        }
        // The normal form has more brackets and longer names than what was read, and these are counted.
        Err(error) if matches!(error.problem, Problem::TooLong { .. } | Problem::TooDeep) => {}
        Err(error) if matches!(&error.problem, Problem::Word { fault, .. } if fault.contains("at most 64")) => {}
        Err(error) => panic!("{written}: {error}"),
    }
}

fn same_again(filter: &Filter) {
    let written = filter.to_string();
    let again = match written.parse::<Filter>() {
        Ok(again) => again,
        // The normal form has more brackets and longer names than what was read, and these are counted.
        Err(error) if matches!(error.problem, Problem::TooLong { .. } | Problem::TooDeep) => return,
        Err(error) => panic!("{written}: {error}"),
    };
    assert_eq!(again, *filter, "{written}");
    assert_eq!(again.to_string(), written);
    for row in 0..spans().spans.len() {
        assert_eq!(again.matches(spans(), row), filter.matches(spans(), row), "{written}, span {row}");
    }
}

fn finds_again(query: &SpanQuery) {
    let written = query.to_string();
    let again = match written.parse::<SpanQuery>() {
        Ok(again) => again,
        Err(error) if matches!(error.problem, Problem::TooLong { .. } | Problem::TooDeep) => return,
        Err(error) => panic!("{written}: {error}"),
    };
    assert_eq!(again, *query, "{written}");
    let (trace, rows) = (TraceSpans::new(spans(), 0..spans().spans.len()), vec![0, 1]);
    let found = query.find(&trace, rows.clone());
    assert_eq!(again.find(&trace, rows), found, "{written}");
    assert!(found.iter().all(|set| !set.rows.is_empty()), "{written}");
}

/// One with something of everything, one with nothing.
fn spans() -> &'static SpanBatch {
    static SPANS: OnceLock<SpanBatch> = OnceLock::new();
    SPANS.get_or_init(|| {
        let values = [
            ("text", Value::StringValue("gr\u{fc}n".to_owned())),
            ("int", Value::IntValue(i64::MIN)),
            ("float", Value::DoubleValue(f64::NAN)),
            ("bool", Value::BoolValue(true)),
            ("list", Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(Value::IntValue(0)) }] })),
        ];
        let attributes: Vec<KeyValue> = values.map(|(key, value)| attribute(key, value)).to_vec();
        let event = Event {
            time_unix_nano: 7,
            name: "exception".to_owned(),
            attributes: attributes.clone(),
            ..Event::default()
        };
        let full = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "GET /".to_owned(),
            kind: 2,
            start_time_unix_nano: 5,
            end_time_unix_nano: 2_000_000_005,
            attributes: attributes.clone(),
            events: vec![event],
            ..Span::default()
        };
        let empty = Span { trace_id: vec![3; 16], span_id: vec![4; 8], ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![full, empty], ..ScopeSpans::default() }];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        let body = TracesData { resource_spans }.encode_to_vec();
        spandrel::otlp::decode(body, &DecodeOptions::default()).expect("good spans").batch
    })
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
