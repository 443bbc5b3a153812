//! `TRACES`: which blocks of a sealed partition hold a trace, answered without opening its database.
//!
//! ```text
//! "SPTR" | version:1 | 0:3 | buckets:4 BE                                               12 bytes
//! (buckets + 1) x first entry:4 BE                                                      where each bucket begins
//! entries x (fingerprint:2 BE | block:2 BE)                                             by bucket, then ascending
//! buckets x checksum:4 BE                                                               of bucket number, bounds, entries
//! ```
//! A trace's bucket is the high part of the hash of its id, its fingerprint the low part. A look-up reads 8 + 4 + some 500
//! bytes of the file and keeps nothing in memory; about 1 of 500 strangers is taken for a trace of the partition.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::model::TraceId;

use super::{OpenPartition, StoreError, files};

/// Name of the file in a partition's directory.
pub(super) const FILE_NAME: &str = "TRACES";
const MAGIC: [u8; 8] = *b"SPTR\x01\0\0\0";
const HEADER_BYTES: u64 = 12;
const ENTRY_BYTES: u64 = 4;
/// Entries of a bucket, about.
const BUCKET_ENTRIES: usize = 128;
/// A block whose number does not fit: every block is asked.
const ANY_BLOCK: u16 = u16::MAX;

/// Where a trace may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceBlocks {
    /// In these blocks at most, ascending; often in none.
    Known(Vec<u64>),
    /// In any: there is no index, or it is damaged, or the partition has more blocks than it can name.
    Unknown,
}

fn hash(trace: TraceId) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&trace.low_u64().to_be_bytes())
}

/// The bucket of a hash: hashes ascend with their buckets.
fn bucket_of(hash: u64, buckets: u32) -> u32 {
    u32::try_from((u128::from(hash) * u128::from(buckets)) >> 64).unwrap_or(u32::MAX)
}

fn fingerprint(hash: u64) -> u16 {
    let [.., high, low] = hash.to_be_bytes();
    u16::from_be_bytes([high, low])
}

fn checksum(bucket: u32, bounds: [u32; 2], entries: &[u8]) -> u32 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for number in [bucket, bounds[0], bounds[1]] {
        hasher.update(&number.to_be_bytes());
    }
    hasher.update(entries);
    let [_, _, _, _, low @ ..] = hasher.digest().to_be_bytes();
    u32::from_be_bytes(low)
}

/// Writes the index of a partition that nothing is written to any more. Memory: 10 bytes per trace and block.
pub(super) fn write(dir: &Path, open: &OpenPartition) -> Result<(), StoreError> {
    let mut pairs: Vec<(u64, u16)> = Vec::new();
    for block_no in open.block_numbers() {
        let named = u16::try_from(block_no).unwrap_or(ANY_BLOCK);
        open.traces(block_no, &mut |trace| pairs.push((hash(trace), named)))?;
    }
    pairs.sort_unstable();
    pairs.dedup();
    files::write_durably(&dir.join(FILE_NAME), &encode(&pairs))
}

/// `pairs` ascend.
fn encode(pairs: &[(u64, u16)]) -> Vec<u8> {
    let buckets = u32::try_from(pairs.len().div_ceil(BUCKET_ENTRIES).max(1)).unwrap_or(u32::MAX);
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&buckets.to_be_bytes());
    let (mut entries, mut checksums) = (Vec::with_capacity(pairs.len() * 4), Vec::new());
    let mut rest = pairs;
    let mut begin = 0;
    out.extend_from_slice(&0_u32.to_be_bytes());
    for bucket in 0..buckets {
        let (own, behind) = rest.split_at(rest.partition_point(|(hash, _)| bucket_of(*hash, buckets) <= bucket));
        rest = behind;
        let mut sorted: Vec<(u16, u16)> = own.iter().map(|(hash, block)| (fingerprint(*hash), *block)).collect();
        sorted.sort_unstable();
        let from = entries.len();
        for (fingerprint, block) in sorted {
            entries.extend_from_slice(&fingerprint.to_be_bytes());
            entries.extend_from_slice(&block.to_be_bytes());
        }
        let end = u32::try_from(entries.len() / 4).unwrap_or(u32::MAX);
        out.extend_from_slice(&end.to_be_bytes());
        let own = entries.get(from..).unwrap_or_default();
        checksums.extend_from_slice(&checksum(bucket, [begin, end], own).to_be_bytes());
        begin = end;
    }
    out.append(&mut entries);
    out.append(&mut checksums);
    out
}

/// Looks traces up. Cost: one open, and three small reads for each bucket that one of them is in.
///
/// # Errors
/// When the file cannot be read, or does not hold what was written.
pub(super) fn look_up(dir: &Path, traces: &[TraceId]) -> io::Result<Vec<TraceBlocks>> {
    let index = Index::open(dir)?;
    let mut found = vec![TraceBlocks::Unknown; traces.len()];
    let mut by_hash: Vec<(u64, usize)> = traces.iter().map(|trace| hash(*trace)).zip(0..).collect();
    by_hash.sort_unstable();
    for of_bucket in by_hash.chunk_by(|(a, _), (b, _)| index.bucket_of(*a) == index.bucket_of(*b)) {
        let Some((first, _)) = of_bucket.first() else { continue };
        let entries = index.entries(index.bucket_of(*first))?;
        for (hash, at) in of_bucket {
            if let Some(slot) = found.get_mut(*at) {
                *slot = matching(&entries, fingerprint(*hash));
            }
        }
    }
    Ok(found)
}

/// The open file.
struct Index {
    file: File,
    file_len: u64,
    buckets: u32,
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a bucket has a wrong checksum")
}

impl Index {
    fn open(dir: &Path) -> io::Result<Self> {
        let file = File::open(dir.join(FILE_NAME))?;
        let mut header = [0; 12];
        file.read_exact_at(&mut header, 0)?;
        let Some((MAGIC, buckets)) = header.split_first_chunk::<8>().map(|(magic, buckets)| (*magic, buckets)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not begin as an index of traces does"));
        };
        let buckets = number(buckets).ok_or_else(damaged)?;
        Ok(Self { file_len: file.metadata()?.len(), file, buckets })
    }

    fn bucket_of(&self, hash: u64) -> u32 {
        bucket_of(hash, self.buckets)
    }

    /// The bytes of a bucket, checked.
    fn entries(&self, bucket: u32) -> io::Result<Vec<u8>> {
        let table = HEADER_BYTES + ENTRY_BYTES * (u64::from(self.buckets) + 1);
        let mut bounds = [0; 8];
        self.file.read_exact_at(&mut bounds, HEADER_BYTES + ENTRY_BYTES * u64::from(bucket))?;
        let (begin, end) = bounds.split_at(4);
        let (begin, end) = (number(begin).ok_or_else(damaged)?, number(end).ok_or_else(damaged)?);
        let n_entries = end.checked_sub(begin).ok_or_else(damaged)?;
        let entries_at = table + ENTRY_BYTES * u64::from(begin);
        let checksum_at = self
            .file_len
            .checked_sub(4 * u64::from(self.buckets - bucket.min(self.buckets)))
            .filter(|at| entries_at + ENTRY_BYTES * u64::from(n_entries) <= *at)
            .ok_or_else(damaged)?;
        let mut entries = vec![0; n_entries as usize * 4];
        self.file.read_exact_at(&mut entries, entries_at)?;
        let mut written = [0; 4];
        self.file.read_exact_at(&mut written, checksum_at)?;
        if checksum(bucket, [begin, end], &entries) != u32::from_be_bytes(written) {
            return Err(damaged());
        }
        Ok(entries)
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn matching(entries: &[u8], wanted: u16) -> TraceBlocks {
    let (entries, _odd_bytes) = entries.as_chunks::<4>();
    let mut blocks = Vec::new();
    for [high, low, block_high, block_low] in entries {
        if u16::from_be_bytes([*high, *low]) == wanted {
            match u16::from_be_bytes([*block_high, *block_low]) {
                ANY_BLOCK => return TraceBlocks::Unknown,
                block => blocks.push(u64::from(block)),
            }
        }
    }
    TraceBlocks::Known(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up_one(dir: &Path, trace: TraceId) -> io::Result<TraceBlocks> {
        look_up(dir, &[trace]).map(|mut found| found.remove(0))
    }

    fn trace(no: u64) -> TraceId {
        TraceId((u128::from(no) << 64 | u128::from(no.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_be_bytes())
    }

    fn written(n: u64) -> (tempfile::TempDir, Vec<u8>) {
        let mut pairs: Vec<(u64, u16)> =
            (0..n).map(|no| (hash(trace(no)), u16::try_from(1 + no % 7).unwrap())).collect();
        pairs.push((hash(trace(3)), 6));
        pairs.sort_unstable();
        let dir = tempfile::tempdir().unwrap();
        let bytes = encode(&pairs);
        std::fs::write(dir.path().join(FILE_NAME), &bytes).unwrap();
        (dir, bytes)
    }

    #[test]
    fn every_trace_is_found_in_its_blocks_and_few_strangers_are_taken_for_one() {
        let (dir, _) = written(20_000);
        for no in 0..20_000 {
            let TraceBlocks::Known(blocks) = look_up_one(dir.path(), trace(no)).unwrap() else {
                panic!("it has an index")
            };
            assert!(blocks.contains(&(1 + no % 7)), "trace {no}: {blocks:?}");
            assert!(no != 3 || blocks.contains(&6), "a trace of two blocks");
        }
        let strangers = (20_000..40_000)
            .filter(|no| look_up_one(dir.path(), trace(*no)).unwrap() != TraceBlocks::Known(Vec::new()))
            .count();
        assert!(strangers < 100, "{strangers} of 20,000");
    }

    #[test]
    fn many_traces_are_found_as_each_alone() {
        let (dir, _) = written(5_000);
        let traces: Vec<TraceId> = (0..6_000).rev().map(trace).collect();
        let together = look_up(dir.path(), &traces).unwrap();
        let alone: Vec<TraceBlocks> = traces.iter().map(|trace| look_up_one(dir.path(), *trace).unwrap()).collect();
        assert_eq!(together, alone);
    }

    #[test]
    fn an_empty_partition_has_an_index_that_says_no() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), encode(&[])).unwrap();
        assert_eq!(look_up_one(dir.path(), trace(1)).unwrap(), TraceBlocks::Known(Vec::new()));
    }

    #[test]
    fn rel_04_a_flipped_bit_anywhere_never_hides_a_trace() {
        let (dir, bytes) = written(600);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            std::fs::write(dir.path().join(FILE_NAME), damaged).unwrap();
            for no in [1, 3, 300, 599] {
                match look_up_one(dir.path(), trace(no)) {
                    Ok(TraceBlocks::Known(blocks)) => assert!(blocks.contains(&(1 + no % 7)), "flip at {at}"),
                    Ok(TraceBlocks::Unknown) | Err(_) => {}
                }
            }
        }
    }
}
