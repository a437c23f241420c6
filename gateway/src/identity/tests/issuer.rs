//! An issuer of tokens for tests.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// Length of what comes before the RSA key itself in its PKCS #8 form, for 2048 bits.
const RSA_WRAPPING: usize = 26;

pub(in crate::identity) struct Issuer {
    key: EncodingKey,
    algorithm: Algorithm,
    id: String,
}

impl Issuer {
    pub(in crate::identity) fn new(algorithm: Algorithm, id: &str) -> Self {
        let made = |kind| KeyPair::generate_for(kind).unwrap().serialize_der();
        let key = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_der(&made(&rcgen::PKCS_ECDSA_P256_SHA256)),
            Algorithm::ES384 => EncodingKey::from_ec_der(&made(&rcgen::PKCS_ECDSA_P384_SHA384)),
            Algorithm::EdDSA => EncodingKey::from_ed_der(&ed25519(&made(&rcgen::PKCS_ED25519))),
            _ => EncodingKey::from_rsa_der(&made(&rcgen::PKCS_RSA_SHA256)[RSA_WRAPPING..]),
        };
        Self { key, algorithm, id: id.to_owned() }
    }

    /// The same key under another algorithm of its family.
    pub(in crate::identity) fn signing(&self, algorithm: Algorithm) -> Self {
        Self { key: self.key.clone(), algorithm, id: self.id.clone() }
    }

    /// The public key.
    pub(in crate::identity) fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_algorithm = None;
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = self.id.clone().into();
        jwk
    }

    pub(in crate::identity) fn header(&self) -> Header {
        Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) }
    }

    pub(in crate::identity) fn token(&self, claims: &Value) -> String {
        self.token_with(&self.header(), claims)
    }

    pub(in crate::identity) fn token_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }
}

/// The private key alone (RFC 8410, 7), without the public one that newer forms carry along.
fn ed25519(pkcs8: &[u8]) -> Vec<u8> {
    const VERSION_1: [u8; 5] = [0x30, 0x2e, 0x02, 0x01, 0x00];
    [&VERSION_1, &pkcs8[5..48]].concat()
}

/// Seconds since 1970, `ahead` of now.
pub(in crate::identity) fn seconds(ahead: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + ahead
}

/// Claims that are good for the settings of these tests.
pub(in crate::identity) fn claims() -> Value {
    json!({"sub": "ann", "aud": "penstock", "iss": "https://issuer", "exp": seconds(600)})
}

/// A set of public keys.
pub(in crate::identity) fn set(keys: &[&Issuer]) -> String {
    json!({"keys": keys.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string()
}
