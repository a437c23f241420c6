//! Counts threads that were given up inside native code. They cannot be killed; past a limit
//! only a restart of the process helps, which liveness says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::metrics;

/// Threads that are stuck now, all devices and loads together.
#[derive(Debug, Clone, Default)]
pub struct StuckThreads {
    count: Arc<AtomicUsize>,
}

impl StuckThreads {
    /// A thread was given up while it did `work`.
    pub fn abandon(&self, work: &'static str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        metrics::ABANDONED.counter(&[work]).increment(1);
        metrics::STUCK_THREADS.gauge(&[]).increment(1);
    }

    /// A given-up thread came back after all.
    pub fn recover(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        metrics::STUCK_THREADS.gauge(&[]).decrement(1);
    }

    /// How many are stuck now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
