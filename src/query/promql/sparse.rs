//! The buckets of a native histogram as Prometheus writes them everywhere: where runs of buckets lie, and each count as its
//! difference from the one before.
//!
//! ```text
//! {-3: 5, -2: 7, 4: 1}   runs (-3, 2) (5, 1), deltas 5 2 -6
//! ```

use std::collections::BTreeMap;

/// Eight buckets for each power of two, as `exponential_bucket` numbers them.
pub const SCHEMA: i32 = 3;

/// Buckets without a gap between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many buckets lie between it and the run before; of the first one the index of its first bucket.
    pub offset: i32,
    /// How many buckets it has, at least one.
    pub length: u32,
}

/// Counts by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    /// Ascending.
    pub runs: Vec<Run>,
    /// One for each bucket of the runs.
    pub deltas: Vec<i64>,
}

impl Sparse {
    /// Of counts by index.
    pub fn of(counts: &BTreeMap<i32, u64>) -> Self {
        let (mut runs, mut deltas): (Vec<Run>, Vec<i64>) = (Vec::new(), Vec::new());
        let (mut next, mut before) = (0, 0_i64);
        for (index, count) in counts {
            match runs.last_mut().filter(|_| *index == next) {
                Some(run) => run.length += 1,
                None => runs.push(Run { offset: index - next, length: 1 }),
            }
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            deltas.push(count - before);
            (next, before) = (index + 1, count);
        }
        Self { runs, deltas }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(counts: &[(i32, u64)], runs: &[(i32, u32)], deltas: &[i64]) {
        let runs = runs.iter().map(|(offset, length)| Run { offset: *offset, length: *length }).collect();
        assert_eq!(Sparse::of(&counts.iter().copied().collect()), Sparse { runs, deltas: deltas.to_vec() });
    }

    #[test]
    fn runs_end_at_gaps_and_counts_follow_each_other() {
        check(&[], &[], &[]);
        check(&[(-3, 5), (-2, 7), (4, 1)], &[(-3, 2), (5, 1)], &[5, 2, -6]);
        check(&[(0, 2), (1, 2)], &[(0, 2)], &[2, 0]);
        check(&[(-1, 1), (0, 3), (2, 3)], &[(-1, 2), (1, 1)], &[1, 2, 0]);
    }
}
