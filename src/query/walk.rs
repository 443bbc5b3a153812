//! The walk through the slots of a snapshot: those of blocks in partitions that grow, roll-ups of sealed ones. What is
//! wanted of them a `Visitor` says.

use std::ops::Range;
use std::sync::Arc;

use crate::block::ServiceCount;
use crate::latency::{Resolution, Slot, SlotLatency, counting_instant, cover};
use crate::model::{SeriesKey, SpanBatch, TimeRange, UnixNanos};
use crate::store::{EachSlot, Manifest, OpenPartition, RollupWindow, SeriesList, Snapshot, StoreError};

use super::{Coverage, Query, QueryError};

/// Length of a day in nanoseconds: the coarsest slot.
const DAY: u64 = 86_400_000_000_000;
/// Series between two that are wanted that are read with them rather than passed over: about a chunk's worth.
const SERIES_GAP_MAX: u32 = 64;

/// Which slots make up the window.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slots {
    /// The fewest.
    Fewest,
    /// None longer than this, so that the window can be cut between slots of this length: finer ones at its ends alone.
    Of(Resolution),
}

impl Slots {
    fn of(self, range: TimeRange) -> Vec<(Resolution, Range<Slot>)> {
        match self {
            Self::Fewest => cover(range),
            Self::Of(resolution) => {
                let before_start = UnixNanos(range.start.0.saturating_sub(1));
                let first = if range.start.0 == 0 { Slot(0) } else { Slot(resolution.slot_of(before_start).0 + 1) };
                let end = resolution.slot_of(range.end);
                if end <= first {
                    return cover(range);
                }
                let (whole_start, whole_end) = (resolution.start_of(first), resolution.start_of(end));
                let mut runs = cover(TimeRange { start: range.start, end: whole_start });
                runs.push((resolution, first..end));
                runs.extend(cover(TimeRange { start: whole_end, end: range.end }));
                runs
            }
        }
    }
}

/// Says which series are wanted, and takes their slots.
pub(super) trait Visitor {
    /// Whether a block or partition with spans of these services can have such series.
    fn among(&mut self, services: &[ServiceCount]) -> bool;
    /// Numbers of the wanted ones in a list of series, ascending. The slots that follow are of this list.
    fn choose(&mut self, series: &SeriesList) -> Vec<u32>;
    /// Takes one slot of a series, by its position in what was chosen. Its exemplars' blocks are numbered as `Places`
    /// numbers them.
    fn slot(&mut self, chosen: usize, key: &SeriesKey<'_>, start: UnixNanos, latency: &SlotLatency);
}

/// Where the spans are: partitions that were opened, and the heads. Blocks are numbered throughout, those of the heads
/// (their batches) last.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) opens: Vec<Opened>,
    heads: Vec<(Arc<SpanBatch>, UnixNanos)>,
}

/// A partition that was read.
#[derive(Debug)]
pub(super) struct Opened {
    /// Of the partition, see `Partition::identity`.
    pub(super) identity: u64,
    pub(super) open: Arc<OpenPartition>,
    /// Blocks that belong to the snapshot.
    pub(super) visible: u64,
    /// `None` while it grows.
    pub(super) manifest: Option<Arc<Manifest>>,
    /// What its block numbers are raised by.
    pub(super) base: u32,
    /// Wanted spans have left but for pinned traces: exemplars of roll-ups lead to those, and nothing else does.
    pub(super) has_left: bool,
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
    /// The number of the last block of a partition so far.
    fn last_block(&self) -> u32 {
        let last = self.opens.last();
        last.map_or(0, |last| last.base.saturating_add(u32::try_from(last.visible).unwrap_or(u32::MAX)))
    }

    /// Takes in a batch of a head, after all partitions; gives its number.
    pub(super) fn add_head(&mut self, batch: &Arc<SpanBatch>, horizon: UnixNanos) -> u32 {
        self.heads.push((Arc::clone(batch), horizon));
        self.last_block().saturating_add(u32::try_from(self.heads.len()).unwrap_or(u32::MAX))
    }

    /// The batches of the heads with their block numbers and horizons.
    pub(super) fn heads(&self) -> impl Iterator<Item = (u32, &Arc<SpanBatch>, UnixNanos)> {
        let first = self.last_block().saturating_add(1);
        (first..).zip(&self.heads).map(|(block, (batch, horizon))| (block, batch, *horizon))
    }

    /// What a question-wide block number means.
    pub(super) fn place(&self, block: u32) -> Option<Place<'_>> {
        if let Some(at) = block.checked_sub(self.last_block().saturating_add(1)) {
            return self.heads.get(at as usize).map(|(batch, horizon)| Place::Head(batch, *horizon));
        }
        let at = self.opens.partition_point(|opened| opened.base < block).checked_sub(1)?;
        let opened = self.opens.get(at)?;
        Some(Place::Block { opened, block_no: u64::from(block - opened.base) })
    }
}

/// What one walk needs beside its visitor.
pub(super) struct Walk<'a> {
    pub(super) query: &'a Query,
    /// Of whole slots.
    pub(super) range: TimeRange,
    pub(super) slots: Slots,
    pub(super) coverage: &'a mut Coverage,
    pub(super) places: &'a mut Places,
    /// Up to when spans have left, and how long the slots are that their roll-ups had to be answered by.
    pub(super) whole_slots: Option<(UnixNanos, Resolution)>,
}

impl Walk<'_> {
    /// Visits every partition of the snapshot that meets the range. What cannot be read is named in the coverage.
    ///
    /// # Errors
    /// `Starting`.
    pub(super) fn visit(&mut self, snapshot: &Snapshot, visitor: &mut dyn Visitor) -> Result<(), QueryError> {
        let store = self.query.store()?;
        for (partition, visible) in &snapshot.partitions {
            let manifest = partition.manifest();
            let mut has_left = false;
            if let Some(manifest) = &manifest {
                has_left = !manifest.left.is_empty() && visitor.among(&manifest.left);
                if !(visitor.among(&manifest.services) || has_left) || !manifest.meets(self.range) {
                    continue;
                }
            }
            let read = store.open_partition(partition).and_then(|open| {
                let (identity, base) = (partition.identity(), self.places.last_block());
                let (visible, manifest) = (*visible, manifest.clone());
                let opened = Opened { identity, open: Arc::clone(&open), visible, manifest, base, has_left };
                let manifest = opened.manifest.clone();
                self.places.opens.push(opened);
                match &manifest {
                    Some(manifest) => self.rollups(&open, base, manifest, has_left, visitor),
                    None => self.blocks(&open, base, visible, visitor),
                }
            });
            if let Err(error) = read {
                self.query.unreadable(self.coverage, &format!("partition {}", partition.name()), &error);
            }
        }
        if let Some((until, slots)) = self.whole_slots {
            let (until, secs) = (shown(until), slots.secs());
            let reason = format!("before {until} windows are whole slots of {secs} s: only roll-ups are left");
            self.coverage.missing(reason);
        }
        Ok(())
    }

    fn blocks(
        &mut self,
        open: &OpenPartition,
        base: u32,
        visible: u64,
        visitor: &mut dyn Visitor,
    ) -> Result<(), StoreError> {
        let slots = Resolution::TenSeconds.slot_of(self.range.start)..Resolution::TenSeconds.slot_of(self.range.end);
        for (block_no, block) in open.blocks(visible) {
            let Some(block) = block else {
                self.coverage.missing(format!("block {block_no} is damaged"));
                continue;
            };
            let summary = block.summary();
            let counted = |at| counting_instant(at, summary.horizon);
            let meets = self.range.meets(counted(summary.min_start), counted(summary.max_start));
            if !visitor.among(&summary.services) || !meets {
                continue;
            }
            let keys = open.series(block_no)?;
            let wanted = Wanted { chosen: visitor.choose(&keys), keys, base };
            wanted.visit(Resolution::TenSeconds, visitor, |series, each| {
                open.block_slots(block_no, series, slots.clone(), each)
            })?;
        }
        Ok(())
    }

    fn rollups(
        &mut self,
        open: &OpenPartition,
        base: u32,
        manifest: &Manifest,
        has_left: bool,
        visitor: &mut dyn Visitor,
    ) -> Result<(), StoreError> {
        let keys = open.rollup_series()?;
        let wanted = Wanted { chosen: visitor.choose(&keys), keys, base };
        let mut range = clipped(self.range, manifest);
        if let Some(finest) = manifest.finest.filter(|_| has_left) {
            range = self.widened(range, finest, manifest);
        }
        for (resolution, slots) in self.slots.of(range) {
            for window in rollup_windows(resolution, &slots) {
                let table = open.rollup(window);
                wanted.visit(resolution, visitor, |series, each| table.read(series, slots.clone(), each))?;
            }
        }
        Ok(())
    }
}

impl Walk<'_> {
    /// The range in whole slots of the finest roll-ups that are left; says so when it is another one than was asked for.
    fn widened(&mut self, range: TimeRange, finest: Resolution, manifest: &Manifest) -> TimeRange {
        let wide = TimeRange {
            start: finest.start_of(finest.slot_of(range.start)),
            end: finest.start_of(Slot(finest.slot_of(UnixNanos(range.end.0.saturating_sub(1))).0 + 1)),
        };
        let holds = |start, end| manifest.meets(TimeRange { start, end });
        if wide != range && (holds(wide.start, range.start) || holds(range.end, wide.end)) {
            let known = self.whole_slots.get_or_insert((manifest.max_time, finest));
            *known = (known.0.max(manifest.max_time), known.1.max(finest));
        }
        wide
    }
}

/// To the second.
fn shown(at: UnixNanos) -> jiff::Timestamp {
    let secs = i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).unwrap_or(jiff::Timestamp::MAX)
}

/// The series of one list that a visitor chose.
struct Wanted {
    keys: SeriesList,
    /// Ascending.
    chosen: Vec<u32>,
    /// What block numbers are raised by.
    base: u32,
}

impl Wanted {
    /// Gives the visitor the slots that `read` gives of those series. Neighbours are read together.
    fn visit(
        &self,
        resolution: Resolution,
        visitor: &mut dyn Visitor,
        mut read: impl FnMut(Range<u32>, EachSlot<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for run in self.chosen.chunk_by(|a, b| b - a <= SERIES_GAP_MAX) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            read(*first..*last + 1, &mut |series, slot, latency| {
                let Ok(at) = self.chosen.binary_search(&series) else { return };
                let Some(key) = self.keys.get(series as usize) else { return };
                latency.raise_blocks(self.base);
                visitor.slot(at, key, resolution.start_of(slot), latency);
            })?;
        }
        Ok(())
    }
}

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
