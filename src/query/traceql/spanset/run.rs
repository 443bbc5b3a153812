//! The spans that a query finds in one whole trace.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;

use super::super::ast::{AttributeScope, Expression, Field, Intrinsic};
use super::super::evaluate::evaluate;
use super::super::row;
use super::super::value::{Datum, FieldValue};
use super::tree::Tree;
use super::{Aggregate, Form, Having, Relation, Scalar, SpanQuery, Spans, Stage};
use crate::model::{Span, SpanBatch, SpanId, UnixNanos};

/// A whole trace, and what its spans are to each other.
#[derive(Debug)]
pub struct TraceSpans<'a> {
    batch: &'a SpanBatch,
    /// Those of the trace; rows count among them.
    spans: &'a [Span],
    /// Made when something asks for it.
    tree: OnceCell<Tree>,
}

/// Spans of a trace that belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSet {
    /// What was grouped by and aggregated, by its text; `None` is no value.
    pub attributes: Vec<(String, Option<FieldValue>)>,
    /// Ascending; not empty in what is found.
    pub rows: Vec<u32>,
}

impl<'a> TraceSpans<'a> {
    /// All spans of a trace, each once, in the order of their starts, in these rows of a batch.
    pub fn new(batch: &'a SpanBatch, rows: Range<usize>) -> Self {
        Self { batch, spans: batch.spans.get(rows).unwrap_or_default(), tree: OnceCell::new() }
    }

    /// In the order of their starts.
    pub fn spans(&self) -> &'a [Span] {
        self.spans
    }

    fn tree(&self) -> &Tree {
        self.tree.get_or_init(|| Tree::of(self.spans))
    }

    /// Row of the first span without a parent.
    pub fn root(&self) -> Option<u32> {
        (0..).zip(self.spans).find(|(_, span)| span.parent_span_id == SpanId::default()).map(|(row, _)| row)
    }

    /// Earliest start, and latest end or start, of those that are set.
    pub fn bounds(&self) -> (UnixNanos, UnixNanos) {
        let starts = self.spans.iter().map(|span| span.start_time_unix_nano).filter(|at| !at.is_unset());
        let ends = self.spans.iter().map(|span| span.end_time_unix_nano.max(span.start_time_unix_nano));
        (starts.min().unwrap_or_default(), ends.max().unwrap_or_default())
    }

    /// What the span in a row has of a field; of several events or links the first that has it.
    pub fn first_value(&self, field: &Field, row: u32) -> Option<FieldValue> {
        first(self.value(field, row))
    }

    fn value(&self, field: &Field, row: u32) -> Datum<'a> {
        let Some(span) = self.spans.get(row as usize) else { return Datum::Nil };
        match field {
            Field::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::TraceDuration => {
                    let (start, end) = self.bounds();
                    Datum::Duration(i64::try_from(end.0.saturating_sub(start.0)).unwrap_or(i64::MAX))
                }
                Intrinsic::RootName => self.of_root(&Field::Intrinsic(Intrinsic::Name)),
                Intrinsic::RootService => match self.root().and_then(|row| self.spans.get(row as usize)) {
                    Some(root) => Datum::String(self.batch.service_of(root).1),
                    None => Datum::Nil,
                },
                Intrinsic::ChildCount => Datum::Int(i64::from(self.tree().child_count(row))),
                Intrinsic::NestedSetLeft => Datum::Int(self.tree().nested_left(row)),
                Intrinsic::NestedSetRight => Datum::Int(self.tree().nested_right(row)),
                Intrinsic::NestedSetParent => Datum::Int(self.tree().nested_parent(row)),
                _ => row::of_span(field, self.batch, span),
            },
            Field::Attribute { scope, key } => {
                let of_parent = match scope {
                    AttributeScope::Parent => AttributeScope::Unscoped,
                    AttributeScope::ParentSpan => AttributeScope::Span,
                    AttributeScope::ParentResource => AttributeScope::Resource,
                    _ => return row::of_span(field, self.batch, span),
                };
                let parent = self.tree().parent(row).and_then(|parent| self.spans.get(parent as usize));
                let field = Field::Attribute { scope: of_parent, key: key.clone() };
                parent.map_or(Datum::Nil, |parent| row::of_span(&field, self.batch, parent))
            }
        }
    }

    fn of_root(&self, field: &Field) -> Datum<'a> {
        let root = self.root().and_then(|row| self.spans.get(row as usize));
        root.map_or(Datum::Nil, |root| row::of_span(field, self.batch, root))
    }

    fn evaluate<'s>(&'s self, expression: &'s Expression, row: u32) -> Datum<'s>
    where
        'a: 's,
    {
        evaluate(expression, &mut |field| self.value(field, row))
    }
}

fn first(datum: Datum<'_>) -> Option<FieldValue> {
    match datum {
        Datum::Several(values) => values.into_iter().next()?.into_value(),
        one => one.into_value(),
    }
}

impl SpanQuery {
    /// The sets of spans that it finds among these rows of a trace; others count as relatives alone. Cost: O(spans) for every
    /// operator and set.
    pub fn find(&self, trace: &TraceSpans<'_>, rows: Vec<u32>) -> Vec<RowSet> {
        run(&self.stages, trace, vec![RowSet { attributes: Vec::new(), rows }])
    }
}

fn run(stages: &[Stage], trace: &TraceSpans<'_>, sets: Vec<RowSet>) -> Vec<RowSet> {
    stages.iter().fold(sets, |sets, stage| {
        let sets: Vec<RowSet> = sets.into_iter().filter(|set| !set.rows.is_empty()).collect();
        stage.apply(trace, sets)
    })
}

impl Stage {
    fn apply(&self, trace: &TraceSpans<'_>, sets: Vec<RowSet>) -> Vec<RowSet> {
        match self {
            Self::Spans(spans) => {
                let of_set = |set: RowSet| RowSet { rows: spans.of(trace, &set.rows), ..set };
                sets.into_iter().map(of_set).filter(|set| !set.rows.is_empty()).collect()
            }
            Self::By(expression) => sets.iter().flat_map(|set| split(expression, trace, set)).collect(),
            Self::Coalesce => {
                let rows = united(sets.into_iter().map(|set| set.rows));
                if rows.is_empty() { Vec::new() } else { vec![RowSet { attributes: Vec::new(), rows }] }
            }
            Self::Having(having) => sets.into_iter().filter_map(|set| having.applied(trace, set)).collect(),
            Self::Select(_) => sets,
        }
    }
}

/// One set for each value, in the order of the values; those without one are together, first.
fn split(expression: &Expression, trace: &TraceSpans<'_>, set: &RowSet) -> Vec<RowSet> {
    let mut groups: BTreeMap<Option<FieldValue>, Vec<u32>> = BTreeMap::new();
    for row in &set.rows {
        groups.entry(first(trace.evaluate(expression, *row))).or_default().push(*row);
    }
    let text = match expression {
        Expression::Field(field) => format!("by({})", field.written()),
        other => format!("by({other})"),
    };
    let of_group = |(value, rows)| {
        let mut attributes = set.attributes.clone();
        attributes.push((text.clone(), value));
        RowSet { attributes, rows }
    };
    groups.into_iter().map(of_group).collect()
}

/// Ascending, each once.
fn united(sets: impl Iterator<Item = Vec<u32>>) -> Vec<u32> {
    let mut rows: Vec<u32> = sets.flatten().collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

impl Spans {
    /// Those of the rows that it finds.
    fn of(&self, trace: &TraceSpans<'_>, rows: &[u32]) -> Vec<u32> {
        match self {
            Self::Filter(expression) => {
                rows.iter().copied().filter(|row| trace.evaluate(expression, *row).is_true()).collect()
            }
            Self::All(parts) => {
                let mut found = Vec::with_capacity(parts.len());
                for part in parts {
                    match part.of(trace, rows) {
                        none if none.is_empty() => return none,
                        some => found.push(some),
                    }
                }
                united(found.into_iter())
            }
            Self::Any(parts) => united(parts.iter().map(|part| part.of(trace, rows))),
            Self::Related { relation, form, left, right } => {
                let right = right.of(trace, rows);
                if right.is_empty() {
                    return right;
                }
                related(*relation, *form, trace.tree(), &left.of(trace, rows), &right)
            }
            Self::Pipeline(stages) => {
                let sets = run(stages, trace, vec![RowSet { attributes: Vec::new(), rows: rows.to_vec() }]);
                united(sets.into_iter().map(|set| set.rows))
            }
        }
    }
}

fn related(relation: Relation, form: Form, tree: &Tree, left: &[u32], right: &[u32]) -> Vec<u32> {
    let having = |rows: &[u32], marked: &[bool], wanted: bool| -> Vec<u32> {
        rows.iter().copied().filter(|row| marked.get(*row as usize).copied().unwrap_or(false) == wanted).collect()
    };
    // Per row, whether it has the relation to one of those rows.
    let to = |relation: Relation, rows: &[u32]| match relation {
        Relation::Child => tree.children_of(rows),
        Relation::Parent => tree.parents_of(rows),
        Relation::Descendant => tree.below(rows),
        Relation::Ancestor => tree.above(rows),
        Relation::Sibling => tree.siblings_of(rows),
    };
    let of_right = having(right, &to(relation, left), form != Form::Negated);
    if form != Form::Union {
        return of_right;
    }
    let of_left = having(left, &to(relation.inverse(), right), true);
    united([of_left, of_right].into_iter())
}

impl Relation {
    /// What the left side is to the right one.
    fn inverse(self) -> Self {
        match self {
            Self::Child => Self::Parent,
            Self::Parent => Self::Child,
            Self::Descendant => Self::Ancestor,
            Self::Ancestor => Self::Descendant,
            Self::Sibling => Self::Sibling,
        }
    }
}

impl Having {
    /// The set with its aggregates, when the condition holds.
    fn applied(&self, trace: &TraceSpans<'_>, mut set: RowSet) -> Option<RowSet> {
        let left = self.left.of(trace, &mut set);
        let right = self.right.of(trace, &mut set);
        self.operator.holds(&left, &right).then_some(set)
    }
}

impl Scalar {
    /// The number; aggregates are noted with the set.
    fn of<'s>(&'s self, trace: &TraceSpans<'_>, set: &mut RowSet) -> Datum<'s> {
        let number = match self {
            Self::Literal(literal) => return literal.datum(),
            Self::Arithmetic { operator, left, right } => {
                let left = left.of(trace, set);
                return operator.of(left, right.of(trace, set));
            }
            Self::Count => Datum::Int(i64::try_from(set.rows.len()).unwrap_or(i64::MAX)),
            Self::Aggregate { aggregate, of } => aggregate.over(trace, of, &set.rows),
        };
        let text = match self {
            Self::Aggregate { aggregate, of: Expression::Field(field) } => {
                format!("{}({})", aggregate.as_str(), field.written())
            }
            other => other.to_string(),
        };
        if set.attributes.iter().all(|(known, _)| *known != text) {
            set.attributes.push((text, number.clone().into_value()));
        }
        number
    }
}

impl Aggregate {
    /// Over the numbers that the spans have; missing when none has one. Durations stay durations, whole numbers whole ones but
    /// for their mean.
    fn over(self, trace: &TraceSpans<'_>, of: &Expression, rows: &[u32]) -> Datum<'static> {
        let mut numbers = Vec::new();
        for row in rows {
            match trace.evaluate(of, *row) {
                Datum::Several(values) => numbers.extend(values.iter().filter_map(Number::of)),
                one => numbers.extend(Number::of(&one)),
            }
        }
        let Some(first) = numbers.first() else { return Datum::Nil };
        let is_duration = numbers.iter().all(|number| matches!(number, Number::Duration(_)));
        let whole: Option<Vec<i128>> = numbers.iter().map(Number::whole).collect();
        let all = numbers.iter().map(Number::float);
        let float = match self {
            Self::Min => all.fold(first.float(), f64::min),
            Self::Max => all.fold(first.float(), f64::max),
            Self::Sum => all.sum(),
            Self::Avg => all.sum::<f64>() / numbers.len() as f64,
        };
        let Some(whole) = whole.filter(|_| is_duration || self != Self::Avg) else { return Datum::Float(float) };
        let exact = match self {
            Self::Min => whole.iter().copied().min(),
            Self::Max => whole.iter().copied().max(),
            Self::Sum => Some(whole.iter().sum()),
            Self::Avg => Some(whole.iter().sum::<i128>() / i128::try_from(whole.len()).unwrap_or(i128::MAX)),
        };
        match exact.and_then(|exact| i64::try_from(exact).ok()) {
            Some(exact) if is_duration => Datum::Duration(exact),
            Some(exact) => Datum::Int(exact),
            None => Datum::Float(float),
        }
    }
}

/// What can be added up.
enum Number {
    Int(i64),
    Float(f64),
    Duration(i64),
}

impl Number {
    fn of(datum: &Datum<'_>) -> Option<Self> {
        match datum {
            Datum::Int(number) => Some(Self::Int(*number)),
            Datum::Float(number) => Some(Self::Float(*number)),
            Datum::Duration(nanos) => Some(Self::Duration(*nanos)),
            _ => None,
        }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(number) | Self::Duration(number) => Some(i128::from(*number)),
            Self::Float(_) => None,
        }
    }

    fn float(&self) -> f64 {
        match self {
            Self::Int(number) | Self::Duration(number) => *number as f64,
            Self::Float(number) => *number,
        }
    }
}
