//! What a partition's bytes look like to its readers, wherever they lie: sections of a block or roll-up table, cut into pages
//! of fixed length, each with its checksum.
//!
//! ```text
//! page   XXH3-64 of the rest (8 BE) | at most 16,376 bytes; every page of a section but the last is full
//! ```
//! While a partition grows its pages are values of a database (`engine`); once it is sealed they stand in one file (`pack`).

use std::ops::Range;
use std::path::Path;

use crate::block::{BlockError, SectionId, Sections};
use crate::limits::PAGE_BYTES_MAX;

use super::StoreError;
use super::engine::Engine;
use super::pack::Pack;

pub(super) const CHECKSUM_BYTES: usize = 8;
pub(super) const PAGE_PAYLOAD_BYTES: usize = PAGE_BYTES_MAX - CHECKSUM_BYTES;

/// Which kind of thing a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    Block = 0x01,
    Rollup = 0x03,
}

/// A section of a block or of a roll-up table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) section: u16,
}

/// What the pages cover. Written in the same batch as the block it speaks of.
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

impl Checkpoint {
    pub(super) const BYTES: usize = 32;

    pub(super) fn write(self, out: &mut Vec<u8>) {
        for number in [self.sequence, self.blocks, self.spans, self.pages] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self { sequence: field(0)?, blocks: field(8)?, spans: field(16)?, pages: field(24)? })
    }
}

/// The pages of one partition.
#[derive(Debug)]
pub(super) enum Pages {
    /// It is not sealed yet.
    Growing(Engine),
    Sealed(Pack),
}

impl Pages {
    /// Where they lie.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Growing(engine) => engine.path(),
            Self::Sealed(pack) => pack.path(),
        }
    }

    pub(super) fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        match self {
            Self::Growing(engine) => engine.checkpoint(),
            Self::Sealed(pack) => Ok(pack.checkpoint()),
        }
    }

    /// Reads `range` of a section, checking every page it touches.
    pub(super) fn read(&self, place: Place, range: Range<u32>) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Growing(engine) => engine.read(place, range),
            Self::Sealed(pack) => pack.read(place, range),
        }
    }

    /// Length of a section in bytes, 0 when there is none.
    pub(super) fn section_len(&self, place: Place) -> Result<u32, StoreError> {
        match self {
            Self::Growing(engine) => engine.section_len(place),
            Self::Sealed(pack) => Ok(pack.section_len(place)),
        }
    }

    /// The whole section; empty when there is none.
    pub(super) fn read_all(&self, place: Place) -> Result<Vec<u8>, StoreError> {
        self.read(place, 0..self.section_len(place)?)
    }

    /// Reads every page, compares its checksum, and their number with what was written.
    pub(super) fn verify_pages(&self) -> Result<(), StoreError> {
        match self {
            Self::Growing(engine) => engine.verify_pages(),
            Self::Sealed(pack) => pack.verify_pages(),
        }
    }
}

/// A page as it is stored.
pub(super) fn checked(payload: &[u8]) -> Vec<u8> {
    let mut page = xxhash_rust::xxh3::xxh3_64(payload).to_be_bytes().to_vec();
    page.extend_from_slice(payload);
    page
}

/// What a stored page holds; `None` when its checksum is wrong.
pub(super) fn verified(page: &[u8]) -> Option<&[u8]> {
    let (checksum, payload) = page.split_first_chunk::<CHECKSUM_BYTES>()?;
    (xxhash_rust::xxh3::xxh3_64(payload) == u64::from_be_bytes(*checksum)).then_some(payload)
}

/// The sections of one block, as the block reader wants them.
#[derive(Debug)]
pub struct BlockSections<'a> {
    pub(super) pages: &'a Pages,
    pub(super) block_no: u64,
}

impl BlockSections<'_> {
    fn place(&self, section: SectionId) -> Place {
        Place { kind: Kind::Block, id: self.block_no, section: section.0 }
    }
}

impl Sections for BlockSections<'_> {
    fn read(&self, section: SectionId, range: Range<u32>) -> Result<Vec<u8>, BlockError> {
        self.pages.read(self.place(section), range).map_err(|error| BlockError::Unreadable(Box::new(error)))
    }

    fn section_len(&self, section: SectionId) -> Result<u32, BlockError> {
        self.pages.section_len(self.place(section)).map_err(|error| BlockError::Unreadable(Box::new(error)))
    }
}
