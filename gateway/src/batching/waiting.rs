//! A call in the hands of its caller: awaited for its ending, dropped to take it out of the queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;

use super::load::Hold;
use super::reply::Ending;
use crate::breaker::TrialHandle;

/// A call on its way. Dropping it before its end gives its room in the queue to others at once;
/// a run that has begun goes on, for nobody.
#[derive(Debug)]
pub struct Waiting {
    // Dropped first: whoever takes a call out whose place was given back sees that nobody waits.
    receiver: oneshot::Receiver<Ending>,
    kept: Kept,
}

/// What a call keeps while it waits; dropping it gives that back.
#[derive(Debug)]
pub(super) struct Kept {
    holds: Holds,
    /// Its trial, should it be one.
    trial: TrialHandle,
}

/// The rooms of a call, or of its parts.
#[derive(Debug)]
pub(super) enum Holds {
    One(Option<Hold>),
    Parts(Vec<Hold>),
}

impl Waiting {
    pub(super) fn new(receiver: oneshot::Receiver<Ending>, kept: Kept) -> Self {
        Self { receiver, kept }
    }

    /// Whether all of it has left the queue for an engine thread: only its run is waited for.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.kept.holds.iter().all(Hold::has_started)
    }

    /// Blocks until the end.
    ///
    /// # Errors
    /// When the batcher itself lost the call.
    #[cfg(test)]
    pub(super) fn blocking_recv(self) -> Result<Ending, RecvError> {
        self.receiver.blocking_recv()
    }
}

impl Future for Waiting {
    /// The error means that the batcher itself lost the call.
    type Output = Result<Ending, RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context)
    }
}

impl Kept {
    pub(super) fn new(holds: Holds, trial: TrialHandle) -> Self {
        Self { holds, trial }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A trial of which a part runs is decided by that.
        if self.holds.leave() {
            self.trial.give_back();
        }
    }
}

impl Holds {
    pub(super) fn of(hold: Option<Hold>) -> Self {
        Self::One(hold)
    }

    pub(super) fn all(holds: impl Iterator<Item = Hold>) -> Self {
        Self::Parts(holds.collect())
    }

    /// Gives all rooms back; says whether none of the calls had left the queue.
    fn leave(&mut self) -> bool {
        let (one, parts) = match self {
            Self::One(one) => (one.take(), Vec::new()),
            Self::Parts(parts) => (None, std::mem::take(parts)),
        };
        let mut all_waited = true;
        for hold in one.into_iter().chain(parts) {
            all_waited &= hold.leave();
        }
        all_waited
    }

    fn iter(&self) -> impl Iterator<Item = &Hold> {
        let (one, parts) = match self {
            Self::One(one) => (one.as_ref(), &[][..]),
            Self::Parts(parts) => (None, &parts[..]),
        };
        one.into_iter().chain(parts)
    }
}
