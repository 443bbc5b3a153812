//! Counts of buckets as they come, of many slots: sorted and added up only when they are many, not slot by slot.

use crate::latency::{Bucket, SparseHistogram};

/// Below so many entries it is never worth adding up.
const FEW: usize = 64;
/// Bits of a count: sorted as one number, entries are sorted fastest.
const COUNT_BITS: u32 = 48;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// What was counted, in no order; a bucket may come several times.
#[derive(Clone, Debug, Default)]
pub(super) struct Pile {
    /// Bucket above, count below.
    entries: Vec<u64>,
    /// Entries at which it is added up the next time.
    sorted_at: usize,
    sum_ns: u128,
}

impl Pile {
    /// Adds a slot; how many entries more, or fewer, are held.
    pub(super) fn add(&mut self, slot: &SparseHistogram) -> isize {
        let before = self.entries.len();
        self.sum_ns += slot.sum_ns();
        for (bucket, count) in slot.entries() {
            let bucket = u64::from(bucket.index()) << COUNT_BITS;
            let mut left = *count;
            while COUNT_MAX < left {
                self.entries.push(bucket | COUNT_MAX);
                left -= COUNT_MAX;
            }
            self.entries.push(bucket | left);
        }
        if self.sorted_at.max(FEW) < self.entries.len() {
            self.add_up();
            // Twice as many may come before the next time.
            self.sorted_at = self.entries.len() * 2;
        }
        self.entries.len().cast_signed() - before.cast_signed()
    }

    /// Sorts the entries, and adds up those of a bucket.
    fn add_up(&mut self) {
        self.entries.sort_unstable();
        self.entries.dedup_by(|again, first| {
            let sum = (*first & COUNT_MAX) + (*again & COUNT_MAX);
            let is_same = *again >> COUNT_BITS == *first >> COUNT_BITS && sum <= COUNT_MAX;
            if is_same {
                *first = (*first & !COUNT_MAX) | sum;
            }
            is_same
        });
    }

    /// All of these in one.
    pub(super) fn of(piles: &[&Self]) -> Self {
        let mut entries = Vec::with_capacity(piles.iter().map(|pile| pile.entries.len()).sum());
        for pile in piles {
            entries.extend_from_slice(&pile.entries);
        }
        Self { entries, sorted_at: 0, sum_ns: piles.iter().map(|pile| pile.sum_ns).sum() }
    }

    /// The same with its entries ascending by bucket.
    pub(super) fn sorted(mut self) -> Self {
        self.add_up();
        self
    }

    /// Adds what another one holds.
    pub(super) fn take_in(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.sum_ns += other.sum_ns;
    }

    /// Counts; those of a bucket may stand in several places.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Bucket, u64)> {
        let bucket = |entry: &u64| Bucket::from_index(entry >> COUNT_BITS).unwrap_or(Bucket::TOP);
        self.entries.iter().map(move |entry| (bucket(entry), entry & COUNT_MAX))
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
            *found.entry(bucket).or_default() += count;
        }
        assert_eq!((&found, pile.sum_ns()), (&expected, sum));
        assert_eq!(pile.entries().count().cast_signed(), held);
        assert!(pile.entries().count() <= 3 * 300, "it is added up on the way");
        assert!(pile.sorted().entries().eq(expected), "each bucket once, ascending");
    }

    #[test]
    fn counts_too_large_for_an_entry_take_several() {
        let count = 3 * COUNT_MAX + 5;
        let slot = SparseHistogram::from_parts(vec![(Bucket::TOP, count)], 1, 0);
        let mut pile = Pile::default();
        pile.add(&slot);
        pile.add(&slot);
        let entries: Vec<(Bucket, u64)> = pile.sorted().entries().collect();
        assert!(entries.iter().all(|(bucket, _)| *bucket == Bucket::TOP));
        assert_eq!(entries.iter().map(|(_, count)| count).sum::<u64>(), 2 * count);
    }
}
