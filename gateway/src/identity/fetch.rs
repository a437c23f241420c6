//! Fetches the keys of tokens: bounded in time and size, from one address, without redirects.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

/// Longest wait for an answer, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer: sets of keys have a few kilobytes.
const LARGEST: usize = 256 << 10;

/// Fetches from one address.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    uri: Uri,
}

impl Fetcher {
    /// Trusts the certificates in `ca`, or the system's.
    ///
    /// # Errors
    /// When there are none to trust, or the address is none.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("is no URL: {error}"))?;
        let is_plain = uri.scheme_str() == Some("http");
        let tls = tls(ca, is_plain)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = if is_plain { connector.https_or_http() } else { connector.https_only() };
        let connector = connector.enable_http1().build();
        // A fetch every few minutes has no use for a connection left open.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, uri })
    }

    /// The address without what may be private in it.
    pub(super) fn place(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{authority}{}", self.uri.path())
    }

    /// One fetch.
    ///
    /// # Errors
    /// Why there is nothing.
    pub(super) async fn fetch(&self) -> Result<Bytes, String> {
        match timeout(PATIENCE, self.exchange()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        }
    }

    async fn exchange(&self) -> Result<Bytes, String> {
        let answer = self.client.get(self.uri.clone()).await.map_err(|error| chain(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        Ok(body.map_err(|error| chain(&*error))?.to_bytes())
    }
}

fn tls(ca: Option<&Path>, is_plain: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match ca {
        Some(path) => builder.with_root_certificates(roots(path)?),
        None if is_plain => builder.with_root_certificates(RootCertStore::empty()),
        None => builder
            .with_native_roots()
            .map_err(|error| format!("{error}: install the system's, or name them in jwks_ca"))?,
    };
    Ok(builder.with_no_client_auth())
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let cannot = |error: &dyn Error| format!("cannot read {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| cannot(&error))? {
        let certificate = certificate.map_err(|error| cannot(&error))?;
        roots.add(certificate).map_err(|error| cannot(&error))?;
    }
    if roots.is_empty() {
        Err(format!("{} holds no certificate", path.display()))
    } else {
        Ok(roots)
    }
}

/// An error with its causes: hyper's own words alone do not say much.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
