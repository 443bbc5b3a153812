//! Exemplars: which spans stand for the latencies of a slot.
//!
//! Of each [`Band`](super::Band) at most three are kept: the slowest, the most recent of the others, and one pick of the
//! rest. Taking the maximum of one total order, removing it, then of the next order, and so on, chooses the same spans
//! however the candidates were split and merged on the way: whatever wins in the whole wins in every part it was in.
//!
//! Time and diversity are known only where spans are counted, so a merge of slots has orders of its own, over what an
//! exemplar says of itself: slowest is the highest (latency, block, row), most recent the highest (block, row), as blocks
//! are numbered in the order of arrival.

use super::{Band, Bucket};
use crate::model::DurationNanos;

/// Exemplars of one band in one slot.
pub const EXEMPLARS_PER_BAND_MAX: usize = 3;
/// Exemplars of one slot: reached only by latencies spread over all octaves from 512 ns to 73 minutes.
pub const EXEMPLARS_PER_SLOT_MAX: usize = EXEMPLARS_PER_BAND_MAX * Band::COUNT;

/// A span by its place, and its latency. Ordered by (latency, block, row).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exemplar {
    /// The span's latency, exact; the count of its bucket is never 0.
    pub latency: DurationNanos,
    /// The block that holds the span; 0 inside a block's own table. One number means one block among all that are merged.
    pub block: u32,
    /// Row of the span in the block.
    pub row: u32,
}

impl Exemplar {
    /// The bucket that the span is counted in.
    pub fn bucket(&self) -> Bucket {
        Bucket::of(self.latency)
    }

    fn place(&self) -> (u32, u32) {
        (self.block, self.row)
    }
}

/// Order of the reservoir: the lowest wins. As good as random, yet the same at every replay and in every merge.
///
/// It depends on nothing but the span's place: were the slot a part of it, minutes made of ten seconds and then of hours
/// would choose otherwise than hours made of ten seconds at once.
pub(super) fn reservoir_order(block: u32, row: u32) -> u64 {
    // The finalizer of SplitMix64, a bijection: two places never tie.
    let mut mixed = ((u64::from(block) << 32) | u64::from(row)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Applies the rule for merged slots: sorts, drops repeats, keeps at most `EXEMPLARS_PER_BAND_MAX` of each band.
pub fn keep_chosen(exemplars: &mut Vec<Exemplar>) {
    exemplars.sort_unstable();
    exemplars.dedup();
    let mut kept = 0;
    let mut seen = 0;
    while let Some(rest) = exemplars.get(seen..).filter(|rest| !rest.is_empty()) {
        let band = rest.chunk_by(|a, b| a.bucket().band() == b.bucket().band()).next().unwrap_or(rest);
        let chosen = choose(band);
        seen += band.len();
        for exemplar in chosen.into_iter().flatten() {
            if let Some(place) = exemplars.get_mut(kept) {
                *place = exemplar;
                kept += 1;
            }
        }
    }
    exemplars.truncate(kept);
}

/// At most three of the exemplars of one band, which are sorted; so is the answer.
fn choose(band: &[Exemplar]) -> [Option<Exemplar>; EXEMPLARS_PER_BAND_MAX] {
    let slowest = band.last();
    let others = || band.iter().filter(|one| Some(*one) != slowest);
    let recent = others().max_by_key(|one| one.place());
    let pick = others().filter(|one| Some(*one) != recent).min_by_key(|one| reservoir_order(one.block, one.row));
    let mut chosen = [slowest.copied(), recent.copied(), pick.copied()];
    chosen.sort_unstable();
    chosen
}
