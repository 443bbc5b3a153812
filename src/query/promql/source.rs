//! Where series come from: what is stored, or samples that a test gives.

use regex::Regex;

use super::PromError;
use super::histogram::Histogram;
use super::labels::{Grouping, Labels};
use super::series::{Millis, Sampled, Series};

/// Which series: those whose labels hold all conditions.
#[derive(Clone, Debug)]
pub struct Selector {
    /// All must hold, that of the name among them.
    pub matchers: Vec<Matcher>,
}

/// A condition on one label; one that is missing is empty.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Which label.
    pub label: String,
    /// What its value must be.
    pub condition: Condition,
}

/// What a value must be.
#[derive(Clone, Debug)]
pub enum Condition {
    /// This.
    Equal(String),
    /// Anything else.
    NotEqual(String),
    /// Matched as a whole: the pattern is anchored.
    Matches(Regex),
    /// Not matched as a whole.
    MatchesNot(Regex),
}

impl Matcher {
    /// Whether a value is taken.
    pub fn takes(&self, value: &str) -> bool {
        match &self.condition {
            Condition::Equal(text) => text == value,
            Condition::NotEqual(text) => text != value,
            Condition::Matches(pattern) => pattern.is_match(value),
            Condition::MatchesNot(pattern) => !pattern.is_match(value),
        }
    }
}

impl Selector {
    /// Whether a value of this label is taken, whatever the others are.
    pub fn takes(&self, label: &str, value: &str) -> bool {
        self.matchers.iter().filter(|matcher| matcher.label == label).all(|matcher| matcher.takes(value))
    }

    /// The only value of a label that is taken, if a condition says so; it may be empty.
    pub fn only(&self, label: &str) -> Option<&str> {
        self.matchers.iter().filter(|matcher| matcher.label == label).find_map(|matcher| match &matcher.condition {
            Condition::Equal(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether a series is taken.
    pub fn takes_all(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.takes(labels.get(&matcher.label)))
    }
}

/// A number of a histogram at an instant, by its position; `true` where its classic form is asked for.
pub type NumberOf<'a> = &'a dyn Fn(&Histogram, bool, usize) -> f64;

/// Gives series, all of one state of what is stored.
pub trait Source {
    /// Each series with its value at these instants, which ascend; one without any is left out.
    ///
    /// # Errors
    /// As reading fails, or `TooMuch`.
    fn at(&self, selector: &Selector, instants: &[Millis]) -> Result<Vec<Series>, PromError>;

    /// How much each counter or histogram grew in `(instant - range, instant]`, exactly, times `factor`, for instants that ascend;
    /// without the name of the metric. With a grouping, what the series of a group grew together. With a `number`, that of each
    /// histogram, which so need not all be held. `None` where that cannot be told: nothing but samples is known, or it is no
    /// histogram that a number is wanted of.
    ///
    /// # Errors
    /// As reading fails, or `TooMuch`.
    fn increase(
        &self,
        selector: &Selector,
        range: Millis,
        instants: &[Millis],
        factor: f64,
        grouping: Option<&Grouping>,
        number: Option<NumberOf<'_>>,
    ) -> Result<Option<Vec<Series>>, PromError>;

    /// The samples in `(after, until]` of each series that has one.
    ///
    /// # Errors
    /// As reading fails, or `TooMuch`.
    fn samples(&self, selector: &Selector, after: Millis, until: Millis) -> Result<Vec<Sampled>, PromError>;

    /// Between two steps of work that may be long.
    ///
    /// # Errors
    /// When it took too long, or nobody waits any more.
    fn may_go_on(&self) -> Result<(), PromError>;
}
