//! The states of a breaker and what leads from one to the other, without clock, lock or model.
//!
//! Every change of state and every trial call begins a new epoch. What was admitted in an
//! earlier one says nothing about this one, so its results are ignored: calls that were under
//! way when the breaker opened decide no trial, and a trial that was given up decides none after
//! it.

mod settings;
mod words;

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::window::{Counts, Window};
use crate::config::Breaker as Settings;

/// Longest time that a refused call is told to wait while a trial is under way.
const SOON: Duration = Duration::from_secs(1);

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All pass.
    Closed,
    /// None passes.
    Open,
    /// One passes at a time, as a trial.
    HalfOpen,
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Consecutive,
    FailureRate,
    SlowRate,
    NanStorm,
    DeviceFault,
    /// A trial call failed.
    ProbeFailed,
    /// The open time is over.
    TimeOver,
    /// As many trial calls as it takes have succeeded.
    Recovered,
    Operator,
}

/// What one batch says about its model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// `None`: nothing, for callers were to blame, or memory, or nobody ran it.
    pub outcome: Option<Outcome>,
    /// The longest of its runs that gave answers.
    pub time: Duration,
    /// Answers with NaN to finite inputs, and answers without.
    pub with_nan: u32,
    pub without_nan: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// Nothing that the device computes can be trusted.
    DeviceFault,
}

/// A call that may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) epoch: u64,
    pub(super) is_probe: bool,
}

/// A change of state, for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) to: State,
    pub(super) reason: Reason,
    /// How long it will stay open; `None` where an operator holds it open, or it is not.
    pub(super) open: Option<Duration>,
}

/// Calls that may run although the breaker is not closed, and what the others are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub epoch: u64,
    pub retry_after: Duration,
    /// Whether it would refuse the next call, too: its time is not over or a trial is under way.
    pub bars_others: bool,
}

/// What an operator sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// Of the last change of state.
    pub reason: Option<Reason>,
    /// What a refused call is told; `None` while none would be refused.
    pub retry_after: Option<Duration>,
    /// Whether an operator holds it open.
    pub held: bool,
    /// How often it has opened without being closed for long in between.
    pub trips: u32,
    /// Within the window.
    pub counts: Counts,
    pub consecutive: u32,
    /// Answers with NaN since the last without.
    pub nan_answers: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed {
        since: Instant,
    },
    /// `None`: until an operator closes it.
    Open {
        until: Option<Instant>,
    },
    HalfOpen {
        /// Until when the trial under way may take; none is under way without it.
        lease: Option<Instant>,
        /// Whether the trial under way has succeeded; parts of it may still wait or run.
        decided: bool,
        succeeded: u32,
    },
}

#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    phase: Phase,
    epoch: u64,
    window: Window,
    consecutive: u32,
    nan_answers: u32,
    backoff: Backoff,
    reason: Option<Reason>,
    /// What opened it when it was last closed: trials have to be free of it.
    cause: Option<Reason>,
}

impl Machine {
    pub(super) fn new(settings: Settings, now: Instant, seed: u64) -> Self {
        Self {
            settings,
            phase: Phase::Closed { since: now },
            // 0 is the epoch of calls that no breaker has seen.
            epoch: 1,
            window: Window::new(now, settings.window),
            consecutive: 0,
            nan_answers: 0,
            backoff: Backoff::new(settings.open_time, settings.max_open_time, seed),
            reason: None,
            cause: None,
        }
    }

    /// Lets a call pass or says when to try again.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
    ) -> (Result<Admitted, Duration>, Option<Transition>) {
        let mut transition = None;
        if let Phase::Open { until: Some(until) } = self.phase
            && now >= until
        {
            self.phase = Phase::HalfOpen { lease: None, decided: false, succeeded: 0 };
            transition = Some(self.changed(State::HalfOpen, Reason::TimeOver, None));
        }
        let result = match self.phase {
            Phase::Closed { .. } => Ok(Admitted { epoch: self.epoch, is_probe: false }),
            Phase::HalfOpen { ref mut lease, ref mut decided, .. }
                if lease.is_none_or(|until| now >= until) =>
            {
                *decided = false;
                let until = now + self.settings.probe_timeout;
                *lease = Some(deadline.map_or(until, |deadline| deadline.min(until)));
                self.epoch += 1;
                Ok(Admitted { epoch: self.epoch, is_probe: true })
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => Err(self.retry_after(now)),
        };
        (result, transition)
    }

    /// Gives the trial that runs time until then: who has an engine is waited for.
    pub(super) fn extend(&mut self, epoch: u64, until: Instant) {
        if let Phase::HalfOpen { lease: Some(lease), .. } = &mut self.phase
            && epoch == self.epoch
        {
            *lease = (*lease).max(until);
        }
    }

    /// All parts of a trial are gone.
    pub(super) fn release(&mut self, epoch: u64) {
        if let Phase::HalfOpen { lease, .. } = &mut self.phase
            && epoch == self.epoch
        {
            *lease = None;
        }
    }

    /// Counts a batch whose youngest call was admitted in this epoch.
    pub(super) fn record(
        &mut self,
        now: Instant,
        epoch: u64,
        sample: Sample,
    ) -> Option<Transition> {
        if epoch != self.epoch || !self.settings.enabled {
            return None;
        }
        match self.phase {
            Phase::Closed { .. } => {
                let reason = self.count(now, sample)?;
                self.cause = Some(reason);
                Some(self.trip(now, reason))
            }
            Phase::HalfOpen { decided: false, .. } => self.judge_probe(now, sample),
            Phase::HalfOpen { decided: true, .. } | Phase::Open { .. } => None,
        }
    }

    /// Opens it until an operator closes it.
    pub(super) fn hold_open(&mut self) -> Transition {
        self.phase = Phase::Open { until: None };
        self.changed(State::Open, Reason::Operator, None)
    }

    /// Closes it and forgets everything.
    pub(super) fn reset(&mut self, now: Instant) -> Transition {
        self.backoff.reset();
        self.close(now, Reason::Operator)
    }

    /// What holds while it is not closed; `None` while all calls may run.
    pub(super) fn held(&self, now: Instant) -> Option<Held> {
        match self.phase {
            Phase::Closed { .. } => None,
            _ => Some(Held {
                epoch: self.epoch,
                retry_after: self.retry_after(now),
                bars_others: !self.lets_trial_pass(now),
            }),
        }
    }

    /// Whether the next call would be a trial.
    fn lets_trial_pass(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Closed { .. } | Phase::Open { until: None } => false,
            Phase::Open { until: Some(until) } => now >= until,
            Phase::HalfOpen { lease, .. } => lease.is_none_or(|until| now >= until),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// What a call would meet now. An open breaker whose time is over lets a trial pass.
    pub(super) fn state(&self, now: Instant) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { until: Some(until) } if now >= until => State::HalfOpen,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    pub(super) fn status(&mut self, now: Instant) -> Status {
        let state = self.state(now);
        Status {
            state,
            reason: self.reason,
            retry_after: (state == State::Open).then(|| self.retry_after(now)),
            held: matches!(self.phase, Phase::Open { until: None }),
            trips: self.backoff.trips(),
            counts: self.window.counts(now),
            consecutive: self.consecutive,
            nan_answers: self.nan_answers,
        }
    }

    /// Counts a batch while closed; says what it is too much of.
    fn count(&mut self, now: Instant, sample: Sample) -> Option<Reason> {
        let Settings { consecutive, min_samples, failure_rate, slow_rate, .. } = self.settings;
        let failed = match sample.outcome? {
            Outcome::DeviceFault => return Some(Reason::DeviceFault),
            Outcome::Failure => true,
            Outcome::Success => false,
        };
        self.consecutive = if failed { self.consecutive.saturating_add(1) } else { 0 };
        self.nan_answers = match sample.without_nan {
            0 => self.nan_answers.saturating_add(sample.with_nan),
            _ => 0,
        };
        let slow = !failed && self.is_slow(sample.time);
        let one = Counts { samples: 1, failed: u32::from(failed), slow: u32::from(slow) };
        let counts = self.window.add(now, one);
        let enough = counts.samples >= min_samples;
        if self.consecutive >= consecutive {
            Some(Reason::Consecutive)
        } else if enough && failed && counts.reaches(counts.failed, failure_rate) {
            Some(Reason::FailureRate)
        } else if enough && slow && counts.reaches(counts.slow, slow_rate) {
            Some(Reason::SlowRate)
        } else if self.settings.nan_answers.is_some_and(|most| self.nan_answers >= most) {
            Some(Reason::NanStorm)
        } else {
            None
        }
    }

    /// Judges the first part of a trial that says anything.
    fn judge_probe(&mut self, now: Instant, sample: Sample) -> Option<Transition> {
        let outcome = sample.outcome?;
        let is_no_better = match self.cause {
            Some(Reason::NanStorm) => sample.with_nan > 0,
            Some(Reason::SlowRate) => self.is_slow(sample.time),
            _ => false,
        };
        if outcome != Outcome::Success || is_no_better {
            return Some(self.trip(now, Reason::ProbeFailed));
        }
        // The epoch stays: other parts of the same trial may run, they only decide no more.
        if let Phase::HalfOpen { decided, succeeded, .. } = &mut self.phase {
            *decided = true;
            *succeeded += 1;
            if *succeeded < self.settings.probes {
                return None;
            }
        }
        Some(self.close(now, Reason::Recovered))
    }

    fn trip(&mut self, now: Instant, reason: Reason) -> Transition {
        if let Phase::Closed { since } = self.phase
            && now.saturating_duration_since(since) >= self.settings.reset_after
        {
            self.backoff.reset();
        }
        let open = self.backoff.wait();
        self.phase = Phase::Open { until: Some(now + open) };
        self.changed(State::Open, reason, Some(open))
    }

    fn close(&mut self, now: Instant, reason: Reason) -> Transition {
        self.phase = Phase::Closed { since: now };
        self.window.clear();
        self.consecutive = 0;
        self.nan_answers = 0;
        self.changed(State::Closed, reason, None)
    }

    fn changed(&mut self, to: State, reason: Reason, open: Option<Duration>) -> Transition {
        self.epoch += 1;
        self.reason = Some(reason);
        Transition { to, reason, open }
    }

    fn is_slow(&self, time: Duration) -> bool {
        self.settings.slow_call.is_some_and(|limit| time > limit)
    }

    fn retry_after(&self, now: Instant) -> Duration {
        match self.phase {
            Phase::Closed { .. } => Duration::ZERO,
            Phase::Open { until: None } => self.settings.max_open_time,
            Phase::Open { until: Some(until) } => until.saturating_duration_since(now),
            Phase::HalfOpen { lease, .. } => {
                lease.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)).min(SOON)
            }
        }
    }
}

#[cfg(test)]
mod tests;
