//! TraceQL metrics: numbers over time of the spans that a filter finds, exact, with exemplars.
//!
//! Points are the ends of intervals `(end - step, end]`. Every span with a latency counts once, at its counting instant.

use std::collections::BTreeMap;

use crate::latency::{Bucket, Exemplar, Quantile, SlotLatency, SparseHistogram};
use crate::model::{DurationNanos, TimeRange, UnixNanos};

use super::contributions::{Contributions, Sink};
use super::ids::{SpanIds, ids_of};
use super::selection::{SpansWanted, Target};
use super::traceql::{FieldValue, MetricsFunction, MetricsQuery, RowScan};
use super::walk::SlotAt;
use super::{Coverage, Query, QueryError};

/// Points of one series, as in Tempo and Prometheus.
pub const POINTS_MAX: u64 = 11_000;
/// Series of one answer; the largest are kept.
const SERIES_MAX: usize = 1_000;
/// Intervals of all series in which something was counted, some 150 bytes each.
const CELLS_MAX: usize = 200_000;
/// Exemplars of one interval of a series.
const CELL_EXEMPLARS_MAX: usize = 2;

/// What is asked.
#[derive(Clone, Debug)]
pub struct MetricsQuestion {
    /// Which spans, what of them, in which groups.
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
    /// Spans counted.
    pub spans: u64,
    /// What is missing.
    pub coverage: Coverage,
}

/// One series.
#[derive(Clone, Debug)]
pub struct MetricsSeries {
    /// Of its group; `None` without `by`, and for `nil`.
    pub group: Option<FieldValue>,
    /// Which quantile it is.
    pub quantile: Option<Quantile>,
    /// Which bucket it is: the power of two of nanoseconds, as an exponent.
    pub power: Option<u32>,
    /// By the end of the interval. Counts and rates have one for every interval, others for those with spans.
    pub points: Vec<(UnixNanos, f64)>,
    /// In order of time.
    pub exemplars: Vec<MetricsExemplar>,
}

/// A span that shows a point.
#[derive(Clone, Copy, Debug)]
pub struct MetricsExemplar {
    /// Where it starts.
    pub at: UnixNanos,
    /// Where it is drawn: its duration in seconds, or the point's own number where that is a count or rate.
    pub value: f64,
    /// What opens.
    pub ids: SpanIds,
}

/// The intervals of a question.
#[derive(Clone, Copy, Debug)]
struct Intervals {
    first_end: u64,
    step: u64,
    n: u64,
}

impl Intervals {
    fn of(range: TimeRange, step: DurationNanos) -> Result<Self, QueryError> {
        let (start, end) = (range.start.0, range.end.0);
        if end <= start {
            return Err(QueryError::EmptyWindow { start, end });
        }
        if end - start <= step.0 {
            return Ok(Self { first_end: end, step: end - start, n: 1 });
        }
        let step = step.0.max(1);
        let first = start / step;
        let points = end.div_ceil(step) - first + 1;
        if POINTS_MAX < points {
            return Err(QueryError::TooManyPoints { points });
        }
        Ok(Self { first_end: first * step, step, n: points })
    }

    /// Every instant that lies in one.
    fn range(self) -> TimeRange {
        let start = (self.first_end + 1).saturating_sub(self.step);
        TimeRange { start: UnixNanos(start), end: UnixNanos(self.end(self.n - 1).0.saturating_add(1)) }
    }

    fn containing(self, at: UnixNanos) -> u64 {
        at.0.saturating_sub(self.first_end).div_ceil(self.step)
    }

    fn end(self, interval: u64) -> UnixNanos {
        UnixNanos(self.first_end.saturating_add(interval.saturating_mul(self.step)))
    }
}

/// What was counted of one series in one interval.
#[derive(Clone, Debug, Default)]
struct Cell {
    count: u64,
    sum_ns: u128,
    shortest: Option<DurationNanos>,
    longest: DurationNanos,
    /// When quantiles are wanted.
    histogram: SparseHistogram,
    /// The slowest first, with their instants.
    slowest: Vec<(Exemplar, UnixNanos)>,
}

/// Group, exponent of its bucket where there are such, and interval.
type CellKey = (u32, u32, u64);

/// Intervals while they are counted.
struct Sums<'a> {
    function: &'a MetricsFunction,
    intervals: Intervals,
    cells: BTreeMap<CellKey, Cell>,
    spans: u64,
    has_overflown: bool,
}

impl Sink for Sums<'_> {
    fn slot(&mut self, _: Target<'_>, _: SlotAt, _: bool, _: &SlotLatency) {}

    fn span(&mut self, target: Target<'_>, at: UnixNanos, _: bool, exemplar: Exemplar) {
        let power = match self.function {
            MetricsFunction::HistogramOverTime => match power_above(exemplar.latency) {
                Some(power) => power,
                None => return,
            },
            _ => 0,
        };
        self.spans += 1;
        let key = (target.groups.first().copied().unwrap_or(0), power, self.intervals.containing(at));
        let is_full = CELLS_MAX <= self.cells.len();
        if is_full && !self.cells.contains_key(&key) {
            self.has_overflown = true;
            return;
        }
        let cell = self.cells.entry(key).or_default();
        cell.count += 1;
        cell.sum_ns += u128::from(exemplar.latency.0);
        cell.shortest = Some(cell.shortest.map_or(exemplar.latency, |known| known.min(exemplar.latency)));
        cell.longest = cell.longest.max(exemplar.latency);
        if matches!(self.function, MetricsFunction::QuantileOverTime(_)) {
            cell.histogram.record(exemplar.latency);
        }
        let place = cell.slowest.partition_point(|(known, _)| exemplar.latency <= known.latency);
        if place < CELL_EXEMPLARS_MAX {
            cell.slowest.insert(place, (exemplar, at));
            cell.slowest.truncate(CELL_EXEMPLARS_MAX);
        }
    }
}

/// The exponent of the smallest power of two that is not less; `None` below 2 ns, which Tempo leaves out.
fn power_above(latency: DurationNanos) -> Option<u32> {
    (2 <= latency.0).then(|| u64::BITS - (latency.0 - 1).leading_zeros())
}

fn seconds(duration: DurationNanos) -> f64 {
    std::time::Duration::from_nanos(duration.0).as_secs_f64()
}

impl Cell {
    /// Its number, for one of the quantiles where there are such.
    fn value(&self, function: &MetricsFunction, quantile: Option<Quantile>, step: u64) -> f64 {
        match function {
            MetricsFunction::Rate => self.count as f64 / seconds(DurationNanos(step)),
            MetricsFunction::CountOverTime | MetricsFunction::HistogramOverTime => self.count as f64,
            MetricsFunction::MinOverTime => seconds(self.shortest.unwrap_or_default()),
            MetricsFunction::MaxOverTime => seconds(self.longest),
            MetricsFunction::SumOverTime => self.sum_ns as f64 / 1e9,
            MetricsFunction::AvgOverTime => self.sum_ns as f64 / 1e9 / self.count as f64,
            MetricsFunction::QuantileOverTime(_) => {
                let at = quantile.and_then(|quantile| self.histogram.at(quantile));
                at.map_or(0.0, |at| seconds(at.value))
            }
        }
    }

    /// Whether an exemplar may show that quantile: it lies in its bucket or above.
    fn shows(&self, quantile: Option<Quantile>, exemplar: &Exemplar) -> bool {
        let at = quantile.and_then(|quantile| self.histogram.at(quantile));
        at.is_none_or(|at| at.bucket <= Bucket::of(exemplar.latency))
    }
}

impl MetricsFunction {
    /// Whether its numbers say how many, so that an interval without spans has one too: 0.
    fn counts(&self) -> bool {
        matches!(self, Self::Rate | Self::CountOverTime | Self::HistogramOverTime)
    }
}

impl Query {
    /// Numbers over time. Cost: the columns that filter and group need of every block that meets the range.
    ///
    /// # Errors
    /// `Starting`, `EmptyWindow`, `TooManyPoints`, `TooLong`, `TooManyGroups`.
    pub fn metrics(&self, question: &MetricsQuestion) -> Result<MetricsAnswer, QueryError> {
        let MetricsQuery { filter, function, by, .. } = &question.query;
        let intervals = Intervals::of(question.range, question.step)?;
        let scan = RowScan {
            filter: Some(filter.clone()),
            by: by.as_ref().map(|(field, _)| field.clone()),
            range: intervals.range(),
            spans: SpansWanted::All,
            conventions: self.conventions()?,
            ..RowScan::all()
        };
        let snapshot = self.store()?.snapshot();
        let mut sums = Sums { function, intervals, cells: BTreeMap::new(), spans: 0, has_overflown: false };
        let key = by.as_ref().map(|(_, written)| written.as_str());
        let mut found = Contributions::scan(self, &snapshot, &scan, key, &mut sums)?;
        if sums.has_overflown {
            let key = key.unwrap_or("intervals").to_owned();
            return Err(QueryError::TooManyGroups { key, groups_max: CELLS_MAX });
        }
        let spans = sums.spans;
        let largest = Largest::of(sums.cells);
        if 0 < largest.left_out {
            found.coverage.missing(format!("{} smaller series are left out; {SERIES_MAX} are shown", largest.left_out));
        }
        let exemplars = largest.exemplars(question.exemplars_max);
        let ids = ids_of(self, &found.places, exemplars.iter().map(|(_, one)| &one.0), &mut found.coverage);
        let mut shown: BTreeMap<CellKey, Vec<(UnixNanos, Exemplar, SpanIds)>> = BTreeMap::new();
        for (key, (exemplar, at)) in exemplars {
            if let Some(ids) = ids.shown(&exemplar) {
                shown.entry(key).or_default().push((at, exemplar, ids));
            }
        }
        let quantiles: Vec<Option<Quantile>> = match function {
            MetricsFunction::QuantileOverTime(quantiles) => quantiles.iter().copied().map(Some).collect(),
            _ => vec![None],
        };
        let make = Make { function, intervals, values: &found.values, shown: &shown };
        let series = largest.series.iter().flat_map(|(key, cells)| {
            quantiles.iter().map(|quantile| make.series(*key, cells, *quantile)).collect::<Vec<_>>()
        });
        Ok(MetricsAnswer { series: series.collect(), spans, coverage: found.coverage })
    }
}

/// The cells of the series that are shown.
struct Largest {
    /// By group and exponent; of each the cells by interval.
    series: BTreeMap<(u32, u32), BTreeMap<u64, Cell>>,
    left_out: usize,
}

impl Largest {
    fn of(cells: BTreeMap<CellKey, Cell>) -> Self {
        let mut series: BTreeMap<(u32, u32), BTreeMap<u64, Cell>> = BTreeMap::new();
        for ((group, power, interval), cell) in cells {
            let _new = series.entry((group, power)).or_default().insert(interval, cell);
        }
        let left_out = series.len().saturating_sub(SERIES_MAX);
        if 0 < left_out {
            let count = |cells: &BTreeMap<u64, Cell>| cells.values().map(|cell| cell.count).sum::<u64>();
            let mut counts: Vec<u64> = series.values().map(count).collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let least = counts.get(SERIES_MAX - 1).copied().unwrap_or(0);
            let mut ties = counts.iter().take(SERIES_MAX).filter(|count| **count == least).count();
            series.retain(|_, cells| match count(cells).cmp(&least) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => {
                    let stays = 0 < ties;
                    ties = ties.saturating_sub(1);
                    stays
                }
            });
        }
        Self { series, left_out }
    }

    /// At most `max`: first one for each point, the slowest ones, then the second ones.
    fn exemplars(&self, max: usize) -> Vec<(CellKey, (Exemplar, UnixNanos))> {
        let mut all: Vec<(usize, CellKey, (Exemplar, UnixNanos))> = Vec::new();
        for ((group, power), cells) in &self.series {
            for (interval, cell) in cells {
                let ranked = cell.slowest.iter().enumerate();
                all.extend(ranked.map(|(rank, one)| (rank, (*group, *power, *interval), *one)));
            }
        }
        all.sort_unstable_by_key(|(rank, key, (exemplar, _))| (*rank, std::cmp::Reverse(exemplar.latency), *key));
        all.truncate(max);
        all.into_iter().map(|(_, key, one)| (key, one)).collect()
    }
}

/// Makes the series of an answer.
struct Make<'a> {
    function: &'a MetricsFunction,
    intervals: Intervals,
    values: &'a [FieldValue],
    shown: &'a BTreeMap<CellKey, Vec<(UnixNanos, Exemplar, SpanIds)>>,
}

impl Make<'_> {
    fn series(
        &self,
        (group, power): (u32, u32),
        cells: &BTreeMap<u64, Cell>,
        quantile: Option<Quantile>,
    ) -> MetricsSeries {
        let value = |cell: &Cell| cell.value(self.function, quantile, self.intervals.step);
        let points = if self.function.counts() {
            let at = |interval: u64| (self.intervals.end(interval), cells.get(&interval).map_or(0.0, value));
            (0..self.intervals.n).map(at).collect()
        } else {
            cells.iter().map(|(interval, cell)| (self.intervals.end(*interval), value(cell))).collect()
        };
        let mut exemplars = Vec::new();
        for (interval, cell) in cells {
            for (at, exemplar, ids) in self.shown.get(&(group, power, *interval)).into_iter().flatten() {
                if cell.shows(quantile, exemplar) {
                    let value = if self.function.counts() { value(cell) } else { seconds(exemplar.latency) };
                    exemplars.push(MetricsExemplar { at: *at, value, ids: *ids });
                }
            }
        }
        exemplars.sort_unstable_by_key(|exemplar| exemplar.at);
        let group = group.checked_sub(1).and_then(|at| self.values.get(at as usize)).cloned();
        let power = matches!(self.function, MetricsFunction::HistogramOverTime).then_some(power);
        MetricsSeries { group, quantile, power, points, exemplars }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(start: u64, end: u64, step: u64) -> (Vec<u64>, Intervals) {
        let range = TimeRange { start: UnixNanos(start), end: UnixNanos(end) };
        let intervals = Intervals::of(range, DurationNanos(step)).unwrap();
        ((0..intervals.n).map(|at| intervals.end(at).0).collect(), intervals)
    }

    #[test]
    fn points_are_the_ends_of_intervals_from_the_step_before_the_start_to_the_step_behind_the_end() {
        assert_eq!(intervals(100, 130, 10).0, [100, 110, 120, 130]);
        assert_eq!(intervals(101, 129, 10).0, [100, 110, 120, 130]);
        assert_eq!(intervals(101, 129, 28).0, [129], "a step as long as the range is one interval");
        let (_, whole) = intervals(101, 129, 10);
        assert_eq!(whole.range(), TimeRange { start: UnixNanos(91), end: UnixNanos(131) });
        let of = |at| whole.containing(UnixNanos(at));
        assert_eq!([of(91), of(100), of(101), of(110), of(111), of(130)], [0, 0, 1, 1, 2, 3]);
        let range = TimeRange { start: UnixNanos(0), end: UnixNanos(11_000) };
        assert!(matches!(Intervals::of(range, DurationNanos(1)), Err(QueryError::TooManyPoints { points: 11_001 })));
    }

    #[test]
    fn the_bucket_of_a_duration_is_the_smallest_power_of_two_that_is_not_less() {
        let of = |ns| power_above(DurationNanos(ns));
        assert_eq!(
            [of(0), of(1), of(2), of(3), of(4), of(5), of(1 << 30)],
            [None, None, Some(1), Some(2), Some(2), Some(3), Some(30)]
        );
    }
}
