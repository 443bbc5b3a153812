//! Slot tables: every (series, slot) of one block or of one roll-up window, as bytes.
//!
//! `docs/format.md`, "Latency slots", draws them. A directory in front names chunks of about 16 KiB in three columns, so a
//! reader of few series fetches few bytes, and one of counts neither buckets nor exemplars. Everything is checksummed: damaged
//! bytes are an error, not a wrong number.

mod build;
mod chunk;
mod directory;
mod read;
#[cfg(test)]
mod tests;
mod varint;

pub use build::{SlotTableBuilder, TableTooLarge};
pub use read::{EachCounts, EachSlot, Fetch, ReadError, SeriesWanted, SlotTableReader, Take};

/// Bytes that are no slot table, or no longer the one that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("latency slots are damaged: {what}")]
pub struct Damaged {
    /// What was found.
    pub what: &'static str,
}

/// First byte of a table. A reader refuses every other.
const VERSION: u8 = 2;
/// Uncompressed bytes after which a chunk ends.
const CHUNK_RAW_BYTES: usize = 16 * 1024;
/// Uncompressed bytes of the largest column: one slot that hits every bucket more than 2^56 times, behind a full chunk.
const COLUMN_RAW_BYTES_MAX: usize = 512 * 1024;
/// Bytes of the largest directory, about 35,000 chunks: a reader holds all of it.
const DIRECTORY_BYTES_MAX: usize = 1024 * 1024;

/// The low half of XXH3: enough to notice damage, not meant against forgery.
fn checksum(bytes: &[u8]) -> u32 {
    let [_, _, _, _, low @ ..] = xxhash_rust::xxh3::xxh3_64(bytes).to_be_bytes();
    u32::from_be_bytes(low)
}
