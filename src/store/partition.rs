//! One partition: a directory that takes blocks until it is sealed, and is opened when somebody asks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::model::{TraceId, UnixNanos};
use crate::telemetry::Counters;

use super::trace_index::{self, TraceBlocks};
use super::{Manifest, OpenPartition, StoreConfig, StoreError, files};

/// A partition, open or not.
#[derive(Debug)]
pub struct Partition {
    numbers: Numbers,
    /// No other partition of this process has or had it, not even another generation of the same.
    identity: u64,
    dir: PathBuf,
    manifest: RwLock<Option<Arc<Manifest>>>,
    open: Mutex<Opening>,
    /// Blocks that questions may see; raised together with the removal of the head they came from.
    visible_blocks: AtomicU64,
    /// Bytes of its blocks.
    block_bytes: AtomicU64,
    /// Every page was read since the process started; a new partition needs no look.
    verified: AtomicBool,
    /// A page is damaged or missing: it takes no more blocks, and is made anew when it is sealed.
    condemned: AtomicBool,
    /// The last attempt to write a block met an error.
    failing: AtomicBool,
    /// It is sealed, and a page of it could not be read.
    damage_seen: Arc<AtomicBool>,
    /// The traces that its neighbours have to keep for it, once one of them asked: what is sealed never changes.
    shown_for_long: OnceLock<Arc<BTreeSet<TraceId>>>,
}

/// What the name of a partition's directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Number of the first partition that it stands for.
    first: u64,
    /// Number of the last one; the same unless remnants were merged.
    last: u64,
    /// 1 as it was sealed, more for what is left of it after spans went.
    generation: u32,
}

impl Numbers {
    /// Whether a finished partition of these numbers makes one of `other` superfluous.
    pub(super) fn supersede(self, other: Self) -> bool {
        let covers = self.first <= other.first && other.last <= self.last;
        let is_later = (self.first, self.last) != (other.first, other.last) || other.generation < self.generation;
        covers && is_later
    }
}

/// How often, and after what wait, the database of a sealed partition is looked at that a question still reads.
const CLOSE_TRIES: u32 = 200;
const CLOSE_WAIT: Duration = Duration::from_millis(50);

/// What end of a quarantined database's name says that its journal replaced it.
pub(super) const REBUILT_SUFFIX: &str = "-store";

/// Who has the database open. sled opens its files once only, so a question that outlives `held` lends its own.
#[derive(Debug, Default)]
struct Opening {
    held: Option<Arc<OpenPartition>>,
    /// Still there while a question reads it.
    lent: Weak<OpenPartition>,
    /// Why it may not be opened any more: nothing may be made in its place.
    gone: Option<Gone>,
    /// It was open before: since then the checkpointer says which blocks are seen.
    known: bool,
}

/// What became of a partition that a question may still know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Retention took its directory away.
    Removed,
    /// Another one stands in its place: its database was rebuilt, or only some of its spans are kept.
    Replaced,
}

impl Opening {
    fn current(&mut self) -> Option<Arc<OpenPartition>> {
        if self.held.is_none() {
            self.held = self.lent.upgrade();
        }
        self.held.clone()
    }
}

impl Partition {
    /// The partition of an existing directory; `None` when the name is not one of ours.
    pub(super) fn at(dir: &Path) -> Option<Self> {
        let numbers = numbers_of(dir.file_name()?.to_str()?)?;
        let manifest = Manifest::of(dir);
        let visible_blocks = AtomicU64::new(manifest.as_ref().map_or(0, |manifest| manifest.blocks));
        Some(Self {
            numbers,
            manifest: RwLock::new(manifest.map(Arc::new)),
            visible_blocks,
            block_bytes: AtomicU64::new(files::tree_bytes(&dir.join("store"))),
            verified: AtomicBool::new(false),
            ..Self::unfinished(dir, numbers.first)
        })
    }

    /// A partition without a block.
    pub(super) fn unfinished(dir: &Path, seq: u64) -> Self {
        static IDENTITIES: AtomicU64 = AtomicU64::new(0);
        Self {
            numbers: Numbers { first: seq, last: seq, generation: 1 },
            identity: IDENTITIES.fetch_add(1, Ordering::Relaxed),
            dir: dir.to_path_buf(),
            manifest: RwLock::new(None),
            open: Mutex::default(),
            visible_blocks: AtomicU64::new(0),
            block_bytes: AtomicU64::new(0),
            verified: AtomicBool::new(true),
            condemned: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            damage_seen: Arc::default(),
            shown_for_long: OnceLock::new(),
        }
    }

    pub(super) fn create(config: &StoreConfig, seq: u64, started: UnixNanos) -> Result<Self, StoreError> {
        let started = i64::try_from(started.0 / 1_000_000_000).unwrap_or(i64::MAX);
        let started = jiff::Timestamp::from_second(started).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let name = format!("{}-{seq:06}", started.strftime("%Y%m%dT%H%M%SZ"));
        let partition = Self::unfinished(&config.data_dir.join("partitions").join(name), seq);
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
            return self.remove_leftovers().map(|()| None);
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
        let usable = self.open(config).and_then(|open| {
            open.all_blocks_readable()?;
            if self.block_bytes() <= config.verify_at_start_bytes_max { self.verify(&open) } else { Ok(()) }
        });
        let Err(error) = usable else { return Ok(None) };
        self.forget();
        counters.partitions_quarantined.add(1);
        tracing::error!(partition = label, %error, "database moved to quarantine, rebuilding it from the journal");
        let moved = files::quarantine(&config.data_dir, &self.store_dir(), &self.quarantine_label())?;
        let _empty = self.open(config)?;
        self.verified.store(true, Ordering::SeqCst);
        self.block_bytes.store(0, Ordering::Relaxed);
        Ok(Some(moved))
    }

    /// Reads every page of the database. One that fails is condemned.
    pub(super) fn verify(&self, open: &OpenPartition) -> Result<(), StoreError> {
        let outcome = open.pages.verify_pages();
        match &outcome {
            Ok(()) => self.verified.store(true, Ordering::SeqCst),
            Err(_) => self.condemned.store(true, Ordering::SeqCst),
        }
        outcome
    }

    /// Whether answers may rely on it: sealed, or every page was read since the start.
    pub fn is_verified(&self) -> bool {
        self.manifest().is_some() || self.verified.load(Ordering::SeqCst)
    }

    /// Whether a question met a damaged page of it since the start, although it is sealed.
    pub fn has_damage(&self) -> bool {
        self.damage_seen.load(Ordering::Relaxed)
    }

    /// Whether it is damaged and has to be rebuilt from its journal.
    pub fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::SeqCst)
    }

    /// What a sealed partition does not need any more: its journal and its database.
    pub(super) fn remove_leftovers(&self) -> Result<(), StoreError> {
        let leftovers = [self.journal_dir(), self.store_dir(), self.dir.join(super::rebuild::UNFINISHED)];
        leftovers.iter().try_for_each(|dir| files::remove_tree_if_there(dir))
    }

    /// Under which name a database that its journal replaces stands in quarantine.
    pub(super) fn quarantine_label(&self) -> String {
        format!("{}{REBUILT_SUFFIX}", self.name())
    }

    /// The same partition with the database that was just put there.
    pub(super) fn reopened(&self, config: &StoreConfig) -> Result<Self, StoreError> {
        let again = Self::at(&self.dir).ok_or_else(|| StoreError::Removed { path: self.dir.clone() })?;
        let _open = again.open(config)?;
        again.verified.store(true, Ordering::SeqCst);
        Ok(again)
    }

    /// Ascending in the order of creation.
    pub fn seq(&self) -> u64 {
        self.numbers.first
    }

    /// The number of the last partition that it stands for: higher than `seq` when remnants were merged.
    pub fn last_seq(&self) -> u64 {
        self.numbers.last
    }

    /// 1 as it was sealed; higher when only some of its spans stayed.
    pub fn generation(&self) -> u32 {
        self.numbers.generation
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// A number that no other partition of this process has, not even an earlier generation of this one.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The traces that its neighbours have to keep for it, found by `find` the first time.
    pub(super) fn shown_for_long(
        &self,
        find: impl FnOnce() -> Result<BTreeSet<TraceId>, StoreError>,
    ) -> Result<Arc<BTreeSet<TraceId>>, StoreError> {
        if let Some(known) = self.shown_for_long.get() {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(find()?);
        Ok(Arc::clone(self.shown_for_long.get_or_init(|| found)))
    }

    /// Name of the partition that will hold what stays of this one and of all up to `last`.
    pub(super) fn next_generation(&self, last: &Self) -> String {
        let (first, start) = (self.numbers.first, self.name());
        let start = start.split_once('-').map_or(&*start, |(start, _)| start);
        let last_seq = last.numbers.last;
        let same = self.numbers.last == last_seq;
        let generation = if same { self.numbers.generation + 1 } else { 2 };
        if first == last_seq {
            format!("{start}-{first:06}-{generation}")
        } else {
            format!("{start}-{first:06}-{last_seq:06}-{generation}")
        }
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

    /// From now on it is read from `BLOCKS`; its database and its journal go. Questions that still read the database are waited
    /// for; when one takes too long the next start removes it.
    pub(super) fn become_sealed(&self, manifest: Manifest) -> Result<(), StoreError> {
        let growing = {
            let mut opening = self.open.lock();
            *self.manifest.write() = Some(Arc::new(manifest));
            let growing = opening.current();
            (opening.held, opening.lent) = (None, Weak::new());
            growing
        };
        files::remove_tree_if_there(&self.journal_dir())?;
        if growing.is_none_or(close_database) { self.remove_leftovers() } else { Ok(()) }
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

    /// The blocks that a trace may be in, by the index of a sealed partition; nothing is opened.
    pub fn blocks_of_trace(&self, trace: TraceId) -> TraceBlocks {
        self.blocks_of_traces(&[trace]).pop().unwrap_or(TraceBlocks::Unknown)
    }

    /// The same of several traces, in their order.
    pub fn blocks_of_traces(&self, traces: &[TraceId]) -> Vec<TraceBlocks> {
        if self.manifest().is_none() {
            return vec![TraceBlocks::Unknown; traces.len()];
        }
        trace_index::look_up(&self.dir, traces).unwrap_or_else(|error| {
            tracing::warn!(partition = self.name(), %error, "its index of traces is of no use; all blocks are asked");
            vec![TraceBlocks::Unknown; traces.len()]
        })
    }

    pub(super) fn open(&self, config: &StoreConfig) -> Result<Arc<OpenPartition>, StoreError> {
        let mut opening = self.open.lock();
        match opening.gone {
            Some(Gone::Removed) => return Err(StoreError::Removed { path: self.dir.clone() }),
            Some(Gone::Replaced) => return Err(StoreError::Replaced { path: self.dir.clone() }),
            None => {}
        }
        if let Some(open) = opening.current() {
            return Ok(open);
        }
        let opened = match self.manifest() {
            Some(_) => OpenPartition::sealed(&self.dir, Arc::clone(&self.damage_seen))?,
            None => OpenPartition::growing(&self.store_dir(), config.cache_bytes)?,
        };
        let opened = Arc::new(opened);
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

    /// Lets go of the database and gives it away. Questions that are under way keep it until they end.
    pub(super) fn close(&self) -> Option<Arc<OpenPartition>> {
        self.open.lock().held.take()
    }

    /// Lets go of the database and of what was seen of it: another one takes its place.
    fn forget(&self) {
        *self.open.lock() = Opening::default();
        self.show_blocks(0);
    }

    /// Lets go of the database for good, before its directory goes.
    pub(super) fn retire(&self, gone: Gone) {
        let mut opening = self.open.lock();
        opening.gone = Some(gone);
        opening.held = None;
    }

    /// Lets go of the database and waits until it is closed; `false` when a question still holds it.
    pub(super) fn close_alone(&self) -> bool {
        let mut opening = self.open.lock();
        let Some(last) = opening.current() else { return true };
        opening.held = None;
        match Arc::try_unwrap(last) {
            Ok(alone) => drop_database(alone),
            Err(shared) => {
                opening.held = Some(shared);
                false
            }
        }
    }
}

/// sled unwraps the result of its last fsync: a failing disk must not take a thread down with it.
fn drop_database(alone: OpenPartition) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(alone))).is_ok()
}

/// Waits for the questions that read it, which takes milliseconds as a rule; `false` when one does not end.
fn close_database(mut database: Arc<OpenPartition>) -> bool {
    for _ in 0..CLOSE_TRIES {
        match Arc::try_unwrap(database) {
            Ok(alone) => return drop_database(alone),
            Err(shared) => database = shared,
        }
        std::thread::park_timeout(CLOSE_WAIT);
    }
    false
}

/// What the name of a partition's directory says, `20261123T100000Z-000001`, `20261123T100000Z-000001-2`, or
/// `20261123T100000Z-000001-000016-2`; `None` for any other name.
pub(super) fn numbers_of(name: &str) -> Option<Numbers> {
    let (start, numbers) = name.split_once('-')?;
    let numbers: Vec<&str> = numbers.split('-').collect();
    let (first, last, generation) = match *numbers.as_slice() {
        [seq] => (seq, seq, "1"),
        [seq, generation] => (seq, seq, generation),
        [first, last, generation] => (first, last, generation),
        _ => return None,
    };
    let time = start.strip_suffix('Z')?.split_once('T')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let ours = time.0.len() == 8
        && time.1.len() == 6
        && 6 <= first.len()
        && 6 <= last.len()
        && [time.0, time.1, first, last, generation].into_iter().all(digits);
    let numbers =
        Numbers { first: first.parse().ok()?, last: last.parse().ok()?, generation: generation.parse().ok()? };
    Some(numbers).filter(|numbers| ours && numbers.first <= numbers.last)
}

/// Whether what lies in quarantine under `name` is a database that its journal replaced: then no span is missing.
pub(super) fn is_rebuilt(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(label, _number)| label.ends_with(REBUILT_SUFFIX))
}
