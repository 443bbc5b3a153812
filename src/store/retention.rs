//! Retention removes whole partitions, oldest first, never single spans (`keep` makes smaller partitions of some).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::model::UnixNanos;

use super::partition::{Gone, numbers_of};
use super::{Partition, Store, StoreError, files};

pub(super) const DROP_SUFFIX: &str = ".drop";

impl Store {
    /// Removes sealed partitions that are older than the retention, and the oldest ones while all partitions together
    /// are over the disk budget. Of a partition that holds services with a longer retention, those stay. Returns the
    /// names of what went as a whole.
    ///
    /// One jump of the clock never removes more than the partitions whose newest span is out of retention; the active
    /// partition always stays.
    ///
    /// # Errors
    /// The first one; a partition that cannot be removed or made smaller holds up no other, and is tried again next time.
    pub fn enforce_retention(&self) -> Result<Vec<String>, StoreError> {
        let now = self.clock.now();
        let (mut dropped, mut outcome) = (Vec::new(), Ok(()));
        for partition in self.sealed() {
            let Some(manifest) = partition.manifest() else { continue };
            let staying = self.staying(&manifest, now);
            if manifest.services.iter().all(|count| staying.contains(&count.service)) && 0 < manifest.spans {
                continue;
            }
            outcome = outcome.and(self.let_go(&partition, &staying, "its retention is over", &mut dropped));
        }
        outcome.and(self.enforce_disk_budget(now, &mut dropped)).map(|()| dropped)
    }

    /// Everything before what a rule keeps longer, and each oldest first.
    fn enforce_disk_budget(&self, now: UnixNanos, dropped: &mut Vec<String>) -> Result<(), StoreError> {
        let is_over = || self.config.disk_bytes_max < self.disk_bytes();
        for partition in self.sealed().into_iter().filter(|partition| partition.generation() == 1) {
            if !is_over() {
                return Ok(());
            }
            let Some(manifest) = partition.manifest() else { continue };
            let mut staying = self.staying(&manifest, now);
            staying.retain(|service| self.config.keep.iter().any(|rule| rule.service == *service));
            self.let_go(&partition, &staying, "the disk budget is used up", dropped)?;
        }
        for partition in self.sealed() {
            if !is_over() {
                return Ok(());
            }
            self.let_go(&partition, &BTreeSet::new(), "the disk budget is used up", dropped)?;
        }
        Ok(())
    }

    fn let_go(
        &self,
        partition: &Arc<Partition>,
        staying: &BTreeSet<String>,
        why: &'static str,
        dropped: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        if !staying.is_empty() {
            return self.shrink(partition, staying);
        }
        tracing::info!(partition = partition.name(), why, "partition removed");
        self.state.write().partitions.retain(|known| known.seq() != partition.seq());
        self.open_sealed.lock().retain(|known| known.seq() != partition.seq());
        partition.retire(Gone::Removed);
        remove_durably(partition.dir())?;
        dropped.push(partition.name());
        self.counters.partitions_dropped.add(1);
        Ok(())
    }

    /// Sealed partitions, oldest first.
    fn sealed(&self) -> Vec<Arc<Partition>> {
        self.partitions().into_iter().filter(|partition| partition.manifest().is_some()).collect()
    }
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
