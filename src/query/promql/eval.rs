//! An expression at all instants of a grid at once: every step of it takes and gives whole series.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::ast::{Aggregate, Aggregation, At, Expr, Ranged, Shift};
use super::labels::{BUCKET_BOUND, Grouping, Labels, METRIC_NAME};
use super::over_time::{OverTime, Window, secs};
use super::series::{Millis, Sampled, Samples, Series};
use super::source::{NumberOf, Selector, Source};
use super::{PromError, PromValue, aggregate, binary, functions};

/// Numbers that are held at once, some 16 bytes each.
pub(super) const POINTS_HELD_MAX: usize = 5_000_000;
/// Instants of one subquery: every expression in it has a number for each of them. A week has 604,800 seconds.
const INSTANTS_MAX: usize = 1_000_000;
/// Samples of windows that are read before it is asked whether to go on.
const SAMPLES_BETWEEN: usize = 1 << 20;
/// How often an expression is asked in a subquery without a step of its own.
const SUBQUERY_STEP: Millis = 60_000;

/// Gives values to expressions.
pub(super) struct Evaluator<'a> {
    pub(super) source: &'a dyn Source,
    /// First and last instant of the whole query: `@ start()`, `@ end()`.
    pub(super) ends: (Millis, Millis),
}

impl Evaluator<'_> {
    /// The value at these instants, which ascend.
    pub(super) fn value(&self, expr: &Expr, grid: &[Millis]) -> Result<PromValue, PromError> {
        self.source.may_go_on()?;
        let value = match expr {
            Expr::Number(number) => PromValue::Scalar(vec![*number; grid.len()]),
            Expr::Text(text) => PromValue::Text(text.clone()),
            Expr::Negative(of) => match self.value(of, grid)? {
                PromValue::Scalar(numbers) => PromValue::Scalar(numbers.into_iter().map(|number| -number).collect()),
                PromValue::Vector(series) => PromValue::Vector(functions::mapped(series, |value| -value)?),
                PromValue::Text(_) => return Err(PromError::Execution("a text has no negative".to_owned())),
            },
            Expr::Select(selector, shift) => PromValue::Vector(self.selected(selector, *shift, grid)?),
            Expr::Aggregate(aggregate) => PromValue::Vector(aggregate::value(self, aggregate, grid)?),
            Expr::Binary(binary) => binary::value(self, binary, grid)?,
            Expr::OverTime { function, of, parameter } => {
                PromValue::Vector(self.over_time(*function, of, parameter.as_deref(), grid)?)
            }
            Expr::Call(function, args) => functions::value(self, *function, args, grid)?,
        };
        let PromValue::Vector(series) = value else { return Ok(value) };
        bounded(&series)?;
        // Without the name of the metric, series may have become the same.
        match expr {
            Expr::Negative(_) | Expr::Binary(_) | Expr::Call(..) => functions::merged(series).map(PromValue::Vector),
            _ => Ok(PromValue::Vector(series)),
        }
    }

    /// The value of an expression that must be a vector.
    pub(super) fn vector(&self, expr: &Expr, grid: &[Millis]) -> Result<Vec<Series>, PromError> {
        match self.value(expr, grid)? {
            PromValue::Vector(series) => Ok(series),
            PromValue::Scalar(_) => Err(expected("an instant vector", "a scalar")),
            PromValue::Text(_) => Err(expected("an instant vector", "a text")),
        }
    }

    /// The value of an expression that must be a scalar.
    pub(super) fn scalar(&self, expr: &Expr, grid: &[Millis]) -> Result<Vec<f64>, PromError> {
        match self.value(expr, grid)? {
            PromValue::Scalar(numbers) => Ok(numbers),
            PromValue::Vector(_) => Err(expected("a scalar", "an instant vector")),
            PromValue::Text(_) => Err(expected("a scalar", "a text")),
        }
    }

    /// The instants that are looked at instead.
    pub(super) fn shifted(&self, shift: Shift, grid: &[Millis]) -> Vec<Millis> {
        let of = |instant: Millis| match shift.at {
            None => instant,
            Some(At::Start) => self.ends.0,
            Some(At::End) => self.ends.1,
            Some(At::Instant(at)) => at,
        };
        grid.iter().map(|instant| of(*instant).saturating_sub(shift.offset)).collect()
    }

    fn selected(&self, selector: &Selector, shift: Shift, grid: &[Millis]) -> Result<Vec<Series>, PromError> {
        self.source.at(selector, &self.shifted(shift, grid))
    }

    /// `sum` of `rate` or `increase` of what is ours is counted together; `None` when it has to be counted one by one.
    pub(super) fn summed_increase(
        &self,
        expr: &Expr,
        grouping: &Grouping,
        number: Option<NumberOf<'_>>,
        grid: &[Millis],
    ) -> Result<Option<Vec<Series>>, PromError> {
        let Expr::OverTime { function: function @ (OverTime::Rate | OverTime::Increase), of, .. } = expr else {
            return Ok(None);
        };
        self.increase(*function, of, Some(grouping), number, grid)
    }

    /// A number of each histogram that `rate`, `increase` or a `sum` of them gives; `None` when they have to be made first.
    pub(super) fn numbers_of_increase(
        &self,
        expr: &Expr,
        number: NumberOf<'_>,
        grid: &[Millis],
    ) -> Result<Option<Vec<Series>>, PromError> {
        match expr {
            Expr::Aggregate(Aggregate { operator: Aggregation::Sum, of, grouping, .. }) => {
                self.summed_increase(of, grouping, Some(number), grid)
            }
            Expr::OverTime { function: function @ (OverTime::Rate | OverTime::Increase), of, .. } => {
                self.increase(*function, of, None, Some(number), grid)
            }
            _ => Ok(None),
        }
    }

    fn increase(
        &self,
        function: OverTime,
        of: &Ranged,
        grouping: Option<&Grouping>,
        number: Option<NumberOf<'_>>,
        grid: &[Millis],
    ) -> Result<Option<Vec<Series>>, PromError> {
        let Ranged::Selected { selector, range, shift } = of else { return Ok(None) };
        let factor = if function == OverTime::Rate { 1.0 / secs(*range) } else { 1.0 };
        self.source.increase(selector, *range, &self.shifted(*shift, grid), factor, grouping, number)
    }

    fn over_time(
        &self,
        function: OverTime,
        of: &Ranged,
        parameter: Option<&Expr>,
        grid: &[Millis],
    ) -> Result<Vec<Series>, PromError> {
        if matches!(function, OverTime::Rate | OverTime::Increase)
            && let Some(exact) = self.increase(function, of, None, None, grid)?
        {
            return Ok(exact);
        }
        let parameters = parameter.map(|parameter| self.scalar(parameter, grid)).transpose()?;
        let (sampled, range, instants) = self.ranged(of, grid)?;
        if function == OverTime::Absent {
            return Ok(absent_of(of, &sampled, range, &instants));
        }
        let mut series = Vec::new();
        for one in sampled.into_iter().flat_map(expanded) {
            self.source.may_go_on()?;
            let Samples::Floats(values) = one.samples else {
                return Err(PromError::Unsupported { what: "a function of samples of native histograms".to_owned() });
            };
            let values: Vec<f64> = values.into_iter().flatten().collect();
            let mut found = Vec::with_capacity(instants.len());
            let mut n_seen = 0;
            for (at, until) in instants.iter().enumerate() {
                let parameter = parameters.as_ref().and_then(|all| all.get(at)).copied().unwrap_or(f64::NAN);
                let window = window(&one.times, &values, *until, range);
                n_seen += window.map_or(0, |window| window.values.len());
                if SAMPLES_BETWEEN < n_seen {
                    self.source.may_go_on()?;
                    n_seen = 0;
                }
                found.push(window.and_then(|window| window.value(function, parameter)));
            }
            let found = Samples::Floats(found);
            if !found.is_empty() {
                let labels = if function.keeps_name() { one.labels } else { one.labels.without(METRIC_NAME) };
                series.push(Series { labels, samples: found });
            }
        }
        super::distinct(&series)?;
        Ok(series)
    }

    /// The samples that all windows need, the length of a window, and the instants where windows end.
    fn ranged(&self, of: &Ranged, grid: &[Millis]) -> Result<(Vec<Sampled>, Millis, Vec<Millis>), PromError> {
        let (Ranged::Selected { range, shift, .. } | Ranged::Subquery { range, shift, .. }) = of;
        let instants = self.shifted(*shift, grid);
        let first = instants.iter().min().copied().unwrap_or(0).saturating_sub(*range);
        let last = instants.iter().max().copied().unwrap_or(0);
        let sampled = match of {
            Ranged::Selected { selector, .. } => self.source.samples(selector, first, last)?,
            Ranged::Subquery { of, step, .. } => {
                let step = step.unwrap_or(SUBQUERY_STEP).max(1);
                let start = first.div_euclid(step).saturating_add(1).saturating_mul(step);
                let n = if start <= last { last.saturating_sub(start) / step + 1 } else { 0 };
                if usize::try_from(n).is_ok_and(|n| INSTANTS_MAX < n) {
                    return Err(PromError::TooMuch { what: "instants of a subquery", bound: INSTANTS_MAX });
                }
                let times: Vec<Millis> = (0..n).map(|number| start + number * step).collect();
                self.vector(of, &times)?
                    .into_iter()
                    .flat_map(Series::expanded)
                    .map(|one| present(one, &times))
                    .collect()
            }
        };
        Ok((sampled, *range, instants))
    }
}

fn expected(what: &str, found: &str) -> PromError {
    PromError::Execution(format!("expected {what}, found {found}"))
}

pub(super) fn too_much() -> PromError {
    PromError::TooMuch { what: "points at once", bound: POINTS_HELD_MAX }
}

fn bounded(series: &[Series]) -> Result<(), PromError> {
    let points: usize = series.iter().map(|one| one.samples.len()).sum();
    if POINTS_HELD_MAX < points { Err(too_much()) } else { Ok(()) }
}

/// The samples in `(until - range, until]`; `None` when there are none.
fn window<'a>(times: &'a [Millis], values: &'a [f64], until: Millis, range: Millis) -> Option<Window<'a>> {
    let after = until.saturating_sub(range);
    let (from, to) = (times.partition_point(|at| *at <= after), times.partition_point(|at| *at <= until));
    let (times, values) = (times.get(from..to)?, values.get(from..to)?);
    (!times.is_empty()).then_some(Window { times, values, after, until })
}

/// A series without the instants where it has no value.
pub(super) fn present(series: Series, grid: &[Millis]) -> Sampled {
    let mut times = Vec::new();
    let mut keep = |is_there: bool, at: &Millis| {
        if is_there {
            times.push(*at);
        }
        is_there
    };
    let samples = match series.samples {
        Samples::Floats(values) => {
            let kept = values.into_iter().zip(grid).filter(|(value, at)| keep(value.is_some(), at));
            Samples::Floats(kept.map(|(value, _)| value).collect())
        }
        Samples::Histograms(values) | Samples::Buckets(values) => {
            let kept = values.into_iter().zip(grid).filter(|(value, at)| keep(value.is_some(), at));
            Samples::Histograms(kept.map(|(value, _)| value).collect())
        }
    };
    Sampled { labels: series.labels, times, samples }
}

fn expanded(sampled: Sampled) -> Vec<Sampled> {
    let series = Series { labels: sampled.labels, samples: sampled.samples }.expanded();
    series
        .into_iter()
        .map(|one| Sampled { labels: one.labels, times: sampled.times.clone(), samples: one.samples })
        .collect()
}

/// 1 at the instants whose window has no sample of any series.
fn absent_of(of: &Ranged, sampled: &[Sampled], range: Millis, instants: &[Millis]) -> Vec<Series> {
    let has_one = |until: &Millis| {
        let is_in = |at: &Millis| until.saturating_sub(range) < *at && at <= until;
        sampled.iter().any(|one| one.times.iter().any(is_in))
    };
    let values: Vec<Option<f64>> = instants.iter().map(|until| (!has_one(until)).then_some(1.0)).collect();
    let labels = match of {
        Ranged::Selected { selector, .. } => functions::labels_of(selector),
        Ranged::Subquery { .. } => Labels::default(),
    };
    one_if_any(labels, values)
}

pub(super) fn one_if_any(labels: Labels, values: Vec<Option<f64>>) -> Vec<Series> {
    let samples = Samples::Floats(values);
    if samples.is_empty() { Vec::new() } else { vec![Series { labels, samples }] }
}

/// Classic histograms as `histogram_quantile` takes them: the series that differ in `le` alone, by the labels they share.
pub(super) type Families = BTreeMap<Labels, Vec<(f64, Vec<Option<f64>>)>>;

/// Puts series with a bound of a bucket together.
pub(super) fn families(series: impl IntoIterator<Item = Series>) -> Families {
    let mut families = Families::new();
    for one in series {
        let (bound, Samples::Floats(values)) = (one.labels.get(BUCKET_BOUND).parse(), one.samples) else { continue };
        let Ok(bound) = bound else { continue };
        let labels = one.labels.without(BUCKET_BOUND).without(METRIC_NAME);
        families.entry(labels).or_default().push((bound, values));
    }
    for family in families.values_mut() {
        family.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    }
    families
}

/// A shared histogram, changed.
pub(super) fn rc_scaled(histogram: &Rc<super::histogram::Histogram>, factor: f64) -> Rc<super::histogram::Histogram> {
    Rc::new(histogram.scaled(factor))
}
