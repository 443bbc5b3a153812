//! Numbers, groups and attributes of columns are those of rows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::agreement::{HORIZON, Stored};
use super::random::{Dice, FIELDS, batch, filter};
use crate::block::Block;
use crate::model::{TimeRange, UnixNanos};
use crate::query::traceql::{
    AttributeBounds, AttributeTable, CompareScan, ComparedSpan, Field, FieldValue, Filter, GroupTable, MeasureScan,
    MeasuredSpan, MetricsComparison,
};
use crate::store::HeadPart;

/// Instant, latency, the bits of the number, and the group.
type Measured = (u64, u64, u64, Vec<FieldValue>);

/// How often an attribute has a value among spans that are selected or not; of `None` those there was no room for.
type Compared = BTreeMap<(String, Option<FieldValue>, bool), u64>;

fn heads(stored: &Stored) -> [HeadPart; 1] {
    [HeadPart { batches: stored.batches.clone(), horizon: HORIZON, ..HeadPart::default() }]
}

fn measured(found: &[MeasuredSpan], groups: &GroupTable) -> Vec<Measured> {
    let one = |span: &MeasuredSpan| (span.at.0, span.latency.0, span.value.get().to_bits(), groups.values(span.group));
    let mut all: Vec<Measured> = found.iter().map(one).collect();
    all.sort();
    all
}

/// What columns and rows find.
fn measures(stored: &Stored, scan: &MeasureScan<'_>) -> (Vec<Measured>, Vec<Measured>) {
    let (mut groups, mut found) = (GroupTable::default(), Vec::new());
    let block = Block::open(&stored.sections).unwrap();
    block
        .scan(&stored.sections, |columns| {
            scan.scan_columns(columns, &mut groups, &mut |rows| found.extend(rows.spans()))
        })
        .unwrap();
    let of_columns = measured(&found, &groups);
    found.clear();
    groups = GroupTable::default();
    scan.scan_heads(&heads(stored), &mut groups, &mut |_, _, span| found.push(span));
    (of_columns, measured(&found, &groups))
}

fn compared(table: &AttributeTable, counts: &BTreeMap<(u32, bool), u64>) -> Compared {
    let fields: Vec<String> = table.fields().map(Field::label).collect();
    let one = |((value, is_selected), count): (&(u32, bool), &u64)| {
        let (attribute, value) = &table.values()[*value as usize];
        ((fields[*attribute as usize].clone(), value.clone(), *is_selected), *count)
    };
    counts.iter().map(one).collect()
}

/// The same for all attributes, where there is so much room.
fn comparisons(stored: &Stored, scan: &CompareScan<'_>, bounds: AttributeBounds) -> (Compared, Compared) {
    let (mut table, mut counts) = (AttributeTable::new(bounds), BTreeMap::new());
    let mut count = |span: ComparedSpan, _: u32, value: u32| {
        *counts.entry((value, span.is_selected)).or_insert(0) += 1;
    };
    let block = Block::open(&stored.sections).unwrap();
    block.scan(&stored.sections, |columns| scan.scan_columns(columns, &mut table, &mut count)).unwrap();
    let of_columns = compared(&table, &counts);
    let (mut table, mut counts) = (AttributeTable::new(bounds), BTreeMap::new());
    for (_, batch, row) in scan.found_in_heads(&heads(stored)) {
        scan.scan_row(&stored.batches[batch], row, HORIZON, &mut table, &mut |span, _, value| {
            *counts.entry((value, span.is_selected)).or_insert(0) += 1;
        });
    }
    (of_columns, compared(&table, &counts))
}

fn random_filter(dice: &mut Dice) -> Filter {
    let depth = dice.below(3);
    (0..20).find_map(|_| filter(dice, depth).parse().ok()).unwrap_or_else(|| "{ }".parse().unwrap())
}

fn random_range(dice: &mut Dice) -> TimeRange {
    if !dice.one_in(3) {
        return TimeRange::ALL;
    }
    let start = HORIZON.0 + dice.below(100) * 1_000_000_000;
    TimeRange { start: UnixNanos(start), end: UnixNanos(start + 50_000_000_000) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn numbers_groups_and_attributes_of_any_block_are_those_of_its_rows(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let n_batches = 1 + dice.below(3);
        let stored = Stored::of((0..n_batches).map(|_| {
            let n_spans = dice.pick(&[0, 1, 40, 150]);
            batch(&mut dice, n_spans)
        }).collect());
        for _ in 0..8 {
            let (wanted, range) = (random_filter(&mut dice), random_range(&mut dice));
            let fields: Vec<Field> = (0..5).filter_map(|_| dice.pick(&FIELDS).parse().ok()).collect();
            let n_by = usize::try_from(dice.below(4)).unwrap().min(fields.len());
            let value = fields.last().filter(|_| dice.one_in(2));
            let by = fields[..n_by].iter().collect();
            let scan = MeasureScan { filter: &wanted, range, by, value, with_latency: dice.one_in(2) };
            let (of_columns, of_rows) = measures(&stored, &scan);
            prop_assert_eq!(of_columns, of_rows, "{} by {:?} of {:?}", wanted, &fields[..n_by], value);

            let within = dice.one_in(2).then_some((HORIZON, UnixNanos(HORIZON.0 + 50_000_000_000)));
            let comparison = MetricsComparison { selection: random_filter(&mut dice), top: 10, within };
            let scan = CompareScan { filter: &wanted, comparison: &comparison, range };
            let roomy = AttributeBounds { values_of_attribute: 10_000, bytes: 1 << 30 };
            let (of_columns, of_rows) = comparisons(&stored, &scan, roomy);
            prop_assert_eq!(of_columns, of_rows, "{} and {:?}", wanted, comparison);
        }
    }
}

#[test]
fn what_there_is_no_room_for_is_counted_as_one_value() {
    let mut dice = Dice(7);
    let stored = Stored::of(vec![batch(&mut dice, 400)]);
    let (filter, comparison) =
        ("{ }".parse().unwrap(), MetricsComparison { selection: "{ }".parse().unwrap(), top: 10, within: None });
    let scan = CompareScan { filter: &filter, comparison: &comparison, range: TimeRange::ALL };
    let total = |counts: &Compared| {
        let mut totals: BTreeMap<String, u64> = BTreeMap::new();
        for ((label, ..), count) in counts {
            *totals.entry(label.clone()).or_default() += count;
        }
        totals
    };
    let roomy = AttributeBounds { values_of_attribute: 10_000, bytes: 1 << 30 };
    let (all, _) = comparisons(&stored, &scan, roomy);
    assert!(all.keys().all(|(_, value, _)| value.is_some()));
    for tight in [AttributeBounds { values_of_attribute: 2, ..roomy }, AttributeBounds { bytes: 2_000, ..roomy }] {
        let (of_columns, of_rows) = comparisons(&stored, &scan, tight);
        assert!(of_columns.keys().any(|(_, value, _)| value.is_none()));
        assert_eq!((total(&of_columns), total(&of_rows)), (total(&all), total(&all)));
        assert!(of_columns.len() < all.len());
    }
}
