//! Reading a table, or the few chunks of it that a question needs.

use super::chunk::{N_COLUMNS, PlaceWidths, Run, RunReader, SlotReader};
use super::directory::{Chunk, Column, Directory, HEADER_BYTES, Header};
use super::varint::Cursor;
use super::{Damaged, VERSION, checksum};
use crate::latency::{Resolution, Slot, SlotLatency};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use zstd::bulk::Decompressor;

/// Chunks of which a column is fetched in one piece.
const FETCHED_AT_ONCE: usize = 16;

/// Gives the bytes of a range of the table: exactly so many, or an error.
pub type Fetch<'a, E> = dyn Fn(Range<u32>) -> Result<Vec<u8>, E> + 'a;

/// Sees the slots of one series in one chunk: each with how many latencies it counts, ascending. A series may come again.
pub type EachCounts<'a> = &'a mut dyn FnMut(u32, &[(Slot, u64)]);

/// Sees one slot of one series. The `SlotLatency` is one buffer used again and again: it may be altered, and what is kept is
/// cloned.
pub type EachSlot<'a> = &'a mut dyn FnMut(u32, Slot, &mut SlotLatency);

/// What is read of each slot: what is not taken is neither fetched nor unpacked. All come in the order of (series, slot).
pub enum Take<'a> {
    /// Counts alone.
    Counts(EachCounts<'a>),
    /// Histograms; the exemplars are left empty.
    Histograms(EachSlot<'a>),
    /// Histograms and exemplars.
    Exemplars(EachSlot<'a>),
}

impl std::fmt::Debug for Take<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Counts(_) => "Counts",
            Self::Histograms(_) => "Histograms",
            Self::Exemplars(_) => "Exemplars",
        })
    }
}

impl Take<'_> {
    /// The same for a reader of other slots, each of which `of` makes one of ours; several in a row may be the same.
    pub fn with_slots<R>(&mut self, of: &dyn Fn(Slot) -> Slot, read: impl FnOnce(Take<'_>) -> R) -> R {
        match self {
            Self::Counts(each) => {
                let mut ours = Vec::new();
                read(Take::Counts(&mut |series, counts| {
                    ours.clear();
                    ours.extend(counts.iter().map(|(slot, count)| (of(*slot), *count)));
                    each(series, &ours);
                }))
            }
            Self::Histograms(each) => {
                read(Take::Histograms(&mut |series, slot, latency| each(series, of(slot), latency)))
            }
            Self::Exemplars(each) => {
                read(Take::Exemplars(&mut |series, slot, latency| each(series, of(slot), latency)))
            }
        }
    }

    /// How many columns that needs.
    fn columns(&self) -> usize {
        match self {
            Self::Counts(_) => 1,
            Self::Histograms(_) => 2,
            Self::Exemplars(_) => N_COLUMNS,
        }
    }
}

/// Which series of a table are read.
#[derive(Clone, Debug)]
pub enum SeriesWanted<'a> {
    /// Neighbours.
    Within(Range<u32>),
    /// These, which ascend.
    Chosen(&'a [u32]),
}

impl SeriesWanted<'_> {
    /// Every one.
    pub const ALL: Self = Self::Within(0..u32::MAX);

    fn takes(&self, id: u32) -> bool {
        match self {
            Self::Within(series) => series.contains(&id),
            Self::Chosen(chosen) => chosen.binary_search(&id).is_ok(),
        }
    }

    /// Whether a chunk may hold slots of them.
    fn meets(&self, chunk: &Chunk, slots: &Range<Slot>) -> bool {
        match self {
            Self::Within(series) => chunk.meets(series, slots),
            Self::Chosen(chosen) => {
                let first = chosen.get(chosen.partition_point(|id| *id < chunk.first_series));
                first.is_some_and(|first| chunk.meets(&(*first..first.saturating_add(1)), slots))
            }
        }
    }
}

/// A table that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E: std::error::Error + 'static> {
    /// The bytes could not be had.
    #[error("latency slots could not be fetched")]
    Fetch(#[source] E),
    /// Written by a newer program, or no slot table at all.
    #[error("latency slots have version {found}, this program reads {VERSION}")]
    Version {
        /// The first byte.
        found: u8,
    },
    /// The bytes are not what was written.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// The directory of a table: a few dozen bytes for each 16 KiB of slots.
#[derive(Clone, Debug)]
pub struct SlotTableReader {
    directory: Directory,
}

impl SlotTableReader {
    /// Fetches the directory: two small ranges at the front of the table.
    ///
    /// # Errors
    /// `Fetch`, `Version`, `Damaged`.
    pub fn open<E: std::error::Error + 'static>(fetch: &Fetch<'_, E>) -> Result<Self, ReadError<E>> {
        let header = fetch_exactly(fetch, 0..HEADER_BYTES)?;
        match header.first() {
            Some(&VERSION) => {}
            found => return Err(ReadError::Version { found: found.copied().unwrap_or(0) }),
        }
        let header = Header::decode(&header)?;
        let body = fetch_exactly(fetch, HEADER_BYTES..HEADER_BYTES + header.directory_len)?;
        Ok(Self { directory: Directory::decode(&header, &body)? })
    }

    /// How long a slot of this table is.
    pub fn resolution(&self) -> Resolution {
        self.directory.resolution
    }

    /// The least range that all slots lie in; `None` for a table without any.
    pub fn slots(&self) -> Option<Range<Slot>> {
        let min = self.directory.chunks.iter().map(|chunk| chunk.min_slot).min()?;
        let max = self.directory.chunks.iter().map(|chunk| chunk.max_slot).max()?;
        Some(min..Slot(max.0.saturating_add(1)))
    }

    /// Gives `take` every slot in `slots` of the wanted series. Fetches the chunks that may hold such slots, neighbours in one
    /// piece, and no others.
    ///
    /// # Errors
    /// `Fetch`, `Damaged`; `take` has then seen the slots before that chunk, and perhaps some of it.
    pub fn read<E: std::error::Error + 'static>(
        &self,
        fetch: &Fetch<'_, E>,
        series: &SeriesWanted<'_>,
        slots: Range<Slot>,
        mut take: Take<'_>,
    ) -> Result<(), ReadError<E>> {
        let (run, latency) = Default::default();
        let mut reader = ChunkReader { widths: self.directory.widths, series, slots: slots.clone(), run, latency };
        let mut chunks = self.directory.chunks.as_slice();
        let meets = |chunk: &Chunk| series.meets(chunk, &slots);
        while let Some(start) = chunks.iter().position(meets) {
            let run = chunks.get(start..).unwrap_or_default();
            let run_len = run.iter().take(FETCHED_AT_ONCE).take_while(|chunk| meets(chunk)).count();
            let (run, rest) = run.split_at_checked(run_len).unwrap_or_default();
            chunks = rest;
            let mut fetched: [Vec<u8>; N_COLUMNS] = Default::default();
            for (number, bytes) in fetched.iter_mut().enumerate().take(take.columns()) {
                let end = |chunk: Option<&Chunk>| chunk.and_then(|chunk| chunk.columns.get(number)).map(Column::bytes);
                let (Some(first), Some(last)) = (end(run.first()), end(run.last())) else { continue };
                *bytes = fetch_exactly(fetch, first.start..last.end)?;
            }
            let mut rest = fetched.each_ref().map(Vec::as_slice);
            for chunk in run {
                reader.read(chunk, &mut rest, &mut take)?;
            }
        }
        Ok(())
    }
}

struct ChunkReader<'a> {
    widths: PlaceWidths,
    series: &'a SeriesWanted<'a>,
    slots: Range<Slot>,
    run: Run,
    latency: SlotLatency,
}

impl ChunkReader<'_> {
    /// Reads one chunk, whose columns stand in front of `fetched`, and takes them away there.
    fn read(&mut self, chunk: &Chunk, fetched: &mut [&[u8]; N_COLUMNS], take: &mut Take<'_>) -> Result<(), Damaged> {
        let mut raw: [Cow<'_, [u8]>; N_COLUMNS] = Default::default();
        for ((column, rest), raw) in chunk.columns.iter().zip(fetched).zip(&mut raw).take(take.columns()) {
            let (stored, behind) = rest.split_at_checked(column.stored_len as usize).unwrap_or_default();
            *rest = behind;
            *raw = unpack(column, stored)?;
        }
        let [counts, buckets, exemplars] = raw.each_ref().map(|column| Cursor(column));
        let mut runs = RunReader::new(counts, chunk.min_slot);
        let exemplars = matches!(take, Take::Exemplars(_)).then_some(exemplars);
        let mut reader = SlotReader { widths: self.widths, buckets, exemplars };
        let (run, latency) = (&mut self.run, &mut self.latency);
        while runs.next(run)? {
            let is_inside = run.series <= chunk.last_series && chunk.first_series <= run.series;
            if !is_inside || run.slots.last().is_some_and(|(last, _)| chunk.max_slot < *last) {
                return Err(Damaged { what: "slot outside its chunk" });
            }
            let is_wanted = self.series.takes(run.series);
            match (&mut *take, run.lens) {
                (Take::Counts(each), _) if is_wanted => each(run.series, within(&run.slots, &self.slots)),
                (Take::Counts(_), _) => {}
                (_, Some(lens)) if !is_wanted => reader.pass(lens)?,
                (Take::Histograms(each) | Take::Exemplars(each), _) => {
                    for (slot, count) in &run.slots {
                        reader.read(*count, latency)?;
                        if is_wanted && self.slots.contains(slot) {
                            each(run.series, *slot, latency);
                        }
                    }
                }
            }
        }
        if matches!(take, Take::Counts(_)) { Ok(()) } else { reader.finish() }
    }
}

/// Those that lie in a range.
fn within<'a>(slots: &'a [(Slot, u64)], range: &Range<Slot>) -> &'a [(Slot, u64)] {
    let place = |at: Slot| slots.partition_point(|(slot, _)| *slot < at);
    slots.get(place(range.start)..place(range.end)).unwrap_or_default()
}

fn fetch_exactly<E: std::error::Error + 'static>(
    fetch: &Fetch<'_, E>,
    range: Range<u32>,
) -> Result<Vec<u8>, ReadError<E>> {
    let bytes = fetch(range.clone()).map_err(ReadError::Fetch)?;
    if u32::try_from(bytes.len()).ok() != range.end.checked_sub(range.start) {
        return Err(Damaged { what: "cut short" }.into());
    }
    Ok(bytes)
}

/// A question reads dozens of chunks: making a context for each would cost as much as reading them.
fn decompress(stored: &[u8], capacity: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static ZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    ZSTD.with_borrow_mut(|zstd| match zstd {
        Some(zstd) => zstd.decompress(stored, capacity),
        None => zstd.insert(Decompressor::new()?).decompress(stored, capacity),
    })
}

/// The column as it was before compression.
fn unpack<'a>(column: &Column, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, Damaged> {
    if checksum(stored) != column.checksum {
        return Err(Damaged { what: "checksum of a chunk" });
    }
    if column.stored_len == column.raw_len {
        return Ok(Cow::Borrowed(stored));
    }
    let capacity = usize::try_from(column.raw_len).map_err(|_| Damaged { what: "chunk too large" })?;
    let raw = decompress(stored, capacity).map_err(|_| Damaged { what: "compressed chunk" })?;
    if raw.len() == capacity { Ok(Cow::Owned(raw)) } else { Err(Damaged { what: "length of a chunk" }) }
}
