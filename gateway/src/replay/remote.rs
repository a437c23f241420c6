//! A running gateway, over HTTP or gRPC. Calls are sent as shadows are: of the lowest priority,
//! once each, and say that they are replays.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use engine::Tensor;
use http::HeaderMap;
use tokio::time::{Instant, sleep};

use super::Asked;
use super::choice::Ready;
use crate::config::{HealthCheck, UpstreamProtocol, UpstreamTls};
use crate::error::Rejection;
use crate::types::{Inputs, Priority, Signature};
use crate::upstream::{RemoteAnswer, RemoteCall, RemoteModel, Upstream};

/// What the gateway is called in messages.
const NAME: &str = "gateway";
/// How long it may take to say what a model is like, and how often that is looked at.
const DESCRIBED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// Calls under way where nothing else is said.
const IN_FLIGHT: usize = 64;

/// Where a gateway is.
#[derive(Debug)]
pub struct Server {
    /// `http://`, `https://`, `grpc://` or `grpcs://`, host and port.
    pub url: String,
    pub tls: UpstreamTls,
    /// What each request has beside its own, such as a token.
    pub headers: HeaderMap,
    /// Of one call.
    pub timeout: Duration,
    pub max_in_flight: Option<usize>,
}

/// A model of a running gateway.
#[derive(Debug)]
pub struct Remote {
    model: Arc<RemoteModel>,
    signature: Arc<Signature>,
    version: Option<String>,
    max_in_flight: usize,
}

impl Remote {
    /// Asks a gateway what a model is like. Without a version the gateway chooses, by its routes.
    ///
    /// # Errors
    /// When the address is none, or the gateway does not say it in time.
    pub async fn connect(
        server: Server,
        model: &str,
        version: Option<&str>,
    ) -> anyhow::Result<Self> {
        let Server { url, tls, headers, timeout, max_in_flight } = server;
        let max_in_flight = max_in_flight.unwrap_or(IN_FLIGHT).max(1);
        let (protocol, is_secure, address) = address(&url)?;
        let mut settings = crate::config::Upstream::new(NAME, protocol, vec![address]);
        settings.tls = is_secure.then_some(tls);
        settings.timeout = timeout;
        // Shadows get half of it.
        settings.max_in_flight = 2 * max_in_flight + 2;
        settings.health = HealthCheck { every: None, timeout: DESCRIBED, ..settings.health };
        let upstream = Upstream::alone(settings, headers).map_err(|problems| {
            anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let model = upstream.model(model, version);
        let until = Instant::now() + DESCRIBED;
        let signature = loop {
            if let Some(signature) = model.signature() {
                break signature;
            }
            let status = model.status();
            if Instant::now() >= until {
                bail!("{url} does not say what the model is like: {}", status.reason);
            }
            sleep(LOOK).await;
        };
        let version = version.map(ToOwned::to_owned);
        Ok(Self { model, signature, version, max_in_flight })
    }

    #[must_use]
    pub fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    pub(super) fn asked(&self) -> Asked {
        Asked {
            place: "gateway",
            model: self.model.model().to_owned(),
            version: self.version.clone(),
            sha256: None,
            device: None,
            deterministic: None,
        }
    }

    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.max_in_flight
    }

    pub(super) async fn infer(&self, ready: &Ready) -> Result<Vec<Tensor>, Rejection> {
        let ordered = self.signature.check(Inputs::Named(ready.inputs.clone()))?;
        let call = RemoteCall {
            signature: &self.signature,
            tensors: &ordered.tensors,
            rows: ordered.rows,
            deadline: None,
            priority: Priority::of(u64::from(Priority::LEAST)),
            trace: None,
            prediction: ready.prediction,
            hops: 0,
            replay: true,
            shadow: true,
        };
        let answered = self.model.infer(call).await;
        let RemoteAnswer { outputs, .. } = answered.map_err(|unanswered| unanswered.rejection)?;
        Ok(outputs)
    }
}

/// Protocol, whether with TLS, and `host:port` of an address.
fn address(url: &str) -> anyhow::Result<(UpstreamProtocol, bool, String)> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (protocol, is_secure, port) = match scheme {
        "http" => (UpstreamProtocol::Http, false, 8000),
        "https" => (UpstreamProtocol::Http, true, 8000),
        "grpc" => (UpstreamProtocol::Grpc, false, 8001),
        "grpcs" => (UpstreamProtocol::Grpc, true, 8001),
        _ => bail!("'{url}' is no address: use http, https, grpc or grpcs"),
    };
    let authority = rest.trim_end_matches('/');
    // Behind the brackets of an IPv6 address.
    let has_port = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let address = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
    Ok((protocol, is_secure, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_their_protocol_and_may_leave_out_the_port() {
        let read = |url: &str| address(url).unwrap();
        assert_eq!(read("http://a:80/"), (UpstreamProtocol::Http, false, "a:80".into()));
        assert_eq!(read("https://a"), (UpstreamProtocol::Http, true, "a:8000".into()));
        assert_eq!(read("grpc://[::1]"), (UpstreamProtocol::Grpc, false, "[::1]:8001".into()));
        assert_eq!(read("grpcs://[::1]:9"), (UpstreamProtocol::Grpc, true, "[::1]:9".into()));
        assert!(address("ftp://a").unwrap_err().to_string().contains("grpcs"));
    }
}
