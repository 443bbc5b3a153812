//! The first pass over the spans: everything that columns are later told by (series, scopes, shapes), and the summary.

use super::index::{ContentIndex, hash_of, mix};
use super::scopes::Scopes;
use super::shapes::Shapes;
use crate::block::columns::Owner;
use crate::block::summary::{BlockSummary, ServiceCount};
use crate::model::{DurationNanos, SeriesKey, Span, SpanBatch, UnixNanos};

/// A span and the batch it points into.
pub(super) type Located<'a> = (&'a SpanBatch, &'a Span);

/// What the first pass found.
pub(super) struct Survey<'a> {
    /// Ascending.
    pub(super) series: Vec<SeriesKey<'a>>,
    /// Per row, an index into `series`.
    pub(super) row_series: Vec<u32>,
    /// Per row, an index into `scopes.scopes`.
    pub(super) row_scopes: Vec<u32>,
    pub(super) scopes: Scopes,
    pub(super) shapes: Shapes<'a>,
    /// Per row.
    pub(super) row_shapes: Vec<u32>,
    /// Per event of all rows, in row order.
    pub(super) event_shapes: Vec<u32>,
    /// Per link of all rows, in row order.
    pub(super) link_shapes: Vec<u32>,
    pub(super) summary: BlockSummary,
}

/// A series while rows are counted.
struct Counted<'a> {
    key: SeriesKey<'a>,
    spans: u64,
    last_seen: UnixNanos,
    max_latency: DurationNanos,
    /// The shape its last span had: the next one most likely has it too.
    last_shape: u32,
}

/// Reads `spans`; `batch_of` gives the position of each span's batch, below `n_batches`.
pub(super) fn survey<'a>(spans: &[Located<'a>], batch_of: &[u32], n_batches: usize, horizon: UnixNanos) -> Survey<'a> {
    let mut summary = BlockSummary::empty(horizon);
    let mut counted: Vec<Counted<'a>> = Vec::new();
    let mut index = ContentIndex::default();
    let mut scopes = Scopes::new(n_batches);
    let mut shapes = Shapes::new();
    let mut row_series = Vec::with_capacity(spans.len());
    let mut row_scopes = Vec::with_capacity(spans.len());
    let mut row_shapes = Vec::with_capacity(spans.len());
    let (mut event_shapes, mut link_shapes) = (Vec::new(), Vec::new());
    for ((batch, span), batch_idx) in spans.iter().zip(batch_of) {
        let series = series_row(&mut counted, &mut index, SeriesKey::of(batch, span));
        row_series.push(series);
        row_scopes.push(scopes.row(batch, *batch_idx, span.scope));
        if let Some(counted) = counted.get_mut(series as usize) {
            counted.last_shape = shapes.row(batch, Owner::Span, span.attributes, Some(counted.last_shape));
            row_shapes.push(counted.last_shape);
            count(&mut summary, counted, span);
        }
        for event in batch.events(span.events) {
            event_shapes.push(shapes.row(batch, Owner::Event, event.attributes, event_shapes.last().copied()));
        }
        for link in batch.links(span.links) {
            link_shapes.push(shapes.row(batch, Owner::Link, link.attributes, link_shapes.last().copied()));
        }
    }
    shapes.assign_columns();
    let series = sort_series(counted, &mut row_series, &mut summary);
    Survey { series, row_series, row_scopes, scopes, shapes, row_shapes, event_shapes, link_shapes, summary }
}

fn series_row<'a>(counted: &mut Vec<Counted<'a>>, index: &mut ContentIndex, key: SeriesKey<'a>) -> u32 {
    let service = mix(hash_of(key.service.as_bytes()), hash_of(key.namespace.as_bytes()));
    let scalars = [key.kind as u8, key.status as u8, u8::from(key.entry)];
    let hash = mix(mix(service, hash_of(key.span_name.as_bytes())), hash_of(&scalars));
    if let Some(row) = index.find(hash, |row| counted.get(row as usize).is_some_and(|known| known.key == key)) {
        return row;
    }
    let zero = (UnixNanos(0), DurationNanos(0));
    counted.push(Counted { key, spans: 0, last_seen: zero.0, max_latency: zero.1, last_shape: 0 });
    index.push(hash)
}

fn count(summary: &mut BlockSummary, series: &mut Counted<'_>, span: &Span) {
    let (start, index_time) = (span.start_time_unix_nano, span.index_time());
    summary.spans += 1;
    if !start.is_unset() {
        summary.min_start = summary.min_start.min(start);
        summary.max_start = summary.max_start.max(start);
    }
    summary.min_index_time = summary.min_index_time.min(index_time);
    summary.max_index_time = summary.max_index_time.max(index_time);
    series.spans += 1;
    series.last_seen = series.last_seen.max(index_time);
    if let Some(latency) = span.latency() {
        summary.min_latency = summary.min_latency.min(latency);
        summary.max_latency = summary.max_latency.max(latency);
        series.max_latency = series.max_latency.max(latency);
    }
}

/// Sorts the series, renumbers the rows and counts the services, which now stand together.
fn sort_series<'a>(
    counted: Vec<Counted<'a>>,
    row_series: &mut [u32],
    summary: &mut BlockSummary,
) -> Vec<SeriesKey<'a>> {
    let mut sorted: Vec<(u32, Counted<'a>)> = (0..).zip(counted).collect();
    sorted.sort_unstable_by(|(_, a), (_, b)| a.key.cmp(&b.key));
    let mut renumbered = vec![0; sorted.len()];
    for (new, (old, _)) in (0_u32..).zip(&sorted) {
        if let Some(number) = renumbered.get_mut(*old as usize) {
            *number = new;
        }
    }
    for series in row_series {
        *series = renumbered.get(*series as usize).copied().unwrap_or(0);
    }
    for (_, series) in &sorted {
        let same = |last: &&mut ServiceCount| {
            (last.namespace.as_str(), last.service.as_str()) == (&*series.key.namespace, &*series.key.service)
        };
        if let Some(service) = summary.services.last_mut().filter(same) {
            service.spans += series.spans;
            service.last_seen = service.last_seen.max(series.last_seen);
            service.max_latency = service.max_latency.max(series.max_latency);
        } else {
            summary.services.push(ServiceCount {
                namespace: series.key.namespace.to_string(),
                service: series.key.service.to_string(),
                spans: series.spans,
                last_seen: series.last_seen,
                max_latency: series.max_latency,
            });
        }
    }
    sorted.into_iter().map(|(_, series)| series.key).collect()
}
