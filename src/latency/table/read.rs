//! Reading a table, or the few chunks of it that a question needs.

use super::chunk::{ChunkReader, PlaceWidths};
use super::directory::{Chunk, Directory, HEADER_BYTES, Header};
use super::{Damaged, VERSION, checksum};
use crate::latency::{Resolution, Slot, SlotLatency};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use zstd::bulk::Decompressor;

/// Chunks of about 8 KiB that are fetched in one piece.
const FETCHED_AT_ONCE: usize = 32;

/// Gives the bytes of a range of the table: exactly so many, or an error.
pub type Fetch<'a, E> = dyn Fn(Range<u32>) -> Result<Vec<u8>, E> + 'a;

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

/// The directory of a table: a few dozen bytes for each 8 KiB of slots.
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

    /// Calls `each` for every slot in `slots` of a series in `series`, in the order of (series, slot).
    ///
    /// The `SlotLatency` is one buffer used again and again: `each` may alter it, and clones what it keeps. Fetches the
    /// chunks that may hold such slots, neighbours in one piece, and no others.
    ///
    /// # Errors
    /// `Fetch`, `Damaged`; `each` has then seen the slots before that chunk, and perhaps some of it.
    pub fn read<E: std::error::Error + 'static>(
        &self,
        fetch: &Fetch<'_, E>,
        series: Range<u32>,
        slots: Range<Slot>,
        each: &mut dyn FnMut(u32, Slot, &mut SlotLatency),
    ) -> Result<(), ReadError<E>> {
        let meets = |chunk: &Chunk| chunk.meets(&series, &slots);
        self.read_where(fetch, &meets, &|id, slot| series.contains(&id) && slots.contains(&slot), each)
    }

    /// The same for the series in `chosen`, which ascend. Of the others in the same chunks nothing is unpacked.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_chosen<E: std::error::Error + 'static>(
        &self,
        fetch: &Fetch<'_, E>,
        chosen: &[u32],
        slots: Range<Slot>,
        each: &mut dyn FnMut(u32, Slot, &mut SlotLatency),
    ) -> Result<(), ReadError<E>> {
        let meets = |chunk: &Chunk| {
            let first = chosen.get(chosen.partition_point(|id| *id < chunk.first_series));
            first.is_some_and(|first| chunk.meets(&(*first..first.saturating_add(1)), &slots))
        };
        let wanted = |id, slot: Slot| slots.contains(&slot) && chosen.binary_search(&id).is_ok();
        self.read_where(fetch, &meets, &wanted, each)
    }

    fn read_where<E: std::error::Error + 'static>(
        &self,
        fetch: &Fetch<'_, E>,
        meets: &dyn Fn(&Chunk) -> bool,
        wanted: &dyn Fn(u32, Slot) -> bool,
        each: &mut dyn FnMut(u32, Slot, &mut SlotLatency),
    ) -> Result<(), ReadError<E>> {
        let mut latency = SlotLatency::default();
        let mut chunks = self.directory.chunks.as_slice();
        while let Some(start) = chunks.iter().position(meets) {
            let run = chunks.get(start..).unwrap_or_default();
            let run_len = run.iter().take(FETCHED_AT_ONCE).take_while(|chunk| meets(chunk)).count();
            let (run, rest) = run.split_at_checked(run_len).unwrap_or_default();
            chunks = rest;
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let fetched = fetch_exactly(fetch, first.offset..last.bytes().end)?;
            let mut bytes = fetched.as_slice();
            for chunk in run {
                let (stored, behind) = bytes.split_at_checked(chunk.stored_len as usize).unwrap_or_default();
                bytes = behind;
                read_chunk(chunk, stored, self.directory.widths, wanted, &mut latency, each)?;
            }
        }
        Ok(())
    }
}

fn read_chunk(
    chunk: &Chunk,
    stored: &[u8],
    widths: PlaceWidths,
    wanted: &dyn Fn(u32, Slot) -> bool,
    latency: &mut SlotLatency,
    each: &mut dyn FnMut(u32, Slot, &mut SlotLatency),
) -> Result<(), Damaged> {
    let raw = unpack(chunk, stored)?;
    let mut reader = ChunkReader::new(&raw, widths);
    let mut wanted = |id: u32, slot: Slot| {
        if id < chunk.first_series || chunk.last_series < id || slot < chunk.min_slot || chunk.max_slot < slot {
            return Err(Damaged { what: "slot outside its chunk" });
        }
        Ok(wanted(id, slot))
    };
    while let Some((id, slot)) = reader.next(&mut wanted, latency)? {
        each(id, slot, latency);
    }
    Ok(())
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

/// The chunk as it was before compression.
fn unpack<'a>(chunk: &Chunk, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, Damaged> {
    if checksum(stored) != chunk.checksum {
        return Err(Damaged { what: "checksum of a chunk" });
    }
    if chunk.stored_len == chunk.raw_len {
        return Ok(Cow::Borrowed(stored));
    }
    let capacity = usize::try_from(chunk.raw_len).map_err(|_| Damaged { what: "chunk too large" })?;
    let raw = decompress(stored, capacity).map_err(|_| Damaged { what: "compressed chunk" })?;
    if raw.len() == capacity { Ok(Cow::Owned(raw)) } else { Err(Damaged { what: "length of a chunk" }) }
}
