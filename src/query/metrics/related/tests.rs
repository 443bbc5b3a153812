//! Numbers of related spans are those of a count over plain structs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::model::samples::{Sample, batch};
use crate::model::{DurationNanos, SpanId, TimeRange, UnixNanos};
use crate::query::{MetricsAnswer, MetricsQuestion, Query};
use crate::store::{Store, StoreConfig};
use crate::telemetry::Counters;

const SECOND: u64 = 1_000_000_000;
/// 2026-11-23T10:00:00Z, of which a step is a part.
const NOW: u64 = 1_795_428_000 * SECOND;
const STEP: u64 = 600 * SECOND;
/// What the range of the questions is widened to: after the first, up to the second.
const COUNTED: (u64, u64) = (NOW - 2_400 * SECOND, NOW + 4_200 * SECOND);
const TRACES: u64 = 60;
const SERVICES: [&str; 3] = ["cart", "checkout", "stock"];

/// A span.
#[derive(Clone, Copy, Debug)]
struct Plain {
    trace: u64,
    id: u64,
    /// 0 for a root; some are not stored.
    parent: u64,
    service: &'static str,
    start: u64,
    is_error: bool,
}

impl Plain {
    /// At the start, but an hour after the arrival at the latest.
    fn instant(&self) -> u64 {
        self.start.min(NOW + 3_600 * SECOND)
    }

    fn counts(&self) -> bool {
        COUNTED.0 < self.instant() && self.instant() <= COUNTED.1
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % n
    }
}

/// Up to an hour back, and some two hours ahead; parents come earlier.
fn plain(random: &mut Random) -> Vec<Plain> {
    let mut all = Vec::new();
    for trace in 0..TRACES {
        let (n, begin) = (1 + random.below(8), NOW - random.below(3_600) * SECOND);
        for id in 1..=n {
            let ahead = if random.below(9) == 0 { 7_200 * SECOND + id } else { 0 };
            all.push(Plain {
                trace,
                id,
                parent: if id == 1 { random.below(2) * 99 } else { 1 + random.below(id - 1) },
                service: SERVICES[usize::try_from(random.below(3)).unwrap()],
                start: begin + id * 100 * SECOND + ahead,
                is_error: random.below(3) == 0,
            });
        }
    }
    all
}

/// Traces lie across sealed partitions, a growing one and a head.
fn filled(dir: &Path, all: &[Plain]) -> Query {
    let (clock, counters) = (Clock::manual(UnixNanos(NOW)), Arc::new(Counters::default()));
    let store = Arc::new(Store::open(StoreConfig::keeping_all(dir), clock.clone(), Arc::clone(&counters)).unwrap());
    let mut partition = store.start_partition().unwrap();
    for piece in 0..7 {
        let some: Vec<&Plain> = all.iter().filter(|span| (span.trace + span.id) % 7 == piece).collect();
        let sample = |span: &&Plain| Sample {
            service: span.service,
            trace: u128::from(span.trace + 1),
            span: span.trace * 100 + span.id,
            start: span.start,
            duration: SECOND,
        };
        let mut batch = batch(&some.iter().map(sample).collect::<Vec<_>>());
        for (row, span) in batch.spans.iter_mut().zip(some) {
            let parent = if span.parent == 0 { 0 } else { span.trace * 100 + span.parent };
            row.parent_span_id = SpanId(parent.to_be_bytes());
            row.status_code = if span.is_error { 2 } else { 0 };
        }
        store.push([(piece + 1, UnixNanos(NOW), Arc::new(batch))]);
        if piece < 6 {
            let _written = store.checkpoint(&store.freeze(&partition).unwrap()).unwrap();
        }
        if piece == 1 || piece == 3 {
            let _manifest = store.seal(&partition).unwrap();
            partition = store.start_partition().unwrap();
        }
    }
    let query = Query::new(clock, counters);
    query.attach(store);
    query
}

/// Which spans of a trace are found.
type Find = fn(&[Plain]) -> Vec<Plain>;

fn is_below(trace: &[Plain], span: &Plain, wanted: fn(&Plain) -> bool) -> bool {
    let parent = trace.iter().find(|other| other.id == span.parent);
    parent.is_some_and(|parent| parent.counts() && wanted(parent) || is_below(trace, parent, wanted))
}

/// Below `cart`, whether what lies between counts or not.
fn errors_below_cart(trace: &[Plain]) -> Vec<Plain> {
    let is_found = |span: &&Plain| span.is_error && is_below(trace, span, |above| above.service == "cart");
    trace.iter().filter(is_found).copied().collect()
}

fn errors_and_stock(trace: &[Plain]) -> Vec<Plain> {
    let counted = || trace.iter().filter(|span| span.counts());
    let has_both = counted().any(|span| span.is_error) && counted().any(|span| span.service == "stock");
    trace.iter().filter(|span| has_both && (span.is_error || span.service == "stock")).copied().collect()
}

fn of_large_traces(trace: &[Plain]) -> Vec<Plain> {
    let is_large = 4 < trace.iter().filter(|span| span.counts()).count();
    trace.iter().filter(|_| is_large).copied().collect()
}

fn ask(query: &Query, text: &str) -> MetricsAnswer {
    let question = MetricsQuestion {
        query: text.parse().unwrap_or_else(|error| panic!("{text}: {error}")),
        range: TimeRange { start: UnixNanos(NOW - 1_800 * SECOND), end: UnixNanos(NOW + 3_700 * SECOND) },
        step: DurationNanos(STEP),
        exemplars_max: 20,
    };
    let answer = query.metrics(&question).unwrap();
    assert!(answer.coverage.is_complete(), "{text}: {:?}", answer.coverage);
    answer
}

/// Service and end of the interval of every span that is counted.
fn expected(all: &[Plain], find: Find) -> (BTreeMap<(String, u64), f64>, BTreeSet<SpanId>) {
    let (mut counts, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for trace in all.chunk_by(|a, b| a.trace == b.trace) {
        for span in find(trace).iter().filter(|span| span.counts()) {
            *counts.entry((span.service.to_owned(), span.instant().div_ceil(STEP) * STEP)).or_insert(0.0) += 1.0;
            let _new = ids.insert(SpanId((span.trace * 100 + span.id).to_be_bytes()));
        }
    }
    (counts, ids)
}

#[test]
fn related_spans_count_once_at_their_instant_wherever_their_traces_lie() {
    let sources: [(&str, Find); 4] = [
        ("{ resource.service.name = `cart` } >> { status = error }", errors_below_cart),
        ("{ status = error } && { resource.service.name = `stock` }", errors_and_stock),
        ("{ } | count() > 4", of_large_traces),
        ("{ } | by(resource.service.name) | coalesce() | count() > 4 | select(kind)", of_large_traces),
    ];
    for seed in 0..4 {
        let all = plain(&mut Random(seed));
        let dir = tempfile::tempdir().unwrap();
        let query = filled(dir.path(), &all);
        for (source, find) in sources {
            let text = format!("{source} | count_over_time() by (resource.service.name)");
            let answer = ask(&query, &text);
            let (counts, ids) = expected(&all, find);
            let mut found = BTreeMap::new();
            for series in &answer.series {
                let service = series.labels[0].1.to_string();
                let points = series.points.iter().filter(|(_, value)| *value != 0.0);
                found.extend(points.map(|(end, value)| ((service.clone(), end.0), *value)));
                for exemplar in &series.exemplars {
                    assert!(ids.contains(&exemplar.ids.span_id), "{text} shows a stranger");
                    assert!(exemplar.fields.iter().any(|(key, _)| key == "name"), "{:?}", exemplar.fields);
                }
            }
            assert_eq!(found, counts, "{text}, seed {seed}");
            assert!(!counts.is_empty() && answer.series.iter().any(|series| !series.exemplars.is_empty()), "{text}");
            assert_eq!(answer.spans, ids.len() as u64, "{text}");
            let compared = ask(&query, &format!("{source} | compare({{ status = error }})"));
            assert_eq!(compared.spans, answer.spans, "{text}");
        }
    }
}
