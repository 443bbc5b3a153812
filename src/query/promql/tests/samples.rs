//! The samples of `tests/promql/samples.txt`, seen as Prometheus sees them.

use super::super::PromError;
use super::super::labels::{Grouping, Labels, METRIC_NAME};
use super::super::series::{Millis, Sampled, Samples, Series};
use super::super::source::{NumberOf, Selector, Source};

const FIRST_SAMPLE: Millis = 1_709_208_003_000;
const INTERVAL: Millis = 10_000;
/// An older sample is not seen at an instant.
const LOOKBACK: Millis = 300_000;

pub(super) struct Known(Vec<Sampled>);

impl Known {
    pub(super) fn read() -> Self {
        let lines = include_str!("../../../../tests/promql/samples.txt").lines();
        let series = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let series = series.map(|line| series_of(line).unwrap_or_else(|| panic!("not a series: {line}")));
        let mut series: Vec<Sampled> = series.collect();
        // Where values are the same, topk() takes the first ones.
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Self(series)
    }

    fn selected<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = (&'a Labels, Vec<(Millis, f64)>)> {
        self.0.iter().filter(|one| selector.takes_all(&one.labels)).map(|one| {
            let Samples::Floats(values) = &one.samples else { panic!("samples are numbers") };
            (&one.labels, one.times.iter().copied().zip(values.iter().copied().flatten()).collect())
        })
    }
}

fn series_of(line: &str) -> Option<Sampled> {
    // Labels may hold spaces, values never hold a bracket.
    let end = line.rfind('}').map(|at| at + 1).or_else(|| line.find(' '))?;
    let (series, notation) = line.split_at(end);
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut pairs = vec![(METRIC_NAME.to_owned(), name.to_owned())];
    let mut rest = labels.strip_suffix('}')?;
    while let Some((name, value)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut chars = value.char_indices();
        let closed = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => text.push(other),
            }
        };
        pairs.push((name.to_owned(), text));
        rest = value.get(closed + 1..)?.trim_start_matches(',');
    }
    let parts = notation.split_whitespace().map(values_of).collect::<Option<Vec<_>>>()?;
    let times = (0..).map(|number| FIRST_SAMPLE + number * INTERVAL);
    let there = times.zip(parts.into_iter().flatten()).filter(|(_, value)| value.is_some());
    let (times, values) = there.unzip();
    Some(Sampled { labels: Labels::of(pairs), times, samples: Samples::Floats(values) })
}

/// `5`, `5x3`, `0+2x3`, `_`, `_x30`.
fn values_of(part: &str) -> Option<Vec<Option<f64>>> {
    let Some((one, n)) = part.split_once('x') else {
        return Some(vec![if part == "_" { None } else { Some(part.parse().ok()?) }]);
    };
    let n: u32 = n.parse().ok()?;
    if one == "_" {
        return Some((0..n).map(|_| None).collect());
    }
    // The sign of the step is the last one that no exponent has.
    let signs = one
        .char_indices()
        .skip(1)
        .filter(|(at, char)| matches!(char, '+' | '-') && one.get(..*at).is_some_and(|before| !before.ends_with('e')));
    let (start, step) = one.split_at(signs.last().map_or(one.len(), |(at, _)| at));
    let start: f64 = start.parse().ok()?;
    let step: f64 = if step.is_empty() { 0.0 } else { step.parse().ok()? };
    Some((0..=n).map(|number| Some(start + step * f64::from(number))).collect())
}

impl Source for Known {
    fn at(&self, selector: &Selector, instants: &[Millis]) -> Result<Vec<Series>, PromError> {
        let seen = |(labels, samples): (&Labels, Vec<(Millis, f64)>)| {
            let at = |instant: &Millis| {
                let newest = samples.iter().rev().find(|(time, _)| time <= instant)?;
                (instant.saturating_sub(LOOKBACK) < newest.0).then_some(newest.1)
            };
            Series { labels: labels.clone(), samples: Samples::Floats(instants.iter().map(at).collect()) }
        };
        Ok(self.selected(selector).map(seen).filter(|one| !one.samples.is_empty()).collect())
    }

    fn increase(
        &self,
        _: &Selector,
        _: Millis,
        _: &[Millis],
        _: f64,
        _: Option<&Grouping>,
        _: Option<NumberOf<'_>>,
    ) -> Result<Option<Vec<Series>>, PromError> {
        Ok(None)
    }

    fn samples(&self, selector: &Selector, after: Millis, until: Millis) -> Result<Vec<Sampled>, PromError> {
        let within = |(labels, samples): (&Labels, Vec<(Millis, f64)>)| {
            let kept = samples.into_iter().filter(|(time, _)| after < *time && *time <= until);
            let (times, values) = kept.map(|(time, value)| (time, Some(value))).unzip();
            Sampled { labels: labels.clone(), times, samples: Samples::Floats(values) }
        };
        Ok(self.selected(selector).map(within).filter(|one| !one.times.is_empty()).collect())
    }

    fn may_go_on(&self) -> Result<(), PromError> {
        Ok(())
    }
}
