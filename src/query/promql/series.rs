//! What an expression gives: series with a value for each instant of a grid, or with samples of their own.

use std::rc::Rc;

use super::histogram::{BOUNDS, Histogram};
use super::labels::{BUCKET_BOUND, Labels};

/// Milliseconds since the Unix epoch, as Prometheus counts.
pub type Millis = i64;

/// A series.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What tells it from the others.
    pub labels: Labels,
    /// One for each instant of the grid, `None` where it has no value.
    pub samples: Samples,
}

/// Values of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Numbers.
    Floats(Vec<Option<f64>>),
    /// Native histograms.
    Histograms(Vec<Option<Rc<Histogram>>>),
    /// The 194 classic series that differ in `le` alone, which the labels lack: `expanded` makes them. Kept together as long as
    /// an operation does the same to all of them.
    Buckets(Vec<Option<Rc<Histogram>>>),
}

impl Samples {
    /// How many instants there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Histograms(values) | Self::Buckets(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Floats(values) => values.iter().all(Option::is_none),
            Self::Histograms(values) | Self::Buckets(values) => values.iter().all(Option::is_none),
        }
    }
}

/// A series as it was sampled: what ranges are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// What tells it from the others.
    pub labels: Labels,
    /// Ascending, one for each of the samples.
    pub times: Vec<Millis>,
    /// Each of them is there.
    pub samples: Samples,
}

impl Series {
    /// With the classic series of a family apart.
    pub fn expanded(self) -> Vec<Self> {
        let Samples::Buckets(histograms) = &self.samples else { return vec![self] };
        let cumulative: Vec<Option<Vec<f64>>> =
            histograms.iter().map(|one| one.as_ref().map(|one| one.cumulative())).collect();
        let of_bound = |(at, bound): (usize, &String)| {
            let value = |counts: &Option<Vec<f64>>| counts.as_ref().and_then(|counts| counts.get(at)).copied();
            let labels = self.labels.clone().with(BUCKET_BOUND, bound.as_str());
            Self { labels, samples: Samples::Floats(cumulative.iter().map(value).collect()) }
        };
        BOUNDS.iter().enumerate().map(of_bound).collect()
    }
}
