//! The path of a prediction call, top to bottom: snapshot → route and arm → checks → limits →
//! queue → reply. Limits of single callers have been checked at the door.
//!
//! Whatever happens, one `Record` says how the call ended: it is written when it is dropped, so
//! refusals, cancellations and panics are counted like answers.

mod answer;
mod attempt;
mod keyed;
mod logged;
mod record;
mod refusal;
mod shadowed;
mod stand_in;

use std::sync::Arc;

use engine::Tensor;
use tokio::time::Instant;

use crate::contract::Flags;
use crate::error::{Kind, Rejection};
use crate::limits::{Demand, Limiter};
use crate::overload::Overload;
use crate::overload::memory::Pressure;
use crate::predictions::PredictionLog;
use crate::routing::Lot;
use crate::shadow::{Comparer, detached};
use crate::snapshot::{Backend, SnapshotCell};
use crate::telemetry::{Outcome, Shed, WireMetrics};
use crate::types::{
    Call, Caller, Deadline, Inputs, OrderedInputs, Patience, PredictionId, Protocol, Schedule,
    Signature,
};

use answer::Account;
use attempt::{Ran, Terms, has_passed};
use logged::Said;
use record::Record;
use refusal::Refused;
use shadowed::Seen;
use stand_in::Next;

pub use answer::{Answer, Reply, Routed};
pub use keyed::Keys;

/// What every call needs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub snapshots: SnapshotCell,
    pub wire: Arc<WireMetrics>,
    pub overload: Arc<Overload>,
    /// Calls with idempotency keys; `None` where keys have no effect.
    pub keys: Option<Keys>,
    /// Where calls are recorded; `None` where nothing is.
    pub log: Option<Arc<PredictionLog>>,
    /// Where answers of shadows are compared with the live ones.
    pub comparer: Comparer,
    /// How long calls may take where nothing else is said.
    pub timeouts: Patience,
}

impl Pipeline {
    /// Answers one call, under the limits that it met at its head.
    ///
    /// # Errors
    /// A rejection of the kind that its cause deserves; never anything private.
    pub async fn infer(&self, call: Call, limiter: &Arc<Limiter>) -> Result<Reply, Rejection> {
        if let Some(keys) = &self.keys
            && let Some(key) = call.key.clone()
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
        let prediction = PredictionId::new();
        // Only the destination is kept: holding the snapshot would keep all that it shows alive.
        let (found, said) = {
            let snapshot = self.snapshots.load();
            let said = self.log.as_ref().map(|_| Said::of(&snapshot, &call.model));
            (snapshot.resolve(&call, prediction), said.unwrap_or_default())
        };
        let destination = match found {
            Ok(destination) => destination,
            Err(rejection) => {
                self.wire.count(call.protocol, Outcome::Refused(rejection.kind()));
                let outcome = Outcome::Refused(rejection.kind());
                self.record_lost(&call, (prediction, Some(said)), (outcome, None));
                return Err(rejection.into());
            }
        };
        let mut record = Record::open((prediction, destination), &call, self.wire.clone());
        record.logged = self.note(&call, &record, said);
        match self.serve(call, limiter, &mut record).await {
            Ok(answer) => Ok((answer, record)),
            Err(refused) => {
                record.outcome = Outcome::Refused(refused.rejection.kind());
                Err(refused)
            }
        }
    }

    /// Has a call answered by the arm that it belongs to, or by what stands in for that.
    async fn serve(
        &self,
        mut call: Call,
        limiter: &Limiter,
        record: &mut Record,
    ) -> Result<Answer, Refused> {
        let inputs = std::mem::replace(&mut call.inputs, NO_INPUTS);
        record.keep_inputs(&inputs);
        record.admit()?;
        let backend = match record.first()? {
            Next::Backend(backend) => backend,
            Next::Declared => {
                let given = stand_in::declared((&call, inputs), limiter, record).await?;
                return settle(&call, given, record).await;
            }
        };
        self.check_memory(&backend, &call.schedule)?;
        let lot = record.lot(&call);
        // The arm's contract may replace values: whoever else runs the call gets them as sent.
        let sent = (lot.is_some() || record.has_stand_in()).then(|| inputs.clone());
        let Ready { inputs, flags, schedule } = self.prepare(&backend, &call, inputs)?;
        record.rows = inputs.rows;
        record.permits = limiter.admit(&demand(&call, &inputs)).await?;
        let terms = Terms {
            payer: Some((limiter, &call.caller)),
            schedule,
            prediction: record.prediction,
            headers: &call.headers,
        };
        let given = match attempt::run(&backend, inputs, &terms).await {
            Ok(ran) => {
                if let (Some(lot), Some(sent), None) = (lot, sent, record.fallback) {
                    self.show(record, (&call, lot), sent, &ran);
                }
                let (signature, deadline) = (backend.signature().clone(), terms.schedule.deadline);
                Given { ran, signature, flags, deadline }
            }
            Err(refused) => self.rescue(refused, (&call, sent), &terms, record).await?,
        };
        record.timings = given.ran.timings;
        record.computed = Instant::now();
        settle(&call, given, record).await
    }

    /// Checks all that a caller asks for before anything is done for it.
    fn prepare(&self, backend: &Backend, call: &Call, inputs: Inputs) -> Result<Ready, Refused> {
        let asked = call.schedule.deadline;
        let deadline = backend.timeouts(self.timeouts).deadline(call.arrived, asked);
        if has_passed(deadline) {
            return Err(refusal::expired(backend));
        }
        wanted(&call.outputs, backend.signature())?;
        let (inputs, flags) = check(backend, inputs)?;
        Ok(Ready { inputs, flags, schedule: Schedule { deadline, ..call.schedule } })
    }

    /// Shows a call that its arm answered to the shadows of its route.
    fn show(&self, record: &Record, (call, lot): (&Call, Lot), inputs: Inputs, ran: &Ran) {
        let (Some(assigned), Some(backend)) = (&record.assigned, &record.backend) else { return };
        let seen = Seen {
            prediction: record.prediction,
            headers: call.headers.clone(),
            inputs,
            signature: backend.signature().clone(),
            outputs: detached(ran.outputs.clone()),
            timings: ran.timings,
            is_remote: matches!(backend, Backend::Remote(_)),
            log: record.watched(),
        };
        let memory_is_short = self.overload.memory().pressure() != Pressure::None;
        shadowed::show(&self.comparer, &assigned.route, (lot, &seen), memory_is_short);
    }

    /// Refuses what can wait while memory is short.
    fn check_memory(&self, backend: &Backend, schedule: &Schedule) -> Result<(), Rejection> {
        if self.overload.memory().pressure() == Pressure::None {
            return Ok(());
        }
        let priority = schedule.priority.unwrap_or(backend.priority());
        let class = if schedule.shadow { "shadow" } else { priority.class() };
        if !matches!(class, "low" | "shadow") {
            return Ok(());
        }
        backend.metrics().shed(Shed::Memory, class);
        let text = "the gateway is overloaded: memory is short for calls of low priority";
        Err(Rejection::new(Kind::Overloaded, text).with_retry_after(backend.retry_after()))
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

/// In the place of inputs that are on their way.
const NO_INPUTS: Inputs = Inputs::Named(Vec::new());

/// A call as what runs it takes it.
struct Ready {
    inputs: OrderedInputs,
    flags: Option<Flags>,
    schedule: Schedule,
}

/// What a call came to, before its caller's choice of outputs.
struct Given {
    ran: Ran,
    signature: Arc<Signature>,
    flags: Option<Flags>,
    /// That of what gave it.
    deadline: Option<Deadline>,
}

/// The answer in the caller's words, once its row is where the route wants it.
async fn settle(call: &Call, given: Given, record: &mut Record) -> Result<Answer, Refused> {
    let deadline = given.deadline;
    record.keep_outputs(&given);
    let answer = record.answer(call, given)?;
    record.commit(deadline).await?;
    Ok(answer)
}

fn demand<'a>(call: &'a Call, inputs: &OrderedInputs) -> Demand<'a> {
    let bytes = inputs.tensors.iter().map(|tensor| tensor.data().len()).sum();
    Demand { caller: &call.caller, model: &call.model, rows: inputs.rows, bytes }
}

/// Indices of the outputs that a call wants, in its order; empty for all.
fn wanted(names: &[String], signature: &Signature) -> Result<Vec<usize>, Rejection> {
    names.iter().map(|name| signature.output_index(name)).collect()
}

/// The wanted ones of all outputs, with their indices.
fn pick(outputs: Vec<Tensor>, wanted: &[usize]) -> Vec<(usize, Tensor)> {
    match wanted.is_empty() {
        true => outputs.into_iter().enumerate().collect(),
        false => wanted.iter().map(|&index| (index, outputs[index].clone())).collect(),
    }
}

/// Checks the inputs of a call against the signature of what runs it and its input contract,
/// which may replace values.
fn check(backend: &Backend, inputs: Inputs) -> Result<(OrderedInputs, Option<Flags>), Rejection> {
    match backend.contract() {
        None => Ok((backend.signature().check(inputs)?, None)),
        Some(contract) => contract.check(backend.signature(), inputs),
    }
}
