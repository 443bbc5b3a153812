//! Looking for damage in a directory that nobody uses: files against SEALED, pages against their checksums, the index
//! and the histograms against the spans. What is found is said; only `quarantine` moves anything, nothing is deleted.
//!
//! A sealed partition is only read. The database of an unsealed one is opened as every start opens it, and sled repairs
//! what it opens: it is disposable, its journal is not, and that is left alone.

use std::path::{Path, PathBuf};

use crate::block::Block;
use crate::latency::{SeriesWanted, Slot, Take};
use crate::model::{Span, SpanKey, TraceId};
use crate::telemetry::with_causes;

use super::copying::{Progress, files_below, hash_file};
use super::files::{self, DirLock};
use super::remnant::UNFINISHED_SUFFIX;
use super::retention::DROP_SUFFIX;
use super::seal::{Tally, adding, recount, verify};
use super::{Manifest, OpenPartition, Partition, StoreConfig, StoreError, remnant};

/// Spans decoded at once: a row group.
const ROWS: u32 = 4096;
/// Faults of one partition that are spelled out.
const FAULTS_MAX: usize = 20;

/// Directories that a crash right after sealing leaves.
const LEFTOVERS: [&str; 2] = ["journal/", "store/"];

/// A data directory that no server uses as long as this lives. Nothing in it is opened yet.
#[derive(Debug)]
pub struct IdleDir {
    path: PathBuf,
    /// What FORMAT says.
    pub format: String,
    _lock: DirLock,
}

/// What kind of partition a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has a whole SEALED.
    Sealed,
    /// It has a journal, and no whole SEALED.
    Unsealed,
    /// It has neither, but files: it was sealed once.
    SealLost,
    /// It has nothing: the process ended while it made it, and the next start removes it.
    Empty,
}

/// A partition of an idle directory.
#[derive(Debug)]
pub struct IdlePartition {
    partition: Partition,
    /// What it is.
    pub standing: Standing,
}

/// What was found in one partition, its journal aside.
#[derive(Clone, Debug, Default)]
pub struct DatabaseReport {
    /// Spans in its blocks.
    pub spans: u64,
    /// Its blocks.
    pub blocks: u64,
    /// Journal sequence that they cover.
    pub covered: u64,
    /// What is damaged, one sentence each.
    pub faults: Vec<String>,
    /// What is odd but harms nothing.
    pub notes: Vec<String>,
}

impl IdleDir {
    /// Takes the directory's lock.
    ///
    /// # Errors
    /// `NoDataDir`, `UnknownFormat`, `Locked`.
    pub fn lock(data_dir: &Path) -> Result<Self, StoreError> {
        let format = files::known_format(data_dir)?;
        let lock = DirLock::acquire(data_dir)?;
        Ok(Self { path: data_dir.to_path_buf(), format, _lock: lock })
    }

    /// Its partitions, oldest first.
    pub fn partitions(&self) -> Vec<IdlePartition> {
        let dir = self.path.join("partitions");
        let names = files::entry_names(&dir);
        let partitions = names.iter().filter_map(|name| Partition::at(&dir.join(name)));
        let mut partitions: Vec<IdlePartition> = partitions.map(IdlePartition::new).collect();
        partitions.sort_by_key(|idle| idle.partition.seq());
        partitions
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Names in `quarantine/`.
    pub fn quarantined(&self) -> Vec<String> {
        files::entry_names(&self.path.join("quarantine"))
    }

    /// What an interrupted step left and the next start finishes, by path.
    pub fn leftovers(&self) -> Vec<String> {
        let is_left = |name: &&String| {
            [DROP_SUFFIX, files::DRAFT_SUFFIX, UNFINISHED_SUFFIX].iter().any(|suffix| name.ends_with(suffix))
        };
        let mut left: Vec<String> = files::entry_names(&self.path).iter().filter(is_left).cloned().collect();
        let partitions = files::entry_names(&self.path.join("partitions"));
        left.extend(partitions.iter().filter(is_left).map(|name| format!("partitions/{name}")));
        left
    }

    /// Moves a partition into `quarantine/` and returns its name there.
    ///
    /// # Errors
    /// `File`.
    pub fn quarantine_partition(&self, idle: &IdlePartition) -> Result<String, StoreError> {
        files::quarantine(&self.path, idle.partition.dir(), &idle.name())
    }

    /// Moves the database of an unsealed partition there: the next start makes a new one of the journal.
    ///
    /// # Errors
    /// `File`.
    pub fn quarantine_database(&self, idle: &IdlePartition) -> Result<String, StoreError> {
        let label = format!("{}{}", idle.name(), super::partition::REBUILT_SUFFIX);
        files::quarantine(&self.path, &idle.partition.store_dir(), &label)
    }
}

impl IdlePartition {
    fn new(partition: Partition) -> Self {
        let standing = if partition.manifest().is_some() {
            Standing::Sealed
        } else if partition.journal_dir().exists() {
            Standing::Unsealed
        } else if files::entry_names(partition.dir()).is_empty() {
            Standing::Empty
        } else {
            Standing::SealLost
        };
        Self { partition, standing }
    }

    /// Name of its directory.
    pub fn name(&self) -> String {
        self.partition.name()
    }

    /// Ascending in the order of creation.
    pub fn seq(&self) -> u64 {
        self.partition.seq()
    }

    /// The number of the last partition that it stands for.
    pub fn last_seq(&self) -> u64 {
        self.partition.last_seq()
    }

    /// Whether there is a database to move.
    pub fn has_database(&self) -> bool {
        self.partition.store_dir().exists()
    }

    /// Where its journal lies.
    pub fn journal_dir(&self) -> PathBuf {
        self.partition.journal_dir()
    }

    /// Everything that can be checked without the journal. `on` is told about bytes as they are read.
    ///
    /// Cost: two reads of everything, one decoding of every span.
    pub fn check(&self, config: &StoreConfig, on: Progress<'_>) -> DatabaseReport {
        let mut report = DatabaseReport::default();
        match (self.standing, self.partition.manifest()) {
            (Standing::Sealed, Some(manifest)) => self.check_sealed(&manifest, config, &mut report, on),
            (Standing::Unsealed, _) => self.check_unsealed(config, &mut report, on),
            (Standing::Sealed | Standing::SealLost, _) => {
                let exists = self.partition.dir().join("SEALED").exists();
                let what = if exists { "is not whole: a byte in it is wrong" } else { "is missing" };
                report.faults.push(format!("SEALED {what}; what the partition should hold is not known"));
            }
            (Standing::Empty, _) => report.notes.push("empty; the next start removes it".to_owned()),
        }
        report.shorten();
        report
    }

    fn check_sealed(&self, manifest: &Manifest, config: &StoreConfig, report: &mut DatabaseReport, on: Progress<'_>) {
        (report.spans, report.blocks, report.covered) = (manifest.spans, manifest.blocks, manifest.last_sequence);
        report.note_files(self.partition.dir(), manifest, on);
        let open = match self.partition.open(config) {
            Ok(open) => open,
            Err(error) => return report.fault(&error),
        };
        if 1 < self.partition.generation() {
            if let Err(error) = remnant::verify(&open, manifest) {
                report.fault(&error);
            }
        } else {
            match verify(&open, &self.partition) {
                Ok(found) if found == (Manifest { files: Vec::new(), ..manifest.clone() }) => {}
                Ok(found) => report.faults.push(format!(
                    "SEALED says {} spans in {} blocks, there are {} in {}, or times and services differ",
                    manifest.spans, manifest.blocks, found.spans, found.blocks
                )),
                Err(error) => report.fault(&error),
            }
        }
        report.check_blocks(&open, on);
        drop(open);
        self.partition.close();
    }

    fn check_unsealed(&self, config: &StoreConfig, report: &mut DatabaseReport, on: Progress<'_>) {
        if self.partition.dir().join("SEALED").exists() {
            report
                .faults
                .push("SEALED is not whole; the journal is still there, and the next start goes by it".to_owned());
        }
        if !self.partition.store_dir().exists() {
            report.notes.push("no database yet: the next start makes it of the journal".to_owned());
            return;
        }
        let open = match self.partition.open(config) {
            Ok(open) => open,
            Err(error) => return report.fault(&error),
        };
        let checkpoint = open.checkpoint();
        (report.spans, report.blocks, report.covered) = (checkpoint.spans, checkpoint.blocks, checkpoint.sequence);
        if let Err(error) = open.all_blocks_readable() {
            report.fault(&error);
        } else {
            report.check_blocks(&open, on);
        }
        drop(open);
        self.partition.close();
    }
}

impl DatabaseReport {
    fn fault(&mut self, error: &StoreError) {
        self.faults.push(match error {
            StoreError::Unverified { what, .. } | StoreError::Damaged { what, .. } => what.clone(),
            other => with_causes(other),
        });
    }

    fn shorten(&mut self) {
        let more = self.faults.len().saturating_sub(FAULTS_MAX);
        if 0 < more {
            self.faults.truncate(FAULTS_MAX);
            self.faults.push(format!("and {more} more"));
        }
    }

    /// Every file that SEALED lists, and every file that it does not.
    fn note_files(&mut self, dir: &Path, manifest: &Manifest, on: Progress<'_>) {
        for (bytes, hash, path) in &manifest.files {
            match hash_file(&dir.join(path), on) {
                Ok(found) if found == (*bytes, *hash) => {}
                Ok((found, _)) if found != *bytes => {
                    self.faults.push(format!("{path} has {found} bytes, SEALED says {bytes}"));
                }
                Ok((_, found)) => {
                    self.faults.push(format!("{path} has the hash {found:016x}, SEALED says {hash:016x}"));
                }
                Err(error) => self.faults.push(with_causes(&error)),
            }
        }
        let present = match files_below(dir) {
            Ok(present) => present,
            Err(error) => return self.fault(&error),
        };
        let listed = |path: &str| path == "SEALED" || manifest.files.iter().any(|(.., known)| known == path);
        for path in present.iter().filter(|path| !listed(path)) {
            if !LEFTOVERS.iter().any(|left| path.starts_with(left)) {
                self.notes.push(format!("{path} is not in SEALED; nothing reads it"));
            }
        }
        for left in LEFTOVERS.iter().filter(|left| dir.join(left).exists()) {
            self.notes.push(format!("{left} is still there; the next start removes it"));
        }
    }

    /// Every span decodes, lies where its block's index says, and is counted where it should be.
    fn check_blocks(&mut self, open: &OpenPartition, on: Progress<'_>) {
        for (block_no, block) in open.blocks(u64::MAX) {
            let Some(block) = block else {
                self.faults.push(format!("the header of block {block_no} is damaged"));
                continue;
            };
            if let Err(what) = check_block(open, block_no, &block, on) {
                self.faults.push(format!("block {block_no}: {what}"));
            }
        }
        match (recount(open), tally_slots(open)) {
            (Ok(recounted), Ok(slots)) if recounted == slots => {}
            (Ok(_), Ok(_)) => self.faults.push("the histograms of the blocks differ from a recount".to_owned()),
            (Err(error), _) | (_, Err(error)) => self.fault(&error),
        }
    }
}

/// Count and sum of every slot of the blocks, as `recount` gives them.
fn tally_slots(open: &OpenPartition) -> Result<Tally, StoreError> {
    let mut tally = Tally::new();
    for (block_no, block) in open.blocks(u64::MAX) {
        if block.is_none() {
            continue;
        }
        let series = open.series(block_no)?;
        open.block_slots(block_no, &SeriesWanted::ALL, Slot::ALL, Take::Exemplars(&mut adding(&series, &mut tally)))?;
    }
    Ok(tally)
}

/// The spans of a block in their order, and the runs of rows that are one trace.
struct Walk<'a> {
    open: &'a OpenPartition,
    block_no: u64,
    block: &'a Block,
    last: Option<SpanKey>,
    /// The trace at hand and its first row.
    run: Option<(TraceId, u32)>,
}

fn check_block(open: &OpenPartition, block_no: u64, block: &Block, on: Progress<'_>) -> Result<(), String> {
    let n_spans = block.summary().spans;
    let mut walk = Walk { open, block_no, block, last: None, run: None };
    let mut row = 0;
    while row < n_spans {
        let rows: Vec<u32> = (row..n_spans.min(row.saturating_add(ROWS))).collect();
        let batch = open.spans(block_no, &rows).map_err(|error| with_causes(&error))?;
        if batch.spans.len() != rows.len() {
            return Err(format!("{} of {} spans from row {row} on decode", batch.spans.len(), rows.len()));
        }
        for (row, span) in rows.iter().zip(&batch.spans) {
            walk.step(*row, span)?;
        }
        on(batch.bytes.len() as u64);
        row += ROWS;
    }
    walk.end_run(n_spans)
}

impl Walk<'_> {
    fn step(&mut self, row: u32, span: &Span) -> Result<(), String> {
        let key = span.key();
        if self.last.is_some_and(|last| key <= last) {
            return Err(format!("row {row} is not in the order of spans"));
        }
        self.last = Some(key);
        let summary = self.block.summary();
        let (start, at) = (span.start_time_unix_nano, span.index_time());
        let in_bounds = (start.is_unset() || (summary.min_start <= start && start <= summary.max_start))
            && (summary.min_index_time <= at && at <= summary.max_index_time)
            && span.latency().is_none_or(|took| summary.min_latency <= took && took <= summary.max_latency);
        if !in_bounds {
            return Err(format!("row {row} lies outside the bounds of the block"));
        }
        if self.run.is_none_or(|(trace, _)| trace != span.trace_id) {
            self.end_run(row)?;
            self.run = Some((span.trace_id, row));
        }
        Ok(())
    }

    /// The index has to lead to exactly the rows that were walked.
    fn end_run(&self, end: u32) -> Result<(), String> {
        let Some((trace, start)) = self.run else { return Ok(()) };
        if !self.block.may_hold(trace) {
            return Err(format!("the filter denies trace {trace}, which has rows {start} to {end}"));
        }
        let found = self.open.rows_of_trace(self.block_no, trace).map_err(|error| with_causes(&error))?;
        if found != (start..end) {
            return Err(format!("trace {trace} has rows {start} to {end}, the index leads to {found:?}"));
        }
        Ok(())
    }
}
