//! BI-001 to BI-017: requests and identity.

use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};

use super::*;

fn link(trace_id_bytes: usize) -> Link {
    Link { trace_id: vec![1; trace_id_bytes], span_id: vec![1; 8], ..Link::default() }
}

/// Five spans, each wrong in its own way, the last one too large because of what it is made of.
fn five_reasons(run: &Run) -> Vec<u8> {
    let huge = Event { attributes: (0..128).map(|n| text(&format!("key-{n:016}"), "")).collect(), ..Event::default() };
    let bad = [
        Span { trace_id: vec![1; 15], ..run.span(1) }.encode_to_vec(),
        Span { span_id: vec![], ..run.span(2) }.encode_to_vec(),
        Span { start_time_unix_nano: 1, end_time_unix_nano: 2, ..run.span(3) }.encode_to_vec(),
        Span { events: vec![huge; 1_024], ..run.span(4) }.encode_to_vec(),
        [run.span(5).encode_to_vec(), vec![0x00]].concat(),
    ];
    let spans: Vec<u8> =
        (0..511).map(|n| &bad[if n < 3 { 3 } else { [0, 1, 2, 4][n % 4] }]).flat_map(|span| field(2, span)).collect();
    field(1, &field(2, &spans))
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case { json: AsJson::Text(Box::new(|_| String::new())), ..Case::new("BI-001", |_| vec![], Expect::Ok, 0) },
        Case::new("BI-002 no scopes", |_| field(1, &field(1, &[])), Expect::Ok, 0),
        Case::new("BI-002 no spans", |_| field(1, &field(2, &[])), Expect::Ok, 0),
        Case::new(
            "BI-003",
            |run| request(vec![Span { trace_id: vec![], ..run.span(1) }]).encode_to_vec(),
            Expect::Invalid("invalid_trace_id=1"),
            0,
        ),
        Case::among("BI-007", Expect::Ok, |span| span.parent_span_id = vec![0; 8])
            .looking(|span| assert_eq!(span["parentSpanId"].as_str().unwrap_or_default(), "")),
        Case::among("BI-008", Expect::Warned(&["bad_parent=1"]), |span| span.parent_span_id = vec![1; 7])
            .looking(|span| assert_eq!(span["parentSpanId"].as_str().unwrap_or_default(), "")),
        Case::among("BI-009", Expect::Ok, |span| span.parent_span_id = span.span_id.clone())
            .looking(|span| assert_eq!(span["parentSpanId"], span["spanId"])),
        Case::among("BI-010", Expect::Warned(&["bad_link=1"]), |span| span.links = vec![link(3), link(16)]).looking(
            |span| {
                assert_eq!(span["links"].as_array().map(Vec::len), Some(1));
                assert_eq!(span["droppedLinksCount"], 1);
            },
        ),
        Case::among("BI-011", Expect::Ok, |span| {
            span.links = vec![link(16); 1_024];
            span.events = vec![Event::default(); 1_024];
        })
        .looking(|span| {
            for key in ["links", "events"] {
                assert_eq!(span[key].as_array().map(Vec::len), Some(1_024), "{key}");
            }
        }),
        Case::among("BI-012", Expect::Warned(&["limit_applied=17952"]), |span| {
            span.links = vec![link(16); 10_000];
            span.events = vec![Event::default(); 10_000];
        })
        .looking(|span| {
            assert_eq!((&span["droppedLinksCount"], &span["droppedEventsCount"]), (&8_976.into(), &8_976.into()));
        }),
        Case::new("BI-013", |run| request(vec![run.span(1); 2]).encode_to_vec(), Expect::Ok, 1),
        Case::new(
            "BI-015",
            |run| {
                let shared = |kind| Span { kind, ..run.span(1) };
                request(vec![shared(2), shared(3)]).encode_to_vec()
            },
            Expect::Ok,
            2,
        ),
        Case::new(
            "BI-016",
            |run| {
                let mut spans: Vec<_> = (1..=8_193).map(|no| run.span(no)).collect();
                spans[4_096].span_id.clear();
                request(spans).encode_to_vec()
            },
            Expect::Partial(1, "invalid_span_id"),
            8_192,
        ),
        Case::new("BI-017", five_reasons, Expect::Invalid("rejected 511 of 511 spans: "), 0).without_json(),
    ];
    for bytes in [0, 8, 15, 17, 32] {
        let change = move |span: &mut Span| span.trace_id = vec![1; bytes];
        cases.push(Case::among("BI-004", Expect::Partial(1, "invalid_trace_id"), change));
    }
    let zero = |span: &mut Span| span.trace_id = vec![0; 16];
    cases.push(Case::among("BI-004 zero", Expect::Partial(1, "invalid_trace_id"), zero));
    for bytes in [0, 7, 9, 16] {
        let change = move |span: &mut Span| span.span_id = vec![1; bytes];
        cases.push(Case::among("BI-006", Expect::Partial(1, "invalid_span_id"), change));
    }
    cases
}
