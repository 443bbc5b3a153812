//! From a bucket to traces in it. First the exemplars that were kept; where none is in that very bucket, `lookup` finds
//! one: every counted span is stored, so there is one.

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::Mutex;

use crate::latency::{Bucket, Exemplar, counting_instant};
use crate::model::{Conventions, DurationNanos, SpanBatch, SpanId, SpanStatus, TraceId, UnixNanos};
use crate::store::StoreError;

use super::lookup::Lookup;
use super::tally::Tally;
use super::walk::{Opened, Place, Places};
use super::{Coverage, Query};

/// Candidates that are read for each exemplar that is shown, to choose the best from.
const CANDIDATES_PER_EXEMPLAR: usize = 2;
/// Up to so many, those that were kept will do; who asks for more gets all that are stored.
const KEPT_WILL_DO: usize = 5;
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
    pub attributes: Vec<(String, String)>,
    /// Whether its latency lies in the bucket that was asked for; else it lies above.
    pub in_bucket: bool,
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

/// What leads from a tally to traces.
pub(super) struct Exemplars<'a> {
    pub(super) query: &'a Query,
    pub(super) places: &'a Places,
    pub(super) conventions: &'a Conventions,
}

impl Exemplars<'_> {
    /// Traces whose latency lies in `bucket`: the slowest first, then such as differ in place or outcome. For the top
    /// bucket of the answer the first one is the slowest span of all.
    pub(super) fn in_bucket(
        &self,
        tally: &Tally,
        bucket: Bucket,
        lookup: &Lookup<'_>,
        exemplars_max: usize,
        coverage: &mut Coverage,
    ) -> Vec<ExemplarAnswer> {
        if exemplars_max == 0 {
            return Vec::new();
        }
        let mut candidates = tally.candidates(&bucket.latencies());
        if lookup.only_without.is_none() {
            candidates.truncate(exemplars_max * CANDIDATES_PER_EXEMPLAR);
        }
        let mut found = self.resolve(&candidates, lookup, coverage);
        let (counted, lead) = tally.of(bucket);
        let counted = usize::try_from(counted).unwrap_or(usize::MAX);
        // What is left when groups are taken away has no exemplars of its own, of which the slowest would be one.
        let wanted = match tally.slowest() {
            Some(slowest) if slowest == bucket && lookup.only_without.is_some() => counted,
            _ if exemplars_max <= KEPT_WILL_DO => 1,
            _ => exemplars_max.min(counted),
        };
        if found.len() < wanted {
            found.extend(self.resolve(&lookup.in_bucket(bucket, lead, wanted, coverage), lookup, coverage));
        }
        if found.is_empty() {
            // Only damage or retention lead here: the next slower ones are better than none, and say so.
            let longer = DurationNanos(bucket.high().0 + 1)..=DurationNanos(u64::MAX);
            let mut above = if bucket == Bucket::TOP { Vec::new() } else { tally.candidates(&longer) };
            let near = exemplars_max * CANDIDATES_PER_EXEMPLAR;
            let above = above.split_off(above.len().saturating_sub(near));
            found = self.resolve(&above, lookup, coverage);
        }
        for exemplar in &mut found {
            exemplar.in_bucket = Bucket::of(exemplar.duration) == bucket;
        }
        slowest_and_diverse(found, exemplars_max)
    }

    /// Reads the spans, block by block, those that are not known yet; those that are not meant are left out.
    fn resolve(&self, wanted: &[Exemplar], lookup: &Lookup<'_>, coverage: &mut Coverage) -> Vec<ExemplarAnswer> {
        let mut found = Vec::new();
        let mut by_block: BTreeMap<u32, Vec<Exemplar>> = BTreeMap::new();
        for exemplar in wanted {
            by_block.entry(exemplar.block).or_default().push(*exemplar);
        }
        for (block, exemplars) in by_block {
            match self.places.place(block) {
                Some(Place::Head(batch, horizon)) => {
                    let rows = exemplars.iter().map(|one| one.row as usize);
                    found.extend(rows.filter_map(|row| of_head(batch, row, horizon, self.conventions)));
                }
                Some(Place::Block { opened, block_no }) => {
                    let read = self.read_block(opened, block_no, exemplars, &mut found);
                    if let Err(error) = read {
                        self.query.unreadable(coverage, &format!("block {block_no}"), &error);
                    }
                }
                None => {}
            }
        }
        found.retain(|exemplar| lookup.shows(&exemplar.attributes));
        found
    }

    fn read_block(
        &self,
        opened: &Opened,
        block_no: u64,
        mut exemplars: Vec<Exemplar>,
        found: &mut Vec<ExemplarAnswer>,
    ) -> Result<(), StoreError> {
        if opened.open.has_damage() {
            // Whatever is shown opens.
            exemplars.retain(|one| opened.open.spans(block_no, &[one.row]).is_ok());
        }
        exemplars.retain(|one| match self.query.shared.exemplars.get((opened.identity, block_no, one.row)) {
            Some(known) => {
                found.push(known);
                false
            }
            None => true,
        });
        let Some(block) = opened.open.block(block_no).filter(|_| !exemplars.is_empty()) else { return Ok(()) };
        exemplars.sort_unstable_by_key(|one| one.row);
        exemplars.dedup_by_key(|one| one.row);
        let rows: Vec<u32> = exemplars.iter().map(|one| one.row).collect();
        let (series, scopes) = (opened.open.series_of_rows(block_no)?, opened.open.scopes(block_no)?);
        for (one, glance) in exemplars.iter().zip(opened.open.glances(block_no, &rows)?) {
            let Some(key) = series.get(glance.series as usize) else { continue };
            let exemplar = ExemplarAnswer {
                trace_id: glance.trace_id,
                span_id: glance.span_id,
                duration: one.latency,
                time: counting_instant(glance.start, block.summary().horizon),
                span_name: key.span_name.to_string(),
                error: key.status == SpanStatus::Error,
                attributes: place_of_scope(&scopes, glance.scope, self.conventions),
                in_bucket: false,
            };
            self.query.shared.exemplars.insert((opened.identity, block_no, one.row), &exemplar);
            found.push(exemplar);
        }
        Ok(())
    }
}

/// Peel dimensions and values of a scope's resource.
pub(super) fn place_of_scope(scopes: &SpanBatch, scope: u32, conventions: &Conventions) -> Vec<(String, String)> {
    let resource = scopes.scopes.get(scope as usize).and_then(|scope| scopes.resources.get(scope.resource as usize));
    let Some(resource) = resource else { return Vec::new() };
    let values = conventions.peel_values(scopes, resource.attributes);
    values.map(|(key, value)| (key.to_owned(), value.into_owned())).collect()
}

fn of_head(batch: &SpanBatch, row: usize, horizon: UnixNanos, conventions: &Conventions) -> Option<ExemplarAnswer> {
    let span = batch.spans.get(row)?;
    Some(ExemplarAnswer {
        trace_id: span.trace_id,
        span_id: span.span_id,
        duration: span.latency()?,
        time: counting_instant(span.start_time_unix_nano, horizon),
        span_name: batch.text_lossy(span.name).into_owned(),
        error: span.is_error(),
        attributes: place_of_scope(batch, span.scope, conventions),
        in_bucket: false,
    })
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
