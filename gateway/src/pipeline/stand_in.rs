//! Who answers a call: the arm that its caller belongs to, or what stands in for it.

use super::answer::{Answer, Routed};
use super::attempt::{Ran, Terms, has_passed};
use super::record::Record;
use super::refusal::Refused;
use super::{Given, Pipeline, attempt, check, wanted};
use crate::error::{Kind, Rejection};
use crate::limits::{Demand, Limiter};
use crate::snapshot::{Backend, Draw, StandIn, StaticAnswer};
use crate::types::{AnsweredBy, Call, Inputs, Timings};

/// Most items of a call that no signature is known for: nothing else bounds them.
const MOST_ROWS: usize = 10_000;

/// Who answers next.
#[derive(Debug)]
pub(super) enum Next {
    Backend(Backend),
    /// Nobody: the route's declared answer is given.
    Declared,
}

/// Whether a refusal says that the arm is broken, and not the call or the moment.
const fn is_broken(kind: Kind) -> bool {
    matches!(kind, Kind::CircuitOpen | Kind::EngineFailed | Kind::NotReady | Kind::ArmFailed)
}

impl Pipeline {
    /// Has a call that its arm failed answered by what stands in for the arm, from the `inputs` as
    /// the caller sent them.
    ///
    /// # Errors
    /// `refused` where nothing stands in, or cannot take the call; else those of the fallback.
    pub(super) async fn rescue(
        &self,
        refused: Refused,
        (call, inputs): (&Call, Option<Inputs>),
        terms: &Terms<'_>,
        record: &mut Record,
    ) -> Result<Given, Refused> {
        let reason = refused.rejection.kind();
        let (Some(inputs), Some(next)) = (inputs, record.stand_in()) else { return Err(refused) };
        if !is_broken(reason) {
            return Err(refused);
        }
        match next {
            Next::Declared => {
                let batches = record.batches();
                let Ok(given) = record.declare(call, batches) else { return Err(refused) };
                let deadline = terms.schedule.deadline;
                if has_passed(deadline) {
                    return Err(refused);
                }
                record.keep_taker();
                record.turn_to(None, reason);
                Ok(Given { deadline, ..given })
            }
            Next::Backend(other) => {
                let Ok(ready) = self.prepare(&other, call, inputs) else { return Err(refused) };
                record.turn_to(Some(other.clone()), reason);
                record.rows = ready.inputs.rows;
                let terms = Terms { schedule: ready.schedule, ..*terms };
                let ran = attempt::run(&other, ready.inputs, &terms).await?;
                let (signature, deadline) = (other.signature().clone(), terms.schedule.deadline);
                Ok(Given { ran, signature, flags: ready.flags, deadline })
            }
        }
    }
}

/// A declared answer, for a call that nothing has looked at yet. It is checked as well as can be
/// while its arm is not there: against another arm, or for a number of items within reason.
pub(super) async fn declared(
    (call, inputs): (&Call, Inputs),
    limiter: &Limiter,
    record: &mut Record,
) -> Result<Given, Refused> {
    let (rows, bytes) = (inputs.rows(), inputs.size());
    let known = record.assigned.as_ref().and_then(|assigned| assigned.route.known());
    record.rows = match &known {
        Some(backend) => check(backend, inputs)?.0.rows,
        None if (1..=MOST_ROWS).contains(&rows) => rows,
        None => {
            let text = format!(
                "the first input has batch size {rows}: from 1 to {MOST_ROWS} are answered while \
                 the model is not ready"
            );
            return Err(Rejection::invalid(text).into());
        }
    };
    let demand = Demand { caller: &call.caller, model: &call.model, rows: record.rows, bytes };
    record.permits = limiter.admit(&demand).await?;
    let batches = known.is_none_or(|known| known.signature().max_batch_size > 0);
    record.keep_taker();
    record.declare(call, batches)
}

impl Record {
    /// Who is to answer first.
    ///
    /// # Errors
    /// `NotReady` when the arm is not loaded and nothing stands in for it.
    pub(super) fn first(&mut self) -> Result<Next, Rejection> {
        if let Some(backend) = &self.backend {
            return Ok(Next::Backend(backend.clone()));
        }
        let Some(assigned) = self.assigned.clone() else {
            return Err(Rejection::new(Kind::Internal, "the call leads nowhere"));
        };
        let next = self.stand_in().ok_or_else(|| {
            let (route, arm) = (assigned.route.name(), &assigned.arm().name);
            let text = format!("arm '{arm}' of route '{route}' is not ready");
            let (_, why) = assigned.arm().seat.state();
            Rejection::new(Kind::NotReady, text).with_detail(Some(&why))
        })?;
        let backend = match &next {
            Next::Backend(backend) => Some(backend.clone()),
            Next::Declared => None,
        };
        self.turn_to(backend, Kind::NotReady);
        Ok(next)
    }

    /// Whether something stands in for the arm. Callers of the arm that stands in for the others
    /// have nobody behind it.
    pub(super) fn has_stand_in(&self) -> bool {
        let Some(assigned) = self.assigned.as_ref().filter(|_| self.fallback.is_none()) else {
            return false;
        };
        match assigned.route.fallback {
            StandIn::Nobody => false,
            StandIn::Arm(index) => index != assigned.index,
            StandIn::Answer(_) => true,
        }
    }

    /// What stands in for the arm, unless it has done so already.
    fn stand_in(&self) -> Option<Next> {
        let assigned = self.assigned.as_ref().filter(|_| self.has_stand_in())?;
        match &assigned.route.fallback {
            StandIn::Nobody => None,
            StandIn::Arm(index) => assigned.route.arms[*index].seat.backend().map(Next::Backend),
            StandIn::Answer(_) => Some(Next::Declared),
        }
    }

    /// Whether outputs of what runs the call have a dimension of items.
    fn batches(&self) -> bool {
        let backend = self.backend.as_ref();
        backend.is_none_or(|backend| backend.signature().max_batch_size > 0)
    }

    /// The route's declared answer.
    fn declare(&self, call: &Call, batches: bool) -> Result<Given, Refused> {
        let missing = || Rejection::new(Kind::Internal, "the route declares no answer");
        let answer: &StaticAnswer = match self.assigned.as_ref().map(|arm| &arm.route.fallback) {
            Some(StandIn::Answer(answer)) => answer,
            _ => return Err(missing().into()),
        };
        let (signature, outputs) = answer.outputs(self.rows, batches)?;
        wanted(&call.outputs, signature)?;
        let (answered_by, timings) = (AnsweredBy::Declared, Timings::default());
        let ran = Ran { outputs, answered_by, timings };
        let (signature, deadline) = (signature.clone(), call.schedule.deadline);
        Ok(Given { ran, signature, flags: None, deadline })
    }

    /// Which arm answered.
    pub(super) fn routed(&self) -> Option<Routed> {
        let assigned = self.assigned.as_ref()?;
        let arm = match (&assigned.route.fallback, self.fallback) {
            (StandIn::Answer(_), Some(_)) => None,
            (StandIn::Arm(index), Some(_)) => Some(assigned.route.arms[*index].name.clone()),
            _ => Some(assigned.arm().name.clone()),
        };
        let is_keyless = assigned.draw == Draw::Keyless;
        Some(Routed { arm, is_fallback: self.fallback.is_some(), is_keyless })
    }

    /// The answer in the caller's words.
    pub(super) fn answer(&self, call: &Call, given: Given) -> Result<Answer, Refused> {
        let Given { ran, signature, flags, .. } = given;
        let outputs = super::pick(ran.outputs, &wanted(&call.outputs, &signature)?);
        Ok(Answer {
            prediction: self.prediction,
            model: self.called.clone(),
            version: ran.answered_by,
            routed: self.routed(),
            signature,
            outputs,
            flags,
        })
    }
}
