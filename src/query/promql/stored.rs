//! Series of what is stored. Counters move at the edges of slots: at an instant they have counted the spans of all slots that
//! are over by then (contract 5.6).

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use foldhash::{HashMap, HashSet};

use super::super::rows::WITHIN;
use super::super::walk::{Places, Slots, Walk};
use super::super::{Coverage, Query, QueryError, coverage_of};
use super::catalogue::{Metric, Part, Subject};
use super::counted::{Chosen, Counted, Counting, Kept};
use super::entries::{self, Apart};
use super::eval::{POINTS_HELD_MAX, too_much};
use super::labels::{BUCKET_BOUND, Grouping, Labels, METRIC_NAME};
use super::pile::Pile;
use super::series::{Millis, Sampled, Samples, Series};
use super::sliding::Sliding;
use super::source::{NumberOf, Selector, Source};
use super::{Instants, PromAnswer, PromError, PromQuery};
use crate::clock;
use crate::latency::Resolution;
use crate::limits::SLOT_SECS;
use crate::model::{Conventions, Family, SeriesKey, SpanKind, TimeRange, UnixNanos};
use crate::store::{Edge, SnapshotOfCalls, StoreError};

/// Tells the sides of a call apart while they are counted, and spans with and without a latency: no label of an answer has
/// this name.
const SIDE: &str = "";
/// The side of spans without a latency.
const UNTIMED: &str = "untimed";
/// Milliseconds of a slot.
const SLOT: Millis = SLOT_SECS.cast_signed() * 1_000;

/// What is stored, as one question sees it.
pub(super) struct Stored<'a> {
    pub(super) query: &'a Query,
    pub(super) conventions: Arc<Conventions>,
    snapshot: SnapshotOfCalls,
    began: Instant,
    coverage: RefCell<Coverage>,
}

impl Query {
    /// The value of a PromQL query, all from one state of what is stored.
    ///
    /// # Errors
    /// `Starting`, `TooLong`, or as the query cannot be evaluated.
    pub fn promql(&self, query: &PromQuery, instants: Instants) -> Result<PromAnswer, PromError> {
        let stored = Stored::of(self)?;
        let value = query.value(&stored, instants)?;
        Ok(PromAnswer { value, warnings: stored.coverage.into_inner().reasons })
    }
}

/// The end of the last slot that is over at an instant.
pub(super) fn edge(at: Millis) -> Millis {
    at.div_euclid(SLOT).saturating_mul(SLOT).max(0)
}

/// In milliseconds.
pub(super) fn millis_of(at: UnixNanos) -> Millis {
    Millis::try_from(at.0 / 1_000_000).unwrap_or(Millis::MAX)
}

fn nanos(at: Millis) -> UnixNanos {
    UnixNanos(u64::try_from(at).unwrap_or(0).saturating_mul(1_000_000))
}

/// The longest slots that have an edge at each of these.
fn resolution_of(edges: &[Millis]) -> Resolution {
    let fits = |resolution: &Resolution| {
        let length = resolution.secs().cast_signed() * 1_000;
        edges.iter().all(|edge| edge % length == 0)
    };
    Resolution::ALL.into_iter().rev().find(fits).unwrap_or(Resolution::TenSeconds)
}

impl<'a> Stored<'a> {
    pub(super) fn of(query: &'a Query) -> Result<Self, QueryError> {
        let snapshot = query.store()?.snapshot_of_calls();
        let coverage = RefCell::new(coverage_of(&snapshot.snapshot));
        Ok(Self { query, conventions: query.conventions()?, snapshot, began: clock::instant(), coverage })
    }

    /// The metrics that a selector names.
    pub(super) fn metrics_of(&self, selector: &Selector) -> impl Iterator<Item = &'static Metric> {
        self.query.prom_metrics().filter(|metric| selector.takes(METRIC_NAME, metric.name))
    }

    /// The edges of the slots that a range meets.
    pub(super) fn edges_of([start, end]: [Millis; 2]) -> [Millis; 2] {
        [edge(start), edge(end.saturating_add(SLOT))]
    }

    /// Notes what could not be read.
    pub(super) fn unreadable(&self, error: &StoreError) {
        self.query.unreadable(&mut self.coverage.borrow_mut(), "a block", error);
    }

    pub(super) fn warnings(self) -> Vec<String> {
        self.coverage.into_inner().reasons
    }

    /// Counts what the series of a metric hold between the edges, which ascend; with `from_start` also before the first one,
    /// as a first interval.
    pub(super) fn counted(
        &self,
        metric: &Metric,
        kept: Kept,
        edges: &[Millis],
        from_start: bool,
        asked: Asked<'_>,
        places: &mut Places,
    ) -> Result<Vec<Counted>, PromError> {
        let label = if matches!(metric.subject, Subject::Spans | Subject::Entries) { "service" } else { "server" };
        let service = asked.selector.and_then(|selector| selector.only(label));
        let labels_of = |labels: Labels| asked.labels(labels);
        if metric.subject == Subject::Entries {
            let apart = Apart::new(&self.conventions, &labels_of);
            let chosen = Chosen { service, labels_of: &|key| apart.name(key) };
            let all = self.of_sides(metric.subject, chosen, kept, edges, from_start, places)?;
            return Ok(apart.series(all));
        }
        if metric.subject == Subject::Spans {
            let labels_of = &|key: &SeriesKey<'_>| {
                let side = if key.family == Some(Family::Untimed) { UNTIMED } else { "" };
                let is_wanted = side.is_empty() || metric.part == Part::Total;
                let labels = metric.subject.labels(key).filter(|_| is_wanted).and_then(labels_of)?;
                Some(labels.with(SIDE, side))
            };
            let chosen = Chosen { service, labels_of };
            return Ok(with_untimed(self.of_sides(metric.subject, chosen, kept, edges, from_start, places)?));
        }
        let is_wanted = |key: &SeriesKey<'_>| metric.subject == Subject::Calls || key.kind == SpanKind::Client;
        // Both sides in one pass: places of heads hold as long as no partition follows.
        let labels_of = &|key: &SeriesKey<'_>| {
            let labels = metric.subject.labels(key).filter(|_| is_wanted(key)).and_then(labels_of)?;
            Some(labels.with(SIDE, key.kind.as_str()))
        };
        let chosen = Chosen { service, labels_of };
        let all = self.of_sides(metric.subject, chosen, kept, edges, from_start, places)?.into_iter();
        let (of_server, of_client): (Vec<Counted>, Vec<Counted>) =
            all.partition(|one| one.labels.get(SIDE) == SpanKind::Server.as_str());
        let [mut of_server, of_client] = [of_server, of_client].map(|side| {
            side.into_iter().map(|one| Counted { labels: one.labels.clone().without(SIDE), ..one }).collect::<Vec<_>>()
        });
        // Where the server sends no spans, its calls are those that the client saw.
        let labels = |side: &[Counted]| side.iter().map(|one| one.labels.clone()).collect::<HashSet<Labels>>();
        let is_seen = |one: &Counted| one.seen().iter().any(|count| 0 < *count);
        let of_clients = labels(&of_client);
        of_server.retain(|one| is_seen(one) || !of_clients.contains(&one.labels));
        let of_servers = labels(&of_server);
        of_server.extend(of_client.into_iter().filter(|one| !of_servers.contains(&one.labels)));
        Ok(of_server)
    }

    fn of_sides(
        &self,
        subject: Subject,
        chosen: Chosen<'_>,
        kept: Kept,
        edges: &[Millis],
        from_start: bool,
        places: &mut Places,
    ) -> Result<Vec<Counted>, PromError> {
        let edges_nanos = edges.iter().map(|edge| nanos(*edge));
        let cuts: Vec<UnixNanos> = from_start.then_some(UnixNanos(0)).into_iter().chain(edges_nanos).collect();
        let (Some(first), Some(last)) = (edges.first(), edges.last()) else { return Ok(Vec::new()) };
        let mut counting = Counting::new(subject, chosen, kept, cuts);
        let mut parts = vec![(TimeRange { start: nanos(*first), end: nanos(*last) }, Slots::Of(resolution_of(edges)))];
        if from_start {
            parts.push((TimeRange { start: UnixNanos(0), end: nanos(*first) }, Slots::Fewest));
        }
        for (range, slots) in parts.into_iter().filter(|(range, _)| range.start < range.end) {
            self.may_go_on()?;
            counting.from = range.start;
            let coverage = &mut *self.coverage.borrow_mut();
            Walk { query: self.query, range, slots, coverage, places, whole_slots: None }
                .visit(&self.snapshot.snapshot, &mut counting)?;
        }
        let heads = &self.snapshot.snapshot.heads;
        let conventions = &*self.conventions;
        if subject == Subject::Spans {
            counting.heads(
                heads,
                &|_, span| span.latency().is_some(),
                &|batch, span| SeriesKey::counting(batch, span, conventions),
                places,
            );
            return counting.counted();
        }
        if subject == Subject::Entries {
            let is_entry = |batch: &_, span: &_| entries::counts(batch, span, conventions);
            counting.heads(heads, &is_entry, &|batch, span| entries::family_of(batch, span, conventions), places);
            return counting.counted();
        }
        let blocks: Vec<Vec<u32>> = heads
            .iter()
            .map(|head| head.batches.iter().map(|batch| places.add_head(batch, head.horizon)).collect())
            .collect();
        let mut numbers: HashMap<(Edge, SpanKind), Option<usize>> = HashMap::default();
        self.snapshot.calls_of_heads(&mut |head, rows, call| {
            let place = |row: u32| {
                let row = rows.get(row as usize)?;
                Some((*blocks.get(head)?.get(row.batch as usize)?, row.row))
            };
            for (kind, side) in [(SpanKind::Server, call.server), (SpanKind::Client, call.client)] {
                let Some(side) = side else { continue };
                let edge = (call.edge.clone(), kind);
                let number =
                    *numbers.entry(edge).or_insert_with_key(|(edge, kind)| counting.number(&edge.series(*kind)));
                if let Some(number) = number {
                    let place = side.row.and_then(place);
                    counting.add_one(number, call.at, call.edge.status(), side.latency, place);
                }
            }
        });
        counting.counted()
    }
}

/// Spans without a latency count with the others of their labels, and nothing more is said of them.
fn with_untimed(all: Vec<Counted>) -> Vec<Counted> {
    let is_untimed = |one: &Counted| one.labels.get(SIDE) == UNTIMED;
    if !all.iter().any(is_untimed) {
        return all;
    }
    Counted::joined(all.into_iter().map(|one| {
        if !is_untimed(&one) {
            return one;
        }
        let (untimed, histograms) = (one.total(), vec![None; one.histograms.len()]);
        Counted { labels: one.labels.without(SIDE), untimed, histograms, ..one }
    }))
}

/// Which series are counted: those of a selector, if there is one, and with a grouping those of a group together.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) selector: Option<&'a Selector>,
    pub(super) grouping: Option<&'a Grouping>,
}

impl Asked<'_> {
    /// Under which labels a series counts.
    fn labels(&self, labels: Labels) -> Option<Labels> {
        if self.selector.is_some_and(|selector| !takes_others(selector, &labels)) {
            return None;
        }
        Some(match self.grouping {
            Some(grouping) => grouping.group(&labels),
            None => labels,
        })
    }
}

/// Whether a series is taken by all conditions but those on name and bound.
pub(super) fn takes_others(selector: &Selector, labels: &Labels) -> bool {
    let others = selector.matchers.iter();
    let mut others = others.filter(|matcher| matcher.label != METRIC_NAME && matcher.label != BUCKET_BOUND);
    others.all(|matcher| matcher.takes(labels.get(&matcher.label)))
}

/// Whether it says something of the bound of buckets; series without one have an empty one.
fn names_bound(selector: &Selector) -> bool {
    selector.matchers.iter().any(|matcher| matcher.label == BUCKET_BOUND)
}

/// Intervals of the counts that lie in a window, first and behind the last.
type Windows = Vec<(usize, usize)>;

/// What the numbers of windows become.
struct Form<'a> {
    /// What was counted since the first span, in series of the metric's name; otherwise how much it grew.
    from_start: bool,
    factor: f64,
    grouping: Option<&'a Grouping>,
    /// Of each histogram.
    number: Option<NumberOf<'a>>,
}

impl Stored<'_> {
    /// The series of a selector whose numbers are those of windows between edges.
    fn series(
        &self,
        selector: &Selector,
        edges: &[Millis],
        windows: &Windows,
        form: &Form<'_>,
    ) -> Result<Vec<Series>, PromError> {
        let mut found = Vec::new();
        for metric in self.metrics_of(selector) {
            if metric.part != Part::Buckets && !selector.takes(BUCKET_BOUND, "") {
                continue;
            }
            let asked = Asked { selector: Some(selector), grouping: form.grouping };
            let places = &mut Places::default();
            let counted = self.counted(metric, Kept::of(metric.part), edges, form.from_start, asked, places)?;
            if POINTS_HELD_MAX < counted.len().saturating_mul(windows.len()) {
                return Err(too_much());
            }
            for one in counted {
                self.may_go_on()?;
                let labels = if form.from_start { metric.named(one.labels.clone()) } else { one.labels.clone() };
                let samples = samples(metric.part, one, windows, form);
                let series = Series { labels, samples };
                if names_bound(selector) && metric.part == Part::Buckets {
                    let bound = |one: &Series| selector.takes(BUCKET_BOUND, one.labels.get(BUCKET_BOUND));
                    found.extend(series.expanded().into_iter().filter(bound));
                } else {
                    found.push(series);
                }
            }
        }
        found.retain(|one| !one.samples.is_empty());
        Ok(found)
    }
}

/// The values of the windows; with `from_start` there is none before the first span. A call that never failed has failed 0 times.
fn samples(part: Part, counted: Counted, windows: &Windows, form: &Form<'_>) -> Samples {
    let within = |before: &[u64], (start, end): &(usize, usize)| {
        let of = |at: usize| before.get(at).copied().unwrap_or(0);
        of(*end).saturating_sub(of(*start))
    };
    let seen = cumulative(counted.seen());
    let exists = |window: &(usize, usize)| !form.from_start || 0 < within(&seen, window);
    #[expect(clippy::cast_precision_loss, reason = "a double is what answers show")]
    match part {
        Part::Total | Part::Count | Part::Failed => {
            let before = cumulative(&counted.counts);
            let count = |window: &(usize, usize)| exists(window).then(|| within(&before, window) as f64 * form.factor);
            Samples::Floats(windows.iter().map(count).collect())
        }
        Part::Sum => {
            let before = cumulative(&counted.sums);
            let sum = |(start, end): &(usize, usize)| {
                let of = |at: usize| before.get(at).copied().unwrap_or(0);
                of(*end).saturating_sub(of(*start)) as f64 / 1e9 * form.factor
            };
            Samples::Floats(windows.iter().map(|window| exists(window).then(|| sum(window))).collect())
        }
        Part::Histogram | Part::Buckets => {
            let sorted: Vec<Option<Pile>> = counted.histograms.into_iter().map(|pile| pile.map(Pile::sorted)).collect();
            let mut sliding = Sliding::over(&sorted, form.factor);
            let is_classic = part == Part::Buckets;
            if let Some(number) = form.number {
                let mut value = |(at, window): (usize, &(usize, usize))| {
                    exists(window).then(|| number(sliding.window(window.0, window.1), is_classic, at))
                };
                return Samples::Floats(windows.iter().enumerate().map(&mut value).collect());
            }
            let value = |window: &(usize, usize)| exists(window).then(|| sliding.shared(window.0, window.1));
            let values = windows.iter().map(value).collect();
            if is_classic { Samples::Buckets(values) } else { Samples::Histograms(values) }
        }
    }
}

/// What was counted before each interval, and before the end.
fn cumulative<T: Copy + Default + std::ops::Add<Output = T>>(numbers: &[T]) -> Vec<T> {
    let mut sum = T::default();
    let mut before = vec![sum];
    for number in numbers {
        sum = sum + *number;
        before.push(sum);
    }
    before
}

/// The edges in order, each once.
fn in_order(edges: impl Iterator<Item = Millis>) -> Vec<Millis> {
    let mut edges: Vec<Millis> = edges.collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

impl Source for Stored<'_> {
    fn at(&self, selector: &Selector, instants: &[Millis]) -> Result<Vec<Series>, PromError> {
        let edges = in_order(instants.iter().map(|at| edge(*at)));
        // The interval before the first edge is the first one.
        let windows = instants.iter().map(|at| (0, edges.partition_point(|known| *known <= edge(*at)))).collect();
        self.series(selector, &edges, &windows, &Form { from_start: true, factor: 1.0, grouping: None, number: None })
    }

    fn increase(
        &self,
        selector: &Selector,
        range: Millis,
        instants: &[Millis],
        factor: f64,
        grouping: Option<&Grouping>,
        number: Option<NumberOf<'_>>,
    ) -> Result<Option<Vec<Series>>, PromError> {
        let is_histogram = |metric: &Metric| matches!(metric.part, Part::Histogram | Part::Buckets);
        if number.is_some() && (names_bound(selector) || !self.metrics_of(selector).all(is_histogram)) {
            return Ok(None);
        }
        if grouping.is_some() && !self.can_be_counted_together(selector, grouping) {
            return Ok(None);
        }
        let ends = |at: &Millis| (edge(at.saturating_sub(range)), edge(*at));
        let edges = in_order(instants.iter().flat_map(|at| <[Millis; 2]>::from(ends(at))));
        let place = |at: Millis| edges.partition_point(|known| *known < at);
        let windows = instants.iter().map(|at| (place(ends(at).0), place(ends(at).1))).collect();
        self.series(selector, &edges, &windows, &Form { from_start: false, factor, grouping, number }).map(Some)
    }

    fn samples(&self, selector: &Selector, after: Millis, until: Millis) -> Result<Vec<Sampled>, PromError> {
        let times: Vec<Millis> = (edge(after) / SLOT + 1..=edge(until) / SLOT).map(|slot| slot * SLOT).collect();
        if POINTS_HELD_MAX < times.len() {
            return Err(too_much());
        }
        let series = self.at(selector, &times)?;
        Ok(series.into_iter().map(|one| super::eval::present(one, &times)).collect())
    }

    fn may_go_on(&self) -> Result<(), PromError> {
        Ok(self.query.may_go_on(self.began, WITHIN)?)
    }
}

impl Stored<'_> {
    /// Whether the sum of a group is what is counted under its labels: of one metric, and not of an edge's sides.
    fn can_be_counted_together(&self, selector: &Selector, grouping: Option<&Grouping>) -> bool {
        let mut metrics = self.metrics_of(selector);
        let keeps_bound = grouping.is_some_and(|grouping| grouping.keeps(BUCKET_BOUND));
        let can = |metric: &Metric| {
            let is_of_spans = matches!(metric.subject, Subject::Spans | Subject::Entries);
            is_of_spans && (metric.part != Part::Buckets || keeps_bound)
        };
        metrics.next().is_none_or(can) && metrics.next().is_none() && !names_bound(selector)
    }
}
