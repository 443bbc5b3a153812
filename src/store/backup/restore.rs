//! From a backup to a data directory: everything is verified on its way, and the directory gets its name last.

use std::fs;
use std::path::{Path, PathBuf};

use crate::store::copying::{Progress, copy_file};
use crate::store::{StoreError, files};

use super::BackupList;

/// A data directory that is not whole yet lies under this name beside its own, where no server looks.
const STAGE_SUFFIX: &str = ".restoring";

/// Copies a finished backup into a data directory that does not exist or is empty.
///
/// # Errors
/// `UnfinishedBackup`; `NotEmpty` when there is something already, also of an interrupted restore; `Differs` when a
/// file of the backup is not what was written; `File`. What was copied then lies in `<data_dir>.restoring`.
pub fn restore(backup: &Path, data_dir: &Path, on: Progress<'_>) -> Result<BackupList, StoreError> {
    let list = BackupList::read(backup)?;
    // A name alone has no directory that could be synced.
    let data_dir = std::path::absolute(data_dir).map_err(|source| StoreError::File {
        action: "find",
        path: data_dir.to_path_buf(),
        source,
    })?;
    let data_dir = data_dir.as_path();
    let stage = stage_of(data_dir);
    for (path, remedy) in [
        (data_dir, "restore into a new or empty directory"),
        (&stage, "it is left of an interrupted restore: remove it, then try again"),
    ] {
        if path.exists() && !(path.is_dir() && files::entry_names(path).is_empty()) {
            return Err(StoreError::NotEmpty { path: path.to_path_buf(), remedy });
        }
    }
    files::create_dir(&stage.join("partitions"))?;
    for (bytes, hash, path) in &list.files {
        let from = backup.join(path);
        let copied = copy_file(&from, &stage.join(path), on)?;
        if copied != (*bytes, *hash) {
            let what = format!("{} bytes with hash {:016x}, BACKUP says {bytes} with {hash:016x}", copied.0, copied.1);
            return Err(StoreError::Differs { path: from, what });
        }
    }
    // Of a partition without a record there is no file, but its directory stands for its number.
    for partition in &list.partitions {
        let dir = stage.join("partitions").join(&partition.name);
        files::create_dir(&if partition.sealed { dir } else { dir.join("journal") })?;
    }
    if BackupList::read(backup)? != list {
        return Err(StoreError::UnfinishedBackup { path: backup.to_path_buf() });
    }
    files::sync_tree(&stage)?;
    if data_dir.exists() {
        fs::remove_dir(data_dir).map_err(|source| StoreError::File {
            action: "put the restored directory in the place of (is it a mount point? then restore into one below)",
            path: data_dir.to_path_buf(),
            source,
        })?;
    }
    files::rename(&stage, data_dir)?;
    Ok(list)
}

fn stage_of(data_dir: &Path) -> PathBuf {
    let mut stage = data_dir.components().as_path().as_os_str().to_owned();
    stage.push(STAGE_SUFFIX);
    PathBuf::from(stage)
}
