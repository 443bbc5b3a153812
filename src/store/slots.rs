//! The latency of a block: slots and exemplars of its rows, by series, and again by where they ran.
//!
//! The series of the block come first, under the numbers that its column has; behind them stand the *families*
//! (`model::Family`): the entry spans of a service for each value of a peel dimension, and the calls of each edge of the
//! service graph (`edges`). So a question that groups by a dimension reads histograms, as one without groups does.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::block::{Encoded, RowRef, span_at};
use crate::latency::{Resolution, SlotLatency, SlotTableBuilder, TableTooLarge, counting_instant};
use crate::limits::{EDGES_MAX, OVERFLOW, PEEL_VALUES_MAX};
use crate::model::{Conventions, DurationNanos, Rows, SeriesKey, SpanBatch, SpanKind, UnixNanos};
use crate::telemetry::Counters;

use super::HeadPart;
use super::edges::{self, Call, Waiting};
use super::series_table::encode_series;

/// Two sections of a block.
#[derive(Debug)]
pub(super) struct BlockLatency {
    /// The slot table.
    pub(super) slots: Vec<u8>,
    /// The families' keys, in the order of their numbers.
    pub(super) families: Vec<u8>,
}

/// What counting needs beside the rows: one for each stream of blocks.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) conventions: Arc<Conventions>,
    pub(super) counters: Arc<Counters>,
    /// Halves of calls in the blocks before.
    pub(super) waiting: Mutex<Waiting>,
}

impl Counting {
    pub(super) fn new(conventions: &Arc<Conventions>, counters: &Arc<Counters>) -> Self {
        let (conventions, counters) = (Arc::clone(conventions), Arc::clone(counters));
        Self { conventions, counters, waiting: Mutex::default() }
    }
}

/// Histograms and exemplars of the block's rows, of exactly those rows; and calls whose other half came before.
pub(super) fn block_latency(
    part: &HeadPart,
    rows: &[RowRef],
    encoded: &Encoded,
    counting: &Counting,
    waiting: &mut Waiting,
) -> Result<BlockLatency, TableTooLarge> {
    let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
    let mut families = Families::new(&counting.conventions);
    for ((row_no, row), series) in (0..).zip(rows).zip(&encoded.row_series) {
        let Some((batch, span)) = span_at(&part.batches, *row) else { continue };
        let Some(latency) = span.latency() else { continue };
        let at = counting_instant(span.start_time_unix_nano, part.horizon);
        let key = encoded.series.get(*series as usize);
        let resource = (row.batch, batch.scope(span).resource, span.is_error());
        let place = families.place(resource, batch, batch.resource(span).attributes, key);
        builder.record(*series, at, latency, row_no, place.hash);
        if key.is_some_and(|key| key.entry) {
            let recorded = place.families.iter().map(|family| (*family, at, latency, row_no, place.hash));
            families.recorded.extend(recorded);
            families.overflowed += u64::from(place.is_overflowing);
        }
    }
    edges::calls(part, rows, waiting, &mut |call| families.add_call(&call));
    counting.counters.series_overflow_spans.add(families.overflowed);
    let keys = families.record_behind(encoded.series.len(), &mut builder);
    Ok(BlockLatency { slots: builder.finish()?, families: encode_series(&keys) })
}

/// What spans of one resource and outcome have in common.
#[derive(Clone, Debug)]
struct SpanPlace {
    /// Equal for resources that agree in every peel dimension, and in the outcome.
    hash: u64,
    /// Numbers of the families, as they came.
    families: Vec<u32>,
    /// Whether one of them is for values over the cap.
    is_overflowing: bool,
}

/// Families while rows are counted, numbered as they come.
struct Families<'a> {
    conventions: &'a Conventions,
    numbers: HashMap<SeriesKey<'static>, u32>,
    /// How many values a dimension of a service has.
    values: HashMap<SeriesKey<'static>, usize>,
    places: HashMap<(u32, u32, bool), SpanPlace>,
    recorded: Vec<(u32, UnixNanos, DurationNanos, u32, u64)>,
    /// The same without a row of this block.
    elsewhere: Vec<(u32, UnixNanos, DurationNanos)>,
    edges: usize,
    /// Families for values over the cap.
    overflow: HashSet<u32>,
    /// Spans counted in them.
    overflowed: u64,
}

impl<'a> Families<'a> {
    fn new(conventions: &'a Conventions) -> Self {
        Self {
            conventions,
            numbers: HashMap::new(),
            values: HashMap::new(),
            places: HashMap::new(),
            recorded: Vec::new(),
            elsewhere: Vec::new(),
            edges: 0,
            overflow: HashSet::new(),
            overflowed: 0,
        }
    }

    /// The place of a span of `resource` (its batch, its row there, and whether the span failed).
    fn place(
        &mut self,
        resource: (u32, u32, bool),
        batch: &SpanBatch,
        attributes: Rows,
        key: Option<&SeriesKey<'static>>,
    ) -> SpanPlace {
        if let Some(known) = self.places.get(&resource) {
            return known.clone();
        }
        let mut described = Vec::new();
        let mut families = Vec::new();
        for (dimension, value) in self.conventions.peel_values(batch, attributes) {
            described.extend_from_slice(dimension.as_bytes());
            described.push(0);
            described.extend_from_slice(value.as_bytes());
            described.push(0);
            families.extend(key.map(|key| self.number(key, dimension, &value)));
        }
        let hash = xxhash_rust::xxh3::xxh3_64(&described) ^ u64::from(resource.2);
        let is_overflowing = families.iter().any(|family| self.overflow.contains(family));
        let place = SpanPlace { hash, families, is_overflowing };
        let _new = self.places.insert(resource, place.clone());
        place
    }

    fn number(&mut self, key: &SeriesKey<'static>, dimension: &str, value: &str) -> u32 {
        let family = |value: &str| key.peeled(Cow::Owned(dimension.to_owned()), Cow::Owned(value.to_owned()));
        let wanted = family(value);
        if !self.numbers.contains_key(&wanted) {
            let all_values = self.values.entry(family("")).or_default();
            if *all_values < PEEL_VALUES_MAX {
                *all_values += 1;
            } else {
                let number = self.number_of(family(OVERFLOW));
                let _known = self.overflow.insert(number);
                return number;
            }
        }
        self.number_of(wanted)
    }

    fn number_of(&mut self, key: SeriesKey<'static>) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(key).or_insert(next)
    }

    fn add_call(&mut self, call: &Call) {
        for (kind, side) in [(SpanKind::Server, call.server), (SpanKind::Client, call.client)] {
            let Some(side) = side else { continue };
            let mut key = call.series(kind);
            if !self.numbers.contains_key(&key) {
                self.edges += 1;
                if EDGES_MAX < self.edges {
                    // Names of databases and peers are the sender's: as many as it likes.
                    (key.namespace, key.service) = (Cow::Borrowed(""), Cow::Borrowed(OVERFLOW));
                }
            }
            let number = self.number_of(key);
            match side.row {
                Some(row) => self.recorded.push((number, call.at, side.latency, row, 0)),
                None => self.elsewhere.push((number, call.at, side.latency)),
            }
        }
    }

    /// Records what was counted under the numbers behind the first `n_series`, and gives the keys in that order.
    fn record_behind(self, n_series: usize, builder: &mut SlotTableBuilder) -> Vec<SeriesKey<'static>> {
        let sorted: BTreeMap<SeriesKey<'static>, u32> = self.numbers.into_iter().collect();
        let mut renumbered = vec![u32::MAX; sorted.len()];
        for (number, as_it_came) in (n_series..).zip(sorted.values()) {
            if let Some(place) = renumbered.get_mut(*as_it_came as usize) {
                *place = u32::try_from(number).unwrap_or(u32::MAX);
            }
        }
        for (family, at, latency, row, place) in self.recorded {
            let Some(number) = renumbered.get(family as usize) else { continue };
            builder.record(*number, at, latency, row, place);
        }
        for (family, at, latency) in self.elsewhere {
            let Some(number) = renumbered.get(family as usize) else { continue };
            let mut slot = SlotLatency::default();
            slot.histogram.record(latency);
            builder.add(*number, Resolution::TenSeconds.slot_of(at), &slot);
        }
        sorted.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpanStatus;

    #[test]
    fn values_of_a_dimension_over_the_cap_share_one_family_and_are_no_one_elses_trouble() {
        let conventions = Conventions::default();
        let mut families = Families::new(&conventions);
        let key = |service: &'static str| SeriesKey {
            namespace: Cow::Borrowed(""),
            service: Cow::Borrowed(service),
            span_name: Cow::Borrowed("work"),
            kind: SpanKind::Server,
            status: SpanStatus::Unset,
            entry: true,
            family: None,
        };
        let mut number = |service, host: usize| families.number(&key(service), "host.name", &format!("host-{host}"));
        let first: Vec<u32> = (0..PEEL_VALUES_MAX).map(|host| number("many", host)).collect();
        let over: Vec<u32> = (PEEL_VALUES_MAX..PEEL_VALUES_MAX + 50).map(|host| number("many", host)).collect();
        assert!(over.iter().all(|family| *family == over[0] && !first.contains(family)));
        assert_eq!(number("many", 3), first[3], "known ones stay apart");
        assert!(!first.contains(&number("few", 1)) && number("few", 1) != over[0]);
        assert_eq!(families.overflow.len(), 1);
    }
}
