//! A window cut into steps of equal length.

use crate::latency::{Exemplar, Quantile, Resolution, SlotLatency};
use crate::model::{DurationNanos, TimeRange, UnixNanos};

use super::QueryError;
use super::contributions::Sink;
use super::percentile::Counted;
use super::selection::Target;
use super::tally::Tally;
use super::walk::{Lead, SlotAt};

/// One step.
#[derive(Clone, Debug)]
pub struct StepRow {
    /// Its first instant; a whole multiple of the step.
    pub start: UnixNanos,
    /// What was counted; no exemplars.
    pub counted: Counted,
}

/// The longest slots that steps of this length are made of.
///
/// # Errors
/// `BadStep` when it is no whole multiple of 10 s, or the window has more than `steps_max` of them.
pub(super) fn resolution_of(step: DurationNanos, range: TimeRange, steps_max: u64) -> Result<Resolution, QueryError> {
    let length = |resolution: Resolution| DurationNanos::from_secs(resolution.secs()).0;
    let divides = |resolution: &Resolution| step.0 != 0 && step.0.is_multiple_of(length(*resolution));
    let resolution = Resolution::ALL.into_iter().rev().find(divides);
    let steps = range.end.0.saturating_sub(range.start.0).checked_div(step.0).unwrap_or(u64::MAX);
    resolution.filter(|_| steps <= steps_max).ok_or(QueryError::BadStep { step, steps, steps_max })
}

/// Steps while they are counted. Steps begin at whole multiples of their length; the first and the last hold only what
/// lies in the window, which is cut to whole slots.
pub(super) struct Steps {
    step: u64,
    first: u64,
    tallies: Vec<Tally>,
}

impl Steps {
    pub(super) fn new(step: DurationNanos, range: TimeRange) -> Self {
        let first = range.start.0 / step.0;
        let n = range.end.0.div_ceil(step.0).saturating_sub(first);
        let n = usize::try_from(n).unwrap_or(0);
        Self { step: step.0, first, tallies: std::iter::repeat_with(Tally::sparse).take(n).collect() }
    }

    fn at(&mut self, instant: UnixNanos) -> Option<&mut Tally> {
        let at = (instant.0 / self.step).checked_sub(self.first)?;
        self.tallies.get_mut(usize::try_from(at).ok()?)
    }

    /// The steps with a span.
    pub(super) fn rows(&self, quantiles: &[Quantile]) -> Vec<StepRow> {
        let counted = (self.first..).zip(&self.tallies).filter(|(_, tally)| 0 < tally.count());
        let row = |(number, tally): (u64, &Tally)| StepRow {
            start: UnixNanos(number * self.step),
            counted: Counted::without_exemplars(tally, quantiles),
        };
        counted.map(row).collect()
    }
}

impl Sink for Steps {
    fn slot(&mut self, target: Target<'_>, at: SlotAt, is_error: bool, latency: &SlotLatency) {
        if let Some(tally) = self.at(at.start).filter(|_| target.whole) {
            tally.add(latency, is_error, Lead::NOWHERE);
        }
    }

    fn span(&mut self, target: Target<'_>, at: UnixNanos, is_error: bool, exemplar: Exemplar) {
        if let Some(tally) = self.at(at).filter(|_| target.whole) {
            tally.record(exemplar, is_error);
        }
    }
}
