//! Questions about the spans of whole traces: `{ .. } >> { .. } | by(name) | count() > 2 | select(status)`.
//!
//! ```text
//! text --parse--> SpanQuery --need--> filters of single spans, and which of them a trace must have (for a scan)
//!                           --run---> sets of spans of one whole trace, related by its tree
//! ```
//! A stage takes sets of spans and gives sets: filters and their combinations keep spans of each, `by` splits sets, `coalesce`
//! unites them, conditions on aggregates drop whole sets, `select` only says what to show. Every trace begins with one set:
//! its spans in the window that is asked about. Semantics are Tempo's (documentation of TraceQL; `pkg/traceql/ast_execute.go`),
//! but that relations follow the parent ids themselves: they also hold below a parent that is not stored.

mod need;
mod parse;
mod run;
mod tree;

use std::fmt;
use std::str::FromStr;

use super::ast::{Arithmetic, Comparison, Expression, Field, Literal};
use super::{Filter, TraceQlError};

pub use self::need::{FILTERS_MAX, Need};
pub(super) use self::parse::source;
pub use self::run::{RowSet, TraceSpans};

/// Which spans of which traces, and what to say of them. The default takes every span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanQuery {
    /// Never empty.
    stages: Vec<Stage>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Spans(Spans),
    /// Splits by a value.
    By(Expression),
    /// Unites all sets.
    Coalesce,
    /// Keeps the sets of which it holds.
    Having(Having),
    /// Shows more.
    Select(Vec<Field>),
}

/// Filters and how they combine.
#[derive(Clone, Debug, PartialEq)]
enum Spans {
    Filter(Expression),
    /// At least two, each of which finds a span: all of these.
    All(Vec<Spans>),
    /// At least two: what any of them finds.
    Any(Vec<Spans>),
    Related {
        relation: Relation,
        form: Form,
        left: Box<Spans>,
        right: Box<Spans>,
    },
    /// In brackets.
    Pipeline(Vec<Stage>),
}

/// What a span on the right is to one on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Child,
    Parent,
    Descendant,
    Ancestor,
    Sibling,
}

/// Which spans a relation finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Those on the right that have it to one on the left.
    Plain,
    /// Those on the right that have it to none.
    Negated,
    /// Both sides of it.
    Union,
}

/// A condition on a set.
#[derive(Clone, Debug, PartialEq)]
struct Having {
    operator: Comparison,
    left: Scalar,
    right: Scalar,
}

/// A number of a set.
#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Literal(Literal),
    Count,
    Aggregate { aggregate: Aggregate, of: Expression },
    Arithmetic { operator: Arithmetic, left: Box<Scalar>, right: Box<Scalar> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Min,
    Max,
    Sum,
    Avg,
}

impl Default for SpanQuery {
    fn default() -> Self {
        Self::from(Filter::default())
    }
}

impl From<Filter> for SpanQuery {
    fn from(filter: Filter) -> Self {
        Self { stages: vec![Stage::Spans(Spans::Filter(filter.root))] }
    }
}

impl FromStr for SpanQuery {
    type Err = TraceQlError;

    fn from_str(text: &str) -> Result<Self, TraceQlError> {
        parse::parse(text)
    }
}

impl SpanQuery {
    /// The traces that have a span for each of the filters, with all of those spans; every span without filters.
    pub fn each(filters: Vec<Filter>) -> Self {
        let mut parts: Vec<Spans> = filters.into_iter().map(|filter| Spans::Filter(filter.root)).collect();
        match (parts.len(), parts.pop()) {
            (0, _) | (_, None) => Self::default(),
            (1, Some(only)) => Self { stages: vec![Stage::Spans(only)] },
            (_, Some(last)) => {
                parts.push(last);
                Self { stages: vec![Stage::Spans(Spans::All(parts))] }
            }
        }
    }

    /// The filter, when it is nothing but one.
    pub(super) fn into_filter(mut self) -> Result<Filter, Self> {
        match (self.stages.len(), self.stages.pop()) {
            (1, Some(Stage::Spans(Spans::Filter(root)))) => Ok(Filter { root }),
            (_, last) => {
                self.stages.extend(last);
                Err(self)
            }
        }
    }

    /// The fields that an answer shows of each span: those of the filters, then the selected ones, each once, without those
    /// that every answer shows and those of other spans.
    pub fn shown(&self) -> Vec<&Field> {
        let mut shown: Vec<&Field> = Vec::new();
        let mut show = |field| {
            if !Field::is_of_every_answer(field) && !shown.contains(&field) {
                shown.push(field);
            }
        };
        self.stages.iter().for_each(|stage| stage.filtered_by(&mut show));
        self.stages.iter().for_each(|stage| stage.selected(&mut show));
        shown
    }

    /// Whether attributes, events or links of spans say something of the answer.
    pub fn looks_at_attributes(&self) -> bool {
        let mut found = false;
        self.stages.iter().for_each(|stage| stage.fields(&mut |field: &Field| found |= field.is_of_attributes()));
        found
    }
}

impl Stage {
    /// All of them.
    fn fields<'a>(&'a self, each: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Spans(spans) => spans.fields(each),
            Self::By(expression) => expression.fields(each),
            Self::Coalesce => {}
            Self::Having(Having { left, right, .. }) => {
                left.fields(each);
                right.fields(each);
            }
            Self::Select(fields) => fields.iter().for_each(each),
        }
    }

    fn filtered_by<'a>(&'a self, each: &mut dyn FnMut(&'a Field)) {
        if let Self::Spans(spans) = self {
            spans.filtered_by(each);
        }
    }

    fn selected<'a>(&'a self, each: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Select(fields) => fields.iter().for_each(each),
            Self::Spans(spans) => spans.selected(each),
            Self::By(_) | Self::Coalesce | Self::Having(_) => {}
        }
    }
}

impl Spans {
    fn fields<'a>(&'a self, each: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Filter(expression) => expression.fields(each),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.fields(each)),
            Self::Related { left, right, .. } => {
                left.fields(each);
                right.fields(each);
            }
            Self::Pipeline(stages) => stages.iter().for_each(|stage| stage.fields(each)),
        }
    }

    fn filtered_by<'a>(&'a self, each: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Filter(expression) => expression.fields(each),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.filtered_by(each)),
            Self::Related { left, right, .. } => {
                left.filtered_by(each);
                right.filtered_by(each);
            }
            Self::Pipeline(stages) => stages.iter().for_each(|stage| stage.filtered_by(each)),
        }
    }

    fn selected<'a>(&'a self, each: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Filter(_) => {}
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.selected(each)),
            Self::Related { left, right, .. } => {
                left.selected(each);
                right.selected(each);
            }
            Self::Pipeline(stages) => stages.iter().for_each(|stage| stage.selected(each)),
        }
    }
}

impl Scalar {
    fn fields<'a>(&'a self, each: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Literal(_) | Self::Count => {}
            Self::Aggregate { of, .. } => of.fields(each),
            Self::Arithmetic { left, right, .. } => {
                left.fields(each);
                right.fields(each);
            }
        }
    }
}

impl Relation {
    fn sign(self, form: Form) -> &'static str {
        match (self, form) {
            (Self::Child, Form::Plain) => ">",
            (Self::Child, Form::Negated) => "!>",
            (Self::Child, Form::Union) => "&>",
            (Self::Parent, Form::Plain) => "<",
            (Self::Parent, Form::Negated) => "!<",
            (Self::Parent, Form::Union) => "&<",
            (Self::Descendant, Form::Plain) => ">>",
            (Self::Descendant, Form::Negated) => "!>>",
            (Self::Descendant, Form::Union) => "&>>",
            (Self::Ancestor, Form::Plain) => "<<",
            (Self::Ancestor, Form::Negated) => "!<<",
            (Self::Ancestor, Form::Union) => "&<<",
            (Self::Sibling, Form::Plain) => "~",
            (Self::Sibling, Form::Negated) => "!~",
            (Self::Sibling, Form::Union) => "&~",
        }
    }

    fn of_sign(sign: &str) -> Option<(Self, Form)> {
        let relations = [Self::Child, Self::Parent, Self::Descendant, Self::Ancestor, Self::Sibling];
        let forms = [Form::Plain, Form::Negated, Form::Union];
        let mut all = relations.into_iter().flat_map(|relation| forms.map(|form| (relation, form)));
        all.find(|(relation, form)| relation.sign(*form) == sign)
    }
}

impl Aggregate {
    fn of_name(name: &str) -> Option<Self> {
        [Self::Min, Self::Max, Self::Sum, Self::Avg].into_iter().find(|aggregate| aggregate.as_str() == name)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Avg => "avg",
        }
    }
}

impl fmt::Display for SpanQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_stages(f, &self.stages)
    }
}

fn write_stages(f: &mut fmt::Formatter<'_>, stages: &[Stage]) -> fmt::Result {
    for (at, stage) in stages.iter().enumerate() {
        if 0 < at {
            f.write_str(" | ")?;
        }
        write!(f, "{stage}")?;
    }
    Ok(())
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spans(spans) => write!(f, "{spans}"),
            Self::By(expression) => write!(f, "by({expression})"),
            Self::Coalesce => f.write_str("coalesce()"),
            Self::Having(Having { operator, left, right }) => write!(f, "{left} {} {right}", operator.as_str()),
            Self::Select(fields) => {
                f.write_str("select(")?;
                for (at, field) in fields.iter().enumerate() {
                    write!(f, "{}{field}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(expression) => write!(f, "{{ {expression} }}"),
            Self::All(parts) => write_chain(f, parts, "&&"),
            Self::Any(parts) => write_chain(f, parts, "||"),
            Self::Related { relation, form, left, right } => {
                write!(f, "{} {} {}", Part(left), relation.sign(*form), Part(right))
            }
            Self::Pipeline(stages) => {
                f.write_str("(")?;
                write_stages(f, stages)?;
                f.write_str(")")
            }
        }
    }
}

fn write_chain(f: &mut fmt::Formatter<'_>, parts: &[Spans], operator: &str) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if 0 < at {
            write!(f, " {operator} ")?;
        }
        write!(f, "{}", Part(part))?;
    }
    Ok(())
}

/// In brackets when it has an operator of its own.
struct Part<'a>(&'a Spans);

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            whole @ (Spans::Filter(_) | Spans::Pipeline(_)) => write!(f, "{whole}"),
            part => write!(f, "({part})"),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => write!(f, "{literal}"),
            Self::Count => f.write_str("count()"),
            Self::Aggregate { aggregate, of } => write!(f, "{}({of})", aggregate.as_str()),
            Self::Arithmetic { operator, left, right } => write!(f, "({left} {} {right})", operator.as_str()),
        }
    }
}
