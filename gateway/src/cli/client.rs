//! Calls a running gateway over its HTTP port, plain or with TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{
    ConfigBuilderExt, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder,
};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::time::timeout;

use crate::config::{UpstreamTls, environment};

/// How long an answer may take: of a look, and of a change, for which models may be loaded.
const LOOK: Duration = Duration::from_secs(30);
const CHANGE: Duration = Duration::from_secs(600);

/// What must not stand as it is in one segment of a path.
const SEGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b'<').add(b'>').add(b'?');

/// Where a running gateway is, and how to be let in.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// Address of the gateway's HTTP port
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    pub(super) url: String,
    #[command(flatten)]
    pub(super) access: Access,
}

/// Where the admin port of a running gateway is, and how to be let in.
#[derive(Debug, clap::Args)]
pub(super) struct AdminTarget {
    /// Address of the gateway's admin port
    #[arg(long, default_value = "http://127.0.0.1:8003", value_name = "URL")]
    pub(super) url: String,
    #[command(flatten)]
    pub(super) access: Access,
}

/// How to be let in, and what to print.
#[derive(Debug, clap::Args)]
pub(super) struct Access {
    /// Certificates (PEM) of those who may vouch for the gateway; the system's without it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name that the gateway's certificate has, where it is not the one in the URL
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Certificate (PEM) to show the gateway
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// File with the token or API key to show; `PENSTOCK_TOKEN` may hold it instead
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// Calls one gateway.
pub(super) struct Client {
    base: String,
    authorization: Option<HeaderValue>,
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What became of what may be sent again without harm.
#[derive(Debug)]
pub(super) enum Offered {
    Taken(Value),
    /// There was no room for it (429, 503): what was said, and when to try again.
    Busy {
        words: String,
        retry_after: Option<Duration>,
    },
    /// Nobody answered: it may have been taken all the same.
    Unanswered(anyhow::Error),
}

/// As it came.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Bytes,
}

/// What a gateway answered that refused: `error` with its words, and whatever else it says.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Value);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0["error"].as_str().unwrap_or("refused"))
    }
}

impl std::error::Error for Refused {}

impl Access {
    /// The certificates that the command line names.
    pub(super) fn upstream_tls(&self) -> UpstreamTls {
        UpstreamTls {
            ca: self.ca.clone(),
            certificate: self.cert.clone(),
            key: self.key.clone(),
            server_name: self.server_name.clone(),
        }
    }

    /// What each request shows: the token, where there is one.
    ///
    /// # Errors
    /// When its file cannot be read, or no header can have it.
    pub(super) fn headers(&self) -> anyhow::Result<HeaderMap> {
        let token = authorization(self.token_file.as_deref())?;
        Ok(token.into_iter().map(|token| (AUTHORIZATION, token)).collect())
    }
}

/// A name as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

impl Client {
    /// A client with the certificates and the token that the command line names.
    ///
    /// # Errors
    /// Which file cannot be read or used.
    pub(super) fn new(url: &str, access: &Access) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let authorization = authorization(access.token_file.as_deref())?;
        let mut connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(access, base.starts_with("https:"))?)
            .https_or_http();
        if let Some(name) = &access.server_name {
            let name = ServerName::try_from(name.clone())
                .with_context(|| format!("--server-name: '{name}' is no name of a server"))?;
            connector = connector.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let http =
            HttpClient::builder(TokioExecutor::new()).build(connector.enable_http1().build());
        Ok(Self { base, authorization, http })
    }

    /// Calls `path` and returns the JSON answer, `Null` for an empty one.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses; then with its own words.
    pub(super) async fn call(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        self.send(method, path, None).await
    }

    /// Calls `path` with a body and returns the JSON answer.
    ///
    /// # Errors
    /// When the gateway cannot be reached; when it refuses, a [`Refused`] with its own words.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let limit = if method == Method::GET { LOOK } else { CHANGE };
        let body = body.map(|body| ("application/json", body.to_string()));
        self.ask(method, path, body, limit).await
    }

    /// Sends the text of a file to look at and returns the JSON answer.
    ///
    /// # Errors
    /// When the gateway cannot be reached; when it refuses, a [`Refused`] with its own words.
    pub(super) async fn show(&self, path: &str, text: String) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(("application/toml", text)), LOOK).await
    }

    /// Sends a body that may be sent again without harm, and tells where there was no room for it.
    ///
    /// # Errors
    /// When the gateway refuses it for another reason, a [`Refused`] with its own words.
    pub(super) async fn offer(&self, path: &str, body: &Value) -> anyhow::Result<Offered> {
        let body = Some(("application/json", body.to_string()));
        let answer = match self.fetch(Method::POST, path, body, CHANGE).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Offered::Unanswered(error)),
        };
        let Answer { status, retry_after, .. } = answer;
        let is_busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if !is_busy.contains(&status) {
            return Ok(Offered::Taken(self.read(path, &answer)?));
        }
        // A proxy has words of its own.
        let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let said = said.as_ref().and_then(|said| said["error"].as_str());
        let words = said.map_or_else(|| format!("answered {status}"), ToOwned::to_owned);
        Ok(Offered::Busy { words, retry_after })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
        limit: Duration,
    ) -> anyhow::Result<Value> {
        let answer = self.fetch(method, path, body, limit).await?;
        self.read(path, &answer)
    }

    fn read(&self, path: &str, answer: &Answer) -> anyhow::Result<Value> {
        let (base, status) = (&self.base, answer.status);
        let value: Value = if answer.body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&answer.body)
                .with_context(|| format!("{base}{path} did not answer with JSON"))?
        };
        if status.is_success()
            || status == StatusCode::SERVICE_UNAVAILABLE && value["error"].is_null()
        {
            return Ok(value);
        }
        match value["error"].as_str() {
            Some(_) => Err(Refused(value).into()),
            None => bail!("{base}{path} answered {status}"),
        }
    }

    async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
        limit: Duration,
    ) -> anyhow::Result<Answer> {
        let base = &self.base;
        let Ok(answer) = timeout(limit, self.exchange(method, path, body)).await else {
            bail!("{base}{path} did not answer in {limit:?}");
        };
        answer.with_context(|| format!("cannot reach a gateway at {base}"))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
    ) -> anyhow::Result<Answer> {
        let (kind, text) = body.unzip();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .body(Full::new(text.unwrap_or_default().into()))
            .context("the address is not valid, use http://HOST:PORT or https://HOST:PORT")?;
        if let Some(kind) = kind {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let response = self.http.request(request).await?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        Ok(Answer { status, retry_after, body: response.into_body().collect().await?.to_bytes() })
    }
}

/// In seconds, as gateways say it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn authorization(file: Option<&Path>) -> anyhow::Result<Option<HeaderValue>> {
    let Some(token) = token(file)? else { return Ok(None) };
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.ok().context("the token has characters no header can have")?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The token: never on the command line, where every user of the machine could read it.
fn token(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let text = match file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("--token-file: cannot read {}", path.display()))?,
        ),
        None => environment::token(),
    };
    Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}

fn tls(access: &Access, used: bool) -> anyhow::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    if let Some(path) = &access.ca {
        for certificate in certificates("--ca", path)? {
            roots
                .add(certificate)
                .with_context(|| format!("--ca: {} cannot be used", path.display()))?;
        }
    }
    let config = match used && access.ca.is_none() {
        true => config.with_native_roots().context("the system's certificates; see --ca")?,
        false => config.with_root_certificates(roots),
    };
    let (Some(cert), Some(key)) = (&access.cert, &access.key) else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates("--cert", cert)?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("--key: {} holds no private key in PEM", key.display()))?;
    config
        .with_client_auth_cert(chain, secret)
        .with_context(|| format!("--key: {} does not fit {}", key.display(), cert.display()))
}

fn certificates(flag: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let unusable = || format!("{flag}: cannot read certificates from {}", path.display());
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).with_context(unusable)?.collect();
    let found = found.with_context(unusable)?;
    if found.is_empty() {
        bail!("{flag}: {} holds no certificate in PEM", path.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tokio::time::Instant;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        access: Access,
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_does_not_answer_is_not_waited_for_without_end() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::new(&url, &Command::parse_from([""]).access).unwrap();
        for (method, limit) in [(Method::GET, LOOK), (Method::POST, CHANGE)] {
            let begun = Instant::now();
            let error = client.call(method, "/v1/routes").await.unwrap_err().to_string();
            assert!(error.contains("/v1/routes did not answer in"), "{error}");
            assert!(begun.elapsed() >= limit);
        }
    }
}
