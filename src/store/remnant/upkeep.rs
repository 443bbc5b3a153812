//! Remnants are looked after: fine roll-ups age out, and neighbours become one, so that a year of hours is no crowd of
//! directories. A few at a time: this is the thread that seals.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::limits::{REMNANT_BYTES_MAX, REWRITES_PER_STEP};
use crate::model::UnixNanos;

use super::super::{Manifest, Partition, Store, StoreError, files};
use super::Plan;

/// A remnant and what merging goes by.
struct Remnant {
    partition: Arc<Partition>,
    manifest: Arc<Manifest>,
    bytes: u64,
    tier: u32,
}

impl Store {
    /// Merges and thins out a few remnants.
    pub(in crate::store) fn tend_remnants(&self, now: UnixNanos) -> Result<(), StoreError> {
        for _ in 0..REWRITES_PER_STEP {
            let runs = self.runs_of_remnants();
            let merge = runs.iter().find_map(|run| mergeable(run, self.config.remnants_merged_at_once));
            let stale = || runs.iter().flatten().find(|remnant| self.is_too_fine(&remnant.manifest, now));
            let chosen: Vec<&Remnant> = match merge {
                Some(some) => some.iter().collect(),
                None => stale().into_iter().collect(),
            };
            if chosen.is_empty() {
                return Ok(());
            }
            self.rewrite_remnants(&chosen, now)?;
        }
        Ok(())
    }

    fn rewrite_remnants(&self, chosen: &[&Remnant], now: UnixNanos) -> Result<(), StoreError> {
        let newest = chosen.iter().map(|remnant| remnant.manifest.max_time).max().unwrap_or_default();
        let coarsest = chosen.iter().filter_map(|remnant| remnant.manifest.finest).max();
        let partitions: Vec<Arc<Partition>> = chosen.iter().map(|remnant| Arc::clone(&remnant.partition)).collect();
        let finest = self.finest_kept(newest, now).max(coarsest);
        let staying = BTreeSet::new();
        self.rewrite(&partitions, &Plan { staying: &staying, finest, only_if_smaller: false }).map(drop)
    }

    fn is_too_fine(&self, manifest: &Manifest, now: UnixNanos) -> bool {
        self.finest_kept(manifest.max_time, now).is_some_and(|kept| manifest.finest.is_some_and(|finest| finest < kept))
    }

    /// Remnants without any other partition between them; a damaged one is left as it is.
    fn runs_of_remnants(&self) -> Vec<Vec<Remnant>> {
        let mut runs = vec![Vec::new()];
        for partition in self.partitions() {
            match partition.manifest().filter(|manifest| manifest.is_remnant() && !partition.has_damage()) {
                Some(manifest) => {
                    let bytes = files::tree_bytes(partition.dir());
                    let tier = tier(partition.last_seq() - partition.seq() + 1, self.config.remnants_merged_at_once);
                    if let Some(run) = runs.last_mut() {
                        run.push(Remnant { partition, manifest, bytes, tier });
                    }
                }
                None => runs.push(Vec::new()),
            }
        }
        runs
    }
}

/// How often as many as are merged at once were merged: each span and slot is so copied a few times at most.
fn tier(partitions: u64, at_once: usize) -> u32 {
    partitions.saturating_sub(1).checked_ilog(at_once.max(2) as u64).map_or(0, |merges| merges + 1)
}

/// As many neighbours of one tier as are merged at once, or fewer where their bytes are enough.
fn mergeable(run: &[Remnant], at_once: usize) -> Option<&[Remnant]> {
    let tiers = run.chunk_by(|a, b| a.tier == b.tier);
    tiers.flat_map(|tier| tier.windows(at_once.max(2))).find_map(|window| {
        let mut bytes = 0;
        let fits = |remnant: &&Remnant| {
            bytes += remnant.bytes;
            bytes <= REMNANT_BYTES_MAX
        };
        let some = window.get(..window.iter().take_while(fits).count())?;
        (1 < some.len()).then_some(some)
    })
}

#[cfg(test)]
mod upkeep_tests {
    use super::*;

    #[test]
    fn a_tier_is_how_often_sixteen_became_one() {
        let tiers: Vec<u32> =
            [1, 2, 16, 17, 256, 257, 4_096].into_iter().map(|partitions| tier(partitions, 16)).collect();
        assert_eq!(tiers, [0, 1, 1, 2, 2, 3, 3]);
    }
}
