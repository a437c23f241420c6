//! One run of a call by what answers it.

use engine::Tensor;
use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::refusal::{self, Refused};
use crate::batching::{Done, Failure};
use crate::error::{Kind, Rejection};
use crate::limits::Limiter;
use crate::models::ServedVersion;
use crate::snapshot::{Backend, Remote};
use crate::types::{AnsweredBy, Caller, Deadline, OrderedInputs, PredictionId, Schedule, Timings};
use crate::upstream::{self, RemoteAnswer, RemoteCall, Unanswered};

/// The trace that a call belongs to (W3C Trace Context).
const TRACE: &str = "traceparent";

/// What a run needs beside its inputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Whose share of engine time it takes; nobody's for shadows.
    pub(super) payer: Option<(&'a Limiter, &'a Caller)>,
    pub(super) schedule: Schedule,
    pub(super) prediction: PredictionId,
    /// Of the call.
    pub(super) headers: &'a HeaderMap,
}

/// What a run gave: every output, in the signature's order.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) outputs: Vec<Tensor>,
    pub(super) answered_by: AnsweredBy,
    pub(super) timings: Timings,
}

/// Runs inputs, which have been checked and are in the order of the backend's signature.
pub(super) async fn run(
    backend: &Backend,
    inputs: OrderedInputs,
    terms: &Terms<'_>,
) -> Result<Ran, Refused> {
    match backend {
        Backend::Local(served) => run_here(served, inputs, terms).await,
        Backend::Remote(remote) => run_there(remote, &inputs, terms).await,
    }
}

async fn run_here(
    served: &ServedVersion,
    OrderedInputs { tensors, rows }: OrderedInputs,
    terms: &Terms<'_>,
) -> Result<Ran, Refused> {
    let deadline = terms.schedule.deadline;
    let share = match terms.payer {
        Some((limiter, caller)) if limiter.divides_engine_time() => {
            limiter.share(caller, &served.queue.pressure(), rows)?
        }
        _ => None,
    };
    let mut waiting = served.queue.submit(tensors, rows, terms.schedule)?;
    let ending = match deadline {
        None => waiting.await,
        // Nobody waits beyond the deadline, however long the engine is busy with others.
        Some(Deadline(at)) => match timeout_at(at, &mut waiting).await {
            Ok(ending) => ending,
            Err(_) if waiting.has_started() => return Err(refusal::of(served, Failure::Overdue)),
            Err(_) => return Err(refusal::of(served, Failure::Expired)),
        },
    };
    // The engine is done with the call.
    drop(share);
    // The sender is dropped unsent only when batching itself panicked.
    let done = match ending {
        Ok(Ok(done)) => done,
        Ok(Err(failure)) => return Err(refusal::of(served, failure)),
        Err(_) => return Err(Rejection::new(Kind::Internal, "the call was lost").into()),
    };
    let Done { outputs, timings } = done;
    // Nobody waits any more: what it computed is not worth encoding.
    if has_passed(deadline) {
        return Err(refusal::of(served, Failure::Overdue));
    }
    let checked = served.signature().check_outputs(&outputs, rows);
    checked.map_err(|rejection| Refused { rejection, has_run: true })?;
    Ok(Ran { outputs, answered_by: AnsweredBy::Version(served.version), timings })
}

async fn run_there(
    remote: &Remote,
    OrderedInputs { tensors, rows }: &OrderedInputs,
    terms: &Terms<'_>,
) -> Result<Ran, Refused> {
    let hops = upstream::hops(terms.headers);
    if hops >= upstream::MAX_HOPS {
        let text = format!("the call has passed {hops} gateways: their upstreams form a loop");
        return Err(Rejection::invalid(text).into());
    }
    let call = RemoteCall {
        signature: &remote.signature,
        tensors,
        rows: *rows,
        deadline: terms.schedule.deadline,
        priority: terms.schedule.priority,
        trace: terms.headers.get(TRACE),
        prediction: terms.prediction,
        hops,
        replay: false,
        shadow: terms.schedule.shadow,
    };
    let answered = remote.model.infer(call).await;
    let RemoteAnswer { outputs, version, timings } =
        answered.map_err(|Unanswered { rejection, has_run }| Refused { rejection, has_run })?;
    Ok(Ran { outputs, answered_by: AnsweredBy::Remote(version), timings })
}

pub(super) fn has_passed(deadline: Option<Deadline>) -> bool {
    deadline.is_some_and(|deadline| deadline.has_passed(Instant::now()))
}
