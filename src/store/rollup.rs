//! Roll-ups of a partition: its latency slots merged over all blocks, at 10 s and four coarser resolutions, with series
//! numbered for the whole partition. Built once, when the partition is sealed.
//!
//! One table holds the slots of one window, so that a question about the edge of a window reads little:
//! table number = resolution:1 | window:7 (BE), window = slot / slots per table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::latency::{Resolution, Slot, SlotLatency, SlotTableBuilder};
use crate::model::SeriesKey;

use super::admission::{Admission, position};
use super::pack::PackWriter;
use super::pages::{Kind, Place};
use super::series_table::{ROLLUPS, decode_series, encode_series};
use super::{EachSlot, OpenPartition, SeriesList, StoreError};

const SECTION_SLOTS: u16 = 0;
const SECTION_SERIES: u16 = 1;
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
        Slot(self.window * n)..Slot((self.window + 1).saturating_mul(n))
    }

    pub(super) fn from_table_no(table_no: u64) -> Option<Self> {
        let resolution = Resolution::from_code(u8::try_from(table_no >> 56).ok()?)?;
        Some(Self { resolution, window: table_no & 0x00ff_ffff_ffff_ffff })
    }

    fn place(self) -> Place {
        let table_no = (u64::from(self.resolution as u8) << 56) | (self.window & 0x00ff_ffff_ffff_ffff);
        Place { kind: Kind::Rollup, id: table_no, section: SECTION_SLOTS }
    }
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

    /// Builds all roll-ups from the slots of the blocks. Memory: the slots of ten minutes, and of an hour at a minute's
    /// resolution, and so on.
    pub(super) fn write_rollups(&self, out: &mut PackWriter) -> Result<(), StoreError> {
        let series = self.all_series()?;
        let mut numbering = Vec::new();
        for (block_no, block) in self.blocks(u64::MAX) {
            if block.is_none() {
                continue;
            }
            let own = self.series(block_no)?;
            let number = |key: &Arc<SeriesKey<'static>>| position(&series, key).and_then(|at| u32::try_from(at).ok());
            let mapped: Vec<u32> = own.iter().map(|key| number(key).unwrap_or(u32::MAX)).collect();
            numbering.push((block_no, mapped, self.windows_of(block_no)?));
        }
        let windows: BTreeSet<RollupWindow> = numbering.iter().flat_map(|(_, _, windows)| windows).copied().collect();
        let mut coarser = Coarser::default();
        for window in windows {
            let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
            for (block_no, mapped, windows) in &numbering {
                if !windows.contains(&window) {
                    continue;
                }
                self.block_slots(*block_no, 0..u32::MAX, window.slots(), &mut |series, slot, latency| {
                    let number = mapped.get(series as usize).copied().unwrap_or(u32::MAX);
                    builder.add(number, slot, latency);
                    coarser.add(number, slot, latency);
                })?;
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

    fn windows_of(&self, block_no: u64) -> Result<BTreeSet<RollupWindow>, StoreError> {
        let mut windows = BTreeSet::new();
        self.block_slots(block_no, 0..u32::MAX, Slot::ALL, &mut |_, slot, _| {
            let _seen = windows.insert(RollupWindow::of(Resolution::TenSeconds, slot));
        })?;
        Ok(windows)
    }
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
    /// Reads the slots of the given series.
    ///
    /// # Errors
    /// `Latency` or `Damaged`.
    pub fn read(&self, series: Range<u32>, slots: Range<Slot>, each: EachSlot<'_>) -> Result<(), StoreError> {
        self.open.slots(self.window.place(), series, slots, each)
    }
}

/// Tables of the coarser resolutions that are still growing. Fine windows come in order, so a coarse table is complete
/// once a fine one behind it begins.
#[derive(Debug, Default)]
struct Coarser(BTreeMap<RollupWindow, SlotTableBuilder>);

impl Coarser {
    fn add(&mut self, series: u32, slot: Slot, latency: &SlotLatency) {
        for resolution in COARSER {
            let slot = resolution.slot_of(Resolution::TenSeconds.start_of(slot));
            let window = RollupWindow::of(resolution, slot);
            let table = self.0.entry(window).or_insert_with(|| SlotTableBuilder::new(resolution));
            table.add(series, slot, latency);
        }
    }

    fn write_before(&mut self, fine: RollupWindow, out: &mut PackWriter) -> Result<(), StoreError> {
        let at = Resolution::TenSeconds.start_of(Slot(fine.window * slots_per_table(fine.resolution)));
        let complete: Vec<RollupWindow> = self
            .0
            .keys()
            .filter(|window| window.window < RollupWindow::of(window.resolution, window.resolution.slot_of(at)).window)
            .copied()
            .collect();
        for window in complete {
            if let Some(builder) = self.0.remove(&window) {
                write_table(out, window, builder)?;
            }
        }
        Ok(())
    }

    fn write_all(self, out: &mut PackWriter) -> Result<(), StoreError> {
        self.0.into_iter().try_for_each(|(window, builder)| write_table(out, window, builder))
    }
}
