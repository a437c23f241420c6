//! The path of a prediction call, top to bottom: snapshot → version → checks → limits → queue →
//! reply. Limits of single callers have been checked at the door.
//!
//! Whatever happens, one `Record` says how the call ended: it is written when it is dropped, so
//! refusals, cancellations and panics are counted like answers.

use std::sync::Arc;
use std::time::Duration;

use engine::Tensor;
use engine::error::Fault;
use tokio::time::{Instant, timeout_at};
use tracing::error;

use crate::batching::{Done, Failure};
use crate::contract::Flags;
use crate::error::{Kind, Rejection};
use crate::limits::{Demand, Limiter, Permits};
use crate::models::ServedVersion;
use crate::overload::Overload;
use crate::overload::memory::Pressure;
use crate::snapshot::SnapshotCell;
use crate::telemetry::{Outcome, Shed, WireMetrics};
use crate::types::{Call, Caller, Deadline, Inputs, ModelName, OrderedInputs, Protocol, Schedule};
use crate::types::{Signature, Timings, Version};

mod keyed;

pub use keyed::Keys;

/// What every call needs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub snapshots: SnapshotCell,
    pub wire: Arc<WireMetrics>,
    pub overload: Arc<Overload>,
    /// Calls with idempotency keys; `None` where keys have no effect.
    pub keys: Option<Keys>,
}

/// An answer for a caller. The call counts as answered once [`Reply::encoded`] is called.
#[derive(Debug)]
pub struct Reply {
    pub answer: Answer,
    /// Whether it is the answer of an earlier call with the same idempotency key.
    pub is_replayed: bool,
    account: Option<Account>,
}

/// A computed answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub model: ModelName,
    pub version: Version,
    pub signature: Arc<Signature>,
    /// The wanted outputs in the caller's order: index into the signature, and the tensor.
    pub outputs: Vec<(usize, Tensor)>,
    /// Values that break a rule of the model's input contract that only flags them.
    pub flags: Option<Flags>,
}

/// Who counts how a call ended.
#[derive(Debug)]
enum Account {
    Own(Record),
    Repeat(keyed::Repeat),
}

/// A call that was not answered.
#[derive(Debug)]
struct Refused {
    rejection: Rejection,
    /// Whether the call ran and failed: the same call would fail again.
    has_run: bool,
}

/// How one call ended; written on drop.
#[derive(Debug)]
struct Record {
    served: Arc<ServedVersion>,
    protocol: Protocol,
    arrived: Instant,
    decoded: Instant,
    computed: Instant,
    rows: usize,
    timings: Timings,
    outcome: Outcome,
    /// Room in quotas, until the call has ended.
    permits: Permits,
}

impl Pipeline {
    /// Answers one call, under the limits that it met at its head.
    ///
    /// # Errors
    /// A rejection of the kind that its cause deserves; never anything private.
    pub async fn infer(&self, mut call: Call, limiter: &Arc<Limiter>) -> Result<Reply, Rejection> {
        if let Some(keys) = &self.keys
            && let Some(key) = call.key.take()
        {
            return self.infer_once((keys, &key), call, limiter).await;
        }
        match self.execute(call, limiter).await {
            Ok((answer, record)) => {
                Ok(Reply { answer, is_replayed: false, account: Some(Account::Own(record)) })
            }
            Err(refused) => Err(refused.rejection),
        }
    }

    /// Runs one call, whatever its key.
    async fn execute(&self, call: Call, limiter: &Limiter) -> Result<(Answer, Record), Refused> {
        // Only the version is kept: holding the snapshot would keep all that it shows alive.
        let found =
            self.snapshots.load().find(&call.model, call.version.as_deref()).map(Arc::clone);
        let served = match found {
            Ok(served) => served,
            Err(rejection) => {
                self.wire.count(call.protocol, Outcome::Refused(rejection.kind()));
                return Err(rejection.into());
            }
        };
        let mut record = Record::open(served, call.protocol, call.arrived);
        let served = record.served.clone();
        let result = match self.check_memory(&served, &call.schedule) {
            Ok(()) => run(limiter, &served, call, &mut record).await,
            Err(rejection) => Err(rejection.into()),
        };
        match result {
            Ok(answer) => Ok((answer, record)),
            Err(refused) => {
                record.outcome = Outcome::Refused(refused.rejection.kind());
                Err(refused)
            }
        }
    }

    /// Refuses what can wait while memory is short.
    fn check_memory(&self, served: &ServedVersion, schedule: &Schedule) -> Result<(), Rejection> {
        if self.overload.memory().pressure() == Pressure::None {
            return Ok(());
        }
        let priority = schedule.priority.unwrap_or(served.manifest.batching.priority);
        let class = if schedule.shadow { "shadow" } else { priority.class() };
        if !matches!(class, "low" | "shadow") {
            return Ok(());
        }
        served.metrics.shed(Shed::Memory, class);
        let text = "the gateway is overloaded: memory is short for calls of low priority";
        Err(Rejection::new(Kind::Overloaded, text).with_retry_after(served.queue.retry_after()))
    }

    /// Counts a call to its caller, before its body is read.
    ///
    /// # Errors
    /// As [`Limiter::at_head`].
    pub async fn limit(
        &self,
        protocol: Protocol,
        limiter: &Limiter,
        caller: &Caller,
    ) -> Result<(), Rejection> {
        let limited = limiter.at_head(caller).await;
        limited.inspect_err(|rejection| self.refused_early(protocol, rejection.kind()))
    }

    /// Counts a request that was refused before its model was known: its caller may not call or
    /// calls too often, or it cannot be read.
    pub fn refused_early(&self, protocol: Protocol, kind: Kind) {
        self.wire.count(protocol, Outcome::Refused(kind));
    }
}

async fn run(
    limiter: &Limiter,
    served: &Arc<ServedVersion>,
    mut call: Call,
    record: &mut Record,
) -> Result<Answer, Refused> {
    let deadline = served.timeouts.deadline(call.arrived, call.schedule.deadline);
    call.schedule.deadline = deadline;
    if has_passed(deadline) {
        return Err(refusal(served, Failure::Expired));
    }
    let signature = served.signature();
    let wanted = call
        .outputs
        .iter()
        .map(|name| signature.output_index(name))
        .collect::<Result<Vec<_>, _>>()?;
    let (inputs, flags) = check(served, call.inputs)?;
    record.rows = inputs.rows;
    let demand = Demand {
        caller: &call.caller,
        model: &call.model,
        rows: inputs.rows,
        bytes: inputs.tensors.iter().map(|tensor| tensor.data().len()).sum(),
    };
    record.permits = limiter.admit(&demand).await?;
    let share = match limiter.divides_engine_time() {
        true => limiter.share(&call.caller, &served.queue.pressure(), inputs.rows)?,
        false => None,
    };
    let mut waiting = served.queue.submit(inputs.tensors, inputs.rows, call.schedule)?;
    let ending = match deadline {
        None => waiting.await,
        // Nobody waits beyond the deadline, however long the engine is busy with others.
        Some(Deadline(at)) => match timeout_at(at, &mut waiting).await {
            Ok(ending) => ending,
            Err(_) if waiting.has_started() => return Err(refusal(served, Failure::Overdue)),
            Err(_) => return Err(refusal(served, Failure::Expired)),
        },
    };
    // The engine is done with the call.
    drop(share);
    // The sender is dropped unsent only when batching itself panicked.
    let done = match ending {
        Ok(Ok(done)) => done,
        Ok(Err(failure)) => return Err(refusal(served, failure)),
        Err(_) => return Err(Rejection::new(Kind::Internal, "the call was lost").into()),
    };
    let Done { outputs, timings } = done;
    // Nobody waits any more: what it computed is not worth encoding.
    if has_passed(deadline) {
        return Err(refusal(served, Failure::Overdue));
    }
    let checked = signature.check_outputs(&outputs, inputs.rows);
    checked.map_err(|rejection| Refused { rejection, has_run: true })?;
    record.timings = timings;
    record.computed = Instant::now();
    let outputs = match wanted.is_empty() {
        true => outputs.into_iter().enumerate().collect(),
        false => wanted.into_iter().map(|index| (index, outputs[index].clone())).collect(),
    };
    let (model, version) = (served.model.clone(), served.version);
    Ok(Answer { model, version, signature: signature.clone(), outputs, flags })
}

/// Checks the inputs of a call against the model's signature and its input contract, which may
/// replace values.
fn check(
    served: &ServedVersion,
    inputs: Inputs,
) -> Result<(OrderedInputs, Option<Flags>), Rejection> {
    match &served.contract {
        None => Ok((served.signature().check(inputs)?, None)),
        Some(contract) => contract.check(served.signature(), inputs),
    }
}

fn has_passed(deadline: Option<Deadline>) -> bool {
    deadline.is_some_and(|deadline| deadline.has_passed(Instant::now()))
}

/// What a caller is told about a failed run.
fn refusal(served: &ServedVersion, failure: Failure) -> Refused {
    let label = served.label();
    // Memory may be there again the next time.
    let has_run = match &failure {
        Failure::Engine(error) => !matches!(error.fault(), Fault::Memory),
        // With more time the same call would be answered.
        Failure::Expired | Failure::Overdue | Failure::Cancelled => false,
        Failure::Displaced | Failure::Stopping | Failure::CircuitOpen(_) => false,
        Failure::Input(_) | Failure::TimedOut(_) | Failure::Panicked | Failure::Outputs(_) => true,
    };
    let rejection = match failure {
        Failure::Engine(error) => {
            let kind = match error.fault() {
                Fault::Input => Kind::InvalidInput,
                Fault::Memory => Kind::Overloaded,
                Fault::Load | Fault::Device | Fault::Run | Fault::Output => Kind::EngineFailed,
            };
            let text = format!("model {label}: {}", error.message());
            Rejection::new(kind, text).with_detail(error.detail())
        }
        // The model answers its own inputs: this call's are the cause.
        Failure::Input(error) => Rejection::invalid(format!("model {label}: {}", error.message()))
            .with_detail(error.detail()),
        Failure::Expired => Rejection::new(
            Kind::DeadlineExceeded,
            format!("model {label}: the deadline passed before there was an answer"),
        ),
        Failure::Overdue => Rejection::new(
            Kind::DeadlineExceeded,
            format!("model {label}: the deadline passed during the run"),
        ),
        Failure::Cancelled => Rejection::new(Kind::Cancelled, "the caller went away"),
        Failure::Displaced => Rejection::new(
            Kind::Overloaded,
            format!("the queue of {label} is full: a more urgent call took the place"),
        )
        .with_retry_after(served.queue.retry_after()),
        Failure::Stopping => Rejection::new(Kind::NotReady, "the gateway is stopping"),
        Failure::CircuitOpen(after) => {
            Rejection::new(Kind::CircuitOpen, served.breaker.refusal()).with_retry_after(after)
        }
        Failure::TimedOut(limit) => Rejection::new(
            Kind::EngineFailed,
            format!("model {label}: the run took longer than {limit:?} and was given up"),
        ),
        Failure::Panicked => {
            Rejection::new(Kind::EngineFailed, format!("model {label}: the engine failed"))
        }
        Failure::Outputs(text) => {
            error!(model = label, error = text, "the model breaks its signature");
            Rejection::new(Kind::EngineFailed, format!("model {label}: {text}"))
        }
    };
    Refused { rejection, has_run }
}

impl Answer {
    /// Bytes that it takes in memory of its own, its outputs above all.
    fn size(&self) -> usize {
        /// A tensor's shape, its place in the answer and the head of its allocation.
        const PER_OUTPUT: usize = 128;
        let outputs = self.outputs.iter();
        let outputs: usize = outputs.map(|(_, tensor)| tensor.data().len() + PER_OUTPUT).sum();
        outputs + self.flags.as_ref().map_or(0, |flags| flags.len())
    }
}

impl Reply {
    /// Says that the answer is encoded and will be sent.
    pub fn encoded(mut self) {
        match &mut self.account {
            Some(Account::Own(record)) => record.outcome = Outcome::Answered,
            Some(Account::Repeat(repeat)) => repeat.outcome = Outcome::Replayed,
            None => {}
        }
    }

    /// Says that the answer could not be encoded for this caller.
    #[must_use]
    pub fn refuse(mut self, rejection: Rejection) -> Rejection {
        let outcome = Outcome::Refused(rejection.kind());
        match &mut self.account {
            Some(Account::Own(record)) => record.outcome = outcome,
            Some(Account::Repeat(repeat)) => repeat.outcome = outcome,
            None => {}
        }
        rejection
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, has_run: false }
    }
}

impl Record {
    fn open(served: Arc<ServedVersion>, protocol: Protocol, arrived: Instant) -> Self {
        let now = Instant::now();
        Self {
            served,
            protocol,
            arrived,
            decoded: now,
            computed: now,
            rows: 0,
            timings: Timings::default(),
            // Whoever drops the call without a word has cancelled it.
            outcome: Outcome::Refused(Kind::Cancelled),
            permits: Permits::default(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        let total = now.duration_since(self.arrived);
        self.served.metrics.count(self.protocol, self.outcome);
        match self.outcome {
            Outcome::Answered => {
                self.served.stats.answered(self.rows, total, &self.timings);
                let decode: Duration = self.decoded.duration_since(self.arrived);
                self.served.metrics.record_phases(decode, &self.timings);
                let encode = now.duration_since(self.computed);
                self.served.metrics.record_answer(self.protocol, encode, total);
            }
            Outcome::Replayed => {}
            Outcome::Refused(kind) => self.served.stats.refused(kind, total),
        }
    }
}
