//! What is left of a partition whose spans leave: a later generation with fewer spans, but the same numbers.
//!
//! ```text
//! partitions/20261123T100000Z-000007/               as it was sealed
//! partitions/20261123T100000Z-000007-2.building/    grows; removed at the next start
//! partitions/20261123T100000Z-000007-2/             its second generation
//! partitions/20261123T100000Z-000001-000016-2/      one that stands for the partitions 1 to 16
//! ```
//! It holds the spans of the services that stay, every span of the traces that `choice` names, and the roll-ups of the
//! generation before, counts unchanged (`tables`). An exemplar of a roll-up goes on as a place in its own partition, at the
//! row that its span has now, and is left out when its trace is not pinned: so it cannot dangle.
//!
//! The new generation is complete, durable and verified before the old one goes. When a crash leaves both, the start keeps
//! the later one. Three forms, told apart by the manifest: *live* while all spans of some service are there, then a
//! *remnant* (roll-ups and pinned traces), then, once its roll-ups are too old, the few traces that somebody still needs.

mod choice;
mod copy;
mod tables;
mod upkeep;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::ServiceCount;
use crate::latency::Resolution;
use crate::model::{TraceId, UnixNanos};

use super::pack::PackWriter;
use super::pages::{Kind, Place};
use super::partition::Gone;
use super::retention::remove_durably;
use super::slots::Counting;
use super::{Manifest, OpenPartition, Partition, Store, StoreError, TraceBlocks, files, seal};

use choice::TracesThatStay;
pub(super) use verify::verify;

/// Ending of the name of a generation that is not finished.
pub(super) const UNFINISHED_SUFFIX: &str = ".building";
/// The traces of which every span is kept, ascending, 16 bytes each.
const PINNED: Place = Place { kind: Kind::Rollup, id: u64::MAX, section: 2 };

/// What shall be left of one partition or of several neighbours.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    /// Services all of whose spans stay, by name.
    pub(super) staying: &'a BTreeSet<String>,
    /// The finest roll-ups of all others. `None` leaves none of theirs, and so none of their exemplars.
    pub(super) finest: Option<Resolution>,
    /// Whether it is done for the space alone.
    pub(super) only_if_smaller: bool,
}

/// What became of the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rewritten {
    /// A new generation stands in their place.
    Replaced,
    /// Nothing of them had to stay.
    Gone,
    /// A trace of them was pinned meanwhile: they are as they were, the next attempt knows of it.
    Postponed,
    /// They are as they were: the new generation would not have been smaller.
    NotSmaller,
}

/// A partition that is to be replaced.
struct Input {
    partition: Arc<Partition>,
    open: Arc<OpenPartition>,
    manifest: Arc<Manifest>,
}

/// A new generation that is complete, but does not stand in the place of the old ones yet.
pub(super) struct Draft {
    building: PathBuf,
    name: String,
    manifest: Manifest,
    /// The pins that it knows of.
    by_hand: BTreeSet<TraceId>,
}

impl Store {
    /// Puts what `plan` leaves of `old`, which are neighbours in the order of their numbers, in their place.
    ///
    /// # Errors
    /// `File`, `Block`, `Latency`, or `Unverified` when the new generation is not what it should be; the old ones then stay.
    pub(super) fn rewrite(&self, old: &[Arc<Partition>], plan: &Plan<'_>) -> Result<Rewritten, StoreError> {
        if old.is_empty() {
            return Ok(Rewritten::NotSmaller);
        }
        let draft = self.draft(old, plan)?;
        let bytes_before: u64 = old.iter().map(|partition| files::tree_bytes(partition.dir())).sum();
        if plan.only_if_smaller && bytes_before <= files::tree_bytes(&draft.building) {
            return files::remove_tree(&draft.building).map(|()| Rewritten::NotSmaller);
        }
        self.put_in_place(old, &draft)
    }

    /// Writes the new generation and verifies it; nothing has changed yet.
    pub(super) fn draft(&self, old: &[Arc<Partition>], plan: &Plan<'_>) -> Result<Draft, StoreError> {
        let inputs = self.inputs(old)?;
        let by_hand = self.pins.lock().traces(self.clock.now());
        let traces = self.traces_that_stay(&inputs, plan, &by_hand)?;
        let name = match (old.first(), old.last()) {
            (Some(first), Some(last)) => first.next_generation(last),
            _ => String::new(),
        };
        let building = self.config.data_dir.join("partitions").join(format!("{name}{UNFINISHED_SUFFIX}"));
        files::remove_tree_if_there(&building)?;
        files::create_dir(&building)?;
        let counting = Counting::new(&self.config.conventions, &self.counters);
        let manifest = build(&inputs, plan, &traces, &counting, &building).inspect_err(|_| {
            // The next attempt makes it anew; what is here takes space until then.
            let _best_effort = files::remove_tree(&building);
        })?;
        Ok(Draft { building, name, manifest, by_hand })
    }

    /// Shows the new generation in the place of the old ones, which go.
    pub(super) fn put_in_place(&self, old: &[Arc<Partition>], draft: &Draft) -> Result<Rewritten, StoreError> {
        let Draft { building, name, manifest, by_hand } = draft;
        // Nobody pins a trace between this look and the replacement.
        let pins = self.pins.lock();
        let is_new = |trace: &TraceId| !by_hand.contains(trace) && old.iter().any(|known| may_hold(known, *trace));
        if pins.traces(self.clock.now()).iter().any(is_new) {
            return files::remove_tree(building).map(|()| Rewritten::Postponed);
        }
        let is_nothing = manifest.spans == 0 && manifest.counted_services().next().is_none();
        if is_nothing {
            files::remove_tree(building)?;
            self.replace(old, None);
        } else {
            let finished = self.config.data_dir.join("partitions").join(name);
            files::rename(building, &finished)?;
            let new = Partition::at(&finished).ok_or_else(|| StoreError::Removed { path: finished.clone() })?;
            self.replace(old, Some(Arc::new(new)));
            let (spans, stays) = (manifest.spans, manifest.services.len());
            tracing::info!(partition = name, spans, services_that_stay = stays, "a later generation of it");
        }
        drop(pins);
        for partition in old {
            partition.retire(if is_nothing { Gone::Removed } else { Gone::Replaced });
            remove_durably(partition.dir())?;
        }
        Ok(if is_nothing { Rewritten::Gone } else { Rewritten::Replaced })
    }

    /// Whether somebody still needs a trace of which a partition without roll-ups holds spans.
    pub(super) fn is_needed(&self, partition: &Arc<Partition>) -> Result<bool, StoreError> {
        let inputs = self.inputs(std::slice::from_ref(partition))?;
        let by_hand = self.pins.lock().traces(self.clock.now());
        for input in &inputs {
            if !input.open.pinned()?.is_disjoint(&by_hand) {
                return Ok(true);
            }
        }
        let plan = Plan { staying: &BTreeSet::new(), finest: None, only_if_smaller: false };
        let traces = self.traces_that_stay(&inputs, &plan, &by_hand)?;
        for input in &inputs {
            for block_no in input.open.block_numbers() {
                if input.open.trace_runs(block_no)?.iter().any(|(trace, _)| traces.keeps(*trace)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn inputs(&self, partitions: &[Arc<Partition>]) -> Result<Vec<Input>, StoreError> {
        let input = |partition: &Arc<Partition>| {
            let open = self.open_partition(partition)?;
            let manifest = partition.manifest().unwrap_or_default();
            Ok(Input { partition: Arc::clone(partition), open, manifest })
        };
        partitions.iter().map(input).collect()
    }

    /// Puts `new` where the first of `old` stands, and takes the others away, for every question that is asked from now on.
    pub(super) fn replace(&self, old: &[Arc<Partition>], new: Option<Arc<Partition>>) {
        let is_old = |known: &Arc<Partition>| old.iter().any(|partition| Arc::ptr_eq(partition, known));
        let mut state = self.state.write();
        let place = state.partitions.iter().position(is_old);
        state.partitions.retain(|known| !is_old(known));
        if let (Some(place), Some(new)) = (place, new) {
            state.partitions.insert(place, new);
        }
        drop(state);
        self.open_sealed.lock().retain(|known| !is_old(known));
    }
}

/// By the index of its traces.
fn may_hold(partition: &Partition, trace: TraceId) -> bool {
    match partition.blocks_of_trace(trace) {
        TraceBlocks::Known(blocks) => !blocks.is_empty(),
        TraceBlocks::Unknown => true,
    }
}

/// Writes the new generation into `dir`, reads it back, and gives it its `SEALED`.
fn build(
    inputs: &[Input],
    plan: &Plan<'_>,
    traces: &TracesThatStay,
    counting: &Counting,
    dir: &Path,
) -> Result<Manifest, StoreError> {
    let mut out = PackWriter::create(dir)?;
    let copied = copy::copy(inputs, plan.staying, traces, counting, &mut out)?;
    let totals = tables::write(inputs, plan, &copied.moves, &mut out)?;
    let pinned: Vec<u8> = copied.pinned.iter().flat_map(|trace| trace.0).collect();
    out.put_section(PINNED, &pinned)?;
    out.finish(copied.checkpoint)?;
    let open = OpenPartition::sealed(dir, Arc::default())?;
    let manifest = manifest_of(inputs, plan, &open)?;
    verify(&open, &manifest)?;
    if tables::totals(&open)? != totals {
        let what = "its roll-ups do not count what those before it did".to_owned();
        return Err(StoreError::Unverified { path: dir.to_path_buf(), what });
    }
    seal::finish(dir, &open, manifest)
}

fn manifest_of(inputs: &[Input], plan: &Plan<'_>, open: &OpenPartition) -> Result<Manifest, StoreError> {
    let checkpoint = open.checkpoint();
    let manifests = || inputs.iter().map(|input| &*input.manifest);
    let (staying, left): (Vec<_>, Vec<_>) = manifests()
        .flat_map(|manifest| manifest.services.iter())
        .partition(|count| plan.staying.contains(&count.service));
    let left = left.into_iter().chain(manifests().flat_map(|manifest| manifest.left.iter()));
    let mut manifest = Manifest {
        spans: checkpoint.spans,
        blocks: checkpoint.blocks,
        last_sequence: checkpoint.sequence,
        min_time: manifests().map(|manifest| manifest.min_time).min().unwrap_or_default(),
        max_time: manifests().map(|manifest| manifest.max_time).max().unwrap_or_default(),
        services: merged(staying),
        left: if plan.finest.is_some() { merged(left) } else { Vec::new() },
        finest: plan.finest,
        files: Vec::new(),
    };
    if manifest.counted_services().next().is_none() {
        (manifest.min_time, manifest.max_time) = times_of_blocks(open)?;
    }
    Ok(manifest)
}

fn merged<'a>(counts: impl IntoIterator<Item = &'a ServiceCount>) -> Vec<ServiceCount> {
    let mut merged: BTreeMap<(&str, &str), ServiceCount> = BTreeMap::new();
    for count in counts {
        let key = (count.namespace.as_str(), count.service.as_str());
        let known = merged.entry(key).or_insert_with(|| ServiceCount { spans: 0, ..count.clone() });
        known.spans += count.spans;
        known.last_seen = known.last_seen.max(count.last_seen);
        known.max_latency = known.max_latency.max(count.max_latency);
    }
    merged.into_values().collect()
}

fn times_of_blocks(open: &OpenPartition) -> Result<(UnixNanos, UnixNanos), StoreError> {
    let mut times = (UnixNanos(u64::MAX), UnixNanos(0));
    for block_no in open.block_numbers() {
        let block = open.readable_block(block_no)?;
        let summary = block.summary();
        times.0 = times.0.min(summary.min_start).min(summary.min_index_time);
        times.1 = times.1.max(summary.max_start).max(summary.max_index_time);
    }
    Ok(times)
}

impl OpenPartition {
    /// The traces that are pinned in a later generation, ascending; none in the first.
    fn pinned(&self) -> Result<BTreeSet<TraceId>, StoreError> {
        let bytes = self.pages.read_all(PINNED)?;
        let (traces, _odd_bytes) = bytes.as_chunks::<16>();
        Ok(traces.iter().copied().map(TraceId).collect())
    }
}
