//! The exact look-up: spans in one bucket of latency, found in what is stored. Roll-ups that counted the bucket lead from
//! days down to ten seconds, those to the few blocks that were written then, and their columns to the spans.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::block::Block;
use crate::latency::{Bucket, Exemplar, Resolution, SeriesWanted, Slot, SlotLatency, Take, counting_instant, cover};
use crate::model::{Conventions, DurationNanos, Span, SpanBatch, TimeRange, UnixNanos};
use crate::store::StoreError;

use super::exemplars::place_of_scope;
use super::rows;
use super::selection::{GroupLabel, Groups, Selection, Taken};
use super::traceql::RowScan;
use super::walk::{Lead, Led, LedSlots, Opened, Places, clipped, rollup_windows};
use super::{Coverage, Query};

/// Rows of a block in the bucket that are looked at for their group.
const ROWS_LOOKED_AT_MAX: usize = 4_096;
/// And so many of them at once: as a rule one of the first is of the group.
const ROWS_AT_ONCE: usize = 16;

/// Where and for what to look.
pub(super) struct Lookup<'a> {
    pub(super) query: &'a Query,
    pub(super) places: &'a Places,
    pub(super) selection: &'a Selection,
    pub(super) conventions: &'a Conventions,
    /// Of whole 10 s slots.
    pub(super) range: TimeRange,
    /// What finds the spans, when they are counted one by one.
    pub(super) rows: Option<&'a RowScan>,
    /// Only spans of this group.
    pub(super) group: Option<&'a GroupLabel>,
    /// Only spans whose resource lacks this attribute.
    pub(super) only_without: Option<&'a str>,
}

impl Lookup<'_> {
    /// Whether a span that was kept as an exemplar of what is meant, or of more, may be shown. It has these places.
    pub(super) fn shows(&self, place: &[(String, String)]) -> bool {
        self.only_without.is_none_or(|dimension| place.iter().all(|(key, _)| key != dimension))
    }

    /// At most `wanted` spans of the bucket, of the newest places first. `lead` is one of the slots that counted it. An
    /// unreadable place is named in the coverage.
    pub(super) fn in_bucket(
        &self,
        bucket: Bucket,
        lead: Lead,
        wanted: usize,
        coverage: &mut Coverage,
    ) -> Vec<Exemplar> {
        if let Some(rows) = self.rows {
            return rows::in_bucket(self.places, rows, bucket, self.group, wanted).unwrap_or_else(|error| {
                self.query.unreadable(coverage, "a block", &error);
                Vec::new()
            });
        }
        if wanted == 1 && self.only_without.is_none() {
            match self.led(bucket, lead) {
                Ok(Some(one)) => return vec![one],
                Ok(None) => {}
                Err(error) => self.query.unreadable(coverage, "a block", &error),
            }
        }
        let mut found = Vec::new();
        self.in_heads(bucket, wanted, &mut found);
        for opened in self.places.opens.iter().rev().filter(|opened| !opened.has_left) {
            if wanted <= found.len() {
                break;
            }
            let read = if opened.manifest.is_some() {
                self.in_rollups(opened, bucket, wanted, &mut found)
            } else {
                let slots = ten_seconds(self.range);
                let blocks = opened.open.blocks(opened.visible);
                self.in_blocks(opened, blocks, bucket, &slots, wanted, &mut found, &mut HashSet::new())
            };
            if let Err(error) = read {
                self.query.unreadable(coverage, "a block", &error);
            }
        }
        found.truncate(wanted);
        found
    }

    /// Follows one slot down to the finest, as far as none of the finer ones kept a span of the bucket.
    fn led(&self, bucket: Bucket, lead: Lead) -> Result<Option<Exemplar>, StoreError> {
        let Some(Led { opened, slots, series }) = self.places.led(lead) else { return Ok(None) };
        let mut found = Vec::new();
        let (mut resolution, mut slot) = match slots {
            LedSlots::Rollup(resolution, slot) => (resolution, slot),
            LedSlots::Block(block_no) => {
                self.in_block(opened, block_no, bucket, 1, &mut found)?;
                return Ok(found.pop());
            }
        };
        loop {
            let times = TimeRange { start: resolution.start_of(slot), end: resolution.start_of(Slot(slot.0 + 1)) };
            let Some(finer) = resolution.finer() else {
                return self.led_to_blocks(opened, bucket, slot, series);
            };
            let slots = finer.slot_of(times.start)..finer.slot_of(times.end);
            let hits = slots_with(opened, bucket, finer, &slots, &[series])?;
            let Some((newest, hit)) = hits.last_key_value() else { return Ok(None) };
            if hit.kept.is_some() {
                return Ok(hit.kept);
            }
            (resolution, slot) = (finer, *newest);
        }
    }

    /// The same from one slot of ten seconds: its exemplars of other buckets say which blocks were written then.
    fn led_to_blocks(
        &self,
        opened: &Opened,
        bucket: Bucket,
        slot: Slot,
        series: u32,
    ) -> Result<Option<Exemplar>, StoreError> {
        let slots = slot..Slot(slot.0 + 1);
        let mut hits = slots_with(opened, bucket, Resolution::TenSeconds, &slots, &[series])?;
        let Some(hit) = hits.remove(&slot) else { return Ok(None) };
        if hit.kept.is_some() {
            return Ok(hit.kept);
        }
        let (mut found, mut looked_at) = (Vec::new(), HashSet::new());
        for block_no in hit.blocks.into_iter().rev().filter(|block_no| looked_at.insert(*block_no)) {
            self.in_block(opened, block_no, bucket, 1, &mut found)?;
            if !found.is_empty() {
                break;
            }
        }
        if found.is_empty() {
            let blocks = opened.open.blocks(opened.visible);
            self.in_blocks(opened, blocks, bucket, &slots, 1, &mut found, &mut looked_at)?;
        }
        Ok(found.pop())
    }

    fn in_heads(&self, bucket: Bucket, wanted: usize, found: &mut Vec<Exemplar>) {
        for (block, batch, horizon) in self.places.heads() {
            let of_service = self.selection.scopes_of_service(batch);
            if !of_service.contains(&true) {
                continue;
            }
            for (row, span) in (0..).zip(&batch.spans) {
                let Some(latency) = span.latency().filter(|latency| Bucket::of(*latency) == bucket) else { continue };
                let counts = of_service.get(span.scope as usize) == Some(&true)
                    && self.range.contains(counting_instant(span.start_time_unix_nano, horizon))
                    && self.selection.spans.takes_span(batch, span, self.conventions);
                if counts && self.means(batch, span) {
                    found.push(Exemplar { latency, block, row });
                }
                if wanted <= found.len() {
                    return;
                }
            }
        }
    }

    /// Whether a span that counts is in the group that is meant.
    fn means(&self, batch: &SpanBatch, span: &Span) -> bool {
        let in_group = |label| {
            let mut groups = Groups::default();
            let _numbers = self.selection.groups_of(batch, span, self.conventions, &mut groups);
            groups.labels.contains(label)
        };
        self.shows(&place_of_scope(batch, span.scope, self.conventions)) && self.group.is_none_or(in_group)
    }

    /// Follows the slots that counted the bucket down to the finest.
    fn in_rollups(
        &self,
        opened: &Opened,
        bucket: Bucket,
        wanted: usize,
        found: &mut Vec<Exemplar>,
    ) -> Result<(), StoreError> {
        let Some(manifest) = &opened.manifest else { return Ok(()) };
        let runs = cover(clipped(self.range, manifest));
        let mut looked_at = HashSet::new();
        let taken = self.series_of(&opened.open.rollup_series()?);
        // The newest last: a stack.
        let mut open: Vec<(Resolution, Range<Slot>)> = runs;
        while let Some((resolution, slots)) = open.pop() {
            let hits = slots_with(opened, bucket, resolution, &slots, &taken)?;
            for slot in hits.into_keys() {
                let span = TimeRange { start: resolution.start_of(slot), end: resolution.start_of(Slot(slot.0 + 1)) };
                if let Some(finer) = resolution.finer() {
                    open.push((finer, finer.slot_of(span.start)..finer.slot_of(span.end)));
                } else {
                    let blocks = opened.open.blocks(opened.visible);
                    self.in_blocks(opened, blocks, bucket, &ten_seconds(span), wanted, found, &mut looked_at)?;
                }
                if wanted <= found.len() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Numbers of the series that hold the spans meant, and perhaps others; ascending.
    fn series_of(&self, keys: &crate::store::SeriesList) -> Vec<u32> {
        let groups = RefCell::new(Groups::default());
        let taken = self.selection.taken(keys, &mut groups.borrow_mut());
        let groups = groups.into_inner();
        let meant = taken.into_iter().filter(|taken| match self.group {
            Some(wanted) => groups.has(wanted, taken),
            None => taken.target().whole,
        });
        meant.map(|taken| taken.number).collect()
    }

    /// Searches the columns of those of the blocks that counted the bucket in these slots, the newest first.
    #[expect(clippy::too_many_arguments, reason = "where, for what, and what is known so far")]
    fn in_blocks(
        &self,
        opened: &Opened,
        blocks: Vec<(u64, Option<Arc<Block>>)>,
        bucket: Bucket,
        slots: &Range<Slot>,
        wanted: usize,
        found: &mut Vec<Exemplar>,
        looked_at: &mut HashSet<u64>,
    ) -> Result<(), StoreError> {
        let start_of = |slot| Resolution::TenSeconds.start_of(slot);
        let times = TimeRange { start: start_of(slots.start), end: start_of(slots.end) };
        for (block_no, block) in blocks.into_iter().rev() {
            let Some(block) = block else { continue };
            let summary = block.summary();
            let counted = |at| counting_instant(at, summary.horizon);
            let known = self.selection.among(&summary.services);
            if !known || !times.meets(counted(summary.min_start), counted(summary.max_start)) {
                continue;
            }
            if self.slots_of_block_count(opened, block_no, bucket, slots)? && looked_at.insert(block_no) {
                self.in_block(opened, block_no, bucket, wanted, found)?;
            }
            if wanted <= found.len() {
                break;
            }
        }
        Ok(())
    }

    fn slots_of_block_count(
        &self,
        opened: &Opened,
        block_no: u64,
        bucket: Bucket,
        slots: &Range<Slot>,
    ) -> Result<bool, StoreError> {
        let by_family = self.group.is_some() && self.selection.is_grouped_by_resource();
        let open = &opened.open;
        let taken = self.series_of(&if by_family { open.series(block_no)? } else { open.series_of_rows(block_no)? });
        let mut counted = false;
        opened.open.block_slots(
            block_no,
            &SeriesWanted::Chosen(&taken),
            slots.clone(),
            Take::Histograms(&mut |_, _, latency| counted |= latency.histogram.contains(bucket)),
        )?;
        Ok(counted)
    }

    fn in_block(
        &self,
        opened: &Opened,
        block_no: u64,
        bucket: Bucket,
        wanted: usize,
        found: &mut Vec<Exemplar>,
    ) -> Result<(), StoreError> {
        let Some(block) = opened.open.block(block_no) else { return Ok(()) };
        let mut groups = Groups::default();
        // Families have no rows of their own.
        let taken = self.selection.taken(&opened.open.series_of_rows(block_no)?, &mut groups);
        let horizon = block.summary().horizon;
        let by_place = self.only_without.is_some() || self.group.is_some() && self.selection.is_grouped_by_resource();
        let is_meant = |taken: &Taken| {
            taken.target().whole && (by_place || self.group.is_none_or(|group| groups.has(group, taken)))
        };
        let mut rows: Vec<(u32, DurationNanos)> = Vec::new();
        let mut failed = Ok(());
        let mut looked_at = 0;
        let block = opened.base.saturating_add(u32::try_from(block_no).unwrap_or(u32::MAX));
        let keep = |rows: &mut Vec<(u32, DurationNanos)>, found: &mut Vec<Exemplar>| {
            if by_place {
                self.keep_those_of_the_place(opened, block_no, rows)?;
            }
            found.extend(rows.drain(..).map(|(row, latency)| Exemplar { latency, block, row }));
            Ok(())
        };
        opened.open.scan_latency(block_no, &bucket.latencies(), &mut |row, number, start: UnixNanos, latency| {
            let of_series = taken.binary_search_by_key(&number, |taken| taken.number).ok().and_then(|at| taken.get(at));
            if of_series.is_some_and(is_meant) && self.range.contains(counting_instant(start, horizon)) {
                rows.push((row, latency));
                looked_at += 1;
            }
            let at_once = if by_place { ROWS_AT_ONCE } else { wanted - found.len().min(wanted) };
            if at_once <= rows.len() {
                failed = keep(&mut rows, found);
            }
            let goes_on = failed.is_ok() && found.len() < wanted && looked_at < ROWS_LOOKED_AT_MAX;
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed.and_then(|()| keep(&mut rows, found))
    }

    fn keep_those_of_the_place(
        &self,
        opened: &Opened,
        block_no: u64,
        rows: &mut Vec<(u32, DurationNanos)>,
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
        let scopes = opened.open.scopes(block_no)?;
        let mut meant = opened.open.glances(block_no, &numbers)?.into_iter().map(|glance| {
            let place = place_of_scope(&scopes, glance.scope, self.conventions);
            self.shows(&place)
                && self.group.is_none_or(|(key, value)| {
                    place.iter().any(|known| known.0 == *key && Some(&known.1) == value.as_ref())
                })
        });
        rows.retain(|_| meant.next().unwrap_or(false));
        Ok(())
    }
}

/// A slot that counted the bucket.
#[derive(Debug, Default)]
struct Hit {
    /// A span of the bucket, if one was kept.
    kept: Option<Exemplar>,
    /// Blocks of its partition that hold spans of the slot, perhaps not all.
    blocks: BTreeSet<u64>,
}

/// The slots in which one of these series counted the bucket, in order.
fn slots_with(
    opened: &Opened,
    bucket: Bucket,
    resolution: Resolution,
    slots: &Range<Slot>,
    taken: &[u32],
) -> Result<BTreeMap<Slot, Hit>, StoreError> {
    let mut hits: BTreeMap<Slot, Hit> = BTreeMap::new();
    for window in rollup_windows(resolution, slots) {
        let mut each = |_: u32, slot, latency: &mut SlotLatency| {
            if latency.histogram.contains(bucket) {
                let hit = hits.entry(slot).or_default();
                hit.blocks.extend(latency.exemplars.iter().map(|one| u64::from(one.block)));
                latency.raise_blocks(opened.base);
                let kept = latency.exemplars.iter().rfind(|one| one.bucket() == bucket);
                hit.kept = hit.kept.max(kept.copied());
            }
        };
        let wanted = SeriesWanted::Chosen(taken);
        opened.open.rollup(window).read(&wanted, slots.clone(), Take::Exemplars(&mut each))?;
    }
    Ok(hits)
}

fn ten_seconds(range: TimeRange) -> Range<Slot> {
    Resolution::TenSeconds.slot_of(range.start)..Resolution::TenSeconds.slot_of(range.end)
}

#[cfg(test)]
mod tests;
