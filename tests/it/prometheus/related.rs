//! Metrics of the service graph against the calls that were sent.

use std::collections::BTreeMap;

use super::sent::{
    Counted, Grid, Numbers, Over, Part, SECOND, Sent, an_hour_ago, answered, assert_same, at_instant, busy_server,
    expected, moved, send,
};
use crate::support::{Random, TestServer};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// A call that was sent, as each side saw it.
pub(super) struct Call {
    labels: BTreeMap<&'static str, String>,
    start: u64,
    client: Option<u64>,
    server: Option<u64>,
    has_failed: bool,
}

/// How long a call took, if it is counted.
type Latency = fn(&Call) -> Option<u64>;

/// A server with calls of half an hour.
pub(super) struct Related {
    pub(super) server: TestServer,
    pub(super) spans: Vec<Sent>,
    calls: Vec<Call>,
    /// In milliseconds.
    pub(super) first: i64,
}

/// Writes the spans of one trace, and the calls that they are.
struct Trace<'a> {
    random: &'a mut Random,
    spans: Vec<Sent>,
    calls: &'a mut Vec<Call>,
    number: u64,
    start: u64,
}

type Service = (&'static str, &'static str);
const FRONTEND: Service = ("shop", "frontend");
const CART: Service = ("", "cart");
const EMAIL: Service = ("mail", "email");

impl Trace<'_> {
    /// A span of such a kind; its position.
    fn span(&mut self, (namespace, service): Service, kind: i32, parent: Option<usize>) -> usize {
        let trace = self.number;
        let id = trace * 100 + self.spans.len() as u64 + 1;
        let parent = parent.map_or(0, |at| self.spans[at].id);
        let status = if self.random.one_in(6) { 2 } else { 0 };
        let latency = Some(1_000 << self.random.below(20));
        let (name, start) = ("work".to_owned(), self.start + self.random.below(SECOND / 10));
        let attributes = Vec::new();
        self.spans.push(Sent { trace, id, parent, namespace, service, name, kind, status, start, latency, attributes });
        self.spans.len() - 1
    }

    /// Notes a call: the client and the server are spans, or names.
    fn call(&mut self, client: Result<usize, &str>, server: Result<usize, &str>, connection: &str) {
        let sides = [client, server].map(|side| side.map(|at| &self.spans[at]));
        let names = sides.map(|side| side.map_or_else(|name| ("", name), |sent| (sent.namespace, sent.service)));
        let [client, server] = sides.map(Result::ok);
        let labels = [
            ("client", names[0].1),
            ("client_service_namespace", names[0].0),
            ("connection_type", connection),
            ("server", names[1].1),
            ("server_service_namespace", names[1].0),
        ];
        self.calls.push(Call {
            labels: labels.map(|(name, value)| (name, value.to_owned())).into(),
            start: client.or(server).expect("one side sends spans").start,
            client: client.and_then(|sent| sent.latency),
            server: server.and_then(|sent| sent.latency),
            has_failed: [client, server].into_iter().flatten().any(|sent| sent.status == 2),
        });
    }

    fn write(&mut self) {
        let root = self.span(FRONTEND, SERVER, None);
        self.call(Err("user"), Ok(root), "virtual_node");
        for _ in 0..self.random.below(3) {
            let client = self.span(FRONTEND, CLIENT, Some(root));
            let server = self.span(CART, SERVER, Some(client));
            self.call(Ok(client), Ok(server), "");
            match self.random.below(4) {
                0 => {
                    let client = self.span(CART, CLIENT, Some(server));
                    self.spans[client].attributes = vec![("db.system", "postgresql"), ("server.address", "db-1")];
                    // This one never fails.
                    self.spans[client].status = 0;
                    self.call(Ok(client), Err("db-1"), "database");
                }
                1 => {
                    let (sender, receiver) = (self.span(CART, PRODUCER, Some(server)), self.spans.len());
                    assert_eq!(self.span(EMAIL, CONSUMER, Some(sender)), receiver);
                    self.call(Ok(sender), Ok(receiver), "messaging_system");
                }
                2 => {
                    let client = self.span(CART, CLIENT, Some(server));
                    self.spans[client].attributes = vec![("peer.service", "bank")];
                    self.call(Ok(client), Err("bank"), "virtual_node");
                }
                _ => {
                    // Calls nobody that is known.
                    let _nobody = self.span(CART, CLIENT, Some(server));
                }
            }
        }
    }
}

impl Related {
    pub(super) fn new() -> Self {
        let server = busy_server();
        let (first, mut random) = (an_hour_ago(), Random(3));
        let (mut spans, mut calls) = (Vec::new(), Vec::new());
        for number in 1..=300 {
            let start = first + 60 * SECOND + random.below(1_740 * SECOND);
            let of_trace = Vec::new();
            let mut trace = Trace { random: &mut random, spans: of_trace, calls: &mut calls, number, start };
            trace.write();
            // Halves of old calls do not wait for another request.
            send(&server, &trace.spans);
            spans.append(&mut trace.spans);
        }
        server.wait_for_sealed();
        Self { server, spans, calls, first: i64::try_from(first / 1_000_000).expect("small") }
    }

    /// The calls with the latency that a metric counts them by.
    fn counted(&self, latency: Latency) -> Vec<Counted> {
        let of = |call: &Call| {
            let (labels, start) = (call.labels.clone(), call.start);
            Some(Counted { labels, start, latency: Some(latency(call)?) })
        };
        self.calls.iter().filter_map(of).collect()
    }
}

const GROUPS: [Option<&[&str]>; 4] = [
    Some(&["client", "server"]),
    None,
    Some(&["client", "connection_type", "server"]),
    Some(&["client", "client_service_namespace", "server", "server_service_namespace"]),
];

#[test]
fn sg_01_02_03_08_10_12_calls_are_counted_as_either_side_saw_them() {
    let related = Related::new();
    let as_server: Latency = |call| call.server.or(call.client);
    let metrics: [(&str, Part, Latency); 9] = [
        ("total", Part::Count, as_server),
        ("server_seconds_count", Part::Count, as_server),
        ("server_seconds_sum", Part::Sum, as_server),
        ("server_seconds_bucket", Part::Buckets, as_server),
        ("server_seconds", Part::Native, as_server),
        ("client_seconds_count", Part::Count, |call| call.client),
        ("client_seconds_sum", Part::Sum, |call| call.client),
        ("client_seconds_bucket", Part::Buckets, |call| call.client),
        ("client_seconds", Part::Native, |call| call.client),
    ];
    let grid = Grid { start: related.first, step: 270_000, n: 8 };
    for (name, part, latency) in metrics {
        let metric = format!("traces_service_graph_request_{name}");
        for by in GROUPS {
            for over in [Over::Raw, Over::Increase(300_000), Over::Rate(3_600_000)] {
                let selected = match over {
                    Over::Raw => metric.clone(),
                    Over::Increase(_) => format!("increase({metric}[5m])"),
                    Over::Rate(_) => format!("rate({metric}[3600s])"),
                };
                let le = if part == Part::Buckets { "le," } else { "" };
                let q = by.map_or(selected.clone(), |by| format!("sum by ({le}{}) ({selected})", by.join(",")));
                let expected = expected(&related.counted(latency), (&metric, part), over, by, &grid.instants());
                let found = answered(&grid.ask(&related.server, &q));
                match over {
                    Over::Raw => assert_same(&found, &expected, &q),
                    Over::Increase(_) | Over::Rate(_) => assert_same(&moved(found), &moved(expected), &q),
                }
            }
        }
    }
}

#[test]
fn sg_02_calls_that_failed_are_counted_from_the_first_call_on_and_0_where_none_did() {
    let related = Related::new();
    let grid = Grid { start: related.first, step: 100_000, n: 20 };
    let metric = ("traces_service_graph_request_failed_total", Part::Count);
    for by in GROUPS {
        let all = expected(&related.counted(|_| Some(0)), metric, Over::Raw, by, &grid.instants());
        let failed = related.counted(|call| call.has_failed.then_some(0));
        let failed = expected(&failed, metric, Over::Raw, by, &grid.instants());
        let of = |labels: &str, at: i64| failed.get(labels).and_then(|points| points.get(&at)).copied().unwrap_or(0.0);
        let mut zeros = 0;
        let mut points = Numbers::new();
        for (labels, calls) in &all {
            for at in calls.keys() {
                zeros += i64::from(of(labels, *at) == 0.0);
                let _new = points.entry(labels.clone()).or_default().insert(*at, of(labels, *at));
            }
        }
        assert!(0 < zeros);
        let q = by.map_or(metric.0.to_owned(), |by| format!("sum by ({}) ({})", by.join(","), metric.0));
        assert_same(&answered(&grid.ask(&related.server, &q)), &points, &q);
    }
    let rates = "sum by (client, server) (rate(traces_service_graph_request_failed_total[3600s]))";
    let found = answered(&at_instant(&related.server, rates, related.first + 1_900_000));
    assert_eq!(found["client=cart,server=db-1"].values().copied().collect::<Vec<_>>(), [0.0]);
}

#[test]
fn sg_02_03_07_the_queries_of_the_service_graph_find_every_node() {
    let related = Related::new();
    let at = related.first + 1_900_000;
    let kinds = "group by (client, connection_type, server) (traces_service_graph_request_server_seconds)";
    let edges = [
        "client=cart,connection_type=database,server=db-1",
        "client=cart,connection_type=messaging_system,server=email",
        "client=cart,connection_type=virtual_node,server=bank",
        "client=frontend,server=cart",
        "client=user,connection_type=virtual_node,server=frontend",
    ];
    let one = |labels: &str| (labels.to_owned(), BTreeMap::from([(at, 1.0)]));
    for metric in ["server_seconds", "server_seconds_bucket", "server_seconds_sum", "total", "failed_total"] {
        let q = kinds.replace("server_seconds", metric);
        assert_same(&answered(&at_instant(&related.server, &q, at)), &edges.map(one).into(), &q);
    }
    let m = "traces_service_graph_request_total";
    let either = format!(
        "sum by (client, server) (rate({m}{{client=\"cart\"}}[3600s])) OR sum by (client, server) (rate({m}{{server=\"cart\"}}[3600s]))"
    );
    assert_eq!(answered(&at_instant(&related.server, &either, at)).len(), 4);
    let names = "match[]=%7B__name__%3D~%22traces_service_graph_request_server_seconds_sum%7Ctraces_service_graph_request_total%22%7D";
    let labels = &related.server.json(&format!("/api/v1/labels?{names}"))["data"];
    let expected =
        ["__name__", "client", "client_service_namespace", "connection_type", "server", "server_service_namespace"];
    assert_eq!(labels, &serde_json::json!(expected));
    let native = "/api/v1/series?match[]=traces_service_graph_request_server_seconds&limit=1";
    let answer = related.server.json(native);
    assert_eq!((answer["data"].as_array().map(Vec::len), answer["data"][0].get("le")), (Some(1), None));
    let connections = &related.server.json("/api/v1/label/connection_type/values")["data"];
    assert_eq!(connections, &serde_json::json!(["database", "messaging_system", "virtual_node"]));
}
