//! Sockets: one acceptor per door deals connections round-robin to I/O shards, each a thread
//! with its own event loop. Stopping closes the doors first and then waits for what is open.

mod connection;
mod shard;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::api::{self, Api};
use crate::config::{Config, Limits, Listen};
use crate::tasks;

pub use connection::Door;

/// Bound sockets, not yet accepting.
#[derive(Debug)]
pub struct Listeners {
    http: Option<TcpListener>,
    grpc: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

/// Where the doors really are; differs from the configuration for port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub http: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    shards: Arc<Vec<shard::Shard>>,
    accepting: CancellationToken,
}

/// What every connection needs.
#[derive(Debug, Clone)]
struct Services {
    http: api::rest::Http,
    grpc: Router,
    metrics: Router,
    limits: Limits,
}

impl Listeners {
    /// Binds every door.
    ///
    /// # Errors
    /// Which address cannot be bound, and why.
    pub fn bind(listen: &Listen) -> Result<Self, String> {
        let bind = |key: &str, address: Option<SocketAddr>| {
            let Some(address) = address else { return Ok(None) };
            let listener = TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
            listener
                .map(Some)
                .map_err(|error| format!("listen.{key}: cannot bind {address}: {error}"))
        };
        Ok(Self {
            http: bind("http", listen.http)?,
            grpc: bind("grpc", listen.grpc)?,
            metrics: bind("metrics", listen.metrics)?,
        })
    }

    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let of = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        Addresses { http: of(&self.http), grpc: of(&self.grpc), metrics: of(&self.metrics) }
    }
}

impl Server {
    /// Starts the shards and opens the doors.
    ///
    /// # Errors
    /// When the system has no thread or no event loop to give.
    pub fn start(listeners: Listeners, api: Api, config: &Config) -> anyhow::Result<Self> {
        let services = Services {
            grpc: api::grpc::router(&api)?,
            http: api::rest::Http::new(api.clone()),
            metrics: api::exposition::router(api),
            limits: config.limits.clone(),
        };
        let shards = (0..config.server.io_threads)
            .map(|index| shard::Shard::start(index, services.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let server = Self { shards: Arc::new(shards), accepting: CancellationToken::new() };
        let doors = [
            (Door::Http, listeners.http),
            (Door::Grpc, listeners.grpc),
            (Door::Metrics, listeners.metrics),
        ];
        for (door, listener) in doors {
            if let Some(listener) = listener {
                server.accept(door, tokio::net::TcpListener::from_std(listener)?);
            }
        }
        Ok(server)
    }

    /// Closes the doors, lets calls in flight end for at most `drain`, then ends the shards.
    pub async fn stop(self, drain: Duration) {
        self.accepting.cancel();
        let shards = self.shards.clone();
        let undrained = tasks::blocking(move || {
            let undrained: Vec<_> = shards.iter().map(|shard| shard.begin_stop(drain)).collect();
            undrained.into_iter().map(|left| left.recv().unwrap_or(0)).sum::<usize>()
        })
        .await;
        if undrained > 0 {
            warn!(connections = undrained, ?drain, "closed connections that did not drain in time");
        }
    }

    fn accept(&self, door: Door, listener: tokio::net::TcpListener) {
        let (shards, stop) = (self.shards.clone(), self.accepting.clone());
        let next = AtomicUsize::new(0);
        tasks::spawn("accept", async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                match accepted {
                    Ok((stream, peer)) => {
                        let turn = next.fetch_add(1, Ordering::Relaxed) % shards.len();
                        shards[turn].take(door, stream, peer).await;
                    }
                    Err(error) => {
                        // Out of descriptors: accepting again at once would only burn the core.
                        debug!(%error, door = door.label(), "cannot accept");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
    }
}
