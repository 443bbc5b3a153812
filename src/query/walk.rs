//! The walk through the slots of a snapshot: those of blocks in partitions that grow, roll-ups of sealed ones. What is
//! wanted of them a `Visitor` says.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::block::{BlockSummary, ServiceCount};
use crate::latency::{Resolution, SeriesWanted, Slot, SlotLatency, Take, counting_instant, cover};
use crate::model::{SeriesKey, SpanBatch, TimeRange, UnixNanos};
use crate::store::{Manifest, OpenPartition, RollupWindow, SeriesList, Snapshot, StoreError};

use super::{Coverage, Query, QueryError};

/// Length of a day in nanoseconds: the coarsest slot.
const DAY: u64 = 86_400_000_000_000;

/// Which slots make up the window.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slots {
    /// The fewest.
    Fewest,
    /// None longer than this, so that the window can be cut between slots of this length: finer ones at its ends alone.
    Of(Resolution),
}

impl Slots {
    /// Where no shorter slots are left than these.
    fn left(self, finest: Resolution) -> Self {
        match self {
            Self::Fewest => self,
            Self::Of(resolution) => Self::Of(resolution.max(finest)),
        }
    }

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

/// How much of each slot is wanted: what is not costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Counts,
    Histograms,
    Exemplars,
}

/// Says which series are wanted, and takes their slots.
pub(super) trait Visitor {
    /// Whether a block or partition with spans of these services can have such series.
    fn among(&mut self, services: &[ServiceCount]) -> bool;
    /// Numbers of the wanted ones in a list of series, ascending. The slots that follow are of this list.
    fn choose(&mut self, series: &SeriesList) -> Vec<u32>;
    /// Takes one slot of a series, by its position in what was chosen. Its exemplars' blocks are numbered as `Places`
    /// numbers them.
    fn slot(&mut self, chosen: usize, key: &SeriesKey<'_>, at: SlotAt, latency: &SlotLatency);
    /// How much of them is wanted.
    fn depth(&self) -> Depth;
    /// Takes, instead, how much some slots of a series counted, ascending; only of a visitor who wants counts alone.
    fn counts(&mut self, _chosen: usize, _key: &SeriesKey<'_>, _resolution: Resolution, _counts: &[(Slot, u64)]) {}
}

/// When a slot begins, and where it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotAt {
    pub(super) start: UnixNanos,
    pub(super) lead: Lead,
}

/// Leads back to a slot of one series that was read: what it counted is stored there. Higher ones are of longer slots,
/// for which more exemplars were kept on the way, and of those of newer ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lead {
    /// Number of the slot among those that were read; 0 leads nowhere.
    slot: u32,
    /// Number of the series in the table.
    series: u32,
}

impl Lead {
    pub(super) const NOWHERE: Self = Self { slot: 0, series: 0 };
}

/// What a lead leads to.
#[derive(Debug)]
pub(super) struct Led<'a> {
    pub(super) opened: &'a Opened,
    pub(super) slots: LedSlots,
    pub(super) series: u32,
}

/// Slots of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) enum LedSlots {
    /// One of the roll-ups.
    Rollup(Resolution, Slot),
    /// Those of a block that lie in the window.
    Block(u64),
}

impl LedSlots {
    /// What the numbers of such slots begin with.
    fn kind(self) -> u32 {
        match self {
            Self::Block(_) => 1,
            Self::Rollup(resolution, _) => 2 + resolution as u32,
        }
    }
}

/// Bits of a slot's number behind its kind.
const NUMBER_BITS: u32 = 29;

/// Where the spans are: partitions that were opened, and the heads. Blocks are numbered throughout, those of the heads
/// (their batches) last.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) opens: Vec<Opened>,
    /// By the number of the first slot: the position among the open partitions, and that slot.
    numbered: BTreeMap<u32, (usize, LedSlots)>,
    /// How many slots have a number.
    n_numbered: u32,
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

    /// Numbers `n` slots of the partition that was opened last, of which `slots` is the first, and gives its number; 0 when
    /// there are too many.
    fn number(&mut self, slots: LedSlots, n: u64) -> u32 {
        let behind = u32::try_from(n).ok().and_then(|n| self.n_numbered.checked_add(n));
        let Some(behind) = behind.filter(|behind| behind >> NUMBER_BITS == 0) else { return 0 };
        let first = (slots.kind() << NUMBER_BITS) | self.n_numbered;
        self.n_numbered = behind;
        let _new = self.numbered.insert(first, (self.opens.len().saturating_sub(1), slots));
        first
    }

    /// Where a lead leads; `None` when nowhere.
    pub(super) fn led(&self, lead: Lead) -> Option<Led<'_>> {
        let (first, (opened, slots)) = self.numbered.range(..=lead.slot).next_back()?;
        let slots = match *slots {
            LedSlots::Rollup(resolution, slot) => {
                LedSlots::Rollup(resolution, Slot(slot.0 + u64::from(lead.slot - first)))
            }
            LedSlots::Block(block_no) => LedSlots::Block(block_no),
        };
        Some(Led { opened: self.opens.get(*opened)?, slots, series: lead.series })
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
            let (first, last) = counted_between(summary);
            if !visitor.among(&summary.services) || !self.range.meets(first, last) {
                continue;
            }
            let keys = open.series(block_no)?;
            let wanted = Wanted { chosen: visitor.choose(&keys), keys, base };
            let number = self.places.number(LedSlots::Block(block_no), 1);
            wanted.visit(Resolution::TenSeconds, &|_| number, visitor, |series, take| {
                open.block_slots(block_no, series, slots.clone(), take)
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
        let (mut range, mut wanted_slots) = (clipped(self.range, manifest), self.slots);
        if let Some(finest) = manifest.finest.filter(|_| has_left) {
            range = self.widened(range, finest, manifest);
            wanted_slots = wanted_slots.left(finest);
        }
        for (resolution, slots) in wanted_slots.of(range) {
            // What has left is found nowhere.
            let n = slots.end.0.saturating_sub(slots.start.0);
            let first = (!has_left).then(|| self.places.number(LedSlots::Rollup(resolution, slots.start), n));
            let first = first.filter(|first| *first != 0);
            let number = |slot: Slot| Some(first? + u32::try_from(slot.0.checked_sub(slots.start.0)?).ok()?);
            for window in rollup_windows(resolution, &slots) {
                let table = open.rollup(window);
                wanted.visit(resolution, &|slot| number(slot).unwrap_or(0), visitor, |series, take| {
                    table.read(series, slots.clone(), take)
                })?;
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

/// Between which instants the spans of a block are counted, those without a start among them.
fn counted_between(summary: &BlockSummary) -> (UnixNanos, UnixNanos) {
    let counted = |at: UnixNanos| counting_instant(at, summary.horizon);
    let came = if summary.min_index_time.is_unset() { summary.horizon } else { UnixNanos(0) };
    let first = counted(summary.min_start.min(summary.min_index_time));
    (first, counted(summary.max_start.max(summary.max_index_time)).max(came))
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
    /// Gives the visitor the slots that `read` gives of those series; `number` numbers each.
    fn visit(
        &self,
        resolution: Resolution,
        number: &dyn Fn(Slot) -> u32,
        visitor: &mut dyn Visitor,
        read: impl FnOnce(&SeriesWanted<'_>, Take<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.chosen.is_empty() {
            return Ok(());
        }
        let wanted = SeriesWanted::Chosen(&self.chosen);
        let place = |series: u32| Some((self.chosen.binary_search(&series).ok()?, self.keys.get(series as usize)?));
        let depth = visitor.depth();
        let mut slot_of = |series: u32, slot, latency: &mut SlotLatency| {
            let Some((chosen, key)) = place(series) else { return };
            latency.raise_blocks(self.base);
            let at = SlotAt { start: resolution.start_of(slot), lead: Lead { slot: number(slot), series } };
            visitor.slot(chosen, key, at, latency);
        };
        match depth {
            Depth::Histograms => read(&wanted, Take::Histograms(&mut slot_of)),
            Depth::Exemplars => read(&wanted, Take::Exemplars(&mut slot_of)),
            Depth::Counts => read(
                &wanted,
                Take::Counts(&mut |series, counts| {
                    if let Some((chosen, key)) = place(series) {
                        visitor.counts(chosen, key, resolution, counts);
                    }
                }),
            ),
        }
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
