//! A trace through two services with everything that a span can hold, for protocols that show it in words of their own.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value::{
    ArrayValue, BoolValue, BytesValue, DoubleValue, IntValue, KvlistValue, StringValue,
};
use opentelemetry_proto::tonic::common::v1::{self, AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use crate::support::now;

/// The trace's id as every answer has it.
pub(crate) const TRACE: &str = "00000000000000000102030405060708";
/// The trace that it links to.
pub(crate) const LINKED: &str = "09090909090909090909090909090909";

/// A minute ago: longer than any wait for another half of a call, and 123,456,789 ns behind a whole second.
pub(crate) fn base_nanos() -> u64 {
    now().0 / 1_000_000_000 * 1_000_000_000 - 60_000_000_000 + 123_456_789
}

pub(crate) fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, StringValue(value.to_owned()))
}

/// Spans of one service, without a scope.
pub(crate) fn of_service(service: &str, spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource: Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

/// A span of `TRACE` that begins `after_ms` and takes `ms`.
pub(crate) fn span(base: u64, id: u64, parent: u64, kind: i32, name: &str, after_ms: u64, ms: u64) -> Span {
    let start = base + after_ms * 1_000_000;
    Span {
        trace_id: u128::from_str_radix(TRACE, 16).expect("it is hex").to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        name: name.to_owned(),
        kind,
        start_time_unix_nano: start,
        end_time_unix_nano: start + ms * 1_000_000,
        ..Span::default()
    }
}

/// An attribute of every type.
fn every_type() -> Vec<KeyValue> {
    let any = |value| AnyValue { value: Some(value) };
    let array = v1::ArrayValue { values: vec![any(StringValue("x \"y\"".to_owned())), any(IntValue(1))] };
    let list = v1::KeyValueList { values: vec![attribute("k", BoolValue(false))] };
    vec![
        text("text", "a \"b\" \u{e9}"),
        attribute("bool", BoolValue(true)),
        attribute("int", IntValue(500)),
        attribute("int.large", IntValue(-(1 << 53))),
        attribute("double", DoubleValue(0.5)),
        attribute("double.whole", DoubleValue(2.0)),
        attribute("double.nan", DoubleValue(f64::NAN)),
        attribute("bytes", BytesValue(vec![0, 255])),
        attribute("array", ArrayValue(array)),
        attribute("list", KvlistValue(list)),
        KeyValue { key: "nothing".to_owned(), value: Some(AnyValue::default()), ..KeyValue::default() },
    ]
}

/// The trace: GET / of the shop calls the bank, where POST /charge fails after a step whose clock ran backwards.
pub(crate) fn request(base: u64) -> ExportTraceServiceRequest {
    let mut root = span(base, 1, 0, 2, "GET /", 0, 250);
    root.end_time_unix_nano += 999;
    root.attributes = every_type();
    "vendor=1".clone_into(&mut root.trace_state);
    root.status = Some(Status { code: 1, ..Status::default() });
    let mut call = span(base, 2, 1, 3, "charge", 10, 100);
    call.attributes = vec![
        text("peer.service", "bank"),
        text("network.peer.address", "10.0.0.9"),
        attribute("network.peer.port", IntValue(443)),
    ];
    call.links = vec![Link { trace_id: vec![9; 16], span_id: vec![8; 8], ..Link::default() }];
    (call.dropped_attributes_count, call.dropped_events_count, call.dropped_links_count) = (3, 2, 1);
    let mut charge = span(base, 3, 2, 2, "POST /charge", 20, 90);
    charge.status = Some(Status { code: 2, message: "card declined".to_owned() });
    let event = |after_ms: u64, name: &str, attributes| Event {
        time_unix_nano: base + after_ms * 1_000_000,
        name: name.to_owned(),
        attributes,
        ..Event::default()
    };
    let of_exception = vec![text("exception.type", "Declined"), attribute("attempts", IntValue(2))];
    charge.events = vec![
        event(30, "exception", of_exception),
        event(40, "retry", Vec::new()),
        event(50, "", vec![attribute("n", IntValue(1))]),
    ];
    let mut check = span(base, 4, 3, 0, "check", 60, 0);
    check.end_time_unix_nano -= 5_000_000;
    let mut shop = of_service("shop", vec![root, call]);
    let resource = shop.resource.as_mut().expect("it has one");
    resource.attributes.extend([text("host.name", "web-1"), attribute("process.pid", IntValue(4_242))]);
    let scope = InstrumentationScope { name: "http".to_owned(), version: "1.2".to_owned(), ..Default::default() };
    shop.scope_spans[0].scope = Some(scope);
    ExportTraceServiceRequest { resource_spans: vec![shop, of_service("bank", vec![charge, check])] }
}

/// More traces a second apart, each of one span: a and b of the shop, c of the bank.
pub(crate) fn neighbours(base: u64) -> ExportTraceServiceRequest {
    let neighbour = |trace: u128, name: &str, ms: u64| Span {
        trace_id: trace.to_be_bytes().to_vec(),
        ..span(base + u64::try_from(trace - 9).expect("small") * 1_000_000_000, 1, 0, 2, name, 0, ms)
    };
    let mut a = neighbour(0xa, "GET /", 10);
    a.attributes = vec![attribute("http.status_code", IntValue(500)), text("q", QUOTED)];
    let mut b = neighbour(0xb, "GET /cart", 20);
    b.attributes = vec![text("http.status_code", "500")];
    b.status = Some(Status { code: 2, ..Status::default() });
    let c = neighbour(0xc, "GET /", 30);
    ExportTraceServiceRequest { resource_spans: vec![of_service("shop", vec![a, b]), of_service("bank", vec![c])] }
}

/// A text that tries to leave its quotes.
pub(crate) const QUOTED: &str = "a\" || true\\ {}";
/// The ids of the neighbours.
pub(crate) const A: &str = "0000000000000000000000000000000a";
pub(crate) const B: &str = "0000000000000000000000000000000b";
pub(crate) const C: &str = "0000000000000000000000000000000c";

/// A path with parameters.
pub(crate) fn url(path: &str, parameters: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;
    let mut url = format!("{path}?");
    for (name, value) in parameters {
        let _written = write!(url, "{name}=");
        for byte in value.bytes() {
            let _written = if byte.is_ascii_alphanumeric() {
                write!(url, "{}", char::from(byte))
            } else {
                write!(url, "%{byte:02x}")
            };
        }
        url.push('&');
    }
    url
}
