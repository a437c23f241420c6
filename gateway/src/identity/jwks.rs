//! The public keys of an issuer (RFC 7517), and which tokens each of them may have signed.

use std::path::Path;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::{digest, keys};
use crate::config::Digest;

/// Keys of a set that are kept: issuers have a handful.
const MOST_KEYS: usize = 64;
/// Keys that are tried for a token that does not say which of them signed it.
const MOST_TRIED: usize = 4;

/// A set of keys.
#[derive(Debug)]
pub(super) struct Keyring {
    /// Of the text, to see changes.
    pub(super) seen: Digest,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// What its type, its curve and its own `alg` allow, and the settings too.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keyring {
    /// Reads a set; keys of other kinds, and for other uses, are left out.
    ///
    /// # Errors
    /// When it is none, or no key remains: an issuer that publishes none at all has a bad day,
    /// and the keys of before are better than that.
    pub(super) fn parse(text: &[u8], allowed: &[Algorithm]) -> Result<Self, String> {
        let set: Set =
            serde_json::from_slice(text).map_err(|error| format!("is no key set: {error}"))?;
        let keys: Vec<Key> = set
            .keys
            .into_iter()
            .filter_map(|key| Key::read(key, allowed))
            .take(MOST_KEYS)
            .collect();
        if keys.is_empty() {
            return Err("holds no key for a signature that is allowed".to_owned());
        }
        Ok(Self { seen: digest(text), keys })
    }

    pub(super) fn read(path: &Path, allowed: &[Algorithm]) -> Result<Self, String> {
        let text = keys::read_bounded(path)?;
        Self::parse(text.as_bytes(), allowed)
            .map_err(|problem| format!("{} {problem}", path.display()))
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys that may have signed a token: those it names, else all without a name.
    pub(super) fn fitting(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let named = move |key: &&Key| match id {
            Some(id) => key.id.as_deref() == Some(id),
            None => true,
        };
        let fits = move |key: &&Key| key.algorithms.contains(&algorithm);
        self.keys.iter().filter(named).filter(fits).take(MOST_TRIED).map(|key| &key.key)
    }

    /// Whether a key of this name is here, whatever it is for.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }
}

impl Key {
    fn read(value: Value, allowed: &[Algorithm]) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let operations = &jwk.common.key_operations;
        let verifies = operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let own = jwk.common.key_algorithm;
        let fits = |algorithm: &Algorithm| {
            own.is_none_or(|own| own == KeyAlgorithm::from(*algorithm))
                && allowed.contains(algorithm)
        };
        let algorithms: Vec<Algorithm> = of_type(&jwk).iter().copied().filter(fits).collect();
        if algorithms.is_empty() {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// What a key of this type can have signed. Nothing symmetric: a set of public keys may hold no
/// secret.
fn of_type(jwk: &Jwk) -> &'static [Algorithm] {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => &[],
    }
}
