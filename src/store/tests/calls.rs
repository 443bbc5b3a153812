//! Calls whose halves come in different blocks.

use super::*;
use crate::latency::{SeriesWanted, SlotLatency, Take};
use crate::model::{SpanId, SpanKind};

/// One half of a call that is still within its wait.
fn half(store: &Store, sequence: u64, service: &'static str, kind: SpanKind, span: u64, parent: u64) {
    let sample = Sample { service, trace: 1, span, start: NOW + 99 * SECOND, duration: 1_000_000 };
    let mut batch = batch(&[sample]);
    batch.spans[0].kind = kind as i32;
    batch.spans[0].parent_span_id = SpanId(parent.to_be_bytes());
    store.push([(sequence, UnixNanos(NOW + 100 * SECOND), Arc::new(batch))]);
}

fn in_heads(calls: &SnapshotOfCalls) -> usize {
    let mut found = 0;
    calls.calls_of_heads(&mut |_, _, _| found += 1);
    found
}

/// Calls of the blocks, as their servers saw them.
fn in_blocks(open: &OpenPartition) -> u64 {
    let mut found = 0;
    for (block_no, _) in open.blocks(u64::MAX) {
        let keys = open.series(block_no).unwrap();
        let mut each = |series: u32, _: Slot, latency: &mut SlotLatency| {
            let key = &keys[series as usize];
            let is_call = matches!(key.family, Some(crate::model::Family::Edge { .. }));
            found += if is_call && key.kind == SpanKind::Server { latency.histogram.count() } else { 0 };
        };
        open.block_slots(block_no, &SeriesWanted::ALL, Slot::ALL, Take::Histograms(&mut each)).unwrap();
    }
    found
}

#[test]
fn a_call_across_blocks_is_in_the_heads_or_in_a_block_whenever_one_looks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    half(&store, 1, "cart", SpanKind::Client, 2, 1);
    let _done = checkpoint(&store, &partition);
    assert_eq!(in_heads(&store.snapshot_of_calls()), 0, "its server has not come");
    half(&store, 2, "stock", SpanKind::Server, 3, 2);
    let before = store.snapshot_of_calls();
    assert_eq!(in_heads(&before), 1);
    let _done = checkpoint(&store, &partition);
    assert_eq!(in_heads(&before), 1, "who looked before sees what was then");
    assert_eq!(in_heads(&store.snapshot_of_calls()), 0);
    assert_eq!(in_blocks(&store.open_partition(&partition).unwrap()), 1);
}
