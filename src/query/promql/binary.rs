//! Operations on two sides: scalars, a vector and a scalar, or vectors whose series are matched by their labels.

use std::collections::BTreeMap;

use super::ast::{Arithmetic, Binary, BinaryOperator, Many, Matching, SetOperator};
use super::eval::Evaluator;
use super::labels::{Grouping, Labels, METRIC_NAME};
use super::series::{Millis, Samples, Series};
use super::{PromError, PromValue, functions};

pub(super) fn value(evaluator: &Evaluator<'_>, binary: &Binary, grid: &[Millis]) -> Result<PromValue, PromError> {
    let (left, right) = (evaluator.value(&binary.left, grid)?, evaluator.value(&binary.right, grid)?);
    let operator = binary.operator;
    match (left, right) {
        (PromValue::Scalar(left), PromValue::Scalar(right)) => scalars(binary, &left, &right).map(PromValue::Scalar),
        (PromValue::Vector(series), PromValue::Scalar(scalar)) => {
            with_scalar(binary, series, &scalar, true).map(PromValue::Vector)
        }
        (PromValue::Scalar(scalar), PromValue::Vector(series)) => {
            with_scalar(binary, series, &scalar, false).map(PromValue::Vector)
        }
        (PromValue::Vector(left), PromValue::Vector(right)) => {
            let (left, right) = (apart(left), apart(right));
            let found = match operator {
                BinaryOperator::Set(set) => sets(set, &binary.matching, left, right, grid.len())?,
                _ => matched(binary, left, right, grid.len())?,
            };
            Ok(PromValue::Vector(found))
        }
        (PromValue::Text(_), _) | (_, PromValue::Text(_)) => {
            Err(PromError::Execution("an operator takes no texts".to_owned()))
        }
    }
}

fn apart(series: Vec<Series>) -> Vec<Series> {
    series.into_iter().flat_map(Series::expanded).collect()
}

/// The number of two; `None` where a comparison picks nothing.
fn of_two(binary: &Binary, left: f64, right: f64) -> Option<f64> {
    match binary.operator {
        BinaryOperator::Arithmetic(arithmetic) => Some(arithmetic.of(left, right)),
        BinaryOperator::Compare(compare) if binary.gives_bool => Some(f64::from(u8::from(compare.holds(left, right)))),
        BinaryOperator::Compare(compare) => compare.holds(left, right).then_some(left),
        BinaryOperator::Set(_) => None,
    }
}

/// Whether the result is no value of the metric any more.
fn drops_name(binary: &Binary) -> bool {
    binary.gives_bool || matches!(binary.operator, BinaryOperator::Arithmetic(_))
}

fn scalars(binary: &Binary, left: &[f64], right: &[f64]) -> Result<Vec<f64>, PromError> {
    match binary.operator {
        BinaryOperator::Set(_) => Err(PromError::Execution("set operators take vectors, not scalars".to_owned())),
        BinaryOperator::Compare(_) if !binary.gives_bool => {
            Err(PromError::Execution("comparisons between scalars must use the bool modifier".to_owned()))
        }
        _ => {
            Ok(left.iter().zip(right).map(|(left, right)| of_two(binary, *left, *right).unwrap_or(f64::NAN)).collect())
        }
    }
}

fn with_scalar(
    binary: &Binary,
    series: Vec<Series>,
    scalar: &[f64],
    vector_is_left: bool,
) -> Result<Vec<Series>, PromError> {
    if matches!(binary.operator, BinaryOperator::Set(_)) {
        return Err(PromError::Execution("set operators take vectors, not scalars".to_owned()));
    }
    let mut found = Vec::new();
    for one in series {
        let is_scaled = !matches!(one.samples, Samples::Floats(_)) && factor(binary, 1.0, vector_is_left).is_some();
        let parts = if is_scaled { vec![one] } else { one.expanded() };
        for part in parts {
            let samples = match &part.samples {
                Samples::Floats(values) => Samples::Floats(
                    values
                        .iter()
                        .zip(scalar)
                        .map(|(value, scalar)| picked(binary, (*value)?, *scalar, vector_is_left))
                        .collect(),
                ),
                Samples::Histograms(values) | Samples::Buckets(values) if is_scaled => {
                    let by =
                        |at: usize| scalar.get(at).copied().and_then(|scalar| factor(binary, scalar, vector_is_left));
                    let scaled = values
                        .iter()
                        .enumerate()
                        .map(|(at, value)| Some(super::eval::rc_scaled(value.as_ref()?, by(at)?)));
                    match part.samples {
                        Samples::Buckets(_) => Samples::Buckets(scaled.collect()),
                        _ => Samples::Histograms(scaled.collect()),
                    }
                }
                Samples::Histograms(_) | Samples::Buckets(_) => return Err(no_histograms()),
            };
            if !samples.is_empty() {
                let labels = if drops_name(binary) { part.labels.without(METRIC_NAME) } else { part.labels };
                found.push(Series { labels, samples });
            }
        }
    }
    Ok(found)
}

fn no_histograms() -> PromError {
    PromError::Unsupported { what: "this operator between native histograms and numbers".to_owned() }
}

/// A value of the vector is what a comparison picks, on whichever side it stands.
fn picked(binary: &Binary, value: f64, scalar: f64, vector_is_left: bool) -> Option<f64> {
    let (left, right) = if vector_is_left { (value, scalar) } else { (scalar, value) };
    let found = of_two(binary, left, right)?;
    let picks = matches!(binary.operator, BinaryOperator::Compare(_)) && !binary.gives_bool;
    Some(if picks { value } else { found })
}

/// What a histogram is multiplied with; `None` when it is something else.
fn factor(binary: &Binary, scalar: f64, vector_is_left: bool) -> Option<f64> {
    match binary.operator {
        BinaryOperator::Arithmetic(Arithmetic::Multiply) => Some(scalar),
        BinaryOperator::Arithmetic(Arithmetic::Divide) if vector_is_left => Some(1.0 / scalar),
        _ => None,
    }
}

fn is_there(series: &Series, at: usize) -> bool {
    match &series.samples {
        Samples::Floats(values) => matches!(values.get(at), Some(Some(_))),
        Samples::Histograms(values) | Samples::Buckets(values) => matches!(values.get(at), Some(Some(_))),
    }
}

/// The series with the values of those instants alone of which `stays` is true.
fn masked(series: Series, stays: impl Fn(usize) -> bool) -> Option<Series> {
    fn keep<T>(values: Vec<Option<T>>, stays: impl Fn(usize) -> bool) -> Vec<Option<T>> {
        values.into_iter().enumerate().map(|(at, value)| value.filter(|_| stays(at))).collect()
    }
    let samples = match series.samples {
        Samples::Floats(values) => Samples::Floats(keep(values, stays)),
        Samples::Histograms(values) => Samples::Histograms(keep(values, stays)),
        Samples::Buckets(values) => Samples::Buckets(keep(values, stays)),
    };
    (!samples.is_empty()).then_some(Series { labels: series.labels, samples })
}

/// The instants at which a side has a series of each group.
fn presence(series: &[Series], labels: &Grouping, n: usize) -> BTreeMap<Labels, Vec<bool>> {
    let mut presence: BTreeMap<Labels, Vec<bool>> = BTreeMap::new();
    for one in series {
        let there = presence.entry(labels.group(&one.labels)).or_insert_with(|| vec![false; n]);
        for (at, there) in there.iter_mut().enumerate() {
            *there |= is_there(one, at);
        }
    }
    presence
}

fn sets(
    operator: SetOperator,
    matching: &Matching,
    left: Vec<Series>,
    right: Vec<Series>,
    n: usize,
) -> Result<Vec<Series>, PromError> {
    let labels = &matching.labels;
    let keep = |series: Vec<Series>, of: &BTreeMap<Labels, Vec<bool>>, when_there: bool| {
        let kept = series.into_iter().filter_map(|one| {
            let there = of.get(&labels.group(&one.labels));
            let is = |at: usize| there.and_then(|there| there.get(at)).copied().unwrap_or(false);
            masked(one, |at| is(at) == when_there)
        });
        kept.collect::<Vec<Series>>()
    };
    match operator {
        SetOperator::And => Ok(keep(left, &presence(&right, labels, n), true)),
        SetOperator::Unless => Ok(keep(left, &presence(&right, labels, n), false)),
        SetOperator::Or => {
            let of_left = presence(&left, labels, n);
            functions::merged(left.into_iter().chain(keep(right, &of_left, false)))
        }
    }
}

fn matched(binary: &Binary, left: Vec<Series>, right: Vec<Series>, n: usize) -> Result<Vec<Series>, PromError> {
    let Matching { labels, many } = &binary.matching;
    let is_right_many = matches!(many, Many::Right(_));
    let (many_side, one_side) = if is_right_many { (right, left) } else { (left, right) };
    let mut partners: BTreeMap<Labels, Vec<Series>> = BTreeMap::new();
    for one in one_side {
        partners.entry(labels.group(&one.labels)).or_default().push(one);
    }
    alone(&many_side, &partners, n)?;
    let mut found = Vec::new();
    let mut taken: BTreeMap<Labels, Vec<bool>> = BTreeMap::new();
    for one in &many_side {
        let group = labels.group(&one.labels);
        for partner in partners.get(&group).map(Vec::as_slice).unwrap_or_default() {
            let (left, right) = if is_right_many { (partner, one) } else { (one, partner) };
            let result =
                Series { labels: result_labels(binary, one, partner), samples: of_series(binary, left, right, n)? };
            // Of a group there is one result at each instant; of many, one of each labels.
            let unique = if *many == Many::None { &group } else { &result.labels };
            let taken = taken.entry(unique.clone()).or_insert_with(|| vec![false; n]);
            for (_, taken) in taken.iter_mut().enumerate().filter(|(at, _)| is_there(&result, *at)) {
                if std::mem::replace(taken, true) {
                    return Err(PromError::Execution(ambiguous(&group, many)));
                }
            }
            found.push(result);
        }
    }
    Ok(functions::merged(found)?.into_iter().filter(|one| !one.samples.is_empty()).collect())
}

/// The side that lends its values must have one series of each group at every instant where the other side has any at all.
fn alone(many_side: &[Series], partners: &BTreeMap<Labels, Vec<Series>>, n: usize) -> Result<(), PromError> {
    let asked: Vec<usize> = (0..n).filter(|at| many_side.iter().any(|one| is_there(one, *at))).collect();
    let is_twice = |group: &[Series]| {
        let n_partners = |at: usize| group.iter().filter(|partner| is_there(partner, at)).count();
        1 < group.len() && asked.iter().any(|at| 1 < n_partners(*at))
    };
    match partners.iter().find(|(_, group)| is_twice(group)) {
        Some((group, _)) => {
            let labels = super::labels_text(group);
            Err(PromError::Execution(format!(
                "found duplicate series for the match group {labels} on one side of the operation; many-to-many matching not \
                 allowed: matching labels must be unique on one side"
            )))
        }
        None => Ok(()),
    }
}

fn ambiguous(group: &Labels, many: &Many) -> String {
    let labels = super::labels_text(group);
    match many {
        Many::None => format!(
            "multiple matches for labels {labels}: many-to-one matching must be explicit (group_left/group_right)"
        ),
        Many::Left(_) | Many::Right(_) => {
            format!("multiple matches for labels {labels}: grouping labels must ensure unique matches")
        }
    }
}

fn result_labels(binary: &Binary, many: &Series, one: &Series) -> Labels {
    let mut labels = many.labels.clone();
    if drops_name(binary) {
        labels = labels.without(METRIC_NAME);
    }
    match &binary.matching.many {
        Many::None => match &binary.matching.labels {
            Grouping::By(names) => labels.kept(|name| names.iter().any(|known| known == name)),
            Grouping::Without(names) => labels.kept(|name| names.iter().all(|known| known != name)),
        },
        Many::Left(lent) | Many::Right(lent) => {
            lent.iter().fold(labels, |labels, name| labels.with(name.as_str(), one.labels.get(name)))
        }
    }
}

fn of_series(binary: &Binary, left: &Series, right: &Series, n: usize) -> Result<Samples, PromError> {
    match (&left.samples, &right.samples) {
        (Samples::Floats(left), Samples::Floats(right)) => {
            let at = |at: usize| of_two(binary, left.get(at).copied()??, right.get(at).copied()??);
            Ok(Samples::Floats((0..n).map(at).collect()))
        }
        (Samples::Histograms(left), Samples::Histograms(right)) => {
            let factor = match binary.operator {
                BinaryOperator::Arithmetic(Arithmetic::Add) => 1.0,
                BinaryOperator::Arithmetic(Arithmetic::Subtract) => -1.0,
                _ => return Err(PromError::Unsupported { what: "this operator between native histograms".to_owned() }),
            };
            let at = |at: usize| {
                let (left, right) = (left.get(at)?.as_ref()?, right.get(at)?.as_ref()?);
                let mut sum = (**left).clone();
                sum.add(right, factor);
                Some(std::rc::Rc::new(sum))
            };
            Ok(Samples::Histograms((0..n).map(at).collect()))
        }
        _ => Err(no_histograms()),
    }
}
