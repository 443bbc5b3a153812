//! Which series there are, without what they count.

use std::collections::BTreeSet;

use super::super::Query;
use super::super::walk::Places;
use super::PromError;
use super::catalogue::{METRICS, Metric, Part, Subject};
use super::counted::Kept;
use super::histogram::BOUNDS;
use super::labels::{BUCKET_BOUND, Labels, METRIC_NAME};
use super::series::Millis;
use super::source::Selector;
use super::stored::{Asked, Stored, takes_others};

/// Series of an answer; each has some hundred bytes.
const LISTED_MAX: usize = 1_000_000;

/// What is asked: series of the selectors, of all metrics without one, that counted something from `start` to `end`.
#[derive(Clone, Debug)]
pub struct ListingQuestion {
    /// Any of them.
    pub selectors: Vec<Selector>,
    /// The first instant.
    pub start: Millis,
    /// The last one.
    pub end: Millis,
    /// At most so many are listed.
    pub most: usize,
}

/// A list, and what is missing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing<T> {
    /// In order, each once.
    pub rows: Vec<T>,
    /// One sentence each.
    pub warnings: Vec<String>,
}

impl<T: Ord> Listing<T> {
    fn of(rows: BTreeSet<T>, stored: Stored<'_>, most: usize) -> Self {
        let mut warnings = stored.warnings();
        if most < rows.len() {
            warnings.push("results truncated due to limit".to_owned());
        }
        Self { rows: rows.into_iter().take(most).collect(), warnings }
    }
}

impl Query {
    /// The metrics that are there. While the store is being opened it is not known of all.
    pub fn prom_metrics(&self) -> impl Iterator<Item = &'static Metric> {
        let conventions = self.conventions().ok();
        let is_offered = move |subject: Subject| {
            conventions.as_deref().map_or(subject != Subject::Entries, |conventions| subject.is_offered(conventions))
        };
        METRICS.iter().filter(move |metric| is_offered(metric.subject))
    }

    /// The series with their names; classic ones with each of their bounds.
    ///
    /// # Errors
    /// `Starting`, `TooLong`, `TooMuch`.
    pub fn prom_series(&self, question: &ListingQuestion) -> Result<Listing<Labels>, PromError> {
        let stored = Stored::of(self)?;
        let mut rows = BTreeSet::new();
        stored.each_series(question, &mut |labels, bounds| {
            if bounds {
                rows.extend(BOUNDS.iter().map(|bound| labels.clone().with(BUCKET_BOUND, bound.as_str())));
            } else {
                let _new = rows.insert(labels);
            }
        })?;
        if !question.selectors.is_empty() {
            rows.retain(|labels| question.selectors.iter().any(|selector| selector.takes_all(labels)));
        }
        Ok(Listing::of(rows, stored, question.most))
    }

    /// The names of labels that these series have.
    ///
    /// # Errors
    /// As `prom_series`.
    pub fn prom_labels(&self, question: &ListingQuestion) -> Result<Listing<String>, PromError> {
        let stored = Stored::of(self)?;
        let mut rows = BTreeSet::new();
        stored.each_series(question, &mut |labels, bounds| {
            rows.extend(labels.iter().map(|(name, _)| name.to_owned()));
            rows.extend(bounds.then(|| BUCKET_BOUND.to_owned()));
        })?;
        Ok(Listing::of(rows, stored, question.most))
    }

    /// The values that these series have of one label.
    ///
    /// # Errors
    /// As `prom_series`.
    pub fn prom_values(&self, label: &str, question: &ListingQuestion) -> Result<Listing<String>, PromError> {
        let stored = Stored::of(self)?;
        let mut rows = BTreeSet::new();
        let takes = |bound: &&String| {
            question.selectors.is_empty()
                || question.selectors.iter().any(|selector| selector.takes(BUCKET_BOUND, bound))
        };
        stored.each_series(question, &mut |labels, bounds| {
            if label != BUCKET_BOUND {
                rows.extend(Some(labels.get(label).to_owned()).filter(|value| !value.is_empty()));
            } else if bounds {
                rows.extend(BOUNDS.iter().filter(takes).cloned());
            }
        })?;
        Ok(Listing::of(rows, stored, question.most))
    }
}

impl Stored<'_> {
    /// Calls `each` with the labels of every series, and whether it is a family of buckets.
    fn each_series(&self, question: &ListingQuestion, each: &mut dyn FnMut(Labels, bool)) -> Result<(), PromError> {
        let everything = [Selector { matchers: Vec::new() }];
        let selectors = if question.selectors.is_empty() { &everything[..] } else { &question.selectors };
        let edges = [question.start, question.end];
        // Metrics of one subject have the same series, but for spans without a latency, which its counter alone counts: they are
        // looked for once.
        let mut known: Vec<(Subject, Vec<(Labels, bool)>)> = Vec::new();
        for metric in self.query.prom_metrics() {
            if !selectors.iter().any(|selector| selector.takes(METRIC_NAME, metric.name)) {
                continue;
            }
            if known.iter().all(|(subject, _)| *subject != metric.subject) {
                let kept = Kept::of(Part::Total);
                let (edges, all) = (Self::edges_of(edges), metric.subject.counter().unwrap_or(metric));
                let counted = self.counted(all, kept, &edges, false, Asked::default(), &mut Places::default())?;
                let there = counted.into_iter().filter(|one| 0 < one.total());
                let there = there.map(|one| (one.labels.clone(), one.untimed < one.total()));
                known.push((metric.subject, there.collect()));
            }
            let of_subject = known.iter().find(|(subject, _)| *subject == metric.subject);
            let all = of_subject.map(|(_, series)| series.as_slice()).unwrap_or_default();
            if LISTED_MAX < all.len() {
                return Err(PromError::TooMuch { what: "series", bound: LISTED_MAX });
            }
            let is_wanted = |(labels, is_timed): &&(Labels, bool)| {
                let is_there = *is_timed || metric.part == Part::Total;
                let takes = |one: &Selector| one.takes(METRIC_NAME, metric.name) && takes_others(one, labels);
                is_there && selectors.iter().any(takes)
            };
            for (labels, _) in all.iter().filter(is_wanted) {
                each(metric.named(labels.clone()), metric.part == Part::Buckets);
            }
        }
        Ok(())
    }
}
