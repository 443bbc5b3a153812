//! Roll-ups of every resolution say the same, whether they are stored or read from finer ones.

use super::*;
use crate::store::seal::tally_rollups;

const DAY_SECS: u64 = 86_400;

/// What the 10 s roll-ups count, in slots of `resolution`.
fn coarsened(open: &OpenPartition, resolution: Resolution) -> seal::Tally {
    let mut coarse = seal::Tally::new();
    for ((key, slot), (count, sum)) in tally_rollups(open, Resolution::TenSeconds).unwrap() {
        let slot = Resolution::TenSeconds.coarsen(slot, resolution).unwrap();
        let (all, total) = coarse.entry((key, slot)).or_default();
        (*all, *total) = (*all + count, *total + sum);
    }
    coarse
}

/// A sealed partition with spans at these seconds, and how many tables of each resolution it stores.
fn sealed_at(secs: &[u64]) -> (tempfile::TempDir, Arc<OpenPartition>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    // Past days: what lies ahead of its arrival is counted earlier.
    let day = (NOW / SECOND / DAY_SECS - 4) * DAY_SECS;
    let sample = |(no, secs): (u64, &u64)| Sample {
        service: if no.is_multiple_of(2) { "cart" } else { "checkout" },
        trace: u128::from(no) + 1,
        span: no + 1,
        start: (day + secs) * SECOND,
        duration: (no + 1) * 1_000_000,
    };
    let samples: Vec<Sample> = (0..).zip(secs).map(sample).collect();
    for (no, some) in (1..).zip(samples.chunks(3)) {
        push(&store, no, some);
        let _done = checkpoint(&store, &partition);
    }
    let _manifest = store.seal(&partition).unwrap();
    let open = store.open_partition(&partition).unwrap();
    let stored = Resolution::ALL.iter().map(|resolution| open.stored_windows(*resolution)).collect();
    (dir, open, stored)
}

#[test]
fn a_roll_up_is_stored_where_it_says_more_than_the_finer_one_and_reads_alike_where_it_is_not() {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 3_600;
    let cases: [(&str, &[u64], [usize; 5]); 7] = [
        ("one slot", &[5, 6, 7, 8], [1, 0, 0, 0, 0]),
        ("two slots of a minute", &[5, 15], [1, 1, 0, 0, 0]),
        ("two slots on either side of a minute", &[55, 65], [1, 0, 1, 0, 0]),
        ("two slots on either side of an hour", &[HOUR - 5, HOUR + 5], [2, 0, 0, 0, 1]),
        ("two slots on either side of a day", &[DAY_SECS - 5, DAY_SECS + 5], [2, 0, 0, 0, 0]),
        ("half an hour of minutes", &[0, 10, MINUTE, 600, 610, 1_200, 1_800], [4, 1, 1, 1, 0]),
        ("days", &[0, HOUR, 2 * HOUR, DAY_SECS, DAY_SECS + HOUR, 3 * DAY_SECS], [6, 0, 0, 0, 1]),
    ];
    for (what, secs, stored) in cases {
        let (_dir, open, found) = sealed_at(secs);
        assert_eq!(found, stored, "{what}");
        for resolution in Resolution::ALL {
            assert_eq!(
                tally_rollups(&open, resolution).unwrap(),
                coarsened(&open, resolution),
                "{what}, {resolution:?}"
            );
        }
    }
}
