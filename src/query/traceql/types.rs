//! What types the operands of a filter have before any span is seen: attributes have any, everything else has one.
//!
//! Tempo refuses what can never hold (`pkg/traceql/ast_validate.go`), and so do we: `duration > "5"` is a slip, not a question
//! with an empty answer. Unlike there, `= nil` may be asked of everything.

use super::ast::{Comparison, Expression, Field, Intrinsic, Literal};
use super::error::Problem;

/// Type of a value, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Any,
    Number,
    Duration,
    String,
    Bool,
    Status,
    Kind,
}

impl Type {
    fn of_literal(literal: &Literal) -> Self {
        match literal {
            Literal::String(_) => Self::String,
            Literal::Int(_) | Literal::Float(_) => Self::Number,
            Literal::Bool(_) => Self::Bool,
            Literal::Duration(_) => Self::Duration,
            Literal::Status(_) => Self::Status,
            Literal::Kind(_) => Self::Kind,
        }
    }

    fn of_field(field: &Field) -> Self {
        match field {
            Field::Attribute { .. } => Self::Any,
            Field::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::Duration | Intrinsic::EventTimeSinceStart | Intrinsic::TraceDuration => Self::Duration,
                Intrinsic::ChildCount
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent => Self::Number,
                Intrinsic::Status => Self::Status,
                Intrinsic::Kind => Self::Kind,
                Intrinsic::Name
                | Intrinsic::StatusMessage
                | Intrinsic::SpanId
                | Intrinsic::ParentId
                | Intrinsic::TraceId
                | Intrinsic::InstrumentationName
                | Intrinsic::InstrumentationVersion
                | Intrinsic::EventName
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
                | Intrinsic::RootName
                | Intrinsic::RootService => Self::String,
            },
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Any | Self::Number | Self::Duration)
    }

    fn meets(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any || (self.is_number() && other.is_number())
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Any => "an attribute",
            Self::Number => "a number",
            Self::Duration => "a duration",
            Self::String => "a text",
            Self::Bool => "a boolean",
            Self::Status => "a status",
            Self::Kind => "a kind",
        }
    }
}

/// Checks that an expression is true or false: a whole filter, or a part of `&&` and `||`.
pub(super) fn is_condition(expression: &Expression) -> Result<(), Problem> {
    match type_of(expression) {
        Type::Bool | Type::Any => Ok(()),
        other => {
            let fault = format!("a condition is true or false, this is {}", other.as_str());
            Err(Problem::Types { operation: expression.to_string(), fault })
        }
    }
}

/// Checks that an expression can be added up.
pub(super) fn is_number(expression: &Expression) -> Result<(), Problem> {
    match type_of(expression) {
        found if found.is_number() => Ok(()),
        other => {
            let fault = format!("min, max, avg and sum are for numbers and durations, this is {}", other.as_str());
            Err(Problem::Types { operation: expression.to_string(), fault })
        }
    }
}

/// Checks an operator against its operands, which were checked themselves.
pub(super) fn check(expression: &Expression) -> Result<(), Problem> {
    let fault = match expression {
        Expression::Literal(_)
        | Expression::Field(_)
        | Expression::All(_)
        | Expression::Any(_)
        | Expression::Exists { .. } => None,
        Expression::Not(operand) => Some(type_of(operand)).filter(|found| !found.meets(Type::Bool)).map(|found| {
            format!("`!` is for booleans, this is {}; put brackets around what it is for", found.as_str())
        }),
        Expression::Negative(operand) => Some(type_of(operand))
            .filter(|found| !found.is_number())
            .map(|found| format!("`-` is for numbers and durations, this is {}", found.as_str())),
        Expression::Matches { text, .. } => Some(type_of(text))
            .filter(|found| !found.meets(Type::String))
            .map(|found| format!("regular expressions are for texts, this is {}", found.as_str())),
        Expression::Compare { operator, left, right } => compared(*operator, type_of(left), type_of(right)),
        Expression::Arithmetic { operator, left, right } => {
            let (left, right) = (type_of(left), type_of(right));
            let fits = left.is_number() && right.is_number();
            let (left, right) = (left.as_str(), right.as_str());
            (!fits).then(|| format!("`{}` is for numbers and durations, not {left} and {right}", operator.as_str()))
        }
    };
    fault.map_or(Ok(()), |fault| Err(Problem::Types { operation: expression.to_string(), fault }))
}

fn type_of(expression: &Expression) -> Type {
    match expression {
        Expression::Literal(literal) => Type::of_literal(literal),
        Expression::Field(field) => Type::of_field(field),
        Expression::All(_)
        | Expression::Any(_)
        | Expression::Not(_)
        | Expression::Compare { .. }
        | Expression::Matches { .. }
        | Expression::Exists { .. } => Type::Bool,
        Expression::Negative(operand) => type_of(operand),
        // Durations may be multiplied and divided into anything that compares with numbers.
        Expression::Arithmetic { .. } => Type::Number,
    }
}

/// What is wrong with a comparison.
fn compared(operator: Comparison, left: Type, right: Type) -> Option<String> {
    if !left.meets(right) {
        return Some(format!("{} never compares with {}", left.as_str(), right.as_str()));
    }
    let has_order = |side: Type| side.is_number() || side == Type::String;
    let is_equality = matches!(operator, Comparison::Equal | Comparison::NotEqual);
    let without = [left, right].into_iter().find(|side| !has_order(*side));
    without.filter(|_| !is_equality).map(|side| format!("{} is equal or not, there is no order", side.as_str()))
}
