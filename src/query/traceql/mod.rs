//! The part of TraceQL that selects spans: `{ resource.service.name = "checkout" && duration > 2s }`, as Grafana Tempo
//! documents it, and fields to group them by.
//!
//! ```text
//! text --token--> words --parse, types--> Expression (ast) --evaluate--> of one span of a batch (row)
//!                                                          --compile---> of row groups of a block (columns)
//! RowScan (scan): service, window, filter and group together, over blocks and heads; what can be passed by unread (bounds)
//! SpanScan (spans): window and filter, and the traces of what they let through
//! MeasureScan (measure): window and filter, and a number and several groups of each span; CompareScan (compare): all attributes
//! ```
//! Metrics of those spans, `{ .. } | rate() by(name)`, are read by `metrics`.
//!
//! Not here yet: whatever relates spans to each other (other pipelines, structural operators, aggregates, intrinsics of the
//! trace). It is refused by name, never approximated. What operators mean is said in `value`.

mod ast;
mod bounds;
mod columns;
mod compare;
mod compile;
mod error;
mod evaluate;
mod measure;
mod metrics;
mod normal;
mod parse;
mod row;
mod scan;
mod skip;
mod spans;
mod spanset;
#[cfg(test)]
mod tests;
mod token;
mod traces;
mod types;
mod value;

use std::fmt;
use std::str::FromStr;

use crate::model::SpanBatch;

pub use self::ast::{AttributeScope, Field, Intrinsic};
use self::ast::{Expression, Literal};
pub use self::compare::{AttributeBounds, AttributeTable, CompareScan, ComparedSpan, EachCompared};
pub use self::error::{Place, Problem, TraceQlError};
pub use self::measure::{
    EachMeasured, EachMeasuredInHeads, GroupTable, MeasureScan, MeasuredRows, MeasuredSpan, Number, fields_of_rows,
};
pub use self::metrics::{
    BY_FIELDS_MAX, MetricsComparison, MetricsExpression, MetricsFunction, MetricsOperator, MetricsQuery, MetricsSource,
    MetricsStage, SpanMetrics, TOP_MAX,
};
pub use self::scan::{EachFound, EachInHeads, FoundSpan, GroupNo, Groups, InHeads, RowScan, ServiceChoice};
pub use self::spans::{EachValue, SpanScan};
pub use self::spanset::{FILTERS_MAX, Need, RowSet, SpanQuery, TraceSpans};
pub use self::traces::{EachTrace, TraceScan};
use self::value::Datum;
pub use self::value::{FieldValue, Fraction};

/// A condition on one span. `Display` writes it in one normal form.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    root: Expression,
}

impl Default for Filter {
    /// True of every span.
    fn default() -> Self {
        Self { root: Expression::Literal(Literal::Bool(true)) }
    }
}

impl FromStr for Filter {
    type Err = TraceQlError;

    /// Takes it with its braces or without; `{ }` is true of every span.
    fn from_str(text: &str) -> Result<Self, TraceQlError> {
        parse::parse_filter(text).map(|root| Self { root })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ {} }}", self.root)
    }
}

impl Filter {
    /// Whether it is true of the span in row `row`; false of rows that do not exist. Cost: O(operators + attributes of the
    /// span, its events and links for each field).
    pub fn matches(&self, batch: &SpanBatch, row: usize) -> bool {
        let Some(span) = batch.spans.get(row) else { return false };
        evaluate::evaluate(&self.root, &mut |field| row::of_span(field, batch, span)).is_true()
    }
}

impl Filter {
    /// True where both are.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { root: Expression::All(vec![self.root, other.root]) }
    }

    /// Its fields, as often as they stand there.
    pub fn fields(&self) -> Vec<&Field> {
        let mut fields = Vec::new();
        self.root.fields(&mut |field| fields.push(field));
        fields
    }
}

impl FromStr for Field {
    type Err = TraceQlError;

    /// Takes any field that a span has one value of at most: `name`, `resource.cloud.region`, `.http.route`.
    fn from_str(text: &str) -> Result<Self, TraceQlError> {
        parse::parse_field(text)
    }
}

impl Field {
    /// What the span in row `row` has of it; `None` when that is nothing. Cost: O(attributes of the span and its resource).
    pub fn value(&self, batch: &SpanBatch, row: usize) -> Option<FieldValue> {
        row::of_span(self, batch, batch.spans.get(row)?).into_value()
    }

    /// Reads any field, also one of events and links, of which a span may have several values.
    pub fn of_tag(text: &str) -> Option<Self> {
        match parse::parse_filter(&format!("{text} != nil")).ok()? {
            Expression::Exists { operand, negated: false } => match *operand {
                Expression::Field(field) => Some(field),
                _ => None,
            },
            _ => None,
        }
    }

    /// What the span in row `row` has of it; of several events or links the first that has it.
    pub fn first_value(&self, batch: &SpanBatch, row: usize) -> Option<FieldValue> {
        match row::of_span(self, batch, batch.spans.get(row)?) {
            Datum::Several(values) => values.into_iter().next()?.into_value(),
            one => one.into_value(),
        }
    }

    /// Its name without the scope, as attributes of an answer are called.
    pub fn bare_name(&self) -> &str {
        match self {
            Self::Attribute { key, .. } => key,
            Self::Intrinsic(intrinsic) => {
                let name = intrinsic.as_str();
                name.strip_prefix("span:").unwrap_or(name)
            }
        }
    }

    /// Its name with its scope, as labels of metrics are called: `name`, `span.http.route`.
    pub fn label(&self) -> String {
        match self {
            Self::Attribute { .. } => self.to_string(),
            Self::Intrinsic(_) => self.bare_name().to_owned(),
        }
    }

    /// Whether every answer about a span shows it anyway: name, duration, ids, root.
    pub fn is_of_every_answer(&self) -> bool {
        let Self::Intrinsic(intrinsic) = self else { return false };
        matches!(
            intrinsic,
            Intrinsic::Name
                | Intrinsic::Duration
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::TraceId
                | Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootService
        )
    }
}
