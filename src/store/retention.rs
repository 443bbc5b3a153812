//! Retention removes whole partitions, oldest first, never single spans.

use std::path::Path;
use std::sync::Arc;

use super::partition::seq_of;
use super::{Partition, Store, StoreError, files};

const DROP_SUFFIX: &str = ".drop";

impl Store {
    /// Removes sealed partitions that are older than the retention, and the oldest ones while all partitions together
    /// are over the disk budget. Returns the names of what went.
    ///
    /// One jump of the clock never removes more than the partitions whose newest span is out of retention; the active
    /// partition always stays.
    ///
    /// # Errors
    /// `File` when a directory cannot be renamed or removed; the rest is tried again next time.
    pub fn enforce_retention(&self) -> Result<Vec<String>, StoreError> {
        let mut dropped = Vec::new();
        let oldest_kept = self.config.retention.map(|keep| self.clock.now().saturating_sub(keep));
        let mut sealed: Vec<(Arc<Partition>, u64)> = self
            .partitions()
            .into_iter()
            .filter(|partition| partition.manifest().is_some())
            .map(|partition| (Arc::clone(&partition), files::tree_bytes(partition.dir())))
            .collect();
        let mut bytes = self.disk_bytes();
        sealed.sort_by_key(|(partition, _)| partition.seq());
        for (partition, partition_bytes) in sealed {
            let max_time = partition.manifest().map(|manifest| manifest.max_time);
            let expired = matches!((max_time, oldest_kept), (Some(max), Some(oldest)) if max < oldest);
            if expired || self.config.disk_bytes_max < bytes {
                bytes = bytes.saturating_sub(partition_bytes);
                tracing::info!(partition = partition.name(), expired, "partition removed by retention");
                self.drop_partition(&partition)?;
                dropped.push(partition.name());
            }
        }
        Ok(dropped)
    }

    /// The directory leaves under another name first, so that a crash cannot leave half a partition behind.
    fn drop_partition(&self, partition: &Arc<Partition>) -> Result<(), StoreError> {
        self.state.write().partitions.retain(|known| known.seq() != partition.seq());
        self.open_sealed.lock().retain(|known| known.seq() != partition.seq());
        partition.retire();
        let mut leaving = partition.dir().as_os_str().to_owned();
        leaving.push(DROP_SUFFIX);
        let leaving = Path::new(&leaving);
        files::rename(partition.dir(), leaving)?;
        files::remove_tree(leaving)?;
        self.counters.partitions_dropped.add(1);
        Ok(())
    }
}

/// Finishes what a crash interrupted.
pub(super) fn finish_drops(partitions_dir: &Path) -> Result<(), StoreError> {
    for name in files::entry_names(partitions_dir) {
        if name.strip_suffix(DROP_SUFFIX).and_then(seq_of).is_some() {
            files::remove_tree(&partitions_dir.join(name))?;
        }
    }
    Ok(())
}
