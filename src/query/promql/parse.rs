//! Texts become queries: the grammar is a library's, what is not built is refused here by its name.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use promql_parser::label::MatchOp;
use promql_parser::parser::{self, AtModifier, LabelModifier, Offset, VectorMatchCardinality};
use regex::Regex;

use super::PromError;
use super::ast::{
    Aggregate, Aggregation, Arithmetic, At, Binary, BinaryOperator, Compare, Expr, Function, Many, Matching, Ranged,
    SetOperator, Shift,
};
use super::labels::{Grouping, METRIC_NAME};
use super::over_time::OverTime;
use super::series::Millis;
use super::source::{Condition, Matcher, Selector};

/// Longer texts are refused: dashboards send some hundred bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Expressions in each other; a parser and an evaluator that call themselves have a stack.
const DEPTH_MAX: usize = 100;
/// Words and signs of a query.
const WORDS_MAX: usize = 4_000;
/// Bytes that are parsed again to find the place of a fault.
const TRIED_BYTES_MAX: usize = 1 << 20;

/// A query that can be evaluated.
#[derive(Clone, Debug)]
pub struct PromQuery {
    pub(super) expr: Expr,
}

impl FromStr for PromQuery {
    type Err = PromError;

    fn from_str(text: &str) -> Result<Self, PromError> {
        Ok(Self { expr: converted(&parsed(text)?, 0)? })
    }
}

impl FromStr for Selector {
    type Err = PromError;

    /// One selector alone, as `match[]` has it.
    fn from_str(text: &str) -> Result<Self, PromError> {
        match parsed(text)? {
            parser::Expr::VectorSelector(vector) if vector.offset.is_none() && vector.at.is_none() => selector(&vector),
            _ => Err(problem_at(text, 0, "a selector of series was expected, such as up{job=\"x\"}".to_owned())),
        }
    }
}

fn parsed(text: &str) -> Result<parser::Expr, PromError> {
    if TEXT_BYTES_MAX < text.len() {
        let problem = format!("the query has {} bytes, at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(problem_at(text, 0, problem));
    }
    // A parser that calls itself must not be led too deep.
    if let Some(at) = too_deep(text) {
        return Err(problem_at(text, at, format!("more than {DEPTH_MAX} brackets are open")));
    }
    if let Some(at) = too_long(text) {
        return Err(problem_at(text, at, format!("there are more than {WORDS_MAX} words and signs")));
    }
    tree(text).map_err(|problem| {
        let (at, expected) = where_it_goes_wrong(text);
        problem_at(text, at, format!("{problem}{expected}"))
    })
}

/// The position in characters.
fn problem_at(text: &str, at: usize, problem: String) -> PromError {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    PromError::Parse { line, column, problem }
}

/// Where a character stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// It begins or ends a text.
    Quote(char),
    /// In a text of such quotes.
    Text(char),
    Comment,
}

fn places(text: &str) -> impl Iterator<Item = (usize, char, Place)> {
    let (mut quote, mut escaped, mut comment) = (None, false, false);
    text.char_indices().map(move |(at, char)| {
        let place = match quote {
            _ if comment => Place::Comment,
            Some(open) if open == char && !escaped => Place::Quote(open),
            Some(open) => Place::Text(open),
            None if matches!(char, '"' | '\'' | '`') => Place::Quote(char),
            None if char == '#' => Place::Comment,
            None => Place::Outside,
        };
        comment = place == Place::Comment && char != '\n';
        escaped = matches!(place, Place::Text('"' | '\'')) && char == '\\' && !escaped;
        if let Place::Quote(open) = place {
            quote = quote.xor(Some(open));
        }
        (at, char, place)
    })
}

/// What is outside of texts and comments, with its place.
fn outside(text: &str) -> impl Iterator<Item = (usize, char)> {
    places(text).filter(|(_, _, place)| *place == Place::Outside).map(|(at, char, _)| (at, char))
}

/// What the library makes of it, with raw texts quoted: it would refuse `\w` in them.
fn tree(text: &str) -> Result<parser::Expr, String> {
    let mut quoted = String::with_capacity(text.len());
    for (_, char, place) in places(text) {
        match (place, char) {
            (Place::Quote('`'), _) => quoted.push('"'),
            (Place::Text('`'), '"') => quoted.push_str("\\\""),
            (Place::Text('`'), '\\') => quoted.push_str("\\\\"),
            (Place::Text('`'), '\n') => quoted.push_str("\\n"),
            (_, other) => quoted.push(other),
        }
    }
    parser::parse(&quoted)
}

fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    outside(text).find_map(|(at, char)| {
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (DEPTH_MAX < depth).then_some(at)
    })
}

/// Where the words and signs become too many: what stands beside each other, as in `1+1+1`, lies in each other for the parser.
fn too_long(text: &str) -> Option<usize> {
    let is_part = |char: char| char.is_alphanumeric() || matches!(char, '_' | ':' | '.');
    let mut before = ' ';
    let begins = outside(text).filter(move |(_, char)| {
        let begins = !(char.is_whitespace() || is_part(*char) && is_part(before));
        before = *char;
        begins
    });
    begins.map(|(at, _)| at).nth(WORDS_MAX)
}

/// The library says that something is wrong, not where: a bracket without its partner, or what follows the longest beginning
/// that is a query by itself.
fn where_it_goes_wrong(text: &str) -> (usize, String) {
    let mut open: Vec<(usize, char)> = Vec::new();
    for (at, char) in outside(text) {
        let partner = match char {
            ')' => '(',
            ']' => '[',
            '}' => '{',
            '(' | '[' | '{' => {
                open.push((at, char));
                continue;
            }
            _ => continue,
        };
        if open.pop().is_none_or(|(_, opened)| opened != partner) {
            return (at, format!(": {char:?} closes nothing"));
        }
    }
    if let Some((at, char)) = open.pop() {
        return (at, format!(": {char:?} is not closed"));
    }
    if tree(&format!("{text} x")).is_ok() {
        return (text.len(), ", at the end".to_owned());
    }
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let is_query = |end: &usize| text.get(..*end).is_some_and(|start| tree(start).is_ok());
    // Long texts are not tried at every place.
    let n_tried = TRIED_BYTES_MAX / text.len().max(1);
    let end = ends.rev().take(n_tried).find(is_query).unwrap_or(0);
    let rest = text.get(end..).unwrap_or_default();
    let at = end + rest.len() - rest.trim_start().len();
    match text.get(at..).and_then(|rest| rest.split_whitespace().next()) {
        Some(word) => (at, format!(", near {word:?}")),
        None => (at, ", at the end".to_owned()),
    }
}

/// A step: seconds, or a length such as `1m30s`; not negative.
pub fn step_of(text: &str) -> Option<Millis> {
    let secs = text.parse::<f64>().ok().filter(|secs| (0.0..1e15).contains(secs));
    #[expect(clippy::cast_possible_truncation, reason = "below 10^18")]
    let secs = secs.map(|secs| (secs * 1e3).round() as Millis);
    secs.or_else(|| promql_parser::util::parse_duration(text).ok().map(millis))
}

fn unsupported(what: impl Into<String>) -> PromError {
    PromError::Unsupported { what: what.into() }
}

fn converted(expr: &parser::Expr, depth: usize) -> Result<Expr, PromError> {
    if DEPTH_MAX < depth {
        return Err(unsupported(format!("an expression with more than {DEPTH_MAX} operations in each other")));
    }
    let boxed = |expr: &parser::Expr| converted(expr, depth + 1).map(Box::new);
    match expr {
        parser::Expr::NumberLiteral(number) => Ok(Expr::Number(number.val)),
        parser::Expr::StringLiteral(text) => Ok(Expr::Text(text.val.clone())),
        parser::Expr::Paren(paren) => converted(&paren.expr, depth + 1),
        parser::Expr::Unary(unary) => Ok(Expr::Negative(boxed(&unary.expr)?)),
        parser::Expr::VectorSelector(vector) => {
            Ok(Expr::Select(selector(vector)?, shift(vector.offset.as_ref(), vector.at.as_ref())))
        }
        parser::Expr::Aggregate(aggregate) => {
            let parameter = aggregate.param.as_deref().map(boxed).transpose()?;
            Ok(Expr::Aggregate(Aggregate {
                operator: aggregation(&aggregate.op.to_string())?,
                of: boxed(&aggregate.expr)?,
                parameter,
                grouping: aggregate.modifier.as_ref().map_or_else(|| Grouping::By(Vec::new()), grouping),
            }))
        }
        parser::Expr::Binary(binary) => Ok(Expr::Binary(Box::new(converted_binary(binary, depth)?))),
        parser::Expr::Call(call) => converted_call(call, depth),
        parser::Expr::MatrixSelector(_) | parser::Expr::Subquery(_) => {
            Err(unsupported("a range of samples as an answer"))
        }
        parser::Expr::Extension(_) => Err(unsupported("an extension")),
    }
}

fn grouping(modifier: &LabelModifier) -> Grouping {
    match modifier {
        LabelModifier::Include(names) => Grouping::By(names.labels.clone()),
        LabelModifier::Exclude(names) => Grouping::Without(names.labels.clone()),
    }
}

fn selector(vector: &parser::VectorSelector) -> Result<Selector, PromError> {
    if !vector.matchers.or_matchers.is_empty() {
        return Err(unsupported("`or` between matchers of a selector"));
    }
    let named = vector
        .name
        .as_ref()
        .map(|name| Matcher { label: METRIC_NAME.to_owned(), condition: Condition::Equal(name.clone()) });
    let matcher = |matcher: &promql_parser::label::Matcher| Matcher {
        label: matcher.name.clone(),
        condition: match &matcher.op {
            MatchOp::Equal => Condition::Equal(matcher.value.clone()),
            MatchOp::NotEqual => Condition::NotEqual(matcher.value.clone()),
            MatchOp::Re(pattern) => Condition::Matches(with_lines(pattern)),
            MatchOp::NotRe(pattern) => Condition::MatchesNot(with_lines(pattern)),
        },
    };
    let matchers = named.into_iter().chain(vector.matchers.matchers.iter().map(matcher)).collect();
    Ok(Selector { matchers })
}

/// The pattern whose dots match ends of lines too, as from Prometheus 3 on.
fn with_lines(pattern: &Regex) -> Regex {
    let inner = pattern.as_str().strip_prefix("^(?:");
    let whole = inner.and_then(|inner| Regex::new(&format!("^(?s:{inner}")).ok());
    whole.unwrap_or_else(|| pattern.clone())
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

fn shift(offset: Option<&Offset>, at: Option<&AtModifier>) -> Shift {
    let offset = match offset {
        None => 0,
        Some(Offset::Pos(by)) => millis(*by),
        Some(Offset::Neg(by)) => -millis(*by),
    };
    let at = match at {
        None => None,
        Some(AtModifier::Start) => Some(At::Start),
        Some(AtModifier::End) => Some(At::End),
        Some(AtModifier::At(time)) => Some(At::Instant(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        })),
    };
    Shift { offset, at }
}

fn aggregation(name: &str) -> Result<Aggregation, PromError> {
    Ok(match name {
        "sum" => Aggregation::Sum,
        "avg" => Aggregation::Avg,
        "min" => Aggregation::Min,
        "max" => Aggregation::Max,
        "count" => Aggregation::Count,
        "group" => Aggregation::Group,
        "stddev" => Aggregation::Stddev,
        "stdvar" => Aggregation::Stdvar,
        "quantile" => Aggregation::Quantile,
        "topk" => Aggregation::Topk,
        "bottomk" => Aggregation::Bottomk,
        "count_values" => Aggregation::CountValues,
        other => return Err(unsupported(format!("aggregation {other}"))),
    })
}

fn converted_binary(binary: &parser::BinaryExpr, depth: usize) -> Result<Binary, PromError> {
    let name = binary.op.to_string();
    let operator = operator(&name).ok_or_else(|| unsupported(format!("operator {name}")))?;
    let modifier = binary.modifier.as_ref();
    if modifier.is_some_and(|modifier| modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some()) {
        return Err(unsupported("modifier fill"));
    }
    let labels = modifier.and_then(|modifier| modifier.matching.as_ref());
    let many = match modifier.map(|modifier| &modifier.card) {
        Some(VectorMatchCardinality::ManyToOne(lent)) => Many::Left(lent.labels.clone()),
        Some(VectorMatchCardinality::OneToMany(lent)) => Many::Right(lent.labels.clone()),
        Some(VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany) | None => Many::None,
    };
    Ok(Binary {
        operator,
        left: converted(&binary.lhs, depth + 1)?,
        right: converted(&binary.rhs, depth + 1)?,
        gives_bool: modifier.is_some_and(|modifier| modifier.return_bool),
        matching: Matching { labels: labels.map_or_else(|| Grouping::Without(Vec::new()), grouping), many },
    })
}

fn operator(name: &str) -> Option<BinaryOperator> {
    use BinaryOperator::{Arithmetic as Of, Compare as Is, Set};
    Some(match name.to_lowercase().as_str() {
        "+" => Of(Arithmetic::Add),
        "-" => Of(Arithmetic::Subtract),
        "*" => Of(Arithmetic::Multiply),
        "/" => Of(Arithmetic::Divide),
        "%" => Of(Arithmetic::Remainder),
        "^" => Of(Arithmetic::Power),
        "atan2" => Of(Arithmetic::Atan2),
        "==" => Is(Compare::Equal),
        "!=" => Is(Compare::NotEqual),
        "<" => Is(Compare::Less),
        "<=" => Is(Compare::LessOrEqual),
        ">" => Is(Compare::Greater),
        ">=" => Is(Compare::GreaterOrEqual),
        "and" => Set(SetOperator::And),
        "or" => Set(SetOperator::Or),
        "unless" => Set(SetOperator::Unless),
        _ => return None,
    })
}

fn converted_call(call: &parser::Call, depth: usize) -> Result<Expr, PromError> {
    let name = call.func.name;
    if let Some(function) = OverTime::named(name) {
        // quantile_over_time has its parameter in front.
        let Some(of) = call.args.args.iter().find_map(|expr| ranged(expr)) else {
            return Err(PromError::Execution(format!("{name}() takes a range, such as x[5m]")));
        };
        let parameter = call.args.args.iter().find(|expr| ranged(expr).is_none());
        let parameter = parameter.map(|expr| converted(expr, depth + 1).map(Box::new)).transpose()?;
        return Ok(Expr::OverTime { function, of: converted_range(of, depth)?, parameter });
    }
    let function = function(name).ok_or_else(|| unsupported(format!("function {name}")))?;
    let args = call.args.args.iter().map(|expr| converted(expr, depth + 1)).collect::<Result<_, _>>()?;
    Ok(Expr::Call(function, args))
}

/// A range, in parentheses or not.
fn ranged(expr: &parser::Expr) -> Option<&parser::Expr> {
    match expr {
        parser::Expr::MatrixSelector(_) | parser::Expr::Subquery(_) => Some(expr),
        parser::Expr::Paren(paren) => ranged(&paren.expr),
        _ => None,
    }
}

fn converted_range(expr: &parser::Expr, depth: usize) -> Result<Ranged, PromError> {
    match expr {
        parser::Expr::MatrixSelector(matrix) => Ok(Ranged::Selected {
            selector: selector(&matrix.vs)?,
            range: millis(matrix.range),
            shift: shift(matrix.vs.offset.as_ref(), matrix.vs.at.as_ref()),
        }),
        parser::Expr::Subquery(subquery) => Ok(Ranged::Subquery {
            of: Box::new(converted(&subquery.expr, depth + 1)?),
            range: millis(subquery.range),
            step: subquery.step.map(millis),
            shift: shift(subquery.offset.as_ref(), subquery.at.as_ref()),
        }),
        _ => Err(unsupported("a range of that")),
    }
}

fn function(name: &str) -> Option<Function> {
    use jiff::civil::DateTime;
    Some(match name {
        "abs" => Function::Math(f64::abs),
        "acos" => Function::Math(f64::acos),
        "acosh" => Function::Math(f64::acosh),
        "asin" => Function::Math(f64::asin),
        "asinh" => Function::Math(f64::asinh),
        "atan" => Function::Math(f64::atan),
        "atanh" => Function::Math(f64::atanh),
        "ceil" => Function::Math(f64::ceil),
        "cos" => Function::Math(f64::cos),
        "cosh" => Function::Math(f64::cosh),
        "deg" => Function::Math(f64::to_degrees),
        "exp" => Function::Math(f64::exp),
        "floor" => Function::Math(f64::floor),
        "ln" => Function::Math(f64::ln),
        "log10" => Function::Math(f64::log10),
        "log2" => Function::Math(f64::log2),
        "rad" => Function::Math(f64::to_radians),
        "sgn" => Function::Math(sign),
        "sin" => Function::Math(f64::sin),
        "sinh" => Function::Math(f64::sinh),
        "sqrt" => Function::Math(f64::sqrt),
        "tan" => Function::Math(f64::tan),
        "tanh" => Function::Math(f64::tanh),
        "minute" => Function::Calendar(|time| i16::from(time.minute())),
        "hour" => Function::Calendar(|time| i16::from(time.hour())),
        "day_of_week" => Function::Calendar(|time| i16::from(time.weekday().to_sunday_zero_offset())),
        "day_of_month" => Function::Calendar(|time| i16::from(time.day())),
        "day_of_year" => Function::Calendar(DateTime::day_of_year),
        "days_in_month" => Function::Calendar(|time| i16::from(time.days_in_month())),
        "month" => Function::Calendar(|time| i16::from(time.month())),
        "year" => Function::Calendar(DateTime::year),
        "round" => Function::Round,
        "clamp" => Function::Clamp,
        "clamp_min" => Function::ClampMin,
        "clamp_max" => Function::ClampMax,
        "absent" => Function::Absent,
        "scalar" => Function::Scalar,
        "vector" => Function::Vector,
        "time" => Function::Time,
        "pi" => Function::Pi,
        "timestamp" => Function::Timestamp,
        "sort" => Function::Sort,
        "sort_desc" => Function::SortDesc,
        "label_replace" => Function::LabelReplace,
        "label_join" => Function::LabelJoin,
        "histogram_quantile" => Function::HistogramQuantile,
        "histogram_count" => Function::HistogramCount,
        "histogram_sum" => Function::HistogramSum,
        "histogram_avg" => Function::HistogramAvg,
        "histogram_fraction" => Function::HistogramFraction,
        "histogram_stddev" => Function::HistogramStddev,
        "histogram_stdvar" => Function::HistogramStdvar,
        _ => return None,
    })
}

fn sign(value: f64) -> f64 {
    if value == 0.0 || value.is_nan() { value } else { value.signum() }
}
