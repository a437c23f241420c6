//! Who is recognised, and that nobody else ever is.

pub(super) mod issuer;
mod timing;

use std::path::Path;

use http::header::{HeaderName, HeaderValue};
use jsonwebtoken::Algorithm;
use proptest::prelude::*;

use super::*;
use crate::config::parse;
use crate::types::{Certificate, Origin, Role};

use issuer::{Issuer, claims, set};

/// Everybody of a file, with the folder of its keys.
pub(super) fn identities(text: &str, folder: &Path, control: Control) -> Identities {
    let config = parse(&format!("version = 1\n{text}"), folder).unwrap();
    Identities::new(&config.auth, control).unwrap()
}

pub(super) fn client(name: &str, keys: &[&str]) -> String {
    let hashes: Vec<_> = keys.iter().map(|key| format!("'{}'", digest(key.as_bytes()))).collect();
    format!("[[auth.key]]\nname = '{name}'\nhashes = [{}]\n", hashes.join(", "))
}

fn far() -> Peer {
    Peer::plain(Origin::Tcp("10.1.2.3:4".parse().unwrap()))
}

fn near() -> Peer {
    Peer::plain(Origin::Tcp("127.0.0.1:4".parse().unwrap()))
}

pub(super) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn bearer(credential: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {credential}"))])
}

/// The name of who is recognised, or the kind and text of the refusal.
fn who(all: &Identities, headers: &HeaderMap, peer: &Peer) -> Result<String, (Kind, String)> {
    let found = all.identify(headers, peer);
    found
        .map(|identity| identity.name.clone())
        .map_err(|refused| (refused.kind(), refused.public_message().to_owned()))
}

fn refused(all: &Identities, headers: &HeaderMap) -> (Kind, String) {
    who(all, headers, &far()).unwrap_err()
}

const FIRST: &str = "first-key-of-the-client";
const SECOND: &str = "second-key-of-the-client";

#[test]
fn a_key_is_taken_in_both_headers_and_no_other_key() {
    let all = identities(&client("jobs", &[FIRST]), Path::new(""), Control::Local);
    assert_eq!(who(&all, &bearer(FIRST), &far()).unwrap(), "jobs");
    assert_eq!(who(&all, &headers(&[("x-api-key", FIRST)]), &far()).unwrap(), "jobs");
    let nothing = refused(&all, &HeaderMap::new());
    assert_eq!(nothing, (Kind::Unauthenticated, "this call needs authentication".into()));
    let wrong = (Kind::Unauthenticated, "the credentials are not valid".to_owned());
    let (short, long) = (&FIRST[1..], format!("{FIRST}x"));
    for bad in ["x", short, &long, &digest(FIRST.as_bytes()).to_string(), "a.b.c"] {
        assert_eq!(refused(&all, &bearer(bad)), wrong, "{bad}");
    }
    for headers in [
        headers(&[("authorization", "Basic YTpi")]),
        headers(&[("authorization", &format!("Bearer {FIRST}")), ("x-api-key", FIRST)]),
        headers(&[("x-api-key", &"k".repeat(9000))]),
    ] {
        assert_eq!(refused(&all, &headers), wrong);
    }
}

#[test]
fn while_keys_are_exchanged_both_are_taken() {
    let all = identities(&client("jobs", &[FIRST, SECOND]), Path::new(""), Control::Local);
    for key in [FIRST, SECOND] {
        assert_eq!(who(&all, &bearer(key), &far()).unwrap(), "jobs");
    }
    let after = identities(&client("jobs", &[SECOND]), Path::new(""), Control::Local);
    assert!(who(&after, &bearer(FIRST), &far()).is_err());
}

#[test]
fn a_bad_credential_is_never_anonymous() {
    let text = format!("[auth]\nanonymous = ['predict']\n{}", client("jobs", &[FIRST]));
    let all = identities(&text, Path::new(""), Control::Local);
    assert_eq!(who(&all, &HeaderMap::new(), &near()).unwrap(), "anonymous");
    assert_eq!(refused(&all, &bearer("wrong")).0, Kind::Unauthenticated);
    assert_eq!(refused(&all, &headers(&[("authorization", "")])).0, Kind::Unauthenticated);
}

#[test]
fn where_nobody_can_prove_anything_headers_mean_nothing() {
    let all = identities("", Path::new(""), Control::Local);
    for headers in [HeaderMap::new(), bearer("anything")] {
        let (near, far) = (all.identify(&headers, &near()), all.identify(&headers, &far()));
        assert_eq!(near.unwrap().roles, Roles::all());
        assert_eq!(far.unwrap().roles, [Role::Predict].into_iter().collect());
    }
}

#[test]
fn being_near_gives_nothing_once_callers_are_known() {
    let all = identities(&client("jobs", &[FIRST]), Path::new(""), Control::All);
    assert!(all.identify(&HeaderMap::new(), &near()).is_err());
    assert!(all.identify_operator(&HeaderMap::new(), &near()).is_err());
    assert!(!all.identify(&bearer(FIRST), &near()).unwrap().roles.contains(Role::Operate));
}

#[test]
fn whoever_sits_at_the_machine_operates_it_by_the_admin_port() {
    let all = identities("", Path::new(""), Control::Off);
    let operator = all.identify_operator(&HeaderMap::new(), &near()).unwrap();
    assert!(operator.roles.contains(Role::Operate));
    let others = all.identify_operator(&HeaderMap::new(), &far()).unwrap();
    assert!(!others.roles.contains(Role::Operate));
    let said = identities("[auth]\nanonymous = ['predict']", Path::new(""), Control::Off);
    let near = said.identify_operator(&HeaderMap::new(), &near()).unwrap();
    assert!(!near.roles.contains(Role::Operate));
}

#[test]
fn nobody_known_costs_no_memory() {
    let all = identities("", Path::new(""), Control::Local);
    let (one, other) =
        (all.identify(&HeaderMap::new(), &far()), all.identify(&bearer("x"), &far()));
    assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
}

#[test]
fn a_certificate_counts_where_headers_say_nothing() {
    let text = format!(
        "[auth]\nanonymous = ['predict']\n{}\
         [[auth.certificate]]\nname = 'batch'\nsan = 'spiffe://prod/*'\n",
        client("jobs", &[FIRST])
    );
    let all = identities(&text, Path::new(""), Control::Local);
    let with = |name: &str| {
        let certificate = Certificate { subject: "CN=x".into(), names: vec![name.into()] };
        Peer { certificate: Some(Arc::new(certificate)), ..far() }
    };
    let known = with("spiffe://prod/batch");
    assert_eq!(who(&all, &HeaderMap::new(), &known).unwrap(), "batch");
    assert_eq!(who(&all, &bearer(FIRST), &known).unwrap(), "jobs");
    assert!(who(&all, &bearer("wrong"), &known).is_err());
    assert!(who(&all, &HeaderMap::new(), &with("spiffe://test")).is_err());
    // Where certificates mean nobody, they are no credential.
    let plain = identities("[auth]\nanonymous = ['predict']", Path::new(""), Control::Local);
    assert_eq!(who(&plain, &HeaderMap::new(), &known).unwrap(), "anonymous");
}

#[test]
fn keys_and_tokens_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let all = with_issuer(&issuer, folder.path());
    assert_eq!(who(&all, &bearer(FIRST), &far()).unwrap(), "jobs");
    let token = issuer.token(&claims());
    assert_eq!(who(&all, &bearer(&token), &far()).unwrap(), "ann");
    // A token is no key.
    assert!(who(&all, &headers(&[("x-api-key", &token)]), &far()).is_err());
}

#[test]
fn nothing_that_is_printed_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), FIRST).unwrap();
    let text = "[[auth.key]]\nname = 'jobs'\nfile = 'key'";
    let all = identities(text, folder.path(), Control::Local);
    assert_eq!(who(&all, &bearer(FIRST), &far()).unwrap(), "jobs");
    let shown = format!("{all:?} {:?}", all.identify(&bearer("hunter2"), &far()).unwrap_err());
    let bytes = format!("{:?}", &digest(FIRST.as_bytes()).bytes()[..3]);
    assert!(!shown.contains(FIRST) && !shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains(&digest(FIRST.as_bytes()).to_string()[7..20]), "{shown}");
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])) || shown.contains("by_start"));
}

#[test]
fn every_key_that_cannot_be_read_is_told() {
    let text = "version = 1\n[[auth.key]]\nname = 'a'\nfile = 'gone'\n\
                [auth.jwt]\njwks_file = 'gone too'\naudience = 'off'";
    let config = parse(text, Path::new("/nowhere")).unwrap();
    let problems = check(&config.auth).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["auth.key[0].file", "auth.jwt.jwks_file"]);
}

/// One client with a key, and one issuer.
fn with_issuer(issuer: &Issuer, folder: &Path) -> Identities {
    std::fs::write(folder.join("jwks"), set(&[issuer])).unwrap();
    let jwt = "[auth.jwt]\njwks_file = 'jwks'\naudience = ['penstock']\n";
    identities(&format!("{}{jwt}", client("jobs", &[FIRST])), folder, Control::Local)
}

#[test]
fn whatever_headers_hold_nobody_gets_in_by_chance() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new(Algorithm::ES256, "a");
    let all = with_issuer(&issuer, folder.path());
    let token = issuer.token(&claims());
    let visible = proptest::collection::vec(0x20_u8..=0xff, 0..300);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), 0x21_u8..0x7f), 1..4);
    let parts = proptest::collection::vec("[A-Za-z0-9_-]{0,60}", 0..6);
    proptest!(|(bytes in visible, changes in changes, parts in parts, cut in any::<prop::sample::Index>())| {
        for name in ["authorization", "x-api-key"] {
            for text in [bytes.clone(), [b"Bearer ".as_slice(), &bytes].concat()] {
                if let Ok(value) = HeaderValue::from_bytes(&text) {
                    let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value)]);
                    prop_assert!(all.identify(&headers, &far()).is_err());
                }
            }
        }
        prop_assert!(all.identify(&bearer(&parts.join(".")), &far()).is_err());
        for good in [token.as_str(), FIRST] {
            let mut bytes = good.as_bytes().to_vec();
            for (place, byte) in &changes {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert!(changed == good || all.identify(&bearer(&changed), &far()).is_err());
            prop_assert!(all.identify(&bearer(&good[..cut.index(good.len())]), &far()).is_err());
        }
    });
    assert_eq!(who(&all, &bearer(&token), &far()).unwrap(), "ann");
}
