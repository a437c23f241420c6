//! A call in the hands of its caller: awaited for its ending, dropped to take it out of the queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;

use super::load::Hold;
use super::reply::Ending;

/// A call on its way. Dropping it before its end gives its room in the queue to others at once;
/// a run that has begun goes on, for nobody.
#[derive(Debug)]
pub struct Waiting {
    receiver: oneshot::Receiver<Ending>,
    holds: Holds,
}

/// The rooms of a call, or of its parts.
#[derive(Debug)]
pub(super) enum Holds {
    One(Option<Hold>),
    Parts(Vec<Hold>),
}

impl Waiting {
    pub(super) fn new(receiver: oneshot::Receiver<Ending>, holds: Holds) -> Self {
        Self { receiver, holds }
    }

    /// Whether all of it has left the queue for an engine thread: only its run is waited for.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.holds.iter().all(Hold::has_started)
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

impl Holds {
    pub(super) fn of(hold: Option<Hold>) -> Self {
        Self::One(hold)
    }

    pub(super) fn all(holds: impl Iterator<Item = Hold>) -> Self {
        Self::Parts(holds.collect())
    }

    fn iter(&self) -> impl Iterator<Item = &Hold> {
        let (one, parts) = match self {
            Self::One(one) => (one.as_ref(), &[][..]),
            Self::Parts(parts) => (None, &parts[..]),
        };
        one.into_iter().chain(parts)
    }
}
