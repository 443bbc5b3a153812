mod calls;
mod large;
mod remnants;
mod rollups;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::latency::{Resolution, SeriesWanted, Slot, Take};
use crate::model::samples::{Sample, batch};
use crate::model::{TraceId, UnixNanos};

/// 2026-11-23T10:00:00Z
const NOW: u64 = 1_795_428_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn open_at(dir: &Path, change: impl FnOnce(&mut StoreConfig)) -> Result<Store, StoreError> {
    let mut config = StoreConfig {
        open_partitions_max: 2,
        retention: Some(DurationNanos::from_secs(3_600)),
        rollup_retention: Some(DurationNanos::from_secs(3_600)),
        verify_at_start_bytes_max: 64 << 20,
        ..StoreConfig::keeping_all(dir)
    };
    change(&mut config);
    Store::open(config, Clock::manual(UnixNanos(NOW)), Arc::new(Counters::default()))
}

fn open(dir: &Path) -> Store {
    open_at(dir, |_| {}).unwrap()
}

/// `n` spans of two services, one trace each, a second apart, from `NOW` on.
fn samples(n: u64, first_trace: u128) -> Vec<Sample> {
    let sample = |no: u64| Sample {
        service: if no.is_multiple_of(3) { "cart" } else { "checkout" },
        trace: first_trace + u128::from(no),
        span: no + 1,
        start: NOW + no * SECOND,
        duration: (no + 1) * 1_000_000,
    };
    (0..n).map(sample).collect()
}

fn push(store: &Store, sequence: u64, samples: &[Sample]) {
    store.push([(sequence, UnixNanos(NOW + 100 * SECOND), Arc::new(batch(samples)))]);
}

/// Writes everything in the head as a block of `partition`.
fn checkpoint(store: &Store, partition: &Arc<Partition>) -> Checkpointed {
    let frozen = store.freeze(partition).expect("the head holds spans");
    store.checkpoint(&frozen).unwrap()
}

/// How often each trace id is found, in heads and blocks together.
fn traces(store: &Store) -> BTreeMap<TraceId, usize> {
    let snapshot = store.snapshot();
    let mut found = BTreeMap::new();
    let mut add = |batch: &SpanBatch| batch.spans.iter().for_each(|span| *found.entry(span.trace_id).or_default() += 1);
    snapshot.heads.iter().flat_map(|head| &head.batches).for_each(|batch| add(batch));
    for (partition, visible) in &snapshot.partitions {
        let open = store.open_partition(partition).unwrap();
        for (block_no, block) in open.blocks(*visible) {
            let rows: Vec<u32> = (0..block.expect("the header is whole").summary().spans).collect();
            add(&open.spans(block_no, &rows).unwrap());
        }
    }
    found
}

/// Spans counted by the slots of all blocks, per slot.
fn counted(open: &OpenPartition) -> BTreeMap<Slot, u64> {
    let mut counts = BTreeMap::new();
    for (block_no, _) in open.blocks(u64::MAX) {
        let keys = open.series(block_no).unwrap();
        open.block_slots(
            block_no,
            &SeriesWanted::ALL,
            Slot::ALL,
            Take::Histograms(&mut |series, slot, latency| {
                if keys[series as usize].family.is_none() {
                    *counts.entry(slot).or_default() += latency.histogram.count();
                }
            }),
        )
        .unwrap();
    }
    counts
}

#[test]
fn a_span_is_in_the_head_or_in_a_block_and_never_in_both() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    push(&store, 1, &samples(50, 1));
    let all_once: BTreeMap<_, _> = (1..=50_u128).map(|trace| (TraceId(trace.to_be_bytes()), 1)).collect();
    assert_eq!(traces(&store), all_once, "in the head");
    let frozen = store.freeze(&partition).unwrap();
    assert_eq!(traces(&store), all_once, "frozen");
    let _done = store.checkpoint(&frozen).unwrap();
    assert_eq!(traces(&store), all_once, "in a block");
    assert_eq!(store.spans_in_memory(), 0);
    drop((store, frozen, partition));
    assert_eq!(traces(&open(dir.path())), all_once, "after a restart");
}

#[test]
fn sd_29_a_span_that_the_head_holds_twice_is_stored_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    push(&store, 1, &samples(10, 1));
    let mut again = samples(4, 1);
    again[3].duration += 1;
    push(&store, 2, &again);
    let done = checkpoint(&store, &partition);
    assert_eq!((done.spans, done.duplicates, done.conflicting), (10, 4, 1));
    let open = store.open_partition(&partition).unwrap();
    assert_eq!(counted(&open).values().sum::<u64>(), 10);
    assert_eq!(open.covered_sequence(), 2);
}

/// A re-batched copy that met the partition in a later block was stored and counted a second time.
#[test]
fn sd_29_a_span_that_an_earlier_block_holds_is_stored_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    push(&store, 1, &samples(20, 1));
    let _first = checkpoint(&store, &partition);
    let mut again = samples(25, 1);
    again[3].duration += 1;
    push(&store, 2, &again);
    let done = checkpoint(&store, &partition);
    assert_eq!((done.spans, done.duplicates, done.conflicting), (5, 20, 1));
    push(&store, 3, &samples(25, 1));
    let done = checkpoint(&store, &partition);
    assert_eq!((done.spans, done.duplicates, done.conflicting), (0, 25, 0));
    let open = store.open_partition(&partition).unwrap();
    assert_eq!((open.covered_sequence(), open.block_numbers()), (3, 1..=2), "nothing new is no block");
    assert_eq!(counted(&open).values().sum::<u64>(), 25);
    drop(open);
    assert_eq!(store.seal(&partition).unwrap().spans, 25);
    assert!(traces(&store).values().all(|times| *times == 1));
}

#[test]
fn sd_29_the_key_of_a_span_includes_its_kind_and_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    push(&store, 1, &samples(3, 1));
    let _first = checkpoint(&store, &partition);
    let mut other = batch(&samples(3, 1));
    other.spans[0].kind = 3;
    other.spans[1].kind = 99;
    other.spans[2].start_time_unix_nano.0 += 1;
    store.push([(2, UnixNanos(NOW + 100 * SECOND), Arc::new(other.clone()))]);
    assert_eq!(checkpoint(&store, &partition).spans, 3, "three other spans");
    store.push([(3, UnixNanos(NOW + 100 * SECOND), Arc::new(other))]);
    let done = checkpoint(&store, &partition);
    assert_eq!((done.spans, done.duplicates, done.conflicting), (0, 3, 0), "and known by just these keys");
}

#[test]
fn a_sealed_partition_names_the_blocks_of_a_trace_without_being_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    for block in 0..3 {
        let mut samples = samples(40, u128::from(block) * 100 + 1);
        samples.push(Sample { service: "cart", trace: 7_777, span: block + 1, start: NOW, duration: 1 });
        push(&store, block + 1, &samples);
        let _done = checkpoint(&store, &partition);
    }
    let blocks = |trace: u128| partition.blocks_of_trace(TraceId(trace.to_be_bytes()));
    assert_eq!(blocks(1), TraceBlocks::Unknown, "not before it is sealed");
    let _manifest = store.seal(&partition).unwrap();
    assert_eq!(blocks(7_777), TraceBlocks::Known(vec![1, 2, 3]));
    assert_eq!(blocks(101), TraceBlocks::Known(vec![2]));
    assert_eq!(blocks(99_999), TraceBlocks::Known(Vec::new()));
    std::fs::write(partition.dir().join("TRACES"), "SPTR").unwrap();
    assert_eq!(blocks(99_999), TraceBlocks::Unknown, "a damaged index says nothing, rather than no");
}

/// sled drops what it cannot read and says nothing. A large database is not read in full before the start; until it was,
/// answers say so, and what is then found missing comes back from the journal.
#[test]
fn g_3_a_large_database_that_lost_a_page_is_found_out_after_the_start_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let large = |config: &mut StoreConfig| config.verify_at_start_bytes_max = 0;
    let store = open_at(dir.path(), large).unwrap();
    let partition = store.start_partition().unwrap();
    for block in 0..3 {
        push(&store, block + 1, &samples(40, u128::from(block) * 100 + 1));
        let _done = checkpoint(&store, &partition);
    }
    let before = traces(&store);
    store.open_partition(&partition).unwrap().lose_a_page(2);
    drop((store, partition));
    let store = open_at(dir.path(), large).unwrap();
    let damaged = store.unsealed().remove(0);
    assert!(store.snapshot().reservations[0].contains("still being verified"));
    store.verify_unsealed();
    assert!(damaged.is_condemned() && store.snapshot().reservations[0].contains("damaged"));
    assert!(store.seal(&damaged).unwrap_err().is_damage());
    let mut rebuild = store.begin_rebuild(&damaged, 50, 1 << 20).unwrap();
    assert!(store.snapshot().reservations[0].contains("being rebuilt"));
    for record in 0..3 {
        let batch = Arc::new(batch(&samples(40, u128::from(record) * 100 + 1)));
        rebuild.push(record + 1, UnixNanos(NOW + 100 * SECOND), batch).unwrap();
    }
    let anew = store.finish_rebuild(&damaged, rebuild).unwrap();
    assert_eq!((traces(&store), store.snapshot().reservations.len()), (before, 0));
    assert_eq!((store.quarantined().len(), store.snapshot().quarantined.len()), (1, 0), "no span is missing");
    assert!(matches!(store.open_partition(&damaged), Err(StoreError::Replaced { .. })));
    assert_eq!(store.seal(&anew).unwrap().spans, 120);
}

#[test]
fn sealing_keeps_every_span_and_count_and_lets_the_journal_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    for block in 0..3 {
        push(&store, block + 1, &samples(40, u128::from(block) * 100 + 1));
        let _done = checkpoint(&store, &partition);
    }
    let before = (traces(&store), counted(&store.open_partition(&partition).unwrap()));
    let manifest = store.seal(&partition).unwrap();
    assert_eq!((manifest.spans, manifest.blocks, manifest.last_sequence), (120, 3, 3));
    assert!(!partition.journal_dir().exists());
    let open_again = store.open_partition(&partition).unwrap();
    assert_eq!((traces(&store), counted(&open_again)), before);
    assert_eq!(rolled_up(&open_again, Resolution::TenSeconds), before.1, "finest roll-up = slots of the blocks");
    for resolution in Resolution::ALL {
        assert_eq!(rolled_up(&open_again, resolution).values().sum::<u64>(), 120, "{resolution:?}");
    }
}

fn rolled_up(open: &OpenPartition, resolution: Resolution) -> BTreeMap<Slot, u64> {
    let (mut counts, keys) = (BTreeMap::new(), open.rollup_series().unwrap());
    for window in open.rollup_windows(resolution) {
        open.rollup(window)
            .read(
                &SeriesWanted::ALL,
                Slot::ALL,
                Take::Histograms(&mut |series, slot, latency| {
                    if keys[series as usize].family.is_none() {
                        *counts.entry(slot).or_default() += latency.histogram.count();
                    }
                }),
            )
            .unwrap();
    }
    counts
}

#[test]
fn a_sealed_partition_keeps_its_bytes_over_any_number_of_opens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    push(&store, 1, &samples(40, 1));
    let _done = checkpoint(&store, &partition);
    let manifest = store.seal(&partition).unwrap();
    drop(store);
    for _ in 0..3 {
        let store = open(dir.path());
        let sealed = store.partitions().remove(0);
        assert_eq!(sealed.manifest(), Some(Arc::clone(&manifest)));
        drop(store.open_partition(&sealed).unwrap());
        drop(store);
        assert!(!manifest.differs(sealed.dir()));
        assert_eq!(files::entry_names(sealed.dir()), ["BLOCKS", "SEALED", "TRACES"], "no database, no journal");
        sealed.close();
    }
}

#[test]
fn retention_removes_whole_partitions_oldest_first_and_never_the_active_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for no in 0..3 {
        let partition = store.start_partition().unwrap();
        push(&store, no + 1, &samples(20, u128::from(no) * 100 + 1));
        let _done = checkpoint(&store, &partition);
        if no < 2 {
            let _manifest = store.seal(&partition).unwrap();
        }
    }
    assert_eq!(store.enforce_retention().unwrap(), [""; 0], "everything is young and there is space");
    store.clock.set(UnixNanos(NOW + 2 * 3_600 * SECOND));
    let dropped = store.enforce_retention().unwrap();
    assert_eq!(dropped.iter().map(|name| &name[name.len() - 2..]).collect::<Vec<_>>(), ["01", "02"]);
    assert_eq!(traces(&store).len(), 20);
    assert_eq!(files::entry_names(&dir.path().join("partitions")).len(), 1);
}

/// Two partitions of two services: one service stays for longer.
fn with_a_kept_service(dir: &Path) -> Store {
    let keep = vec![KeepRule { service: "cart".to_owned(), keep: DurationNanos::from_secs(5 * 3_600) }];
    let store = open_at(dir, |config| config.keep = keep).unwrap();
    for no in 0..3 {
        let partition = store.start_partition().unwrap();
        for block in 0..2 {
            push(&store, no * 10 + block + 1, &samples(30, u128::from(no * 10 + block) * 100 + 1));
            let _done = checkpoint(&store, &partition);
        }
        if no < 2 {
            let _manifest = store.seal(&partition).unwrap();
        }
    }
    store
}

#[test]
fn a_service_with_a_longer_retention_stays_whole_when_the_others_leave_and_leaves_in_its_own_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_a_kept_service(dir.path());
    let before = traces(&store);
    let old = store.snapshot();
    store.clock.set(UnixNanos(NOW + 2 * 3_600 * SECOND));
    assert_eq!(store.enforce_retention().unwrap(), [""; 0], "none leaves as a whole");
    // Every third span of `samples` is of the cart.
    let of_cart = |trace: &TraceId| (trace.low_u64() % 100 - 1).is_multiple_of(3);
    let mut expected = before.clone();
    expected.retain(|trace, _| of_cart(trace) || 2_000 < trace.low_u64());
    assert_eq!(traces(&store), expected);
    let kept = store.partitions().remove(0);
    assert_eq!((kept.seq(), kept.generation(), kept.manifest().unwrap().spans), (1, 2, 20));
    assert!(matches!(store.open_partition(&old.partitions[0].0), Err(StoreError::Replaced { .. })));
    let open = store.open_partition(&kept).unwrap();
    assert_eq!(rolled_up(&open, Resolution::Minute).values().sum::<u64>(), 20, "histograms count what stays");
    assert_eq!(counted(&open).values().sum::<u64>(), 20);
    drop(open);
    assert_eq!(store.enforce_retention().unwrap(), [""; 0]);
    assert_eq!(store.partitions()[0].generation(), 2, "there is nothing to be done a second time");
    store.clock.set(UnixNanos(NOW + 6 * 3_600 * SECOND));
    assert_eq!(store.enforce_retention().unwrap().len(), 2);
    assert_eq!(traces(&store).len(), 60, "the unsealed one stays");
}

#[test]
fn a_disk_budget_of_nothing_takes_what_a_rule_keeps_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = with_a_kept_service(dir.path());
    store.config.disk_bytes_max = 1;
    let dropped = store.enforce_retention().unwrap();
    let went_last = |name: &String| name.ends_with("-2");
    assert!(dropped.len() == 2 && dropped.iter().all(went_last), "first all others, then what was kept: {dropped:?}");
}

/// The process died between the rename of the smaller partition and the removal of the larger one, or before it.
#[test]
fn rel_15_of_two_generations_the_start_keeps_the_finished_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let store = with_a_kept_service(dir.path());
    let first = store.partitions().remove(0);
    let status = std::process::Command::new("cp").arg("-r").arg(first.dir()).arg(copy.path()).status().unwrap();
    assert!(status.success());
    store.clock.set(UnixNanos(NOW + 2 * 3_600 * SECOND));
    let _dropped = store.enforce_retention().unwrap();
    let expected = traces(&store);
    drop(store);
    let partitions = dir.path().join("partitions");
    std::fs::rename(copy.path().join(first.name()), partitions.join(first.name())).unwrap();
    std::fs::create_dir(partitions.join(format!("{}-2.building", first.name()))).unwrap();
    let store = open(dir.path());
    assert_eq!(traces(&store), expected);
    assert_eq!(files::entry_names(&partitions).len(), 3);
}

#[test]
fn a_drop_that_a_crash_interrupted_is_finished_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let left = dir.path().join("partitions/20261123T100000Z-000001.drop/store");
    std::fs::create_dir_all(&left).unwrap();
    assert_eq!(open(dir.path()).partitions().len(), 0);
    assert!(!left.exists());
}

#[test]
fn rel_21_a_second_store_on_the_directory_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let refused = open_at(dir.path(), |_| {}).unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
}

#[test]
fn rel_12_a_directory_of_another_format_is_refused_by_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("FORMAT"), "spandrel 9\n").unwrap();
    let refused = open_at(dir.path(), |_| {}).unwrap_err().to_string();
    assert!(refused.contains("spandrel 9") && refused.contains("spandrel 2"), "{refused}");
    assert!(!dir.path().join("partitions").exists());
}

#[test]
fn rel_12_a_partition_that_a_later_version_sealed_is_refused_by_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = sealed(&store, 1);
    drop(store);
    let path = partition.dir().join("SEALED");
    let text = std::fs::read_to_string(&path).unwrap();
    let body = text.rsplit_once("checksum").unwrap().0.replace("spandrel-sealed 1", "spandrel-sealed 2");
    let later = format!("{body}checksum {:016x}\n", xxhash_rust::xxh3::xxh3_64(body.as_bytes()));
    std::fs::write(&path, &later).unwrap();
    let refused = open_at(dir.path(), |_| {}).unwrap_err().to_string();
    assert!(refused.contains("SEALED") && refused.contains("spandrel-sealed 2"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), later);
}

/// Flips bits all over the written part of a sled file.
fn damage(database: &Path) {
    let mut bytes = std::fs::read(database).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (64..written).step_by(251) {
        bytes[at] ^= 0x55;
    }
    std::fs::write(database, bytes).unwrap();
}

/// sled opens such a file, drops what it cannot read, and says nothing. The checkpoint record then is gone or counts
/// more pages than there are: either way the journal is replayed from the start.
#[test]
fn rel_04_a_damaged_unsealed_database_is_rebuilt_from_its_journal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    for block in 0..3 {
        push(&store, block + 1, &samples(2_000, u128::from(block) * 5_000 + 1));
        let _done = checkpoint(&store, &partition);
    }
    let database = partition.store_dir().join("db");
    drop((store, partition));
    damage(&database);
    let rebuilt = open(dir.path()).unsealed().remove(0);
    assert_eq!(rebuilt.n_blocks(), 0);
}

#[test]
fn g_4_a_damaged_sealed_partition_is_refused_by_name_and_its_neighbours_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for no in 0..2 {
        let partition = store.start_partition().unwrap();
        push(&store, no + 1, &samples(2_000, u128::from(no) * 5_000 + 1));
        let _done = checkpoint(&store, &partition);
        let _manifest = store.seal(&partition).unwrap();
    }
    let partitions = store.partitions();
    drop(store);
    for partition in &partitions {
        partition.close();
    }
    damage(&partitions[0].dir().join("BLOCKS"));
    let store = open(dir.path());
    let [damaged, whole] = &store.partitions()[..] else { panic!("both are still listed") };
    let refused = store.open_partition(damaged).unwrap_err().to_string();
    assert!(refused.contains("damaged") || refused.contains("engine"), "{refused}");
    assert_eq!(store.open_partition(whole).unwrap().blocks(u64::MAX).len(), 1);
    assert_eq!(store.partitions().len(), 1, "what will not open goes to quarantine");
    assert!(!damaged.dir().exists() && dir.path().join("quarantine").join(format!("{}.0", damaged.name())).exists());
    let named = store.warnings().remove(0);
    assert!(named.contains("2000 spans from 2026-11-23T10:00:00Z to"), "{named}");
    assert_eq!(store.snapshot().quarantined.len(), 1, "every answer says so");
}

fn sealed(store: &Store, first_trace: u128) -> Arc<Partition> {
    let partition = store.start_partition().unwrap();
    push(store, u64::try_from(first_trace).unwrap(), &samples(20, first_trace));
    let _done = checkpoint(store, &partition);
    let _manifest = store.seal(&partition).unwrap();
    partition
}

/// Two questions at once over more sealed partitions than are held open: the second one's partition was pushed out of
/// the list while the first one still read it, and sled refused to open its files a second time. The answer then left
/// the partition out as unreadable.
#[test]
fn a_partition_that_left_the_list_of_open_ones_opens_again_while_a_question_still_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_at(dir.path(), |config| config.open_partitions_max = 1).unwrap();
    let (first, second) = (sealed(&store, 1), sealed(&store, 101));
    let still_reading = store.open_partition(&first).unwrap();
    let _pushes_it_out = store.open_partition(&second).unwrap();
    let again = store.open_partition(&first).unwrap();
    assert_eq!(again.blocks(u64::MAX).len(), still_reading.blocks(u64::MAX).len());
}

/// A question took its snapshot, then retention removed a partition of it: opening it made an empty database under the
/// old name, which the next start moved to quarantine as a sealed partition without its manifest.
#[test]
fn a_partition_that_retention_removed_is_not_made_again_by_a_question_that_still_knows_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let removed = sealed(&store, 1);
    let active = store.start_partition().unwrap();
    let snapshot = store.snapshot();
    store.clock.set(UnixNanos(NOW + 2 * 3_600 * SECOND));
    assert_eq!(store.enforce_retention().unwrap(), [removed.name()]);
    let refused = store.open_partition(&snapshot.partitions[0].0).unwrap_err();
    assert!(matches!(refused, StoreError::Removed { .. }), "{refused}");
    assert!(!removed.dir().exists());
    drop((store, removed, active, snapshot));
    assert_eq!(open(dir.path()).quarantined(), [""; 0]);
}

/// On a full disk a new partition is tried five times a second; each second left a directory of a new name.
#[test]
fn rel_06_a_partition_that_cannot_be_created_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let in_the_way = dir.path().join("partitions/20261123T100000Z-000001/store");
    std::fs::create_dir_all(in_the_way.parent().unwrap()).unwrap();
    std::fs::write(&in_the_way, "no directory").unwrap();
    let _refused = store.start_partition().unwrap_err();
    assert_eq!(files::entry_names(&dir.path().join("partitions")), [""; 0]);
    assert_eq!(store.start_partition().unwrap().seq(), 1, "and the next attempt may succeed");
}

/// The process died between the two directories of a new partition: that is no partition that lost its manifest.
#[test]
fn rel_15_a_partition_whose_creation_was_interrupted_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::create_dir(dir.path().join("partitions/20261123T100000Z-000001")).unwrap();
    let store = open(dir.path());
    assert_eq!((store.partitions().len(), store.quarantined().len()), (0, 0));
    assert_eq!(files::entry_names(&dir.path().join("partitions")), [""; 0]);
}

/// Every answer called itself incomplete for as long as the old database lay in quarantine, although its journal had
/// brought every span back.
#[test]
fn g_3_a_database_that_its_journal_rebuilds_makes_no_answer_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    push(&store, 1, &samples(2_000, 1));
    let _done = checkpoint(&store, &partition);
    let settings_of_sled = partition.store_dir().join("conf");
    drop((store, partition));
    std::fs::write(settings_of_sled, "no settings").unwrap();
    for _start in 0..2 {
        let store = open(dir.path());
        assert_eq!(store.quarantined().len(), 1, "an operator is told");
        assert_eq!(store.snapshot().quarantined, [""; 0], "no span is missing");
    }
    std::fs::create_dir(dir.path().join("quarantine/20261123T100000Z-000007.0")).unwrap();
    assert_eq!(open(dir.path()).snapshot().quarantined, ["20261123T100000Z-000007.0"], "a sealed one is missing");
}

/// A batch that met a full disk may be written although sled says that it failed. The next attempt, with the database
/// opened again, made a second block of the same spans.
#[test]
fn rel_06_a_block_that_was_written_although_it_failed_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    push(&store, 1, &samples(20, 1));
    let frozen = store.freeze(&partition).unwrap();
    for _attempt in 0..2 {
        let _done = store.checkpoint(&frozen).unwrap();
        partition.set_failing(true);
    }
    assert_eq!((partition.n_blocks(), traces(&store).values().sum::<usize>()), (1, 20));
}

/// Two links that lead back to their directory made 2^40 paths of one: the first look at the size never ended.
#[test]
fn rel_22_links_below_a_partition_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    for name in ["here", "here_too"] {
        std::os::unix::fs::symlink(".", partition.store_dir().join(name)).unwrap();
    }
    assert_ne!(store.disk_bytes(), 0);
}

/// A directory that somebody called `mine.drop` went as if retention had begun to remove it.
#[test]
fn rel_22_a_start_removes_nothing_by_a_name_that_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    for name in ["mine.drop", "copy-000001", "20261123T100000Z-000001x"] {
        std::fs::create_dir(dir.path().join("partitions").join(name)).unwrap();
    }
    assert_eq!(open(dir.path()).partitions().len(), 0);
    assert_eq!(files::entry_names(&dir.path().join("partitions")).len(), 3);
}
