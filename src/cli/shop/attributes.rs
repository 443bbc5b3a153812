//! Attributes of the shop's spans, by the OpenTelemetry semantic conventions 1.44.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::Event;

use super::fleet::Process;
use super::rng::Rng;
use super::statements::Query;

const USER_AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:137.0) Gecko/20100101 Firefox/137.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/135.0.0.0 Safari/537.36",
    "ShopApp/9.14.2 (Android 15; Pixel 9; de_DE)",
];
const WORDS: [&str; 8] = ["lamp", "desk", "teapot", "bicycle", "raincoat", "notebook", "headphones", "garden+hose"];
const CURRENCIES: [&str; 3] = ["EUR", "CHF", "SEK"];

/// An attribute with a string.
pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// An attribute with an integer.
pub(super) fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// What all spans of one visit share, as baggage does.
#[derive(Debug)]
pub(super) struct Visit {
    session: String,
    user: String,
    agent: &'static str,
    address: String,
}

impl Visit {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            session: rng.uuid(),
            user: format!("u-{}", rng.between(100_000, 199_999)),
            agent: rng.pick(&USER_AGENTS),
            address: format!("203.0.113.{}", rng.between(1, 254)),
        }
    }

    /// Attributes that every span of a visit carries.
    pub(super) fn shared(&self, rng: &mut Rng) -> Vec<KeyValue> {
        let thread = rng.int(1, 64);
        vec![
            text("session.id", self.session.as_str()),
            text("user.id", self.user.as_str()),
            int("thread.id", thread),
            text("thread.name", format!("worker-{thread}")),
        ]
    }
}

/// One HTTP exchange, seen by both of its ends.
#[derive(Debug)]
pub(super) struct HttpCall {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    pub(super) host: String,
    path: String,
    query: Option<String>,
    status: i64,
    sent: i64,
    received: i64,
}

impl HttpCall {
    pub(super) fn new(rng: &mut Rng, method: &'static str, route: &'static str, host: String) -> Self {
        let query = route
            .contains("search")
            .then(|| format!("q={}&page={}&sort=relevance", rng.pick(&WORDS), rng.between(1, 9)));
        Self {
            method,
            route,
            host,
            path: fill(rng, route),
            query,
            status: if method == "POST" { 201 } else { 200 },
            sent: rng.int(0, 2_000),
            received: rng.int(200, 40_000),
        }
    }

    /// What a failed call answers; `None` while it has not failed.
    pub(super) fn status(&self, failed: bool) -> i64 {
        if failed { 503 } else { self.status }
    }

    /// Of the SERVER span. `caller` is the process that called, or the visitor's browser.
    pub(super) fn server(&self, rng: &mut Rng, visit: &Visit, caller: Option<&Process>) -> Vec<KeyValue> {
        let (peer, agent) =
            caller.map_or((&visit.address, visit.agent), |caller| (&caller.address, caller.service.runtime.agent));
        let mut attributes = vec![
            text("http.request.method", self.method),
            text("http.route", self.route),
            text("url.scheme", if caller.is_some() { "http" } else { "https" }),
            text("url.path", self.path.as_str()),
            text("server.address", self.host.as_str()),
            int("server.port", if caller.is_some() { 8080 } else { 443 }),
            text("client.address", visit.address.as_str()),
            text("network.peer.address", peer.as_str()),
            int("network.peer.port", rng.int(32_768, 60_999)),
            text("network.protocol.version", if caller.is_some() { "1.1" } else { "2" }),
            text("user_agent.original", agent),
            int("http.request.body.size", self.sent),
            int("http.response.body.size", self.received),
        ];
        attributes.extend(self.query.as_deref().map(|query| text("url.query", query)));
        if caller.is_none() {
            let id = AnyValue { value: Some(Value::StringValue(rng.uuid())) };
            attributes.push(attribute(
                "http.request.header.x-request-id",
                Value::ArrayValue(ArrayValue { values: vec![id] }),
            ));
        }
        attributes
    }

    /// Of the CLIENT span.
    pub(super) fn client(&self, port: i64, peer: &str, agent: &str) -> Vec<KeyValue> {
        let scheme = if port == 443 { "https" } else { "http" };
        let question = self.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        vec![
            text("http.request.method", self.method),
            text("url.full", format!("{scheme}://{}:{port}{}{question}", self.host, self.path)),
            text("url.template", self.route),
            text("server.address", self.host.as_str()),
            int("server.port", port),
            text("network.peer.address", peer),
            int("network.peer.port", port),
            text("network.protocol.version", "1.1"),
            text("user_agent.original", agent),
            int("http.request.body.size", self.sent),
            int("http.response.body.size", self.received),
        ]
    }
}

/// A path for `route`, its placeholders filled.
fn fill(rng: &mut Rng, route: &str) -> String {
    let mut path = String::with_capacity(route.len());
    for part in route.split_inclusive('/') {
        if part.starts_with('{') {
            path.push_str(&rng.between(10_000, 99_999).to_string());
        } else {
            path.push_str(part);
        }
    }
    path
}

/// Of both spans of an RPC. `host` is the server's name; `peer` the other end's address.
pub(super) fn rpc(rng: &mut Rng, method: &str, host: &str, peer: &str, server_side: bool) -> Vec<KeyValue> {
    vec![
        text("rpc.system.name", "grpc"),
        text("rpc.method", method),
        text("server.address", host),
        int("server.port", 9090),
        text("network.peer.address", peer),
        int("network.peer.port", if server_side { rng.int(32_768, 60_999) } else { 9090 }),
        text("network.transport", "tcp"),
        int("rpc.request.size", rng.int(40, 900)),
        int("rpc.response.size", rng.int(20, 4_000)),
    ]
}

/// Of the CLIENT span around a statement.
pub(super) fn query(rng: &mut Rng, query: &Query) -> Vec<KeyValue> {
    vec![
        text("db.system.name", query.system),
        text("db.namespace", query.database),
        text("db.collection.name", query.collection),
        text("db.operation.name", query.operation),
        text("db.query.text", query.text),
        int("db.response.returned_rows", rng.int(0, 40)),
        text("server.address", query.host),
        int("server.port", query.port),
        text("network.peer.address", format!("10.9.{}.{}", query.port % 200, query.host.len())),
        int("network.peer.port", query.port),
    ]
}

/// Of the INTERNAL span around `function`.
pub(super) fn inside(rng: &mut Rng, process: &Process, function: &str) -> Vec<KeyValue> {
    let file = function.rsplit_once('.').map_or(function, |(module, _)| module).replace('.', "/");
    let currency = rng.pick(&CURRENCIES);
    vec![
        text("code.function.name", function),
        text("code.file.path", format!("/workspace/{}/src/main/{file}", process.service.name)),
        int("code.line.number", rng.int(12, 900)),
        text("app.feature_flags", format!("new-pricing,ranker-b{},fast-path", rng.between(1, 4))),
        text("app.tenant", "shop-eu"),
        text("app.currency", currency),
        attribute("app.basket.value", Value::DoubleValue(rng.between(199, 49_999) as f64 / 100.0)),
        int("app.basket.items", rng.int(1, 12)),
        attribute("app.cache.hit", Value::BoolValue(rng.chance(0.8))),
        text("app.build.commit", format!("{:040x}", u128::from(super::rng::mix(process.number as u64)))),
    ]
}

/// A message on its way, seen by its sender and its reader.
#[derive(Debug)]
pub(super) struct Message {
    topic: &'static str,
    id: String,
    key: String,
    partition: u64,
    offset: i64,
    size: i64,
}

impl Message {
    pub(super) fn new(rng: &mut Rng, topic: &'static str) -> Self {
        Self {
            topic,
            id: rng.uuid(),
            key: format!("order-{}", rng.between(1_000_000, 9_999_999)),
            partition: rng.below(12),
            offset: rng.int(1_000_000, 90_000_000),
            size: rng.int(300, 3_000),
        }
    }

    /// Of the PRODUCER (`operation` "send") or CONSUMER (`operation` "process") span.
    pub(super) fn attributes(&self, operation: &'static str, process: &Process) -> Vec<KeyValue> {
        let mut attributes = vec![
            text("messaging.system", "kafka"),
            text("messaging.destination.name", self.topic),
            text("messaging.destination.partition.id", self.partition.to_string()),
            text("messaging.operation.name", operation),
            text("messaging.operation.type", operation),
            text("messaging.client.id", format!("{}-{}", process.service.name, process.number)),
            text("messaging.message.id", self.id.as_str()),
            int("messaging.message.body.size", self.size),
            text("messaging.kafka.message.key", self.key.as_str()),
            int("messaging.kafka.offset", self.offset),
            text("server.address", "kafka-bootstrap.messaging.svc.cluster.local"),
            int("server.port", 9092),
        ];
        if operation == "process" {
            attributes.push(text("messaging.consumer.group.name", process.service.name));
        }
        attributes
    }
}

/// The event of a failure that began in `process`.
pub(super) fn exception(process: &Process, time_unix_nano: u64, what: &str) -> Event {
    let runtime = process.service.runtime;
    let message = format!("{what} gave no answer within its deadline");
    Event {
        time_unix_nano,
        name: "exception".to_owned(),
        attributes: vec![
            text("exception.type", runtime.exception),
            text("exception.message", message),
            text("exception.stacktrace", format!("{}: deadline exceeded\n{}", runtime.exception, runtime.frame)),
        ],
        ..Event::default()
    }
}
