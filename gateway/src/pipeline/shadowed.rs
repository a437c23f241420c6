//! Shows answered calls to the shadows of their route. Nobody waits for them: a call is handed
//! over once its answer is computed, within the shadow's budget, or dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use engine::Tensor;
use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::attempt::{self, Ran, Terms};
use super::check;
use super::logged::Watched;
use super::record::Record;
use super::refusal::Refused;
use crate::error::Kind;
use crate::routing::Lot;
use crate::shadow::{Answer, Comparer, Pair, Place, detached, detached_large};
use crate::snapshot::{Backend, Route, Shadow};
use crate::tasks;
use crate::telemetry::ShadowOutcome;
use crate::types::{Call, Deadline, Inputs, PredictionId, Priority, Schedule, Signature, Timings};

/// An answered call, as shadows see it. Its bytes are shared with the live one.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) prediction: PredictionId,
    pub(super) headers: Arc<HeaderMap>,
    /// As the caller sent them.
    pub(super) inputs: Inputs,
    pub(super) signature: Arc<Signature>,
    pub(super) outputs: Vec<Tensor>,
    pub(super) timings: Timings,
    /// Whether it ran here or elsewhere: times of both sides must mean the same.
    pub(super) is_remote: bool,
    /// For its rows in the prediction log.
    pub(super) log: Option<Arc<Watched>>,
}

impl Record {
    /// What decides which shadows see the call; `None` where none does.
    pub(super) fn lot(&self, call: &Call) -> Option<Lot> {
        self.assigned.as_ref()?.route.lot(call, self.prediction)
    }
}

/// Shows a call to every shadow that samples it.
pub(super) fn show(
    comparer: &Comparer,
    route: &Arc<Route>,
    (lot, seen): (Lot, &Seen),
    memory_is_short: bool,
) {
    for (index, shadow) in route.shadows.iter().enumerate() {
        if !lot.is_in(shadow.sample) {
            continue;
        }
        let lane = &shadow.watch.lane;
        if memory_is_short {
            lane.skip(ShadowOutcome::Pressure);
            continue;
        }
        let Some(backend) = shadow.seat.backend() else {
            lane.skip(ShadowOutcome::NotLoaded);
            continue;
        };
        let Some(place) = lane.try_enter(seen.inputs.size() + bytes(&seen.outputs)) else {
            continue;
        };
        let (route, comparer, seen) = (route.clone(), comparer.clone(), seen.clone());
        tasks::spawn("shadow", async move {
            run(&comparer, &route.shadows[index], (&backend, place), seen).await;
        });
    }
}

async fn run(
    comparer: &Comparer,
    shadow: &Shadow,
    (backend, place): (&Backend, Place),
    seen: Seen,
) {
    let end = Instant::now() + shadow.timeout;
    let schedule = Schedule {
        priority: Priority::of(u64::from(Priority::LEAST)),
        deadline: Some(Deadline(end)),
        shadow: true,
    };
    let Seen { prediction, headers, inputs, signature, outputs, timings, is_remote, log } = seen;
    // The caller is not to blame for what a shadow does not take, and neither is the shadow.
    let Ok((inputs, _)) = check(backend, inputs) else { return place.end(ShadowOutcome::Unfit) };
    let outputs = detached_large(outputs).await;
    let terms = Terms { payer: None, schedule, prediction, headers: &headers };
    let rows = inputs.rows;
    let record = |result: Result<(&[Tensor], &Timings), Kind>| {
        if let Some(log) = &log {
            log.record((shadow, backend), result, rows);
        }
    };
    let mut shadow_answer = match timeout_at(end, attempt::run(backend, inputs, &terms)).await {
        Ok(Ok(Ran { outputs, timings, .. })) => {
            record(Ok((&outputs, &timings)));
            let time = time(&timings, is_remote || matches!(backend, Backend::Remote(_)));
            Ok(Answer { signature: backend.signature().clone(), outputs, time })
        }
        Ok(Err(refused)) => match unsaid(&refused) {
            Some(outcome) => {
                if refused.rejection.kind() == Kind::DeadlineExceeded {
                    record(Err(Kind::DeadlineExceeded));
                }
                return place.end(outcome);
            }
            None => {
                record(Err(refused.rejection.kind()));
                Err(refused.rejection.kind())
            }
        },
        Err(_) => {
            record(Err(Kind::DeadlineExceeded));
            return place.end(ShadowOutcome::Expired);
        }
    };
    let time = time(&timings, is_remote || matches!(backend, Backend::Remote(_)));
    let live = Answer { signature, outputs, time };
    if let Ok(answer) = &mut shadow_answer {
        answer.outputs = detached_large(detached(std::mem::take(&mut answer.outputs))).await;
    }
    comparer.submit(&shadow.watch.ledger, place, Pair { prediction, live, shadow: shadow_answer });
}

/// What a refusal counts as that says nothing about the shadow's answers: all but failures of
/// runs, and of what runs them elsewhere.
fn unsaid(refused: &Refused) -> Option<ShadowOutcome> {
    match refused.rejection.kind() {
        Kind::EngineFailed | Kind::ArmFailed => None,
        Kind::CircuitOpen => Some(ShadowOutcome::CircuitOpen),
        // Live calls come first.
        Kind::Overloaded | Kind::RateLimited | Kind::DeadlineExceeded => {
            Some(ShadowOutcome::Expired)
        }
        Kind::NotReady | Kind::Cancelled | Kind::Internal => Some(ShadowOutcome::Abandoned),
        // It fails on inputs that live answers.
        _ if refused.has_run => None,
        _ => Some(ShadowOutcome::Unfit),
    }
}

/// The time of a run that both sides mean alike: in the engine, or all of it where one of them
/// ran elsewhere.
fn time(timings: &Timings, whole: bool) -> Duration {
    let engine = timings.input + timings.infer + timings.output;
    if whole { timings.queue + engine } else { engine }
}

fn bytes(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|tensor| tensor.data().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Rejection;

    #[test]
    fn a_shadow_answers_for_failed_runs_only() {
        let unsaid =
            |kind, has_run| unsaid(&Refused { rejection: Rejection::new(kind, ""), has_run });
        for kind in Kind::ALL {
            let fails = matches!(kind, Kind::EngineFailed | Kind::ArmFailed);
            assert_eq!(unsaid(kind, false).is_none(), fails, "{kind:?}");
        }
        // What the gateway makes, such as the refusal of a loop.
        assert_eq!(unsaid(Kind::Internal, false), Some(ShadowOutcome::Abandoned));
        assert_eq!(unsaid(Kind::InvalidInput, false), Some(ShadowOutcome::Unfit));
        assert_eq!(unsaid(Kind::InvalidInput, true), None);
    }
}
