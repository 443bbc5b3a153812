//! Sealing: the pages of the database are written into one file, made durable, read back and compared with themselves; only
//! then may the database and the journal go. Every step can be repeated after a crash.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::block::ServiceCount;
use crate::latency::{Resolution, SeriesWanted, Slot, SlotLatency, Take, counting_instant};
use crate::model::{DurationNanos, Family, SeriesKey, UnixNanos};

use super::admission::position;
use super::copying::hash_file;
use super::pack::{self, PackWriter};
use super::pages::{Kind, Place};
use super::{Manifest, OpenPartition, Partition, SeriesList, Store, StoreError, files, trace_index};

/// Count and exact sum of the latencies in one slot of one series.
pub(super) type Tally = HashMap<(Arc<SeriesKey<'static>>, Slot), (u64, u128)>;

impl Store {
    /// Seals a partition that nothing is written to any more: all its spans are in blocks.
    ///
    /// # Errors
    /// `Unverified` when what was read back differs, `Engine` or `File` when the disk refuses. The journal is then kept
    /// and sealing may be tried again.
    pub fn seal(&self, partition: &Arc<Partition>) -> Result<Arc<Manifest>, StoreError> {
        let manifest = self.complete(partition)?;
        partition.become_sealed(manifest.clone())?;
        self.counters.partitions_sealed.add(1);
        Ok(Arc::new(manifest))
    }

    /// `BLOCKS`, `TRACES` and `SEALED` of a partition whose blocks are all in its database: verified and durable.
    fn complete(&self, partition: &Partition) -> Result<Manifest, StoreError> {
        let growing = partition.open(&self.config)?;
        growing.pages.verify_pages()?;
        pack(&growing, partition.dir())?;
        let sealed = OpenPartition::sealed(partition.dir(), Arc::default())?;
        let manifest = verify(&sealed, partition)?;
        finish(partition.dir(), &sealed, manifest)
    }
}

/// `TRACES` and `SEALED` of a directory whose `BLOCKS` is complete and verified.
pub(super) fn finish(dir: &Path, sealed: &OpenPartition, mut manifest: Manifest) -> Result<Manifest, StoreError> {
    trace_index::write(dir, sealed)?;
    for name in [pack::FILE_NAME, trace_index::FILE_NAME] {
        let (bytes, hash) = hash_file(&dir.join(name), &mut |_| {})?;
        manifest.files.push((bytes, hash, name.to_owned()));
    }
    files::write_durably(&dir.join("SEALED"), manifest.to_text().as_bytes())?;
    Ok(manifest)
}

/// Every section of every block, and the roll-ups of all, into `BLOCKS`.
fn pack(growing: &OpenPartition, dir: &Path) -> Result<(), StoreError> {
    let mut out = PackWriter::create(dir)?;
    for block_no in growing.block_numbers() {
        for section in growing.readable_block(block_no)?.section_ids() {
            let place = Place { kind: Kind::Block, id: block_no, section: section.0 };
            out.put_section(place, &growing.pages.read_all(place)?)?;
        }
    }
    growing.write_rollups(&mut out)?;
    out.finish(growing.checkpoint())
}

/// Every page's checksum, every count, and the histograms against a recount of the spans.
pub(super) fn verify(open: &OpenPartition, partition: &Partition) -> Result<Manifest, StoreError> {
    let differs = |what: String| StoreError::Unverified { path: partition.dir().to_path_buf(), what };
    open.pages.verify_pages()?;
    let checkpoint = open.checkpoint();
    let mut manifest = Manifest {
        blocks: checkpoint.blocks,
        last_sequence: checkpoint.sequence,
        min_time: UnixNanos(u64::MAX),
        finest: Some(Resolution::TenSeconds),
        ..Manifest::default()
    };
    for (block_no, block) in open.blocks(u64::MAX) {
        let block = block.ok_or_else(|| differs(format!("the header of block {block_no} is damaged")))?;
        let summary = block.summary();
        manifest.spans += u64::from(summary.spans);
        let counted_from = counting_instant(summary.min_start, summary.horizon);
        manifest.min_time = manifest.min_time.min(counted_from).min(summary.min_index_time);
        manifest.max_time = manifest.max_time.max(summary.max_start).max(summary.max_index_time);
        let counts_untimed = |key: &Arc<SeriesKey<'_>>| key.family == Some(Family::Untimed);
        if summary.min_index_time.is_unset() && open.series(block_no)?.iter().any(counts_untimed) {
            // Spans without any time are counted when they came.
            manifest.max_time = manifest.max_time.max(summary.horizon);
        }
    }
    manifest.services = merge_services(open);
    if manifest.spans != checkpoint.spans {
        return Err(differs(format!("blocks hold {} spans, {} were written", manifest.spans, checkpoint.spans)));
    }
    let (recount, rollups) = (as_admitted(recount(open)?, open)?, tally_rollups(open, Resolution::TenSeconds)?);
    if recount != rollups {
        return Err(differs(format!("{} slots recounted, {} in the roll-ups differ", recount.len(), rollups.len())));
    }
    Ok(manifest)
}

/// Spans per service over all blocks, sorted.
pub(super) fn merge_services(open: &OpenPartition) -> Vec<ServiceCount> {
    let mut services: BTreeMap<(String, String), ServiceCount> = BTreeMap::new();
    for block in open.blocks(u64::MAX).into_iter().filter_map(|(_, block)| block) {
        for count in &block.summary().services {
            let key = (count.namespace.clone(), count.service.clone());
            let merged = services.entry(key).or_insert_with(|| ServiceCount { spans: 0, ..count.clone() });
            merged.spans += count.spans;
            merged.last_seen = merged.last_seen.max(count.last_seen);
            merged.max_latency = merged.max_latency.max(count.max_latency);
        }
    }
    services.into_values().collect()
}

/// Counts and sums from the columns, and of families from the blocks' own slots.
pub(super) fn recount(open: &OpenPartition) -> Result<Tally, StoreError> {
    let mut tally = Tally::new();
    for (block_no, block) in open.blocks(u64::MAX) {
        let Some(block) = block else { continue };
        let series = open.series(block_no)?;
        let horizon = block.summary().horizon;
        let mut by_number: HashMap<(u32, Slot), (u64, u128)> = HashMap::new();
        let any = DurationNanos(0)..=DurationNanos(u64::MAX);
        open.scan_latency(block_no, &any, &mut |_, number, start, latency| {
            let slot = Resolution::TenSeconds.slot_of(counting_instant(start, horizon));
            let (count, sum) = by_number.entry((number, slot)).or_default();
            *count += 1;
            *sum += u128::from(latency.0);
            ControlFlow::Continue(())
        })?;
        open.block_slots(
            block_no,
            &SeriesWanted::ALL,
            Slot::ALL,
            Take::Histograms(&mut |number, slot, latency| {
                if series.get(number as usize).is_some_and(|key| key.family.is_some()) {
                    let histogram = &latency.histogram;
                    let _none_before = by_number.insert((number, slot), (histogram.count(), histogram.sum_ns()));
                }
            }),
        )?;
        for ((number, slot), (count, sum)) in by_number {
            let Some(key) = series.get(number as usize) else { continue };
            let (all, total) = tally.entry((Arc::clone(key), slot)).or_default();
            *all += count;
            *total += sum;
        }
    }
    Ok(tally)
}

/// The same under the series that the roll-ups have: those over the cap together.
pub(super) fn as_admitted(recounted: Tally, open: &OpenPartition) -> Result<Tally, StoreError> {
    let admitted = open.rollup_series()?;
    let mut tally = Tally::new();
    for ((key, slot), (count, sum)) in recounted {
        let key = position(&admitted, &key).and_then(|at| admitted.get(at)).unwrap_or(&key);
        let (all, total) = tally.entry((Arc::clone(key), slot)).or_default();
        (*all, *total) = (*all + count, *total + sum);
    }
    Ok(tally)
}

/// Adds slots of a list of series.
pub(super) fn adding(series: &SeriesList, tally: &mut Tally) -> impl FnMut(u32, Slot, &mut SlotLatency) {
    |number, slot, latency| {
        if let Some(key) = series.get(number as usize) {
            let (count, sum) = tally.entry((Arc::clone(key), slot)).or_default();
            *count += latency.histogram.count();
            *sum += latency.histogram.sum_ns();
        }
    }
}

/// The same from roll-ups.
pub(super) fn tally_rollups(open: &OpenPartition, resolution: Resolution) -> Result<Tally, StoreError> {
    let series = open.rollup_series()?;
    let mut tally = Tally::new();
    for window in open.rollup_windows(resolution) {
        open.rollup(window).read(&SeriesWanted::ALL, Slot::ALL, Take::Exemplars(&mut adding(&series, &mut tally)))?;
    }
    Ok(tally)
}
