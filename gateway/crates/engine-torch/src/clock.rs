//! The one place that reads the clock: how long the parts of a run take.
#![expect(
    clippy::disallowed_types,
    reason = "measures native code on an engine thread; no paused clock applies"
)]

use std::time::{Duration, Instant};

/// Measures consecutive parts.
#[derive(Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start or the last lap.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.0;
        self.0 = now;
        lap
    }
}
