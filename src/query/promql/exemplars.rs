//! Traces behind what a query counts: every selector in it is looked for, whatever is done to its series (contract 5.5).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::Query;
use super::super::walk::{Place, Places};
use super::ast::{Expr, Ranged};
use super::catalogue::Part;
use super::counted::{Detail, Kept};
use super::histogram::{BOUNDS, bound_of};
use super::labels::{BUCKET_BOUND, Labels};
use super::series::Millis;
use super::source::Selector;
use super::stored::{Asked, Stored, millis_of};
use super::{PromError, PromQuery};
use crate::latency::{Exemplar, counting_instant};
use crate::model::{DurationNanos, SpanId, TraceId, UnixNanos};

/// Of one series and range.
const OF_SERIES_MAX: usize = 100;
/// Of one answer.
const OF_ANSWER_MAX: usize = 10_000;

/// What is asked.
#[derive(Clone, Debug)]
pub struct ExemplarQuestion {
    /// The whole expression of a panel.
    pub query: PromQuery,
    /// The first instant.
    pub start: Millis,
    /// The last one.
    pub end: Millis,
    /// Those of spans that took so long or longer.
    pub latency_min: DurationNanos,
    /// Those of spans that took no longer.
    pub latency_max: DurationNanos,
    /// Of each series.
    pub most: usize,
}

/// The exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// With the name of the metric, and the bound of a bucket.
    pub labels: Labels,
    /// In order of time.
    pub exemplars: Vec<PromExemplar>,
}

/// A span that shows what is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromExemplar {
    /// Opens.
    pub trace_id: TraceId,
    /// The span in it.
    pub span_id: SpanId,
    /// Its latency: the value that it is drawn at.
    pub latency: DurationNanos,
    /// When it is counted.
    pub at: UnixNanos,
}

impl Query {
    /// Exemplars of every series that a query selects, the slowest of each; and what is missing, one sentence each.
    ///
    /// # Errors
    /// `Starting`, `TooLong`.
    pub fn prom_exemplars(
        &self,
        question: &ExemplarQuestion,
    ) -> Result<(Vec<SeriesExemplars>, Vec<String>), PromError> {
        let stored = Stored::of(self)?;
        let mut selectors = Vec::new();
        question.query.expr.selectors(&mut selectors);
        let mut found: BTreeMap<Labels, Vec<PromExemplar>> = BTreeMap::new();
        for selector in selectors {
            for metric in stored.metrics_of(selector) {
                let mut places = Places::default();
                let asked = Asked { selector: Some(selector), grouping: None };
                let kept = Kept { detail: Detail::Counts, exemplars: true, ..Kept::of(metric.part) };
                let edges = Stored::edges_of([question.start, question.end]);
                let counted = stored.counted(metric, kept, &edges, false, asked, &mut places)?;
                let bound = |latency: DurationNanos| match metric.part {
                    Part::Buckets => BOUNDS.get(bound_of(latency)).map_or("", String::as_str),
                    _ => "",
                };
                for mut one in counted {
                    one.exemplars.retain(|exemplar| selector.takes(BUCKET_BOUND, bound(exemplar.latency)));
                    let labels = metric.named(one.labels);
                    for exemplar in stored.read(one.exemplars, question, &places) {
                        let labels = labels.clone().with(BUCKET_BOUND, bound(exemplar.latency));
                        found.entry(labels).or_default().push(exemplar);
                    }
                }
            }
        }
        Ok((bounded(found, question.most), stored.warnings()))
    }
}

/// The slowest of each series, fewer where there are too many in all.
fn bounded(found: BTreeMap<Labels, Vec<PromExemplar>>, most: usize) -> Vec<SeriesExemplars> {
    let each = (OF_ANSWER_MAX / found.len().max(1)).clamp(1, OF_SERIES_MAX).min(most);
    let of_series = |(labels, mut exemplars): (Labels, Vec<PromExemplar>)| {
        exemplars.sort_by_key(|one| (Reverse(one.latency), one.at, one.span_id));
        exemplars.dedup();
        exemplars.truncate(each);
        exemplars.sort_by_key(|one| (one.at, one.span_id));
        SeriesExemplars { labels, exemplars }
    };
    found.into_iter().map(of_series).filter(|one| !one.exemplars.is_empty()).collect()
}

impl Stored<'_> {
    /// What some exemplars lead to: the slowest of those that are wanted.
    fn read(&self, mut exemplars: Vec<Exemplar>, question: &ExemplarQuestion, places: &Places) -> Vec<PromExemplar> {
        exemplars.retain(|one| (question.latency_min..=question.latency_max).contains(&one.latency));
        exemplars.sort_by_key(|one| (Reverse(one.latency), one.block, one.row));
        exemplars.dedup();
        let is_within = |one: &PromExemplar| (question.start..=question.end).contains(&millis_of(one.at));
        let mut found = Vec::new();
        // In the slots at the ends of the range some lie outside of it.
        for some in exemplars.chunks(2 * OF_SERIES_MAX) {
            found.extend(self.read_all(some, places).into_values().filter(is_within));
            if question.most.min(OF_SERIES_MAX) <= found.len() {
                break;
            }
        }
        found
    }

    /// What exemplars lead to, by block and row; those that cannot be read are left out.
    pub(super) fn read_all(&self, exemplars: &[Exemplar], places: &Places) -> BTreeMap<(u32, u32), PromExemplar> {
        let mut of_blocks: BTreeMap<u32, Vec<(u32, DurationNanos)>> = BTreeMap::new();
        for one in exemplars {
            of_blocks.entry(one.block).or_default().push((one.row, one.latency));
        }
        let mut all = BTreeMap::new();
        for (block, mut rows) in of_blocks {
            rows.sort_unstable();
            rows.dedup_by_key(|(row, _)| *row);
            let mut found = Vec::with_capacity(rows.len());
            self.read_block(block, &rows, places, &mut found);
            all.extend(rows.iter().map(|(row, _)| (block, *row)).zip(found));
        }
        all
    }

    fn read_block(&self, block: u32, rows: &[(u32, DurationNanos)], places: &Places, found: &mut Vec<PromExemplar>) {
        match places.place(block) {
            Some(Place::Head(batch, horizon)) => {
                for (row, latency) in rows {
                    // Rows of a head were counted in it.
                    let span = batch.spans.get(*row as usize).copied().unwrap_or_default();
                    let at = counting_instant(span.start_time_unix_nano, horizon);
                    found.push(PromExemplar { trace_id: span.trace_id, span_id: span.span_id, latency: *latency, at });
                }
            }
            Some(Place::Block { opened, block_no }) => {
                let numbers: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
                let horizon = opened.open.block(block_no).map_or(UnixNanos(u64::MAX), |block| block.summary().horizon);
                match opened.open.glances(block_no, &numbers) {
                    Ok(glances) => found.extend(glances.into_iter().zip(rows).map(|(glance, (_, latency))| {
                        let at = counting_instant(glance.start, horizon);
                        PromExemplar { trace_id: glance.trace_id, span_id: glance.span_id, latency: *latency, at }
                    })),
                    Err(error) => self.unreadable(&error),
                }
            }
            None => {}
        }
    }
}

impl Expr {
    /// Every selector in it.
    fn selectors<'e>(&'e self, found: &mut Vec<&'e Selector>) {
        match self {
            Self::Number(_) | Self::Text(_) => {}
            Self::Negative(of) | Self::OverTime { of: Ranged::Subquery { of, .. }, .. } => of.selectors(found),
            Self::Select(selector, _) | Self::OverTime { of: Ranged::Selected { selector, .. }, .. } => {
                found.push(selector);
            }
            Self::Aggregate(aggregate) => aggregate.of.selectors(found),
            Self::Binary(binary) => {
                binary.left.selectors(found);
                binary.right.selectors(found);
            }
            Self::Call(_, args) => args.iter().for_each(|arg| arg.selectors(found)),
        }
    }
}
