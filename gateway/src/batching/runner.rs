//! Where models run: on the engine thread itself or, for shadows, on a thread beside it that has
//! the lowest priority there is.
//!
//! Two threads, since a thread that the system may stop anywhere for as long as others have work
//! must hold no lock that those others need. The one of low priority runs the model and nothing
//! else; scheduling, judging and answering stay with the engine thread that waits for it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use engine::error::Fault;
use engine::{Batch, EngineError, Run};
use tracing::{error, warn};

use super::job::Failure;
use super::queue::Shared;
use crate::tasks;

/// Versions of which is known that they ran on a thread; those beyond are warmed up once more.
const MOST_KNOWN: usize = 64;

/// Runs models for one engine thread.
#[derive(Debug, Default)]
pub(super) struct Runner {
    aside: Option<Aside>,
    /// Thread settings belong to an engine, and models of several engines share a device.
    prepared: Vec<&'static str>,
    /// Versions that have run here, where none was warmed up when it was loaded.
    known: Vec<u64>,
}

/// The thread of low priority.
#[derive(Debug)]
struct Aside {
    work: SyncSender<Work>,
}

type Work = Box<dyn FnOnce() + Send>;

/// What came of work, or of its panic.
type Outcome<T> = Result<T, Box<dyn Any + Send>>;

impl Runner {
    /// Runs models at the lowest priority, on a thread of this name.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn aside(name: &str) -> io::Result<Self> {
        let (sender, receiver) = sync_channel::<Work>(0);
        tasks::thread(name, move || {
            if let Err(error) = tasks::yield_to_others() {
                warn!(%error, "shadows run at the priority of live calls");
            }
            while let Ok(work) = receiver.recv() {
                work();
            }
        })?;
        Ok(Self { aside: Some(Aside { work: sender }), ..Self::default() })
    }

    /// Whether a version runs for the first time on a thread that takes no part in warm-ups: a
    /// load must not wait for shadows, and most versions never are one.
    pub(super) fn is_new_to(&mut self, queue: &Shared) -> bool {
        if self.aside.is_none() || self.known.contains(&queue.id) {
            return false;
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.remove(0);
        }
        self.known.push(queue.id);
        true
    }

    /// Lets an engine set up the thread, once; `false` when it panicked.
    pub(super) fn prepare(&mut self, queue: &Arc<Shared>) -> bool {
        let platform = queue.engine().platform();
        if self.prepared.contains(&platform) {
            return true;
        }
        let result = match &self.aside {
            None => guarded(|| queue.engine().prepare_thread()),
            Some(aside) => {
                let queue = queue.clone();
                aside.call(move || queue.engine().prepare_thread())
            }
        };
        if result.is_err() {
            error!(model = queue.settings.label, "the engine panicked while it prepared a thread");
            queue.pool.panicked("run");
            return false;
        }
        self.prepared.push(platform);
        true
    }

    /// Runs a batch.
    pub(super) fn run(&self, queue: &Arc<Shared>, batch: &Batch) -> Result<Run, Failure> {
        let result = match &self.aside {
            None => guarded(|| queue.model().run(batch)),
            Some(aside) => {
                // The last handles stay here: what is freed with them takes locks.
                let (queue, batch) = (queue.clone(), batch.clone());
                aside.call(move || queue.model().run(&batch))
            }
        };
        match result {
            Ok(Ok(run)) => Ok(run),
            Ok(Err(error)) => Err(failed(queue, error)),
            Err(_) => {
                error!(model = queue.settings.label, "the engine panicked");
                queue.pool.panicked("run");
                Err(Failure::Panicked)
            }
        }
    }
}

impl Aside {
    /// Waits for `work` to be done there.
    fn call<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
        let (sender, receiver) = sync_channel(1);
        let work = move || drop(sender.send(guarded(work)));
        // It ends when this side does, and panics of work are caught.
        self.work.send(Box::new(work)).map_err(|gone| Box::new(gone.to_string()) as _)?;
        receiver.recv().unwrap_or_else(|gone| Err(Box::new(gone)))
    }
}

fn guarded<T>(work: impl FnOnce() -> T) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(work))
}

/// Takes a device that does not recover by itself out of service.
fn failed(queue: &Shared, error: EngineError) -> Failure {
    if error.fault() == Fault::Device
        && let Err(lasting) = queue.engine().check_device(&queue.pool.device().0)
    {
        queue.pool.fail(lasting.message());
    }
    Failure::Engine(error)
}
