//! One `[[rate_limit]]`: whom a call is counted to, what it costs, and what happens when the
//! allowance is used up.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::DefaultClock;

use super::Demand;
use super::bucket::{Bucket, Decision, Pace};
use super::redis::{Redis, SharedKey};
use super::seed::{Seed, Value};
use crate::config::{Cost, Mode, OnError, RateLimit, Store};
use crate::error::{Allowance, AllowanceUnit, Kind, Rejection};
use crate::types::is_named;

/// A rule at work.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) config: RateLimit,
    /// Place of the key's header in the callers' marks.
    slot: usize,
    pub(super) state: Arc<State>,
    shared: Option<Arc<Redis>>,
}

/// What outlives a change of the configuration as long as the allowance stays the same.
#[derive(Debug)]
pub(super) struct State {
    pace: Pace,
    seed: Seed,
    pub(super) bucket: Bucket<DefaultClock>,
    /// The figures of a name only grow, whatever becomes of its allowance.
    pub(super) counts: Arc<Counts>,
}

/// How checks ended.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) admitted: AtomicU64,
    pub(super) limited: AtomicU64,
    /// Would have been limited, were the rule enforced.
    pub(super) would_limit: AtomicU64,
    pub(super) store_errors: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Rule {
    /// Puts a rule to work; goes on with the state of `before` where the allowance is the same.
    pub(super) fn new(
        config: RateLimit,
        slot: usize,
        shared: Option<&Arc<Redis>>,
        before: Option<&Self>,
    ) -> Self {
        let state = before.filter(|old| old.has_allowance_of(&config)).map_or_else(
            || {
                let pace = Pace::new(&config.rate, config.burst);
                let bucket = Bucket::new(&pace, config.max_keys, DefaultClock::default());
                let counts = before.map(|old| old.state.counts.clone()).unwrap_or_default();
                Arc::new(State { pace, seed: Seed::default(), bucket, counts })
            },
            |old| old.state.clone(),
        );
        let shared = shared.filter(|_| config.store == Store::Redis).cloned();
        Self { config, slot, state, shared }
    }

    /// Whether what callers have used up so far means the same under another definition.
    fn has_allowance_of(&self, config: &RateLimit) -> bool {
        let of = |c: &RateLimit| (c.rate, c.burst, c.cost, c.max_keys);
        self.config.key == config.key && of(&self.config) == of(config)
    }

    /// Whether it can be checked before the body of a request is read: it costs one and needs no
    /// model's name, which gRPC has in the body.
    pub(super) fn is_for_head(&self) -> bool {
        let c = &self.config;
        c.cost == Cost::Requests && c.key.is_of_one_caller() && c.models.is_empty()
    }

    pub(super) fn is_about(&self, model: &str) -> bool {
        let models = &self.config.models;
        models.is_empty() || models.iter().any(|pattern| is_named(pattern, model))
    }

    fn cost(&self, demand: &Demand<'_>) -> u64 {
        match self.config.cost {
            Cost::Requests => 1,
            Cost::Rows => demand.rows as u64,
            Cost::Bytes => demand.bytes as u64,
        }
    }

    /// Refuses a call that no waiting would help, before anything is spent on it.
    ///
    /// # Errors
    /// `InvalidInput` when the call costs more than the burst.
    pub(super) fn check_possible(&self, demand: &Demand<'_>) -> Result<(), Rejection> {
        let cost = self.cost(demand);
        if self.state.pace.units(cost).is_some() {
            return Ok(());
        }
        if self.config.mode == Mode::Shadow {
            Counts::add(&self.state.counts.would_limit);
            return Ok(());
        }
        Counts::add(&self.state.counts.limited);
        let (name, unit) = (&self.config.name, self.config.cost.text());
        Err(Rejection::invalid(format!(
            "the call has {cost} {unit}, rate limit '{name}' never lets more than {} through",
            self.config.burst
        )))
    }

    /// Takes the cost of a call from its allowance.
    ///
    /// # Errors
    /// `RateLimited` when it is used up, `Overloaded` when the store does not answer and the rule
    /// says to refuse then.
    pub(super) async fn pass(&self, demand: &Demand<'_>) -> Result<(), Rejection> {
        // More than the burst: a shadowed rule has counted it already.
        let Some(units) = self.state.pace.units(self.cost(demand)) else { return Ok(()) };
        let value = Value::of(&self.config.key, self.slot, demand.caller, demand.model);
        let decision = match &self.shared {
            None => self.check_local(&value, units),
            // Boxed: few rules are shared, and their future is large.
            Some(store) => Box::pin(self.check_shared(store, &value, units)).await?,
        };
        let counts = &self.state.counts;
        let Decision::Limited { wait, remaining } = decision else {
            Counts::add(&counts.admitted);
            return Ok(());
        };
        if self.config.mode == Mode::Shadow {
            Counts::add(&counts.would_limit);
            return Ok(());
        }
        Counts::add(&counts.limited);
        Err(self.refusal(wait, remaining))
    }

    fn check_local(&self, value: &Value<'_>, units: NonZeroU32) -> Decision {
        self.state.bucket.check(self.state.seed.hash(value), units)
    }

    async fn check_shared(
        &self,
        store: &Redis,
        value: &Value<'_>,
        units: NonZeroU32,
    ) -> Result<Decision, Rejection> {
        let key = SharedKey { rule: &self.config.name, value };
        if let Some(decision) = store.check(&key, &self.state.pace, units).await {
            return Ok(decision);
        }
        Counts::add(&self.state.counts.store_errors);
        match self.config.on_error {
            OnError::Allow => Ok(Decision::Admitted),
            OnError::Local => Ok(self.check_local(value, units)),
            OnError::Deny if self.config.mode == Mode::Shadow => {
                Ok(Decision::Limited { wait: Duration::ZERO, remaining: 0 })
            }
            OnError::Deny => {
                let text = format!("rate limit '{}' cannot be checked now", self.config.name);
                let rejection = Rejection::new(Kind::Overloaded, text);
                Err(rejection.with_retry_after(Duration::from_secs(1)))
            }
        }
    }

    fn refusal(&self, wait: Duration, remaining: u32) -> Rejection {
        // The allowance may have filled up since the decision.
        let wait = wait.max(Duration::from_millis(1));
        let config = &self.config;
        let allowance = Allowance {
            name: config.name.clone(),
            quota: config.rate.count,
            window: Some(config.rate.per),
            unit: match config.cost {
                Cost::Requests => AllowanceUnit::Requests,
                Cost::Rows => AllowanceUnit::Rows,
                Cost::Bytes => AllowanceUnit::Bytes,
            },
            remaining: u64::from(remaining) * self.state.pace.unit,
            reset: wait,
        };
        let text = format!("rate limit '{}' is used up: come back in {wait:.1?}", config.name);
        Rejection::new(Kind::RateLimited, text).with_retry_after(wait).with_allowance(allowance)
    }
}
