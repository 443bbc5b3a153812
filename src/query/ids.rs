//! The ids behind many exemplars at once: two columns of their row groups.

use std::collections::{BTreeMap, HashMap};

use crate::latency::Exemplar;
use crate::model::{DurationNanos, SpanId, TraceId};

use super::walk::{Place, Places};
use super::{Coverage, Query};

/// A span that shows a number, without more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    /// Opens by every trace API for as long as this is shown.
    pub trace_id: TraceId,
    /// The span within it.
    pub span_id: SpanId,
    /// Its latency.
    pub duration: DurationNanos,
}

/// Ids by the place of the span.
#[derive(Debug, Default)]
pub(super) struct Ids(HashMap<(u32, u32), (TraceId, SpanId)>);

impl Ids {
    /// `None` when the span could not be read.
    pub(super) fn shown(&self, exemplar: &Exemplar) -> Option<SpanIds> {
        let (trace_id, span_id) = *self.0.get(&(exemplar.block, exemplar.row))?;
        Some(SpanIds { trace_id, span_id, duration: exemplar.latency })
    }
}

/// Reads the ids of these; a block that cannot be read is named in the coverage.
pub(super) fn ids_of<'a>(
    query: &Query,
    places: &Places,
    wanted: impl Iterator<Item = &'a Exemplar>,
    coverage: &mut Coverage,
) -> Ids {
    let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for exemplar in wanted {
        rows.entry(exemplar.block).or_default().push(exemplar.row);
    }
    let mut ids = HashMap::new();
    for (block, mut rows) in rows {
        rows.sort_unstable();
        rows.dedup();
        let read = match places.place(block) {
            Some(Place::Head(batch, _)) => {
                let spans = rows.iter().filter_map(|row| batch.spans.get(*row as usize));
                Ok(spans.map(|span| (span.trace_id, span.span_id)).collect())
            }
            Some(Place::Block { opened, block_no }) => opened.open.ids(block_no, &rows),
            None => Ok(Vec::new()),
        };
        match read {
            Ok(found) => ids.extend(rows.into_iter().map(|row| (block, row)).zip(found)),
            Err(error) => query.unreadable(coverage, "a block", &error),
        }
    }
    Ids(ids)
}
