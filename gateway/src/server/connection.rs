//! One connection: HTTP/1.1 or HTTP/2, with the limits that keep slow or greedy peers harmless.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::Service;
use tracing::debug;

use super::Services;
use super::gate::Permit;
use super::patient::Patient;
use super::retire::{self, Activity};
use super::stream::Stream;
use crate::tasks;
use crate::telemetry::metrics;
use crate::types::Peer;

/// Flow-control windows of HTTP/2: a tensor of this size needs no round trip to get through.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Calls that one HTTP/2 connection may have open together.
const STREAMS: u32 = 1024;
/// Calls that a peer may give up before they were looked at; one that gives up more is cut off
/// (CVE-2023-44487, "rapid reset").
const GIVEN_UP: usize = 64;
/// Faulty calls that are reset before the connection is.
const FAULTY: usize = 256;
/// An HTTP/2 peer that answers no ping for this long is gone.
const PING: Duration = Duration::from_secs(30);

/// How long calls may go on once their connection is retired.
const GRACE: Duration = Duration::from_secs(600);

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

/// What goes with a connection from its acceptance to its end.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) draining: CancellationToken,
    /// The shard waits for these.
    pub(super) _open: TaskTrackerToken,
    pub(super) _permit: Permit,
}

/// Serves a connection in tasks of the current event loop.
pub(super) fn serve(
    door: Door,
    (stream, peer): (Stream, Peer),
    services: &Arc<Services>,
    life: Life,
) {
    let tls = services.tls.as_ref().filter(|tls| tls.covers(door));
    let (stream, tls) = match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) => (stream, tls.clone()),
        (stream, _) => return begin(door, (stream, peer), services, life),
    };
    let services = services.clone();
    // A task of its own, so that a connection does not keep the memory of its handshake.
    tasks::spawn("handshake", async move {
        let shaken = tokio::select! {
            shaken = tls.handshake(door, stream) => shaken,
            () = life.draining.cancelled() => return,
        };
        if let Ok((stream, certificate)) = shaken {
            begin(door, (stream, Peer { certificate, ..peer }), &services, life);
        }
    });
}

/// Serves a connection whose bytes are those of its protocol.
fn begin(door: Door, (stream, peer): (Stream, Peer), services: &Arc<Services>, life: Life) {
    let limits = &services.limits;
    let life = Open::new(door, GRACE, life);
    match door {
        Door::Grpc => begin_grpc((stream, peer), services, life),
        Door::Http => {
            // A reference of its own: one that all connections share would go from core to core.
            let http = Arc::new(services.http.clone());
            let service = service_fn(move |request| {
                let (http, peer) = (http.clone(), peer.clone());
                async move { Ok::<_, Infallible>(http.call(request, peer).await) }
            });
            let connection =
                http1(services).serve_connection(patient(stream, limits.body_timeout), service);
            let retired = retire::age(limits.max_connection_age);
            tasks::spawn_busy("connection", run(connection, life, retired));
        }
        Door::Metrics | Door::Admin => {
            let router = match door {
                Door::Admin => services.admin.clone(),
                _ => services.metrics.clone(),
            };
            let service = service_fn(move |request| call(router.clone(), request, peer.clone()));
            let connection =
                http1(services).serve_connection(patient(stream, limits.body_timeout), service);
            tasks::spawn("connection", run(connection, life, std::future::pending()));
        }
    }
}

fn begin_grpc((mut stream, peer): (Stream, Peer), services: &Arc<Services>, life: Open) {
    let limits = &services.limits;
    let patience = limits.header_timeout;
    let silence = limits.body_timeout;
    let (idle, age) = (limits.idle_timeout, limits.max_connection_age);
    let builder = http2(services);
    let grpc = Arc::new(services.grpc.clone());
    tasks::spawn_busy("connection", async move {
        if !speaks(&mut stream, patience, &life.life.draining).await {
            return;
        }
        let activity = Arc::new(Activity::default());
        let retired = {
            // At rest, the service has a reference, and the watch for idleness the other.
            let idle = retire::idle(activity.clone(), 2, idle);
            async move {
                tokio::select! {
                    () = idle => {}
                    () = retire::age(age) => {}
                }
            }
        };
        let service = service_fn(move |request| {
            let (grpc, peer, under_way) = (grpc.clone(), peer.clone(), activity.begin());
            async move {
                let answer = grpc.call(request, peer).await;
                Ok::<_, Infallible>(answer.map(|body| under_way.answer(body)))
            }
        });
        let connection = builder.serve_connection(patient(stream, silence), service);
        run(connection, life, retired).await;
    });
}

fn patient(stream: Stream, limit: Duration) -> TokioIo<Patient<Stream>> {
    TokioIo::new(Patient::new(stream, limit))
}

fn http1(services: &Services) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(services.limits.header_timeout)
        .max_header_size(services.limits.max_head);
    builder
}

fn http2(services: &Services) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(services.limits.max_head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(GIVEN_UP)
        .max_local_error_reset_streams(FAULTY)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// Serves a connection to its end, which comes by itself, with the stop of the gateway or when
/// the connection is retired; calls under way are answered first; what goes on
/// for long is cut off.
async fn run<C>(connection: C, open: Open, retired: impl Future<Output = ()>)
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let (mut connection, draining) = (pin!(connection), open.life.draining.clone());
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = draining.cancelled() => None,
        () = retired => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            // A stop has a time limit of its own.
            tokio::select! {
                result = connection => result,
                () = sleep(open.grace), if !draining.is_cancelled() => {
                    debug!(door = open.door.label(), "a retired connection did not end in time");
                    return;
                }
            }
        }
    };
    if let Err(error) = result {
        // Peers that vanish are their own business.
        debug!(%error, door = open.door.label(), "connection ended");
    }
}

/// Waits for the greeting of HTTP/2. A connection that has not said it can be told nothing, so it
/// would hold up a stop for ever.
async fn speaks(stream: &mut Stream, patience: Duration, draining: &CancellationToken) -> bool {
    tokio::select! {
        spoke = timeout(patience, stream.greeting()) => matches!(spoke, Ok(Ok(()))),
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

/// Counts a connection while it is open.
struct Open {
    door: Door,
    /// How long calls may go on once the connection is retired.
    grace: Duration,
    life: Life,
}

impl Open {
    fn new(door: Door, grace: Duration, life: Life) -> Self {
        metrics::CONNECTIONS.gauge(&[door.label()]).increment(1);
        Self { door, grace, life }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::CONNECTIONS.gauge(&[self.door.label()]).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use http::Response;
    use http_body_util::Full;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::Instant;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::config::Config;
    use crate::server::gate::Gate;

    #[tokio::test(start_paused = true)]
    async fn a_retired_connection_ends_when_no_call_could_take_longer() {
        let limits = Config::for_repository(Path::new("")).limits;
        let life = Life {
            draining: CancellationToken::new(),
            _open: TaskTracker::new().token(),
            _permit: Arc::new(Gate::new(&limits)).admit(Door::Http, None).unwrap(),
        };
        let (here, mut there) = duplex(1024);
        there.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let service =
            service_fn(|_| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(here), service);
        let begun = Instant::now();
        let open = Open::new(Door::Http, GRACE, life);
        run(connection, open, sleep(Duration::from_secs(1))).await;
        assert_eq!(begun.elapsed().as_secs(), 601);
    }
}
