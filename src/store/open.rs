//! A partition that is open: its pages, the blocks that were asked for, and the readings that questions are made of.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};

use crate::block::{Block, BlockError, BlockScan, EachParts, SectionId, SkipIndex, SpanGlance, SpanParts};
use crate::latency::{SeriesWanted, Slot, SlotLatency, SlotTableReader, Take};
use crate::model::{DurationNanos, SpanBatch, SpanId, SpanKey, TraceId, UnixNanos};

use super::StoreError;
use super::engine::Engine;
use super::pack::Pack;
use super::pages::{BlockSections, Checkpoint, Kind, PAGE_PAYLOAD_BYTES, Pages, Place};
use super::series_table::{SeriesList, SeriesTable, decode_series};

/// Memory of the scopes of a block that are kept: a few hundred processes.
const SCOPES_KEPT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a slot table that are read before its directory says which others are needed: a page.
const FRONT_BYTES: usize = PAGE_PAYLOAD_BYTES;

/// The database of a partition and what is kept of its blocks in memory: some 10 KiB and 2 bytes per trace of each block
/// that was asked for.
#[derive(Debug)]
pub struct OpenPartition {
    pub(super) pages: Pages,
    /// Blocks that were asked for, by number.
    blocks: RwLock<HashMap<u64, Arc<Block>>>,
    /// Scopes that were asked for, by block.
    scopes: RwLock<HashMap<u64, Arc<SpanBatch>>>,
    checkpoint: Mutex<Checkpoint>,
    pub(super) series: SeriesTable,
}

impl OpenPartition {
    /// The database of a partition that is not sealed; made when there is none.
    pub(super) fn growing(store_dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        Self::of(Pages::Growing(Engine::open(store_dir, cache_bytes)?))
    }

    /// The file of a sealed one. `damage_seen` is set when a page of it proves damaged.
    pub(super) fn sealed(dir: &Path, damage_seen: Arc<AtomicBool>) -> Result<Self, StoreError> {
        Self::of(Pages::Sealed(Pack::open(dir, damage_seen)?))
    }

    fn of(pages: Pages) -> Result<Self, StoreError> {
        let checkpoint = Mutex::new(pages.checkpoint()?);
        Ok(Self {
            pages,
            blocks: RwLock::default(),
            scopes: RwLock::default(),
            checkpoint,
            series: SeriesTable::default(),
        })
    }

    /// Where blocks can be written.
    pub(super) fn engine(&self) -> Result<&Engine, StoreError> {
        match &self.pages {
            Pages::Growing(engine) => Ok(engine),
            Pages::Sealed(_) => Err(self.damaged("it is sealed and takes no more blocks".to_owned())),
        }
    }

    /// Loses a page of a block's latency slots, as sled does when it cannot read it any more.
    #[cfg(test)]
    pub(crate) fn lose_a_page(&self, block_no: u64) {
        self.engine().unwrap().lose_last_page(block_no, SectionId::LATENCY);
    }

    /// Reads every header and filter.
    pub(super) fn all_blocks_readable(&self) -> Result<(), StoreError> {
        self.block_numbers().try_for_each(|block_no| self.readable_block(block_no).map(drop))
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Damaged { path: self.pages.path().to_path_buf(), what }
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        *self.checkpoint.lock()
    }

    /// Journal sequence up to which everything is in blocks.
    pub fn covered_sequence(&self) -> u64 {
        self.checkpoint().sequence
    }

    /// Takes over a block that was just written.
    pub(super) fn add_block(&self, block_no: u64, block: Arc<Block>) {
        let _new = self.blocks.write().insert(block_no, block);
    }

    pub(super) fn set_checkpoint(&self, checkpoint: Checkpoint) {
        *self.checkpoint.lock() = checkpoint;
    }

    /// Numbers of all blocks, ascending from 1.
    pub fn block_numbers(&self) -> RangeInclusive<u64> {
        1..=self.checkpoint().blocks
    }

    /// The first `visible` blocks with their numbers; `None` in place of a damaged one. Reads the headers that were not
    /// asked for before.
    pub fn blocks(&self, visible: u64) -> Vec<(u64, Option<Arc<Block>>)> {
        (1..=visible.min(self.checkpoint().blocks)).map(|block_no| (block_no, self.block(block_no))).collect()
    }

    /// One block; `None` when there is none or it is damaged. Reads its header and filter the first time.
    pub fn block(&self, block_no: u64) -> Option<Arc<Block>> {
        if let Some(known) = self.blocks.read().get(&block_no) {
            return Some(Arc::clone(known));
        }
        let block = Arc::new(Block::open(&BlockSections { pages: &self.pages, block_no }).ok()?);
        let _same = self.blocks.write().insert(block_no, Arc::clone(&block));
        Some(block)
    }

    pub(super) fn readable_block(&self, block_no: u64) -> Result<Arc<Block>, StoreError> {
        self.block(block_no).ok_or_else(|| self.damaged(format!("header of block {block_no}")))
    }

    /// Calls `each` with the traces of a block, ascending.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub fn traces(&self, block_no: u64, each: &mut dyn FnMut(TraceId)) -> Result<(), StoreError> {
        self.with_block(block_no, |block, sections| block.traces(sections, each))
    }

    /// Every trace of a block with its rows, ascending; one that spans row groups comes several times.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub(super) fn trace_runs(&self, block_no: u64) -> Result<Vec<(TraceId, Range<u32>)>, StoreError> {
        self.with_block(block_no, |block, sections| block.trace_runs(sections))
    }

    /// The rows of a block whose series `wanted` names, ascending.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub(super) fn rows_of_series(&self, block_no: u64, wanted: &[bool]) -> Result<Vec<u32>, StoreError> {
        self.with_block(block_no, |block, sections| block.rows_of_series(sections, wanted))
    }

    /// The rows of those of `keys`, which ascend, that a block holds, with their positions in `keys`.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub(super) fn rows_of_keys(&self, block_no: u64, keys: &[SpanKey]) -> Result<Vec<(usize, u32)>, StoreError> {
        self.with_block(block_no, |block, sections| block.rows_of_keys(sections, keys))
    }

    /// The series of one block: those of its rows in order, then the families in order.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub fn series(&self, block_no: u64) -> Result<SeriesList, StoreError> {
        self.series.list(block_no, || {
            let mut series = self.with_block(block_no, |block, sections| block.series(sections))?;
            let place = Place { kind: Kind::Block, id: block_no, section: SectionId::FAMILIES.0 };
            let families = decode_series(&self.pages.read_all(place)?);
            series.extend(families.ok_or_else(|| self.damaged(format!("families of block {block_no}")))?);
            Ok(series)
        })
    }

    /// The series of the rows of one block, and perhaps of its families: what names rows without reading the others first.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub fn series_of_rows(&self, block_no: u64) -> Result<SeriesList, StoreError> {
        if let Some(known) = self.series.known(block_no) {
            return Ok(known);
        }
        let series = self.with_block(block_no, |block, sections| block.series(sections))?;
        Ok(series.into_iter().map(Arc::new).collect())
    }

    /// Spans of one block by row, ascending; exactly as they were sent.
    ///
    /// # Errors
    /// `Block`.
    pub fn spans(&self, block_no: u64, rows: &[u32]) -> Result<SpanBatch, StoreError> {
        self.with_block(block_no, |block, sections| block.spans(sections, rows))
    }

    /// Whether a page of it proved damaged, so that what is seen at a glance need not be there as a whole.
    pub fn has_damage(&self) -> bool {
        match &self.pages {
            Pages::Growing(_) => false,
            Pages::Sealed(pack) => pack.has_damage(),
        }
    }

    /// Spans of one block by row, ascending, at a glance.
    ///
    /// # Errors
    /// `Block`.
    pub fn glances(&self, block_no: u64, rows: &[u32]) -> Result<Vec<SpanGlance>, StoreError> {
        self.with_block(block_no, |block, sections| block.glances(sections, rows))
    }

    /// Ids of spans of one block by row, ascending.
    ///
    /// # Errors
    /// `Block`.
    pub fn ids(&self, block_no: u64, rows: &[u32]) -> Result<Vec<(TraceId, SpanId)>, StoreError> {
        self.with_block(block_no, |block, sections| block.ids(sections, rows))
    }

    /// Scopes and resources of one block, under their numbers; no spans. Those of blocks with few of them are kept.
    ///
    /// # Errors
    /// `Block`.
    pub fn scopes(&self, block_no: u64) -> Result<Arc<SpanBatch>, StoreError> {
        if let Some(known) = self.scopes.read().get(&block_no) {
            return Ok(Arc::clone(known));
        }
        let scopes = Arc::new(self.with_block(block_no, |block, sections| block.scopes(sections))?);
        if scopes.memory_bytes() <= SCOPES_KEPT_BYTES_MAX {
            let _same = self.scopes.write().insert(block_no, Arc::clone(&scopes));
        }
        Ok(scopes)
    }

    /// The rows of those of `traces`, which ascend, that one block holds, with their positions in `traces`; nothing is read
    /// for those that its filter excludes.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub fn rows_of_traces(&self, block_no: u64, traces: &[TraceId]) -> Result<Vec<(usize, Range<u32>)>, StoreError> {
        self.with_block(block_no, |block, sections| {
            let may_be_here = traces.iter().enumerate().filter(|(_, trace)| block.may_hold(**trace));
            let (positions, traces): (Vec<usize>, Vec<TraceId>) = may_be_here.unzip();
            if traces.is_empty() {
                return Ok(Vec::new());
            }
            let found = block.rows_of_traces(sections, &traces)?.into_iter();
            Ok(found.filter_map(|(at, rows)| positions.get(at).map(|at| (*at, rows))).collect())
        })
    }

    /// The spans of runs of rows of one block, which exist, ascend and do not overlap, row group by row group,
    /// until `each` breaks.
    ///
    /// # Errors
    /// `Block` or `Damaged` when nothing of the block can be read; else `each` is told.
    pub fn spans_of_runs(
        &self,
        block_no: u64,
        runs: &[Range<u32>],
        parts: SpanParts,
        each: EachParts<'_, StoreError>,
    ) -> Result<(), StoreError> {
        let path = || self.pages.path().to_path_buf();
        self.with_block(block_no, |block, sections| {
            block.spans_of_runs(sections, runs, parts, &mut |parts, read| {
                each(parts, read.map_err(|source| StoreError::Block { path: path(), block_no, source }))
            })
        })
    }

    /// The rows of a trace in one block, as its index leads to them.
    ///
    /// # Errors
    /// `Block`.
    pub(super) fn rows_of_trace(&self, block_no: u64, trace: TraceId) -> Result<Range<u32>, StoreError> {
        self.with_block(block_no, |block, sections| block.rows_of_trace(sections, trace))
    }

    /// Calls `each(row, series, start, latency)` for every span of a block with a latency in `within`, until it
    /// breaks, reading those columns alone.
    ///
    /// # Errors
    /// `Block`.
    pub fn scan_latency(
        &self,
        block_no: u64,
        within: &RangeInclusive<DurationNanos>,
        each: &mut dyn FnMut(u32, u32, UnixNanos, DurationNanos) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.with_block(block_no, |block, sections| block.scan_latency(sections, within, each))
    }

    /// Gives `read` a block to read column by column.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub fn scan<T>(
        &self,
        block_no: u64,
        read: impl FnOnce(&BlockScan<'_>) -> Result<T, BlockError>,
    ) -> Result<T, StoreError> {
        self.with_block(block_no, |block, sections| block.scan(sections, read))
    }

    /// Gives `read` the skip index of a block.
    ///
    /// # Errors
    /// `Block` or `Damaged`.
    pub fn skip_index<T>(
        &self,
        block_no: u64,
        read: impl FnOnce(&SkipIndex<'_>) -> Result<T, BlockError>,
    ) -> Result<T, StoreError> {
        self.with_block(block_no, |block, sections| read(&block.skip_index(sections)))
    }

    fn with_block<T>(
        &self,
        block_no: u64,
        read: impl FnOnce(&Block, &BlockSections<'_>) -> Result<T, BlockError>,
    ) -> Result<T, StoreError> {
        let path = || self.pages.path().to_path_buf();
        let block = self.readable_block(block_no)?;
        let sections = BlockSections { pages: &self.pages, block_no };
        read(&block, &sections).map_err(|source| StoreError::Block { path: path(), block_no, source })
    }

    /// The latency slots of one block, finest resolution; series by their numbers in that block. Exemplars carry the block's
    /// number.
    ///
    /// # Errors
    /// `Latency` or `Damaged`.
    pub fn block_slots(
        &self,
        block_no: u64,
        series: &SeriesWanted<'_>,
        slots: Range<Slot>,
        take: Take<'_>,
    ) -> Result<(), StoreError> {
        let place = Place { kind: Kind::Block, id: block_no, section: SectionId::LATENCY.0 };
        let Take::Exemplars(each) = take else { return self.slots(place, series, slots, take) };
        let block = u32::try_from(block_no).unwrap_or(u32::MAX);
        let mut placed = |series: u32, slot, latency: &mut SlotLatency| {
            latency.place_in(block);
            each(series, slot, latency);
        };
        self.slots(place, series, slots, Take::Exemplars(&mut placed))
    }

    pub(super) fn slots(
        &self,
        place: Place,
        series: &SeriesWanted<'_>,
        slots: Range<Slot>,
        take: Take<'_>,
    ) -> Result<(), StoreError> {
        let len = self.pages.section_len(place)?;
        if len == 0 {
            return Ok(());
        }
        // Most directories are in the first page, and what a small table holds as well.
        let front = self.pages.read(place, 0..len.min(u32::try_from(FRONT_BYTES).unwrap_or(len)))?;
        let fetch = |range: Range<u32>| match front.get(range.start as usize..range.end as usize) {
            Some(known) => Ok(known.to_vec()),
            None => self.pages.read(place, range),
        };
        let table = SlotTableReader::open(&fetch);
        let read = table.and_then(|table| table.read(&fetch, series, slots, take));
        let path = || self.pages.path().to_path_buf();
        read.map_err(|source| StoreError::Latency { path: path(), source: Box::new(source) })
    }
}
