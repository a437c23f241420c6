//! Keys as numbers. What a caller sent is hashed with a secret of this process (SipHash), so that
//! nobody can choose names that share a state, and nothing of it is kept.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;

use crate::config::LimitKey;
use crate::types::{Caller, Origin};

/// The value of a key in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    Address(u64),
    /// The header is absent, or the peer has no address.
    Absent,
}

/// The secret of this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Seed(RandomState);

impl Seed {
    pub(super) fn hash(&self, value: &impl Hash) -> u64 {
        self.0.hash_one(value)
    }
}

impl<'a> Value<'a> {
    /// Whom a call is counted to. `slot` is the place of the key's header in the caller's marks.
    pub(super) fn of(key: &LimitKey, slot: usize, caller: &'a Caller, model: &'a str) -> Self {
        match key {
            LimitKey::Header(_) => {
                let marks = caller.marks.0.as_deref().unwrap_or_default();
                marks.get(slot).and_then(Option::as_deref).map_or(Self::Absent, Self::Text)
            }
            LimitKey::Identity => Self::Text(caller.identity.name.as_bytes()),
            LimitKey::Tenant => Self::Text(caller.identity.tenant.as_bytes()),
            LimitKey::Model => Self::Text(model.as_bytes()),
            LimitKey::Global => Self::Absent,
            LimitKey::Address => match caller.peer.origin {
                Origin::Unix => Self::Absent,
                Origin::Tcp(address) => Self::Address(network(address.ip())),
            },
        }
    }
}

/// An IPv4 address, or the /64 network that one customer usually gets of IPv6.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // Networks in use start with other bits than zeros, so none is taken for an IPv4 address.
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or(0),
    }
}

/// A hasher for keys that are hashes already.
#[derive(Debug, Default)]
pub(super) struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Peer;

    fn at(address: &str) -> Caller {
        let mut caller = Caller::local();
        caller.peer = Peer::plain(Origin::Tcp(address.parse().unwrap()));
        caller
    }

    #[test]
    fn addresses_count_by_host_and_networks_by_their_first_half() {
        let key = |address: &str| {
            let caller = at(address);
            let Value::Address(key) = Value::of(&LimitKey::Address, 0, &caller, "") else {
                panic!("an address");
            };
            key
        };
        assert_eq!(key("10.0.0.1:1"), key("[::ffff:10.0.0.1]:2"));
        assert_ne!(key("10.0.0.1:1"), key("10.0.0.2:1"));
        assert_eq!(key("[2001:db8:1:2::1]:1"), key("[2001:db8:1:2:ffff::9]:1"));
        assert_ne!(key("[2001:db8:1:2::1]:1"), key("[2001:db8:1:3::1]:1"));
    }

    #[test]
    fn each_process_has_a_secret_of_its_own() {
        let value = Value::Text(b"alice");
        let seed = Seed::default();
        assert_eq!(seed.hash(&value), seed.hash(&value));
        assert_ne!(seed.hash(&value), Seed::default().hash(&value));
        assert_ne!(seed.hash(&Value::Text(b"")), seed.hash(&Value::Absent));
    }
}
