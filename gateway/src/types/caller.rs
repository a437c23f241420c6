//! Who calls, and what they may do. Settled at the door, before the body of a request is read.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

/// What nobody known is called.
const ANONYMOUS: &str = "anonymous";

/// The other end of a connection; the server puts it together.
#[derive(Debug, Clone)]
pub struct Peer {
    pub origin: Origin,
    /// What the peer's certificate says, where one was asked for and checked.
    pub certificate: Option<Arc<Certificate>>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Tcp(SocketAddr),
    /// A process of this machine, let in by the permissions of the socket's file.
    Unix,
}

/// The checked certificate of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The distinguished name of its subject (RFC 4514).
    pub subject: String,
    /// Alternative names: DNS names, URIs (SPIFFE among them) and mail addresses.
    pub names: Vec<String>,
}

/// What a request may do. A role brings no other with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Call models, and read what describes them.
    Predict,
    /// Look into the process and act on it: load, unload, drain, reset.
    Operate,
    /// Bring code into the process.
    Admin,
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

/// A known caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name in the configuration or the subject of a token; `anonymous` for nobody known.
    pub name: String,
    /// Whom limits and quotas of a group count it to; its name where nothing else is said.
    pub tenant: String,
    pub roles: Roles,
    /// The models it may call; `None` for all. A trailing `*` stands for any ending.
    pub models: Option<Vec<String>>,
}

/// Who a request comes from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    pub identity: Arc<Identity>,
    pub peer: Peer,
    pub marks: Marks,
}

/// Values of the headers that limits tell callers apart by, in the limiter's order; nothing
/// where no limit does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(pub Option<Arc<[Option<Bytes>]>>);

/// Whether a name is meant by a pattern: itself, or with a trailing `*` any name that starts so.
#[must_use]
pub fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

impl Peer {
    /// A peer without a certificate.
    #[must_use]
    pub fn plain(origin: Origin) -> Self {
        Self { origin, certificate: None }
    }

    /// Whether it runs on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self.origin {
            Origin::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Origin::Unix => true,
        }
    }
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Predict, Self::Operate, Self::Admin];

    /// Its word in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl Roles {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Role::ALL.into_iter().collect()
    }

    #[must_use]
    pub fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |set, role| set | 1 << role as u8))
    }
}

impl Identity {
    /// Nobody known.
    #[must_use]
    pub fn anonymous(roles: Roles) -> Self {
        let name = ANONYMOUS.to_owned();
        Self { tenant: name.clone(), name, roles, models: None }
    }

    /// Its name, unless that stands for everybody who is not known.
    #[must_use]
    pub fn known_name(&self) -> Option<&str> {
        (self.name != ANONYMOUS).then_some(&self.name)
    }

    /// Whether its list of models names this one.
    #[must_use]
    pub fn may_call(&self, model: &str) -> bool {
        let models = self.models.as_ref();
        models.is_none_or(|models| models.iter().any(|pattern| is_named(pattern, model)))
    }
}

impl Caller {
    #[must_use]
    pub fn new(identity: Arc<Identity>, peer: Peer) -> Self {
        Self { identity, peer, marks: Marks::default() }
    }
}

#[cfg(test)]
impl Caller {
    /// A caller of this machine that may do everything.
    pub(crate) fn local() -> Self {
        let identity = Arc::new(Identity::anonymous(Roles::all()));
        Self::new(identity, Peer::plain(Origin::Unix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_roles_holds_what_was_put_in_and_no_more() {
        let roles: Roles = [Role::Admin, Role::Predict].into_iter().collect();
        assert!(roles.contains(Role::Admin) && roles.contains(Role::Predict));
        assert!(!roles.contains(Role::Operate));
        assert!(!Roles::default().contains(Role::Predict));
    }

    #[test]
    fn a_list_of_models_is_exact_but_for_a_trailing_star() {
        let mut identity = Identity::anonymous(Roles::all());
        assert!(identity.may_call("anything"));
        identity.models = Some(vec!["digits".into(), "team-*".into()]);
        assert!(identity.may_call("digits") && identity.may_call("team-a"));
        assert!(!identity.may_call("digits2") && !identity.may_call("team"));
    }

    #[test]
    fn loopback_is_local_in_every_spelling() {
        for (text, is_local) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
        ] {
            let peer = Peer::plain(Origin::Tcp(text.parse().unwrap()));
            assert_eq!(peer.is_local(), is_local, "{text}");
        }
        assert!(Peer::plain(Origin::Unix).is_local());
    }
}
