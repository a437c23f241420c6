//! One run of a call by what answers it.

use engine::Tensor;
use tokio::time::{Instant, timeout_at};

use super::refusal::{self, Refused};
use crate::batching::{Done, Failure};
use crate::error::{Kind, Rejection};
use crate::limits::Limiter;
use crate::models::ServedVersion;
use crate::snapshot::Backend;
use crate::types::{Caller, Deadline, Schedule, Timings};

/// What a run needs beside its inputs.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) limiter: &'a Limiter,
    pub(super) caller: &'a Caller,
    pub(super) schedule: Schedule,
}

/// What a run gave: every output, in the signature's order.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) outputs: Vec<Tensor>,
    pub(super) timings: Timings,
}

/// Runs inputs, which have been checked and are in the order of the backend's signature.
pub(super) async fn run(
    backend: &Backend,
    (inputs, rows): (Vec<Tensor>, usize),
    terms: &Terms<'_>,
) -> Result<Ran, Refused> {
    match backend {
        Backend::Local(served) => run_here(served, (inputs, rows), terms).await,
    }
}

async fn run_here(
    served: &ServedVersion,
    (inputs, rows): (Vec<Tensor>, usize),
    terms: &Terms<'_>,
) -> Result<Ran, Refused> {
    let deadline = terms.schedule.deadline;
    let share = match terms.limiter.divides_engine_time() {
        true => terms.limiter.share(terms.caller, &served.queue.pressure(), rows)?,
        false => None,
    };
    let mut waiting = served.queue.submit(inputs, rows, terms.schedule)?;
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
    Ok(Ran { outputs, timings })
}

pub(super) fn has_passed(deadline: Option<Deadline>) -> bool {
    deadline.is_some_and(|deadline| deadline.has_passed(Instant::now()))
}
