//! The service graph: who calls whom, how often, how slowly, and how often it fails.

use std::collections::BTreeMap;

use crate::block::ServiceCount;
use crate::latency::{Exemplar, Quantile, SlotLatency};
use crate::model::{Connection, DurationNanos, Family, SeriesKey, SpanKind, SpanStatus, TimeRange};
use crate::store::{Call, SeriesList};

use super::ids::{SpanIds, ids_of};
use super::percentile::Counted;
use super::tally::Tally;
use super::walk::{Depth, Lead, Places, SlotAt, Slots, Visitor, Walk};
use super::{Coverage, Query, QueryError, coverage_of, whole_slots};

/// What is asked.
#[derive(Clone, Debug)]
pub struct GraphQuestion {
    /// By counting instant of the client span; widened to whole 10 s slots.
    pub range: TimeRange,
    /// Only edges from or to this `service.name`.
    pub service: Option<String>,
    /// In the order of the answer.
    pub quantiles: Vec<Quantile>,
    /// Slowest traces per edge.
    pub exemplars_max: usize,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct GraphAnswer {
    /// What was answered: whole slots.
    pub range: TimeRange,
    /// By client, then server.
    pub edges: Vec<Edge>,
    /// What is missing.
    pub coverage: Coverage,
}

/// Two ends and the calls between them.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Who.
    pub ends: EdgeEnds,
    /// The calls as the server saw them; as the client did, where the server sends no spans. Count, failures, latency.
    pub server: Counted,
    /// As the client saw them; none when it sends no spans.
    pub client: Counted,
    /// The slowest calls first.
    pub exemplars: Vec<SpanIds>,
}

/// Who calls whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgeEnds {
    /// `service.namespace` of the client, empty when missing.
    pub client_namespace: String,
    /// `service.name` of the client, or `user`.
    pub client: String,
    /// `service.namespace` of the server, empty when missing.
    pub server_namespace: String,
    /// `service.name` of the server, or what names it.
    pub server: String,
    /// How.
    pub connection: Connection,
}

/// Edges while they are counted: as server and as client.
struct Edges<'a> {
    question: &'a GraphQuestion,
    tallies: BTreeMap<EdgeEnds, [Tally; 2]>,
    /// Of the series that were chosen last.
    chosen: Vec<EdgeEnds>,
}

impl Edges<'_> {
    fn ends(&self, key: &SeriesKey<'_>) -> Option<EdgeEnds> {
        let Some(Family::Edge { namespace, client, connection }) = &key.family else { return None };
        let wanted = |service: &str| service == client || service == key.service;
        let ends = || EdgeEnds {
            client_namespace: namespace.to_string(),
            client: client.to_string(),
            server_namespace: key.namespace.to_string(),
            server: key.service.to_string(),
            connection: *connection,
        };
        self.question.service.as_deref().is_none_or(wanted).then(ends)
    }

    fn tally(&mut self, ends: EdgeEnds, kind: SpanKind) -> &mut Tally {
        let [server, client] = self.tallies.entry(ends).or_insert_with(|| [Tally::sparse(), Tally::sparse()]);
        if kind == SpanKind::Server { server } else { client }
    }

    /// A call that is in no block yet; `place` says where the row of a side is.
    fn call(&mut self, call: &Call, range: TimeRange, place: impl Fn(u32) -> Option<(u32, u32)>) {
        if !range.contains(call.at) {
            return;
        }
        for (kind, side) in [(SpanKind::Server, call.server), (SpanKind::Client, call.client)] {
            let (key, Some(side)) = (call.edge.series(kind), side) else { continue };
            let Some(ends) = self.ends(&key) else { continue };
            let mut slot = SlotLatency::default();
            slot.histogram.record(side.latency);
            let place = side.row.and_then(&place);
            slot.exemplars.extend(place.map(|(block, row)| Exemplar { latency: side.latency, block, row }));
            self.tally(ends, kind).add(&slot, key.status == SpanStatus::Error, Lead::NOWHERE);
        }
    }
}

impl Visitor for Edges<'_> {
    fn among(&mut self, _services: &[ServiceCount]) -> bool {
        // The ends of an edge need not be services that send spans.
        true
    }

    fn choose(&mut self, series: &SeriesList) -> Vec<u32> {
        let edges = (0..).zip(series.iter()).filter_map(|(number, key)| Some((number, self.ends(key)?)));
        let (numbers, chosen): (Vec<u32>, Vec<EdgeEnds>) = edges.unzip();
        self.chosen = chosen;
        numbers
    }

    fn slot(&mut self, chosen: usize, key: &SeriesKey<'_>, _at: SlotAt, latency: &SlotLatency) {
        let Some(ends) = self.chosen.get(chosen).cloned() else { return };
        self.tally(ends, key.kind).add(latency, key.status == SpanStatus::Error, Lead::NOWHERE);
    }

    fn depth(&self) -> Depth {
        if self.question.exemplars_max == 0 { Depth::Histograms } else { Depth::Exemplars }
    }
}

impl Query {
    /// The service graph of a window. Cost: the slots of all edges, and one pass over the heads.
    ///
    /// # Errors
    /// `Starting`, `EmptyWindow`.
    pub fn graph(&self, question: &GraphQuestion) -> Result<GraphAnswer, QueryError> {
        let asked = question.range;
        if asked.end <= asked.start {
            return Err(QueryError::EmptyWindow { start: asked.start.0, end: asked.end.0 });
        }
        let range = whole_slots(asked);
        let store = self.store()?;
        let calls = store.snapshot_of_calls();
        let snapshot = &calls.snapshot;
        let (mut coverage, mut places) = (coverage_of(snapshot), Places::default());
        let mut edges = Edges { question, tallies: BTreeMap::new(), chosen: Vec::new() };
        let slots = Slots::Fewest;
        Walk { query: self, range, slots, coverage: &mut coverage, places: &mut places, whole_slots: None }
            .visit(snapshot, &mut edges)?;
        let mut blocks: Vec<Vec<u32>> = Vec::new();
        for head in &snapshot.heads {
            blocks.push(head.batches.iter().map(|batch| places.add_head(batch, head.horizon)).collect());
        }
        calls.calls_of_heads(&mut |head, rows, call| {
            let place = |row: u32| {
                let row = rows.get(row as usize)?;
                Some((*blocks.get(head)?.get(row.batch as usize)?, row.row))
            };
            edges.call(&call, range, place);
        });
        for [server, client] in edges.tallies.values_mut() {
            if server.count() == 0 {
                server.add_tally(client);
            }
        }
        let slowest = |[server, _]: &[Tally; 2]| -> Vec<Exemplar> {
            server
                .candidates(&(DurationNanos(0)..=DurationNanos(u64::MAX)))
                .into_iter()
                .take(question.exemplars_max)
                .collect()
        };
        let shown: Vec<Vec<Exemplar>> = edges.tallies.values().map(slowest).collect();
        let ids = ids_of(self, &places, shown.iter().flatten(), &mut coverage);
        let edge = |((ends, [server, client]), shown): ((EdgeEnds, [Tally; 2]), &Vec<Exemplar>)| Edge {
            ends,
            server: Counted::without_exemplars(&server, &question.quantiles),
            client: Counted::without_exemplars(&client, &question.quantiles),
            exemplars: shown.iter().filter_map(|one| ids.shown(one)).collect(),
        };
        let edges = edges.tallies.into_iter().zip(&shown).map(edge).collect();
        Ok(GraphAnswer { range, edges, coverage })
    }
}
