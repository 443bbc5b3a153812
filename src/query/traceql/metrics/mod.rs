//! Metrics queries: numbers over time of the spans that a filter finds, and arithmetic with such numbers.
//!
//! ```text
//! query      = expression [ "with" "(" hint { "," hint } ")" ]
//! expression = ( pipeline | sum ) { "|" ( "topk" | "bottomk" ) "(" n ")" | comparison number }
//! pipeline   = source "|" function [ "by" "(" field { "," field } ")" ]
//! sum        = product { ( "+" | "-" ) product }
//! product    = operand { ( "*" | "/" ) operand }
//! operand    = [ "-" ] number | "(" expression ")"
//! function   = ("rate" | "count_over_time") "(" ")"
//!            | ("min" | "max" | "avg" | "sum" | "histogram") "_over_time" "(" field ")"
//!            | "quantile_over_time" "(" field { "," number } ")"
//!            | "compare" "(" "{" .. "}" [ "," top [ "," start "," end ] ] ")"
//! hint       = name "=" ( "true" | "false" | number )
//! ```
//! (Tempo's documentation of TraceQL metrics.) What else the language has is refused by name. `Display` writes one normal form.

pub(super) mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use super::ast::{Arithmetic, AttributeScope, Comparison, Field, Intrinsic};
use super::error::Problem;
use super::{Filter, SpanQuery};
use crate::latency::Quantile;
use crate::model::UnixNanos;

/// Fields of one `by`.
pub const BY_FIELDS_MAX: usize = 5;
/// Series that `topk` and `bottomk` may keep.
pub const TOP_MAX: usize = 1_000;
/// Quantiles of one query.
const QUANTILES_MAX: usize = 20;
/// Values of each attribute that `compare` shows unless it says how many, as in Tempo, and at most.
const COMPARED_VALUES: usize = 10;
const COMPARED_VALUES_MAX: usize = 1_000;
/// Queries inside of one: each reads its spans.
const QUERIES_MAX: usize = 10;
/// Queries, numbers, brackets and stages of one query, which bounds its depth.
const PARTS_MAX: usize = 64;
/// Hints without effect: answers are always exact.
const HINTS: [&str; 4] = ["sample", "span_sample", "trace_sample", "most_recent"];

/// A metrics query.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsQuery {
    /// What is asked.
    pub expression: MetricsExpression,
    /// Exemplars wanted, where the query itself says it.
    pub exemplars: Option<usize>,
}

/// Numbers over time, as a tree of at most 64 parts. There is a query in it.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricsExpression {
    /// Of spans.
    Spans(Box<SpanMetrics>),
    /// The same at any time.
    Number(f64),
    /// Of two others, point by point.
    Arithmetic {
        /// What is done.
        operator: MetricsOperator,
        /// In front of it.
        left: Box<Self>,
        /// Behind it.
        right: Box<Self>,
    },
    /// What a second stage leaves of another.
    Staged {
        /// What goes in.
        of: Box<Self>,
        /// What is left of it.
        stage: MetricsStage,
    },
}

/// Numbers of spans.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanMetrics {
    /// Which spans.
    pub source: MetricsSource,
    /// What of them.
    pub function: MetricsFunction,
    /// What they are grouped by, each with its text as written; at most `BY_FIELDS_MAX`.
    pub by: Vec<(Field, String)>,
}

/// What finds spans.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricsSource {
    /// What they say themselves.
    Filter(Filter),
    /// What they are to the other spans of their trace: anything but a single filter. Sets play no part, each span counts once.
    Related(SpanQuery),
}

/// What is counted of spans, per interval. Fields are numeric; spans without a number there do not count.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricsFunction {
    /// Spans per second.
    Rate,
    /// Spans.
    CountOverTime,
    /// The smallest value.
    MinOverTime(Field),
    /// The largest value.
    MaxOverTime(Field),
    /// The mean of the values.
    AvgOverTime(Field),
    /// The values added up.
    SumOverTime(Field),
    /// Quantiles of the values, in the order given; at least one.
    QuantileOverTime(Field, Vec<Quantile>),
    /// Spans by the smallest power of two that is not less than the value: of nanoseconds for durations.
    HistogramOverTime(Field),
    /// Spans by the values of all their attributes, some of them beside the others.
    Compare(MetricsComparison),
}

/// What is compared with what.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsComparison {
    /// Spans that are the selection; the others are the baseline.
    pub selection: Filter,
    /// Values shown of each attribute and side, in `1..=1000`.
    pub top: usize,
    /// When spans of the selection are counted: after the first instant, up to the second.
    pub within: Option<(UnixNanos, UnixNanos)>,
}

/// `+`, `-`, `*` or `/` between numbers over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsOperator(Arithmetic);

/// What becomes of series and their points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricsStage {
    /// The points that are among the so many largest of their instant.
    Top(usize),
    /// The points that are among the so many smallest of their instant.
    Bottom(usize),
    /// The points that compare so.
    Threshold(Threshold),
}

/// A comparison with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    comparison: Comparison,
    number: f64,
}

impl MetricsOperator {
    /// The result; `None` when there is no number: of a division by zero.
    pub fn of(self, left: f64, right: f64) -> Option<f64> {
        let result = match self.0 {
            Arithmetic::Add => left + right,
            Arithmetic::Subtract => left - right,
            Arithmetic::Multiply => left * right,
            Arithmetic::Divide if right == 0.0 => return None,
            Arithmetic::Divide => left / right,
            Arithmetic::Modulo => left % right,
            Arithmetic::Power => left.powf(right),
        };
        (!result.is_nan()).then_some(result)
    }

    /// Its sign.
    pub fn as_str(self) -> &'static str {
        self.0.as_str()
    }
}

impl Threshold {
    /// Whether a point stays.
    pub fn holds(self, value: f64) -> bool {
        value.partial_cmp(&self.number).is_some_and(|order| self.comparison.accepts(order))
    }
}

impl MetricsFunction {
    /// As written, without arguments.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::CountOverTime => "count_over_time",
            Self::MinOverTime(_) => "min_over_time",
            Self::MaxOverTime(_) => "max_over_time",
            Self::AvgOverTime(_) => "avg_over_time",
            Self::SumOverTime(_) => "sum_over_time",
            Self::QuantileOverTime(..) => "quantile_over_time",
            Self::HistogramOverTime(_) => "histogram_over_time",
            Self::Compare(_) => "compare",
        }
    }

    /// Whose values its numbers are made of.
    pub fn field(&self) -> Option<&Field> {
        match self {
            Self::Rate | Self::CountOverTime | Self::Compare(_) => None,
            Self::MinOverTime(field)
            | Self::MaxOverTime(field)
            | Self::AvgOverTime(field)
            | Self::SumOverTime(field)
            | Self::QuantileOverTime(field, _)
            | Self::HistogramOverTime(field) => Some(field),
        }
    }

    /// Whether its numbers are made of durations.
    pub fn is_of_duration(&self) -> bool {
        self.field() == Some(&Field::Intrinsic(Intrinsic::Duration))
    }

    /// Whether its numbers say how many, so that an interval without spans has one too: 0.
    pub fn counts(&self) -> bool {
        matches!(self, Self::Rate | Self::CountOverTime | Self::HistogramOverTime(_) | Self::Compare(_))
    }
}

impl SpanMetrics {
    /// Every field that it asks of, each once: of the filter, of the function, of the groups.
    pub fn fields(&self) -> Vec<&Field> {
        let asked = match &self.source {
            MetricsSource::Filter(filter) => filter.fields(),
            MetricsSource::Related(query) => query.shown(),
        };
        let selecting = match &self.function {
            MetricsFunction::Compare(comparison) => comparison.selection.fields(),
            _ => Vec::new(),
        };
        let mut fields = Vec::new();
        for field in asked
            .into_iter()
            .chain(selecting)
            .chain(self.function.field())
            .chain(self.by.iter().map(|(field, _)| field))
        {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        fields
    }
}

impl SpanMetrics {
    /// Whether attributes, events or links of spans say something of the numbers.
    pub fn looks_at_attributes(&self) -> bool {
        let of_source = match &self.source {
            MetricsSource::Filter(_) => false,
            MetricsSource::Related(query) => query.looks_at_attributes(),
        };
        let compares = matches!(self.function, MetricsFunction::Compare(_));
        of_source || compares || self.fields().into_iter().any(Field::is_of_attributes)
    }
}

impl MetricsExpression {
    /// Whether there is no query in it.
    fn is_constant(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Spans(_) => false,
            Self::Arithmetic { left, right, .. } => left.is_constant() && right.is_constant(),
            Self::Staged { of, .. } => of.is_constant(),
        }
    }
}

/// Whether a field has numbers, as far as its name tells.
fn is_numeric(field: &Field) -> bool {
    match field {
        Field::Attribute { scope, .. } => !matches!(scope, AttributeScope::Event | AttributeScope::Link),
        Field::Intrinsic(intrinsic) => *intrinsic == Intrinsic::Duration,
    }
}

fn no_number(field: &Field) -> Problem {
    let fault = "it is no number; write duration, or an attribute that is one".to_owned();
    Problem::Types { operation: field.to_string(), fault }
}

impl fmt::Display for MetricsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expression)?;
        self.exemplars.map_or(Ok(()), |wanted| write!(f, " with(exemplars={wanted})"))
    }
}

impl fmt::Display for MetricsExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spans(metrics) => write!(f, "{metrics}"),
            Self::Number(number) => write!(f, "{number:?}"),
            Self::Arithmetic { operator, left, right } => {
                write!(f, "{} {} {}", Operand(left), operator.as_str(), Operand(right))
            }
            Self::Staged { of, stage } => write!(f, "{of}{stage}"),
        }
    }
}

/// An expression inside another one.
struct Operand<'a>(&'a MetricsExpression);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MetricsExpression::Number(number) => write!(f, "{number:?}"),
            other => write!(f, "({other})"),
        }
    }
}

impl fmt::Display for MetricsStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top(n) => write!(f, " | topk({n})"),
            Self::Bottom(n) => write!(f, " | bottomk({n})"),
            Self::Threshold(Threshold { comparison, number }) => write!(f, " {} {number:?}", comparison.as_str()),
        }
    }
}

impl fmt::Display for SpanMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            MetricsSource::Filter(filter) => write!(f, "{filter}")?,
            MetricsSource::Related(query) => write!(f, "{query}")?,
        }
        write!(f, " | {}(", self.function.as_str())?;
        if let Some(field) = self.function.field() {
            write!(f, "{field}")?;
        }
        match &self.function {
            MetricsFunction::QuantileOverTime(_, quantiles) => {
                quantiles.iter().try_for_each(|quantile| write!(f, ", {:?}", quantile.get()))?;
            }
            MetricsFunction::Compare(MetricsComparison { selection, top, within }) => {
                write!(f, "{selection}, {top}")?;
                if let Some((start, end)) = within {
                    write!(f, ", {}, {}", start.0, end.0)?;
                }
            }
            _ => {}
        }
        f.write_str(")")?;
        let written: Vec<&str> = self.by.iter().map(|(_, written)| written.as_str()).collect();
        if written.is_empty() { Ok(()) } else { write!(f, " by({})", written.join(", ")) }
    }
}
