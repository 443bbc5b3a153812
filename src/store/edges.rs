//! The service graph: who calls whom, found by matching client and server spans of one trace while their block is made.
//!
//! An edge is a CLIENT (or PRODUCER) span whose child is a SERVER (or CONSUMER) span. Spans of a block stand by trace, so
//! nearly every pair meets inside one; a half whose other half comes in a later block waits in `Waiting`. A client span that
//! names a database is an edge at once, one that names a peer and finds no server is one to a virtual node once
//! `PAIRING_WAIT` is over, and a root server span is called by `user`. A half that comes after the wait makes no edge, so no
//! call counts twice. (Names and rules: the service graph of Grafana Tempo, "servicegraphs" processor.)

use std::borrow::Cow;
use std::collections::HashMap;

use crate::block::{self, Located, RowRef, span_at};
use crate::latency::counting_instant;
use crate::model::{
    Connection, DurationNanos, Family, SeriesKey, Span, SpanBatch, SpanId, SpanKind, SpanStatus, TraceId, UnixNanos,
    Value,
};

use super::{HeadPart, Store};

/// How long after its end a span waits for its other half.
const PAIRING_WAIT: DurationNanos = DurationNanos::from_secs(10);
/// Halves that wait, some 200 bytes each; of more the next ones are not kept.
const WAITING_MAX: usize = 65_536;
/// Client of requests whose sender is unknown.
const USER: &str = "user";
/// Attributes that name a database, the first one counts.
const DATABASE_KEYS: [&str; 4] = ["db.namespace", "db.name", "db.system", "db.system.name"];
/// Attributes that name a peer without spans, the first one counts.
const PEER_KEYS: [&str; 4] = ["peer.service", "db.name", "db.system", "db.system.name"];

/// One call that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Of the server, with the client as its family; the kind is for the caller to set.
    key: SeriesKey<'static>,
    /// When it is counted: where the client span starts, or the server span when there is none.
    pub at: UnixNanos,
    /// As the client saw it; `None` when it sends no spans.
    pub client: Option<Side>,
    /// As the server saw it; `None` when it sends no spans.
    pub server: Option<Side>,
}

/// One end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// How long it took.
    pub latency: DurationNanos,
    /// Row of its span, when that is in the block or head.
    pub row: Option<u32>,
}

impl Call {
    /// The series of one end.
    pub fn series(&self, kind: SpanKind) -> SeriesKey<'static> {
        SeriesKey { kind, ..self.key.clone() }
    }
}

impl Store {
    /// Every call that is in no block yet, with the position of its head and the rows that its sides count through. Cost: one
    /// ordering of the heads.
    pub fn calls_of_heads(&self, heads: &[HeadPart], each: &mut dyn FnMut(usize, &[RowRef], Call)) {
        let mut waiting = self.counting.waiting.lock().clone();
        for (at, head) in heads.iter().enumerate() {
            let rows = block::order(&head.batches).rows;
            calls(head, &rows, &mut waiting, &mut |call| each(at, &rows, call));
        }
    }
}

/// What is kept of a span that waits for its other half.
#[derive(Clone, Debug)]
struct Half {
    namespace: String,
    service: String,
    is_messaging: bool,
    is_error: bool,
    at: UnixNanos,
    end: UnixNanos,
    latency: DurationNanos,
    row: Option<u32>,
    /// Of a client: what it calls, should that send no spans.
    peer: Option<String>,
}

/// Halves of the blocks before. Lives as long as the process: a call whose halves are in blocks before and behind a
/// restart is missed.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    clients: HashMap<(TraceId, SpanId), Half>,
    /// By the span that called them.
    servers: HashMap<(TraceId, SpanId), Half>,
}

/// Gives every call whose second half is in these rows, which are as `block::order` gave them.
pub(super) fn calls(part: &HeadPart, rows: &[RowRef], waiting: &mut Waiting, each: &mut dyn FnMut(Call)) {
    let located = (0..).zip(rows).filter_map(|(no, row)| Some((no, span_at(&part.batches, *row)?)));
    let mut trace: Vec<(u32, Located<'_>)> = Vec::new();
    for (row, (batch, span)) in located {
        if trace.last().is_some_and(|(_, (_, last))| last.trace_id != span.trace_id) {
            calls_of_trace(&trace, part.horizon, waiting, each);
            trace.clear();
        }
        if SpanKind::from(span.kind) != SpanKind::Internal && span.latency().is_some() {
            trace.push((row, (batch, span)));
        }
    }
    calls_of_trace(&trace, part.horizon, waiting, each);
    waiting.give_up(part.horizon, each);
}

fn calls_of_trace(trace: &[(u32, Located<'_>)], horizon: UnixNanos, waiting: &mut Waiting, each: &mut dyn FnMut(Call)) {
    let of_kinds =
        |wanted: [SpanKind; 2]| trace.iter().filter(move |(_, (_, span))| wanted.contains(&SpanKind::from(span.kind)));
    let mut clients: HashMap<SpanId, (u32, Located<'_>, bool)> = HashMap::new();
    for (row, (batch, span)) in of_kinds([SpanKind::Client, SpanKind::Producer]) {
        let _first_of_its_id = clients.entry(span.span_id).or_insert((*row, (*batch, *span), false));
    }
    for (row, (batch, span)) in of_kinds([SpanKind::Server, SpanKind::Consumer]) {
        // Zipkin gives both ends of a call one id.
        let caller = if clients.contains_key(&span.parent_span_id) { span.parent_span_id } else { span.span_id };
        let server = Half::new(*row, batch, span, horizon);
        if let Some((client_row, (client_batch, client_span), met)) = clients.get_mut(&caller) {
            *met = true;
            each(matched(&Half::new(*client_row, client_batch, client_span, horizon), &server));
        } else if span.parent_span_id.is_zero() {
            each(from_user(&server));
        } else if let Some(client) = waiting.clients.remove(&(span.trace_id, span.parent_span_id)) {
            each(matched(&client, &server));
        } else {
            waiting.keep_server((span.trace_id, span.parent_span_id), server);
        }
    }
    for (span_id, (row, (batch, span), met)) in clients {
        if met {
            continue;
        }
        let client = Half::new(row, batch, span, horizon);
        if let Some(database) = database(batch, span) {
            each(without_server(&client, &database, Connection::Database));
        } else if let Some(server) = waiting.servers.remove(&(span.trace_id, span_id)) {
            each(matched(&client, &server));
        } else {
            waiting.keep_client((span.trace_id, span_id), Half { peer: peer(batch, span), ..client });
        }
    }
}

impl Waiting {
    fn keep_client(&mut self, key: (TraceId, SpanId), half: Half) {
        if self.clients.len() < WAITING_MAX {
            let _same_id = self.clients.insert(key, half);
        }
    }

    fn keep_server(&mut self, key: (TraceId, SpanId), half: Half) {
        if self.servers.len() < WAITING_MAX {
            let _another_of_the_same_call = self.servers.insert(key, half);
        }
    }

    /// Halves whose wait is over become calls of virtual nodes, or nothing. Rows of the others are of a block that is
    /// written now.
    fn give_up(&mut self, horizon: UnixNanos, each: &mut dyn FnMut(Call)) {
        let is_over = |half: &Half| half.end.saturating_add(PAIRING_WAIT) <= horizon;
        self.clients.retain(|_, client| {
            if is_over(client) {
                if let Some(peer) = client.peer.take() {
                    each(without_server(client, &peer, Connection::VirtualNode));
                }
                return false;
            }
            client.row = None;
            true
        });
        self.servers.retain(|_, server| {
            server.row = None;
            !is_over(server)
        });
    }
}

impl Half {
    fn new(row: u32, batch: &SpanBatch, span: &Span, horizon: UnixNanos) -> Self {
        let (namespace, service) = batch.service_of(span);
        Self {
            namespace: namespace.into_owned(),
            service: service.into_owned(),
            is_messaging: matches!(SpanKind::from(span.kind), SpanKind::Producer | SpanKind::Consumer),
            is_error: span.is_error(),
            at: counting_instant(span.start_time_unix_nano, horizon),
            end: span.end_time_unix_nano,
            latency: span.latency().unwrap_or_default(),
            row: Some(row),
            peer: None,
        }
    }

    fn side(&self) -> Side {
        Side { latency: self.latency, row: self.row }
    }
}

fn matched(client: &Half, server: &Half) -> Call {
    let is_messaging = client.is_messaging || server.is_messaging;
    let connection = if is_messaging { Connection::MessagingSystem } else { Connection::Call };
    Call {
        key: edge(
            (&client.namespace, &client.service),
            (&server.namespace, &server.service),
            connection,
            client.is_error || server.is_error,
        ),
        at: client.at,
        client: Some(client.side()),
        server: Some(server.side()),
    }
}

fn from_user(server: &Half) -> Call {
    Call {
        key: edge(("", USER), (&server.namespace, &server.service), Connection::VirtualNode, server.is_error),
        at: server.at,
        client: None,
        server: Some(server.side()),
    }
}

fn without_server(client: &Half, server: &str, connection: Connection) -> Call {
    Call {
        key: edge((&client.namespace, &client.service), ("", server), connection, client.is_error),
        at: client.at,
        client: Some(client.side()),
        server: None,
    }
}

fn edge(client: (&str, &str), server: (&str, &str), connection: Connection, is_error: bool) -> SeriesKey<'static> {
    let owned = |text: &str| Cow::Owned(text.to_owned());
    SeriesKey {
        namespace: owned(server.0),
        service: owned(server.1),
        span_name: Cow::Borrowed(""),
        kind: SpanKind::Server,
        status: if is_error { SpanStatus::Error } else { SpanStatus::Unset },
        entry: false,
        family: Some(Family::Edge { namespace: owned(client.0), client: owned(client.1), connection }),
    }
}

/// What a client span that names a database calls.
fn database(batch: &SpanBatch, span: &Span) -> Option<String> {
    let database = first_text(batch, span, &DATABASE_KEYS)?;
    let named = first_text(batch, span, &["peer.service", "server.address"]);
    Some(named.or_else(|| network_peer(batch, span)).unwrap_or(database))
}

/// What a client span calls by its own account.
fn peer(batch: &SpanBatch, span: &Span) -> Option<String> {
    first_text(batch, span, &PEER_KEYS)
}

fn first_text(batch: &SpanBatch, span: &Span, keys: &[&str]) -> Option<String> {
    let texts = keys.iter().filter_map(|key| batch.string_attribute(span.attributes, key));
    texts.map(Cow::into_owned).find(|text| !text.is_empty())
}

fn network_peer(batch: &SpanBatch, span: &Span) -> Option<String> {
    let address = first_text(batch, span, &["network.peer.address"])?;
    let is_port = |key: &[u8]| key == b"network.peer.port";
    let port = batch.attributes(span.attributes).iter().rev().find(|attribute| is_port(batch.text(attribute.key)));
    Some(match port.map(|attribute| attribute.value) {
        Some(Value::Int(port)) => format!("{address}:{port}"),
        _ => address,
    })
}
