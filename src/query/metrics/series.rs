//! Series while they are worked on: points where something was counted, and what holds everywhere else.

use super::compare::META_TYPE;
use super::intervals::Intervals;
use crate::model::{DurationNanos, UnixNanos};
use crate::query::traceql::FieldValue;

/// One series.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// What tells it from the others of its query; nothing when it is the only one.
    pub(super) labels: Vec<(String, FieldValue)>,
    /// What it is called where it has no labels.
    pub(super) name: String,
    /// By interval, ascending.
    pub(super) points: Vec<(u32, f64)>,
    /// Of intervals without a point of their own; `None` where they have none.
    pub(super) elsewhere: Option<f64>,
    /// Spans that may show its points.
    pub(super) candidates: Vec<Candidate>,
    /// Spans that it counts, to tell large ones from small ones.
    pub(super) spans: u64,
    /// Whether it is a note, which needs no points.
    pub(super) is_note: bool,
}

/// A span that may show a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) interval: u32,
    /// Which of the queries found it.
    pub(super) query: usize,
    pub(super) block: u32,
    pub(super) row: u32,
    pub(super) at: UnixNanos,
    pub(super) latency: DurationNanos,
    /// What it is drawn at; `None` when that is its point.
    pub(super) value: Option<f64>,
    /// How many of its interval come before it.
    pub(super) rank: u8,
}

impl Series {
    /// Its number in an interval.
    pub(super) fn at(&self, interval: u32) -> Option<f64> {
        match self.points.binary_search_by_key(&interval, |point| point.0) {
            Ok(at) => self.points.get(at).map(|point| point.1),
            Err(_) => self.elsewhere,
        }
    }

    /// Gives it new numbers: of these intervals, which hold all points that it has and has had, and of those elsewhere.
    pub(super) fn set(
        &mut self,
        intervals: Intervals,
        at: &[u32],
        elsewhere: Option<f64>,
        of: impl Fn(u32) -> Option<f64>,
    ) {
        let known = at.iter().filter_map(|at| Some((*at, of(*at)?)));
        self.points = known.collect();
        self.elsewhere = elsewhere;
        if let Some(elsewhere) = elsewhere.filter(|_| self.points.len() < at.len()) {
            // An interval without a number would be taken for one of those elsewhere.
            let lies_elsewhere = |interval: &u32| at.binary_search(interval).is_err();
            self.points.extend(intervals.numbers().filter(lies_elsewhere).map(|interval| (interval, elsewhere)));
            self.points.sort_unstable_by_key(|point| point.0);
            self.elsewhere = None;
        }
    }

    /// The intervals with points of their own.
    pub(super) fn own_intervals(&self) -> Vec<u32> {
        self.points.iter().map(|point| point.0).collect()
    }

    /// Leaves out the spans that show intervals without a number.
    pub(super) fn drop_candidates(&mut self) {
        let candidates = std::mem::take(&mut self.candidates);
        self.candidates = candidates.into_iter().filter(|one| self.at(one.interval).is_some()).collect();
    }

    /// Whether it is one of `compare`.
    pub(super) fn is_compared(&self) -> bool {
        self.is_note || self.labels.first().is_some_and(|(key, _)| key == META_TYPE)
    }

    /// Whether no interval has a number.
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.elsewhere.is_none() && !self.is_note
    }
}
