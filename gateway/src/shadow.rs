//! Shadows: what they cost at most, and how their answers compare with the live ones.
//!
//! A shadow sees calls of a route and answers nobody. [`Lane`] bounds what it has under way,
//! [`Comparer`] compares away from the threads that answer callers, [`Ledger`] keeps what came of
//! it in bounded memory, and [`Report`] says it. Nothing here knows routes, engines or wires:
//! what is compared is tensors with their signatures.

mod comparer;
mod detach;
mod elements;
mod findings;
mod flips;
mod lane;
mod ledger;
mod output;
mod proportion;
mod report;
mod spread;
mod vector;
mod worst;

pub use comparer::Comparer;
pub use detach::{detached, detached_large};
pub use lane::{Lane, LaneCounts, Place};
pub use ledger::{Judged, Ledger};
pub use proportion::Proportion;
pub use report::{
    Cosine, Difference, Flip, Flips, Latency, OddRows, OutputKind, OutputReport, Quantiles, Report,
    TopK, Verdict, WorstPair,
};

use std::sync::Arc;
use std::time::Duration;

use engine::Tensor;

use crate::error::Kind;
use crate::types::{PredictionId, Signature};

/// A live answer and what a shadow made of the same call.
#[derive(Debug)]
pub struct Pair {
    pub prediction: PredictionId,
    pub live: Answer,
    /// The kind of its error where the shadow gave none.
    pub shadow: Result<Answer, Kind>,
}

/// The outputs of one side.
#[derive(Debug)]
pub struct Answer {
    pub signature: Arc<Signature>,
    /// All of them, in the order of the signature.
    pub outputs: Vec<Tensor>,
    /// In the engine, or at the upstream; both sides of a pair must mean the same by it.
    pub time: Duration,
}

impl Pair {
    /// Bytes of all outputs, which are to be [`detached`] from their batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sides = std::iter::once(&self.live).chain(self.shadow.as_ref().ok());
        sides.flat_map(|answer| &answer.outputs).map(|tensor| tensor.data().len()).sum()
    }
}

#[cfg(test)]
mod tests;
