//! Metrics queries: `{ filter } | function(..) by(field) with(hints)`.
//!
//! ```text
//! query    = "{" [ expr ] "}" "|" function [ "by" "(" field ")" ] [ "with" "(" hint { "," hint } ")" ]
//! function = ("rate" | "count_over_time") "(" ")"
//!          | ("min" | "max" | "avg" | "sum" | "histogram") "_over_time" "(" "duration" ")"
//!          | "quantile_over_time" "(" "duration" { "," number } ")"
//! hint     = name "=" ( "true" | "false" | number )
//! ```
//! (Tempo's documentation of TraceQL metrics.) What else the language has is refused by name.

use std::str::FromStr;

use super::Filter;
use super::ast::{Field, Intrinsic};
use super::error::{Place, Problem, TraceQlError, shown};
use super::parse::Parser;
use super::token::TokenKind;
use crate::latency::Quantile;

/// Quantiles of one query.
const QUANTILES_MAX: usize = 20;
/// Hints without effect: answers are always exact.
const HINTS: [&str; 4] = ["sample", "span_sample", "trace_sample", "most_recent"];
const FUNCTION: &str = "a metrics function, such as rate() or quantile_over_time(duration, 0.99)";

/// What is counted of the spans that a filter finds, per interval.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricsFunction {
    /// Spans per second.
    Rate,
    /// Spans.
    CountOverTime,
    /// Shortest duration.
    MinOverTime,
    /// Longest duration.
    MaxOverTime,
    /// Mean duration.
    AvgOverTime,
    /// Durations added up.
    SumOverTime,
    /// Quantiles of the duration, in the order given; at least one.
    QuantileOverTime(Vec<Quantile>),
    /// Spans by the smallest power of two of nanoseconds that is not shorter.
    HistogramOverTime,
}

/// A metrics query.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsQuery {
    /// Which spans.
    pub filter: Filter,
    /// What of them.
    pub function: MetricsFunction,
    /// What they are grouped by, and as it was written.
    pub by: Option<(Field, String)>,
    /// Exemplars wanted, where the query itself says it.
    pub exemplars: Option<usize>,
}

impl MetricsFunction {
    /// As written, without arguments.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::CountOverTime => "count_over_time",
            Self::MinOverTime => "min_over_time",
            Self::MaxOverTime => "max_over_time",
            Self::AvgOverTime => "avg_over_time",
            Self::SumOverTime => "sum_over_time",
            Self::QuantileOverTime(_) => "quantile_over_time",
            Self::HistogramOverTime => "histogram_over_time",
        }
    }
}

impl FromStr for MetricsQuery {
    type Err = TraceQlError;

    fn from_str(text: &str) -> Result<Self, TraceQlError> {
        let mut parser = Parser::new(text, Place::Metrics)?;
        let filter = Filter { root: parser.braced()? };
        if !parser.take("|") {
            return Err(parser.unexpected("`|` and a metrics function"));
        }
        let function = function(&mut parser)?;
        let mut query = Self { filter, function, by: None, exemplars: None };
        if word(&parser) == "by" {
            parser.pass();
            query.by = Some(by(&mut parser)?);
        }
        if word(&parser) == "with" {
            parser.pass();
            query.exemplars = hints(&mut parser)?;
        }
        match parser.kind() {
            TokenKind::End => Ok(query),
            TokenKind::Sign(sign @ ("|" | ">" | ">=" | "<" | "<=" | "=" | "!=" | "+" | "-" | "*" | "/")) => {
                let because = "its numbers are the last stage that is supported";
                Err(parser.unsupported(parser.token().start, format!("`{sign}` behind metrics"), because))
            }
            _ => Err(parser.unexpected("`by`, `with` or the end")),
        }
    }
}

/// The next word, when it is a name.
fn word<'a>(parser: &Parser<'a>) -> &'a str {
    if *parser.kind() == TokenKind::Name { parser.word(parser.token()) } else { "" }
}

fn expect(parser: &mut Parser<'_>, sign: &str, expected: &'static str) -> Result<(), TraceQlError> {
    if parser.take(sign) { Ok(()) } else { Err(parser.unexpected(expected)) }
}

fn function(parser: &mut Parser<'_>) -> Result<MetricsFunction, TraceQlError> {
    let (start, name) = (parser.token().start, word(parser));
    let function = match name {
        "rate" => MetricsFunction::Rate,
        "count_over_time" => MetricsFunction::CountOverTime,
        "min_over_time" => MetricsFunction::MinOverTime,
        "max_over_time" => MetricsFunction::MaxOverTime,
        "avg_over_time" => MetricsFunction::AvgOverTime,
        "sum_over_time" => MetricsFunction::SumOverTime,
        "histogram_over_time" => MetricsFunction::HistogramOverTime,
        "quantile_over_time" => MetricsFunction::QuantileOverTime(Vec::new()),
        "compare" | "select" | "by" | "coalesce" | "count" | "avg" | "max" | "min" | "sum" => {
            return Err(parser.unsupported(start, shown(name), "write one of the functions over time"));
        }
        _ => return Err(parser.unexpected(FUNCTION)),
    };
    parser.pass();
    expect(parser, "(", "`(`")?;
    let function = match function {
        MetricsFunction::Rate | MetricsFunction::CountOverTime => function,
        of_duration => {
            let start = parser.token().start;
            let field = parser.field()?;
            if field != Field::Intrinsic(Intrinsic::Duration) {
                let what = format!("{}({field})", of_duration.as_str());
                return Err(parser.unsupported(start, what, "numbers are made of the duration alone"));
            }
            match of_duration {
                MetricsFunction::QuantileOverTime(_) => MetricsFunction::QuantileOverTime(quantiles(parser)?),
                other => other,
            }
        }
    };
    expect(parser, ")", "`)`")?;
    Ok(function)
}

fn quantiles(parser: &mut Parser<'_>) -> Result<Vec<Quantile>, TraceQlError> {
    let mut quantiles = Vec::new();
    while parser.take(",") {
        let (start, number) = (parser.token().start, number(parser));
        let quantile = number.and_then(|number| Quantile::try_from(number).ok());
        let quantile = quantile.filter(|_| quantiles.len() < QUANTILES_MAX);
        quantiles.push(quantile.ok_or_else(|| {
            let fault = format!("a quantile is a number from 0 to 1, and there are at most {QUANTILES_MAX}");
            parser.error(start, Problem::Word { word: shown(parser.word(parser.token())), fault })
        })?);
        parser.pass();
    }
    if quantiles.is_empty() { Err(parser.unexpected("`,` and a quantile from 0 to 1")) } else { Ok(quantiles) }
}

fn number(parser: &Parser<'_>) -> Option<f64> {
    match parser.kind() {
        TokenKind::Float(number) => Some(*number),
        TokenKind::Int(number) => i32::try_from(*number).ok().map(f64::from),
        _ => None,
    }
}

fn by(parser: &mut Parser<'_>) -> Result<(Field, String), TraceQlError> {
    expect(parser, "(", "`(`")?;
    let written = parser.word(parser.token());
    let field = parser.field()?;
    let start = parser.token().start;
    if parser.take(",") {
        return Err(parser.unsupported(start, "`by` of several fields".to_owned(), "name one"));
    }
    expect(parser, ")", "`)`")?;
    Ok((field, written.to_owned()))
}

/// How many exemplars the hints ask for, if they do.
pub(super) fn hints(parser: &mut Parser<'_>) -> Result<Option<usize>, TraceQlError> {
    let mut exemplars = None;
    expect(parser, "(", "`(`")?;
    loop {
        let (start, name) = (parser.token().start, word(parser));
        parser.pass();
        expect(parser, "=", "`=`")?;
        let value = parser.token().clone();
        let text = parser.word(&value);
        let is_known = HINTS.contains(&name) || name == "exemplars" || (name == "extrapolate" && text == "false");
        if !is_known {
            return Err(parser.unsupported(start, format!("the hint {name}={text}"), "leave it out"));
        }
        let count = match (&value.kind, text) {
            (TokenKind::Name, "true") => None,
            (TokenKind::Name, "false") => Some(0),
            (TokenKind::Int(count), _) => Some(usize::try_from(*count).unwrap_or(0)),
            (TokenKind::Float(_), _) if name != "exemplars" => None,
            _ => return Err(parser.unexpected("true, false or a number")),
        };
        exemplars = if name == "exemplars" { count } else { exemplars };
        parser.pass();
        if !parser.take(",") {
            break;
        }
    }
    expect(parser, ")", "`,` or `)`")?;
    Ok(exemplars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_its_filter_its_function_its_field_and_its_hints() {
        let quantile = |q| Quantile::try_from(q).unwrap();
        let function = MetricsFunction::QuantileOverTime(vec![quantile(0.9), quantile(1.0)]);
        for (text, filter, function, by, exemplars) in [
            ("{} | rate()", "{ true }", MetricsFunction::Rate, None, None),
            (
                "{ } | count_over_time() by(name)",
                "{ true }",
                MetricsFunction::CountOverTime,
                Some("span:name name"),
                None,
            ),
            (
                "{status=error && name != nil}|quantile_over_time(duration, .9, 1) by (resource.service.name)",
                "{ span:status = error && span:name != nil }",
                function,
                Some("resource.service.name resource.service.name"),
                None,
            ),
            (
                "{true} | histogram_over_time(duration) with(sample=true, exemplars=7, extrapolate=false)",
                "{ true }",
                MetricsFunction::HistogramOverTime,
                None,
                Some(7),
            ),
            (
                "{nestedSetParent<0 && true} | rate()  with(sample=true)",
                "{ span:parentID = \"0000000000000000\" && true }",
                MetricsFunction::Rate,
                None,
                None,
            ),
            ("{} | rate() with(exemplars=false)", "{ true }", MetricsFunction::Rate, None, Some(0)),
        ] {
            let query: MetricsQuery = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((query.filter.to_string().as_str(), &query.function), (filter, &function), "{text}");
            assert_eq!(
                (query.by.map(|(by, text)| format!("{by} {text}")).as_deref(), query.exemplars),
                (by, exemplars),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_query_is_refused_where_it_goes_wrong_and_by_name() {
        for (text, column, what) in [
            ("rate()", 1, "expected `{`"),
            ("{} rate()", 4, "expected `|`"),
            ("{} | rat()", 6, "a metrics function"),
            ("{} | rate(", 11, "expected `)`"),
            ("{ duration > } | rate()", 14, "expected a field"),
            ("{} | compare({status=error})", 6, "`compare` is not supported"),
            ("{} | rate() by(name, kind)", 20, "`by` of several fields is not supported"),
            ("{} | rate() by(event.name)", 16, "is not supported"),
            ("{} | avg_over_time(span.bytes)", 20, "avg_over_time(span.bytes) is not supported"),
            ("{} | quantile_over_time(duration)", 33, "a quantile from 0 to 1"),
            ("{} | quantile_over_time(duration, 2)", 35, "from 0 to 1"),
            ("{} | rate() | topk(3)", 13, "is not supported"),
            ("{} | rate() > 5", 13, "is not supported"),
            ("{} | rate() with(extrapolate=true)", 18, "the hint extrapolate=true is not supported"),
            ("{} | rate() with(fast=1)", 18, "the hint fast=1 is not supported"),
            ("{} | rate() {}", 13, "`by`, `with` or the end"),
        ] {
            let error = text.parse::<MetricsQuery>().expect_err(text);
            assert_eq!((error.line, error.column), (1, column), "{text}: {error}");
            assert!(error.to_string().contains(what), "{text}: {error}");
        }
    }
}
