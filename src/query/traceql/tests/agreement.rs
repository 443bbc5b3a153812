//! Columns say what rows say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::prelude::*;

use super::random::{Dice, FIELDS, batch, filter};
use crate::block::{Block, Ordered, SectionId, encode, order};
use crate::cli::shop::{Grouping, PreEncoded};
use crate::latency::counting_instant;
use crate::model::{Conventions, DurationNanos, SeriesKey, SpanBatch, SpanKind, TimeRange, TraceId, UnixNanos};
use crate::otlp::{DecodeOptions, decode};
use crate::query::SpansWanted;
use crate::query::traceql::{Field, FieldValue, Filter, FoundSpan, Groups, RowScan, ServiceChoice, TraceScan};

pub(super) const HORIZON: UnixNanos = UnixNanos(1_790_000_000_000_000_000);

/// Row, instant, latency and group.
type Row = (u32, u64, u64, Option<FieldValue>);

pub(super) struct Stored {
    pub(super) batches: Vec<Arc<SpanBatch>>,
    ordered: Ordered,
    pub(super) sections: Vec<(SectionId, Vec<u8>)>,
}

impl Stored {
    pub(super) fn of(batches: Vec<SpanBatch>) -> Self {
        let batches: Vec<Arc<SpanBatch>> = batches.into_iter().map(Arc::new).collect();
        let ordered = order(&batches);
        let sections = encode(&batches, &ordered.rows, HORIZON, &Conventions::default()).unwrap().sections;
        Self { batches, ordered, sections }
    }

    /// What columns find.
    fn found(&self, wanted: &RowScan) -> Vec<Row> {
        let block = Block::open(&self.sections).unwrap();
        let (mut groups, mut found) = (Groups::default(), Vec::new());
        if wanted.may_be_in(block.summary()) {
            let scanned = block.scan(&self.sections, |scan| {
                wanted.scan_columns(scan, &mut groups, &mut |span| {
                    found.push(span);
                    ControlFlow::Continue(())
                })
            });
            scanned.unwrap();
        }
        let named: std::collections::HashSet<_> = found.iter().filter_map(|span| span.group).collect();
        assert_eq!(named.len(), groups.values().len(), "no group without a span");
        let value = |span: &FoundSpan| span.group.map(|group| groups.values()[group.0 as usize].clone());
        found.iter().map(|span| (span.row, span.at.0, span.latency.0, value(span))).collect()
    }

    /// What a walk over the rows finds.
    fn expected(&self, wanted: &RowScan) -> Vec<Row> {
        let mut rows = Vec::new();
        for (row, place) in (0..).zip(&self.ordered.rows) {
            let (batch, at) = (&self.batches[place.batch as usize], place.row as usize);
            let span = &batch.spans[at];
            let Some(latency) = span.latency() else { continue };
            let counted = counting_instant(span.start_time_unix_nano, HORIZON);
            let key = SeriesKey::of(batch, span, &Conventions::default());
            let is_wanted = wanted.range.contains(counted)
                && wanted.latencies.contains(&latency)
                && (wanted.spans == SpansWanted::All
                    || wanted.spans == SpansWanted::Entries && key.entry
                    || wanted.spans == SpansWanted::Kind(key.kind))
                && wanted.service.as_ref().is_none_or(|choice| {
                    choice.name == key.service && choice.namespace.as_ref().is_none_or(|name| *name == key.namespace)
                })
                && wanted.filter.as_ref().is_none_or(|filter| filter.matches(batch, at));
            if is_wanted {
                let value = wanted.by.as_ref().and_then(|by| by.value(batch, at));
                rows.push((row, counted.0, latency.0, value));
            }
        }
        rows
    }

    /// What a scan for traces finds of each: the filters that spans of it meet, and the earliest start of these spans.
    fn found_of_traces(&self, wanted: &TraceScan<'_>) -> BTreeMap<TraceId, (u64, u64)> {
        let block = Block::open(&self.sections).unwrap();
        let filters = wanted.wanted(&block.skip_index(&self.sections)).unwrap();
        let mut found = BTreeMap::new();
        let scanned = block.scan(&self.sections, |scan| {
            wanted.scan_columns(scan, filters, &mut |trace, met, start| {
                let known = found.entry(trace).or_insert((met, start.0));
                *known = (known.0 | met, start.0.min(known.1));
                ControlFlow::Continue(())
            })
        });
        scanned.unwrap();
        found
    }

    fn check_traces(&self, wanted: &TraceScan<'_>) -> usize {
        let mut expected: BTreeMap<TraceId, (u64, u64)> = BTreeMap::new();
        for place in &self.ordered.rows {
            let (batch, row) = (&self.batches[place.batch as usize], place.row as usize);
            let (span, start) = (&batch.spans[row], batch.spans[row].start_time_unix_nano);
            let bits = wanted.filters.iter().enumerate().filter(|(_, filter)| filter.matches(batch, row));
            let met = bits.map(|(bit, _)| 1 << bit).sum::<u64>();
            if wanted.range.contains(start) && met != 0 {
                let known = expected.entry(span.trace_id).or_insert((met, start.0));
                *known = (known.0 | met, start.0.min(known.1));
            }
        }
        let texts: Vec<String> = wanted.filters.iter().map(ToString::to_string).collect();
        assert_eq!(self.found_of_traces(wanted), expected, "{texts:?} {:?}", wanted.range);
        expected.len()
    }

    #[track_caller]
    fn check(&self, wanted: &RowScan) -> usize {
        let (found, expected) = (self.found(wanted), self.expected(wanted));
        let text = wanted.filter.as_ref().map(ToString::to_string).unwrap_or_default();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{text} by {:?}", wanted.by);
        }
        assert_eq!(found.len(), expected.len(), "{text} by {:?}", wanted.by);
        found.len()
    }
}

fn random_scan(dice: &mut Dice) -> RowScan {
    let mut wanted = RowScan::all();
    let depth = dice.below(4);
    wanted.filter = (0..20).find_map(|_| filter(dice, depth).parse::<Filter>().ok());
    wanted.by = dice.pick(&FIELDS).parse::<Field>().ok().filter(|_| !dice.one_in(3));
    if dice.one_in(4) {
        let name = dice.pick(&["checkout", "unknown_service", "a", "\u{fffd}\u{fffd}a"]).to_owned();
        let namespace = dice.pick(&[None, Some("shop"), Some("")]).map(str::to_owned);
        wanted.service = Some(ServiceChoice { name, namespace });
    }
    let client = SpansWanted::Kind(SpanKind::Client);
    wanted.spans = dice.pick(&[SpansWanted::All, SpansWanted::All, SpansWanted::Entries, client]);
    if dice.one_in(4) {
        // The second one holds what is counted an hour after the horizon, because it claims to be later.
        let after = [dice.below(100), 3_580];
        let start = HORIZON.0 + dice.pick(&after) * 1_000_000_000;
        wanted.range = TimeRange { start: UnixNanos(start), end: UnixNanos(start + 50_000_000_000) };
    }
    if dice.one_in(4) {
        wanted.latencies = DurationNanos(dice.pick(&[0, 1, 500]))..=DurationNanos(dice.pick(&[1, 502, 3_000_000_000]));
    }
    wanted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_filter_of_any_block_selects_the_rows_it_is_true_of(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let n_batches = 1 + dice.below(3);
        let stored = Stored::of((0..n_batches).map(|_| {
            let n_spans = dice.pick(&[0, 1, 40, 150, 400]);
            batch(&mut dice, n_spans)
        }).collect());
        for _ in 0..16 {
            let wanted = random_scan(&mut dice);
            let _n = stored.check(&wanted);
        }
    }

    #[test]
    fn traces_of_any_block_are_found_by_the_filters_that_are_true_of_their_spans(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let n_spans = dice.pick(&[1, 40, 400]);
        let stored = Stored::of(vec![batch(&mut dice, n_spans)]);
        for _ in 0..24 {
            let depth = dice.below(3);
            let filters: Vec<Filter> = (0..=dice.below(3)).filter_map(|_| filter(&mut dice, depth).parse().ok()).collect();
            let range = random_scan(&mut dice).range;
            let _n = stored.check_traces(&TraceScan { filters: &filters, range });
        }
    }
}

#[test]
fn every_field_agrees_over_several_row_groups() {
    let mut dice = Dice(11);
    let stored = Stored::of((0..2).map(|_| batch(&mut dice, 2_100)).collect());
    let mut n_found = 0;
    for field in FIELDS {
        let mut wanted = RowScan::all();
        wanted.by = field.parse().ok();
        n_found += stored.check(&wanted);
        for condition in [
            "= \"a\"",
            "!= nil",
            "= nil",
            "!= 500",
            "> 1ms",
            "=~ `.*a`",
            "!~ `.*a`",
            "= error",
            "= server",
            "=~ `.*[0-7]`",
        ] {
            if let Ok(filter) = format!("{field} {condition}").parse::<Filter>() {
                n_found +=
                    stored.check_traces(&TraceScan { filters: std::slice::from_ref(&filter), range: wanted.range });
                wanted.filter = Some(filter);
                n_found += stored.check(&wanted);
            }
        }
    }
    assert!(40_000 < n_found, "{n_found}");
}

#[test]
fn every_attribute_of_realistic_spans_agrees() {
    let mut ring = PreEncoded::new(3, 40, Grouping::Collector);
    let batches = (0..20).map(|_| {
        let body = ring.next(HORIZON).to_vec();
        decode(body, &DecodeOptions::default()).unwrap().batch
    });
    let stored = Stored::of(batches.collect());
    assert!(4_096 < stored.ordered.rows.len(), "several row groups");
    let keys = |batch: &Arc<SpanBatch>| {
        let of_spans = batch.spans.iter().flat_map(|span| batch.attributes(span.attributes));
        of_spans.map(|attribute| batch.text_lossy(attribute.key).into_owned()).collect::<BTreeSet<_>>()
    };
    let keys: BTreeSet<String> = stored.batches.iter().flat_map(keys).collect();
    assert!(20 < keys.len(), "{keys:?}");
    for key in keys {
        let by = format!("span.{key}").parse().ok();
        let filter = format!("span.{key} != nil").parse().ok();
        assert!(0 < stored.check(&RowScan { filter, by, ..RowScan::all() }), "{key}");
    }
    let by = "resource.k8s.pod.name".parse().ok();
    assert!(0 < stored.check(&RowScan { by, ..RowScan::all() }));
}

#[test]
fn random_filters_find_something_and_leave_something() {
    let mut dice = Dice(5);
    let stored = Stored::of(vec![batch(&mut dice, 400)]);
    let all = stored.check(&RowScan::all());
    let (mut some, mut n) = (0, 0);
    for _ in 0..300 {
        let mut wanted = RowScan::all();
        let Ok(parsed) = filter(&mut dice, 2).parse() else { continue };
        wanted.filter = Some(parsed);
        n += 1;
        some += usize::from((1..all).contains(&stored.check(&wanted)));
    }
    assert!(n / 4 < some, "{some} of {n} filters tell spans apart");
}
