//! What is left when spans leave: roll-ups, pinned traces, and nothing that dangles.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::latency::{Exemplar, SeriesWanted, Take};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// Roll-ups stay for a year.
fn open_with_rollups(dir: &Path) -> Store {
    open_at(dir, |config| config.rollup_retention = Some(DurationNanos::from_secs(365 * DAY))).unwrap()
}

/// Traces of three spans, of two services, a second apart; the last span of each third trace comes with `late`.
fn split(n: u64, first_trace: u128, late: bool) -> Vec<Sample> {
    let span = |no: u64, child: u64| Sample {
        service: if child == 1 { "cart" } else { "checkout" },
        trace: first_trace + u128::from(no),
        span: no * 3 + child + 1,
        start: NOW + no * SECOND + child,
        duration: (no * no + 10 - child) * 1_000_000,
    };
    let all = (0..n).flat_map(|no| (0..3).map(move |child| (no, child)));
    all.filter(|(no, child)| (no % 3 == 0 && *child == 2) == late).map(|(no, child)| span(no, child)).collect()
}

fn sealed_with(store: &Store, sequence: u64, samples: &[Sample]) -> Arc<Partition> {
    let partition = store.start_partition().unwrap();
    for (no, half) in (0..).zip(samples.chunks(samples.len().div_ceil(2).max(1))) {
        push(store, sequence * 10 + no, half);
        let _done = checkpoint(store, &partition);
    }
    let _manifest = store.seal(&partition).unwrap();
    partition
}

fn at(store: &Store, secs: u64) {
    store.clock.set(UnixNanos(NOW + secs * SECOND));
}

/// Counts of a series per slot of a resolution.
fn counts(open: &OpenPartition, resolution: Resolution) -> BTreeMap<(String, Slot), (u64, u128)> {
    let tally = seal::tally_rollups(open, resolution).unwrap();
    tally.into_iter().map(|((key, slot), count)| ((key.service.to_string(), slot), count)).collect()
}

/// Every exemplar of every table with its trace, which is read where it says.
fn exemplars(open: &OpenPartition) -> Vec<(Exemplar, TraceId)> {
    let mut found = Vec::new();
    for window in Resolution::ALL.into_iter().flat_map(|resolution| open.rollup_windows(resolution)) {
        let read = open.rollup(window).read(
            &SeriesWanted::ALL,
            Slot::ALL,
            Take::Exemplars(&mut |_, _, latency| {
                found.extend(latency.exemplars.iter().copied());
            }),
        );
        read.unwrap();
    }
    let trace = |one: &Exemplar| open.spans(u64::from(one.block), &[one.row]).unwrap().spans[0].trace_id;
    found.into_iter().map(|one| (one, trace(&one))).collect()
}

fn spans_per_trace(store: &Store) -> BTreeMap<TraceId, usize> {
    traces(store)
}

/// Every exemplar of the roll-ups leads to a trace with all of its three spans.
#[track_caller]
fn check_whole(store: &Store) -> BTreeSet<TraceId> {
    let stored = spans_per_trace(store);
    let mut shown = BTreeSet::new();
    for partition in store.sealed() {
        let open = store.open_partition(&partition).unwrap();
        for (exemplar, trace) in exemplars(&open) {
            assert_eq!(stored.get(&trace), Some(&3), "{} {exemplar:?} {trace}", partition.name());
            let _new = shown.insert(trace);
        }
    }
    shown
}

#[track_caller]
pub(super) fn check_sound(dir: &Path) {
    let config = open_at(tempfile::tempdir().unwrap().path(), |_| {}).unwrap().config;
    let config = StoreConfig { data_dir: dir.to_path_buf(), ..config };
    for idle in IdleDir::lock(dir).unwrap().partitions() {
        let report = idle.check(&config, &mut |_| {});
        assert_eq!(report.faults, [""; 0], "{}", idle.name());
    }
}

#[test]
fn spans_leave_their_numbers_stay_and_what_is_shown_is_whole_across_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_rollups(dir.path());
    let (early, late) = (split(200, 1, false), split(200, 1, true));
    let first = sealed_with(&store, 1, &early);
    let second = sealed_with(&store, 2, &late);
    drop(store.start_partition().unwrap());
    let before = store.open_partition(&first).unwrap();
    let expected = counts(&before, Resolution::Minute);
    let day = counts(&before, Resolution::Day);
    drop(before);
    at(&store, 2 * HOUR);
    assert_eq!(store.enforce_retention().unwrap(), [first.name(), second.name()]);
    let shown = check_whole(&store);
    let stored = spans_per_trace(&store);
    assert!(!shown.is_empty() && shown.len() <= 4 * crate::limits::LONG_TERM_EXEMPLARS_MAX, "{}", shown.len());
    let is_split = |trace: &TraceId| (trace.low_u64() - 1).is_multiple_of(3);
    let others: Vec<&TraceId> = stored.keys().filter(|trace| !shown.contains(*trace)).collect();
    assert!(others.iter().all(|trace| is_split(trace)), "what the other one held when it was live: {others:?}");
    assert_eq!(store.partitions().len(), 3, "each in its place");
    let left = store.partitions().remove(0);
    let manifest = left.manifest().unwrap();
    assert!(manifest.is_remnant() && left.generation() == 2 && manifest.finest == Some(Resolution::Minute));
    let counted: u64 = manifest.left.iter().map(|count| count.spans).sum();
    assert_eq!(counted, early.len() as u64);
    let open = store.open_partition(&left).unwrap();
    assert_eq!(counts(&open, Resolution::Minute), expected);
    assert_eq!(counts(&open, Resolution::Day), day);
    assert!(open.rollup_windows(Resolution::TenSeconds).is_empty());
    drop(open);
    assert_eq!(store.enforce_retention().unwrap(), [""; 0], "there is nothing to be done a second time");
    assert_eq!(store.partitions()[0].generation(), 2);
    drop((store, left, first, second));
    check_sound(dir.path());
    assert_eq!(check_whole(&open_with_rollups(dir.path())), shown, "after a restart");
}

#[test]
fn a_late_span_of_a_pinned_trace_stays_with_it_when_its_own_partition_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_rollups(dir.path());
    // The last span of every trace comes late, and those that last long are of other traces than before.
    let all = [split(200, 1, false), split(200, 1, true)].concat();
    let (mut late, early): (Vec<Sample>, Vec<Sample>) =
        all.into_iter().partition(|sample| sample.span.is_multiple_of(3));
    for sample in &mut late {
        sample.duration = 41_000_000_000 - sample.duration;
    }
    let _first = sealed_with(&store, 1, &early);
    at(&store, 2 * HOUR);
    assert_eq!(store.enforce_retention().unwrap().len(), 1);
    let _second = sealed_with(&store, 2, &late);
    drop(store.start_partition().unwrap());
    let shown_by_first = {
        let open = store.open_partition(&store.partitions()[0]).unwrap();
        exemplars(&open).into_iter().map(|(_, trace)| trace).collect::<BTreeSet<_>>()
    };
    assert_eq!(store.enforce_retention().unwrap().len(), 1);
    let stored = spans_per_trace(&store);
    for trace in &shown_by_first {
        assert_eq!(stored[trace], 3, "{trace}");
    }
}

/// Any span of a live partition may be shown, not only one that is pinned later.
#[test]
fn what_a_live_partition_shows_is_whole_although_the_rest_of_it_is_out_of_retention() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_rollups(dir.path());
    let first = sealed_with(&store, 1, &split(100, 1, false));
    let mut late = split(100, 1, true);
    late.push(Sample { service: "cart", trace: 9_000, span: 1, start: NOW + 2 * HOUR * SECOND, duration: 1 });
    let _second = sealed_with(&store, 2, &late[..17]);
    let _third = sealed_with(&store, 3, &late[17..]);
    push(&store, 99, &[Sample { span: 700, ..split(100, 1, false)[3] }]);
    at(&store, 2 * HOUR + 1_800);
    assert_eq!(store.enforce_retention().unwrap().len(), 2, "the third one is live");
    let stored = spans_per_trace(&store);
    for sample in &late[17..late.len() - 1] {
        assert_eq!(stored[&TraceId(sample.trace.to_be_bytes())], 3, "{}", sample.trace);
    }
    let in_head = TraceId(split(100, 1, false)[3].trace.to_be_bytes());
    assert!(3 <= stored[&in_head], "with what is in memory");
    assert!(stored.len() < 100, "the others leave: {}", first.name());
}

#[test]
fn roll_ups_thin_out_with_age_and_go_in_the_end_but_for_what_is_pinned_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_rollups(dir.path());
    let _only = sealed_with(&store, 1, &[split(100, 1, false), split(100, 1, true)].concat());
    drop(store.start_partition().unwrap());
    at(&store, 0);
    let by_hand = TraceId(50_u128.to_be_bytes());
    let _before = store.pin(by_hand, "look at this".to_owned(), Some(UnixNanos(NOW + 500 * DAY * SECOND))).unwrap();
    for (days, finest) in [(1, Some(60)), (31, Some(600)), (91, Some(3_600)), (364, Some(3_600)), (366, None)] {
        at(&store, days * DAY);
        let _dropped = store.enforce_retention().unwrap();
        let left = store.partitions().remove(0);
        let manifest = left.manifest().unwrap();
        assert_eq!(manifest.finest.map(Resolution::secs), finest, "after {days} days");
        assert_eq!(spans_per_trace(&store)[&by_hand], 3, "after {days} days");
        let open = store.open_partition(&left).unwrap();
        let total: u64 = counts(&open, Resolution::Hour).values().map(|(count, _)| count).sum();
        assert_eq!(total, if finest.is_some() { 300 } else { 0 }, "after {days} days");
        assert!(finest.is_some() || exemplars(&open).is_empty());
    }
    assert_eq!(spans_per_trace(&store).len(), 1);
    let generation = store.partitions()[0].generation();
    let _dropped = store.enforce_retention().unwrap();
    assert_eq!(store.partitions()[0].generation(), generation, "it is not written anew each time");
    at(&store, 501 * DAY);
    assert_eq!(store.enforce_retention().unwrap().len(), 1, "the pin has expired");
    assert!(spans_per_trace(&store).is_empty() && store.pins().is_empty());
}

#[test]
fn a_pin_that_is_taken_back_lets_the_trace_leave() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let _only = sealed_with(&store, 1, &[split(100, 1, false), split(100, 1, true)].concat());
    let by_hand = TraceId(50_u128.to_be_bytes());
    let _before = store.pin(by_hand, String::new(), None).unwrap();
    at(&store, 2 * HOUR);
    let _dropped = store.enforce_retention().unwrap();
    assert_eq!(spans_per_trace(&store), BTreeMap::from([(by_hand, 3)]));
    assert!(store.unpin(by_hand).unwrap().is_some());
    assert_eq!(store.enforce_retention().unwrap().len(), 1);
    assert!(spans_per_trace(&store).is_empty() && store.partitions().is_empty());
}

/// The spans of one service left before: a number of the other one must not lead to what is left of their traces.
#[test]
fn what_is_left_of_a_service_that_stayed_longer_shows_no_trace_that_lost_spans_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_rollups(dir.path());
    let first = sealed_with(&store, 1, &[split(100, 1, false), split(100, 1, true)].concat());
    drop(store.start_partition().unwrap());
    at(&store, 2 * HOUR);
    let cart = BTreeSet::from(["cart".to_owned()]);
    let plan = remnant::Plan { staying: &cart, finest: None, only_if_smaller: false };
    assert_eq!(store.rewrite(&[first], &plan).unwrap(), remnant::Rewritten::Replaced);
    assert!(spans_per_trace(&store).values().all(|spans| *spans == 1), "of each the span of cart is there");
    let plan = remnant::Plan { staying: &BTreeSet::new(), finest: Some(Resolution::Minute), only_if_smaller: false };
    let second = store.partitions().remove(0);
    assert_eq!(store.rewrite(&[second], &plan).unwrap(), remnant::Rewritten::Replaced);
    assert!(check_whole(&store).is_empty());
    let open = store.open_partition(&store.partitions()[0]).unwrap();
    assert_eq!(counts(&open, Resolution::Day).values().map(|(count, _)| count).sum::<u64>(), 100, "all are counted");
}

/// A partition let spans go without roll-ups; then the setting was raised. What came next was to have roll-ups again, but
/// spans of pinned traces were in none of them: it failed its verification, and the partition went with the pinned traces.
#[test]
fn a_pinned_trace_survives_when_roll_ups_are_to_stay_longer_than_before() {
    let dir = tempfile::tempdir().unwrap();
    let keep = |config: &mut StoreConfig| {
        config.keep = vec![KeepRule { service: "cart".to_owned(), keep: DurationNanos::from_secs(10 * HOUR) }];
    };
    let store = open_at(dir.path(), keep).unwrap();
    let _only = sealed_with(&store, 1, &[split(100, 1, false), split(100, 1, true)].concat());
    drop(store.start_partition().unwrap());
    let by_hand = TraceId(50_u128.to_be_bytes());
    let _before = store.pin(by_hand, String::new(), None).unwrap();
    at(&store, 2 * HOUR);
    assert_eq!(store.enforce_retention().unwrap(), [""; 0], "cart stays");
    assert_eq!(spans_per_trace(&store).values().sum::<usize>(), 102);
    drop(store);
    let store = open_at(dir.path(), |config| {
        keep(config);
        config.rollup_retention = Some(DurationNanos::from_secs(365 * DAY));
    });
    let store = store.unwrap();
    at(&store, 11 * HOUR);
    assert_eq!(store.enforce_retention().unwrap().len(), 1);
    assert_eq!(spans_per_trace(&store), BTreeMap::from([(by_hand, 3)]));
}

/// Nobody asks it about all of its traces, which are those within a minute, but about those that it shows in the end.
#[test]
fn what_a_live_partition_half_an_hour_away_shows_in_the_end_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_rollups(dir.path());
    let first = sealed_with(&store, 1, &split(100, 1, false));
    let mut late = split(100, 1, true);
    for sample in &mut late {
        sample.start += HOUR / 2 * SECOND;
        // The slowest of these are of other traces than the slowest before.
        sample.duration = 20_000_000_000 - sample.duration;
    }
    let second = sealed_with(&store, 2, &late);
    drop(store.start_partition().unwrap());
    at(&store, HOUR + 200);
    assert_eq!(store.enforce_retention().unwrap(), [first.name()], "the second one is live");
    at(&store, 2 * HOUR);
    assert_eq!(store.enforce_retention().unwrap(), [second.name()]);
    let shown = check_whole(&store);
    let of_second = {
        let open = store.open_partition(&store.partitions()[1]).unwrap();
        exemplars(&open).into_iter().map(|(_, trace)| trace).collect::<BTreeSet<_>>()
    };
    assert!(!of_second.is_empty() && of_second.is_subset(&shown), "{of_second:?}");
}

/// The trace was pinned while what is left of its partition was being written, without it.
#[test]
fn a_trace_that_is_pinned_while_its_partition_is_let_go_is_there_when_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_rollups(dir.path());
    let partition = sealed_with(&store, 1, &[split(100, 1, false), split(100, 1, true)].concat());
    let old = [partition];
    let plan = remnant::Plan { staying: &BTreeSet::new(), finest: None, only_if_smaller: false };
    let draft = store.draft(&old, &plan).unwrap();
    let stranger = TraceId(5_000_u128.to_be_bytes());
    let _before = store.pin(stranger, String::new(), None).unwrap();
    let by_hand = TraceId(50_u128.to_be_bytes());
    let _before = store.pin(by_hand, String::new(), None).unwrap();
    assert_eq!(store.put_in_place(&old, &draft).unwrap(), remnant::Rewritten::Postponed);
    assert_eq!(spans_per_trace(&store).len(), 100);
    assert_eq!(store.rewrite(&old, &plan).unwrap(), remnant::Rewritten::Replaced);
    assert_eq!(spans_per_trace(&store), BTreeMap::from([(by_hand, 3)]));
}

/// Partitions of an hour each, all let go.
fn hours(dir: &Path, n: u64) -> Store {
    let store = open_with_rollups(dir);
    for no in 0..n {
        let mut samples =
            [split(40, u128::from(no) * 1_000 + 1, false), split(40, u128::from(no) * 1_000 + 1, true)].concat();
        for sample in &mut samples {
            sample.start -= (n - no) * HOUR * SECOND;
        }
        let _partition = sealed_with(&store, no + 1, &samples);
    }
    drop(store.start_partition().unwrap());
    at(&store, 2 * HOUR);
    store
}

#[test]
fn sixteen_remnants_become_one_that_counts_and_shows_what_they_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = hours(dir.path(), 17);
    let total = |store: &Store| -> u64 {
        let open = |partition| store.open_partition(partition).unwrap();
        store.sealed().iter().flat_map(|one| counts(&open(one), Resolution::Hour).into_values()).map(|(n, _)| n).sum()
    };
    assert_eq!(store.enforce_retention().unwrap().len(), 17);
    let names: Vec<String> = store.partitions().iter().map(|partition| partition.name()).collect();
    assert!(names.len() == 3 && names[0].ends_with("-000001-000016-2") && names[1].ends_with("-000017-2"), "{names:?}");
    assert_eq!(total(&store), 17 * 120);
    let shown = check_whole(&store);
    let hours: BTreeSet<u64> = shown.iter().map(|trace| trace.low_u64() / 1_000).collect();
    assert_eq!(hours.len(), 17, "of each hour something is shown");
    assert_eq!(store.start_partition().unwrap().seq(), 19);
    drop(store);
    check_sound(dir.path());
    let store = open_with_rollups(dir.path());
    assert_eq!((total(&store), check_whole(&store)), (17 * 120, shown));
    assert_eq!(store.partitions().len(), 4);
}

#[test]
fn the_next_partition_is_numbered_behind_everything_that_a_merged_one_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_with_rollups(dir.path());
    store.config.remnants_merged_at_once = 2;
    for no in 0..2_u64 {
        let _partition = sealed_with(&store, no + 1, &split(40, u128::from(no) * 1_000 + 1, false));
    }
    at(&store, 2 * HOUR);
    assert_eq!(store.enforce_retention().unwrap().len(), 2);
    assert_eq!(store.partitions().len(), 1);
    assert_eq!(store.start_partition().unwrap().seq(), 3);
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// The process dies between any two steps: the start after it finds each state that the disk can be in.
#[test]
fn rel_15_a_crash_between_any_two_steps_loses_nothing_and_counts_nothing_twice() {
    let (dir, before, after) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open_at(dir.path(), |config| {
        config.rollup_retention = Some(DurationNanos::from_secs(365 * DAY));
        config.remnants_merged_at_once = 17;
    });
    drop(store);
    let store = hours(dir.path(), 3);
    let _dropped = store.enforce_retention().unwrap();
    let partitions = dir.path().join("partitions");
    copy(&partitions, &before.path().join("p"));
    let mut store = store;
    store.config.remnants_merged_at_once = 3;
    let _dropped = store.enforce_retention().unwrap();
    let merged = store.partitions()[0].name();
    assert!(merged.ends_with("-000001-000003-2"), "{merged}");
    copy(&partitions, &after.path().join("p"));
    let expected = spans_per_trace(&store);
    drop(store);
    let old = files::entry_names(&before.path().join("p"));
    let old: Vec<&String> = old.iter().filter(|name| name.ends_with("-2")).collect();
    let state = |with_merged: Option<&str>, inputs: &[&String], dropping: Option<&String>| {
        std::fs::remove_dir_all(&partitions).unwrap();
        copy(&before.path().join("p"), &partitions);
        for name in old.iter().filter(|name| !inputs.contains(name)) {
            std::fs::remove_dir_all(partitions.join(name)).unwrap();
        }
        if let Some(name) = dropping {
            copy(&before.path().join("p").join(name), &partitions.join(format!("{name}.drop")));
        }
        if let Some(name) = with_merged {
            copy(&after.path().join("p").join(&merged), &partitions.join(name));
        }
    };
    let building = format!("{merged}.building");
    let half_built = |file: &str| std::fs::remove_file(partitions.join(&building).join(file)).unwrap();
    let check = |is_merged: bool, what: &str| {
        let store = open_with_rollups(dir.path());
        assert_eq!(store.sealed().len(), if is_merged { 1 } else { 3 }, "{what}");
        let open = |one| store.open_partition(one).unwrap();
        let counted = store
            .sealed()
            .iter()
            .map(|one| counts(&open(one), Resolution::Day).values().map(|(n, _)| n).sum::<u64>())
            .sum::<u64>();
        assert_eq!(counted, 3 * 120, "{what}");
        assert!(spans_per_trace(&store).len() >= expected.len(), "{what}");
        let _shown = check_whole(&store);
        assert!(files::entry_names(&partitions).iter().all(|name| !name.contains('.')), "{what}: nothing is left over");
    };
    state(None, &old, None);
    check(false, "before");
    for file in ["SEALED", "TRACES", "BLOCKS"] {
        state(Some(&building), &old, None);
        half_built(file);
        check(false, "while it is built");
    }
    state(Some(&building), &old, None);
    check(false, "built, not renamed");
    state(Some(&merged), &old, None);
    check(true, "renamed, all inputs are there");
    state(Some(&merged), &old[1..], Some(old[0]));
    check(true, "one is on its way out");
    state(Some(&merged), &old[2..], None);
    check(true, "one is left");
    state(Some(&merged), &[], None);
    check(true, "after");
}

#[test]
fn a_disk_budget_takes_spans_first_and_roll_ups_when_they_are_more_than_their_share() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_with_rollups(dir.path());
    let samples = |no: u128| [split(3_000, no * 10_000 + 1, false), split(3_000, no * 10_000 + 1, true)].concat();
    for no in 0..4_u64 {
        let _partition = sealed_with(&store, no + 1, &samples(u128::from(no)));
    }
    drop(store.start_partition().unwrap());
    let of_active = files::tree_bytes(store.partitions().last().unwrap().dir());
    let whole = store.disk_bytes();
    store.config.disk_bytes_max = whole - 1;
    assert_eq!(store.enforce_retention().unwrap().len(), 1, "one that lets its spans go is enough");
    let live =
        |store: &Store| store.partitions().iter().filter_map(|one| one.manifest()).filter(|one| one.is_live()).count();
    assert_eq!((live(&store), store.partitions().len()), (3, 5));
    assert!(store.disk_bytes() <= store.config.disk_bytes_max);
    let counted = |store: &Store| {
        let manifests = store.partitions().into_iter().filter_map(|partition| partition.manifest());
        manifests.flat_map(|one| one.counted_services().map(|count| count.spans).collect::<Vec<_>>()).sum::<u64>()
    };
    assert_eq!(counted(&store), 4 * 9_000, "all are still counted");
    let remnant = store
        .partitions()
        .into_iter()
        .find(|one| one.manifest().is_some_and(|manifest| manifest.is_remnant()))
        .unwrap();
    let of_remnant = files::tree_bytes(remnant.dir());
    store.config.disk_bytes_max = of_active + of_remnant * 3 + 4_096;
    let _dropped = store.enforce_retention().unwrap();
    let remnants =
        || store.partitions().into_iter().filter(|one| one.manifest().is_some_and(|manifest| !manifest.is_live()));
    let bytes: u64 = remnants().map(|one| files::tree_bytes(one.dir())).sum();
    assert!(bytes <= store.config.disk_bytes_max / 4, "{bytes} of {}", store.config.disk_bytes_max);
    assert_eq!(live(&store), 0);
}

#[test]
fn a_damaged_partition_does_not_stay_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_rollups(dir.path());
    let partition = sealed_with(&store, 1, &split(2_000, 1, false));
    drop(store.start_partition().unwrap());
    let blocks: PathBuf = partition.dir().join("BLOCKS");
    let mut bytes = std::fs::read(&blocks).unwrap();
    for at in (64..bytes.len() / 2).step_by(997) {
        bytes[at] ^= 0x55;
    }
    std::fs::write(&blocks, bytes).unwrap();
    at(&store, 4 * HOUR);
    assert_eq!(store.enforce_retention().unwrap(), [partition.name()]);
    assert_eq!(store.partitions().len(), 1);
}

#[test]
fn a_disk_budget_of_nothing_still_keeps_the_active_partition() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), |config| config.disk_bytes_max = 1).unwrap();
    let sealed = store.start_partition().unwrap();
    push(&store, 1, &samples(20, 1));
    let _done = checkpoint(&store, &sealed);
    let _manifest = store.seal(&sealed).unwrap();
    let _active = store.start_partition().unwrap();
    assert_eq!(store.enforce_retention().unwrap(), [sealed.name()]);
    assert_eq!(store.partitions().len(), 1);
}
