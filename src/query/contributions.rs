//! Everything that counts toward one question about a service: slots, and rows of the heads, each given to a `Sink` once.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::block::ServiceCount;
use crate::latency::{Exemplar, SlotLatency, counting_instant};
use crate::limits::OVERFLOW;
use crate::model::{Conventions, Family, SeriesKey, SpanStatus, TimeRange, UnixNanos};
use crate::store::{HeadPart, SeriesList, Snapshot};

use super::selection::{Grouping, Groups, Selection, Taken, Target};
use super::walk::{Depth, Places, SlotAt, Slots, Visitor, Walk};
use super::{Coverage, Query, QueryError, coverage_of};

const OVERFLOW_REASON: &str =
    "a peel dimension has more values than are kept apart; the others are one group, __overflow__";

const SERVICE_OVERFLOW_REASON: &str =
    "there are more series than are kept apart; spans of the service are counted under the service __overflow__";
const NAME_OVERFLOW_REASON: &str =
    "the service has more span names than are kept apart; the others are one, __overflow__";

/// Sees everything that counts, in no order.
pub(super) trait Sink {
    /// A slot of one series; its exemplars' blocks are numbered as `Places` numbers them.
    fn slot(&mut self, target: Target<'_>, at: SlotAt, is_error: bool, latency: &SlotLatency);
    /// A span of the heads.
    fn span(&mut self, target: Target<'_>, at: UnixNanos, is_error: bool, exemplar: Exemplar);
}

/// What was found for one question.
#[derive(Debug, Default)]
pub(super) struct Contributions {
    pub(super) places: Places,
    pub(super) groups: Groups,
    pub(super) service_is_known: bool,
    pub(super) coverage: Coverage,
}

/// Takes the slots of the series that a selection names.
struct Selected<'a> {
    selection: &'a Selection,
    sink: &'a mut dyn Sink,
    groups: Groups,
    service_is_known: bool,
    /// Of the series that were chosen last.
    taken: Vec<Taken>,
    /// What is counted under `OVERFLOW`, in sentences.
    overflowed: BTreeSet<&'static str>,
}

impl Visitor for Selected<'_> {
    fn among(&mut self, services: &[ServiceCount]) -> bool {
        let known = self.selection.among(services);
        self.service_is_known |= known;
        known
    }

    fn choose(&mut self, series: &SeriesList) -> Vec<u32> {
        self.taken = self.selection.taken(series, &mut self.groups);
        // A service that has a series of its own is not among those that have none.
        let is_overflow = |number: u32| series.get(number as usize).is_some_and(|key| key.family.is_none());
        if self.taken.is_empty() && series.of_service(OVERFLOW).any(is_overflow) {
            let _said = self.overflowed.insert(SERVICE_OVERFLOW_REASON);
        }
        self.taken.iter().map(|taken| taken.number).collect()
    }

    fn slot(&mut self, chosen: usize, key: &SeriesKey<'_>, at: SlotAt, latency: &SlotLatency) {
        let Some(taken) = self.taken.get(chosen) else { return };
        let is_over = |(_, value): &(Cow<'_, str>, Cow<'_, str>)| value == OVERFLOW;
        if matches!(&key.family, Some(Family::Peel { attributes }) if attributes.iter().any(is_over)) {
            let _said = self.overflowed.insert(OVERFLOW_REASON);
        }
        if key.span_name == OVERFLOW && self.selection.by == Some(Grouping::SpanName) {
            let _said = self.overflowed.insert(NAME_OVERFLOW_REASON);
        }
        self.sink.slot(taken.target(), at, key.status == SpanStatus::Error, latency);
    }

    fn depth(&self) -> Depth {
        Depth::Exemplars
    }
}

impl Contributions {
    /// Walks through everything that meets `range`, which is of whole slots.
    pub(super) fn collect(
        query: &Query,
        snapshot: &Snapshot,
        selection: &Selection,
        range: TimeRange,
        slots: Slots,
        sink: &mut dyn Sink,
    ) -> Result<Self, QueryError> {
        let (mut coverage, mut places) = (coverage_of(snapshot), Places::default());
        let mut selected = Selected {
            selection,
            sink,
            groups: Groups::default(),
            service_is_known: false,
            taken: Vec::new(),
            overflowed: BTreeSet::new(),
        };
        let mut walk = Walk { query, range, slots, coverage: &mut coverage, places: &mut places, whole_slots: None };
        walk.visit(snapshot, &mut selected)?;
        selected.heads(&snapshot.heads, range, &*query.conventions()?, &mut places);
        let Selected { groups, service_is_known, overflowed, .. } = selected;
        for reason in overflowed {
            coverage.missing(reason.to_owned());
        }
        Ok(Self { places, groups, service_is_known, coverage })
    }
}

impl Selected<'_> {
    /// The heads have no histograms: their rows are looked at, each span once.
    fn heads(&mut self, heads: &[HeadPart], range: TimeRange, conventions: &Conventions, places: &mut Places) {
        let mut seen = HashSet::new();
        for (head, batch) in heads.iter().flat_map(|head| head.batches.iter().map(move |batch| (head, batch))) {
            let block = places.add_head(batch, head.horizon);
            let of_service = self.selection.scopes_of_service(batch);
            if !of_service.contains(&true) {
                continue;
            }
            let mut groups_of: HashMap<u32, Vec<u32>> = HashMap::new();
            for (row, span) in (0..).zip(&batch.spans) {
                if !of_service.get(span.scope as usize).copied().unwrap_or(false) {
                    continue;
                }
                self.service_is_known = true;
                let at = counting_instant(span.start_time_unix_nano, head.horizon);
                let Some(latency) = span.latency() else { continue };
                let counts = range.contains(at) && self.selection.spans.takes_span(batch, span, conventions);
                if !counts || !seen.insert(span.key()) {
                    continue;
                }
                let exemplar = Exemplar { latency, block, row };
                let mut compute = || self.selection.groups_of(batch, span, conventions, &mut self.groups);
                let computed;
                let groups = if self.selection.is_grouped_by_resource() {
                    &*groups_of.entry(span.scope).or_insert_with(compute)
                } else {
                    computed = compute();
                    &computed
                };
                self.sink.span(Target { whole: true, groups }, at, span.is_error(), exemplar);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpanKind;
    use crate::query::SpansWanted;
    use crate::query::walk::Lead;
    use std::sync::Arc;

    struct Nobody;

    impl Sink for Nobody {
        fn slot(&mut self, _: Target<'_>, _: SlotAt, _: bool, _: &SlotLatency) {}
        fn span(&mut self, _: Target<'_>, _: UnixNanos, _: bool, _: Exemplar) {}
    }

    fn key(service: &'static str, span_name: &'static str) -> SeriesKey<'static> {
        SeriesKey {
            namespace: "".into(),
            service: service.into(),
            span_name: span_name.into(),
            kind: SpanKind::Server,
            status: SpanStatus::Unset,
            entry: true,
            family: None,
        }
    }

    /// What an answer about `cart` by name says when a partition has these series.
    fn said(series: &[SeriesKey<'static>]) -> Vec<&'static str> {
        let by = Some(Grouping::SpanName);
        let selection = Selection { service: "cart".into(), namespace: None, spans: SpansWanted::Entries, by };
        let (sink, groups, taken) = (&mut Nobody, Groups::default(), Vec::new());
        let overflowed = BTreeSet::new();
        let mut selected = Selected { selection: &selection, sink, groups, service_is_known: true, taken, overflowed };
        let list: SeriesList = series.iter().cloned().map(Arc::new).collect();
        for (chosen, number) in selected.choose(&list).into_iter().enumerate() {
            let at = SlotAt { start: UnixNanos(0), lead: Lead::NOWHERE };
            selected.slot(chosen, &series[number as usize], at, &SlotLatency::default());
        }
        selected.overflowed.into_iter().collect()
    }

    #[test]
    fn what_is_counted_under_another_name_is_said() {
        assert_eq!(said(&[key("cart", "GET /"), key("shop", "GET /")]), [""; 0]);
        assert_eq!(said(&[key("cart", "GET /"), key("cart", OVERFLOW)]), [NAME_OVERFLOW_REASON]);
        assert_eq!(said(&[key(OVERFLOW, OVERFLOW), key("shop", "GET /")]), [SERVICE_OVERFLOW_REASON]);
        assert_eq!(said(&[key(OVERFLOW, OVERFLOW), key("cart", "GET /")]), [""; 0], "it has its own");
    }
}
