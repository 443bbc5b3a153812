use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::block::{SpanParts, same_content};
use crate::clock::Clock;
use crate::model::samples::{Sample, batch};
use crate::model::{SpanKey, UnixNanos};
use crate::store::{Store, StoreConfig};
use crate::telemetry::Counters;

/// 2026-11-23T10:00:00Z
const NOW: u64 = 1_795_428_000_000_000_000;
const TRACES: u64 = 600;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % n
    }
}

fn id(no: u64) -> TraceId {
    // In no order of time, as ids are.
    TraceId((u128::from(no.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(no)).to_be_bytes())
}

/// Spans of a few traces that go on for a while; a span that comes again may say something else.
fn spans(random: &mut Random, n: u64, time: u64) -> SpanBatch {
    let sample = |_| {
        let trace = (time * 40 + random.below(60)) % TRACES;
        let span = random.below(30) + 1;
        Sample {
            service: ["cart", "checkout", "payment"][(span % 3) as usize],
            trace: u128::from_be_bytes(id(trace).0),
            span,
            start: NOW + trace * 1_000 + span * 7 % 11,
            duration: random.below(1_000),
        }
    };
    batch(&(0..n).map(sample).collect::<Vec<_>>())
}

struct Filled {
    query: Query,
    /// In the order in which they arrived.
    sent: Vec<Arc<SpanBatch>>,
    /// Files of the blocks of sealed partitions.
    packs: Vec<PathBuf>,
}

/// Sealed partitions, a growing one, a head; one block has several row groups.
fn filled(dir: &Path, seed: u64) -> Filled {
    let random = &mut Random(seed);
    let (clock, counters) = (Clock::manual(UnixNanos(NOW)), Arc::new(Counters::default()));
    let config = StoreConfig { open_partitions_max: 1, ..StoreConfig::keeping_all(dir) };
    let store = Arc::new(Store::open(config, clock.clone(), Arc::clone(&counters)).unwrap());
    let (mut sent, mut packs) = (Vec::new(), Vec::new());
    let mut push = |store: &Store, batch: SpanBatch| {
        let batch = Arc::new(batch);
        store.push([(sent.len() as u64 + 1, UnixNanos(NOW), Arc::clone(&batch))]);
        sent.push(batch);
    };
    let mut partition = store.start_partition().unwrap();
    for block in 0..9 {
        if block == 4 {
            // Every trace with every span: more than two row groups.
            for time in 0..16 {
                push(&store, spans(random, 1_500, time));
            }
        }
        push(&store, spans(random, 200, block));
        push(&store, spans(random, 40, block + 7));
        let _written = store.checkpoint(&store.freeze(&partition).unwrap()).unwrap();
        if block % 3 == 2 && block != 8 {
            let _manifest = store.seal(&partition).unwrap();
            packs.push(partition.dir().join("BLOCKS"));
            partition = store.start_partition().unwrap();
        }
    }
    push(&store, spans(random, 200, 8));
    push(&store, spans(random, 200, 2));
    let query = Query::new(clock, counters);
    query.attach(store);
    Filled { query, sent, packs }
}

/// Every id that is stored, and some that are not.
fn ids() -> Vec<TraceId> {
    (0..TRACES + 20).map(id).collect()
}

/// The first copy of each span of each trace, by key.
fn expected(sent: &[Arc<SpanBatch>]) -> HashMap<TraceId, BTreeMap<SpanKey, (&SpanBatch, &Span)>> {
    let mut traces: HashMap<TraceId, BTreeMap<SpanKey, (&SpanBatch, &Span)>> = HashMap::new();
    for batch in sent {
        for span in &batch.spans {
            let _first = traces.entry(span.trace_id).or_default().entry(span.key()).or_insert((batch, span));
        }
    }
    traces
}

#[track_caller]
fn check_same(a: &TraceAnswer, b: &TraceAnswer, what: &str) {
    assert_eq!(a.coverage, b.coverage, "{what}");
    let keys = |answer: &TraceAnswer| answer.batch.spans.iter().map(Span::key).collect::<Vec<_>>();
    assert_eq!(keys(a), keys(b), "{what}");
    for (of_a, of_b) in a.batch.spans.iter().zip(&b.batch.spans) {
        assert!(same_content((&a.batch, of_a), (&b.batch, of_b)), "{what}: {of_a:?}");
    }
}

#[test]
fn many_traces_come_back_as_they_were_sent_whatever_is_read_at_once() {
    for seed in 1..3 {
        let dir = tempfile::tempdir().unwrap();
        let Filled { query, sent, .. } = filled(dir.path(), seed);
        let (snapshot, expected) = (query.store().unwrap().snapshot(), expected(&sent));
        for spans_at_once in [1, 300, 5_000, SPANS_AT_ONCE] {
            let mut seen = Vec::new();
            let each = &mut |id, trace: TraceView<'_>| {
                let what = format!("{id}, seed {seed}, {spans_at_once} at once");
                assert!(trace.coverage.is_complete(), "{what}");
                let none = BTreeMap::new();
                let wanted = expected.get(&id).unwrap_or(&none);
                let spans = &trace.batch.spans[trace.rows.clone()];
                assert_eq!(wanted.len(), spans.len(), "{what}");
                for ((key, sent), span) in wanted.iter().zip(spans) {
                    assert_eq!(*key, span.key(), "{what}");
                    assert!(same_content(*sent, (trace.batch, span)), "{what}: {span:?}");
                }
                seen.push(id);
                Ok(())
            };
            query.each_trace_of(&snapshot, &ids(), SpanParts::All, spans_at_once, each).unwrap();
            seen.sort_unstable();
            let mut all = ids();
            all.sort_unstable();
            assert_eq!(seen, all, "each once");
        }
    }
}

#[test]
fn answers_stand_in_the_order_of_the_ids_and_as_often() {
    let dir = tempfile::tempdir().unwrap();
    let Filled { query, .. } = filled(dir.path(), 1);
    let snapshot = query.store().unwrap().snapshot();
    let asked = [7, 3, 599, 10_000, 3, 0].map(id);
    let together = query.traces_in(&snapshot, &asked).unwrap();
    assert_eq!(together.len(), asked.len());
    for (id, answer) in asked.iter().zip(&together) {
        check_same(answer, &query.traces_in(&snapshot, &[*id]).unwrap()[0], &id.to_string());
        assert!(answer.batch.spans.iter().all(|span| span.trace_id == *id));
    }
    assert!(query.traces_in(&snapshot, &[]).unwrap().is_empty());
}

#[test]
fn rel_04_damage_takes_from_each_of_many_traces_what_it_takes_from_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let Filled { query, packs, .. } = filled(dir.path(), 3);
    let snapshot = query.store().unwrap().snapshot();
    let (pack, mut n_missing) = (&packs[1], 0);
    let whole = fs::read(pack).unwrap();
    let asked: Vec<TraceId> = ids().into_iter().step_by(23).collect();
    for at in (40..whole.len() / 2).step_by(whole.len() / 16) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(pack, &damaged).unwrap();
        let together = query.traces_in(&snapshot, &asked).unwrap();
        for (id, answer) in asked.iter().zip(&together) {
            check_same(answer, &query.traces_in(&snapshot, &[*id]).unwrap()[0], &format!("{id}, flip at {at}"));
            n_missing += usize::from(!answer.coverage.is_complete());
        }
    }
    assert!(0 < n_missing, "some of it was met");
}

#[test]
fn an_error_of_who_looks_ends_the_reading() {
    let dir = tempfile::tempdir().unwrap();
    let Filled { query, .. } = filled(dir.path(), 4);
    let snapshot = query.store().unwrap().snapshot();
    let mut seen = 0;
    let read = query.each_trace_in(&snapshot, &ids(), SpanParts::All, &mut |_, _| {
        seen += 1;
        if seen < 5 { Ok(()) } else { Err(QueryError::Abandoned) }
    });
    assert!(matches!(read, Err(QueryError::Abandoned)));
    assert_eq!(seen, 5);
}

#[test]
fn a_question_reads_few_spans_at_any_time_and_many_when_it_is_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let filled = filled(dir.path(), 5);
    // Who has gone is not given a turn.
    let (query, asker) = filled.query.for_asker();
    drop(asker);
    assert!(!query.trace(id(7)).unwrap().batch.spans.is_empty());
    assert!(matches!(query.traces(&ids()), Err(QueryError::Abandoned)));
}
