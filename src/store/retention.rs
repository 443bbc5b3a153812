//! Retention lets spans go, whole partitions at a time, oldest first. What is left of a partition is up to `remnant`: spans
//! of services with a longer retention, roll-ups, pinned traces.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::latency::Resolution;
use crate::limits::{ROLLUP_MINUTES_SECS, ROLLUP_TEN_MINUTES_SECS};
use crate::model::{DurationNanos, UnixNanos};
use crate::telemetry::with_causes;

use super::partition::{Gone, numbers_of};
use super::remnant::{Plan, Rewritten};
use super::{Manifest, Partition, Store, StoreError, files};

pub(super) const DROP_SUFFIX: &str = ".drop";

/// Part of the disk budget that roll-ups and pinned traces may take once their spans have left.
const REMNANTS_SHARE: u64 = 4;
const NOTHING: &BTreeSet<String> = &BTreeSet::new();

/// Why spans leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Age,
    Space,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::Age => "its retention is over",
            Self::Space => "the disk budget is used up",
        }
    }
}

impl Store {
    /// Lets the spans of sealed partitions go that are older than the retention, and of the oldest ones while all partitions
    /// together are over the disk budget; then their roll-ups, when those are too old or take more than their share. Returns
    /// the names of the partitions that let all spans go, or all that was left.
    ///
    /// One jump of the clock never takes more than the partitions whose newest span is out of retention; the active partition
    /// always stays.
    ///
    /// # Errors
    /// The first one; a partition that cannot be removed or made smaller holds up no other, and is tried again next time.
    /// `warnings` say so until then.
    pub fn enforce_retention(&self) -> Result<Vec<String>, StoreError> {
        let outcome = self.let_everything_go();
        let fault = outcome.as_ref().err().map(|error| with_causes(error));
        self.counters.retention_failures.add(u64::from(fault.is_some()));
        *self.retention_fault.lock() = fault;
        outcome
    }

    fn let_everything_go(&self) -> Result<Vec<String>, StoreError> {
        let now = self.clock.now();
        let mut dropped = Vec::new();
        let mut outcome = self.pins.lock().expire(now);
        for partition in self.sealed() {
            let Some(manifest) = partition.manifest() else { continue };
            outcome = outcome.and(self.let_age(&partition, &manifest, now, &mut dropped));
        }
        outcome.and(self.enforce_disk_budget(now, &mut dropped)).and(self.tend_remnants(now)).map(|()| dropped)
    }

    /// What its age alone asks for.
    fn let_age(
        &self,
        partition: &Arc<Partition>,
        manifest: &Manifest,
        now: UnixNanos,
        dropped: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        if manifest.is_live() {
            let staying = self.staying(manifest, now);
            let all_stay = manifest.services.iter().all(|count| staying.contains(&count.service));
            return if all_stay { Ok(()) } else { self.let_go(partition, &staying, Why::Age, dropped) };
        }
        if manifest.is_remnant() {
            let are_too_old = self.finest_kept(manifest.max_time, now).is_none();
            return if are_too_old { self.let_go(partition, NOTHING, Why::Age, dropped) } else { Ok(()) };
        }
        if 0 < manifest.spans && self.is_needed(partition)? {
            return Ok(());
        }
        // Not simply removed: somebody may pin a trace of it at this moment.
        self.let_go(partition, NOTHING, Why::Age, dropped)
    }

    /// The finest roll-ups that are kept of spans that have left, when the newest of them is of `newest`.
    pub(super) fn finest_kept(&self, newest: UnixNanos, now: UnixNanos) -> Option<Resolution> {
        let age = now.since(newest);
        if self.config.rollup_retention.is_some_and(|keep| keep < age) {
            return None;
        }
        let is_over = |secs: u64| DurationNanos::from_secs(secs) < age;
        Some(match (is_over(ROLLUP_MINUTES_SECS), is_over(ROLLUP_TEN_MINUTES_SECS)) {
            (false, _) => Resolution::Minute,
            (true, false) => Resolution::TenMinutes,
            (true, true) => Resolution::Hour,
        })
    }

    /// Everything before what a rule keeps longer, and each oldest first; then roll-ups, which have a share of their own.
    fn enforce_disk_budget(&self, now: UnixNanos, dropped: &mut Vec<String>) -> Result<(), StoreError> {
        let is_over = || self.config.disk_bytes_max < self.disk_bytes();
        let with_rule = |service: &String| self.config.keep.iter().any(|rule| rule.service == *service);
        for only_without_rule in [true, false] {
            for (partition, manifest) in self.such(Manifest::is_live) {
                if !is_over() {
                    break;
                }
                let mut staying = if only_without_rule { self.staying(&manifest, now) } else { BTreeSet::new() };
                staying.retain(with_rule);
                if manifest.services.iter().any(|count| !staying.contains(&count.service)) {
                    self.let_go(&partition, &staying, Why::Space, dropped)?;
                }
            }
        }
        self.keep_remnants_small(&is_over, dropped)?;
        for (partition, _) in self.such(|manifest| !manifest.is_live()) {
            if is_over() {
                self.remove(&partition, Why::Space, dropped)?;
            }
        }
        Ok(())
    }

    /// Forgets roll-ups, the oldest first, while they and the pinned traces take more than their share, or all together is over
    /// the budget although no other spans are left.
    fn keep_remnants_small(&self, is_over: &dyn Fn() -> bool, dropped: &mut Vec<String>) -> Result<(), StoreError> {
        let share = self.config.disk_bytes_max / REMNANTS_SHARE;
        for (partition, _) in self.such(Manifest::is_remnant) {
            let remnants = self.such(|manifest| !manifest.is_live());
            let bytes: u64 = remnants.iter().map(|(partition, _)| files::tree_bytes(partition.dir())).sum();
            if bytes <= share && !is_over() {
                return Ok(());
            }
            self.let_go(&partition, NOTHING, Why::Space, dropped)?;
        }
        Ok(())
    }

    /// Lets all spans but those of `staying` services go. Their roll-ups stay, unless they are too old, have gone before, or
    /// would not be smaller than what goes.
    fn let_go(
        &self,
        partition: &Arc<Partition>,
        staying: &BTreeSet<String>,
        why: Why,
        dropped: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let Some(manifest) = partition.manifest() else { return Ok(()) };
        // Spans of pinned traces that others left behind without roll-ups are in none: from then on there are none.
        let has_rollups = partition.generation() == 1 || manifest.finest.is_some();
        let kept = self.finest_kept(manifest.max_time, self.clock.now()).filter(|_| manifest.is_live() && has_rollups);
        let finest = kept.max(manifest.finest.filter(|_| kept.is_some() && !manifest.left.is_empty()));
        let only_if_smaller = why == Why::Space && finest.is_some() && staying.is_empty();
        let old = std::slice::from_ref(partition);
        let mut became = self.rewrite(old, &Plan { staying, finest, only_if_smaller });
        if matches!(became, Ok(Rewritten::NotSmaller)) {
            became = self.rewrite(old, &Plan { staying, finest: None, only_if_smaller: false });
        }
        let became = match became {
            Err(error) if gives_way(&error, why) && staying.is_empty() && partition.exists() => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(partition = partition.name(), error, "it goes with its roll-ups and pinned traces");
                return self.remove(partition, why, dropped);
            }
            became => became?,
        };
        if staying.is_empty() && matches!(became, Rewritten::Replaced | Rewritten::Gone) {
            self.note_dropped(partition, why, dropped);
        }
        Ok(())
    }

    /// With everything in it.
    fn remove(&self, partition: &Arc<Partition>, why: Why, dropped: &mut Vec<String>) -> Result<(), StoreError> {
        self.state.write().partitions.retain(|known| !Arc::ptr_eq(known, partition));
        self.open_sealed.lock().retain(|known| !Arc::ptr_eq(known, partition));
        partition.retire(Gone::Removed);
        remove_durably(partition.dir())?;
        self.note_dropped(partition, why, dropped);
        Ok(())
    }

    fn note_dropped(&self, partition: &Partition, why: Why, dropped: &mut Vec<String>) {
        tracing::info!(partition = partition.name(), why = why.text(), "partition let go");
        dropped.push(partition.name());
        self.counters.partitions_dropped.add(1);
    }

    /// Sealed partitions, oldest first.
    pub(super) fn sealed(&self) -> Vec<Arc<Partition>> {
        self.partitions().into_iter().filter(|partition| partition.manifest().is_some()).collect()
    }

    fn such(&self, wanted: impl Fn(&Manifest) -> bool) -> Vec<(Arc<Partition>, Arc<Manifest>)> {
        let with_manifest = |partition: Arc<Partition>| partition.manifest().map(|manifest| (partition, manifest));
        self.partitions().into_iter().filter_map(with_manifest).filter(|(_, manifest)| wanted(manifest)).collect()
    }
}

/// Whether a partition of which nothing can be kept goes as a whole: when it cannot be read, or when space is wanted and there
/// is none for what stays. What is merely old waits for space: its numbers and pinned traces are worth more than an hour.
fn gives_way(error: &StoreError, why: Why) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let is_full =
        matches!(error, StoreError::File { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded));
    error.is_damage() || (is_full && why == Why::Space)
}

/// The directory leaves under another name first, so that a crash cannot leave half a partition behind.
pub(super) fn remove_durably(dir: &Path) -> Result<(), StoreError> {
    let mut leaving = dir.as_os_str().to_owned();
    leaving.push(DROP_SUFFIX);
    let leaving = Path::new(&leaving);
    files::rename(dir, leaving)?;
    files::remove_tree(leaving)
}

/// Finishes what a crash interrupted.
pub(super) fn finish_drops(partitions_dir: &Path) -> Result<(), StoreError> {
    for name in files::entry_names(partitions_dir) {
        if name.strip_suffix(DROP_SUFFIX).and_then(numbers_of).is_some() {
            files::remove_tree(&partitions_dir.join(name))?;
        }
    }
    Ok(())
}
