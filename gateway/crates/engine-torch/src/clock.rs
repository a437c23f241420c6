//! The one place that reads clocks: how long the parts of a run take.
#![expect(
    clippy::disallowed_types,
    reason = "measures native code on an engine thread; no paused clock applies"
)]

use std::time::{Duration, Instant};

use crate::ffi::system;

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

/// Measures what consecutive parts cost the processor, whoever else was on it meanwhile. Work that
/// the calling thread leaves to others, or to a device, is not in it.
#[derive(Debug)]
pub(crate) struct Effort(Duration);

impl Effort {
    pub(crate) fn start() -> Self {
        Self(system::thread_time())
    }

    /// Processor time of the calling thread since the start or the last lap.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = system::thread_time();
        let lap = now.saturating_sub(self.0);
        self.0 = now;
        lap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_costs_no_effort_and_work_does() {
        let mut effort = Effort::start();
        let (sender, receiver) = std::sync::mpsc::sync_channel::<()>(0);
        let waker = std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_millis(50);
            while Instant::now() < end {}
            drop(sender);
        });
        assert!(receiver.recv().is_err());
        let waited = effort.lap();
        waker.join().unwrap();
        effort.lap();
        let mut watch = Stopwatch::start();
        let mut spent = Duration::ZERO;
        while spent < Duration::from_millis(50) {
            spent += watch.lap();
        }
        assert!(effort.lap() > Duration::ZERO);
        assert!(waited < Duration::from_millis(50), "{waited:?}");
    }
}
