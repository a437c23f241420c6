//! TLS to the endpoints of an upstream.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use http::HeaderMap;
use hyper_rustls::ConfigBuilderExt;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{Problem, UpstreamProtocol, UpstreamTls};

/// What endpoints are met with.
pub(in crate::upstream) struct Tls {
    pub(super) config: ClientConfig,
    pub(super) is_used: bool,
    /// The name in the endpoints' certificates, where it is not their host.
    pub(super) server_name: Option<ServerName<'static>>,
    /// What each request has beside its own, such as a token.
    pub(in crate::upstream) headers: HeaderMap,
    /// Of the files' contents: tells whether they have changed.
    fingerprint: u64,
}

/// The contents of the files that settings name.
#[derive(Hash)]
struct Files {
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files; `path` is that of the section.
    ///
    /// # Errors
    /// Every file that cannot be used, with its key.
    pub(in crate::upstream) fn new(
        settings: Option<&UpstreamTls>,
        protocol: UpstreamProtocol,
        path: &str,
    ) -> Result<Self, Vec<Problem>> {
        let problem = |key: &str, error: String| vec![Problem::new(format!("{path}.{key}"), error)];
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| vec![Problem::new(path, error.to_string())])?;
        let Some(settings) = settings else {
            let config = builder.with_root_certificates(RootCertStore::empty());
            let config = config.with_no_client_auth();
            let headers = HeaderMap::new();
            return Ok(Self { config, is_used: false, server_name: None, headers, fingerprint: 0 });
        };
        let files = Files::read(settings, path)?;
        let builder = match &files.ca {
            Some(pem) => {
                builder.with_root_certificates(roots(pem).map_err(|error| problem("ca", error))?)
            }
            None => builder.with_native_roots().map_err(|error| {
                problem("ca", format!("{error}: install the system's, or name them here"))
            })?,
        };
        let mut config = match (&files.certificate, &files.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate).map_err(|e| problem("certificate", e))?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| problem("key", "holds no private key in PEM".into()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| problem("key", format!("does not fit: {error}")))?
            }
            (None, None) => builder.with_no_client_auth(),
            (None, Some(_)) => return Err(problem("certificate", "is missing".into())),
            (Some(_), None) => return Err(problem("key", "is missing".into())),
        };
        config.alpn_protocols = match protocol {
            UpstreamProtocol::Http => vec![b"http/1.1".to_vec()],
            UpstreamProtocol::Grpc => vec![b"h2".to_vec()],
        };
        let server_name = settings.server_name.clone().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| problem("server_name", format!("\"{name}\" is no name of a server")))
        });
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        let fingerprint = hasher.finish();
        let (server_name, headers) = (server_name.transpose()?, HeaderMap::new());
        Ok(Self { config, is_used: true, server_name, headers, fingerprint })
    }

    /// Whether the files have other contents than those of `other`.
    pub(in crate::upstream) fn differs(&self, other: &Self) -> bool {
        self.fingerprint != other.fingerprint
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("is_used", &self.is_used).finish_non_exhaustive()
    }
}

impl Files {
    fn read(settings: &UpstreamTls, path: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut file = |key: &str, file: Option<&Path>| {
            file.and_then(|file| {
                std::fs::read(file)
                    .map_err(|error| {
                        let text = format!("cannot read {}: {error}", file.display());
                        problems.push(Problem::new(format!("{path}.{key}"), text));
                    })
                    .ok()
            })
        };
        let files = Self {
            ca: file("ca", settings.ca.as_deref()),
            certificate: file("certificate", settings.certificate.as_deref()),
            key: file("key", settings.key.as_deref()),
        };
        if problems.is_empty() { Ok(files) } else { Err(problems) }
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("cannot be used: {error}"))?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("holds no certificate in PEM".into()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}
