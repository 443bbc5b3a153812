//! Requests that were acknowledged lately, by their hash: a retry after a lost answer is recognised, and answered the
//! same. Bounded by time and by number; replay fills it again after a restart.

use std::collections::{HashMap, VecDeque};

use crate::journal::BodyHash;
use crate::model::{DurationNanos, UnixNanos};

use super::Exported;

/// A Collector sends the same body again for up to 300 s, and queues before that.
pub(super) const WINDOW: DurationNanos = DurationNanos::from_secs(900);
/// About 150 bytes each.
const REQUESTS_MAX: usize = 200_000;

/// What was answered to a request.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) spans: u64,
    pub(super) exported: Exported,
}

#[derive(Debug, Default)]
pub(super) struct RetryWindow {
    known: HashMap<BodyHash, Known>,
    by_age: VecDeque<(UnixNanos, BodyHash)>,
    /// When something was last pushed out for lack of room.
    cut_at: Option<UnixNanos>,
}

impl RetryWindow {
    pub(super) fn find(&mut self, hash: &BodyHash, now: UnixNanos) -> Option<Known> {
        self.forget_before(now.saturating_sub(WINDOW));
        self.known.get(hash).cloned()
    }

    pub(super) fn insert(&mut self, hash: BodyHash, arrived: UnixNanos, known: Known) {
        if self.known.insert(hash, known).is_none() {
            self.by_age.push_back((arrived, hash));
        }
        while REQUESTS_MAX < self.by_age.len() {
            self.cut_at = self.forget_oldest();
        }
    }

    /// How far back it reaches: the whole window unless room ran out.
    pub(super) fn reach_secs(&self, now: UnixNanos) -> u64 {
        let reach = self.cut_at.map_or(WINDOW, |cut| now.since(cut));
        reach.0.min(WINDOW.0) / 1_000_000_000
    }

    fn forget_before(&mut self, oldest: UnixNanos) {
        while self.by_age.front().is_some_and(|(arrived, _)| *arrived < oldest) {
            let _forgotten = self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> Option<UnixNanos> {
        let (arrived, hash) = self.by_age.pop_front()?;
        let _forgotten = self.known.remove(&hash);
        Some(arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(spans: u64) -> Known {
        Known { spans, exported: Exported::default() }
    }

    #[test]
    fn a_request_is_known_for_the_window_and_forgotten_after_it() {
        let mut window = RetryWindow::default();
        let (hash, at) = (BodyHash([1; 16]), UnixNanos(5));
        window.insert(hash, at, known(3));
        assert_eq!(window.find(&hash, at.saturating_add(WINDOW)).map(|known| known.spans), Some(3));
        assert!(window.find(&hash, at.saturating_add(DurationNanos(WINDOW.0 + 1))).is_none());
    }

    #[test]
    fn d_7_without_room_the_reach_shrinks_and_says_so() {
        let mut window = RetryWindow::default();
        let secs = |secs: u64| UnixNanos(secs * 1_000_000_000);
        for no in 0..=REQUESTS_MAX as u64 {
            let mut hash = [0; 16];
            hash[..8].copy_from_slice(&no.to_be_bytes());
            window.insert(BodyHash(hash), secs(1_000 + no / 1_000), known(1));
        }
        assert!(window.find(&BodyHash([0; 16]), secs(1_200)).is_none());
        assert_eq!(window.reach_secs(secs(1_200)), 200);
    }
}
