//! Callers over both protocols who write down which predictions they were answered with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use proto::inference::ModelInferRequest;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::answer::Answer;
use crate::client::Client;
use crate::configuration::KEY_HEADER;
use crate::failure::Failure;
use crate::grpc_client::GrpcClient;
use crate::payload::{self, Payload, Schedule, Shape, Wire};

use super::ledger::{Prediction, parse};
use super::site::Site;

/// A caller's pause after a failure.
const PAUSE: Duration = Duration::from_millis(5);

/// What callers saw.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: Vec<(Prediction, Instant)>,
    /// By kind, with the first text.
    pub(super) failures: BTreeMap<String, (u64, String)>,
    pub(super) slowest_answer: Duration,
    pub(super) slowest_failure: Duration,
    /// Answers without an id.
    pub(super) nameless: u64,
}

impl Tally {
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    /// Adds what was seen later.
    pub(super) fn append(&mut self, later: Self) {
        self.answered.extend(later.answered);
        for (kind, (count, text)) in later.failures {
            self.failures.entry(kind).or_insert((0, text)).0 += count;
        }
        self.slowest_answer = self.slowest_answer.max(later.slowest_answer);
        self.slowest_failure = self.slowest_failure.max(later.slowest_failure);
        self.nameless += later.nameless;
    }

    fn note(&mut self, result: Result<Answer, Failure>, took: Duration) {
        match result {
            Ok(answer) => {
                let id = answer.origin.prediction.as_deref().and_then(parse);
                self.nameless += u64::from(id.is_none());
                self.answered.extend(id.map(|id| (id, Instant::now())));
                self.slowest_answer = self.slowest_answer.max(took);
            }
            Err(failure) => {
                let kind = failure.kind.into_owned();
                self.failures.entry(kind).or_insert((0, failure.message)).0 += 1;
                self.slowest_failure = self.slowest_failure.max(took);
            }
        }
    }
}

/// Callers at work.
#[derive(Debug)]
pub(super) struct Crowd {
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    is_over: AtomicBool,
    tally: Mutex<Tally>,
}

enum Caller {
    Http(Client, Vec<Payload>),
    Grpc(GrpcClient, ModelInferRequest),
}

impl Crowd {
    /// Connects so many callers, a third of them with JSON, a third with binary tensors and a
    /// third over gRPC, and lets them go.
    ///
    /// # Errors
    /// When they cannot connect.
    pub(super) async fn begin(site: &Site, count: usize) -> anyhow::Result<Self> {
        let (target, data) = (site.target()?, site.rows().await?);
        let (model, version) = (site.model.to_owned(), String::new());
        let shape = Shape { model, version, rows: 1, schedule: Schedule::default() };
        let mut callers = Vec::with_capacity(count);
        for number in 0..count {
            let wire = [Wire::Grpc, Wire::HttpJson, Wire::HttpBinary][number % 3];
            let payloads = payload::build(&data, &shape, wire)?;
            callers.push(match wire {
                Wire::Grpc => {
                    let at = number % payloads.len();
                    let request = ModelInferRequest::decode(payloads[at].body.clone())?;
                    Caller::Grpc(GrpcClient::connect(&target.grpc).await?, request)
                }
                _ => Caller::Http(Client::http(&target.http, site.model, "").await?, payloads),
            });
        }
        let state = Arc::new(State::default());
        let run = |(number, caller)| crate::tasks::spawn(call(caller, number, state.clone()));
        let tasks = callers.into_iter().enumerate().map(run).collect();
        Ok(Self { state, tasks })
    }

    /// What was seen since this was asked last.
    pub(super) fn take(&self) -> Tally {
        std::mem::take(&mut self.state.lock())
    }

    /// Tells callers that no call follows the one that they are in.
    pub(super) fn end(&self) {
        self.state.is_over.store(true, Ordering::Relaxed);
    }

    /// Waits for the last answers.
    ///
    /// # Errors
    /// When a caller panicked.
    pub(super) async fn finish(self) -> anyhow::Result<Tally> {
        self.end();
        for task in self.tasks {
            task.await?;
        }
        Ok(std::mem::take(&mut self.state.lock()))
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn call(mut caller: Caller, number: usize, state: Arc<State>) {
    let mut turn = number;
    while !state.is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let result = caller.ask(turn).await;
        let failed = result.is_err();
        state.lock().note(result, began.elapsed());
        if failed {
            sleep(PAUSE).await;
        }
        turn += 1;
    }
}

impl Caller {
    async fn ask(&mut self, turn: usize) -> Result<Answer, Failure> {
        match self {
            Self::Http(client, payloads) => client.ask(&payloads[turn % payloads.len()]).await,
            Self::Grpc(client, request) => client.infer(request.clone(), (KEY_HEADER, "c")).await,
        }
    }
}
