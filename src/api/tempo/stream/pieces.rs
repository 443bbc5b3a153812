//! Answers in messages that clients take: those of gRPC refuse one above 4 MiB unless they are told otherwise.

use bytes::Bytes;
use prost::Message;

use crate::api::grpc::framed;
use crate::query::Coverage;

use super::wire;

/// Bytes of a message, with some to spare for what stands beside a list.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024 - 1024;
/// Bytes of tag and length in front of a field.
const FIELD_BYTES_MAX: usize = 6;

/// Traces accumulate; every message has the metrics, also when there is no trace.
pub(super) fn search(answer: wire::SearchResponse, coverage: &mut Coverage) -> Vec<Bytes> {
    search_within(answer, coverage, MESSAGE_BYTES_MAX).iter().map(framed).collect()
}

fn search_within(answer: wire::SearchResponse, coverage: &mut Coverage, bytes_max: usize) -> Vec<wire::SearchResponse> {
    let wire::SearchResponse { mut traces, metrics } = answer;
    let room = room_beside(&wire::SearchResponse { traces: Vec::new(), metrics }, bytes_max);
    // Every one, not only the first.
    let cut = traces.iter_mut().filter_map(|trace| cut(trace, room - FIELD_BYTES_MAX).then_some(())).count();
    if cut != 0 {
        let reason = format!("of {cut} traces fewer spans are shown than asked for: a message has 4 MiB at most");
        coverage.also(Coverage { reasons: vec![reason] });
    }
    groups(traces, room).into_iter().map(|traces| wire::SearchResponse { traces, metrics }).collect()
}

/// Leaves out the last spans until the trace fits; `matched` still counts them. What may be larger than a message even then
/// are groups of `by()` and their values: the first group stays.
fn cut(trace: &mut wire::TraceSearchMetadata, bytes_max: usize) -> bool {
    let mut length = trace.encoded_len();
    if length <= bytes_max {
        return false;
    }
    for set in trace.span_sets.iter_mut().rev() {
        while bytes_max < length
            && let Some(span) = set.spans.pop()
        {
            length -= span.encoded_len();
        }
    }
    if bytes_max < length {
        trace.span_sets.truncate(1);
        trace.span_sets.iter_mut().for_each(|set| set.attributes.clear());
        trace.service_stats.clear();
    }
    true
}

/// Names accumulate.
pub(super) fn tags(answer: wire::SearchTagsResponse) -> Vec<Bytes> {
    let wire::SearchTagsResponse { tag_names, metrics } = answer;
    let message = |tag_names| framed(&wire::SearchTagsResponse { tag_names, metrics });
    groups(tag_names, MESSAGE_BYTES_MAX).into_iter().map(message).collect()
}

/// A scope with very many names comes in several parts.
pub(super) fn tags_v2(answer: wire::SearchTagsV2Response) -> Vec<Bytes> {
    let wire::SearchTagsV2Response { scopes, metrics } = answer;
    let parts = |wire::TagScope { name, tags }| {
        let part = move |tags| wire::TagScope { name: name.clone(), tags };
        groups(tags, MESSAGE_BYTES_MAX / 2).into_iter().map(part)
    };
    let scopes = groups(scopes.into_iter().flat_map(parts).collect(), MESSAGE_BYTES_MAX);
    scopes.into_iter().map(|scopes| framed(&wire::SearchTagsV2Response { scopes, metrics })).collect()
}

/// Values accumulate.
pub(super) fn values(answer: wire::SearchTagValuesResponse) -> Vec<Bytes> {
    let wire::SearchTagValuesResponse { tag_values, metrics } = answer;
    let message = |tag_values| framed(&wire::SearchTagValuesResponse { tag_values, metrics });
    groups(tag_values, MESSAGE_BYTES_MAX).into_iter().map(message).collect()
}

/// Values accumulate.
pub(super) fn values_v2(answer: wire::SearchTagValuesV2Response) -> Vec<Bytes> {
    let wire::SearchTagValuesV2Response { tag_values, metrics } = answer;
    let message = |tag_values| framed(&wire::SearchTagValuesV2Response { tag_values, metrics });
    groups(tag_values, MESSAGE_BYTES_MAX).into_iter().map(message).collect()
}

/// Clients put messages behind each other: each series comes once, with all its points. `rest` is the answer without series.
pub(super) fn range(series: Vec<wire::TimeSeries>, rest: &wire::QueryRangeResponse) -> Vec<Bytes> {
    let message = |series| framed(&wire::QueryRangeResponse { series, ..rest.clone() });
    groups(series, room_beside(rest, MESSAGE_BYTES_MAX)).into_iter().map(message).collect()
}

/// The last message is the answer, so there is one: what has no room in it is said to be missing.
pub(super) fn instant(series: Vec<wire::InstantSeries>, rest: wire::QueryInstantResponse) -> Vec<Bytes> {
    vec![framed(&instant_within(series, rest, MESSAGE_BYTES_MAX))]
}

fn instant_within(
    mut series: Vec<wire::InstantSeries>,
    mut rest: wire::QueryInstantResponse,
    bytes_max: usize,
) -> wire::QueryInstantResponse {
    /// Bytes of the reason, and what may stand in front of it.
    const REASON_BYTES_MAX: usize = 200;
    let mut room = room_beside(&rest, bytes_max).saturating_sub(REASON_BYTES_MAX);
    let all = series.len();
    let fits = series.iter().take_while(|one| {
        let left = room.checked_sub(one.encoded_len() + FIELD_BYTES_MAX);
        room = left.unwrap_or(room);
        left.is_some()
    });
    let shown = fits.count();
    if shown < all {
        series.truncate(shown);
        let reason = format!("{shown} of {all} series are shown, those that fit into one message of 4 MiB");
        let behind = if rest.message.is_empty() { "" } else { "; " };
        rest.message = format!("{reason}{behind}{}", rest.message);
        rest.status = wire::PartialStatus::Partial.into();
    }
    wire::QueryInstantResponse { series, ..rest }
}

/// What is left of a message.
fn room_beside(rest: &impl Message, bytes_max: usize) -> usize {
    bytes_max.saturating_sub(rest.encoded_len()).max(FIELD_BYTES_MAX)
}

/// In order, as many of them together as fit; at least one group, though it be empty. One that is larger than all the room
/// is alone.
fn groups<T: Message>(items: Vec<T>, bytes_max: usize) -> Vec<Vec<T>> {
    let mut groups = Vec::new();
    let (mut group, mut bytes) = (Vec::new(), 0);
    for item in items {
        let length = item.encoded_len() + FIELD_BYTES_MAX;
        if bytes_max < bytes + length && !group.is_empty() {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
        bytes += length;
        group.push(item);
    }
    groups.push(group);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(id: u32, spans: usize) -> wire::TraceSearchMetadata {
        let span = wire::Span { name: "n".repeat(94), ..wire::Span::default() };
        let set = wire::SpanSet { spans: vec![span; spans], matched: 9, attributes: Vec::new() };
        let trace_id = format!("{id:032x}");
        wire::TraceSearchMetadata { trace_id, span_sets: vec![set], ..wire::TraceSearchMetadata::default() }
    }

    fn searched(traces: Vec<wire::TraceSearchMetadata>, bytes_max: usize) -> (Vec<Vec<usize>>, Coverage) {
        let metrics = Some(wire::SearchMetrics { total_jobs: 3, ..wire::SearchMetrics::default() });
        let mut coverage = Coverage::default();
        let messages = search_within(wire::SearchResponse { traces, metrics }, &mut coverage, bytes_max);
        assert!(messages.iter().all(|message| message.metrics == metrics && message.encoded_len() <= bytes_max));
        let spans = |trace: &wire::TraceSearchMetadata| trace.span_sets.iter().map(|set| set.spans.len()).sum();
        (messages.iter().map(|message| message.traces.iter().map(spans).collect()).collect(), coverage)
    }

    #[test]
    fn traces_go_into_as_few_messages_as_take_them_and_nothing_into_one() {
        assert_eq!(searched(Vec::new(), 1_000), (vec![vec![]], Coverage::default()));
        let traces = || (1..=5).map(|id| trace(id, 2)).collect::<Vec<_>>();
        assert_eq!(searched(traces(), 10_000).0, [[2; 5]]);
        assert_eq!(searched(traces(), 600).0, [vec![2, 2], vec![2, 2], vec![2]]);
        assert_eq!(searched(traces(), 300).0, [[2]; 5]);
    }

    #[test]
    fn a_trace_that_is_larger_than_a_message_loses_its_last_spans_and_then_its_attributes() {
        let (spans, coverage) = searched(vec![trace(1, 2), trace(2, 9)], 600);
        assert_eq!(spans, [[2], [5]]);
        assert!(coverage.reasons[0].starts_with("of 1 traces fewer spans"), "{coverage:?}");
        let mut large = trace(1, 1);
        large.span_sets[0].attributes = vec![wire::KeyValue { key: "k".repeat(700), value: None }];
        large.service_stats.insert("s".repeat(700), wire::ServiceStats::default());
        large.span_sets.push(large.span_sets[0].clone());
        assert!(cut(&mut large, 600) && large.encoded_len() < 600);
        assert_eq!(large.span_sets, [wire::SpanSet { matched: 9, ..wire::SpanSet::default() }]);
    }

    #[test]
    fn an_instant_shows_the_series_that_fit_and_says_how_many_there_are() {
        let series =
            wire::InstantSeries { labels: vec![wire::KeyValue { key: "k".repeat(90), value: None }], value: 1.0 };
        let answered = |message: &str, bytes_max| {
            let rest = wire::QueryInstantResponse { message: message.to_owned(), ..Default::default() };
            let answer = instant_within(vec![series.clone(); 9], rest, bytes_max);
            assert!(answer.encoded_len() <= bytes_max);
            (answer.series.len(), answer.status, answer.message)
        };
        assert_eq!(answered("", 10_000), (9, 0, String::new()));
        let (shown, status, message) = answered("lost", 700);
        assert_eq!((shown, status), (4, 1));
        assert!(message.starts_with("4 of 9 series are shown") && message.ends_with("; lost"), "{message}");
    }

    #[test]
    fn a_scope_with_many_names_comes_in_parts() {
        let tags: Vec<String> = (0..130).map(|no| format!("{no:065000}")).collect();
        let scope = |name: &str, tags| wire::TagScope { name: name.to_owned(), tags };
        let scopes = vec![scope("span", tags.clone()), scope("event", Vec::new())];
        let messages = tags_v2(wire::SearchTagsV2Response { scopes, metrics: Some(wire::TagMetrics::default()) });
        assert!(messages.iter().all(|message| message.len() <= MESSAGE_BYTES_MAX));
        let decoded = messages.iter().map(|framed| wire::SearchTagsV2Response::decode(&framed[5..]).unwrap());
        let parts: Vec<wire::TagScope> = decoded.flat_map(|message| message.scopes).collect();
        assert_eq!(parts.iter().flat_map(|part| part.tags.clone()).collect::<Vec<_>>(), tags);
        assert_eq!(
            parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(),
            ["span"; 5].into_iter().chain(["event"]).collect::<Vec<_>>()
        );
    }
}
