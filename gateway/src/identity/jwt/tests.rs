//! Which tokens are taken.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;
use crate::config::parse;
use crate::identity::digest;
use crate::identity::tests::issuer::{Issuer, claims, seconds, set};

const SETTINGS: &str = "audience = ['penstock', 'other']\nissuer = ['https://issuer']";

fn tokens(keys: &str, settings: &str) -> Tokens {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jwks"), keys).unwrap();
    let text = format!("version = 1\n[auth.jwt]\njwks_file = 'jwks'\n{settings}");
    let config = parse(&text, folder.path()).unwrap();
    Tokens::new(&config.auth.jwt.unwrap()).unwrap()
}

fn find(tokens: &Tokens, token: &str) -> Result<String, Refusal> {
    let found = tokens.find(&digest(token.as_bytes()), token.as_bytes(), SystemTime::now());
    found.map(|identity| identity.name.clone())
}

/// Good claims with one changed, or taken away.
fn but(key: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(key);
    } else {
        claims[key] = value;
    }
    claims
}

#[test]
fn tokens_of_every_algorithm_that_is_allowed_are_taken() {
    let rsa = Issuer::new(Algorithm::RS256, "rsa");
    let issuers = [
        Issuer::new(Algorithm::ES256, "p256"),
        Issuer::new(Algorithm::ES384, "p384"),
        Issuer::new(Algorithm::EdDSA, "ed"),
        rsa.signing(Algorithm::RS384),
        rsa.signing(Algorithm::RS512),
        rsa.signing(Algorithm::PS256),
        rsa.signing(Algorithm::PS384),
        rsa.signing(Algorithm::PS512),
        rsa,
    ];
    let all: Vec<&Issuer> = issuers.iter().collect();
    let tokens = tokens(&set(&all), SETTINGS);
    for issuer in &issuers {
        let token = issuer.token(&claims());
        assert_eq!(find(&tokens, &token), Ok("ann".into()), "{:?}", issuer.header());
        assert_eq!(find(&tokens, &token), Ok("ann".into()), "the second time");
    }
}

#[test]
fn an_algorithm_that_is_not_allowed_is_refused() {
    let issuer = Issuer::new(Algorithm::RS256, "a");
    let tokens = tokens(&set(&[&issuer]), &format!("{SETTINGS}\nalgorithms = ['PS256']"));
    assert_eq!(find(&tokens, &issuer.token(&claims())), Err(Refusal::Algorithm));
    let allowed = issuer.signing(Algorithm::PS256).token(&claims());
    assert_eq!(find(&tokens, &allowed), Ok("ann".into()));
}

#[test]
fn a_key_signs_only_what_it_is_for() {
    let issuer = Issuer::new(Algorithm::RS256, "a");
    for (field, value, is_good) in [
        ("alg", json!("RS256"), true),
        ("alg", json!("PS256"), false),
        ("alg", json!("RSA-OAEP"), false),
        ("use", json!("sig"), true),
        ("use", json!("enc"), false),
        ("key_ops", json!(["verify"]), true),
        ("key_ops", json!(["encrypt"]), false),
    ] {
        let mut key = issuer.jwk();
        key[field] = value.clone();
        // Another key keeps the set from being refused whole.
        let other = Issuer::new(Algorithm::EdDSA, "other");
        let set = json!({"keys": [key, other.jwk()]}).to_string();
        let found = find(&tokens(&set, SETTINGS), &issuer.token(&claims()));
        assert_eq!(found.is_ok(), is_good, "{field} {value}: {found:?}");
    }
}

#[test]
fn a_token_that_nobody_signed_is_refused() {
    let issuer = Issuer::new(Algorithm::RS256, "a");
    let tokens = tokens(&set(&[&issuer]), SETTINGS);
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let good = issuer.token(&claims());
    let signature = good.rsplit('.').next().unwrap();
    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS256", "ES512"] {
        let header = part(json!({"alg": algorithm, "typ": "JWT", "kid": "a"}));
        for signature in ["", signature] {
            let token = format!("{header}.{}.{signature}", part(claims()));
            let refusal = find(&tokens, &token).unwrap_err();
            assert!(matches!(refusal, Refusal::Unknown | Refusal::Algorithm), "{algorithm}");
        }
    }
    let header = part(json!({"typ": "JWT", "kid": "a"}));
    assert!(find(&tokens, &format!("{header}.{}.{signature}", part(claims()))).is_err());
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    let issuer = Issuer::new(Algorithm::RS256, "a");
    let jwk = issuer.jwk();
    let tokens = tokens(&set(&[&issuer]), SETTINGS);
    let modulus = jwk["n"].as_str().unwrap();
    let secrets = [
        modulus.as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(modulus).unwrap(),
        jwk.to_string().into_bytes(),
        vec![],
    ];
    for secret in secrets {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: Some("a".into()), ..Header::new(algorithm) };
            let token = encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
            assert_eq!(find(&tokens, &token), Err(Refusal::Algorithm));
        }
    }
}

#[test]
fn a_secret_in_a_set_of_public_keys_counts_for_nothing() {
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let secret = json!({"kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode("secret")});
    let set = json!({"keys": [secret, issuer.jwk()]}).to_string();
    let tokens = tokens(&set, SETTINGS);
    for algorithm in [Algorithm::HS256, Algorithm::ES256] {
        let header = Header { kid: Some("s".into()), ..Header::new(algorithm) };
        let token = match algorithm {
            Algorithm::HS256 => {
                encode(&header, &claims(), &EncodingKey::from_secret(b"secret")).unwrap()
            }
            _ => issuer.token_with(&header, &claims()),
        };
        assert!(find(&tokens, &token).is_err());
    }
}

#[test]
fn a_token_of_somebody_elses_key_is_refused() {
    let (ours, theirs) = (Issuer::new(Algorithm::ES256, "a"), Issuer::new(Algorithm::ES256, "a"));
    let tokens = tokens(&set(&[&ours]), SETTINGS);
    assert_eq!(find(&tokens, &theirs.token(&claims())), Err(Refusal::Signature));
    // Keys that a token brings along, or points to, are not looked at.
    let mut header = theirs.header();
    header.jwk = Some(serde_json::from_value(theirs.jwk()).unwrap());
    header.jku = Some("https://elsewhere/keys".into());
    assert_eq!(find(&tokens, &theirs.token_with(&header, &claims())), Err(Refusal::Signature));
    let unknown = Issuer::new(Algorithm::ES256, "b");
    assert_eq!(find(&tokens, &unknown.token(&claims())), Err(Refusal::UnknownKey));
}

#[test]
fn what_a_token_says_must_be_true_here_and_now() {
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let tokens = tokens(&set(&[&issuer]), SETTINGS);
    for (key, value, expected) in [
        ("exp", json!(seconds(-31)), Err(Refusal::Time)),
        ("exp", json!(seconds(-20)), Ok("ann".into())),
        ("exp", json!(0), Err(Refusal::Time)),
        ("exp", json!(-1), Err(Refusal::Claims)),
        ("exp", json!(null), Err(Refusal::Claims)),
        ("exp", json!("tomorrow"), Err(Refusal::Claims)),
        ("exp", json!(1e300), Err(Refusal::Claims)),
        ("nbf", json!(seconds(45)), Err(Refusal::Time)),
        ("nbf", json!(seconds(20)), Ok("ann".into())),
        ("nbf", json!("soon"), Err(Refusal::Claims)),
        ("aud", json!(null), Err(Refusal::Claims)),
        ("aud", json!("somebody"), Err(Refusal::Claims)),
        ("aud", json!(["somebody", "else"]), Err(Refusal::Claims)),
        ("aud", json!(["somebody", "other"]), Ok("ann".into())),
        ("aud", json!({"penstock": 1}), Err(Refusal::Claims)),
        ("iss", json!(null), Err(Refusal::Claims)),
        ("iss", json!("https://issuer/"), Err(Refusal::Claims)),
        ("iss", json!(["https://issuer"]), Err(Refusal::Claims)),
        ("sub", json!(null), Err(Refusal::Claims)),
    ] {
        let found = find(&tokens, &issuer.token(&but(key, value.clone())));
        assert_eq!(found, expected, "{key} {value}");
    }
}

#[test]
fn a_token_for_anybody_is_taken_only_where_the_file_says_so() {
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let tokens = tokens(&set(&[&issuer]), "audience = 'off'");
    for claims in [but("aud", json!("somebody")), but("aud", json!(null)), but("iss", json!("x"))] {
        assert_eq!(find(&tokens, &issuer.token(&claims)), Ok("ann".into()));
    }
}

#[test]
fn a_demand_that_is_not_understood_is_refused() {
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let tokens = tokens(&set(&[&issuer]), SETTINGS);
    let header = Header { crit: Some(vec!["b64".into()]), ..issuer.header() };
    assert_eq!(find(&tokens, &issuer.token_with(&header, &claims())), Err(Refusal::Algorithm));
}

#[test]
fn a_token_that_does_not_name_its_key_is_tried_with_those_that_fit() {
    let issuers: Vec<_> = ["a", "b"].map(|id| Issuer::new(Algorithm::ES256, id)).into();
    let tokens = tokens(&set(&[&issuers[0], &issuers[1]]), SETTINGS);
    for issuer in &issuers {
        let header = Header { kid: None, ..issuer.header() };
        assert_eq!(find(&tokens, &issuer.token_with(&header, &claims())), Ok("ann".into()));
    }
}

#[test]
fn a_kept_token_ends_when_it_says_and_not_later() {
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let tokens = tokens(&set(&[&issuer]), SETTINGS);
    let token = issuer.token(&but("exp", json!(seconds(100))));
    let key = digest(token.as_bytes());
    tokens.find(&key, token.as_bytes(), SystemTime::now()).unwrap();
    let kept = |ahead: u64| {
        let now = SystemTime::now() + Duration::from_secs(ahead);
        tokens.trust.load().kept.get(key.bytes()).is_some_and(|kept| now < kept.until)
    };
    // 100 s, and 30 s of leeway.
    assert!(kept(0) && kept(125));
    assert!(!kept(132));
    let long = issuer.token(&but("exp", json!(seconds(86_400))));
    let key = digest(long.as_bytes());
    tokens.find(&key, long.as_bytes(), SystemTime::now()).unwrap();
    let until = tokens.trust.load().kept.get(key.bytes()).unwrap().until;
    assert!(until <= SystemTime::now() + LONGEST_KEPT);
}

#[test]
fn a_key_that_is_taken_back_takes_its_tokens_along() {
    let (old, new) = (Issuer::new(Algorithm::ES256, "old"), Issuer::new(Algorithm::ES256, "new"));
    let tokens = tokens(&set(&[&old]), SETTINGS);
    let (of_old, of_new) = (old.token(&claims()), new.token(&claims()));
    assert_eq!(find(&tokens, &of_old), Ok("ann".into()));
    assert_eq!(find(&tokens, &of_new), Err(Refusal::UnknownKey));
    let replace = |keys: &str| {
        tokens.replace(Keyring::parse(keys.as_bytes(), tokens.allowed()).unwrap());
    };
    replace(&set(&[&old, &new]));
    assert!(find(&tokens, &of_old).is_ok() && find(&tokens, &of_new).is_ok());
    replace(&set(&[&new]));
    assert_eq!(find(&tokens, &of_old), Err(Refusal::UnknownKey));
    assert_eq!(find(&tokens, &of_new), Ok("ann".into()));
}

#[test]
fn sets_without_a_key_that_could_count_are_refused_whole() {
    let wrong =
        ["", "{}", "[]", r#"{"keys": 1}"#, r#"{"keys": []}"#, r#"{"keys": [{"kty": "RSA"}, 1]}"#];
    for text in wrong {
        assert!(Keyring::parse(text.as_bytes(), &[Algorithm::RS256]).is_err(), "{text}");
    }
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let with_junk =
        json!({"keys": [1, {}, {"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}, issuer.jwk()]});
    let keyring = Keyring::parse(with_junk.to_string().as_bytes(), &[Algorithm::ES256]).unwrap();
    assert_eq!(keyring.len(), 1);
    assert!(Keyring::read(Path::new("/nowhere/jwks"), &[Algorithm::ES256]).is_err());
}

#[test]
fn a_refused_token_costs_one_check_until_the_keys_change() {
    let (known, other) = (Issuer::new(Algorithm::ES256, "a"), Issuer::new(Algorithm::ES256, "a"));
    let tokens = tokens(&set(&[&known]), SETTINGS);
    let forged = other.token(&claims());
    let is_kept = || {
        let trust = tokens.trust.load();
        trust.refused.get(digest(forged.as_bytes()).bytes())
    };
    assert_eq!(is_kept(), None);
    for _ in 0..2 {
        assert_eq!(find(&tokens, &forged), Err(Refusal::Signature));
        assert_eq!(is_kept(), Some(Refusal::Signature));
    }
    tokens.replace(Keyring::parse(set(&[&other]).as_bytes(), tokens.allowed()).unwrap());
    assert_eq!(find(&tokens, &forged), Ok("ann".into()), "its key is known now");
}
