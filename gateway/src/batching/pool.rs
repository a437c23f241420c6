//! The engine threads of one device and what waits for them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use engine::Batch;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::error;

use self::state::{Ring, State};
use super::bucket::Key;
use super::job::{Failure, Job, Rank};
use super::load::Backlog;
use super::queue::Shared;
use super::reply::Post;
use super::scheduler::{Cleared, Next, Picked, RunKey, Used};
use super::side::Side;
use super::stuck::StuckThreads;
use crate::error::{Kind, Rejection};
use crate::telemetry::{Dropped, metrics};

mod state;
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

/// How many engine threads a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    pub live: usize,
    /// Those that run nothing but shadows, started when the first one comes. 0: the live ones do.
    pub shadow: usize,
}

/// The engine threads of one device. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    device: Device,
    threads: Threads,
    started: Instant,
    state: Mutex<State>,
    /// What the threads of each side wait for, and whoever waits for their end.
    live: Condvar,
    shadow: Condvar,
    ended: Condvar,
    stuck: StuckThreads,
    queue_ids: AtomicU64,
    closed: AtomicBool,
    /// Why the device runs nothing any more.
    failure: OnceLock<String>,
    backlog: Arc<Backlog>,
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
    /// Starts the live engine threads of `device`.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(device: Device, threads: Threads, stuck: StuckThreads) -> std::io::Result<Self> {
        let inner = Inner {
            device,
            threads,
            started: Instant::now(),
            state: Mutex::default(),
            live: Condvar::new(),
            shadow: Condvar::new(),
            ended: Condvar::new(),
            stuck,
            queue_ids: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            failure: OnceLock::new(),
            backlog: Arc::default(),
        };
        let pool = Self { inner: Arc::new(inner) };
        for _ in 0..threads.live {
            pool.add_worker(Side::Live)?;
        }
        Ok(pool)
    }

    #[must_use]
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// Lets idle threads end and refuses new calls; live work in hand is finished, shadows that
    /// wait are not run any more.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        let mut cleared = Cleared::default();
        // A thread between its look at the flag and its sleep holds the lock.
        self.lock().end_shadows(&mut cleared);
        self.notify_all();
        cleared.settle();
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
        self.inner.backlog.time() / u32::try_from(self.size().max(1)).unwrap_or(u32::MAX)
    }

    /// Threads for live calls.
    pub(super) fn size(&self) -> usize {
        self.inner.threads.live
    }

    /// Whose threads take calls of this class.
    pub(super) fn side(&self, is_shadow: bool) -> Side {
        if is_shadow && self.inner.threads.shadow > 0 { Side::Shadow } else { Side::Live }
    }

    pub(super) fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.inner.started)
    }

    /// Hands calls to the pools of their queues and empties the list. Each run of calls for one
    /// pool takes its lock once and wakes one thread of a side at most; that one wakes the next.
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
            let mut ring = state.push(entry, now, &mut cleared);
            while let Some(entry) =
                entries.next_if(|next| Arc::ptr_eq(&next.queue.pool.inner, &pool.inner))
            {
                ring = ring | state.push(entry, now, &mut cleared);
            }
            state.note(ring);
            let is_first = ring.has_shadow && !std::mem::replace(&mut state.has_shadows, true);
            drop(state);
            pool.ring(ring);
            if is_first {
                pool.start_lost();
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
            if !state.live.scheduler.displace(queue, (rank, &mut steps), &mut cleared) {
                break;
            }
            // What found its call was not in vain.
            steps += 2;
        }
        drop(state);
        cleared.settle();
    }

    pub(super) fn forget(&self, id: u64) {
        let mut state = self.lock();
        state.live.scheduler.forget(id);
        state.shadow.scheduler.forget(id);
    }

    /// Notes a run that has ended, then blocks until there is work for this thread; `None` ends
    /// it.
    pub(super) fn next_work(
        &self,
        (worker, side): (usize, Side),
        ended: Option<Ended>,
    ) -> Option<Work> {
        let mut state = self.lock();
        #[cfg(test)]
        assert!(!std::mem::take(&mut state.breaks), "scripted panic outside of a run");
        if let Some(Ended { queue, run, used }) = ended {
            let batch = state.of(run.side).scheduler.finished(&run, &queue, used);
            drop(state);
            if let (Some(batch), Ok(rows)) = (batch, u32::try_from(run.rows.max(1))) {
                queue.load(run.side).set_times(batch / rows, batch);
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
                self.hand_on(state, now, &[Side::Live, Side::Shadow]);
                return Some(Work::Warmup(warmup));
            }
            let closed = self.inner.closed.load(Ordering::Acquire);
            let mut cleared = Cleared::default();
            let next = state.next(side, (now, closed), &mut cleared);
            #[cfg(test)]
            {
                state.looks += 1;
            }
            if let Next::Run(picked) = next {
                self.hand_on(state, now, &[Side::Live, Side::Shadow]);
                cleared.settle();
                return Some(Work::Batch(picked));
            }
            if !cleared.is_empty() {
                drop(state);
                cleared.settle();
                state = self.lock();
                continue;
            }
            if closed && state.of(side).scheduler.is_empty() {
                // Under this lock, so that nobody hands calls to threads that have left.
                state.workers.retain(|other| other.id != worker);
                return None;
            }
            let until = if let Next::At(at) = next { Some(at) } else { None };
            // What this thread waits for it will see; the other side may wait for what it did.
            let ring = state.wanted(side.other(), now);
            state.note(ring);
            self.ring(ring);
            state = self.sleep(state, side, (now, until));
        }
    }

    /// Wakes other threads for what is left: the one that goes to work will not be there when a
    /// delay ends, nor for what the end of its last run made room for. Shadows are looked at
    /// behind live calls, for they wait for those.
    fn hand_on(&self, mut state: MutexGuard<'_, State>, now: Instant, sides: &[Side]) {
        let mut ring = Ring::default();
        for side in sides {
            ring = ring | state.wanted(*side, now);
        }
        state.note(ring);
        drop(state);
        self.ring(ring);
    }

    fn ring(&self, ring: Ring) {
        if ring.live {
            self.inner.live.notify_one();
        }
        if ring.shadow {
            self.inner.shadow.notify_one();
        }
    }

    fn notify_all(&self) {
        self.inner.live.notify_all();
        self.inner.shadow.notify_all();
    }

    /// Makes the next thread that asks for work panic.
    #[cfg(test)]
    pub(super) fn break_next(&self) {
        self.lock().breaks = true;
    }

    /// Threads that take live work, and how many there should be.
    #[must_use]
    pub fn threads(&self) -> (usize, usize) {
        (self.lock().count(Side::Live), self.size())
    }

    /// Threads that found nothing to do.
    #[cfg(test)]
    pub(super) fn sleeping(&self) -> usize {
        self.sleeping_on(Side::Live)
    }

    #[cfg(test)]
    pub(super) fn sleeping_on(&self, side: Side) -> usize {
        self.lock().of(side).sleeping
    }

    /// Threads that take shadows.
    #[cfg(test)]
    pub(super) fn shadow_threads(&self) -> usize {
        self.lock().count(Side::Shadow)
    }

    #[cfg(test)]
    pub(super) fn lost_shadows(&self) -> usize {
        self.lock().lost_shadows
    }

    /// Lets all threads look whether there is work, and waits until they have.
    #[cfg(test)]
    pub(super) fn wake_all(&self) {
        let mut state = self.lock();
        let asleep = |state: &State| state.live.sleeping + state.shadow.sleeping;
        let (before, looks) = (asleep(&state), state.looks);
        self.notify_all();
        while state.looks < looks + before {
            drop(state);
            std::thread::yield_now();
            state = self.lock();
        }
    }

    /// What a free thread would run now.
    #[cfg(test)]
    pub(super) fn take(&self) -> Option<Box<Picked>> {
        let mut cleared = Cleared::default();
        let next = self.lock().live.scheduler.next(Instant::now(), false, &mut cleared);
        cleared.settle();
        if let Next::Run(picked) = next { Some(picked) } else { None }
    }

    /// Notes that it has run.
    #[cfg(test)]
    pub(super) fn end(&self, picked: &Picked, used: Used) {
        let Picked { queue, run, .. } = picked;
        let batch = self.lock().live.scheduler.finished(run, queue, used);
        if let Some(batch) = batch {
            queue.load.set_times(batch / u32::try_from(run.rows).unwrap(), batch);
        }
    }

    /// Calls in the buckets, dead ones included.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state.live.scheduler.waiting() + state.shadow.scheduler.waiting()
    }

    fn sleep<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        side: Side,
        (now, until): (Instant, Option<Instant>),
    ) -> MutexGuard<'s, State> {
        let changed = match side {
            Side::Live => &self.inner.live,
            Side::Shadow => &self.inner.shadow,
        };
        let line = state.of(side);
        line.sleeping += 1;
        let mut state = match until {
            None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                line.alarm = Some(line.alarm.map_or(until, |alarm| alarm.min(until)));
                let time = until.saturating_duration_since(now);
                let woken = changed.wait_timeout(state, time);
                let mut state = woken.unwrap_or_else(PoisonError::into_inner).0;
                state.of(side).alarm = None;
                state
            }
        };
        let line = state.of(side);
        line.sleeping -= 1;
        line.waking = line.waking.saturating_sub(1);
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

#[cfg(test)]
mod tests;
