//! The front of a table: which chunk holds which series and slots, and where.

use super::chunk::{N_COLUMNS, PlaceWidths};
use super::varint::{Cursor, put};
use super::{COLUMN_RAW_BYTES_MAX, DIRECTORY_BYTES_MAX, Damaged, VERSION, checksum};
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
    pub(super) max_slot: Slot, // >= min_slot
    pub(super) columns: [Column; N_COLUMNS],
}

/// One column of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) offset: u32,     // bytes, from the start of the table
    pub(super) stored_len: u32, // bytes; equal to raw_len when not compressed
    pub(super) raw_len: u32,    // bytes, <= COLUMN_RAW_BYTES_MAX
    pub(super) checksum: u32,   // of the stored bytes
}

impl Column {
    /// Where the stored bytes lie in the table.
    pub(super) fn bytes(&self) -> Range<u32> {
        self.offset..self.offset.saturating_add(self.stored_len)
    }
}

impl Chunk {
    /// Whether the chunk may hold a slot in `slots` of a series in `series`.
    pub(super) fn meets(&self, series: &Range<u32>, slots: &Range<Slot>) -> bool {
        let series_meet = self.first_series < series.end && series.start <= self.last_series;
        series_meet && self.min_slot < slots.end && slots.start <= self.max_slot
    }
}

/// All chunks, in the order of (series, slot). The first columns of all of them lie one behind the other, then the second ones,
/// then the third.
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
            for column in &chunk.columns {
                put(&mut body, column.stored_len);
                put(&mut body, column.raw_len);
                body.extend(column.checksum.to_be_bytes());
            }
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
        let mut series = 0;
        while !rest.is_empty() {
            let chunk = decode_chunk(&mut rest, series, base).ok_or(Damaged { what: "directory" })?;
            series = chunk.last_series;
            chunks.push(chunk);
        }
        let end = place_columns(&mut chunks, HEADER_BYTES + header.directory_len);
        let _end = end.ok_or(Damaged { what: "directory" })?;
        Ok(Self { resolution: header.resolution, widths, chunks })
    }
}

/// Says where the columns lie that begin at `offset`; gives where they end, `None` behind 4 GiB.
fn place_columns(chunks: &mut [Chunk], offset: u32) -> Option<u32> {
    let mut offset = offset;
    for number in 0..N_COLUMNS {
        for column in chunks.iter_mut().filter_map(|chunk| chunk.columns.get_mut(number)) {
            column.offset = offset;
            offset = offset.checked_add(column.stored_len)?;
        }
    }
    Some(offset)
}

/// One entry of the directory; `None` when it is cut short or a number in it is out of range.
fn decode_chunk(rest: &mut Cursor<'_>, series: u32, base: u64) -> Option<Chunk> {
    let first_series = series.checked_add(rest.u32().ok()?)?;
    let last_series = first_series.checked_add(rest.u32().ok()?)?;
    let min_slot = base.checked_add(rest.u64().ok()?)?;
    let max_slot = min_slot.checked_add(rest.u64().ok()?)?;
    let mut columns = [Column::default(); N_COLUMNS];
    for column in &mut columns {
        let (stored_len, raw_len) = (rest.u32().ok()?, rest.u32().ok()?);
        *column = Column { offset: 0, stored_len, raw_len, checksum: rest.u32_be().ok()? };
        let is_sane = stored_len <= raw_len && usize::try_from(raw_len).is_ok_and(|len| len <= COLUMN_RAW_BYTES_MAX);
        is_sane.then_some(())?;
    }
    Some(Chunk { first_series, last_series, min_slot: Slot(min_slot), max_slot: Slot(max_slot), columns })
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
