use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Span, UnixNanos};

/// (id, parent, start, end); 0 as a parent is none.
type Row = (u64, u64, u64, u64);

fn batch(rows: &[Row]) -> SpanBatch {
    let span = |(id, parent, start, end): &Row| Span {
        span_id: SpanId(id.to_be_bytes()),
        parent_span_id: SpanId(parent.to_be_bytes()),
        start_time_unix_nano: UnixNanos(*start),
        end_time_unix_nano: UnixNanos(*end),
        ..Span::default()
    };
    SpanBatch { spans: rows.iter().map(span).collect(), ..SpanBatch::default() }
}

/// Ids and times on the path of each root, as `root: id=time ..`.
#[track_caller]
fn check(rows: &[Row], expected: &[&str]) {
    let id = |row: usize| rows[row].0;
    let shown: Vec<String> = critical_paths(&batch(rows))
        .iter()
        .map(|path| {
            let spans: Vec<String> =
                path.spans.iter().map(|span| format!("{}={}", id(span.row), span.self_time.0)).collect();
            format!("{}: {}", id(path.root), spans.join(" "))
        })
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn the_path_goes_through_the_children_that_finished_last() {
    // The drawing of the module's page.
    let rows = [(1, 0, 10, 60), (2, 1, 15, 33), (3, 2, 20, 27), (4, 1, 17, 40), (5, 1, 38, 46)];
    check(&rows, &["1: 1=24 2=11 3=7 5=8"]);
}

#[test]
fn a_child_that_still_ran_when_the_next_one_began_was_not_waited_for() {
    check(&[(1, 0, 10, 110), (2, 1, 10, 51), (3, 1, 50, 110)], &["1: 1=40 3=60"]);
    check(&[(1, 0, 10, 110), (2, 1, 10, 50), (3, 1, 50, 110)], &["1: 1=0 2=40 3=60"]);
}

#[test]
fn a_child_counts_only_within_its_parent() {
    // Begins before, ends after, surrounds, lies beside: on another clock, or nobody waited.
    check(&[(1, 0, 10, 20), (2, 1, 5, 14)], &["1: 2=4 1=6"]);
    check(&[(1, 0, 10, 20), (2, 1, 17, 90)], &["1: 1=7 2=3"]);
    check(&[(1, 0, 10, 20), (2, 1, 5, 90)], &["1: 2=10 1=0"]);
    check(&[(1, 0, 10, 20), (2, 1, 20, 30), (3, 1, 1, 10)], &["1: 1=10"]);
    // A grandchild within the grandparent, but not within its parent.
    check(&[(1, 0, 10, 50), (2, 1, 20, 30), (3, 2, 25, 45)], &["1: 1=30 2=5 3=5"]);
}

#[test]
fn every_tree_of_a_trace_has_a_path_of_its_own() {
    check(
        &[(5, 0, 30, 40), (6, 5, 31, 35), (1, 99, 10, 20), (2, 1, 12, 15), (3, 98, 50, 50)],
        &["1: 1=7 2=3", "5: 5=6 6=4", "3: 3=0"],
    );
}

#[test]
fn parents_in_a_circle_are_entered_once_at_the_earliest() {
    check(&[(1, 3, 12, 18), (2, 1, 13, 17), (3, 2, 10, 20), (4, 2, 14, 15)], &["3: 3=4 1=2 2=3 4=1"]);
    check(&[(7, 7, 10, 20), (8, 7, 12, 15)], &["7: 7=7 8=3"]);
    // What hangs on a circle may begin before it.
    check(&[(4, 1, 5, 30), (1, 2, 10, 20), (2, 1, 10, 20)], &["1: 4=10 1=0"]);
}

#[test]
fn a_span_without_a_latency_counts_as_not_stored() {
    check(&[(1, 0, 10, 50), (2, 1, 40, 20), (3, 2, 25, 30), (4, 1, 0, 30)], &["1: 1=40", "3: 3=5"]);
}

#[test]
fn spans_of_no_length_are_on_no_path_but_their_own() {
    check(&[(1, 0, 10, 50), (2, 1, 50, 50), (3, 1, 30, 30), (4, 3, 20, 40)], &["1: 1=40"]);
    check(&[(1, 0, 10, 10), (2, 1, 10, 10)], &["1: 1=0"]);
    assert_eq!(critical_paths(&SpanBatch::default()), []);
}

#[test]
fn the_first_of_two_spans_with_one_id_has_the_children() {
    check(&[(1, 0, 10, 50), (2, 1, 12, 48), (2, 1, 11, 49), (3, 2, 20, 30)], &["1: 1=2 2=28 3=10"]);
}

#[test]
fn times_at_the_end_of_time_do_not_wrap() {
    let last = u64::MAX;
    check(&[(1, 0, 1, last), (2, 1, 2, last), (3, 2, last - 1, last)], &["1: 1=1 2=18446744073709551612 3=1"]);
}

#[test]
fn a_trace_of_100_000_spans_needs_no_recursion_however_it_is_shaped() {
    const SPANS: u64 = 100_000;
    let chain: Vec<Row> = (1..=SPANS).map(|no| (no, no - 1, no, 3 * SPANS - no)).collect();
    let fan: Vec<Row> =
        (1..=SPANS).map(|no| (no, u64::from(1 < no), if no == 1 { 1 } else { no }, SPANS + 1)).collect();
    let circle: Vec<Row> = (1..=SPANS).map(|no| (no, no % SPANS + 1, 1, 1 + no)).collect();
    for (rows, on_path) in [(chain, 100_000), (fan, 2), (circle, 100_000)] {
        let paths = critical_paths(&batch(&rows));
        assert_eq!((paths.len(), paths[0].spans.len()), (1, on_path));
    }
}

/// The same by definition: for every nanosecond of every root, the span that answers for it.
fn naive(rows: &[Row]) -> BTreeMap<(usize, usize), u64> {
    let usable = |row: &usize| 0 < rows[*row].2 && rows[*row].2 <= rows[*row].3;
    let order = |row: &usize| (rows[*row].2, rows[*row].0, *row);
    let mut by_start: Vec<usize> = (0..rows.len()).filter(usable).collect();
    by_start.sort_by_key(order);
    let parent = |row: usize| by_start.iter().copied().find(|other| rows[*other].0 == rows[row].1);
    let ancestors = |row: usize| std::iter::successors(parent(row), |row| parent(*row)).take(rows.len());
    // The first of those that are their own ancestors, in each circle.
    let entered = |row: usize| {
        let circle: Vec<usize> = ancestors(row).collect();
        circle.contains(&row) && circle.iter().all(|other| order(&row) <= order(other))
    };
    let mut times = BTreeMap::new();
    for root in by_start.iter().copied().filter(|row| parent(*row).is_none() || entered(*row)) {
        let _path = times.insert((root, root), 0);
        for instant in rows[root].2..rows[root].3 {
            let (mut at, mut low, mut high) = (root, rows[root].2, rows[root].3);
            let mut cursor = high;
            while let Some((child, child_low, child_high)) = by_start
                .iter()
                .filter(|row| parent(**row) == Some(at) && !entered(**row))
                .map(|row| (*row, rows[*row].2.max(low), rows[*row].3.min(high)))
                .filter(|(_, low, high)| low < high && *high <= cursor)
                .min_by_key(|(row, ..)| (std::cmp::Reverse(rows[*row].3), order(row)))
            {
                if child_high <= instant {
                    break;
                }
                if instant < child_low {
                    cursor = child_low;
                    continue;
                }
                (at, low, high, cursor) = (child, child_low, child_high, child_high);
                let _visited = times.entry((root, at)).or_insert(0);
            }
            *times.entry((root, at)).or_insert(0) += 1;
        }
    }
    times
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0..14_u64, 0..40_u64, prop_oneof![9 => 0..20_u64, 1 => Just(u64::MAX)]);
    proptest::collection::vec(row, 0..12).prop_map(|drawn| {
        let rows = drawn.iter().zip(1..).map(|((parent, start, length), id)| {
            (id, *parent, *start, if *length == u64::MAX { start / 2 } else { start + length })
        });
        rows.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_path_is_what_every_instant_says_and_adds_up_to_its_root(rows in rows()) {
        let paths = critical_paths(&batch(&rows));
        let mut times = BTreeMap::new();
        for path in &paths {
            let sum: u64 = path.spans.iter().map(|span| span.self_time.0).sum();
            prop_assert_eq!(sum, rows[path.root].3 - rows[path.root].2);
            for span in &path.spans {
                prop_assert!(times.insert((path.root, span.row), span.self_time.0).is_none());
            }
        }
        prop_assert_eq!(times, naive(&rows));
    }

    #[test]
    fn the_order_of_the_spans_does_not_matter(rows in rows(), seed in any::<u64>()) {
        let mut shuffled: Vec<(u64, Row)> =
            rows.iter().map(|row| (row.0.wrapping_mul(seed | 1).rotate_left(17), *row)).collect();
        shuffled.sort_unstable();
        let shuffled: Vec<Row> = shuffled.into_iter().map(|(_, row)| row).collect();
        let by_id = |rows: &[Row]| -> Vec<Vec<(u64, u64)>> {
            let paths = critical_paths(&batch(rows));
            let ids = |path: &CriticalPath| path.spans.iter().map(|span| (rows[span.row].0, span.self_time.0)).collect();
            paths.iter().map(ids).collect()
        };
        prop_assert_eq!(by_id(&shuffled), by_id(&rows));
    }
}
