use std::collections::{BTreeMap, HashMap, HashSet};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;

use super::*;

const NOW: UnixNanos = UnixNanos(1_795_463_900_000_000_000);

fn traces(seed: u64, count: usize) -> Vec<Trace> {
    let mut shop = Shop::new(seed);
    (0..count).map(|_| shop.next_trace(NOW)).collect()
}

fn spans(resource_spans: &[ResourceSpans]) -> Vec<(&str, &Span)> {
    resource_spans
        .iter()
        .flat_map(|at| {
            let service = attribute(&at.resource.as_ref().unwrap().attributes, "service.name");
            at.scope_spans.iter().flat_map(move |scope| scope.spans.iter().map(move |span| (service, span)))
        })
        .collect()
}

fn attribute<'a>(attributes: &'a [opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> &'a str {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = attributes.iter().find(|at| at.key == key).and_then(|at| at.value.as_ref()?.value.as_ref());
    let Some(Value::StringValue(text)) = found else { panic!("no string {key}") };
    text
}

fn duration(span: &Span) -> u64 {
    span.end_time_unix_nano - span.start_time_unix_nano
}

#[test]
fn equal_seeds_give_equal_spans_and_others_do_not() {
    let all = |seed| traces(seed, 50).iter().flat_map(Trace::resource_spans).collect::<Vec<_>>();
    assert_eq!(all(7), all(7));
    assert_ne!(all(7), all(8));
}

#[test]
fn a_trace_has_5_to_40_spans_and_one_root_that_starts_when_asked() {
    let mut sizes = HashSet::new();
    for trace in traces(1, 1_000) {
        let pieces = trace.resource_spans();
        let all = spans(&pieces);
        assert!((5..=40).contains(&all.len()), "{} spans", all.len());
        let roots: Vec<_> = all.iter().filter(|(_, span)| span.parent_span_id.is_empty()).collect();
        assert_eq!(roots.len(), 1);
        assert_eq!((roots[0].0, roots[0].1.start_time_unix_nano), ("frontend", NOW.0));
        assert_eq!(roots[0].1.span_id, trace.root_span_id().0);
        assert!(all.iter().all(|(_, span)| span.trace_id == trace.trace_id().0));
        let _new = sizes.insert(all.len());
    }
    assert!(sizes.len() > 10, "{sizes:?}");
}

#[test]
fn children_lie_inside_their_parents_but_for_consumers_which_come_later() {
    let mut consumers = 0;
    for trace in traces(2, 500) {
        let pieces = trace.resource_spans();
        let all = spans(&pieces);
        let by_id: HashMap<_, _> = all.iter().map(|(_, span)| (span.span_id.clone(), *span)).collect();
        assert_eq!(by_id.len(), all.len(), "a span id came twice");
        for (_, span) in all.iter().filter(|(_, span)| !span.parent_span_id.is_empty()) {
            let parent = by_id[&span.parent_span_id];
            if span.kind == i32::from(SpanKind::Consumer) {
                consumers += 1;
                assert!(parent.end_time_unix_nano < span.start_time_unix_nano);
                assert_eq!(span.links[0].span_id, parent.span_id);
            } else {
                assert!(parent.start_time_unix_nano <= span.start_time_unix_nano);
                assert!(span.end_time_unix_nano <= parent.end_time_unix_nano);
            }
        }
    }
    assert!(consumers > 50);
}

#[test]
fn all_services_and_span_kinds_appear() {
    let traces = traces(3, 300);
    let all: Vec<_> = traces.iter().flat_map(|trace| &trace.spans).collect();
    let services: HashSet<_> = all.iter().map(|at| at.process.service.name).collect();
    let kinds: HashSet<_> = all.iter().map(|at| at.span.kind).collect();
    assert_eq!((services.len(), kinds), (12, HashSet::from([1, 2, 3, 4, 5])));
}

#[test]
fn one_to_three_percent_of_spans_fail_and_exceptions_say_why() {
    let traces = traces(4, 2_000);
    let all: Vec<_> = traces.iter().flat_map(|trace| &trace.spans).collect();
    let failed = all.iter().filter(|at| at.span.status.as_ref().is_some_and(|status| status.code == 2));
    let share = failed.clone().count() as f64 / all.len() as f64;
    assert!((0.01..0.03).contains(&share), "{share}");
    assert!(failed.flat_map(|at| &at.span.events).all(|event| event.name == "exception"));
    assert!(traces.iter().all(|trace| {
        let of = |wanted: fn(&Span) -> bool| trace.spans.iter().any(|at| wanted(&at.span));
        of(|span| !span.events.is_empty()) == of(|span| span.status.is_some())
    }));
}

#[test]
fn the_slow_zone_of_payment_makes_the_p99_of_checkout() {
    let mut checkouts: Vec<u64> = Vec::new();
    let mut slow_zones: BTreeMap<&str, u64> = BTreeMap::new();
    for trace in traces(5, 6_000) {
        let checkout = trace.server_duration("checkout").0;
        if checkout == 0 {
            continue;
        }
        checkouts.push(checkout);
        let payment = trace.spans.iter().find(|at| at.process.service.name == "payment").unwrap();
        if duration(&payment.span) > 400_000_000 {
            *slow_zones.entry(payment.process.zone).or_default() += 1;
        }
    }
    checkouts.sort_unstable();
    let (p50, p99) = (checkouts[checkouts.len() / 2], checkouts[checkouts.len() * 99 / 100]);
    assert!(p99 > 4 * p50, "p50 {p50}, p99 {p99}");
    assert_eq!(slow_zones.keys().copied().collect::<Vec<_>>(), ["eu-1b"]);
}

#[test]
fn a_planted_trace_lasts_in_checkout_exactly_as_long_as_asked() {
    for millis in [1, 40, 150, 3_000, 4_000_000] {
        let asked = DurationNanos(millis * 1_000_000 + 7);
        let trace = Shop::new(millis).plant_slow_trace(NOW, asked);
        assert_eq!(trace.server_duration("checkout"), asked);
        assert!(trace.spans.iter().all(|at| at.span.status.is_none() && at.span.start_time_unix_nano >= NOW.0));
        let checkouts = trace
            .spans
            .iter()
            .filter(|at| at.process.service.name == "checkout" && at.span.kind == i32::from(SpanKind::Server));
        assert_eq!(checkouts.count(), 1);
    }
}

#[test]
fn a_planted_trace_is_slow_in_the_payment_of_the_slow_zone() {
    let trace = Shop::new(1).plant_slow_trace(NOW, DurationNanos::from_secs(9));
    let payment = trace.spans.iter().find(|at| at.process.service.name == "payment").unwrap();
    assert_eq!(payment.process.zone, "eu-1b");
    assert!(duration(&payment.span) > 8_500_000_000);
    let by_id: HashMap<_, _> = trace.spans.iter().map(|at| (&at.span.span_id, &at.span)).collect();
    for at in trace.spans.iter().filter(|at| at.span.kind != i32::from(SpanKind::Consumer)) {
        if let Some(parent) = by_id.get(&at.span.parent_span_id) {
            assert!(at.span.end_time_unix_nano <= parent.end_time_unix_nano);
        }
    }
}

fn packed(grouping: Grouping, count: usize) -> (Vec<ExportTraceServiceRequest>, Vec<ExportTraceServiceRequest>) {
    let mut requests = Requests::new(grouping);
    let full = traces(6, count).into_iter().flat_map(|trace| requests.add(trace)).collect();
    (full, requests.flush())
}

#[test]
fn a_full_request_has_512_spans_and_no_span_is_lost_or_doubled() {
    for grouping in [Grouping::Process, Grouping::Collector] {
        let (full, rest) = packed(grouping, 2_000);
        assert!(full.iter().all(|request| spans(&request.resource_spans).len() == REQUEST_SPANS_MAX));
        let mut sent: Vec<_> = full
            .iter()
            .chain(&rest)
            .flat_map(|request| spans(&request.resource_spans))
            .map(|(service, span)| (span.span_id.clone(), service))
            .collect();
        let traces = traces(6, 2_000);
        let mut made: Vec<_> = traces
            .iter()
            .flat_map(|trace| &trace.spans)
            .map(|at| (at.span.span_id.clone(), at.process.service.name))
            .collect();
        sent.sort();
        made.sort();
        assert!(sent == made, "{grouping:?}");
    }
}

#[test]
fn a_process_sends_only_its_own_spans_and_a_collector_mixes() {
    let (full, rest) = packed(Grouping::Process, 2_000);
    assert!(full.iter().chain(&rest).all(|request| request.resource_spans.len() == 1));
    let (full, _) = packed(Grouping::Collector, 2_000);
    assert!(full.iter().all(|request| request.resource_spans.len() > 20));
}

/// The load that the numbers of the project are measured with has 618 bytes per span.
#[test]
fn a_span_has_560_to_680_encoded_bytes() {
    for grouping in [Grouping::Process, Grouping::Collector] {
        let (full, _) = packed(grouping, 3_000);
        let bytes: usize = full.iter().map(ExportTraceServiceRequest::encoded_len).sum();
        let each = bytes / (full.len() * REQUEST_SPANS_MAX);
        assert!((560..=680).contains(&each), "{grouping:?}: {each} bytes per span");
    }
}

#[test]
fn a_resource_has_15_to_20_attributes() {
    let pieces = traces(1, 1)[0].resource_spans();
    assert!(pieces.iter().all(|piece| (15..=20).contains(&piece.resource.as_ref().unwrap().attributes.len())));
}

fn cycle(ring: &mut PreEncoded, now: UnixNanos) -> Vec<ExportTraceServiceRequest> {
    (0..ring.request_count())
        .map(|_| {
            let request = ExportTraceServiceRequest::decode(ring.next(now)).unwrap();
            assert_eq!(spans(&request.resource_spans).len(), ring.last_span_count());
            request
        })
        .collect()
}

#[test]
fn pre_encoded_ids_are_never_repeated_and_parents_stay_parents() {
    for grouping in [Grouping::Process, Grouping::Collector] {
        let mut ring = PreEncoded::new(1, 4, grouping);
        let (mut span_ids, mut trace_ids, mut sent) = (HashSet::new(), HashSet::new(), 0);
        for round in 0..3 {
            let requests = cycle(&mut ring, NOW);
            let all: Vec<_> = requests.iter().flat_map(|request| spans(&request.resource_spans)).collect();
            let here: HashMap<_, _> =
                all.iter().map(|(_, span)| (span.span_id.clone(), span.trace_id.clone())).collect();
            for (_, span) in &all {
                assert!(span.parent_span_id.is_empty() || here[&span.parent_span_id] == span.trace_id, "{round}");
                assert!(
                    span.links.iter().all(|link| link.trace_id == span.trace_id && here.contains_key(&link.span_id))
                );
                assert!(span_ids.insert(span.span_id.clone()));
            }
            sent += all.len();
            let new: HashSet<_> = here.into_values().collect();
            assert!(new.iter().all(|id| trace_ids.insert(id.clone())));
        }
        assert_eq!(span_ids.len(), sent);
    }
}

#[test]
fn pre_encoded_spans_end_shortly_before_now_and_stay_inside_their_parents() {
    let mut ring = PreEncoded::new(2, 3, Grouping::Collector);
    let mut events = 0;
    for now in [NOW, NOW.saturating_add(DurationNanos::from_secs(100))] {
        let requests = cycle(&mut ring, now);
        let all: Vec<_> = requests.iter().flat_map(|request| spans(&request.resource_spans)).collect();
        let by_id: HashMap<_, _> = all.iter().map(|(_, span)| (span.span_id.clone(), *span)).collect();
        for (_, span) in &all {
            let earliest = now.saturating_sub(DurationNanos::from_secs(10)).0;
            assert!(earliest < span.start_time_unix_nano && span.end_time_unix_nano <= now.0);
            let lasting = span.start_time_unix_nano..=span.end_time_unix_nano;
            assert!(span.events.iter().all(|event| lasting.contains(&event.time_unix_nano)));
            events += span.events.len();
            let parent = by_id.get(&span.parent_span_id).copied().unwrap_or(span);
            let consumer = span.kind == i32::from(SpanKind::Consumer);
            assert!(consumer || parent.start_time_unix_nano <= span.start_time_unix_nano);
            assert!(consumer || span.end_time_unix_nano <= parent.end_time_unix_nano);
        }
    }
    assert!(events > 0);
}

#[test]
fn pre_encoded_requests_of_a_collector_are_as_many_as_asked_and_full() {
    let mut ring = PreEncoded::new(3, 5, Grouping::Collector);
    assert_eq!(ring.request_count(), 5);
    assert!(cycle(&mut ring, NOW).iter().all(|request| spans(&request.resource_spans).len() == REQUEST_SPANS_MAX));
}
