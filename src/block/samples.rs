//! Spans for tests: realistic ones, the same on every machine, and arbitrary ones.

use proptest::prelude::*;

use crate::model::{
    Attribute, Event, Link, Resource, Rows, Scope, Span, SpanBatch, SpanId, Text, TraceId, UnixNanos, Value,
};

/// A small generator of numbers (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Log-normal-like: most are small, a few a thousand times larger.
    fn skewed(&mut self, typical: u64) -> u64 {
        let octaves = self.below(4) + self.below(4) + self.below(4);
        typical * (1 << octaves) / 32 + self.below(typical)
    }
}

fn text(batch: &mut SpanBatch, text: &str) -> Text {
    batch.push_bytes(text.as_bytes()).unwrap()
}

fn attributes(batch: &mut SpanBatch, list: &[(&str, Given<'_>)]) -> Rows {
    let start = u32::try_from(batch.attributes.len()).unwrap();
    for (key, value) in list {
        let key = text(batch, key);
        let value = match value {
            Given::S(value) => Value::String(text(batch, value)),
            Given::I(value) => Value::Int(*value),
        };
        batch.attributes.push(Attribute { key, value });
    }
    Rows { start, len: u32::try_from(list.len()).unwrap() }
}

#[derive(Clone, Copy)]
enum Given<'a> {
    S(&'a str),
    I(i64),
}

/// Batches of `n` spans of a shop with 20 services: random ids, traces of 4 to 12 spans, 9 attributes of which 4 vary from
/// span to span.
pub(super) fn shop(n: usize, seed: u64) -> Vec<SpanBatch> {
    let mut dice = Dice::new(seed);
    let mut batches: Vec<SpanBatch> = (0..20).map(service_batch).collect();
    let mut made = 0;
    let mut now = 1_790_000_000_000_000_000;
    while made < n {
        now += dice.below(2_000_000);
        let trace_id = TraceId(((u128::from(dice.next()) << 64) | u128::from(dice.next())).to_be_bytes());
        let len = (4 + dice.below(9)).min((n - made) as u64);
        let mut ids: Vec<SpanId> = Vec::new();
        let mut start = now;
        for depth in 0..len {
            let service = (dice.below(3) + depth * 2) % 20;
            let parent = if depth == 0 { SpanId::default() } else { ids[usize::try_from(dice.below(depth)).unwrap()] };
            ids.push(SpanId(dice.next().to_be_bytes()));
            start += dice.skewed(200_000);
            let batch = &mut batches[usize::try_from(service).unwrap()];
            let mut span = shop_span(batch, service, &mut dice);
            span.trace_id = trace_id;
            span.span_id = ids[ids.len() - 1];
            span.parent_span_id = parent;
            span.start_time_unix_nano = UnixNanos(start);
            span.end_time_unix_nano = UnixNanos(start + dice.skewed(4_000_000));
            batch.spans.push(span);
            made += 1;
        }
    }
    batches
}

fn service_batch(service: u64) -> SpanBatch {
    let mut batch = SpanBatch::default();
    let name = format!("service-{service}");
    let pod = format!("{name}-7d9f8b6c5-x{service}k2p");
    let rows = attributes(
        &mut batch,
        &[
            ("service.name", Given::S(&name)),
            ("service.version", Given::S("1.42.0")),
            ("deployment.environment.name", Given::S("production")),
            ("k8s.pod.name", Given::S(&pod)),
        ],
    );
    let service = text(&mut batch, &name);
    batch.resources.push(Resource { attributes: rows, service, ..Resource::default() });
    let name = text(&mut batch, "io.opentelemetry.http");
    let version = text(&mut batch, "2.1.0");
    batch.scopes.push(Scope { name, version, ..Scope::default() });
    batch
}

fn shop_span(batch: &mut SpanBatch, service: u64, dice: &mut Dice) -> Span {
    let operation = dice.below(6);
    let failed = dice.below(50) == 0;
    let route = format!("/api/v1/resource-{service}/{operation}/{{id}}");
    let method = ["GET", "POST", "PUT"][usize::try_from(operation % 3).unwrap()];
    let address = format!("10.{}.{}.{}", dice.below(4), dice.below(256), dice.below(256));
    let user = format!("user-{}", dice.below(1_000_000));
    let request = format!("{:016x}", dice.next());
    let host = format!("service-{service}.prod.svc.cluster.local");
    let rows = attributes(
        batch,
        &[
            ("http.request.method", Given::S(method)),
            ("http.route", Given::S(&route)),
            ("http.response.status_code", Given::I(if failed { 500 } else { 200 })),
            ("server.address", Given::S(&host)),
            ("server.port", Given::I(8080)),
            ("client.address", Given::S(&address)),
            ("enduser.id", Given::S(&user)),
            ("http.request.id", Given::S(&request)),
            ("http.response.body.size", Given::I(i64::try_from(dice.skewed(5_000)).unwrap())),
        ],
    );
    let name = text(batch, &format!("{method} {route}"));
    Span {
        name,
        kind: if operation.is_multiple_of(2) { 2 } else { 3 },
        status_code: if failed { 2 } else { 0 },
        flags: 0x101,
        attributes: rows,
        ..Span::default()
    }
}

/// Values of an arbitrary attribute; texts are bytes, valid UTF-8 or not.
#[derive(Clone, Debug)]
enum AnyValue {
    Empty,
    String(Vec<u8>),
    Bool(bool),
    Int(i64),
    Double(u64),
    Bytes(Vec<u8>),
    Nested(Vec<u8>),
}

type AnyAttributes = Vec<(u8, AnyValue)>;

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        "[a-c]{1,3}".prop_map(String::into_bytes),
        "user-[0-9]{1,4}".prop_map(String::into_bytes),
        "[0-9a-f]{8}".prop_map(String::into_bytes),
        "[0-9]{1,21}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..12),
        prop::collection::vec(any::<u8>(), 300..301),
    ]
}

fn any_attributes() -> impl Strategy<Value = AnyAttributes> {
    let value = prop_oneof![
        Just(AnyValue::Empty),
        any_text().prop_map(AnyValue::String),
        any::<bool>().prop_map(AnyValue::Bool),
        any::<i64>().prop_map(AnyValue::Int),
        prop_oneof![Just(f64::NAN.to_bits() | 7), any::<u64>()].prop_map(AnyValue::Double),
        any_text().prop_map(AnyValue::Bytes),
        any_text().prop_map(AnyValue::Nested),
    ];
    prop::collection::vec((0..6_u8, value), 0..5)
}

/// A number of 64 bits: unset, a plausible time, or anything.
fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 1_790_000_000_000_000_000..1_790_000_000_000_009_000_u64, any::<u64>()]
}

/// A batch with a few resources and scopes, and `n_spans` spans of them.
pub(super) fn any_batch(n_spans: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = SpanBatch> {
    let resources = prop::collection::vec((any_attributes(), prop::array::uniform4(any_text()), any::<u32>()), 1..3);
    let scopes = prop::collection::vec((0..3_u32, any_attributes(), prop::array::uniform3(any_text()), 0..2_u32), 1..4);
    let spans = prop::collection::vec(any_span(), n_spans);
    (resources, scopes, spans).prop_map(|(resources, scopes, spans)| {
        let mut batch = SpanBatch::default();
        for (list, [service, namespace, schema_url, entity_refs], dropped) in resources {
            let attributes = push_attributes(&mut batch, &list);
            let row = Resource {
                attributes,
                dropped_attributes_count: dropped,
                schema_url: push(&mut batch, &schema_url),
                entity_refs: push(&mut batch, &entity_refs),
                service: push(&mut batch, String::from_utf8_lossy(&service).as_bytes()),
                namespace: push(&mut batch, String::from_utf8_lossy(&namespace).as_bytes()),
            };
            batch.resources.push(row);
        }
        for (resource, list, [name, version, schema_url], dropped) in scopes {
            let attributes = push_attributes(&mut batch, &list);
            let row = Scope {
                resource,
                name: push(&mut batch, &name),
                version: push(&mut batch, &version),
                attributes,
                dropped_attributes_count: dropped,
                schema_url: push(&mut batch, &schema_url),
            };
            batch.scopes.push(row);
        }
        for span in spans {
            push_span(&mut batch, span);
        }
        batch
    })
}

#[derive(Clone, Debug)]
struct AnySpan {
    ids: (u8, u8, u8, u32),
    times: (u64, u64),
    numbers: (u32, i32, i32),
    dropped: [u32; 3],
    texts: [Vec<u8>; 3],
    attributes: AnyAttributes,
    events: Vec<(u64, Vec<u8>, AnyAttributes, u32)>,
    links: Vec<(u64, Vec<u8>, AnyAttributes, u32)>,
}

fn any_span() -> impl Strategy<Value = AnySpan> {
    let small = || prop_oneof![4 => Just(0), 1 => any::<u32>()];
    let enums = || prop_oneof![0..6_i32, Just(99), Just(-1), any::<i32>()];
    let items = || prop::collection::vec((any_time(), any_text(), any_attributes(), small()), 0..3);
    (
        (1..6_u8, 0..8_u8, 0..9_u8, 0..5_u32),
        (any_time(), any_time()),
        (small(), enums(), enums()),
        prop::array::uniform3(small()),
        prop::array::uniform3(any_text()),
        any_attributes(),
        items(),
        items(),
    )
        .prop_map(|(ids, times, numbers, dropped, texts, attributes, events, links)| AnySpan {
            ids,
            times,
            numbers,
            dropped,
            texts,
            attributes,
            events,
            links,
        })
}

fn push(batch: &mut SpanBatch, bytes: &[u8]) -> Text {
    batch.push_bytes(bytes).unwrap()
}

fn push_attributes(batch: &mut SpanBatch, list: &AnyAttributes) -> Rows {
    let start = u32::try_from(batch.attributes.len()).unwrap();
    for (key, value) in list {
        let key = push(batch, format!("key.{key}").as_bytes());
        let value = match value {
            AnyValue::Empty => Value::Empty,
            AnyValue::String(bytes) => Value::String(push(batch, bytes)),
            AnyValue::Bool(value) => Value::Bool(*value),
            AnyValue::Int(value) => Value::Int(*value),
            AnyValue::Double(bits) => Value::Double(f64::from_bits(*bits)),
            AnyValue::Bytes(bytes) => Value::Bytes(push(batch, bytes)),
            AnyValue::Nested(bytes) => Value::Nested(push(batch, bytes)),
        };
        batch.attributes.push(Attribute { key, value });
    }
    Rows { start, len: u32::try_from(list.len()).unwrap() }
}

fn push_span(batch: &mut SpanBatch, span: AnySpan) {
    let (trace, id, parent, scope) = span.ids;
    let [name, trace_state, status_message] = span.texts.map(|bytes| push(batch, &bytes));
    let attributes = push_attributes(batch, &span.attributes);
    let events = u32::try_from(batch.events.len()).unwrap();
    for (time, name, list, dropped) in &span.events {
        let attributes = push_attributes(batch, list);
        let name = push(batch, name);
        let time_unix_nano = UnixNanos(*time);
        batch.events.push(Event { time_unix_nano, name, attributes, dropped_attributes_count: *dropped });
    }
    let links = u32::try_from(batch.links.len()).unwrap();
    for (number, state, list, flags) in &span.links {
        let attributes = push_attributes(batch, list);
        let trace_state = push(batch, state);
        batch.links.push(Link {
            trace_id: TraceId(u128::from(*number).to_be_bytes()),
            span_id: SpanId(number.to_be_bytes()),
            trace_state,
            attributes,
            dropped_attributes_count: u32::from(flags % 3 == 0),
            flags: *flags,
        });
    }
    let [dropped_attributes_count, dropped_events_count, dropped_links_count] = span.dropped;
    batch.spans.push(Span {
        trace_id: TraceId([trace; 16]),
        span_id: SpanId(u64::from(id).to_be_bytes()),
        parent_span_id: SpanId(u64::from(parent).to_be_bytes()),
        start_time_unix_nano: UnixNanos(span.times.0),
        end_time_unix_nano: UnixNanos(span.times.1),
        flags: span.numbers.0,
        kind: span.numbers.1,
        status_code: span.numbers.2,
        scope,
        name,
        trace_state,
        status_message,
        attributes,
        events: Rows { start: events, len: u32::try_from(span.events.len()).unwrap() },
        links: Rows { start: links, len: u32::try_from(span.links.len()).unwrap() },
        dropped_attributes_count,
        dropped_events_count,
        dropped_links_count,
    });
}

/// Everything a span says, its scope and resource included, as one text: equal only for equal content.
pub(super) fn canonical(batch: &SpanBatch, span: &Span) -> String {
    let t = |text: Text| batch.text(text).escape_ascii().to_string();
    let list = |rows: Rows| {
        let value = |value: Value| match value {
            Value::Double(value) => format!("double {:016x}", value.to_bits()),
            Value::String(text) => format!("string {}", t(text)),
            Value::Bytes(text) => format!("bytes {}", t(text)),
            Value::Nested(text) => format!("nested {}", t(text)),
            scalar @ (Value::Empty | Value::Bool(_) | Value::Int(_)) => format!("{scalar:?}"),
        };
        let all = batch.attributes(rows).iter().map(|a| format!("{}={}", t(a.key), value(a.value)));
        all.collect::<Vec<_>>().join(",")
    };
    let event = |e: &Event| {
        format!("{} {} [{}] {}", e.time_unix_nano.0, t(e.name), list(e.attributes), e.dropped_attributes_count)
    };
    let link = |l: &Link| {
        let ids = format!("{} {} {} {}", l.trace_id, l.span_id, t(l.trace_state), l.flags);
        format!("{ids} [{}] {}", list(l.attributes), l.dropped_attributes_count)
    };
    let (scope, resource) = (batch.scope(span), batch.resource(span));
    let all = [
        format!("{:?} parent {} end {}", span.key(), span.parent_span_id, span.end_time_unix_nano.0),
        format!("flags {} status {} name {}", span.flags, span.status_code, t(span.name)),
        format!("state {} message {}", t(span.trace_state), t(span.status_message)),
        format!("{} {} {}", span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count),
        format!("[{}]", list(span.attributes)),
        batch.events(span.events).iter().map(event).collect::<Vec<_>>().join(";"),
        batch.links(span.links).iter().map(link).collect::<Vec<_>>().join(";"),
        format!(
            "scope {} {} {} {}",
            t(scope.name),
            t(scope.version),
            t(scope.schema_url),
            scope.dropped_attributes_count
        ),
        list(scope.attributes),
        format!("resource {} {}", t(resource.schema_url), t(resource.entity_refs)),
        format!("{} {} {}", t(resource.service), t(resource.namespace), resource.dropped_attributes_count),
        list(resource.attributes),
    ];
    all.join("\n")
}
