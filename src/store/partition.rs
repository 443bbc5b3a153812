//! One partition: a directory with one database, active until it is sealed, opened when somebody asks.

use std::fs;
use std::ops::{ControlFlow, Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::block::{Block, BlockError, SectionId};
use crate::latency::{Slot, SlotLatency, SlotTableReader};
use crate::model::{DurationNanos, SpanBatch, TraceId, UnixNanos};
use crate::telemetry::Counters;

use super::engine::{BlockSections, Checkpoint, Engine, Kind};
use super::series_table::{SeriesList, SeriesTable};
use super::{Manifest, StoreConfig, StoreError, files};

/// Sees one slot of one series; the buffer is used again.
pub type EachSlot<'a> = &'a mut dyn FnMut(u32, Slot, &mut SlotLatency);

/// A partition, open or not.
#[derive(Debug)]
pub struct Partition {
    seq: u64,
    dir: PathBuf,
    manifest: RwLock<Option<Arc<Manifest>>>,
    open: Mutex<Opening>,
    /// Blocks that questions may see; raised together with the removal of the head they came from.
    visible_blocks: AtomicU64,
    /// Bytes of its blocks.
    block_bytes: AtomicU64,
    /// The last attempt to write a block met an error.
    failing: AtomicBool,
}

/// What end of a quarantined database's name says that its journal replaced it.
const REBUILT_SUFFIX: &str = "-store";

/// Who has the database open. sled opens its files once only, so a question that outlives `held` lends its own.
#[derive(Debug, Default)]
struct Opening {
    held: Option<Arc<OpenPartition>>,
    /// Still there while a question reads it.
    lent: Weak<OpenPartition>,
    /// Retention took the directory away: nothing may be made in its place.
    removed: bool,
    /// It was open before: since then the checkpointer says which blocks are seen.
    known: bool,
}

impl Opening {
    fn current(&mut self) -> Option<Arc<OpenPartition>> {
        if self.held.is_none() {
            self.held = self.lent.upgrade();
        }
        self.held.clone()
    }
}

/// The database of a partition and what is kept of its blocks in memory: about 2 KiB and 10 bits per trace each.
#[derive(Debug)]
pub struct OpenPartition {
    pub(super) engine: Engine,
    /// Blocks by number - 1; `None` where the header is damaged.
    blocks: RwLock<Vec<Option<Arc<Block>>>>,
    checkpoint: Mutex<Checkpoint>,
    pub(super) series: SeriesTable,
}

impl Partition {
    /// The partition of an existing directory; `None` when the name is not one of ours.
    pub(super) fn at(dir: &Path) -> Option<Self> {
        let seq = seq_of(dir.file_name()?.to_str()?)?;
        let manifest = fs::read_to_string(dir.join("SEALED")).ok().and_then(|text| Manifest::parse(&text));
        let visible_blocks = AtomicU64::new(manifest.as_ref().map_or(0, |manifest| manifest.blocks));
        Some(Self {
            seq,
            dir: dir.to_path_buf(),
            manifest: RwLock::new(manifest.map(Arc::new)),
            open: Mutex::default(),
            visible_blocks,
            block_bytes: AtomicU64::new(files::tree_bytes(&dir.join("store"))),
            failing: AtomicBool::new(false),
        })
    }

    pub(super) fn create(config: &StoreConfig, seq: u64, started: UnixNanos) -> Result<Self, StoreError> {
        let started = i64::try_from(started.0 / 1_000_000_000).unwrap_or(i64::MAX);
        let started = jiff::Timestamp::from_second(started).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let name = format!("{}-{seq:06}", started.strftime("%Y%m%dT%H%M%SZ"));
        let partition = Self {
            seq,
            dir: config.data_dir.join("partitions").join(name),
            manifest: RwLock::new(None),
            open: Mutex::default(),
            visible_blocks: AtomicU64::new(0),
            block_bytes: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        };
        partition.make(config).inspect_err(|_| {
            // The next attempt takes another name: what is left of this one would stay for ever.
            let _nothing_made = files::remove_tree(&partition.dir);
        })?;
        Ok(partition)
    }

    fn make(&self, config: &StoreConfig) -> Result<(), StoreError> {
        files::create_dir(&self.dir)?;
        files::create_dir(&self.journal_dir())?;
        files::sync_dir(&self.dir)?;
        files::sync_dir(&config.data_dir.join("partitions"))?;
        let _open = self.open(config)?;
        Ok(())
    }

    /// Opens an unsealed partition at start. What will not open goes to quarantine: an unsealed database alone, for its
    /// journal can fill a new one; a sealed partition that lost its manifest as a whole.
    pub(super) fn prepare(&self, config: &StoreConfig, counters: &Counters) -> Result<Option<String>, StoreError> {
        if self.manifest().is_some() {
            // Left over when the process died right after sealing.
            let journal = self.journal_dir();
            return if journal.exists() { files::remove_tree(&journal).map(|()| None) } else { Ok(None) };
        }
        let label = self.name();
        if !self.journal_dir().exists() && fs::remove_dir(&self.dir).is_ok() {
            tracing::info!(partition = label, "the process ended while it made this partition; it was still empty");
            return Ok(None);
        }
        if !self.journal_dir().exists() {
            counters.partitions_quarantined.add(1);
            tracing::error!(partition = label, "a sealed partition has lost its manifest; moved to quarantine");
            return files::quarantine(&config.data_dir, &self.dir, &label).map(Some);
        }
        let usable = self.open(config).and_then(|open| open.all_blocks_readable());
        let Err(error) = usable else { return Ok(None) };
        self.forget();
        counters.partitions_quarantined.add(1);
        tracing::error!(partition = label, %error, "database moved to quarantine, rebuilding it from the journal");
        let moved = files::quarantine(&config.data_dir, &self.store_dir(), &format!("{label}{REBUILT_SUFFIX}"))?;
        let _empty = self.open(config)?;
        Ok(Some(moved))
    }

    /// Ascending in the order of creation.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of its directory.
    pub fn name(&self) -> String {
        self.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Where its journal lies while it is not sealed.
    pub fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(super) fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    pub(super) fn exists(&self) -> bool {
        self.dir.exists()
    }

    /// What it holds, once it is sealed.
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.manifest.read().clone()
    }

    pub(super) fn set_manifest(&self, manifest: Manifest) {
        *self.manifest.write() = Some(Arc::new(manifest));
    }

    /// Blocks written so far.
    pub fn n_blocks(&self) -> u64 {
        self.visible_blocks()
    }

    /// Bytes of its blocks, before the database adds its own.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_block_bytes(&self, bytes: u64) {
        let _before = self.block_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    pub(super) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    pub(super) fn visible_blocks(&self) -> u64 {
        self.visible_blocks.load(Ordering::SeqCst)
    }

    pub(super) fn show_blocks(&self, blocks: u64) {
        self.visible_blocks.store(blocks, Ordering::SeqCst);
    }

    pub(super) fn open(&self, config: &StoreConfig) -> Result<Arc<OpenPartition>, StoreError> {
        let mut opening = self.open.lock();
        if opening.removed {
            return Err(StoreError::Removed { path: self.dir.clone() });
        }
        if let Some(open) = opening.current() {
            return Ok(open);
        }
        let opened = Arc::new(OpenPartition::open(&self.store_dir(), config.cache_bytes)?);
        let found = opened.checkpoint();
        match self.manifest() {
            None if opening.known && found.blocks < self.visible_blocks() => {
                let what = format!("{} of {} blocks came back", found.blocks, self.visible_blocks());
                return Err(StoreError::Damaged { path: self.store_dir(), what });
            }
            None if opening.known => {}
            None => self.show_blocks(found.blocks),
            Some(sealed) if (sealed.blocks, sealed.spans) == (found.blocks, found.spans) => {}
            Some(sealed) => {
                let what = format!("{} of {} blocks came back", found.blocks, sealed.blocks);
                return Err(StoreError::Damaged { path: self.store_dir(), what });
            }
        }
        opening.known = true;
        opening.lent = Arc::downgrade(&opened);
        opening.held = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Lets go of the database. Questions that are under way keep it until they end.
    pub(super) fn close(&self) {
        self.open.lock().held = None;
    }

    /// Lets go of the database and of what was seen of it: another one takes its place.
    fn forget(&self) {
        *self.open.lock() = Opening::default();
        self.show_blocks(0);
    }

    /// Lets go of the database for good, before its directory goes.
    pub(super) fn retire(&self) {
        let mut opening = self.open.lock();
        opening.removed = true;
        opening.held = None;
    }

    /// Lets go of the database and waits until it is closed; `false` when a question still holds it.
    pub(super) fn close_alone(&self) -> bool {
        let mut opening = self.open.lock();
        let Some(last) = opening.current() else { return true };
        opening.held = None;
        match Arc::try_unwrap(last) {
            Ok(alone) => {
                // sled unwraps the result of its last fsync: a failing disk must not take the sealer down with it.
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(alone))).is_ok()
            }
            Err(shared) => {
                opening.held = Some(shared);
                false
            }
        }
    }
}

/// The number of a partition by the name of its directory, `20261123T100000Z-000001`; `None` for any other name.
pub(super) fn seq_of(name: &str) -> Option<u64> {
    let (start, seq) = name.split_once('-')?;
    let time = start.strip_suffix('Z')?.split_once('T')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let ours =
        time.0.len() == 8 && time.1.len() == 6 && 6 <= seq.len() && [time.0, time.1, seq].into_iter().all(digits);
    seq.parse().ok().filter(|_| ours)
}

/// Whether what lies in quarantine under `name` is a database that its journal replaced: then no span is missing.
pub(super) fn is_rebuilt(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(label, _number)| label.ends_with(REBUILT_SUFFIX))
}

impl OpenPartition {
    fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let engine = Engine::open(path, cache_bytes)?;
        let checkpoint = engine.checkpoint()?;
        let mut blocks = Vec::new();
        for block_no in 1..=checkpoint.blocks {
            let sections = BlockSections { engine: &engine, block_no };
            blocks.push(Block::open(&sections).ok().map(Arc::new));
        }
        let (blocks, checkpoint) = (RwLock::new(blocks), Mutex::new(checkpoint));
        Ok(Self { engine, blocks, checkpoint, series: SeriesTable::default() })
    }

    fn all_blocks_readable(&self) -> Result<(), StoreError> {
        for (block_no, block) in (1..).zip(self.blocks.read().iter()) {
            if block.is_none() {
                let what = format!("header of block {block_no}");
                return Err(StoreError::Damaged { path: self.engine.path().to_path_buf(), what });
            }
        }
        self.engine.verify_pages()
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        *self.checkpoint.lock()
    }

    /// Journal sequence up to which everything is in blocks.
    pub fn covered_sequence(&self) -> u64 {
        self.checkpoint().sequence
    }

    /// Takes over a block that was just written.
    pub(super) fn add_block(&self, block: Arc<Block>, checkpoint: Checkpoint) {
        self.blocks.write().push(Some(block));
        *self.checkpoint.lock() = checkpoint;
    }

    /// The first `visible` blocks with their numbers; `None` in place of a damaged one.
    pub fn blocks(&self, visible: u64) -> Vec<(u64, Option<Arc<Block>>)> {
        let visible = usize::try_from(visible).unwrap_or(usize::MAX);
        (1..).zip(self.blocks.read().iter().take(visible).cloned()).collect()
    }

    /// One block; `None` when there is none or it is damaged.
    pub fn block(&self, block_no: u64) -> Option<Arc<Block>> {
        let at = usize::try_from(block_no.checked_sub(1)?).ok()?;
        self.blocks.read().get(at)?.clone()
    }

    /// The series of one block, in order.
    ///
    /// # Errors
    /// `Block`.
    pub fn series(&self, block_no: u64) -> Result<SeriesList, StoreError> {
        self.series.list(block_no, || self.with_block(block_no, |block, sections| block.series(sections)))
    }

    /// Spans of one block by row, ascending; exactly as they were sent.
    ///
    /// # Errors
    /// `Block`.
    pub fn spans(&self, block_no: u64, rows: &[u32]) -> Result<SpanBatch, StoreError> {
        self.with_block(block_no, |block, sections| block.spans(sections, rows))
    }

    /// Spans of one block that belong to a trace, without reading anything when its filter excludes it.
    ///
    /// # Errors
    /// `Block`.
    pub fn spans_of_trace(&self, block_no: u64, trace: TraceId, spans_max: usize) -> Result<SpanBatch, StoreError> {
        self.with_block(block_no, |block, sections| {
            if !block.may_hold(trace) {
                return Ok(SpanBatch::default());
            }
            let rows: Vec<u32> = block.rows_of_trace(sections, trace)?.take(spans_max).collect();
            if rows.is_empty() { Ok(SpanBatch::default()) } else { block.spans(sections, &rows) }
        })
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

    fn with_block<T>(
        &self,
        block_no: u64,
        read: impl FnOnce(&Block, &BlockSections<'_>) -> Result<T, BlockError>,
    ) -> Result<T, StoreError> {
        let path = || self.engine.path().to_path_buf();
        let Some(block) = self.block(block_no) else {
            return Err(StoreError::Damaged { path: path(), what: format!("header of block {block_no}") });
        };
        let sections = BlockSections { engine: &self.engine, block_no };
        read(&block, &sections).map_err(|source| StoreError::Block { path: path(), block_no, source })
    }

    /// The latency slots of one block, for series `series` (ids of that block), finest resolution. Exemplars carry the
    /// block's number.
    ///
    /// # Errors
    /// `Latency` or `Damaged`.
    pub fn block_slots(
        &self,
        block_no: u64,
        series: Range<u32>,
        slots: Range<Slot>,
        each: EachSlot<'_>,
    ) -> Result<(), StoreError> {
        let block = u32::try_from(block_no).unwrap_or(u32::MAX);
        let place = (Kind::Block, block_no, SectionId::LATENCY.0);
        self.slots(place, series, slots, &mut |series, slot, latency| {
            latency.place_in(block);
            each(series, slot, latency);
        })
    }

    pub(super) fn slots(
        &self,
        (kind, id, section): (Kind, u64, u16),
        series: Range<u32>,
        slots: Range<Slot>,
        each: EachSlot<'_>,
    ) -> Result<(), StoreError> {
        if self.engine.section_len(kind, id, section)? == 0 {
            return Ok(());
        }
        let fetch = |range: Range<u32>| self.engine.read(kind, id, section, range);
        let table = SlotTableReader::open(&fetch);
        let read = table.and_then(|table| table.read(&fetch, series, slots, each));
        let path = || self.engine.path().to_path_buf();
        read.map_err(|source| StoreError::Latency { path: path(), source: Box::new(source) })
    }
}
