//! Counters for a Prometheus of somebody's own: what was counted since an instant, taken further edge by edge. Retention takes
//! nothing from them, and what comes later than it is waited for is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::Query;
use super::super::walk::Places;
use super::PromError;
use super::catalogue::{METRICS, Metric, Part, Subject};
use super::counted::{Counted, Detail, Kept};
use super::exemplars::PromExemplar;
use super::histogram::{BOUNDS, N_BOUNDS, bound_of, bounds_secs, exponential_bucket};
use super::labels::Labels;
use super::pile::Pile;
use super::series::Millis;
use super::stored::{Asked, Stored, edge, millis_of};
use crate::latency::Exemplar;
use crate::model::DurationNanos;

/// How long spans are waited for: counters that were given away cannot be raised for the past.
pub const LATE_AFTER: Duration = Duration::from_secs(30);
/// Bounds of the classic layout that are powers of two of nanoseconds, 2^13 to 2^37: every eighth, and `+Inf`.
pub const N_OCTAVES: usize = 26;

/// What was counted from the first edge up to the last.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Nothing before it is counted.
    pub since: Millis,
    /// Everything before it is.
    pub until: Millis,
    /// The edge before that one.
    pub before: Millis,
    /// By subject and labels, which lack the name of a metric.
    pub series: BTreeMap<(Subject, Labels), Total>,
}

/// The counters of one series.
#[derive(Clone, Debug)]
pub struct Total {
    /// The edge after which the first one was counted.
    pub began: Millis,
    /// Spans or calls.
    pub count: u64,
    /// Of them, those with a latency: what the histograms hold.
    pub timed: u64,
    /// Of them, those that failed.
    pub failed: u64,
    /// Nanoseconds.
    pub sum_ns: u128,
    /// By the first power of two that holds them; not cumulative.
    pub octaves: [u64; N_OCTAVES],
    /// By the index of a native histogram of schema 3, whose buckets are 9 % wide.
    pub exponential: BTreeMap<i32, u64>,
    /// The slowest span of the last step.
    pub exemplar: Option<PromExemplar>,
}

impl Default for Total {
    fn default() -> Self {
        let (octaves, exponential) = ([0; N_OCTAVES], BTreeMap::new());
        Self { began: 0, count: 0, timed: 0, failed: 0, sum_ns: 0, octaves, exponential, exemplar: None }
    }
}

impl Total {
    fn add(&mut self, counted: &Counted) {
        self.count += counted.total();
        self.timed += counted.total() - counted.untimed;
        self.sum_ns += counted.sums.iter().sum::<u128>();
        for (bucket, count) in counted.histograms.iter().flatten().flat_map(Pile::entries) {
            if let Some(octave) = self.octaves.get_mut(bound_of(bucket.high()).div_ceil(8).min(N_OCTAVES - 1)) {
                *octave += count;
            }
            *self.exponential.entry(exponential_bucket(bucket.high())).or_default() += count;
        }
    }
}

/// One bucket of a classic histogram whose bounds are powers of two of nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Octave<'a> {
    /// The text of `le`.
    pub bound: &'static str,
    /// The same in seconds.
    pub secs: f64,
    /// Cumulative.
    pub count: u64,
    /// Of the bucket that holds it.
    pub exemplar: Option<&'a PromExemplar>,
}

impl Total {
    /// The classic histogram.
    pub fn buckets(&self) -> impl Iterator<Item = Octave<'_>> {
        let bounds = BOUNDS.iter().map(String::as_str).zip(bounds_secs()).enumerate();
        let bounds = bounds.filter(|(number, _)| number % 8 == 0 || number + 1 == N_BOUNDS);
        let (mut count, mut below) = (0, f64::NEG_INFINITY);
        bounds.zip(self.octaves).map(move |((_, (bound, secs)), here)| {
            count += here;
            let is_here = |one: &&PromExemplar| below < secs_of(one.latency) && secs_of(one.latency) <= secs;
            let exemplar = self.exemplar.as_ref().filter(is_here);
            below = secs;
            Octave { bound, secs, count, exemplar }
        })
    }

    /// Of the latencies, in seconds.
    pub fn sum_secs(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a double is what is written")]
        let nanos = self.sum_ns as f64;
        nanos / 1e9
    }
}

impl Totals {
    /// Nothing yet, from the edge of a slot on.
    pub fn since(at: Millis) -> Self {
        Self { since: edge(at), until: edge(at), before: edge(at), series: BTreeMap::new() }
    }

    /// What is counted; entry spans where there are some.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> {
        let has = |wanted: Subject| self.series.keys().any(|(subject, _)| *subject == wanted);
        Subject::ALL.into_iter().filter(move |subject| *subject != Subject::Entries || has(*subject))
    }

    /// The last edge that nothing is waited for any more at `now`.
    pub fn due(now: Millis) -> Millis {
        edge(now.saturating_sub(Millis::try_from(LATE_AFTER.as_millis()).unwrap_or(Millis::MAX)))
    }
}

impl Query {
    /// Takes counters further, up to an edge. Cost: the slots in between.
    ///
    /// # Errors
    /// `Starting`, `TooLong`; the counters are as they were then.
    pub fn advance(&self, totals: &mut Totals, until: Millis) -> Result<(), PromError> {
        let (from, until) = (totals.until, edge(until));
        if until <= from {
            return Ok(());
        }
        let stored = Stored::of(self)?;
        let mut counted = Vec::new();
        for subject in Subject::ALL.into_iter().filter(|subject| subject.is_offered(&stored.conventions)) {
            // One pass for the numbers and buckets of a subject, one for its failures.
            for metric in subject.counter().or(subject.histogram()).into_iter().chain(subject.failures()) {
                let is_whole = metric.part != Part::Failed;
                let detail = if is_whole { Detail::Histograms } else { Detail::Counts };
                let kept = Kept { detail, exemplars: is_whole, ..Kept::of(metric.part) };
                let mut places = Places::default();
                let found = stored.counted(metric, kept, &[from, until], false, Asked::default(), &mut places)?;
                counted.push((metric, found, places));
            }
        }
        (totals.before, totals.until) = (from, until);
        for total in totals.series.values_mut() {
            total.exemplar = None;
        }
        for (metric, found, places) in counted {
            add(totals, &stored, metric, found, &places);
        }
        Ok(())
    }
}

fn add(totals: &mut Totals, stored: &Stored<'_>, metric: &Metric, found: Vec<Counted>, places: &Places) {
    let mut slowest: Vec<(Labels, Exemplar)> = Vec::new();
    for one in found {
        let new = || Total { began: totals.before, ..Total::default() };
        let total = totals.series.entry((metric.subject, one.labels.clone())).or_insert_with(new);
        if metric.part == Part::Failed {
            total.failed += one.total();
            continue;
        }
        total.add(&one);
        slowest
            .extend(one.exemplars.iter().max_by_key(|exemplar| exemplar.latency).map(|one_of| (one.labels, *one_of)));
    }
    let exemplars: Vec<Exemplar> = slowest.iter().map(|(_, exemplar)| *exemplar).collect();
    let read = stored.read_all(&exemplars, places);
    for (labels, exemplar) in slowest {
        if let Some(total) = totals.series.get_mut(&(metric.subject, labels)) {
            total.exemplar = read.get(&(exemplar.block, exemplar.row)).copied();
        }
    }
}

impl Subject {
    /// The metric that counts all of it.
    pub fn counter(self) -> Option<&'static Metric> {
        self.metric(Part::Total)
    }

    /// The metric that counts what failed.
    pub fn failures(self) -> Option<&'static Metric> {
        self.metric(Part::Failed)
    }

    /// Its histogram.
    pub fn histogram(self) -> Option<&'static Metric> {
        self.metric(Part::Histogram)
    }

    fn metric(self, part: Part) -> Option<&'static Metric> {
        METRICS.iter().find(|metric| metric.subject == self && metric.part == part)
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::Spans, Self::Entries, Self::Calls, Self::ClientCalls];
}

/// In seconds.
pub fn secs_of(latency: DurationNanos) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a double is what is written")]
    let nanos = latency.0 as f64;
    nanos / 1e9
}

/// The value of the instant that an exemplar is counted at.
pub fn exemplar_millis(exemplar: &PromExemplar) -> Millis {
    millis_of(exemplar.at)
}
