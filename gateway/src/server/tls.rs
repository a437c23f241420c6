//! TLS of the doors. Certificates and key come from files, one [`Generation`] at a time: a
//! handshake uses the newest that could be read, an open connection keeps the one it began with.

mod certificates;
mod follow;
mod subject;

use std::fmt;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::connection::Door;
use super::stream::Stream;
use crate::config::{self, Problem};
use crate::telemetry::metrics;
use crate::types::Certificate;
use certificates::{Files, Generation};

/// The newest certificates, and what to do with callers' own.
#[derive(Debug)]
pub struct Tls {
    settings: config::Tls,
    current: watch::Sender<Arc<Generation>>,
    /// What was read last, good or not.
    tried: Mutex<Result<Files, Vec<Problem>>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    Timeout,
    /// The caller went away, speaks something else or shows no certificate that is wanted.
    Refused(String),
}

/// Every problem with the files that `[tls]` names.
#[must_use]
pub fn check(config: &config::Config) -> Vec<Problem> {
    let Some(settings) = &config.tls else { return vec![] };
    let built = Files::read(settings).and_then(|files| Generation::build(&files, settings));
    built.err().unwrap_or_default()
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Every problem, with its path.
    pub(super) fn load(settings: &config::Tls) -> Result<Self, Vec<Problem>> {
        let files = Files::read(settings)?;
        let generation = Generation::build(&files, settings)?;
        generation.announce();
        let current = watch::Sender::new(Arc::new(generation));
        Ok(Self { settings: settings.clone(), current, tried: Mutex::new(Ok(files)) })
    }

    /// Whether a door speaks TLS.
    pub(super) fn covers(&self, door: Door) -> bool {
        self.settings.covers(door.label())
    }

    /// Shakes hands with a caller; gives the connection and what the caller's certificate says.
    pub(super) async fn handshake(
        &self,
        door: Door,
        stream: TcpStream,
    ) -> Result<(Stream, Option<Arc<Certificate>>), Failure> {
        let result = self.shake(door, stream).await;
        let label = match &result {
            Ok(_) => "ok",
            Err(Failure::Timeout) => "timeout",
            Err(Failure::Refused(_)) => "refused",
        };
        metrics::TLS_HANDSHAKES.counter(&[door.label(), label]).increment(1);
        if let Err(failure) = &result {
            debug!(%failure, door = door.label(), "no TLS connection");
        }
        result
    }

    async fn shake(
        &self,
        door: Door,
        stream: TcpStream,
    ) -> Result<(Stream, Option<Arc<Certificate>>), Failure> {
        let acceptor = {
            let current = self.current.borrow();
            TlsAcceptor::from(match door {
                Door::Grpc => current.http2.clone(),
                Door::Http | Door::Metrics | Door::Admin => current.http1.clone(),
            })
        };
        let stream = timeout(self.settings.handshake_timeout, acceptor.accept(stream))
            .await
            .map_err(|_| Failure::Timeout)?
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(|der| subject::read(der)).transpose();
        let certificate = certificate.map_err(Failure::Refused)?.map(Arc::new);
        Ok((Stream::secure(stream), certificate))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the handshake took too long"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl Generation {
    /// Tells operators until when the certificate serves.
    fn announce(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        metrics::TLS_EXPIRY.gauge(&[]).set(self.not_after as f64);
        let until = &self.not_after_text;
        if self.is_valid_now() {
            info!(subject = self.subject, until, "certificate in use");
        } else {
            warn!(subject = self.subject, until, "the certificate in use is not valid now");
        }
    }
}

#[cfg(test)]
mod tests;
