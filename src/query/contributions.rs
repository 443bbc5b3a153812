//! Everything that counts toward one question: slots of blocks, roll-ups of sealed partitions, rows of the head.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::block::ServiceCount;
use crate::latency::{Bucket, Histogram, Resolution, Slot, SlotLatency, counting_instant, cover};
use crate::model::{DurationNanos, SeriesKey, TimeRange, UNKNOWN_SERVICE, UnixNanos, is_service_entry};
use crate::store::{EachSlot, HeadPart, Manifest, OpenPartition, RollupWindow, SeriesList, Snapshot, StoreError};

use super::{Coverage, PercentileQuestion, Query, QueryError, coverage_of};

/// Length of a day in nanoseconds: the coarsest slot.
const DAY: u64 = 86_400_000_000_000;

/// What was found for one question.
#[derive(Debug)]
pub(super) struct Contributions {
    pub(super) stored: Vec<Stored>,
    pub(super) head: Vec<HeadRow>,
    pub(super) heads: Vec<HeadPart>,
    pub(super) opens: Vec<Opened>,
    pub(super) wanted: Wanted,
    pub(super) service_is_known: bool,
    pub(super) coverage: Coverage,
    /// Up to when spans have left, and how long the slots are that their roll-ups had to be answered by.
    whole_slots: Option<(UnixNanos, Resolution)>,
}

/// A partition that was read.
#[derive(Debug)]
pub(super) struct Opened {
    /// Of the partition.
    pub(super) identity: u64,
    pub(super) open: Arc<OpenPartition>,
    /// Blocks that belong to the snapshot.
    pub(super) visible: u64,
    /// The spans of the service have left but for pinned traces: exemplars of roll-ups lead to those, and nothing else does.
    pub(super) has_left: bool,
}

/// One slot of one series.
#[derive(Debug)]
pub(super) struct Stored {
    /// Which of `opens`.
    pub(super) open: usize,
    /// The block it comes from; `None` for a roll-up.
    pub(super) block_no: Option<u64>,
    /// The instants it counts.
    pub(super) slot: TimeRange,
    pub(super) latency: SlotLatency,
}

/// One span of the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadRow {
    pub(super) head: usize,
    pub(super) batch: usize,
    pub(super) row: u32,
    pub(super) latency: DurationNanos,
}

/// Which series count.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    service: String,
    namespace: Option<String>,
    range: TimeRange,
}

impl Wanted {
    fn names(&self, namespace: &str, service: &str) -> bool {
        self.service == service && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
    }

    /// The same for names as a batch holds them: valid UTF-8, empty when missing.
    fn names_bytes(&self, namespace: &[u8], service: &[u8]) -> bool {
        let service = if service.is_empty() { UNKNOWN_SERVICE.as_bytes() } else { service };
        self.service.as_bytes() == service
            && self.namespace.as_ref().is_none_or(|wanted| wanted.as_bytes() == namespace)
    }

    /// Whether spans of this series count toward the service's latency.
    pub(super) fn takes(&self, key: &SeriesKey<'_>) -> bool {
        key.entry && self.names(&key.namespace, &key.service)
    }

    /// Whether spans counted at this instant are asked for.
    pub(super) fn counts(&self, at: UnixNanos) -> bool {
        self.range.contains(at)
    }

    fn among<'a>(&self, services: impl IntoIterator<Item = &'a ServiceCount>) -> bool {
        services.into_iter().any(|count| self.names(&count.namespace, &count.service))
    }

    /// The smallest run of series that holds all that count.
    pub(super) fn series(&self, series: &SeriesList) -> Range<u32> {
        let mut taken = (0..).zip(series.iter()).filter(|(_, key)| self.takes(key)).map(|(number, _)| number);
        let Some(first) = taken.next() else { return 0..0 };
        first..taken.last().unwrap_or(first) + 1
    }
}

/// To the second.
fn shown(at: UnixNanos) -> jiff::Timestamp {
    let secs = i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).unwrap_or(jiff::Timestamp::MAX)
}

impl Contributions {
    pub(super) fn collect(
        query: &Query,
        snapshot: &Snapshot,
        question: &PercentileQuestion,
        range: TimeRange,
    ) -> Result<Self, QueryError> {
        let wanted = Wanted { service: question.service.clone(), namespace: question.namespace.clone(), range };
        let mut found = Self {
            stored: Vec::new(),
            head: Vec::new(),
            heads: snapshot.heads.clone(),
            opens: Vec::new(),
            wanted,
            service_is_known: false,
            coverage: coverage_of(snapshot),
            whole_slots: None,
        };
        for (partition, visible) in &snapshot.partitions {
            let manifest = partition.manifest();
            if let Some(manifest) = &manifest {
                found.service_is_known |= found.wanted.among(manifest.counted_services());
                if !manifest.meets(range) || !found.wanted.among(manifest.counted_services()) {
                    continue;
                }
            }
            let read = query.store()?.open_partition(partition).and_then(|open| {
                let has_left = manifest.as_ref().is_some_and(|manifest| found.wanted.among(&manifest.left));
                let (identity, visible) = (partition.identity(), *visible);
                found.opens.push(Opened { identity, open: Arc::clone(&open), visible, has_left });
                match &manifest {
                    Some(manifest) => found.add_rollups(&open, manifest),
                    None => found.add_blocks(&open, visible),
                }
            });
            if let Err(error) = read {
                query.unreadable(&mut found.coverage, &format!("partition {}", partition.name()), &error);
            }
        }
        if let Some((until, slots)) = found.whole_slots {
            let (until, secs) = (shown(until), slots.secs());
            found
                .coverage
                .missing(format!("before {until} windows are whole slots of {secs} s: only roll-ups are left"));
        }
        found.add_heads();
        Ok(found)
    }

    /// All of it in one histogram.
    pub(super) fn add_to(&self, histogram: &mut Histogram) {
        for stored in &self.stored {
            histogram.add(&stored.latency.histogram);
        }
        for row in &self.head {
            histogram.record(row.latency);
        }
    }

    fn add_blocks(&mut self, open: &OpenPartition, visible: u64) -> Result<(), StoreError> {
        for (block_no, block) in open.blocks(visible) {
            let Some(block) = block else {
                self.coverage.missing(format!("block {block_no} is damaged"));
                continue;
            };
            let summary = block.summary();
            self.service_is_known |= self.wanted.among(&summary.services);
            let (min, max) = (summary.min_start, summary.max_start);
            let (min, max) = (counting_instant(min, summary.horizon), counting_instant(max, summary.horizon));
            if !self.wanted.range.meets(min, max) || !self.wanted.among(&summary.services) {
                continue;
            }
            let keys = open.series(block_no)?;
            let series = self.wanted.series(&keys);
            let range = self.wanted.range;
            let slots = Resolution::TenSeconds.slot_of(range.start)..Resolution::TenSeconds.slot_of(range.end);
            self.add_slots(&keys, Resolution::TenSeconds, Some(block_no), |each| {
                open.block_slots(block_no, series, slots, each)
            })?;
        }
        Ok(())
    }

    fn add_rollups(&mut self, open: &OpenPartition, manifest: &Manifest) -> Result<(), StoreError> {
        let keys = open.rollup_series()?;
        let series = self.wanted.series(&keys);
        // Clipped to the days of the partition, so that "all time" is not a million empty slots.
        let start = self.wanted.range.start.max(UnixNanos(manifest.min_time.0 / DAY * DAY));
        let end = UnixNanos((manifest.max_time.0 / DAY).saturating_add(1).saturating_mul(DAY));
        let mut range = TimeRange { start, end: self.wanted.range.end.min(end) };
        if let Some(finest) = manifest.finest.filter(|_| self.wanted.among(&manifest.left)) {
            range = self.widened(range, finest, manifest);
        }
        for (resolution, slots) in cover(range) {
            let last = Slot(slots.end.0.saturating_sub(1));
            let (first, last) = (RollupWindow::of(resolution, slots.start), RollupWindow::of(resolution, last));
            for window in first.window..=last.window {
                let table = open.rollup(RollupWindow { resolution, window });
                self.add_slots(&keys, resolution, None, |each| table.read(series.clone(), slots.clone(), each))?;
            }
        }
        Ok(())
    }

    /// The range in whole slots of the finest roll-ups that are left; says so when it is another one than was asked for.
    fn widened(&mut self, range: TimeRange, finest: Resolution, manifest: &Manifest) -> TimeRange {
        let wide = TimeRange {
            start: finest.start_of(finest.slot_of(range.start)),
            end: finest.start_of(Slot(finest.slot_of(UnixNanos(range.end.0.saturating_sub(1))).0 + 1)),
        };
        if wide != range
            && (manifest.meets(TimeRange { start: wide.start, end: range.start })
                || manifest.meets(TimeRange { start: range.end, end: wide.end }))
        {
            let known = self.whole_slots.get_or_insert((manifest.max_time, finest));
            *known = (known.0.max(manifest.max_time), known.1.max(finest));
        }
        wide
    }

    /// Takes the slots that `read` gives, of the series that count.
    fn add_slots(
        &mut self,
        keys: &SeriesList,
        resolution: Resolution,
        block_no: Option<u64>,
        read: impl FnOnce(EachSlot<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let open = self.opens.len().saturating_sub(1);
        let (wanted, stored) = (&self.wanted, &mut self.stored);
        read(&mut |series, slot, latency| {
            let slot = TimeRange { start: resolution.start_of(slot), end: resolution.start_of(Slot(slot.0 + 1)) };
            if keys.get(series as usize).is_some_and(|key| wanted.takes(key)) {
                stored.push(Stored { open, block_no, slot, latency: latency.clone() });
            }
        })
    }

    /// The head has no histograms: its rows are looked at, each span once.
    fn add_heads(&mut self) {
        let mut seen = HashSet::new();
        let heads = self.heads.clone();
        for (head_no, head) in heads.iter().enumerate() {
            for (batch_no, batch) in head.batches.iter().enumerate() {
                let of_service: Vec<bool> = (batch.scopes.iter())
                    .map(|scope| batch.resources.get(scope.resource as usize).copied().unwrap_or_default())
                    .map(|resource| {
                        self.wanted.names_bytes(batch.text(resource.namespace), batch.text(resource.service))
                    })
                    .collect();
                for (row, span) in (0..).zip(&batch.spans) {
                    if !of_service.get(span.scope as usize).copied().unwrap_or(false) {
                        continue;
                    }
                    self.service_is_known = true;
                    let at = counting_instant(span.start_time_unix_nano, head.horizon);
                    let Some(latency) = span.latency() else { continue };
                    if self.wanted.range.contains(at) && is_service_entry(batch, span) && seen.insert(span.key()) {
                        self.head.push(HeadRow { head: head_no, batch: batch_no, row, latency });
                    }
                }
            }
        }
    }

    /// The stored slots that counted something in `bucket`.
    pub(super) fn slots_with(&self, bucket: Bucket) -> impl Iterator<Item = &Stored> {
        self.stored.iter().filter(move |stored| stored.latency.histogram.contains(bucket))
    }
}
