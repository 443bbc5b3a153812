//! Directories, the process lock, the format file, and making all of it durable.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

/// What this program writes and reads.
const FORMAT: &str = "spandrel 2\n";
/// A file that is being written by `write_durably`; after a crash it is nothing.
pub(super) const DRAFT_SUFFIX: &str = ".draft";

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::File { action, path, source }
}

/// Creates a directory for its owner alone; fine when it exists.
pub(super) fn create_dir(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(file_error("create the directory", path))
}

/// The data directory belongs to one process. Released by the system when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(super) fn acquire(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join("LOCK");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(file_error("open", &path))?;
        if file.try_lock().is_err() {
            let mut pid = String::new();
            let _unreadable_is_unknown = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(StoreError::Locked { path: data_dir.to_path_buf(), pid });
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(file_error("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Writes the format file into a new directory, compares it in an old one.
pub(super) fn check_format(data_dir: &Path) -> Result<(), StoreError> {
    let path = data_dir.join("FORMAT");
    match fs::read_to_string(&path) {
        Ok(found) if found == FORMAT => Ok(()),
        Ok(found) => Err(StoreError::UnknownFormat { path, found: found.trim().to_owned(), known: FORMAT.trim() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => write_durably(&path, FORMAT.as_bytes()),
        Err(error) => Err(file_error("read", &path)(error)),
    }
}

/// What the format file of an existing data directory says, if this program reads it. Nothing is written.
pub(super) fn known_format(data_dir: &Path) -> Result<String, StoreError> {
    if !data_dir.join("FORMAT").exists() {
        return Err(StoreError::NoDataDir { path: data_dir.to_path_buf() });
    }
    check_format(data_dir).map(|()| FORMAT.trim().to_owned())
}

/// Writes a whole file so that after a crash it is there complete or not at all.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft).map_err(file_error("create", &draft))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(file_error("write", &draft))?;
    fs::rename(&draft, path).map_err(file_error("rename", &draft))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Whether `dir` has room for what the database takes at once: two of its segments.
pub(super) fn probe_space(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("probe.draft");
    let written = File::create(&path).and_then(|mut file| file.write_all(&vec![0; 4 << 20]));
    let _already_gone = fs::remove_file(&path);
    written.map_err(file_error("find space for", &path))
}

/// Makes creations, renames and removals in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(file_error("sync the directory", dir))
}

/// Makes every file and directory below `dir` durable: sled's own `flush` is not enough.
pub(super) fn sync_tree(dir: &Path) -> Result<(), StoreError> {
    for path in tree(dir) {
        File::open(&path).and_then(|file| file.sync_all()).map_err(file_error("sync", &path))?;
    }
    Ok(())
}

/// Every file and directory below and including `dir`; what cannot be read is left out, and no link below is followed: it
/// may lead back here.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_path_buf()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.is_dir() && (path == dir || !path.is_symlink()) {
            found.extend(entry_names(&path).into_iter().map(|name| path.join(name)));
        }
    }
    found
}

/// Bytes of all files below `dir`.
pub(super) fn tree_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // Blocks rather than lengths: a preallocated or sparse file counts for what it takes.
    tree(dir).iter().filter_map(|path| path.symlink_metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Names in a directory, sorted; none when it cannot be read.
pub(super) fn entry_names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Moves a directory into `quarantine/` under a name that is free, and returns that name.
pub(super) fn quarantine(data_dir: &Path, dir: &Path, label: &str) -> Result<String, StoreError> {
    let quarantine = data_dir.join("quarantine");
    create_dir(&quarantine)?;
    let taken = entry_names(&quarantine).len();
    let name = (0..=taken).map(|no| format!("{label}.{no}")).find(|name| !quarantine.join(name).exists());
    let name = name.unwrap_or_else(|| label.to_owned());
    fs::rename(dir, quarantine.join(&name)).map_err(file_error("move to quarantine", dir))?;
    sync_dir(&quarantine)?;
    sync_dir(dir.parent().unwrap_or(data_dir))?;
    Ok(name)
}

/// Removes a directory with everything in it.
pub(super) fn remove_tree(dir: &Path) -> Result<(), StoreError> {
    fs::remove_dir_all(dir).map_err(file_error("remove", dir))?;
    sync_dir(dir.parent().unwrap_or(Path::new(".")))
}

/// The same for one that may be gone already.
pub(super) fn remove_tree_if_there(dir: &Path) -> Result<(), StoreError> {
    if dir.exists() { remove_tree(dir) } else { Ok(()) }
}

/// Renames, then makes the new name durable.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(file_error("rename", from))?;
    sync_dir(to.parent().unwrap_or(Path::new(".")))
}
