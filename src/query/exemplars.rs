//! From a bucket to traces in it. First the exemplars that were kept; where none is in that very bucket, the columns
//! are searched: every counted span is stored, so there is one.

use std::collections::{BTreeMap, HashSet};

use crate::latency::{Bucket, counting_instant};
use crate::model::{DurationNanos, PEEL_DIMENSIONS, Rows, SpanBatch, SpanId, TraceId, UnixNanos};

use crate::store::{OpenPartition, StoreError};

use super::contributions::{Contributions, Stored};
use super::{Coverage, Query};

/// Candidates that are read to choose the best from.
const CANDIDATES_MAX: usize = 64;

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

impl Contributions {
    /// Traces whose latency lies in `bucket`: the slowest first, then such as differ in place or outcome.
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
        let mut found = self.in_head(bucket);
        let mut places = self.kept(|known| known == bucket);
        if is_slowest || (found.is_empty() && places.is_empty()) {
            // Merged slots know their slowest span to the bucket only; the columns know it to the nanosecond.
            places = self.searched(query, bucket, is_slowest, coverage);
        }
        self.resolve(query, &places, bucket, &mut found, coverage);
        if found.is_empty() {
            // Only damage leads here: the next slower ones are better than none, and say that they are not exact.
            let above = self.kept(|known| bucket < known);
            self.resolve(query, &above, bucket, &mut found, coverage);
        }
        slowest_and_diverse(found, exemplars_max)
    }

    fn in_head(&self, bucket: Bucket) -> Vec<ExemplarAnswer> {
        let rows = self.head.iter().filter(|row| Bucket::of(row.latency) == bucket);
        let mut rows: Vec<_> = rows.copied().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.latency));
        rows.truncate(CANDIDATES_MAX);
        let answers = rows.into_iter().filter_map(|row| {
            let head = self.heads.get(row.head)?;
            exemplar(head.batches.get(row.batch)?, row.row as usize, head.horizon, bucket)
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

    /// Looks the bucket up in the columns of the blocks that counted it, newest first: until one is found, or in all of
    /// them.
    fn searched(&self, query: &Query, bucket: Bucket, in_all: bool, coverage: &mut Coverage) -> Vec<Place> {
        let mut found = Vec::new();
        let mut looked_at = HashSet::new();
        let mut slots: Vec<&Stored> = self.slots_with(bucket).collect();
        slots.sort_by_key(|stored| std::cmp::Reverse(stored.slot.start));
        for stored in slots {
            if !in_all && !found.is_empty() {
                break;
            }
            let Some((open, visible)) = self.opens.get(stored.open) else { continue };
            let blocks = stored.block_no.map_or(1..=*visible, |block_no| block_no..=block_no);
            for block_no in blocks.rev() {
                if !looked_at.insert((stored.open, block_no)) {
                    continue;
                }
                match self.search_block(stored.open, open, block_no, bucket) {
                    Ok(places) => found.extend(places),
                    Err(error) => query.unreadable(coverage, &format!("block {block_no}"), &error),
                }
                if !in_all && !found.is_empty() {
                    break;
                }
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, place)| place).collect()
    }

    fn search_block(
        &self,
        open_no: usize,
        open: &OpenPartition,
        block_no: u64,
        bucket: Bucket,
    ) -> Result<Vec<(DurationNanos, Place)>, StoreError> {
        let Some(block) = open.block(block_no) else { return Ok(Vec::new()) };
        let series = open.series(block_no)?;
        let horizon = block.summary().horizon;
        let mut places = Vec::new();
        open.scan_latency(block_no, &mut |row, number, start, latency| {
            let counted = self.wanted.counts(counting_instant(start, horizon))
                && series.get(number as usize).is_some_and(|key| self.wanted.takes(key));
            if counted && Bucket::of(latency) == bucket {
                places.push((latency, Place { open: open_no, block_no, row }));
            }
        })?;
        Ok(places)
    }

    /// Reads the spans at `places`, block by block.
    fn resolve(
        &self,
        query: &Query,
        places: &[Place],
        bucket: Bucket,
        found: &mut Vec<ExemplarAnswer>,
        coverage: &mut Coverage,
    ) {
        let mut by_block: BTreeMap<(usize, u64), Vec<u32>> = BTreeMap::new();
        for place in places.iter().take(CANDIDATES_MAX) {
            by_block.entry((place.open, place.block_no)).or_default().push(place.row);
        }
        for ((open_no, block_no), mut rows) in by_block {
            rows.sort_unstable();
            let Some((open, _)) = self.opens.get(open_no) else { continue };
            let Some(block) = open.block(block_no) else { continue };
            match open.spans(block_no, &rows) {
                Ok(spans) => {
                    let horizon = block.summary().horizon;
                    found.extend((0..spans.spans.len()).filter_map(|row| exemplar(&spans, row, horizon, bucket)));
                }
                Err(error) => query.unreadable(coverage, &format!("block {block_no}"), &error),
            }
        }
    }
}

fn exemplar(batch: &SpanBatch, row: usize, horizon: UnixNanos, bucket: Bucket) -> Option<ExemplarAnswer> {
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
        in_bucket: Bucket::of(duration) == bucket,
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
