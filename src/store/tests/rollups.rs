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

/// Spans of both kinds in two blocks: some end before they start, one has no time at all.
#[test]
fn spans_without_a_latency_are_counted_beside_their_series_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let arrived = UnixNanos(NOW + 100 * SECOND);
    let partition = store.start_partition().unwrap();
    for sequence in 1..=2 {
        let mut batch = batch(&samples(60, u128::from(sequence) * 1_000));
        for (no, span) in batch.spans.iter_mut().enumerate().filter(|(no, _)| no % 4 == 0) {
            span.end_time_unix_nano = UnixNanos(span.start_time_unix_nano.0 - 1);
            if no == 0 {
                (span.start_time_unix_nano, span.end_time_unix_nano) = (UnixNanos(0), UnixNanos(0));
            }
        }
        store.push([(sequence, arrived, Arc::new(batch))]);
        let _done = checkpoint(&store, &partition);
    }
    let manifest = store.seal(&partition).unwrap();
    assert_eq!(manifest.max_time, arrived, "a span without any time is counted when it came");
    let sealed = store.open_partition(&partition).unwrap();
    for resolution in Resolution::ALL {
        let tally = seal::tally_rollups(&sealed, resolution).unwrap();
        let of = |is_untimed: bool| {
            let wanted = tally.iter().filter(|((key, _), _)| match &key.family {
                None => !is_untimed,
                Some(family) => is_untimed && *family == crate::model::Family::Untimed,
            });
            wanted.map(|(_, count)| *count).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
        };
        let (timed, sum) = of(false);
        assert_eq!((timed, of(true)), (90, (30, 0)), "{resolution:?}");
        let expected: u64 = (0..60).filter(|no| no % 4 != 0).map(|no| (no + 1) * 1_000_000).sum();
        assert_eq!(sum, 2 * u128::from(expected), "{resolution:?}");
        let slot = resolution.slot_of(arrived);
        let came =
            tally.iter().filter(|((key, at), _)| *at == slot && key.family == Some(crate::model::Family::Untimed));
        assert!(2 <= came.map(|(_, count)| count.0).sum::<u64>(), "{resolution:?}");
    }
    let without = store.start_partition().unwrap();
    push(&store, 3, &samples(60, 3_000));
    let _done = checkpoint(&store, &without);
    let open = store.open_partition(&without).unwrap();
    assert!(open.series(1).unwrap().iter().all(|key| key.family != Some(crate::model::Family::Untimed)));
    drop((sealed, open, partition, without, store));
    remnants::check_sound(dir.path());
}
