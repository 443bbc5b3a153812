//! The inside of a chunk: slots in the order of (series, slot), each told by its difference from the one before.

use super::Damaged;
use super::varint::{Cursor, put, put_fixed, unzigzag, zigzag};
use crate::latency::exemplar::EXEMPLARS_PER_BAND_MAX;
use crate::latency::{Bucket, Exemplar, Slot, SlotLatency};
use crate::model::DurationNanos;

/// Lowest bit of a slot's tag: one span and its exemplar, nothing else.
const SINGLE: u128 = 1;
/// Lowest bit of an entry's code: its count is 2 or more and follows.
const MANY: u64 = 1;
/// Bits of an entry's code for the number of its exemplars.
const EXEMPLARS_MASK: u64 = 0b11;

const _: () =
    assert!(EXEMPLARS_PER_BAND_MAX <= 3, "an entry has two bits for its exemplars, and a bucket is in one band");

/// Bytes of the fields of a place, the same throughout a table. Each in `[0, 4]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlaceWidths {
    pub(super) block: u8,
    pub(super) row: u8,
}

/// Writes the slots of one chunk.
pub(super) struct ChunkWriter {
    pub(super) widths: PlaceWidths,
    pub(super) raw: Vec<u8>,
    next_series: u64,
    slot: u64,
}

impl ChunkWriter {
    pub(super) fn new(widths: PlaceWidths) -> Self {
        Self { widths, raw: Vec::new(), next_series: 0, slot: 0 }
    }

    /// Begins the next chunk; the memory is kept.
    pub(super) fn clear(&mut self) {
        self.raw.clear();
        (self.next_series, self.slot) = (0, 0);
    }

    /// Appends a slot with at least one latency, after all earlier (series, slot).
    pub(super) fn push(&mut self, series: u32, slot: Slot, latency: &SlotLatency) {
        let series = u64::from(series);
        let single = single(latency);
        let flag = if single.is_some() { SINGLE } else { 0 };
        let change = zigzag(i128::from(slot.0) - i128::from(self.slot)) << 3;
        if series + 1 == self.next_series {
            put(&mut self.raw, (u128::from(slot.0 - self.slot - 1) << 3) | flag);
        } else if series == self.next_series {
            put(&mut self.raw, change | (1 << 1) | flag);
        } else {
            put(&mut self.raw, change | (2 << 1) | flag);
            put(&mut self.raw, series - self.next_series - 1);
        }
        (self.next_series, self.slot) = (series + 1, slot.0);
        match single {
            Some((length, exemplar)) => {
                put(&mut self.raw, length);
                self.put_place(exemplar);
            }
            None => self.put_general(latency),
        }
    }

    fn put_general(&mut self, latency: &SlotLatency) {
        let entries = latency.histogram.entries();
        put(&mut self.raw, entries.len().saturating_sub(1) as u64);
        let mut exemplars = latency.exemplars.iter().peekable();
        let mut next_bucket = 0;
        for (bucket, count) in entries {
            let index = u64::from(bucket.index());
            let of_bucket: [Option<&Exemplar>; EXEMPLARS_PER_BAND_MAX] =
                std::array::from_fn(|_| exemplars.next_if(|exemplar| exemplar.bucket() == *bucket));
            let exemplar_count = of_bucket.iter().flatten().count() as u64;
            let many = if *count > 1 { MANY } else { 0 };
            put(&mut self.raw, ((index - next_bucket) << 3) | (exemplar_count << 1) | many);
            if *count > 1 {
                put(&mut self.raw, *count - 2);
            }
            for exemplar in of_bucket.into_iter().flatten() {
                put(&mut self.raw, exemplar.latency.0 - bucket.low().0);
                self.put_place(exemplar);
            }
            next_bucket = index + 1;
        }
        debug_assert!(exemplars.next().is_none(), "exemplars are sorted, and their buckets counted");
        put(&mut self.raw, latency.histogram.sum_ns().saturating_sub(latency.histogram.sum_of_lows()));
        if entries.last().is_some_and(|(bucket, _)| *bucket == Bucket::TOP) {
            put(&mut self.raw, latency.histogram.saturated());
        }
    }

    fn put_place(&mut self, exemplar: &Exemplar) {
        put_fixed(&mut self.raw, exemplar.block, self.widths.block);
        put_fixed(&mut self.raw, exemplar.row, self.widths.row);
    }
}

/// The exact latency and the exemplar of a slot that is nothing but those.
fn single(latency: &SlotLatency) -> Option<(u64, &Exemplar)> {
    match (latency.histogram.entries(), latency.exemplars.as_slice()) {
        ([(_, 1)], [exemplar]) => u64::try_from(latency.histogram.sum_ns()).ok().map(|length| (length, exemplar)),
        _ => None,
    }
}

/// Reads the slots of one chunk into a `SlotLatency` that is used again and again.
pub(super) struct ChunkReader<'a> {
    widths: PlaceWidths,
    rest: Cursor<'a>,
    next_series: u64,
    slot: u64,
}

impl<'a> ChunkReader<'a> {
    pub(super) fn new(raw: &'a [u8], widths: PlaceWidths) -> Self {
        Self { widths, rest: Cursor(raw), next_series: 0, slot: 0 }
    }

    /// The next slot that `wanted` names, its contents in `latency`; `None` at the end. The others are passed over: only
    /// their numbers' lengths are looked at.
    pub(super) fn next(
        &mut self,
        wanted: &mut dyn FnMut(u32, Slot) -> Result<bool, Damaged>,
        latency: &mut SlotLatency,
    ) -> Result<Option<(u32, Slot)>, Damaged> {
        while !self.rest.is_empty() {
            let tag = self.rest.u128()?;
            let series = self.step(tag)?;
            let slot = Slot(self.slot);
            match (wanted(series, slot)?, tag & SINGLE == SINGLE) {
                (false, true) => self.pass_single()?,
                (false, false) => self.pass_general()?,
                (true, is_single) => {
                    latency.clear();
                    if is_single {
                        self.single(latency)?;
                    } else {
                        self.general(latency)?;
                    }
                    return Ok(Some((series, slot)));
                }
            }
        }
        Ok(None)
    }

    /// Moves on to the series and slot that `tag` names.
    fn step(&mut self, tag: u128) -> Result<u32, Damaged> {
        let gap = tag >> 3;
        let (series, slot) = match (tag >> 1) & 3 {
            0 => {
                let series = self.next_series.checked_sub(1).ok_or(Damaged { what: "no series before" })?;
                (series, u128::from(self.slot).checked_add(gap + 1))
            }
            1 => (self.next_series, u128::from(self.slot).checked_add_signed(unzigzag(gap))),
            2 => {
                let skipped = u64::from(self.rest.u32()?);
                (self.next_series + 1 + skipped, u128::from(self.slot).checked_add_signed(unzigzag(gap)))
            }
            _ => return Err(Damaged { what: "unknown kind of slot" }),
        };
        let slot = slot.and_then(|slot| u64::try_from(slot).ok()).ok_or(Damaged { what: "slot out of range" })?;
        (self.next_series, self.slot) = (series + 1, slot);
        u32::try_from(series).map_err(|_| Damaged { what: "series out of range" })
    }

    fn single(&mut self, latency: &mut SlotLatency) -> Result<(), Damaged> {
        let length = DurationNanos(self.rest.u64()?);
        latency.histogram.record(length);
        let exemplar = self.place(length)?;
        latency.exemplars.push(exemplar);
        Ok(())
    }

    fn pass_single(&mut self) -> Result<(), Damaged> {
        self.rest.pass_numbers(1)?;
        self.pass_place()
    }

    fn pass_general(&mut self) -> Result<(), Damaged> {
        let entries = self.rest.u64()?;
        let mut bucket = 0_u64;
        for _ in 0..=entries {
            let code = self.rest.u64()?;
            bucket = bucket.wrapping_add(code >> 3).wrapping_add(1);
            self.rest.pass_numbers(usize::from(code & MANY == MANY))?;
            for _ in 0..(code >> 1) & EXEMPLARS_MASK {
                self.rest.pass_numbers(1)?;
                self.pass_place()?;
            }
        }
        // The sum, and of the top bucket how much of it is longer.
        let top = u64::from(Bucket::TOP.index()) + 1;
        self.rest.pass_numbers(if bucket == top { 2 } else { 1 })
    }

    fn pass_place(&mut self) -> Result<(), Damaged> {
        self.rest.bytes(usize::from(self.widths.block + self.widths.row)).map(drop)
    }

    fn general(&mut self, latency: &mut SlotLatency) -> Result<(), Damaged> {
        let entries = self.rest.u64()?.checked_add(1).filter(|entries| *entries <= Bucket::COUNT as u64);
        let (mut next_bucket, mut total) = (0_u64, 0_u64);
        let mut top_count = 0;
        for _ in 0..entries.ok_or(Damaged { what: "too many buckets" })? {
            let code = self.rest.u64()?;
            let index = next_bucket.checked_add(code >> 3);
            let bucket = index.and_then(Bucket::from_index).ok_or(Damaged { what: "unknown bucket" })?;
            let more = if code & MANY == MANY { self.rest.u64()?.checked_add(1) } else { Some(0) };
            let count = more.and_then(|more| more.checked_add(1)).ok_or(Damaged { what: "count out of range" })?;
            total = total.checked_add(count).ok_or(Damaged { what: "count out of range" })?;
            latency.histogram.push(bucket, count);
            self.exemplars(bucket, (code >> 1) & EXEMPLARS_MASK, latency)?;
            next_bucket = u64::from(bucket.index()) + 1;
            top_count = if bucket == Bucket::TOP { count } else { 0 };
        }
        let above_lows = self.rest.u128()?;
        let sum_ns = latency.histogram.sum_of_lows().checked_add(above_lows);
        let saturated = if top_count > 0 { self.rest.u64()? } else { 0 };
        if saturated > top_count {
            return Err(Damaged { what: "more saturated than counted" });
        }
        latency.histogram.set_totals(sum_ns.ok_or(Damaged { what: "sum out of range" })?, saturated);
        Ok(())
    }

    /// Reads the exemplars of one bucket, which must ascend.
    fn exemplars(&mut self, bucket: Bucket, count: u64, latency: &mut SlotLatency) -> Result<(), Damaged> {
        for _ in 0..count {
            let above_low = self.rest.u64()?;
            let latency_ns = bucket.low().0.checked_add(above_low).ok_or(Damaged { what: "exemplar out of range" })?;
            let exemplar = self.place(DurationNanos(latency_ns))?;
            if exemplar.bucket() != bucket {
                return Err(Damaged { what: "exemplar outside its bucket" });
            }
            if latency.exemplars.last().is_some_and(|last| *last >= exemplar) {
                return Err(Damaged { what: "exemplars out of order" });
            }
            latency.exemplars.push(exemplar);
        }
        Ok(())
    }

    fn place(&mut self, latency: DurationNanos) -> Result<Exemplar, Damaged> {
        let block = self.rest.fixed(self.widths.block)?;
        let row = self.rest.fixed(self.widths.row)?;
        Ok(Exemplar { latency, block, row })
    }
}
