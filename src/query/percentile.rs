//! The heart: a percentile, and the traces in its very bucket; as a whole, by group, by step, and beside an earlier window.

use crate::latency::{Bucket, Exemplar, Quantile, QuantileAnswer, Resolution, SlotLatency};
use crate::model::{DurationNanos, TimeRange, UnixNanos};
use crate::store::Snapshot;

use super::contributions::{Contributions, Sink};
use super::exemplars::Exemplars;
use super::groups::{Group, Ranking, Rest, Split, Tail, ranked};
use super::lookup::Lookup;
use super::selection::{GroupLabel, Grouping, Selection, SpansWanted, Target};
use super::steps::{StepRow, Steps, resolution_of};
use super::tally::Tally;
use super::traceql::{Field, Filter, RowScan, ServiceChoice};
use super::walk::{SlotAt, Slots};
use super::{ATTEMPTS, Coverage, ExemplarAnswer, Query, QueryError, whole_slots};

/// Steps of one answer, as in Prometheus.
pub const STEPS_MAX: u64 = 11_000;

/// What an answer is split by.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// Something that histograms are kept for.
    Kept(Grouping),
    /// Any field; spans are then counted one by one.
    Field(Field),
}

impl By {
    /// Key of the labels of its groups.
    pub fn key(&self) -> String {
        match self {
            Self::Kept(grouping) => grouping.key().to_owned(),
            Self::Field(field) => field.to_string(),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct PercentileQuestion {
    /// `service.name`.
    pub service: String,
    /// `service.namespace`; `None` takes every namespace together.
    pub namespace: Option<String>,
    /// Which of its spans.
    pub spans: SpansWanted,
    /// In the order of the answer.
    pub quantiles: Vec<Quantile>,
    /// By counting instant (start time); widened to whole 10 s slots.
    pub range: TimeRange,
    /// Traces per quantile; 0 for none.
    pub exemplars_max: usize,
    /// What must be true of the spans; then they are counted one by one.
    pub filter: Option<Filter>,
    /// What the answer is split by.
    pub by: Option<By>,
    /// Groups of the answer; what is left is one more.
    pub groups_max: usize,
    /// Length of a step of the series: a whole multiple of 10 s; `None` for no series.
    pub step: Option<DurationNanos>,
    /// How far back the window lies that this one is compared with.
    pub versus: Option<DurationNanos>,
}

impl PercentileQuestion {
    /// A question about a service without groups, steps or comparison.
    pub fn plain(service: &str, quantiles: Vec<Quantile>, range: TimeRange, exemplars_max: usize) -> Self {
        let service = service.to_owned();
        let (namespace, filter, by, step, versus) = (None, None, None, None, None);
        let spans = SpansWanted::Entries;
        Self { service, namespace, spans, filter, quantiles, range, exemplars_max, by, groups_max: 0, step, versus }
    }
}

/// The answer.
#[derive(Clone, Debug)]
pub struct PercentileAnswer {
    /// As asked.
    pub service: String,
    /// What was answered: whole slots.
    pub range: TimeRange,
    /// What was counted.
    pub whole: Counted,
    /// The groups that add most to the tail, first.
    pub groups: Vec<Group>,
    /// The groups that are not shown, when there are such.
    pub rest: Option<Rest>,
    /// What the groups are ranked by.
    pub tail: Option<Tail>,
    /// One per step with a span, in order.
    pub steps: Vec<StepRow>,
    /// The window that this one is compared with.
    pub versus: Option<Box<PercentileAnswer>>,
    /// What is missing.
    pub coverage: Coverage,
}

/// What one histogram says.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Spans counted.
    pub count: u64,
    /// Those of them with status ERROR.
    pub errors: u64,
    /// Sum of their latencies.
    pub sum_ns: u128,
    /// One per quantile asked for; empty when there are no spans.
    pub quantiles: Vec<QuantileRow>,
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

/// The whole window, and its groups.
struct Window {
    whole: Tally,
    groups: Vec<Tally>,
}

impl Window {
    fn group(&mut self, number: u32) -> Option<&mut Tally> {
        let at = number as usize;
        if self.groups.len() <= at {
            self.groups.resize_with(at + 1, Tally::sparse);
        }
        self.groups.get_mut(at)
    }
}

impl Sink for Window {
    fn slot(&mut self, target: Target<'_>, at: SlotAt, is_error: bool, latency: &SlotLatency) {
        if target.whole {
            self.whole.add(latency, is_error, at.lead);
        }
        for number in target.groups {
            if let Some(group) = self.group(*number) {
                group.add(latency, is_error, at.lead);
            }
        }
    }

    fn span(&mut self, target: Target<'_>, _at: UnixNanos, is_error: bool, exemplar: Exemplar) {
        if target.whole {
            self.whole.record(exemplar, is_error);
        }
        for number in target.groups {
            if let Some(group) = self.group(*number) {
                group.record(exemplar, is_error);
            }
        }
    }
}

impl Query {
    /// Percentiles of a service's latency with traces that show them. Cost: about a hundred histograms per sealed
    /// partition, those of each overlapping block in the active one, one pass over the head; with `step` once more.
    ///
    /// # Errors
    /// `Starting`, `UnknownService`, `EmptyWindow`, `BadStep`; with a filter or a field `TooLong` and `TooManyGroups`.
    pub fn percentile(&self, question: &PercentileQuestion) -> Result<PercentileAnswer, QueryError> {
        if question.range.end <= question.range.start {
            let (start, end) = (question.range.start.0, question.range.end.0);
            return Err(QueryError::EmptyWindow { start, end });
        }
        let resolution = question.step.map(|step| resolution_of(step, question.range, STEPS_MAX)).transpose()?;
        let mut attempts = 1..ATTEMPTS;
        loop {
            let answer = self.percentile_once(question, resolution)?;
            if !answer.coverage.is_outdated() || attempts.next().is_none() {
                return Ok(answer);
            }
        }
    }

    fn percentile_once(
        &self,
        question: &PercentileQuestion,
        resolution: Option<Resolution>,
    ) -> Result<PercentileAnswer, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut answer = self.percentile_of(&snapshot, question, question.range, resolution)?;
        if let Some(back) = question.versus {
            let range = &question.range;
            let range = TimeRange { start: range.start.saturating_sub(back), end: range.end.saturating_sub(back) };
            answer.versus = Some(Box::new(self.percentile_of(&snapshot, question, range, resolution)?));
        }
        Ok(answer)
    }

    fn percentile_of(
        &self,
        snapshot: &Snapshot,
        question: &PercentileQuestion,
        range: TimeRange,
        resolution: Option<Resolution>,
    ) -> Result<PercentileAnswer, QueryError> {
        let range = whole_slots(range);
        let counting = Counting::of(self, question, range)?;
        let mut window = Window { whole: Tally::dense(), groups: Vec::new() };
        let mut found = counting.collect(self, snapshot, Slots::Fewest, &mut window)?;
        window.groups.iter_mut().for_each(Tally::settle);
        if !found.service_is_known {
            let nearest = self.nearest_services(&question.service)?;
            return Err(QueryError::UnknownService { service: question.service.clone(), nearest });
        }
        let saturated = window.whole.saturated();
        if 0 < saturated {
            found.coverage.missing(format!("{saturated} spans are longer than the top bucket and counted in it"));
        }
        let conventions = self.conventions()?;
        let mut rows = Rows {
            question,
            exemplars: Exemplars { query: self, places: &found.places, conventions: &conventions },
            counting: &counting,
            coverage: found.coverage,
        };
        let whole = rows.counted(&window.whole, None, None);
        let ranking = match &question.by {
            Some(by) => {
                let split = Split { key: &by.key(), each_once: *by != By::Kept(Grouping::AnyPeel) };
                ranked(&window.whole, &window.groups, &found.groups.labels, split, &mut rows)
            }
            None => Ranking::default(),
        };
        let coverage = rows.coverage;
        let steps = match (question.step, resolution) {
            (Some(step), Some(resolution)) => {
                let mut steps = Steps::new(step, range);
                let slots = Slots::Of(resolution);
                let _again = counting.collect(self, snapshot, slots, &mut steps)?;
                steps.rows(&question.quantiles)
            }
            _ => Vec::new(),
        };
        let service = question.service.clone();
        let Ranking { groups, rest, tail } = ranking;
        Ok(PercentileAnswer { service, range, whole, groups, rest, tail, steps, versus: None, coverage })
    }
}

/// How the spans of a question are found.
struct Counting {
    selection: Selection,
    /// One by one; else by the slots that the selection names.
    rows: Option<RowScan>,
    /// Of the labels of groups.
    key: Option<String>,
    range: TimeRange,
}

impl Counting {
    fn of(query: &Query, question: &PercentileQuestion, range: TimeRange) -> Result<Self, QueryError> {
        let (service, namespace) = (question.service.clone(), question.namespace.clone());
        let (kept, field) = match &question.by {
            None => (None, None),
            Some(By::Kept(grouping)) => (Some(grouping.clone()), None),
            Some(By::Field(field)) => (None, Some(field.clone())),
        };
        let one_by_one = question.filter.is_some() || field.is_some();
        let by = match (&kept, field) {
            (Some(grouping), None) if one_by_one => Some(grouping.field().ok_or(QueryError::NoFilterWithPeel)?),
            (_, field) => field,
        };
        let rows = one_by_one.then_some(RowScan {
            filter: question.filter.clone(),
            by,
            range,
            service: Some(ServiceChoice { name: service.clone(), namespace: namespace.clone() }),
            spans: question.spans,
            conventions: query.conventions()?,
            ..RowScan::all()
        });
        let selection = Selection { service, namespace, spans: question.spans, by: kept };
        let key = question.by.as_ref().map(By::key);
        Ok(Self { selection, rows, key, range })
    }

    fn collect(
        &self,
        query: &Query,
        snapshot: &Snapshot,
        slots: Slots,
        sink: &mut dyn Sink,
    ) -> Result<Contributions, QueryError> {
        match &self.rows {
            Some(rows) => Contributions::scan(query, snapshot, rows, self.key.as_deref(), sink),
            None => Contributions::collect(query, snapshot, &self.selection, self.range, slots, sink),
        }
    }
}

/// Turns tallies into rows of the answer.
pub(super) struct Rows<'a> {
    pub(super) question: &'a PercentileQuestion,
    exemplars: Exemplars<'a>,
    counting: &'a Counting,
    coverage: Coverage,
}

impl Rows<'_> {
    /// `group` names the spans that count, `only_without` a dimension that they lack; neither: all.
    pub(super) fn counted(&mut self, tally: &Tally, group: Option<&GroupLabel>, only_without: Option<&str>) -> Counted {
        let Exemplars { query, places, conventions } = self.exemplars;
        let Counting { selection, rows, range, .. } = self.counting;
        let (range, rows) = (*range, rows.as_ref());
        let lookup = Lookup { query, places, selection, conventions, range, rows, group, only_without };
        let at = |quantile: &Quantile| Some((*quantile, tally.at(*quantile)?));
        let quantiles = self.question.quantiles.iter().filter_map(at).map(|(quantile, at)| {
            let exemplars =
                self.exemplars.in_bucket(tally, at.bucket, &lookup, self.question.exemplars_max, &mut self.coverage);
            QuantileRow::new(quantile, &at, exemplars)
        });
        Counted { quantiles: quantiles.collect(), count: tally.count(), errors: tally.errors(), sum_ns: tally.sum_ns() }
    }

    /// The same without exemplars.
    pub(super) fn counted_only(&self, tally: &Tally) -> Counted {
        Counted::without_exemplars(tally, &self.question.quantiles)
    }
}

impl Counted {
    pub(super) fn without_exemplars(tally: &Tally, quantiles: &[Quantile]) -> Self {
        let at = |quantile: &Quantile| Some(QuantileRow::new(*quantile, &tally.at(*quantile)?, Vec::new()));
        let quantiles = quantiles.iter().filter_map(at).collect();
        Self { count: tally.count(), errors: tally.errors(), sum_ns: tally.sum_ns(), quantiles }
    }
}

impl QuantileRow {
    fn new(quantile: Quantile, at: &QuantileAnswer, exemplars: Vec<ExemplarAnswer>) -> Self {
        Self {
            quantile,
            value: at.value,
            low: Bucket::low(at.bucket),
            high: Bucket::high(at.bucket),
            relative_error_max: at.relative_error_max,
            rank: at.rank,
            exemplars,
        }
    }
}
