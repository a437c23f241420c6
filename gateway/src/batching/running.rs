//! What an engine thread is doing, kept where the watchdog can take it away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::job::{Done, Failure, Job};
use super::queue::Shared;

/// The work in one thread's hands.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) since: Instant,
    pub(super) limit: Duration,
    pub(super) label: String,
    pub(super) waiters: Waiters,
    /// Calls of the same split batch whose run comes next; they are not part of this one.
    pub(super) rest: Rest,
}

/// Groups of calls that wait for their run, the next one last, and the queue they came from.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) queue: Option<Arc<Shared>>,
    pub(super) groups: Vec<Vec<Job>>,
}

/// Who waits for it.
#[derive(Debug)]
pub(super) enum Waiters {
    /// The calls of a batch, with their rows and waiting times.
    Calls(Vec<Waiter>),
    /// A warm-up.
    Warmup(oneshot::Sender<Result<(), Failure>>),
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) rows: usize,
    pub(super) queued: Duration,
    pub(super) reply: oneshot::Sender<Result<Done, Failure>>,
}

/// The slot of one engine thread. Whoever takes the work out owns its replies: the thread when
/// the run ends in time, the watchdog when it does not.
#[derive(Debug, Default)]
pub(super) struct Slot {
    running: Mutex<Option<Running>>,
}

impl Slot {
    pub(super) fn begin(&self, running: Running) {
        *self.lock() = Some(running);
    }

    /// Takes the work back; `None` means that the watchdog gave this thread up.
    pub(super) fn end(&self) -> Option<Running> {
        self.lock().take()
    }

    /// Takes the work away from its thread if it is past its limit. `taken` is called before
    /// the thread can find its hands empty, so that giving up is counted before coming back.
    pub(super) fn take_expired(&self, now: Instant, taken: impl FnOnce()) -> Option<Running> {
        let mut slot = self.lock();
        let expired = slot.take_if(|running| now.duration_since(running.since) > running.limit);
        if expired.is_some() {
            taken();
        }
        expired
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    /// Tells everybody the same.
    pub(super) fn fail(self, failure: &Failure) {
        // A send fails only when its caller has gone, who then needs no answer.
        match self {
            Self::Calls(waiters) => {
                for waiter in waiters {
                    drop(waiter.reply.send(Err(failure.clone())));
                }
            }
            Self::Warmup(reply) => drop(reply.send(Err(failure.clone()))),
        }
    }
}
