//! A run: connects, shares stages and connections out to load threads, lets them go and adds up
//! what they wrote down.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Uri;
use tokio::time::{Instant, sleep};

use crate::book::{Book, Check, Shared};
use crate::check::Judge;
use crate::connection::{Connection, Route};
use crate::dataset::Dataset;
use crate::hpack::Encoded;
use crate::keys::{HEADER, Keys, Population};
use crate::payload::{Shape, Wire};
use crate::plan::{Drive, Limit, LoadStage};
use crate::poller::Poller;
use crate::recording::{Outcome, Recording};
use crate::request::{self, Request};
use crate::target::Target;
use crate::tasks::{self, Thread};
use crate::timeline::Timeline;
use crate::worker::{Pages, Share, Worker};

/// How long a call may take unless something else is said.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between the start of the threads and the first call.
const LEAD: Duration = Duration::from_millis(5);
/// What separates the random numbers of threads and stages.
const SEED_STEP: u64 = 1 << 20;

/// Which way the callers take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// REST with numbers in JSON
    HttpJson,
    /// REST with binary tensors
    HttpBinary,
    /// gRPC with raw tensors
    Grpc,
    /// Half the callers REST, of them half binary; half gRPC
    Mixed,
}

impl Protocol {
    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpJson => "http-json",
            Self::HttpBinary => "http-binary",
            Self::Grpc => "grpc",
            Self::Mixed => "mixed",
        }
    }

    fn wire(self, caller: usize) -> Wire {
        match self {
            Self::HttpJson => Wire::HttpJson,
            Self::HttpBinary => Wire::HttpBinary,
            Self::Grpc => Wire::Grpc,
            Self::Mixed => [Wire::HttpJson, Wire::Grpc, Wire::HttpBinary, Wire::Grpc][caller % 4],
        }
    }
}

/// A run to be started.
#[derive(Debug, Clone)]
pub struct Load {
    pub target: Target,
    pub shape: Shape,
    pub protocol: Protocol,
    /// Of a closed loop that is not said otherwise.
    pub callers: usize,
    /// gRPC connections that the callers share; over HTTP each caller has its own.
    pub connections: usize,
    pub data: Arc<Dataset>,
    pub judge: Arc<Judge>,
    /// Load threads.
    pub threads: usize,
    /// How long a call may take.
    pub patience: Duration,
    pub keys: Option<Population>,
    pub check: Check,
    /// What arrivals and keys are drawn with; the same seed gives the same ones.
    pub seed: u64,
}

/// A run under way.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<Thread<anyhow::Result<Pages>>>,
    stages: Vec<LoadStage>,
    started: Instant,
}

/// How far a run is.
#[derive(Debug, Clone)]
pub struct Watch {
    shared: Arc<Shared>,
    started: Instant,
}

// === impl Load ===

impl Load {
    /// One caller on one thread, every answer checked.
    #[must_use]
    pub fn new(
        target: Target,
        shape: Shape,
        protocol: Protocol,
        data: Arc<Dataset>,
        judge: Judge,
    ) -> Self {
        Self {
            target,
            shape,
            protocol,
            callers: 1,
            connections: 1,
            data,
            judge: Arc::new(judge),
            threads: 1,
            patience: PATIENCE,
            keys: None,
            check: Check::All,
            seed: 1,
        }
    }

    /// Runs its callers in a closed loop to the limit.
    ///
    /// # Errors
    /// When no connection can be made or a request cannot be built. A call that fails is none.
    pub async fn run(&self, limit: Limit) -> anyhow::Result<Recording> {
        Ok(self.start(limit).await?.finish().await?.measured())
    }

    /// Connects its callers for a closed loop, then lets them go.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub async fn start(&self, limit: Limit) -> anyhow::Result<Running> {
        let drive = Drive::callers(self.callers);
        let stage = LoadStage { name: "load".to_owned(), drive, limit, warm_up: false };
        self.begin(vec![stage]).await
    }

    /// Connects everything that the stages need, then begins the first.
    ///
    /// # Errors
    /// As for [`Self::run`], and when a stage makes no sense.
    pub async fn begin(&self, stages: Vec<LoadStage>) -> anyhow::Result<Running> {
        for stage in &stages {
            stage.check().with_context(|| format!("stage '{}'", stage.name))?;
        }
        let most = stages.iter().map(|stage| stage.drive.most()).max();
        let most = most.context("there must be a stage")?;
        ensure!(self.connections > 0, "there must be a connection");
        ensure!(self.threads > 0, "there must be a thread");
        ensure!(!self.patience.is_zero(), "calls must have some time");
        if let Some(keys) = &self.keys {
            keys.check()?;
        }
        let shared = Arc::new(Shared::default());
        let (load, plan, pages) = (self.clone(), stages.clone(), shared.clone());
        // Connecting blocks.
        let connect = move || load.workers(&plan, most, &pages);
        let workers = tasks::thread("connect".to_owned(), connect)?.join().await??;
        let origin = Instant::now() + LEAD;
        let mut threads = Vec::with_capacity(workers.len());
        for (index, worker) in workers.into_iter().enumerate() {
            threads.push(tasks::thread(format!("load-{index}"), move || worker.run(origin))?);
        }
        Ok(Running { shared, threads, stages, started: origin })
    }

    fn workers(
        &self,
        stages: &[LoadStage],
        most: usize,
        shared: &Arc<Shared>,
    ) -> anyhow::Result<Vec<Worker>> {
        let threads = self.threads.min(most);
        let begun: Vec<_> = stages.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
        let mut routes = Routes::new(self)?;
        let mut workers = Vec::with_capacity(threads);
        for thread in 0..threads {
            let poller = Poller::new()?;
            let seed = self.seed + SEED_STEP * thread as u64;
            let shares =
                stages.iter().zip(&begun).enumerate().map(|(number, (stage, begun))| Share {
                    stage: share(stage, thread, threads),
                    part: part(thread, threads),
                    seed: seed + number as u64,
                    begun: begun.clone(),
                });
            let rows = self.shape.rows as u64;
            let book = Book::new(shared.clone(), self.judge.clone(), rows, self.check);
            let mut connections = Vec::new();
            for (route, requests) in routes.of_thread(thread, threads, most)? {
                let address = route.address;
                let connection = Connection::open(connections.len(), route, &poller)
                    .with_context(|| format!("cannot connect to {address}"))?;
                connections.push((connection, requests));
            }
            workers.push(Worker {
                poller,
                connections,
                shares: shares.collect(),
                keys: self.keys.as_ref().map(|keys| Keys::new(keys, seed)),
                patience: self.patience,
                book,
            });
        }
        Ok(workers)
    }
}

/// How many of some things a thread gets.
fn count(all: usize, thread: usize, threads: usize) -> usize {
    all / threads + usize::from(thread < all % threads)
}

#[expect(clippy::cast_precision_loss, reason = "there are few threads")]
fn part(thread: usize, threads: usize) -> (f64, f64) {
    (1.0 / threads as f64, thread as f64 / threads as f64)
}

/// What a thread does of a stage. Rates are shared out where they become moments.
fn share(stage: &LoadStage, thread: usize, threads: usize) -> LoadStage {
    let count = |all: usize| count(all, thread, threads);
    let drive = match stage.drive {
        Drive::Closed { from, to } => Drive::Closed { from: count(from), to: count(to) },
        Drive::Open { from, to, arrivals, bound } => {
            // No thread is without: its part of the rate could not go out.
            Drive::Open { from, to, arrivals, bound: count(bound).max(1) }
        }
    };
    LoadStage { drive, ..stage.clone() }
}

/// Where connections go, and the requests for them.
struct Routes<'a> {
    load: &'a Load,
    built: Vec<(Wire, Route, Arc<[Request]>)>,
}

impl<'a> Routes<'a> {
    fn new(load: &'a Load) -> anyhow::Result<Self> {
        let wires = match load.protocol {
            Protocol::HttpJson => &[Wire::HttpJson][..],
            Protocol::HttpBinary => &[Wire::HttpBinary],
            Protocol::Grpc => &[Wire::Grpc],
            Protocol::Mixed => &[Wire::HttpJson, Wire::HttpBinary, Wire::Grpc],
        };
        let mut built = Vec::with_capacity(wires.len());
        for &wire in wires {
            let url = if wire == Wire::Grpc { &load.target.grpc } else { &load.target.http };
            let (authority, address) = resolve(url)?;
            let requests = request::build(&load.data, &load.shape, wire, &authority)?;
            let headers = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/inference.GRPCInferenceService/ModelInfer"),
                (":authority", &authority),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("user-agent", concat!("penstock-loadtest/", env!("CARGO_PKG_VERSION"))),
            ];
            let headers = Encoded::new(&headers);
            let key_header = load.keys.as_ref().map_or(HEADER, |keys| &keys.header).to_owned();
            let route = Route { address, wire, headers, key_header, most: 1 };
            built.push((wire, route, requests.into()));
        }
        Ok(Self { load, built })
    }

    /// The connections of a thread: one for each of its callers over HTTP, and its part of those
    /// that are shared over gRPC.
    fn of_thread(
        &mut self,
        thread: usize,
        threads: usize,
        most: usize,
    ) -> anyhow::Result<Vec<(Route, Arc<[Request]>)>> {
        let mut grpc = 0;
        let mut connections = Vec::new();
        for caller in (thread..most).step_by(threads) {
            let wire = self.load.protocol.wire(caller);
            if wire == Wire::Grpc {
                grpc += 1;
                continue;
            }
            connections.push(self.route(wire, 1)?);
        }
        let shared = count(self.load.connections, thread, threads).max(1).min(grpc);
        for index in 0..shared {
            connections.push(self.route(Wire::Grpc, count(grpc, index, shared))?);
        }
        Ok(connections)
    }

    fn route(&self, wire: Wire, most: usize) -> anyhow::Result<(Route, Arc<[Request]>)> {
        let built = self.built.iter().find(|built| built.0 == wire);
        let (_, route, requests) = built.context("every wire of a protocol has its requests")?;
        Ok((Route { most, ..route.clone() }, requests.clone()))
    }
}

/// The authority of `http://host:port` and where it is.
fn resolve(url: &str) -> anyhow::Result<(String, SocketAddr)> {
    let uri: Uri = url.parse().with_context(|| format!("'{url}' is no address"))?;
    let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
    ensure!(plain, "'{url}' is not of the form http://HOST:PORT");
    let host = uri.host().with_context(|| format!("'{url}' names no host"))?;
    let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let mut found =
        authority.to_socket_addrs().with_context(|| format!("cannot find '{authority}'"))?;
    let address = found.next().with_context(|| format!("'{authority}' has no address"))?;
    Ok((authority, address))
}

// === impl Running ===

impl Running {
    /// A change of the server begins, or ends.
    pub fn mark_change(&self) {
        self.shared.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// For someone who wants to know how far it is.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { shared: self.shared.clone(), started: self.started }
    }

    /// Ends the run at its limit, or now if it has none, and waits for the last answers.
    ///
    /// # Errors
    /// When a thread panicked or could not go on.
    pub async fn finish(mut self) -> anyhow::Result<Outcome> {
        if self.stages.iter().any(|stage| stage.limit == Limit::Stop) {
            // What was started is measured, if only for a moment.
            sleep(self.started.saturating_duration_since(Instant::now())).await;
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        let mut recordings = vec![Recording::default(); self.stages.len()];
        let mut timeline = Timeline::default();
        for thread in std::mem::take(&mut self.threads) {
            let (pages, times) = thread.join().await??;
            for (recording, page) in recordings.iter_mut().zip(&pages) {
                recording.join(page);
            }
            timeline.merge(times);
        }
        let stages = std::mem::take(&mut self.stages).into_iter().zip(recordings).collect();
        Ok(Outcome { stages, timeline })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

// === impl Watch ===

impl Watch {
    /// The time since the start, and how many calls were answered and failed in it.
    #[must_use]
    pub fn look(&self) -> (Duration, u64, u64) {
        let Shared { answered, failed, .. } = &*self.shared;
        let counts = [answered, failed].map(|count| count.load(Ordering::Relaxed));
        (self.started.elapsed(), counts[0], counts[1])
    }
}
