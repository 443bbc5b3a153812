//! The words of TraceQL.
//!
//! They are those of Tempo's lexer (`pkg/traceql/lexer.go`). An attribute's name begins behind its scope and goes on to a
//! space or one of `{}()=~!<>&|^,`: `.a-1` is a name, `.a - 1` a subtraction.

use winnow::ascii::{digit1, multispace0};
use winnow::combinator::{alt, delimited, not, opt, preceded, repeat};
use winnow::error::{ContextError, ErrMode, ParserError as _};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location as _};
use winnow::token::{any, one_of, take_till, take_while};

use super::ast::{AttributeScope, is_attribute_char};
use super::error::{Problem, TraceQlError, shown};

/// A word and the bytes it takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// Signs: operators and brackets.
    Sign(&'static str),
    /// `duration`, `ok`, `and`.
    Name,
    /// `span:duration`.
    Scoped,
    Attribute(AttributeScope, String),
    String(String),
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Behind the last one.
    End,
}

type Input<'a> = LocatingSlice<&'a str>;
type Lexed<T> = winnow::Result<T, ErrMode<ContextError>>;

/// The longest first, so that none hides another. `==` is no operator; as a word it gives a better error.
const SIGNS: [&str; 42] = [
    "&>>", "&<<", "!>>", "!<<", "==", "&&", "||", "!=", "!~", "=~", "<=", ">=", ">>", "<<", "!>", "!<", "&~", "&>",
    "&<", "{", "}", "(", ")", "[", "]", "=", "<", ">", "+", "-", "*", "/", "%", "^", "!", "|", "~", "&", ",", ".", ":",
    "'",
];

/// The words of `text`, the last one being its end.
///
/// # Errors
/// Characters that begin no word, numbers out of range, texts without an end.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TraceQlError> {
    let mut input = LocatingSlice::new(text);
    let mut found = Vec::new();
    loop {
        let _space = multispace0::<_, ErrMode<ContextError>>.parse_next(&mut input).unwrap_or_default();
        let start = input.current_token_start();
        if input.is_empty() {
            found.push(Token { kind: TokenKind::End, start, end: start });
            return Ok(found);
        }
        let before = input.checkpoint();
        let Ok(kind) = token.parse_next(&mut input) else {
            input.reset(&before);
            return Err(no_word(text, start));
        };
        let end = input.current_token_start();
        let kind = kind.map_err(|(at, fault)| {
            let word = shown(text.get(start..end.max(start + 1)).unwrap_or_default());
            TraceQlError::at(text, at, Problem::Word { word, fault })
        })?;
        found.push(Token { kind, start, end });
    }
}

fn no_word(text: &str, at: usize) -> TraceQlError {
    let found = shown(text.get(at..).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default());
    TraceQlError::at(text, at, Problem::Unexpected { found, expected: "a word of TraceQL", remedy: None })
}

/// A word, or where one that was begun goes wrong and how.
type Word = Result<TokenKind, (usize, String)>;

fn token(input: &mut Input<'_>) -> Lexed<Word> {
    alt((quoted, raw, number, attribute.map(Ok), name.map(Ok), sign.map(Ok))).parse_next(input)
}

fn sign(input: &mut Input<'_>) -> Lexed<TokenKind> {
    let sign = SIGNS.into_iter().find(|sign| input.starts_with(*sign));
    let sign = sign.ok_or_else(|| ErrMode::from_input(&*input))?;
    sign.value(TokenKind::Sign(sign)).parse_next(input)
}

fn identifier<'a>(input: &mut Input<'a>) -> Lexed<&'a str> {
    let first = one_of(|c: char| c.is_alphabetic() || c == '_');
    let rest = take_while(0.., |c: char| c.is_alphanumeric() || c == '_');
    (first, rest).take().parse_next(input)
}

fn name(input: &mut Input<'_>) -> Lexed<TokenKind> {
    let scope = alt(("trace", "span", "event", "link", "instrumentation"));
    alt(((scope, ':', identifier).value(TokenKind::Scoped), identifier.value(TokenKind::Name))).parse_next(input)
}

fn attribute(input: &mut Input<'_>) -> Lexed<TokenKind> {
    let scoped = alt((
        "parent.resource.".value(AttributeScope::ParentResource),
        "parent.span.".value(AttributeScope::ParentSpan),
        "parent.".value(AttributeScope::Parent),
        "resource.".value(AttributeScope::Resource),
        "span.".value(AttributeScope::Span),
        "event.".value(AttributeScope::Event),
        "link.".value(AttributeScope::Link),
        "instrumentation.".value(AttributeScope::Instrumentation),
        ".".value(AttributeScope::Unscoped),
    ));
    (scoped, key).map(|(scope, key)| TokenKind::Attribute(scope, key)).parse_next(input)
}

/// Pieces in quotes and out of them, at least one character.
fn key(input: &mut Input<'_>) -> Lexed<String> {
    let in_quotes = delimited('"', repeat(0.., quoted_key_char).fold(String::new, push_char), '"');
    let plain = take_while(1.., |c: char| is_attribute_char(c) && c != '"').map(str::to_owned);
    let pieces = repeat(1.., alt((in_quotes, plain))).fold(String::new, |mut key: String, piece: String| {
        key.push_str(&piece);
        key
    });
    pieces.verify(|key: &String| !key.is_empty()).parse_next(input)
}

fn push_char(mut text: String, c: char) -> String {
    text.push(c);
    text
}

/// Only `\"` and `\\` are escapes in a name.
fn quoted_key_char(input: &mut Input<'_>) -> Lexed<char> {
    alt((preceded('\\', one_of(['"', '\\'])), any.verify(|c: &char| !matches!(c, '"' | '\\')))).parse_next(input)
}

fn raw(input: &mut Input<'_>) -> Lexed<Word> {
    let start = input.current_token_start();
    let text: &str = preceded('`', take_till(0.., '`')).parse_next(input)?;
    let text = text.to_owned();
    Ok(match opt('`').parse_next(input)? {
        Some(_) => Ok(TokenKind::String(text)),
        None => Err((start, "the text has no end, which is another `".to_owned())),
    })
}

const ESCAPES: &str = "escapes are \\\" \\\\ \\n \\r \\t \\a \\b \\f \\v \\xNN below 80, \\uNNNN and \\UNNNNNNNN; a text in \
                       `backquotes` has none";

fn quoted(input: &mut Input<'_>) -> Lexed<Word> {
    let start = input.current_token_start();
    let _quote = '"'.parse_next(input)?;
    let mut text = String::new();
    loop {
        let at = input.current_token_start();
        let next: Option<char> = opt(any).parse_next(input)?;
        match next {
            None | Some('\n') => return Ok(Err((start, "the text has no end, which is another \"".to_owned()))),
            Some('"') => return Ok(Ok(TokenKind::String(text))),
            Some('\\') => {
                let Some(c) = opt(escape).parse_next(input)?.flatten() else {
                    return Ok(Err((at, ESCAPES.to_owned())));
                };
                text.push(c);
            }
            Some(c) => text.push(c),
        }
    }
}

/// What stands behind a backslash; `None` when it is no character.
fn escape(input: &mut Input<'_>) -> Lexed<Option<char>> {
    let digits = |n: usize| {
        let hex = take_while(n..=n, |c: char| c.is_ascii_hexdigit());
        hex.map(|digits: &str| u32::from_str_radix(digits, 16).ok())
    };
    let below_80 = |code: Option<u32>| code.filter(|code| *code < 0x80).and_then(char::from_u32);
    let unicode = |code: Option<u32>| code.and_then(char::from_u32);
    let simple = |c: char| match c {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'v' => '\x0b',
        quote_or_backslash => quote_or_backslash,
    };
    alt((
        one_of(['"', '\\', 'n', 'r', 't', 'a', 'b', 'f', 'v']).map(simple).map(Some),
        preceded('x', digits(2)).map(below_80),
        preceded('u', digits(4)).map(unicode),
        preceded('U', digits(8)).map(unicode),
    ))
    .parse_next(input)
}

/// A number, or several with units behind them: a duration.
fn number(input: &mut Input<'_>) -> Lexed<Word> {
    let start = input.current_token_start();
    let durations: Vec<(&str, i64)> = repeat(0.., (decimal, unit)).parse_next(input)?;
    if !durations.is_empty() {
        let no_more = not(one_of(|c: char| c.is_alphanumeric() || c == '.'));
        return Ok(match opt(no_more).parse_next(input)? {
            Some(()) => duration(&durations).map_err(|fault| (start, fault)),
            None => Err((start, "a duration is made of numbers and units: ns us ms s m h d w y".to_owned())),
        });
    }
    let exponent = opt((one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1));
    let text: &str = (decimal, exponent).take().parse_next(input)?;
    let behind: &str = take_while(0.., |c: char| c.is_alphanumeric() || c == '_').parse_next(input)?;
    let text = text.to_owned();
    if !behind.is_empty() {
        return Ok(Err((
            start,
            "a number has digits alone, a duration one of the units ns us ms s m h d w y".to_owned(),
        )));
    }
    if text.contains(['.', 'e', 'E']) {
        let fault = || (start, "no number that a 64-bit float can hold".to_owned());
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        return Ok(number.map(TokenKind::Float).ok_or_else(fault));
    }
    let fault =
        || (start, "no whole number above 9223372036854775807 fits; minInt and maxInt name the ends".to_owned());
    Ok(text.parse().map(TokenKind::Int).map_err(|_| fault()))
}

/// `12`, `1.5` or `.5`, without a sign.
fn decimal<'a>(input: &mut Input<'a>) -> Lexed<&'a str> {
    let fraction = |input: &mut Input<'a>| ('.', digit1).void().parse_next(input);
    alt(((digit1, opt(('.', digit1))).void(), fraction)).take().parse_next(input)
}

/// Nanoseconds of a unit.
fn unit(input: &mut Input<'_>) -> Lexed<i64> {
    const SECOND: i64 = 1_000_000_000;
    const DAY: i64 = 86_400 * SECOND;
    let units = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", SECOND),
        ("m", 60 * SECOND),
        ("h", 3_600 * SECOND),
        ("d", DAY),
        ("w", 7 * DAY),
        ("y", 365 * DAY),
    ];
    alt(units.map(|(name, nanos)| name.value(nanos))).parse_next(input)
}

fn duration(parts: &[(&str, i64)]) -> Result<TokenKind, String> {
    let nanos = parts.iter().try_fold(0_i64, |sum, (number, unit)| sum.checked_add(nanos_of(number, *unit)?));
    nanos.map(TokenKind::Duration).ok_or_else(|| "no duration above 292 years fits".to_owned())
}

/// Exact where the digits are; below a nanosecond they are cut.
fn nanos_of(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = i128::from(whole) * i128::from(unit);
    let mut digits = 0_i128;
    // A year has 17 digits of nanoseconds.
    for digit in fraction.bytes().take(18) {
        digits = digits * 10 + i128::from(digit - b'0');
    }
    let scale = 10_i128.pow(u32::try_from(fraction.len().min(18)).ok()?);
    nanos += digits * i128::from(unit) / scale;
    i64::try_from(nanos).ok()
}
