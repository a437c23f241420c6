//! Calls with an idempotency key: the first one runs, its repeats get how it ended.
//!
//! A run belongs to all who wait for it: it goes on while one of them is left. What is kept is an
//! answer, or a failure of the run itself; a refusal before the run (a model that is not ready) is
//! told to those who wait and forgotten, so that a retry can succeed. What is one caller's or one
//! moment's own (a deadline, a limit, a full queue) is told to that caller alone: the next one runs.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use engine::Tensor;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use super::Pipeline;
use super::answer::{Account, Answer, Reply};
use super::logged::{Origin, Repeated};
use super::record::Record;
use super::refusal::Refused;
use crate::error::{Kind, Rejection};
use crate::idempotency::{self, Claim, Entered, Flight, Refusal, Table};
use crate::limits::Limiter;
use crate::telemetry::{Outcome, VersionMetrics, WireMetrics};
use crate::types::{Call, Deadline, IdempotencyKey, PredictionId, Protocol};

/// The table of the pipeline.
pub type Keys = Table<Kept, Ended>;

/// What repeats get.
pub(super) type Kept = Result<Arc<Given>, Rejection>;

/// An answer with the counters of its version, but not the version: that may leave meanwhile.
#[derive(Debug)]
pub struct Given {
    answer: Answer,
    /// `None` for an answer that nothing computed.
    metrics: Option<Arc<VersionMetrics>>,
    /// For the rows of repeats; `None` where the call left none.
    origin: Option<Origin>,
}

/// How a run ended, for all who wait for it.
#[derive(Debug, Clone)]
pub struct Ended {
    result: Kept,
    /// For the first caller. If it has left, the record is dropped as that of a cancelled call.
    record: Arc<Mutex<Option<Record>>>,
}

/// Counts a repeat when it is dropped; says "cancelled" unless told otherwise.
#[derive(Debug)]
pub(super) struct Repeat {
    metrics: Option<Arc<VersionMetrics>>,
    wire: Arc<WireMetrics>,
    protocol: Protocol,
    /// For its row in the prediction log.
    logged: Option<Repeated>,
    pub(super) outcome: Outcome,
}

/// Counts a call that waits for another one's run, should it leave or be refused.
struct Waiting<'a> {
    pipeline: &'a Pipeline,
    call: Option<&'a Call>,
    protocol: Protocol,
    outcome: Option<Outcome>,
}

impl Pipeline {
    /// Answers a call with a key.
    pub(super) async fn infer_once(
        &self,
        (keys, key): (&Keys, &IdempotencyKey),
        call: Call,
        limiter: &Arc<Limiter>,
    ) -> Result<Reply, Rejection> {
        let (name, body) = (idempotency::name(&call, key.as_str()), idempotency::body(&call));
        let protocol = call.protocol;
        let mut call = Some(call);
        loop {
            let entered = keys.enter(name, &body, |claim| {
                let call = call.take().expect("the table asks for one run");
                self.clone().run_once(claim, call, limiter.clone()).boxed()
            });
            match entered {
                Ok(Entered::First(flight)) => {
                    let ended = flight.await;
                    let record = ended.record.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let account = record.map(Account::Own);
                    return ended.result.map(|given| given.reply(account, false));
                }
                Ok(Entered::Joined(flight)) => {
                    let deadline = call.as_ref().and_then(|call| self.deadline(call));
                    let joined = self.join(flight, (protocol, call.as_ref()), deadline);
                    let Some(ended) = joined.await else { continue };
                    return self.replay(ended, protocol, call.as_ref()).await;
                }
                Ok(Entered::Replayed(kept)) => {
                    if let Err(rejection) = &kept {
                        self.wire.count(protocol, Outcome::Replayed);
                        let outcome = (Outcome::Replayed, Some(rejection.kind()));
                        self.record_unrun(call.as_ref(), outcome);
                    }
                    return self.replay(kept, protocol, call.as_ref()).await;
                }
                Err(refusal) => {
                    let rejection = refused(refusal);
                    let outcome = Outcome::Refused(rejection.kind());
                    self.wire.count(protocol, outcome);
                    self.record_unrun(call.as_ref(), (outcome, None));
                    return Err(rejection);
                }
            }
        }
    }

    /// Records a call that was told something without a run of its own.
    fn record_unrun(&self, call: Option<&Call>, outcome: (Outcome, Option<Kind>)) {
        if let Some(call) = call {
            self.record_lost(call, (PredictionId::new(), None), outcome);
        }
    }

    /// Runs a call for all who wait for it.
    async fn run_once(self, claim: Claim<Kept, Ended>, call: Call, limiter: Arc<Limiter>) -> Ended {
        let (result, record) = match self.execute(call, &limiter).await {
            Ok((answer, record)) => {
                let metrics = record.backend.as_ref().map(|backend| backend.metrics().clone());
                let given = Given { answer, metrics, origin: record.origin() };
                claim.keep(given.answer.size(), || Ok(Arc::new(given.detached())));
                (Ok(Arc::new(given)), Some(record))
            }
            Err(Refused { rejection, has_run }) => {
                if has_run {
                    claim.keep(rejection.public_message().len(), || Err(rejection.clone()));
                }
                (Err(rejection), None)
            }
        };
        Ended { result, record: Arc::new(Mutex::new(record)) }
    }

    /// How long a call may wait that another one runs for: as if it ran itself.
    fn deadline(&self, call: &Call) -> Option<Deadline> {
        let asked = call.schedule.deadline;
        let found = self.snapshots.load().resolve(call, PredictionId::default());
        match found.ok().and_then(|destination| destination.backend()) {
            Some(backend) => backend.timeouts(self.timeouts).deadline(call.arrived, asked),
            // The run goes on with a version that has left; it ends as its first caller asked.
            None => asked,
        }
    }

    /// Waits for the run of another call; `None` when that was refused for what is its own
    /// caller's or its own moment's (a deadline, a limit, a full queue), and this one has time.
    async fn join(
        &self,
        flight: Flight<Ended>,
        (protocol, call): (Protocol, Option<&Call>),
        deadline: Option<Deadline>,
    ) -> Option<Kept> {
        let outcome = Some(Outcome::Refused(Kind::Cancelled));
        let mut waiting = Waiting { pipeline: self, call, protocol, outcome };
        let ended = match deadline {
            None => Some(flight.await),
            Some(Deadline(at)) => timeout_at(at, flight).await.ok(),
        };
        let result = match ended {
            Some(ended) => ended.result,
            None => {
                let text = "the deadline passed before the first call with this key had ended";
                Err(Rejection::new(Kind::DeadlineExceeded, text))
            }
        };
        let has_time = deadline.is_none_or(|deadline| !deadline.has_passed(Instant::now()));
        waiting.outcome = None;
        match result {
            Err(other) if has_time && !ended_for_all(other.kind()) => None,
            Err(rejection) => {
                waiting.outcome = Some(Outcome::Refused(rejection.kind()));
                Some(Err(rejection))
            }
            Ok(given) => Some(Ok(given)),
        }
    }
}

impl Pipeline {
    /// What a repeat is told, once its row is written where its calls are durable.
    async fn replay(
        &self,
        kept: Kept,
        protocol: Protocol,
        call: Option<&Call>,
    ) -> Result<Reply, Rejection> {
        let given = kept.map_err(Rejection::into_replayed)?;
        let outcome = Outcome::Refused(Kind::Cancelled);
        let (metrics, wire) = (given.metrics.clone(), self.wire.clone());
        let logged =
            call.and_then(|call| self.note_repeat(call, &given.answer, given.origin.as_ref()));
        let mut repeat = Repeat { metrics, wire, protocol, logged, outcome };
        if let Some(logged) = repeat.logged.as_mut().filter(|logged| logged.is_durable()) {
            let deadline = call.and_then(|call| self.deadline(call));
            if let Err(refused) = logged.commit(deadline).await {
                repeat.outcome = Outcome::Refused(refused.kind());
                return Err(refused);
            }
        }
        Ok(given.reply(Some(Account::Repeat(repeat)), true))
    }
}

/// Whether those who wait for a call are refused with it. Otherwise one of them runs it anew.
const fn ended_for_all(kind: Kind) -> bool {
    !matches!(kind, Kind::DeadlineExceeded | Kind::Overloaded | Kind::RateLimited)
}

fn refused(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::Mismatch => Rejection::new(
            Kind::IdempotencyMismatch,
            "this idempotency key was used for a call with another body",
        ),
        Refusal::Full => Rejection::new(
            Kind::Overloaded,
            "as many calls with idempotency keys are under way as may be",
        ),
    }
}

impl Given {
    fn reply(&self, account: Option<Account>, is_replayed: bool) -> Reply {
        Reply { answer: self.answer.clone(), is_replayed, account }
    }

    /// The same without a hold on memory that others share, such as the outputs of its batch.
    fn detached(&self) -> Self {
        let own = |(index, tensor): &(usize, Tensor)| {
            let data = Bytes::copy_from_slice(tensor.data());
            let same = Tensor::new(tensor.datatype(), tensor.shape().to_vec(), data);
            (*index, same.unwrap_or_else(|_| tensor.clone()))
        };
        let outputs = self.answer.outputs.iter().map(own).collect();
        Self {
            answer: Answer { outputs, ..self.answer.clone() },
            metrics: self.metrics.clone(),
            origin: self.origin.clone(),
        }
    }
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if let Some(logged) = &self.logged {
            logged.record(self.outcome);
        }
        match &self.metrics {
            Some(metrics) => metrics.count(self.protocol, self.outcome),
            None => self.wire.count(self.protocol, self.outcome),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.pipeline.wire.count(self.protocol, outcome);
            self.pipeline.record_unrun(self.call, (outcome, None));
        }
    }
}
