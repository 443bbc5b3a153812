//! Blocks: up to 64 Ki spans in columns, written once, complete in themselves.
//!
//! A block is a list of sections; who stores them, and in what pages, is not its business, and neither are files and
//! threads. `docs/format.md` draws every byte.
//!
//! ```text
//! section 0       header: version, summary, first trace of each row group, where each column chunk lies
//! section 1       trace filter
//! section 2       dictionaries, one per column of repeating strings
//! section 3       tables: attributes and shapes, resources and scopes, series
//! section 4       latency (not ours)
//! section 6       skip index
//! section 16 + g  row group g: the chunks of 4096 rows, one per column, each compressed by itself
//! ```
//! Rows lie in `SpanKey` order. What a span repeats of its series, resource or neighbour costs next to nothing; a
//! column that is zero or empty throughout a row group has no chunk there.

use std::ops::Range;

mod codec;
mod columns;
mod encode;
mod error;
mod filter;
mod header;
mod order;
mod read;
#[cfg(test)]
mod samples;
mod skip;
mod summary;
#[cfg(test)]
mod tests;

pub use codec::{packed, unpacked};
pub use encode::{Encoded, encode};
pub use error::BlockError;
pub use order::{Located, Ordered, find as span_at, order, same_content};
pub use read::{
    AttributeColumn, AttributeOwner, AttributeValues, Block, BlockScan, Dictionary, EachParts, Exceptions, PartSize,
    RowGroup, RunPart, SpanAttribute, SpanGlance, SpanParts, TextColumn,
};
pub use skip::SkipIndex;
pub use summary::{BlockSummary, ServiceCount};

/// Number of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub u16);

impl SectionId {
    /// Version, summary and directory.
    pub const HEADER: Self = Self(0);
    /// The trace filter.
    pub const FILTER: Self = Self(1);
    /// Dictionaries of strings.
    pub const DICTIONARIES: Self = Self(2);
    /// Attributes, shapes, resources, scopes and series.
    pub const TABLES: Self = Self(3);
    /// Latency histograms; written and read by another module.
    pub const LATENCY: Self = Self(4);
    /// Keys of the series that histograms have beside those of the rows; written and read by another module.
    pub const FAMILIES: Self = Self(5);
    /// What the block cannot hold. Missing in blocks of earlier programs.
    pub const SKIP: Self = Self(6);
    /// Row group 0; group g follows at distance g.
    pub const FIRST_GROUP: Self = Self(16);

    /// The section of a row group; groups past 65519 do not exist.
    pub(crate) fn of_group(group: usize) -> Self {
        Self(u16::try_from(group).unwrap_or(u16::MAX).saturating_add(Self::FIRST_GROUP.0))
    }
}

impl std::fmt::Display for SectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A span in a list of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowRef {
    /// Position of the batch in the list.
    pub batch: u32,
    /// Position of the span in the batch.
    pub row: u32,
}

/// Where a block's bytes come from.
pub trait Sections {
    /// Reads `range` of a section.
    ///
    /// # Errors
    /// `Damaged` when the section or the range does not exist, `Unreadable` when the store fails.
    fn read(&self, section: SectionId, range: Range<u32>) -> Result<Vec<u8>, BlockError>;

    /// Length of a section in bytes.
    ///
    /// # Errors
    /// As for `read`.
    fn section_len(&self, section: SectionId) -> Result<u32, BlockError>;
}

/// Sections in memory, as `encode` gives them. Cost of a read: O(sections).
impl Sections for Vec<(SectionId, Vec<u8>)> {
    fn read(&self, section: SectionId, range: Range<u32>) -> Result<Vec<u8>, BlockError> {
        let bytes = find(self, section)?;
        let part = bytes.get(range.start as usize..range.end as usize);
        part.map(<[u8]>::to_vec).ok_or(BlockError::Damaged { section, what: "it ends too early" })
    }

    fn section_len(&self, section: SectionId) -> Result<u32, BlockError> {
        let len = find(self, section)?.len();
        u32::try_from(len).map_err(|_| BlockError::TooLarge { what: "a section" })
    }
}

fn find(sections: &[(SectionId, Vec<u8>)], section: SectionId) -> Result<&[u8], BlockError> {
    let found = sections.iter().find(|(id, _)| *id == section);
    found.map(|(_, bytes)| bytes.as_slice()).ok_or(BlockError::Damaged { section, what: "it is missing" })
}
