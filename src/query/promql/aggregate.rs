//! Aggregations: the series of each group become one, or some of them are taken.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::ast::{Aggregate, Aggregation, Expr};
use super::eval::Evaluator;
use super::histogram::Histogram;
use super::labels::{BUCKET_BOUND, Grouping, Labels};
use super::over_time::{count, mean, quantile, sum, variance};
use super::series::{Millis, Samples, Series};
use super::{PromError, functions};

/// What a whole number of 64 bits holds.
const LARGEST_COUNT: f64 = 9.2e18;

pub(super) fn value(
    evaluator: &Evaluator<'_>,
    aggregate: &Aggregate,
    grid: &[Millis],
) -> Result<Vec<Series>, PromError> {
    let Aggregate { operator, of, parameter, grouping } = aggregate;
    if *operator == Aggregation::Sum
        && let Some(summed) = evaluator.summed_increase(of, grouping, None, grid)?
    {
        return Ok(summed);
    }
    let series = evaluator.vector(of, grid)?;
    if *operator == Aggregation::CountValues {
        let Some(Expr::Text(label)) = parameter.as_deref() else {
            return Err(PromError::Execution(
                "count_values() takes the name of a label, such as \"version\"".to_owned(),
            ));
        };
        return count_values(expanded(series), label, grouping, grid.len());
    }
    let parameters = match parameter {
        Some(parameter) => evaluator.scalar(parameter, grid)?,
        None => Vec::new(),
    };
    let mut groups: BTreeMap<Labels, Vec<Series>> = BTreeMap::new();
    for one in kept_together(series, *operator, grouping) {
        groups.entry(grouping.group(&one.labels)).or_default().push(one);
    }
    let mut found = Vec::new();
    for (labels, members) in groups {
        evaluator.source.may_go_on()?;
        match operator {
            Aggregation::Topk | Aggregation::Bottomk => {
                found.extend(chosen(members, *operator == Aggregation::Topk, &parameters)?);
            }
            _ => found.push(Series { labels, samples: reduced(*operator, &members, &parameters, grid.len())? }),
        }
    }
    Ok(found.into_iter().filter(|one| !one.samples.is_empty()).collect())
}

fn expanded(series: Vec<Series>) -> Vec<Series> {
    series.into_iter().flat_map(Series::expanded).collect()
}

/// Families of buckets stay together where every bound is treated the same and stays a label.
fn kept_together(series: Vec<Series>, operator: Aggregation, grouping: &Grouping) -> Vec<Series> {
    let is_linear = matches!(operator, Aggregation::Sum | Aggregation::Avg);
    let all_are_buckets = series.iter().all(|one| matches!(one.samples, Samples::Buckets(_)));
    if is_linear && all_are_buckets && grouping.keeps(BUCKET_BOUND) { series } else { expanded(series) }
}

fn reduced(operator: Aggregation, members: &[Series], parameters: &[f64], n: usize) -> Result<Samples, PromError> {
    if members.iter().all(|one| matches!(one.samples, Samples::Floats(_))) {
        let mut values = Vec::new();
        let at = |instant: usize| {
            values.clear();
            values.extend(members.iter().filter_map(|one| float_at(one, instant)));
            let parameter = parameters.get(instant).copied().unwrap_or(f64::NAN);
            (!values.is_empty()).then(|| of_floats(operator, &values, parameter))
        };
        return Ok(Samples::Floats((0..n).map(at).collect()));
    }
    let lists = members.iter().map(|one| match &one.samples {
        Samples::Histograms(values) | Samples::Buckets(values) => Some(values),
        Samples::Floats(_) => None,
    });
    let Some(lists) = lists.collect::<Option<Vec<_>>>() else {
        return Err(PromError::Execution("a group has both numbers and native histograms".to_owned()));
    };
    let n_at = |instant: usize| lists.iter().filter(|list| matches!(list.get(instant), Some(Some(_)))).count();
    match operator {
        Aggregation::Sum | Aggregation::Avg => {
            let at = |instant: usize| {
                let mut sum: Option<Histogram> = None;
                for histogram in lists.iter().filter_map(|list| list.get(instant)?.as_ref()) {
                    sum.get_or_insert_default().add(histogram, 1.0);
                }
                let is_mean = operator == Aggregation::Avg;
                sum.map(|sum| Rc::new(if is_mean { sum.scaled(1.0 / count(n_at(instant))) } else { sum }))
            };
            let merged = (0..n).map(at).collect();
            let is_classic = members.iter().any(|one| matches!(one.samples, Samples::Buckets(_)));
            Ok(if is_classic { Samples::Buckets(merged) } else { Samples::Histograms(merged) })
        }
        Aggregation::Count | Aggregation::Group => {
            let value = |n| if operator == Aggregation::Count { count(n) } else { 1.0 };
            Ok(Samples::Floats((0..n).map(|at| Some(n_at(at)).filter(|n| 0 < *n).map(value)).collect()))
        }
        other => Err(PromError::Unsupported { what: format!("aggregation {} of native histograms", name(other)) }),
    }
}

fn name(operator: Aggregation) -> String {
    format!("{operator:?}").to_lowercase()
}

fn float_at(series: &Series, instant: usize) -> Option<f64> {
    match &series.samples {
        Samples::Floats(values) => values.get(instant).copied().flatten(),
        Samples::Histograms(_) | Samples::Buckets(_) => None,
    }
}

fn of_floats(operator: Aggregation, values: &[f64], parameter: f64) -> f64 {
    match operator {
        Aggregation::Sum => sum(values),
        Aggregation::Avg => mean(values),
        Aggregation::Min => values.iter().copied().fold(f64::NAN, f64::min),
        Aggregation::Max => values.iter().copied().fold(f64::NAN, f64::max),
        Aggregation::Count => count(values.len()),
        Aggregation::Stddev => variance(values).sqrt(),
        Aggregation::Stdvar => variance(values),
        Aggregation::Quantile => quantile(values.to_vec(), parameter),
        Aggregation::Group | Aggregation::Topk | Aggregation::Bottomk | Aggregation::CountValues => 1.0,
    }
}

/// The largest or smallest at each instant; what is no number comes last.
fn chosen(members: Vec<Series>, largest: bool, wanted: &[f64]) -> Result<Vec<Series>, PromError> {
    let mut members: Vec<(Labels, Vec<Option<f64>>)> = members
        .into_iter()
        .filter_map(|one| match one.samples {
            Samples::Floats(values) => Some((one.labels, values)),
            Samples::Histograms(_) | Samples::Buckets(_) => None,
        })
        .collect();
    for (instant, wanted) in wanted.iter().enumerate() {
        if wanted.is_nan() || LARGEST_COUNT < wanted.abs() {
            return Err(PromError::Execution(format!("the parameter of topk() or bottomk() is {wanted}")));
        }
        let wanted = wanted.trunc();
        let mut order: Vec<(usize, f64)> = Vec::new();
        for (number, (_, values)) in members.iter().enumerate() {
            order.extend(values.get(instant).copied().flatten().map(|value| (number, value)));
        }
        order.sort_by(|(_, a), (_, b)| by_value(*a, *b, largest));
        for (rank, (number, _)) in order.iter().enumerate() {
            if wanted <= count(rank)
                && let Some(slot) = members.get_mut(*number).and_then(|(_, values)| values.get_mut(instant))
            {
                *slot = None;
            }
        }
    }
    Ok(members.into_iter().map(|(labels, values)| Series { labels, samples: Samples::Floats(values) }).collect())
}

/// What is no number comes last, whichever way.
pub(super) fn by_value(a: f64, b: f64, largest_first: bool) -> Ordering {
    let order = if largest_first { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
    a.is_nan().cmp(&b.is_nan()).then(order.unwrap_or(Ordering::Equal))
}

/// As `count_values` writes a value: without an exponent.
fn plain_text(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { super::number_text(value) }
}

fn count_values(series: Vec<Series>, label: &str, grouping: &Grouping, n: usize) -> Result<Vec<Series>, PromError> {
    functions::label_name(label)?;
    let mut groups: BTreeMap<Labels, Vec<Option<f64>>> = BTreeMap::new();
    for one in series {
        let Samples::Floats(values) = &one.samples else {
            return Err(PromError::Unsupported { what: "aggregation count_values of native histograms".to_owned() });
        };
        let group = grouping.group(&one.labels);
        for (instant, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let labels = group.clone().with(label, plain_text(*value));
            let counted = groups.entry(labels).or_insert_with(|| vec![None; n]);
            if let Some(slot) = counted.get_mut(instant) {
                *slot = Some(slot.unwrap_or(0.0) + 1.0);
            }
        }
    }
    Ok(groups.into_iter().map(|(labels, values)| Series { labels, samples: Samples::Floats(values) }).collect())
}
