//! One `[[quota]]`: how much may be under way at the same time for each value of a key.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::Demand;
use super::rule::Counts;
use super::seed::{Already, Seed, Value};
use crate::config::{self, InFlightUnit, Mode};
use crate::error::{Allowance, AllowanceUnit, Kind, Rejection};
use crate::types::is_named;

/// When a refused call may try again: nobody knows when others end.
const RETRY: Duration = Duration::from_secs(1);

/// A quota at work.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) config: config::Quota,
    slot: usize,
    pub(super) state: Arc<InFlight>,
}

/// What is under way by key. A key is there only while something of it is, so there are never
/// more keys than calls in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    seed: Seed,
    held: DashMap<u64, u64, BuildHasherDefault<Already>>,
    pub(super) counts: Arc<Counts>,
}

/// The room of one call in a quota; given back on drop.
#[derive(Debug)]
pub(super) struct Permit {
    state: Arc<InFlight>,
    key: u64,
    amount: u64,
}

impl Quota {
    /// Puts a quota to work. What is under way counts on where `before` counted the same.
    pub(super) fn new(config: config::Quota, slot: usize, before: Option<&Self>) -> Self {
        let same = |old: &&Self| old.config.key == config.key && old.config.unit == config.unit;
        let state = before.filter(same).map_or_else(
            || {
                let counts = before.map(|old| old.state.counts.clone()).unwrap_or_default();
                Arc::new(InFlight { counts, ..InFlight::default() })
            },
            |old| old.state.clone(),
        );
        Self { config, slot, state }
    }

    pub(super) fn is_about(&self, model: &str) -> bool {
        let models = &self.config.models;
        models.is_empty() || models.iter().any(|pattern| is_named(pattern, model))
    }

    fn amount(&self, demand: &Demand<'_>) -> u64 {
        match self.config.unit {
            InFlightUnit::Calls => 1,
            InFlightUnit::Rows => demand.rows as u64,
        }
    }

    /// Refuses a call that is larger than the whole quota.
    ///
    /// # Errors
    /// `InvalidInput` when it is.
    pub(super) fn check_possible(&self, demand: &Demand<'_>) -> Result<(), Rejection> {
        let amount = self.amount(demand);
        if amount <= self.config.max_in_flight || self.config.mode == Mode::Shadow {
            return Ok(());
        }
        Counts::add(&self.state.counts.limited);
        let (name, most) = (&self.config.name, self.config.max_in_flight);
        let text =
            format!("the call has {amount} rows, quota '{name}' never holds more than {most}");
        Err(Rejection::invalid(text))
    }

    /// Takes room for a call, or none in a shadowed quota that has none left.
    ///
    /// # Errors
    /// `RateLimited` when there is none.
    pub(super) fn take(&self, demand: &Demand<'_>) -> Result<Option<Permit>, Rejection> {
        let amount = self.amount(demand);
        let value = Value::of(&self.config.key, self.slot, demand.caller, demand.model);
        let key = self.state.seed.hash(&value);
        let held = match self.state.held.entry(key) {
            Entry::Vacant(place) if amount <= self.config.max_in_flight => {
                place.insert(amount);
                0
            }
            Entry::Occupied(mut held)
                if held.get().saturating_add(amount) <= self.config.max_in_flight =>
            {
                *held.get_mut() += amount;
                0
            }
            Entry::Vacant(_) => self.config.max_in_flight,
            Entry::Occupied(held) => *held.get(),
        };
        let counts = &self.state.counts;
        if held == 0 {
            Counts::add(&counts.admitted);
            return Ok(Some(Permit { state: self.state.clone(), key, amount }));
        }
        if self.config.mode == Mode::Shadow {
            Counts::add(&counts.would_limit);
            return Ok(None);
        }
        Counts::add(&counts.limited);
        Err(self.refusal(held))
    }

    fn refusal(&self, held: u64) -> Rejection {
        let config = &self.config;
        let allowance = Allowance {
            name: config.name.clone(),
            quota: config.max_in_flight,
            window: None,
            unit: match config.unit {
                InFlightUnit::Calls => AllowanceUnit::ConcurrentRequests,
                InFlightUnit::Rows => AllowanceUnit::ConcurrentRows,
            },
            remaining: config.max_in_flight.saturating_sub(held),
            reset: RETRY,
        };
        let text =
            format!("quota '{}' is used up: wait until earlier calls have ended", config.name);
        Rejection::new(Kind::RateLimited, text).with_retry_after(RETRY).with_allowance(allowance)
    }
}

impl InFlight {
    /// Keys that have something under way.
    pub(super) fn keys(&self) -> usize {
        self.held.len()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.state.held.entry(self.key) {
            *held.get_mut() = held.get().saturating_sub(self.amount);
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}
