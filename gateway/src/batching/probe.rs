//! Tells a call that breaks from a model that does: when a call fails alone, inputs that the
//! model could run before are run again. If they fail too, it is the model.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::Batch;
use tokio::time::Instant;

/// How long one finding stands, so that a caller who sends nothing but broken inputs does not
/// double the work of each.
const STANDS: Duration = Duration::from_secs(1);

/// Inputs that the model is known to run, and when they last did.
#[derive(Debug)]
pub(super) struct Probe {
    batch: Batch,
    last: Mutex<Finding>,
    /// A thread runs them, and may never come back from it.
    running: AtomicBool,
}

/// Whether the model ran its own inputs, and when that was seen.
#[derive(Debug, Clone, Copy)]
struct Finding {
    well: bool,
    when: Option<Instant>,
}

impl Probe {
    pub(super) fn new(batch: Batch) -> Self {
        // They ran at load.
        let last = Mutex::new(Finding { well: true, when: None });
        Self { batch, last, running: AtomicBool::new(false) }
    }

    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Whether the model runs its own inputs now; while another thread finds out, what was last
    /// found.
    pub(super) fn is_well(&self, run: impl FnOnce(&Batch) -> bool) -> bool {
        let Finding { well, when } = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if when.is_some_and(|when| when.elapsed() < STANDS)
            || self.running.swap(true, Ordering::AcqRel)
        {
            return well;
        }
        let well = run(&self.batch);
        let found = Finding { well, when: Some(Instant::now()) };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = found;
        self.running.store(false, Ordering::Release);
        well
    }
}
