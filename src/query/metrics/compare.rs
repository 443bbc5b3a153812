//! `compare`: how often each attribute has each value, among selected spans and among the others.

use std::collections::BTreeMap;

use super::cells::CellNumbers;
use super::intervals::Intervals;
use super::series::{Candidate, Series};
use super::stages::CELL_CANDIDATES_MAX;
use super::too_much;
use crate::query::traceql::{AttributeBounds, AttributeTable, ComparedSpan, FieldValue};
use crate::query::{Coverage, QueryError};

/// Values of one attribute that are counted apart: nobody looks at more of them.
const VALUES_OF_ATTRIBUTE_MAX: usize = 5_000;
/// Bytes of the values of all attributes.
const BYTES_MAX: usize = 64 << 20;
/// Counts, some 40 bytes each.
const COUNTS_MAX: usize = 1_000_000;
/// Series of one answer.
pub(super) const SERIES_MAX: usize = 20_000;
/// Attributes that a reason names.
const NAMED_MAX: usize = 5;
/// What a series is; as Tempo calls it.
pub(super) const META_TYPE: &str = "__meta_type";
const META_ERROR: &str = "__meta_error";
const TOO_MANY_VALUES: &str = "__too_many_values__";

/// A table with room for what one question may count.
pub(super) fn table() -> AttributeTable {
    AttributeTable::new(AttributeBounds { values_of_attribute: VALUES_OF_ATTRIBUTE_MAX, bytes: BYTES_MAX })
}

/// Counts by value, side and interval.
pub(super) struct Tally {
    intervals: Intervals,
    query: usize,
    shows: bool,
    numbers: CellNumbers,
    counts: Vec<u64>,
    /// By side and interval, the slowest first.
    shown: BTreeMap<(bool, u32), Vec<Candidate>>,
    /// Spans counted.
    pub(super) spans: u64,
    is_full: bool,
}

/// Counts by interval.
type Counts = BTreeMap<u32, u64>;

/// The values of one attribute on one side, and all of them together.
#[derive(Default)]
struct Side {
    values: Vec<(FieldValue, Counts)>,
    total: Counts,
}

impl Tally {
    pub(super) fn new(intervals: Intervals, query: usize, shows: bool) -> Self {
        Self {
            intervals,
            query,
            shows,
            numbers: CellNumbers::new(COUNTS_MAX),
            counts: Vec::new(),
            shown: BTreeMap::new(),
            spans: 0,
            is_full: false,
        }
    }

    /// Whether there is not too much of anything.
    pub(super) fn is_bounded(&self, table: &AttributeTable) -> Result<(), QueryError> {
        if self.is_full {
            return Err(too_much("counts of values", COUNTS_MAX));
        }
        if table.is_full() {
            return Err(too_much("bytes of names and values of attributes", BYTES_MAX));
        }
        Ok(())
    }

    /// Counts a value of a span, in a block or batch that the question numbers so; whether it may be shown, as far as is known.
    pub(super) fn count(&mut self, block: u32, span: &ComparedSpan, attribute: u32, value: u32) -> bool {
        let interval = self.intervals.containing(span.at);
        let series = value.saturating_mul(2).saturating_add(u32::from(span.is_selected));
        let Some(number) = self.numbers.of((series, interval)) else {
            self.is_full = true;
            return false;
        };
        if self.counts.len() <= number as usize {
            self.counts.push(0);
        }
        if let Some(count) = self.counts.get_mut(number as usize) {
            *count += 1;
        }
        if attribute == AttributeTable::NAMES {
            self.spans += 1;
            return self.shows && self.show(block, span, interval);
        }
        false
    }

    fn show(&mut self, block: u32, span: &ComparedSpan, interval: u32) -> bool {
        let shown = self.shown.entry((span.is_selected, interval)).or_default();
        let place = shown.partition_point(|known| span.latency <= known.latency);
        if place < CELL_CANDIDATES_MAX {
            let (query, row, at, latency) = (self.query, span.row, span.at, span.latency);
            let candidate = Candidate { interval, query, block, row, at, latency, value: None, rank: 0 };
            shown.insert(place, candidate);
            shown.truncate(CELL_CANDIDATES_MAX);
        }
        place < CELL_CANDIDATES_MAX
    }

    /// For each attribute and side the values that are met most, at most `top`, then all values together; the largest numbers
    /// first. An attribute with more values gets a note.
    pub(super) fn into_series(self, table: &AttributeTable, top: usize, coverage: &mut Coverage) -> Vec<Series> {
        let mut sides: Vec<[Side; 2]> = table.fields().map(|_| <[Side; 2]>::default()).collect();
        for cells in self.numbers.sorted().chunk_by(|a, b| a.0.0 == b.0.0) {
            let Some(((series, _), _)) = cells.first() else { continue };
            let Some((attribute, value)) = table.values().get((series / 2) as usize) else { continue };
            let side = sides.get_mut(*attribute as usize).and_then(|sides| sides.get_mut((series % 2) as usize));
            let Some(side) = side else { continue };
            let count = |number: &u32| self.counts.get(*number as usize).copied().unwrap_or(0);
            let counts: Counts = cells.iter().map(|((_, interval), number)| (*interval, count(number))).collect();
            for (at, count) in &counts {
                *side.total.entry(*at).or_default() += count;
            }
            side.values.extend(value.clone().map(|value| (value, counts)));
        }
        let others: Vec<u32> =
            table.values().iter().filter(|(_, value)| value.is_none()).map(|(attribute, _)| *attribute).collect();
        let (mut all, mut left_out) = (Vec::new(), Vec::new());
        for ((number, field), sides) in (0..).zip(table.fields()).zip(sides) {
            let (label, is_cut) = (field.label(), others.contains(&number));
            if is_cut {
                left_out.push(label.clone());
            }
            let has_more = is_cut || sides.iter().any(|side| top < side.values.len());
            for (is_selected, side) in [false, true].into_iter().zip(sides) {
                let mut series = side.series(&label, is_selected, top, is_cut);
                if let Some(total) = series.last_mut().filter(|_| number == AttributeTable::NAMES) {
                    total.candidates = self.candidates(is_selected);
                }
                all.extend(series);
            }
            all.extend(has_more.then(|| note(&label)));
        }
        if let Some(first) = left_out.first() {
            let named = left_out.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = left_out.len().saturating_sub(NAMED_MAX);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let what = if left_out.len() == 1 { first.clone() } else { named + &more };
            coverage.missing(format!("{what}: too many values to be counted one by one; only their totals are shown"));
        }
        all
    }

    fn candidates(&self, is_selected: bool) -> Vec<Candidate> {
        let of_side = self.shown.range((is_selected, 0)..=(is_selected, u32::MAX));
        let ranked = of_side.flat_map(|(_, shown)| (0..).zip(shown).map(|(rank, one)| Candidate { rank, ..*one }));
        ranked.collect()
    }
}

impl Side {
    /// The series of its values, the one of all of them last; nothing when it has none. Values of an attribute of which some
    /// were not counted apart may be the wrong ones, so there are none.
    fn series(self, label: &str, is_selected: bool, top: usize, is_cut: bool) -> Vec<Series> {
        let sum = |counts: &Counts| counts.values().sum::<u64>();
        let mut values = if is_cut { Vec::new() } else { self.values };
        values.sort_by(|a, b| sum(&b.1).cmp(&sum(&a.1)).then_with(|| a.0.cmp(&b.0)));
        values.truncate(top);
        let (one, all) = if is_selected { ("selection", "selection_total") } else { ("baseline", "baseline_total") };
        let of = |meta: &str, value: FieldValue, counts: &Counts| Series {
            labels: vec![(META_TYPE.to_owned(), FieldValue::String(meta.to_owned())), (label.to_owned(), value)],
            name: "compare".to_owned(),
            points: counts.iter().map(|(at, count)| (*at, *count as f64)).collect(),
            elsewhere: Some(0.0),
            spans: sum(counts),
            ..Series::default()
        };
        let mut series: Vec<Series> = values.into_iter().map(|(value, counts)| of(one, value, &counts)).collect();
        if !self.total.is_empty() {
            let total = of(all, nil(), &self.total);
            // Totals are never cut while values are shown.
            series.push(Series { spans: u64::MAX, ..total });
        }
        series
    }
}

/// Says that an attribute has more values than are shown.
fn note(label: &str) -> Series {
    let error = FieldValue::String(TOO_MANY_VALUES.to_owned());
    Series {
        labels: vec![(META_ERROR.to_owned(), error), (label.to_owned(), nil())],
        name: "compare".to_owned(),
        spans: u64::MAX,
        is_note: true,
        ..Series::default()
    }
}

fn nil() -> FieldValue {
    FieldValue::String("nil".to_owned())
}
