//! A filter for the row groups of one block: conditions that follow from one field are answered from its column, the others
//! row by row; what costs least comes first, and what no row is left for is not read.

use super::ast::{AttributeScope, Expression, Field, Intrinsic};
use super::columns::{BlockFields, FieldAnswers, GroupFields};
use super::evaluate::evaluate;
use super::value::Datum;
use super::{bounds, row};
use crate::block::{BlockError, BlockScan};

/// A condition on the rows of a block.
pub(super) enum Condition<'f> {
    All(Vec<Condition<'f>>),
    Any(Vec<Condition<'f>>),
    Not(Box<Condition<'f>>),
    Constant(bool),
    /// Follows from one field.
    OneField {
        expression: &'f Expression,
        answers: FieldAnswers<'f>,
    },
    /// Follows from several fields of a row.
    Fields(&'f Expression),
    /// Needs the events or links of the spans.
    Items(&'f Expression),
}

impl<'f> Condition<'f> {
    pub(super) fn of(expression: &'f Expression) -> Self {
        let all = |parts: &'f [Expression]| {
            let mut conditions: Vec<Self> = parts.iter().map(Self::of).collect();
            conditions.sort_by_key(Self::cost);
            conditions
        };
        match expression {
            Expression::All(parts) => Self::All(all(parts)),
            Expression::Any(parts) => Self::Any(all(parts)),
            Expression::Not(operand) if operand.is_always_bool() => Self::Not(Box::new(Self::of(operand))),
            _ => Self::of_fields(expression),
        }
    }

    fn of_fields(expression: &'f Expression) -> Self {
        let mut fields: Vec<&Field> = Vec::new();
        expression.fields(&mut |field| {
            if !fields.contains(&field) {
                fields.push(field);
            }
        });
        match fields.as_slice() {
            [] => Self::Constant(evaluate(expression, &mut |_| Datum::Nil).is_true()),
            fields if fields.iter().any(|field| field.is_of_items()) => Self::Items(expression),
            [field] => Self::OneField { expression, answers: FieldAnswers::new(field) },
            _ => Self::Fields(expression),
        }
    }

    /// Whether it can be true of a row of the block, as far as the block's tables tell.
    pub(super) fn may_hold(&self, block: &BlockFields<'_>) -> Result<bool, BlockError> {
        match self {
            Self::All(parts) => {
                for part in parts {
                    if !part.may_hold(block)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(parts) => {
                for part in parts {
                    if part.may_hold(block)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Constant(holds) => Ok(*holds),
            Self::OneField { expression, answers } => {
                let mut holds = |datum: Datum<'_>| evaluate(expression, &mut |_| datum.clone()).is_true();
                let equal_to = bounds::equal_text(expression).map(|(_, text)| text);
                block.may_have(answers.field(), equal_to, &mut holds)
            }
            Self::Not(_) | Self::Fields(_) | Self::Items(_) => Ok(true),
        }
    }

    /// Whether rows are asked one by one.
    pub(super) fn is_by_row(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::is_by_row),
            Self::Not(operand) => operand.is_by_row(),
            Self::Constant(_) | Self::OneField { .. } => false,
            Self::Fields(_) | Self::Items(_) => true,
        }
    }

    /// Columns to be read, roughly.
    fn cost(&self) -> u8 {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::cost).max().unwrap_or(0),
            Self::Not(operand) => operand.cost(),
            Self::Constant(_) => 0,
            Self::OneField { answers, .. } => cost_of(answers.field()),
            Self::Fields(_) => 8,
            Self::Items(_) => 9,
        }
    }

    /// Which of the rows `within` it is true of.
    pub(super) fn select(&mut self, group: &GroupFields<'_>, within: Vec<bool>) -> Result<Vec<bool>, BlockError> {
        if !within.contains(&true) {
            return Ok(within);
        }
        match self {
            Self::All(parts) => parts.iter_mut().try_fold(within, |within, part| part.select(group, within)),
            Self::Any(parts) => {
                let mut found = vec![false; within.len()];
                let mut left = within;
                for part in parts {
                    let more = part.select(group, left.clone())?;
                    for ((found, left), more) in found.iter_mut().zip(&mut left).zip(more) {
                        *found |= more;
                        *left &= !more;
                    }
                }
                Ok(found)
            }
            Self::Not(operand) => {
                let mut left = within.clone();
                for (left, found) in left.iter_mut().zip(operand.select(group, within)?) {
                    *left &= !found;
                }
                Ok(left)
            }
            Self::Constant(true) => Ok(within),
            Self::Constant(false) => Ok(vec![false; within.len()]),
            Self::OneField { expression, answers } => {
                let mut ask = |datum: Datum<'_>| u32::from(evaluate(expression, &mut |_| datum.clone()).is_true());
                let answers = answers.read(group, &within, &mut ask)?;
                Ok(within.into_iter().zip(answers).map(|(within, answer)| within && answer == 1).collect())
            }
            Self::Fields(expression) => by_row(expression, group, within),
            Self::Items(expression) => by_span(expression, group, within),
        }
    }
}

fn cost_of(field: &Field) -> u8 {
    match field {
        Field::Intrinsic(Intrinsic::Duration) => 1,
        Field::Intrinsic(Intrinsic::Name) => 2,
        Field::Intrinsic(Intrinsic::Kind | Intrinsic::Status) => 3,
        Field::Intrinsic(Intrinsic::SpanId | Intrinsic::TraceId) => 4,
        Field::Attribute { scope: AttributeScope::Span, .. } => 6,
        Field::Attribute { scope: AttributeScope::Unscoped, .. } => 7,
        Field::Intrinsic(_) | Field::Attribute { .. } => 5,
    }
}

fn by_row(expression: &Expression, group: &GroupFields<'_>, mut within: Vec<bool>) -> Result<Vec<bool>, BlockError> {
    for (row, within) in within.iter_mut().enumerate().filter(|(_, within)| **within) {
        let mut failed = None;
        let mut value = |field: &Field| {
            group.datum(field, row).unwrap_or_else(|error| {
                failed = Some(error);
                Datum::Nil
            })
        };
        *within = evaluate(expression, &mut value).is_true();
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(within)
}

fn by_span(expression: &Expression, group: &GroupFields<'_>, mut within: Vec<bool>) -> Result<Vec<bool>, BlockError> {
    let rows: Vec<usize> = within.iter().enumerate().filter(|(_, within)| **within).map(|(row, _)| row).collect();
    let batch = group.group.spans(&rows)?;
    for (row, span) in rows.iter().zip(&batch.spans) {
        let is_true = evaluate(expression, &mut |field| row::of_span(field, &batch, span)).is_true();
        if let Some(within) = within.get_mut(*row) {
            *within = is_true;
        }
    }
    Ok(within)
}

/// The attributes that a filter and other fields asked for need of a block.
pub(super) fn fields_of<'b>(
    scan: &'b BlockScan<'b>,
    filter: Option<&'b Expression>,
    asked: impl IntoIterator<Item = &'b Field>,
) -> Result<BlockFields<'b>, BlockError> {
    let mut fields: Vec<&Field> = asked.into_iter().collect();
    if let Some(filter) = filter {
        filter.fields(&mut |field| fields.push(field));
    }
    BlockFields::find(scan, &fields)
}
