//! Latency: HDR histograms, 10-second slots, the exemplars that lead from a bucket to a span, and their roll-ups.
//!
//! A span is counted once, in the slot of its start time (`counting_instant`), as one [`Bucket`] of HdrHistogram's own
//! layout. A [`SlotLatency`] is what one series did in one slot; a slot table (`SlotTableBuilder`, `SlotTableReader`)
//! holds those of one block or of one roll-up window; [`cover`] names the slots that make up a window, and a
//! [`Histogram`] adds them up and answers quantiles.
//!
//! Deliberately absent: what a series id stands for, where tables are stored, files, threads, wall time.

mod bucket;
mod cover;
mod exemplar;
mod histogram;
mod quantile;
mod slot;
mod slot_latency;
mod sparse;
mod table;
#[cfg(test)]
mod tests;

pub use bucket::{Band, Bucket};
pub use cover::cover;
pub use exemplar::{EXEMPLARS_PER_BAND_MAX, EXEMPLARS_PER_SLOT_MAX, Exemplar, keep_chosen};
pub use histogram::{ExportError, Histogram};
pub use quantile::{Quantile, QuantileAnswer, QuantileOutOfRange};
pub use slot::{Resolution, Slot, counting_instant, instant_of};
pub use slot_latency::SlotLatency;
pub use sparse::SparseHistogram;
pub use table::{
    Damaged, EachCounts, EachSlot, Fetch, ReadError, SeriesWanted, SlotTableBuilder, SlotTableReader, TableTooLarge,
    Take,
};
