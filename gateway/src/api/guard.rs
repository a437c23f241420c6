//! Who may do what: the identity behind a request, and the role that an endpoint asks for.

use std::sync::Arc;

use http::HeaderMap;

use super::Api;
use crate::config::Control;
use crate::error::{Kind, Rejection};
use crate::types::{Caller, Identity, Peer, Role, Roles};

impl Api {
    /// Settles who calls, from the head of a request alone.
    ///
    /// # Errors
    /// `Unauthenticated` when nobody may call without saying who they are, or what was said is
    /// not true.
    pub fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Rejection> {
        let _ = headers;
        let operates = match self.control.settings().control {
            Control::All => true,
            Control::Off => false,
            Control::Local => peer.is_local(),
        };
        let roles = match operates {
            true => Roles::all(),
            false => [Role::Predict].into_iter().collect(),
        };
        Ok(Caller::new(Arc::new(Identity::anonymous(roles)), peer))
    }

    /// Lets a caller with this role pass.
    ///
    /// # Errors
    /// `PermissionDenied` for everybody else.
    pub fn authorize(&self, caller: &Caller, role: Role) -> Result<(), Rejection> {
        if caller.identity.roles.contains(role) {
            return Ok(());
        }
        let text = match role {
            Role::Predict => "this call needs the role predict",
            Role::Operate | Role::Admin => {
                "this call changes the server and is refused from here: see repository.control"
            }
        };
        Err(Rejection::new(Kind::PermissionDenied, text))
    }
}
