//! Who calls: API keys, tokens, certificates, or nobody known; settled from the head of a request
//! alone, without waiting for anything.
//!
//! One credential counts for a request: what its headers say, else the certificate of its
//! connection. A credential that is not good is refused, whatever callers without one may do.
//! Refusals say nothing about why; the metric `penstock_auth_refused_total` does.

mod certificates;
mod credential;
mod fetch;
mod follow;
mod jwks;
mod jwt;
mod keys;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use tracing::debug;

use crate::config::{Auth, Control, Digest, Problem};
use crate::error::{Kind, Rejection};
use crate::telemetry::metrics;
use crate::types::{Identity, Peer, Roles};

use certificates::Certificates;
use credential::{Credential, presented};

pub use credential::credentials;
use jwt::Tokens;
use keys::Keys;

/// Everybody who may call. One per process.
#[derive(Debug)]
pub struct Identities {
    settings: Auth,
    /// Callers without credentials: of this machine, and others. `None` where they may do nothing.
    local: Option<Arc<Identity>>,
    remote: Option<Arc<Identity>>,
    /// Callers of this machine on the admin port, where nobody can prove anything.
    operator: Option<Arc<Identity>>,
    keys: ArcSwap<Keys>,
    tokens: Option<Tokens>,
    certificates: Certificates,
}

/// Why nobody was recognised; the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Nothing was presented, and something has to be.
    Nothing,
    /// More than one credential, another scheme, or no text of a credential.
    Malformed,
    /// Longer than any credential.
    Oversized,
    /// No key or token of ours.
    Unknown,
    /// A token of another algorithm than those allowed, or with a demand that is not understood.
    Algorithm,
    /// A token whose key is not known.
    UnknownKey,
    /// A token that its key did not sign.
    Signature,
    /// A token that is no longer, or not yet, good.
    Time,
    /// A token of somebody else, for somebody else, or lacking what must be there.
    Claims,
    /// A certificate that fits nobody.
    Certificate,
    /// The keys of tokens have not been fetched yet.
    NotFetched,
}

impl Refusal {
    const fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::Unknown => "unknown",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Time => "time",
            Self::Claims => "claims",
            Self::Certificate => "certificate",
            Self::NotFetched => "not_fetched",
        }
    }
}

/// What is kept of a credential, and shown nowhere.
#[must_use]
pub fn digest(credential: &[u8]) -> Digest {
    Digest::new(Sha256::digest(credential).into())
}

/// A new API key: 256 random bits.
///
/// # Errors
/// When the system gives no random numbers.
pub fn new_key() -> Result<String, String> {
    keys::random()
}

/// What `[auth]` names and cannot be used, as `penstock check` tells it.
///
/// # Errors
/// Every file and variable that cannot be read, with the path of its key.
pub fn check(settings: &Auth) -> Result<(), Vec<Problem>> {
    Identities::new(settings, Control::Off).map(|_| ())
}

impl Identities {
    /// Reads what the settings name. Keys behind an address are fetched by [`Self::follow`].
    ///
    /// # Errors
    /// Every file and variable that cannot be read, with the path of its key.
    pub fn new(settings: &Auth, control: Control) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let keys = keys::read(&settings.keys).map_err(|found| problems.extend(found)).ok();
        let tokens = settings.jwt.as_ref().map(Tokens::new).transpose();
        let tokens = tokens.map_err(|problem| problems.push(problem)).ok();
        let (Some(keys), Some(tokens)) = (keys, tokens) else { return Err(problems) };
        let anonymous = |is_local| {
            let roles = settings.anonymous_roles(control, is_local);
            (roles != Roles::default()).then(|| Arc::new(Identity::anonymous(roles)))
        };
        // With no word about who may call, whoever sits at the machine operates it.
        let trusts_machine = !settings.is_configured() && settings.anonymous.is_none();
        Ok(Self {
            local: anonymous(true),
            remote: anonymous(false),
            operator: trusts_machine.then(|| Arc::new(Identity::anonymous(Roles::all()))),
            keys: ArcSwap::from_pointee(keys),
            tokens,
            certificates: Certificates::new(&settings.certificates),
            settings: settings.clone(),
        })
    }

    /// Whether anybody can prove who they are.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.settings.is_configured()
    }

    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// `Unauthenticated` when something has to be presented, or what was presented is not good;
    /// `NotReady` while the keys of tokens have never been fetched.
    pub fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<Arc<Identity>, Rejection> {
        self.recognise(headers, peer).map_err(refuse)
    }

    /// Who sent a request that everybody may send, if that is known.
    #[must_use]
    pub fn known(&self, headers: &HeaderMap, peer: &Peer) -> Option<Arc<Identity>> {
        self.recognise(headers, peer).ok()
    }

    /// The same on the admin port, which is closed to other machines where nobody can prove who
    /// they are: whoever gets there operates.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub fn identify_operator(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Arc<Identity>, Rejection> {
        match &self.operator {
            Some(operator) if peer.is_local() => Ok(operator.clone()),
            _ => self.identify(headers, peer),
        }
    }

    fn recognise(&self, headers: &HeaderMap, peer: &Peer) -> Result<Arc<Identity>, Refusal> {
        let anonymous = || {
            let identity = if peer.is_local() { &self.local } else { &self.remote };
            identity.clone().ok_or(Refusal::Nothing)
        };
        // Headers mean nothing where nobody is known: a proxy may have its own use for them.
        if !self.is_configured() {
            return anonymous();
        }
        if let Some(credential) = presented(headers)? {
            return self.find(credential, SystemTime::now());
        }
        if let Some(certificate) = &peer.certificate
            && !self.certificates.is_empty()
        {
            return self.certificates.find(certificate).ok_or(Refusal::Certificate);
        }
        anonymous()
    }

    fn find(&self, credential: Credential<'_>, now: SystemTime) -> Result<Arc<Identity>, Refusal> {
        let digest = digest(credential.text);
        if let Some(identity) = self.keys.load().find(&digest) {
            return Ok(identity.clone());
        }
        match &self.tokens {
            Some(tokens) if credential.may_be_token => tokens.find(&digest, credential.text, now),
            _ => Err(Refusal::Unknown),
        }
    }
}

/// The same words for every credential that is not good.
fn refuse(refusal: Refusal) -> Rejection {
    metrics::AUTH_REFUSED.counter(&[refusal.label()]).increment(1);
    debug!(reason = refusal.label(), "not recognised");
    match refusal {
        Refusal::Nothing => Rejection::new(Kind::Unauthenticated, "this call needs authentication"),
        Refusal::NotFetched => {
            Rejection::new(Kind::NotReady, "tokens cannot be checked yet, try again")
        }
        _ => Rejection::new(Kind::Unauthenticated, "the credentials are not valid"),
    }
}

#[cfg(test)]
mod tests;
