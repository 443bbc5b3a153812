//! The one door to sled: pages of sections, each with its checksum, and one checkpoint record.
//!
//! ```text
//! key   0x01 | block_no:8 BE | section:2 BE | page_no:2 BE   -> one page of a block's section
//!       0x02                                                 -> the checkpoint record
//!       0x03 | table_no:8 BE | section:2 BE | page_no:2 BE   -> one page of a roll-up table
//! page  XXH3-64 of the rest (8 BE) | at most 16,376 bytes
//! ```
//!
//! Pages are slices of fixed length, so a reader finds the pages of a byte range by division alone.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::block::{BlockError, SectionId, Sections};
use crate::limits::PAGE_BYTES_MAX;

use super::StoreError;

const CHECKSUM_BYTES: usize = 8;
const PAGE_PAYLOAD_BYTES: usize = PAGE_BYTES_MAX - CHECKSUM_BYTES;
const CHECKPOINT_KEY: [u8; 1] = [0x02];
/// sled keeps a page in its log only up to a fraction of this; it may not change for an existing database.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

/// How often, and after what wait, a database that somebody still closes is tried again.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(10);

const _: () = assert!(PAGE_BYTES_MAX * 128 <= SEGMENT_BYTES, "larger values leave sled's log for files of their own");

/// Which kind of thing a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Block = 0x01,
    Rollup = 0x03,
}

/// What the database covers. Written in the same batch as the block it speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Journal sequence up to which everything is in blocks.
    pub(super) sequence: u64,
    /// Blocks, numbered from 1.
    pub(super) blocks: u64,
    /// Spans in them.
    pub(super) spans: u64,
    /// Pages of them. sled starts over from what it can still read and says nothing: this shows what is gone.
    pub(super) pages: u64,
}

/// One sled database.
#[derive(Debug)]
pub(super) struct Engine {
    db: sled::Db,
    path: PathBuf,
}

/// Changes that become visible together or not at all.
#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: sled::Batch,
    bytes: u64,
    pages: u64,
}

impl Engine {
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        // A snapshot that was being written when the process died is taken for a whole one.
        for name in super::files::entry_names(path).iter().filter(|name| name.ends_with(".generating")) {
            let _already_gone = std::fs::remove_file(path.join(name));
        }
        let config = sled::Config::default()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None);
        let db = open_unlocked(&config).map_err(|source| engine_error(path, source))?;
        Ok(Self { db, path: path.to_path_buf() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let value = self.db.get(CHECKPOINT_KEY).map_err(|source| engine_error(&self.path, source))?;
        let Some(value) = value else { return Ok(Checkpoint::default()) };
        let payload = self.verified(&value, || "checkpoint record".to_owned())?;
        let field = |at: usize| payload.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        match (field(0), field(8), field(16), field(24)) {
            (Some(sequence), Some(blocks), Some(spans), Some(pages)) => {
                Ok(Checkpoint { sequence, blocks, spans, pages })
            }
            _ => Err(self.damaged("checkpoint record".to_owned())),
        }
    }

    /// Applies a batch and hands it to the operating system. Survives `kill -9`; a power cut is the journal's business.
    pub(super) fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.db
            .apply_batch(batch.changes)
            .and_then(|()| self.db.flush())
            .map(|_bytes| ())
            .map_err(|source| engine_error(&self.path, source))
    }

    /// Reads `range` of a section, checking every page it touches. Cost: one look-up per 16 KiB.
    pub(super) fn read(&self, kind: Kind, id: u64, section: u16, range: Range<u32>) -> Result<Vec<u8>, StoreError> {
        let (start, end) = (range.start as usize, range.end as usize);
        let mut out = Vec::with_capacity(end.saturating_sub(start).min(16 * PAGE_BYTES_MAX));
        let mut at = start;
        while at < end {
            let page_no = at / PAGE_PAYLOAD_BYTES;
            let page = self.page(kind, id, section, page_no)?;
            let from = at % PAGE_PAYLOAD_BYTES;
            let to = (end - page_no * PAGE_PAYLOAD_BYTES).min(page.len());
            let Some(piece) = page.get(from..to).filter(|piece| !piece.is_empty()) else {
                return Err(self.damaged(format!("section {section} of {kind:?} {id} ends before byte {end}")));
            };
            out.extend_from_slice(piece);
            at += piece.len();
        }
        Ok(out)
    }

    /// Length of a section in bytes, 0 when there is none.
    pub(super) fn section_len(&self, kind: Kind, id: u64, section: u16) -> Result<u32, StoreError> {
        let (first, last) = (page_key(kind, id, section, 0), page_key(kind, id, section, u16::MAX));
        let last = self.db.range(first..=last).next_back().transpose();
        let Some((key, value)) = last.map_err(|source| engine_error(&self.path, source))? else { return Ok(0) };
        let page_no = key.last_chunk::<2>().map_or(0, |no| u16::from_be_bytes(*no));
        let len = usize::from(page_no) * PAGE_PAYLOAD_BYTES + value.len().saturating_sub(CHECKSUM_BYTES);
        u32::try_from(len).map_err(|_| self.damaged(format!("section {section} of {kind:?} {id} is too long")))
    }

    /// The whole section; empty when there is none.
    pub(super) fn read_all(&self, kind: Kind, id: u64, section: u16) -> Result<Vec<u8>, StoreError> {
        let len = self.section_len(kind, id, section)?;
        self.read(kind, id, section, 0..len)
    }

    /// Numbers of all things of a kind, ascending.
    pub(super) fn ids(&self, kind: Kind) -> Result<Vec<u64>, StoreError> {
        let mut ids = Vec::new();
        let mut from = page_key(kind, 0, 0, 0);
        let end = page_key(kind, u64::MAX, u16::MAX, u16::MAX);
        while let Some(found) = self.db.range(from..=end).next() {
            let (key, _) = found.map_err(|source| engine_error(&self.path, source))?;
            let Some(id) = key.get(1..9).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes) else { break };
            ids.push(id);
            let Some(next) = id.checked_add(1) else { break };
            from = page_key(kind, next, 0, 0);
        }
        Ok(ids)
    }

    /// Reads every page, compares its checksum, and their number with what the checkpoint says.
    pub(super) fn verify_pages(&self) -> Result<(), StoreError> {
        let written = self.checkpoint()?.pages;
        let mut pages = 0;
        for entry in self.db.iter() {
            let (key, value) = entry.map_err(|source| engine_error(&self.path, source))?;
            let _payload = self.verified(&value, || format!("key {key:02x?}"))?;
            pages += u64::from(key.first() == Some(&(Kind::Block as u8)));
        }
        if pages == written {
            return Ok(());
        }
        Err(self.damaged(format!("{pages} pages of blocks where {written} were written")))
    }

    /// Loses the last page of a section of a block, as sled does when it cannot read it any more.
    #[cfg(test)]
    pub(super) fn lose_last_page(&self, block_no: u64, section: SectionId) {
        let (first, last) =
            (page_key(Kind::Block, block_no, section.0, 0), page_key(Kind::Block, block_no, section.0, u16::MAX));
        let (key, _) = self.db.range(first..=last).next_back().expect("it has pages").unwrap();
        let _page = self.db.remove(key).unwrap();
        let _bytes = self.db.flush().unwrap();
    }

    fn page(&self, kind: Kind, id: u64, section: u16, page_no: usize) -> Result<sled::IVec, StoreError> {
        let name = || format!("{kind:?} {id}, section {section}, page {page_no}");
        let no = u16::try_from(page_no).map_err(|_| self.damaged(name()))?;
        let value = self.db.get(page_key(kind, id, section, no)).map_err(|source| engine_error(&self.path, source))?;
        let value = value.ok_or_else(|| self.damaged(format!("{}: missing", name())))?;
        let _payload = self.verified(&value, name)?;
        Ok(value.subslice(CHECKSUM_BYTES, value.len() - CHECKSUM_BYTES))
    }

    fn verified<'a>(&self, value: &'a [u8], name: impl FnOnce() -> String) -> Result<&'a [u8], StoreError> {
        match value.split_first_chunk::<CHECKSUM_BYTES>() {
            Some((checksum, payload)) if xxhash_rust::xxh3::xxh3_64(payload) == u64::from_be_bytes(*checksum) => {
                Ok(payload)
            }
            Some(_) | None => Err(self.damaged(format!("{}: wrong checksum", name()))),
        }
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what }
    }
}

impl Batch {
    /// Bytes of all sections put so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pages of all sections put so far.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Cuts a section into pages.
    pub(super) fn put_section(&mut self, kind: Kind, id: u64, section: u16, bytes: &[u8]) {
        for (page_no, payload) in (0..=u16::MAX).zip(bytes.chunks(PAGE_PAYLOAD_BYTES)) {
            self.changes.insert(&page_key(kind, id, section, page_no), checked(payload));
            self.bytes += payload.len() as u64;
            self.pages += 1;
        }
    }

    pub(super) fn put_checkpoint(&mut self, checkpoint: Checkpoint) {
        let mut payload = checkpoint.sequence.to_be_bytes().to_vec();
        payload.extend_from_slice(&checkpoint.blocks.to_be_bytes());
        payload.extend_from_slice(&checkpoint.spans.to_be_bytes());
        payload.extend_from_slice(&checkpoint.pages.to_be_bytes());
        self.changes.insert(&CHECKPOINT_KEY, checked(&payload));
    }
}

fn checked(payload: &[u8]) -> Vec<u8> {
    let mut value = xxhash_rust::xxh3::xxh3_64(payload).to_be_bytes().to_vec();
    value.extend_from_slice(payload);
    value
}

/// Bytes sort as (kind, id, section, page).
fn page_key(kind: Kind, id: u64, section: u16, page_no: u16) -> [u8; 13] {
    let mut key = [kind as u8; 13];
    let (rest, page) = key.split_at_mut(11);
    page.copy_from_slice(&page_no.to_be_bytes());
    let (rest, section_bytes) = rest.split_at_mut(9);
    section_bytes.copy_from_slice(&section.to_be_bytes());
    if let Some((_kind, id_bytes)) = rest.split_first_mut() {
        id_bytes.copy_from_slice(&id.to_be_bytes());
    }
    key
}

/// The last question that read a database may still be closing it. The data directory's lock keeps other processes out,
/// so waiting is enough.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    for _ in 0..LOCK_TRIES {
        match config.open() {
            // sled has no variant of its own for it.
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::park_timeout(LOCK_WAIT);
            }
            opened => return opened,
        }
    }
    config.open()
}

/// Whether sled says that its files are not what it wrote. An error of the disk may pass.
pub(super) fn is_corruption(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<sled::Error>().is_some_and(|error| !matches!(error, sled::Error::Io(_)))
}

fn engine_error(path: &Path, source: sled::Error) -> StoreError {
    StoreError::Engine { path: path.to_path_buf(), source: Box::new(source) }
}

/// The sections of one block, as the block reader wants them.
#[derive(Debug)]
pub struct BlockSections<'a> {
    pub(super) engine: &'a Engine,
    pub(super) block_no: u64,
}

impl Sections for BlockSections<'_> {
    fn read(&self, section: SectionId, range: Range<u32>) -> Result<Vec<u8>, BlockError> {
        self.engine
            .read(Kind::Block, self.block_no, section.0, range)
            .map_err(|error| BlockError::Unreadable(Box::new(error)))
    }

    fn section_len(&self, section: SectionId) -> Result<u32, BlockError> {
        self.engine
            .section_len(Kind::Block, self.block_no, section.0)
            .map_err(|error| BlockError::Unreadable(Box::new(error)))
    }
}
