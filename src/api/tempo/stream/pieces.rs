//! Answers in messages that clients take: those of gRPC refuse one above 4 MiB unless they are told otherwise.

use bytes::Bytes;
use prost::Message;

use crate::api::grpc::framed;
use crate::query::Coverage;

use super::wire;

/// Bytes of a message.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024 - 1;
/// Bytes of tag and length in front of a field.
const FIELD_BYTES_MAX: usize = 6;

/// Traces accumulate; every message has the metrics, also when there is no trace.
pub(super) fn search(answer: wire::SearchResponse, coverage: &mut Coverage) -> Vec<Bytes> {
    search_within(answer, coverage, MESSAGE_BYTES_MAX).iter().map(framed).collect()
}

fn search_within(
    answer: wire::SearchResponse,
    coverage: &mut Coverage,
    bytes_max: usize,
) -> Vec<wire::SearchResponse> {
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
