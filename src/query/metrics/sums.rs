//! What is counted of the spans of one query, by series and interval.

use super::cells::{CellKey, CellNumbers};
use super::intervals::Intervals;
use super::quantiles::{ValueBucket, ValueHistogram};
use super::series::{Candidate, Series};
use super::stages::CELL_CANDIDATES_MAX;
use crate::latency::Quantile;
use crate::model::UnixNanos;
use crate::query::traceql::{
    FieldValue, Fraction, GroupTable, MeasuredRows, MeasuredSpan, MetricsFunction, Number, SpanMetrics,
};

/// Cells of all series in which something was counted, some 300 bytes each.
pub(super) const CELLS_MAX: usize = 200_000;
/// Buckets of all quantiles, 24 bytes each, and as many again while they are sorted in.
pub(super) const BUCKETS_MAX: usize = 2_000_000;
/// Powers of two of one group: more than doubles have.
const POWERS: u32 = 1_100;

/// What was counted of one series in one interval.
#[derive(Clone, Debug, Default)]
struct Cell {
    count: u64,
    /// The whole numbers added up, of durations the nanoseconds.
    whole: i128,
    /// The others.
    fraction: f64,
    smallest: Option<f64>,
    largest: Option<f64>,
    /// When quantiles are wanted.
    histogram: ValueHistogram,
    /// Those that may be shown, the first ones first.
    shown: Vec<Shown>,
}

/// A span that may be shown, and what it is ordered by: its value, where there is one, or how long it took.
#[derive(Clone, Copy, Debug)]
struct Shown {
    order: f64,
    candidate: Candidate,
}

/// Numbers of one query while they are counted.
pub(super) struct Sums<'q> {
    metrics: &'q SpanMetrics,
    intervals: Intervals,
    /// Position of the query among those of its question.
    query: usize,
    /// Whether spans are remembered to show points.
    shows: bool,
    /// Seconds, or 1 for what is none.
    unit: f64,
    numbers: CellNumbers,
    cells: Vec<Cell>,
    /// The interval that a span was counted in last, and its end.
    last: (u32, UnixNanos),
    n_buckets: usize,
    /// Spans counted.
    pub(super) spans: u64,
    /// What there is too much of, and of how much.
    pub(super) overflow: Option<(&'static str, usize)>,
}

/// The exponent of the smallest power of two that is not less; `None` below 2, which Tempo leaves out.
fn power_above(value: Number) -> Option<u32> {
    match value {
        Number::Whole(number) => {
            let number = u64::try_from(number).ok().filter(|number| 2 <= *number)?;
            Some(u64::BITS - (number - 1).leading_zeros())
        }
        Number::Fraction(number) if 2.0 <= number && number.is_finite() => {
            let exponent = u32::try_from(number.to_bits() >> (f64::MANTISSA_DIGITS - 1)).ok()? - 1_023;
            let is_power = number.to_bits() << (u64::BITS - (f64::MANTISSA_DIGITS - 1)) == 0;
            Some(exponent + u32::from(!is_power))
        }
        Number::Fraction(_) => None,
    }
}

impl<'q> Sums<'q> {
    pub(super) fn new(metrics: &'q SpanMetrics, intervals: Intervals, query: usize, shows: bool) -> Self {
        Self {
            metrics,
            intervals,
            query,
            shows,
            unit: if metrics.function.is_of_duration() { 1e9 } else { 1.0 },
            numbers: CellNumbers::new(CELLS_MAX),
            cells: Vec::new(),
            last: (0, intervals.end(0)),
            n_buckets: 0,
            spans: 0,
            overflow: None,
        }
    }

    /// Counts the spans of a row group of a block.
    pub(super) fn rows(&mut self, block: u32, rows: &MeasuredRows<'_>) {
        for span in rows.spans() {
            let _shown = self.span(block, &span);
        }
    }

    /// Counts one span, in a block or batch that the question numbers so; whether it may be shown, as far as is known.
    #[inline]
    pub(super) fn span(&mut self, block: u32, span: &MeasuredSpan) -> bool {
        self.last = self.intervals.containing_near(span.at, self.last);
        let interval = self.last.0;
        let series = match &self.metrics.function {
            MetricsFunction::HistogramOverTime(_) => match power_above(span.value) {
                Some(power) => span.group.saturating_mul(POWERS).saturating_add(power),
                None => return false,
            },
            _ => span.group,
        };
        self.spans += 1;
        let Some(number) = self.numbers.of((series, interval)) else {
            self.overflow = Some(("points", CELLS_MAX));
            return false;
        };
        if self.cells.len() <= number as usize {
            self.cells.push(Cell::default());
        }
        let Some(cell) = self.cells.get_mut(number as usize) else { return false };
        cell.count += 1;
        let has_own_value = !self.metrics.function.counts();
        if has_own_value {
            self.n_buckets +=
                cell.add(span.value, matches!(self.metrics.function, MetricsFunction::QuantileOverTime(..)));
            if BUCKETS_MAX < self.n_buckets {
                self.overflow = Some(("buckets of quantiles", BUCKETS_MAX));
            }
        }
        if self.shows {
            let order = if has_own_value { span.value.get() } else { span.latency.0 as f64 };
            if cell.shown.len() < CELL_CANDIDATES_MAX || cell.shown.last().is_some_and(|last| last.order < order) {
                let value = has_own_value.then(|| order / self.unit);
                let (query, latency) = (self.query, span.latency);
                let candidate =
                    Candidate { interval, query, block, row: span.row, at: span.at, latency, value, rank: 0 };
                cell.show(Shown { order, candidate });
                return true;
            }
        }
        false
    }

    /// Its series, in the order in which their groups were met.
    pub(super) fn into_series(mut self, groups: &GroupTable) -> Vec<Series> {
        let mut all = Vec::new();
        let sorted = self.numbers.sorted();
        for cells in sorted.chunk_by(|a, b| a.0.0 == b.0.0) {
            let Some(((series, _), _)) = cells.first() else { continue };
            let is_histogram = matches!(self.metrics.function, MetricsFunction::HistogramOverTime(_));
            let (group, power) = if is_histogram { (series / POWERS, Some(series % POWERS)) } else { (*series, None) };
            let keys = self.metrics.by.iter().map(|(_, written)| written.clone());
            let mut labels: Vec<(String, FieldValue)> = keys.zip(groups.values(group)).collect();
            if let Some(power) = power {
                let bound = 2_f64.powi(i32::try_from(power).unwrap_or(i32::MAX)) / self.unit;
                labels.push(("__bucket".to_owned(), FieldValue::Float(Fraction(bound))));
            }
            for (_, number) in cells {
                if let Some(cell) = self.cells.get_mut(*number as usize) {
                    let _grown = cell.histogram.settle();
                }
            }
            match &self.metrics.function {
                MetricsFunction::QuantileOverTime(_, quantiles) => {
                    all.extend(quantiles.iter().map(|quantile| self.series(cells, &labels, Some(*quantile))));
                }
                _ => all.push(self.series(cells, &labels, None)),
            }
        }
        all
    }

    fn series(&self, cells: &[(CellKey, u32)], labels: &[(String, FieldValue)], quantile: Option<Quantile>) -> Series {
        let mut series = Series {
            labels: labels.to_vec(),
            name: self.metrics.function.as_str().to_owned(),
            elsewhere: self.metrics.function.counts().then_some(0.0),
            ..Series::default()
        };
        if let Some(quantile) = quantile {
            series.labels.push(("p".to_owned(), FieldValue::Float(Fraction(quantile.get()))));
        }
        for ((_, interval), number) in cells {
            let Some(cell) = self.cells.get(*number as usize) else { continue };
            let at = quantile.and_then(|quantile| cell.histogram.at(quantile));
            let Some(value) = at.map(|at| at.0 / self.unit).or_else(|| self.value(cell)) else { continue };
            series.points.push((*interval, value));
            series.spans = series.spans.saturating_add(cell.count);
            // It lies in the bucket of its quantile, or above.
            let shows = |shown: &&Shown| at.is_none_or(|(_, bucket)| bucket <= ValueBucket::of(shown.order));
            let ranked = (0..).zip(cell.shown.iter().filter(shows));
            series.candidates.extend(ranked.map(|(rank, shown)| Candidate { rank, ..shown.candidate }));
        }
        series
    }

    /// What a cell stands for, but for quantiles.
    fn value(&self, cell: &Cell) -> Option<f64> {
        let sum = || (cell.whole as f64 + cell.fraction) / self.unit;
        match &self.metrics.function {
            MetricsFunction::Rate => Some(cell.count as f64 / (self.intervals.step as f64 / 1e9)),
            MetricsFunction::CountOverTime | MetricsFunction::HistogramOverTime(_) => Some(cell.count as f64),
            MetricsFunction::MinOverTime(_) => Some(cell.smallest? / self.unit),
            MetricsFunction::MaxOverTime(_) => Some(cell.largest? / self.unit),
            MetricsFunction::SumOverTime(_) => Some(sum()),
            MetricsFunction::AvgOverTime(_) => Some(sum() / cell.count as f64),
            MetricsFunction::QuantileOverTime(..) | MetricsFunction::Compare(_) => None,
        }
    }
}

impl Cell {
    /// Adds a value; gives how many buckets are new.
    fn add(&mut self, value: Number, for_quantiles: bool) -> usize {
        let double = value.get();
        if for_quantiles {
            return self.histogram.record(double);
        }
        match value {
            Number::Whole(number) => self.whole += i128::from(number),
            Number::Fraction(number) => self.fraction += number,
        }
        self.smallest = Some(self.smallest.map_or(double, |known| known.min(double)));
        self.largest = Some(self.largest.map_or(double, |known| known.max(double)));
        0
    }

    fn show(&mut self, new: Shown) {
        let place = self.shown.partition_point(|known| new.order <= known.order);
        self.shown.insert(place, new);
        self.shown.truncate(CELL_CANDIDATES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_of_a_number_is_the_smallest_power_of_two_that_is_not_less() {
        let whole = |number| power_above(Number::Whole(number));
        assert_eq!(
            [-5, 0, 1, 2, 3, 4, 5, 1 << 30, i64::MAX].map(whole),
            [None, None, None, Some(1), Some(2), Some(2), Some(3), Some(30), Some(63)]
        );
        let fraction = |number| power_above(Number::Fraction(number));
        assert_eq!(
            [-5.0, 1.9, 2.0, 2.1, 4.0, 1e300, f64::MAX, f64::INFINITY].map(fraction),
            [None, None, Some(1), Some(2), Some(2), Some(997), Some(1_024), None]
        );
    }
}
