//! The first pass over the spans: everything that columns are later told by (series, scopes, shapes), and the summary.

use super::index::{ContentIndex, hash_of, mix};
use super::scopes::Scopes;
use super::shapes::Shapes;
use crate::block::columns::Owner;
use crate::block::summary::{BlockSummary, ServiceCount};
use crate::model::{Conventions, DurationNanos, SeriesKey, Span, SpanBatch, UnixNanos};

/// A span and the batch it points into.
pub(super) type Located<'a> = (&'a SpanBatch, &'a Span);

/// What the first pass found.
pub(super) struct Survey<'a> {
    /// Ascending.
    pub(super) series: Vec<SeriesKey<'a>>,
    /// Per row, an index into `series`.
    pub(super) row_series: Vec<u32>,
    /// Per row, bits 1, 2 and 4: its name, kind or status code is not as its series says it.
    pub(super) row_exceptions: Vec<u8>,
    /// Per row, a row of the table of scopes.
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

/// The series of spans that look the same from the outside: no text is validated twice.
struct Look<'a> {
    scope: u32,
    name: &'a [u8],
    kind: i32,
    status_code: i32,
    series: u32,
    exceptions: u8,
}

/// All series, and the looks that lead to them.
#[derive(Default)]
struct SeriesTable<'a> {
    counted: Vec<Counted<'a>>,
    index: ContentIndex,
    looks: Vec<Look<'a>>,
    look_index: ContentIndex,
}

/// Reads `spans`; `batch_of` gives the position of each span's batch, below `n_batches`.
pub(super) fn survey<'a>(
    spans: &[Located<'a>],
    batch_of: &[u32],
    n_batches: usize,
    mut summary: BlockSummary,
    conventions: &Conventions,
) -> Survey<'a> {
    let mut table = SeriesTable::default();
    let mut scopes = Scopes::new(n_batches);
    let mut shapes = Shapes::new();
    let mut row_series = Vec::with_capacity(spans.len());
    let mut row_exceptions = Vec::with_capacity(spans.len());
    let mut row_scopes = Vec::with_capacity(spans.len());
    let mut row_shapes = Vec::with_capacity(spans.len());
    let (mut event_shapes, mut link_shapes) = (Vec::new(), Vec::new());
    for ((batch, span), batch_idx) in spans.iter().zip(batch_of) {
        let scope = scopes.row(batch, *batch_idx, span.scope);
        let (series, exceptions) = table.row(batch, span, scope, conventions);
        row_series.push(series);
        row_exceptions.push(exceptions);
        row_scopes.push(scope);
        if let Some(counted) = table.counted.get_mut(series as usize) {
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
    let series = sort_series(table.counted, &mut row_series, &mut summary);
    Survey {
        series,
        row_series,
        row_exceptions,
        row_scopes,
        scopes,
        shapes,
        row_shapes,
        event_shapes,
        link_shapes,
        summary,
    }
}

impl<'a> SeriesTable<'a> {
    /// The series of a span whose scope is `scope` here, and where the span differs from it.
    fn row(&mut self, batch: &'a SpanBatch, span: &Span, scope: u32, conventions: &Conventions) -> (u32, u8) {
        if conventions.entry_depends_on_span(batch, span) {
            let key = SeriesKey::of(batch, span, conventions);
            let exceptions = exceptions(batch, span, &key);
            return (self.add(key), exceptions);
        }
        let name = batch.text(span.name);
        let (kind, status_code) = (span.kind, span.status_code);
        let scalars = u64::from(kind.cast_unsigned()) << 32 | u64::from(status_code.cast_unsigned());
        let hash = mix(mix(hash_of(name), scalars), u64::from(scope));
        let same = |look: &&Look<'_>| {
            (look.scope, look.kind, look.status_code) == (scope, kind, status_code) && look.name == name
        };
        let looks = &self.looks;
        let known = self.look_index.find(hash, |at| looks.get(at as usize).is_some_and(|look| same(&look)));
        if let Some(look) = known.and_then(|at| looks.get(at as usize)) {
            return (look.series, look.exceptions);
        }
        let key = SeriesKey::of(batch, span, conventions);
        let exceptions = exceptions(batch, span, &key);
        let series = self.add(key);
        self.looks.push(Look { scope, name, kind, status_code, series, exceptions });
        let _at = self.look_index.push(hash);
        (series, exceptions)
    }

    fn add(&mut self, key: SeriesKey<'a>) -> u32 {
        let service = mix(hash_of(key.service.as_bytes()), hash_of(key.namespace.as_bytes()));
        let scalars = [key.kind as u8, key.status as u8, u8::from(key.entry)];
        let hash = mix(mix(service, hash_of(key.span_name.as_bytes())), hash_of(&scalars));
        let counted = &self.counted;
        let known = self.index.find(hash, |row| counted.get(row as usize).is_some_and(|known| known.key == key));
        known.unwrap_or_else(|| {
            let zero = (UnixNanos(0), DurationNanos(0));
            self.counted.push(Counted { key, spans: 0, last_seen: zero.0, max_latency: zero.1, last_shape: 0 });
            self.index.push(hash)
        })
    }
}

/// Where the span is not what its series says: other numbers that mean the same, names that are no UTF-8.
fn exceptions(batch: &SpanBatch, span: &Span, series: &SeriesKey<'_>) -> u8 {
    let name = batch.text(span.name) != series.span_name.as_bytes();
    let kind = span.kind != i32::from(series.kind as u8);
    let status = span.status_code != i32::from(series.status as u8);
    u8::from(name) | u8::from(kind) << 1 | u8::from(status) << 2
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
