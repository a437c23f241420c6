//! Tokens (RFC 7519): signed by a key of the issuer, for us, now. What a token says its caller may
//! do is worked out once and kept until it expires, so that calls do not pay for its signature.

mod claims;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use moka::sync::Cache;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::Refusal;
use super::fetch::Fetcher;
use super::jwks::Keyring;
use crate::config::auth::{Jwks, Jwt};
use crate::config::{Digest, Problem};
use crate::types::Identity;

/// Tokens that are kept with what they mean; about a kilobyte each.
const MOST_KEPT: u64 = 10_000;
/// Refused tokens that are kept, so that one that is sent again and again costs one check.
const MOST_REFUSED: u64 = 10_000;
/// Shorter than any exchange of keys.
const REFUSED_KEPT: Duration = Duration::from_secs(5);
/// A token is checked anew after this time, whatever it says.
const LONGEST_KEPT: Duration = Duration::from_secs(10 * 60);

/// The tokens of one issuer.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) settings: Jwt,
    allowed: Vec<Algorithm>,
    validations: Vec<Validation>,
    trust: ArcSwap<Trust>,
    /// Where the keys come from, if not from a file.
    pub(super) fetcher: Option<Fetcher>,
    /// A token named a key that nobody knows: time to look for new ones.
    pub(super) wanted: Notify,
}

/// The keys of the issuer and the tokens found good by them. They leave together: a key that is
/// taken back takes its tokens along.
#[derive(Debug)]
struct Trust {
    /// `None` until they were fetched for the first time.
    keyring: Option<Keyring>,
    kept: Cache<[u8; 32], Kept>,
    refused: Cache<[u8; 32], Refusal>,
}

/// A token that was found good.
#[derive(Debug, Clone)]
struct Kept {
    identity: Arc<Identity>,
    until: SystemTime,
}

impl Trust {
    fn new(keyring: Option<Keyring>) -> Self {
        let kept = Cache::builder().max_capacity(MOST_KEPT).time_to_live(LONGEST_KEPT).build();
        let refused =
            Cache::builder().max_capacity(MOST_REFUSED).time_to_live(REFUSED_KEPT).build();
        Self { keyring, kept, refused }
    }
}

impl Tokens {
    /// Reads the keys where they are in a file.
    ///
    /// # Errors
    /// What cannot be used, with the path of its key.
    pub(super) fn new(settings: &Jwt) -> Result<Self, Problem> {
        // The settings were checked: every name is one of an algorithm.
        let allowed: Vec<Algorithm> =
            settings.algorithms.iter().filter_map(|name| name.parse().ok()).collect();
        let (keyring, fetcher) = match &settings.jwks {
            Jwks::File(path) => {
                let read = Keyring::read(path, &allowed);
                (Some(read.map_err(|text| Problem::new("auth.jwt.jwks_file", text))?), None)
            }
            Jwks::Url { url, ca, .. } => {
                let made = Fetcher::new(url, ca.as_deref());
                let key = if ca.is_some() { "auth.jwt.jwks_ca" } else { "auth.jwt.jwks_url" };
                (None, Some(made.map_err(|text| Problem::new(key, text))?))
            }
        };
        Ok(Self {
            settings: settings.clone(),
            validations: allowed.iter().map(|&algorithm| validation(settings, algorithm)).collect(),
            allowed,
            trust: ArcSwap::from_pointee(Trust::new(keyring)),
            fetcher,
            wanted: Notify::new(),
        })
    }

    pub(super) fn allowed(&self) -> &[Algorithm] {
        &self.allowed
    }

    /// A digest of the keys in use.
    pub(super) fn seen(&self) -> Option<Digest> {
        self.trust.load().keyring.as_ref().map(|keyring| keyring.seen)
    }

    /// Takes new keys; tokens of the old ones are checked anew.
    pub(super) fn replace(&self, keyring: Keyring) {
        self.trust.store(Arc::new(Trust::new(Some(keyring))));
    }

    /// Whose token this is.
    pub(super) fn find(
        &self,
        digest: &Digest,
        token: &[u8],
        now: SystemTime,
    ) -> Result<Arc<Identity>, Refusal> {
        let trust = self.trust.load();
        if let Some(kept) = trust.kept.get(digest.bytes())
            && now < kept.until
        {
            return Ok(kept.identity);
        }
        if let Some(refusal) = trust.refused.get(digest.bytes()) {
            return Err(refusal);
        }
        let claims = self.verify(&trust, token).inspect_err(|&refusal| {
            // What costs no signature is not worth a place.
            if matches!(refusal, Refusal::Signature | Refusal::Time | Refusal::Claims) {
                trust.refused.insert(*digest.bytes(), refusal);
            }
        })?;
        let identity = Arc::new(claims::identity(&self.settings, &claims).ok_or(Refusal::Claims)?);
        let until =
            expiry(&claims, self.settings.leeway).map_or(now, |at| at.min(now + LONGEST_KEPT));
        trust.kept.insert(*digest.bytes(), Kept { identity: identity.clone(), until });
        Ok(identity)
    }

    fn verify(&self, trust: &Trust, token: &[u8]) -> Result<Map<String, Value>, Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Unknown)?;
        let validation =
            self.validations.iter().find(|validation| validation.algorithms == [header.alg]);
        // A critical extension must be understood or the token refused (RFC 7515, 4.1.11); none is.
        let Some(validation) = validation.filter(|_| header.crit.is_none()) else {
            return Err(Refusal::Algorithm);
        };
        let keyring = trust.keyring.as_ref().ok_or(Refusal::NotFetched)?;
        let id = header.kid.as_deref();
        if id.is_some_and(|id| !keyring.knows(id)) {
            self.wanted.notify_one();
        }
        let mut refusal = Refusal::UnknownKey;
        for key in keyring.fitting(id, header.alg) {
            match jsonwebtoken::decode::<Map<String, Value>>(token, key, validation) {
                Ok(good) => return Ok(good.claims),
                Err(error) => refusal = reason(error.kind()),
            }
        }
        Err(refusal)
    }
}

fn validation(settings: &Jwt, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp"];
    validation.leeway = settings.leeway.as_secs();
    validation.validate_nbf = true;
    validation.validate_aud = settings.audiences.is_some();
    if let Some(audiences) = &settings.audiences {
        validation.set_audience(audiences);
        required.push("aud");
    }
    if !settings.issuers.is_empty() {
        validation.set_issuer(&settings.issuers);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// When a token ends, by its `exp` in seconds of which parts may be given (RFC 7519, 2).
fn expiry(claims: &Map<String, Value>, leeway: Duration) -> Option<SystemTime> {
    let seconds = claims.get("exp")?.as_f64()?;
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?.checked_add(leeway)?)
}

fn reason(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => Refusal::Time,
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::Json(_) => Refusal::Claims,
        _ => Refusal::Signature,
    }
}

#[cfg(test)]
mod tests;
