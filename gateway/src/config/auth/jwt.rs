//! `[auth.jwt]`: whose tokens are taken, and what their claims mean.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use toml::Value;

use crate::config::reader::Section;
use crate::config::value::{FromToml, OrOff};
use crate::types::{Role, Roles};

/// Signatures that whoever checks them cannot make: a key that is public must not sign.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// More would let tokens live on that their issuer thinks dead.
const LONGEST_LEEWAY: Duration = Duration::from_secs(10 * 60);

/// Whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    pub jwks: Jwks,
    pub algorithms: Vec<String>,
    /// Empty where any will do.
    pub issuers: Vec<String>,
    /// `None` where tokens for anybody will do.
    pub audiences: Option<Vec<String>>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    pub name_claim: String,
    pub tenant_claim: Option<String>,
    pub roles_claim: Option<String>,
    /// What values of the claim of roles mean; empty where they are our own words.
    pub role_map: BTreeMap<String, Role>,
    /// What every good token may do.
    pub roles: Roles,
    pub models_claim: Option<String>,
}

/// Where the keys of the issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwks {
    File(PathBuf),
    Url {
        url: String,
        /// Certificates to trust in the place of the system's.
        ca: Option<PathBuf>,
        /// How often they are fetched.
        refresh: Duration,
        /// Least time between two fetches, whatever tokens come.
        cooldown: Duration,
    },
}

impl Jwt {
    pub(super) fn read(mut section: Section<'_>, is_there: bool, base: &Path) -> Option<Self> {
        let jwks = Jwks::read(&mut section, is_there, base);
        let algorithms = section.or("algorithms", ALGORITHMS.map(ToOwned::to_owned).to_vec());
        if algorithms.is_empty()
            || algorithms.iter().any(|name| !ALGORITHMS.contains(&name.as_str()))
        {
            let text = format!(
                "must name some of {}; the others let whoever checks tokens make them",
                ALGORITHMS.join(", ")
            );
            section.problem("algorithms", text);
        }
        if is_there && !section.has("audience") {
            section
                .problem("audience", "is missing: whom tokens must be for, or \"off\" for anybody");
        }
        let audience = section.or("audience", OrOff(None));
        if audience.0.as_ref().is_some_and(Vec::is_empty) {
            section.problem("audience", "is empty: no token would do");
        }
        let leeway = section.or("leeway", Duration::from_secs(30));
        if leeway > LONGEST_LEEWAY {
            section.problem("leeway", "is above 10min");
        }
        let roles: Vec<Role> = section.or("roles", vec![Role::Predict]);
        let roles_claim = section.take("roles_claim");
        let role_map = role_map(&mut section);
        if roles_claim.is_none() && !role_map.is_empty() {
            section.problem("role_map", "needs roles_claim");
        }
        let jwt = Self {
            jwks: jwks.clone().unwrap_or(Jwks::File(PathBuf::new())),
            algorithms,
            issuers: section.or("issuer", vec![]),
            audiences: audience.0,
            leeway,
            name_claim: section.or("name_claim", "sub".to_owned()),
            tenant_claim: section.take("tenant_claim"),
            roles_claim,
            role_map,
            roles: roles.into_iter().collect(),
            models_claim: section.take("models_claim"),
        };
        section.finish();
        jwks.map(|_| jwt)
    }
}

impl Jwks {
    fn read(section: &mut Section<'_>, is_there: bool, base: &Path) -> Option<Self> {
        let file = section.take::<String>("jwks_file").map(|path| base.join(path));
        let url = section.take::<String>("jwks_url");
        let ca = section.take::<String>("jwks_ca").map(|path| base.join(path));
        let refresh = section.or("refresh", Duration::from_secs(5 * 60));
        let cooldown = section.or("cooldown", Duration::from_secs(30));
        for (key, time) in [("refresh", refresh), ("cooldown", cooldown)] {
            if time < Duration::from_secs(1) {
                section.problem(key, "must be at least 1s");
            }
        }
        match (file, url) {
            (Some(file), None) => {
                if ca.is_some() {
                    section.problem("jwks_ca", "needs jwks_url");
                }
                Some(Self::File(file))
            }
            (None, Some(url)) => {
                if let Some(problem) = wrong_url(&url) {
                    section.problem("jwks_url", problem);
                }
                Some(Self::Url { url, ca, refresh, cooldown })
            }
            (Some(_), Some(_)) => {
                section.problem("jwks_url", "does not go with jwks_file");
                None
            }
            (None, None) => {
                if is_there {
                    section.problem("jwks_file", "or jwks_url must be given");
                }
                None
            }
        }
    }
}

/// What is wrong with the address of keys. Whoever can change them on their way can sign tokens.
fn wrong_url(url: &str) -> Option<&'static str> {
    let Ok(uri) = url.parse::<Uri>() else { return Some("is no URL") };
    let Some(authority) = uri.authority() else { return Some("must begin with https://") };
    if authority.as_str().contains('@') {
        return Some("must not hold a user's name or password");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_local = host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => None,
        Some(scheme) if *scheme == Scheme::HTTP && is_local => None,
        _ => Some("must begin with https://, or http:// on a loopback address"),
    }
}

fn role_map(section: &mut Section<'_>) -> BTreeMap<String, Role> {
    let given: BTreeMap<String, Value> = section.or("role_map", BTreeMap::new());
    let mut map = BTreeMap::new();
    for (word, value) in given {
        match Role::from_toml(&value) {
            Ok(role) => {
                map.insert(word, role);
            }
            Err(problem) => section.problem("role_map", format!("\"{word}\" {problem}")),
        }
    }
    map
}
