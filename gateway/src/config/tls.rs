//! `[tls]`: certificates, and on which doors callers meet them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::OrOff;

/// Every door that can have TLS; Unix domain sockets never do.
const LISTENERS: [&str; 4] = ["http", "grpc", "metrics", "admin"];
const AUTH: &[(&str, ClientAuth)] = &[
    ("off", ClientAuth::Off),
    ("optional", ClientAuth::Optional),
    ("required", ClientAuth::Required),
];
const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];

/// Certificates, and on which doors callers meet them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tls {
    /// The chain that callers are shown, the gateway's own certificate first. PEM.
    pub certificate: PathBuf,
    /// The private key of the first certificate. PEM.
    pub key: PathBuf,
    /// Who may issue certificates of callers. PEM, one or several.
    pub client_ca: Option<PathBuf>,
    pub client_auth: ClientAuth,
    pub min_version: TlsVersion,
    /// The doors that speak TLS, by their names in `[listen]`.
    pub listeners: Vec<String>,
    pub handshake_timeout: Duration,
    /// How often the files are looked at; `None` for at SIGHUP alone.
    pub poll: Option<Duration>,
}

/// Whether callers show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    Off,
    /// A caller may have none; a wrong one is refused.
    Optional,
    Required,
}

/// Versions of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

impl Tls {
    /// `None` where no certificate is named: everything is plain then.
    pub(super) fn read(mut section: Section<'_>, base: &Path) -> Option<Self> {
        let mut file = |key| section.take::<String>(key).map(|path| base.join(path));
        let (certificate, key, client_ca) = (file("certificate"), file("key"), file("client_ca"));
        let (off, required) = (ClientAuth::Off, ClientAuth::Required);
        let usual = if client_ca.is_some() { required } else { off };
        let client_auth = section.choice("client_auth", AUTH, usual);
        let min_version = section.choice("min_version", VERSIONS, TlsVersion::V1_2);
        let listeners = section.or("listeners", LISTENERS.map(str::to_owned).to_vec());
        let handshake_timeout = section.or("handshake_timeout", Duration::from_secs(10));
        let poll = section.or("poll", OrOff(Some(Duration::from_secs(5)))).0;
        for name in listeners.iter().filter(|name| !LISTENERS.contains(&name.as_str())) {
            section.problem("listeners", format!("has \"{name}\", not one of {LISTENERS:?}"));
        }
        if handshake_timeout.is_zero() {
            section.problem("handshake_timeout", "must be longer than zero");
        }
        if poll.is_some_and(|every| every.is_zero()) {
            section.problem("poll", "must be longer than zero, or \"off\"");
        }
        match (client_auth == off, &client_ca) {
            (false, None) => section.problem("client_ca", "is missing: client_auth needs it"),
            (true, Some(_)) => section.problem("client_auth", "is off although there is client_ca"),
            _ => {}
        }
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Self {
                certificate,
                key,
                client_ca,
                client_auth,
                min_version,
                listeners,
                handshake_timeout,
                poll,
            }),
            (certificate, key) => {
                if certificate.is_some() || key.is_some() || client_ca.is_some() {
                    let missing = if certificate.is_none() { "certificate" } else { "key" };
                    section.problem(missing, "is missing");
                }
                None
            }
        };
        section.finish();
        tls
    }

    /// Whether the door of this name speaks TLS.
    #[must_use]
    pub fn covers(&self, listener: &str) -> bool {
        self.listeners.iter().any(|name| name == listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn problems(tls: &str) -> Vec<String> {
        let found = parse(&format!("version = 1\n[tls]\n{tls}"), Path::new("")).unwrap_err();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_a_certificate_everything_is_plain() {
        assert_eq!(parse("version = 1", Path::new("")).unwrap().tls, None);
    }

    #[test]
    fn a_named_ca_means_that_callers_must_show_certificates() {
        let text = "version = 1\n[tls]\ncertificate = 'c'\nkey = 'k'\nclient_ca = 'a'\n";
        let tls = parse(text, Path::new("/etc")).unwrap().tls.unwrap();
        assert_eq!(tls.client_auth, ClientAuth::Required);
        assert_eq!(tls.key, Path::new("/etc/k"));
        assert!(tls.covers("http") && tls.covers("admin") && !tls.covers("http_socket"));
    }

    #[test]
    fn halves_of_a_setting_are_refused() {
        assert_eq!(problems("certificate = 'c'"), ["tls.key: is missing"]);
        assert_eq!(problems("key = 'k'"), ["tls.certificate: is missing"]);
        assert_eq!(
            problems("certificate = 'c'\nkey = 'k'\nclient_auth = 'optional'"),
            ["tls.client_ca: is missing: client_auth needs it"]
        );
        assert_eq!(
            problems("certificate = 'c'\nkey = 'k'\nclient_ca = 'a'\nclient_auth = 'off'"),
            ["tls.client_auth: is off although there is client_ca"]
        );
        assert_eq!(
            problems("certificate = 'c'\nkey = 'k'\nlisteners = ['htpp']\npoll = '0s'"),
            [
                "tls.listeners: has \"htpp\", not one of [\"http\", \"grpc\", \"metrics\", \"admin\"]",
                "tls.poll: must be longer than zero, or \"off\"",
            ]
        );
    }
}
