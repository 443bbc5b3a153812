//! Values of fields, and what operators make of them.
//!
//! The rules are those of Grafana Tempo (`BinaryOperation.execute` in its `pkg/traceql/ast_execute.go`, `Static.Equals` in
//! `ast.go`, `binaryTypesValid` in `enum_operators.go`; version 3.0), and hold for every operator alike:
//!
//! - What is missing compares with nothing: not even `!=` holds. Only `= nil` and `!= nil` ask for it.
//! - Values of different types compare with nothing either, `!=` included: `.code != "500"` does not hold for the number 500.
//!   Numbers are of one type: whole ones, fractions and durations in nanoseconds compare as numbers.
//! - Texts compare byte by byte, as `<` does. Booleans, statuses and kinds are equal or not.
//! - An array stands for its elements: an operator holds when it holds for one of them, `!=` and `!~` when for all.
//!   Arrays of mixed types, of lists and of nothing are missing, as are bytes and key-value lists: Tempo stores no column
//!   for them either.
//! - Whole numbers stay whole under arithmetic; durations and fractions become fractions.
//! - A field of events or links has a value for each: an operator holds when it holds for one of them. Tempo comes to that by
//!   reading only those events that fulfil the condition.
//!
//! Where Tempo fails a query while it runs, or decides by the order in which it tries branches, a value is missing here:
//! division by zero, whole numbers that overflow, `!` and `-` of what they do not fit. An operand of `&&` and `||` that is no
//! boolean counts as false. `^` of whole numbers is `left` to the power of `right`; Tempo swaps them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::ast::{Arithmetic, Comparison, Pattern};

/// The value of a field for one span.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Datum<'a> {
    /// Missing.
    Nil,
    String(Cow<'a, str>),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// OTLP number.
    Status(i32),
    /// OTLP number.
    Kind(i32),
    /// Not empty, of scalars of one type.
    Array(Vec<Datum<'a>>),
    /// One per event or link that has the field; none of them is missing.
    Several(Vec<Datum<'a>>),
}

/// A value that spans are grouped by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FieldValue {
    /// A text as shown: invalid UTF-8 is replaced.
    String(String),
    /// A whole number.
    Int(i64),
    /// A fraction.
    Float(Fraction),
    /// A boolean.
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// OTLP number.
    Status(i32),
    /// OTLP number.
    Kind(i32),
    /// Elements of one type.
    Array(Vec<FieldValue>),
}

/// A float that is equal to itself, ordered by `total_cmp`.
#[derive(Clone, Copy, Debug)]
pub struct Fraction(pub f64);

impl Ord for Fraction {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Fraction {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Fraction {}

impl std::hash::Hash for Fraction {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => f.write_str(text),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{:?}", number.0),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Duration(nanos) => write_duration(f, *nanos),
            Self::Status(code) => match status_name(*code) {
                Some(name) => f.write_str(name),
                None => write!(f, "status({code})"),
            },
            Self::Kind(number) => match kind_name(*number) {
                Some(name) => f.write_str(name),
                None => write!(f, "kind({number})"),
            },
            Self::Array(elements) => {
                f.write_str("[")?;
                for (at, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl FieldValue {
    /// Bytes of its texts, and some for each element of an array.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Array(elements) => elements.iter().map(|element| element.text_bytes() + 32).sum(),
            Self::Int(_) | Self::Float(_) | Self::Bool(_) | Self::Duration(_) | Self::Status(_) | Self::Kind(_) => 0,
        }
    }
}

impl Datum<'_> {
    /// The value to group by; `None` when it is missing.
    pub(super) fn into_value(self) -> Option<FieldValue> {
        Some(match self {
            Self::Nil | Self::Several(_) => return None,
            Self::String(text) => FieldValue::String(text.into_owned()),
            Self::Int(number) => FieldValue::Int(number),
            Self::Float(number) => FieldValue::Float(Fraction(number)),
            Self::Bool(value) => FieldValue::Bool(value),
            Self::Duration(nanos) => FieldValue::Duration(nanos),
            Self::Status(code) => FieldValue::Status(code),
            Self::Kind(number) => FieldValue::Kind(number),
            Self::Array(elements) => FieldValue::Array(elements.into_iter().filter_map(Self::into_value).collect()),
        })
    }

    /// Whether it is there.
    pub(super) fn exists(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Several(values) => !values.is_empty(),
            _ => true,
        }
    }

    /// Whether it is true.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Bool(value) => *value,
            Self::Several(values) => values.iter().any(Self::is_true),
            _ => false,
        }
    }

    /// `!`.
    pub(super) fn not(self) -> Self {
        match self {
            Self::Bool(value) => Self::Bool(!value),
            Self::Several(values) => Self::Several(values.into_iter().map(Self::not).filter(Self::exists).collect()),
            _ => Self::Nil,
        }
    }

    /// `-`.
    pub(super) fn negative(self) -> Self {
        match self {
            Self::Int(number) => number.checked_neg().map_or(Self::Nil, Self::Int),
            Self::Duration(nanos) => nanos.checked_neg().map_or(Self::Nil, Self::Duration),
            Self::Float(number) => Self::Float(-number),
            Self::Several(values) => {
                Self::Several(values.into_iter().map(Self::negative).filter(Self::exists).collect())
            }
            _ => Self::Nil,
        }
    }

    fn whole(&self) -> Option<i64> {
        match self {
            Self::Int(number) | Self::Duration(number) => Some(*number),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => self.whole().map(|number| number as f64),
        }
    }
}

impl Comparison {
    /// Whether `left` and `right` compare so.
    pub(super) fn holds(self, left: &Datum<'_>, right: &Datum<'_>) -> bool {
        match (left, right) {
            (Datum::Several(lefts), _) => lefts.iter().any(|left| self.holds(left, right)),
            (_, Datum::Several(rights)) => rights.iter().any(|right| self.holds(left, right)),
            (Datum::Array(_), Datum::Array(_)) => false,
            (Datum::Array(elements), _) => self.among(elements, |element| self.holds(element, right)),
            (_, Datum::Array(elements)) => self.among(elements, |element| self.holds(left, element)),
            (Datum::String(left), Datum::String(right)) => self.accepts(left.as_bytes().cmp(right.as_bytes())),
            (Datum::Bool(left), Datum::Bool(right)) => self.accepts_equality(left == right),
            (Datum::Status(left), Datum::Status(right)) | (Datum::Kind(left), Datum::Kind(right)) => {
                self.accepts_equality(left == right)
            }
            _ => self.holds_for_numbers(left, right),
        }
    }

    fn holds_for_numbers(self, left: &Datum<'_>, right: &Datum<'_>) -> bool {
        if let (Some(left), Some(right)) = (left.whole(), right.whole()) {
            return self.accepts(left.cmp(&right));
        }
        let (Some(left), Some(right)) = (left.number(), right.number()) else { return false };
        // Not a number is unequal to everything, and neither above nor below.
        left.partial_cmp(&right).map_or(self == Self::NotEqual, |order| self.accepts(order))
    }

    fn among(self, elements: &[Datum<'_>], mut holds: impl FnMut(&Datum<'_>) -> bool) -> bool {
        if self == Self::NotEqual { elements.iter().all(holds) } else { elements.iter().any(&mut holds) }
    }

    pub(super) fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order == Ordering::Equal,
            Self::NotEqual => order != Ordering::Equal,
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterOrEqual => order != Ordering::Less,
        }
    }

    fn accepts_equality(self, equal: bool) -> bool {
        match self {
            Self::Equal => equal,
            Self::NotEqual => !equal,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => false,
        }
    }
}

impl Pattern {
    /// `=~`, or `!~` when negated.
    pub(super) fn holds(&self, text: &Datum<'_>, negated: bool) -> bool {
        match text {
            Datum::String(text) => self.regex.is_match(text) != negated,
            Datum::Several(values) => values.iter().any(|value| self.holds(value, negated)),
            Datum::Array(elements) if negated => elements.iter().all(|element| self.holds(element, true)),
            Datum::Array(elements) => elements.iter().any(|element| self.holds(element, false)),
            Datum::Nil
            | Datum::Int(_)
            | Datum::Float(_)
            | Datum::Bool(_)
            | Datum::Duration(_)
            | Datum::Status(_)
            | Datum::Kind(_) => false,
        }
    }
}

impl Arithmetic {
    /// The result; missing when there is none.
    pub(super) fn of<'a>(self, left: Datum<'a>, right: Datum<'a>) -> Datum<'a> {
        let several = |values: Vec<Datum<'a>>, of: &dyn Fn(Datum<'a>) -> Datum<'a>| {
            let mut results = Vec::new();
            for value in values {
                match of(value) {
                    Datum::Several(more) => results.extend(more),
                    Datum::Nil => {}
                    one => results.push(one),
                }
            }
            Datum::Several(results)
        };
        match (left, right) {
            (Datum::Several(lefts), right) => several(lefts, &|left| self.of(left, right.clone())),
            (left, Datum::Several(rights)) => several(rights, &|right| self.of(left.clone(), right)),
            (Datum::Int(left), Datum::Int(right)) => self.of_whole(left, right),
            (left, right) => match (left.number(), right.number()) {
                (Some(left), Some(right)) => Datum::Float(self.of_fractions(left, right)),
                _ => Datum::Nil,
            },
        }
    }

    fn of_whole<'a>(self, left: i64, right: i64) -> Datum<'a> {
        let whole = match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => left.checked_div(right),
            Self::Modulo => left.checked_rem(right),
            Self::Power => match u32::try_from(right) {
                Ok(exponent) => left.checked_pow(exponent),
                Err(_) if right < 0 => return Datum::Float(self.of_fractions(left as f64, right as f64)),
                Err(_) => None,
            },
        };
        whole.map_or(Datum::Nil, Datum::Int)
    }

    fn of_fractions(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Modulo => left % right,
            Self::Power => left.powf(right),
        }
    }
}

/// Keyword of a status code.
pub(super) fn status_name(code: i32) -> Option<&'static str> {
    ["unset", "ok", "error"].get(usize::try_from(code).ok()?).copied()
}

/// Keyword of a span kind.
pub(super) fn kind_name(number: i32) -> Option<&'static str> {
    KINDS.get(usize::try_from(number).ok()?).copied()
}

/// By OTLP number.
pub(super) const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

/// The largest unit that takes a whole number; parses back to the same.
pub(super) fn write_duration(f: &mut fmt::Formatter<'_>, nanos: i64) -> fmt::Result {
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let unit = units.into_iter().find(|(unit, _)| nanos % unit == 0);
    let (unit, name) = unit.unwrap_or((1, "ns"));
    write!(f, "{}{name}", nanos / unit)
}
