//! How much each caller may ask for: rates, quotas of what is under way, and fair shares of
//! engine time.
//!
//! A call meets the limits of its narrowest group first: header, identity and address, then
//! tenant, model, and last everybody. Who is refused by one has spent nothing of a wider one, so a
//! throttled client uses up nobody else's allowance. Rates that count requests of one caller are
//! checked at the head of a request ([`Limiter::at_head`]), before its body is read; everything
//! else once the rows and bytes of the call are known ([`Limiter::admit`]).

mod seed;
mod bucket;
mod redis;
mod rule;
mod quota;
mod fair;
mod report;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{LimitKey, Rates, Store};
use crate::error::Rejection;
use crate::tasks;
use crate::types::{Caller, Marks};

use fair::FairShare;
use quota::{Permit, Quota};
use redis::Redis;
use rule::Rule;

pub use fair::{Pressure, Share};
pub use report::{FairShareReport, QuotaReport, RateReport, RedisReport, Report};

/// How often keys that need no state any more are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// Every limit of the configuration, at work.
#[derive(Debug, Default)]
pub struct Limiter {
    rules: Vec<Arc<Rule>>,
    quotas: Vec<Arc<Quota>>,
    /// Rules that are checked before the body is read, narrowest group first.
    head: Vec<Arc<Rule>>,
    /// Everything else, narrowest group first.
    body: Vec<Step>,
    /// What marks of callers are made of.
    headers: Vec<HeaderName>,
    fair: Option<Arc<FairShare>>,
    redis: Option<Arc<Redis>>,
}

/// One check of a call whose rows are known.
#[derive(Debug)]
enum Step {
    Quota(Arc<Quota>),
    Rate(Arc<Rule>),
}

/// A call at the door.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    pub caller: &'a Caller,
    pub model: &'a str,
    pub rows: usize,
    /// Of all input tensors.
    pub bytes: usize,
}

/// The room that a call takes in quotas; given back on drop.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "held for their drop")]
pub struct Permits(Vec<Permit>);

impl Limiter {
    /// Puts the limits of a configuration to work, sweeping included. Rules and quotas whose
    /// meaning has not changed go on with the state that they have in `before`: changing a file
    /// gives nobody a fresh allowance.
    ///
    /// # Errors
    /// What is wrong with `[redis]` or its files, where a rule is shared.
    pub fn start(rates: &Rates, before: Option<&Self>) -> Result<Arc<Self>, String> {
        let shared = rates.limits.iter().any(|limit| limit.store == Store::Redis);
        let known = before.and_then(|old| old.redis.as_ref());
        let redis = match known.filter(|redis| redis.config == rates.redis) {
            _ if !shared => None,
            Some(redis) => Some(redis.clone()),
            None => Some(Redis::start(rates.redis.clone())?),
        };
        let limiter = Arc::new(Self::build(rates, redis, before));
        if !limiter.rules.is_empty() {
            tasks::spawn("limits", sweep(Arc::downgrade(&limiter)));
        }
        Ok(limiter)
    }

    fn build(rates: &Rates, redis: Option<Arc<Redis>>, before: Option<&Self>) -> Self {
        let headers = rates.headers();
        let slot = |key: &LimitKey| match key {
            LimitKey::Header(name) => headers.iter().position(|h| h == name).unwrap_or(0),
            _ => 0,
        };
        let rules: Vec<_> = rates
            .limits
            .iter()
            .map(|config| {
                let old = before.and_then(|old| old.rule(&config.name));
                let shared = redis.as_ref();
                Arc::new(Rule::new(config.clone(), slot(&config.key), shared, old))
            })
            .collect();
        let quotas: Vec<_> = rates
            .quotas
            .iter()
            .map(|config| {
                let old = before.and_then(|old| old.quota(&config.name));
                Arc::new(Quota::new(config.clone(), slot(&config.key), old))
            })
            .collect();
        let fair = rates.fair_share.as_ref().map(|config| {
            let known = before.and_then(|old| old.fair.as_ref());
            let same = known.filter(|fair| fair.config == *config).cloned();
            same.unwrap_or_else(|| Arc::new(FairShare::new(config.clone())))
        });
        let (mut head, rest): (Vec<_>, Vec<_>) =
            rules.iter().cloned().partition(|rule| rule.is_for_head());
        head.sort_by_key(|rule| rule.config.key.rank());
        // A quota before the rates of its group: its room comes back, what a rate took does not.
        let quota_steps = quotas.iter().cloned().map(Step::Quota);
        let mut body: Vec<_> = quota_steps.chain(rest.into_iter().map(Step::Rate)).collect();
        body.sort_by_key(Step::rank);
        Self { rules, quotas, head, body, headers, fair, redis }
    }

    /// Notes the headers that limits tell callers apart by.
    pub fn mark(&self, caller: &mut Caller, headers: &HeaderMap) {
        if self.headers.is_empty() {
            return;
        }
        let value = |name| headers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()));
        caller.marks = Marks(Some(self.headers.iter().map(value).collect()));
    }

    /// Counts a request whose head has been read to its caller.
    ///
    /// # Errors
    /// `RateLimited` when a limit of the caller's is used up; `Overloaded` when a shared one
    /// cannot be checked and says to refuse then.
    pub async fn at_head(&self, caller: &Caller) -> Result<(), Rejection> {
        if self.head.is_empty() {
            return Ok(());
        }
        let demand = Demand { caller, model: "", rows: 1, bytes: 0 };
        for rule in &self.head {
            rule.pass(&demand).await?;
        }
        Ok(())
    }

    /// Counts a decoded call to everybody it counts to. The call keeps the permits until its end.
    ///
    /// # Errors
    /// `RateLimited` when a limit is used up, `InvalidInput` when it could never let the call
    /// through, `Overloaded` as [`Limiter::at_head`].
    pub async fn admit(&self, demand: &Demand<'_>) -> Result<Permits, Rejection> {
        if self.body.is_empty() {
            return Ok(Permits::default());
        }
        for step in &self.body {
            match step {
                Step::Quota(quota) if quota.is_about(demand.model) => {
                    quota.check_possible(demand)?
                }
                Step::Rate(rule) if rule.is_about(demand.model) => rule.check_possible(demand)?,
                Step::Quota(_) | Step::Rate(_) => {}
            }
        }
        let mut permits = Vec::new();
        for step in &self.body {
            match step {
                Step::Quota(quota) if quota.is_about(demand.model) => {
                    permits.extend(quota.take(demand)?);
                }
                Step::Rate(rule) if rule.is_about(demand.model) => rule.pass(demand).await?,
                Step::Quota(_) | Step::Rate(_) => {}
            }
        }
        Ok(Permits(permits))
    }

    /// Whether engine time is divided between groups.
    #[must_use]
    pub fn divides_engine_time(&self) -> bool {
        self.fair.is_some()
    }

    /// Takes a call's engine time from its group's share; kept until the engine is done with it.
    ///
    /// # Errors
    /// `Overloaded` when the device is behind and the group has its share already.
    pub fn share(
        &self,
        caller: &Caller,
        pressure: &Pressure<'_>,
        rows: usize,
    ) -> Result<Option<Share>, Rejection> {
        self.fair.as_ref().map(|fair| fair.enter(caller, pressure, rows)).transpose()
    }

    fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().map(|rule| &**rule).find(|rule| rule.config.name == name)
    }

    fn quota(&self, name: &str) -> Option<&Quota> {
        self.quotas.iter().map(|quota| &**quota).find(|quota| quota.config.name == name)
    }
}

impl Step {
    fn rank(&self) -> u8 {
        match self {
            Self::Quota(quota) => quota.config.key.rank(),
            Self::Rate(rule) => rule.config.key.rank(),
        }
    }
}

/// Forgets keys that need no state any more, for as long as the limits are at work.
async fn sweep(limiter: Weak<Limiter>) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(limiter) = limiter.upgrade() else { return };
        for rule in &limiter.rules {
            rule.state.bucket.sweep();
        }
    }
}

#[cfg(test)]
mod tests;
