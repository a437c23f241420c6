//! Counts threads that were given up inside native code, and panics. A stuck thread cannot be
//! killed; past a limit only a restart of the process helps, which liveness says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::telemetry::metrics;

/// Threads for live calls and loads that are stuck now, on all devices together, and what was
/// lost so far.
#[derive(Debug, Clone, Default)]
pub struct StuckThreads {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    stuck: AtomicUsize,
    abandoned: AtomicU64,
    panics: AtomicU64,
}

impl StuckThreads {
    /// A thread was given up while it did `work`.
    pub fn abandon(&self, work: &'static str) {
        self.counts.stuck.fetch_add(1, Ordering::Relaxed);
        self.counts.abandoned.fetch_add(1, Ordering::Relaxed);
        metrics::ABANDONED.counter(&[work]).increment(1);
        metrics::STUCK_THREADS.gauge(&[]).increment(1);
    }

    /// A given-up thread came back after all.
    pub fn recover(&self) {
        self.counts.stuck.fetch_sub(1, Ordering::Relaxed);
        metrics::STUCK_THREADS.gauge(&[]).decrement(1);
    }

    /// A thread was given up while it ran a shadow: live calls do not miss it.
    pub fn abandon_shadow(&self) {
        self.counts.abandoned.fetch_add(1, Ordering::Relaxed);
        metrics::ABANDONED.counter(&["shadow"]).increment(1);
    }

    /// Something panicked on an engine thread of `device`: a `run`, or the whole `thread`.
    pub fn panicked(&self, device: &str, what: &'static str) {
        self.counts.panics.fetch_add(1, Ordering::Relaxed);
        metrics::ENGINE_PANICS.counter(&[device, what]).increment(1);
    }

    /// How many are stuck now; those that run shadows do not count.
    #[must_use]
    pub fn count(&self) -> usize {
        self.counts.stuck.load(Ordering::Relaxed)
    }

    /// How many were given up since the start, whether or not they came back.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        self.counts.abandoned.load(Ordering::Relaxed)
    }

    /// How often an engine thread panicked since the start.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.counts.panics.load(Ordering::Relaxed)
    }
}
