//! Random spans and random filters, such that they meet: few keys, few values, of every type.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value};
use prost::Message as _;

use crate::model::{
    Attribute, Event, Link, Resource, Rows, Scope, Span, SpanBatch, SpanId, Text, TraceId, UnixNanos, Value,
};

/// splitmix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

/// The first ones are on most spans, the last ones on few.
const KEYS: [&str; 8] = ["route", "code", "mixed", "request", "k\u{e9}y", "service.name", "rare", "rarer"];
const TEXTS: [&[u8]; 9] =
    [b"", b"a", b"b", b"checkout", "gr\u{fc}n".as_bytes(), b"500", b"\xff\xfea", b"route-17", b"x\ny"];
const FLOATS: [f64; 6] = [0.5, -0.0, 500.0, f64::NAN, f64::INFINITY, -1.25];
const INTS: [i64; 7] = [0, 1, -1, 500, 2, i64::MIN, i64::MAX];
const NAMES: [&[u8]; 6] = [b"GET /", b"POST /pay", b"", b"\xc3(", "\u{1f600}".as_bytes(), b"a"];
const START: u64 = 1_790_000_000_000_000_000;

fn text(batch: &mut SpanBatch, bytes: &[u8]) -> Text {
    batch.push_bytes(bytes).unwrap()
}

fn any(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn nested(dice: &mut Dice) -> Vec<u8> {
    let scalar = |dice: &mut Dice, kind: u64| match kind {
        0 => any(any_value::Value::StringValue(dice.pick(&["a", "b", "checkout", "gr\u{fc}n"]).to_owned())),
        1 => any(any_value::Value::IntValue(dice.pick(&INTS))),
        2 => any(any_value::Value::DoubleValue(dice.pick(&FLOATS))),
        3 => any(any_value::Value::BoolValue(dice.one_in(2))),
        _ => any(any_value::Value::BytesValue(vec![1, 2])),
    };
    let kind = dice.below(5);
    let n = dice.below(4);
    let mut values: Vec<AnyValue> = (0..n).map(|_| scalar(dice, kind)).collect();
    if dice.one_in(6) {
        values.push(scalar(dice, (kind + 1) % 4));
    }
    let whole = match dice.below(8) {
        0 => {
            let entry = KeyValue { key: "k".to_owned(), value: values.pop(), ..KeyValue::default() };
            any(any_value::Value::KvlistValue(KeyValueList { values: vec![entry] }))
        }
        _ => any(any_value::Value::ArrayValue(ArrayValue { values })),
    };
    whole.encode_to_vec()
}

fn value(batch: &mut SpanBatch, dice: &mut Dice, key: &str) -> Value {
    let kind = match key {
        "route" | "service.name" => 0,
        "code" => dice.pick(&[1, 1, 1, 1, 0]),
        _ => dice.below(7),
    };
    if key == "request" {
        return Value::String(text(batch, format!("req-{:08x}", dice.below(1 << 32)).as_bytes()));
    }
    match kind {
        0 => {
            let bytes = dice.pick(&TEXTS);
            Value::String(text(batch, bytes))
        }
        1 => Value::Int(dice.pick(&INTS)),
        2 => Value::Double(dice.pick(&FLOATS)),
        3 => Value::Bool(dice.one_in(2)),
        4 => {
            let bytes = nested(dice);
            Value::Nested(text(batch, &bytes))
        }
        5 => Value::Bytes(text(batch, b"a")),
        _ => Value::Empty,
    }
}

fn attributes(batch: &mut SpanBatch, dice: &mut Dice, density: u64) -> Rows {
    let mut list = Vec::new();
    for (at, key) in (0_u64..).zip(KEYS) {
        let chance = if at < 5 { 2 } else { 4 << at };
        for _ in 0..2 {
            if dice.below(chance * 2) < density {
                list.push(key);
            }
        }
    }
    let mut pushed = Vec::new();
    for key in list {
        let value = value(batch, dice, key);
        let key = text(batch, key.as_bytes());
        pushed.push(Attribute { key, value });
    }
    let start = u32::try_from(batch.attributes.len()).unwrap();
    batch.attributes.extend(&pushed);
    Rows { start, len: u32::try_from(pushed.len()).unwrap() }
}

fn resource(batch: &mut SpanBatch, dice: &mut Dice) -> Resource {
    let mut resource = Resource { attributes: attributes(batch, dice, 1), ..Resource::default() };
    // As the decoder names services: by the last value, if it is a string.
    let of = |batch: &SpanBatch, key: &str| {
        batch.string_attribute(resource.attributes, key).map(std::borrow::Cow::into_owned)
    };
    if let Some(service) = of(batch, "service.name") {
        resource.service = text(batch, service.as_bytes());
    }
    if dice.one_in(2) {
        resource.namespace = text(batch, b"shop");
    }
    resource
}

/// A batch with a few resources and scopes.
pub(super) fn batch(dice: &mut Dice, n_spans: u64) -> SpanBatch {
    let mut batch = SpanBatch::default();
    for _ in 0..=dice.below(3) {
        let resource = resource(&mut batch, dice);
        batch.resources.push(resource);
    }
    for _ in 0..=dice.below(4) {
        let resource = u32::try_from(dice.below(batch.resources.len() as u64 + 1)).unwrap();
        let (name, version) = (dice.pick(&TEXTS), dice.pick(&TEXTS));
        let (name, version) = (text(&mut batch, name), text(&mut batch, version));
        let attributes = attributes(&mut batch, dice, 1);
        batch.scopes.push(Scope { resource, name, version, attributes, ..Scope::default() });
    }
    for _ in 0..n_spans {
        let span = span(&mut batch, dice);
        batch.spans.push(span);
    }
    batch
}

fn span(batch: &mut SpanBatch, dice: &mut Dice) -> Span {
    let start = match dice.below(20) {
        0 => 0,
        // A clock that runs hours ahead.
        1 => START + 40_000_000_000_000,
        _ => START + dice.below(200) * 1_000_000_000,
    };
    let end = match dice.below(12) {
        0 => 0,
        1 => start.saturating_sub(5),
        2 => u64::MAX,
        _ => start + dice.pick(&[0, 1, 1_000_000, 2_000_000_000, 500, 5_000_000_000]) + dice.below(3),
    };
    let (name, message) = (dice.pick(&NAMES), if dice.one_in(3) { dice.pick(&TEXTS) } else { b"" });
    let (name, status_message) = (text(batch, name), text(batch, message));
    let attributes = attributes(batch, dice, 2);
    let events = (u32::try_from(batch.events.len()).unwrap(), dice.below(4).saturating_sub(1));
    for _ in 0..events.1 {
        let name = dice.pick(&NAMES);
        let name = text(batch, name);
        let attributes = self::attributes(batch, dice, 1);
        let time_unix_nano = UnixNanos(start.wrapping_add(dice.below(4) * 1_000_000_000));
        batch.events.push(Event { time_unix_nano, name, attributes, ..Event::default() });
    }
    let links = (u32::try_from(batch.links.len()).unwrap(), dice.below(8).saturating_sub(6));
    for _ in 0..links.1 {
        let attributes = self::attributes(batch, dice, 1);
        let span_id = SpanId(dice.below(3).to_be_bytes());
        batch.links.push(Link { trace_id: TraceId([1; 16]), span_id, attributes, ..Link::default() });
    }
    let rows = |(start, len): (u32, u64)| Rows { start, len: u32::try_from(len).unwrap() };
    Span {
        trace_id: TraceId(u128::from(1 + dice.below(40)).to_be_bytes()),
        span_id: SpanId((1 + dice.below(1_000_000)).to_be_bytes()),
        parent_span_id: SpanId(dice.below(40).to_be_bytes()),
        start_time_unix_nano: UnixNanos(start),
        end_time_unix_nano: UnixNanos(end),
        kind: dice.pick(&[1, 2, 2, 2, 3, 4, 5, 0, 99, -1]),
        status_code: dice.pick(&[0, 0, 0, 1, 2, 7]),
        scope: u32::try_from(dice.below(batch.scopes.len() as u64 + 1)).unwrap(),
        name,
        status_message,
        attributes,
        events: rows(events),
        links: rows(links),
        ..Span::default()
    }
}

/// Fields that spans of `batch` have, and a few that they have not.
pub(super) const FIELDS: [&str; 37] = [
    "span.request",
    "span.route",
    "span.code",
    "span.mixed",
    "span.\"k\u{e9}y\"",
    "span.rare",
    "span.rarer",
    "span.service.name",
    "span.none",
    ".route",
    ".code",
    ".mixed",
    ".rare",
    ".rarer",
    ".service.name",
    ".none",
    "resource.service.name",
    "resource.mixed",
    "resource.route",
    "resource.none",
    "instrumentation.mixed",
    "instrumentation.code",
    "instrumentation:name",
    "instrumentation:version",
    "duration",
    "name",
    "status",
    "kind",
    "statusMessage",
    "span:id",
    "span:parentID",
    "trace:id",
    "event.mixed",
    "event.code",
    "event:name",
    "event:timeSinceStart",
    "link.mixed",
];

const LITERALS: [&str; 30] = [
    "\"a\"",
    "\"b\"",
    "\"\"",
    "\"checkout\"",
    "\"gr\u{fc}n\"",
    "\"500\"",
    "\"\u{fffd}\u{fffd}a\"",
    "\"GET /\"",
    "\"7\"",
    "0",
    "1",
    "-1",
    "500",
    "2",
    "minInt",
    "maxInt",
    "0.5",
    "500.0",
    "-1.25",
    "2s",
    "1ms",
    "5s",
    "500ns",
    "true",
    "false",
    "ok",
    "error",
    "unset",
    "server",
    "unspecified",
];

const PATTERNS: [&str; 7] = ["a", "a|b", ".*", "", "[0-9]+", ".*[^a-z]", ".*[0-7]"];

/// A random text that is a filter more often than not.
pub(super) fn filter(dice: &mut Dice, depth: u64) -> String {
    if depth == 0 || dice.one_in(3) {
        return condition(dice);
    }
    let a = filter(dice, depth - 1);
    let b = filter(dice, depth - 1);
    match dice.below(5) {
        0 | 1 => format!("({a}) && ({b})"),
        2 | 3 => format!("({a}) || ({b})"),
        _ => format!("!({a})"),
    }
}

fn condition(dice: &mut Dice) -> String {
    let field = dice.pick(&FIELDS);
    let comparison = dice.pick(&["=", "!=", "<", "<=", ">", ">="]);
    match dice.below(12) {
        0 => format!("{field} {} nil", dice.pick(&["=", "!="])),
        1 => format!("{field} {} `{}`", dice.pick(&["=~", "!~"]), dice.pick(&PATTERNS)),
        2 => format!("{field} {comparison} {}", dice.pick(&FIELDS)),
        3 => {
            let (operator, by) = (dice.pick(&["+", "-", "*", "/", "%", "^"]), dice.pick(&LITERALS));
            format!("{field} {operator} {by} {comparison} {}", dice.pick(&LITERALS))
        }
        4 => field.to_owned(),
        5 => format!("!{field}"),
        6 => format!("{} {comparison} {field}", dice.pick(&LITERALS)),
        7 => format!("-{field} {comparison} {}", dice.pick(&LITERALS)),
        8 => format!("({field} {comparison} {}) = {}", dice.pick(&LITERALS), dice.pick(&FIELDS)),
        9 => dice.pick(&["true", "false", "1 = 1"]).to_owned(),
        _ => format!("{field} {comparison} {}", dice.pick(&LITERALS)),
    }
}
