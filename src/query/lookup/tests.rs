use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::clock::Clock;
use crate::latency::SlotLatency;
use crate::model::samples::{Sample, batch};
use crate::query::SpansWanted;
use crate::query::contributions::{Contributions, Sink};
use crate::query::selection::{Grouping, Target};
use crate::query::tally::Tally;
use crate::query::walk::{SlotAt, Slots};
use crate::store::{Store, StoreConfig};
use crate::telemetry::Counters;

/// 2026-11-23T10:00:00Z
const NOW: UnixNanos = UnixNanos(1_795_428_000_000_000_000);
const MINUTE: u64 = 60_000_000_000;
const NAMES: [&str; 2] = ["GET /", "POST /pay"];

/// A tally for the whole, and one for each group.
struct Tallies {
    whole: Tally,
    groups: HashMap<u32, Tally>,
}

impl Sink for Tallies {
    fn slot(&mut self, target: Target<'_>, at: SlotAt, is_error: bool, latency: &SlotLatency) {
        self.whole.add(latency, is_error, at.lead);
        for group in target.groups {
            self.groups.entry(*group).or_insert_with(Tally::sparse).add(latency, is_error, at.lead);
        }
    }

    fn span(&mut self, _: Target<'_>, _: UnixNanos, _: bool, _: Exemplar) {}
}

/// Two days of bursts in one band of latency: most of a burst's spans are no exemplar of any slot, not even of ten seconds.
fn filled(dir: &Path) -> (Query, Vec<(UnixNanos, &'static str, DurationNanos)>) {
    let (clock, counters) = (Clock::manual(NOW), Arc::new(Counters::default()));
    let config = StoreConfig { open_partitions_max: 1, ..StoreConfig::keeping_all(dir) };
    let store = Arc::new(Store::open(config, clock.clone(), Arc::clone(&counters)).unwrap());
    let mut spans = Vec::new();
    for block in 1..=12 {
        let burst = NOW.0 - (13 - block) * 240 * MINUTE;
        let sample = |no: u64| Sample {
            service: if no % 5 == 4 { "other" } else { "cart" },
            trace: u128::from(block * 1_000 + no),
            span: block * 1_000 + no,
            start: burst + no / 40 * 7 * MINUTE + no % 40 * 1_000_000,
            duration: 1_100_000 + (block * 1_000 + no) * 7_919 % 150_000,
        };
        let samples: Vec<Sample> = (0..160).map(sample).collect();
        let mut batch = batch(&samples);
        for (no, sample) in samples.iter().enumerate() {
            batch.spans[no].name = batch.push_bytes(NAMES[no % 2].as_bytes()).unwrap();
            if sample.service == "cart" {
                spans.push((UnixNanos(sample.start), NAMES[no % 2], DurationNanos(sample.duration)));
            }
        }
        let partition = match store.partitions().last().filter(|last| last.manifest().is_none()) {
            Some(growing) => Arc::clone(growing),
            None => store.start_partition().unwrap(),
        };
        store.push([(block, NOW, Arc::new(batch))]);
        let _written = store.checkpoint(&store.freeze(&partition).unwrap()).unwrap();
        if block % 5 == 0 {
            let _manifest = store.seal(&partition).unwrap();
        }
    }
    let query = Query::new(clock, counters);
    query.attach(store);
    (query, spans)
}

/// Not the search of everything behind it, which would hide a lead that leads nowhere: the lead itself.
#[test]
fn what_counted_a_bucket_leads_to_a_span_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (query, spans) = filled(dir.path());
    let (snapshot, conventions) = (query.store().unwrap().snapshot(), query.conventions().unwrap());
    let (namespace, by) = (None, Some(Grouping::SpanName));
    let selection = Selection { service: "cart".into(), namespace, spans: SpansWanted::All, by };
    for (from, to) in [(4_000, 0), (2_890, 1_000), (1_450, 1_440), (245, 233)] {
        let slots = |at: u64| UnixNanos(at / (MINUTE / 6) * (MINUTE / 6));
        let range = TimeRange { start: slots(NOW.0 - from * MINUTE), end: slots(NOW.0 - to * MINUTE) };
        let mut tallies = Tallies { whole: Tally::dense(), groups: HashMap::new() };
        let found = Contributions::collect(&query, &snapshot, &selection, range, Slots::Fewest, &mut tallies).unwrap();
        assert!(found.coverage.is_complete());
        let of_label = |(number, label)| Some((Some(label), tallies.groups.get(&number)?));
        let labels = (0..).zip(&found.groups.labels).filter_map(of_label);
        for (group, tally) in labels.chain([(None, &tallies.whole)]) {
            let is_meant = |(at, name, _): &&(UnixNanos, &str, DurationNanos)| {
                range.contains(*at) && group.is_none_or(|(_, value)| value.as_deref() == Some(*name))
            };
            let meant: Vec<DurationNanos> = spans.iter().filter(is_meant).map(|span| span.2).collect();
            assert_eq!(tally.count(), meant.len() as u64);
            let lookup = Lookup {
                query: &query,
                places: &found.places,
                selection: &selection,
                conventions: &conventions,
                range,
                rows: None,
                group,
                only_without: None,
            };
            for latency in &meant {
                let bucket = Bucket::of(*latency);
                let one = lookup.led(bucket, tally.of(bucket).1).unwrap().expect("it was counted there");
                assert!(one.bucket() == bucket && meant.contains(&one.latency), "{one:?} for {latency:?}");
            }
        }
    }
}
