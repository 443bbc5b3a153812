//! What is worth a line in the log, but not one for each request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;

const HOUR: Duration = Duration::from_hours(1);
/// Above it everything is forgotten: a flood of addresses costs memory once, and some lines twice.
const CLIENTS_MAX: usize = 1_024;

/// Remembers what was said about whom.
#[derive(Debug, Default)]
pub(super) struct Hourly(Mutex<HashMap<(IpAddr, &'static str), Instant>>);

impl Hourly {
    /// True once an hour for each client and subject.
    pub(super) fn is_due(&self, client: IpAddr, subject: &'static str) -> bool {
        let now = clock::instant();
        let mut said = self.0.lock();
        if said.get(&(client, subject)).is_some_and(|then| now.duration_since(*then) < HOUR) {
            return false;
        }
        if CLIENTS_MAX <= said.len() {
            said.clear();
        }
        let _before = said.insert((client, subject), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otlp_50_a_client_is_named_once_an_hour_for_each_subject() {
        let hourly = Hourly::default();
        let [a, b]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let said = [(a, "metrics"), (a, "metrics"), (a, "logs"), (b, "metrics"), (b, "metrics")];
        assert_eq!(said.map(|(client, subject)| hourly.is_due(client, subject)), [true, false, true, true, false]);
    }
}
