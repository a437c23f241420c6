//! The closed loop: callers that each wait for an answer before they send the next request.
//!
//! All callers share one thread: on a small machine the load then takes no more than one core
//! from the server, and no call crosses threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::check::{Judge, Verdict};
use crate::client::Client;
use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::grpc_client::GrpcClient;
use crate::payload::{self, Payload, Shape, Wire};
use crate::recorder::{Call, Phase, Recorder};
use crate::target::Target;
use crate::tasks;

/// How long a caller waits after a failed call, so that a dead server is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

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

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Time(Duration),
    Requests(u64),
    /// When it is told to.
    Stop,
}

/// A run to be started.
#[derive(Debug, Clone)]
pub struct Load {
    pub target: Target,
    pub shape: Shape,
    pub protocol: Protocol,
    pub callers: usize,
    /// gRPC connections that the callers share; over HTTP each caller has its own.
    pub connections: usize,
    pub data: Arc<Dataset>,
    pub judge: Arc<Judge>,
}

/// A run under way.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
    started: Instant,
    limit: Limit,
}

/// What a run gave.
#[derive(Debug)]
pub struct Recording {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    pub recorder: Recorder,
}

#[derive(Debug)]
struct Shared {
    recorder: Mutex<Recorder>,
    /// Beginnings and ends of changes so far, see [`Phase::between`].
    changes: AtomicU64,
    stop: AtomicBool,
    /// The number of the next request.
    next: AtomicU64,
    last: u64,
    rows: u64,
    judge: Arc<Judge>,
}

impl Load {
    /// Runs to the limit.
    ///
    /// # Errors
    /// When no connection can be made or a request cannot be built. A call that fails is none.
    pub async fn run(&self, limit: Limit) -> anyhow::Result<Recording> {
        self.start(limit).await?.finish().await
    }

    /// Connects every caller, then lets them go.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub async fn start(&self, limit: Limit) -> anyhow::Result<Running> {
        ensure!(
            self.callers > 0 && self.connections > 0,
            "there must be a caller and a connection"
        );
        let shared = Arc::new(Shared {
            recorder: Mutex::default(),
            changes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            last: if let Limit::Requests(count) = limit { count } else { u64::MAX },
            rows: self.shape.rows as u64,
            judge: self.judge.clone(),
        });
        let mut ready = Vec::with_capacity(self.callers);
        let mut channels: Vec<GrpcClient> = Vec::new();
        let mut payloads: Vec<(Wire, Arc<[Payload]>)> = Vec::new();
        for caller in 0..self.callers {
            let wire = self.protocol.wire(caller);
            let requests = match payloads.iter().find(|(built, _)| *built == wire) {
                Some((_, requests)) => requests.clone(),
                None => {
                    let requests: Arc<[Payload]> =
                        payload::build(&self.data, &self.shape, wire)?.into();
                    payloads.push((wire, requests.clone()));
                    requests
                }
            };
            ready.push((self.connect(wire, &mut channels).await?, requests));
        }
        let started = Instant::now();
        let callers = ready
            .into_iter()
            .map(|(client, payloads)| tasks::spawn(call(shared.clone(), client, payloads)))
            .collect();
        Ok(Running { shared, callers, started, limit })
    }

    async fn connect(&self, wire: Wire, channels: &mut Vec<GrpcClient>) -> anyhow::Result<Client> {
        let Shape { model, version, .. } = &self.shape;
        if wire != Wire::Grpc {
            return Client::http(&self.target.http, model, version).await;
        }
        if channels.len() < self.connections {
            channels.push(GrpcClient::connect(&self.target.grpc).await?);
        }
        channels.rotate_right(1);
        Ok(Client::Grpc(channels[0].clone()))
    }
}

impl Running {
    /// A change of the server begins, or ends.
    pub fn mark_change(&self) {
        self.shared.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the run at its limit, or now if it has none, and waits for the last answers.
    ///
    /// # Errors
    /// When a caller panicked.
    pub async fn finish(self) -> anyhow::Result<Recording> {
        if let Limit::Time(duration) = self.limit {
            sleep(duration.saturating_sub(self.started.elapsed())).await;
        }
        if !matches!(self.limit, Limit::Requests(_)) {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        for caller in self.callers {
            caller.await?;
        }
        let elapsed = self.started.elapsed();
        let mut recorder = self.shared.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Recording { elapsed, recorder: std::mem::take(&mut recorder) })
    }
}

impl Shared {
    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The number of the next request, until the run is over.
    fn next(&self) -> Option<u64> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.last).then_some(number)
    }
}

/// One caller, until the run is over.
async fn call(shared: Arc<Shared>, mut client: Client, payloads: Arc<[Payload]>) {
    let count = payloads.len() as u64;
    while let Some(number) = shared.next() {
        let index = usize::try_from(number % count).expect("it is less than a length");
        let payload = &payloads[index];
        let (before, start) = (shared.changes(), Instant::now());
        let received = client.send(payload).await;
        let latency = start.elapsed();
        let phase = Phase::between(before, shared.changes());
        let judged = |answer| shared.judge.judge(answer, payload.first_row);
        let outcome: Result<Verdict, Failure> =
            received.and_then(|received| received.decode().map(judged));
        let failed = outcome.is_err();
        let call = Call { phase, latency, rows: shared.rows, outcome };
        shared.recorder.lock().unwrap_or_else(PoisonError::into_inner).record(call);
        if failed {
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}
