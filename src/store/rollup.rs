//! Roll-ups of a partition: its latency slots merged over all blocks, at 10 s and four coarser resolutions, with series
//! numbered for the whole partition. Built once, when the partition is sealed.
//!
//! One table holds the slots of one window, so that a question about the edge of a window reads little:
//! table number = resolution:1 | window:7 (BE), window = slot / slots per table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::latency::{Resolution, SeriesWanted, Slot, SlotLatency, SlotTableBuilder, Take};
use crate::model::SeriesKey;

use super::admission::{Admission, position};
use super::pack::PackWriter;
use super::pages::{Kind, Pages, Place};
use super::series_table::{ROLLUPS, decode_series, encode_series};
use super::{OpenPartition, SeriesList, StoreError};

const SECTION_SLOTS: u16 = 0;
const SECTION_SERIES: u16 = 1;
/// Numbers of windows have 7 bytes.
const WINDOW_MAX: u64 = 0x00ff_ffff_ffff_ffff;
/// Where the partition's series stand.
const SERIES: Place = Place { kind: Kind::Rollup, id: u64::MAX, section: SECTION_SERIES };

/// One table of roll-ups: a resolution and which of its windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RollupWindow {
    /// Length of a slot.
    pub resolution: Resolution,
    /// Slot number / slots per table.
    pub window: u64,
}

/// A roll-up table of an open partition.
#[derive(Debug)]
pub struct RollupTable<'a> {
    open: &'a OpenPartition,
    window: RollupWindow,
}

impl RollupWindow {
    /// The table that holds `slot`.
    pub fn of(resolution: Resolution, slot: Slot) -> Self {
        Self { resolution, window: slot.0 / slots_per_table(resolution) }
    }

    /// The slots it holds.
    pub fn slots(self) -> Range<Slot> {
        let n = slots_per_table(self.resolution);
        Slot(self.window.saturating_mul(n))..Slot((self.window + 1).saturating_mul(n))
    }

    pub(super) fn from_table_no(table_no: u64) -> Option<Self> {
        let resolution = Resolution::from_code(u8::try_from(table_no >> 56).ok()?)?;
        Some(Self { resolution, window: table_no & WINDOW_MAX })
    }

    fn table_no(self) -> u64 {
        (u64::from(self.resolution as u8) << 56) | (self.window & WINDOW_MAX)
    }

    fn place(self) -> Place {
        Place { kind: Kind::Rollup, id: self.table_no(), section: SECTION_SLOTS }
    }
}

/// The numbers of the tables that hold these slots, of which there are some.
fn windows_of(resolution: Resolution, slots: &Range<Slot>) -> RangeInclusive<u64> {
    let last = Slot(slots.end.0.saturating_sub(1));
    RollupWindow::of(resolution, slots.start).window..=RollupWindow::of(resolution, last).window
}

/// Ten minutes of 10 s slots, an hour of minutes, a day of ten minutes, a month of hours, all days.
fn slots_per_table(resolution: Resolution) -> u64 {
    match resolution {
        Resolution::TenSeconds | Resolution::Minute => 60,
        Resolution::TenMinutes => 144,
        Resolution::Hour => 720,
        Resolution::Day => 4_000,
    }
}

const COARSER: [Resolution; 4] = [Resolution::Minute, Resolution::TenMinutes, Resolution::Hour, Resolution::Day];

impl OpenPartition {
    /// The series of the roll-ups, in order, so that those of one service are neighbours. Empty before sealing.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn rollup_series(&self) -> Result<SeriesList, StoreError> {
        self.series.list(ROLLUPS, || {
            let bytes = self.pages.read_all(SERIES)?;
            decode_series(&bytes).ok_or_else(|| StoreError::Damaged {
                path: self.pages.path().to_path_buf(),
                what: "series of the roll-ups".to_owned(),
            })
        })
    }

    /// A roll-up table; it reads as empty when the partition has no spans in that window.
    pub fn rollup(&self, window: RollupWindow) -> RollupTable<'_> {
        RollupTable { open: self, window }
    }

    /// The roll-up tables of a resolution that are not empty; none before sealing.
    pub fn rollup_windows(&self, resolution: Resolution) -> Vec<RollupWindow> {
        self.windows_within(resolution, 0..=WINDOW_MAX).into_iter().collect()
    }

    /// How many of them are stored.
    #[cfg(test)]
    pub(super) fn stored_windows(&self, resolution: Resolution) -> usize {
        let Pages::Sealed(pack) = &self.pages else { return 0 };
        let [first, last] = [0, WINDOW_MAX].map(|window| RollupWindow { resolution, window }.table_no());
        pack.ids(Kind::Rollup, first..=last).count()
    }

    /// Those that are stored, and those that finer ones stand for.
    fn windows_within(&self, resolution: Resolution, windows: RangeInclusive<u64>) -> BTreeSet<RollupWindow> {
        let Pages::Sealed(pack) = &self.pages else { return BTreeSet::new() };
        let [first, last] = [*windows.start(), *windows.end()].map(|window| RollupWindow { resolution, window });
        let stored = pack.ids(Kind::Rollup, first.table_no()..=last.table_no());
        let mut all: BTreeSet<RollupWindow> = stored.filter_map(RollupWindow::from_table_no).collect();
        if let Some(finer) = resolution.finer() {
            let fine = resolution.refine(&(first.slots().start..last.slots().end), finer);
            let fine = self.windows_within(finer, windows_of(finer, &fine));
            let ends = fine.into_iter().map(RollupWindow::slots).flat_map(|slots| [slots.start, Slot(slots.end.0 - 1)]);
            let coarse = ends.filter_map(|slot| Some(RollupWindow::of(resolution, finer.coarsen(slot, resolution)?)));
            all.extend(coarse.filter(|coarse| windows.contains(&coarse.window)));
        }
        all
    }

    /// Builds all roll-ups from the slots of the blocks. Memory: the slots of ten minutes, and of an hour at a minute's
    /// resolution, and so on.
    pub(super) fn write_rollups(&self, out: &mut PackWriter) -> Result<(), StoreError> {
        let series = self.all_series()?;
        let (mut numbering, mut counted) = (Vec::new(), Vec::new());
        for (block_no, block) in self.blocks(u64::MAX) {
            if block.is_none() {
                continue;
            }
            let own = self.series(block_no)?;
            let number = |key: &Arc<SeriesKey<'static>>| position(&series, key).and_then(|at| u32::try_from(at).ok());
            let mapped: Vec<u32> = own.iter().map(|key| number(key).unwrap_or(u32::MAX)).collect();
            let slots = self.slots_of(block_no)?;
            let windows: BTreeSet<RollupWindow> =
                slots.iter().map(|slot| RollupWindow::of(Resolution::TenSeconds, *slot)).collect();
            counted.extend(slots);
            numbering.push((block_no, mapped, windows));
        }
        counted.sort_unstable();
        let windows: BTreeSet<RollupWindow> = numbering.iter().flat_map(|(_, _, windows)| windows).copied().collect();
        let mut coarser = Coarser { needed: needed(&counted), tables: BTreeMap::new() };
        for window in windows {
            let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
            for (block_no, mapped, windows) in &numbering {
                if !windows.contains(&window) {
                    continue;
                }
                self.block_slots(
                    *block_no,
                    &SeriesWanted::ALL,
                    window.slots(),
                    Take::Exemplars(&mut |series, slot, latency| {
                        let number = mapped.get(series as usize).copied().unwrap_or(u32::MAX);
                        builder.add(number, slot, latency);
                        coarser.add(number, slot, latency);
                    }),
                )?;
            }
            write_table(out, window, builder)?;
            coarser.write_before(window, out)?;
        }
        coarser.write_all(out)?;
        put_series(out, &series)
    }

    fn all_series(&self) -> Result<Vec<Arc<SeriesKey<'static>>>, StoreError> {
        let mut all = Admission::default();
        for (block_no, block) in self.blocks(u64::MAX) {
            if block.is_some() {
                self.series(block_no)?.iter().for_each(|key| all.admit(key));
            }
        }
        Ok(all.into_series())
    }

    fn slots_of(&self, block_no: u64) -> Result<BTreeSet<Slot>, StoreError> {
        let mut slots = BTreeSet::new();
        let mut each = |_: u32, counts: &[(Slot, u64)]| slots.extend(counts.iter().map(|(slot, _)| *slot));
        self.block_slots(block_no, &SeriesWanted::ALL, Slot::ALL, Take::Counts(&mut each))?;
        Ok(slots)
    }
}

/// The coarser tables that say something new: where a slot holds more than one of the next finer resolution. A partition of
/// a few minutes has none for hours and days.
fn needed(counted: &[Slot]) -> BTreeSet<RollupWindow> {
    let mut needed = BTreeSet::new();
    for resolution in COARSER {
        let Some(finer) = resolution.finer() else { continue };
        let slot_of = |slot: &Slot, of: Resolution| Resolution::TenSeconds.coarsen(*slot, of).unwrap_or_default();
        let says_more = |[a, b]: &[Slot; 2]| {
            slot_of(a, finer) != slot_of(b, finer) && slot_of(a, resolution) == slot_of(b, resolution)
        };
        let pairs = counted.array_windows().filter(|pair| says_more(pair));
        needed.extend(pairs.map(|[slot, _]| RollupWindow::of(resolution, slot_of(slot, resolution))));
    }
    needed
}

/// The series that the tables number.
pub(super) fn put_series(out: &mut PackWriter, series: &[Arc<SeriesKey<'static>>]) -> Result<(), StoreError> {
    out.put_section(SERIES, &encode_series(series.iter().map(|key| &**key)))
}

pub(super) fn write_table(
    out: &mut PackWriter,
    window: RollupWindow,
    builder: SlotTableBuilder,
) -> Result<(), StoreError> {
    let table = builder.finish();
    let table =
        table.map_err(|source| StoreError::Latency { path: out.path().to_path_buf(), source: Box::new(source) })?;
    out.put_section(window.place(), &table)
}

impl RollupTable<'_> {
    /// Reads the slots of the given series; from finer tables when it is not stored, because they say the same.
    ///
    /// # Errors
    /// `Latency` or `Damaged`.
    pub fn read(&self, series: &SeriesWanted<'_>, slots: Range<Slot>, mut take: Take<'_>) -> Result<(), StoreError> {
        let RollupWindow { resolution, .. } = self.window;
        let (place, own) = (self.window.place(), self.window.slots());
        let slots = slots.start.max(own.start)..slots.end.min(own.end);
        let Some(finer) = resolution.finer().filter(|_| slots.start < slots.end) else {
            return self.open.slots(place, series, slots, take);
        };
        if 0 < self.open.pages.section_len(place)? {
            return self.open.slots(place, series, slots, take);
        }
        let fine = resolution.refine(&slots, finer);
        let coarse = |slot| finer.coarsen(slot, resolution).unwrap_or_default();
        for window in self.open.windows_within(finer, windows_of(finer, &fine)) {
            let table = self.open.rollup(window);
            take.with_slots(&coarse, |take| table.read(series, fine.clone(), take))?;
        }
        Ok(())
    }
}

/// Tables of the coarser resolutions that are still growing. Fine windows come in order, so a coarse table is complete
/// once a fine one behind it begins.
#[derive(Debug)]
struct Coarser {
    needed: BTreeSet<RollupWindow>,
    tables: BTreeMap<RollupWindow, SlotTableBuilder>,
}

impl Coarser {
    fn add(&mut self, series: u32, slot: Slot, latency: &SlotLatency) {
        for resolution in COARSER {
            let slot = resolution.slot_of(Resolution::TenSeconds.start_of(slot));
            let window = RollupWindow::of(resolution, slot);
            if self.needed.contains(&window) {
                let table = self.tables.entry(window).or_insert_with(|| SlotTableBuilder::new(resolution));
                table.add(series, slot, latency);
            }
        }
    }

    fn write_before(&mut self, fine: RollupWindow, out: &mut PackWriter) -> Result<(), StoreError> {
        let at = Resolution::TenSeconds.start_of(Slot(fine.window * slots_per_table(fine.resolution)));
        let complete: Vec<RollupWindow> = self
            .tables
            .keys()
            .filter(|window| window.window < RollupWindow::of(window.resolution, window.resolution.slot_of(at)).window)
            .copied()
            .collect();
        for window in complete {
            if let Some(builder) = self.tables.remove(&window) {
                write_table(out, window, builder)?;
            }
        }
        Ok(())
    }

    fn write_all(self, out: &mut PackWriter) -> Result<(), StoreError> {
        self.tables.into_iter().try_for_each(|(window, builder)| write_table(out, window, builder))
    }
}
