//! `[auth]`: who may call, and what callers without credentials may do.

mod jwt;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Value;

use super::reader::Section;
use super::repository::Control;
use super::secret::Digest;
use super::value::FromToml;
use crate::types::{Identity, Role, Roles};

pub use jwt::{Jwks, Jwt};

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Roles of callers without credentials, where the file says so.
    pub anonymous: Option<Roles>,
    /// How often the files of keys are looked at.
    pub reload: Duration,
    pub keys: Vec<KeyClient>,
    pub certificates: Vec<CertificateClient>,
    pub jwt: Option<Jwt>,
}

/// A caller known by its API keys; several at a time, so that they can be exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyClient {
    /// Where it stands in the file, for messages.
    pub path: String,
    pub identity: Arc<Identity>,
    pub hashes: Vec<Digest>,
    /// A file of keys or hashes, one a line.
    pub file: Option<PathBuf>,
    /// An environment variable with the same content.
    pub env: Option<String>,
}

/// A caller known by the certificate of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateClient {
    pub identity: Arc<Identity>,
    /// What must stand in the certificate; a trailing `*` stands for any ending.
    pub pattern: Pattern,
}

/// Which part of a certificate is compared with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Subject(String),
    AlternativeName(String),
}

impl Auth {
    pub(super) fn read(mut section: Section<'_>, base: &Path) -> Self {
        let anonymous = section.take::<Vec<Role>>("anonymous");
        let reload = section.or("reload", Duration::from_secs(2));
        if reload.is_zero() {
            section.problem("reload", "must be longer than zero");
        }
        let keys = section.list("key").into_iter().filter_map(|key| KeyClient::read(key, base));
        let keys: Vec<_> = keys.collect();
        let certificates = section.list("certificate").into_iter();
        let certificates = certificates.filter_map(CertificateClient::read).collect();
        let has_jwt = section.has("jwt");
        let jwt = Jwt::read(section.section("jwt"), has_jwt, base);
        for (index, key) in keys.iter().enumerate() {
            let same = |other: &&KeyClient| other.identity.name == key.identity.name;
            if let Some(other) = keys[..index].iter().find(same) {
                let text =
                    format!("is also the name of {}; give one client several hashes", other.path);
                let path = key.path.trim_start_matches("auth.");
                section.problem(&format!("{path}.name"), text);
            }
        }
        section.finish();
        let anonymous = anonymous.map(|roles| roles.into_iter().collect());
        Self { anonymous, reload, keys, certificates, jwt }
    }

    /// Whether anybody can prove who they are.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.keys.is_empty() || !self.certificates.is_empty() || self.jwt.is_some()
    }

    /// What a caller without credentials may do. Without any `[auth]` that is everything, and
    /// with credentials for others nothing, unless `anonymous` says more; what changes the server
    /// stays within `repository.control` in any case.
    #[must_use]
    pub fn anonymous_roles(&self, control: Control, is_local: bool) -> Roles {
        let given = match self.anonymous {
            Some(roles) => roles,
            None if self.is_configured() => Roles::default(),
            None => Roles::all(),
        };
        let operates = match control {
            Control::All => true,
            Control::Off => false,
            Control::Local => is_local,
        };
        let kept = |role: &Role| given.contains(*role) && (operates || *role == Role::Predict);
        Role::ALL.into_iter().filter(kept).collect()
    }

    /// Whether the admin port may face a network: somebody can prove who they are, and nobody
    /// operates without.
    #[must_use]
    pub fn guards_operators(&self, control: Control) -> bool {
        let anonymous = self.anonymous_roles(control, false);
        let open = anonymous.contains(Role::Operate) || anonymous.contains(Role::Admin);
        self.is_configured() && !open
    }
}

impl KeyClient {
    fn read(mut section: Section<'_>, base: &Path) -> Option<Self> {
        let path = section.path_of("").trim_end_matches('.').to_owned();
        let has_key = ["hashes", "file", "env"].into_iter().any(|key| section.has(key));
        let identity = identity(&mut section);
        let hashes = section.or("hashes", vec![]);
        let file = section.take::<String>("file").map(|path| base.join(path));
        let env = section.take("env");
        if !has_key {
            section.problem("hashes", "is missing, and so are file and env: no key would fit");
        }
        section.finish();
        Some(Self { path, identity: Arc::new(identity?), hashes, file, env })
    }
}

impl CertificateClient {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let identity = identity(&mut section);
        let subject = section.take::<String>("subject").map(Pattern::Subject);
        let other = section.take::<String>("san").map(Pattern::AlternativeName);
        let pattern = match (subject, other) {
            (Some(pattern), None) | (None, Some(pattern)) => Some(pattern),
            _ => {
                section.problem("subject", "or san must be given, and not both");
                None
            }
        };
        section.finish();
        Some(Self { identity: Arc::new(identity?), pattern: pattern? })
    }
}

/// Name, tenant, roles and models of a client; the name must be there.
fn identity(section: &mut Section<'_>) -> Option<Identity> {
    let name: Option<String> = section.required("name");
    if name.as_ref().is_some_and(String::is_empty) {
        section.problem("name", "is empty");
    }
    let tenant: Option<String> = section.take("tenant");
    let roles: Vec<Role> = section.or("roles", vec![Role::Predict]);
    if roles.is_empty() {
        section.problem("roles", "is empty: the client could do nothing");
    }
    let models: Option<Vec<String>> = section.take("models");
    if let Some(problem) = models.iter().flatten().find_map(|pattern| wrong_pattern(pattern)) {
        section.problem("models", problem);
    }
    let name = name?;
    let tenant = tenant.unwrap_or_else(|| name.clone());
    Some(Identity { name, tenant, roles: roles.into_iter().collect(), models })
}

/// What is wrong with the pattern of a model's name, if anything is.
pub(super) fn wrong_pattern(pattern: &str) -> Option<String> {
    let start = pattern.strip_suffix('*').unwrap_or(pattern);
    if pattern.is_empty() || start.contains('*') {
        return Some(format!("holds \"{pattern}\": a name, with * at its end at most"));
    }
    None
}

impl FromToml for Role {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let word = String::from_toml(value)?;
        Self::ALL.into_iter().find(|role| role.name() == word).ok_or_else(|| {
            format!("is \"{word}\", must be one of \"predict\", \"operate\", \"admin\"")
        })
    }
}

#[cfg(test)]
mod tests;
