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
use super::running::Slot;
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
                match worker.slot.take_expired(now) {
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
            self.inner.stuck.abandon("run");
            let failure = Failure::TimedOut(running.limit);
            running.waiters.fail(&failure);
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

    /// Asks every thread to run `batch` once.
    pub(super) fn warm_all(
        &self,
        queue: &Arc<Shared>,
        batch: &Batch,
        limit: Duration,
    ) -> Vec<oneshot::Receiver<Result<(), Failure>>> {
        let mut state = self.lock();
        let mut receivers = Vec::with_capacity(state.workers.len());
        for worker in &mut state.workers {
            let (reply, receiver) = oneshot::channel();
            let (queue, batch) = (queue.clone(), batch.clone());
            worker.warmups.push_back(Warmup { queue, batch, limit, reply });
            receivers.push(receiver);
        }
        drop(state);
        self.inner.changed.notify_all();
        receivers
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
            if let Some((queue, jobs)) = state.take_turn() {
                let (rows, bytes) = state.totals(queue.id);
                drop(state);
                queue.show_waiting(rows, bytes);
                return Some(Work::Batch(queue, jobs));
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
        tasks::thread(&name, move || worker::run(&pool, id, &slot))?;
        self.gauge().increment(1);
        Ok(())
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
    fn take_turn(&mut self) -> Option<(Arc<Shared>, Vec<Job>)> {
        while let Some(queue) = self.turns.pop_front() {
            let Some(waiting) = self.queues.get_mut(&queue.id) else { continue };
            let jobs = waiting.take_batch(queue.settings.max_batch);
            if !waiting.jobs.is_empty() {
                self.turns.push_back(queue.clone());
            }
            if !jobs.is_empty() {
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
