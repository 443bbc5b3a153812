//! Why a block could not be written or read.

use super::SectionId;
use super::codec::Malformed;

/// What goes wrong with blocks. None of it is expected in operation: bytes come back as they were written or not at
/// all, because the pages below carry checksums.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The section exists but is not what a block has there.
    #[error("section {section} of the block is damaged: {what}; restore the partition from a backup")]
    Damaged {
        /// Where.
        section: SectionId,
        /// What was found.
        what: &'static str,
    },
    /// Written by a newer version of the program.
    #[error("block format {version} is not known here (this version reads {known}); upgrade before opening it")]
    UnknownVersion {
        /// As found.
        version: u8,
        /// The only one this version reads.
        known: u8,
    },
    /// The bytes below could not be read.
    #[error("the block cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// More rows than a block holds.
    #[error("{rows} spans are too many for one block, at most {max} fit; seal earlier")]
    TooManySpans {
        /// Asked for.
        rows: usize,
        /// `limits::BLOCK_SPANS_MAX`.
        max: usize,
    },
    /// More than a block or an answer holds: 4 GiB of a section or of texts, 4 Mi events or 16 Mi attributes of a group.
    #[error("{what} would be too large; seal earlier or ask for fewer spans")]
    TooLarge {
        /// What would.
        what: &'static str,
    },
    /// A row reference points into no batch.
    #[error("batch {batch} has no row {row}")]
    NoSuchRow {
        /// Position of the batch.
        batch: u32,
        /// Row in it.
        row: u32,
    },
}

impl Malformed {
    /// The error for a section with these bytes.
    pub(crate) fn in_section(self, section: SectionId) -> BlockError {
        BlockError::Damaged { section, what: self.0 }
    }
}
