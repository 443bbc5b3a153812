//! Buckets, quantiles, merges and windows, with the HdrHistogram crate as the oracle.

use super::*;
use crate::limits::FUTURE_SECS_MAX;
use crate::model::{DurationNanos, TimeRange, UnixNanos};
use hdrhistogram::serialization::Deserializer;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const HOUR: u64 = 3_600_000_000_000;
const DAY_SECS: u64 = 86_400;

fn oracle() -> hdrhistogram::Histogram<u64> {
    hdrhistogram::Histogram::new_with_bounds(1_000, HOUR, 3).expect("bounds are legal")
}

/// Latencies as they come: every octave alike, plus edges.
fn latency() -> impl Strategy<Value = u64> {
    let octaves = (0_u32..42).prop_flat_map(|bits| (1_u64 << bits)..=(2 << bits) - 1);
    prop_oneof![8 => octaves.prop_map(|ns| ns.min(HOUR)), 1 => 0..2_000_u64, 1 => Just(HOUR)]
}

fn histogram(latencies: &[u64]) -> Histogram {
    let mut histogram = Histogram::new();
    for ns in latencies {
        histogram.record(DurationNanos(*ns));
    }
    histogram
}

fn sparse(latencies: &[u64]) -> SparseHistogram {
    let mut sparse = SparseHistogram::default();
    for ns in latencies {
        sparse.record(DurationNanos(*ns));
    }
    sparse
}

#[track_caller]
fn check_edges(ns: u64) {
    let (bucket, hdr) = (Bucket::of(DurationNanos(ns)), oracle());
    assert_eq!(bucket.low().0, hdr.lowest_equivalent(ns), "low of {ns}");
    assert_eq!(bucket.high().0, hdr.highest_equivalent(ns), "high of {ns}");
}

#[test]
fn every_bucket_has_the_edges_of_hdr_histogram() {
    let hdr = oracle();
    assert_eq!(hdr.distinct_values(), Bucket::COUNT);
    for index in 0..Bucket::COUNT as u64 {
        let bucket = Bucket::from_index(index).expect("below COUNT");
        assert_eq!(u64::from(bucket.index()), index);
        for ns in [bucket.low(), bucket.high()] {
            assert_eq!(Bucket::of(ns), bucket);
            assert_eq!(bucket.low().0, hdr.lowest_equivalent(ns.0));
            assert_eq!(bucket.high().0, hdr.highest_equivalent(ns.0));
        }
        assert_eq!(Bucket::from_index(index + 1).map_or(1 << 42, |next| next.low().0), bucket.high().0 + 1);
    }
    assert_eq!(Bucket::from_index(Bucket::COUNT as u64), None);
    assert_eq!(usize::from(Bucket::TOP.index()) + 1, Bucket::COUNT);
}

#[test]
fn latencies_over_73_minutes_saturate_into_the_top_bucket_and_are_counted() {
    let longest = Bucket::TOP.high().0;
    let over = histogram(&[longest, longest + 1, u64::MAX]);
    assert_eq!(over.iter().collect::<Vec<_>>(), [(Bucket::TOP, 3)]);
    assert_eq!(over.saturated(), 2);
    assert_eq!(over.sum_ns(), u128::from(longest) * 2 + 1 + u128::from(u64::MAX));
    assert!(over.at(quantile(0.5)).expect("not empty").saturated);
    assert!(!histogram(&[longest]).at(quantile(0.5)).expect("not empty").saturated);
}

#[test]
fn bands_are_whole_buckets_four_to_an_octave() {
    let mut bands = BTreeMap::<Band, Range<u64>>::new();
    for bucket in (0..Bucket::COUNT as u64).filter_map(Bucket::from_index) {
        let band = bands.entry(bucket.band()).or_insert(bucket.low().0..0);
        assert!(band.end == 0 || band.end == bucket.low().0, "buckets of a band are neighbours");
        band.end = bucket.high().0 + 1;
    }
    assert_eq!(bands.len(), Band::COUNT);
    assert_eq!(Bucket::TOP.band(), Band::TOP);
    for octave in 11..42 {
        let of_octave = bands.values().filter(|band| 1 << octave <= band.start && band.end <= 2 << octave);
        assert_eq!(of_octave.count(), 4, "octave of 2^{octave} ns");
    }
}

#[test]
fn edges_of_the_prometheus_layout_are_bucket_edges() {
    for edge in (13..=36_u32).flat_map(|k| (0..8).map(move |i| (1_u64 << k) * (8 + i) / 8)) {
        assert_eq!(Bucket::of(DurationNanos(edge)).low().0, edge);
    }
}

fn quantile(q: f64) -> Quantile {
    Quantile::try_from(q).expect("in range")
}

#[test]
fn quantile_outside_0_to_1_is_refused_by_its_value() {
    for bad in [-0.1, 1.000_001, f64::NAN, f64::INFINITY, -f64::MIN_POSITIVE] {
        let refused = Quantile::try_from(bad).expect_err("out of range");
        assert!(refused.to_string().contains(&bad.to_string()), "{refused}");
    }
    assert_eq!(Quantile::try_from(0.0).map(Quantile::get), Ok(0.0));
    assert_eq!(Quantile::try_from(1.0).map(Quantile::get), Ok(1.0));
}

#[test]
fn rank_is_the_nearest_rank() {
    let cases = [
        (0.0, 7, 1),
        (0.5, 1, 1),
        (0.5, 2, 1),
        (0.5, 3, 2),
        (0.1, 10, 1),
        (0.3, 10, 3),
        (0.07, 100, 8),
        (0.99, 100, 99),
        (0.999, 1_000, 999),
        (0.99, 48_211, 47_729),
        (0.999_999, 1_000_000, 999_999),
        (0.999_999, 1 << 52, 4_503_595_123_770_869),
        (1.0, (1 << 53) - 1, (1 << 53) - 1),
        (1.0, u64::MAX, u64::MAX),
        (0.5, 0, 0),
    ];
    for (q, count, rank) in cases {
        assert_eq!(quantile(q).rank(count), rank, "q {q} of {count}");
    }
}

#[test]
fn empty_histogram_has_no_quantile() {
    let mut used = histogram(&[5_000]);
    used.clear();
    assert_eq!(used, Histogram::new());
    assert_eq!(used.at(quantile(0.5)), None);
}

#[test]
fn p99_of_20_and_950_ms_is_above_the_slow_one_and_in_its_bucket() {
    let slow = DurationNanos::from_millis(950);
    let answer = histogram(&[20_000_000, slow.0]).at(quantile(0.99)).expect("not empty");
    assert!(answer.value > slow && answer.value < DurationNanos(950_525_000));
    assert_eq!((answer.bucket, answer.rank), (Bucket::of(slow), 2));
    assert!(answer.relative_error_max < 0.001 && answer.value.0 - slow.0 <= answer.absolute_error_ns);
}

#[test]
fn spans_are_counted_at_their_start_and_at_most_an_hour_ahead() {
    let arrival = UnixNanos(1_795_463_000_000_000_000);
    let hour = DurationNanos::from_secs(FUTURE_SECS_MAX);
    assert_eq!(counting_instant(UnixNanos(17), arrival), UnixNanos(17));
    assert_eq!(counting_instant(arrival.saturating_add(hour), arrival), arrival.saturating_add(hour));
    assert_eq!(counting_instant(UnixNanos(u64::MAX), arrival), arrival.saturating_add(hour));
}

#[test]
fn a_slot_starts_where_the_one_before_ends() {
    for resolution in Resolution::ALL {
        let start = resolution.start_of(Slot(1_000));
        assert_eq!(start.0, resolution.secs() * 1_000_000_000_000);
        assert_eq!(resolution.slot_of(start), Slot(1_000));
        assert_eq!(resolution.slot_of(UnixNanos(start.0 - 1)), Slot(999));
        assert_eq!(Resolution::from_code(resolution as u8), Some(resolution));
    }
    assert_eq!(Resolution::from_code(5), None);
    assert_eq!(Resolution::Minute.coarsen(Slot(61), Resolution::Hour), Some(Slot(1)));
    assert_eq!(Resolution::Hour.coarsen(Slot(1), Resolution::Minute), None);
    assert_eq!(Resolution::Day.start_of(Slot(u64::MAX)), UnixNanos(u64::MAX));
}

/// The seconds of each piece must join up to the window.
#[track_caller]
fn check_cover(start_secs: u64, end_secs: u64) -> u64 {
    let nanos = |secs| UnixNanos(secs * 1_000_000_000);
    let pieces = cover(TimeRange { start: nanos(start_secs), end: nanos(end_secs) });
    let mut at = start_secs;
    let mut slots = 0;
    for (resolution, run) in &pieces {
        assert_eq!(run.start.0 * resolution.secs(), at, "{pieces:?}");
        assert!(run.start < run.end, "{pieces:?}");
        at = run.end.0 * resolution.secs();
        slots += run.end.0 - run.start.0;
    }
    assert_eq!(at, end_secs.max(start_secs), "{pieces:?}");
    slots
}

#[test]
fn windows_are_covered_by_the_coarsest_slots_that_fit() {
    assert_eq!(check_cover(0, 0), 0);
    assert_eq!(check_cover(70, 20), 0);
    assert_eq!(check_cover(20, 50), 3);
    assert_eq!(check_cover(50, 70), 2);
    assert_eq!(check_cover(0, 60), 1);
    assert_eq!(check_cover(3_590, 3_600 + DAY_SECS * 2 + 10), 1 + 23 + 1 + 1 + 1);
    let worst = check_cover(DAY_SECS * 20_000 + 10, DAY_SECS * 20_032 - 10);
    assert_eq!(worst, 84 + 30, "30 whole days with the worst edges");
}

#[test]
fn window_that_is_not_aligned_is_widened_to_every_slot_it_touches() {
    let window = TimeRange { start: UnixNanos(19_999_999_999), end: UnixNanos(30_000_000_001) };
    assert_eq!(cover(window), [(Resolution::TenSeconds, Slot(1)..Slot(4))]);
}

/// One slot of a few latencies, each with an exemplar in a block of its own number.
fn slot_latency(block: u32, latencies: &[u64]) -> SlotLatency {
    let mut slot = SlotLatency { histogram: sparse(latencies), exemplars: Vec::new() };
    slot.exemplars = (0..).zip(latencies).map(|(row, ns)| exemplar(block, row, *ns)).collect();
    slot.merge(&SlotLatency::default());
    slot
}

fn exemplar(block: u32, row: u32, ns: u64) -> Exemplar {
    Exemplar { latency: DurationNanos(ns), block, row }
}

fn merged(parts: &[SlotLatency]) -> SlotLatency {
    let mut whole = SlotLatency::default();
    for part in parts {
        whole.merge(part);
    }
    whole
}

/// Merges two neighbours again and again, wherever `choices` says, until one is left.
fn merged_as_tree(mut parts: Vec<SlotLatency>, choices: &[prop::sample::Index]) -> SlotLatency {
    for choice in choices.iter().cycle() {
        if parts.len() < 2 {
            break;
        }
        let left = choice.index(parts.len());
        let part = parts.swap_remove(left);
        let other = choice.index(parts.len());
        parts[other].merge(&part);
    }
    parts.pop().unwrap_or_default()
}

#[track_caller]
fn check_exemplars(slot: &SlotLatency) {
    assert!(slot.exemplars.is_sorted() && slot.exemplars.len() <= EXEMPLARS_PER_SLOT_MAX);
    assert!(slot.exemplars.iter().all(|one| slot.histogram.contains(one.bucket())));
    let places: BTreeSet<_> = slot.exemplars.iter().map(|one| (one.block, one.row)).collect();
    assert_eq!(places.len(), slot.exemplars.len(), "unique");
    for band in slot.exemplars.chunk_by(|a, b| a.bucket().band() == b.bucket().band()) {
        assert!(band.len() <= EXEMPLARS_PER_BAND_MAX);
    }
    let slowest = slot.histogram.entries().last().map(|entry| entry.0);
    assert_eq!(slot.exemplars.last().map(Exemplar::bucket), slowest, "the slowest is kept");
}

#[test]
fn merge_keeps_slowest_most_recent_and_one_pick_of_a_band() {
    let slots: Vec<_> = (0..50).map(|block| slot_latency(block, &[1_000_000 + u64::from(block % 7) * 600])).collect();
    let whole = merged(&slots);
    check_exemplars(&whole);
    assert_eq!(whole.exemplars.len(), 3);
    let blocks: Vec<_> = whole.exemplars.iter().map(|one| one.block).collect();
    assert!(blocks.contains(&48), "slowest: the last of 6, 13, .. 48: {blocks:?}");
    assert!(blocks.contains(&49), "most recent: {blocks:?}");
}

#[test]
fn exemplar_of_a_bucket_without_a_count_is_dropped() {
    let mut slot = slot_latency(1, &[1_000_000]);
    slot.merge(&SlotLatency { exemplars: vec![exemplar(2, 0, 9_000_000)], ..SlotLatency::default() });
    assert_eq!(slot, slot_latency(1, &[1_000_000]));
}

proptest! {
    #[test]
    fn bucket_edges_equal_hdr_histogram(ns in latency()) {
        check_edges(ns);
    }

    #[test]
    fn quantile_is_that_of_hdr_histogram_and_within_the_stated_error(
        mut all in prop::collection::vec(latency(), 1..400),
        micros in 1..=1_000_000_u32,
        random in f64::MIN_POSITIVE..=1.0,
    ) {
        let mut hdr = oracle();
        for ns in &all {
            hdr.record(*ns).expect("within an hour");
        }
        let ours = histogram(&all);
        all.sort_unstable();
        for q in [f64::from(micros) / 1e6, f64::from(micros.div_ceil(10_000)) / 100.0, random, 1.0] {
            let answer = ours.at(quantile(q)).expect("not empty");
            prop_assert_eq!(answer.value.0, hdr.value_at_quantile(q));
            let exact = all[usize::try_from(answer.rank).expect("small") - 1];
            let error = answer.value.0.checked_sub(exact).expect("never below the exact value");
            prop_assert!(error <= 511.max(exact / 1_000), "{} for {}", answer.value.0, exact);
            prop_assert!(error <= answer.absolute_error_ns);
            prop_assert!(error as f64 <= answer.relative_error_max * answer.value.0 as f64 * 1.000_000_1);
            prop_assert!(answer.bucket.low().0 <= exact && exact <= answer.bucket.high().0);
        }
    }

    /// Against the exact `ceil(micros * count / 10^6)`: up to 2^32 values only whole products leave room for noise.
    #[test]
    fn rank_is_exact_but_for_noise_and_then_one_off(
        micros in 0..=1_000_000_u64,
        count in (0_u32..53).prop_flat_map(|bits| (1_u64 << bits)..=(2 << bits)),
    ) {
        let rank = quantile(micros as f64 / 1e6).rank(count);
        let product = u128::from(micros) * u128::from(count);
        let exact = u64::try_from(product.div_ceil(1_000_000)).expect("at most count").max(1);
        if product % 1_000_000 == 0 || count >= 1 << 32 {
            prop_assert!(rank.abs_diff(exact) <= 1, "{} instead of {}", rank, exact);
        } else {
            prop_assert_eq!(rank, exact);
        }
    }

    #[test]
    fn histogram_of_parts_is_the_histogram_of_the_whole(
        parts in prop::collection::vec(prop::collection::vec(prop_oneof![9 => latency(), 1 => Just(u64::MAX)], 0..60), 0..6),
    ) {
        let whole = parts.concat();
        let (mut from_sparse, mut from_dense) = (Histogram::new(), Histogram::new());
        let mut merged = SparseHistogram::default();
        for part in &parts {
            from_sparse.add(&sparse(part));
            from_dense.add_all(&histogram(part));
            merged.merge(&sparse(part));
        }
        let recorded = histogram(&whole);
        prop_assert_eq!(recorded.count(), whole.len() as u64);
        prop_assert_eq!(recorded.sum_ns(), whole.iter().map(|ns| u128::from(*ns)).sum::<u128>());
        prop_assert_eq!(&from_sparse, &recorded);
        prop_assert_eq!(&from_dense, &recorded);
        prop_assert_eq!(&SparseHistogram::from(&recorded), &merged);
        prop_assert_eq!(&sparse(&whole), &merged);
        prop_assert_eq!(merged.count(), recorded.count());
    }

    #[test]
    fn export_is_read_by_hdr_histogram_with_equal_counts(all in prop::collection::vec((latency(), 1..1_000_000_u64), 0..200)) {
        let (mut ours, mut hdr) = (Histogram::new(), oracle());
        for (ns, n) in all {
            ours.record_n(DurationNanos(ns), n);
            hdr.record_n(ns, n).expect("within an hour");
        }
        let bytes = ours.to_hdr_v2_deflate().expect("counts are small");
        let read: hdrhistogram::Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).expect("V2");
        prop_assert_eq!(&read, &hdr);
        prop_assert_eq!((read.low(), read.sigfig(), read.len()), (1_000, 3, ours.count()));
    }

    #[test]
    fn merge_trees_of_any_shape_choose_the_same_exemplars(
        slots in prop::collection::vec(prop::collection::vec(1_000_000..4_000_000_u64, 0..8), 1..20),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 20),
    ) {
        let parts: Vec<_> = (0..).zip(&slots).map(|(block, latencies)| slot_latency(block, latencies)).collect();
        let whole = merged(&parts);
        check_exemplars(&whole);
        prop_assert_eq!(&merged_as_tree(parts, &choices), &whole);
    }

    #[test]
    fn cover_partitions_the_window_in_at_most_84_slots_and_its_days(
        start in 0..DAY_SECS / 10 * 400,
        len in 1..=DAY_SECS / 10 * 365,
    ) {
        let slots = check_cover(start * 10, (start + len) * 10);
        prop_assert!(slots <= 84 + len * 10 / DAY_SECS, "{} slots", slots);
        if len * 10 <= 66 * DAY_SECS {
            prop_assert!(slots <= 150, "{} slots", slots);
        }
    }
}
