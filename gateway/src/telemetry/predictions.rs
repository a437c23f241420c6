//! Metric handles of the prediction log.

use std::sync::OnceLock;

use ::metrics::{Counter, Gauge, Histogram};

use super::metrics;
use crate::config::Guarantee;

/// Why a row is not in the log though it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostRow {
    /// As many rows or bytes waited as may.
    Full,
    /// Nothing could be written, and so they did, or the thread that writes has died.
    Disk,
    /// It was larger than any may be.
    Large,
    /// The gateway stopped first.
    Stopping,
}

impl LostRow {
    /// The value of the `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Disk => "disk",
            Self::Large => "large",
            Self::Stopping => "stopping",
        }
    }
}

/// Handles of the prediction log.
#[derive(Debug)]
pub struct PredictionMetrics {
    pub bytes: Counter,
    pub unsampled: Counter,
    /// Durable calls that were refused because their row was not written.
    pub uncommitted: Counter,
    pub queue_rows: Gauge,
    pub queue_bytes: Gauge,
    pub oldest: Gauge,
    pub write_seconds: Histogram,
    pub sync_seconds: Histogram,
    failures: Counter,
    rows: [Counter; Guarantee::ALL.len()],
    dropped: [OnceLock<Counter>; 4],
}

impl PredictionMetrics {
    #[must_use]
    pub fn new() -> Self {
        let rows = |guarantee: Guarantee| match guarantee {
            Guarantee::Off => Counter::noop(),
            other => metrics::LOG_ROWS.counter(&[other.word()]),
        };
        Self {
            bytes: metrics::LOG_BYTES.counter(&[]),
            unsampled: metrics::LOG_UNSAMPLED.counter(&[]),
            uncommitted: metrics::LOG_UNCOMMITTED.counter(&[]),
            queue_rows: metrics::LOG_QUEUE_ROWS.gauge(&[]),
            queue_bytes: metrics::LOG_QUEUE_BYTES.gauge(&[]),
            oldest: metrics::LOG_OLDEST.gauge(&[]),
            write_seconds: metrics::LOG_WRITE_SECONDS.histogram(&[]),
            sync_seconds: metrics::LOG_SYNC_SECONDS.histogram(&[]),
            failures: metrics::LOG_WRITE_FAILURES.counter(&[]),
            rows: Guarantee::ALL.map(rows),
            dropped: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// Counts rows that were written, by guarantee.
    pub fn written(&self, rows: &[u32; Guarantee::ALL.len()]) {
        for (counter, rows) in self.rows.iter().zip(rows).filter(|(_, rows)| **rows > 0) {
            counter.increment(u64::from(*rows));
        }
    }

    /// Counts rows that were lost; a series appears with its first one.
    pub fn dropped(&self, reason: LostRow, rows: u64) {
        if rows > 0 {
            let counter = self.dropped[reason as usize]
                .get_or_init(|| metrics::LOG_DROPPED.counter(&[reason.label()]));
            counter.increment(rows);
        }
    }

    /// Counts a write, a sync or an end of a segment that failed.
    pub fn failed(&self) {
        self.failures.increment(1);
    }
}

impl Default for PredictionMetrics {
    fn default() -> Self {
        Self::new()
    }
}
