//! A query as it is evaluated: everything in it is known to be built.

use super::labels::Grouping;
use super::over_time::OverTime;
use super::series::Millis;
use super::source::Selector;

/// An expression.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Number(f64),
    Text(String),
    Negative(Box<Expr>),
    /// The newest values of series.
    Select(Selector, Shift),
    Aggregate(Aggregate),
    Binary(Box<Binary>),
    /// One value of many samples.
    OverTime {
        function: OverTime,
        of: Ranged,
        /// Of the functions that have one, a scalar.
        parameter: Option<Box<Expr>>,
    },
    Call(Function, Vec<Expr>),
}

/// When something is looked at: `offset` and `@`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shift {
    /// Earlier by this.
    pub(super) offset: Millis,
    pub(super) at: Option<At>,
}

/// What `@` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Start,
    End,
    Instant(Millis),
}

/// Samples of a range.
#[derive(Clone, Debug)]
pub(super) enum Ranged {
    Selected { selector: Selector, range: Millis, shift: Shift },
    Subquery { of: Box<Expr>, range: Millis, step: Option<Millis>, shift: Shift },
}

/// Several series made one, or some of them taken.
#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    pub(super) operator: Aggregation,
    pub(super) of: Box<Expr>,
    /// A scalar, or the text of `count_values`.
    pub(super) parameter: Option<Box<Expr>>,
    pub(super) grouping: Grouping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregation {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Quantile,
    Topk,
    Bottomk,
    CountValues,
}

/// An operation on two sides.
#[derive(Clone, Debug)]
pub(super) struct Binary {
    pub(super) operator: BinaryOperator,
    pub(super) left: Expr,
    pub(super) right: Expr,
    /// Comparisons give 0 or 1 rather than pick.
    pub(super) gives_bool: bool,
    pub(super) matching: Matching,
}

/// Which series of two sides belong together.
#[derive(Clone, Debug)]
pub(super) struct Matching {
    /// Labels that must be the same.
    pub(super) labels: Grouping,
    pub(super) many: Many,
}

/// On which side several series may have one partner, which lends them these labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Many {
    None,
    Left(Vec<String>),
    Right(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinaryOperator {
    Arithmetic(Arithmetic),
    Compare(Compare),
    Set(SetOperator),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    Atan2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetOperator {
    And,
    Or,
    Unless,
}

/// A function of instant vectors and scalars.
#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    /// Of each value by itself.
    Math(fn(f64) -> f64),
    /// Of the instant's parts in UTC; the instant itself without an argument.
    Calendar(fn(jiff::civil::DateTime) -> i16),
    Round,
    Clamp,
    ClampMin,
    ClampMax,
    Absent,
    Scalar,
    Vector,
    Time,
    Pi,
    Timestamp,
    Sort,
    SortDesc,
    LabelReplace,
    LabelJoin,
    HistogramQuantile,
    HistogramCount,
    HistogramSum,
    HistogramAvg,
    HistogramFraction,
    HistogramStddev,
    HistogramStdvar,
}

impl Arithmetic {
    pub(super) fn of(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
            Self::Power => left.powf(right),
            Self::Atan2 => left.atan2(right),
        }
    }
}

impl Compare {
    #[expect(clippy::float_cmp, reason = "PromQL compares exactly")]
    pub(super) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}
