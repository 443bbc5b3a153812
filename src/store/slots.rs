//! The latency of a block: slots and exemplars of its rows, by series, and again by where they ran.
//!
//! The series of the block come first, under the numbers that its column has; behind them stand the *families*
//! (`model::Family`): the entry spans of a service for each value of a peel dimension (`peel`), the calls of each edge of the
//! service graph (`edges`), and the spans without a latency. So a question that groups by a dimension reads histograms, as one without groups does.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::block::{Encoded, RowRef, span_at};
use crate::latency::{Resolution, SlotLatency, SlotTableBuilder, TableTooLarge, instant_of};
use crate::limits::{EDGES_MAX, OVERFLOW};
use crate::model::{Conventions, DurationNanos, SeriesKey, SpanKind, SpanStatus, UnixNanos};
use crate::telemetry::Counters;

use super::HeadPart;
use super::edges::{self, Call, Edge};
use super::pairing::{Paired, Pairing, Waiting};
use super::peel::Spots;
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
    pub(super) waiting: Mutex<Arc<Waiting>>,
}

impl Counting {
    pub(super) fn new(conventions: &Arc<Conventions>, counters: &Arc<Counters>) -> Self {
        let (conventions, counters) = (Arc::clone(conventions), Arc::clone(counters));
        Self { conventions, counters, waiting: Mutex::default() }
    }

    /// What a block that is shown now found. Costs a copy while someone looks at what waited before.
    pub(super) fn take_over(&self, paired: Paired) {
        Arc::make_mut(&mut *self.waiting.lock()).take_over(paired);
    }
}

/// Histograms and exemplars of the block's rows, of exactly those rows; and calls whose other half came before.
pub(super) fn block_latency(
    part: &HeadPart,
    rows: &[RowRef],
    encoded: &Encoded,
    counting: &Counting,
    pairing: &mut Pairing<'_>,
) -> Result<BlockLatency, TableTooLarge> {
    let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
    let mut spots = Spots::new(&counting.conventions);
    let mut entries: Vec<(Outcome, Counted)> = Vec::new();
    let (mut families, mut overflowed) = (Families::default(), 0);
    for ((row, row_ref), series) in (0..).zip(rows).zip(&encoded.row_series) {
        let Some((batch, span)) = span_at(&part.batches, *row_ref) else { continue };
        let (at, Some(key)) = (instant_of(span, part.horizon), encoded.series.get(*series as usize)) else { continue };
        let Some(latency) = span.latency() else {
            families.add_untimed(key, at);
            continue;
        };
        let resource = (row_ref.batch, batch.scope(span).resource);
        let spot = spots.spot(resource, batch, batch.resource(span).attributes, key);
        let outcome = Outcome { spot: spot.number, is_error: span.is_error() };
        let counted = Counted { row, at, latency };
        builder.record(*series, counted.at, latency, row, outcome.diversity());
        if key.entry {
            entries.push((outcome, counted));
            overflowed += u64::from(spot.is_over);
        }
    }
    counting.counters.series_overflow_spans.add(overflowed);
    families.add_entries(&spots, &entries);
    edges::calls(part, rows, pairing, &mut |call| families.add_call(&call));
    let keys = families.record_behind(encoded.series.len(), &entries, &mut builder);
    drop(entries);
    Ok(BlockLatency { slots: builder.finish()?, families: encode_series(&keys) })
}

/// What entry spans that count in the same families have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Outcome {
    spot: u32,
    is_error: bool,
}

impl Outcome {
    fn diversity(self) -> u64 {
        (u64::from(self.spot) << 1) | u64::from(self.is_error)
    }
}

/// A span as a slot counts it.
#[derive(Clone, Copy, Debug)]
struct Counted {
    row: u32,
    at: UnixNanos,
    latency: DurationNanos,
}

/// Families while rows are counted, numbered as they come.
#[derive(Default)]
struct Families {
    numbers: HashMap<SeriesKey<'static>, u32>,
    of_outcome: HashMap<Outcome, Vec<u32>>,
    calls: Vec<(u32, Counted)>,
    /// Calls without a row of this block, and spans that no exemplar should lead to.
    without_row: Vec<(u32, UnixNanos, DurationNanos)>,
    /// Numbers of both sides of an edge.
    edges: HashMap<(Edge, SpanKind), u32>,
}

impl Families {
    fn add_entries(&mut self, spots: &Spots<'_>, entries: &[(Outcome, Counted)]) {
        let by_spot = spots.families();
        for (outcome, _) in entries {
            if self.of_outcome.contains_key(outcome) {
                continue;
            }
            let status = if outcome.is_error { SpanStatus::Error } else { SpanStatus::Unset };
            let families = by_spot.get(&outcome.spot).map(Vec::as_slice).unwrap_or_default();
            let numbers = families.iter().map(|key| self.number_of(SeriesKey { status, ..key.clone() })).collect();
            let _new = self.of_outcome.insert(*outcome, numbers);
        }
    }

    fn number_of(&mut self, key: SeriesKey<'static>) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(key).or_insert(next)
    }

    fn add_untimed(&mut self, series: &SeriesKey<'static>, at: UnixNanos) {
        let number = self.number_of(series.clone().untimed());
        // A slot counts latencies: one of 0 stands for none.
        self.without_row.push((number, at, DurationNanos(0)));
    }

    fn add_call(&mut self, call: &Call) {
        for (kind, side) in [(SpanKind::Server, call.server), (SpanKind::Client, call.client)] {
            let Some(side) = side else { continue };
            let number = self.number_of_edge(call.edge.clone(), kind);
            match side.row {
                Some(row) => self.calls.push((number, Counted { row, at: call.at, latency: side.latency })),
                None => self.without_row.push((number, call.at, side.latency)),
            }
        }
    }

    fn number_of_edge(&mut self, edge: Edge, kind: SpanKind) -> u32 {
        let edge = (edge, kind);
        if let Some(known) = self.edges.get(&edge) {
            return *known;
        }
        let mut key = edge.0.series(kind);
        if EDGES_MAX <= self.edges.len() {
            // Names of databases and peers are the sender's: as many as it likes.
            (key.namespace, key.service) = (Cow::Borrowed(""), Cow::Borrowed(OVERFLOW));
            return self.number_of(key);
        }
        let number = self.number_of(key);
        let _new = self.edges.insert(edge, number);
        number
    }

    /// Records what was counted under the numbers behind the first `n_series`, and gives the keys in that order.
    fn record_behind(
        self,
        n_series: usize,
        entries: &[(Outcome, Counted)],
        builder: &mut SlotTableBuilder,
    ) -> Vec<SeriesKey<'static>> {
        let sorted: BTreeMap<SeriesKey<'static>, u32> = self.numbers.into_iter().collect();
        let mut renumbered = vec![u32::MAX; sorted.len()];
        for (number, as_it_came) in (n_series..).zip(sorted.values()) {
            if let Some(place) = renumbered.get_mut(*as_it_came as usize) {
                *place = u32::try_from(number).unwrap_or(u32::MAX);
            }
        }
        let number = |as_it_came: u32| renumbered.get(as_it_came as usize).copied();
        for (outcome, counted) in entries {
            let families = self.of_outcome.get(outcome).into_iter().flatten();
            for family in families.filter_map(|family| number(*family)) {
                builder.record(family, counted.at, counted.latency, counted.row, outcome.diversity());
            }
        }
        for (family, counted) in self.calls {
            let Some(family) = number(family) else { continue };
            builder.record(family, counted.at, counted.latency, counted.row, 0);
        }
        for (family, at, latency) in self.without_row {
            let Some(family) = number(family) else { continue };
            let mut slot = SlotLatency::default();
            slot.histogram.record(latency);
            builder.add(family, Resolution::TenSeconds.slot_of(at), &slot);
        }
        sorted.into_keys().collect()
    }
}
