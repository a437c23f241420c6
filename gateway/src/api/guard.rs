//! Who may change what is loaded over a data port.

use std::net::SocketAddr;

use super::Api;
use crate::config::Control;
use crate::error::{Kind, Rejection};

/// The other end of a connection; the server puts it into every request.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    Tcp(SocketAddr),
    /// A process of this machine, let in by the permissions of the socket's file.
    Unix,
}

impl Peer {
    fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix => true,
        }
    }
}

impl Api {
    /// Lets a change of models or log settings pass, or refuses it.
    ///
    /// # Errors
    /// `PermissionDenied` as `repository.control` says.
    pub fn authorize_control(&self, peer: Option<Peer>) -> Result<(), Rejection> {
        let allowed = match self.control.settings().control {
            Control::All => true,
            Control::Off => false,
            Control::Local => peer.is_some_and(Peer::is_local),
        };
        if allowed {
            return Ok(());
        }
        Err(Rejection::new(
            Kind::PermissionDenied,
            "this call changes the server and is refused from here: see repository.control",
        ))
    }
}
