//! One connection: HTTP/1.1 or HTTP/2, with the limits that keep slow or greedy peers harmless.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::debug;

use super::Services;
use super::socket::{Stream, peek};
use crate::tasks;
use crate::telemetry::metrics;
use crate::types::Peer;

/// Flow-control windows of HTTP/2: a tensor of this size needs no round trip to get through.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Calls that one HTTP/2 connection may have open together.
const STREAMS: u32 = 1024;
/// Length of the connection preface of HTTP/2 (RFC 9113, 3.4).
const GREETING: usize = 24;
/// Pauses between two looks at a greeting that has not come whole.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An HTTP/2 peer that answers no ping for this long is gone.
const PING: Duration = Duration::from_secs(30);

/// Which port a connection came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Http,
    Grpc,
    Metrics,
    Admin,
}

impl Door {
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

/// How a connection learns that it should end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) watcher: Watcher,
    pub(super) draining: CancellationToken,
    /// Lives as long as the connection; the shard counts these.
    pub(super) _open: Arc<()>,
}

/// Serves a connection in a task of the current event loop.
pub(super) fn serve(door: Door, (stream, peer): (Stream, Peer), services: &Services, end: End) {
    let counted = Open::new(door);
    let patience = services.limits.header_timeout;
    match door {
        Door::Grpc => {
            let grpc = Arc::new(services.grpc.clone());
            tasks::spawn_busy("connection", async move {
                if !speaks(&stream, patience, &end.draining).await {
                    return;
                }
                let service = service_fn(move |request| {
                    let (grpc, peer) = (grpc.clone(), peer.clone());
                    async move { Ok::<_, Infallible>(grpc.call(request, peer).await) }
                });
                let connection = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_concurrent_streams(STREAMS)
                    .keep_alive_interval(PING)
                    .keep_alive_timeout(PING)
                    .serve_connection(TokioIo::new(stream), service);
                ended(counted, end.watcher.watch(connection).await);
            });
        }
        Door::Http => {
            // A reference of its own: one that all connections share would go from core to core.
            let http = Arc::new(services.http.clone());
            let service = service_fn(move |request| {
                let (http, peer) = (http.clone(), peer.clone());
                async move { Ok::<_, Infallible>(http.call(request, peer).await) }
            });
            let connection = http1(patience).serve_connection(TokioIo::new(stream), service);
            let End { watcher, _open, .. } = end;
            let watched = watcher.watch(connection);
            tasks::spawn_busy("connection", async move {
                let _open = _open;
                ended(counted, watched.await);
            });
        }
        Door::Metrics | Door::Admin => {
            let router = match door {
                Door::Admin => services.admin.clone(),
                _ => services.metrics.clone(),
            };
            let service = service_fn(move |request| call(router.clone(), request, peer.clone()));
            let connection = http1(patience).serve_connection(TokioIo::new(stream), service);
            let End { watcher, _open, .. } = end;
            let watched = watcher.watch(connection);
            tasks::spawn("connection", async move {
                let _open = _open;
                ended(counted, watched.await);
            });
        }
    }
}

fn http1(patience: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience);
    builder
}

/// Waits for the greeting of HTTP/2. A connection that has not said it can be told nothing, so it
/// would hold up a stop for ever.
async fn speaks(stream: &Stream, patience: Duration, draining: &CancellationToken) -> bool {
    let greeting = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match peek::<GREETING>(stream).await {
                Ok(GREETING) => return true,
                Ok(0) | Err(_) => return false,
                // What is there stays readable: only time can bring the rest. Less and less
                // often, so that a crowd which sends one byte each costs nothing to keep.
                Ok(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        spoke = timeout(patience, greeting) => spoke.unwrap_or(false),
        () = draining.cancelled() => false,
    }
}

fn call(
    mut router: Router,
    mut request: Request<Incoming>,
    peer: Peer,
) -> <Router as Service<Request<Incoming>>>::Future {
    request.extensions_mut().insert(peer);
    router.call(request)
}

fn ended(counted: Open, result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        // Peers that vanish are their own business.
        debug!(%error, door = counted.door.label(), "connection ended");
    }
}

/// Counts a connection while it is open.
struct Open {
    door: Door,
}

impl Open {
    fn new(door: Door) -> Self {
        metrics::CONNECTIONS.gauge(&[door.label()]).increment(1);
        Self { door }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::CONNECTIONS.gauge(&[self.door.label()]).decrement(1);
    }
}
