//! Reading back: every whole record in order, torn tails cut, damaged records skipped one by one and reported.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::record::{
    FILE_HEADER_BYTES, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader, VERSION, file_header,
    file_version,
};
use super::segment::segment_path;
use super::{Disk, JournalError};

/// Where a record was damaged: bytes `[start, end)` of a segment were passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// First byte passed over.
    pub start: u64,
    /// First byte of the next whole record, or the end of the file.
    pub end: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Number of the newest segment, 0 when there is none.
    pub last_segment_no: u64,
    /// Highest sequence seen, 0 when there is none.
    pub last_sequence: u64,
    /// Whole records.
    pub records: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Damaged places in front of whole records.
    pub damaged: Vec<Damage>,
    /// Records above what is covered that are in no segment, although later ones are: sequences have no gaps.
    pub missing: u64,
    /// Bytes at the end of a segment that are no whole record. An unfinished record was never acknowledged; a damaged one
    /// was, and shows in `missing` when another follows. The very last record can look like either.
    pub torn_bytes: u64,
}

/// Called for each record in order. The payload is `None` for records at or below the sequence that is covered.
pub type Visit<'a> =
    &'a mut dyn FnMut(&RecordHeader, Option<&[u8]>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Reads all segments of `dir`. Payloads are read and verified only for sequences above `covered`; the first record that
/// is not covered is expected to follow it.
///
/// The newest segment is copied, record by whole record, into a new one that is synced before this returns: after a
/// failed sync the page cache may show what the disk lacks, and a retry must not be recognised by such a record.
///
/// Cost: one read of everything above `covered`, one seek per record below it.
///
/// # Errors
/// `Unreadable`, `UnknownVersion`, `Broken` when the copy cannot be made durable, or what `visit` said.
pub fn recover(dir: &Path, disk: &dyn Disk, covered: u64, visit: Visit<'_>) -> Result<Recovered, JournalError> {
    let mut found = Recovered::default();
    let segments = segment_numbers(dir)?;
    for (at, no) in segments.iter().enumerate() {
        let path = segment_path(dir, *no);
        found.last_segment_no = *no;
        let Some(next) = segments.get(at + 1) else {
            let bytes = fs::read(&path).map_err(|source| JournalError::Unreadable { path: path.clone(), source })?;
            let whole = read_segment(&path, &bytes, covered, &mut found, visit)?;
            if whole.is_empty() && file_version(&bytes).is_none() && bytes.iter().any(|byte| *byte != 0) {
                // Nothing of it is ours as far as one can read: it stays as it is.
                found.bytes += bytes.len() as u64;
                break;
            }
            found.last_segment_no = no + 1;
            found.bytes += rewrite(dir, disk, *no, &bytes, &whole)?;
            break;
        };
        // Not so when the next is a copy of this one that a crash left beside it: the headers tell.
        let all_covered = first_sequence(&segment_path(dir, *next)).is_some_and(|first| first <= covered + 1);
        if all_covered && walk_headers(&path, covered, &mut found, visit)? {
            continue;
        }
        let bytes = fs::read(&path).map_err(|source| JournalError::Unreadable { path: path.clone(), source })?;
        found.bytes += bytes.len() as u64;
        let _whole = read_segment(&path, &bytes, covered, &mut found, visit)?;
    }
    Ok(found)
}

/// Sequence of the first record of the journal in `dir`; `None` when there is none, or it is damaged.
///
/// # Errors
/// `Unreadable`.
pub fn first_record(dir: &Path) -> Result<Option<u64>, JournalError> {
    Ok(segment_numbers(dir)?.first().and_then(|no| first_sequence(&segment_path(dir, *no))))
}

fn first_sequence(path: &Path) -> Option<u64> {
    let mut header = [0; RECORD_HEADER_BYTES];
    File::open(path).ok()?.read_exact_at(&mut header, FILE_HEADER_BYTES as u64).ok()?;
    RecordHeader::read(&header).map(|header| header.sequence)
}

/// Visits the headers of a segment whose records are all covered, without reading its payloads. `false`, with nothing
/// visited twice, when the file does not begin as ours do, or a header does not follow the one before or is not covered,
/// or the last payload is cut: then the segment has to be read whole.
fn walk_headers(path: &Path, covered: u64, found: &mut Recovered, visit: Visit<'_>) -> Result<bool, JournalError> {
    let unreadable = |source| JournalError::Unreadable { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    let mut begin = [0; FILE_HEADER_BYTES];
    if file.read_exact_at(&mut begin, 0).is_err() || begin != *file_header() {
        return Ok(false);
    }
    let mut header = [0; RECORD_HEADER_BYTES];
    let mut at = FILE_HEADER_BYTES as u64;
    while at < len {
        let read = file.read_exact_at(&mut header, at).ok().and_then(|()| RecordHeader::read(&header));
        let Some(header) = read.filter(|header| header.sequence <= covered) else { return Ok(false) };
        at += RECORD_HEADER_BYTES as u64 + u64::from(header.payload_bytes);
        if found.last_sequence < header.sequence {
            found.last_sequence = header.sequence;
            found.records += 1;
            visit(&header, None).map_err(JournalError::Replay)?;
        }
    }
    if len < at {
        return Ok(false);
    }
    found.bytes += len;
    Ok(true)
}

pub(super) fn segment_numbers(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let unreadable = |source| JournalError::Unreadable { path: dir.to_path_buf(), source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|no| no.parse::<u64>().ok());
        // Another spelling of a number is not one of ours, nor is one that leaves no room for the next.
        numbers.extend(number.filter(|no| *no < u64::MAX / 2 && segment_path(dir, *no).ends_with(&name)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Visits the whole records of one segment and returns where they lie.
pub(super) fn read_segment(
    path: &Path,
    bytes: &[u8],
    covered: u64,
    found: &mut Recovered,
    visit: Visit<'_>,
) -> Result<Vec<std::ops::Range<usize>>, JournalError> {
    match file_version(bytes) {
        Some(VERSION) => {}
        Some(version) => {
            return Err(JournalError::UnknownVersion { path: path.to_path_buf(), version, known: VERSION });
        }
        // Created but never written: the crash came before the first commit.
        None if bytes.iter().all(|byte| *byte == 0) => return Ok(Vec::new()),
        None => {}
    }
    let mut whole = Vec::new();
    let written = without_zeros(bytes);
    let mut at = FILE_HEADER_BYTES;
    let mut damaged_from = None;
    while at < bytes.len() {
        let Some((header, payload)) = whole_record(bytes, at) else {
            let _first = damaged_from.get_or_insert(at);
            let Some(next) = behind_payload(bytes, at).or_else(|| next_magic(written, at + 1)) else { break };
            at = next;
            continue;
        };
        if let Some(start) = damaged_from.take() {
            found.damaged.push(Damage { path: path.to_path_buf(), start: start as u64, end: at as u64 });
        }
        let end = at + RECORD_HEADER_BYTES + payload.len();
        whole.push(at..end);
        at = end;
        // A crash while the newest segment was copied leaves its records twice.
        if header.sequence <= found.last_sequence {
            continue;
        }
        found.missing += header.sequence - found.last_sequence.max(covered).min(header.sequence - 1) - 1;
        found.last_sequence = header.sequence;
        found.records += 1;
        let wanted = (covered < header.sequence).then_some(payload);
        visit(&header, wanted).map_err(JournalError::Replay)?;
    }
    if let Some(start) = damaged_from {
        let rest = bytes.get(start..).unwrap_or_default();
        found.torn_bytes += without_zeros(rest).len() as u64;
    }
    Ok(whole)
}

fn whole_record(bytes: &[u8], at: usize) -> Option<(RecordHeader, &[u8])> {
    let header = RecordHeader::read(bytes.get(at..)?)?;
    let start = at + RECORD_HEADER_BYTES;
    let payload_bytes = header.payload_bytes as usize;
    if PAYLOAD_BYTES_MAX < payload_bytes {
        return None;
    }
    let payload = bytes.get(start..start.checked_add(payload_bytes)?)?;
    header.covers(payload).then_some((header, payload))
}

/// Where the record after the one at `at` begins, when both have whole headers: what is damaged is the payload between.
/// Nothing is looked for inside of it, where a request may have brought what looks like a record.
fn behind_payload(bytes: &[u8], at: usize) -> Option<usize> {
    let header = RecordHeader::read(bytes.get(at..)?)?;
    let end = (at + RECORD_HEADER_BYTES).checked_add(header.payload_bytes as usize)?;
    let next = RecordHeader::read(bytes.get(end..)?)?;
    (next.sequence == header.sequence + 1).then_some(end)
}

fn next_magic(bytes: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(RECORD_MAGIC.len()).position(|window| window == RECORD_MAGIC).map(|at| from + at)
}

/// The bytes up to the last one that is not zero. The unused end of a segment is long: it is passed by in pages.
pub(super) fn without_zeros(mut bytes: &[u8]) -> &[u8] {
    const PAGE: [u8; 4096] = [0; 4096];
    while let Some(front) = bytes.strip_suffix(&PAGE) {
        bytes = front;
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

/// Copies the whole records of segment `no` into segment `no + 1`, makes it durable, then removes `no`.
fn rewrite(
    dir: &Path,
    disk: &dyn Disk,
    no: u64,
    bytes: &[u8],
    whole: &[std::ops::Range<usize>],
) -> Result<u64, JournalError> {
    let path = segment_path(dir, no + 1);
    let broken = |source| JournalError::Broken { path: path.clone(), source };
    let mut copy = file_header();
    for range in whole {
        copy.extend_from_slice(bytes.get(range.clone()).unwrap_or_default());
    }
    let mut file = disk.create(&path, copy.len() as u64).map_err(broken)?;
    file.write_at(&copy, 0).and_then(|()| file.sync()).and_then(|()| disk.sync_dir(dir)).map_err(broken)?;
    fs::remove_file(segment_path(dir, no)).and_then(|()| disk.sync_dir(dir)).map_err(broken)?;
    Ok(copy.len() as u64)
}
