//! How many connections there may be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::telemetry::Counters;

/// Places for connections, counted over all ports.
#[derive(Clone, Debug)]
pub(super) struct Caps(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only addresses with at least one connection.
    by_address: HashMap<IpAddr, usize>,
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Caps {
    pub(super) fn new(all_max: usize, per_address_max: usize, counters: Arc<Counters>) -> Self {
        Self(Arc::new(Shared { all_max, per_address_max, taken: Mutex::default(), counters }))
    }

    /// `None` when there is no place: the connection is to be closed at once.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        // One client, however its address is written.
        let address = address.to_canonical();
        let mut taken = self.0.taken.lock();
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        let refused = if self.0.all_max <= taken.all {
            Some("connections_max")
        } else if self.0.per_address_max <= of_address {
            Some("connections_per_address_max")
        } else {
            None
        };
        if let Some(reason) = refused {
            self.0.counters.connections_refused.add(reason, 1);
            return None;
        }
        taken.all += 1;
        let _before = taken.by_address.insert(address, of_address + 1);
        self.0.counters.connections_opened.add(1);
        Some(Place { shared: Arc::clone(&self.0), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.taken.lock();
        taken.all -= 1;
        self.shared.counters.connections_closed.add(1);
        if let Some(of_address) = taken.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                let _empty = taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_09_places_are_counted_per_address_and_in_all_and_given_back() {
        let counters = Arc::new(Counters::default());
        let caps = Caps::new(3, 2, Arc::clone(&counters));
        let [a, b]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let first = caps.enter(a).unwrap();
        let _second = caps.enter("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert!(caps.enter(a).is_none(), "the same address, written in IPv6");
        let _third = caps.enter(b).unwrap();
        assert!(caps.enter(b).is_none(), "three in all");
        assert_eq!(counters.connections_refused.values(), [("connections_max", 1), ("connections_per_address_max", 1)]);
        drop(first);
        assert!(caps.enter(a).is_some());
        assert_eq!(caps.0.taken.lock().by_address.len(), 2);
    }
}
