//! A journal cut at every byte of its last 64 KiB: every whole record before the cut is read, and the rest is called torn.
//!
//! The last 16 KiB by default, `SPANDREL_CUT_BYTES=65536` in the long form.

use std::sync::Arc;

use prost::Message as _;
use spandrel::cli::shop::{Grouping, Requests, Shop};
use spandrel::journal::{BodyHash, Durability, Journal, JournalConfig, RealDisk, RecordHeader, RecordLabel, recover};

use crate::support::now;

use super::mount::memory_dir;
use super::{count, say};

/// One segment of real requests, and where each record ends.
fn segment(dir: &std::path::Path, bytes: u64) -> (Vec<u8>, Vec<usize>) {
    let config = JournalConfig { dir: dir.to_path_buf(), segment_bytes: 1 << 20, durability: Durability::Relaxed };
    let mut journal = Journal::new(config, Arc::new(RealDisk), 0, 1);
    let (mut shop, mut end, mut ends) = (Shop::new(3), 24, Vec::new());
    while (end as u64) < bytes + 24 {
        let mut requests = Requests::new(Grouping::Collector);
        let _not_full = requests.add(shop.next_trace(now()));
        let payload = requests.flush().remove(0).encode_to_vec();
        let label = RecordLabel { arrived_unix_nano: now(), body_hash: BodyHash([1; 16]), rejected_spans: 0 };
        let _sequence = journal.append(label, &payload).expect("it is short");
        end += journal.commit().expect("there is space").bytes as usize;
        ends.push(end);
    }
    journal.close().expect("it is cut to its length");
    let bytes = std::fs::read(dir.join("00000001.log")).expect("the segment is there");
    assert_eq!(bytes.len(), end, "the last record ends the file");
    (bytes, ends)
}

#[test]
fn rel_04_a_journal_cut_at_any_byte_keeps_every_whole_record_and_calls_the_rest_torn() {
    let within = count("SPANDREL_CUT_BYTES", 16 << 10, 64 << 10);
    let (made, dir) = (memory_dir(), memory_dir());
    let (bytes, ends) = segment(made.path(), within);
    for cut in bytes.len() - within as usize..=bytes.len() {
        std::fs::write(dir.path().join("00000001.log"), &bytes[..cut]).expect("it is written");
        let mut sequences = Vec::new();
        let mut visit = |header: &RecordHeader, payload: Option<&[u8]>| {
            assert!(payload.is_some(), "nothing is covered");
            sequences.push(header.sequence);
            Ok(())
        };
        let found = recover(dir.path(), &RealDisk, 0, &mut visit).expect("it is read");
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert!(sequences.iter().copied().eq(1..=whole as u64), "cut at {cut}: {sequences:?}, whole {whole}");
        let torn = whole.checked_sub(1).map_or(cut.saturating_sub(24), |last| cut - ends[last]);
        assert!(found.torn_bytes <= torn as u64 && (found.torn_bytes == 0) == (torn == 0), "cut at {cut}: {found:?}");
        assert_eq!(found.damaged, [], "cut at {cut}: a torn tail is no damage");
        std::fs::remove_file(dir.path().join("00000002.log")).expect("the copy of the whole records");
    }
    say(&format!("truncation: {} cuts", within + 1));
}
