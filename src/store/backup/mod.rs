//! A backup beside a running server, without its help, and back again.
//!
//! **What is promised**: every span that was acknowledged before the backup began is in it, except what retention
//! removed meanwhile. Why that holds:
//!
//! 1. An acknowledged span lies in a whole record of the journal of an unsealed partition, or in a sealed partition.
//!    Partitions are listed once, at the beginning: one that is created later holds only later spans.
//! 2. A partition goes one way: journal, then SEALED beside the journal, then SEALED alone, then `<name>.drop`, then
//!    gone. Each step is durable before the next begins.
//! 3. A sealed partition never changes. Its files are copied and held against the lengths and hashes in SEALED. What
//!    differs or is missing was dropped meanwhile, which the next look shows, or is damaged, which is said.
//! 4. Of an unsealed partition the journal is enough: its database is made of it at the next start. The journal is
//!    append-only, so a copy made at any later time holds what was whole at the beginning (`journal::copy`). The one
//!    thing that takes journals away is sealing, and it writes SEALED first: a copy counts only if there is no SEALED
//!    after it. Otherwise the partition is looked at again, and is a sealed one.
//! 5. What of a partition stays when its spans leave becomes another one that stands in its place, complete before the first
//!    one goes: for each that went while it was copied its successor is looked for and copied as well.
//! 6. Each way leads forward, so looking again ends; it is bounded all the same.
//!
//! Unsealed partitions come first, so that few are sealed under our hands, then the sealed ones, oldest first, because
//! that is the order in which retention takes them. What else lies in the data directory, `pins` above all, comes last.

mod listing;
mod restore;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::UnixNanos;

use super::copying::{Progress, copy_file, files_below};
use super::files::{self, DirLock};
use super::manifest::Manifest;
use super::partition::{Numbers, numbers_of};
use super::{Partition, StoreError};

pub use listing::{BackupList, BackupPartition};
pub use restore::restore;

/// Looks at a partition that does not hold still.
const ATTEMPTS: u32 = 20;
/// Pause between them.
const PAUSE: Duration = Duration::from_millis(100);
/// There as long as a backup is not finished: such a directory may be written to again.
const UNFINISHED: &str = "BACKUP.unfinished";
/// A partition on its way in.
const COPYING_SUFFIX: &str = ".copying";
/// What is not copied as it is: the holder's business, what is damaged, and what has rules of its own.
const PASSED_OVER: [&str; 4] = ["LOCK", "quarantine", "partitions", listing::NAME];

/// Copies a journal into an existing directory. `File` with the action "read" when it changed meanwhile, `Differs` when
/// it cannot be read by this version.
pub type CopyJournal<'a> = &'a dyn Fn(&Path, &Path) -> Result<CopiedJournal, StoreError>;

/// A journal that was copied.
#[derive(Clone, Debug, Default)]
pub struct CopiedJournal {
    /// Bytes, XXH3-64 and name of each segment.
    pub segments: Vec<(u64, u64, String)>,
    /// Damaged places, copied as they are, one sentence each.
    pub damaged: Vec<String>,
}

/// What a backup did.
#[derive(Clone, Debug, Default)]
pub struct BackupOutcome {
    /// What is in it now.
    pub list: BackupList,
    /// Bytes copied now; the rest was there.
    pub copied_bytes: u64,
    /// Sealed partitions that were there from an earlier backup.
    pub kept: usize,
    /// Partitions that retention removed meanwhile.
    pub left: Vec<String>,
    /// Partitions of an earlier backup that the source no longer has. They stay, but are not listed.
    pub unlisted: Vec<String>,
    /// Partitions that are not in it because the source is damaged, and damaged places that are; one sentence each.
    pub damaged: Vec<String>,
}

/// Bytes that a backup of `data_dir` reads at most.
pub fn source_bytes(data_dir: &Path) -> u64 {
    files::tree_bytes(&data_dir.join("partitions"))
}

/// Backs `data_dir` up into `to`, which is new, empty, or holds an earlier backup.
///
/// # Errors
/// `NoDataDir`, `UnknownFormat`, `Foreign` when `to` holds something else, `Locked` when another backup writes there,
/// `Restless` when a partition never holds still, `File` when the disk refuses. Then `to` is an unfinished backup.
pub fn backup(
    data_dir: &Path,
    to: &Path,
    began: UnixNanos,
    copy_journal: CopyJournal<'_>,
    on: Progress<'_>,
) -> Result<BackupOutcome, StoreError> {
    let format = files::known_format(data_dir)?;
    let _lock = begin(data_dir, to)?;
    let list = BackupList {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        began: rfc3339(began),
        format: format.clone(),
        ..BackupList::default()
    };
    let outcome = BackupOutcome { list, ..BackupOutcome::default() };
    let source = data_dir.join("partitions");
    let mut work = Work { source, target: to.join("partitions"), copy_journal, on, outcome };
    let mut partitions: Vec<Partition> =
        files::entry_names(&work.source).iter().filter_map(|name| Partition::at(&work.source.join(name))).collect();
    partitions.sort_by_key(|partition| (partition.manifest().is_some(), partition.seq()));
    for partition in &partitions {
        work.partition(&partition.name())?;
    }
    work.successors()?;
    work.note_unlisted();
    work.others(data_dir, to)?;
    let mut outcome = work.outcome;
    outcome.list.partitions.sort_by(|a, b| a.name.cmp(&b.name));
    finish(to, &outcome.list)?;
    Ok(outcome)
}

/// The target, empty or an earlier backup, locked, and marked as unfinished.
fn begin(data_dir: &Path, to: &Path) -> Result<DirLock, StoreError> {
    files::create_dir(to)?;
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if absolute(to).starts_with(absolute(data_dir)) {
        return Err(StoreError::Foreign { path: to.to_path_buf(), what: "lies inside the data directory" });
    }
    let names = files::entry_names(to);
    let ours = |name: &String| [listing::NAME, UNFINISHED].contains(&name.as_str());
    if !names.iter().any(ours) && !names.is_empty() {
        return Err(StoreError::Foreign { path: to.to_path_buf(), what: "is neither empty nor a backup" });
    }
    let lock = DirLock::acquire(to)?;
    files::write_durably(&to.join(UNFINISHED), b"run spandrel backup into this directory again\n")?;
    let finished = to.join(listing::NAME);
    if finished.exists() {
        fs::remove_file(&finished).map_err(|source| StoreError::File {
            action: "remove",
            path: finished.clone(),
            source,
        })?;
    }
    files::create_dir(&to.join("partitions"))?;
    files::sync_dir(to)?;
    Ok(lock)
}

/// Everything is durable; the list makes a backup of it.
fn finish(to: &Path, list: &BackupList) -> Result<(), StoreError> {
    files::sync_dir(&to.join("partitions"))?;
    list.write(to)?;
    let unfinished = to.join(UNFINISHED);
    fs::remove_file(&unfinished).map_err(|source| StoreError::File { action: "remove", path: unfinished, source })?;
    files::sync_dir(to)
}

fn rfc3339(at: UnixNanos) -> String {
    let secs = i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

struct Work<'a> {
    source: PathBuf,
    target: PathBuf,
    copy_journal: CopyJournal<'a>,
    on: Progress<'a>,
    outcome: BackupOutcome,
}

/// What one look at a partition led to.
enum Look {
    /// Files as they lie in the target, by their path below the partition.
    Copied { sealed: bool, files: Vec<(u64, u64, String)> },
    /// It was there from an earlier backup.
    Kept { files: Vec<(u64, u64, String)> },
    /// Retention removed it, or the server ended while it made it.
    Gone,
    /// It changed under our hands.
    Changed(String),
    /// It is damaged, if the next look says the same.
    Damaged(String),
}

impl Work<'_> {
    fn partition(&mut self, name: &str) -> Result<(), StoreError> {
        let mut seen = String::new();
        for _ in 0..ATTEMPTS {
            let (sealed, files) = match self.look(name)? {
                Look::Copied { sealed, files } => {
                    self.outcome.copied_bytes += files.iter().map(|(bytes, ..)| bytes).sum::<u64>();
                    (sealed, files)
                }
                Look::Kept { files } => {
                    self.outcome.kept += 1;
                    (true, files)
                }
                Look::Gone => {
                    self.outcome.left.push(name.to_owned());
                    return Ok(());
                }
                Look::Damaged(what) if what == seen => {
                    self.outcome.damaged.push(format!("partition {name} is not in the backup: {what}"));
                    return Ok(());
                }
                Look::Changed(what) | Look::Damaged(what) => {
                    seen = what;
                    std::thread::park_timeout(PAUSE);
                    continue;
                }
            };
            let bytes = files.iter().map(|(bytes, ..)| bytes).sum();
            let partition = BackupPartition { name: name.to_owned(), sealed, files: files.len() as u64, bytes };
            self.outcome.list.partitions.push(partition);
            let below = files.into_iter().map(|(bytes, hash, path)| (bytes, hash, format!("partitions/{name}/{path}")));
            self.outcome.list.files.extend(below);
            return Ok(());
        }
        Err(StoreError::Restless { path: self.source.join(name), what: seen })
    }

    /// What retention put in the place of partitions while they were copied: spans that stay lie there.
    fn successors(&mut self) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let went: Vec<Numbers> = self.outcome.left.iter().filter_map(|name| numbers_of(name)).collect();
            let listed = |name: &str| self.outcome.list.partitions.iter().any(|partition| partition.name == name);
            let is_next = |next: &Partition| {
                let is_known = listed(&next.name()) || self.outcome.left.contains(&next.name());
                !is_known && next.manifest().is_some() && went.iter().any(|went| next.numbers().supersede(*went))
            };
            let present = files::entry_names(&self.source).into_iter();
            let mut present = present.filter_map(|name| Partition::at(&self.source.join(name)));
            let Some(next) = present.find(is_next) else { return Ok(()) };
            self.partition(&next.name())?;
            if self.outcome.list.partitions.iter().any(|partition| partition.name == next.name()) {
                let stands_for = |name: &String| numbers_of(name).is_some_and(|went| next.numbers().supersede(went));
                self.outcome.left.retain(|name| !stands_for(name));
            }
        }
        Ok(())
    }

    fn look(&mut self, name: &str) -> Result<Look, StoreError> {
        let from = self.source.join(name);
        let sealed = fs::read_to_string(from.join("SEALED"));
        let has_journal = from.join("journal").exists();
        match sealed {
            Ok(text) => match Manifest::parse(&text) {
                Some(manifest) => self.sealed(name, &text, &manifest),
                None if has_journal => self.journal(name),
                None => Ok(Look::Damaged("its SEALED is not whole".to_owned())),
            },
            Err(_) if has_journal => self.journal(name),
            Err(_) if !from.exists() || files::entry_names(&from).is_empty() => Ok(Look::Gone),
            Err(_) => Ok(Look::Damaged("it has neither a journal nor SEALED".to_owned())),
        }
    }

    fn sealed(&mut self, name: &str, text: &str, manifest: &Manifest) -> Result<Look, StoreError> {
        let mut listed = manifest.files.clone();
        listed.push((text.len() as u64, xxhash_rust::xxh3::xxh3_64(text.as_bytes()), "SEALED".to_owned()));
        if holds(&self.target.join(name), text, manifest) {
            return Ok(Look::Kept { files: listed });
        }
        let (from, stage) = (self.source.join(name), self.stage(name)?);
        for (bytes, hash, path) in &listed {
            match copy_file(&from.join(path), &stage.join(path), self.on) {
                Ok(copied) if copied == (*bytes, *hash) => {}
                Ok(_) => return Ok(Look::Damaged(format!("{path} differs from what SEALED says"))),
                Err(StoreError::File { action: "read", source, .. }) => {
                    return Ok(Look::Damaged(format!("{path} cannot be read: {source}")));
                }
                Err(error) => return Err(error),
            }
        }
        self.put(name, &stage)?;
        Ok(Look::Copied { sealed: true, files: listed })
    }

    fn journal(&mut self, name: &str) -> Result<Look, StoreError> {
        let (from, stage) = (self.source.join(name), self.stage(name)?);
        files::create_dir(&stage.join("journal"))?;
        let copied = match (self.copy_journal)(&from.join("journal"), &stage.join("journal")) {
            Ok(copied) => copied,
            Err(StoreError::File { action: "read", path, source }) => {
                return Ok(Look::Changed(format!("{}: {source}", path.display())));
            }
            Err(StoreError::Differs { path, what }) => {
                return Ok(Look::Damaged(format!("{}: {what}", path.display())));
            }
            Err(error) => return Err(error),
        };
        // From here on sealing may have begun to remove the journal before it was listed.
        if fs::read_to_string(from.join("SEALED")).is_ok_and(|text| Manifest::parse(&text).is_some()) {
            return Ok(Look::Changed("it was sealed meanwhile".to_owned()));
        }
        if !from.exists() {
            return Ok(Look::Changed("it was removed meanwhile".to_owned()));
        }
        self.put(name, &stage)?;
        self.outcome.damaged.extend(copied.damaged);
        let below = |(bytes, hash, name)| (bytes, hash, format!("journal/{name}"));
        let files: Vec<(u64, u64, String)> = copied.segments.into_iter().map(below).collect();
        (self.on)(files.iter().map(|(bytes, ..)| bytes).sum());
        Ok(Look::Copied { sealed: false, files })
    }

    /// An empty directory for a partition on its way in.
    fn stage(&self, name: &str) -> Result<PathBuf, StoreError> {
        let stage = self.target.join(format!("{name}{COPYING_SUFFIX}"));
        if stage.exists() {
            files::remove_tree(&stage)?;
        }
        files::create_dir(&stage)?;
        Ok(stage)
    }

    /// Makes what is on its way in durable and gives it its name; an older form of the partition makes way.
    fn put(&self, name: &str, stage: &Path) -> Result<(), StoreError> {
        files::sync_tree(stage)?;
        let place = self.target.join(name);
        if place.exists() {
            files::remove_tree(&place)?;
        }
        files::rename(stage, &place)
    }

    fn note_unlisted(&mut self) {
        let listed = |name: &String| self.outcome.list.partitions.iter().any(|partition| partition.name == *name);
        let names = files::entry_names(&self.target).into_iter();
        self.outcome.unlisted = names.filter(|name| !listed(name)).collect();
    }

    /// What else lies in the data directory, FORMAT last.
    fn others(&mut self, data_dir: &Path, to: &Path) -> Result<(), StoreError> {
        let passed_over = |name: &String| PASSED_OVER.contains(&name.as_str()) || name.ends_with(files::DRAFT_SUFFIX);
        let mut names: Vec<String> = files::entry_names(data_dir);
        names.retain(|name| !passed_over(name));
        names.sort_by_key(|name| name == "FORMAT");
        for name in names {
            let from = data_dir.join(&name);
            let paths = if from.is_dir() {
                files_below(&from)?.into_iter().map(|path| format!("{name}/{path}")).collect()
            } else {
                vec![name.clone()]
            };
            if to.join(&name).is_dir() {
                files::remove_tree(&to.join(&name))?;
            }
            for path in paths {
                let target = to.join(&path);
                let _none_or_older = fs::remove_file(&target);
                let (bytes, hash) = copy_file(&data_dir.join(&path), &target, self.on)?;
                self.outcome.copied_bytes += bytes;
                self.outcome.list.files.push((bytes, hash, path));
            }
            files::sync_tree(&to.join(&name))?;
        }
        Ok(())
    }
}

/// Whether a sealed partition lies in the target already: the same SEALED, and every file as long as it says.
fn holds(place: &Path, sealed: &str, manifest: &Manifest) -> bool {
    let same = fs::read_to_string(place.join("SEALED")).is_ok_and(|text| text == sealed);
    let long = |(bytes, _, path): &(u64, u64, String)| {
        fs::metadata(place.join(path)).is_ok_and(|meta| meta.is_file() && meta.len() == *bytes)
    };
    same && manifest.files.iter().all(long)
}
