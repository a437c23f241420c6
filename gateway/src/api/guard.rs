//! Who may do what: the identity behind a request, and the role that an endpoint asks for.
//! docs/protocol.md has the table of endpoints and roles.

use http::HeaderMap;

use super::Api;
use crate::error::{Kind, Rejection};
use crate::types::{Caller, Peer, Role};

impl Api {
    /// Settles who calls, from the head of a request alone.
    ///
    /// # Errors
    /// `Unauthenticated` when nobody may call without saying who they are, or what was said is
    /// not true.
    pub fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Rejection> {
        let identity = self.identities.identify(headers, &peer)?;
        Ok(Caller::new(identity, peer))
    }

    /// Who sent a request that everybody may send, if that is known.
    #[must_use]
    pub fn known(&self, headers: &HeaderMap, peer: Peer) -> Option<Caller> {
        self.identities.known(headers, &peer).map(|identity| Caller::new(identity, peer))
    }

    /// Settles who calls on the admin port.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub fn identify_operator(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, Rejection> {
        let identity = self.identities.identify_operator(headers, &peer)?;
        Ok(Caller::new(identity, peer))
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
            Role::Operate | Role::Admin if !self.identities.is_configured() => {
                "this call changes the server and is refused from here: see repository.control"
                    .to_owned()
            }
            role => format!("this call needs the role {}", role.name()),
        };
        Err(Rejection::new(Kind::PermissionDenied, text))
    }

    /// Lets a caller pass who may call models, this one among them. Says nothing about whether
    /// there is such a model.
    ///
    /// # Errors
    /// `PermissionDenied` for everybody else.
    pub fn authorize_call(&self, caller: &Caller, model: &str) -> Result<(), Rejection> {
        self.authorize(caller, Role::Predict)?;
        may_use(caller, model)
    }

    /// Lets a caller pass who may act on this model.
    ///
    /// # Errors
    /// `PermissionDenied` for everybody else.
    pub fn authorize_change(&self, caller: &Caller, model: &str) -> Result<(), Rejection> {
        self.authorize(caller, Role::Operate)?;
        may_use(caller, model)
    }

    /// Lets a caller pass who may read what describes the models: whoever calls them, and whoever
    /// operates the process. Lists hold only the models that
    /// the caller may use.
    ///
    /// # Errors
    /// `PermissionDenied` for everybody else.
    pub fn authorize_reading(&self, caller: &Caller) -> Result<(), Rejection> {
        if caller.identity.roles.contains(Role::Operate) {
            return Ok(());
        }
        self.authorize(caller, Role::Predict)
    }

    /// The same for one model.
    ///
    /// # Errors
    /// `PermissionDenied` for everybody else.
    pub fn authorize_reading_of(&self, caller: &Caller, model: &str) -> Result<(), Rejection> {
        self.authorize_reading(caller)?;
        may_use(caller, model)
    }
}

fn may_use(caller: &Caller, model: &str) -> Result<(), Rejection> {
    if caller.identity.may_call(model) {
        return Ok(());
    }
    Err(Rejection::new(Kind::PermissionDenied, "this caller may not use this model"))
}
