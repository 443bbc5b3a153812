//! Retention per service: a sealed partition of which only some services stay is replaced by a smaller one.
//!
//! ```text
//! partitions/20261123T100000Z-000007/               as it was sealed
//! partitions/20261123T100000Z-000007-2.building/    grows; removed at the next start
//! partitions/20261123T100000Z-000007-2/             its second generation: SEALED, and nothing but the services that stay
//! ```
//! The second generation is complete and durable before the first one goes. When a crash leaves both, the start keeps the
//! later one. A partition that is the whole of what stays is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::model::{DurationNanos, UnixNanos};

use super::partition::{Gone, numbers_of};
use super::retention::remove_durably;
use super::slots::Counting;
use super::{HeadPart, Manifest, OpenPartition, Partition, Store, StoreError, files};

/// How long the spans of one service stay, in place of `StoreConfig::retention`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepRule {
    /// `service.name`, in every namespace.
    pub service: String,
    /// Age at which they leave.
    pub keep: DurationNanos,
}

/// Ending of the name of a generation that is not finished.
const UNFINISHED_SUFFIX: &str = ".building";
/// Spans that are copied at once, each time into a block: bounds the memory.
const ROWS_AT_ONCE: usize = 16 * 1024;

impl Store {
    /// Names of the services of a sealed partition that stay at `now`.
    pub(super) fn staying(&self, manifest: &Manifest, now: UnixNanos) -> BTreeSet<String> {
        let stays = |service: &str| {
            let rule = self.config.keep.iter().find(|rule| rule.service == service).map(|rule| rule.keep);
            let keep = rule.or(self.config.retention);
            keep.is_none_or(|keep| now.saturating_sub(keep) <= manifest.max_time)
        };
        manifest.services.iter().filter(|count| stays(&count.service)).map(|count| count.service.clone()).collect()
    }

    /// Replaces a sealed partition by one that holds the spans of `services` alone, exactly as they were.
    ///
    /// # Errors
    /// `Engine`, `File`, `Block`, or `Unverified` when the new one lacks a span; the old one then stays.
    pub(super) fn shrink(&self, old: &Arc<Partition>, services: &BTreeSet<String>) -> Result<(), StoreError> {
        let name = old.next_generation();
        let partitions = self.config.data_dir.join("partitions");
        let (building, finished) = (partitions.join(format!("{name}{UNFINISHED_SUFFIX}")), partitions.join(&name));
        files::remove_tree_if_there(&building)?;
        files::create_dir(&building)?;
        let smaller = Partition::unfinished(&building, old.seq());
        {
            let (from, to) = (self.open_partition(old)?, smaller.open(&self.config)?);
            for block_no in from.block_numbers() {
                self.copy_services(&from, block_no, services, &to)?;
            }
        }
        let manifest = self.complete(&smaller)?;
        check_counts(old, &manifest, services)?;
        smaller.become_sealed(manifest.clone())?;
        files::rename(&building, &finished)?;
        let smaller = Partition::at(&finished).ok_or_else(|| StoreError::Removed { path: finished.clone() })?;
        tracing::info!(partition = name, spans = manifest.spans, "only services with a longer retention stay");
        self.replace(old, Arc::new(smaller));
        old.retire(Gone::Replaced);
        remove_durably(old.dir())
    }

    fn copy_services(
        &self,
        from: &OpenPartition,
        block_no: u64,
        services: &BTreeSet<String>,
        to: &OpenPartition,
    ) -> Result<(), StoreError> {
        let series = from.series(block_no)?;
        let wanted: Vec<bool> = series.iter().map(|key| services.contains(&*key.service)).collect();
        let rows = from.rows_of_series(block_no, &wanted)?;
        let horizon = from.readable_block(block_no)?.summary().horizon;
        let counting = Counting::new(&self.config.conventions, &self.counters);
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let batch = from.spans(block_no, rows)?;
            let part = HeadPart {
                spans: batch.spans.len() as u64,
                batches: vec![Arc::new(batch)],
                horizon,
                last_sequence: from.covered_sequence(),
            };
            let _written = to.write_block(&part, &counting)?;
        }
        Ok(())
    }

    /// Puts `new` where `old` stands, for every question that is asked from now on.
    pub(super) fn replace(&self, old: &Arc<Partition>, new: Arc<Partition>) {
        let mut state = self.state.write();
        if let Some(place) = state.partitions.iter_mut().find(|known| Arc::ptr_eq(known, old)) {
            *place = new;
        }
        drop(state);
        self.open_sealed.lock().retain(|known| !Arc::ptr_eq(known, old));
    }
}

/// Each service that stays has as many spans as before, and no other is there.
fn check_counts(old: &Partition, smaller: &Manifest, services: &BTreeSet<String>) -> Result<(), StoreError> {
    let counts = |manifest: &Manifest| -> BTreeMap<(String, String), u64> {
        let staying = manifest.services.iter().filter(|count| services.contains(&count.service));
        staying.map(|count| ((count.namespace.clone(), count.service.clone()), count.spans)).collect()
    };
    let before = old.manifest().map(|manifest| counts(&manifest)).unwrap_or_default();
    if before == counts(smaller) && before.values().sum::<u64>() == smaller.spans {
        return Ok(());
    }
    let what = format!("{} of {} spans were copied", smaller.spans, before.values().sum::<u64>());
    Err(StoreError::Unverified { path: old.dir().to_path_buf(), what })
}

/// Removes what a crash left unfinished, and the generations before one that is finished.
pub(super) fn finish_generations(partitions_dir: &Path) -> Result<(), StoreError> {
    let mut found = Vec::new();
    for name in files::entry_names(partitions_dir) {
        let dir = partitions_dir.join(&name);
        if name.strip_suffix(UNFINISHED_SUFFIX).and_then(numbers_of).is_some() {
            files::remove_tree(&dir)?;
        } else {
            found.extend(Partition::at(&dir));
        }
    }
    for partition in &found {
        let is_later = |other: &&Partition| {
            other.seq() == partition.seq() && partition.generation() < other.generation() && other.manifest().is_some()
        };
        if found.iter().any(|other| is_later(&other)) {
            remove_durably(partition.dir())?;
        }
    }
    Ok(())
}
