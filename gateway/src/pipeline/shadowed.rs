//! Shows answered calls to the shadows of their route. Nobody waits for them: a call is handed
//! over once its answer is computed, within the shadow's budget, or dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use engine::Tensor;
use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::attempt::{self, Ran, Terms};
use super::record::Record;
use super::stand_in::reorder;
use crate::error::Kind;
use crate::shadow::{Answer, Comparer, Pair, Place, detached, detached_large};
use crate::snapshot::{Backend, Route, Shadow};
use crate::tasks;
use crate::telemetry::ShadowOutcome;
use crate::types::{Call, Deadline, PredictionId, Priority, Schedule, Signature, Timings};

/// An answered call, as shadows see it. Its bytes are shared with the live one.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) prediction: PredictionId,
    pub(super) headers: Arc<HeaderMap>,
    /// In the order of the signature.
    pub(super) inputs: Vec<Tensor>,
    pub(super) rows: usize,
    pub(super) signature: Arc<Signature>,
    pub(super) outputs: Vec<Tensor>,
    pub(super) timings: Timings,
    /// Whether it ran here or elsewhere: times of both sides must mean the same.
    pub(super) is_remote: bool,
}

impl Record {
    /// Whether a shadow sees the call.
    pub(super) fn is_watched(&self, call: &Call) -> bool {
        let Some(assigned) = &self.assigned else { return false };
        let route = &assigned.route;
        route.shadows.iter().any(|shadow| route.is_sampled(call, self.prediction, shadow.sample))
    }
}

/// Shows a call to every shadow that samples it.
pub(super) fn show(
    comparer: &Comparer,
    route: &Arc<Route>,
    (call, seen): (&Call, &Seen),
    memory_is_short: bool,
) {
    for (index, shadow) in route.shadows.iter().enumerate() {
        if !route.is_sampled(call, seen.prediction, shadow.sample) {
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
        let Some(place) = lane.try_enter(bytes(&seen.inputs) + bytes(&seen.outputs)) else {
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
    let Seen { prediction, headers, inputs, rows, signature, outputs, timings, is_remote } = seen;
    let outputs = detached_large(outputs).await;
    let terms = Terms { payer: None, schedule, prediction, headers: &headers };
    let ran = async {
        let inputs = reorder(inputs, &signature, backend.signature())?;
        attempt::run(backend, (inputs, rows), &terms).await
    };
    let mut shadow_answer = match timeout_at(end, ran).await {
        Ok(Ok(Ran { outputs, timings, .. })) => {
            let time = time(&timings, is_remote || matches!(backend, Backend::Remote(_)));
            Ok(Answer { signature: backend.signature().clone(), outputs, time })
        }
        Ok(Err(refused)) => match unsaid(refused.rejection.kind()) {
            Some(outcome) => return place.end(outcome),
            None => Err(refused.rejection.kind()),
        },
        Err(_) => return place.end(ShadowOutcome::Expired),
    };
    let time = time(&timings, is_remote || matches!(backend, Backend::Remote(_)));
    let live = Answer { signature, outputs, time };
    if let Ok(answer) = &mut shadow_answer {
        answer.outputs = detached_large(detached(std::mem::take(&mut answer.outputs))).await;
    }
    comparer.submit(&shadow.watch.ledger, place, Pair { prediction, live, shadow: shadow_answer });
}

/// What a refusal counts as that says nothing about the shadow's answers.
const fn unsaid(kind: Kind) -> Option<ShadowOutcome> {
    match kind {
        Kind::CircuitOpen => Some(ShadowOutcome::CircuitOpen),
        // Live calls come first.
        Kind::Overloaded | Kind::DeadlineExceeded => Some(ShadowOutcome::Expired),
        Kind::NotReady | Kind::Cancelled => Some(ShadowOutcome::Abandoned),
        _ => None,
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
