use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::latency::{Resolution, Slot};
use crate::model::samples::{Sample, batch};
use crate::model::{TraceId, UnixNanos};

/// 2026-11-23T10:00:00Z
const NOW: u64 = 1_795_428_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn open_at(dir: &Path, change: impl FnOnce(&mut StoreConfig)) -> Result<Store, StoreError> {
    let mut config = StoreConfig {
        data_dir: dir.to_path_buf(),
        cache_bytes: 8 << 20,
        open_partitions_max: 2,
        retention: Some(DurationNanos::from_secs(3_600)),
        disk_bytes_max: u64::MAX,
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
        open.block_slots(block_no, 0..u32::MAX, Slot::ALL, &mut |_, slot, latency| {
            *counts.entry(slot).or_default() += latency.histogram.count();
        })
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
    let mut counts = BTreeMap::new();
    for window in open.rollup_windows(resolution).unwrap() {
        open.rollup(window)
            .read(0..u32::MAX, Slot::ALL, &mut |_, slot, latency| {
                *counts.entry(slot).or_default() += latency.histogram.count();
            })
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
        assert_eq!(manifest::hash_files(sealed.dir(), &sealed.store_dir()).unwrap(), manifest.files);
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
    assert!(refused.contains("spandrel 9") && refused.contains("spandrel 1"), "{refused}");
    assert!(!dir.path().join("partitions").exists());
}

/// Flips bits all over the written part of a sled file.
fn damage(database: &Path) {
    let mut bytes = std::fs::read(database).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (64..written).step_by(977) {
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
    damage(&partitions[0].store_dir().join("db"));
    let store = open(dir.path());
    let [damaged, whole] = &store.partitions()[..] else { panic!("both are still listed") };
    let refused = store.open_partition(damaged).unwrap_err().to_string();
    assert!(refused.contains("damaged") || refused.contains("engine"), "{refused}");
    assert_eq!(store.open_partition(whole).unwrap().blocks(u64::MAX).len(), 1);
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
