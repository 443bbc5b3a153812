//! The value of an expression, given those of its fields.

use std::borrow::Cow;

use super::ast::{Expression, Field, Literal};
use super::value::Datum;

/// Evaluates `expression`; `value` says what the span has of a field. Plain recursion, at most
/// `limits::TRACEQL_DEPTH_MAX` deep; a chain stops at the first part that decides it.
pub(super) fn evaluate<'a>(expression: &'a Expression, value: &mut dyn FnMut(&'a Field) -> Datum<'a>) -> Datum<'a> {
    match expression {
        Expression::Literal(literal) => literal.datum(),
        Expression::Field(field) => value(field),
        Expression::All(parts) => Datum::Bool(parts.iter().all(|part| evaluate(part, value).is_true())),
        Expression::Any(parts) => Datum::Bool(parts.iter().any(|part| evaluate(part, value).is_true())),
        Expression::Not(operand) => evaluate(operand, value).not(),
        Expression::Negative(operand) => evaluate(operand, value).negative(),
        Expression::Compare { operator, left, right } => {
            let (left, right) = (evaluate(left, value), evaluate(right, value));
            Datum::Bool(operator.holds(&left, &right))
        }
        Expression::Arithmetic { operator, left, right } => {
            let (left, right) = (evaluate(left, value), evaluate(right, value));
            operator.of(left, right)
        }
        Expression::Matches { text, pattern, negated } => Datum::Bool(pattern.holds(&evaluate(text, value), *negated)),
        Expression::Exists { operand, negated } => Datum::Bool(evaluate(operand, value).exists() != *negated),
    }
}

impl Literal {
    pub(super) fn datum(&self) -> Datum<'_> {
        match self {
            Self::String(text) => Datum::String(Cow::Borrowed(text)),
            Self::Int(number) => Datum::Int(*number),
            Self::Float(number) => Datum::Float(*number),
            Self::Bool(value) => Datum::Bool(*value),
            Self::Duration(nanos) => Datum::Duration(*nanos),
            Self::Status(code) => Datum::Status(*code),
            Self::Kind(number) => Datum::Kind(*number),
        }
    }
}
