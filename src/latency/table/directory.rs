//! The front of a table: which chunk holds which series and slots, and where.

use super::chunk::PlaceWidths;
use super::varint::{Cursor, put};
use super::{CHUNK_RAW_BYTES_MAX, DIRECTORY_BYTES_MAX, Damaged, VERSION, checksum};
use crate::latency::{Resolution, Slot};
use std::ops::Range;

/// Bytes before the directory: `version | resolution | directory length:4 BE | checksum:4 BE`.
pub(super) const HEADER_BYTES: u32 = 10;
/// Bytes of the header that the checksum covers, besides the directory.
const HEADER_CHECKED: usize = 6;

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) first_series: u32,
    pub(super) last_series: u32, // >= first_series
    pub(super) min_slot: Slot,
    pub(super) max_slot: Slot,  // >= min_slot
    pub(super) offset: u32,     // bytes, from the start of the table
    pub(super) stored_len: u32, // bytes; equal to raw_len when not compressed
    pub(super) raw_len: u32,    // bytes, <= CHUNK_RAW_BYTES_MAX
    pub(super) checksum: u32,   // of the stored bytes
}

impl Chunk {
    /// Where the stored bytes lie in the table.
    pub(super) fn bytes(&self) -> Range<u32> {
        self.offset..self.offset.saturating_add(self.stored_len)
    }

    /// Whether the chunk may hold a slot in `slots` of a series in `series`.
    pub(super) fn meets(&self, series: &Range<u32>, slots: &Range<Slot>) -> bool {
        let series_meet = self.first_series < series.end && series.start <= self.last_series;
        series_meet && self.min_slot < slots.end && slots.start <= self.max_slot
    }
}

/// All chunks, in the order of (series, slot), which is the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) resolution: Resolution,
    pub(super) widths: PlaceWidths,
    pub(super) chunks: Vec<Chunk>,
}

impl Directory {
    /// Header and directory; `None` when they are larger than a reader accepts. The chunks' offsets are not read.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut body = vec![(self.widths.block << 4) | self.widths.row];
        let base = self.chunks.iter().map(|chunk| chunk.min_slot.0).min().unwrap_or(0);
        put(&mut body, base);
        let mut series = 0;
        for chunk in &self.chunks {
            put(&mut body, chunk.first_series - series);
            put(&mut body, chunk.last_series - chunk.first_series);
            put(&mut body, chunk.min_slot.0 - base);
            put(&mut body, chunk.max_slot.0 - chunk.min_slot.0);
            put(&mut body, chunk.stored_len);
            put(&mut body, chunk.raw_len);
            body.extend(chunk.checksum.to_be_bytes());
            series = chunk.last_series;
        }
        let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= DIRECTORY_BYTES_MAX)?;
        let mut bytes = vec![VERSION, self.resolution as u8];
        bytes.extend(len.to_be_bytes());
        bytes.extend(checksum(&[bytes.as_slice(), &body].concat()).to_be_bytes());
        bytes.extend(body);
        Some(bytes)
    }

    /// Reads the directory behind a `header` that `Header::decode` accepted.
    pub(super) fn decode(header: &Header, body: &[u8]) -> Result<Self, Damaged> {
        if checksum(&[header.checked.as_slice(), body].concat()) != header.checksum {
            return Err(Damaged { what: "checksum of the directory" });
        }
        let mut rest = Cursor(body);
        let widths = rest.byte()?;
        let widths = PlaceWidths { block: widths >> 4, row: widths & 0xf };
        if widths.block > 4 || widths.row > 4 {
            return Err(Damaged { what: "width of a place" });
        }
        let base = rest.u64()?;
        let mut chunks = Vec::new();
        let (mut series, mut offset) = (0, HEADER_BYTES + header.directory_len);
        while !rest.is_empty() {
            let chunk = decode_chunk(&mut rest, series, base, offset).ok_or(Damaged { what: "directory" })?;
            (series, offset) = (chunk.last_series, chunk.bytes().end);
            chunks.push(chunk);
        }
        Ok(Self { resolution: header.resolution, widths, chunks })
    }
}

/// One entry of the directory; `None` when it is cut short or a number in it is out of range.
fn decode_chunk(rest: &mut Cursor<'_>, series: u32, base: u64, offset: u32) -> Option<Chunk> {
    let first_series = series.checked_add(rest.u32().ok()?)?;
    let last_series = first_series.checked_add(rest.u32().ok()?)?;
    let min_slot = base.checked_add(rest.u64().ok()?)?;
    let max_slot = min_slot.checked_add(rest.u64().ok()?)?;
    let (stored_len, raw_len) = (rest.u32().ok()?, rest.u32().ok()?);
    let checksum = rest.u32_be().ok()?;
    let (min_slot, max_slot) = (Slot(min_slot), Slot(max_slot));
    let _end = offset.checked_add(stored_len)?;
    let sane = stored_len <= raw_len && usize::try_from(raw_len).is_ok_and(|len| len <= CHUNK_RAW_BYTES_MAX);
    sane.then_some(Chunk { first_series, last_series, min_slot, max_slot, offset, stored_len, raw_len, checksum })
}

/// The first bytes of a table.
pub(super) struct Header {
    resolution: Resolution,
    pub(super) directory_len: u32, // bytes, <= DIRECTORY_BYTES_MAX
    checksum: u32,
    checked: [u8; HEADER_CHECKED],
}

impl Header {
    /// Reads `HEADER_BYTES` bytes of a table whose version is known.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let checked = *bytes.first_chunk().ok_or(Damaged { what: "cut short" })?;
        let mut rest = Cursor(bytes);
        let _version = rest.byte()?;
        let resolution = Resolution::from_code(rest.byte()?).ok_or(Damaged { what: "unknown resolution" })?;
        let directory_len = rest.u32_be()?;
        if usize::try_from(directory_len).map_or(true, |len| len > DIRECTORY_BYTES_MAX) {
            return Err(Damaged { what: "directory too large" });
        }
        Ok(Self { resolution, directory_len, checksum: rest.u32_be()?, checked })
    }
}
