//! The inside of a chunk: slots in the order of (series, slot), taken apart into columns, so that a question about counts
//! does not unpack buckets, and one about histograms no exemplars.

use super::Damaged;
use super::varint::{Cursor, put, put_fixed};
use crate::latency::exemplar::EXEMPLARS_PER_BAND_MAX;
use crate::latency::{Bucket, Exemplar, Slot, SlotLatency};
use crate::model::DurationNanos;

/// Counts, buckets, exemplars: the later ones are of no use without the earlier ones.
pub(super) const N_COLUMNS: usize = 3;
/// Lowest bit of a bucket's code: its count is 2 or more and follows.
const MANY: u64 = 1;
/// What stands instead of the number of exemplars where the only one is the only span: its latency is the sum.
const ONLY_SPAN: u64 = 1;

/// Lowest bit of an exemplar's latency: it is of the bucket behind that of the exemplar before.
const NEXT: u128 = 1;

/// Bytes of the fields of a place, the same throughout a table. Each in `[0, 4]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlaceWidths {
    pub(super) block: u8,
    pub(super) row: u8,
}

/// Writes the slots of one chunk.
pub(super) struct ChunkWriter {
    pub(super) widths: PlaceWidths,
    runs: Vec<RunWritten>,
    /// Of all runs: each slot with its count.
    slots: Vec<(Slot, u64)>,
    buckets: Vec<u8>,
    exemplars: Vec<u8>,
}

/// The slots of one series, by where each part of them ends.
struct RunWritten {
    series: u32,
    slots_end: usize,
    buckets_end: usize,
    exemplars_end: usize,
}

impl ChunkWriter {
    pub(super) fn new(widths: PlaceWidths) -> Self {
        let (runs, slots, buckets, exemplars) = Default::default();
        Self { widths, runs, slots, buckets, exemplars }
    }

    /// Begins the next chunk; the memory is kept.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.slots.clear();
        self.buckets.clear();
        self.exemplars.clear();
    }

    /// Bytes of all columns, about.
    pub(super) fn len(&self) -> usize {
        2 * self.slots.len() + self.buckets.len() + self.exemplars.len()
    }

    /// Appends a slot with at least one latency, after all earlier (series, slot).
    pub(super) fn push(&mut self, series: u32, slot: Slot, latency: &SlotLatency) {
        let count = latency.histogram.count();
        self.slots.push((slot, count));
        self.put_buckets(latency);
        self.put_exemplars(latency, count);
        let (slots_end, buckets_end, exemplars_end) = (self.slots.len(), self.buckets.len(), self.exemplars.len());
        match self.runs.last_mut().filter(|last| last.series == series) {
            Some(last) => *last = RunWritten { series, slots_end, buckets_end, exemplars_end },
            None => self.runs.push(RunWritten { series, slots_end, buckets_end, exemplars_end }),
        }
    }

    fn put_buckets(&mut self, latency: &SlotLatency) {
        let mut next_bucket = 0;
        for (bucket, count) in latency.histogram.entries() {
            let index = u64::from(bucket.index());
            let many = if *count > 1 { MANY } else { 0 };
            put(&mut self.buckets, ((index - next_bucket) << 1) | many);
            if *count > 1 {
                put(&mut self.buckets, *count - 2);
            }
            next_bucket = index + 1;
        }
        put(&mut self.buckets, latency.histogram.sum_ns().saturating_sub(latency.histogram.sum_of_lows()));
        if next_bucket > u64::from(Bucket::TOP.index()) {
            put(&mut self.buckets, latency.histogram.saturated());
        }
    }

    fn put_exemplars(&mut self, latency: &SlotLatency, count: u64) {
        if let ([only], 1) = (latency.exemplars.as_slice(), count)
            && u128::from(only.latency.0) == latency.histogram.sum_ns()
        {
            put(&mut self.exemplars, ONLY_SPAN);
            return self.put_place(only);
        }
        put(&mut self.exemplars, (latency.exemplars.len() as u64) << 1);
        let mut exemplars = latency.exemplars.iter().peekable();
        let mut next = 0;
        for (number, (bucket, _)) in (0_u64..).zip(latency.histogram.entries()) {
            while let Some(exemplar) = exemplars.next_if(|exemplar| exemplar.bucket() == *bucket) {
                let is_next = if number == next { NEXT } else { 0 };
                put(&mut self.exemplars, (u128::from(exemplar.latency.0 - bucket.low().0) << 1) | is_next);
                if is_next == 0 {
                    put(&mut self.exemplars, number + 1 - next);
                }
                self.put_place(exemplar);
                next = number + 1;
            }
        }
        debug_assert!(exemplars.next().is_none(), "exemplars are sorted, and their buckets counted");
    }

    fn put_place(&mut self, exemplar: &Exemplar) {
        put_fixed(&mut self.exemplars, exemplar.block, self.widths.block);
        put_fixed(&mut self.exemplars, exemplar.row, self.widths.row);
    }

    /// The columns; the earliest slot is known by then.
    pub(super) fn columns(&self, min_slot: Slot) -> [Vec<u8>; N_COLUMNS] {
        let mut counts = Vec::with_capacity(2 * self.slots.len());
        let mut before = RunWritten { series: 0, slots_end: 0, buckets_end: 0, exemplars_end: 0 };
        let mut next_series = 0;
        for run in &self.runs {
            let slots = self.slots.get(before.slots_end..run.slots_end).unwrap_or_default();
            put(&mut counts, run.series - next_series);
            put(&mut counts, slots.len().saturating_sub(1) as u64);
            if slots.len() > 1 {
                put(&mut counts, (run.buckets_end - before.buckets_end) as u64);
                put(&mut counts, (run.exemplars_end - before.exemplars_end) as u64);
            }
            let mut next_slot = min_slot.0;
            for (slot, _) in slots {
                put(&mut counts, slot.0 - next_slot);
                next_slot = slot.0 + 1;
            }
            for (_, count) in slots {
                put(&mut counts, count - 1);
            }
            next_series = run.series + 1;
            before = RunWritten { ..*run };
        }
        [counts, self.buckets.clone(), self.exemplars.clone()]
    }
}

/// The slots of one series in a chunk; used again and again.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) series: u32,
    /// Ascending, each with how many latencies it counts.
    pub(super) slots: Vec<(Slot, u64)>,
    /// Bytes in the columns of buckets and of exemplars; `None` for a lone slot, which is as fast read as passed over.
    pub(super) lens: Option<[usize; 2]>,
}

/// Reads the column of counts.
pub(super) struct RunReader<'a> {
    rest: Cursor<'a>,
    next_series: u64,
    min_slot: Slot,
}

impl<'a> RunReader<'a> {
    /// Slots begin at the earliest one of the chunk.
    pub(super) fn new(counts: Cursor<'a>, min_slot: Slot) -> Self {
        Self { rest: counts, next_series: 0, min_slot }
    }

    /// The next series; `false` at the end.
    pub(super) fn next(&mut self, run: &mut Run) -> Result<bool, Damaged> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let series = self.next_series.checked_add(self.rest.u64()?);
        let series = series.and_then(|series| u32::try_from(series).ok());
        run.series = series.ok_or(Damaged { what: "series out of range" })?;
        self.next_series = u64::from(run.series) + 1;
        // Each has a byte at least.
        let n =
            self.rest.u64()?.checked_add(1).and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= self.rest.0.len());
        let n = n.ok_or(Damaged { what: "too many slots" })?;
        let len = |number: u64| usize::try_from(number).map_err(|_| Damaged { what: "too long" });
        run.lens = if n > 1 { Some([len(self.rest.u64()?)?, len(self.rest.u64()?)?]) } else { None };
        run.slots.clear();
        let mut next_slot = self.min_slot.0;
        for _ in 0..n {
            let slot = next_slot.checked_add(self.rest.u64()?).filter(|slot| *slot < u64::MAX);
            let slot = slot.ok_or(Damaged { what: "slot out of range" })?;
            next_slot = slot + 1;
            run.slots.push((Slot(slot), 0));
        }
        for (_, count) in &mut run.slots {
            *count = self.rest.u64()?.checked_add(1).ok_or(Damaged { what: "count out of range" })?;
        }
        Ok(true)
    }
}

/// Reads buckets, and exemplars if they are given, into a `SlotLatency` that is used again and again.
pub(super) struct SlotReader<'a> {
    pub(super) widths: PlaceWidths,
    pub(super) buckets: Cursor<'a>,
    pub(super) exemplars: Option<Cursor<'a>>,
}

impl SlotReader<'_> {
    /// Passes over so many bytes of each column.
    pub(super) fn pass(&mut self, [buckets, exemplars]: [usize; 2]) -> Result<(), Damaged> {
        let _passed = self.buckets.bytes(buckets)?;
        let _passed = self.exemplars.as_mut().map(|rest| rest.bytes(exemplars)).transpose()?;
        Ok(())
    }

    /// The next slot, which counts so many.
    pub(super) fn read(&mut self, count: u64, latency: &mut SlotLatency) -> Result<(), Damaged> {
        latency.clear();
        self.histogram(count, latency)?;
        match &mut self.exemplars {
            Some(rest) => exemplars(rest, self.widths, latency),
            None => Ok(()),
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(&self) -> Result<(), Damaged> {
        let rest = self.exemplars.as_ref();
        let is_empty = self.buckets.is_empty() && rest.is_none_or(Cursor::is_empty);
        if is_empty { Ok(()) } else { Err(Damaged { what: "more than was counted" }) }
    }

    fn histogram(&mut self, count: u64, latency: &mut SlotLatency) -> Result<(), Damaged> {
        let rest = &mut self.buckets;
        let (mut next_bucket, mut left, mut sum, mut last) = (0_u64, count, 0_u128, 0);
        while left > 0 {
            let code = rest.u64_of_any_length()?;
            let index = next_bucket.checked_add(code >> 1);
            let bucket = index.and_then(Bucket::from_index).ok_or(Damaged { what: "unknown bucket" })?;
            last = if code & MANY == MANY { rest.u64()?.saturating_add(2) } else { 1 };
            left = left.checked_sub(last).ok_or(Damaged { what: "more than was counted" })?;
            latency.histogram.push(bucket, last);
            sum += u128::from(bucket.low().0) * u128::from(last);
            next_bucket = u64::from(bucket.index()) + 1;
        }
        let sum = sum.checked_add(rest.u128()?).ok_or(Damaged { what: "sum out of range" })?;
        let is_top = next_bucket > u64::from(Bucket::TOP.index());
        let saturated = if is_top { rest.u64()? } else { 0 };
        if is_top && saturated > last {
            return Err(Damaged { what: "more saturated than counted" });
        }
        latency.histogram.set_totals(sum, saturated);
        Ok(())
    }
}

/// Reads the exemplars of one slot, which must ascend.
fn exemplars(rest: &mut Cursor<'_>, widths: PlaceWidths, latency: &mut SlotLatency) -> Result<(), Damaged> {
    let code = rest.u64()?;
    let entries = latency.histogram.entries();
    if code == ONLY_SPAN {
        let sum = u64::try_from(latency.histogram.sum_ns()).map_err(|_| Damaged { what: "exemplar out of range" })?;
        let only = place(rest, widths, DurationNanos(sum))?;
        if !matches!(entries, [(bucket, 1)] if *bucket == only.bucket()) {
            return Err(Damaged { what: "exemplar outside its bucket" });
        }
        latency.exemplars.push(only);
        return Ok(());
    }
    let most = (entries.len() * EXEMPLARS_PER_BAND_MAX) as u64;
    if code & ONLY_SPAN != 0 || most < code >> 1 {
        return Err(Damaged { what: "too many exemplars" });
    }
    let mut next = 0_u64;
    for _ in 0..code >> 1 {
        let above_low = rest.u128()?;
        let number = if above_low & NEXT == NEXT {
            Some(next)
        } else {
            rest.u64()?.checked_add(next).and_then(|behind| behind.checked_sub(1))
        };
        let entry = number.and_then(|number| usize::try_from(number).ok()).and_then(|number| entries.get(number));
        let (bucket, _) = entry.ok_or(Damaged { what: "exemplar outside its bucket" })?;
        next = number.unwrap_or(0) + 1;
        let long = u64::try_from(above_low >> 1).ok().and_then(|above| bucket.low().0.checked_add(above));
        let long = long.ok_or(Damaged { what: "exemplar out of range" })?;
        let exemplar = place(rest, widths, DurationNanos(long))?;
        if exemplar.bucket() != *bucket {
            return Err(Damaged { what: "exemplar outside its bucket" });
        }
        if latency.exemplars.last().is_some_and(|last| *last >= exemplar) {
            return Err(Damaged { what: "exemplars out of order" });
        }
        latency.exemplars.push(exemplar);
    }
    Ok(())
}

fn place(rest: &mut Cursor<'_>, widths: PlaceWidths, latency: DurationNanos) -> Result<Exemplar, Damaged> {
    let block = rest.fixed(widths.block)?;
    let row = rest.fixed(widths.row)?;
    Ok(Exemplar { latency, block, row })
}
