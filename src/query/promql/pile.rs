//! Counts of buckets as they come, of many slots: sorted and added up only when they are many, not slot by slot.

use crate::latency::{Bucket, SparseHistogram};

/// Below so many entries it is never worth adding up.
const FEW: usize = 64;

/// What was counted, in no order; a bucket may come several times.
#[derive(Clone, Debug, Default)]
pub(super) struct Pile {
    entries: Vec<(Bucket, u64)>,
    /// Entries at which it is added up the next time.
    sorted_at: usize,
    sum_ns: u128,
}

impl Pile {
    /// Adds a slot; how many entries more, or fewer, are held.
    pub(super) fn add(&mut self, slot: &SparseHistogram) -> isize {
        let before = self.entries.len();
        self.sum_ns += slot.sum_ns();
        self.entries.extend_from_slice(slot.entries());
        if self.sorted_at.max(FEW) < self.entries.len() {
            self.entries.sort_unstable_by_key(|(bucket, _)| *bucket);
            self.entries.dedup_by(|again, first| {
                let is_same = again.0 == first.0;
                first.1 += if is_same { again.1 } else { 0 };
                is_same
            });
            // Twice as many may come before the next time.
            self.sorted_at = self.entries.len() * 2;
        }
        self.entries.len().cast_signed() - before.cast_signed()
    }

    /// Adds what another one holds.
    pub(super) fn take_in(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.sum_ns += other.sum_ns;
    }

    /// Counts; those of a bucket may stand in several places.
    pub(super) fn entries(&self) -> &[(Bucket, u64)] {
        &self.entries
    }

    /// In nanoseconds.
    pub(super) fn sum_ns(&self) -> u128 {
        self.sum_ns
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::DurationNanos;

    #[test]
    fn a_pile_counts_what_its_slots_count_however_many_they_are() {
        let mut pile = Pile::default();
        let mut expected: BTreeMap<Bucket, u64> = BTreeMap::new();
        let (mut held, mut sum) = (0_isize, 0_u128);
        for no in 0..5_000_u64 {
            let latency = DurationNanos((no * 7_919 % 300) * 100_000);
            let mut slot = SparseHistogram::default();
            slot.record(latency);
            held += pile.add(&slot);
            sum += u128::from(latency.0);
            *expected.entry(Bucket::of(latency)).or_default() += 1;
        }
        let mut found: BTreeMap<Bucket, u64> = BTreeMap::new();
        for (bucket, count) in pile.entries() {
            *found.entry(*bucket).or_default() += count;
        }
        assert_eq!((found, pile.sum_ns()), (expected, sum));
        assert_eq!(pile.entries().len().cast_signed(), held);
        assert!(pile.entries().len() <= 3 * 300, "it is added up on the way");
    }
}
