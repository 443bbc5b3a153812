//! From words to a tree, by the strength of operators.
//!
//! ```text
//! filter   = "{" [ expr ] "}" | expr
//! expr     = expr operator expr | ("!" | "-") expr | "(" expr ")" | literal | field | "nil" beside = or !=
//! operator   from the weakest, in groups of equal strength, from left to right:
//!            && ||    = != < <= > >= =~ !~    + -    * / %    ^ (from right to left)
//! signs      - as strong as the binary one; ! between - and *
//! ```
//! Tempo's table (`pkg/traceql/expr.y`): `&&` and `||` are equally strong there, so `a || b && c` is `(a || b) && c`.
//!
//! Written by hand on the words that `token` finds: it counts how deep it is, and says what it found and expected.

use regex::RegexBuilder;

use super::ast::{Arithmetic, Comparison, Expression, Field, Intrinsic, Literal, Pattern, is_attribute_char};
use super::error::{Place, Problem, TraceQlError, shown};
use super::normal::{exists, negative, padded_ids, root};
use super::token::{Token, TokenKind, tokens};
use super::types::{check, is_condition};
use super::value::KINDS;
use crate::limits::{TRACEQL_BYTES_MAX, TRACEQL_DEPTH_MAX, TRACEQL_REGEX_BYTES_MAX};

/// Strengths of operators, ascending.
const LOGIC: u8 = 1;
const COMPARISON: u8 = 2;
const SUM: u8 = 3;
const NOT: u8 = 4;
const PRODUCT: u8 = 5;
const POWER: u8 = 6;

const OPERAND: &str = "a field, a value, `!`, `-` or `(`";
const OPERATOR: &str = "an operator or the end";

/// A binary operator.
#[derive(Clone, Copy)]
enum Operator {
    Logic { is_and: bool },
    Binary(Binary),
}

/// One that is not a chain.
#[derive(Clone, Copy)]
enum Binary {
    Compare(Comparison),
    Match { negated: bool },
    Arithmetic(Arithmetic),
}

/// An operand while its parent is looked for.
struct Parsed {
    /// `None` for `nil`.
    expression: Option<Expression>,
    /// Where it begins.
    start: usize,
    /// Operators inside each other.
    depth: usize,
    /// Whether it stands in brackets, so that no chain goes on in it.
    closed: bool,
}

/// Parses a filter, with its braces or without.
pub(super) fn parse_filter(text: &str) -> Result<Expression, TraceQlError> {
    let mut parser = Parser::new(text, Place::Where)?;
    let braced = parser.peek_is("{");
    let expression = if braced { parser.braced()? } else { parser.condition()? };
    parser.end(braced)?;
    Ok(expression)
}

/// Parses a field on its own.
pub(super) fn parse_field(text: &str) -> Result<Field, TraceQlError> {
    let mut parser = Parser::new(text, Place::By)?;
    let field = parser.field()?;
    if *parser.kind() != TokenKind::End {
        return Err(parser.unexpected("the end behind one field"));
    }
    Ok(field)
}

pub(super) struct Parser<'a> {
    text: &'a str,
    place: Place,
    tokens: Vec<Token>,
    /// The next one.
    at: usize,
    /// Brackets and signs around.
    depth: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, place: Place) -> Result<Self, TraceQlError> {
        if TRACEQL_BYTES_MAX < text.len() {
            return Err(TraceQlError::at(text, 0, Problem::TooLong { bytes: text.len() }));
        }
        Ok(Self { text, place, tokens: tokens(text)?, at: 0, depth: 0 })
    }

    pub(super) fn token(&self) -> &Token {
        const NONE: &Token = &Token { kind: TokenKind::End, start: 0, end: 0 };
        self.tokens.get(self.at).or(self.tokens.last()).unwrap_or(NONE)
    }

    pub(super) fn kind(&self) -> &TokenKind {
        &self.token().kind
    }

    pub(super) fn word(&self, token: &Token) -> &'a str {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    /// The word `n` words behind the next one.
    pub(super) fn ahead(&self, n: usize) -> &Token {
        self.tokens.get(self.at + n).or(self.tokens.last()).unwrap_or(self.token())
    }

    /// The text from `start` to the end of the last word that was passed by.
    pub(super) fn since(&self, start: usize) -> &'a str {
        let last = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        self.text.get(start..last.map_or(start, |last| last.end)).unwrap_or_default()
    }

    pub(super) fn peek_is(&self, sign: &str) -> bool {
        matches!(self.kind(), TokenKind::Sign(found) if *found == sign)
    }

    /// Passes by the next word.
    pub(super) fn pass(&mut self) {
        self.at += 1;
    }

    pub(super) fn take(&mut self, sign: &str) -> bool {
        let found = self.peek_is(sign);
        self.at += usize::from(found);
        found
    }

    /// Passes by a comparison, when one comes next.
    pub(super) fn take_comparison(&mut self) -> Option<Comparison> {
        let TokenKind::Sign(sign) = self.kind() else { return None };
        let comparison = Comparison::of_sign(sign)?;
        self.pass();
        Some(comparison)
    }

    /// Passes by a sign, or says what was expected.
    pub(super) fn expect(&mut self, sign: &str, expected: &'static str) -> Result<(), TraceQlError> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// The next word, when it is a name.
    pub(super) fn name(&self) -> &'a str {
        if *self.kind() == TokenKind::Name { self.word(self.token()) } else { "" }
    }

    /// Whether this sign is the next one, or comes behind nothing but opening brackets.
    pub(super) fn first_behind_brackets_is(&self, sign: &str) -> bool {
        let mut rest = self.tokens.get(self.at..).unwrap_or_default().iter();
        let first = rest.find(|token| token.kind != TokenKind::Sign("("));
        first.is_some_and(|token| matches!(token.kind, TokenKind::Sign(found) if found == sign))
    }

    pub(super) fn error(&self, at: usize, problem: Problem) -> TraceQlError {
        TraceQlError::at(self.text, at, problem)
    }

    pub(super) fn unsupported(&self, at: usize, what: String, because: &'static str) -> TraceQlError {
        self.error(at, Problem::Unsupported { what, place: self.place, because })
    }

    /// The error for the next word, where something else should be.
    pub(super) fn unexpected(&self, expected: &'static str) -> TraceQlError {
        let token = self.token();
        if let Some(error) = self.structural(token) {
            return error;
        }
        let found = if token.kind == TokenKind::End { "the end".to_owned() } else { shown(self.word(token)) };
        let remedy = self.remedy(token);
        self.error(token.start, Problem::Unexpected { found, expected, remedy })
    }

    /// The error for operators that TraceQL has between spans, not inside of one.
    fn structural(&self, token: &Token) -> Option<TraceQlError> {
        const BETWEEN_SPANS: [&str; 13] =
            ["|", ">>", "<<", "!>", "!<", "!>>", "!<<", "~", "&~", "&>", "&<", "&>>", "&<<"];
        let TokenKind::Sign(sign) = token.kind else { return None };
        if matches!(self.place, Place::Search | Place::Metrics) || !BETWEEN_SPANS.contains(&sign) {
            return None;
        }
        let because = if sign == "|" {
            "a pipeline works on the spans that a filter found, this is the filter alone"
        } else {
            "it relates spans of a trace to each other, the filter looks at one span"
        };
        Some(self.unsupported(token.start, shown(sign), because))
    }

    fn remedy(&self, token: &Token) -> Option<String> {
        match (&token.kind, self.word(token)) {
            (TokenKind::Sign("=="), _) => Some("equality is one `=`".to_owned()),
            (TokenKind::Sign("'"), _) => Some("texts stand in \"double quotes\" or `backquotes`".to_owned()),
            (TokenKind::Sign("."), _) => Some("the name of an attribute follows its dot at once".to_owned()),
            (TokenKind::Sign("&"), _) | (TokenKind::Name, "and" | "AND") => Some("write `&&`".to_owned()),
            (TokenKind::Name, "or" | "OR") => Some("write `||`".to_owned()),
            (TokenKind::Name, "not" | "NOT") => Some("write `!( .. )`".to_owned()),
            (TokenKind::Name, "in" | "IN") => Some("write one `=` for each value, with `||` between them".to_owned()),
            _ => None,
        }
    }

    /// What may stand behind a whole filter: nothing.
    fn end(&self, braced: bool) -> Result<(), TraceQlError> {
        let token = self.token();
        match token.kind {
            TokenKind::End => Ok(()),
            TokenKind::Sign(sign @ ("&&" | "||" | ">" | "<" | "!~")) if braced => {
                let because = "it combines the spans of several filters; conditions on the same span stand in one pair \
                               of braces, with && or || between them";
                Err(self.unsupported(token.start, format!("`{{..}} {sign} {{..}}`"), because))
            }
            _ => Err(self.unexpected(if braced { "the end" } else { OPERATOR })),
        }
    }

    /// `{ .. }`
    pub(super) fn braced(&mut self) -> Result<Expression, TraceQlError> {
        if !self.take("{") {
            return Err(self.unexpected("`{`"));
        }
        if self.take("}") {
            return Ok(Expression::Literal(Literal::Bool(true)));
        }
        let condition = self.condition()?;
        if self.take("}") { Ok(condition) } else { Err(self.unexpected("an operator or `}`")) }
    }

    fn condition(&mut self) -> Result<Expression, TraceQlError> {
        let start = self.token().start;
        let expression = self.value()?;
        is_condition(&expression).map_err(|problem| self.error(start, problem))?;
        Ok(expression)
    }

    /// What an expression is, whatever its type.
    pub(super) fn value(&mut self) -> Result<Expression, TraceQlError> {
        let parsed = self.expression(LOGIC)?;
        let start = parsed.start;
        parsed.expression.ok_or_else(|| self.lonely_nil(start))
    }

    fn lonely_nil(&self, at: usize) -> TraceQlError {
        let remedy = Some("write `field != nil` for a field that is there".to_owned());
        self.error(at, Problem::Unexpected { found: "`nil`".to_owned(), expected: "a value that can be used", remedy })
    }

    /// One field that a span has one value of at most.
    pub(super) fn field(&mut self) -> Result<Field, TraceQlError> {
        let (at, start) = (self.at, self.token().start);
        let Some(Expression::Field(field)) = self.operand()?.expression else {
            self.at = at;
            return Err(self.unexpected("one field, such as name or span.http.route"));
        };
        if field.is_of_items() {
            let because = "a span has several values of it: one per event or link";
            return Err(self.unsupported(start, field.to_string(), because));
        }
        Ok(field)
    }

    /// An operand and what follows it as long as it is at least as strong as `weakest`.
    fn expression(&mut self, weakest: u8) -> Result<Parsed, TraceQlError> {
        let mut left = self.operand()?;
        while let Some((operator, strength)) = self.operator().filter(|(_, strength)| weakest <= *strength) {
            self.at += 1;
            let right = if strength == POWER {
                self.deeper(|parser| parser.expression(POWER))?
            } else {
                self.expression(strength + 1)?
            };
            left = match operator {
                Operator::Logic { is_and } => self.chain(is_and, left, right)?,
                Operator::Binary(operator) => self.binary(operator, left, right)?,
            };
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(Operator, u8)> {
        let TokenKind::Sign(sign) = self.kind() else { return None };
        let compare = |comparison| (Operator::Binary(Binary::Compare(comparison)), COMPARISON);
        let matching = |negated| (Operator::Binary(Binary::Match { negated }), COMPARISON);
        let arithmetic = |operator, strength| (Operator::Binary(Binary::Arithmetic(operator)), strength);
        Some(match *sign {
            "&&" => (Operator::Logic { is_and: true }, LOGIC),
            "||" => (Operator::Logic { is_and: false }, LOGIC),
            "=" => compare(Comparison::Equal),
            "!=" => compare(Comparison::NotEqual),
            "<" => compare(Comparison::Less),
            "<=" => compare(Comparison::LessOrEqual),
            ">" => compare(Comparison::Greater),
            ">=" => compare(Comparison::GreaterOrEqual),
            "=~" => matching(false),
            "!~" => matching(true),
            "+" => arithmetic(Arithmetic::Add, SUM),
            "-" => arithmetic(Arithmetic::Subtract, SUM),
            "*" => arithmetic(Arithmetic::Multiply, PRODUCT),
            "/" => arithmetic(Arithmetic::Divide, PRODUCT),
            "%" => arithmetic(Arithmetic::Modulo, PRODUCT),
            "^" => arithmetic(Arithmetic::Power, POWER),
            _ => return None,
        })
    }

    /// Runs `inner` one level below.
    pub(super) fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, TraceQlError>,
    ) -> Result<T, TraceQlError> {
        self.depth += 1;
        if TRACEQL_DEPTH_MAX < self.depth {
            return Err(self.error(self.token().start, Problem::TooDeep));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn operand(&mut self) -> Result<Parsed, TraceQlError> {
        let start = self.token().start;
        if self.take("(") {
            let inner = self.deeper(|parser| parser.expression(LOGIC))?;
            if !self.take(")") {
                return Err(self.unexpected("an operator or `)`"));
            }
            return Ok(Parsed { start, closed: true, ..inner });
        }
        if self.take("!") {
            let inner = self.deeper(|parser| parser.expression(NOT + 1))?;
            return self.signed(start, inner, |operand| Expression::Not(Box::new(operand)));
        }
        if self.take("-") {
            let inner = self.deeper(|parser| parser.expression(SUM + 1))?;
            return self.signed(start, inner, negative);
        }
        if self.is_about_roots() {
            self.at += 3;
            return self.nested(start, 1, root());
        }
        let token = self.token().clone();
        let expression = match token.kind.clone() {
            TokenKind::String(text) => Some(Expression::Literal(Literal::String(text))),
            TokenKind::Int(number) => Some(Expression::Literal(Literal::Int(number))),
            TokenKind::Float(number) => Some(Expression::Literal(Literal::Float(number))),
            TokenKind::Duration(nanos) => Some(Expression::Literal(Literal::Duration(nanos))),
            TokenKind::Attribute(scope, key) => Some(Expression::Field(Field::Attribute { scope, key })),
            TokenKind::Scoped => Some(self.scoped(&token)?),
            TokenKind::Name => self.named(&token)?,
            TokenKind::Sign(_) | TokenKind::End => return Err(self.unexpected(OPERAND)),
        };
        if let Some(Expression::Field(field)) = &expression
            && field.is_of_trace()
            && self.place != Place::Search
        {
            return Err(self.of_other_spans(start, &token));
        }
        self.at += 1;
        Ok(Parsed { expression, start, depth: 1, closed: false })
    }

    /// Whether a condition `nestedSetParent < 0` comes next: the one of its kind that a span can tell alone, and which Grafana
    /// writes for "root spans".
    fn is_about_roots(&self) -> bool {
        let is_condition = |before: &Token| matches!(before.kind, TokenKind::Sign("{" | "(" | "&&" | "||"));
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let next = self.tokens.get(self.at..).unwrap_or_default();
        let [name, less, zero, ..] = next else { return false };
        before.is_none_or(is_condition)
            && self.word(name) == "nestedSetParent"
            && less.kind == TokenKind::Sign("<")
            && zero.kind == TokenKind::Int(0)
    }

    fn signed(
        &self,
        start: usize,
        inner: Parsed,
        sign: impl FnOnce(Expression) -> Expression,
    ) -> Result<Parsed, TraceQlError> {
        let operand = inner.expression.ok_or_else(|| self.lonely_nil(inner.start))?;
        self.nested(start, inner.depth, sign(operand))
    }

    fn nested(&self, start: usize, depth_of_operands: usize, expression: Expression) -> Result<Parsed, TraceQlError> {
        let depth = depth_of_operands + 1;
        if TRACEQL_DEPTH_MAX < depth {
            return Err(self.error(start, Problem::TooDeep));
        }
        check(&expression).map_err(|problem| self.error(start, problem))?;
        Ok(Parsed { expression: Some(expression), start, depth, closed: false })
    }

    fn binary(&self, operator: Binary, left: Parsed, right: Parsed) -> Result<Parsed, TraceQlError> {
        let (start, depth, right_start) = (left.start, left.depth.max(right.depth), right.start);
        let (left, right) = match (operator, left.expression, right.expression) {
            (Binary::Compare(comparison @ (Comparison::Equal | Comparison::NotEqual)), left, None)
            | (Binary::Compare(comparison @ (Comparison::Equal | Comparison::NotEqual)), None, left) => {
                let exists = exists(left, comparison == Comparison::Equal);
                return self.nested(start, depth, exists);
            }
            (_, Some(left), Some(right)) => (left, right),
            (_, None, _) => return Err(self.lonely_nil(start)),
            (_, _, None) => return Err(self.lonely_nil(right_start)),
        };
        let (left, right) = (Box::new(left), Box::new(right));
        let expression = match operator {
            Binary::Compare(operator) => {
                let (left, right) = padded_ids(left, right);
                Expression::Compare { operator, left, right }
            }
            Binary::Arithmetic(operator) => Expression::Arithmetic { operator, left, right },
            Binary::Match { negated } => {
                Expression::Matches { text: left, pattern: self.pattern(&right, right_start)?, negated }
            }
        };
        self.nested(start, depth, expression)
    }

    /// `left && right`: one more part when `left` is such a chain already.
    fn chain(&self, is_and: bool, left: Parsed, right: Parsed) -> Result<Parsed, TraceQlError> {
        let is_part = |part: &Parsed| match &part.expression {
            Some(expression) => is_condition(expression).map_err(|problem| self.error(part.start, problem)),
            None => Err(self.lonely_nil(part.start)),
        };
        is_part(&left)?;
        is_part(&right)?;
        let (start, below) = (left.start, left.depth.saturating_sub(1));
        let (mut parts, depth) = match left.expression {
            Some(Expression::All(parts)) if is_and && !left.closed => (parts, below.max(right.depth)),
            Some(Expression::Any(parts)) if !is_and && !left.closed => (parts, below.max(right.depth)),
            other => (other.into_iter().collect(), left.depth.max(right.depth)),
        };
        parts.extend(right.expression);
        self.nested(start, depth, if is_and { Expression::All(parts) } else { Expression::Any(parts) })
    }

    fn pattern(&self, expression: &Expression, at: usize) -> Result<Pattern, TraceQlError> {
        let Expression::Literal(Literal::String(text)) = expression else {
            let found = shown(&expression.to_string());
            let remedy = Some("=~ and !~ take a regular expression in quotes".to_owned());
            return Err(self.error(at, Problem::Unexpected { found, expected: "a text", remedy }));
        };
        // As Prometheus and Tempo anchor them, the dot taking newlines too.
        let whole = format!("^(?s:{text})$");
        let built = RegexBuilder::new(&whole).size_limit(TRACEQL_REGEX_BYTES_MAX).build();
        // A bracket too many must not break out of the group around it.
        let alone = RegexBuilder::new(text).size_limit(TRACEQL_REGEX_BYTES_MAX).build();
        match alone.and(built) {
            Ok(regex) => Ok(Pattern { text: text.clone(), regex }),
            Err(error) => {
                let fault = match &error {
                    regex::Error::CompiledTooBig(_) => "the pattern is too large once compiled; shorten it".to_owned(),
                    _ => format!("no regular expression: {}", last_line(&error.to_string())),
                };
                Err(self.error(at, Problem::Word { word: shown(text), fault }))
            }
        }
    }

    fn named(&self, token: &Token) -> Result<Option<Expression>, TraceQlError> {
        let literal = |literal| Ok(Some(Expression::Literal(literal)));
        let word = self.word(token);
        match word {
            "nil" => Ok(None),
            "true" => literal(Literal::Bool(true)),
            "false" => literal(Literal::Bool(false)),
            "unset" => literal(Literal::Status(0)),
            "ok" => literal(Literal::Status(1)),
            "error" => literal(Literal::Status(2)),
            "minInt" => literal(Literal::Int(i64::MIN)),
            "maxInt" => literal(Literal::Int(i64::MAX)),
            _ => {
                if let Some(intrinsic) = Intrinsic::of_name(word) {
                    return Ok(Some(Expression::Field(Field::Intrinsic(intrinsic))));
                }
                let kind = (0..).zip(KINDS).find(|(_, name)| *name == word);
                kind.map_or_else(|| Err(self.unknown_name(token, word)), |(number, _)| literal(Literal::Kind(number)))
            }
        }
    }

    fn unknown_name(&self, token: &Token, word: &str) -> TraceQlError {
        const AGGREGATES: [&str; 5] = ["count", "avg", "max", "min", "sum"];
        const STAGES: [&str; 14] = [
            "by",
            "coalesce",
            "select",
            "rate",
            "count_over_time",
            "min_over_time",
            "max_over_time",
            "avg_over_time",
            "sum_over_time",
            "quantile_over_time",
            "histogram_over_time",
            "compare",
            "topk",
            "bottomk",
        ];
        match word {
            "parent" => self.unsupported(
                token.start,
                shown(word),
                "name an attribute of it, such as parent.span.http.route, or ask for span:parentID",
            ),
            _ if AGGREGATES.contains(&word) => {
                self.unsupported(token.start, shown(word), "it counts over several spans, the filter looks at one")
            }
            _ if STAGES.contains(&word) || word == "with" => {
                self.unsupported(token.start, shown(word), "it is a stage of a pipeline, this is the filter alone")
            }
            _ => {
                let mut error = self.unexpected(OPERAND);
                if let Problem::Unexpected { remedy: remedy @ None, .. } = &mut error.problem {
                    *remedy = Some(self.scopes_of(token));
                }
                error
            }
        }
    }

    /// How a name without a scope is written.
    fn scopes_of(&self, token: &Token) -> String {
        let rest = self.text.get(token.start..).unwrap_or_default();
        let name = rest.split(|c: char| !is_attribute_char(c)).next().unwrap_or_default();
        if name.ends_with('.') {
            return "the name of an attribute follows its dot at once".to_owned();
        }
        format!("an attribute has its scope in front: span.{name}, resource.{name}, or .{name} for either")
    }

    fn scoped(&self, token: &Token) -> Result<Expression, TraceQlError> {
        let word = self.word(token);
        let known = Intrinsic::ALL.into_iter().filter(|intrinsic| intrinsic.as_str().contains(':'));
        if let Some(intrinsic) = known.clone().find(|intrinsic| intrinsic.as_str() == word) {
            return Ok(Expression::Field(Field::Intrinsic(intrinsic)));
        }
        let names: Vec<&str> = known.map(Intrinsic::as_str).collect();
        let remedy = Some(format!("there are {}; attributes have a dot: span.name", names.join(", ")));
        Err(self.error(token.start, Problem::Unexpected { found: shown(word), expected: "an intrinsic", remedy }))
    }

    fn of_other_spans(&self, at: usize, token: &Token) -> TraceQlError {
        self.unsupported(
            at,
            shown(self.word(token)),
            "it needs other spans of the trace, and each span is looked at alone",
        )
    }
}

/// The regex crate draws the place over several lines and says what is wrong in the last.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}
