//! The engine threads of one device and the queues they serve in turn.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::Batch;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, warn};

use super::job::{Failure, Job};
use super::queue::{Shared, Waiting};
use super::running::{Rest, Slot};
use super::stuck::StuckThreads;
use super::worker;
use crate::error::{Kind, Rejection};
use crate::tasks;
use crate::telemetry::metrics;

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
    state: Mutex<State>,
    changed: Condvar,
    stuck: StuckThreads,
    queue_ids: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    queues: HashMap<u64, Waiting>,
    /// Queues with waiting calls, each once, in the order of their turn.
    turns: VecDeque<Arc<Shared>>,
    workers: Vec<Worker>,
    started: usize,
    closed: bool,
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

/// What a free thread does next.
#[derive(Debug)]
pub(super) enum Work {
    Batch(Arc<Shared>, Vec<Job>),
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
            state: Mutex::default(),
            changed: Condvar::new(),
            stuck,
            queue_ids: AtomicU64::new(0),
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
        for (running, warmups) in expired {
            error!(
                device = %self.inner.device, model = running.label,
                limit = ?running.limit, "gave up an engine thread that is stuck in native code"
            );
            let failure = Failure::TimedOut(running.limit);
            running.waiters.fail(&failure);
            self.requeue(running.rest);
            for warmup in warmups {
                drop(warmup.reply.send(Err(failure.clone())));
            }
            self.gauge().decrement(1);
            if let Err(error) = self.add_worker() {
                error!(%error, "cannot replace a stuck engine thread");
            }
        }
    }

    /// Lets idle threads end and refuses new calls; work in hand is finished.
    pub fn close(&self) {
        self.lock().closed = true;
        self.inner.changed.notify_all();
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

    pub(super) fn next_queue_id(&self) -> u64 {
        self.inner.queue_ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn enqueue(&self, queue: &Arc<Shared>, job: Job) -> Result<(), Rejection> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejection::new(Kind::NotReady, "the gateway is stopping"));
        }
        let waiting = state.queues.entry(queue.id).or_default();
        let had_turn = !waiting.jobs.is_empty();
        waiting.push(job, &queue.settings)?;
        let (rows, bytes) = (waiting.rows, waiting.bytes);
        if !had_turn {
            state.turns.push_back(queue.clone());
        }
        drop(state);
        queue.show_waiting(rows, bytes);
        self.inner.changed.notify_one();
        Ok(())
    }

    /// Puts calls back whose thread was lost before their own run began.
    pub(super) fn requeue(&self, rest: Rest) {
        let Rest { queue: Some(queue), groups } = rest else { return };
        let mut state = self.lock();
        let waiting = state.queues.entry(queue.id).or_default();
        let had_turn = !waiting.jobs.is_empty();
        // The last group was the next to run, so it goes to the very front.
        for job in groups.into_iter().flat_map(|group| group.into_iter().rev()) {
            waiting.rows += job.rows;
            waiting.bytes += job.bytes;
            waiting.jobs.push_front(job);
        }
        let has_turn = !waiting.jobs.is_empty();
        if has_turn && !had_turn {
            state.turns.push_back(queue.clone());
        }
        drop(state);
        self.inner.changed.notify_one();
    }

    /// The threads that take work now.
    pub(super) fn workers(&self) -> Vec<usize> {
        self.lock().workers.iter().map(|worker| worker.id).collect()
    }

    /// Asks one thread to run `batch` once; `None` when it is no longer there.
    pub(super) fn warm(
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

    pub(super) fn pending(&self, id: u64) -> usize {
        self.lock().queues.get(&id).map_or(0, |waiting| waiting.jobs.len())
    }

    pub(super) fn forget(&self, id: u64) {
        self.lock().queues.remove(&id);
    }

    /// Blocks until there is work for this thread; `None` ends it.
    pub(super) fn next_work(&self, worker: usize) -> Option<Work> {
        let mut state = self.lock();
        loop {
            let own = state.workers.iter_mut().find(|other| other.id == worker)?;
            if let Some(warmup) = own.warmups.pop_front() {
                return Some(Work::Warmup(warmup));
            }
            let mut spent = Vec::new();
            if let Some((queue, jobs)) = state.take_turn(&mut spent) {
                let (rows, bytes) = state.totals(queue.id);
                drop(state);
                queue.show_waiting(rows, bytes);
                return Some(Work::Batch(queue, jobs));
            }
            if !spent.is_empty() {
                drop(state);
                // The last handle to a queue may be among them, and its end takes the lock.
                for queue in spent {
                    queue.show_waiting(0, 0);
                }
                state = self.lock();
                continue;
            }
            if state.closed {
                return None;
            }
            state = self.inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread that had been given up came back from native code.
    pub(super) fn recovered(&self) {
        warn!(device = %self.inner.device, "a stuck engine thread came back");
        self.inner.stuck.recover();
    }

    fn add_worker(&self) -> std::io::Result<()> {
        let slot = Arc::new(Slot::default());
        let id = {
            let mut state = self.lock();
            let id = state.started;
            state.started += 1;
            state.workers.push(Worker { id, slot: slot.clone(), warmups: VecDeque::new() });
            id
        };
        let pool = self.clone();
        let name = format!("engine-{}-{id}", self.inner.device);
        let started = tasks::thread(&name, move || {
            worker::run(&pool, id, &slot);
            pool.ended(id);
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next batch of the queue whose turn it is; a queue with more waits for another turn.
    /// Queues whose callers have all gone come out in `spent`, to be let go without the lock.
    fn take_turn(&mut self, spent: &mut Vec<Arc<Shared>>) -> Option<(Arc<Shared>, Vec<Job>)> {
        // A batch ends the search before anything spent could be forgotten.
        while spent.is_empty() {
            let queue = self.turns.pop_front()?;
            let Some(waiting) = self.queues.get_mut(&queue.id) else {
                spent.push(queue);
                continue;
            };
            let jobs = waiting.take_batch(queue.settings.max_batch);
            if !waiting.jobs.is_empty() {
                self.turns.push_back(queue.clone());
            }
            if jobs.is_empty() {
                spent.push(queue);
            } else {
                return Some((queue, jobs));
            }
        }
        None
    }

    fn totals(&self, id: u64) -> (usize, usize) {
        self.queues.get(&id).map_or((0, 0), |waiting| (waiting.rows, waiting.bytes))
    }
}

impl Shared {
    #[expect(clippy::cast_precision_loss, reason = "bounded far below 2^52")]
    fn show_waiting(&self, rows: usize, bytes: usize) {
        self.metrics.queue_rows.set(rows as f64);
        self.metrics.queue_bytes.set(bytes as f64);
    }
}
