//! What a connection is doing, and when that has lasted too long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock;

use super::ConnectionLimits;

/// Times are milliseconds since the connection began, plus one; 0 is "not".
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    /// Told by the first bytes: "PRI" of the HTTP/2 preface is no method of HTTP/1.
    is_http2: AtomicBool,
    /// The first byte came.
    spoke: AtomicBool,
    requests: AtomicU64,
    in_flight: AtomicU64,
    /// Since when the head of a request is coming in.
    head_since: AtomicU64,
    /// When the last answer was complete.
    idle_since: AtomicU64,
    /// Since when the peer takes nothing.
    stalled_since: AtomicU64,
    /// A time-out began to run that may end before the next look.
    sooner: Notify,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again then, at the latest.
    Keep {
        /// Since the connection began.
        until: Duration,
    },
    /// Say goodbye (GOAWAY), finish what is in flight.
    Goodbye,
    /// Close it now.
    Close {
        /// Word for the metric.
        reason: &'static str,
    },
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            began: clock::instant(),
            is_http2: AtomicBool::new(false),
            spoke: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            sooner: Notify::new(),
        }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Bytes came in.
    pub(super) fn read(&self, bytes: &[u8]) {
        if !self.spoke.swap(true, Ordering::Relaxed) {
            self.is_http2.store(bytes.starts_with(b"PRI"), Ordering::Relaxed);
        }
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
            self.sooner.notify_one();
        }
    }

    /// The peer takes bytes, or does not.
    pub(super) fn wrote(&self, taken: bool) {
        if taken {
            self.stalled_since.store(0, Ordering::Relaxed);
        } else if self.stalled_since.load(Ordering::Relaxed) == 0 {
            self.stalled_since.store(self.now(), Ordering::Relaxed);
            self.sooner.notify_one();
        }
    }

    /// Resolves when the verdict is to be asked again before the time it named.
    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// The head of a request is complete.
    pub(super) fn request_began(&self) {
        let _before = self.requests.fetch_add(1, Ordering::Relaxed);
        let _before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// Its answer is complete, or nobody waits for it any more.
    pub(super) fn request_ended(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
        let _before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn verdict(&self, limits: &ConnectionLimits) -> Verdict {
        self.verdict_at(self.now(), limits)
    }

    fn verdict_at(&self, now: u64, limits: &ConnectionLimits) -> Verdict {
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let end = |since: u64, limit: Duration| since.saturating_add(millis(limit));
        let stalled = self.stalled_since.load(Ordering::Relaxed);
        let head = self.head_since.load(Ordering::Relaxed);
        let is_http2 = self.is_http2.load(Ordering::Relaxed);
        let is_busy = 0 < self.in_flight.load(Ordering::Relaxed);
        let is_new = self.requests.load(Ordering::Relaxed) == 0;
        // Whatever begins to run out meanwhile notifies `sooner`; the end of a request does not.
        let look_again = now.saturating_add(millis(limits.head_within));
        let (ends, after) = if 0 < stalled {
            (end(stalled, limits.reader_stalls_within), Verdict::Close { reason: "reader_stalled" })
        } else if is_busy {
            return Verdict::Keep { until: Duration::from_millis(look_again) };
        } else if 0 < head && !is_http2 {
            (end(head, limits.head_within), Verdict::Close { reason: "head_late" })
        } else if is_new {
            (end(0, limits.first_request_within), Verdict::Goodbye)
        } else if is_http2 {
            // Pings tell whether the peer is there.
            return Verdict::Keep { until: Duration::from_millis(look_again) };
        } else {
            (end(self.idle_since.load(Ordering::Relaxed), limits.idle_within), Verdict::Goodbye)
        };
        if ends <= now { after } else { Verdict::Keep { until: Duration::from_millis(ends.min(look_again)) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `steps` happen at the given milliseconds; the verdict is asked at `now`.
    #[track_caller]
    fn check(steps: impl Fn(&Activity), now: u64, expected: Verdict) {
        let activity = Activity::new();
        steps(&activity);
        assert_eq!(activity.verdict_at(now, &ConnectionLimits::default()), expected);
    }

    fn keep(until: u64) -> Verdict {
        Verdict::Keep { until: Duration::from_millis(until) }
    }

    fn since(place: &AtomicU64, at: u64) {
        place.store(at, Ordering::Relaxed);
    }

    fn answered(activity: &Activity, at: u64) {
        activity.request_began();
        activity.request_ended();
        since(&activity.idle_since, at);
    }

    #[test]
    fn bi_118_a_head_that_does_not_end_is_closed_after_ten_seconds() {
        let half_a_head = |activity: &Activity| {
            activity.read(b"POST /v1/tr");
            since(&activity.head_since, 500);
        };
        check(half_a_head, 10_499, keep(10_500));
        check(half_a_head, 10_500, Verdict::Close { reason: "head_late" });
        // Also on a connection that has served a request.
        check(
            |activity| {
                answered(activity, 100);
                half_a_head(activity);
            },
            10_500,
            Verdict::Close { reason: "head_late" },
        );
    }

    #[test]
    fn the_first_request_has_a_minute_also_over_http2() {
        check(|_| {}, 59_999, keep(60_000));
        check(|_| {}, 60_000, Verdict::Goodbye);
        check(|activity| activity.read(b"PRI * HTTP/2.0"), 59_999, keep(60_000));
        check(|activity| activity.read(b"PRI * HTTP/2.0"), 60_000, Verdict::Goodbye);
    }

    #[test]
    fn otlp_07_idle_http1_is_closed_after_two_minutes_and_http2_is_left_to_pings() {
        check(|activity| answered(activity, 1_000), 120_999, keep(121_000));
        check(|activity| answered(activity, 1_000), 121_000, Verdict::Goodbye);
        let http2 = |activity: &Activity| {
            activity.read(b"PRI * HTTP/2.0");
            answered(activity, 1_000);
            activity.read(b"ping");
        };
        check(http2, 1_000_000, keep(1_010_000));
    }

    #[test]
    fn a_request_may_take_its_time_unless_nobody_reads_the_answer() {
        check(Activity::request_began, 1_000_000, keep(1_010_000));
        let stalled = |activity: &Activity| {
            activity.request_began();
            activity.wrote(false);
            since(&activity.stalled_since, 2_000);
        };
        check(stalled, 61_999, keep(62_000));
        check(stalled, 62_000, Verdict::Close { reason: "reader_stalled" });
        check(
            |activity| {
                stalled(activity);
                activity.wrote(true);
            },
            62_000,
            keep(72_000),
        );
    }
}
