//! Ranks and critical paths in the trace answer, against exact counts of the same spans in the head, in blocks and in
//! roll-ups together.
//!
//! 150 traces by default; `SPANDREL_QUESTIONS=20000` for more.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use serde_json::Value;
use spandrel::model::SpanId;

use crate::support::{Random, TestServer, now};

const SERVICES: [(&str, &str); 4] = [("sales", "cart"), ("sales", "checkout"), ("other", "checkout"), ("", "payment")];
const SLOT: u64 = 10_000_000_000;
const HALF_HOUR: u64 = 180 * SLOT;
/// Spans lie in the last two hours.
const SPREAD: u64 = 720 * SLOT;
const TRACES: u64 = 3_000;

/// What was sent.
#[derive(Clone, Debug)]
struct Known {
    service: (&'static str, &'static str),
    span: Span,
}

impl Known {
    fn latency(&self) -> Option<u64> {
        self.span.end_time_unix_nano.checked_sub(self.span.start_time_unix_nano)
    }

    /// UNSPECIFIED counts as INTERNAL, and the status does not matter.
    fn is_of_the_series_of(&self, other: &Self) -> bool {
        let kind = |known: &Self| known.span.kind.max(1);
        self.service == other.service && self.span.name == other.span.name && kind(self) == kind(other)
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn resource_spans((namespace, service): (&str, &str), spans: Vec<Span>) -> ResourceSpans {
    let attributes = vec![text("service.namespace", namespace), text("service.name", service)];
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ResourceSpans {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_spans,
        ..ResourceSpans::default()
    }
}

/// One to six spans, most of them a child of an earlier one, some without a parent that is stored.
fn trace(no: u64, first: u64, random: &mut Random) -> Vec<Known> {
    let start = first + random.below(SPREAD);
    let id = |at: u64| (no * 10 + at + 1).to_be_bytes().to_vec();
    let known = |at: u64| {
        let start = start + random.below(2_000_000_000) * u64::from(0 < at);
        // From a microsecond to ten seconds, evenly over the octaves; now and then a clock that ran backwards.
        let duration = (1 << (10 + random.below(23))) + random.below(1 << 20);
        let end = if random.one_in(40) { start - 5 } else { start + duration };
        let parent = match at {
            0 => Vec::new(),
            _ if random.one_in(20) => id(9),
            _ => id(random.below(at)),
        };
        let span = Span {
            trace_id: u128::from(no).to_be_bytes().to_vec(),
            span_id: id(at),
            parent_span_id: parent,
            name: format!("call {}", random.below(4)),
            kind: random.pick(&[0, 1, 2, 3]),
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            status: Some(Status { code: random.pick(&[0, 1, 2]), ..Status::default() }),
            ..Span::default()
        };
        Known { service: random.pick(&SERVICES), span }
    };
    (0..=no % 6).map(known).collect()
}

/// Sends the spans of all traces, mixed, and returns them by trace.
fn fill(server: &TestServer, random: &mut Random) -> Vec<Vec<Known>> {
    let first = now().0 - SPREAD;
    let traces: Vec<Vec<Known>> = (1..=TRACES).map(|no| trace(no, first, random)).collect();
    let mut spans: Vec<(u64, &Known)> = traces.iter().flatten().map(|known| (random.next(), known)).collect();
    spans.sort_unstable_by_key(|(at, _)| *at);
    for piece in spans.chunks(150) {
        let mut by_service: BTreeMap<(&str, &str), Vec<Span>> = BTreeMap::new();
        for (_, known) in piece {
            by_service.entry(known.service).or_default().push(known.span.clone());
        }
        let resource_spans = by_service.into_iter().map(|(service, spans)| resource_spans(service, spans)).collect();
        server.deliver(&ExportTraceServiceRequest { resource_spans });
    }
    traces
}

fn hex(span_id: &[u8]) -> String {
    SpanId(span_id.try_into().expect("8 bytes")).to_string()
}

/// The row of a span; `None` when it has none.
fn row<'a>(answer: &'a Value, list: &str, span: &Span) -> Option<&'a Value> {
    let rows = answer["spandrel"][list].as_array().expect("a list");
    let mut rows = rows.iter().filter(|row| row["spanId"] == hex(&span.span_id) && row["kind"] == span.kind);
    let found = rows.next();
    assert!(rows.next().is_none(), "one row per span");
    found
}

fn check_ranks(answer: &Value, trace: &[Known], all: &[&Known]) {
    let starts = trace.iter().filter(|known| known.latency().is_some()).map(|known| known.span.start_time_unix_nano);
    let middle = starts.min().unwrap_or(0) / SLOT * SLOT;
    let window = middle.saturating_sub(HALF_HOUR)..middle + HALF_HOUR;
    for known in trace {
        let rank = row(answer, "ranks", &known.span);
        let Some(own) = known.latency() else {
            assert_eq!(rank, None, "no latency, no rank: {known:?}");
            continue;
        };
        let inside = all.iter().filter(|other| window.contains(&other.span.start_time_unix_nano));
        let latencies: Vec<u64> =
            inside.filter(|other| other.is_of_the_series_of(known)).filter_map(|other| other.latency()).collect();
        let Some(rank) = rank else {
            assert!(latencies.len() < 2, "{} spans to compare with: {known:?}", latencies.len());
            continue;
        };
        assert_eq!(rank["count"], latencies.len(), "{known:?}");
        assert_eq!(rank["series"], format!("{} {}", known.service.1, known.span.name));
        let not_slower = |than: u64| latencies.iter().filter(|latency| **latency <= than).count() as f64;
        let found = rank["percentile"].as_f64().expect("a number") * latencies.len() as f64;
        let (least, most) = (not_slower(own), not_slower(own + (own / 1_000).max(511)));
        assert!(least - 1e-6 < found && found < most + 1e-6, "{found} of {least}..={most}: {known:?}");
    }
}

fn check_path(answer: &Value, trace: &[Known]) {
    let mut of_roots: BTreeMap<String, u64> = BTreeMap::new();
    for row in answer["spandrel"]["criticalPath"].as_array().expect("a list") {
        let root = row["rootSpanId"].as_str().expect("an id").to_owned();
        *of_roots.entry(root).or_default() += row["selfTimeNano"].as_u64().expect("a number");
    }
    let usable = |known: &&Known| known.latency().is_some();
    let is_stored = |id: &[u8]| trace.iter().filter(usable).any(|known| known.span.span_id == id);
    let roots = trace.iter().filter(usable).filter(|known| !is_stored(&known.span.parent_span_id));
    let expected = roots.filter_map(|known| Some((hex(&known.span.span_id), known.latency()?)));
    assert_eq!(of_roots, expected.collect(), "the times of each tree add up to its root's duration: {answer}");
    for known in trace {
        if let Some(on_path) = row(answer, "criticalPath", &known.span) {
            assert!(on_path["selfTimeNano"].as_u64() <= known.latency(), "{on_path}");
        }
    }
}

#[test]
fn every_rank_is_that_of_an_exact_count_of_the_series_in_the_hour_around() {
    let server = TestServer::with(|config| {
        config.ingest.checkpoint_spans = 1_500;
        config.ingest.partition_bytes_max = 50_000;
    });
    let mut random = Random(7);
    let traces = fill(&server, &mut random);
    let status = server.json("/spandrel/v1/status");
    assert!(0 < status["spans_in_memory"].as_u64().expect("a number"), "the head takes part: {status}");
    let all: Vec<&Known> = traces.iter().flatten().collect();
    let questions: u64 = std::env::var("SPANDREL_QUESTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    for _ in 0..questions {
        let no = random.below(TRACES);
        let trace = &traces[no as usize];
        let answer = server.get(&format!("/spandrel/v1/traces/{:x}", no + 1));
        assert_eq!((answer.status, answer.header("spandrel-coverage")), (200, ""), "{}", answer.text());
        check_ranks(&answer.json(), trace, &all);
        check_path(&answer.json(), trace);
    }
    let partitions = server.json("/spandrel/v1/status")["partitions"].clone();
    let sealed = partitions.as_array().expect("a list").iter().filter(|partition| partition["sealed"] == true).count();
    assert!(1 < sealed, "roll-ups of several partitions took part: {partitions}");
}

/// A span of `POST /pay` that takes `millis`.
fn pay(no: u64, millis: u64) -> Span {
    let start = now().0 - 60_000_000_000;
    Span {
        trace_id: u128::from(no).to_be_bytes().to_vec(),
        span_id: no.to_be_bytes().to_vec(),
        name: "POST /pay".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + millis * 1_000_000,
        ..Span::default()
    }
}

fn send(server: &TestServer, spans: Vec<Span>) {
    let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans(("", "checkout"), spans)] };
    server.deliver(&request);
}

#[test]
fn a_rank_needs_a_second_span_and_can_be_left_out() {
    let server = TestServer::new();
    send(&server, vec![pay(1, 40)]);
    let path = "/spandrel/v1/traces/1";
    let alone = server.json(path);
    assert_eq!(alone["spandrel"]["ranks"], serde_json::json!([]));
    let root = "0000000000000001";
    let on_path = serde_json::json!([{ "rootSpanId": root, "spanId": root, "kind": 2, "selfTimeNano": 40_000_000 }]);
    assert_eq!(alone["spandrel"]["criticalPath"], on_path);
    send(&server, vec![pay(2, 30), pay(3, 30), pay(4, 50)]);
    let rank = |percentile: f64| {
        let series = "checkout POST /pay";
        serde_json::json!({ "spanId": root, "kind": 2, "percentile": percentile, "count": 4, "series": series })
    };
    assert_eq!(server.json(path)["spandrel"]["ranks"], serde_json::json!([rank(0.75)]));
    assert_eq!(server.json(&format!("{path}?rank=true")), server.json(path));
    let without = server.json(&format!("{path}?rank=false"));
    assert_eq!(without["spandrel"], serde_json::json!({ "criticalPath": on_path }));
    for (query, said) in [("rank=no", "rank=no is neither true nor false"), ("ranks=false", "known are rank")] {
        let refused = server.get(&format!("{path}?{query}"));
        assert!(refused.status == 400 && refused.text().contains(said), "{}", refused.text());
    }
}

#[test]
fn readers_of_otlp_pass_over_what_we_make_of_a_trace() {
    let server = TestServer::new();
    send(&server, vec![pay(1, 40), pay(2, 30)]);
    let answer = server.get("/spandrel/v1/traces/1");
    assert!(answer.text().contains("\"criticalPath\""));
    let read: TracesData = serde_json::from_slice(&answer.body).expect("OTLP/JSON");
    assert_eq!(read.resource_spans[0].scope_spans[0].spans[0].name, "POST /pay");
    let again = server.post("application/json", &answer.body);
    assert_eq!((again.status, again.text().as_str()), (200, "{}"), "our own door reads it, too");
}

#[test]
fn a_trace_of_more_series_than_are_ranked_says_so() {
    let server = TestServer::new();
    for copy in [1, 2] {
        let spans = (0..2_001).map(|no| Span {
            trace_id: u128::from(copy).cast_signed().to_be_bytes().to_vec(),
            name: format!("step {no}"),
            ..pay(copy * 10_000 + no, 10)
        });
        send(&server, spans.collect());
    }
    let answer = server.get("/spandrel/v1/traces/1");
    assert_eq!(answer.header("spandrel-coverage"), "the trace has 2001 series, 2000 of them are ranked");
    assert_eq!(answer.json()["spandrel"]["ranks"].as_array().map(Vec::len), Some(2_000));
}
