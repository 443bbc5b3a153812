//! A database that proves damaged while its journal is still there is made anew from that journal, while questions go on
//! with what is left of the old one.
//!
//! The new database grows in `store.new/`; then the old one goes to quarantine and the new one takes its name. A crash in
//! between leaves a partition without `store/`, which the next start fills from the journal as well.

use std::path::PathBuf;
use std::sync::Arc;

use crate::model::{SpanBatch, UnixNanos};

use super::head::Head;
use super::partition::Gone;
use super::slots::Counting;
use super::{OpenPartition, Partition, Store, StoreError, files};

/// Directory of a database that is not finished.
pub(super) const UNFINISHED: &str = "store.new";

/// A database that is being filled.
#[derive(Debug)]
pub struct Rebuild {
    open: OpenPartition,
    head: Head,
    dir: PathBuf,
    counting: Counting,
    block_spans: u64,
    block_bytes: usize,
}

impl Rebuild {
    /// Takes the next batch of the journal. Writes a block when there is enough for one.
    ///
    /// # Errors
    /// `Block` or `Engine`.
    pub fn push(&mut self, sequence: u64, arrived: UnixNanos, batch: Arc<SpanBatch>) -> Result<(), StoreError> {
        self.head.push(sequence, arrived, batch);
        if self.block_spans <= self.head.spans() || self.block_bytes <= self.head.memory_bytes() {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let Some(part) = self.head.take() else { return Ok(()) };
        // The spans were counted when they were stored first.
        let written = self.open.write_block(&part, &self.counting)?;
        self.counting.take_over(written.paired);
        Ok(())
    }
}

impl Store {
    /// An empty database for `partition`, whose blocks will have at most `block_spans` spans and about `block_bytes` of
    /// them in memory. Until it is finished, `rebuilding` names the partition.
    ///
    /// # Errors
    /// `Engine` or `File`.
    pub fn begin_rebuild(
        &self,
        partition: &Partition,
        block_spans: u64,
        block_bytes: usize,
    ) -> Result<Rebuild, StoreError> {
        self.state.write().rebuilding = Some(partition.name());
        let dir = partition.dir().join(UNFINISHED);
        files::remove_tree_if_there(&dir)?;
        let open = OpenPartition::growing(&dir, self.config.cache_bytes)?;
        let counting = Counting::new(&self.config.conventions, &self.counters);
        Ok(Rebuild { open, head: Head::default(), dir, counting, block_spans, block_bytes })
    }

    /// Puts the new database in the place of the old one, which goes to quarantine, and returns the partition as it is now.
    ///
    /// # Errors
    /// `Block`, `Engine` or `File`; the old database then stays where it is, or the next start replays the journal.
    pub fn finish_rebuild(&self, old: &Arc<Partition>, mut rebuild: Rebuild) -> Result<Arc<Partition>, StoreError> {
        rebuild.flush()?;
        let Rebuild { open, dir, .. } = rebuild;
        drop(open);
        files::sync_tree(&dir)?;
        old.retire(Gone::Replaced);
        let moved = files::quarantine(&self.config.data_dir, &old.store_dir(), &old.quarantine_label())?;
        files::rename(&dir, &old.store_dir())?;
        let new = Arc::new(old.reopened(&self.config)?);
        self.replace(std::slice::from_ref(old), Some(Arc::clone(&new)));
        let mut state = self.state.write();
        state.quarantined.push(moved);
        state.rebuilding = None;
        self.counters.partitions_quarantined.add(1);
        tracing::warn!(
            partition = new.name(),
            "the database was rebuilt from its journal; the old one is in quarantine"
        );
        Ok(new)
    }
}
