//! What a shadow may have under way, and what became of every call that it was meant to see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::Ledger;
use super::ledger::Gauges;
use crate::config;
use crate::telemetry::{ShadowMetrics, ShadowOutcome};
use crate::types::ModelName;

/// The budget of one shadow of a route. Nobody ever waits for room in it.
#[derive(Debug)]
pub struct Lane {
    max_calls: usize,
    max_bytes: usize,
    state: Mutex<State>,
    metrics: ShadowMetrics,
}

/// Every sampled call is in flight or has exactly one outcome.
#[derive(Debug, Default)]
struct State {
    calls: usize,
    bytes: usize,
    sampled: u64,
    submitted: u64,
    outcomes: [u64; ShadowOutcome::ALL.len()],
}

/// The right of one call to be under way and to hold so many bytes; given back on drop.
#[derive(Debug)]
pub struct Place {
    lane: Arc<Lane>,
    bytes: usize,
    outcome: ShadowOutcome,
}

/// What became of the calls since counting began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneCounts {
    /// Calls that the shadow was meant to see: those in flight and all below but `submitted`.
    pub sampled: u64,
    /// Calls that found room.
    pub submitted: u64,
    pub in_flight: usize,
    pub in_flight_bytes: usize,
    pub compared: u64,
    pub failed: u64,
    /// Calls that say nothing about the shadow, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl Lane {
    /// The budget that the configuration gives a shadow.
    #[must_use]
    pub fn new(route: &ModelName, shadow: &config::Shadow) -> Arc<Self> {
        Arc::new(Self {
            max_calls: shadow.max_in_flight,
            max_bytes: shadow.max_bytes,
            state: Mutex::default(),
            metrics: ShadowMetrics::new(route.as_str(), shadow.name.as_str()),
        })
    }

    /// A place for a sampled call that will hold so many bytes; `None`, and counted, when there
    /// is no room.
    pub fn try_enter(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let mut state = self.lock();
        let wanted = state.bytes.saturating_add(bytes);
        let refused = if state.calls >= self.max_calls {
            ShadowOutcome::Full
        } else if wanted > self.max_bytes {
            ShadowOutcome::Bytes
        } else {
            (state.calls, state.bytes) = (state.calls + 1, wanted);
            (state.sampled, state.submitted) = (state.sampled + 1, state.submitted + 1);
            return Some(Place { lane: self.clone(), bytes, outcome: ShadowOutcome::Abandoned });
        };
        drop(state);
        self.skip(refused);
        None
    }

    /// Counts a sampled call that gets no place, by why.
    pub fn skip(&self, reason: ShadowOutcome) {
        let mut state = self.lock();
        state.sampled += 1;
        state.outcomes[reason as usize] += 1;
        drop(state);
        self.metrics.count(reason);
    }

    #[must_use]
    pub fn counts(&self) -> LaneCounts {
        let state = self.lock();
        let outcome = |outcome: ShadowOutcome| state.outcomes[outcome as usize];
        let dropped = ShadowOutcome::ALL.into_iter().filter(|which| which.is_dropped());
        LaneCounts {
            sampled: state.sampled,
            submitted: state.submitted,
            in_flight: state.calls,
            in_flight_bytes: state.bytes,
            compared: outcome(ShadowOutcome::Compared),
            failed: outcome(ShadowOutcome::Failed),
            dropped: dropped
                .map(|which| (which.label(), outcome(which)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }

    /// Starts counting anew, with what is in flight. The metrics go on.
    pub fn reset(&self) {
        let mut state = self.lock();
        let in_flight = state.calls as u64;
        (state.sampled, state.submitted) = (in_flight, in_flight);
        state.outcomes = Default::default();
    }

    /// Brings the gauges up to date with what was compared; called before they are rendered.
    pub fn publish(&self, ledger: &Ledger) {
        self.show(ledger, |value| value);
    }

    /// Takes the gauges of a shadow that is gone back.
    pub fn retire(&self, ledger: &Ledger) {
        self.show(ledger, |_| f64::NAN);
    }

    fn show(&self, ledger: &Ledger, shown: impl Fn(f64) -> f64) {
        let Gauges { ratio, outputs } = ledger.gauges();
        if let Some(ratio) = ratio {
            self.metrics.show_latency_ratio(shown(ratio));
        }
        for (name, agreement, difference) in outputs {
            if let Some(share) = agreement {
                self.metrics.show_agreement(&name, shown(share));
            }
            if let Some(relative) = difference {
                self.metrics.show_difference(&name, shown(relative));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Holds another number of bytes from now on: what the shadow answered is held in place of
    /// what it was asked. It may exceed the budget by what one answer is larger.
    pub fn resize(&mut self, bytes: usize) {
        let mut state = self.lane.lock();
        state.bytes = (state.bytes - self.bytes).saturating_add(bytes);
        drop(state);
        self.bytes = bytes;
    }

    /// Gives the place back and counts how its call ended.
    pub fn end(mut self, outcome: ShadowOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        state.calls -= 1;
        state.bytes -= self.bytes;
        state.outcomes[self.outcome as usize] += 1;
        drop(state);
        self.lane.metrics.count(self.outcome);
    }
}
