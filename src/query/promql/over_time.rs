//! Functions of ranges: many samples of a series become one value. What is ours counts exactly and does not come here for
//! `rate` and `increase`; these are for samples, which say nothing of the time between them.

use std::cmp::Ordering;

use super::series::Millis;

/// A function of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverTime {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Last,
    First,
    Present,
    Absent,
    Stddev,
    Stdvar,
    Quantile,
    Changes,
    Resets,
}

impl OverTime {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "sum_over_time" => Self::Sum,
            "avg_over_time" => Self::Avg,
            "min_over_time" => Self::Min,
            "max_over_time" => Self::Max,
            "count_over_time" => Self::Count,
            "last_over_time" => Self::Last,
            "first_over_time" => Self::First,
            "present_over_time" => Self::Present,
            "absent_over_time" => Self::Absent,
            "stddev_over_time" => Self::Stddev,
            "stdvar_over_time" => Self::Stdvar,
            "quantile_over_time" => Self::Quantile,
            "changes" => Self::Changes,
            "resets" => Self::Resets,
            _ => return None,
        })
    }

    /// Whether the value is still one of the metric, and keeps its name.
    pub(super) fn keeps_name(self) -> bool {
        matches!(self, Self::Last | Self::First)
    }
}

/// Samples of one series in a range, at least one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    /// Ascending.
    pub(super) times: &'a [Millis],
    pub(super) values: &'a [f64],
    /// The range is above this, to `until`.
    pub(super) after: Millis,
    pub(super) until: Millis,
}

impl Window<'_> {
    /// The value of a function, `None` where it has none of so few samples.
    pub(super) fn value(&self, function: OverTime, parameter: f64) -> Option<f64> {
        let values = self.values;
        let (first, last) = (values.first()?, values.last()?);
        Some(match function {
            OverTime::Rate => self.extrapolated(true)? / secs(self.until - self.after),
            OverTime::Increase => self.extrapolated(true)?,
            OverTime::Delta => self.extrapolated(false)?,
            OverTime::Irate => {
                let ([.., before, last], [.., earlier, later]) = (values, self.times) else { return None };
                let grown = if last < before { *last } else { last - before };
                grown / secs(later - earlier)
            }
            OverTime::Idelta => {
                let [.., before, last] = values else { return None };
                last - before
            }
            OverTime::Sum => sum(values),
            OverTime::Avg => mean(values),
            OverTime::Min => values.iter().copied().fold(f64::NAN, f64::min),
            OverTime::Max => values.iter().copied().fold(f64::NAN, f64::max),
            OverTime::Count => count(values.len()),
            OverTime::Last => *last,
            OverTime::First => *first,
            OverTime::Present => 1.0,
            OverTime::Absent => return None,
            OverTime::Stddev => variance(values).sqrt(),
            OverTime::Stdvar => variance(values),
            OverTime::Quantile => quantile(values.to_vec(), parameter),
            OverTime::Changes => {
                let same = |a: &f64, b: &f64| a.partial_cmp(b) == Some(Ordering::Equal) || a.is_nan() && b.is_nan();
                let differs = |pair: &[f64]| matches!(pair, [a, b] if !same(a, b));
                count(values.windows(2).filter(|pair| differs(pair)).count())
            }
            OverTime::Resets => count(values.windows(2).filter(|pair| matches!(pair, [a, b] if b < a)).count()),
        })
    }

    /// How much the value grew over the whole range, as Prometheus estimates it: samples near the edges of a range stand for what
    /// lies between them and the edge, others for half of an interval; and no counter was ever below zero.
    fn extrapolated(&self, is_counter: bool) -> Option<f64> {
        let ([first, .., last], [earliest, .., latest]) = (self.values, self.times) else { return None };
        let mut grown = last - first;
        if is_counter {
            grown += self
                .values
                .windows(2)
                .map(|pair| match pair {
                    [before, after] if after < before => *before,
                    _ => 0.0,
                })
                .sum::<f64>();
        }
        let sampled = secs(latest - earliest);
        let interval = sampled / count(self.values.len() - 1);
        let threshold = interval * 1.1;
        let (mut to_start, mut to_end) = (secs(earliest - self.after), secs(self.until - latest));
        if threshold <= to_start {
            to_start = interval / 2.0;
        }
        if is_counter && 0.0 < grown && 0.0 <= *first {
            to_start = to_start.min(sampled * (first / grown));
        }
        if threshold <= to_end {
            to_end = interval / 2.0;
        }
        Some(grown * ((sampled + to_start + to_end) / sampled))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a range of 2^53 ms is longer than all time")]
pub(super) fn secs(millis: Millis) -> f64 {
    millis as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^53 of anything")]
pub(super) fn count(n: usize) -> f64 {
    n as f64
}

/// With the bits that are lost on the way put back (Neumaier): large values that cancel each other leave the small ones.
pub(super) fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() < value.abs() { (value - next) + sum } else { (sum - next) + value };
        sum = next;
    }
    if sum.is_finite() { sum + lost } else { sum }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    let n = count(values.len());
    let sum = sum(values);
    if sum.is_infinite() && values.iter().all(|value| value.is_finite()) {
        return values.iter().map(|value| value / n).sum();
    }
    sum / n
}

/// Of a population.
pub(super) fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: Vec<f64> = values.iter().map(|value| (value - mean) * (value - mean)).collect();
    sum(&squares) / count(values.len())
}

/// Linear between the values beside it; infinite outside of [0, 1].
pub(super) fn quantile(mut values: Vec<f64>, quantile: f64) -> f64 {
    if values.is_empty() || quantile.is_nan() {
        return f64::NAN;
    }
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if 1.0 < quantile {
        return f64::INFINITY;
    }
    // What is no number is the least, as in Prometheus.
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(Ordering::Equal)));
    let rank = quantile * count(values.len() - 1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the number of values")]
    let (below, above) = (rank.floor() as usize, (rank.floor() as usize + 1).min(values.len() - 1));
    let weight = rank - rank.floor();
    let (Some(low), Some(high)) = (values.get(below), values.get(above)) else { return f64::NAN };
    low * (1.0 - weight) + high * weight
}
