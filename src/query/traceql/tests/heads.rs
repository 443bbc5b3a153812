//! Spans that are in memory.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::model::UnixNanos;
use crate::model::samples::{Sample, batch};
use crate::query::traceql::{Groups, RowScan, ServiceChoice};
use crate::store::HeadPart;

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
