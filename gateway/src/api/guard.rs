//! Who may do what: the identity behind a request, and the role that an endpoint asks for.
//! docs/protocol.md has the table of endpoints and roles.

use http::header::{HeaderMap, HeaderValue, ORIGIN};

use super::Api;
use crate::error::{Kind, Rejection};
use crate::identity::credentials;
use crate::types::{Caller, Peer, Role};

/// Refuses what a browser sends for a page: a page of a stranger, open on the machine of an
/// operator, would act with the rights of that machine. Credentials in headers are the caller's
/// own doing; no page can add them.
///
/// # Errors
/// `PermissionDenied` for a request of a page without credentials.
pub fn refuse_pages(headers: &HeaderMap) -> Result<(), Rejection> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_page = headers.contains_key(ORIGIN)
        || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    if is_page && credentials(headers).is_empty() {
        let text = "pages of browsers may not change the server without credentials";
        return Err(Rejection::new(Kind::PermissionDenied, text));
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> bool {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), HeaderValue::from_static(value))
        };
        refuse_pages(&pairs.iter().map(pair).collect()).is_ok()
    }

    #[test]
    fn pages_act_with_credentials_alone() {
        assert!(of(&[]) && of(&[("sec-fetch-site", "none")]));
        for page in [("origin", "https://a"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            assert!(!of(&[page]), "{page:?}");
            assert!(of(&[page, ("x-api-key", "k")]), "{page:?}");
            assert!(of(&[page, ("authorization", "Bearer k")]), "{page:?}");
        }
        assert!(!of(&[("sec-fetch-site", "same-site")]));
    }
}
