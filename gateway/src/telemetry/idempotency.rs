//! Metric handles of calls with an idempotency key.

use ::metrics::{Counter, Gauge};

use super::metrics;

/// What became of a call with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyedCall {
    Executed,
    Replayed,
    /// Waits for the first one, which still runs.
    Joined,
    /// Had another body than the first one.
    Mismatch,
    /// Refused: as many as may be are under way.
    Full,
}

/// Handles of the table of keys.
#[derive(Debug)]
pub struct IdempotencyMetrics {
    calls: [Counter; 5],
    pub evicted: Counter,
    pub too_large: Counter,
    pub bytes: Gauge,
    pub keys: Gauge,
}

impl Default for IdempotencyMetrics {
    fn default() -> Self {
        let results = ["executed", "replayed", "joined", "mismatch", "full"];
        Self {
            calls: results.map(|result| metrics::KEYED_CALLS.counter(&[result])),
            evicted: metrics::KEYED_LOST.counter(&["evicted"]),
            too_large: metrics::KEYED_LOST.counter(&["too_large"]),
            bytes: metrics::KEYED_BYTES.gauge(&[]),
            keys: metrics::KEYED_KEYS.gauge(&[]),
        }
    }
}

impl IdempotencyMetrics {
    /// Counts a call.
    pub fn count(&self, result: KeyedCall) {
        self.calls[result as usize].increment(1);
    }
}
