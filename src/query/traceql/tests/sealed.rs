//! Searches in sealed blocks, which are passed by when their tables have nothing that a filter needs.

use std::sync::Arc;

use crate::clock::Clock;
use crate::model::samples::{Sample, batch};
use crate::model::{Attribute, Rows, TimeRange, UnixNanos, Value};
use crate::query::{Query, SearchQuestion, TraceConditions};
use crate::store::{Store, StoreConfig};
use crate::telemetry::Counters;

const START: u64 = 1_790_000_000_000_000_000;

/// Traces that a search finds, the newest first.
fn found(query: &Query, text: &str) -> Vec<u128> {
    let question = SearchQuestion {
        query: text.parse().unwrap(),
        range: TimeRange { start: UnixNanos(0), end: UnixNanos(u64::MAX) },
        trace: TraceConditions::default(),
        traces_max: 10,
        spans_per_set_max: 0,
    };
    let answer = query.search(&question).unwrap();
    assert!(answer.coverage.is_complete(), "{text}: {:?}", answer.coverage);
    answer.traces.iter().map(|trace| u128::from_be_bytes(trace.trace_id.0)).collect()
}

#[test]
fn an_unscoped_attribute_that_only_the_resource_has_is_found_in_a_sealed_block() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, counters) = (Clock::manual(UnixNanos(START)), Arc::new(Counters::default()));
    let store = Store::open(StoreConfig::keeping_all(dir.path()), clock.clone(), Arc::clone(&counters)).unwrap();
    let partition = store.start_partition().unwrap();
    for (sequence, region) in [(1, Some("eu")), (2, None)] {
        let start = START + sequence;
        let mut spans = batch(&[Sample { service: "pay", trace: sequence.into(), span: 1, start, duration: 10 }]);
        if let Some(region) = region {
            let (key, value) =
                (spans.push_bytes(b"cloud.region").unwrap(), spans.push_bytes(region.as_bytes()).unwrap());
            spans.attributes.push(Attribute { key, value: Value::String(value) });
            spans.resources[0].attributes = Rows { start: 0, len: 2 };
        }
        store.push([(sequence, UnixNanos(START), Arc::new(spans))]);
        let _done = store.checkpoint(&store.freeze(&partition).unwrap()).unwrap();
    }
    let _manifest = store.seal(&partition).unwrap();
    let query = Query::new(clock, counters);
    query.attach(Arc::new(store));
    assert_eq!(found(&query, "{ .cloud.region = \"eu\" }"), [1]);
    assert_eq!(found(&query, "{ resource.cloud.region = \"eu\" }"), [1]);
    assert_eq!(found(&query, "{ .cloud.region = nil }"), [2]);
    assert_eq!(found(&query, "{ span.cloud.region = nil }"), [2, 1]);
    for nobody in ["{ .cloud.region = \"us\" }", "{ span.cloud.region = \"eu\" }", "{ .cloud.zone = \"eu\" }"] {
        assert_eq!(found(&query, nobody), [0_u128; 0], "{nobody}");
    }
}
