//! How many connections may be open: of the data doors together, from one address, and of the
//! operators' doors, which a crowd at the others must not close.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::connection::Door;
use crate::config::Limits;

/// Connections that the metrics door may have, and the admin door.
const OPERATORS: usize = 256;

/// Counts open connections against the limits.
#[derive(Debug)]
pub(super) struct Gate {
    data: AtomicUsize,
    metrics: AtomicUsize,
    admin: AtomicUsize,
    max_data: usize,
    /// Open connections by address but those of the admin door, those of the metrics door apart:
    /// a crowd of callers must not blind who watches from the same address. No more entries than
    /// connections; nothing where there is no limit.
    addresses: Option<(usize, Mutex<HashMap<Origin, usize>>)>,
}

/// The right to be open; gives its place back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    door: Door,
    from: Option<Origin>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Connections,
    Address,
}

/// An address, and whether it is the metrics door that it came to.
type Origin = (Prefix, bool);

/// Whom an address counts to: itself, or the /64 of an IPv6 network, which is one customer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Prefix {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        let addresses = limits.max_connections_per_address;
        Self {
            data: AtomicUsize::new(0),
            metrics: AtomicUsize::new(0),
            admin: AtomicUsize::new(0),
            max_data: limits.max_connections,
            addresses: addresses.map(|limit| (limit, Mutex::default())),
        }
    }

    /// Lets a connection in; `address` is `None` for one of this machine.
    pub(super) fn admit(
        self: &Arc<Self>,
        door: Door,
        address: Option<IpAddr>,
    ) -> Result<Permit, Full> {
        let (open, limit) = self.count(door);
        let within = |open: usize| (open < limit).then_some(open + 1);
        if open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return Err(Full::Connections);
        }
        // From here on the drop of the permit gives the place back.
        let mut permit = Permit { gate: self.clone(), door, from: None };
        let (Some((limit, addresses)), Some(address), true) =
            (&self.addresses, address, door != Door::Admin)
        else {
            return Ok(permit);
        };
        let origin = (Prefix::of(address), door == Door::Metrics);
        let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let open = addresses.entry(origin).or_insert(0);
        if *open >= *limit {
            drop(addresses);
            return Err(Full::Address);
        }
        *open += 1;
        permit.from = Some(origin);
        Ok(permit)
    }

    fn count(&self, door: Door) -> (&AtomicUsize, usize) {
        match door {
            Door::Http | Door::Grpc => (&self.data, self.max_data),
            Door::Metrics => (&self.metrics, OPERATORS),
            Door::Admin => (&self.admin, OPERATORS),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.count(self.door).0.fetch_sub(1, Ordering::Relaxed);
        if let (Some(origin), Some((_, addresses))) = (self.from, &self.gate.addresses) {
            let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = addresses.get_mut(&origin) {
                *open -= 1;
                if *open == 0 {
                    addresses.remove(&origin);
                }
            }
        }
    }
}

impl Full {
    /// Its word in metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
        }
    }
}

impl Prefix {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn gate(connections: usize, per_address: Option<usize>) -> Arc<Gate> {
        let mut limits = Config::for_repository(Path::new("")).limits;
        limits.max_connections = connections;
        limits.max_connections_per_address = per_address;
        Arc::new(Gate::new(&limits))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_place_comes_back_when_its_connection_ends() {
        let gate = gate(2, None);
        let first = gate.admit(Door::Http, address("10.0.0.1")).unwrap();
        let _second = gate.admit(Door::Grpc, None).unwrap();
        assert_eq!(gate.admit(Door::Http, None).unwrap_err(), Full::Connections);
        drop(first);
        assert!(gate.admit(Door::Http, None).is_ok());
    }

    #[test]
    fn a_crowd_at_the_data_doors_leaves_the_operators_theirs() {
        let gate = gate(1, Some(1));
        let _data = gate.admit(Door::Http, address("10.0.0.1")).unwrap();
        let operators: Vec<_> =
            (0..OPERATORS).map(|_| gate.admit(Door::Admin, address("10.0.0.1")).unwrap()).collect();
        assert_eq!(gate.admit(Door::Admin, None).unwrap_err(), Full::Connections);
        drop(operators);
        assert!(gate.admit(Door::Admin, None).is_ok());
    }

    #[test]
    fn a_crowd_at_the_metrics_door_leaves_operators_theirs() {
        let gate = gate(1, Some(2));
        let crowd: Vec<_> =
            (0..OPERATORS).map(|_| gate.admit(Door::Metrics, None).unwrap()).collect();
        assert_eq!(gate.admit(Door::Metrics, None).unwrap_err(), Full::Connections);
        assert!(gate.admit(Door::Admin, address("10.0.0.1")).is_ok());
        drop(crowd);
        let same = || gate.admit(Door::Metrics, address("10.0.0.1"));
        let _two = (same().unwrap(), same().unwrap());
        assert_eq!(same().unwrap_err(), Full::Address);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let gate = gate(9, Some(1));
        let _open = gate.admit(Door::Http, address("2001:db8:1:2::1")).unwrap();
        let same = address("2001:db8:1:2:3:4:5:6");
        assert_eq!(gate.admit(Door::Http, same).unwrap_err(), Full::Address);
        let _other = gate.admit(Door::Http, address("2001:db8:1:3::1")).unwrap();
        let _mapped = gate.admit(Door::Http, address("::ffff:10.0.0.1")).unwrap();
        assert_eq!(gate.admit(Door::Grpc, address("10.0.0.1")).unwrap_err(), Full::Address);
    }

    proptest! {
        #[test]
        fn no_schedule_of_comings_and_goings_passes_a_limit_or_loses_a_place(
            steps in prop::collection::vec((0_u8..4, any::<bool>()), 1..200)
        ) {
            let gate = gate(5, Some(2));
            let mut open: Vec<(u8, Permit)> = vec![];
            for (host, comes) in steps {
                if comes {
                    let here = open.iter().filter(|(other, _)| *other == host).count();
                    let expected = if open.len() >= 5 {
                        Some(Full::Connections)
                    } else {
                        (here >= 2).then_some(Full::Address)
                    };
                    let admitted = gate.admit(Door::Http, Some([10, 0, 0, host].into()));
                    prop_assert_eq!(admitted.as_ref().err().copied(), expected);
                    open.extend(admitted.ok().map(|permit| (host, permit)));
                } else if let Some(at) = open.iter().position(|(other, _)| *other == host) {
                    open.remove(at);
                }
            }
            open.clear();
            prop_assert_eq!(gate.data.load(Ordering::Relaxed), 0);
            prop_assert!(gate.addresses.as_ref().unwrap().1.lock().unwrap().is_empty());
        }
    }
}
