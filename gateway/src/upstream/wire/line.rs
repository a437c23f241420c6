//! The connections to one endpoint.
//!
//! Each I/O thread has its own: the sockets, the tasks that drive them and the calls that use them
//! live on one event loop, so no call wakes another thread, and a thread that ends takes nobody
//! else's connections along. The main thread has some for health checks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Uri, response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_rustls::{
    DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector, ResolveServerName,
};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::{Handle, Id};

use super::MAX_ANSWER;
use super::connect::Connector;
use super::payload::Payload;
use super::tls::Tls;
use crate::config::{Upstream, UpstreamProtocol};
use crate::upstream::failure::{Cause, Failure};

/// Calls on one HTTP/2 connection before another one is opened: servers that bind a connection to
/// a thread get more than one.
const STREAMS: usize = 16;
/// How long an idle HTTP/1.1 connection is kept: shorter than the five seconds after which common
/// servers close it, lest a call meets the end of its connection.
const IDLE: Duration = Duration::from_secs(4);
/// How long data may be on its way without a sign of life of the other end.
const SILENCE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Bytes of an answer, and of all on a connection, that may be on their way at once.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

type Http = Client<Connector<HttpsConnector<HttpConnector>>, Payload>;

/// One endpoint and the connections to it.
#[derive(Debug)]
pub(in crate::upstream) struct Line {
    scheme: Scheme,
    authority: Authority,
    protocol: UpstreamProtocol,
    connector: Connector<HttpsConnector<HttpConnector>>,
    max_connections: usize,
    /// What each request has beside its own.
    headers: HeaderMap,
    /// By event loop, of which there are few.
    pools: RwLock<Vec<(Id, Arc<Pool>)>>,
}

/// The connections of one event loop.
#[derive(Debug)]
struct Pool(Vec<Channel>);

/// HTTP/1.1: all connections. HTTP/2: one, with the calls that are on it.
#[derive(Debug)]
struct Channel {
    http: Http,
    in_flight: AtomicUsize,
}

/// A call's place on a channel.
struct Place<'a>(&'a Channel);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Exchanged {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Line {
    /// For an endpoint at `host:port`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub(super) fn new(address: &str, settings: &Upstream, tls: &Tls) -> Result<Self, String> {
        let authority: Authority = address.parse().map_err(|_| "is no host:port".to_owned())?;
        if authority.port_u16().is_none() || address.contains('@') || authority.host().is_empty() {
            return Err("is no host:port".to_owned());
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEP_ALIVE));
        http.set_tcp_user_timeout(Some(SILENCE));
        http.set_connect_timeout(Some(settings.connect_timeout));
        let resolver: Arc<dyn ResolveServerName + Send + Sync> = match &tls.server_name {
            Some(name) => Arc::new(FixedServerNameResolver::new(name.clone())),
            None => Arc::new(DefaultServerNameResolver::default()),
        };
        let secure = HttpsConnector::new(http, tls.config.clone(), tls.is_used, resolver);
        Ok(Self {
            scheme: if tls.is_used { Scheme::HTTPS } else { Scheme::HTTP },
            authority,
            protocol: settings.protocol,
            connector: Connector::new(secure, settings.connect_timeout),
            max_connections: settings.max_connections.max(1),
            headers: tls.headers.clone(),
            pools: RwLock::default(),
        })
    }

    /// The address of something on this endpoint.
    pub(super) fn uri(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Sends a request and reads the whole answer, within the largest one.
    pub(super) async fn exchange(
        &self,
        mut request: Request<Payload>,
    ) -> Result<Exchanged, Failure> {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let pool = self.pool();
        let place = pool.enter();
        let sent = place.0.http.request(request).await;
        let (head, body) = sent.map_err(|error| Failure::connection(&error))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Failure::garbage(format!("the answer has more than {MAX_ANSWER} bytes"))
            } else {
                Failure::connection(&*error)
            }
        })?;
        let trailers = body.trailers().cloned();
        Ok(Exchanged { head, body: body.to_bytes(), trailers })
    }

    /// The connections of this event loop.
    fn pool(&self) -> Arc<Pool> {
        let here = Handle::current().id();
        let find = |pools: &[(Id, Arc<Pool>)]| {
            pools.iter().find(|(id, _)| *id == here).map(|(_, pool)| pool.clone())
        };
        if let Some(pool) = find(&self.pools.read().unwrap_or_else(PoisonError::into_inner)) {
            return pool;
        }
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        find(&pools).unwrap_or_else(|| {
            let pool = Arc::new(self.open());
            pools.push((here, pool.clone()));
            pool
        })
    }

    fn open(&self) -> Pool {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
        let channels = match self.protocol {
            UpstreamProtocol::Http => {
                builder.pool_idle_timeout(IDLE).pool_max_idle_per_host(self.max_connections);
                1
            }
            UpstreamProtocol::Grpc => {
                builder.http2_only(true);
                builder.http2_initial_stream_window_size(STREAM_WINDOW);
                builder.http2_initial_connection_window_size(CONNECTION_WINDOW);
                self.max_connections
            }
        };
        let channel = |_| Channel {
            http: builder.build(self.connector.clone()),
            in_flight: AtomicUsize::new(0),
        };
        Pool((0..channels).map(channel).collect())
    }
}

impl Pool {
    /// A place on the first connection that has few calls, else on the one with the fewest: few
    /// connections carry what few can.
    fn enter(&self) -> Place<'_> {
        let calls = |channel: &&Channel| channel.in_flight.load(Ordering::Relaxed);
        let free = self.0.iter().find(|channel| calls(channel) < STREAMS);
        let channel = free.or_else(|| self.0.iter().min_by_key(calls)).unwrap_or(&self.0[0]);
        channel.in_flight.fetch_add(1, Ordering::Relaxed);
        Place(channel)
    }
}

/// A failure for what never was a request.
pub(super) fn unsendable(error: &http::Error) -> Failure {
    Failure::new(Cause::Invalid, format!("the request cannot be written: {error}"))
}
