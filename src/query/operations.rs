//! What the spans of a service are called, and which services call which.

use std::collections::{BTreeMap, BTreeSet};

use crate::block::ServiceCount;
use crate::latency::SlotLatency;
use crate::limits::OVERFLOW;
use crate::model::{Connection, SeriesKey, SpanKind, TimeRange};
use crate::store::SeriesList;

use super::walk::{Depth, Places, SlotAt, Slots, Visitor, Walk};
use super::{Coverage, GraphQuestion, Query, QueryError, coverage_of};

/// Names of one answer; a sealed partition keeps 2,000 of a service apart.
const OPERATIONS_MAX: usize = 10_000;

/// A span name of a service, with a kind that spans of this name have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// Span name.
    pub name: String,
    /// One of its kinds.
    pub kind: SpanKind,
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct OperationsAnswer {
    /// By name, then kind; empty when no such service is stored.
    pub operations: Vec<Operation>,
    /// What is missing.
    pub coverage: Coverage,
}

/// Calls from one service to another, whatever their namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCalls {
    /// `service.name` of the client.
    pub client: String,
    /// `service.name` of the server.
    pub server: String,
    /// How often.
    pub count: u64,
    /// How often it failed.
    pub error_count: u64,
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct CallsAnswer {
    /// By client, then server.
    pub calls: Vec<ServiceCalls>,
    /// What is missing.
    pub coverage: Coverage,
}

/// Takes the names of series and passes over their slots.
struct Names<'a> {
    service: &'a str,
    found: BTreeSet<Operation>,
    /// There were more, or some were not kept apart.
    is_cut: bool,
}

impl Names<'_> {
    fn add(&mut self, name: &str, kind: SpanKind) {
        if self.found.len() < OPERATIONS_MAX {
            let _new = self.found.insert(Operation { name: name.to_owned(), kind });
        } else {
            self.is_cut = true;
        }
    }
}

impl Visitor for Names<'_> {
    fn among(&mut self, services: &[ServiceCount]) -> bool {
        services.iter().any(|count| *count.service == *self.service)
    }

    fn choose(&mut self, series: &SeriesList) -> Vec<u32> {
        for number in series.of_service(self.service) {
            let Some(key) = series.get(number as usize).filter(|key| key.family.is_none()) else { continue };
            if key.span_name == OVERFLOW {
                self.is_cut = true;
            } else {
                self.add(&key.span_name, key.kind);
            }
        }
        Vec::new()
    }

    fn slot(&mut self, _chosen: usize, _key: &SeriesKey<'_>, _at: SlotAt, _latency: &SlotLatency) {}

    fn depth(&self) -> Depth {
        Depth::Counts
    }
}

impl Query {
    /// The names of a service's spans, of all that is stored or counted. Cost: the series of every partition that has the
    /// service, and one pass over the heads.
    ///
    /// # Errors
    /// `Starting`.
    pub fn operations(&self, service: &str) -> Result<OperationsAnswer, QueryError> {
        let snapshot = self.store()?.snapshot();
        let (mut coverage, mut places) = (coverage_of(&snapshot), Places::default());
        let mut names = Names { service, found: BTreeSet::new(), is_cut: false };
        let (range, slots) = (TimeRange::ALL, Slots::Fewest);
        Walk { query: self, range, slots, coverage: &mut coverage, places: &mut places, whole_slots: None }
            .visit(&snapshot, &mut names)?;
        for batch in snapshot.heads.iter().flat_map(|head| &head.batches) {
            for span in &batch.spans {
                if batch.service_of(span).1 == service {
                    names.add(&batch.text_lossy(span.name), SpanKind::from(span.kind));
                }
            }
        }
        if names.is_cut {
            coverage.missing(format!("{service} has more span names than are kept apart"));
        }
        Ok(OperationsAnswer { operations: names.found.into_iter().collect(), coverage })
    }

    /// Calls between services that both send spans. Cost: that of `graph`.
    ///
    /// # Errors
    /// `Starting`, `EmptyWindow`.
    pub fn calls(&self, range: TimeRange) -> Result<CallsAnswer, QueryError> {
        let answer = self.graph(&GraphQuestion { range, service: None, quantiles: Vec::new(), exemplars_max: 0 })?;
        let mut counts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for edge in answer.edges {
            match edge.ends.connection {
                Connection::Call | Connection::MessagingSystem => {}
                Connection::Database | Connection::VirtualNode => continue,
            }
            let (count, error_count) = counts.entry((edge.ends.client, edge.ends.server)).or_default();
            *count += edge.server.count;
            *error_count += edge.server.errors;
        }
        let calls = counts.into_iter();
        let calls =
            calls.map(|((client, server), (count, error_count))| ServiceCalls { client, server, count, error_count });
        Ok(CallsAnswer { calls: calls.collect(), coverage: answer.coverage })
    }

    /// Names of what a service calls, databases and services that send no spans among them. Cost: that of `graph`.
    ///
    /// # Errors
    /// `Starting`, `EmptyWindow`.
    pub fn called_by(&self, service: &str, range: TimeRange) -> Result<(BTreeSet<String>, Coverage), QueryError> {
        let service_only = Some(service.to_owned());
        let question = GraphQuestion { range, service: service_only, quantiles: Vec::new(), exemplars_max: 0 };
        let answer = self.graph(&question)?;
        let edges = answer.edges.into_iter().filter(|edge| edge.ends.client == service);
        Ok((edges.map(|edge| edge.ends.server).collect(), answer.coverage))
    }
}
