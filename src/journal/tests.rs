use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::model::UnixNanos;

const PAYLOADS: [&[u8]; 4] = [b"first", b"", b"third record, somewhat longer", b"fourth"];

fn config(dir: &Path) -> JournalConfig {
    JournalConfig { dir: dir.to_path_buf(), segment_bytes: 4096, durability: Durability::Fsync }
}

fn write(dir: &Path, payloads: &[&[u8]]) {
    let mut journal = Journal::new(config(dir), Arc::new(RealDisk), 0, 1);
    for payload in payloads {
        let _sequence = journal.append(label(9), payload).unwrap();
        let _cost = journal.commit().unwrap();
    }
}

fn label(no: u8) -> RecordLabel {
    RecordLabel { arrived_unix_nano: UnixNanos(7), body_hash: BodyHash([no; 16]), rejected_spans: u32::from(no) }
}

/// Sequence and payload, if it was read.
type Record = (u64, Option<Vec<u8>>);

fn read(dir: &Path, covered: u64) -> (Vec<Record>, Recovered) {
    let mut records = Vec::new();
    let mut visit = |header: &RecordHeader, payload: Option<&[u8]>| {
        assert_eq!(header.label, label(header.label.body_hash.0[0]), "the label comes back as it was given");
        records.push((header.sequence, payload.map(<[u8]>::to_vec)));
        Ok(())
    };
    let found = recover(dir, &RealDisk, covered, &mut visit).unwrap();
    (records, found)
}

fn payloads(dir: &Path) -> Vec<Vec<u8>> {
    read(dir, 0).0.into_iter().filter_map(|(_, payload)| payload).collect()
}

/// Bytes of the first segment without the preallocated zeros, and where each record ends.
fn sample() -> (Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &PAYLOADS);
    let bytes = std::fs::read(dir.path().join("00000001.log")).unwrap();
    let mut ends = Vec::new();
    let mut at = record::FILE_HEADER_BYTES;
    for payload in PAYLOADS {
        at += record::RECORD_HEADER_BYTES + payload.len();
        ends.push(at);
    }
    (bytes[..at].to_vec(), ends)
}

fn recovered_from(bytes: &[u8]) -> (Vec<Vec<u8>>, Recovered) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("00000001.log"), bytes).unwrap();
    let (records, found) = read(dir.path(), 0);
    (records.into_iter().filter_map(|(_, payload)| payload).collect(), found)
}

#[test]
fn records_come_back_in_order_and_again_after_a_second_recovery() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &PAYLOADS);
    assert_eq!(payloads(dir.path()), PAYLOADS);
    assert_eq!(payloads(dir.path()), PAYLOADS, "recovery copies the newest segment and loses nothing");
    let (_, found) = read(dir.path(), 0);
    assert_eq!((found.last_sequence, found.records, found.torn_bytes), (4, 4, 0));
    assert_eq!(found.damaged, []);
}

#[test]
fn rel_04_a_segment_cut_at_any_byte_keeps_every_whole_record_before_the_cut() {
    let (bytes, ends) = sample();
    for cut in record::FILE_HEADER_BYTES..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let (payloads, found) = recovered_from(&bytes[..cut]);
        assert_eq!(payloads, PAYLOADS[..whole], "cut at {cut}");
        assert_eq!(found.damaged, [], "a torn tail is no damage, cut at {cut}");
    }
}

#[test]
fn rel_04_a_flipped_bit_costs_its_record_alone_and_is_reported() {
    let (bytes, ends) = sample();
    for at in record::FILE_HEADER_BYTES..bytes.len() {
        let hit = ends.iter().filter(|end| **end <= at).count();
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let mut expected = PAYLOADS.to_vec();
        let _lost = expected.remove(hit);
        let (payloads, found) = recovered_from(&damaged);
        assert_eq!(payloads, expected, "flip at {at}");
        assert_eq!(found.damaged.len() + usize::from(0 < found.torn_bytes), 1, "flip at {at} is seen");
    }
}

#[test]
fn covered_records_are_visited_without_their_payload() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![7; 3000];
    write(dir.path(), &[&large, &large, &large]);
    assert!(dir.path().join("00000003.log").exists(), "three segments");
    let (records, _) = read(dir.path(), 2);
    assert_eq!(records, [(1, None), (2, None), (3, Some(large))]);
}

/// A start that ends between the copy of the newest segment and the removal of the original leaves both. The next start
/// took every record of the original for covered, because the copy does not begin behind it, and passed by those of the
/// copy, which it had seen: nothing that was acknowledged since the last checkpoint was replayed. Found by fuzzing.
#[test]
fn rel_27_a_copy_beside_its_original_hides_no_record_that_is_not_covered() {
    for covered in 0..=4 {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &PAYLOADS);
        let _bytes = std::fs::copy(dir.path().join("00000001.log"), dir.path().join("00000002.log")).unwrap();
        let (records, found) = read(dir.path(), covered);
        let expected = (1..).zip(PAYLOADS).map(|(no, payload)| (no, (covered < no).then(|| payload.to_vec())));
        assert_eq!(records, expected.collect::<Vec<_>>(), "covered up to {covered}");
        assert_eq!((found.missing, found.last_sequence), (0, 4));
    }
}

/// A whole record inside the payload of a damaged one was taken for a record of ours, and those behind it, of lower
/// sequences, for copies: what a client had sent hid what others were told is stored.
#[test]
fn sec_21_a_record_inside_the_payload_of_a_damaged_one_is_none() {
    let record = |sequence, payload: &[u8]| {
        let mut bytes = Vec::new();
        RecordHeader::new(sequence, label(9), payload).unwrap().write(&mut bytes);
        [bytes, payload.to_vec()].concat()
    };
    let mut second = record(2, &[b"sent as ", record(1_000, b"forged").as_slice()].concat());
    second[record::RECORD_HEADER_BYTES] ^= 1;
    let bytes = [record::file_header(), record(1, b"first"), second, record(3, b"third")].concat();
    let (payloads, found) = recovered_from(&bytes);
    assert_eq!(payloads, [b"first".to_vec(), b"third".to_vec()]);
    assert_eq!((found.last_sequence, found.missing, found.damaged.len()), (3, 1, 1));
}

/// The bytes of a request stand in its record as they came, and may look like a record themselves. Where damage brought
/// one of the highest sequence to light, there was no next one, and every start ended by a panic.
#[test]
fn sec_21_a_record_that_leaves_no_sequence_for_the_next_is_none() {
    let mut bytes = record::file_header();
    for sequence in [1, u64::MAX] {
        RecordHeader::new(sequence, label(9), b"payload").unwrap().write(&mut bytes);
        bytes.extend_from_slice(b"payload");
    }
    let (payloads, found) = recovered_from(&bytes);
    assert_eq!((payloads.len(), found.last_sequence, found.torn_bytes), (1, 1, 67));
}

/// Damage to the last record of a segment looked like a torn tail, also when a later segment went on behind it: its
/// request was lost and nobody was told. A segment that was gone altogether was not noticed either.
#[test]
fn rel_04_records_that_are_gone_before_later_ones_are_counted_by_their_sequence() {
    let large = vec![7; 3000];
    let written = |dir: &Path| write(dir, &[&large, &large, &large, &large]);
    for damage in [
        |path: &Path| std::fs::remove_file(path).unwrap(),
        |path: &Path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1000).unwrap(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        damage(&dir.path().join("00000002.log"));
        let (records, found) = read(dir.path(), 0);
        assert_eq!(records.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!((found.missing, found.last_sequence), (1, 4));
    }
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    std::fs::remove_file(dir.path().join("00000002.log")).unwrap();
    assert_eq!(read(dir.path(), 2).1.missing, 0, "what a block covers is not missed");
}

/// A start copied the whole records of the newest file and removed it: of a stranger there were none. The largest number
/// there is had no next one, and the start ended by a panic.
#[test]
fn rel_22_a_file_that_only_looks_like_a_segment_stays_as_it_is() {
    for name in ["7.log", "+7.log", "18446744073709551615.log", "99999999.log"] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &PAYLOADS);
        std::fs::write(dir.path().join(name), "mine").unwrap();
        for _start in 0..2 {
            assert_eq!(payloads(dir.path()), PAYLOADS, "{name}");
        }
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"mine");
    }
}

/// A data directory was removed under the running server, which went on acknowledging into a file without a name.
#[test]
fn rel_06_a_segment_that_was_removed_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(config(dir.path()), Arc::new(RealDisk), 0, 1);
    let _sequence = journal.append(label(9), b"kept").unwrap();
    let _cost = journal.commit().unwrap();
    std::fs::remove_file(dir.path().join("00000001.log")).unwrap();
    let _sequence = journal.append(label(9), b"lost").unwrap();
    assert!(matches!(journal.commit(), Err(JournalError::Broken { .. })));
}

#[test]
fn rel_12_a_segment_of_another_version_is_refused_by_name_and_left_alone() {
    let (mut bytes, _) = sample();
    bytes[19] = 9;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000001.log");
    std::fs::write(&path, &bytes).unwrap();
    let error = recover(dir.path(), &RealDisk, 0, &mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("version 9"), "{error}");
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

/// Only headers of records are read where all of them are covered, and the version of the file was not. Found by fuzzing.
#[test]
fn rel_12_a_covered_segment_of_another_version_is_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![7; 3000];
    write(dir.path(), &[&large, &large, &large]);
    let path = dir.path().join("00000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[19] = 9;
    std::fs::write(&path, &bytes).unwrap();
    let error = recover(dir.path(), &RealDisk, 2, &mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("version 9"), "{error}");
}

/// Fails the n-th sync, write or creation; everything else is real.
#[derive(Clone, Debug)]
struct FailingDisk {
    syncs_left: Arc<AtomicU64>,
    writes_left: Arc<AtomicU64>,
}

impl FailingDisk {
    fn new(syncs: u64, writes: u64) -> Self {
        Self { syncs_left: Arc::new(AtomicU64::new(syncs)), writes_left: Arc::new(AtomicU64::new(writes)) }
    }
}

#[derive(Debug)]
struct FailingFile(Box<dyn SegmentFile>, FailingDisk);

fn countdown(left: &AtomicU64, kind: io::ErrorKind) -> io::Result<()> {
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(1) => Err(io::Error::from(kind)),
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Disk for FailingDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FailingFile(RealDisk.create(path, len)?, self.clone())))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        countdown(&self.syncs_left, io::ErrorKind::Other)?;
        RealDisk.sync_dir(dir)
    }
}

impl SegmentFile for FailingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let failure = countdown(&self.1.writes_left, io::ErrorKind::StorageFull);
        let half = if failure.is_err() { bytes.len() / 2 } else { bytes.len() };
        self.0.write_at(&bytes[..half], offset)?;
        failure
    }

    fn sync(&mut self) -> io::Result<()> {
        countdown(&self.1.syncs_left, io::ErrorKind::Other)?;
        self.0.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

/// Writes 30 records over several segments on a failing disk; returns which were acknowledged.
fn run_on(disk: FailingDisk, dir: &Path) -> Vec<Vec<u8>> {
    let mut journal = Journal::new(config(dir), Arc::new(disk), 0, 1);
    let mut acknowledged = Vec::new();
    for no in 0..30_u8 {
        let payload = vec![no; 500];
        if journal.append(label(no), &payload).is_ok() && journal.commit().is_ok() {
            acknowledged.push(payload);
        }
    }
    acknowledged
}

#[test]
fn rel_05_after_a_failed_sync_nothing_is_acknowledged_and_nothing_acknowledged_is_lost_for_every_n() {
    for n in 1..=45 {
        let dir = tempfile::tempdir().unwrap();
        let acknowledged = run_on(FailingDisk::new(n, 0), dir.path());
        let stored = payloads(dir.path());
        assert!(stored.starts_with(&acknowledged), "sync {n}: acknowledged records are on disk in order");
        assert!(stored.len() <= acknowledged.len() + 1, "sync {n}: at most the undecided one more");
        let expected_prefix = (0..30).map(|no| vec![no; 500]).collect::<Vec<_>>();
        assert!(expected_prefix.starts_with(&acknowledged), "sync {n}: no acknowledgement after the failure");
    }
}

#[test]
fn rel_06_a_full_disk_costs_only_the_refused_record_for_every_n() {
    for n in 1..=35 {
        let dir = tempfile::tempdir().unwrap();
        let acknowledged = run_on(FailingDisk::new(0, n), dir.path());
        assert_eq!(acknowledged.len(), 29, "write {n}: one refusal, then writing resumes");
        assert_eq!(payloads(dir.path()), acknowledged, "write {n}");
    }
}
