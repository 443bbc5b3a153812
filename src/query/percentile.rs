//! The heart: a percentile, and the traces in its very bucket.

use crate::latency::{Bucket, Histogram, Quantile};
use crate::model::{DurationNanos, TimeRange};

use super::contributions::Contributions;
use super::{Coverage, ExemplarAnswer, Query, QueryError, whole_slots};

/// What is asked.
#[derive(Clone, Debug)]
pub struct PercentileQuestion {
    /// `service.name`.
    pub service: String,
    /// `service.namespace`; `None` takes every namespace together.
    pub namespace: Option<String>,
    /// In the order of the answer.
    pub quantiles: Vec<Quantile>,
    /// By counting instant (start time); widened to whole 10 s slots.
    pub range: TimeRange,
    /// Traces per quantile; 0 for none.
    pub exemplars_max: usize,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct PercentileAnswer {
    /// As asked.
    pub service: String,
    /// What was answered: whole slots.
    pub range: TimeRange,
    /// Spans counted.
    pub count: u64,
    /// One per question; empty when there are no spans.
    pub quantiles: Vec<QuantileRow>,
    /// What is missing.
    pub coverage: Coverage,
}

/// One quantile.
#[derive(Clone, Debug)]
pub struct QuantileRow {
    /// As asked.
    pub quantile: Quantile,
    /// Upper edge of the bucket that holds the rank: never below the exact value.
    pub value: DurationNanos,
    /// Lower edge of that bucket.
    pub low: DurationNanos,
    /// Upper edge, inclusive.
    pub high: DurationNanos,
    /// Largest distance of `value` from the exact one, as a part of it.
    pub relative_error_max: f64,
    /// Nearest rank, from 1.
    pub rank: u64,
    /// Traces, those in the bucket first, slowest first among them.
    pub exemplars: Vec<ExemplarAnswer>,
}

impl Query {
    /// Percentiles of a service's latency with traces that show them. Cost: about a hundred histograms per sealed
    /// partition, those of each overlapping block in the active one, one pass over the head.
    ///
    /// # Errors
    /// `Starting`, `UnknownService`, `EmptyWindow`.
    pub fn percentile(&self, question: &PercentileQuestion) -> Result<PercentileAnswer, QueryError> {
        if question.range.end <= question.range.start {
            let (start, end) = (question.range.start.0, question.range.end.0);
            return Err(QueryError::EmptyWindow { start, end });
        }
        let range = whole_slots(question.range);
        let collect = || Contributions::collect(self, &self.store()?.snapshot(), question, range);
        let mut contributions = collect()?;
        for _ in 1..super::ATTEMPTS {
            if !contributions.coverage.is_outdated() {
                break;
            }
            contributions = collect()?;
        }
        if !contributions.service_is_known {
            let nearest = self.nearest_services(&question.service)?;
            return Err(QueryError::UnknownService { service: question.service.clone(), nearest });
        }
        let mut histogram = Histogram::new();
        contributions.add_to(&mut histogram);
        let mut coverage = contributions.coverage.clone();
        if 0 < histogram.saturated() {
            let spans = histogram.saturated();
            coverage.missing(format!("{spans} spans are longer than the top bucket and counted in it"));
        }
        let mut rows = Vec::new();
        for quantile in &question.quantiles {
            let Some(at) = histogram.at(*quantile) else { continue };
            let exemplars = contributions.exemplars(
                self,
                at.bucket,
                at.rank == histogram.count(),
                question.exemplars_max,
                &mut coverage,
            );
            rows.push(QuantileRow {
                quantile: *quantile,
                value: at.value,
                low: Bucket::low(at.bucket),
                high: Bucket::high(at.bucket),
                relative_error_max: at.relative_error_max,
                rank: at.rank,
                exemplars,
            });
        }
        let service = question.service.clone();
        Ok(PercentileAnswer { service, range, count: histogram.count(), quantiles: rows, coverage })
    }
}
