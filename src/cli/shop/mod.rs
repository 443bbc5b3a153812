//! The shop: a make-believe web shop of twelve services, for `spandrel demo`, for tests and for benches.
//!
//! Its traces look like those of real programs (trees over several services, semantic conventions, log-normal times,
//! errors with exceptions, a consumer that comes later) and it has one fault worth finding: now and then `payment` is
//! 8 to 20 times slower in the zone `eu-1b`, which the p99 of `checkout` shows and its exemplars explain.
//!
//! - `Shop` makes one trace at a time, the same ones for the same seed.
//! - `Requests` packs traces into export requests, as SDKs or as a Collector would.
//! - `PreEncoded` sends the same requests again and again with new ids and times, at next to no cost.

mod attributes;
mod fleet;
mod pre_encoded;
mod requests;
mod rng;
mod runtimes;
mod statements;
mod topology;
mod trace;
mod walk;

#[cfg(test)]
mod tests;

pub use pre_encoded::PreEncoded;
pub use requests::{Grouping, REQUEST_SPANS_MAX, Requests};
pub use trace::Trace;

use crate::model::{DurationNanos, UnixNanos};
use fleet::Fleet;
use rng::Rng;
use topology::{BUY, Endpoint, JOURNEYS};
use walk::{Planted, Walk};

/// A generator of traces. Equal seeds give equal traces, whatever the clock says.
#[derive(Clone, Debug)]
pub struct Shop {
    rng: Rng,
    fleet: Fleet,
}

impl Shop {
    /// A shop whose processes, ids and times all follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let fleet = Fleet::new(&mut rng);
        Self { rng, fleet }
    }

    /// The next visit: a trace of 5 to 40 spans whose root starts at `start`. Allocates each key and value: for load there
    /// is `PreEncoded`.
    pub fn next_trace(&mut self, start: UnixNanos) -> Trace {
        let mut left = self.rng.unit();
        let chosen = JOURNEYS.iter().find(|(share, _)| {
            left -= share;
            left < 0.0
        });
        self.play(chosen.map_or(&BUY, |(_, endpoint)| endpoint), start, None)
    }

    /// A checkout without errors whose SERVER span of `checkout` lasts exactly `duration`: the time goes into `payment`
    /// in `eu-1b`. The root, a span of `frontend`, starts at `start` and lasts a little longer.
    pub fn plant_slow_trace(&mut self, start: UnixNanos, duration: DurationNanos) -> Trace {
        let replay = self.rng.clone();
        let usual = self.play(&BUY, start, Some(Planted::default()));
        let missing = duration.0.saturating_sub(usual.server_duration("checkout").0);
        self.rng = replay;
        let mut trace = self.play(&BUY, start, Some(Planted { payment_extra: missing }));
        trace.shrink_server_to("checkout", duration);
        trace
    }

    fn play(&mut self, endpoint: &'static Endpoint, start: UnixNanos, planted: Option<Planted>) -> Trace {
        Trace { spans: Walk::new(&mut self.rng, &self.fleet, start.0, planted).play(endpoint) }
    }
}
