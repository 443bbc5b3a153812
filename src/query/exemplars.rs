//! From a bucket to traces in it. First the exemplars that were kept; where none is in that very bucket, the columns
//! are searched: every counted span is stored, so there is one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use parking_lot::Mutex;

use crate::latency::{Bucket, Resolution, counting_instant};
use crate::model::{DurationNanos, PEEL_DIMENSIONS, Rows, SpanBatch, SpanId, TraceId, UnixNanos};

use crate::store::{OpenPartition, StoreError};

use super::contributions::{Contributions, Stored};
use super::{Coverage, Query};

/// Candidates that are read for each exemplar that is shown, to choose the best from.
const CANDIDATES_PER_EXEMPLAR: usize = 2;
/// A search of the columns ends with this many.
const FOUND_ENOUGH: usize = 2;
/// Exemplars kept decoded, about half a kilobyte each.
const CACHED_MAX: usize = 8_192;

/// A span that shows a number.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarAnswer {
    /// Opens by every trace API for as long as this is shown.
    pub trace_id: TraceId,
    /// The span within it.
    pub span_id: SpanId,
    /// Its latency.
    pub duration: DurationNanos,
    /// When it was counted: its start.
    pub time: UnixNanos,
    /// Its name.
    pub span_name: String,
    /// Status ERROR.
    pub error: bool,
    /// Where it ran, as far as the resource says.
    pub attributes: Vec<(&'static str, String)>,
    /// Whether its latency lies in the bucket that was asked for; else it lies above.
    pub in_bucket: bool,
}

/// A span by its place in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    open: usize,
    block_no: u64,
    row: u32,
}

/// Exemplars that were read lately, by partition, block and row. Blocks never change, so neither does an entry; when
/// there are too many all are forgotten.
#[derive(Debug, Default)]
pub(super) struct ExemplarCache(Mutex<HashMap<(u64, u64, u32), ExemplarAnswer>>);

impl ExemplarCache {
    fn get(&self, key: (u64, u64, u32)) -> Option<ExemplarAnswer> {
        self.0.lock().get(&key).cloned()
    }

    fn insert(&self, key: (u64, u64, u32), exemplar: &ExemplarAnswer) {
        let mut cached = self.0.lock();
        if CACHED_MAX <= cached.len() {
            cached.clear();
        }
        let _before = cached.insert(key, exemplar.clone());
    }
}

impl Contributions {
    /// Traces whose latency lies in `bucket`: the slowest first, then such as differ in place or outcome. For the top
    /// bucket of the answer the first one is the slowest span of all.
    pub(super) fn exemplars(
        &self,
        query: &Query,
        bucket: Bucket,
        is_slowest: bool,
        exemplars_max: usize,
        coverage: &mut Coverage,
    ) -> Vec<ExemplarAnswer> {
        if exemplars_max == 0 {
            return Vec::new();
        }
        let candidates = exemplars_max * CANDIDATES_PER_EXEMPLAR;
        let mut found = self.in_head(bucket, candidates);
        let mut places = self.kept(|known| known == bucket);
        if is_slowest {
            // Merged slots know their slowest span to the bucket only, those of blocks to the nanosecond.
            places.extend(self.slowest_behind_rollups(query, bucket, coverage));
            self.resolve(query, &places, &mut found, coverage);
        } else {
            if found.is_empty() && places.is_empty() {
                places = self.searched(query, bucket, coverage);
            }
            places.truncate(candidates);
            self.resolve(query, &places, &mut found, coverage);
        }
        if found.is_empty() {
            // Damage leads here, and spans that have left, of which a few slow ones are pinned: the next slower ones are better
            // than none, and say that they are not exact.
            let above = self.next_above(bucket, candidates);
            self.resolve(query, &above, &mut found, coverage);
        }
        for exemplar in &mut found {
            exemplar.in_bucket = Bucket::of(exemplar.duration) == bucket;
        }
        slowest_and_diverse(found, exemplars_max)
    }

    fn in_head(&self, bucket: Bucket, candidates: usize) -> Vec<ExemplarAnswer> {
        let rows = self.head.iter().filter(|row| Bucket::of(row.latency) == bucket);
        let mut rows: Vec<_> = rows.copied().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.latency));
        rows.truncate(candidates);
        let answers = rows.into_iter().filter_map(|row| {
            let head = self.heads.get(row.head)?;
            exemplar(head.batches.get(row.batch)?, row.row as usize, head.horizon)
        });
        answers.collect()
    }

    /// Places of kept exemplars, the newest first.
    fn kept(&self, wanted: impl Fn(Bucket) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        for stored in &self.stored {
            for exemplar in stored.latency.exemplars.iter().filter(|exemplar| wanted(exemplar.bucket)) {
                places.push(Place { open: stored.open, block_no: u64::from(exemplar.block), row: exemplar.row });
            }
        }
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        places
    }

    /// Places of kept exemplars of slower buckets, the nearest bucket first.
    fn next_above(&self, bucket: Bucket, candidates: usize) -> Vec<Place> {
        let mut above = Vec::new();
        for stored in &self.stored {
            for exemplar in stored.latency.exemplars.iter().filter(|exemplar| bucket < exemplar.bucket) {
                let place = Place { open: stored.open, block_no: u64::from(exemplar.block), row: exemplar.row };
                above.push((exemplar.bucket, std::cmp::Reverse(place)));
            }
        }
        above.sort_unstable();
        above.dedup();
        above.truncate(candidates);
        above.into_iter().map(|(_, place)| place.0).collect()
    }

    /// For each roll-up that counted something in `bucket`: what the blocks behind it kept of that bucket.
    fn slowest_behind_rollups(&self, query: &Query, bucket: Bucket, coverage: &mut Coverage) -> Vec<Place> {
        let mut places = Vec::new();
        for stored in self.slots_with(bucket).filter(|stored| stored.block_no.is_none()) {
            let Some(opened) = self.opens.get(stored.open).filter(|opened| !opened.has_left) else { continue };
            let slots =
                Resolution::TenSeconds.slot_of(stored.slot.start)..Resolution::TenSeconds.slot_of(stored.slot.end);
            for (block_no, block) in opened.open.blocks(opened.visible) {
                let Some(block) = block else { continue };
                let summary = block.summary();
                let longest = summary.services.iter().map(|service| service.max_latency).max().unwrap_or_default();
                let counted = |at| counting_instant(at, summary.horizon);
                let (first, last) = (counted(summary.min_start), counted(summary.max_start));
                if Bucket::of(longest) < bucket || !stored.slot.meets(first, last) {
                    continue;
                }
                let read = opened.open.series(block_no).and_then(|keys| {
                    let series = self.wanted.series(&keys);
                    opened.open.block_slots(block_no, series, slots.clone(), &mut |_, _, latency| {
                        let inside = latency.exemplars.iter().filter(|exemplar| exemplar.bucket == bucket);
                        places.extend(inside.map(|exemplar| Place { open: stored.open, block_no, row: exemplar.row }));
                    })
                });
                if let Err(error) = read {
                    query.unreadable(coverage, &format!("block {block_no}"), &error);
                }
            }
        }
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        places
    }

    /// Looks the bucket up in the columns of the blocks that counted it, newest first, until one is found.
    fn searched(&self, query: &Query, bucket: Bucket, coverage: &mut Coverage) -> Vec<Place> {
        let mut looked_at = HashSet::new();
        let mut slots: Vec<&Stored> = self.slots_with(bucket).collect();
        slots.sort_by_key(|stored| std::cmp::Reverse(stored.slot.start));
        for stored in slots {
            let Some(opened) = self.opens.get(stored.open).filter(|opened| !opened.has_left) else { continue };
            let blocks = stored.block_no.map_or(1..=opened.visible, |block_no| block_no..=block_no);
            for block_no in blocks.rev() {
                if !looked_at.insert((stored.open, block_no)) {
                    continue;
                }
                match self.search_block(stored.open, &opened.open, block_no, bucket) {
                    Ok(places) if places.is_empty() => {}
                    Ok(places) => return places,
                    Err(error) => query.unreadable(coverage, &format!("block {block_no}"), &error),
                }
            }
        }
        Vec::new()
    }

    fn search_block(
        &self,
        open_no: usize,
        open: &OpenPartition,
        block_no: u64,
        bucket: Bucket,
    ) -> Result<Vec<Place>, StoreError> {
        let Some(block) = open.block(block_no) else { return Ok(Vec::new()) };
        let series = open.series(block_no)?;
        let horizon = block.summary().horizon;
        let mut places = Vec::new();
        // The top bucket takes everything longer as well.
        let high = if bucket == Bucket::TOP { DurationNanos(u64::MAX) } else { bucket.high() };
        open.scan_latency(block_no, &(bucket.low()..=high), &mut |row, number, start, _| {
            let counted = self.wanted.counts(counting_instant(start, horizon))
                && series.get(number as usize).is_some_and(|key| self.wanted.takes(key));
            if counted {
                places.push(Place { open: open_no, block_no, row });
            }
            if places.len() < FOUND_ENOUGH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(places)
    }

    /// Reads the spans at `places`, block by block, those that are not known yet.
    fn resolve(&self, query: &Query, places: &[Place], found: &mut Vec<ExemplarAnswer>, coverage: &mut Coverage) {
        let mut by_block: BTreeMap<(usize, u64), Vec<u32>> = BTreeMap::new();
        for place in places {
            let Some(opened) = self.opens.get(place.open) else { continue };
            match query.exemplars.get((opened.identity, place.block_no, place.row)) {
                Some(known) => found.push(known),
                None => by_block.entry((place.open, place.block_no)).or_default().push(place.row),
            }
        }
        for ((open_no, block_no), mut rows) in by_block {
            rows.sort_unstable();
            rows.dedup();
            let Some(opened) = self.opens.get(open_no) else { continue };
            let Some(block) = opened.open.block(block_no) else { continue };
            match opened.open.spans(block_no, &rows) {
                Ok(spans) => {
                    let horizon = block.summary().horizon;
                    for (at, row) in rows.iter().enumerate() {
                        let Some(exemplar) = exemplar(&spans, at, horizon) else { continue };
                        query.exemplars.insert((opened.identity, block_no, *row), &exemplar);
                        found.push(exemplar);
                    }
                }
                Err(error) => query.unreadable(coverage, &format!("block {block_no}"), &error),
            }
        }
    }
}

/// `in_bucket` is for the caller to say.
fn exemplar(batch: &SpanBatch, row: usize, horizon: UnixNanos) -> Option<ExemplarAnswer> {
    let span = batch.spans.get(row)?;
    let duration = span.latency()?;
    Some(ExemplarAnswer {
        trace_id: span.trace_id,
        span_id: span.span_id,
        duration,
        time: counting_instant(span.start_time_unix_nano, horizon),
        span_name: batch.text_lossy(span.name).into_owned(),
        error: span.is_error(),
        attributes: shown_attributes(batch, batch.resource(span).attributes),
        in_bucket: false,
    })
}

fn shown_attributes(batch: &SpanBatch, rows: Rows) -> Vec<(&'static str, String)> {
    let shown = PEEL_DIMENSIONS.iter();
    shown.filter_map(|key| Some((*key, batch.string_attribute(rows, key)?.into_owned()))).collect()
}

/// The slowest first; then those that differ from all before in place or outcome; then the rest, slowest first.
fn slowest_and_diverse(mut found: Vec<ExemplarAnswer>, exemplars_max: usize) -> Vec<ExemplarAnswer> {
    found.sort_by(|a, b| b.duration.cmp(&a.duration).then(b.time.cmp(&a.time)).then(a.span_id.cmp(&b.span_id)));
    let mut seen_spans = HashSet::new();
    found.retain(|exemplar| seen_spans.insert((exemplar.trace_id, exemplar.span_id)));
    let mut seen_places = HashSet::new();
    let (mut chosen, rest): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|exemplar| seen_places.insert((exemplar.error, exemplar.attributes.clone())));
    chosen.extend(rest);
    chosen.truncate(exemplars_max);
    chosen
}
