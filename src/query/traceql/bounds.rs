//! What a filter demands of every span, as far as a block can say without being read that it has none such.

use std::ops::RangeInclusive;

use super::ast::{AttributeScope, Comparison, Expression, Field, Intrinsic, Literal};
use crate::model::DurationNanos;

/// All latencies.
pub(super) const ANY: RangeInclusive<DurationNanos> = DurationNanos(0)..=DurationNanos(u64::MAX);

/// Latencies outside of which the filter is true of no span; reversed when it is true of none at all.
pub(super) fn latencies(expression: &Expression) -> RangeInclusive<DurationNanos> {
    match expression {
        Expression::All(parts) => parts.iter().map(latencies).fold(ANY, |all, part| intersection(&all, &part)),
        Expression::Any(parts) => {
            let ranges = parts.iter().map(latencies).filter(|range| !range.is_empty());
            ranges.reduce(|a, b| *a.start().min(b.start())..=*a.end().max(b.end())).unwrap_or(NONE)
        }
        Expression::Compare { operator, left, right } => match (left.as_ref(), right.as_ref()) {
            (Expression::Field(Field::Intrinsic(Intrinsic::Duration)), Expression::Literal(literal)) => {
                compared(*operator, literal)
            }
            (Expression::Literal(literal), Expression::Field(Field::Intrinsic(Intrinsic::Duration))) => {
                compared(mirrored(*operator), literal)
            }
            _ => ANY,
        },
        Expression::Literal(_)
        | Expression::Field(_)
        | Expression::Not(_)
        | Expression::Negative(_)
        | Expression::Arithmetic { .. }
        | Expression::Matches { .. }
        | Expression::Exists { .. } => ANY,
    }
}

const NONE: RangeInclusive<DurationNanos> = DurationNanos(1)..=DurationNanos(0);

pub(super) fn intersection(
    a: &RangeInclusive<DurationNanos>,
    b: &RangeInclusive<DurationNanos>,
) -> RangeInclusive<DurationNanos> {
    *a.start().max(b.start())..=*a.end().min(b.end())
}

fn mirrored(operator: Comparison) -> Comparison {
    match operator {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        same @ (Comparison::Equal | Comparison::NotEqual) => same,
    }
}

/// Latencies that can compare so with a whole number; a fraction bounds nothing. The bound itself is always let through.
fn compared(operator: Comparison, literal: &Literal) -> RangeInclusive<DurationNanos> {
    let (Literal::Int(bound) | Literal::Duration(bound)) = literal else { return ANY };
    let low = DurationNanos(u64::try_from(*bound).unwrap_or(0));
    // Latencies above the largest number count as that.
    let high = if *bound == i64::MAX { DurationNanos(u64::MAX) } else { low };
    match operator {
        Comparison::Equal | Comparison::Less | Comparison::LessOrEqual if *bound < 0 => NONE,
        Comparison::Equal => low..=high,
        Comparison::NotEqual => ANY,
        Comparison::Less | Comparison::LessOrEqual => DurationNanos(0)..=high,
        Comparison::Greater | Comparison::GreaterOrEqual => low..=DurationNanos(u64::MAX),
    }
}

/// A service name that every span has of which the filter is true: not empty, and so that of its series, too.
pub(super) fn service(expression: &Expression) -> Option<&str> {
    let is_service = |field: &Field| matches!(field, Field::Attribute { scope: AttributeScope::Resource, key } if key == "service.name");
    demanded(expression, &is_service)
}

/// A span name that every span has of which the filter is true: not empty.
pub(super) fn name(expression: &Expression) -> Option<&str> {
    demanded(expression, &|field| *field == Field::Intrinsic(Intrinsic::Name))
}

/// A text, not empty, that such a field of every span is equal to of which the filter is true.
fn demanded<'e>(expression: &'e Expression, is_wanted: &dyn Fn(&Field) -> bool) -> Option<&'e str> {
    if let Expression::All(parts) = expression {
        return parts.iter().find_map(|part| demanded(part, is_wanted));
    }
    let (_, text) = equal_text(expression).filter(|(field, _)| is_wanted(field))?;
    Some(text).filter(|text| !text.is_empty())
}

/// The field and the text of a comparison for equality.
pub(super) fn equal_text(expression: &Expression) -> Option<(&Field, &str)> {
    let Expression::Compare { operator: Comparison::Equal, left, right } = expression else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expression::Field(field), Expression::Literal(Literal::String(text)))
        | (Expression::Literal(Literal::String(text)), Expression::Field(field)) => Some((field, text)),
        _ => None,
    }
}
