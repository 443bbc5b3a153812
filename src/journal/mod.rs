//! The write-ahead journal of one partition: append-only segments of framed, checksummed records, one fdatasync for
//! many of them. What a record means is the caller's business; here it is a hash, an arrival time and bytes.
//!
//! ```text
//! 00000001.log   file header (24 bytes) | record | record | zeros up to the preallocated length
//! record         header (60 bytes: magic, version, sequence, arrival, body hash, checksums) | payload
//! ```
//!
//! `docs/format.md` draws every byte. Deliberately absent: threads, replies, decoding.

mod disk;
mod record;
mod recover;
mod scan;
mod segment;
#[cfg(test)]
mod tests;

pub use disk::{Disk, RealDisk, SegmentFile};
pub use record::{BodyHash, RecordHeader, RecordLabel};
pub use recover::{Damage, Recovered, Visit, first_record, recover};
pub use scan::{CopiedSegment, Scanned, copy, scan};
pub use segment::{Committed, Durability, Journal, JournalConfig};

use std::path::PathBuf;

/// Why a record is not in the journal, or the journal not readable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk, a quota or a file size limit is exhausted. The record was cut off again; later ones may succeed.
    #[error("no space for the journal at {path}; free space or lower --max-disk")]
    Full {
        /// Segment that could not grow.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A sync or write failed: what is on disk is unknown. Nothing more is accepted until a restart replays.
    #[error("the journal at {path} could not be synced; check the disk, then restart")]
    Broken {
        /// Segment that failed.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An earlier failure closed this journal.
    #[error("the journal is closed after a failed sync; check the disk, then restart")]
    Closed,
    /// A file of the journal cannot be read.
    #[error("cannot read the journal file {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The copy of a segment cannot be written.
    #[error("cannot write {path}")]
    Copy {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A segment written by another version.
    #[error(
        "{path} is a journal of format version {version}, this program reads version {known}; use the version that wrote it"
    )]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// Ours.
        known: u32,
    },
    /// A record longer than a length field can say.
    #[error("a journal record of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// Payload bytes.
        bytes: usize,
        /// Largest payload.
        limit: usize,
    },
    /// What the caller said about a record that was read back.
    #[error("a journal record could not be replayed")]
    Replay(#[source] Box<dyn std::error::Error + Send + Sync>),
}
