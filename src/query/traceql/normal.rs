//! What the parser makes of operands that have a simpler or a fuller form.

use super::ast::{Comparison, Expression, Field, Intrinsic, Literal};
use crate::model::TraceId;

/// `operand != nil`. Of `nil` itself neither holds (Tempo `expr.y`).
pub(super) fn exists(operand: Option<Expression>, negated: bool) -> Expression {
    match operand {
        Some(operand) => Expression::Exists { operand: Box::new(operand), negated },
        None => Expression::Literal(Literal::Bool(false)),
    }
}

/// `-` of a number is that number.
pub(super) fn negative(operand: Expression) -> Expression {
    match operand {
        Expression::Literal(Literal::Int(number)) if number != i64::MIN => Expression::Literal(Literal::Int(-number)),
        Expression::Literal(Literal::Float(number)) => Expression::Literal(Literal::Float(-number)),
        Expression::Literal(Literal::Duration(nanos)) => Expression::Literal(Literal::Duration(-nanos)),
        other => Expression::Negative(Box::new(other)),
    }
}

/// Ids are written with or without their leading zeros, in any case.
pub(super) fn padded_ids(mut left: Box<Expression>, mut right: Box<Expression>) -> (Box<Expression>, Box<Expression>) {
    pad_id(&left, &mut right);
    pad_id(&right, &mut left);
    (left, right)
}

fn pad_id(beside: &Expression, literal: &mut Expression) {
    let Expression::Field(Field::Intrinsic(intrinsic)) = beside else { return };
    let digits = match intrinsic {
        Intrinsic::TraceId | Intrinsic::LinkTraceId => 32,
        Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId => 16,
        _ => return,
    };
    if let Expression::Literal(Literal::String(text)) = literal
        && text.len() <= digits
        && let Ok(id) = TraceId::parse_lenient(text)
    {
        let whole = id.to_string();
        whole.get(whole.len() - digits..).unwrap_or_default().clone_into(text);
    }
}

/// True of spans without a parent.
pub(super) fn root() -> Expression {
    let none = Expression::Literal(Literal::String("0000000000000000".to_owned()));
    let (left, right) = (Box::new(Expression::Field(Field::Intrinsic(Intrinsic::ParentId))), Box::new(none));
    Expression::Compare { operator: Comparison::Equal, left, right }
}
