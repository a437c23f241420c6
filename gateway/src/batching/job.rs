//! One call on its way through the batcher.

use std::time::Duration;

use engine::{EngineError, Tensor};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::types::Timings;

/// A waiting call.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) inputs: Vec<Tensor>,
    pub(super) rows: usize,
    pub(super) bytes: usize,
    pub(super) enqueued: Instant,
    pub(super) reply: oneshot::Sender<Result<Done, Failure>>,
}

impl Job {
    /// Whether the other call can be stacked under this one: equal but for dimension 0.
    pub(super) fn stacks_with(&self, other: &Self) -> bool {
        self.inputs.iter().zip(&other.inputs).all(|(a, b)| a.shape()[1..] == b.shape()[1..])
    }
}

/// The outputs of one call and what they cost.
#[derive(Debug)]
pub struct Done {
    pub outputs: Vec<Tensor>,
    pub timings: Timings,
}

/// Why a call got no outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The engine said so.
    Engine(EngineError),
    /// The run broke the time limit.
    TimedOut(Duration),
    /// The engine panicked.
    Panicked,
    /// The outputs do not fit the batch that was run.
    Outputs(String),
}
