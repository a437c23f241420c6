//! Tells a call that breaks from a model that does: when a call fails alone, inputs that the
//! model could run before are run again. If they fail too, it is the model.

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
    last: Mutex<Option<(Instant, bool)>>,
}

impl Probe {
    pub(super) fn new(batch: Batch) -> Self {
        Self { batch, last: Mutex::default() }
    }

    /// Whether the model runs its own inputs now.
    pub(super) fn is_well(&self, run: impl FnOnce(&Batch) -> bool) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, well)) = *last
            && when.elapsed() < STANDS
        {
            return well;
        }
        let well = run(&self.batch);
        *last = Some((Instant::now(), well));
        well
    }
}
