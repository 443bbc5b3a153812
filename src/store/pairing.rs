//! Halves of calls that wait for their other half, which a later block may bring.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{DurationNanos, SpanId, TraceId, UnixNanos};

/// How long after its end a span waits for its other half.
const PAIRING_WAIT: DurationNanos = DurationNanos::from_secs(10);
/// Clients that wait, and servers, some 100 bytes each; of more the next ones are not kept.
const WAITING_MAX: usize = 65_536;

/// Who calls or is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) namespace: String,
    pub(super) service: String,
}

/// What is kept of a span that waits.
#[derive(Clone, Debug)]
pub(super) struct Half {
    pub(super) of: Arc<End>,
    pub(super) is_messaging: bool,
    pub(super) is_error: bool,
    /// When it is counted.
    pub(super) at: UnixNanos,
    pub(super) end: UnixNanos,
    pub(super) latency: DurationNanos,
    pub(super) row: Option<u32>,
    /// Of a client: what it calls, should that send no spans.
    pub(super) peer: Option<Arc<End>>,
}

/// The client span of a call, in its trace.
pub(super) type CallId = (TraceId, SpanId);

/// Halves of the blocks before. Lives as long as the process: a call whose halves are in blocks before and behind a
/// restart is missed.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    clients: HashMap<CallId, Half>,
    servers: HashMap<CallId, Half>,
}

/// Pairing on top of what waited before, which stays as it is: an attempt to write a block that fails has met nobody.
#[derive(Debug)]
pub(super) struct Pairing<'a> {
    pub(super) clients: Halves<'a>,
    pub(super) servers: Halves<'a>,
}

/// One end of the calls that wait.
#[derive(Debug)]
pub(super) struct Halves<'a> {
    before: &'a HashMap<CallId, Half>,
    change: Change,
}

/// What becomes of the halves before.
#[derive(Debug, Default)]
struct Change {
    gone: HashSet<CallId>,
    new: HashMap<CallId, Half>,
}

/// What becomes of all that waited.
#[derive(Debug, Default)]
pub(super) struct Paired {
    clients: Change,
    servers: Change,
}

impl Waiting {
    pub(super) fn pairing(&self) -> Pairing<'_> {
        let halves = |before| Halves { before, change: Change::default() };
        Pairing { clients: halves(&self.clients), servers: halves(&self.servers) }
    }

    pub(super) fn take_over(&mut self, paired: Paired) {
        for (known, change) in [(&mut self.clients, paired.clients), (&mut self.servers, paired.servers)] {
            known.retain(|call, _| !change.gone.contains(call));
            known.extend(change.new);
        }
    }
}

impl Pairing<'_> {
    /// Halves whose wait is over go; `each` sees the clients among them. Rows of the others are of a block that is written
    /// now.
    pub(super) fn give_up(&mut self, horizon: UnixNanos, each: &mut dyn FnMut(&Half)) {
        self.clients.give_up(horizon, each);
        self.servers.give_up(horizon, &mut |_| {});
    }

    pub(super) fn into_paired(self) -> Paired {
        Paired { clients: self.clients.change, servers: self.servers.change }
    }
}

impl Halves<'_> {
    pub(super) fn keep(&mut self, call: CallId, half: Half) {
        let waiting = self.before.len() + self.change.new.len() - self.change.gone.len();
        if waiting < WAITING_MAX {
            let _another_of_the_same_call = self.change.new.insert(call, half);
        }
    }

    pub(super) fn take(&mut self, call: CallId) -> Option<Half> {
        if let Some(new) = self.change.new.remove(&call) {
            return Some(new);
        }
        let half = self.before.get(&call)?;
        self.change.gone.insert(call).then(|| half.clone())
    }

    fn give_up(&mut self, horizon: UnixNanos, each: &mut dyn FnMut(&Half)) {
        let is_over = |half: &Half| half.end.saturating_add(PAIRING_WAIT) <= horizon;
        let Change { gone, new } = &mut self.change;
        for (call, half) in self.before.iter().filter(|(_, half)| is_over(half)) {
            if gone.insert(*call) {
                each(half);
            }
        }
        new.retain(|_, half| {
            let over = is_over(half);
            if over {
                each(half);
            }
            half.row = None;
            !over
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(service: &str, end_secs: u64) -> Half {
        Half {
            of: Arc::new(End { namespace: String::new(), service: service.to_owned() }),
            is_messaging: false,
            is_error: false,
            at: UnixNanos(0),
            end: UnixNanos(end_secs * 1_000_000_000),
            latency: DurationNanos(1),
            row: Some(7),
            peer: None,
        }
    }

    fn call(no: u64) -> CallId {
        (TraceId([1; 16]), SpanId(no.to_be_bytes()))
    }

    fn after(waiting: &mut Waiting, work: impl FnOnce(&mut Pairing<'_>)) {
        let mut pairing = waiting.pairing();
        work(&mut pairing);
        let paired = pairing.into_paired();
        waiting.take_over(paired);
    }

    #[test]
    fn a_half_is_met_once_and_only_when_the_attempt_is_taken_over() {
        let mut waiting = Waiting::default();
        after(&mut waiting, |pairing| pairing.clients.keep(call(1), half("a", 1)));
        let mut failed = waiting.pairing();
        assert!(failed.clients.take(call(1)).is_some());
        assert!(failed.clients.take(call(1)).is_none(), "it is gone for this attempt");
        drop(failed);
        after(&mut waiting, |pairing| assert!(pairing.clients.take(call(1)).is_some()));
        after(&mut waiting, |pairing| assert!(pairing.clients.take(call(1)).is_none()));
    }

    #[test]
    fn a_half_gives_up_when_its_wait_is_over_and_is_seen_once() {
        let mut waiting = Waiting::default();
        after(&mut waiting, |pairing| {
            pairing.clients.keep(call(1), half("old", 1));
            pairing.clients.keep(call(2), half("new", 5));
            pairing.give_up(UnixNanos(10_000_000_000), &mut |half| panic!("{half:?}"));
        });
        let mut seen = Vec::new();
        after(&mut waiting, |pairing| {
            for _ in 0..2 {
                pairing.give_up(UnixNanos(11_000_000_000), &mut |half| seen.push(half.of.service.clone()));
            }
            assert!(pairing.clients.take(call(1)).is_none());
            assert_eq!(pairing.clients.take(call(2)).and_then(|half| half.row), None, "its row was of another block");
        });
        assert_eq!(seen, ["old"]);
        let mut late = Vec::new();
        after(&mut waiting, |pairing| {
            pairing.clients.keep(call(3), half("late", 1));
            pairing.give_up(UnixNanos(11_000_000_000), &mut |half| late.push((half.of.service.clone(), half.row)));
        });
        assert_eq!(late, [("late".to_owned(), Some(7))], "it came after its wait: with its row");
    }

    #[test]
    fn no_more_wait_than_are_allowed() {
        let mut waiting = Waiting::default();
        let all = u64::try_from(WAITING_MAX).unwrap();
        after(&mut waiting, |pairing| (0..all).for_each(|no| pairing.servers.keep(call(no), half("s", 1))));
        after(&mut waiting, |pairing| {
            pairing.servers.keep(call(all), half("s", 1));
            assert!(pairing.servers.take(call(all)).is_none());
            assert!(pairing.servers.take(call(0)).is_some());
            pairing.servers.keep(call(all), half("s", 1));
            assert!(pairing.servers.take(call(all)).is_some(), "one met its other half");
        });
    }
}
