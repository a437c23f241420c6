//! What a version has done: the figures of the statistics extension and of Triton's metrics.
//! Calls pay for relaxed atomics; everything else is derived when somebody looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Blame, Kind};
use crate::types::Timings;

/// A count and the time it took together.
#[derive(Debug, Default)]
pub struct Total {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

/// Counters of one served version.
#[derive(Debug, Default)]
pub struct Stats {
    pub success: Total,
    pub fail: Total,
    pub queue: Total,
    pub input: Total,
    pub infer: Total,
    pub output: Total,
    inferences: AtomicU64,
    last_inference: AtomicU64,
    failures: [AtomicU64; 4],
}

/// Triton's reasons for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    Rejected,
    Canceled,
    Backend,
    Other,
}

impl FailureReason {
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }

    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Cancelled => Self::Canceled,
            Kind::Overloaded | Kind::RateLimited | Kind::NotReady | Kind::DeadlineExceeded => {
                Self::Rejected
            }
            _ if kind.blame() == Blame::Arm => Self::Backend,
            _ => Self::Other,
        }
    }
}

impl Total {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }
}

impl Stats {
    /// Counts an answered call of `rows` items.
    pub fn answered(&self, rows: usize, total: Duration, timings: &Timings) {
        self.success.add(total);
        self.queue.add(timings.queue);
        self.input.add(timings.input);
        self.infer.add(timings.infer);
        self.output.add(timings.output);
        self.inferences.fetch_add(rows as u64, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_inference.store(now, Ordering::Relaxed);
    }

    /// Counts a call that was not answered.
    pub fn refused(&self, kind: Kind, total: Duration) {
        self.fail.add(total);
        self.failures[FailureReason::of(kind) as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Items computed for answered calls.
    #[must_use]
    pub fn inferences(&self) -> u64 {
        self.inferences.load(Ordering::Relaxed)
    }

    /// Milliseconds since 1970 of the last answer, 0 for none.
    #[must_use]
    pub fn last_inference(&self) -> u64 {
        self.last_inference.load(Ordering::Relaxed)
    }

    /// Calls not answered for this reason.
    #[must_use]
    pub fn failures(&self, reason: FailureReason) -> u64 {
        self.failures[reason as usize].load(Ordering::Relaxed)
    }
}
