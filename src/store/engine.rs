//! The one door to sled: the pages of a partition that is not sealed yet, and one checkpoint record.
//!
//! ```text
//! key   0x01 | block_no:8 BE | section:2 BE | page_no:2 BE   -> one page of a block's section
//!       0x02                                                 -> the checkpoint record, as one page
//! ```
//!
//! Pages are slices of fixed length, so a reader finds the pages of a byte range by division alone.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::PAGE_BYTES_MAX;

use super::StoreError;
use super::pages::{CHECKSUM_BYTES, Checkpoint, Kind, PAGE_PAYLOAD_BYTES, Place, checked, verified};

const CHECKPOINT_KEY: [u8; 1] = [0x02];
/// sled keeps a page in its log only up to a fraction of this; it may not change for an existing database.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

/// How often, and after what wait, a database that somebody still closes is tried again.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(10);

const _: () = assert!(PAGE_BYTES_MAX * 128 <= SEGMENT_BYTES, "larger values leave sled's log for files of their own");

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
        let found = verified(&value).and_then(Checkpoint::read);
        found.ok_or_else(|| self.damaged("checkpoint record: wrong checksum".to_owned()))
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
    pub(super) fn read(&self, place: Place, range: Range<u32>) -> Result<Vec<u8>, StoreError> {
        let (start, end) = (range.start as usize, range.end as usize);
        let mut out = Vec::with_capacity(end.saturating_sub(start).min(16 * PAGE_BYTES_MAX));
        let mut at = start;
        while at < end {
            let page_no = at / PAGE_PAYLOAD_BYTES;
            let page = self.page(place, page_no)?;
            let from = at % PAGE_PAYLOAD_BYTES;
            let to = (end - page_no * PAGE_PAYLOAD_BYTES).min(page.len());
            let Some(piece) = page.get(from..to).filter(|piece| !piece.is_empty()) else {
                return Err(self.damaged(format!("{place:?} ends before byte {end}")));
            };
            out.extend_from_slice(piece);
            at += piece.len();
        }
        Ok(out)
    }

    /// Length of a section in bytes, 0 when there is none.
    pub(super) fn section_len(&self, place: Place) -> Result<u32, StoreError> {
        let (first, last) = (page_key(place, 0), page_key(place, u16::MAX));
        let last = self.db.range(first..=last).next_back().transpose();
        let Some((key, value)) = last.map_err(|source| engine_error(&self.path, source))? else { return Ok(0) };
        let page_no = key.last_chunk::<2>().map_or(0, |no| u16::from_be_bytes(*no));
        let len = usize::from(page_no) * PAGE_PAYLOAD_BYTES + value.len().saturating_sub(CHECKSUM_BYTES);
        u32::try_from(len).map_err(|_| self.damaged(format!("{place:?} is too long")))
    }

    /// Reads every page, compares its checksum, and their number with what the checkpoint says.
    pub(super) fn verify_pages(&self) -> Result<(), StoreError> {
        let written = self.checkpoint()?.pages;
        let mut pages = 0;
        for entry in self.db.iter() {
            let (key, value) = entry.map_err(|source| engine_error(&self.path, source))?;
            let _payload = verified(&value).ok_or_else(|| self.damaged(format!("key {key:02x?}: wrong checksum")))?;
            pages += u64::from(key.first() == Some(&(Kind::Block as u8)));
        }
        if pages == written {
            return Ok(());
        }
        Err(self.damaged(format!("{pages} pages of blocks where {written} were written")))
    }

    /// Loses the last page of a section of a block, as sled does when it cannot read it any more.
    #[cfg(test)]
    pub(super) fn lose_last_page(&self, block_no: u64, section: crate::block::SectionId) {
        let place = Place { kind: Kind::Block, id: block_no, section: section.0 };
        let (first, last) = (page_key(place, 0), page_key(place, u16::MAX));
        let (key, _) = self.db.range(first..=last).next_back().expect("it has pages").unwrap();
        let _page = self.db.remove(key).unwrap();
        let _bytes = self.db.flush().unwrap();
    }

    fn page(&self, place: Place, page_no: usize) -> Result<sled::IVec, StoreError> {
        let damaged = |what: &str| self.damaged(format!("{place:?}, page {page_no}: {what}"));
        let no = u16::try_from(page_no).map_err(|_| damaged("too many"))?;
        let value = self.db.get(page_key(place, no)).map_err(|source| engine_error(&self.path, source))?;
        let value = value.ok_or_else(|| damaged("missing"))?;
        let _payload = verified(&value).ok_or_else(|| damaged("wrong checksum"))?;
        Ok(value.subslice(CHECKSUM_BYTES, value.len() - CHECKSUM_BYTES))
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
    pub(super) fn put_section(&mut self, place: Place, bytes: &[u8]) {
        for (page_no, payload) in (0..=u16::MAX).zip(bytes.chunks(PAGE_PAYLOAD_BYTES)) {
            self.changes.insert(&page_key(place, page_no), checked(payload));
            self.bytes += payload.len() as u64;
            self.pages += 1;
        }
    }

    pub(super) fn put_checkpoint(&mut self, checkpoint: Checkpoint) {
        let mut payload = Vec::with_capacity(Checkpoint::BYTES);
        checkpoint.write(&mut payload);
        self.changes.insert(&CHECKPOINT_KEY, checked(&payload));
    }
}

/// Bytes sort as (kind, id, section, page).
fn page_key(place: Place, page_no: u16) -> [u8; 13] {
    let mut key = [place.kind as u8; 13];
    let (rest, page) = key.split_at_mut(11);
    page.copy_from_slice(&page_no.to_be_bytes());
    let (rest, section_bytes) = rest.split_at_mut(9);
    section_bytes.copy_from_slice(&place.section.to_be_bytes());
    if let Some((_kind, id_bytes)) = rest.split_first_mut() {
        id_bytes.copy_from_slice(&place.id.to_be_bytes());
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
