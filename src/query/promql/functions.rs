//! Functions of instant vectors and scalars.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use regex::Regex;

use super::ast::{Expr, Function};
use super::eval::{Evaluator, families, one_if_any};
use super::histogram::{Histogram, bounds_secs};
use super::labels::{BUCKET_BOUND, Labels, METRIC_NAME};
use super::over_time::secs;
use super::series::{Millis, Samples, Series};
use super::source::{Condition, Matcher, Selector};
use super::{PromError, PromValue};

/// How far back `timestamp` looks for the sample that it tells the time of.
const LOOKBACK: Millis = 300_000;

pub(super) fn value(
    evaluator: &Evaluator<'_>,
    function: Function,
    args: &[Expr],
    grid: &[Millis],
) -> Result<PromValue, PromError> {
    let asked = Asked { evaluator, args, grid };
    let vector = match function {
        Function::Time => return Ok(PromValue::Scalar(grid.iter().map(|at| secs(*at)).collect())),
        Function::Pi => return Ok(PromValue::Scalar(vec![std::f64::consts::PI; grid.len()])),
        Function::Scalar => return asked.vector(0).map(|series| PromValue::Scalar(scalar(series, grid.len()))),
        Function::Vector => {
            let values = asked.scalar(0)?.into_iter().map(Some).collect();
            one_if_any(Labels::default(), values)
        }
        Function::Math(math) => mapped(asked.vector(0)?, math)?,
        Function::Calendar(part) => calendar(&asked, part)?,
        Function::Round => {
            let to = if args.len() < 2 { vec![1.0; grid.len()] } else { asked.scalar(1)? };
            // By the inverse: 0.1 has one that is exact.
            with_parameter(asked.vector(0)?, &to, |value, to| (value * (1.0 / to) + 0.5).floor() / (1.0 / to))?
        }
        Function::Clamp => {
            let (low, high) = (asked.scalar(1)?, asked.scalar(2)?);
            let clamped = with_parameter(asked.vector(0)?, &high, smaller)?;
            let clamped = with_parameter(clamped, &low, larger)?;
            let is_possible = |at: usize| {
                low.get(at).zip(high.get(at)).is_some_and(|(low, high)| high.partial_cmp(low) != Some(Ordering::Less))
            };
            kept_where(clamped, is_possible)
        }
        Function::ClampMin => with_parameter(asked.vector(0)?, &asked.scalar(1)?, larger)?,
        Function::ClampMax => with_parameter(asked.vector(0)?, &asked.scalar(1)?, smaller)?,
        Function::Absent => absent(&asked)?,
        Function::Timestamp => timestamps(&asked)?,
        Function::Sort | Function::SortDesc => asked.vector(0)?,
        Function::LabelReplace => label_replace(&asked)?,
        Function::LabelJoin => label_join(&asked)?,
        Function::HistogramQuantile => histogram_quantile(&asked)?,
        Function::HistogramFraction => histogram_fraction(&asked)?,
        Function::HistogramCount => of_histograms(asked.vector(0)?, Histogram::count),
        Function::HistogramSum => of_histograms(asked.vector(0)?, Histogram::sum),
        Function::HistogramAvg => of_histograms(asked.vector(0)?, |histogram| histogram.sum() / histogram.count()),
        Function::HistogramStdvar => of_histograms(asked.vector(0)?, Histogram::variance),
        Function::HistogramStddev => of_histograms(asked.vector(0)?, |histogram| histogram.variance().sqrt()),
    };
    Ok(PromValue::Vector(vector))
}

/// The arguments, which are evaluated as they are asked for.
struct Asked<'a> {
    evaluator: &'a Evaluator<'a>,
    args: &'a [Expr],
    grid: &'a [Millis],
}

impl Asked<'_> {
    fn arg(&self, number: usize) -> Result<&Expr, PromError> {
        let missing = || PromError::Execution(format!("argument {} of a function is missing", number + 1));
        self.args.get(number).ok_or_else(missing)
    }

    fn vector(&self, number: usize) -> Result<Vec<Series>, PromError> {
        self.evaluator.vector(self.arg(number)?, self.grid)
    }

    fn scalar(&self, number: usize) -> Result<Vec<f64>, PromError> {
        self.evaluator.scalar(self.arg(number)?, self.grid)
    }

    fn text(&self, number: usize) -> Result<&str, PromError> {
        match self.arg(number)? {
            Expr::Text(text) => Ok(text),
            _ => Err(PromError::Execution(format!("argument {} of a function must be a text", number + 1))),
        }
    }
}

fn nameless(labels: Labels) -> Labels {
    labels.without(METRIC_NAME)
}

/// Each number by itself, without the name of the metric.
pub(super) fn mapped(series: Vec<Series>, of: impl Fn(f64) -> f64) -> Result<Vec<Series>, PromError> {
    with_instants(series, |_, value| Some(of(value)))
}

fn with_parameter(
    series: Vec<Series>,
    parameter: &[f64],
    of: impl Fn(f64, f64) -> f64,
) -> Result<Vec<Series>, PromError> {
    with_instants(series, |at, value| Some(of(value, parameter.get(at).copied()?)))
}

fn with_instants(series: Vec<Series>, of: impl Fn(usize, f64) -> Option<f64>) -> Result<Vec<Series>, PromError> {
    let mut found = Vec::new();
    for one in series.into_iter().flat_map(Series::expanded) {
        let Samples::Floats(values) = one.samples else {
            return Err(PromError::Unsupported { what: "this function of native histograms".to_owned() });
        };
        let values = values.into_iter().enumerate().map(|(at, value)| of(at, value?)).collect();
        found.push(Series { labels: nameless(one.labels), samples: Samples::Floats(values) });
    }
    Ok(found)
}

/// Unlike `f64::max`, no number is passed over.
fn larger(a: f64, b: f64) -> f64 {
    if (a.is_nan() || b.is_nan()) && a.max(b) != f64::INFINITY { f64::NAN } else { a.max(b) }
}

fn smaller(a: f64, b: f64) -> f64 {
    -larger(-a, -b)
}

fn kept_where(series: Vec<Series>, is_kept: impl Fn(usize) -> bool) -> Vec<Series> {
    let keep = |one: Series| match one.samples {
        Samples::Floats(values) => {
            let values = values.into_iter().enumerate().map(|(at, value)| value.filter(|_| is_kept(at))).collect();
            Series { labels: one.labels, samples: Samples::Floats(values) }
        }
        samples => Series { labels: one.labels, samples },
    };
    series.into_iter().map(keep).filter(|one| !one.samples.is_empty()).collect()
}

fn scalar(series: Vec<Series>, n: usize) -> Vec<f64> {
    let values: Vec<Vec<Option<f64>>> = series
        .into_iter()
        .flat_map(Series::expanded)
        .filter_map(|one| match one.samples {
            Samples::Floats(values) => Some(values),
            Samples::Histograms(_) | Samples::Buckets(_) => None,
        })
        .collect();
    let at = |at: usize| {
        let mut there = values.iter().filter_map(|values| values.get(at).copied().flatten());
        there.next().filter(|_| there.next().is_none()).unwrap_or(f64::NAN)
    };
    (0..n).map(at).collect()
}

fn calendar(asked: &Asked<'_>, part: fn(jiff::civil::DateTime) -> i16) -> Result<Vec<Series>, PromError> {
    let of = |secs: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "what is no time is refused behind it")]
        let at = jiff::Timestamp::from_second(secs as i64);
        at.map_or(f64::NAN, |at| f64::from(part(jiff::tz::Offset::UTC.to_datetime(at))))
    };
    if asked.args.is_empty() {
        return Ok(one_if_any(Labels::default(), asked.grid.iter().map(|at| Some(of(secs(*at)))).collect()));
    }
    mapped(asked.vector(0)?, of)
}

fn absent(asked: &Asked<'_>) -> Result<Vec<Series>, PromError> {
    let arg = asked.arg(0)?;
    let series = asked.vector(0)?;
    let is_there = |at: usize| {
        series.iter().any(|one| match &one.samples {
            Samples::Floats(values) => matches!(values.get(at), Some(Some(_))),
            Samples::Histograms(values) | Samples::Buckets(values) => matches!(values.get(at), Some(Some(_))),
        })
    };
    let values = (0..asked.grid.len()).map(|at| (!is_there(at)).then_some(1.0)).collect();
    let labels = if let Expr::Select(selector, _) = arg { labels_of(selector) } else { Labels::default() };
    Ok(one_if_any(labels, values))
}

/// The labels that a selector names, but for that of the metric.
pub(super) fn labels_of(selector: &Selector) -> Labels {
    let mut labels = Labels::default();
    let mut known = Vec::new();
    for Matcher { label, condition } in selector.matchers.iter().filter(|matcher| matcher.label != METRIC_NAME) {
        // What has to be two things is neither.
        labels = match condition {
            Condition::Equal(value) if !known.contains(&label) => {
                known.push(label);
                labels.with(label.as_str(), value.as_str())
            }
            _ => labels.without(label),
        };
    }
    labels
}

/// When the samples were taken that the instants see.
fn timestamps(asked: &Asked<'_>) -> Result<Vec<Series>, PromError> {
    let (Expr::Select(selector, shift), grid) = (asked.arg(0)?, asked.grid) else {
        return with_instants(asked.vector(0)?, |at, _| asked.grid.get(at).map(|at| secs(*at)));
    };
    let instants = asked.evaluator.shifted(*shift, grid);
    let (first, last) = (instants.iter().min().copied().unwrap_or(0), instants.iter().max().copied().unwrap_or(0));
    let sampled = asked.evaluator.source.samples(selector, first.saturating_sub(LOOKBACK), last)?;
    let of = |one: super::series::Sampled| {
        let at = |instant: &Millis| {
            let before = one.times.partition_point(|at| at <= instant).checked_sub(1)?;
            one.times.get(before).filter(|at| instant.saturating_sub(LOOKBACK) < **at).map(|at| secs(*at))
        };
        Series { labels: nameless(one.labels), samples: Samples::Floats(instants.iter().map(at).collect()) }
    };
    Ok(sampled.into_iter().map(of).filter(|one| !one.samples.is_empty()).collect())
}

/// Refuses what cannot be the name of a label.
pub(super) fn label_name(name: &str) -> Result<(), PromError> {
    let is_good =
        |(at, char): (usize, char)| char == '_' || char.is_ascii_alphabetic() || 0 < at && char.is_ascii_digit();
    if !name.is_empty() && name.chars().enumerate().all(is_good) {
        return Ok(());
    }
    Err(PromError::Execution(format!("invalid label name {name:?}: letters, digits and _ make one")))
}

fn label_replace(asked: &Asked<'_>) -> Result<Vec<Series>, PromError> {
    let (target, replacement, source, pattern) = (asked.text(1)?, asked.text(2)?, asked.text(3)?, asked.text(4)?);
    label_name(target)?;
    let whole = Regex::new(&format!("^(?s:{pattern})$"));
    let whole =
        whole.map_err(|_| PromError::Execution(format!("invalid regular expression in label_replace(): {pattern}")))?;
    Ok(relabelled(asked.vector(0)?, |labels| {
        let Some(found) = whole.captures(labels.get(source)) else { return labels };
        let mut value = String::new();
        found.expand(replacement, &mut value);
        labels.with(target, value)
    }))
}

fn label_join(asked: &Asked<'_>) -> Result<Vec<Series>, PromError> {
    let (target, between) = (asked.text(1)?, asked.text(2)?);
    label_name(target)?;
    let sources = (3..asked.args.len()).map(|number| asked.text(number)).collect::<Result<Vec<&str>, _>>()?;
    Ok(relabelled(asked.vector(0)?, |labels| {
        let values: Vec<&str> = sources.iter().map(|source| labels.get(source)).collect();
        let joined = values.join(between);
        labels.with(target, joined)
    }))
}

fn relabelled(series: Vec<Series>, with: impl Fn(Labels) -> Labels) -> Vec<Series> {
    // A family without its bound apart would not know that it changes.
    let apart = series.into_iter().flat_map(Series::expanded);
    apart.map(|one| Series { labels: with(one.labels), samples: one.samples }).collect()
}

/// Series with the same labels as one, which has values where any of them has.
///
/// # Errors
/// When several have one at the same instant.
pub(super) fn merged(series: impl IntoIterator<Item = Series>) -> Result<Vec<Series>, PromError> {
    /// Whether there was room.
    fn fill<T>(into: &mut [Option<T>], from: Vec<Option<T>>) -> bool {
        into.iter_mut().zip(from).all(|(into, from)| match (&into, &from) {
            (Some(_), Some(_)) => false,
            (Some(_), None) => true,
            (None, _) => {
                *into = from;
                true
            }
        })
    }
    let mut merged: Vec<Series> = Vec::new();
    let mut known: BTreeMap<Labels, usize> = BTreeMap::new();
    for one in series {
        let place = known.get(&one.labels).copied();
        let is_filled =
            match (place.and_then(|place| merged.get_mut(place)).map(|known| &mut known.samples), one.samples) {
                (Some(Samples::Floats(into)), Samples::Floats(from)) => fill(into, from),
                (Some(Samples::Histograms(into)), Samples::Histograms(from))
                | (Some(Samples::Buckets(into)), Samples::Buckets(from)) => fill(into, from),
                (_, samples) => {
                    let _other_kind = known.insert(one.labels.clone(), merged.len());
                    merged.push(Series { labels: one.labels.clone(), samples });
                    true
                }
            };
        if !is_filled {
            return Err(super::same_labels(&one.labels));
        }
    }
    Ok(merged)
}

fn of_histograms(series: Vec<Series>, of: impl Fn(&Histogram) -> f64) -> Vec<Series> {
    let native = |one: Series| {
        let Samples::Histograms(values) = one.samples else { return None };
        let values = values.iter().map(|value| value.as_deref().map(&of)).collect();
        Some(Series { labels: nameless(one.labels), samples: Samples::Floats(values) })
    };
    series.into_iter().filter_map(native).collect()
}

fn histogram_quantile(asked: &Asked<'_>) -> Result<Vec<Series>, PromError> {
    let quantiles = asked.scalar(0)?;
    let quantile = |at: usize| quantiles.get(at).copied().unwrap_or(f64::NAN);
    let classic = |counts: &[Bucket], at: usize| bucket_quantile(quantile(at), counts);
    per_histogram(asked, 1, &|histogram, at| histogram.quantile(quantile(at)), &classic)
}

fn histogram_fraction(asked: &Asked<'_>) -> Result<Vec<Series>, PromError> {
    let (lower, upper) = (asked.scalar(0)?, asked.scalar(1)?);
    let ends = |at: usize| (lower.get(at).copied().unwrap_or(f64::NAN), upper.get(at).copied().unwrap_or(f64::NAN));
    let classic = |counts: &[Bucket], at: usize| bucket_fraction(ends(at), counts);
    per_histogram(asked, 2, &|histogram, at| histogram.fraction(ends(at).0, ends(at).1), &classic)
}

/// The upper bound of a classic histogram's bucket, and how many lie at or below it.
type Bucket = (f64, f64);

/// A number of each histogram of an argument, native or classic; of classic ones the bounds and their cumulative counts are
/// given.
fn per_histogram(
    asked: &Asked<'_>,
    arg: usize,
    native: &dyn Fn(&Histogram, usize) -> f64,
    classic: &dyn Fn(&[Bucket], usize) -> f64,
) -> Result<Vec<Series>, PromError> {
    let number = |histogram: &Histogram, is_classic: bool, at: usize| {
        if !is_classic {
            return native(histogram, at);
        }
        let counts: Vec<Bucket> = bounds_secs().zip(histogram.cumulative()).collect();
        classic(&counts, at)
    };
    if let Some(numbers) = asked.evaluator.numbers_of_increase(asked.arg(arg)?, &number, asked.grid)? {
        return Ok(numbers);
    }
    let mut found = Vec::new();
    let mut apart = Vec::new();
    for one in asked.vector(arg)? {
        let (values, is_classic) = match &one.samples {
            Samples::Histograms(values) => (values, false),
            Samples::Buckets(values) => (values, true),
            Samples::Floats(_) => {
                apart.push(one);
                continue;
            }
        };
        let values =
            values.iter().enumerate().map(|(at, value)| Some(number(value.as_ref()?, is_classic, at))).collect();
        found.push(Series { labels: nameless(one.labels).without(BUCKET_BOUND), samples: Samples::Floats(values) });
    }
    for (labels, family) in families(apart) {
        let n = family.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        let at = |at: usize| {
            let counts: Vec<Bucket> =
                family.iter().filter_map(|(bound, values)| Some((*bound, values.get(at).copied()??))).collect();
            (!counts.is_empty()).then(|| classic(&counts, at))
        };
        found.push(Series { labels, samples: Samples::Floats((0..n).map(at).collect()) });
    }
    Ok(found)
}

/// Bounds with cumulative counts, ascending, equal bounds together and no count below the one before.
fn monotonic(counts: &[Bucket]) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::with_capacity(counts.len());
    for (bound, count) in counts {
        match buckets.last_mut() {
            Some((last, known)) if last.total_cmp(bound).is_eq() => *known += count,
            _ => buckets.push((*bound, *count)),
        }
    }
    let mut most = f64::NEG_INFINITY;
    for (_, count) in &mut buckets {
        most = most.max(*count);
        *count = most;
    }
    buckets
}

/// As Prometheus estimates it: linear within a bucket.
fn bucket_quantile(quantile: f64, counts: &[Bucket]) -> f64 {
    if quantile.is_nan() {
        return f64::NAN;
    }
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if 1.0 < quantile {
        return f64::INFINITY;
    }
    let buckets = monotonic(counts);
    let [.., (highest, _), (last, total)] = buckets.as_slice() else { return f64::NAN };
    if *last != f64::INFINITY || *total == 0.0 || total.is_nan() {
        return f64::NAN;
    }
    let rank = quantile * total;
    let finite = buckets.get(..buckets.len() - 1).unwrap_or_default();
    let at = finite.partition_point(|(_, count)| *count < rank);
    let Some((end, count)) = finite.get(at) else { return *highest };
    let before = at.checked_sub(1).and_then(|before| finite.get(before));
    match before {
        None if *end <= 0.0 => *end,
        None => end * (rank / count),
        Some((start, below)) => start + (end - start) * ((rank - below) / (count - below)),
    }
}

/// Which part lies between two values, linear within a bucket; the first one begins at 0.
fn bucket_fraction((lower, upper): (f64, f64), counts: &[Bucket]) -> f64 {
    let buckets = monotonic(counts);
    let Some((_, total)) = buckets.last().filter(|(bound, _)| *bound == f64::INFINITY) else { return f64::NAN };
    if *total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if upper <= lower {
        return 0.0;
    }
    let below = |value: f64| {
        let (mut start, mut counted) = (0.0, 0.0);
        for (end, count) in &buckets {
            if value <= start {
                return counted;
            }
            if value < *end {
                let part = if end.is_finite() { (value - start) / (end - start) } else { 0.0 };
                return counted + (count - counted) * part;
            }
            (start, counted) = (*end, *count);
        }
        counted
    };
    (below(upper) - below(lower)) / total
}
