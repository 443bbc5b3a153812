//! Everything that many series counted in one window, in one pass: slots of blocks, roll-ups of sealed partitions, rows
//! of the heads. Whoever asks adds it up, so that thousands of series need no histogram each.
//!
//! ```text
//! wanted:  [(sales, checkout, POST /pay, SERVER), (sales, payment, Charge, CLIENT), ..]     all statuses together
//! each:    series 0, UNSET, slots from 10:00:00 on, {120 ms: 3, 121 ms: 9, ..}              blocks, roll-ups
//!          series 1, ERROR, span of 10:40:07, 87 ms                                         heads
//! ```

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::block::ServiceCount;
use crate::latency::{SlotLatency, SparseHistogram, counting_instant};
use crate::model::{
    DurationNanos, Scope, SeriesKey, Span, SpanBatch, SpanKey, SpanKind, SpanStatus, TimeRange, UNKNOWN_SERVICE,
    UnixNanos,
};
use crate::store::{HeadPart, SeriesList, Snapshot};

use super::walk::{Depth, Places, SlotAt, Slots, Visitor, Walk};
use super::{Coverage, Query, QueryError};

/// A series whatever the status of its spans.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SeriesName {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) span_name: String,
    pub(super) kind: SpanKind,
}

impl SeriesName {
    /// The series of a span.
    pub(super) fn of(batch: &SpanBatch, span: &Span) -> Self {
        let (namespace, service) = batch.service_of(span);
        Self {
            namespace: namespace.into_owned(),
            service: service.into_owned(),
            span_name: batch.text_lossy(span.name).into_owned(),
            kind: SpanKind::from(span.kind),
        }
    }
}

/// Something that was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'a> {
    /// Position in the list of wanted series.
    pub(super) series: usize,
    #[cfg_attr(not(test), expect(dead_code, reason = "rates of errors need it, ranks do not"))]
    pub(super) status: SpanStatus,
    /// Start of the slot, or the instant the span is counted at.
    #[cfg_attr(not(test), expect(dead_code, reason = "numbers over time need it, ranks do not"))]
    pub(super) at: UnixNanos,
    pub(super) latency: CountedLatency<'a>,
}

/// One slot of a block or roll-up, or one span of a head.
#[derive(Clone, Copy, Debug)]
pub(super) enum CountedLatency<'a> {
    Slot(&'a SparseHistogram),
    Span(DurationNanos),
}

/// Sees everything that counts, in no order.
pub(super) type EachCounted<'a> = &'a mut dyn FnMut(Counted<'_>);

/// Which series, and when.
#[derive(Debug)]
pub(super) struct SeriesWindow<'a> {
    /// Numbers of the wanted services, by namespace and name.
    services: HashMap<(&'a str, &'a str), usize>,
    /// Span name, kind and position of the wanted series of each service, ascending: to compare with a few costs less than
    /// to hash the names of a whole head.
    series: Vec<Vec<(&'a [u8], SpanKind, usize)>>,
    /// Whole slots.
    range: TimeRange,
}

impl<'a> SeriesWindow<'a> {
    /// `range` is widened to whole slots. No name stands twice in `wanted`.
    pub(super) fn of(wanted: &'a [SeriesName], range: TimeRange) -> Self {
        let mut services = HashMap::new();
        let mut series: Vec<Vec<_>> = Vec::new();
        for (at, name) in wanted.iter().enumerate() {
            let service = *services.entry((name.namespace.as_str(), name.service.as_str())).or_insert(series.len());
            if service == series.len() {
                series.push(Vec::new());
            }
            if let Some(of_service) = series.get_mut(service) {
                of_service.push((name.span_name.as_bytes(), name.kind, at));
            }
        }
        for of_service in &mut series {
            of_service.sort_unstable();
        }
        Self { services, series, range: super::whole_slots(range) }
    }

    /// Calls `each` for all that is stored of these series; what cannot be read is named in the coverage. Cost: the slots
    /// of the window in each block of unsealed partitions, about a hundred slots per series of each sealed one, and one
    /// pass over the heads.
    ///
    /// # Errors
    /// `Starting`.
    pub(super) fn visit(
        &self,
        query: &Query,
        snapshot: &Snapshot,
        coverage: &mut Coverage,
        each: EachCounted<'_>,
    ) -> Result<(), QueryError> {
        let mut chosen = Chosen { window: self, positions: Vec::new(), each };
        let (range, slots, mut places) = (self.range, Slots::Fewest, Places::default());
        Walk { query, range, slots, coverage, places: &mut places, whole_slots: None }.visit(snapshot, &mut chosen)?;
        self.visit_heads(&snapshot.heads, each);
        Ok(())
    }

    fn service(&self, namespace: &str, service: &str) -> Option<usize> {
        self.services.get(&(namespace, service)).copied()
    }

    fn position(&self, service: usize, span_name: &[u8], kind: SpanKind) -> Option<usize> {
        let of_service = self.series.get(service)?;
        let found = of_service.binary_search_by(|(name, of_kind, _)| (*name, *of_kind).cmp(&(span_name, kind))).ok()?;
        of_service.get(found).map(|(.., at)| *at)
    }

    /// The same for a name as it was sent. Wanted names are as shown, so only one that is no UTF-8 looks different there.
    fn position_as_sent(&self, service: usize, span_name: &[u8], kind: SpanKind) -> Option<usize> {
        let same = self.position(service, span_name, kind);
        if same.is_some() || std::str::from_utf8(span_name).is_ok() {
            return same;
        }
        self.position(service, String::from_utf8_lossy(span_name).as_bytes(), kind)
    }

    fn among(&self, services: &[ServiceCount]) -> bool {
        services.iter().any(|count| self.service(&count.namespace, &count.service).is_some())
    }

    /// Heads have no histograms: their rows are looked at, each span once.
    fn visit_heads(&self, heads: &[HeadPart], each: EachCounted<'_>) {
        let mut seen: HashSet<SpanKey> = HashSet::new();
        for head in heads {
            for batch in &head.batches {
                let services = self.services_of_scopes(batch);
                for span in &batch.spans {
                    let at = counting_instant(span.start_time_unix_nano, head.horizon);
                    let Some(Some(service)) = services.get(span.scope as usize) else { continue };
                    let Some(latency) = span.latency().filter(|_| self.range.contains(at)) else { continue };
                    let (name, kind) = (batch.text(span.name), SpanKind::from(span.kind));
                    let Some(series) = self.position_as_sent(*service, name, kind) else { continue };
                    if seen.insert(span.key()) {
                        let status = SpanStatus::from(span.status_code);
                        each(Counted { series, status, at, latency: CountedLatency::Span(latency) });
                    }
                }
            }
        }
    }

    fn services_of_scopes(&self, batch: &SpanBatch) -> Vec<Option<usize>> {
        let of_scope = |scope: &Scope| {
            let resource = batch.resources.get(scope.resource as usize).copied().unwrap_or_default();
            let service = batch.text_lossy(resource.service);
            let service = if service.is_empty() { UNKNOWN_SERVICE } else { &*service };
            self.service(&batch.text_lossy(resource.namespace), service)
        };
        batch.scopes.iter().map(of_scope).collect()
    }
}

/// The wanted ones among the series that the walk comes by.
struct Chosen<'w, 'a> {
    window: &'w SeriesWindow<'a>,
    /// Of the series that were chosen last.
    positions: Vec<usize>,
    each: EachCounted<'w>,
}

impl Visitor for Chosen<'_, '_> {
    fn among(&mut self, services: &[ServiceCount]) -> bool {
        self.window.among(services)
    }

    fn choose(&mut self, series: &SeriesList) -> Vec<u32> {
        let position = |key: &SeriesKey<'_>| {
            let service = self.window.service(&key.namespace, &key.service)?;
            self.window.position(service, key.span_name.as_bytes(), key.kind).filter(|_| key.family.is_none())
        };
        let wanted = (0..).zip(series.iter()).filter_map(|(number, key)| Some((number, position(key)?)));
        let (numbers, positions): (Vec<u32>, Vec<usize>) = wanted.unzip();
        self.positions = positions;
        numbers
    }

    fn slot(&mut self, chosen: usize, key: &SeriesKey<'_>, at: SlotAt, latency: &SlotLatency) {
        let Some(series) = self.positions.get(chosen).copied() else { return };
        let latency = CountedLatency::Slot(&latency.histogram);
        (self.each)(Counted { series, status: key.status, at: at.start, latency });
    }

    fn depth(&self) -> Depth {
        Depth::Histograms
    }
}
