//! The spans that are shown: which ones, and what they say.

use std::collections::{BTreeMap, HashMap};

use super::series::{Candidate, Series};
use super::{Asking, Found, MetricsExemplar};
use crate::model::{DurationNanos, SpanId, SpanKey, TraceId};
use crate::query::contributions::Contributions;
use crate::query::ids::SpanIds;
use crate::query::traceql::{Field, FieldValue, Intrinsic, TraceSpans, fields_of_rows};
use crate::query::walk::{Place, Places};
use crate::query::{Query, QueryError};
use crate::store::StoreError;

/// What a span says: its ids, and its fields under their names.
type Said = (SpanIds, Vec<(String, FieldValue)>);

const NAME: Field = Field::Intrinsic(Intrinsic::Name);

/// Where a span is: query, block, row.
type At = (usize, u32, u32);

impl Asking<'_> {
    /// Of each series those that are shown, in order of time; `max` of all.
    pub(super) fn exemplars(&mut self, series: &[Series], max: usize) -> Result<Vec<Vec<MetricsExemplar>>, QueryError> {
        let chosen = chosen(series, max);
        let mut rows: BTreeMap<(usize, u32), Vec<u32>> = BTreeMap::new();
        for (_, one) in &chosen {
            rows.entry((one.query, one.block)).or_default().push(one.row);
        }
        let mut said: HashMap<At, Said> = HashMap::new();
        for ((query, block), mut rows) in rows {
            rows.sort_unstable();
            rows.dedup();
            let Some(Found { asked, places, kept }) = self.found.get(query) else { continue };
            if !kept.is_empty() {
                let read = self.said_in_traces(asked, kept, &rows)?;
                said.extend(read.into_iter().map(|(row, one)| ((query, block, row), one)));
                continue;
            }
            match read(places, asked, block, &rows) {
                Ok(read) => said.extend(read.into_iter().map(|(row, one)| ((query, block, row), one))),
                Err(error) => Query::unreadable(self.query, &mut self.coverage, "a block", &error),
            }
        }
        let mut shown: Vec<Vec<MetricsExemplar>> = series.iter().map(|_| Vec::new()).collect();
        for (at, one) in chosen {
            let point = series.get(at).and_then(|series| series.at(one.interval));
            let Some((value, (ids, fields))) =
                one.value.or(point).zip(said.get(&(one.query, one.block, one.row)).cloned())
            else {
                continue;
            };
            let ids = SpanIds { duration: one.latency, ..ids };
            if let Some(shown) = shown.get_mut(at) {
                shown.push(MetricsExemplar { at: one.at, value, ids, fields });
            }
        }
        for of_series in &mut shown {
            of_series.sort_by_key(|exemplar| exemplar.at);
        }
        Ok(shown)
    }

    /// What spans say of fields that may be told by the rest of their traces.
    fn said_in_traces(&self, asked: &[Field], kept: &[SpanKey], rows: &[u32]) -> Result<Vec<(u32, Said)>, QueryError> {
        let fields = shown_of(asked);
        let keys: Vec<(u32, SpanKey)> = rows.iter().filter_map(|row| Some((*row, *kept.get(*row as usize)?))).collect();
        let ids: Vec<TraceId> = keys.iter().map(|(_, key)| key.trace_id).collect();
        let traces = self.query.traces_in(self.snapshot, &ids)?;
        let spans = keys.into_iter().zip(&traces).filter_map(|((row, key), trace)| {
            let spans = TraceSpans::new(&trace.batch, 0..trace.batch.spans.len());
            let at = u32::try_from(spans.spans().iter().position(|span| span.key() == key)?).ok()?;
            let values = fields.iter().map(|field| spans.first_value(field, at));
            Some((row, said(key.trace_id, key.span_id, &fields, values)))
        });
        Ok(spans.collect())
    }
}

/// Of the fields that are asked of those that are shown, and the name.
fn shown_of(asked: &[Field]) -> Vec<&Field> {
    asked.iter().filter(|field| !field.is_of_every_answer()).chain([&NAME]).collect()
}

/// At most `max`: first one for each point, the slowest ones, then the second ones. With the number of its series each.
fn chosen(series: &[Series], max: usize) -> Vec<(usize, Candidate)> {
    let with_series =
        |(at, series): (usize, &Series)| series.candidates.iter().map(|one| (at, *one)).collect::<Vec<_>>();
    let mut all: Vec<(usize, Candidate)> = series.iter().enumerate().flat_map(with_series).collect();
    all.sort_by_key(|(at, one)| (one.rank, std::cmp::Reverse(one.latency), *at, one.interval));
    all.truncate(max);
    all
}

/// What the spans of some rows of a block or batch say. A block that is damaged shows only spans that open.
fn read(found: &Contributions, asked: &[Field], block: u32, rows: &[u32]) -> Result<Vec<(u32, Said)>, StoreError> {
    let fields = shown_of(asked);
    let places: &Places = &found.places;
    match places.place(block) {
        Some(Place::Head(batch, _)) => {
            let spans = rows.iter().filter_map(|row| Some((*row, batch.spans.get(*row as usize)?)));
            let of_rows = spans.map(|(row, span)| {
                let values = fields.iter().map(|field| field.first_value(batch, row as usize));
                (row, said(span.trace_id, span.span_id, &fields, values))
            });
            Ok(of_rows.collect())
        }
        Some(Place::Block { opened, block_no }) => {
            let opens = |row: &&u32| !opened.open.has_damage() || opened.open.spans(block_no, &[**row]).is_ok();
            let rows: Vec<u32> = rows.iter().filter(opens).copied().collect();
            let ids = opened.open.ids(block_no, &rows)?;
            let values = fields_of_rows(&opened.open, block_no, &rows, &fields)?;
            let of_rows = rows.iter().zip(ids).zip(values);
            Ok(of_rows.map(|((row, ids), values)| (*row, said(ids.0, ids.1, &fields, values.into_iter()))).collect())
        }
        None => Ok(Vec::new()),
    }
}

/// Ids, and values under the names of their fields, the span's name first. How long it took is known elsewhere.
fn said(
    trace_id: TraceId,
    span_id: SpanId,
    fields: &[&Field],
    values: impl Iterator<Item = Option<FieldValue>>,
) -> Said {
    let mut named: Vec<(String, FieldValue)> = Vec::new();
    for (field, value) in fields.iter().zip(values) {
        let Some(value) = value else { continue };
        match field {
            Field::Intrinsic(Intrinsic::Name) => named.insert(0, ("name".to_owned(), value)),
            other => named.push((other.label(), value)),
        }
    }
    (SpanIds { trace_id, span_id, duration: DurationNanos(0) }, named)
}
