//! Retention per service: whose spans of a partition stay, and which of several generations a start goes on with.

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::{DurationNanos, UnixNanos};

use super::partition::numbers_of;
use super::remnant::UNFINISHED_SUFFIX;
use super::retention::remove_durably;
use super::{Manifest, Partition, Store, StoreError, files};

/// How long the spans of one service stay, in place of `StoreConfig::retention`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepRule {
    /// `service.name`, in every namespace.
    pub service: String,
    /// Age at which they leave.
    pub keep: DurationNanos,
}

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
        let supersedes =
            |other: &Partition| other.manifest().is_some() && other.numbers().supersede(partition.numbers());
        if found.iter().any(supersedes) {
            remove_durably(partition.dir())?;
        }
    }
    Ok(())
}
