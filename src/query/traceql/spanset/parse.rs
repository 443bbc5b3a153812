//! ```text
//! query    = pipeline [ "with" "(" hint { "," hint } ")" ]
//! pipeline = stage { "|" stage }
//! stage    = spans | "by" "(" expr ")" | "coalesce" "(" ")" | "select" "(" field { "," field } ")" | having
//! spans    = spans operator spans | "{" [ expr ] "}" | "(" pipeline ")"
//! operator   from the weakest, in groups of equal strength, from left to right:
//!            && ||    > >> < << ~, each also with ! or & in front
//! having   = scalar ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) scalar
//! scalar   = "count" "(" ")" | ( "min" | "max" | "avg" | "sum" ) "(" expr ")" | number | duration | "-" scalar
//!          | scalar ( "+" | "-" | "*" | "/" | "%" | "^" ) scalar | "(" scalar ")"
//! ```
//! `expr` and `field` are those of a filter; strengths are those of Tempo's table.

use super::super::ast::{Arithmetic, Expression, Literal};
use super::super::error::{Place, Problem, TraceQlError, shown};
use super::super::metrics::parse::hints;
use super::super::parse::Parser;
use super::super::token::TokenKind;
use super::super::types::is_number;
use super::{Aggregate, FILTERS_MAX, Having, Relation, Scalar, SpanQuery, Spans, Stage};
use crate::limits::TRACEQL_DEPTH_MAX;

const STAGE: &str = "`{`, `(`, by(), select(), coalesce() or a condition such as count() > 2";
const SPANS: &str = "`{` or `(`";
const SCALAR: &str = "count(), min(), max(), avg(), sum(), a number or a duration";
/// Strengths of operators between spans.
const LOGIC: u8 = 1;
const RELATION: u8 = 2;

pub(super) fn parse(text: &str) -> Result<SpanQuery, TraceQlError> {
    let mut parser = Parser::new(text, Place::Search)?;
    if *parser.kind() == TokenKind::End {
        return Ok(SpanQuery::default());
    }
    let stages = pipeline(&mut parser)?;
    if parser.name() == "with" {
        parser.pass();
        let _exemplars = hints(&mut parser)?;
    }
    if *parser.kind() != TokenKind::End {
        return Err(parser.unexpected("an operator, `|` or the end"));
    }
    checked(&parser, stages)
}

/// What finds the spans of a metrics query, up to its function.
pub(in crate::query::traceql) fn source(parser: &mut Parser<'_>) -> Result<SpanQuery, TraceQlError> {
    if !parser.peek_is("{") && !parser.peek_is("(") {
        return Err(parser.unexpected("`{`"));
    }
    let mut stages = vec![stage(parser)?];
    while parser.peek_is("|") && begins_stage(parser) {
        parser.pass();
        stages.push(stage(parser)?);
    }
    checked(parser, stages)
}

/// Whether a stage that keeps spans stands behind the next word.
fn begins_stage(parser: &Parser<'_>) -> bool {
    let next = parser.ahead(1);
    match next.kind {
        TokenKind::Name => {
            let name = parser.word(next);
            matches!(name, "by" | "coalesce" | "select" | "count") || Aggregate::of_name(name).is_some()
        }
        TokenKind::Sign("{" | "(" | "-") | TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::Duration(_) => true,
        _ => false,
    }
}

fn checked(parser: &Parser<'_>, stages: Vec<Stage>) -> Result<SpanQuery, TraceQlError> {
    let query = SpanQuery { stages };
    let filters = query.need().filters().len();
    if FILTERS_MAX < filters {
        let fault = format!("{filters} different filters are too many, at most {FILTERS_MAX}");
        return Err(parser.error(0, Problem::Word { word: "the query".to_owned(), fault }));
    }
    Ok(query)
}

fn pipeline(parser: &mut Parser<'_>) -> Result<Vec<Stage>, TraceQlError> {
    let mut stages = Vec::new();
    loop {
        stages.push(stage(parser)?);
        if !parser.take("|") {
            return Ok(stages);
        }
    }
}

fn stage(parser: &mut Parser<'_>) -> Result<Stage, TraceQlError> {
    match parser.name() {
        "by" => {
            parser.pass();
            parser.expect("(", "`(`")?;
            let expression = parser.value()?;
            parser.expect(")", "`)`")?;
            return Ok(Stage::By(expression));
        }
        "coalesce" => {
            parser.pass();
            parser.expect("(", "`(`")?;
            parser.expect(")", "`)`")?;
            return Ok(Stage::Coalesce);
        }
        "select" => {
            parser.pass();
            return select(parser);
        }
        name if is_of_metrics(name) => {
            let because = "its answer is numbers over time: ask /api/metrics/query_range, or `spandrel query`";
            return Err(parser.unsupported(parser.token().start, shown(name), because));
        }
        _ => {}
    }
    if parser.first_behind_brackets_is("{") {
        return Ok(match spans(parser, LOGIC)?.spans {
            // Brackets around everything change nothing.
            Spans::Pipeline(mut stages) if stages.len() == 1 => stages.pop().unwrap_or(Stage::Coalesce),
            spans => Stage::Spans(spans),
        });
    }
    let begins_number = match parser.kind() {
        TokenKind::Name => parser.name() == "count" || Aggregate::of_name(parser.name()).is_some(),
        TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::Duration(_) | TokenKind::Sign("-" | "(") => true,
        _ => false,
    };
    if begins_number { having(parser).map(Stage::Having) } else { Err(parser.unexpected(STAGE)) }
}

fn is_of_metrics(name: &str) -> bool {
    name.ends_with("_over_time") || matches!(name, "rate" | "compare" | "topk" | "bottomk")
}

fn select(parser: &mut Parser<'_>) -> Result<Stage, TraceQlError> {
    parser.expect("(", "`(`")?;
    let mut fields = Vec::new();
    loop {
        let start = parser.token().start;
        match parser.value()? {
            Expression::Field(field) => fields.push(field),
            other => {
                let found = shown(&other.to_string());
                let expected = "one field, such as name or span.http.route";
                return Err(parser.error(start, Problem::Unexpected { found, expected, remedy: None }));
            }
        }
        if !parser.take(",") {
            break;
        }
    }
    parser.expect(")", "`)`")?;
    Ok(Stage::Select(fields))
}

/// Filters while their parent is looked for.
struct Parsed {
    spans: Spans,
    /// Operators inside each other.
    depth: usize,
    /// Whether they stand in brackets, so that no chain goes on in them.
    closed: bool,
}

fn spans(parser: &mut Parser<'_>, weakest: u8) -> Result<Parsed, TraceQlError> {
    let start = parser.token().start;
    let mut left = operand(parser)?;
    while let Some((operator, strength)) = operator(parser).filter(|(_, strength)| weakest <= *strength) {
        parser.pass();
        let right = spans(parser, strength + 1)?;
        left = combined(operator, left, right);
        if TRACEQL_DEPTH_MAX < left.depth {
            return Err(parser.error(start, Problem::TooDeep));
        }
    }
    Ok(left)
}

fn operand(parser: &mut Parser<'_>) -> Result<Parsed, TraceQlError> {
    if parser.peek_is("{") {
        return Ok(Parsed { spans: Spans::Filter(parser.braced()?), depth: 1, closed: false });
    }
    if !parser.peek_is("(") {
        return Err(parser.unexpected(SPANS));
    }
    parser.deeper(|parser| {
        parser.pass();
        let mut stages = pipeline(parser)?;
        if !parser.take(")") {
            return Err(parser.unexpected("an operator, `|` or `)`"));
        }
        let depth = stages.iter().map(Stage::depth).max().unwrap_or(1);
        Ok(match (stages.len(), stages.pop()) {
            (1, Some(Stage::Spans(spans))) => Parsed { spans, depth, closed: true },
            (_, last) => {
                stages.extend(last);
                Parsed { spans: Spans::Pipeline(stages), depth: depth + 1, closed: true }
            }
        })
    })
}

/// A sign between spans.
#[derive(Clone, Copy)]
enum Operator {
    Logic { is_and: bool },
    Related(Relation, super::Form),
}

fn operator(parser: &Parser<'_>) -> Option<(Operator, u8)> {
    let TokenKind::Sign(sign) = parser.kind() else { return None };
    match *sign {
        "&&" => Some((Operator::Logic { is_and: true }, LOGIC)),
        "||" => Some((Operator::Logic { is_and: false }, LOGIC)),
        sign => Relation::of_sign(sign).map(|(relation, form)| (Operator::Related(relation, form), RELATION)),
    }
}

fn combined(operator: Operator, left: Parsed, right: Parsed) -> Parsed {
    let depth = left.depth.max(right.depth) + 1;
    let is_and = match operator {
        Operator::Related(relation, form) => {
            let (left, right) = (Box::new(left.spans), Box::new(right.spans));
            return Parsed { spans: Spans::Related { relation, form, left, right }, depth, closed: false };
        }
        Operator::Logic { is_and } => is_and,
    };
    // One more part of a chain is no deeper.
    let chained = left.depth.max(right.depth + 1);
    let (mut parts, depth) = match left.spans {
        Spans::All(parts) if is_and && !left.closed => (parts, chained),
        Spans::Any(parts) if !is_and && !left.closed => (parts, chained),
        other => (vec![other], depth),
    };
    parts.push(right.spans);
    Parsed { spans: if is_and { Spans::All(parts) } else { Spans::Any(parts) }, depth, closed: false }
}

impl Stage {
    fn depth(&self) -> usize {
        match self {
            Self::Spans(spans) => spans.depth(),
            Self::By(_) | Self::Coalesce | Self::Having(_) | Self::Select(_) => 1,
        }
    }
}

impl Spans {
    fn depth(&self) -> usize {
        match self {
            Self::Filter(_) => 1,
            Self::All(parts) | Self::Any(parts) => 1 + parts.iter().map(Self::depth).max().unwrap_or(0),
            Self::Related { left, right, .. } => 1 + left.depth().max(right.depth()),
            Self::Pipeline(stages) => 1 + stages.iter().map(Stage::depth).max().unwrap_or(0),
        }
    }
}

fn having(parser: &mut Parser<'_>) -> Result<Having, TraceQlError> {
    let start = parser.token().start;
    let left = scalar(parser, SUM)?;
    let Some(operator) = parser.take_comparison() else {
        return Err(parser.unexpected("a comparison: = != < <= > >="));
    };
    let right = scalar(parser, SUM)?;
    if !left.has_aggregate() && !right.has_aggregate() {
        let fault = "a condition on sets of spans has an aggregate on one side at least, such as count()".to_owned();
        let word = shown(&format!("{left} {} {right}", operator.as_str()));
        return Err(parser.error(start, Problem::Word { word, fault }));
    }
    Ok(Having { operator, left, right })
}

/// Strengths of operators between numbers.
const SUM: u8 = 3;
const PRODUCT: u8 = 5;
const POWER: u8 = 6;

fn scalar(parser: &mut Parser<'_>, weakest: u8) -> Result<Scalar, TraceQlError> {
    let start = parser.token().start;
    let mut left = number(parser)?;
    // A chain of numbers nests to the left.
    let mut depth = 0;
    loop {
        let (operator, strength) = match parser.kind() {
            TokenKind::Sign("+") => (Arithmetic::Add, SUM),
            TokenKind::Sign("-") => (Arithmetic::Subtract, SUM),
            TokenKind::Sign("*") => (Arithmetic::Multiply, PRODUCT),
            TokenKind::Sign("/") => (Arithmetic::Divide, PRODUCT),
            TokenKind::Sign("%") => (Arithmetic::Modulo, PRODUCT),
            TokenKind::Sign("^") => (Arithmetic::Power, POWER),
            _ => return Ok(left),
        };
        if strength < weakest {
            return Ok(left);
        }
        depth += 1;
        if TRACEQL_DEPTH_MAX < depth {
            return Err(parser.error(start, Problem::TooDeep));
        }
        parser.pass();
        let right = parser.deeper(|parser| scalar(parser, if strength == POWER { POWER } else { strength + 1 }))?;
        left = Scalar::Arithmetic { operator, left: Box::new(left), right: Box::new(right) };
    }
}

fn number(parser: &mut Parser<'_>) -> Result<Scalar, TraceQlError> {
    if parser.take("(") {
        let inner = parser.deeper(|parser| scalar(parser, SUM))?;
        parser.expect(")", "`)`")?;
        return Ok(inner);
    }
    if parser.take("-") {
        let of = parser.deeper(|parser| scalar(parser, PRODUCT))?;
        return Ok(match of {
            Scalar::Literal(Literal::Int(number)) if number != i64::MIN => Scalar::Literal(Literal::Int(-number)),
            Scalar::Literal(Literal::Float(number)) => Scalar::Literal(Literal::Float(-number)),
            Scalar::Literal(Literal::Duration(nanos)) => Scalar::Literal(Literal::Duration(-nanos)),
            other => {
                let zero = Box::new(Scalar::Literal(Literal::Int(0)));
                Scalar::Arithmetic { operator: Arithmetic::Subtract, left: zero, right: Box::new(other) }
            }
        });
    }
    let scalar = match parser.kind() {
        TokenKind::Int(number) => Scalar::Literal(Literal::Int(*number)),
        TokenKind::Float(number) => Scalar::Literal(Literal::Float(*number)),
        TokenKind::Duration(nanos) => Scalar::Literal(Literal::Duration(*nanos)),
        TokenKind::Name => return aggregate(parser),
        _ => return Err(parser.unexpected(SCALAR)),
    };
    parser.pass();
    Ok(scalar)
}

fn aggregate(parser: &mut Parser<'_>) -> Result<Scalar, TraceQlError> {
    let aggregate = Aggregate::of_name(parser.name());
    if aggregate.is_none() && parser.name() != "count" {
        return Err(parser.unexpected(SCALAR));
    }
    parser.pass();
    parser.expect("(", "`(`")?;
    let scalar = match aggregate {
        None => Scalar::Count,
        Some(aggregate) => {
            let start = parser.token().start;
            let of = parser.value()?;
            is_number(&of).map_err(|problem| parser.error(start, problem))?;
            Scalar::Aggregate { aggregate, of }
        }
    };
    parser.expect(")", "`)`")?;
    Ok(scalar)
}

impl Scalar {
    fn has_aggregate(&self) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Count | Self::Aggregate { .. } => true,
            Self::Arithmetic { left, right, .. } => left.has_aggregate() || right.has_aggregate(),
        }
    }
}
