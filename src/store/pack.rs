//! `BLOCKS`: all pages of a sealed partition in one file that is never written again.
//!
//! ```text
//! "SPPK" 0x01 0 0 0                                              8 bytes
//! pages                                                          as `pages` draws them, a section's one behind the other
//! (kind:1 id:8 section:2 offset:8 bytes:4)*                      the directory, ascending; bytes are without checksums
//! sequence:8 blocks:8 spans:8 pages:8                            what the partition covers
//! directory offset:8 | XXH3-64 of directory, covers and offset:8 the last 16 bytes
//! ```
//! A partition is opened by reading the directory, some 500 bytes for each block; a section is read with one call. Nothing is
//! locked and nothing written, so a read-only file system will do.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::limits::PAGE_BYTES_MAX;

use super::pages::{CHECKSUM_BYTES, Checkpoint, Kind, PAGE_PAYLOAD_BYTES, Place, checked, verified};
use super::{StoreError, files};

/// Name of the file in a partition's directory.
pub(super) const FILE_NAME: &str = "BLOCKS";
const MAGIC: [u8; 8] = *b"SPPK\x01\0\0\0";
const ENTRY_BYTES: usize = 23;
const TAIL_BYTES: usize = Checkpoint::BYTES + 16;
/// Bytes of pages that are read and checked at once.
const READ_AT_ONCE: usize = 64 * PAGE_BYTES_MAX;

/// Where a section's pages begin, and how many bytes they hold.
#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    offset: u64,
    bytes: u32,
}

/// The open file. Memory: 32 bytes per section, some 22 of them for each block.
#[derive(Debug)]
pub(super) struct Pack {
    file: File,
    path: PathBuf,
    /// Ascending by place.
    directory: Vec<Entry>,
    checkpoint: Checkpoint,
    /// Set when a page proves damaged: from then on answers say so, whether they need that page or not.
    damage_seen: Arc<AtomicBool>,
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct PackWriter {
    file: BufWriter<File>,
    path: PathBuf,
    at: u64,
    directory: Vec<Entry>,
    /// Pages of blocks written so far.
    block_pages: u64,
}

impl PackWriter {
    pub(super) fn create(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let file = File::create(&path).map_err(|source| failed("create", &path, source))?;
        let mut writer = Self { file: BufWriter::new(file), path, at: 0, directory: Vec::new(), block_pages: 0 };
        writer.write(&MAGIC)?;
        Ok(writer)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn block_pages(&self) -> u64 {
        self.block_pages
    }

    pub(super) fn put_section(&mut self, place: Place, bytes: &[u8]) -> Result<(), StoreError> {
        let len = u32::try_from(bytes.len()).map_err(|_| self.damaged("a section of 4 GiB"))?;
        self.directory.push(Entry { place, offset: self.at, bytes: len });
        let of_block = place.kind == Kind::Block;
        self.block_pages += if of_block { u64::from(len).div_ceil(PAGE_PAYLOAD_BYTES as u64) } else { 0 };
        bytes.chunks(PAGE_PAYLOAD_BYTES).try_for_each(|payload| self.write(&checked(payload)))
    }

    /// Writes the directory and makes the file durable.
    pub(super) fn finish(mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.directory.sort_unstable_by_key(|entry| entry.place);
        let offset = self.at;
        let mut tail = Vec::with_capacity(self.directory.len() * ENTRY_BYTES + TAIL_BYTES);
        for Entry { place, offset, bytes } in &self.directory {
            tail.push(place.kind as u8);
            tail.extend_from_slice(&place.id.to_be_bytes());
            tail.extend_from_slice(&place.section.to_be_bytes());
            tail.extend_from_slice(&offset.to_be_bytes());
            tail.extend_from_slice(&bytes.to_be_bytes());
        }
        checkpoint.write(&mut tail);
        tail.extend_from_slice(&offset.to_be_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64(&tail);
        tail.extend_from_slice(&checksum.to_be_bytes());
        self.write(&tail)?;
        let Self { file, path, .. } = self;
        let file = file.into_inner().map_err(|error| failed("write", &path, error.into_error()))?;
        file.sync_all().map_err(|source| failed("sync", &path, source))?;
        files::sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| failed("write", &self.path, source))
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.to_owned() }
    }
}

impl Pack {
    pub(super) fn open(dir: &Path, damage_seen: Arc<AtomicBool>) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let unreadable = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged { path: path.clone(), what: source.to_string() }
            }
            _ => failed("read", &path, source),
        };
        let damaged = |what: &str| StoreError::Damaged { path: path.clone(), what: what.to_owned() };
        let file = File::open(&path).map_err(&unreadable)?;
        let len = file.metadata().map_err(&unreadable)?.len();
        let mut magic = [0; MAGIC.len()];
        file.read_exact_at(&mut magic, 0).map_err(&unreadable)?;
        if magic != MAGIC {
            return Err(damaged("it does not begin as it was written"));
        }
        let directory_at = len.checked_sub(16).ok_or_else(|| damaged("it is too short"))?;
        let mut offset = [0; 8];
        file.read_exact_at(&mut offset, directory_at).map_err(&unreadable)?;
        let offset = u64::from_be_bytes(offset);
        let tail_len = len.checked_sub(offset).and_then(|len| usize::try_from(len).ok());
        let tail_len =
            tail_len.filter(|len| TAIL_BYTES <= *len).ok_or_else(|| damaged("its directory is elsewhere"))?;
        let mut tail = vec![0; tail_len];
        file.read_exact_at(&mut tail, offset).map_err(&unreadable)?;
        let read = read_tail(&tail, offset).ok_or_else(|| damaged("its directory has a wrong checksum"));
        let (directory, checkpoint) = read?;
        Ok(Self { file, path, directory, checkpoint, damage_seen })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a page of it proved damaged.
    pub(super) fn has_damage(&self) -> bool {
        self.damage_seen.load(Ordering::Relaxed)
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    fn entry(&self, place: Place) -> Option<Entry> {
        let at = self.directory.binary_search_by_key(&place, |entry| entry.place).ok()?;
        self.directory.get(at).copied()
    }

    pub(super) fn section_len(&self, place: Place) -> u32 {
        self.entry(place).map_or(0, |entry| entry.bytes)
    }

    /// Numbers of the things of a kind, ascending; of one as often as it has sections.
    pub(super) fn ids(&self, kind: Kind, ids: RangeInclusive<u64>) -> impl Iterator<Item = u64> {
        let from = self.directory.partition_point(|entry| (entry.place.kind, entry.place.id) < (kind, *ids.start()));
        let behind = self.directory.get(from..).unwrap_or_default().iter().map(|entry| entry.place);
        behind.take_while(move |place| place.kind == kind && place.id <= *ids.end()).map(|place| place.id)
    }

    /// Cost: one call of the system.
    pub(super) fn read(&self, place: Place, range: Range<u32>) -> Result<Vec<u8>, StoreError> {
        let (start, end) = (range.start as usize, range.end as usize);
        if end <= start {
            return Ok(Vec::new());
        }
        let entry = self.entry(place).filter(|entry| range.end <= entry.bytes);
        let entry = entry.ok_or_else(|| self.damaged(format!("{place:?} ends before byte {end}")))?;
        let (first, last) = (start / PAGE_PAYLOAD_BYTES, (end - 1) / PAGE_PAYLOAD_BYTES);
        let stored = (last + 1) * PAGE_BYTES_MAX;
        let whole = entry.bytes as usize + (entry.bytes as usize).div_ceil(PAGE_PAYLOAD_BYTES) * CHECKSUM_BYTES;
        let mut pages = vec![0; stored.min(whole) - first * PAGE_BYTES_MAX];
        let at = entry.offset + (first * PAGE_BYTES_MAX) as u64;
        self.file.read_exact_at(&mut pages, at).map_err(|source| failed("read", &self.path, source))?;
        let mut out = Vec::with_capacity(end - start);
        for (page_no, page) in (first..).zip(pages.chunks(PAGE_BYTES_MAX)) {
            let payload = verified(page);
            let payload = payload.ok_or_else(|| self.damaged(format!("{place:?}, page {page_no}: wrong checksum")))?;
            let page_start = page_no * PAGE_PAYLOAD_BYTES;
            let piece = start.saturating_sub(page_start)..(end - page_start).min(payload.len());
            out.extend_from_slice(payload.get(piece).unwrap_or_default());
        }
        Ok(out)
    }

    pub(super) fn verify_pages(&self) -> Result<(), StoreError> {
        let mut pages = 0;
        for entry in &self.directory {
            for start in (0..entry.bytes as usize).step_by(READ_AT_ONCE / PAGE_BYTES_MAX * PAGE_PAYLOAD_BYTES) {
                let end = (start + READ_AT_ONCE / PAGE_BYTES_MAX * PAGE_PAYLOAD_BYTES).min(entry.bytes as usize);
                let range = u32::try_from(start).unwrap_or(u32::MAX)..u32::try_from(end).unwrap_or(u32::MAX);
                let _payload = self.read(entry.place, range)?;
            }
            let of_block = entry.place.kind == Kind::Block;
            pages += if of_block { u64::from(entry.bytes).div_ceil(PAGE_PAYLOAD_BYTES as u64) } else { 0 };
        }
        if pages == self.checkpoint.pages {
            return Ok(());
        }
        Err(self.damaged(format!("{pages} pages of blocks where {} were written", self.checkpoint.pages)))
    }

    fn damaged(&self, what: String) -> StoreError {
        self.damage_seen.store(true, Ordering::Relaxed);
        StoreError::Damaged { path: self.path.clone(), what }
    }
}

fn read_tail(tail: &[u8], offset: u64) -> Option<(Vec<Entry>, Checkpoint)> {
    let (checked, checksum) = tail.split_at_checked(tail.len().checked_sub(8)?)?;
    if xxhash_rust::xxh3::xxh3_64(checked) != u64::from_be_bytes(checksum.try_into().ok()?) {
        return None;
    }
    let (directory, covers) = checked.split_at_checked(checked.len().checked_sub(TAIL_BYTES - 8)?)?;
    let (entries, odd) = directory.as_chunks::<ENTRY_BYTES>();
    let entries: Option<Vec<Entry>> = entries.iter().map(|entry| read_entry(entry)).collect();
    let in_place = |entries: &Vec<Entry>| entries.iter().all(|entry| entry.offset <= offset) && odd.is_empty();
    Some((entries.filter(in_place)?, Checkpoint::read(covers)?))
}

fn read_entry(bytes: &[u8]) -> Option<Entry> {
    let kind = match bytes.first()? {
        0x01 => Kind::Block,
        0x03 => Kind::Rollup,
        _ => return None,
    };
    let id = u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?);
    let section = u16::from_be_bytes(bytes.get(9..11)?.try_into().ok()?);
    let offset = u64::from_be_bytes(bytes.get(11..19)?.try_into().ok()?);
    let bytes = u32::from_be_bytes(bytes.get(19..23)?.try_into().ok()?);
    Some(Entry { place: Place { kind, id, section }, offset, bytes })
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File { action, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(id: u64, section: u16) -> Place {
        Place { kind: Kind::Block, id, section }
    }

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
    }

    fn written(dir: &Path) -> Vec<(Place, Vec<u8>)> {
        let page = PAGE_PAYLOAD_BYTES;
        let lens = [0, 1, page - 1, page, page + 1, 3 * page, 3 * page + 5];
        let sections: Vec<_> = (1..).zip(lens).map(|(id, len)| (place(id, 7), bytes(len))).collect();
        let mut writer = PackWriter::create(dir).unwrap();
        sections.iter().rev().for_each(|(place, bytes)| writer.put_section(*place, bytes).unwrap());
        let pages = 1 + 1 + 1 + 2 + 3 + 4;
        writer.finish(Checkpoint { sequence: 1, blocks: 7, spans: 3, pages }).unwrap();
        sections
    }

    #[test]
    fn every_range_of_every_section_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let sections = written(dir.path());
        let pack = Pack::open(dir.path(), Arc::default()).unwrap();
        pack.verify_pages().unwrap();
        assert_eq!(pack.checkpoint().blocks, 7);
        for (place, bytes) in sections {
            assert_eq!(pack.section_len(place) as usize, bytes.len());
            let page = PAGE_PAYLOAD_BYTES;
            for start in [0, 1, page - 1, page, page + 1, 2 * page, bytes.len()] {
                for end in [start, start + 1, page, page + 1, 2 * page - 1, bytes.len()] {
                    let Some(expected) = bytes.get(start..end) else { continue };
                    let range = u32::try_from(start).unwrap()..u32::try_from(end).unwrap();
                    assert_eq!(pack.read(place, range).unwrap(), expected, "{place:?} {start}..{end}");
                }
            }
            let past = u32::try_from(bytes.len()).unwrap() + 1;
            assert!(pack.read(place, 0..past).is_err(), "nothing behind the end");
        }
        assert_eq!(pack.section_len(place(99, 7)), 0);
    }

    #[test]
    fn rel_04_a_flipped_bit_is_seen_when_it_is_read_and_costs_its_page_alone() {
        let dir = tempfile::tempdir().unwrap();
        let sections = written(dir.path());
        let path = dir.path().join(FILE_NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(61).chain(whole.len() - 400..whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x04;
            std::fs::write(&path, damaged).unwrap();
            let Ok(pack) = Pack::open(dir.path(), Arc::default()) else { continue };
            assert!(pack.verify_pages().is_err(), "flip at {at}");
            let read = |(place, bytes): &(Place, Vec<u8>)| match pack.read(*place, 0..pack.section_len(*place)) {
                Ok(found) => {
                    assert_eq!(found, *bytes, "flip at {at}");
                    1
                }
                Err(_) => 0,
            };
            assert_eq!(sections.iter().map(read).sum::<usize>(), sections.len() - 1, "flip at {at}");
        }
    }

    #[test]
    fn rel_04_a_file_cut_anywhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _sections = written(dir.path());
        let path = dir.path().join(FILE_NAME);
        let whole = std::fs::read(&path).unwrap();
        for cut in (0..whole.len()).step_by(97) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(Pack::open(dir.path(), Arc::default()), Err(StoreError::Damaged { .. })), "cut at {cut}");
        }
    }
}
