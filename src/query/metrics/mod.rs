//! TraceQL metrics: numbers over time of the spans that filters find, exact, with exemplars.
//!
//! Points are the ends of intervals `(end - step, end]`. Every span counts once, at its counting instant.
//!
//! ```text
//! each { filter } | function(..) by(..) --sums, compare--> Series (series): points where something was counted
//! second stages, arithmetic -------------------stages----> Series
//!   the largest of them, and the spans that show points --exemplars--> MetricsAnswer
//! ```

mod cells;
mod compare;
mod exemplars;
mod intervals;
mod quantiles;
mod related;
mod series;
mod stages;
mod sums;

use std::time::Instant;

use self::compare::Tally;
use self::intervals::Intervals;
use self::series::Series;
use self::stages::{Operand, combined, staged};
use self::sums::Sums;
use super::contributions::Contributions;
use super::ids::SpanIds;
use super::rows::{WITHIN, open_all};
use super::traceql::{
    CompareScan, Field, FieldValue, Filter, GroupTable, MeasureScan, MetricsExpression, MetricsFunction, MetricsQuery,
    MetricsSource, RowScan, SpanMetrics,
};
use super::{ATTEMPTS, Coverage, Query, QueryError, coverage_of};
use crate::clock;
use crate::model::{DurationNanos, SpanKey, TimeRange, UnixNanos};
use crate::store::{OpenPartition, Snapshot, StoreError};

/// Points of one series, as in Tempo and Prometheus.
pub const POINTS_MAX: u64 = 11_000;
/// Series of one answer; the largest are kept. Those of `compare` are bounded by themselves.
const SERIES_MAX: usize = 1_000;
/// Points of one answer, 60 bytes each on the wire.
const ANSWER_POINTS_MAX: usize = 2_000_000;
/// Groups of one query, some hundred bytes each.
const GROUPS_MAX: usize = 50_000;
/// Bytes of the values of these groups.
const GROUP_BYTES_MAX: usize = 64 << 20;

/// What is asked.
#[derive(Clone, Debug)]
pub struct MetricsQuestion {
    /// Which spans, what of them, in which groups, and what is done with these numbers.
    pub query: MetricsQuery,
    /// By counting instant; widened to whole steps.
    pub range: TimeRange,
    /// Length of an interval; one that is as long as the range, or longer, makes a single one that ends with it.
    pub step: DurationNanos,
    /// Traces of the whole answer.
    pub exemplars_max: usize,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct MetricsAnswer {
    /// In the order of their groups as they were met.
    pub series: Vec<MetricsSeries>,
    /// Spans counted, once for each query that counts them.
    pub spans: u64,
    /// What is missing.
    pub coverage: Coverage,
}

/// One series.
#[derive(Clone, Debug)]
pub struct MetricsSeries {
    /// What tells it from the others: fields as they were written, `p` of a quantile, `__bucket`; `__name__` where it is the
    /// only one.
    pub labels: Vec<(String, FieldValue)>,
    /// By the end of the interval. Counts and rates have one for every interval, others for those with a number.
    pub points: Vec<(UnixNanos, f64)>,
    /// In order of time.
    pub exemplars: Vec<MetricsExemplar>,
}

/// A span that shows a point.
#[derive(Clone, Debug)]
pub struct MetricsExemplar {
    /// When it is counted.
    pub at: UnixNanos,
    /// Where it is drawn: its own value, or the point where that is a count, a rate or the result of arithmetic.
    pub value: f64,
    /// What opens.
    pub ids: SpanIds,
    /// Its name, and what it says of the fields that the query asks of, each named as in TraceQL.
    pub fields: Vec<(String, FieldValue)>,
}

/// A question while it is answered.
struct Asking<'a> {
    query: &'a Query,
    snapshot: &'a Snapshot,
    intervals: Intervals,
    shows: bool,
    began: Instant,
    /// For each of its queries.
    found: Vec<Found>,
    spans: u64,
    coverage: Coverage,
}

/// Where the spans of one query are that may be shown, and what is asked of them.
struct Found {
    asked: Vec<Field>,
    places: Contributions,
    /// Instead of the places, of spans that were found in whole traces: rows count among these.
    kept: Vec<SpanKey>,
}

impl Query {
    /// Numbers over time. Cost: the columns that filters, groups and values need of every block that meets the range, for
    /// each query of the expression.
    ///
    /// # Errors
    /// `Starting`, `EmptyWindow`, `TooManyPoints`, `TooLong`, `TooManyGroups`.
    pub fn metrics(&self, question: &MetricsQuestion) -> Result<MetricsAnswer, QueryError> {
        let began = clock::instant();
        let mut answer = self.metrics_once(question, began)?;
        for _ in 1..ATTEMPTS {
            if !answer.coverage.is_outdated() {
                break;
            }
            answer = self.metrics_once(question, began)?;
        }
        Ok(answer)
    }

    fn metrics_once(&self, question: &MetricsQuestion, began: Instant) -> Result<MetricsAnswer, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut asking = Asking {
            query: self,
            snapshot: &snapshot,
            intervals: Intervals::of(question.range, question.step)?,
            shows: 0 < question.exemplars_max,
            began,
            found: Vec::new(),
            spans: 0,
            coverage: coverage_of(&snapshot),
        };
        let series = match asking.expression(&question.query.expression)? {
            Operand::Series(series) => asking.largest(series),
            Operand::Number(_) => Vec::new(),
        };
        let shown = asking.exemplars(&series, question.exemplars_max)?;
        let series = series.into_iter().zip(shown).map(|(one, exemplars)| asking.answered(one, exemplars)).collect();
        Ok(MetricsAnswer { series, spans: asking.spans, coverage: asking.coverage })
    }
}

impl Asking<'_> {
    fn expression(&mut self, expression: &MetricsExpression) -> Result<Operand, QueryError> {
        match expression {
            MetricsExpression::Number(number) => Ok(Operand::Number(*number)),
            MetricsExpression::Spans(metrics) => self.of_spans(metrics).map(Operand::Series),
            MetricsExpression::Arithmetic { operator, left, right } => {
                let (left, right) = (self.expression(left)?, self.expression(right)?);
                Ok(combined(*operator, left, right, self.intervals))
            }
            MetricsExpression::Staged { of, stage } => match self.expression(of)? {
                Operand::Series(series) => {
                    let may_go_on = || self.query.may_go_on(self.began, WITHIN);
                    staged(series, *stage, self.intervals, may_go_on).map(Operand::Series)
                }
                number @ Operand::Number(_) => Ok(number),
            },
        }
    }

    fn of_spans(&mut self, metrics: &SpanMetrics) -> Result<Vec<Series>, QueryError> {
        let every = Filter::default();
        let (filter, related) = match &metrics.source {
            MetricsSource::Filter(filter) => (filter, None),
            MetricsSource::Related(query) => (&every, Some(query)),
        };
        let range = self.intervals.range();
        if let MetricsFunction::Compare(comparison) = &metrics.function {
            let scan = CompareScan { filter, comparison, range };
            return match related {
                Some(query) => self.compared_related(metrics, query, &scan),
                None => self.compared(metrics, &scan),
            };
        }
        let scan = MeasureScan {
            filter,
            range,
            by: metrics.by.iter().map(|(field, _)| field).collect(),
            value: metrics.function.field(),
            with_latency: self.shows,
        };
        match related {
            Some(query) => self.summed_related(metrics, query, &scan),
            None => self.summed(metrics, &scan),
        }
    }

    fn summed(&mut self, metrics: &SpanMetrics, scan: &MeasureScan<'_>) -> Result<Vec<Series>, QueryError> {
        let mut groups = GroupTable::default();
        let mut sums = Sums::new(metrics, self.intervals, self.found.len(), self.shows);
        let mut found = self.blocks(|open, block_no, block| {
            scan.scan_block(open, block_no, &mut groups, &mut |rows| sums.rows(block, rows))?;
            Ok(bounded(metrics, &groups, &sums))
        })?;
        let batches = heads(&mut found, self.snapshot);
        scan.scan_heads(&self.snapshot.heads, &mut groups, &mut |head, batch, span| {
            if let Some(block) = batches.get(head).and_then(|batches| batches.get(batch)) {
                let _shown = sums.span(*block, &span);
            }
        });
        bounded(metrics, &groups, &sums)?;
        self.spans += sums.spans;
        self.keep(found, metrics, Vec::new());
        Ok(sums.into_series(&groups))
    }

    fn compared(&mut self, metrics: &SpanMetrics, scan: &CompareScan<'_>) -> Result<Vec<Series>, QueryError> {
        let mut table = compare::table();
        let mut tally = Tally::new(self.intervals, self.found.len(), self.shows);
        let mut found = self.blocks(|open, block_no, block| {
            scan.scan_block(open, block_no, &mut table, &mut |span, attribute, value| {
                let _shown = tally.count(block, &span, attribute, value);
            })?;
            Ok(tally.is_bounded(&table))
        })?;
        let batches = heads(&mut found, self.snapshot);
        for (head_no, batch_no, row) in scan.found_in_heads(&self.snapshot.heads) {
            let Some(head) = self.snapshot.heads.get(head_no) else { continue };
            let block = batches.get(head_no).and_then(|batches| batches.get(batch_no));
            let Some((batch, block)) = head.batches.get(batch_no).zip(block) else { continue };
            scan.scan_row(batch, row, head.horizon, &mut table, &mut |span, attribute, value| {
                let _shown = tally.count(*block, &span, attribute, value);
            });
        }
        tally.is_bounded(&table)?;
        self.spans += tally.spans;
        self.keep(found, metrics, Vec::new());
        Ok(tally.into_series(&table, scan.comparison.top, &mut self.coverage))
    }

    /// Gives `read` every block that may hold spans of the range, with its number in the partition and in the question.
    fn blocks(
        &mut self,
        mut read: impl FnMut(&OpenPartition, u64, u32) -> Result<Result<(), QueryError>, StoreError>,
    ) -> Result<Contributions, QueryError> {
        let mut found = Contributions::default();
        let everything = RowScan { range: self.intervals.range(), ..RowScan::all() };
        for opened in open_all(self.query, self.snapshot, &everything, &mut found)? {
            for (block_no, _) in opened.open.blocks(opened.visible) {
                self.query.may_go_on(self.began, WITHIN)?;
                let block = opened.base.saturating_add(u32::try_from(block_no).unwrap_or(u32::MAX));
                match read(&opened.open, block_no, block) {
                    Ok(bounded) => bounded?,
                    Err(error) => self.query.unreadable(&mut self.coverage, &format!("block {block_no}"), &error),
                }
            }
            found.places.opens.push(opened);
        }
        self.coverage.also(std::mem::take(&mut found.coverage));
        Ok(found)
    }

    fn keep(&mut self, places: Contributions, metrics: &SpanMetrics, kept: Vec<SpanKey>) {
        self.found.push(Found { asked: metrics.fields().into_iter().cloned().collect(), places, kept });
    }

    /// As many of the series as an answer takes, the largest.
    fn largest(&mut self, mut series: Vec<Series>) -> Vec<Series> {
        let n = usize::try_from(self.intervals.n).unwrap_or(usize::MAX);
        let is_compared = series.iter().any(Series::is_compared);
        let bound = if is_compared { compare::SERIES_MAX } else { SERIES_MAX };
        let bound = bound.min(ANSWER_POINTS_MAX / n.max(1));
        if series.len() <= bound {
            return series;
        }
        let left_out = series.len() - bound;
        let mut order: Vec<usize> = (0..series.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(series.get(*at).map_or(0, |one| one.spans)));
        let mut stays = vec![false; series.len()];
        order.iter().take(bound).for_each(|at| {
            if let Some(stays) = stays.get_mut(*at) {
                *stays = true;
            }
        });
        let mut stays = stays.into_iter();
        series.retain(|_| stays.next().unwrap_or(false));
        self.coverage.missing(format!("{left_out} smaller series are left out; {bound} are shown"));
        series
    }

    fn answered(&self, series: Series, exemplars: Vec<MetricsExemplar>) -> MetricsSeries {
        let points: Vec<(UnixNanos, f64)> = match series.elsewhere {
            Some(_) => {
                let mut own = series.points.iter().peekable();
                let at = |interval| own.next_if(|point| point.0 == interval).map(|point| point.1).or(series.elsewhere);
                let all = self.intervals.numbers().zip(self.intervals.numbers().map(at));
                all.filter_map(|(interval, value)| Some((self.intervals.end(interval), value?))).collect()
            }
            None => series.points.iter().map(|(interval, value)| (self.intervals.end(*interval), *value)).collect(),
        };
        let mut labels = series.labels;
        if labels.is_empty() {
            labels.push(("__name__".to_owned(), FieldValue::String(series.name)));
        }
        MetricsSeries { labels, points, exemplars }
    }
}

/// Numbers the batches of the heads.
fn heads(found: &mut Contributions, snapshot: &Snapshot) -> Vec<Vec<u32>> {
    let mut number = |head: &crate::store::HeadPart| {
        head.batches.iter().map(|batch| found.places.add_head(batch, head.horizon)).collect()
    };
    snapshot.heads.iter().map(&mut number).collect()
}

/// Whether there is not too much of anything.
fn bounded(metrics: &SpanMetrics, groups: &GroupTable, sums: &Sums<'_>) -> Result<(), QueryError> {
    if GROUPS_MAX < groups.n_groups() {
        let key = metrics.by.iter().map(|(_, written)| written.as_str()).collect::<Vec<_>>().join(", ");
        return Err(QueryError::TooManyGroups { key, groups_max: GROUPS_MAX });
    }
    if GROUP_BYTES_MAX < groups.bytes() {
        return Err(too_much("bytes of values to group by", GROUP_BYTES_MAX));
    }
    match sums.overflow {
        Some((what, bound)) => Err(too_much(what, bound)),
        None => Ok(()),
    }
}

fn too_much(what: &'static str, bound: usize) -> QueryError {
    QueryError::TooMuchCounted { what, bound }
}
