//! The path of a prediction call, top to bottom: snapshot → version → checks → queue → reply.
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
use crate::error::{Kind, Rejection};
use crate::models::ServedVersion;
use crate::overload::Overload;
use crate::overload::memory::Pressure;
use crate::snapshot::SnapshotCell;
use crate::telemetry::{Outcome, Shed, WireMetrics};
use crate::types::{Call, Deadline, Protocol, Schedule, Timings};

/// What every call needs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub snapshots: SnapshotCell,
    pub wire: Arc<WireMetrics>,
    pub overload: Arc<Overload>,
}

/// A computed answer. The call counts as answered once [`Reply::encoded`] is called.
#[derive(Debug)]
pub struct Reply {
    pub served: Arc<ServedVersion>,
    /// The wanted outputs in the caller's order: index into the signature, and the tensor.
    pub outputs: Vec<(usize, Tensor)>,
    record: Record,
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
}

impl Pipeline {
    /// Answers one call.
    ///
    /// # Errors
    /// A rejection of the kind that its cause deserves; never anything private.
    pub async fn infer(&self, call: Call) -> Result<Reply, Rejection> {
        // Only the version is kept: holding the snapshot would keep all that it shows alive.
        let found =
            self.snapshots.load().find(&call.model, call.version.as_deref()).map(Arc::clone);
        let served = match found {
            Ok(served) => served,
            Err(rejection) => {
                self.wire.count(call.protocol, Outcome::Refused(rejection.kind()));
                return Err(rejection);
            }
        };
        let mut record = Record::open(served.clone(), call.protocol, call.arrived);
        let result = match self.check_memory(&served, &call.schedule) {
            Ok(()) => run(&served, call, &mut record).await,
            Err(rejection) => Err(rejection),
        };
        match result {
            Ok(outputs) => Ok(Reply { served, outputs, record }),
            Err(rejection) => Err(record.refuse(rejection)),
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

    /// Counts a request that could not be decoded.
    pub fn undecodable(&self, protocol: Protocol, kind: Kind) {
        self.wire.count(protocol, Outcome::Refused(kind));
    }
}

async fn run(
    served: &Arc<ServedVersion>,
    mut call: Call,
    record: &mut Record,
) -> Result<Vec<(usize, Tensor)>, Rejection> {
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
    let inputs = signature.check(call.inputs)?;
    record.rows = inputs.rows;
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
    // The sender is dropped unsent only when batching itself panicked.
    let done = match ending {
        Ok(Ok(done)) => done,
        Ok(Err(failure)) => return Err(refusal(served, failure)),
        Err(_) => return Err(Rejection::new(Kind::Internal, "the call was lost")),
    };
    let Done { outputs, timings } = done;
    // Nobody waits any more: what it computed is not worth encoding.
    if has_passed(deadline) {
        return Err(refusal(served, Failure::Overdue));
    }
    signature.check_outputs(&outputs, inputs.rows)?;
    record.timings = timings;
    record.computed = Instant::now();
    Ok(match wanted.is_empty() {
        true => outputs.into_iter().enumerate().collect(),
        false => wanted.into_iter().map(|index| (index, outputs[index].clone())).collect(),
    })
}

fn has_passed(deadline: Option<Deadline>) -> bool {
    deadline.is_some_and(|deadline| deadline.has_passed(Instant::now()))
}

/// What a caller is told about a failed run.
fn refusal(served: &ServedVersion, failure: Failure) -> Rejection {
    let label = served.label();
    match failure {
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
    }
}

impl Reply {
    /// Says that the answer is encoded and will be sent.
    pub fn encoded(mut self) {
        self.record.outcome = Outcome::Answered;
    }

    /// Says that the answer could not be encoded for this caller.
    #[must_use]
    pub fn refuse(mut self, rejection: Rejection) -> Rejection {
        self.record.outcome = Outcome::Refused(rejection.kind());
        rejection
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
        }
    }

    fn refuse(mut self, rejection: Rejection) -> Rejection {
        self.outcome = Outcome::Refused(rejection.kind());
        rejection
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
            Outcome::Refused(kind) => self.served.stats.refused(kind, total),
        }
    }
}
