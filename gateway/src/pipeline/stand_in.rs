//! Who answers a call: the arm that its caller belongs to, or what stands in for it.

use engine::Tensor;

use super::answer::{Answer, Routed};
use super::record::Record;
use super::refusal::Refused;
use super::{pick, wanted};
use crate::contract::Flags;
use crate::error::{Kind, Rejection};
use crate::snapshot::{Backend, StandIn};
use crate::types::{AnsweredBy, Call, Signature};

/// Who answers next.
#[derive(Debug)]
pub(super) enum Next {
    Backend(Backend),
    /// Nobody: the route's declared answer is given.
    Declared,
}

/// Whether a refusal says that the arm is broken, and not the call or the moment.
pub(super) const fn is_broken(kind: Kind) -> bool {
    matches!(kind, Kind::CircuitOpen | Kind::EngineFailed | Kind::NotReady | Kind::ArmFailed)
}

/// Inputs in the order of another signature that takes the same ones.
pub(super) fn reorder(
    tensors: Vec<Tensor>,
    from: &Signature,
    to: &Signature,
) -> Result<Vec<Tensor>, Rejection> {
    let same = |(one, other): (&engine::TensorSpec, &engine::TensorSpec)| one.name == other.name;
    if from.inputs.len() == to.inputs.len() && from.inputs.iter().zip(&to.inputs).all(same) {
        return Ok(tensors);
    }
    let of = |spec: &engine::TensorSpec| {
        let index = from.inputs.iter().position(|given| given.name == spec.name);
        index.and_then(|index| tensors.get(index)).cloned().ok_or_else(|| {
            let text = format!("the fallback takes an input '{}' that the arm does not", spec.name);
            Rejection::new(Kind::Internal, text)
        })
    };
    to.inputs.iter().map(of).collect()
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
        self.fall_back(Kind::NotReady).ok_or_else(|| {
            let (route, arm) = (assigned.route.name(), &assigned.arm().name);
            let text = format!("arm '{arm}' of route '{route}' is not ready");
            let (_, why) = assigned.arm().seat.state();
            Rejection::new(Kind::NotReady, text).with_detail(Some(&why))
        })
    }

    /// Whether somebody could answer for the arm.
    pub(super) fn has_stand_in(&self) -> bool {
        let assigned = self.assigned.as_ref();
        assigned.is_some_and(|assigned| !matches!(assigned.route.fallback, StandIn::Nobody))
    }

    /// Turns to what stands in for the arm, once; notes why.
    pub(super) fn fall_back(&mut self, reason: Kind) -> Option<Next> {
        let assigned = self.assigned.clone()?;
        let next = match &assigned.route.fallback {
            StandIn::Nobody => return None,
            StandIn::Arm(index) if *index == assigned.index => return None,
            StandIn::Arm(index) => {
                let backend = assigned.route.arms[*index].seat.backend()?;
                self.backend = Some(backend.clone());
                Next::Backend(backend)
            }
            StandIn::Answer(_) => Next::Declared,
        };
        self.fallback = Some(reason);
        Some(next)
    }

    /// The route's declared answer.
    pub(super) fn declare(&mut self, call: &Call, flags: Option<Flags>) -> Result<Answer, Refused> {
        let missing = || Rejection::new(Kind::Internal, "the route declares no answer");
        let assigned = self.assigned.as_ref().ok_or_else(missing)?;
        let StandIn::Answer(answer) = &assigned.route.fallback else {
            return Err(missing().into());
        };
        let outputs = answer.outputs(self.rows).ok_or_else(missing)?;
        let wanted = wanted(&call.outputs, &answer.signature)?;
        Ok(Answer {
            prediction: self.prediction,
            model: self.called.clone(),
            version: AnsweredBy::Declared,
            routed: Some(Routed { arm: None, is_fallback: true }),
            signature: answer.signature.clone(),
            outputs: pick(outputs, &wanted),
            flags,
        })
    }

    /// Which arm answered.
    pub(super) fn routed(&self) -> Option<Routed> {
        let assigned = self.assigned.as_ref()?;
        let served = match (&assigned.route.fallback, self.fallback) {
            (StandIn::Arm(index), Some(_)) => &assigned.route.arms[*index],
            _ => assigned.arm(),
        };
        Some(Routed { arm: Some(served.name.clone()), is_fallback: self.fallback.is_some() })
    }
}
