//! Writing a table: spans of a block, or slots of other tables.

use super::chunk::{ChunkWriter, N_COLUMNS, PlaceWidths};
use super::directory::{Chunk, Column, Directory};
use super::varint::width_of;
use super::{CHUNK_RAW_BYTES, checksum};
use crate::latency::exemplar::{Exemplar, reservoir_order};
use crate::latency::{Bucket, Resolution, Slot, SlotLatency};
use crate::model::{DurationNanos, UnixNanos};
use std::collections::BTreeMap;

/// zstd level of columns: higher ones gain little on so few bytes.
const ZSTD_LEVEL: i32 = 3;

/// Collects what a table will hold.
///
/// Spans take 48 bytes each until `finish`, which sorts them: the order of `record` does not matter. Slots take what their
/// `SlotLatency` takes, merged as they come.
#[derive(Debug)]
pub struct SlotTableBuilder {
    resolution: Resolution,
    recorded: Vec<Recorded>,
    added: BTreeMap<(u32, Slot), SlotLatency>,
}

/// More than 1 MiB of directory (some thirty thousand chunks), or 4 GiB in all: split the series or the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("latency slots of {chunks} chunks do not fit into one table")]
pub struct TableTooLarge {
    /// Chunks that the table would have.
    pub chunks: usize,
}

/// A span to be counted. The order of the fields is the order they are settled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Recorded {
    series: u32,
    slot: Slot,
    latency: DurationNanos,
    row: u32,
    at: UnixNanos,
    diversity: u64,
}

impl SlotTableBuilder {
    /// A table of slots of `resolution` without any.
    pub fn new(resolution: Resolution) -> Self {
        Self { resolution, recorded: Vec::new(), added: BTreeMap::new() }
    }

    /// How long a slot of this table is.
    pub fn resolution(&self) -> Resolution {
        self.resolution
    }

    /// Counts the span in `row` of the block that the table belongs to; call it once for each row.
    ///
    /// `series` is below `u32::MAX`, `at` the span's `counting_instant`. Spans alike in `diversity` (a hash of error and
    /// peel dimensions) show the same thing: of each band the slowest span and the most recent of the others become
    /// exemplars, and one of the rest, chosen by chance but rather unlike those two.
    pub fn record(&mut self, series: u32, at: UnixNanos, latency: DurationNanos, row: u32, diversity: u64) {
        let slot = self.resolution.slot_of(at);
        self.recorded.push(Recorded { series, slot, latency, row, at, diversity });
    }

    /// Merges a slot, at this table's resolution, of `series` below `u32::MAX`. See `SlotLatency::merge`.
    pub fn add(&mut self, series: u32, slot: Slot, latency: &SlotLatency) {
        self.added.entry((series, slot)).or_default().merge(latency);
    }

    /// The table's bytes. Cost: O(spans log spans + bytes).
    ///
    /// # Errors
    /// `TableTooLarge`; the table of a block never is.
    pub fn finish(mut self) -> Result<Vec<u8>, TableTooLarge> {
        self.recorded.sort_unstable();
        let mut table = TableWriter::new(self.widths());
        let mut latency = SlotLatency::default();
        for spans in self.recorded.chunk_by(|a, b| (a.series, a.slot) == (b.series, b.slot)) {
            let Some(key) = spans.first().map(|span| (span.series, span.slot)) else { continue };
            while let Some(earlier) = self.added.first_entry().filter(|entry| *entry.key() < key) {
                let ((series, slot), latency) = earlier.remove_entry();
                table.push(series, slot, &latency);
            }
            settle(spans, &mut latency);
            if let Some(same) = self.added.remove(&key) {
                latency.merge(&same);
            }
            table.push(key.0, key.1, &latency);
        }
        for ((series, slot), latency) in &self.added {
            table.push(*series, *slot, latency);
        }
        table.finish(self.resolution)
    }

    /// What the largest block and row number need.
    fn widths(&self) -> PlaceWidths {
        let exemplars = || self.added.values().flat_map(|latency| &latency.exemplars);
        let row = exemplars().map(|exemplar| exemplar.row).chain(self.recorded.iter().map(|span| span.row)).max();
        let block = exemplars().map(|exemplar| exemplar.block).max();
        PlaceWidths { block: width_of(block.unwrap_or(0)), row: width_of(row.unwrap_or(0)) }
    }
}

/// Counts the spans of one slot, which are in the order of latency, and chooses its exemplars.
fn settle(spans: &[Recorded], latency: &mut SlotLatency) {
    latency.clear();
    for band in spans.chunk_by(|a, b| Bucket::of(a.latency).band() == Bucket::of(b.latency).band()) {
        for span in band {
            latency.histogram.record(span.latency);
        }
        let Some((slowest, others)) = band.split_last() else { continue };
        let recent = others.iter().max_by_key(|span| (span.at, span.row));
        let likeness = |span: &Recorded| {
            let like = |chosen: &Recorded| u8::from(chosen.diversity == span.diversity);
            like(slowest) + recent.map_or(0, like)
        };
        let pick = others
            .iter()
            .filter(|span| Some(span.row) != recent.map(|recent| recent.row))
            .min_by_key(|span| (likeness(span), reservoir_order(0, span.row)));
        let chosen = [Some(slowest), recent, pick].into_iter().flatten();
        latency.exemplars.extend(chosen.map(|span| Exemplar { latency: span.latency, block: 0, row: span.row }));
    }
    latency.exemplars.sort_unstable();
}

/// Cuts slots into chunks.
struct TableWriter {
    writer: ChunkWriter,
    open: Option<Chunk>, // of what is in `writer`
    chunks: Vec<Chunk>,
    columns: [Vec<u8>; N_COLUMNS],                       // of all chunks so far
    compressor: Option<zstd::bulk::Compressor<'static>>, // without one, chunks are stored as they are
}

impl TableWriter {
    fn new(widths: PlaceWidths) -> Self {
        Self {
            writer: ChunkWriter::new(widths),
            open: None,
            chunks: Vec::new(),
            columns: Default::default(),
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(),
        }
    }

    /// Appends a slot, after all earlier (series, slot); nothing when it counts no latency.
    fn push(&mut self, series: u32, slot: Slot, latency: &SlotLatency) {
        if latency.histogram.entries().is_empty() {
            return;
        }
        let columns = [Column::default(); N_COLUMNS];
        let new = Chunk { first_series: series, last_series: series, min_slot: slot, max_slot: slot, columns };
        let open = self.open.get_or_insert(new);
        open.last_series = series;
        (open.min_slot, open.max_slot) = (open.min_slot.min(slot), open.max_slot.max(slot));
        self.writer.push(series, slot, latency);
        if self.writer.len() >= CHUNK_RAW_BYTES {
            self.cut();
        }
    }

    /// Ends the open chunk; a column is compressed if that makes it smaller.
    fn cut(&mut self) {
        let Some(mut chunk) = self.open.take() else { return };
        let raw_columns = self.writer.columns(chunk.min_slot);
        for ((raw, column), all) in raw_columns.iter().zip(&mut chunk.columns).zip(&mut self.columns) {
            let packed = self.compressor.as_mut().and_then(|compressor| compressor.compress(raw).ok());
            let packed = packed.filter(|packed| packed.len() < raw.len());
            let stored = packed.as_deref().unwrap_or(raw);
            // A column is far below 4 GiB; the sum of all is checked in `finish`.
            column.stored_len = u32::try_from(stored.len()).unwrap_or(u32::MAX);
            column.raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
            column.checksum = checksum(stored);
            all.extend_from_slice(stored);
        }
        self.chunks.push(chunk);
        self.writer.clear();
    }

    fn finish(mut self, resolution: Resolution) -> Result<Vec<u8>, TableTooLarge> {
        self.cut();
        let chunks = self.chunks.len();
        let directory = Directory { resolution, widths: self.writer.widths, chunks: self.chunks };
        let mut bytes = directory.encode().ok_or(TableTooLarge { chunks })?;
        self.columns.iter().for_each(|column| bytes.extend_from_slice(column));
        if u32::try_from(bytes.len()).is_err() {
            return Err(TableTooLarge { chunks });
        }
        Ok(bytes)
    }
}
