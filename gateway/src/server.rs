//! Sockets: one acceptor per door deals connections round-robin to I/O shards, each a thread
//! with its own event loop. Stopping closes the doors first and then waits for what is open.

mod connection;
mod gate;
mod patient;
mod retire;
mod shard;
mod socket;
mod stream;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::api::{self, Api};
use crate::config::{Config, Limits, Listen};
use crate::tasks;
use crate::telemetry::metrics;

pub use connection::Door;
use gate::Gate;
use socket::{Bound, Listener};
pub use tls::{Tls, check};

/// Bound sockets, not yet accepting.
#[derive(Debug)]
pub struct Listeners(Vec<(Door, Bound)>);

/// Where the doors really are; differs from the configuration for port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub http: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    shards: Arc<Vec<shard::Shard>>,
    accepting: CancellationToken,
    gate: Arc<Gate>,
    tls: Option<Arc<Tls>>,
}

/// What every connection needs.
#[derive(Debug, Clone)]
struct Services {
    http: api::rest::Http,
    grpc: api::grpc::Grpc,
    metrics: Router,
    admin: Router,
    limits: Limits,
    tls: Option<Arc<Tls>>,
}

impl Listeners {
    /// Binds every door.
    ///
    /// # Errors
    /// Which address cannot be bound, and why.
    pub fn bind(listen: &Listen) -> Result<Self, String> {
        let mut doors = Vec::new();
        let ports = [
            (Door::Http, listen.http),
            (Door::Grpc, listen.grpc),
            (Door::Metrics, listen.metrics),
            (Door::Admin, listen.admin),
        ];
        for (door, address) in ports {
            let Some(address) = address else { continue };
            let bound = socket::bind_tcp(address);
            doors.push((
                door,
                bound.map_err(|error| {
                    format!("listen.{}: cannot bind {address}: {error}", door.label())
                })?,
            ));
        }
        let sockets = [(Door::Http, &listen.http_socket), (Door::Grpc, &listen.grpc_socket)];
        for (door, path) in sockets {
            let Some(path) = path else { continue };
            let bound = socket::bind_unix(path);
            doors.push((
                door,
                bound.map_err(|error| {
                    let key = door.label();
                    format!("listen.{key}_socket: cannot bind {}: {error}", path.display())
                })?,
            ));
        }
        Ok(Self(doors))
    }

    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let of = |wanted: Door| {
            let mut doors = self.0.iter().filter(|(door, _)| *door == wanted);
            doors.find_map(|(_, bound)| bound.address())
        };
        Addresses {
            http: of(Door::Http),
            grpc: of(Door::Grpc),
            metrics: of(Door::Metrics),
            admin: of(Door::Admin),
        }
    }
}

impl Server {
    /// Starts the shards and opens the doors.
    ///
    /// # Errors
    /// When a certificate cannot be used, or the system has no thread or no event loop to give.
    pub fn start(listeners: Listeners, api: Api, config: &Config) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(Tls::load).transpose().map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", problems.join("; "))
        })?;
        let tls = tls.map(Arc::new);
        let services = Services {
            grpc: api::grpc::Grpc::new(&api)?,
            http: api::rest::Http::new(api.clone()),
            admin: api::admin::router(api.clone()),
            metrics: api::exposition::router(api),
            limits: config.limits.clone(),
            tls: tls.clone(),
        };
        let shards = (0..config.server.io_threads)
            .map(|index| shard::Shard::start(index, Arc::new(services.clone())))
            .collect::<io::Result<Vec<_>>>()?;
        let server = Self {
            shards: Arc::new(shards),
            accepting: CancellationToken::new(),
            gate: Arc::new(Gate::new(&config.limits)),
            tls,
        };
        for (door, bound) in listeners.0 {
            server.accept(door, bound.listen()?);
        }
        Ok(server)
    }

    /// The certificates, where any door speaks TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Closes the doors, lets calls in flight end for at most `drain`, then ends the shards, all
    /// together: calls with one key wait for the same run, wherever their connections are.
    pub async fn stop(self, drain: Duration) {
        self.accepting.cancel();
        let (shards, release) = (self.shards.clone(), CancellationToken::new());
        let released = release.clone().drop_guard();
        let undrained = tasks::blocking(move || {
            let stops = shards.iter().map(|shard| shard.begin_stop(drain, release.clone()));
            let undrained: Vec<_> = stops.collect();
            undrained.into_iter().map(|left| left.recv().unwrap_or(0)).sum::<usize>()
        })
        .await;
        drop(released);
        if undrained > 0 {
            warn!(connections = undrained, ?drain, "closed connections that did not drain in time");
        }
    }

    fn accept(&self, door: Door, listener: Listener) {
        let (shards, stop) = (self.shards.clone(), self.accepting.clone());
        let gate = self.gate.clone();
        let next = AtomicUsize::new(0);
        tasks::spawn("accept", async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                match accepted {
                    Ok(accepted) => match gate.admit(door, accepted.address()) {
                        Ok(permit) => {
                            let turn = next.fetch_add(1, Ordering::Relaxed) % shards.len();
                            shards[turn].take(door, accepted, permit).await;
                        }
                        Err(full) => {
                            debug!(limit = full.label(), door = door.label(), "refused");
                            let labels = [door.label(), full.label()];
                            metrics::CONNECTIONS_REFUSED.counter(&labels).increment(1);
                        }
                    },
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
