//! The service graph: who calls whom, found by matching client and server spans of one trace while their block is made.
//!
//! An edge is a CLIENT (or PRODUCER) span whose child is a SERVER (or CONSUMER) span. Spans of a block stand by trace, so
//! nearly every pair meets inside one; a half whose other half comes in a later block waits (`pairing`). A client span that
//! names a database is an edge at once, one that names a peer and finds no server is one to a virtual node once
//! its wait is over, and a root server span is called by `user`. A half that comes after the wait makes no edge, so no
//! call counts twice. (Names and rules: the service graph of Grafana Tempo, "servicegraphs" processor.)

use std::borrow::Cow;
use std::sync::Arc;

use crate::block::{self, Located, RowRef, span_at};
use crate::latency::counting_instant;
use crate::model::{
    Connection, DurationNanos, Family, SeriesKey, Span, SpanBatch, SpanId, SpanKind, SpanStatus, UnixNanos, Value,
};

use super::pairing::{End, Half, Pairing, Waiting};
use super::{HeadPart, Snapshot, Store};

/// Client of requests whose sender is unknown.
const USER: &str = "user";

/// One call that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Between whom.
    pub edge: Edge,
    /// When it is counted: where the client span starts, or the server span when there is none.
    pub at: UnixNanos,
    /// As the client saw it; `None` when it sends no spans.
    pub client: Option<Side>,
    /// As the server saw it; `None` when it sends no spans.
    pub server: Option<Side>,
}

/// What calls have in common that count together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    client: Arc<End>,
    server: Arc<End>,
    connection: Connection,
    is_error: bool,
}

/// One end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// How long it took.
    pub latency: DurationNanos,
    /// Row of its span, when that is in the block or head.
    pub row: Option<u32>,
}

impl Edge {
    /// ERROR when either side failed.
    pub fn status(&self) -> SpanStatus {
        if self.is_error { SpanStatus::Error } else { SpanStatus::Unset }
    }

    /// The series of one end: of the server, with the client as its family.
    pub fn series(&self, kind: SpanKind) -> SeriesKey<'static> {
        let owned = |text: &str| Cow::Owned(text.to_owned());
        let (namespace, client) = (owned(&self.client.namespace), owned(&self.client.service));
        SeriesKey {
            namespace: owned(&self.server.namespace),
            service: owned(&self.server.service),
            span_name: Cow::Borrowed(""),
            kind,
            status: self.status(),
            entry: false,
            family: Some(Family::Edge { namespace, client, connection: self.connection }),
        }
    }
}

/// A snapshot, and what its heads may be paired with.
#[derive(Debug)]
pub struct SnapshotOfCalls {
    /// The blocks hold all calls but those whose later half is in its heads.
    pub snapshot: Snapshot,
    waiting: Arc<Waiting>,
}

impl Store {
    /// Everything that is stored, as of now, and the halves of calls that wait then: a block shows its calls, and takes
    /// their halves away, in one step.
    pub fn snapshot_of_calls(&self) -> SnapshotOfCalls {
        let state = self.state.read();
        SnapshotOfCalls { snapshot: state.snapshot(), waiting: Arc::clone(&self.counting.waiting.lock()) }
    }
}

impl SnapshotOfCalls {
    /// Every call that is in no block yet, with the position of its head and the rows that its sides count through. Cost: one
    /// ordering of the heads.
    pub fn calls_of_heads(&self, each: &mut dyn FnMut(usize, &[RowRef], Call)) {
        let mut pairing = self.waiting.pairing();
        for (at, head) in self.snapshot.heads.iter().enumerate() {
            let rows = block::order(&head.batches).rows;
            calls(head, &rows, &mut pairing, &mut |call| each(at, &rows, call));
        }
    }
}

/// A span that may be half of a call: its row, where it is, and its service.
type Candidate<'a> = (u32, Located<'a>, Arc<End>);

/// Gives every call whose second half is in these rows, which are as `block::order` gave them.
pub(super) fn calls(part: &HeadPart, rows: &[RowRef], pairing: &mut Pairing<'_>, each: &mut dyn FnMut(Call)) {
    let located = (0..).zip(rows).filter_map(|(no, row)| Some((no, row.batch, span_at(&part.batches, *row)?)));
    let mut names: Vec<Vec<Option<Arc<End>>>> = vec![Vec::new(); part.batches.len()];
    let mut trace: Vec<Candidate<'_>> = Vec::new();
    for (row, batch_no, (batch, span)) in located {
        if trace.last().is_some_and(|(_, (_, last), _)| last.trace_id != span.trace_id) {
            calls_of_trace(&trace, part.horizon, pairing, each);
            trace.clear();
        }
        if SpanKind::from(span.kind) != SpanKind::Internal && span.latency().is_some() {
            let Some(names) = names.get_mut(batch_no as usize) else { continue };
            names.resize(batch.resources.len(), None);
            let Some(name) = names.get_mut(batch.scope(span).resource as usize) else { continue };
            let of = name.get_or_insert_with(|| {
                let (namespace, service) = batch.service_of(span);
                Arc::new(End { namespace: namespace.into_owned(), service: service.into_owned() })
            });
            trace.push((row, (batch, span), Arc::clone(of)));
        }
    }
    calls_of_trace(&trace, part.horizon, pairing, each);
    pairing.give_up(part.horizon, &mut |client| {
        if let Some(peer) = &client.peer {
            each(without_server(client, peer, Connection::VirtualNode));
        }
    });
}

fn calls_of_trace(trace: &[Candidate<'_>], horizon: UnixNanos, pairing: &mut Pairing<'_>, each: &mut dyn FnMut(Call)) {
    let of_kinds = |wanted: [SpanKind; 2]| {
        trace.iter().filter(move |(_, (_, span), _)| wanted.contains(&SpanKind::from(span.kind)))
    };
    let clients = of_kinds([SpanKind::Client, SpanKind::Producer]);
    let mut clients: Vec<(SpanId, &Candidate<'_>, bool)> =
        clients.map(|candidate| (candidate.1.1.span_id, candidate, false)).collect();
    // The first of an id counts.
    clients.sort_by_key(|(id, ..)| *id);
    clients.dedup_by_key(|(id, ..)| *id);
    let place = |clients: &[(SpanId, &Candidate<'_>, bool)], id| clients.binary_search_by_key(&id, |(id, ..)| *id).ok();
    for candidate in of_kinds([SpanKind::Server, SpanKind::Consumer]) {
        let (_, (_, span), _) = candidate;
        // Zipkin gives both ends of a call one id.
        let caller = place(&clients, span.parent_span_id).or_else(|| place(&clients, span.span_id));
        let server = half(candidate, horizon);
        if let Some((_, client, met)) = caller.and_then(|caller| clients.get_mut(caller)) {
            *met = true;
            each(matched(&half(client, horizon), &server));
        } else if span.parent_span_id.is_zero() {
            each(from_user(&server));
        } else if let Some(client) = pairing.clients.take((span.trace_id, span.parent_span_id)) {
            each(matched(&client, &server));
        } else {
            pairing.servers.keep((span.trace_id, span.parent_span_id), server);
        }
    }
    for (span_id, candidate, met) in clients {
        if met {
            continue;
        }
        let (_, (batch, span), _) = candidate;
        let (client, named) = (half(candidate, horizon), Named::by(batch, span));
        let nameless = |service| Arc::new(End { namespace: String::new(), service });
        if let Some(database) = named.database() {
            each(without_server(&client, &nameless(database), Connection::Database));
        } else if let Some(server) = pairing.servers.take((span.trace_id, span_id)) {
            each(matched(&client, &server));
        } else {
            pairing.clients.keep((span.trace_id, span_id), Half { peer: named.peer().map(nameless), ..client });
        }
    }
}

fn half((row, (_, span), of): &Candidate<'_>, horizon: UnixNanos) -> Half {
    Half {
        of: Arc::clone(of),
        is_messaging: matches!(SpanKind::from(span.kind), SpanKind::Producer | SpanKind::Consumer),
        is_error: span.is_error(),
        at: counting_instant(span.start_time_unix_nano, horizon),
        end: span.end_time_unix_nano,
        latency: span.latency().unwrap_or_default(),
        row: Some(*row),
        peer: None,
    }
}

fn side(half: &Half) -> Side {
    Side { latency: half.latency, row: half.row }
}

fn matched(client: &Half, server: &Half) -> Call {
    let is_messaging = client.is_messaging || server.is_messaging;
    let connection = if is_messaging { Connection::MessagingSystem } else { Connection::Call };
    let is_error = client.is_error || server.is_error;
    Call {
        edge: Edge { client: Arc::clone(&client.of), server: Arc::clone(&server.of), connection, is_error },
        at: client.at,
        client: Some(side(client)),
        server: Some(side(server)),
    }
}

fn from_user(server: &Half) -> Call {
    let client = Arc::new(End { namespace: String::new(), service: USER.to_owned() });
    let (connection, is_error) = (Connection::VirtualNode, server.is_error);
    Call {
        edge: Edge { client, server: Arc::clone(&server.of), connection, is_error },
        at: server.at,
        client: None,
        server: Some(side(server)),
    }
}

fn without_server(client: &Half, server: &Arc<End>, connection: Connection) -> Call {
    let is_error = client.is_error;
    Call {
        edge: Edge { client: Arc::clone(&client.of), server: Arc::clone(server), connection, is_error },
        at: client.at,
        client: Some(side(client)),
        server: None,
    }
}

/// What a client span says of whom it calls.
#[derive(Default)]
struct Named<'a> {
    db_namespace: Cow<'a, str>,
    db_name: Cow<'a, str>,
    db_system: Cow<'a, str>,
    db_system_name: Cow<'a, str>,
    peer_service: Cow<'a, str>,
    server_address: Cow<'a, str>,
    network_peer_address: Cow<'a, str>,
    network_peer_port: Option<i64>,
}

impl<'a> Named<'a> {
    /// In one pass; the last attribute of a name counts, and what is no text is none.
    fn by(batch: &'a SpanBatch, span: &Span) -> Self {
        let mut named = Self::default();
        for attribute in batch.attributes(span.attributes) {
            let text = match batch.text(attribute.key) {
                b"db.namespace" => &mut named.db_namespace,
                b"db.name" => &mut named.db_name,
                b"db.system" => &mut named.db_system,
                b"db.system.name" => &mut named.db_system_name,
                b"peer.service" => &mut named.peer_service,
                b"server.address" => &mut named.server_address,
                b"network.peer.address" => &mut named.network_peer_address,
                b"network.peer.port" => {
                    named.network_peer_port = if let Value::Int(port) = attribute.value { Some(port) } else { None };
                    continue;
                }
                _ => continue,
            };
            *text = match attribute.value {
                Value::String(value) => batch.text_lossy(value),
                _ => Cow::Borrowed(""),
            };
        }
        named
    }

    /// What a client span that names a database calls.
    fn database(&self) -> Option<String> {
        let database = first_of([&self.db_namespace, &self.db_name, &self.db_system, &self.db_system_name])?;
        let address = &self.network_peer_address;
        let peer = self.network_peer_port.map(|port| format!("{address}:{port}"));
        let peer = (!address.is_empty()).then(|| peer.unwrap_or_else(|| address.to_string()));
        Some(first_of([&self.peer_service, &self.server_address]).or(peer).unwrap_or(database))
    }

    /// What it calls by its own account.
    fn peer(&self) -> Option<String> {
        first_of([&self.peer_service, &self.db_name, &self.db_system, &self.db_system_name])
    }
}

fn first_of<const N: usize>(texts: [&str; N]) -> Option<String> {
    texts.into_iter().find(|text| !text.is_empty()).map(str::to_owned)
}
