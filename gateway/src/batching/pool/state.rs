//! What the lock of a device guards: what waits on its two sides, the threads there, and which of
//! them have to be woken.

use std::collections::VecDeque;
use std::ops::BitOr;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Entry, Warmup};
use crate::batching::bucket::Ripe;
use crate::batching::job::Failure;
use crate::batching::running::Slot;
use crate::batching::scheduler::{Cleared, Next, Scheduler};
use crate::batching::side::Side;

/// Everything that waits for one device, and who works there.
#[derive(Debug)]
pub(super) struct State {
    pub(super) live: Line,
    pub(super) shadow: Line,
    pub(super) workers: Vec<Worker>,
    /// Whether a shadow ever came: only then are there threads for them.
    pub(super) has_shadows: bool,
    /// Shadow threads that were given up and have not come back.
    pub(super) lost_shadows: usize,
    /// Whether shadows are refused, for the pool closes.
    ends: bool,
    sequence: u64,
    pub(super) spawned: usize,
    /// Makes the next thread that asks for work panic.
    #[cfg(test)]
    pub(super) breaks: bool,
    /// How often threads have looked for work.
    #[cfg(test)]
    pub(super) looks: usize,
}

/// One side: what waits, and the threads that wait for it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) scheduler: Scheduler,
    /// Threads that wait for work, how many of them are being woken, and until when the first
    /// of them sleeps.
    pub(super) sleeping: usize,
    pub(super) waking: usize,
    pub(super) alarm: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: usize,
    pub(super) side: Side,
    pub(super) slot: Arc<Slot>,
    pub(super) warmups: VecDeque<Warmup>,
}

/// On which sides a sleeping thread has to be woken, and whether a shadow came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ring {
    pub(super) live: bool,
    pub(super) shadow: bool,
    pub(super) has_shadow: bool,
}

impl BitOr for Ring {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            live: self.live | other.live,
            shadow: self.shadow | other.shadow,
            has_shadow: self.has_shadow | other.has_shadow,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            live: Line::new(Side::Live),
            shadow: Line::new(Side::Shadow),
            workers: Vec::new(),
            has_shadows: false,
            lost_shadows: 0,
            ends: false,
            sequence: 0,
            spawned: 0,
            #[cfg(test)]
            breaks: false,
            #[cfg(test)]
            looks: 0,
        }
    }
}

impl State {
    pub(super) fn of(&mut self, side: Side) -> &mut Line {
        match side {
            Side::Live => &mut self.live,
            Side::Shadow => &mut self.shadow,
        }
    }

    /// Threads of a side.
    pub(super) fn count(&self, side: Side) -> usize {
        self.workers.iter().filter(|worker| worker.side == side).count()
    }

    /// Adds a call; says whether a sleeping thread has to know.
    pub(super) fn push(&mut self, entry: Entry, now: Instant, cleared: &mut Cleared) -> Ring {
        let Entry { queue, key, mut job } = entry;
        let side = queue.pool.side(job.ticket.urgency.shadow);
        if self.ends && side == Side::Shadow {
            cleared.dropped.push((queue, job.ticket, Failure::Stopping));
            return Ring::default();
        }
        if queue.load(side).needs_sweep(queue.settings.max_bytes) {
            self.of(side).scheduler.sweep(&queue, now, cleared);
        }
        // A call that comes back keeps its place.
        if job.ticket.urgency.sequence == 0 {
            self.sequence += 1;
            job.ticket.urgency.sequence = self.sequence;
        }
        let line = self.of(side);
        let ripe = line.scheduler.push(&queue, key, job, now);
        let wakes = line.sleeping > line.waking
            && match ripe {
                None => false,
                Some(Ripe::Now(_)) => true,
                Some(Ripe::At(at)) => line.rings_later_than(at),
            };
        match side {
            Side::Live => Ring { live: wakes, ..Ring::default() },
            Side::Shadow => {
                let shadow = wakes && !self.has_live_work(now);
                Ring { shadow, has_shadow: true, ..Ring::default() }
            }
        }
    }

    /// What a thread of this side runs next. Shadows wait while live work does.
    pub(super) fn next(
        &mut self,
        side: Side,
        (now, hurry): (Instant, bool),
        cleared: &mut Cleared,
    ) -> Next {
        // Whoever takes the last of the live work, or finds that it has gone, wakes this side.
        if side == Side::Shadow && self.has_live_work(now) {
            return Next::Nothing;
        }
        self.of(side).scheduler.next(now, hurry, cleared)
    }

    /// Whether a sleeping thread of this side has something to do that nobody knows of.
    pub(super) fn wanted(&self, side: Side, now: Instant) -> Ring {
        let line = match side {
            Side::Live => &self.live,
            Side::Shadow => &self.shadow,
        };
        let has_time = || line.sleeping > line.waking;
        let has_work =
            || line.scheduler.outlook(now).is_some_and(|at| at <= now || line.rings_later_than(at));
        match side {
            Side::Live => Ring { live: has_time() && has_work(), ..Ring::default() },
            Side::Shadow => {
                let shadow = has_time() && !self.has_live_work(now) && has_work();
                Ring { shadow, ..Ring::default() }
            }
        }
    }

    /// Notes who is being woken. Call it under the same lock.
    pub(super) fn note(&mut self, ring: Ring) {
        self.live.waking += usize::from(ring.live);
        self.shadow.waking += usize::from(ring.shadow);
    }

    /// Takes out the shadows that wait, and lets in no more.
    pub(super) fn end_shadows(&mut self, cleared: &mut Cleared) {
        self.ends = true;
        self.shadow.scheduler.end(cleared);
    }

    /// Whether a live batch could run now, if it had a thread.
    fn has_live_work(&self, now: Instant) -> bool {
        self.live.scheduler.outlook(now).is_some_and(|at| at <= now)
    }
}

impl Line {
    fn new(side: Side) -> Self {
        let scheduler = Scheduler::new(side);
        Self { scheduler, sleeping: 0, waking: 0, alarm: None }
    }

    /// Whether no thread wakes by itself until then.
    fn rings_later_than(&self, at: Instant) -> bool {
        self.alarm.is_none_or(|alarm| at < alarm)
    }
}
