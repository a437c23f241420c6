//! What a batch says about its model, for the breaker of the version: one sample from each batch
//! that a thread took, however many callers shared it and in however many runs it ended.
//!
//! Judged is what the engine does, not what becomes of callers: a run counts when its callers
//! have gone, and time in the queue counts for nothing. The sample is counted before the last
//! callers hear of it, so that who tries again meets the state that his answer led to.
//!
//! Shadows have no permit, so what becomes of them reaches no breaker.

use std::sync::Arc;
use std::time::Duration;

use engine::error::{EngineError, Fault};
use engine::{Batch, Run, Tensor};
use tokio::time::Instant;

use super::job::{Failure, Job};
use super::queue::Shared;
use super::reply::Post;
use crate::breaker::{Breaker, Outcome, Permit, Sample};
use crate::codec::finite;
use crate::telemetry::Dropped;
use crate::types::Signature;

/// Beyond the time limit of its run, a trial is waited for this much longer: the watchdog looks
/// a few times a second.
const GRACE: Duration = Duration::from_secs(5);

/// What the calls of a version that serves are measured by.
#[derive(Debug)]
pub struct Guard {
    pub breaker: Arc<Breaker>,
    pub signature: Arc<Signature>,
    /// By output: whether NaN in it is news, for it answered without when it was loaded.
    pub watch_nan: Vec<bool>,
}

/// Counts what becomes of the calls of one batch.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// The youngest of the batch.
    permit: Permit,
    answered: u32,
    failed: u32,
    device_fault: bool,
    time: Duration,
    with_nan: u32,
    without_nan: u32,
}

/// What is wrong with the answer to one call.
#[derive(Debug, Clone)]
pub(super) enum Finding {
    /// NaN that nobody forbids.
    Nan,
    /// The caller must not have it.
    Failed(Failure),
}

/// What the outputs of a run look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Clean,
    /// They hold what they should not, and those of the model's own inputs hold nothing of it.
    OfTheInputs,
    /// Those of its own inputs do, too, or nobody knows.
    OfTheModel,
}

/// Looks at the outputs of a run; `run` is for the model's own inputs, which tell broken calls
/// from a broken model. Else a few callers could close the door on all by inputs of which no
/// number comes.
pub(super) fn look(
    queue: &Shared,
    outputs: &[Tensor],
    run: impl FnOnce(&Batch) -> Option<Run>,
) -> Look {
    let Some(guard) = queue.guard.get().filter(|guard| guard.is_suspicious(outputs)) else {
        return Look::Clean;
    };
    let is_clean = |batch: &Batch| run(batch).is_some_and(|run| !guard.is_suspicious(&run.outputs));
    match queue.nan_probe.get().is_some_and(|probe| probe.is_well(is_clean)) {
        true => Look::OfTheInputs,
        false => Look::OfTheModel,
    }
}

/// What is wrong with the answers, by call; empty where nothing is.
pub(super) fn findings(
    queue: &Shared,
    look: Look,
    inputs: &[Vec<Tensor>],
    pieces: &[Vec<Tensor>],
) -> Vec<Option<Finding>> {
    let Some(guard) = queue.guard.get().filter(|_| look != Look::Clean) else {
        return Vec::new();
    };
    let findings: Vec<_> =
        inputs.iter().zip(pieces).map(|(inputs, outputs)| guard.find(inputs, outputs)).collect();
    let with_nan = findings.iter().flatten().filter(|found| matches!(found, Finding::Nan));
    queue.metrics.nan_answers.increment(with_nan.count() as u64);
    findings
}

/// Refuses what must not run any more since its breaker opened, and opens the judgement of the
/// rest.
pub(super) fn open(queue: &Shared, mut jobs: Vec<Job>) -> (Vec<Job>, Judge) {
    let Some(guard) = queue.guard.get() else { return (jobs, Judge::default()) };
    if let Some(held) = guard.breaker.held(Instant::now()) {
        let mut post = Post::default();
        let late = |job: &mut Job| match job.ticket.urgency.shadow {
            true => held.bars_others,
            false => {
                let epoch = job.ticket.permit.epoch();
                epoch > 0 && epoch != held.epoch
            }
        };
        for job in jobs.extract_if(.., late) {
            queue.metrics.dropped(Dropped::CircuitOpen);
            guard.breaker.count_refused();
            job.ticket.reply.send(Err(Failure::CircuitOpen(held.retry_after)), &mut post);
        }
    }
    // Calls keep their epochs: they may come back to the queue and be looked at again.
    let permits = jobs.iter_mut().map(|job| &mut job.ticket.permit);
    let youngest = permits.max_by_key(|permit| (permit.epoch(), permit.has_trial()));
    let permit = youngest.map(Permit::take_trial).unwrap_or_default();
    (jobs, Judge { permit, ..Judge::default() })
}

impl Judge {
    /// A run begins that may take so long.
    pub(super) fn begin(&self, now: Instant, limit: Duration) {
        self.permit.extend(now + limit + GRACE);
    }

    /// Calls got answers from a run of this length.
    pub(super) fn answered(
        &mut self,
        calls: usize,
        (findings, look): (&[Option<Finding>], Look),
        time: Duration,
    ) {
        self.time = self.time.max(time);
        let count = |is: fn(&Finding) -> bool| findings.iter().flatten().filter(|f| is(f)).count();
        let with_nan = count(|finding| matches!(finding, Finding::Nan));
        let failed = count(|finding| matches!(finding, Finding::Failed(Failure::Outputs(_))));
        let refused = count(|finding| matches!(finding, Finding::Failed(_))) - failed;
        let answered = calls - failed - refused;
        self.answered += to_count(answered);
        if look == Look::OfTheModel {
            self.failed += to_count(failed);
            self.with_nan += to_count(with_nan);
        }
        self.without_nan += to_count(answered - with_nan);
    }

    /// Calls failed together for good.
    pub(super) fn failed(&mut self, calls: usize, failure: &Failure) {
        match failure {
            Failure::Engine(error) => match error.fault() {
                Fault::Device => self.device_fault = true,
                Fault::Run | Fault::Output | Fault::Load => self.failed += to_count(calls),
                // The caller's fault, or that of whoever else uses the memory.
                Fault::Input | Fault::Memory => {}
            },
            Failure::TimedOut(_) | Failure::Panicked | Failure::Outputs(_) => {
                self.failed += to_count(calls);
            }
            Failure::Input(_)
            | Failure::Expired
            | Failure::Overdue
            | Failure::Cancelled
            | Failure::Displaced
            | Failure::Stopping
            | Failure::CircuitOpen(_) => {}
        }
    }

    /// Tells the breaker, once: the batch failed if at least half of its calls did by the
    /// model's fault.
    pub(super) fn settle(&mut self, queue: &Shared) {
        let permit = std::mem::take(&mut self.permit);
        let Some(guard) = queue.guard.get() else { return };
        let outcome = match (self.failed, self.answered) {
            _ if self.device_fault => Some(Outcome::DeviceFault),
            (0, 0) => None,
            (failed, answered) if failed >= answered => Some(Outcome::Failure),
            _ => Some(Outcome::Success),
        };
        let Self { time, with_nan, without_nan, .. } = *self;
        let sample = Sample { outcome, time, with_nan, without_nan };
        guard.breaker.record(Instant::now(), &permit, sample);
    }
}

impl Guard {
    /// Checks the outputs of a run against the signature.
    pub(super) fn check(&self, outputs: &[Tensor], rows: usize) -> Result<(), Failure> {
        self.signature
            .check_outputs(outputs, rows)
            .map_err(|rejection| Failure::Outputs(rejection.public_message().to_owned()))
    }

    /// Whether any output holds what may be wrong for some call.
    pub(super) fn is_suspicious(&self, outputs: &[Tensor]) -> bool {
        outputs.iter().enumerate().any(|(index, output)| match self.promises(index) {
            true => !finite::is_finite(output),
            false => self.watches(index) && finite::has_nan(output),
        })
    }

    /// What is wrong with the answer to the call with these inputs.
    pub(super) fn find(&self, inputs: &[Tensor], outputs: &[Tensor]) -> Option<Finding> {
        let broken = outputs
            .iter()
            .enumerate()
            .find(|(index, output)| self.promises(*index) && !finite::is_finite(output));
        let odd_input = || inputs.iter().position(|input| !finite::is_finite(input));
        if let Some((index, _)) = broken {
            let output = &self.signature.outputs[index].spec.name;
            let failure = match odd_input() {
                None => Failure::Outputs(format!("output '{output}' holds NaN or an infinity")),
                Some(input) => {
                    let input = &self.signature.inputs[input].name;
                    let text = format!(
                        "input '{input}' holds NaN or an infinity, and so would output '{output}'"
                    );
                    Failure::Input(EngineError::new(Fault::Input, text))
                }
            };
            return Some(Finding::Failed(failure));
        }
        let has_nan = outputs
            .iter()
            .enumerate()
            .any(|(index, output)| self.watches(index) && finite::has_nan(output));
        (has_nan && odd_input().is_none()).then_some(Finding::Nan)
    }

    fn promises(&self, output: usize) -> bool {
        self.signature.outputs.get(output).is_some_and(|output| output.finite)
    }

    fn watches(&self, output: usize) -> bool {
        self.watch_nan.get(output).is_some_and(|&watch| watch)
    }
}

fn to_count(calls: usize) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX)
}
