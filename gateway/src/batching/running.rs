//! What an engine thread is doing, kept where the watchdog can take it away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::job::{Failure, Job, Ticket};
use super::judge::Judge;
use super::queue::Shared;
use super::reply::Post;
use super::scheduler::RunKey;

/// The work in one thread's hands.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) since: Instant,
    pub(super) limit: Duration,
    pub(super) queue: Arc<Shared>,
    /// What the scheduler knows the batch by; `None` for a warm-up.
    pub(super) run: Option<RunKey>,
    pub(super) waiters: Waiters,
    /// Calls of the same split batch whose run comes next; they are not part of this one.
    pub(super) rest: Groups,
    /// What the batch says about its model so far.
    pub(super) judge: Judge,
}

/// Groups of calls that wait for their run, the next one last.
pub(super) type Groups = Vec<Vec<Job>>;

/// Who waits for it.
#[derive(Debug)]
pub(super) enum Waiters {
    /// The calls of a batch.
    Calls(Vec<Ticket>),
    /// A warm-up.
    Warmup(oneshot::Sender<Result<(), Failure>>),
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

    /// Gives the work in hand its whole time once more, for what its thread runs next.
    pub(super) fn begin_anew(&self, now: Instant) {
        if let Some(running) = &mut *self.lock() {
            running.since = now;
            running.judge.begin(now, running.limit);
        }
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

impl Running {
    /// Tells everybody who waits for this run, and gives back who waits for another one.
    pub(super) fn fail(self, failure: &Failure) -> Groups {
        let Self { queue, waiters, rest, mut judge, .. } = self;
        if let Waiters::Calls(tickets) = &waiters {
            judge.failed(tickets.len(), failure);
            judge.settle(&queue);
        }
        waiters.fail(failure);
        rest
    }
}

impl Waiters {
    /// Tells everybody the same.
    pub(super) fn fail(self, failure: &Failure) {
        match self {
            Self::Calls(tickets) => {
                let mut post = Post::default();
                for ticket in tickets {
                    ticket.reply.send(Err(failure.clone()), &mut post);
                }
            }
            // The load that asked may have been given up.
            Self::Warmup(reply) => drop(reply.send(Err(failure.clone()))),
        }
    }
}
