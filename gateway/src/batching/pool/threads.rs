//! The engine threads themselves: started, warmed up, watched, given up and replaced.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use engine::Batch;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::state::Worker;
use super::{Entry, Pool, Warmup};
use crate::batching::job::Failure;
use crate::batching::queue::Shared;
use crate::batching::runner::Runner;
use crate::batching::running::{Groups, Running, Slot};
use crate::batching::scheduler::{Cleared, RunKey, Used};
use crate::batching::side::Side;
use crate::batching::worker;
use crate::tasks;
use crate::telemetry::metrics;

/// Shadow threads of a device that may be stuck before none takes their place any more: each one
/// keeps what it runs, and no restart of the process is worth a shadow.
const MOST_LOST: usize = 2;

impl Pool {
    /// Gives up threads that are past their limit: their callers get a clear failure and a fresh
    /// thread takes the place. Call it every few hundred milliseconds.
    pub fn watch(&self) {
        let now = Instant::now();
        let mut expired = Vec::new();
        {
            let mut state = self.lock();
            let workers = std::mem::take(&mut state.workers);
            for worker in workers {
                let side = worker.side;
                let taken = || match side {
                    Side::Live => self.inner.stuck.abandon("run"),
                    Side::Shadow => self.inner.stuck.abandon_shadow(),
                };
                match worker.slot.take_expired(now, taken) {
                    Some(running) => expired.push((running, side, worker.warmups)),
                    None => state.workers.push(worker),
                }
            }
            // Before it can come back, for it has to wait for this lock.
            state.lost_shadows += expired.iter().filter(|lost| lost.1 == Side::Shadow).count();
        }
        let mut lost = Vec::new();
        for (running, side, warmups) in expired {
            let Running { limit, since, .. } = running;
            let (queue, run) = (running.queue.clone(), running.run.clone());
            error!(
                device = %self.inner.device, model = queue.settings.label, ?limit,
                "gave up an engine thread that is stuck in native code"
            );
            let rest = running.fail(&Failure::TimedOut(limit));
            lost.push(warmups);
            if let Some(run) = run {
                let used = Used { time: now.saturating_duration_since(since), is_typical: false };
                self.requeue(&queue, &run, used, rest);
            }
            self.gauge(side).decrement(1);
        }
        self.start_lost();
        // What they wait for says nothing about what hangs: they are for the fresh threads.
        drop(lost);
    }

    /// Starts the threads that should be there and are not: those in the place of threads that
    /// were given up or died, and those for shadows once the first one has come. A thread that
    /// cannot be started now is tried again at the next look, and one that dies at once does not
    /// spin.
    pub(super) fn start_lost(&self) {
        for side in [Side::Live, Side::Shadow] {
            for _ in 0..self.missing(side) {
                if let Err(error) = self.add_worker(side) {
                    error!(%error, device = %self.inner.device, "cannot start an engine thread");
                    return;
                }
                info!(device = %self.inner.device, ?side, "started an engine thread");
            }
        }
    }

    fn missing(&self, side: Side) -> usize {
        let mut state = self.lock();
        let is_done =
            self.inner.closed.load(Ordering::Acquire) && state.of(side).scheduler.is_empty();
        let wanted = match side {
            _ if is_done => 0,
            Side::Live => self.inner.threads.live,
            Side::Shadow if state.has_shadows && state.lost_shadows < MOST_LOST => {
                self.inner.threads.shadow
            }
            Side::Shadow => 0,
        };
        wanted.saturating_sub(state.count(side))
    }

    /// Something panicked on a thread of this pool.
    pub(in crate::batching) fn panicked(&self, what: &'static str) {
        self.inner.stuck.panicked(&self.inner.device.0, what);
    }

    /// A thread died of a panic of our own: its calls fail, and [`Pool::watch`] starts another.
    fn died(&self, (worker, side): (usize, Side), slot: &Slot) {
        error!(device = %self.inner.device, worker, "an engine thread died of a panic");
        self.panicked("thread");
        self.gauge(side).decrement(1);
        if let Some(running) = slot.end() {
            let (queue, run) = (running.queue.clone(), running.run.clone());
            let used = Used { time: running.since.elapsed(), is_typical: false };
            let rest = running.fail(&Failure::Panicked);
            if let Some(run) = run {
                self.requeue(&queue, &run, used, rest);
            }
        }
        self.ended(worker);
    }

    /// Waits until the threads of a closed pool have ended, at most this long; `false` when some
    /// are still at work.
    #[must_use]
    pub fn wait_ended(&self, limit: Duration) -> bool {
        let state = self.lock();
        let waited =
            self.inner.ended.wait_timeout_while(state, limit, |state| !state.workers.is_empty());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Puts calls back whose thread was lost before their own run began.
    pub(in crate::batching) fn requeue(
        &self,
        queue: &Arc<Shared>,
        run: &RunKey,
        used: Used,
        rest: Groups,
    ) {
        let now = Instant::now();
        let mut cleared = Cleared::default();
        let mut state = self.lock();
        state.of(run.side).scheduler.finished(run, queue, used);
        for job in rest.into_iter().flatten() {
            let (queue, key) = (queue.clone(), run.key.clone());
            state.push(Entry { queue, key, job }, now, &mut cleared);
        }
        drop(state);
        cleared.settle();
        self.notify_all();
    }

    /// The threads that take live work now.
    pub(in crate::batching) fn workers(&self) -> Vec<usize> {
        let state = self.lock();
        let live = state.workers.iter().filter(|worker| worker.side == Side::Live);
        live.map(|worker| worker.id).collect()
    }

    /// Asks one thread to run `batch` once; `None` when it is no longer there.
    pub(in crate::batching) fn warm(
        &self,
        worker: usize,
        queue: &Arc<Shared>,
        batch: &Batch,
        limit: Duration,
    ) -> Option<oneshot::Receiver<Result<(), Failure>>> {
        let (reply, receiver) = oneshot::channel();
        let warmup = Warmup { queue: queue.clone(), batch: batch.clone(), limit, reply };
        let mut state = self.lock();
        let worker = state.workers.iter_mut().find(|other| other.id == worker)?;
        worker.warmups.push_back(warmup);
        drop(state);
        self.notify_all();
        Some(receiver)
    }

    /// Whether a thread no longer takes work. One that hung was taken out with its batch, which is
    /// somebody else's since.
    pub(in crate::batching) fn has_given_up(&self, worker: usize) -> bool {
        self.lock().workers.iter().all(|other| other.id != worker)
    }

    /// A thread that had been given up came back from native code.
    pub(in crate::batching) fn recovered(&self, side: Side) {
        warn!(device = %self.inner.device, "a stuck engine thread came back");
        match side {
            Side::Live => self.inner.stuck.recover(),
            Side::Shadow => {
                let mut state = self.lock();
                state.lost_shadows = state.lost_shadows.saturating_sub(1);
            }
        }
    }

    pub(super) fn add_worker(&self, side: Side) -> std::io::Result<()> {
        let slot = Arc::new(Slot::default());
        let id = {
            let mut state = self.lock();
            let id = state.spawned;
            state.spawned += 1;
            let warmups = VecDeque::new();
            state.workers.push(Worker { id, side, slot: slot.clone(), warmups });
            id
        };
        let started = self.start_thread((id, side), slot);
        match started {
            Ok(()) => self.gauge(side).increment(1),
            Err(_) => self.ended(id),
        }
        started
    }

    fn start_thread(&self, (id, side): (usize, Side), slot: Arc<Slot>) -> std::io::Result<()> {
        let device = &self.inner.device;
        let runner = match side {
            Side::Live => Runner::default(),
            Side::Shadow => Runner::aside(&format!("shadow-{device}-{id}"))?,
        };
        let name = format!("engine-{device}-{id}");
        let pool = self.clone();
        let thread = tasks::thread(&name, move || {
            let body = AssertUnwindSafe(|| worker::run(&pool, (id, side), &slot, runner));
            match catch_unwind(body) {
                Ok(()) => pool.ended(id),
                Err(_) => pool.died((id, side), &slot),
            }
        });
        thread.map(drop)
    }

    /// A thread is no more; nobody may wait for it.
    fn ended(&self, worker: usize) {
        let mut state = self.lock();
        let at = state.workers.iter().position(|other| other.id == worker);
        let gone = at.map(|at| state.workers.remove(at));
        drop(state);
        // Its warm-ups are dropped without the lock, for they may hold the last of a queue.
        drop(gone);
        self.inner.ended.notify_all();
    }

    fn gauge(&self, side: Side) -> ::metrics::Gauge {
        let gauge = match side {
            Side::Live => &metrics::ENGINE_THREADS,
            Side::Shadow => &metrics::SHADOW_THREADS,
        };
        gauge.gauge(&[&self.inner.device.0])
    }
}
