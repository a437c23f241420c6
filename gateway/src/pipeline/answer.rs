//! What a call gets: the answer with the words by which it names itself, and who counts it.

use std::sync::Arc;

use engine::Tensor;

use super::keyed;
use super::record::Record;
use crate::contract::Flags;
use crate::error::Rejection;
use crate::telemetry::Outcome;
use crate::types::{AnsweredBy, ArmName, ModelName, PredictionId, Signature};

/// An answer for a caller. The call counts as answered once [`Reply::encoded`] is called.
#[derive(Debug)]
pub struct Reply {
    pub answer: Answer,
    /// Whether it is the answer of an earlier call with the same idempotency key.
    pub is_replayed: bool,
    pub(super) account: Option<Account>,
}

/// A computed answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub prediction: PredictionId,
    /// The name that was called: that of a route or a model.
    pub model: ModelName,
    pub version: AnsweredBy,
    /// The arm of the route that answered; `None` where no route stood before the model.
    pub routed: Option<Routed>,
    pub signature: Arc<Signature>,
    /// The wanted outputs in the caller's order: index into the signature, and the tensor.
    pub outputs: Vec<(usize, Tensor)>,
    /// Values that break a rule of the model's input contract that only flags them.
    pub flags: Option<Flags>,
}

/// Which arm answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The one that answered; `None` for a declared answer.
    pub arm: Option<ArmName>,
    /// Whether it stood in for the arm that the caller belongs to.
    pub is_fallback: bool,
    /// Whether the call lacked the key by which the route keeps callers with their arm.
    pub is_keyless: bool,
}

/// Who counts how a call ended.
#[derive(Debug)]
pub(super) enum Account {
    Own(Record),
    Repeat(keyed::Repeat),
}

impl Answer {
    /// Bytes that it takes in memory of its own, its outputs above all.
    pub(super) fn size(&self) -> usize {
        /// A tensor's shape, its place in the answer and the head of its allocation.
        const PER_OUTPUT: usize = 128;
        let outputs = self.outputs.iter();
        let outputs: usize = outputs.map(|(_, tensor)| tensor.data().len() + PER_OUTPUT).sum();
        outputs + self.flags.as_ref().map_or(0, |flags| flags.len())
    }
}

impl Routed {
    /// The arm's name, as answers have it.
    #[must_use]
    pub fn arm(&self) -> &str {
        self.arm.as_ref().map_or("static", ArmName::as_str)
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
