//! Looking at a journal without changing it: offline for `check`, and beside a server that writes for `backup`.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{FILE_HEADER_BYTES, file_header};
use super::recover::{read_segment, segment_numbers, without_zeros};
use super::segment::segment_path;
use super::{Damage, JournalError, RecordHeader, Recovered, Visit};

/// A segment that is being appended to may be read while a write is half done: it is read again this often.
const READINGS: u32 = 5;
/// ... after this pause.
const PAUSE: Duration = Duration::from_millis(50);

/// What a journal holds.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// Whole records.
    pub records: u64,
    /// Sequence of the first whole record, 0 when there is none.
    pub first_sequence: u64,
    /// Sequence of the last whole record, 0 when there is none.
    pub last_sequence: u64,
    /// Bytes in front of whole records, or of a file header, that are not what was written.
    pub damaged: Vec<Damage>,
    /// Bytes behind the last whole record of a segment: what a crash leaves of a record that was never acknowledged.
    pub torn: Vec<Damage>,
    /// Sequences between whole records that are in no whole record.
    pub missing: Vec<Range<u64>>,
}

/// A segment that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedSegment {
    /// Name of the file.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// XXH3-64 of them.
    pub hash: u64,
}

/// Reads all segments of `dir` and changes none. Payloads are given to `visit` for sequences above `covered`.
///
/// Cost: one read of everything; memory: one segment.
///
/// # Errors
/// `Unreadable`, `UnknownVersion`, or what `visit` said.
pub fn scan(dir: &Path, covered: u64, visit: Visit<'_>) -> Result<Scanned, JournalError> {
    let mut scanned = Scanned::default();
    let mut found = Recovered::default();
    for no in segment_numbers(dir)? {
        let path = segment_path(dir, no);
        let bytes = fs::read(&path).map_err(|source| JournalError::Unreadable { path: path.clone(), source })?;
        let mut follow = |header: &RecordHeader, payload: Option<&[u8]>| {
            scanned.follow(header.sequence);
            visit(header, payload)
        };
        let whole = read_segment(&path, &bytes, covered, &mut found, &mut follow)?;
        scanned.damaged.extend(damaged_header(&path, &bytes));
        scanned.torn.extend(torn_end(&path, &bytes, &whole));
    }
    scanned.damaged.append(&mut found.damaged);
    scanned.records = found.records;
    scanned.last_sequence = found.last_sequence;
    Ok(scanned)
}

impl Scanned {
    fn follow(&mut self, sequence: u64) {
        let expected = self.last_sequence + 1;
        if self.first_sequence == 0 {
            self.first_sequence = sequence;
        } else if expected < sequence {
            self.missing.push(expected..sequence);
        }
        self.last_sequence = sequence;
    }
}

fn damaged_header(path: &Path, bytes: &[u8]) -> Option<Damage> {
    let header = bytes.get(..FILE_HEADER_BYTES).unwrap_or(bytes);
    // All zeros: the crash came between the creation of the file and its first write.
    let sound = header == file_header() || bytes.iter().all(|byte| *byte == 0);
    (!sound).then(|| Damage { path: path.to_path_buf(), start: 0, end: header.len() as u64 })
}

fn torn_end(path: &Path, bytes: &[u8], whole: &[Range<usize>]) -> Option<Damage> {
    let start = whole.last().map_or(FILE_HEADER_BYTES, |last| last.end);
    let rest = bytes.get(start..).unwrap_or_default();
    let torn = without_zeros(rest).len();
    (0 < torn).then(|| Damage { path: path.to_path_buf(), start: start as u64, end: (start + torn) as u64 })
}

/// Copies the segments of `dir` into the existing directory `to`, each up to the end of its last whole record, while
/// somebody may append to them, cut them, or remove them. Damaged records are copied as they are, and returned.
/// Durable only once the caller has synced `to` and what is in it.
///
/// Every record that was whole before the call is in the copy: all segments are opened, and only if all of them still
/// have their names afterwards are they read. Recovery makes segment n + 1 whole before it removes n, so nothing was
/// gone when the files were opened, or the call ends with `Unreadable` and the caller looks again. What an open file
/// holds stays readable when its name goes. A removal of the whole journal may be half done before the call and go on
/// after it: the caller has to see that none had begun.
///
/// # Errors
/// `Unreadable` when a segment went away; `Copy` when the target cannot be written; `UnknownVersion`.
pub fn copy(dir: &Path, to: &Path) -> Result<(Vec<CopiedSegment>, Vec<Damage>), JournalError> {
    let numbers = segment_numbers(dir)?;
    let mut open = Vec::new();
    for no in &numbers {
        let path = segment_path(dir, *no);
        let file = File::open(&path).map_err(|source| JournalError::Unreadable { path: path.clone(), source })?;
        open.push((path, file));
    }
    if !segment_numbers(dir)?.starts_with(&numbers) {
        let source = io::Error::new(io::ErrorKind::NotFound, "a segment was replaced meanwhile");
        return Err(JournalError::Unreadable { path: dir.to_path_buf(), source });
    }
    let (mut copied, mut damaged) = (Vec::new(), Vec::new());
    for (path, mut file) in open {
        let (bytes, mut found) = read_still(&path, &mut file)?;
        damaged.append(&mut found);
        if bytes.is_empty() {
            continue;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        write_new(&to.join(&name), &bytes)?;
        copied.push(CopiedSegment { name, bytes: bytes.len() as u64, hash: xxhash_rust::xxh3::xxh3_64(&bytes) });
    }
    Ok((copied, damaged))
}

/// A segment up to its last whole record, and the damage in it; empty when it holds no record. A record whose write was
/// seen half done looks damaged when a later one was seen whole: it is whole at the next look.
fn read_still(path: &Path, file: &mut File) -> Result<(Vec<u8>, Vec<Damage>), JournalError> {
    let unreadable = |source| JournalError::Unreadable { path: path.to_path_buf(), source };
    let mut readings = READINGS;
    loop {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(unreadable)?;
        let mut found = Recovered::default();
        let whole = read_segment(path, &bytes, u64::MAX, &mut found, &mut |_, _| Ok(()))?;
        readings -= 1;
        if readings == 0 || found.damaged.is_empty() {
            bytes.truncate(whole.last().map_or(0, |last| last.end));
            return Ok((bytes, found.damaged));
        }
        std::thread::park_timeout(PAUSE);
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let failed = |source| JournalError::Copy { path: PathBuf::from(path), source };
    File::create_new(path).and_then(|mut file| file.write_all(bytes)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::{Durability, Journal, JournalConfig, RealDisk, RecordLabel, recover};

    /// Three records of ten bytes, so each of 70, behind a file header of 24.
    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let config =
            JournalConfig { dir: dir.path().to_path_buf(), segment_bytes: 65_536, durability: Durability::Fsync };
        let mut journal = Journal::new(config, Arc::new(RealDisk), 0, 1);
        for _ in 0..3 {
            let _sequence = journal.append(RecordLabel::default(), b"0123456789").unwrap();
            let _cost = journal.commit().unwrap();
        }
        let path = dir.path().join("00000001.log");
        (dir, path)
    }

    fn scanned(dir: &Path) -> Scanned {
        scan(dir, 0, &mut |_, _| Ok(())).unwrap()
    }

    fn altered(path: &Path, at: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_scan_changes_nothing_and_names_damage_by_bytes_and_by_record() {
        let (dir, path) = written();
        let sound = scanned(dir.path());
        assert_eq!((sound.records, sound.first_sequence, sound.last_sequence), (3, 1, 3));
        assert_eq!((sound.damaged, sound.torn, sound.missing), (vec![], vec![], vec![]));
        altered(&path, 24 + 70 + 65);
        let before = fs::read(&path).unwrap();
        let found = scanned(dir.path());
        assert_eq!(found.damaged, [Damage { path: path.clone(), start: 94, end: 164 }]);
        assert_eq!((found.missing.len(), found.missing.first()), (1, Some(&(2..3))));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn what_follows_the_last_whole_record_is_torn_and_an_altered_file_header_is_damage() {
        let (dir, path) = written();
        altered(&path, 24 + 2 * 70 + 65);
        altered(&path, 20);
        let found = scanned(dir.path());
        assert_eq!(found.torn, [Damage { path: path.clone(), start: 164, end: 234 }]);
        assert_eq!(found.damaged, [Damage { path, start: 0, end: 24 }]);
    }

    #[test]
    fn rel_25_a_copy_ends_with_the_last_whole_record_and_recovers_to_the_same() {
        let (dir, path) = written();
        altered(&path, 24 + 2 * 70 + 65);
        let to = tempfile::tempdir().unwrap();
        let (copied, damaged) = copy(dir.path(), to.path()).unwrap();
        assert_eq!((copied.len(), copied[0].bytes, damaged), (1, 164, vec![]));
        let found = recover(to.path(), &RealDisk, 0, &mut |_, _| Ok(())).unwrap();
        assert_eq!((found.records, found.torn_bytes), (2, 0));
    }

    #[test]
    fn a_copy_of_a_journal_that_is_gone_asks_for_another_look() {
        let to = tempfile::tempdir().unwrap();
        let gone = copy(&to.path().join("journal"), to.path());
        assert!(matches!(gone, Err(JournalError::Unreadable { .. })), "{gone:?}");
    }
}
