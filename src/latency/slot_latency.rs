//! What one series did in one slot.

use super::SparseHistogram;
use super::exemplar::{Exemplar, keep_chosen};

/// Histogram and exemplars of one series in one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotLatency {
    /// Every latency of the slot.
    pub histogram: SparseHistogram,
    /// Unique and sorted; at most three of each band, and only of buckets that `histogram` counts. `merge` sees to it.
    pub exemplars: Vec<Exemplar>, // <= EXEMPLARS_PER_SLOT_MAX
}

impl SlotLatency {
    /// Makes this what both slots did. Any order and grouping of merges gives the same.
    ///
    /// The slowest exemplar of all is kept. Cost: O(entries + exemplars of both).
    pub fn merge(&mut self, other: &Self) {
        self.histogram.merge(&other.histogram);
        self.exemplars.extend_from_slice(&other.exemplars);
        self.exemplars.retain(|exemplar| self.histogram.contains(exemplar.bucket()));
        keep_chosen(&mut self.exemplars);
    }

    /// Says which block the exemplars of a block's own table are in.
    pub fn place_in(&mut self, block: u32) {
        for exemplar in &mut self.exemplars {
            exemplar.block = block;
        }
    }

    /// Numbers the exemplars' blocks behind `base` others.
    pub fn raise_blocks(&mut self, base: u32) {
        for exemplar in &mut self.exemplars {
            exemplar.block = exemplar.block.saturating_add(base);
        }
    }

    pub(super) fn clear(&mut self) {
        self.histogram.clear();
        self.exemplars.clear();
    }
}
