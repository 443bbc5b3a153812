//! Recovery of a journal from any bytes.

use std::path::Path;
use std::sync::Arc;

use spandrel::journal::{
    Durability, Journal, JournalConfig, RealDisk, RecordHeader, RecordLabel, Recovered, first_record, recover, scan,
};
use xxhash_rust::xxh3::xxh3_64;

const FILE_MAGIC: &[u8] = b"spandrel-journal";
const FILE_HEADER_BYTES: usize = 24;
const RECORD_MAGIC: &[u8] = b"SPJ\x01";
const RECORD_HEADER_BYTES: usize = 60;
const SEGMENTS_MAX: usize = 3;

/// The highest that a record may have.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// Sequence and payload of a record, if the payload was wanted.
type Record = (u64, Option<Vec<u8>>);

/// The first byte says how far the journal is covered (high half), and whether the checksums of headers (1) and payloads
/// (2) are made right. Each file magic begins another segment.
///
/// The whole records in front of any damage come back, no payload has a wrong checksum, a second recovery finds the
/// same, and so does one after another record was appended.
pub fn journal(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let covered = u64::from(mode >> 4);
    let dir = memory_dir();
    let segments = segments(bytes, *mode);
    for (no, segment) in (1..).zip(&segments) {
        std::fs::write(dir.path().join(format!("{no:08}.log")), segment).expect("there is memory");
    }
    let _first = first_record(dir.path());
    let scanned = scan(dir.path(), 0, &mut |_, _| Ok(()));
    let Some((records, found)) = recovered(dir.path(), covered) else {
        assert!(covered != 0 || scanned.is_err());
        return;
    };
    let front = segments.first().map(|segment| whole_records(segment)).unwrap_or_default();
    let n_front = front.len().min(records.len());
    assert_eq!(numbers(&records[..n_front]), numbers(&front), "whole records in front of damage");
    for (read, written) in records.iter().zip(&front) {
        assert!(read.1.is_none() || read.1 == written.1, "record {}", read.0);
    }
    if covered == 0 {
        assert_eq!(scanned.expect("it is recovered").records, found.records);
    }
    check_again(dir.path(), covered, &records, &found);
}

fn check_again(dir: &Path, covered: u64, records: &[Record], found: &Recovered) {
    let (again, _) = recovered(dir, covered).expect("it was recovered before");
    assert!(wanted(&again, covered).eq(wanted(records, covered)), "a second recovery finds the same");
    let config = JournalConfig { dir: dir.to_path_buf(), segment_bytes: 4096, durability: Durability::Fsync };
    let next = found.last_sequence.max(covered) + 1;
    if SEQUENCE_MAX < next {
        return;
    }
    let (_, found) = recovered(dir, covered).expect("it was recovered before");
    let mut journal = Journal::new(config, Arc::new(RealDisk), found.last_segment_no, next);
    let sequence = journal.append(RecordLabel::default(), b"another").expect("there is memory");
    let _cost = journal.commit().expect("there is memory");
    drop(journal);
    let (longer, _) = recovered(dir, covered).expect("it was recovered before");
    let appended = (sequence, Some(b"another".to_vec()));
    assert!(wanted(&longer, covered).eq(wanted(records, covered).chain([&appended])), "what is appended costs nothing");
}

/// Those that are not covered. Of the others the header is enough where no payload is read, and that depends on the next
/// segment.
fn wanted(records: &[Record], covered: u64) -> impl Iterator<Item = &Record> {
    records.iter().filter(move |record| covered < record.0)
}

fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory to write to")
}

fn segments(bytes: &[u8], mode: u8) -> Vec<Vec<u8>> {
    let mut starts: Vec<usize> = (1..bytes.len()).filter(|at| bytes[*at..].starts_with(FILE_MAGIC)).collect();
    starts.truncate(SEGMENTS_MAX - 1);
    let ends = starts.iter().copied().chain([bytes.len()]);
    let cut = [0].into_iter().chain(starts.iter().copied()).zip(ends).map(|(start, end)| bytes[start..end].to_vec());
    cut.map(|mut segment| {
        make_right(&mut segment, mode);
        segment
    })
    .collect()
}

/// Puts right checksums where records seem to be.
fn make_right(segment: &mut [u8], mode: u8) {
    let mut at = 0;
    while let Some(found) = segment.get(at..).and_then(|rest| rest.windows(4).position(|four| four == RECORD_MAGIC)) {
        at += found;
        let Some(record) = segment.get_mut(at..).filter(|rest| RECORD_HEADER_BYTES <= rest.len()) else { return };
        let (header, rest) = record.split_at_mut(RECORD_HEADER_BYTES);
        let payload = usize::try_from(number(&header[8..12])).ok().and_then(|len| rest.get(..len));
        if let Some(payload) = payload.filter(|_| mode & 2 != 0) {
            header[44..52].copy_from_slice(&xxh3_64(payload).to_be_bytes());
        }
        if mode & 1 != 0 {
            let checksum = xxh3_64(&header[..52]);
            header[52..60].copy_from_slice(&checksum.to_be_bytes());
        }
        at += RECORD_HEADER_BYTES + payload.map_or(0, <[u8]>::len);
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// `None` when the journal is refused as a whole.
fn recovered(dir: &Path, covered: u64) -> Option<(Vec<Record>, Recovered)> {
    let mut records = Vec::new();
    let mut visit = |header: &RecordHeader, payload: Option<&[u8]>| {
        assert!(payload.is_none_or(|payload| xxh3_64(payload) == header.payload_checksum));
        assert_eq!(payload.is_none(), header.sequence <= covered);
        records.push((header.sequence, payload.map(<[u8]>::to_vec)));
        Ok(())
    };
    let found = recover(dir, &RealDisk, covered, &mut visit).ok()?;
    assert!(records.is_sorted_by(|a, b| a.0 < b.0), "ascending");
    Some((records, found))
}

/// The records from the beginning of a segment up to the first that is not whole, by the letter of docs/format.md;
/// those that do not ascend are copies.
fn whole_records(segment: &[u8]) -> Vec<Record> {
    let (mut records, mut at, mut last) = (Vec::new(), FILE_HEADER_BYTES, 0);
    while let Some((header, rest)) = segment.get(at..).and_then(|rest| rest.split_at_checked(RECORD_HEADER_BYTES)) {
        let payload = usize::try_from(number(&header[8..12])).ok().and_then(|len| rest.get(..len));
        let is_header = header.starts_with(RECORD_MAGIC) && xxh3_64(&header[..52]) == number(&header[52..]);
        let Some(payload) = payload.filter(|payload| is_header && xxh3_64(payload) == number(&header[44..52])) else {
            break;
        };
        let sequence = number(&header[12..20]);
        if SEQUENCE_MAX < sequence {
            break;
        }
        if last < sequence {
            records.push((sequence, Some(payload.to_vec())));
            last = sequence;
        }
        at += RECORD_HEADER_BYTES + payload.len();
    }
    records
}

fn numbers(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.0).collect()
}
