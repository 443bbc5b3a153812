//! Everything that counts toward one question: slots of blocks, roll-ups of sealed partitions, rows of the heads. Each
//! is given to a `Sink` once.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::latency::{Exemplar, Resolution, Slot, SlotLatency, counting_instant, cover};
use crate::limits::OVERFLOW;
use crate::model::{SpanBatch, SpanStatus, TimeRange, UnixNanos};
use crate::store::{EachSlot, HeadPart, Manifest, OpenPartition, RollupWindow, SeriesList, Snapshot, StoreError};

use super::selection::{Groups, Selection, Target};
use super::{Coverage, Query, QueryError, coverage_of};

/// Length of a day in nanoseconds: the coarsest slot.
const DAY: u64 = 86_400_000_000_000;

/// Which slots make up the window.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slots {
    /// The fewest.
    Fewest,
    /// All of one length, so that the window can be cut between them.
    Of(Resolution),
}

impl Slots {
    fn of(self, range: TimeRange) -> Vec<(Resolution, Range<Slot>)> {
        match self {
            Self::Fewest => cover(range),
            Self::Of(resolution) => {
                let last = resolution.slot_of(UnixNanos(range.end.0.saturating_sub(1)));
                vec![(resolution, resolution.slot_of(range.start)..Slot(last.0.saturating_add(1)))]
            }
        }
    }
}

/// Sees everything that counts, in no order.
pub(super) trait Sink {
    /// A slot of one series; its exemplars' blocks are numbered as `Places` numbers them.
    fn slot(&mut self, target: Target, start: UnixNanos, is_error: bool, latency: &SlotLatency);
    /// A span of the heads.
    fn span(&mut self, target: Target, at: UnixNanos, is_error: bool, exemplar: Exemplar);
}

/// Where the spans are: partitions that were opened, and the heads. Blocks are numbered throughout, those of the heads
/// (their batches) last.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) opens: Vec<Opened>,
    heads: Vec<(Arc<SpanBatch>, UnixNanos)>,
    heads_from: u32,
}

/// A partition that was read.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) seq: u64,
    pub(super) open: Arc<OpenPartition>,
    /// Blocks that belong to the snapshot.
    pub(super) visible: u64,
    pub(super) manifest: Option<Arc<Manifest>>,
    /// What its block numbers are raised by.
    pub(super) base: u32,
}

/// Where one span is.
#[derive(Debug)]
pub(super) enum Place<'a> {
    Block {
        opened: &'a Opened,
        block_no: u64,
    },
    /// A batch of a head, and the horizon of that.
    Head(&'a SpanBatch, UnixNanos),
}

impl Places {
    /// The batches of the heads with their block numbers and horizons.
    pub(super) fn heads(&self) -> impl Iterator<Item = (u32, &Arc<SpanBatch>, UnixNanos)> {
        (self.heads_from..).zip(&self.heads).map(|(block, (batch, horizon))| (block, batch, *horizon))
    }

    /// What a question-wide block number means.
    pub(super) fn place(&self, block: u32) -> Option<Place<'_>> {
        if let Some(at) = block.checked_sub(self.heads_from) {
            return self.heads.get(at as usize).map(|(batch, horizon)| Place::Head(batch, *horizon));
        }
        let at = self.opens.partition_point(|opened| opened.base < block).checked_sub(1)?;
        let opened = self.opens.get(at)?;
        Some(Place::Block { opened, block_no: u64::from(block - opened.base) })
    }
}

/// What was found for one question.
#[derive(Debug, Default)]
pub(super) struct Contributions {
    pub(super) places: Places,
    pub(super) groups: Groups,
    pub(super) service_is_known: bool,
    pub(super) coverage: Coverage,
}

/// One walk through a snapshot.
struct Walk<'a> {
    query: &'a Query,
    selection: &'a Selection,
    range: TimeRange,
    slots: Slots,
    sink: &'a mut dyn Sink,
    found: Contributions,
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
        let found = Self { coverage: coverage_of(snapshot), ..Self::default() };
        let mut walk = Walk { query, selection, range, slots, sink, found };
        for (partition, visible) in &snapshot.partitions {
            let manifest = partition.manifest();
            if let Some(manifest) = &manifest {
                let known = selection.among(&manifest.services);
                walk.found.service_is_known |= known;
                if !manifest.meets(range) || !known {
                    continue;
                }
            }
            let read = query.store()?.open_partition(partition).and_then(|open| {
                let base = walk.next_base();
                let opened =
                    Opened { seq: partition.seq(), open: Arc::clone(&open), visible: *visible, manifest, base };
                let manifest = opened.manifest.clone();
                walk.found.places.opens.push(opened);
                match manifest {
                    Some(manifest) => walk.rollups(&open, base, &manifest),
                    None => walk.blocks(&open, base, *visible),
                }
            });
            if let Err(error) = read {
                query.unreadable(&mut walk.found.coverage, &format!("partition {}", partition.name()), &error);
            }
        }
        walk.found.places.heads_from = walk.next_base().saturating_add(1);
        walk.heads(&snapshot.heads)?;
        Ok(walk.found)
    }
}

impl Walk<'_> {
    /// The number of the last block so far.
    fn next_base(&self) -> u32 {
        let last = self.found.places.opens.last();
        last.map_or(0, |last| last.base.saturating_add(u32::try_from(last.visible).unwrap_or(u32::MAX)))
    }

    fn blocks(&mut self, open: &OpenPartition, base: u32, visible: u64) -> Result<(), StoreError> {
        for (block_no, block) in open.blocks(visible) {
            let Some(block) = block else {
                self.found.coverage.missing(format!("block {block_no} is damaged"));
                continue;
            };
            let summary = block.summary();
            let known = self.selection.among(&summary.services);
            self.found.service_is_known |= known;
            let (min, max) = (summary.min_start, summary.max_start);
            let (min, max) = (counting_instant(min, summary.horizon), counting_instant(max, summary.horizon));
            if !known || !self.range.meets(min, max) {
                continue;
            }
            let slots =
                Resolution::TenSeconds.slot_of(self.range.start)..Resolution::TenSeconds.slot_of(self.range.end);
            let keys = open.series(block_no)?;
            self.series_runs(&keys, Resolution::TenSeconds, base, |series, each| {
                open.block_slots(block_no, series, slots.clone(), each)
            })?;
        }
        Ok(())
    }

    fn rollups(&mut self, open: &OpenPartition, base: u32, manifest: &Manifest) -> Result<(), StoreError> {
        let keys = open.rollup_series()?;
        for (resolution, slots) in self.slots.of(clipped(self.range, manifest)) {
            for window in rollup_windows(resolution, &slots) {
                let table = open.rollup(window);
                self.series_runs(&keys, resolution, base, |series, each| table.read(series, slots.clone(), each))?;
            }
        }
        Ok(())
    }

    /// Gives the sink the slots that `read` gives, of the series that count.
    fn series_runs(
        &mut self,
        keys: &SeriesList,
        resolution: Resolution,
        base: u32,
        mut read: impl FnMut(Range<u32>, EachSlot<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let targets = self.selection.targets(keys, &mut self.found.groups);
        let Self { sink, found, .. } = self;
        // Neighbours are read together: those of a service, and apart from them its families in a block.
        for run in targets.chunk_by(|(a, _), (b, _)| b - a <= SERIES_GAP_MAX) {
            let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { continue };
            read(*first..*last + 1, &mut |series, slot, latency| {
                let Ok(at) = run.binary_search_by_key(&series, |(number, _)| *number) else { return };
                let (Some((_, target)), Some(key)) = (run.get(at), keys.get(series as usize)) else { return };
                latency.raise_blocks(base);
                let is_overflow = key.peel.as_ref().is_some_and(|peel| peel.value == OVERFLOW);
                if !target.whole && is_overflow {
                    found.coverage.missing(OVERFLOW_REASON.to_owned());
                }
                sink.slot(*target, resolution.start_of(slot), key.status == SpanStatus::Error, latency);
            })?;
        }
        Ok(())
    }

    /// The heads have no histograms: their rows are looked at, each span once.
    fn heads(&mut self, heads: &[HeadPart]) -> Result<(), QueryError> {
        let conventions = self.query.conventions()?;
        let mut seen = HashSet::new();
        for head in heads {
            for batch in &head.batches {
                let block = self.found.places.heads_from + u32::try_from(self.found.places.heads.len()).unwrap_or(0);
                self.found.places.heads.push((Arc::clone(batch), head.horizon));
                let of_service = self.selection.scopes_of_service(batch);
                let mut groups_of: HashMap<u32, Vec<u32>> = HashMap::new();
                for (row, span) in (0..).zip(&batch.spans) {
                    if !of_service.get(span.scope as usize).copied().unwrap_or(false) {
                        continue;
                    }
                    self.found.service_is_known = true;
                    let at = counting_instant(span.start_time_unix_nano, head.horizon);
                    let Some(latency) = span.latency() else { continue };
                    let counts = self.range.contains(at) && self.selection.takes_span(batch, span, &conventions);
                    if !counts || !seen.insert(span.key()) {
                        continue;
                    }
                    let exemplar = Exemplar { latency, block, row };
                    let compute = |groups: &mut Groups| self.selection.groups_of(batch, span, &conventions, groups);
                    let groups = if self.selection.is_grouped_by_resource() {
                        let known = groups_of.entry(span.scope);
                        known.or_insert_with(|| compute(&mut self.found.groups)).clone()
                    } else {
                        compute(&mut self.found.groups)
                    };
                    let mut groups = groups.into_iter();
                    let target = Target { whole: true, group: groups.next() };
                    self.sink.span(target, at, span.is_error(), exemplar);
                    for group in groups {
                        let target = Target { whole: false, group: Some(group) };
                        self.sink.span(target, at, span.is_error(), exemplar);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Series between two that count that are read with them rather than passed over: about a chunk's worth.
const SERIES_GAP_MAX: u32 = 64;

const OVERFLOW_REASON: &str =
    "a peel dimension has more values than are kept apart; the others are one group, __overflow__";

/// The range clipped to the days of a partition, so that "all time" is not a million empty slots.
pub(super) fn clipped(range: TimeRange, manifest: &Manifest) -> TimeRange {
    let start = range.start.max(UnixNanos(manifest.min_time.0 / DAY * DAY));
    let end = UnixNanos((manifest.max_time.0 / DAY).saturating_add(1).saturating_mul(DAY));
    TimeRange { start, end: range.end.min(end) }
}

/// The tables that hold these slots.
pub(super) fn rollup_windows(resolution: Resolution, slots: &Range<Slot>) -> impl Iterator<Item = RollupWindow> {
    let last = Slot(slots.end.0.saturating_sub(1));
    let (first, last) = (RollupWindow::of(resolution, slots.start), RollupWindow::of(resolution, last));
    (first.window..=last.window).map(move |window| RollupWindow { resolution, window })
}
