//! Copying and hashing files in steps, so that a database of gigabytes costs no memory.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::{StoreError, files};

/// Bytes between two looks at the progress.
const STEP_BYTES: usize = 1024 * 1024;

/// Told how many bytes more are done.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Length and XXH3-64 of a file.
pub(super) fn hash_file(path: &Path, on: Progress<'_>) -> Result<(u64, u64), StoreError> {
    each_step(path, &mut |step| {
        on(step.len() as u64);
        Ok(())
    })
}

/// Copies a file to a name that is free and returns its length and XXH3-64. The caller makes it durable.
pub(super) fn copy_file(from: &Path, to: &Path, on: Progress<'_>) -> Result<(u64, u64), StoreError> {
    if let Some(dir) = to.parent() {
        files::create_dir(dir)?;
    }
    let failed = |source| StoreError::File { action: "write", path: to.to_path_buf(), source };
    let mut copy = File::create_new(to).map_err(failed)?;
    each_step(from, &mut |step| {
        copy.write_all(step).map_err(failed)?;
        on(step.len() as u64);
        Ok(())
    })
}

fn each_step(path: &Path, each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>) -> Result<(u64, u64), StoreError> {
    let unreadable = |source| StoreError::File { action: "read", path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut bytes = 0;
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        let n = file.read(&mut buffer).map_err(unreadable)?;
        let step = buffer.get(..n).unwrap_or_default();
        if step.is_empty() {
            return Ok((bytes, hasher.digest()));
        }
        hasher.update(step);
        bytes += n as u64;
        each(step)?;
    }
}

/// Every file below `dir` by its path from there, sorted; links are not followed.
///
/// # Errors
/// `File`: unlike a look at sizes, a copy may leave nothing out.
pub(super) fn files_below(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let mut dirs = vec![String::new()];
    while let Some(below) = dirs.pop() {
        let at = dir.join(&below);
        let unreadable = |source| StoreError::File { action: "list", path: at.clone(), source };
        for entry in fs::read_dir(&at).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            let name = entry.file_name().into_string().ok().filter(|name| !name.contains('\n'));
            let Some(name) = name else {
                let odd = std::io::Error::new(std::io::ErrorKind::InvalidData, "a name in it is not one line of UTF-8");
                return Err(unreadable(odd));
            };
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if kind.is_dir() {
                dirs.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
