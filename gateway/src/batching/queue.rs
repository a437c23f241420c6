//! The waiting calls of one model version, and the model they wait for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::{Batch, Engine, Model, Run, Tensor};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::job::{Done, Failure, Job};
use super::pool::Pool;
use crate::error::{Kind, Rejection};
use crate::tasks;
use crate::telemetry::VersionMetrics;

/// What a queue is bound by. A call that would break a bound is refused, never dropped later.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// `model/version`, for messages.
    pub label: String,
    /// 0: calls are never stacked.
    pub max_batch: usize,
    /// Items that may wait.
    pub max_rows: usize,
    /// Input bytes that may wait.
    pub max_bytes: usize,
    /// Longest run of one batch.
    pub run_timeout: Duration,
}

/// The way to the engine for one model version. Dropping the last handle frees the model on a
/// thread of its own, after the calls in flight have ended.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(super) shared: Arc<Shared>,
}

/// What queue handles and engine threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: u64,
    pub(super) settings: QueueSettings,
    pub(super) metrics: Arc<VersionMetrics>,
    stats: Mutex<BTreeMap<usize, ExecutionStats>>,
    model: Option<Box<dyn Model>>,
    engine: Arc<dyn Engine>,
    pool: Pool,
}

/// Executions of one batch size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecutionStats {
    pub count: u64,
    pub input: Duration,
    pub infer: Duration,
    pub output: Duration,
}

/// Waiting calls and their totals; lives under the pool's lock.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) jobs: VecDeque<Job>,
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Queue {
    /// Makes the queue of a loaded model on the threads of `pool`.
    #[must_use]
    pub fn new(
        settings: QueueSettings,
        model: Box<dyn Model>,
        engine: Arc<dyn Engine>,
        metrics: Arc<VersionMetrics>,
        pool: &Pool,
    ) -> Self {
        let id = pool.next_queue_id();
        let shared = Shared {
            id,
            settings,
            metrics,
            stats: Mutex::default(),
            model: Some(model),
            engine,
            pool: pool.clone(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Puts a call into the queue; its outputs come over the receiver.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full, `NotReady` when the gateway is stopping.
    pub fn submit(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
    ) -> Result<oneshot::Receiver<Result<Done, Failure>>, Rejection> {
        let (reply, receiver) = oneshot::channel();
        let bytes = inputs.iter().map(|tensor| tensor.data().len()).sum();
        let job = Job { inputs, rows, bytes, enqueued: Instant::now(), reply };
        self.shared.pool.enqueue(&self.shared, job)?;
        Ok(receiver)
    }

    /// Runs `batch` once on every engine thread of the device, one thread after the other, so
    /// that the others go on with live calls.
    ///
    /// # Errors
    /// The first failure.
    pub async fn warm(&self, batch: &Batch, limit: Duration) -> Result<(), Failure> {
        let pool = &self.shared.pool;
        for worker in pool.workers() {
            let Some(receiver) = pool.warm(worker, &self.shared, batch, limit) else { continue };
            // A dropped sender means that the thread has ended.
            receiver.await.unwrap_or(Err(Failure::Panicked))?;
        }
        Ok(())
    }

    /// Calls waiting now.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.pool.pending(self.shared.id)
    }

    /// Executions by batch size.
    #[must_use]
    pub fn executions(&self) -> BTreeMap<usize, ExecutionStats> {
        self.shared.stats().clone()
    }

    /// Forgets the executions so far: those before a version serves are nobody's calls.
    pub fn reset_executions(&self) {
        self.shared.stats().clear();
    }

    /// What the engine decided when it loaded the model.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.shared.model().notes()
    }
}

impl Shared {
    pub(super) fn model(&self) -> &dyn Model {
        self.model.as_deref().expect("the model is only taken when the queue is dropped")
    }

    pub(super) fn platform(&self) -> &'static str {
        self.engine.platform()
    }

    pub(super) fn prepare_thread(&self) {
        self.engine.prepare_thread();
    }

    pub(super) fn count_execution(&self, rows: usize, run: &Run) {
        let mut stats = self.stats();
        let stats = stats.entry(rows).or_default();
        stats.count += 1;
        stats.input += run.input;
        stats.infer += run.infer;
        stats.output += run.output;
    }

    fn stats(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, ExecutionStats>> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pool.forget(self.id);
        self.metrics.queue_rows.set(0);
        self.metrics.queue_bytes.set(0);
        // Freeing a large model takes milliseconds that no I/O or engine thread has to spare.
        let (model, engine) = (self.model.take(), self.engine.clone());
        let label = self.settings.label.clone();
        let retired = tasks::thread("retire", move || {
            drop(model);
            engine.trim_memory();
            debug!(model = label, "freed the model's memory");
        });
        if let Err(error) = retired {
            warn!(%error, "no thread to free a model on, freed in place");
        }
    }
}

impl Waiting {
    /// Takes the next batch: the oldest call and those behind it that stack with it, within
    /// `max_batch` items. Calls whose caller has gone are dropped on the way.
    pub(super) fn take_batch(&mut self, max_batch: usize) -> Vec<Job> {
        let mut batch: Vec<Job> = Vec::new();
        let mut rows = 0;
        while let Some(job) = self.jobs.pop_front() {
            let gone = job.reply.is_closed();
            let fits = batch.first().is_none_or(|first| {
                max_batch > 0 && rows + job.rows <= max_batch && first.stacks_with(&job)
            });
            if !gone && !fits {
                self.jobs.push_front(job);
                break;
            }
            self.rows -= job.rows;
            self.bytes -= job.bytes;
            if !gone {
                rows += job.rows;
                batch.push(job);
            }
        }
        batch
    }

    /// Adds a call, or says what is full.
    pub(super) fn push(&mut self, job: Job, settings: &QueueSettings) -> Result<(), Rejection> {
        let full = |what: &str| {
            let text = format!("the queue of {} is full: {what}", settings.label);
            Err(Rejection::new(Kind::Overloaded, text).with_retry_after(Duration::from_secs(1)))
        };
        // One call may always wait alone, however large: its size was checked at the door.
        let alone = self.jobs.is_empty();
        if self.rows + job.rows > settings.max_rows && !alone {
            return full("too many items wait");
        }
        if self.bytes + job.bytes > settings.max_bytes && !alone {
            return full("too many bytes wait");
        }
        self.rows += job.rows;
        self.bytes += job.bytes;
        self.jobs.push_back(job);
        Ok(())
    }
}
