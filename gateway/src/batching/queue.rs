//! The way to the engine for one model version: admission, and the model that calls wait for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use engine::{Batch, Engine, Model, Run, Tensor};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::admission::Standing;
use super::bucket::Key;
use super::handover;
use super::job::{Failure, Job, Ticket, Urgency};
use super::judge::Guard;
use super::load::{Load, Place};
use super::pool::{Entry, Pool};
use super::probe::Probe;
use super::reply::{Joint, Reply};
use super::settings::QueueSettings;
use super::side::Side;
use super::waiting::{Holds, Kept, Waiting};
use crate::breaker::Permit;
use crate::error::Rejection;
use crate::limits::Pressure;
use crate::tasks;
use crate::telemetry::VersionMetrics;
use crate::types::Schedule;

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
    pub(super) load: Arc<Load>,
    /// What waits for shadow threads, which is nobody's reason to refuse a live call.
    shadow_load: Arc<Load>,
    /// Batches that run now on live threads.
    running: AtomicUsize,
    /// Those on shadow threads, which hold no live batch up however long they take.
    shadows_running: AtomicUsize,
    /// How long calls stand in the queue, as the scheduler saw it last.
    pub(super) standing: Standing,
    pub(super) probe: OnceLock<Probe>,
    /// The same inputs, for what their outputs look like.
    pub(super) nan_probe: OnceLock<Probe>,
    pub(super) guard: OnceLock<Guard>,
    stats: Mutex<BTreeMap<usize, ExecutionStats>>,
    model: Option<Box<dyn Model>>,
    engine: Arc<dyn Engine>,
    pub(super) pool: Pool,
}

/// Executions of one batch size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecutionStats {
    pub count: u64,
    pub input: Duration,
    pub infer: Duration,
    pub output: Duration,
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
        let shared = Shared {
            id: pool.next_queue_id(),
            settings,
            metrics,
            load: Arc::new(Load::on(pool.backlog().clone())),
            shadow_load: Arc::default(),
            running: AtomicUsize::new(0),
            shadows_running: AtomicUsize::new(0),
            standing: Standing::default(),
            probe: OnceLock::new(),
            nan_probe: OnceLock::new(),
            guard: OnceLock::new(),
            stats: Mutex::default(),
            model: Some(model),
            engine,
            pool: pool.clone(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Names inputs that the model can run. They tell a call that breaks from a model that does.
    pub fn probe_with(&self, batch: Batch) {
        // Only the load of the version sets it, once.
        drop(self.shared.nan_probe.set(Probe::new(batch.clone())));
        drop(self.shared.probe.set(Probe::new(batch)));
    }

    /// From now on calls pass the guard's breaker, and what becomes of the live ones counts for it.
    pub fn guard_with(&self, guard: Guard) {
        // Only the load of the version sets it, once.
        drop(self.shared.guard.set(guard));
    }

    /// Puts a call into the queue; what it gives is to be awaited, and dropping that takes the
    /// call out again. A call with more items than a batch runs in parts.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full and holds nothing less urgent, `DeadlineExceeded` when
    /// the call would come too late and the model refuses such calls, `CircuitOpen` when it has
    /// failed too often, `NotReady` when the gateway is stopping or the device has failed.
    pub fn submit(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        schedule: Schedule,
    ) -> Result<Waiting, Rejection> {
        let shared = &self.shared;
        shared.pool.check_open()?;
        let now = Instant::now();
        // Whatever refuses the call below gives the permit back.
        let permit = match shared.guard.get() {
            // A shadow decides nothing for live calls: it takes no trial and counts for nothing.
            Some(guard) if schedule.shadow => {
                guard.breaker.check(now)?;
                Permit::default()
            }
            Some(guard) => guard.breaker.admit(now, schedule.deadline)?,
            None => Permit::default(),
        };
        let trial = permit.handle();
        // Shadows that come late hold nobody up.
        if shared.settings.refuse_late && shared.pool.side(schedule.shadow) == Side::Live {
            shared.refuse_late(rows, schedule, now)?;
        }
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::Caller(sender, handover::mailbox());
        let largest = shared.settings.max_batch;
        let place = shared.admit(&inputs, rows, (schedule, now))?;
        let holds = if largest > 0 && rows > largest {
            shared.submit_parts(&inputs, rows, (schedule, now), (reply, permit, place))
        } else {
            let hold = place.hold();
            shared.submit_one(inputs, rows, (schedule, now), (reply, permit, place));
            Holds::of(hold)
        };
        Ok(Waiting::new(receiver, Kept::new(holds, trial)))
    }

    /// Runs `batch` once on every engine thread of the device, one thread after the other, so
    /// that the others go on with live calls.
    ///
    /// # Errors
    /// The first failure, or `Panicked` when threads keep ending.
    pub async fn warm(&self, batch: &Batch, limit: Duration) -> Result<(), Failure> {
        let pool = &self.shared.pool;
        let (mut asked, mut lost) = (Vec::new(), 0);
        while let Some(worker) = pool.workers().into_iter().find(|id| !asked.contains(id)) {
            asked.push(worker);
            let Some(receiver) = pool.warm(worker, &self.shared, batch, limit) else { continue };
            match receiver.await {
                Ok(result) => result?,
                // The thread was lost to what it did before; another takes its place.
                Err(_) if lost < pool.size() && !pool.workers().contains(&worker) => lost += 1,
                Err(_) => return Err(Failure::Panicked),
            }
        }
        // Whoever is not there yet has run nothing.
        if asked.len() > lost { Ok(()) } else { Err(Failure::Panicked) }
    }

    /// What the device has to do, for whoever divides its time between callers.
    #[must_use]
    pub fn pressure(&self) -> Pressure<'_> {
        let Shared { pool, load, .. } = &*self.shared;
        Pressure {
            device: &pool.device().0,
            threads: pool.size(),
            wait: pool.wait(),
            row_time: load.row_time(),
        }
    }

    /// Calls waiting now.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.load.calls() + self.shared.shadow_load.calls()
    }

    /// Why the device can run nothing any more; `None` while it can.
    #[must_use]
    pub fn device_failure(&self) -> Option<&str> {
        self.shared.pool.failure()
    }

    /// When trying again may help, in whole seconds as HTTP says them.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        self.shared.retry_after()
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

    /// Brings the gauges up to date; called before they are rendered.
    #[expect(clippy::cast_precision_loss, reason = "bounded far below 2^52")]
    pub fn publish(&self) {
        let Shared { metrics, load, shadow_load, .. } = &*self.shared;
        metrics.queue_rows.set((load.rows() + shadow_load.rows()) as f64);
        metrics.queue_bytes.set((load.bytes() + shadow_load.bytes()) as f64);
        metrics.queue_delay.set(self.shared.delay().as_secs_f64());
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

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// What waits on a side.
    pub(super) fn load(&self, side: Side) -> &Arc<Load> {
        match side {
            Side::Live => &self.load,
            Side::Shadow => &self.shadow_load,
        }
    }

    /// Whether another batch may run beside those that do on this side. Only under the lock of
    /// the device, as are the notes of runs.
    pub(super) fn may_run_more(&self, side: Side) -> bool {
        self.running(side).load(Ordering::Relaxed) < self.settings.instances
    }

    pub(super) fn note_run(&self, side: Side) {
        self.running(side).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_run_ended(&self, side: Side) {
        let running = self.running(side);
        running.store(running.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    fn running(&self, side: Side) -> &AtomicUsize {
        match side {
            Side::Live => &self.running,
            Side::Shadow => &self.shadows_running,
        }
    }

    pub(super) fn count_execution(&self, rows: usize, run: &Run) {
        let mut stats = self.stats();
        let stats = stats.entry(rows).or_default();
        stats.count += 1;
        stats.input += run.input;
        stats.infer += run.infer;
        stats.output += run.output;
    }

    fn submit_one(
        self: &Arc<Self>,
        inputs: Vec<Tensor>,
        rows: usize,
        (schedule, now): (Schedule, Instant),
        (reply, permit, place): (Reply, Permit, Place),
    ) {
        let (key, length) = self.key(&inputs);
        let level = self.level(schedule);
        let since_start = self.pool.since_start(now);
        let ticket = Ticket {
            rows,
            length,
            urgency: Urgency::new(schedule.shadow, level, since_start, schedule.deadline),
            level,
            enqueued: now,
            deadline: schedule.deadline,
            reply,
            permit,
            place: Some(place),
        };
        let job = Job { inputs, ticket };
        handover::submit(Entry { queue: self.clone(), key, job });
    }

    fn submit_parts(
        self: &Arc<Self>,
        inputs: &[Tensor],
        rows: usize,
        when: (Schedule, Instant),
        (reply, permit, whole): (Reply, Permit, Place),
    ) -> Holds {
        let largest = self.settings.max_batch;
        let counts: Vec<usize> =
            (0..rows).step_by(largest).map(|start| largest.min(rows - start)).collect();
        let joint = Arc::new(Joint::new(reply, counts.len()));
        let mut pieces: Vec<_> =
            inputs.iter().map(|input| input.split_rows(&counts).into_iter()).collect();
        let places = whole.split(&counts);
        let holds = Holds::all(places.iter().filter_map(Place::hold));
        for (position, (&rows, place)) in counts.iter().zip(places).enumerate() {
            let inputs = pieces.iter_mut().filter_map(Iterator::next).collect();
            let reply = Reply::Part(joint.clone(), position);
            self.submit_one(inputs, rows, when, (reply, permit.part(), place));
        }
        holds
    }

    /// What the call must share with others of its batch, and its length.
    fn key(&self, inputs: &[Tensor]) -> (Key, usize) {
        if self.settings.fixed_shapes || !self.settings.stacks() {
            return (Key::default(), 0);
        }
        let mut rest: Vec<usize> =
            inputs.iter().flat_map(|input| input.shape().iter().skip(1).copied()).collect();
        let found = self.settings.variable.as_ref().and_then(|variable| {
            let length = variable.length(inputs)?;
            variable.bucket(length).is_some().then_some((variable, length))
        });
        let Some((variable, length)) = found else {
            return (Key { rest, length: 0 }, 0);
        };
        let mut start = 0;
        for (input, fill) in inputs.iter().zip(&variable.fills) {
            if fill.is_some() {
                rest[start + variable.axis - 1] = 0;
            }
            start += input.shape().len() - 1;
        }
        (Key { rest, length }, length)
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
        self.metrics.queue_delay.set(0);
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
