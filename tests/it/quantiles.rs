//! Every percentile against an exact sort of the same spans, from the head, from blocks and from roll-ups together.
//!
//! 3,000 questions by default; `SPANDREL_QUESTIONS=1000000` for more.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use crate::support::{Random, TestServer, now};

const SERVICES: [&str; 3] = ["cart", "checkout", "payment"];
const SLOT: u64 = 10_000_000_000;
/// Spans lie in the last two hours.
const SPREAD: u64 = 720 * SLOT;
const SPANS: u64 = 24_000;

const ZONE: &str = "cloud.availability_zone";
/// Where batches of spans ran; one in four does not say.
const ZONES: [Option<&str>; 4] = [Some("eu-1a"), Some("eu-1b"), Some("eu-1c"), None];

/// One span as it was sent.
struct Sent {
    start: u64,
    duration: u64,
    trace: String,
    zone: Option<&'static str>,
    /// Span name: `call` and this.
    call: u64,
}

/// The spans of each service.
type Exact = BTreeMap<&'static str, Vec<Sent>>;

pub(crate) fn service_spans(service: &str, zone: Option<&str>, spans: Vec<Span>) -> ResourceSpans {
    let text = |key: &str, value: &str| {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
        KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
    };
    let attributes = std::iter::once(text("service.name", service)).chain(zone.map(|zone| text(ZONE, zone))).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ResourceSpans {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_spans,
        ..ResourceSpans::default()
    }
}

fn fill(server: &TestServer, random: &mut Random) -> Exact {
    let mut exact = Exact::new();
    let first = now().0 - SPREAD;
    for batch in 0..SPANS / 200 {
        let service = SERVICES[usize::try_from(batch % 3).expect("small")];
        let zone = ZONES[usize::try_from(random.below(4)).expect("small")];
        let spans = (0..200).map(|no| {
            let start = first + random.below(SPREAD);
            // From a microsecond to a quarter of an hour, evenly over the octaves, with a few of no length at all.
            let duration = if random.below(50) == 0 {
                random.below(600)
            } else {
                (1 << (10 + random.below(30))) + random.below(1 << 20)
            };
            let trace = u128::from(batch * 1_000 + no + 1);
            exact.entry(service).or_default().push(Sent {
                start,
                duration,
                trace: format!("{trace:032x}"),
                zone,
                call: no % 5,
            });
            Span {
                trace_id: trace.to_be_bytes().to_vec(),
                span_id: (batch * 1_000 + no + 1).to_be_bytes().to_vec(),
                name: format!("call {}", no % 5),
                kind: 2,
                start_time_unix_nano: start,
                end_time_unix_nano: start + duration,
                ..Span::default()
            }
        });
        let resource_spans = vec![service_spans(service, zone, spans.collect())];
        server.deliver(&ExportTraceServiceRequest { resource_spans });
    }
    exact
}

/// Nearest rank, as HdrHistogram counts it.
fn rank(q: f64, count: usize) -> usize {
    ((q * count as f64).ceil() as usize).clamp(1, count)
}

fn ask(server: &TestServer, exact: &Exact, random: &mut Random) {
    let service = SERVICES[usize::try_from(random.below(3)).expect("small")];
    let from = now().0 / SLOT * SLOT - SPREAD + random.below(720) * SLOT;
    let longest = 1 << random.below(10);
    let to = from + (1 + random.below(longest)) * SLOT;
    let mut quantiles: Vec<f64> = (0..8).map(|_| random.below(1_000_001) as f64 / 1e6).collect();
    quantiles.extend([0.0, 1.0]);
    // One question in three reads spans instead of histograms.
    let only_call = (random.below(3) == 0).then(|| random.below(5));
    let is_meant = |sent: &&Sent| (from..to).contains(&sent.start) && only_call.is_none_or(|call| call == sent.call);
    let inside: Vec<&Sent> = exact[service].iter().filter(is_meant).collect();
    let filter = only_call.map_or(String::new(), |call| format!("&where=%7Bname%3D%22call%20{call}%22%7D"));
    let q: Vec<String> = quantiles.iter().map(f64::to_string).collect();
    let path = format!(
        "/spandrel/v1/percentile?service={service}&start={from}&end={to}&exemplars=1&by={ZONE}{filter}&q={}",
        q.join(",")
    );
    let answer = server.json(&path);
    assert_eq!(answer["coverage"]["complete"], true, "{answer}");
    check(&path, &answer, &inside, &quantiles);
    let groups = answer["groups"].as_array().expect("groups");
    let mut seen = 0;
    for zone in ZONES {
        let of_zone: Vec<&Sent> = inside.iter().copied().filter(|sent| sent.zone == zone).collect();
        let group = groups.iter().find(|group| group["labels"][ZONE].as_str() == zone);
        assert_eq!(group.is_some(), !of_zone.is_empty(), "{path}: {zone:?} in {groups:?}");
        if let Some(group) = group {
            check(&path, group, &of_zone, &quantiles);
            seen += 1;
        }
    }
    assert_eq!(seen, groups.len(), "{path}: no other zone");
}

/// Steps of a window hold its spans, each the ones that start in it; the window beside it is the same as by itself.
fn ask_over_time(server: &TestServer, exact: &Exact, random: &mut Random) {
    let service = SERVICES[usize::try_from(random.below(3)).expect("small")];
    let from = now().0 / SLOT * SLOT - SPREAD + random.below(500) * SLOT;
    let to = from + (1 + random.below(220)) * SLOT;
    let step = [SLOT, 3 * SLOT, 6 * SLOT, 60 * SLOT][usize::try_from(random.below(4)).expect("small")];
    let path = |from: u64, to: u64| format!("/spandrel/v1/percentile?service={service}&start={from}&end={to}&q=0.5,1");
    let answer = server.json(&format!("{}&step={}s&vs=-10m", path(from, to), step / 1_000_000_000));
    let mut steps: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for sent in exact[service].iter().filter(|sent| (from..to).contains(&sent.start)) {
        steps.entry(sent.start / step * step).or_default().push(sent.duration);
    }
    let series = answer["series"].as_array().cloned().unwrap_or_default();
    assert_eq!(series.len(), steps.len(), "{answer}");
    for (row, (start, mut durations)) in series.iter().zip(steps) {
        durations.sort_unstable();
        assert_eq!(row["start_unix_nano"], start.to_string(), "{row}");
        assert_eq!(row["count"], durations.len(), "{row}");
        let rank = rank(0.5, durations.len());
        for (at, exact) in [(0, durations[rank - 1]), (1, durations[durations.len() - 1])] {
            let bucket = &row["quantiles"][at]["bucket"];
            let edge = |key: &str| bucket[key].as_u64().expect("a number");
            assert!(edge("low_ns") <= exact && exact <= edge("high_ns"), "{exact} in {row}");
        }
    }
    let back = 600_000_000_000;
    let earlier = server.json(&path(from - back, to - back));
    assert_eq!(
        (&answer["versus"]["count"], &answer["versus"]["quantiles"]),
        (&earlier["count"], &earlier["quantiles"])
    );
    check_heatmap(server, exact, service, (from, to));
}

/// Every cell counts the spans of its band and column, and its traces are of both.
fn check_heatmap(server: &TestServer, exact: &Exact, service: &str, (from, to): (u64, u64)) {
    let step = 30 * SLOT;
    let path = format!("/spandrel/v1/heatmap?service={service}&start={from}&end={to}&step=5m&exemplars=3");
    let answer = server.json(&path);
    assert_eq!(answer["coverage"]["complete"], true, "{answer}");
    let mut left: Vec<&Sent> = exact[service].iter().filter(|sent| (from..to).contains(&sent.start)).collect();
    assert_eq!(answer["count"], left.len(), "{path}");
    for column in answer["columns"].as_array().expect("columns") {
        let start: u64 = column["start_unix_nano"].as_str().expect("a time").parse().expect("a number");
        for cell in column["cells"].as_array().expect("cells") {
            let edge = |key: &str| cell[key].as_u64().expect("a number");
            let is_of_cell = |sent: &&Sent| {
                sent.start / step * step == start && (edge("low_ns")..=edge("high_ns")).contains(&sent.duration)
            };
            let (of_cell, others): (Vec<&Sent>, Vec<&Sent>) = left.into_iter().partition(is_of_cell);
            left = others;
            assert_eq!(edge("count"), of_cell.len() as u64, "{path}: {cell}");
            let exemplars = cell["exemplars"].as_array().expect("exemplars");
            assert_eq!(exemplars.len(), of_cell.len().min(3), "{path}: {cell}");
            for exemplar in exemplars {
                let sent = of_cell.iter().find(|sent| exemplar["trace_id"] == *sent.trace);
                assert_eq!(exemplar["duration_ns"], sent.expect("a span of the cell").duration, "{path}: {cell}");
            }
        }
    }
    assert!(left.is_empty(), "{path}: {} spans are in no cell", left.len());
}

/// One counted part of an answer against the spans that it must speak of.
fn check(path: &str, answer: &serde_json::Value, inside: &[&Sent], quantiles: &[f64]) {
    let mut sorted: Vec<(u64, &str)> = inside.iter().map(|sent| (sent.duration, sent.trace.as_str())).collect();
    sorted.sort_unstable();
    assert_eq!(answer["count"], sorted.len(), "{path}");
    if sorted.is_empty() {
        assert_eq!(answer["quantiles"], serde_json::json!([]));
        return;
    }
    for (row, q) in answer["quantiles"].as_array().expect("rows").iter().zip(quantiles.iter().copied()) {
        let number = |pointer: &str| row.pointer(pointer).and_then(serde_json::Value::as_u64).expect("a number");
        let rank = rank(q, sorted.len());
        let (expected, _) = sorted[rank - 1];
        let (value, low, high) = (number("/value_ns"), number("/bucket/low_ns"), number("/bucket/high_ns"));
        assert_eq!(number("/rank"), rank as u64, "{path} {q}");
        assert!(low <= expected && expected <= high && value == high, "{path} {q}: {expected} in {low}..={high}");
        assert!(
            value - expected <= (expected / 1_000).max(511),
            "{path} {q}: {value} is within the stated error of {expected}"
        );
        let exemplar = &row["exemplars"][0];
        let duration = exemplar["duration_ns"].as_u64().expect("an exemplar");
        assert!(low <= duration && duration <= high && exemplar["in_bucket"] == true, "{path} {q}: {row}");
        let stored = sorted.iter().any(|(known, trace)| *known == duration && exemplar["trace_id"] == *trace);
        assert!(stored, "{path} {q}: the exemplar is a span of this window: {exemplar}");
        if rank == sorted.len() {
            assert_eq!(duration, sorted[rank - 1].0, "{path} {q}: the slowest span itself");
        }
    }
}

#[test]
fn rel_19_every_quantile_is_within_its_stated_error_and_brings_a_span_of_its_bucket() {
    let server = TestServer::with(|config| {
        config.ingest.checkpoint_spans = 1_500;
        config.ingest.partition_bytes_max = 150_000;
    });
    let mut random = Random(23);
    let exact = fill(&server, &mut random);
    let questions: u64 = std::env::var("SPANDREL_QUESTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000);
    for _ in 0..questions / 10 {
        ask(&server, &exact, &mut random);
        if random.below(8) == 0 {
            ask_over_time(&server, &exact, &mut random);
        }
    }
    let partitions = server.json("/spandrel/v1/status")["partitions"].clone();
    let sealed = partitions.as_array().expect("a list").iter().filter(|partition| partition["sealed"] == true).count();
    assert!(1 < sealed, "roll-ups took part: {partitions}");
}

#[test]
fn a_head_of_more_spans_than_candidates_are_kept_brings_one_of_every_bucket() {
    let server = TestServer::new();
    let start = now().0;
    for batch in 0..40_u64 {
        // Latencies from 1 to 2 ms, all in four bands: of most buckets no exemplar is kept.
        let spans = (0..500_u64).map(|no| {
            let id = batch * 500 + no + 1;
            Span {
                trace_id: u128::from(id).to_be_bytes().to_vec(),
                span_id: id.to_be_bytes().to_vec(),
                name: "call".to_owned(),
                kind: 2,
                start_time_unix_nano: start,
                end_time_unix_nano: start + 1_000_000 + id * 50,
                ..Span::default()
            }
        });
        let resource_spans = vec![service_spans("cart", None, spans.collect())];
        server.deliver(&ExportTraceServiceRequest { resource_spans });
    }
    let q: Vec<String> = (1..50).map(|part| format!("0.{:02}", part * 2)).collect();
    let answer = server.json(&format!("/spandrel/v1/percentile?service=cart&exemplars=1&q={}", q.join(",")));
    assert_eq!(answer["count"], 20_000);
    for row in answer["quantiles"].as_array().expect("rows") {
        assert_eq!(row["exemplars"][0]["in_bucket"], true, "{row}");
    }
}
