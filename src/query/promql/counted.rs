//! What the series of a metric counted between given instants: slots of blocks and roll-ups, rows of the heads.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::block::ServiceCount;
use crate::latency::{Exemplar, Resolution, Slot, SlotLatency, instant_of};
use crate::model::{DurationNanos, SeriesKey, Span, SpanBatch, SpanKey, SpanKind, SpanStatus, UnixNanos};
use crate::store::{HeadPart, SeriesList};

use super::super::walk::{Depth, Places, SlotAt, Visitor};
use super::PromError;
use super::catalogue::{Part, Subject};
use super::eval::{POINTS_HELD_MAX, too_much};
use super::labels::Labels;
use super::pile::Pile;

/// Which stored series count.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    /// Those of other services do not: told without a look at their labels. Edges are of their server's.
    pub(super) service: Option<&'a str>,
    /// Under which labels; `None` leaves one out.
    pub(super) labels_of: &'a dyn Fn(&SeriesKey<'_>) -> Option<Labels>,
}

/// What is kept of each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Whether spans that failed are counted alone.
    pub(super) only_failed: bool,
    pub(super) detail: Detail,
    pub(super) exemplars: bool,
}

/// How much; each has what the ones before have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    Counts,
    Sums,
    Histograms,
}

impl Kept {
    pub(super) fn of(part: Part) -> Self {
        let detail = match part {
            Part::Total | Part::Count | Part::Failed => Detail::Counts,
            Part::Sum => Detail::Sums,
            Part::Histogram | Part::Buckets => Detail::Histograms,
        };
        Self { only_failed: part == Part::Failed, detail, exemplars: false }
    }
}

/// What one series counted.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    pub(super) labels: Labels,
    /// By interval.
    pub(super) counts: Vec<u64>,
    /// By interval, where those that failed are counted alone: with the others.
    pub(super) all: Vec<u64>,
    /// By interval, in nanoseconds, if wanted.
    pub(super) sums: Vec<u128>,
    /// By interval, if wanted.
    pub(super) histograms: Vec<Option<Pile>>,
    /// Of all intervals, if wanted.
    pub(super) exemplars: Vec<Exemplar>,
    /// Of all intervals, how many had no latency: no histogram has them.
    pub(super) untimed: u64,
}

impl Counted {
    /// By interval, whether they failed or not: a series is there from the first of them on.
    pub(super) fn seen(&self) -> &[u64] {
        if self.all.is_empty() { &self.counts } else { &self.all }
    }

    fn add_count(&mut self, interval: usize, count: u64, counts: bool) {
        if let Some(all) = self.all.get_mut(interval) {
            *all += count;
        }
        if let Some(known) = self.counts.get_mut(interval).filter(|_| counts) {
            *known += count;
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Takes in what another series of the same intervals counted.
    fn take_in(&mut self, other: Self) {
        let add =
            |own: &mut Vec<u64>, other: Vec<u64>| own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        add(&mut self.counts, other.counts);
        add(&mut self.all, other.all);
        self.sums.iter_mut().zip(other.sums).for_each(|(own, other)| *own += other);
        for (own, other) in self.histograms.iter_mut().zip(other.histograms) {
            match (own, other) {
                (Some(own), Some(other)) => own.take_in(other),
                (own, other) => *own = own.take().or(other),
            }
        }
        self.exemplars.extend(other.exemplars);
        self.untimed += other.untimed;
    }

    /// Series with their labels, each once.
    pub(super) fn joined(all: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let (mut joined, mut places): (Vec<Self>, HashMap<Labels, usize>) = Default::default();
        for one in all {
            if let Some(same) = places.get(&one.labels).and_then(|place| joined.get_mut(*place)) {
                same.take_in(one);
                continue;
            }
            let _new = places.insert(one.labels.clone(), joined.len());
            joined.push(one);
        }
        joined
    }
}

/// Spans of a batch that look the same from the outside are of one series: scope, name, kind, status, and what sets them apart.
type Look<'a> = (u32, &'a [u8], SpanKind, SpanStatus, bool);

/// Counts while a store is walked through.
pub(super) struct Counting<'a> {
    subject: Subject,
    asked: Chosen<'a>,
    kept: Kept,
    /// Intervals begin at these, ascending; the last one ends the last interval.
    cuts: Vec<UnixNanos>,
    /// Slots that begin before are left out: those of roll-ups may reach into a window, and are counted in the one before.
    pub(super) from: UnixNanos,
    series: Vec<Counted>,
    /// Entries of all histograms.
    held: usize,
    numbers: HashMap<Labels, usize>,
    known: HashMap<Arc<SeriesKey<'static>>, Option<usize>>,
    /// By where the key lies, as long as this holds it: lists of one partition share theirs.
    places: HashMap<usize, (Arc<SeriesKey<'static>>, Option<usize>)>,
    /// Of the series that were chosen last.
    chosen: Vec<usize>,
    /// That was counted in last.
    last_interval: usize,
}

impl<'a> Counting<'a> {
    pub(super) fn new(subject: Subject, asked: Chosen<'a>, kept: Kept, cuts: Vec<UnixNanos>) -> Self {
        let (series, held, numbers, known, places, chosen, last_interval) = Default::default();
        let from = UnixNanos(0);
        Self { subject, asked, kept, cuts, from, series, held, numbers, known, places, chosen, last_interval }
    }

    /// What was counted.
    ///
    /// # Errors
    /// `TooMuch`.
    pub(super) fn counted(self) -> Result<Vec<Counted>, PromError> {
        if self.is_full() { Err(too_much()) } else { Ok(self.series) }
    }

    /// Whether there is no room for more: what follows is not counted any more.
    fn is_full(&self) -> bool {
        let intervals = self.series.len().saturating_mul(self.cuts.len());
        POINTS_HELD_MAX < self.held.max(intervals)
    }

    /// The number of the series that a stored one counts in.
    pub(super) fn number(&mut self, key: &SeriesKey<'_>) -> Option<usize> {
        if !self.subject.has(key) || self.asked.service.is_some_and(|service| *key.service != *service) {
            return None;
        }
        let known: &HashMap<Arc<SeriesKey<'_>>, Option<usize>> = &self.known;
        if let Some(known) = known.get(key) {
            return *known;
        }
        let number = self.new_number(key);
        let _new = self.known.insert(Arc::new(key.clone().into_owned()), number);
        number
    }

    fn new_number(&mut self, key: &SeriesKey<'_>) -> Option<usize> {
        if self.is_full() {
            return None;
        }
        let labels = (self.asked.labels_of)(key)?;
        let n = self.cuts.len().saturating_sub(1);
        let next = self.series.len();
        let number = *self.numbers.entry(labels).or_insert_with_key(|labels| {
            self.series.push(Counted {
                labels: labels.clone(),
                counts: vec![0; n],
                all: if self.kept.only_failed { vec![0; n] } else { Vec::new() },
                sums: if Detail::Sums <= self.kept.detail { vec![0; n] } else { Vec::new() },
                histograms: if self.kept.detail == Detail::Histograms { vec![None; n] } else { Vec::new() },
                exemplars: Vec::new(),
                untimed: 0,
            });
            next
        });
        Some(number)
    }

    /// Slots of a series ascend: most lie in the interval of the one before, or in the next.
    fn interval(&mut self, at: UnixNanos) -> Option<usize> {
        let is_in = |interval: &usize| matches!(self.cuts.get(*interval..), Some([start, end, ..]) if *start <= at && at < *end);
        let near = [self.last_interval, self.last_interval + 1].into_iter().find(is_in);
        let interval = match near {
            Some(near) => near,
            None => self.cuts.partition_point(|cut| *cut <= at).checked_sub(1).filter(is_in)?,
        };
        self.last_interval = interval;
        Some(interval)
    }

    /// Whether what has this status counts, or is only seen.
    fn counts_of(&self, status: SpanStatus) -> bool {
        !self.kept.only_failed || status == SpanStatus::Error
    }

    fn add(&mut self, number: usize, at: UnixNanos, status: SpanStatus, latency: &SlotLatency) {
        let (Some(interval), kept) = (self.interval(at), self.kept) else { return };
        if self.is_full() {
            return;
        }
        let counts = self.counts_of(status);
        let Some(series) = self.series.get_mut(number) else { return };
        series.add_count(interval, latency.histogram.count(), counts);
        if !counts {
            return;
        }
        if let Some(sum) = series.sums.get_mut(interval) {
            *sum += latency.histogram.sum_ns();
        }
        if let Some(histogram) = series.histograms.get_mut(interval) {
            let held = histogram.get_or_insert_default().add(&latency.histogram);
            self.held = self.held.saturating_add_signed(held);
        }
        if kept.exemplars {
            series.exemplars.extend_from_slice(&latency.exemplars);
        }
    }

    /// One span or call of a head, in the series of that number.
    pub(super) fn add_one(
        &mut self,
        number: usize,
        at: UnixNanos,
        status: SpanStatus,
        latency: DurationNanos,
        place: Option<(u32, u32)>,
    ) {
        if self.depth() == Depth::Counts {
            let (interval, counts) = (self.interval(at), self.counts_of(status));
            if let (Some(interval), Some(series)) = (interval, self.series.get_mut(number)) {
                series.add_count(interval, 1, counts);
            }
            return;
        }
        let mut slot = SlotLatency::default();
        slot.histogram.record(latency);
        slot.exemplars.extend(place.map(|(block, row)| Exemplar { latency, block, row }));
        self.add(number, at, status, &slot);
    }

    /// The spans of the heads, each once. Those of one look whose keys differ are told apart by `apart`.
    pub(super) fn heads(
        &mut self,
        heads: &[HeadPart],
        apart: &dyn Fn(&SpanBatch, &Span) -> bool,
        key_of: &dyn for<'b> Fn(&'b SpanBatch, &Span) -> SeriesKey<'b>,
        places: &mut Places,
    ) {
        let mut seen: HashSet<SpanKey> = HashSet::default();
        for (head, batch) in heads.iter().flat_map(|head| head.batches.iter().map(move |batch| (head, batch))) {
            let block = places.add_head(batch, head.horizon);
            let mut looks: HashMap<Look<'_>, Option<usize>> = HashMap::default();
            let of_service =
                |service| batch.resources.iter().map(move |one| batch.service(*one).1 == service).collect();
            let wanted: Option<Vec<bool>> = self.asked.service.map(of_service);
            for (row, span) in (0..).zip(&batch.spans) {
                let (at, latency) = (instant_of(span, head.horizon), span.latency());
                let is_wanted = |all: &Vec<bool>| all.get(batch.scope(span).resource as usize) == Some(&true);
                if !wanted.as_ref().is_none_or(is_wanted) || self.interval(at).is_none() {
                    continue;
                }
                let (kind, status) = (SpanKind::from(span.kind), SpanStatus::from(span.status_code));
                let look = (span.scope, batch.text(span.name), kind, status, apart(batch, span));
                let number = *looks.entry(look).or_insert_with(|| self.number(&key_of(batch, span)));
                if let Some(number) = number.filter(|_| seen.insert(span.key())) {
                    let place = latency.map(|_| (block, row));
                    self.add_one(number, at, status, latency.unwrap_or_default(), place);
                }
            }
        }
    }
}

impl Visitor for Counting<'_> {
    fn among(&mut self, services: &[ServiceCount]) -> bool {
        // The ends of a call need not be services that send spans.
        self.subject != Subject::Spans || !services.is_empty()
    }

    fn choose(&mut self, series: &SeriesList) -> Vec<u32> {
        let mut numbers = Vec::new();
        self.chosen.clear();
        let service = self.asked.service;
        let mut choose = |at: u32, key: &Arc<SeriesKey<'static>>| {
            let place = Arc::as_ptr(key).addr();
            let known = self.places.get(&place).map(|(_, number)| *number);
            let number = known.unwrap_or_else(|| {
                let number = self.number(key);
                let _new = self.places.insert(place, (Arc::clone(key), number));
                number
            });
            if let Some(number) = number {
                numbers.push(at);
                self.chosen.push(number);
            }
        };
        match service {
            // One service in several namespaces may stand anywhere in the list.
            Some(service) => {
                let mut of_service: Vec<u32> = series.of_service(service).collect();
                of_service.sort_unstable();
                for at in of_service {
                    if let Some(key) = series.get(at as usize) {
                        choose(at, key);
                    }
                }
            }
            None => (0..).zip(series.iter()).for_each(|(at, key)| choose(at, key)),
        }
        numbers
    }

    fn slot(&mut self, chosen: usize, key: &SeriesKey<'_>, at: SlotAt, latency: &SlotLatency) {
        if let Some(number) = self.chosen.get(chosen).copied().filter(|_| self.from <= at.start) {
            self.add(number, at.start, key.status, latency);
        }
    }

    fn depth(&self) -> Depth {
        match self.kept {
            Kept { exemplars: true, .. } => Depth::Exemplars,
            Kept { detail: Detail::Counts, .. } => Depth::Counts,
            Kept { .. } => Depth::Histograms,
        }
    }

    fn counts(&mut self, chosen: usize, key: &SeriesKey<'_>, resolution: Resolution, counts: &[(Slot, u64)]) {
        let counts_here = self.counts_of(key.status);
        let number = self.chosen.get(chosen).copied();
        let Some(series) = number.and_then(|number| self.series.get_mut(number)) else { return };
        // Slots ascend: so do the intervals they lie in.
        let mut interval = 0;
        let mut cuts = self.cuts.as_slice();
        for (slot, count) in counts {
            let at = resolution.start_of(*slot);
            let passed = match cuts {
                [_, next, ..] if at < *next => 0,
                [_, _, next, ..] if at < *next => 1,
                _ => cuts.partition_point(|cut| *cut <= at).saturating_sub(1),
            };
            interval += passed;
            cuts = cuts.get(passed..).unwrap_or_default();
            let is_inside = self.from <= at && cuts.first().is_some_and(|cut| *cut <= at);
            if is_inside {
                series.add_count(interval, *count, counts_here);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One span of a series.
    pub(in super::super) fn counted_once(labels: Labels) -> Counted {
        let (all, histograms, exemplars) = Default::default();
        Counted { labels, counts: vec![1], all, sums: vec![7], histograms, exemplars, untimed: 0 }
    }

    #[test]
    fn series_of_equal_labels_are_joined_with_all_that_they_counted() {
        let of = |service: &str| counted_once(Labels::of([("service", service)]));
        let histogram = |nanos: u64| {
            let (mut pile, mut slot) = (Pile::default(), SlotLatency::default());
            slot.histogram.record(DurationNanos(nanos));
            let _held = pile.add(&slot.histogram);
            Some(pile)
        };
        let with = |histograms: Vec<Option<Pile>>| Counted { histograms, untimed: 1, ..of("cart") };
        let all =
            [with(vec![None, histogram(7), histogram(1)]), of("stock"), with(vec![histogram(9), histogram(5), None])];
        let joined = Counted::joined(all);
        let cart = &joined[0];
        assert_eq!((joined.len(), cart.total(), cart.sums[0], cart.untimed), (2, 2, 14, 2));
        let sums: Vec<u128> = cart.histograms.iter().flatten().map(Pile::sum_ns).collect();
        assert_eq!(sums, [9, 12, 1]);
        assert_eq!(cart.histograms[1].as_ref().map(|pile| pile.entries().count()), Some(2));
        assert_eq!(joined[1].total(), 1);
    }
}
