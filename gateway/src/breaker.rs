//! Circuit breakers: a version that keeps failing is left alone for a while, and its callers are
//! told so at once instead of waiting for the next failure.
//!
//! A [`Breaker`] counts batches, not calls: thirty-two callers who share a failed run are one
//! failure. It is closed (all pass), open (none passes) or half-open (one passes at a time, as a
//! trial); `machine` holds the rules. Whoever passes carries a [`Permit`], which knows the
//! epoch it was given in. A breaker knows nothing of models: it has a name, and hears
//! [`Sample`]s.

mod backoff;
mod machine;
mod window;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;
use tracing::{debug, info, warn};

pub use backoff::Backoff;
pub use machine::{Held, Outcome, Reason, Sample, State, Status};
pub use window::Counts;

use self::machine::{Admitted, Machine, Transition};
use crate::config::Breaker as Settings;
use crate::error::{Kind, Rejection};
use crate::telemetry::BreakerMetrics;
use crate::types::Deadline;

/// The breaker of one thing that is called.
#[derive(Debug)]
pub struct Breaker {
    /// For messages.
    name: String,
    machine: Mutex<Machine>,
    metrics: BreakerMetrics,
}

/// The right of one call to run, or none worth counting (the default). The next trial passes once
/// all permits of a trial are dropped.
#[derive(Debug, Default)]
pub struct Permit {
    epoch: u64,
    /// Of a trial alone: others have nothing to give back.
    trial: Option<Arc<Trial>>,
}

/// The way for a caller that leaves to give its trial back before anybody has begun it; nothing
/// for calls that are none (the default).
#[derive(Debug, Default)]
pub struct TrialHandle(Weak<Trial>);

/// What the parts of a trial share.
#[derive(Debug)]
struct Trial {
    breaker: Arc<Breaker>,
    epoch: u64,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(name: &str, settings: Settings, metrics: BreakerMetrics) -> Arc<Self> {
        let seed = RandomState::new().hash_one(name);
        Self::seeded(name, settings, metrics, seed)
    }

    /// A closed breaker whose open times follow from `seed`.
    #[must_use]
    pub fn seeded(name: &str, settings: Settings, metrics: BreakerMetrics, seed: u64) -> Arc<Self> {
        let machine = Mutex::new(Machine::new(settings, Instant::now(), seed));
        Arc::new(Self { name: name.to_owned(), machine, metrics })
    }

    /// Lets a call pass. A trial has until `deadline` to get hold of an engine.
    ///
    /// # Errors
    /// `CircuitOpen` with the time after which to try again.
    pub fn admit(
        self: &Arc<Self>,
        now: Instant,
        deadline: Option<Deadline>,
    ) -> Result<Permit, Rejection> {
        let (result, transition) = self.lock().admit(now, deadline.map(|deadline| deadline.0));
        self.tell(transition);
        match result {
            Ok(Admitted { epoch, is_probe }) => {
                let trial = || Arc::new(Trial { breaker: self.clone(), epoch });
                Ok(Permit { epoch, trial: is_probe.then(trial) })
            }
            Err(after) => {
                self.metrics.refused.increment(1);
                Err(Rejection::new(Kind::CircuitOpen, self.refusal()).with_retry_after(after))
            }
        }
    }

    /// Refuses what would run beside live calls and decide nothing for them, exactly while it
    /// would refuse a live call.
    ///
    /// # Errors
    /// `CircuitOpen` with the time after which to try again.
    pub fn check(&self, now: Instant) -> Result<(), Rejection> {
        match self.held(now) {
            Some(Held { bars_others: true, retry_after, .. }) => {
                self.metrics.refused.increment(1);
                Err(Rejection::new(Kind::CircuitOpen, self.refusal()).with_retry_after(retry_after))
            }
            _ => Ok(()),
        }
    }

    /// What refused callers are told.
    #[must_use]
    pub fn refusal(&self) -> String {
        format!("the circuit breaker of {} is open, try again later", self.name)
    }

    /// Counts a call that had passed and is refused after all.
    pub fn count_refused(&self) {
        self.metrics.refused.increment(1);
    }

    /// Counts a batch, by the youngest permit of its calls.
    pub fn record(&self, now: Instant, permit: &Permit, sample: Sample) {
        if permit.epoch > 0 {
            let transition = self.lock().record(now, permit.epoch, sample);
            self.tell(transition);
        }
    }

    /// What holds while it is not closed; `None` while all calls may run.
    #[must_use]
    pub fn held(&self, now: Instant) -> Option<Held> {
        self.lock().held(now)
    }

    /// What a call would meet now.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state(Instant::now())
    }

    /// Why calls are refused, for operators; `None` while none would be.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let Status { state, reason, .. } = self.status();
        let reason = reason.map_or("", Reason::label);
        (state == State::Open).then(|| format!("its circuit breaker is open: {reason}"))
    }

    /// Everything there is to see.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status(Instant::now())
    }

    /// Opens it until [`Breaker::reset`].
    pub fn hold_open(&self) {
        let transition = self.lock().hold_open();
        self.tell(Some(transition));
    }

    /// Closes it and forgets what it has counted.
    pub fn reset(&self) {
        let transition = self.lock().reset(Instant::now());
        self.tell(Some(transition));
    }

    /// Goes on under other settings. What is open stays open, and calls stay as they were counted;
    /// only rates are counted anew, since the window may have another width. A breaker that is
    /// switched off closes, unless an operator holds it open. The same settings change nothing.
    pub fn reconfigure(&self, settings: Settings) {
        let transition = self.lock().reconfigure(Instant::now(), settings);
        self.tell(transition);
    }

    /// Brings the gauge up to date; called before it is rendered.
    pub fn publish(&self) {
        self.metrics.state.set(match self.state() {
            State::Closed => 0.0,
            State::Open => 1.0,
            State::HalfOpen => 2.0,
        });
    }

    /// Shows a closed breaker for what is no longer there.
    pub fn retire(&self) {
        self.metrics.state.set(0.0);
    }

    fn tell(&self, transition: Option<Transition>) {
        let Some(Transition { to, reason, open }) = transition else { return };
        let (breaker, reason) = (&self.name, reason.label());
        self.metrics.changed(to.name(), reason);
        match to {
            State::Open => warn!(breaker, reason, ?open, "the circuit breaker opened"),
            State::Closed => info!(breaker, reason, "the circuit breaker closed"),
            State::HalfOpen => debug!(breaker, reason, "the circuit breaker lets a trial pass"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The epoch it was given in; 0 where no breaker gave it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A permit for a part of the call; all of them together are the trial, if it is one.
    #[must_use]
    pub fn part(&self) -> Self {
        Self { epoch: self.epoch, trial: self.trial.clone() }
    }

    /// Moves the trial, if it is one, into the permit that is returned; this keeps its epoch.
    #[must_use]
    pub fn take_trial(&mut self) -> Self {
        Self { epoch: self.epoch, trial: self.trial.take() }
    }

    /// What its caller can give the trial back with.
    #[must_use]
    pub fn handle(&self) -> TrialHandle {
        TrialHandle(self.trial.as_ref().map(Arc::downgrade).unwrap_or_default())
    }

    /// Whether it holds a trial.
    #[must_use]
    pub fn has_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Whether it holds a trial of a breaker that is not closed yet.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| !trial.breaker.lock().is_closed())
    }

    /// Keeps a trial that has an engine from being given up before `until`.
    pub fn extend(&self, until: Instant) {
        if let Some(trial) = &self.trial {
            trial.breaker.lock().extend(trial.epoch, until);
        }
    }
}

impl TrialHandle {
    /// Lets the next trial pass. Once one has, this changes nothing.
    pub fn give_back(&self) {
        if let Some(trial) = self.0.upgrade() {
            trial.breaker.lock().release(trial.epoch);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.breaker.lock().release(self.epoch);
    }
}

#[cfg(test)]
mod tests;
