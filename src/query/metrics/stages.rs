//! What second stages and arithmetic make of series.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::intervals::Intervals;
use super::series::{Candidate, Series};
use crate::query::traceql::{FieldValue, MetricsOperator, MetricsStage};

/// Spans that may show one point.
pub(super) const CELL_CANDIDATES_MAX: usize = 2;

/// What an expression stands for.
#[derive(Debug)]
pub(super) enum Operand {
    Number(f64),
    Series(Vec<Series>),
}

/// The series that are left; `may_go_on` is asked between intervals.
pub(super) fn staged<E>(
    series: Vec<Series>,
    stage: MetricsStage,
    intervals: Intervals,
    may_go_on: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Series>, E> {
    let mut left = match stage {
        MetricsStage::Top(n) => best(series, n, intervals, &|a, b| b.total_cmp(&a), may_go_on)?,
        MetricsStage::Bottom(n) => best(series, n, intervals, &|a, b| a.total_cmp(&b), may_go_on)?,
        MetricsStage::Threshold(threshold) => {
            let holding = |one: Series| {
                let elsewhere = one.elsewhere.filter(|value| threshold.holds(*value));
                let mut left = one.clone();
                left.set(intervals, &one.own_intervals(), elsewhere, |at| {
                    one.at(at).filter(|value| threshold.holds(*value))
                });
                left
            };
            series.into_iter().map(holding).collect()
        }
    };
    left.iter_mut().for_each(Series::drop_candidates);
    left.retain(|one| !one.is_empty());
    Ok(left)
}

/// The `n` first points of each interval in an order; of equal ones those whose labels come first as texts.
fn best<E>(
    mut series: Vec<Series>,
    n: usize,
    intervals: Intervals,
    order: &dyn Fn(f64, f64) -> Ordering,
    mut may_go_on: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Series>, E> {
    let as_text =
        |one: &Series| one.labels.iter().map(|(key, value)| (key.clone(), value.to_string())).collect::<Vec<_>>();
    series.sort_by_cached_key(as_text);
    let mut kept: Vec<Vec<(u32, f64)>> = vec![Vec::new(); series.len()];
    // By series: how many of its points lie before the interval.
    let mut passed = vec![0_usize; series.len()];
    let mut of_interval: Vec<(f64, usize)> = Vec::with_capacity(series.len());
    for interval in intervals.numbers() {
        may_go_on()?;
        of_interval.clear();
        for ((at, one), passed) in series.iter().enumerate().zip(&mut passed) {
            let own = one.points.get(*passed).filter(|point| point.0 == interval);
            *passed += usize::from(own.is_some());
            of_interval.extend(own.map(|point| point.1).or(one.elsewhere).map(|value| (value, at)));
        }
        let first = |a: &(f64, usize), b: &(f64, usize)| order(a.0, b.0).then(a.1.cmp(&b.1));
        if n < of_interval.len() {
            let _nth = of_interval.select_nth_unstable_by(n, first);
            of_interval.truncate(n);
        }
        for (value, at) in &of_interval {
            if let Some(kept) = kept.get_mut(*at) {
                kept.push((interval, *value));
            }
        }
    }
    for (one, kept) in series.iter_mut().zip(kept) {
        (one.points, one.elsewhere) = (kept, None);
    }
    Ok(series)
}

/// Both sides, point by point: series with the same labels, and a series without any with all. What has no partner is left
/// out, as is what has no result.
pub(super) fn combined(operator: MetricsOperator, left: Operand, right: Operand, intervals: Intervals) -> Operand {
    match (left, right) {
        // No point has a result with what is not a number.
        (Operand::Number(left), Operand::Number(right)) => {
            Operand::Number(operator.of(left, right).unwrap_or(f64::NAN))
        }
        (Operand::Series(series), Operand::Number(number)) => {
            let name = |name: &str| named(name, operator, &number.to_string());
            with_number(series, intervals, &|value| operator.of(value, number), &name)
        }
        (Operand::Number(number), Operand::Series(series)) => {
            let name = |name: &str| named(&number.to_string(), operator, name);
            with_number(series, intervals, &|value| operator.of(number, value), &name)
        }
        (Operand::Series(left), Operand::Series(right)) => with_series(operator, &left, &right, intervals),
    }
}

fn named(left: &str, operator: MetricsOperator, right: &str) -> String {
    format!("({left} {} {right})", operator.as_str())
}

fn with_number(
    mut series: Vec<Series>,
    intervals: Intervals,
    of: &dyn Fn(f64) -> Option<f64>,
    name: &dyn Fn(&str) -> String,
) -> Operand {
    for one in &mut series {
        let before = one.clone();
        one.name = name(&one.name);
        one.set(intervals, &before.own_intervals(), before.elsewhere.and_then(of), |at| of(before.at(at)?));
        one.candidates.iter_mut().for_each(|candidate| candidate.value = None);
        one.drop_candidates();
    }
    series.retain(|one| !one.is_empty());
    Operand::Series(series)
}

fn with_series(operator: MetricsOperator, left: &[Series], right: &[Series], intervals: Intervals) -> Operand {
    let lonely = |series: &[Series]| matches!(series, [one] if one.labels.is_empty());
    let pairs: Vec<(&Series, &Series)> = match (left, right) {
        ([one], others) if lonely(left) => others.iter().map(|other| (one, other)).collect(),
        (others, [one]) if lonely(right) => others.iter().map(|other| (other, one)).collect(),
        _ => {
            let labels = |series: &Series| {
                let mut labels = series.labels.clone();
                labels.sort();
                labels
            };
            let by_labels: HashMap<Vec<(String, FieldValue)>, &Series> =
                right.iter().map(|one| (labels(one), one)).collect();
            left.iter().filter_map(|one| Some((one, *by_labels.get(&labels(one))?))).collect()
        }
    };
    let paired = pairs.into_iter().map(|(left, right)| pair(operator, left, right, intervals));
    Operand::Series(paired.filter(|one| !one.is_empty()).collect())
}

fn pair(operator: MetricsOperator, left: &Series, right: &Series, intervals: Intervals) -> Series {
    let mut own = left.own_intervals();
    own.extend(right.own_intervals());
    own.sort_unstable();
    own.dedup();
    let result = |left: Option<f64>, right: Option<f64>| operator.of(left?, right?);
    let mut both = Series {
        labels: if left.labels.is_empty() { right.labels.clone() } else { left.labels.clone() },
        name: named(&left.name, operator, &right.name),
        candidates: candidates(left, right),
        spans: left.spans.saturating_add(right.spans),
        ..Series::default()
    };
    both.set(intervals, &own, result(left.elsewhere, right.elsewhere), |at| result(left.at(at), right.at(at)));
    both.drop_candidates();
    both
}

/// Those of both sides, the slowest of each interval, drawn where the point is.
fn candidates(left: &Series, right: &Series) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = left.candidates.iter().chain(&right.candidates).copied().collect();
    all.sort_by_key(|one| (one.interval, std::cmp::Reverse(one.latency), one.rank, one.query));
    let (mut interval, mut rank) = (u32::MAX, 0);
    all.retain_mut(|one| {
        rank = if one.interval == interval { rank + 1 } else { 0 };
        interval = one.interval;
        (one.rank, one.value) = (u8::try_from(rank).unwrap_or(u8::MAX), None);
        rank < CELL_CANDIDATES_MAX
    });
    all
}
