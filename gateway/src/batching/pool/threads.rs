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

use super::{Entry, Pool, Warmup, Worker};
use crate::batching::job::Failure;
use crate::batching::queue::Shared;
use crate::batching::running::{Groups, Running, Slot};
use crate::batching::scheduler::{Cleared, RunKey, Used};
use crate::batching::worker;
use crate::tasks;
use crate::telemetry::metrics;

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
                match worker.slot.take_expired(now, || self.inner.stuck.abandon("run")) {
                    Some(running) => expired.push((running, worker.warmups)),
                    None => state.workers.push(worker),
                }
            }
        }
        let mut lost = Vec::new();
        for (running, warmups) in expired {
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
            self.gauge().decrement(1);
        }
        self.replace_lost();
        // What they wait for says nothing about what hangs: they are for the fresh threads.
        drop(lost);
    }

    /// Starts threads in the place of those that were given up or died. A thread that cannot be
    /// started now is tried again at the next look, and one that dies at once does not spin.
    fn replace_lost(&self) {
        let missing = {
            let state = self.lock();
            match self.inner.closed.load(Ordering::Acquire) && state.scheduler.is_empty() {
                true => 0,
                false => self.inner.threads.saturating_sub(state.workers.len()),
            }
        };
        for _ in 0..missing {
            if let Err(error) = self.add_worker() {
                error!(%error, device = %self.inner.device, "cannot replace a lost engine thread");
                return;
            }
            info!(device = %self.inner.device, "a fresh engine thread takes the place of a lost one");
        }
    }

    /// Something panicked on a thread of this pool.
    pub(in crate::batching) fn panicked(&self, what: &'static str) {
        self.inner.stuck.panicked(&self.inner.device.0, what);
    }

    /// A thread died of a panic of our own: its calls fail, and [`Pool::watch`] starts another.
    fn died(&self, worker: usize, slot: &Slot) {
        error!(device = %self.inner.device, worker, "an engine thread died of a panic");
        self.panicked("thread");
        self.gauge().decrement(1);
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
            self.inner.changed.wait_timeout_while(state, limit, |state| !state.workers.is_empty());
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
        state.scheduler.finished(run, queue.settings.weight, used);
        for job in rest.into_iter().flatten() {
            let (queue, key) = (queue.clone(), run.key.clone());
            state.push(Entry { queue, key, job }, now, &mut cleared);
        }
        drop(state);
        cleared.settle();
        self.inner.changed.notify_all();
    }

    /// The threads that take work now.
    pub(in crate::batching) fn workers(&self) -> Vec<usize> {
        self.lock().workers.iter().map(|worker| worker.id).collect()
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
        self.inner.changed.notify_all();
        Some(receiver)
    }

    /// Whether a thread no longer takes work. One that hung was taken out with its batch, which is
    /// somebody else's since.
    pub(in crate::batching) fn has_given_up(&self, worker: usize) -> bool {
        self.lock().workers.iter().all(|other| other.id != worker)
    }

    /// A thread that had been given up came back from native code.
    pub(in crate::batching) fn recovered(&self) {
        warn!(device = %self.inner.device, "a stuck engine thread came back");
        self.inner.stuck.recover();
    }

    pub(super) fn add_worker(&self) -> std::io::Result<()> {
        let slot = Arc::new(Slot::default());
        let id = {
            let mut state = self.lock();
            let id = state.spawned;
            state.spawned += 1;
            state.workers.push(Worker { id, slot: slot.clone(), warmups: VecDeque::new() });
            id
        };
        let pool = self.clone();
        let name = format!("engine-{}-{id}", self.inner.device);
        let started = tasks::thread(&name, move || {
            let body = AssertUnwindSafe(|| worker::run(&pool, id, &slot));
            match catch_unwind(body) {
                Ok(()) => pool.ended(id),
                Err(_) => pool.died(id, &slot),
            }
        });
        match started {
            Ok(_) => self.gauge().increment(1),
            Err(_) => self.ended(id),
        }
        started.map(drop)
    }

    /// A thread is no more; nobody may wait for it.
    fn ended(&self, worker: usize) {
        let mut state = self.lock();
        let at = state.workers.iter().position(|other| other.id == worker);
        let gone = at.map(|at| state.workers.remove(at));
        drop(state);
        // Its warm-ups are dropped without the lock, for they may hold the last of a queue.
        drop(gone);
        self.inner.changed.notify_all();
    }

    fn gauge(&self) -> ::metrics::Gauge {
        metrics::ENGINE_THREADS.gauge(&[&self.inner.device.0])
    }
}
