//! An index from content to row number that owns no content: the rows themselves are compared.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Takes a finished hash as it is.
#[derive(Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Hash -> rows with that hash, newest first.
#[derive(Default)]
pub(super) struct ContentIndex {
    newest: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    /// The next older row with the same hash.
    older: Vec<Option<u32>>,
}

impl ContentIndex {
    /// The row with this hash that is `the_one`.
    pub(super) fn find(&self, hash: u64, the_one: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.newest.get(&hash).copied();
        while let Some(row) = at {
            if the_one(row) {
                return Some(row);
            }
            at = self.older.get(row as usize).copied().flatten();
        }
        None
    }

    /// Adds the next row and gives its number.
    pub(super) fn push(&mut self, hash: u64) -> u32 {
        let row = u32::try_from(self.older.len()).unwrap_or(u32::MAX);
        self.older.push(self.newest.insert(hash, row));
        row
    }
}

/// Hash of bytes for a `ContentIndex`.
pub(super) fn hash_of(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Hash of two hashes, or of a hash and a number.
pub(super) fn mix(hash: u64, other: u64) -> u64 {
    (hash ^ other).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
