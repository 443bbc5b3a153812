//! TraceQL as a tree. `Display` writes it back with every bracket that the reading put in, so that a reader sees what binds
//! to what; what is written parses to the same tree.

use std::fmt;

use regex::Regex;

use super::value::{kind_name, status_name, write_duration};

/// A field expression: what stands between the braces of `{ .. }`. Its depth is at most `limits::TRACEQL_DEPTH_MAX`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Literal(Literal),
    Field(Field),
    /// At least two, all of them `&&`.
    All(Vec<Expression>),
    /// At least two, all of them `||`.
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Compare {
        operator: Comparison,
        left: Box<Expression>,
        right: Box<Expression>,
    },
    Arithmetic {
        operator: Arithmetic,
        left: Box<Expression>,
        right: Box<Expression>,
    },
    Matches {
        text: Box<Expression>,
        pattern: Pattern,
        negated: bool,
    },
    /// `!= nil`, or `= nil` when negated.
    Exists {
        operand: Box<Expression>,
        negated: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    String(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// OTLP number.
    Status(i32),
    /// OTLP number.
    Kind(i32),
}

/// A compiled regular expression that matches whole texts.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// As written.
    pub(super) text: String,
    pub(super) regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Something that a span says: an intrinsic, or an attribute of it or of what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// What every span has.
    Intrinsic(Intrinsic),
    /// What a sender added.
    Attribute {
        /// Whose it is.
        scope: AttributeScope,
        /// Not empty.
        key: String,
    },
}

/// What every span has, apart from attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Intrinsic {
    /// `Span::latency`: none where a time is not set or the clock ran backwards.
    Duration,
    /// Span name.
    Name,
    /// Status code.
    Status,
    /// Status message, empty when there is none.
    StatusMessage,
    /// Kind.
    Kind,
    /// 16 hex digits.
    SpanId,
    /// 16 hex digits, all zero for a root.
    ParentId,
    /// 32 hex digits.
    TraceId,
    /// Name of the instrumentation scope, empty when there is none.
    InstrumentationName,
    /// Version of the instrumentation scope, empty when there is none.
    InstrumentationVersion,
    /// Of every event.
    EventName,
    /// Of every event: its time since the start of the span.
    EventTimeSinceStart,
    /// Of every link, 32 hex digits.
    LinkTraceId,
    /// Of every link, 16 hex digits.
    LinkSpanId,
    /// Of the trace: from the earliest start to the latest end.
    TraceDuration,
    /// Of the trace: the name of its first root; none before that is stored.
    RootName,
    /// Of the trace: the service of its first root; none before that is stored.
    RootService,
    /// Spans whose parent it is.
    ChildCount,
    /// When the walk through the trace comes to it, from 1; 0 when no root leads to it.
    NestedSetLeft,
    /// When the walk leaves it; 0 when no root leads to it.
    NestedSetRight,
    /// `NestedSetLeft` of its parent; -1 for a root.
    NestedSetParent,
}

/// Whose attribute it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttributeScope {
    /// `.key`: of the span, else of its resource.
    Unscoped,
    /// `span.key`.
    Span,
    /// `resource.key`.
    Resource,
    /// `instrumentation.key`.
    Instrumentation,
    /// `event.key`: of every event.
    Event,
    /// `link.key`: of every link.
    Link,
    /// `parent.key`: of the parent span, else of its resource.
    Parent,
    /// `parent.span.key`.
    ParentSpan,
    /// `parent.resource.key`.
    ParentResource,
}

impl Intrinsic {
    /// Its scoped name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duration => "span:duration",
            Self::Name => "span:name",
            Self::Status => "span:status",
            Self::StatusMessage => "span:statusMessage",
            Self::Kind => "span:kind",
            Self::SpanId => "span:id",
            Self::ParentId => "span:parentID",
            Self::TraceId => "trace:id",
            Self::InstrumentationName => "instrumentation:name",
            Self::InstrumentationVersion => "instrumentation:version",
            Self::EventName => "event:name",
            Self::EventTimeSinceStart => "event:timeSinceStart",
            Self::LinkTraceId => "link:traceID",
            Self::LinkSpanId => "link:spanID",
            Self::TraceDuration => "trace:duration",
            Self::RootName => "trace:rootName",
            Self::RootService => "trace:rootService",
            Self::ChildCount => "span:childCount",
            Self::NestedSetLeft => "nestedSetLeft",
            Self::NestedSetRight => "nestedSetRight",
            Self::NestedSetParent => "nestedSetParent",
        }
    }

    /// By a name without a scope.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, intrinsic)| intrinsic)
    }

    /// All of them.
    pub(super) const ALL: [Self; 21] = [
        Self::Duration,
        Self::Name,
        Self::Status,
        Self::StatusMessage,
        Self::Kind,
        Self::SpanId,
        Self::ParentId,
        Self::TraceId,
        Self::InstrumentationName,
        Self::InstrumentationVersion,
        Self::EventName,
        Self::EventTimeSinceStart,
        Self::LinkTraceId,
        Self::LinkSpanId,
        Self::TraceDuration,
        Self::RootName,
        Self::RootService,
        Self::ChildCount,
        Self::NestedSetLeft,
        Self::NestedSetRight,
        Self::NestedSetParent,
    ];
}

/// Names without a scope.
const NAMES: [(&str, Intrinsic); 13] = [
    ("duration", Intrinsic::Duration),
    ("name", Intrinsic::Name),
    ("status", Intrinsic::Status),
    ("statusMessage", Intrinsic::StatusMessage),
    ("kind", Intrinsic::Kind),
    ("traceDuration", Intrinsic::TraceDuration),
    ("rootName", Intrinsic::RootName),
    ("rootServiceName", Intrinsic::RootService),
    ("rootService", Intrinsic::RootService),
    ("childCount", Intrinsic::ChildCount),
    ("nestedSetLeft", Intrinsic::NestedSetLeft),
    ("nestedSetRight", Intrinsic::NestedSetRight),
    ("nestedSetParent", Intrinsic::NestedSetParent),
];

impl AttributeScope {
    /// What stands before the key.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Unscoped => ".",
            Self::Span => "span.",
            Self::Resource => "resource.",
            Self::Instrumentation => "instrumentation.",
            Self::Event => "event.",
            Self::Link => "link.",
            Self::Parent => "parent.",
            Self::ParentSpan => "parent.span.",
            Self::ParentResource => "parent.resource.",
        }
    }
}

impl Field {
    /// Whether a span can have several values of it: one per event or link.
    pub(super) fn is_of_items(&self) -> bool {
        match self {
            Self::Intrinsic(intrinsic) => matches!(
                intrinsic,
                Intrinsic::EventName | Intrinsic::EventTimeSinceStart | Intrinsic::LinkTraceId | Intrinsic::LinkSpanId
            ),
            Self::Attribute { scope, .. } => matches!(scope, AttributeScope::Event | AttributeScope::Link),
        }
    }

    /// Whether it needs other spans of the trace.
    pub(super) fn is_of_trace(&self) -> bool {
        match self {
            Self::Intrinsic(intrinsic) => matches!(
                intrinsic,
                Intrinsic::TraceDuration
                    | Intrinsic::RootName
                    | Intrinsic::RootService
                    | Intrinsic::ChildCount
                    | Intrinsic::NestedSetLeft
                    | Intrinsic::NestedSetRight
                    | Intrinsic::NestedSetParent
            ),
            Self::Attribute { scope, .. } => {
                matches!(scope, AttributeScope::Parent | AttributeScope::ParentSpan | AttributeScope::ParentResource)
            }
        }
    }

    /// Whether it is told by attributes, events or links of spans.
    pub(super) fn is_of_attributes(&self) -> bool {
        match self {
            Self::Intrinsic(_) => self.is_of_items(),
            Self::Attribute { scope, .. } => match scope {
                AttributeScope::Resource | AttributeScope::Instrumentation | AttributeScope::ParentResource => false,
                AttributeScope::Unscoped
                | AttributeScope::Span
                | AttributeScope::Event
                | AttributeScope::Link
                | AttributeScope::Parent
                | AttributeScope::ParentSpan => true,
            },
        }
    }

    /// As a query writes it as a rule: intrinsics without their scope.
    pub(super) fn written(&self) -> String {
        match self {
            Self::Intrinsic(intrinsic) => {
                let short = NAMES.into_iter().find(|(_, known)| known == intrinsic);
                short.map_or(intrinsic.as_str(), |(name, _)| name).to_owned()
            }
            Self::Attribute { .. } => self.to_string(),
        }
    }

    /// Whether all spans of an instrumentation scope have the same.
    pub(super) fn is_of_scope(&self) -> bool {
        match self {
            Self::Intrinsic(intrinsic) => {
                matches!(intrinsic, Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion)
            }
            Self::Attribute { scope, .. } => {
                matches!(scope, AttributeScope::Resource | AttributeScope::Instrumentation)
            }
        }
    }
}

impl Expression {
    /// Calls `each` with every field, as often as it stands there.
    pub(super) fn fields<'a>(&'a self, each: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Literal(_) => {}
            Self::Field(field) => each(field),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.fields(each)),
            Self::Not(operand) | Self::Negative(operand) | Self::Exists { operand, .. } => operand.fields(each),
            Self::Matches { text, .. } => text.fields(each),
            Self::Compare { left, right, .. } | Self::Arithmetic { left, right, .. } => {
                left.fields(each);
                right.fields(each);
            }
        }
    }

    /// Whether it is true or false of every span, never anything else.
    pub(super) fn is_always_bool(&self) -> bool {
        match self {
            Self::All(_) | Self::Any(_) | Self::Compare { .. } | Self::Matches { .. } | Self::Exists { .. } => true,
            Self::Not(operand) => operand.is_always_bool(),
            Self::Literal(literal) => matches!(literal, Literal::Bool(_)),
            Self::Field(_) | Self::Negative(_) | Self::Arithmetic { .. } => false,
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => write!(f, "{literal}"),
            Self::Field(field) => write!(f, "{field}"),
            Self::All(parts) => write_chain(f, parts, "&&"),
            Self::Any(parts) => write_chain(f, parts, "||"),
            Self::Not(operand) => write!(f, "!{}", Operand(operand)),
            Self::Negative(operand) => write!(f, "-{}", Operand(operand)),
            Self::Compare { operator, left, right } => {
                write!(f, "{} {} {}", Side(left), operator.as_str(), Side(right))
            }
            Self::Arithmetic { operator, left, right } => {
                write!(f, "{} {} {}", Operand(left), operator.as_str(), Operand(right))
            }
            Self::Matches { text, pattern, negated } => {
                let operator = if *negated { "!~" } else { "=~" };
                write!(f, "{} {operator} ", Operand(text))?;
                write_string(f, &pattern.text)
            }
            Self::Exists { operand, negated } => {
                write!(f, "{} {} nil", Operand(operand), if *negated { "=" } else { "!=" })
            }
        }
    }
}

fn write_chain(f: &mut fmt::Formatter<'_>, parts: &[Expression], operator: &str) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if 0 < at {
            write!(f, " {operator} ")?;
        }
        // What compares binds tighter than any chain; brackets there would only be noise.
        match part {
            Expression::Compare { .. } | Expression::Matches { .. } | Expression::Exists { .. } => write!(f, "{part}")?,
            _ => write!(f, "{}", Operand(part))?,
        }
    }
    Ok(())
}

/// An expression inside another one: in brackets when it has an operator of its own.
struct Operand<'a>(&'a Expression);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // `-1 ^ 2` is -(1 ^ 2).
            Expression::Literal(literal) if !literal.is_negative() => write!(f, "{literal}"),
            Expression::Field(_) | Expression::Not(_) => write!(f, "{}", self.0),
            _ => write!(f, "({})", self.0),
        }
    }
}

/// An expression beside a comparison, which binds less than any sign.
struct Side<'a>(&'a Expression);

impl fmt::Display for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expression::Literal(literal) => write!(f, "{literal}"),
            _ => write!(f, "{}", Operand(self.0)),
        }
    }
}

impl Literal {
    fn is_negative(&self) -> bool {
        match self {
            Self::Int(number) | Self::Duration(number) => *number < 0,
            Self::Float(number) => number.is_sign_negative(),
            Self::String(_) | Self::Bool(_) | Self::Status(_) | Self::Kind(_) => false,
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write_string(f, text),
            // Its digits alone do not fit.
            Self::Int(i64::MIN) => f.write_str("minInt"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Duration(nanos) => write_duration(f, *nanos),
            Self::Status(code) => f.write_str(status_name(*code).unwrap_or("unknown")),
            Self::Kind(number) => f.write_str(kind_name(*number).unwrap_or("unknown")),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intrinsic(intrinsic) => f.write_str(intrinsic.as_str()),
            Self::Attribute { scope, key } => {
                f.write_str(scope.prefix())?;
                let plain = |c: char| is_attribute_char(c) && c != '"' && c != '\\';
                // A digit behind the bare dot would be a number.
                let is_number = *scope == AttributeScope::Unscoped && key.starts_with(|c: char| c.is_ascii_digit());
                // As would a scope behind `parent.`.
                let is_scope =
                    *scope == AttributeScope::Parent && (key.starts_with("span.") || key.starts_with("resource."));
                if key.chars().all(plain) && !is_number && !is_scope {
                    f.write_str(key)
                } else {
                    write_quoted_key(f, key)
                }
            }
        }
    }
}

/// Whether an attribute's name goes on with `c` outside quotes (Tempo `pkg/traceql/lexer.go`, `isAttributeRune`).
pub(super) fn is_attribute_char(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ',')
}

fn write_quoted_key(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    write!(f, "\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\U{:08x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

impl Comparison {
    /// The one that is written so.
    pub(super) fn of_sign(sign: &str) -> Option<Self> {
        let all = [Self::Equal, Self::NotEqual, Self::Less, Self::LessOrEqual, Self::Greater, Self::GreaterOrEqual];
        all.into_iter().find(|comparison| comparison.as_str() == sign)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Arithmetic {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
        }
    }
}
