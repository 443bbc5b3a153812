//! PromQL over what was counted: the catalogue offers span metrics and the service graph as counters and histograms.
//!
//! ```text
//! text --parse--> PromQuery --eval--> Series at each instant of the grid
//!                               |  selectors, ranges
//!                             Source: stored slots (ours), plain samples (tests, subqueries)
//! ```

mod aggregate;
mod ast;
mod binary;
pub mod catalogue;
mod counted;
mod entries;
mod eval;
pub mod exemplars;
mod functions;
pub mod histogram;
pub mod labels;
pub mod listing;
mod over_time;
mod parse;
mod pile;
pub mod series;
mod sliding;
pub mod source;
pub mod sparse;
mod stored;
#[cfg(test)]
mod tests;
pub mod totals;

use std::collections::HashSet;

use super::QueryError;
use ast::{Aggregation, Expr, Function};
use eval::Evaluator;
use labels::Labels;
pub use parse::{PromQuery, step_of};
use series::{Millis, Samples, Series};
use source::Source;

/// Steps of one range, as in Prometheus.
pub const POINTS_MAX: u64 = 11_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromError {
    /// It is no PromQL.
    #[error("{line}:{column}: parse error: {problem}")]
    Parse {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
    },
    /// Something that is not built, by its name.
    #[error("{what} is not supported")]
    Unsupported {
        /// For example `function predict_linear`.
        what: String,
    },
    /// Values that an operation cannot take: labels that match several times, for example.
    #[error("{0}")]
    Execution(String),
    /// More than an answer or its making may hold.
    #[error("the query would hold more than {bound} {what}; select fewer series, a shorter range or a longer step")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much there may be.
        bound: usize,
    },
    /// A range with too many points.
    #[error(
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
    )]
    TooManyPoints,
    /// As other questions fail.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// The instants that a query is evaluated at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instants {
    /// One.
    Instant(Millis),
    /// `start`, `start + step`, .. up to `end`.
    Range {
        /// The first.
        start: Millis,
        /// No later than this.
        end: Millis,
        /// Above 0.
        step: Millis,
    },
}

impl Instants {
    /// All of them.
    ///
    /// # Errors
    /// `TooManyPoints`.
    pub fn all(self) -> Result<Vec<Millis>, PromError> {
        match self {
            Self::Instant(at) => Ok(vec![at]),
            Self::Range { start, end, step } => {
                let step = step.max(1);
                let last = u64::try_from(end.saturating_sub(start) / step).unwrap_or(0);
                if POINTS_MAX < last {
                    return Err(PromError::TooManyPoints);
                }
                Ok((0..=last).map(|number| start.saturating_add(step.saturating_mul(number.cast_signed()))).collect())
            }
        }
    }
}

/// What an expression gives.
#[derive(Clone, Debug, PartialEq)]
pub enum PromValue {
    /// A number for each instant.
    Scalar(Vec<f64>),
    /// A text.
    Text(String),
    /// Series with a value for each instant; families of buckets are expanded in answers.
    Vector(Vec<Series>),
}

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct PromAnswer {
    /// What it gives.
    pub value: PromValue,
    /// What is missing, one sentence each.
    pub warnings: Vec<String>,
}

impl PromQuery {
    /// The value at these instants: series in the order of their labels, or that of their values where the query sorts.
    /// Families of buckets are expanded.
    ///
    /// # Errors
    /// As evaluation fails, or `TooManyPoints`.
    pub fn value(&self, source: &dyn Source, instants: Instants) -> Result<PromValue, PromError> {
        let grid = instants.all()?;
        let ends = (grid.first().copied().unwrap_or(0), grid.last().copied().unwrap_or(0));
        let value = Evaluator { source, ends }.value(&self.expr, &grid)?;
        let series = match (value, instants) {
            (PromValue::Vector(series), _) => series,
            (PromValue::Text(_), Instants::Range { .. }) => {
                let problem = "a text has no values over a range, a scalar or an instant vector has".to_owned();
                return Err(PromError::Parse { line: 1, column: 1, problem });
            }
            (other, _) => return Ok(other),
        };
        let mut series: Vec<Series> = series.into_iter().flat_map(Series::expanded).collect();
        series.retain(|one| !one.samples.is_empty());
        distinct(&series)?;
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        if let (Some(largest_first), Instants::Instant(_)) = (self.order(), instants) {
            let value = |one: &Series| match &one.samples {
                Samples::Floats(values) => values.first().copied().flatten().unwrap_or(f64::NAN),
                Samples::Histograms(_) | Samples::Buckets(_) => f64::NAN,
            };
            series.sort_by(|a, b| aggregate::by_value(value(a), value(b), largest_first));
        }
        Ok(PromValue::Vector(series))
    }

    /// Whether the largest or the smallest values come first, where the query says so.
    fn order(&self) -> Option<bool> {
        match &self.expr {
            Expr::Call(Function::Sort, _) => Some(false),
            Expr::Call(Function::SortDesc, _) => Some(true),
            Expr::Aggregate(aggregate) => match aggregate.operator {
                Aggregation::Topk => Some(true),
                Aggregation::Bottomk => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Refuses two series with the same labels.
fn distinct(series: &[Series]) -> Result<(), PromError> {
    let mut known = HashSet::new();
    match series.iter().find(|one| !known.insert(&one.labels)) {
        Some(twice) => Err(same_labels(&twice.labels)),
        None => Ok(()),
    }
}

fn same_labels(labels: &Labels) -> PromError {
    let labels = labels_text(labels);
    PromError::Execution(format!("vector cannot contain metrics with the same labelset: {labels}"))
}

/// As Prometheus writes them: `{a="b", c="d"}`.
fn labels_text(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A value as Prometheus writes it: the shortest text that reads as the same number.
pub fn number_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-Inf" } else { "+Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) { format!("{value:e}") } else { value.to_string() }
}
