//! Spans that are in memory.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::random::{self, Dice};
use crate::clock::Clock;
use crate::model::UnixNanos;
use crate::model::samples::{Sample, batch};
use crate::query::traceql::{FoundSpan, Groups, RowScan, ServiceChoice};
use crate::store::{HeadPart, Store, StoreConfig};
use crate::telemetry::Counters;

const START: u64 = 1_790_000_000_000_000_000;

fn sample(service: &'static str, span: u64, duration: u64) -> Sample {
    Sample { service, trace: 1, span, start: START, duration }
}

fn found(wanted: &RowScan, heads: &[Vec<Vec<Sample>>]) -> (Vec<(usize, usize, u32)>, Vec<String>) {
    let head = |batches: &Vec<Vec<Sample>>| HeadPart {
        batches: batches.iter().map(|samples| Arc::new(batch(samples))).collect(),
        horizon: UnixNanos(START),
        ..HeadPart::default()
    };
    let heads: Vec<HeadPart> = heads.iter().map(head).collect();
    let (mut groups, mut places) = (Groups::default(), Vec::new());
    wanted.scan_heads(&heads, &mut groups, &mut |head, batch, span| {
        places.push((head, batch, span.row));
        ControlFlow::Continue(())
    });
    (places, groups.values().iter().map(ToString::to_string).collect())
}

#[test]
fn the_first_of_several_spans_with_one_key_counts_whether_it_is_wanted_or_not() {
    let heads = [
        vec![vec![sample("a", 1, 10), sample("a", 2, 99)], vec![sample("a", 2, 50), sample("b", 3, 99)]],
        vec![vec![sample("a", 1, 99), sample("a", 4, 99)]],
    ];
    let mut wanted = RowScan::all();
    assert_eq!(found(&wanted, &heads).0, [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)]);
    wanted.filter = Some("duration > 90ns".parse().unwrap());
    assert_eq!(found(&wanted, &heads).0, [(0, 0, 1), (0, 1, 1), (1, 0, 1)], "span 1 took 10 ns when it came first");
    wanted.service = Some(ServiceChoice { name: "b".to_owned(), namespace: None });
    wanted.by = Some("resource.service.name".parse().unwrap());
    assert_eq!(found(&wanted, &heads), (vec![(0, 1, 1)], vec!["b".to_owned()]));
}

/// What was found, without where.
fn sorted(found: &[FoundSpan], groups: &Groups) -> Vec<(u64, u64, Option<String>)> {
    let value = |span: &FoundSpan| span.group.and_then(|group| groups.values().get(group.0 as usize));
    let row = |span: &FoundSpan| (span.at.0, span.latency.0, value(span).map(ToString::to_string));
    let mut rows: Vec<_> = found.iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn a_scan_finds_the_same_before_and_after_a_block_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::keeping_all(dir.path());
    let store = Store::open(config, Clock::manual(UnixNanos(START)), Arc::new(Counters::default())).unwrap();
    let partition = store.start_partition().unwrap();
    let mut dice = Dice(3);
    for sequence in 1..=4 {
        store.push([(sequence, UnixNanos(START), Arc::new(random::batch(&mut dice, 200)))]);
    }
    let mut wanted = RowScan::all();
    wanted.filter = Some("span.code >= 1 || kind = server".parse().unwrap());
    wanted.by = Some(".mixed".parse().unwrap());
    let (mut groups, mut before) = (Groups::default(), Vec::new());
    wanted.scan_heads(&store.snapshot().heads, &mut groups, &mut |_, _, span| {
        before.push(span);
        ControlFlow::Continue(())
    });
    let before = sorted(&before, &groups);
    let frozen = store.freeze(&partition).unwrap();
    let _done = store.checkpoint(&frozen).unwrap();
    let open = store.open_partition(&partition).unwrap();
    let (mut groups, mut after) = (Groups::default(), Vec::new());
    let scanned = wanted.scan_block(&open, 1, &mut groups, &mut |span| {
        after.push(span);
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    assert_eq!(sorted(&after, &groups), before);
    assert!(100 < before.len() && 3 < groups.values().len(), "{} {}", before.len(), groups.values().len());
    let first = &mut None;
    let broken = wanted.scan_block(&open, 1, &mut groups, &mut |span| {
        assert_eq!(first.replace(span.row), None, "a break ends the scan");
        ControlFlow::Break(())
    });
    broken.unwrap();
    assert!(first.is_some());
    assert!(wanted.scan_block(&open, 2, &mut groups, &mut |_| ControlFlow::Continue(())).is_err());
}
