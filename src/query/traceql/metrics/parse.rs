//! From words to a metrics query.

use std::str::FromStr;

use super::super::Filter;
use super::super::ast::{Arithmetic, Field};
use super::super::error::{Place, Problem, TraceQlError, shown};
use super::super::parse::Parser;
use super::super::spanset;
use super::super::token::{Token, TokenKind};
use super::{
    BY_FIELDS_MAX, COMPARED_VALUES, COMPARED_VALUES_MAX, HINTS, MetricsComparison, MetricsExpression, MetricsFunction,
    MetricsOperator, MetricsQuery, MetricsSource, MetricsStage, PARTS_MAX, QUANTILES_MAX, QUERIES_MAX, SpanMetrics,
    TOP_MAX, Threshold, is_numeric, no_number,
};
use crate::latency::Quantile;
use crate::model::UnixNanos;

const FUNCTION: &str = "a metrics function, such as rate() or quantile_over_time(duration, 0.99)";
/// What makes a text a metrics query.
const FUNCTIONS: [&str; 9] = [
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
];

impl FromStr for MetricsQuery {
    type Err = TraceQlError;

    fn from_str(text: &str) -> Result<Self, TraceQlError> {
        let mut reading = Reading { parser: Parser::new(text, Place::Metrics)?, parts: 0, queries: 0 };
        let expression = reading.expression()?;
        let parser = &mut reading.parser;
        let exemplars = if take_word(parser, "with") { hints(parser)? } else { None };
        if *parser.kind() != TokenKind::End {
            return Err(behind(parser));
        }
        Ok(Self { expression, exemplars })
    }
}

/// The error for what stands behind a whole query.
fn behind(parser: &Parser<'_>) -> TraceQlError {
    let start = parser.token().start;
    match parser.kind() {
        TokenKind::Sign(sign @ ("+" | "-" | "*" | "/")) => {
            let because = "put brackets around the query, as in ({ } | rate()) * 60";
            parser.unsupported(start, format!("`{sign}` behind a query without brackets"), because)
        }
        TokenKind::Sign(sign @ ("%" | "^" | "&&" | "||" | "=~" | "!~")) => {
            let because = "numbers over time take + - * / and comparisons";
            parser.unsupported(start, format!("`{sign}` behind metrics"), because)
        }
        _ => parser.unexpected("`by`, `with`, a second stage or the end"),
    }
}

/// A query while it is read.
struct Reading<'a> {
    parser: Parser<'a>,
    parts: usize,
    queries: usize,
}

impl Reading<'_> {
    /// Counts one part more.
    fn part(&mut self) -> Result<(), TraceQlError> {
        self.parts += 1;
        if self.parts <= PARTS_MAX {
            return Ok(());
        }
        let fault = format!("a metrics query has at most {PARTS_MAX} queries, numbers, brackets and stages");
        Err(self.fault(fault))
    }

    /// The error for the next word.
    fn fault(&self, fault: String) -> TraceQlError {
        let token = self.parser.token();
        self.parser.error(token.start, Problem::Word { word: shown(self.parser.word(token)), fault })
    }

    /// Numbers over time.
    fn expression(&mut self) -> Result<MetricsExpression, TraceQlError> {
        let start = self.parser.token().start;
        let expression = self.staged()?;
        if expression.is_constant() { Err(self.constant(start)) } else { Ok(expression) }
    }

    fn constant(&self, start: usize) -> TraceQlError {
        let because = "write a query such as { } | rate()";
        self.parser.unsupported(start, "a number without a query".to_owned(), because)
    }

    /// The same, or a number.
    fn staged(&mut self) -> Result<MetricsExpression, TraceQlError> {
        let start = self.parser.token().start;
        let mut expression = if self.is_arithmetic() { self.sum()? } else { self.pipeline()? };
        while let Some(stage) = self.stage()? {
            if expression.is_constant() {
                return Err(self.constant(start));
            }
            self.part()?;
            expression = MetricsExpression::Staged { of: Box::new(expression), stage };
        }
        Ok(expression)
    }

    /// Whether numbers or bracketed metrics come next, not the spans of a query.
    fn is_arithmetic(&self) -> bool {
        match self.parser.kind() {
            TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::Duration(_) | TokenKind::Sign("-") => true,
            TokenKind::Sign("(") => self.brackets_hold_metrics(),
            _ => false,
        }
    }

    /// Whether the next brackets hold a metrics function, or no filter at all: else they are a part of what finds spans.
    fn brackets_hold_metrics(&self) -> bool {
        let (mut depth, mut has_filter) = (0_usize, false);
        for at in 0.. {
            let token = self.parser.ahead(at);
            match token.kind {
                TokenKind::Sign("(") => depth += 1,
                TokenKind::Sign(")") => depth -= 1,
                TokenKind::Sign("{") => has_filter = true,
                TokenKind::Sign("|") => {
                    let next = self.parser.ahead(at + 1);
                    if next.kind == TokenKind::Name && FUNCTIONS.contains(&self.parser.word(next)) {
                        return true;
                    }
                }
                TokenKind::End => break,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        !has_filter
    }

    fn sum(&mut self) -> Result<MetricsExpression, TraceQlError> {
        let mut left = self.product()?;
        loop {
            let operator = match self.parser.kind() {
                TokenKind::Sign("+") => Arithmetic::Add,
                TokenKind::Sign("-") => Arithmetic::Subtract,
                _ => return Ok(left),
            };
            self.parser.pass();
            left = arithmetic(operator, left, self.product()?);
        }
    }

    fn product(&mut self) -> Result<MetricsExpression, TraceQlError> {
        let mut left = self.operand()?;
        loop {
            let operator = match self.parser.kind() {
                TokenKind::Sign("*") => Arithmetic::Multiply,
                TokenKind::Sign("/") => Arithmetic::Divide,
                _ => return Ok(left),
            };
            self.parser.pass();
            left = arithmetic(operator, left, self.operand()?);
        }
    }

    fn operand(&mut self) -> Result<MetricsExpression, TraceQlError> {
        self.part()?;
        if self.parser.take("(") {
            let inner = self.staged()?;
            self.parser.expect(")", "an operator, a second stage or `)`")?;
            return Ok(inner);
        }
        match self.number()? {
            Some(number) => Ok(MetricsExpression::Number(number)),
            None => Err(self.parser.unexpected("a number, or a query in brackets")),
        }
    }

    /// A number with its sign; durations in seconds.
    fn number(&mut self) -> Result<Option<f64>, TraceQlError> {
        let is_negative = self.parser.take("-");
        let number = match self.parser.kind() {
            TokenKind::Int(number) => *number as f64,
            TokenKind::Float(number) => *number,
            TokenKind::Duration(nanos) => *nanos as f64 / 1e9,
            _ if is_negative => return Err(self.parser.unexpected("a number")),
            _ => return Ok(None),
        };
        self.parser.pass();
        Ok(Some(if is_negative { -number } else { number }))
    }

    fn stage(&mut self) -> Result<Option<MetricsStage>, TraceQlError> {
        if *self.parser.kind() == TokenKind::Sign("|") {
            return self.top().map(Some);
        }
        let Some(comparison) = self.parser.take_comparison() else { return Ok(None) };
        match self.number()? {
            Some(number) => Ok(Some(MetricsStage::Threshold(Threshold { comparison, number }))),
            None => Err(self.parser.unexpected("a number to compare with")),
        }
    }

    fn top(&mut self) -> Result<MetricsStage, TraceQlError> {
        self.parser.pass();
        let stage = match self.parser.name() {
            "topk" => MetricsStage::Top,
            "bottomk" => MetricsStage::Bottom,
            _ => return Err(self.parser.unexpected("a second stage: topk(n) or bottomk(n)")),
        };
        self.parser.pass();
        self.parser.expect("(", "`(`")?;
        let n = self.count(TOP_MAX)?;
        self.parser.expect(")", "`)`")?;
        Ok(stage(n))
    }

    /// A whole number from 1 to `max`.
    fn count(&mut self, max: usize) -> Result<usize, TraceQlError> {
        let number = match self.parser.kind() {
            TokenKind::Int(number) => usize::try_from(*number).ok().filter(|number| (1..=max).contains(number)),
            _ => None,
        };
        let number = number.ok_or_else(|| self.fault(format!("a whole number from 1 to {max} stands here")))?;
        self.parser.pass();
        Ok(number)
    }

    fn pipeline(&mut self) -> Result<MetricsExpression, TraceQlError> {
        self.part()?;
        self.queries += 1;
        if QUERIES_MAX < self.queries {
            return Err(self.fault(format!("a metrics query is made of at most {QUERIES_MAX} queries")));
        }
        let source = self.source()?;
        if !self.parser.take("|") {
            return Err(self.parser.unexpected("`|` and a metrics function"));
        }
        let function = self.function()?;
        let start = self.parser.token().start;
        let by = if take_word(&mut self.parser, "by") { self.by()? } else { Vec::new() };
        if matches!(function, MetricsFunction::Compare(_)) && !by.is_empty() {
            let because = "it groups by every attribute";
            return Err(self.parser.unsupported(start, "`by` behind compare".to_owned(), because));
        }
        Ok(MetricsExpression::Spans(Box::new(SpanMetrics { source, function, by })))
    }

    /// What finds the spans.
    fn source(&mut self) -> Result<MetricsSource, TraceQlError> {
        let query = spanset::source(&mut self.parser)?;
        Ok(query.into_filter().map_or_else(MetricsSource::Related, MetricsSource::Filter))
    }

    fn function(&mut self) -> Result<MetricsFunction, TraceQlError> {
        let (start, name) = (self.parser.token().start, self.parser.name());
        if let "topk" | "bottomk" = name {
            return Err(self.parser.unsupported(start, shown(name), "write one of the functions over time"));
        }
        if !FUNCTIONS.contains(&name) {
            return Err(self.parser.unexpected(FUNCTION));
        }
        self.parser.pass();
        self.parser.expect("(", "`(`")?;
        let function = match name {
            "rate" => MetricsFunction::Rate,
            "count_over_time" => MetricsFunction::CountOverTime,
            "compare" => MetricsFunction::Compare(self.comparison()?),
            _ => {
                let field = self.numeric()?;
                match name {
                    "min_over_time" => MetricsFunction::MinOverTime(field),
                    "max_over_time" => MetricsFunction::MaxOverTime(field),
                    "avg_over_time" => MetricsFunction::AvgOverTime(field),
                    "sum_over_time" => MetricsFunction::SumOverTime(field),
                    "histogram_over_time" => MetricsFunction::HistogramOverTime(field),
                    _ => MetricsFunction::QuantileOverTime(field, self.quantiles()?),
                }
            }
        };
        self.parser.expect(")", "`)`")?;
        Ok(function)
    }

    fn numeric(&mut self) -> Result<Field, TraceQlError> {
        let start = self.parser.token().start;
        let field = self.parser.field()?;
        if is_numeric(&field) { Ok(field) } else { Err(self.parser.error(start, no_number(&field))) }
    }

    fn quantiles(&mut self) -> Result<Vec<Quantile>, TraceQlError> {
        let mut quantiles = Vec::new();
        while self.parser.take(",") {
            let number = match self.parser.kind() {
                TokenKind::Float(number) => Some(*number),
                TokenKind::Int(number) => i32::try_from(*number).ok().map(f64::from),
                _ => None,
            };
            let quantile = number.and_then(|number| Quantile::try_from(number).ok());
            let quantile = quantile.filter(|_| quantiles.len() < QUANTILES_MAX);
            quantiles.push(quantile.ok_or_else(|| {
                self.fault(format!("a quantile is a number from 0 to 1, and there are at most {QUANTILES_MAX}"))
            })?);
            self.parser.pass();
        }
        if quantiles.is_empty() {
            return Err(self.parser.unexpected("`,` and a quantile from 0 to 1"));
        }
        Ok(quantiles)
    }

    fn comparison(&mut self) -> Result<MetricsComparison, TraceQlError> {
        let selection = Filter { root: self.parser.braced()? };
        let top = if self.parser.take(",") { self.count(COMPARED_VALUES_MAX)? } else { COMPARED_VALUES };
        let mut within = None;
        if self.parser.take(",") {
            let start = self.instant()?;
            self.parser.expect(",", "`,` and the end of the selection in unix nanoseconds")?;
            let end = self.instant()?;
            if end <= start {
                return Err(self.fault(format!("the selection ends at {} and starts at {}", end.0, start.0)));
            }
            within = Some((start, end));
        }
        Ok(MetricsComparison { selection, top, within })
    }

    fn instant(&mut self) -> Result<UnixNanos, TraceQlError> {
        let nanos = match self.parser.kind() {
            TokenKind::Int(nanos) => u64::try_from(*nanos).ok().filter(|nanos| 0 < *nanos),
            _ => None,
        };
        let nanos = nanos.ok_or_else(|| self.fault("unix nanoseconds stand here".to_owned()))?;
        self.parser.pass();
        Ok(UnixNanos(nanos))
    }

    fn by(&mut self) -> Result<Vec<(Field, String)>, TraceQlError> {
        self.parser.expect("(", "`(`")?;
        let mut fields: Vec<(Field, String)> = Vec::new();
        loop {
            let start = self.parser.token().start;
            let field = self.parser.field()?;
            if BY_FIELDS_MAX <= fields.len() {
                let what = format!("`by` of more than {BY_FIELDS_MAX} fields");
                return Err(self.parser.unsupported(start, what, "name fewer"));
            }
            if fields.iter().any(|(known, _)| *known == field) {
                return Err(self.parser.unsupported(start, format!("{field} twice in `by`"), "name it once"));
            }
            let written = self.parser.since(start).to_owned();
            fields.push((field, written));
            if !self.parser.take(",") {
                break;
            }
        }
        self.parser.expect(")", "`,` or `)`")?;
        Ok(fields)
    }
}

fn arithmetic(operator: Arithmetic, left: MetricsExpression, right: MetricsExpression) -> MetricsExpression {
    MetricsExpression::Arithmetic { operator: MetricsOperator(operator), left: Box::new(left), right: Box::new(right) }
}

fn take_word(parser: &mut Parser<'_>, wanted: &str) -> bool {
    let found = parser.name() == wanted;
    if found {
        parser.pass();
    }
    found
}

/// How many exemplars the hints ask for, if they do.
pub(in crate::query::traceql) fn hints(parser: &mut Parser<'_>) -> Result<Option<usize>, TraceQlError> {
    let mut exemplars = None;
    parser.expect("(", "`(`")?;
    loop {
        let (start, name) = (parser.token().start, parser.name());
        parser.pass();
        parser.expect("=", "`=`")?;
        let value: Token = parser.token().clone();
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
    parser.expect(")", "`,` or `)`")?;
    Ok(exemplars)
}
