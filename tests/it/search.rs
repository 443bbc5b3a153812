//! Search against a plain filter over everything that was sent, with spans of a trace in several blocks, sealed partitions and
//! the head, sent twice, without a start or with a clock that ran backwards.
//!
//! 3 stores by default; `SPANDREL_QUESTIONS=500` for more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use spandrel::clock::Clock;
use spandrel::model::{DurationNanos, SpanBatch, SpanCopier, SpanId, SpanKey, TimeRange, TraceId, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::traceql::{Field, Filter, RowSet, SpanQuery, TraceSpans};
use spandrel::query::{
    Query, ROOT_NOT_RECEIVED, SearchQuestion, SearchTrace, ServiceSpans, SpanSet, TagValuesQuestion, TraceConditions,
};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;
use tempfile::TempDir;

use crate::support::Random;

/// 2026-11-23T10:00:00Z
const NOW: u64 = 1_795_428_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const SERVICES: [&str; 3] = ["cart", "checkout", "payment"];
const FILTERS: [&str; 12] = [
    "{ }",
    "{ status = error }",
    "{ resource.service.name = \"cart\" }",
    "{ resource.service.name = \"nobody\" }",
    "{ duration > 600ms }",
    "{ duration < 100ms && kind = server }",
    "{ duration = nil }",
    "{ .n > 7 && name =~ \"call [12]\" }",
    "{ span.route = \"/a\" || resource.service.name = \"payment\" }",
    "{ .n = 3 && .route = nil }",
    "{ span:parentID = \"0000000000000000\" }",
    "{ .n = 77 }",
];

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A span of one of 120 traces, of which each begins at a time of its own and lasts up to half an hour.
fn span(random: &mut Random) -> Span {
    let trace = random.below(120);
    let no = random.below(12);
    let begin = NOW - 7_200 * SECOND + trace * 7_919 % 120 * 60 * SECOND;
    let start = if random.one_in(60) { 0 } else { begin + no * trace % 7 * 20 * SECOND };
    let end = if random.one_in(20) { start.saturating_sub(5) } else { start + random.below(1_000) * 1_000_000 };
    let mut attributes = vec![attribute("n", any_value::Value::IntValue(random.below(10).cast_signed()))];
    if random.one_in(3) {
        attributes.push(attribute("route", any_value::Value::StringValue(random.pick(&["/a", "/b"]).to_owned())));
    }
    Span {
        trace_id: u128::from(trace + 1).to_be_bytes().to_vec(),
        span_id: (no + 1).to_be_bytes().to_vec(),
        parent_span_id: match no {
            0 if trace.is_multiple_of(4) => vec![9; 8],
            0 => Vec::new(),
            no => (no.div_ceil(2)).to_be_bytes().to_vec(),
        },
        name: format!("call {}", random.below(4)),
        kind: random.pick(&[1, 2, 3]),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes,
        status: Some(Status { code: random.pick(&[0, 1, 2]), ..Status::default() }),
        ..Span::default()
    }
}

fn batch(random: &mut Random) -> SpanBatch {
    let resource_spans = SERVICES.iter().map(|service| {
        let attributes = vec![attribute("service.name", any_value::Value::StringValue((*service).to_owned()))];
        let spans = (0..random.below(20)).map(|_| span(random)).collect();
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    });
    let request = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
    decode(request.encode_to_vec(), &DecodeOptions::default()).expect("good spans").batch
}

/// A store with sealed partitions, blocks and a head, and what was sent to it in order.
struct Filled {
    query: Query,
    store: Arc<Store>,
    sent: Vec<Arc<SpanBatch>>,
    _dir: TempDir,
}

impl Filled {
    fn new(random: &mut Random) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (clock, counters) = (Clock::manual(UnixNanos(NOW)), Arc::new(Counters::default()));
        let config = StoreConfig { open_partitions_max: 1, ..StoreConfig::keeping_all(dir.path()) };
        let store = Arc::new(Store::open(config, clock.clone(), Arc::clone(&counters)).expect("it opens"));
        let mut sent = Vec::new();
        for block in 1..=random.below(8) + 1 {
            let partition = match store.partitions().last().filter(|last| last.manifest().is_none()) {
                Some(growing) => Arc::clone(growing),
                None => store.start_partition().expect("a partition"),
            };
            for no in 0..=random.below(2) {
                let batch = Arc::new(batch(random));
                sent.push(Arc::clone(&batch));
                store.push([(block * 10 + no, UnixNanos(NOW), batch)]);
            }
            let _written = store.checkpoint(&store.freeze(&partition).expect("a head")).expect("a block");
            if random.one_in(3) {
                let _manifest = store.seal(&partition).expect("it seals");
            }
        }
        for no in 0..random.below(3) {
            let batch = Arc::new(batch(random));
            sent.push(Arc::clone(&batch));
            store.push([(1_000 + no, UnixNanos(NOW), batch)]);
        }
        let query = Query::new(clock, counters);
        query.attach(Arc::clone(&store));
        Self { query, store, sent, _dir: dir }
    }

    fn push(&mut self, batch: SpanBatch) {
        let batch = Arc::new(batch);
        self.sent.push(Arc::clone(&batch));
        self.store.push([(10_000 + self.sent.len() as u64, UnixNanos(NOW), batch)]);
    }

    /// Every trace that was sent, its spans each once and by their start.
    fn whole_traces(&self) -> impl Iterator<Item = (TraceId, SpanBatch)> {
        let mut seen = HashSet::new();
        let mut all = SpanCopier::default();
        for batch in &self.sent {
            let rows = (0..).zip(&batch.spans).filter(|(_, span)| seen.insert(span.key())).map(|(row, _)| row);
            all.copy(batch, rows.collect::<Vec<u32>>());
        }
        let mut traces: BTreeMap<TraceId, Vec<u32>> = BTreeMap::new();
        for (row, span) in (0..).zip(&all.batch.spans) {
            traces.entry(span.trace_id).or_default().push(row);
        }
        traces.into_iter().map(move |(id, mut rows)| {
            rows.sort_by_key(|row| all.batch.spans[*row as usize].key());
            let mut trace = SpanCopier::default();
            trace.copy(&all.batch, rows);
            (id, trace.batch)
        })
    }

    /// Every trace with a matching span, newest first, without the spans.
    fn naive(&self, filter: &Filter, range: TimeRange) -> Vec<(SearchTrace, HashSet<SpanKey>)> {
        let mut seen = HashSet::new();
        let mut traces: HashMap<TraceId, Vec<(&SpanBatch, usize)>> = HashMap::new();
        for batch in &self.sent {
            for (row, span) in batch.spans.iter().enumerate().filter(|(_, span)| seen.insert(span.key())) {
                traces.entry(span.trace_id).or_default().push((batch, row));
            }
        }
        let mut found: Vec<_> =
            traces.into_iter().filter_map(|(id, rows)| naive_trace(id, &rows, filter, range)).collect();
        found.sort_by_key(|(start, (trace, _))| (std::cmp::Reverse(*start), trace.trace_id));
        found.into_iter().map(|(_, found)| found).collect()
    }
}

fn naive_trace(
    trace_id: TraceId,
    rows: &[(&SpanBatch, usize)],
    filter: &Filter,
    range: TimeRange,
) -> Option<(UnixNanos, (SearchTrace, HashSet<SpanKey>))> {
    let spans = || rows.iter().map(|(batch, row)| (*batch, &batch.spans[*row]));
    let matching = rows
        .iter()
        .filter(|(batch, row)| range.contains(batch.spans[*row].start_time_unix_nano) && filter.matches(batch, *row));
    let matching: HashSet<SpanKey> = matching.map(|(batch, row)| batch.spans[*row].key()).collect();
    let starts = || spans().map(|(_, span)| span.start_time_unix_nano);
    let start = starts().filter(|at| at.0 != 0).min().unwrap_or_default();
    let end = spans().map(|(_, span)| span.end_time_unix_nano.max(span.start_time_unix_nano)).max()?;
    let roots = spans().filter(|(_, span)| span.parent_span_id == SpanId::default());
    let root = roots.min_by_key(|(_, span)| span.key());
    let mut services: BTreeMap<String, ServiceSpans> = BTreeMap::new();
    for (batch, span) in spans() {
        let counts = services.entry(batch.service_of(span).1.into_owned()).or_default();
        counts.spans += 1;
        counts.errors += u64::from(span.status_code == 2);
    }
    let trace = SearchTrace {
        trace_id,
        root_service: root.map_or(ROOT_NOT_RECEIVED.to_owned(), |(batch, span)| batch.service_of(span).1.into_owned()),
        root_name: root.map_or(String::new(), |(batch, span)| batch.text_lossy(span.name).into_owned()),
        start,
        duration: DurationNanos(end.0.saturating_sub(start.0)),
        sets: vec![SpanSet { attributes: Vec::new(), matched: matching.len() as u64, spans: Vec::new() }],
        services,
    };
    (!matching.is_empty()).then_some((starts().min()?, (trace, matching)))
}

#[track_caller]
fn check(filled: &Filled, filter: &str, range: TimeRange, traces_max: usize, spans_per_set_max: usize) {
    let parsed: Filter = filter.parse().expect("a filter");
    let question = SearchQuestion {
        query: parsed.clone().into(),
        range,
        trace: TraceConditions::default(),
        traces_max,
        spans_per_set_max,
    };
    let answer = filled.query.search(&question).expect("an answer");
    assert!(answer.coverage.is_complete(), "{:?}", answer.coverage);
    let mut naive = filled.naive(&parsed, range);
    naive.truncate(traces_max);
    let ids = |traces: &mut dyn Iterator<Item = TraceId>| traces.map(|id| id.to_string()).collect::<Vec<_>>();
    assert_eq!(
        ids(&mut answer.traces.iter().map(|trace| trace.trace_id)),
        ids(&mut naive.iter().map(|(trace, _)| trace.trace_id)),
        "{filter} {range:?} {traces_max}"
    );
    for (mut found, (expected, matching)) in answer.traces.into_iter().zip(naive) {
        let most = if spans_per_set_max == 0 { usize::MAX } else { spans_per_set_max };
        let mut keys: Vec<SpanKey> = matching.into_iter().collect();
        keys.sort_unstable();
        let shown: Vec<_> = keys.into_iter().take(most).map(|key| (key.span_id, key.start_time_unix_nano)).collect();
        let spans = std::mem::take(&mut found.sets[0].spans);
        assert_eq!(spans.iter().map(|span| (span.span_id, span.start)).collect::<Vec<_>>(), shown, "{filter}");
        assert_eq!(found, expected, "{filter} {range:?}");
    }
}

#[test]
fn a_search_finds_what_a_filter_of_every_span_finds_wherever_the_spans_of_a_trace_lie() {
    let mut random = Random(20);
    let stores = std::env::var("SPANDREL_QUESTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    for _ in 0..stores {
        let filled = Filled::new(&mut random);
        let window = |from: u64, to: u64| TimeRange {
            start: UnixNanos(NOW - from * 60 * SECOND),
            end: UnixNanos(NOW - to * 60 * SECOND),
        };
        for filter in FILTERS {
            for range in [TimeRange::ALL, window(60, 20), window(5, 0), window(200, 119)] {
                for (traces_max, spans_per_set_max) in [(1, 1), (5, 3), (20, 0), (1_000, 2)] {
                    check(&filled, filter, range, traces_max, spans_per_set_max);
                }
            }
        }
    }
}

#[test]
fn spans_show_what_the_filter_asks_of_each_key_once_and_without_its_scope() {
    let filled = Filled::new(&mut Random(3));
    let filter = "{ resource.service.name = \"cart\" && status = error && kind != client && .n >= 0 && span.n >= 0 \
                  && name != \"\" && duration >= 0ms && trace:id != \"\" && .absent = nil }";
    let question = SearchQuestion {
        query: filter.parse().expect("a query"),
        range: TimeRange::ALL,
        trace: TraceConditions::default(),
        traces_max: 1,
        spans_per_set_max: 1,
    };
    let answer = filled.query.search(&question).expect("an answer");
    let attributes = &answer.traces[0].sets[0].spans[0].attributes;
    let shown: Vec<(&str, String)> = attributes.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
    let keys: Vec<&str> = shown.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, ["service.name", "status", "kind", "n"]);
    assert_eq!((shown[0].1.as_str(), shown[1].1.as_str()), ("cart", "error"));
}

#[test]
fn blocks_older_than_the_traces_found_are_not_read() {
    let mut filled = Filled::new(&mut Random(3));
    let store = filled.query.status().expect("an open store");
    let blocks: u64 = store.partitions.iter().map(|(_, _, blocks)| blocks).sum();
    let search = |filled: &Filled, traces_max| {
        let question = SearchQuestion {
            query: SpanQuery::default(),
            range: TimeRange::ALL,
            trace: TraceConditions::default(),
            traces_max,
            spans_per_set_max: 1,
        };
        filled.query.search(&question).expect("an answer")
    };
    let all = search(&filled, 1_000);
    assert!(1 < blocks && all.inspected_blocks == blocks);
    // An hour after everything else.
    let mut newest = batch(&mut Random(4));
    newest.spans.truncate(1);
    newest.spans[0].start_time_unix_nano = UnixNanos(NOW + 3_600 * SECOND);
    newest.spans[0].trace_id = TraceId([77; 16]);
    filled.push(newest);
    let one = search(&filled, 1);
    assert_eq!((one.inspected_blocks, one.traces[0].trace_id), (0, TraceId([77; 16])));
    assert_eq!(search(&filled, 1_000).traces[1..], all.traces);
    assert_eq!(search(&filled, 0).traces, []);
}

#[test]
fn conditions_on_the_trace_are_met_by_different_spans_of_it() {
    let filled = Filled::new(&mut Random(3));
    let filter = |text: &str| text.parse::<Filter>().expect("a filter");
    let each = vec![filter("{ kind = server }"), filter("{ .n = 3 }"), filter("{ status = error && .route = \"/a\" }")];
    let seconds = |n| DurationNanos(n * SECOND);
    let all = filled.naive(&filter("{ kind = server }"), TimeRange::ALL);
    let with: Vec<HashSet<TraceId>> = each
        .iter()
        .map(|one| filled.naive(one, TimeRange::ALL).into_iter().map(|(trace, _)| trace.trace_id).collect())
        .collect();
    let meant = |trace: &SearchTrace| {
        with.iter().all(|with| with.contains(&trace.trace_id)) && (seconds(30)..=seconds(119)).contains(&trace.duration)
    };
    let meant: Vec<TraceId> =
        all.iter().map(|(trace, _)| trace).filter(|trace| meant(trace)).map(|t| t.trace_id).collect();
    let trace = TraceConditions { duration_min: Some(seconds(30)), duration_max: Some(seconds(119)) };
    let (range, query) = (TimeRange::ALL, SpanQuery::each(each));
    let question = SearchQuestion { query, range, trace, traces_max: 1_000, spans_per_set_max: 1 };
    let found = filled.query.search(&question).expect("an answer").traces;
    assert!(!meant.is_empty() && meant.len() < all.len());
    assert_eq!(found.iter().map(|trace| trace.trace_id).collect::<Vec<_>>(), meant);
}

/// Spans of one trace lie in several blocks, partitions and heads, and some blocks hold but a part of what is needed.
#[test]
fn spans_are_related_wherever_they_lie() {
    let filled = Filled::new(&mut Random(3));
    let mut n_found = 0;
    for text in [
        "{ kind = server } && { status = error && .n = 3 }",
        "{ .n = 3 } || { .n = 4 && status = error }",
        "{ kind = server } > { kind = client }",
        "{ status = error } >> { .route = \"/a\" }",
        "{ .route = \"/a\" } << { kind = server }",
        "{ status = error } !>> { status = error }",
        "{ status = error } &>> { kind = client }",
        "{ kind = server } ~ { kind = server && status = error }",
        "{ status = error } | by(resource.service.name) | count() > 1",
        "{ trace:duration > 60s && childCount > 1 }",
        "{ parent.n = 3 } || { nestedSetParent < 0 && status = error }",
        "({ kind = server } | count() > 3) && { .n >= 4 }",
    ] {
        let query: SpanQuery = text.parse().expect("a query");
        for range in [TimeRange::ALL, TimeRange { start: UnixNanos(NOW - 3_600 * SECOND), end: UnixNanos(NOW) }] {
            let meant = filled.whole_traces().filter_map(|(id, batch)| {
                let rows = (0..).zip(&batch.spans).filter(|(_, span)| range.contains(span.start_time_unix_nano));
                let sets =
                    query.find(&TraceSpans::new(&batch, 0..batch.spans.len()), rows.map(|(row, _)| row).collect());
                let spans = |set: &RowSet| set.rows.iter().map(|row| batch.spans[*row as usize].span_id).collect();
                (!sets.is_empty()).then(|| (id, sets.iter().map(spans).collect::<Vec<Vec<SpanId>>>()))
            });
            let meant: BTreeMap<TraceId, Vec<Vec<SpanId>>> = meant.collect();
            n_found += meant.len();
            for traces_max in [3, 1_000] {
                let trace = TraceConditions::default();
                let question = SearchQuestion { query: query.clone(), range, trace, traces_max, spans_per_set_max: 0 };
                let answer = filled.query.search(&question).expect("an answer");
                assert_eq!(answer.traces.len(), meant.len().min(traces_max), "{text}");
                for found in answer.traces {
                    let sets: Vec<Vec<SpanId>> =
                        found.sets.iter().map(|set| set.spans.iter().map(|span| span.span_id).collect()).collect();
                    assert_eq!(Some(&sets), meant.get(&found.trace_id), "{text}, trace {}", found.trace_id);
                }
            }
        }
    }
    assert!(100 < n_found, "{n_found}");
}

/// A copy of a span in another block may have been sent with other values, which are listed as well.
#[test]
fn tag_values_are_those_of_the_spans_that_match_wherever_they_lie() {
    let mut random = Random(3);
    let filled = Filled::new(&mut random);
    let half = TimeRange { start: UnixNanos(NOW - 3_600 * SECOND), end: UnixNanos(NOW) };
    let names = filled.query.tag_names(TimeRange::ALL, 100).expect("an answer");
    assert_eq!(names.span.iter().collect::<Vec<_>>(), ["n", "route"]);
    assert_eq!(names.resource.iter().collect::<Vec<_>>(), ["service.name"]);
    for field in ["span.n", ".route", "resource.service.name", "name", "kind"] {
        let field: Field = field.parse().expect("a field");
        for (filter, range) in FILTERS.into_iter().flat_map(|filter| [(filter, TimeRange::ALL), (filter, half)]) {
            let filter: Filter = filter.parse().expect("a filter");
            let (mut seen, mut first, mut all) = (HashSet::new(), BTreeSet::new(), BTreeSet::new());
            for (batch, row) in filled.sent.iter().flat_map(|batch| (0..batch.spans.len()).map(move |row| (batch, row)))
            {
                let is_first = seen.insert(batch.spans[row].key());
                if range.contains(batch.spans[row].start_time_unix_nano) && filter.matches(batch, row) {
                    let value = field.value(batch, row);
                    all.extend(value.clone());
                    first.extend(value.filter(|_| is_first));
                }
            }
            let ask = |values_max| {
                let question =
                    TagValuesQuestion { fields: vec![field.clone()], filter: Some(filter.clone()), range, values_max };
                filled.query.tag_values(&question).expect("an answer").values
            };
            let found = ask(1_000);
            assert!(first.is_subset(&found) && found.is_subset(&all), "{field} {filter}: {found:?}, not {first:?}");
            assert_eq!(ask(1).len(), found.len().min(1));
        }
    }
}
