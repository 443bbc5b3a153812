//! The store: a head in memory, partitions on disk, nothing between them that could disagree.
//!
//! ```text
//! data/LOCK FORMAT
//! data/partitions/20261123T100000Z-000001/journal/  until sealed (written by `ingest`, not by this module)
//!                                         store/    sled, until sealed
//!                                         BLOCKS    the pages, once sealed
//!                                         TRACES    which block holds a trace
//!                                         SEALED    written last
//! data/pins                                         traces that people keep
//! data/quarantine/..                                what would not open; never deleted
//! ```
//!
//! A span is either in the head or in a block, never in both and never in neither: a `Snapshot` is taken under one
//! lock. Deliberately absent: decoding, the journal, threads, async.

mod admission;
mod backup;
mod check;
mod checkpoint;
mod copying;
mod duplicates;
mod edges;
mod engine;
mod files;
mod head;
mod keep;
mod manifest;
mod open;
mod pack;
mod pages;
mod pairing;
mod partition;
mod peel;
mod pinning;
mod pins;
mod rebuild;
mod remnant;
mod retention;
mod rollup;
mod seal;
mod series_table;
mod slots;
#[cfg(test)]
mod tests;
mod trace_index;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::block::BlockError;
use crate::clock::Clock;
use crate::model::{Conventions, DurationNanos, SpanBatch, UnixNanos};
use crate::telemetry::Counters;

pub use backup::{
    BackupList, BackupOutcome, BackupPartition, CopiedJournal, CopyJournal, backup, restore, source_bytes,
};
pub use check::{DatabaseReport, IdleDir, IdlePartition, Standing};
pub use checkpoint::Checkpointed;
pub use copying::Progress;
pub use edges::{Call, Edge, Side, SnapshotOfCalls};
pub use head::{FrozenHead, HeadPart};
pub use keep::KeepRule;
pub use manifest::Manifest;
pub use open::OpenPartition;
pub use pages::BlockSections;
pub use partition::Partition;
pub use pins::{Pin, PinError};
pub use rebuild::Rebuild;
pub use rollup::{RollupTable, RollupWindow};
pub use series_table::SeriesList;
pub use trace_index::TraceBlocks;

use files::DirLock;
use head::Head;
use pins::Pins;
use series_table::ClosedLists;

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Root of everything on disk.
    pub data_dir: PathBuf,
    /// sled's cache per open partition, in bytes.
    pub cache_bytes: u64,
    /// Sealed partitions held open at once; at least 1.
    pub open_partitions_max: usize,
    /// Spans older than this are dropped with their partition; `None` keeps them until the disk budget is used up.
    pub retention: Option<DurationNanos>,
    /// Roll-ups older than this go, with the traces that they pin; `None` keeps them until they take more than their share
    /// of the disk budget.
    pub rollup_retention: Option<DurationNanos>,
    /// How many neighbours that let their spans go become one; at least 2.
    pub remnants_merged_at_once: usize,
    /// Services whose spans stay for another time.
    pub keep: Vec<KeepRule>,
    /// Bytes of all partitions together above which the oldest ones are dropped.
    pub disk_bytes_max: u64,
    /// What of a span decides where it is counted. Blocks keep what they were written with.
    pub conventions: Arc<Conventions>,
    /// An unsealed database of up to this many bytes is read in full before the store opens; a larger one afterwards, and
    /// until then answers say so.
    pub verify_at_start_bytes_max: u64,
}

impl StoreConfig {
    /// A directory from which nothing is removed, with small bounds of memory: for benches and tests.
    pub fn keeping_all(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_path_buf(),
            cache_bytes: 8 << 20,
            open_partitions_max: 16,
            retention: None,
            rollup_retention: None,
            remnants_merged_at_once: 16,
            keep: Vec::new(),
            disk_bytes_max: u64::MAX,
            conventions: Arc::default(),
            verify_at_start_bytes_max: u64::MAX,
        }
    }
}

/// What the store cannot do, and who can help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process holds the directory.
    #[error("{path} is in use by process {pid}; stop it or pass a different --data-dir")]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Its process id as it wrote it down; "unknown" when it did not.
        pid: String,
    },
    /// The directory was written by another version.
    #[error("{path} has format {found:?}, this program reads {known:?}; use the version that wrote it")]
    UnknownFormat {
        /// The FORMAT file.
        path: PathBuf,
        /// Its content.
        found: String,
        /// Ours.
        known: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The embedded database failed; its own error type stays inside this module.
    #[error("the storage engine of {path} failed")]
    Engine {
        /// The partition.
        path: PathBuf,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A page is missing or its checksum is wrong; it is not served.
    #[error("{path} holds a damaged page ({what}); restore the partition from a backup")]
    Damaged {
        /// The partition.
        path: PathBuf,
        /// Which page, and how it was seen.
        what: String,
    },
    /// A block could not be built or read.
    #[error("block {block_no} of {path}")]
    Block {
        /// The partition.
        path: PathBuf,
        /// The block.
        block_no: u64,
        /// Why.
        source: BlockError,
    },
    /// Latency slots could not be read.
    #[error("latency slots of {path}")]
    Latency {
        /// The partition.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Retention removed it while a question still knew it; its spans are out of retention.
    #[error("{path} was removed by retention")]
    Removed {
        /// The partition.
        path: PathBuf,
    },
    /// It was rebuilt, or only some of its spans were kept, while a question still knew it as it was.
    #[error("{path} was replaced while it was read; ask again")]
    Replaced {
        /// The partition.
        path: PathBuf,
    },
    /// There is no data directory to read.
    #[error("{path} is no data directory, it has no file FORMAT; pass the --data-dir of the server, or a backup")]
    NoDataDir {
        /// As given.
        path: PathBuf,
    },
    /// A directory that a backup must not be written into.
    #[error("{path} {what}; back up into a new directory, or into one that holds an earlier backup")]
    Foreign {
        /// As given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A partition changed at every look while it was copied.
    #[error("{path} does not hold still ({what}); is the server starting over and over? try again")]
    Restless {
        /// The partition.
        path: PathBuf,
        /// What was seen last.
        what: String,
    },
    /// What is to be restored is no finished backup.
    #[error("{path} is not a finished backup, it has no whole file BACKUP; run `spandrel backup` into it again")]
    UnfinishedBackup {
        /// As given.
        path: PathBuf,
    },
    /// Something is there already.
    #[error("{path} is not empty; {remedy}")]
    NotEmpty {
        /// As given.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A file of a backup is not what was written, or not what this version reads.
    #[error("{path} differs: {what}")]
    Differs {
        /// The file.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// A partition does not hold what its blocks say.
    #[error("{path} failed verification: {what}; its journal is kept")]
    Unverified {
        /// The partition.
        path: PathBuf,
        /// What differs.
        what: String,
    },
}

impl StoreError {
    /// Whether what was written is not there any more, as opposed to a disk that refuses at the moment.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Unverified { .. } | Self::Block { .. } | Self::Latency { .. } => true,
            Self::Engine { source, .. } => engine::is_corruption(&**source),
            Self::Locked { .. }
            | Self::UnknownFormat { .. }
            | Self::File { .. }
            | Self::Removed { .. }
            | Self::Replaced { .. }
            | Self::NoDataDir { .. }
            | Self::Foreign { .. }
            | Self::Restless { .. }
            | Self::UnfinishedBackup { .. }
            | Self::NotEmpty { .. }
            | Self::Differs { .. } => false,
        }
    }
}

/// The store of one data directory. Shared by the writer thread, the sealer and all queries.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    clock: Clock,
    counters: Arc<Counters>,
    counting: slots::Counting,
    state: RwLock<State>,
    /// Sealed partitions that are open, least recently used first.
    open_sealed: Mutex<Vec<Arc<Partition>>>,
    /// Taken after `open_sealed`.
    closed_lists: Mutex<ClosedLists>,
    /// Taken before `state` where both are.
    pins: Mutex<Pins>,
    /// Why retention could not do all that it should, the last time.
    retention_fault: Mutex<Option<String>>,
    _lock: DirLock,
}

#[derive(Debug)]
struct State {
    /// All partitions, oldest first. The last one is active, once there is one.
    partitions: Vec<Arc<Partition>>,
    head: Head,
    /// Heads on their way into a block, oldest first.
    frozen: Vec<Arc<FrozenHead>>,
    quarantined: Vec<String>,
    /// The partition whose database is being made anew.
    rebuilding: Option<String>,
}

/// What one question sees: every acknowledged span, each in exactly one place.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Spans that are in no block yet, oldest first.
    pub heads: Vec<HeadPart>,
    /// Partitions, oldest first, each with the number of its blocks that belong to this snapshot.
    pub partitions: Vec<(Arc<Partition>, u64)>,
    /// Partitions that could not be opened: their spans are missing. Not what a journal rebuilt.
    pub quarantined: Vec<String>,
    /// What answers have to say beside that, one sentence each: databases not yet verified, or being rebuilt.
    pub reservations: Vec<String>,
}

impl State {
    fn snapshot(&self) -> Snapshot {
        let mut heads: Vec<HeadPart> = self.frozen.iter().map(|frozen| frozen.part.clone()).collect();
        heads.extend(self.head.part());
        let partitions =
            self.partitions.iter().map(|partition| (Arc::clone(partition), partition.visible_blocks())).collect();
        let quarantined = self.quarantined.iter().filter(|name| !partition::is_rebuilt(name)).cloned().collect();
        Snapshot { heads, partitions, quarantined, reservations: self.reservations() }
    }

    fn reservations(&self) -> Vec<String> {
        let mut reservations = Vec::new();
        for partition in &self.partitions {
            let name = partition.name();
            if self.rebuilding.as_ref() == Some(&name) {
                reservations.push(format!("partition {name} is being rebuilt from its journal"));
            } else if partition.is_condemned() {
                reservations.push(format!("partition {name} is damaged and will be rebuilt from its journal"));
            } else if partition.has_damage() {
                let remedy = "restore it from a backup";
                reservations.push(format!("partition {name} has damaged pages, spans of it may be missing; {remedy}"));
            } else if !partition.is_verified() {
                reservations.push(format!("partition {name} is still being verified after a restart"));
            }
        }
        reservations
    }
}

impl Store {
    /// Opens or creates a data directory and opens its unsealed partitions.
    ///
    /// A partition whose database will not open is moved to `quarantine/`; an unsealed one is made anew, empty, to be
    /// filled from its journal.
    ///
    /// # Errors
    /// `Locked`, `UnknownFormat`, or `File` for a directory that cannot be used.
    pub fn open(config: StoreConfig, clock: Clock, counters: Arc<Counters>) -> Result<Self, StoreError> {
        files::create_dir(&config.data_dir)?;
        let lock = DirLock::acquire(&config.data_dir)?;
        files::check_format(&config.data_dir)?;
        let partitions_dir = config.data_dir.join("partitions");
        files::create_dir(&partitions_dir)?;
        retention::finish_drops(&partitions_dir)?;
        keep::finish_generations(&partitions_dir)?;
        let mut partitions = Vec::new();
        let mut quarantined = files::entry_names(&config.data_dir.join("quarantine"));
        let pins = pinning::open(&config.data_dir, &mut quarantined)?;
        for name in files::entry_names(&partitions_dir) {
            let dir = partitions_dir.join(&name);
            Manifest::check_version(&dir)?;
            let Some(partition) = Partition::at(&dir) else { continue };
            if let Some(moved) = partition.prepare(&config, &counters)? {
                quarantined.push(moved);
            }
            if partition.exists() {
                partitions.push(Arc::new(partition));
            }
        }
        partitions.sort_by_key(|partition| partition.seq());
        let state = State { partitions, head: Head::default(), frozen: Vec::new(), quarantined, rebuilding: None };
        let counting = slots::Counting::new(&config.conventions, &counters);
        let closed_lists = ClosedLists::beside(config.open_partitions_max);
        Ok(Self {
            config,
            clock,
            counters,
            counting,
            state: RwLock::new(state),
            open_sealed: Mutex::new(Vec::new()),
            closed_lists: Mutex::new(closed_lists),
            pins: Mutex::new(pins),
            retention_fault: Mutex::new(None),
            _lock: lock,
        })
    }

    /// The settings it was opened with.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Partitions that are not sealed, oldest first.
    pub fn unsealed(&self) -> Vec<Arc<Partition>> {
        self.state.read().partitions.iter().filter(|partition| partition.manifest().is_none()).cloned().collect()
    }

    /// Reads every page of unsealed partitions that were too large for it at the start. What fails is condemned: nothing is
    /// written to it any more, and its sealing rebuilds it.
    pub fn verify_unsealed(&self) {
        for partition in self.unsealed().iter().filter(|partition| !partition.is_verified()) {
            let verified = partition.open(&self.config).and_then(|open| partition.verify(&open));
            if let Err(error) = verified {
                tracing::error!(
                    partition = partition.name(),
                    error = &error as &dyn std::error::Error,
                    "the database is damaged; it will be rebuilt from its journal"
                );
            }
        }
    }

    /// All partitions, oldest first.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.state.read().partitions.clone()
    }

    /// Starts a new partition, which takes everything that is frozen from now on. The head must be empty or frozen.
    ///
    /// # Errors
    /// `File` or `Engine` when it cannot be created.
    pub fn start_partition(&self) -> Result<Arc<Partition>, StoreError> {
        let last = self.state.read().partitions.last().map_or(0, |partition| partition.last_seq());
        let partition = Arc::new(Partition::create(&self.config, last + 1, self.clock.now())?);
        self.state.write().partitions.push(Arc::clone(&partition));
        Ok(partition)
    }

    /// Makes acknowledged batches visible to every question that is asked from now on.
    pub fn push(&self, batches: impl IntoIterator<Item = (u64, UnixNanos, Arc<SpanBatch>)>) {
        let mut state = self.state.write();
        for (sequence, arrived, batch) in batches {
            state.head.push(sequence, arrived, batch);
        }
    }

    /// Spans and bytes of the head, not counting what is frozen.
    pub fn head_size(&self) -> (u64, usize) {
        let state = self.state.read();
        (state.head.spans(), state.head.memory_bytes())
    }

    /// Spans that are in no block yet.
    pub fn spans_in_memory(&self) -> u64 {
        let state = self.state.read();
        state.head.spans() + state.frozen.iter().map(|frozen| frozen.part.spans).sum::<u64>()
    }

    /// Closes the head for its block in `partition`; a new one begins. `None` when it is empty.
    pub fn freeze(&self, partition: &Arc<Partition>) -> Option<Arc<FrozenHead>> {
        let mut state = self.state.write();
        let part = state.head.take()?;
        let frozen = Arc::new(FrozenHead { partition: Arc::clone(partition), part });
        state.frozen.push(Arc::clone(&frozen));
        Some(frozen)
    }

    /// Everything that is stored, as of now. Cost: a few reference counts per batch of the head.
    pub fn snapshot(&self) -> Snapshot {
        self.state.read().snapshot()
    }

    /// The blocks of a partition, opened if need be. Sealed ones are kept open in a small least-recently-used list.
    ///
    /// # Errors
    /// `Engine` or `Damaged`; the caller answers without this partition and says so. `Removed` when retention was faster:
    /// its spans belong to no answer any more.
    pub fn open_partition(&self, partition: &Arc<Partition>) -> Result<Arc<OpenPartition>, StoreError> {
        let open = match partition.open(&self.config) {
            Err(error) if Self::is_lost(partition, &error) => return Err(self.quarantine_sealed(partition, error)),
            opened => opened?,
        };
        if partition.manifest().is_some() {
            let mut recent = self.open_sealed.lock();
            recent.retain(|known| known.seq() != partition.seq());
            recent.push(Arc::clone(partition));
            let mut closed = self.closed_lists.lock();
            closed.give(partition.identity(), &open.series);
            while self.config.open_partitions_max < recent.len() {
                let oldest = recent.remove(0);
                if let Some(open) = oldest.close() {
                    closed.keep(oldest.identity(), &open.series);
                }
            }
        }
        Ok(open)
    }

    /// Whether a sealed partition will never open again, as opposed to a disk that refuses at the moment.
    fn is_lost(partition: &Partition, error: &StoreError) -> bool {
        let Some(manifest) = partition.manifest() else { return false };
        error.is_damage() || (matches!(error, StoreError::Engine { .. }) && manifest.differs(partition.dir()))
    }

    /// Its neighbours go on; `/ready` and every answer name it from now on. Returns the error that led here.
    fn quarantine_sealed(&self, partition: &Arc<Partition>, error: StoreError) -> StoreError {
        let name = partition.name();
        tracing::error!(
            partition = name,
            error = &error as &dyn std::error::Error,
            "will not open; moved to quarantine"
        );
        self.state.write().partitions.retain(|known| !Arc::ptr_eq(known, partition));
        partition.retire(partition::Gone::Removed);
        self.counters.partitions_quarantined.add(1);
        match files::quarantine(&self.config.data_dir, partition.dir(), &name) {
            Ok(moved) => self.state.write().quarantined.push(moved),
            Err(failed) => {
                tracing::error!(error = &failed as &dyn std::error::Error, "it stays where it is until the next start");
                self.state.write().quarantined.push(name);
            }
        }
        error
    }

    /// Bytes on disk of all partitions. Cost: one look at every file.
    pub fn disk_bytes(&self) -> u64 {
        self.partitions().iter().map(|partition| files::tree_bytes(partition.dir())).sum()
    }

    /// Names of what was moved to `quarantine/`.
    pub fn quarantined(&self) -> Vec<String> {
        self.state.read().quarantined.clone()
    }

    /// What an operator should know: what is in quarantine, partitions that answers do not fully rely on, and why spans are
    /// older than their retention; one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let state = self.state.read();
        let quarantine = self.config.data_dir.join("quarantine");
        let in_quarantine = state.quarantined.iter().map(|name| match Manifest::of(&quarantine.join(name)) {
            Some(sealed) => format!("{name} is in quarantine: {}", sealed.describe()),
            None => format!("{name} is in quarantine"),
        });
        let held_up = self.retention_fault.lock().clone();
        let held_up = held_up.map(|why| format!("spans stay beyond their retention until it can be done: {why}"));
        in_quarantine.chain(state.reservations()).chain(held_up).collect()
    }
}
