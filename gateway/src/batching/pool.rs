//! The engine threads of one device and what waits for them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use engine::Batch;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::error;

use super::bucket::{Key, Ripe};
use super::job::{Failure, Job, Rank};
use super::load::Backlog;
use super::queue::Shared;
use super::reply::Post;
use super::running::Slot;
use super::scheduler::{Cleared, Next, Picked, RunKey, Scheduler, Used};
use super::stuck::StuckThreads;
use crate::error::{Kind, Rejection};
use crate::telemetry::{Dropped, Shed, metrics};

mod threads;

/// Calls and buckets that one call looks at to find those that give way to it; some tens of
/// microseconds.
const STEPS: usize = 1000;

/// Name of a device: `cpu` or `cuda:N`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device(pub String);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The engine threads of one device. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    device: Device,
    threads: usize,
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
    stuck: StuckThreads,
    queue_ids: AtomicU64,
    closed: AtomicBool,
    /// Why the device runs nothing any more.
    failure: OnceLock<String>,
    backlog: Arc<Backlog>,
}

#[derive(Debug, Default)]
struct State {
    scheduler: Scheduler,
    workers: Vec<Worker>,
    /// Threads that wait for work, how many of them are being woken, and until when the first
    /// of them sleeps.
    sleeping: usize,
    waking: usize,
    alarm: Option<Instant>,
    sequence: u64,
    spawned: usize,
    /// Makes the next thread that asks for work panic.
    #[cfg(test)]
    breaks: bool,
}

#[derive(Debug)]
struct Worker {
    id: usize,
    slot: Arc<Slot>,
    warmups: VecDeque<Warmup>,
}

/// A batch that one certain thread has to run once.
#[derive(Debug)]
pub(super) struct Warmup {
    pub(super) queue: Arc<Shared>,
    pub(super) batch: Batch,
    pub(super) limit: Duration,
    pub(super) reply: oneshot::Sender<Result<(), Failure>>,
}

/// A call on its way into the pool.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) queue: Arc<Shared>,
    pub(super) key: Key,
    pub(super) job: Job,
}

/// What a free thread does next.
#[derive(Debug)]
pub(super) enum Work {
    Batch(Box<Picked>),
    Warmup(Warmup),
}

impl Pool {
    /// Starts `threads` engine threads for `device`.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(device: Device, threads: usize, stuck: StuckThreads) -> std::io::Result<Self> {
        let inner = Inner {
            device,
            threads,
            started: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
            stuck,
            queue_ids: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            failure: OnceLock::new(),
            backlog: Arc::default(),
        };
        let pool = Self { inner: Arc::new(inner) };
        for _ in 0..threads {
            pool.add_worker()?;
        }
        Ok(pool)
    }

    #[must_use]
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// Lets idle threads end and refuses new calls; work in hand is finished.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        // A thread between its look at the flag and its sleep holds the lock.
        drop(self.lock());
        self.inner.changed.notify_all();
    }

    /// Why the device runs nothing any more; `None` while it does.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.inner.failure.get().map(String::as_str)
    }

    /// Shows what waits as engine time; called before metrics are rendered.
    pub fn publish(&self) {
        metrics::BACKLOG.gauge(&[&self.inner.device.0]).set(self.wait().as_secs_f64());
    }

    /// Takes the device out of service for good: nothing that it computes can be trusted.
    pub(super) fn fail(&self, reason: &str) {
        if self.inner.failure.set(reason.to_owned()).is_ok() {
            error!(device = %self.inner.device, reason, "the device has failed, restart the process");
            metrics::DEVICE_FAILED.gauge(&[&self.inner.device.0]).set(1);
        }
    }

    pub(super) fn check_open(&self) -> Result<(), Rejection> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Rejection::new(Kind::NotReady, "the gateway is stopping"));
        }
        match self.failure() {
            None => Ok(()),
            Some(_) => {
                let text = format!("the device {} has failed", self.inner.device);
                Err(Rejection::new(Kind::NotReady, text))
            }
        }
    }

    pub(super) fn next_queue_id(&self) -> u64 {
        self.inner.queue_ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn backlog(&self) -> &Arc<Backlog> {
        &self.inner.backlog
    }

    /// How long what waits now will take all threads together, as far as is known.
    pub(super) fn wait(&self) -> Duration {
        self.inner.backlog.time() / u32::try_from(self.inner.threads.max(1)).unwrap_or(u32::MAX)
    }

    pub(super) fn size(&self) -> usize {
        self.inner.threads
    }

    pub(super) fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.inner.started)
    }

    /// Hands calls to the pools of their queues and empties the list. Each run of calls for one
    /// pool takes its lock once and wakes one thread at most; that one wakes the next.
    pub(super) fn enqueue(entries: &mut Vec<Entry>) {
        let mut entries = entries.drain(..).peekable();
        while let Some(entry) = entries.next() {
            let pool = entry.queue.pool.clone();
            let now = Instant::now();
            let mut state = pool.lock();
            if pool.inner.closed.load(Ordering::Acquire) && state.workers.is_empty() {
                drop(state);
                entry.queue.metrics.dropped(Dropped::Stopping);
                entry.job.ticket.reply.send(Err(Failure::Stopping), &mut Post::default());
                continue;
            }
            let mut cleared = Cleared::default();
            let mut wake = state.push(entry, now, &mut cleared);
            while let Some(entry) =
                entries.next_if(|next| Arc::ptr_eq(&next.queue.pool.inner, &pool.inner))
            {
                wake |= state.push(entry, now, &mut cleared);
            }
            state.waking += usize::from(wake);
            drop(state);
            if wake {
                pool.inner.changed.notify_one();
            }
            cleared.settle();
        }
    }

    /// Refuses waiting calls of a version that are behind `rank`, the last ones first, until
    /// `fits` says that there is room, none of them is left or it has looked for too long: every
    /// thread of the device waits for this.
    pub(super) fn displace(&self, queue: &Arc<Shared>, rank: Rank, fits: impl Fn() -> bool) {
        let mut cleared = Cleared::default();
        let mut state = self.lock();
        let mut steps = STEPS;
        while !fits() && steps > 0 {
            if !state.scheduler.displace(queue, (rank, &mut steps), &mut cleared) {
                break;
            }
            // What found its call was not in vain.
            steps += 2;
        }
        drop(state);
        cleared.settle();
    }

    pub(super) fn forget(&self, id: u64) {
        self.lock().scheduler.forget(id);
    }

    /// Notes a run that has ended, then blocks until there is work for this thread; `None` ends
    /// it.
    pub(super) fn next_work(&self, worker: usize, ended: Option<Ended>) -> Option<Work> {
        let mut state = self.lock();
        #[cfg(test)]
        assert!(!std::mem::take(&mut state.breaks), "scripted panic outside of a run");
        if let Some(Ended { queue, run, used }) = ended {
            let batch = state.scheduler.finished(&run, queue.settings.weight, used);
            drop(state);
            if let (Some(batch), Ok(rows)) = (batch, u32::try_from(run.rows.max(1))) {
                queue.load.set_times(batch / rows, batch);
            }
            // It may be the last handle, whose end takes the lock.
            drop(queue);
            state = self.lock();
        }
        loop {
            let own = state.workers.iter_mut().find(|other| other.id == worker)?;
            let warmup = own.warmups.pop_front();
            let now = Instant::now();
            if let Some(warmup) = warmup {
                self.hand_on(state, now);
                return Some(Work::Warmup(warmup));
            }
            let closed = self.inner.closed.load(Ordering::Acquire);
            let mut cleared = Cleared::default();
            let next = state.scheduler.next(now, closed, &mut cleared);
            if let Next::Run(picked) = next {
                self.hand_on(state, now);
                cleared.settle();
                return Some(Work::Batch(picked));
            }
            if !cleared.is_empty() {
                drop(state);
                cleared.settle();
                state = self.lock();
                continue;
            }
            if closed && state.scheduler.is_empty() {
                // Under this lock, so that nobody hands calls to threads that have left.
                state.workers.retain(|other| other.id != worker);
                return None;
            }
            let until = if let Next::At(at) = next { Some(at) } else { None };
            state = self.sleep(state, now, until);
        }
    }

    /// Wakes another thread for what is left: the one that goes to work will not be there when a
    /// delay ends, nor for what the end of its last run made room for.
    fn hand_on(&self, mut state: MutexGuard<'_, State>, now: Instant) {
        let more = state.sleeping > state.waking
            && state
                .scheduler
                .outlook(now)
                .is_some_and(|at| at <= now || state.alarm.is_none_or(|alarm| at < alarm));
        state.waking += usize::from(more);
        drop(state);
        if more {
            self.inner.changed.notify_one();
        }
    }

    /// Makes the next thread that asks for work panic.
    #[cfg(test)]
    pub(super) fn break_next(&self) {
        self.lock().breaks = true;
    }

    /// Threads that take work, and how many there should be.
    #[must_use]
    pub fn threads(&self) -> (usize, usize) {
        (self.lock().workers.len(), self.inner.threads)
    }

    /// Threads that found nothing to do.
    #[cfg(test)]
    pub(super) fn sleeping(&self) -> usize {
        self.lock().sleeping
    }

    /// What a free thread would run now.
    #[cfg(test)]
    pub(super) fn take(&self) -> Option<Box<Picked>> {
        let mut cleared = Cleared::default();
        let next = self.lock().scheduler.next(Instant::now(), false, &mut cleared);
        cleared.settle();
        if let Next::Run(picked) = next { Some(picked) } else { None }
    }

    /// Notes that it has run.
    #[cfg(test)]
    pub(super) fn end(&self, picked: &Picked, used: Used) {
        let Picked { queue, run, .. } = picked;
        let batch = self.lock().scheduler.finished(run, queue.settings.weight, used);
        if let Some(batch) = batch {
            queue.load.set_times(batch / u32::try_from(run.rows).unwrap(), batch);
        }
    }

    /// Calls in the buckets, dead ones included.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().scheduler.waiting()
    }

    fn sleep<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        now: Instant,
        until: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        state.sleeping += 1;
        let mut state = match until {
            None => self.inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                state.alarm = Some(state.alarm.map_or(until, |alarm| alarm.min(until)));
                let time = until.saturating_duration_since(now);
                let woken = self.inner.changed.wait_timeout(state, time);
                let mut state = woken.unwrap_or_else(PoisonError::into_inner).0;
                state.alarm = None;
                state
            }
        };
        state.sleeping -= 1;
        state.waking = state.waking.saturating_sub(1);
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) queue: Arc<Shared>,
    pub(super) run: RunKey,
    pub(super) used: Used,
}

impl State {
    /// Adds a call; says whether a sleeping thread has to know.
    fn push(&mut self, entry: Entry, now: Instant, cleared: &mut Cleared) -> bool {
        let Entry { queue, key, mut job } = entry;
        if queue.load.needs_sweep(queue.settings.max_bytes) {
            self.scheduler.sweep(&queue, now, cleared);
        }
        // A call that comes back keeps its place.
        if job.ticket.urgency.sequence == 0 {
            self.sequence += 1;
            job.ticket.urgency.sequence = self.sequence;
        }
        let ripe = self.scheduler.push(&queue, key, job, now);
        self.sleeping > self.waking
            && match ripe {
                None => false,
                Some(Ripe::Now(_)) => true,
                Some(Ripe::At(at)) => self.alarm.is_none_or(|alarm| at < alarm),
            }
    }
}

impl Cleared {
    fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.spent.is_empty()
    }

    /// Ends the calls that left, and lets go of versions that nothing waits for.
    fn settle(self) {
        let mut post = Post::default();
        for (queue, ticket, failure) in self.dropped {
            if failure == Failure::Displaced {
                queue.metrics.shed(Shed::Displaced, ticket.rank().class());
            }
            queue.metrics.dropped(match failure {
                Failure::Expired => Dropped::Expired,
                Failure::Displaced => Dropped::Displaced,
                _ => Dropped::Cancelled,
            });
            ticket.reply.send(Err(failure), &mut post);
        }
    }
}
