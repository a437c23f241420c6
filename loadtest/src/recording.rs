//! The result of a run: for each stage what came of its calls and how well they were sent.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::plan::LoadStage;
use crate::recorder::{Recorder, Tally, histogram};
use crate::timeline::Timeline;

/// What a stage, or several, gave.
#[derive(Debug, Clone)]
pub struct Recording {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    pub recorder: Recorder,
    pub sending: Sending,
    /// What the load threads themselves spent.
    pub cpu: Duration,
}

/// How the calls went out.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Calls were due at moments of their own.
    pub open: bool,
    /// How long calls were sent.
    pub window: Duration,
    pub sent: u64,
    /// Calls that were due and never sent, as too many were in flight for too long.
    pub dropped: u64,
    /// Answers within that time, whenever their calls were sent.
    pub answered_within: u64,
    /// How long after it was due each call went out, in microseconds.
    pub lag: Histogram<u64>,
}

/// What a whole run gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Each stage of the plan, warm-ups too.
    pub stages: Vec<(LoadStage, Recording)>,
    pub timeline: Timeline,
}

// === impl Recording ===

impl Default for Recording {
    fn default() -> Self {
        let sending = Sending {
            open: false,
            window: Duration::ZERO,
            sent: 0,
            dropped: 0,
            answered_within: 0,
            lag: histogram(),
        };
        let (elapsed, cpu) = (Duration::ZERO, Duration::ZERO);
        Self { elapsed, recorder: Recorder::default(), sending, cpu }
    }
}

impl Recording {
    /// Adds what another thread saw of the same stage.
    pub fn join(&mut self, other: &Self) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.sending.window = self.sending.window.max(other.sending.window);
        self.add_counts(other);
    }

    /// Adds a stage that came after.
    pub fn append(&mut self, other: &Self) {
        self.elapsed += other.elapsed;
        self.sending.window += other.sending.window;
        self.add_counts(other);
    }

    fn add_counts(&mut self, other: &Self) {
        self.recorder.merge(&other.recorder);
        self.cpu += other.cpu;
        let (mine, others) = (&mut self.sending, &other.sending);
        mine.open |= others.open;
        mine.sent += others.sent;
        mine.dropped += others.dropped;
        mine.answered_within += others.answered_within;
        mine.lag.add(&others.lag).expect("both have the same bounds");
    }

    /// Calls that were due for each second of an open loop.
    #[must_use]
    pub fn offered_rate(&self) -> Option<f64> {
        let Sending { open, sent, dropped, window, .. } = self.sending;
        open.then(|| rate(sent + dropped, window))
    }

    /// Answers for each second: in an open loop while calls were sent, in a closed one until the
    /// last answer.
    #[must_use]
    pub fn achieved_rate(&self, total: &Tally) -> f64 {
        if self.sending.open {
            rate(self.sending.answered_within, self.sending.window)
        } else {
            rate(total.answered, self.elapsed)
        }
    }

    /// What the load generator itself spent on each request, in microseconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a cost is shown with few digits")]
    pub fn cpu_micros_per_request(&self, total: &Tally) -> Option<f64> {
        let requests = total.requests();
        (requests > 0).then(|| self.cpu.as_secs_f64() * 1e6 / requests as f64)
    }

    /// No call failed, none was dropped and no answer was wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.sending.dropped == 0 && self.recorder.total().is_clean()
    }
}

/// A count for each second.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a rate is shown with few digits")]
pub fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

// === impl Outcome ===

impl Outcome {
    /// All stages that count, one after the other.
    #[must_use]
    pub fn measured(&self) -> Recording {
        let mut all = Recording::default();
        for (_, recording) in self.stages.iter().filter(|(stage, _)| !stage.warm_up) {
            all.append(recording);
        }
        all
    }
}
