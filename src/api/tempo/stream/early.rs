//! Traces that are sent while the search for others goes on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::clock;
use crate::model::TraceId;
use crate::query::{Coverage, SearchAnswer, SearchProgress, SearchTrace};

use super::call::{Early, Last};
use super::search::{is_told_alike, narrow, traces};
use super::{pieces, wire};

/// Between two messages of one search: often enough for a person who watches.
pub(super) const TELL_EVERY: Duration = Duration::from_millis(100);

/// Sends what is settled, each trace once, and at the end the rest.
#[derive(Debug)]
pub(super) struct EarlyTraces {
    early: Early,
    sent: HashSet<TraceId>,
    traces_max: usize,
    every: Duration,
    told: Instant,
    coverage: Coverage,
}

impl EarlyTraces {
    pub(super) fn new(early: Early, traces_max: usize, every: Duration) -> Self {
        let (sent, told) = (HashSet::new(), clock::instant());
        Self { early, sent, traces_max, every, told, coverage: Coverage::default() }
    }

    /// Never waits: a client that does not read gets more at once, later.
    pub(super) fn report(&mut self, progress: &SearchProgress<'_>) {
        if self.told.elapsed() < self.every {
            return;
        }
        let Ok(place) = self.early.try_reserve() else { return };
        // From one whose attributes may yet get another type on, all wait: the newest come first.
        let settled = progress.settled.iter().copied().take_while(|trace| is_told_alike(trace));
        let new = settled.filter(|trace| !self.sent.contains(&trace.trace_id));
        let new: Vec<&SearchTrace> = new.take(self.traces_max.saturating_sub(self.sent.len())).collect();
        let metrics = wire::SearchMetrics {
            inspected_traces: narrow((self.sent.len() + new.len()) as u64),
            total_blocks: narrow(progress.inspected_blocks),
            completed_jobs: narrow(progress.jobs_done),
            total_jobs: narrow(progress.jobs),
            inspected_spans: progress.inspected_spans,
            ..wire::SearchMetrics::default()
        };
        self.sent.extend(new.iter().map(|trace| trace.trace_id));
        let message = wire::SearchResponse { traces: traces(&new), metrics: Some(metrics) };
        place.send(pieces::search(message, &mut self.coverage));
        self.told = clock::instant();
    }

    /// The traces that were not sent yet. A search that began anew may have found newer ones than some that were.
    pub(super) fn last(self, found: &SearchAnswer) -> Last {
        let mut coverage = self.coverage;
        coverage.also(found.coverage.clone());
        let mut message = wire::SearchResponse::of(found);
        let found = found.traces.iter().map(|trace| self.sent.contains(&trace.trace_id));
        let left = message.traces.into_iter().zip(found).filter(|(_, sent)| !sent).map(|(trace, _)| trace);
        message.traces = left.take(self.traces_max.saturating_sub(self.sent.len())).collect();
        Last { messages: pieces::search(message, &mut coverage), coverage }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use tokio::sync::mpsc;

    use super::*;
    use crate::query::SpanSet;
    use crate::query::traceql::FieldValue;

    fn trace(id: u8, value: FieldValue) -> SearchTrace {
        SearchTrace {
            trace_id: TraceId([id; 16]),
            root_service: String::new(),
            root_name: String::new(),
            start: crate::model::UnixNanos::default(),
            duration: crate::model::DurationNanos(0),
            sets: vec![SpanSet { attributes: vec![("by(.n)".to_owned(), value)], matched: 1, spans: Vec::new() }],
            services: std::collections::BTreeMap::new(),
        }
    }

    fn texts(ids: &[u8]) -> Vec<SearchTrace> {
        ids.iter().map(|id| trace(*id, FieldValue::String("x".to_owned()))).collect()
    }

    fn report(traces: &mut EarlyTraces, jobs_done: u64, settled: &[SearchTrace]) {
        let settled = settled.iter().collect();
        traces.report(&SearchProgress { settled, inspected_spans: 5, inspected_blocks: 1, jobs_done, jobs: 9 });
    }

    /// Jobs done, and the first byte of each trace's id.
    fn told(messages: Vec<Bytes>) -> Vec<(u32, Vec<u8>)> {
        let message = |framed: Bytes| {
            let message = wire::SearchResponse::decode(framed.get(5..).unwrap()).unwrap();
            let id = |trace: wire::TraceSearchMetadata| u8::from_str_radix(&trace.trace_id[..2], 16).unwrap();
            (message.metrics.unwrap().completed_jobs, message.traces.into_iter().map(id).collect())
        };
        messages.into_iter().map(message).collect()
    }

    fn answer(traces: Vec<SearchTrace>) -> SearchAnswer {
        SearchAnswer { traces, jobs: 9, ..SearchAnswer::default() }
    }

    #[test]
    fn trap_5_a_trace_is_sent_once_as_soon_as_it_is_settled_and_the_rest_at_the_end() {
        let (early, mut received) = mpsc::channel(9);
        let mut traces = EarlyTraces::new(early, 4, Duration::ZERO);
        report(&mut traces, 1, &[]);
        report(&mut traces, 2, &texts(&[9, 8]));
        report(&mut traces, 3, &texts(&[9, 8]));
        report(&mut traces, 4, &texts(&[9, 8, 7]));
        let last = traces.last(&answer(texts(&[9, 8, 7, 6]))).messages;
        let sent: Vec<_> = std::iter::from_fn(|| received.try_recv().ok()).flatten().collect();
        assert_eq!(told(sent), [(1, vec![]), (2, vec![9, 8]), (3, vec![]), (4, vec![7])]);
        assert_eq!(told(last), [(9, vec![6])]);
    }

    #[test]
    fn trap_12_a_trace_whose_attributes_may_change_their_type_waits_with_all_older_ones() {
        let (early, mut received) = mpsc::channel(9);
        let mut traces = EarlyTraces::new(early, 20, Duration::ZERO);
        let number = trace(8, FieldValue::Int(3));
        let settled = [texts(&[9]), vec![number], texts(&[7])].concat();
        report(&mut traces, 1, &settled);
        assert_eq!(told(received.try_recv().unwrap()), [(1, vec![9])]);
        assert_eq!(told(traces.last(&answer(settled)).messages), [(9, vec![8, 7])]);
    }

    #[test]
    fn a_client_that_does_not_read_holds_nothing_up_and_gets_everything_later() {
        let (early, mut received) = mpsc::channel(1);
        let mut traces = EarlyTraces::new(early, 20, Duration::ZERO);
        (1..=9).for_each(|id| report(&mut traces, id.into(), &texts(&(10 - id..=9).rev().collect::<Vec<_>>())));
        assert_eq!(told(received.try_recv().unwrap()), [(1, vec![9])]);
        report(&mut traces, 9, &texts(&[9, 8, 7]));
        assert_eq!(told(received.try_recv().unwrap()), [(9, vec![8, 7])]);
        let mut rarely = EarlyTraces::new(mpsc::channel(1).0, 20, Duration::from_hours(1));
        report(&mut rarely, 1, &texts(&[9]));
        assert_eq!(told(rarely.last(&answer(texts(&[9]))).messages), [(9, vec![9])]);
    }

    #[test]
    fn a_search_that_began_anew_sends_no_more_traces_than_were_asked_for() {
        let (early, _received) = mpsc::channel(9);
        let mut traces = EarlyTraces::new(early, 3, Duration::ZERO);
        report(&mut traces, 4, &texts(&[7, 6]));
        assert_eq!(told(traces.last(&answer(texts(&[9, 8, 7]))).messages), [(9, vec![9])]);
    }
}
