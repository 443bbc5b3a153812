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
use std::ops::Range;

use crate::block::ServiceCount;
use crate::latency::{Resolution, Slot, SparseHistogram, counting_instant, cover};
use crate::model::{
    DurationNanos, Scope, SeriesKey, SpanBatch, SpanKey, SpanKind, SpanStatus, TimeRange, UNKNOWN_SERVICE, UnixNanos,
};
use crate::store::{EachSlot, HeadPart, Manifest, OpenPartition, RollupWindow, SeriesList, Snapshot, StoreError};

use super::{Coverage, Query, QueryError};

/// Length of a day in nanoseconds: the coarsest slot.
const DAY: u64 = 86_400_000_000_000;

/// A series whatever the status of its spans.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SeriesName {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) span_name: String,
    pub(super) kind: SpanKind,
}

impl From<&SeriesKey<'_>> for SeriesName {
    fn from(key: &SeriesKey<'_>) -> Self {
        Self {
            namespace: key.namespace.to_string(),
            service: key.service.to_string(),
            span_name: key.span_name.to_string(),
            kind: key.kind,
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
        for (partition, visible) in &snapshot.partitions {
            let manifest = partition.manifest();
            if manifest.as_ref().is_some_and(|manifest| !self.is_in(manifest)) {
                continue;
            }
            let read = query.store()?.open_partition(partition).and_then(|open| match &manifest {
                Some(manifest) => self.visit_rollups(&open, manifest, each),
                None => self.visit_blocks(&open, *visible, coverage, each),
            });
            if let Err(error) = read {
                query.unreadable(coverage, &format!("partition {}", partition.name()), &error);
            }
        }
        self.visit_heads(&snapshot.heads, each);
        Ok(())
    }

    fn is_in(&self, manifest: &Manifest) -> bool {
        manifest.meets(self.range) && self.among(&manifest.services)
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

    fn visit_blocks(
        &self,
        open: &OpenPartition,
        visible: u64,
        coverage: &mut Coverage,
        each: EachCounted<'_>,
    ) -> Result<(), StoreError> {
        let slots = Resolution::TenSeconds.slot_of(self.range.start)..Resolution::TenSeconds.slot_of(self.range.end);
        for (block_no, block) in open.blocks(visible) {
            let Some(block) = block else {
                coverage.missing(format!("block {block_no} is damaged"));
                continue;
            };
            let summary = block.summary();
            let counted = |at| counting_instant(at, summary.horizon);
            if !self.range.meets(counted(summary.min_start), counted(summary.max_start))
                || !self.among(&summary.services)
            {
                continue;
            }
            let found = Numbered::of(self, open.series(block_no)?);
            found.visit(Resolution::TenSeconds, each, |series, each| {
                open.block_slots(block_no, series, slots.clone(), each)
            })?;
        }
        Ok(())
    }

    fn visit_rollups(
        &self,
        open: &OpenPartition,
        manifest: &Manifest,
        each: EachCounted<'_>,
    ) -> Result<(), StoreError> {
        let found = Numbered::of(self, open.rollup_series()?);
        // Clipped to the days of the partition, so that "all time" is not a million empty slots.
        let start = self.range.start.max(UnixNanos(manifest.min_time.0 / DAY * DAY));
        let end = UnixNanos((manifest.max_time.0 / DAY).saturating_add(1).saturating_mul(DAY));
        let range = TimeRange { start, end: self.range.end.min(end) };
        for (resolution, slots) in cover(range) {
            let last = Slot(slots.end.0.saturating_sub(1));
            let (first, last) = (RollupWindow::of(resolution, slots.start), RollupWindow::of(resolution, last));
            for window in first.window..=last.window {
                let table = open.rollup(RollupWindow { resolution, window });
                found.visit(resolution, each, |series, each| table.read(series, slots.clone(), each))?;
            }
        }
        Ok(())
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

/// The wanted ones among the series of a block or of a partition's roll-ups.
struct Numbered {
    keys: SeriesList,
    /// From the first that is wanted to the last, by their number there.
    numbers: Vec<Option<usize>>,
    series: Range<u32>,
}

impl Numbered {
    fn of(window: &SeriesWindow<'_>, keys: SeriesList) -> Self {
        let position = |key: &SeriesKey<'_>| {
            window.position(window.service(&key.namespace, &key.service)?, key.span_name.as_bytes(), key.kind)
        };
        let mut numbers: Vec<Option<usize>> = keys.iter().map(|key| position(key)).collect();
        let first = numbers.iter().position(Option::is_some).unwrap_or(numbers.len());
        let end = numbers.iter().rposition(Option::is_some).map_or(first, |last| last + 1);
        numbers.truncate(end);
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { keys, series: number(first)..number(end), numbers }
    }

    /// Gives on what `read` finds of those series.
    fn visit(
        &self,
        resolution: Resolution,
        each: EachCounted<'_>,
        read: impl FnOnce(Range<u32>, EachSlot<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.series.is_empty() {
            return Ok(());
        }
        read(self.series.clone(), &mut |number, slot, latency| {
            let at = number as usize;
            let Some((series, key)) = self.numbers.get(at).copied().flatten().zip(self.keys.get(at)) else { return };
            let at = resolution.start_of(slot);
            each(Counted { series, status: key.status, at, latency: CountedLatency::Slot(&latency.histogram) });
        })
    }
}
