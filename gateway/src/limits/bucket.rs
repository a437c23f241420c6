//! One allowance per key that fills up at a steady rate: the generic cell rate algorithm (GCRA)
//! of governor, on a map that cannot grow beyond a given number of keys.

use std::hash::BuildHasherDefault;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use super::seed::Already;
use crate::config::Rate;

/// Shortest time that one unit takes to fill up. Faster rates count in units of several, so that
/// rounding to whole nanoseconds is off by 0.1 % at most.
const FINEST: u128 = 1000;

/// A rate in the terms of the algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Time in which one unit fills up, rounded up: never faster than the rate.
    pub(super) interval: Duration,
    /// Units that may come at once.
    pub(super) burst: NonZeroU32,
    /// What one unit stands for, in rows or bytes.
    pub(super) unit: u64,
}

/// What became of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Admitted,
    /// Not now: the earliest time that helps, and what is left, in units.
    Limited {
        wait: Duration,
        remaining: u32,
    },
}

impl Pace {
    pub(super) fn new(rate: &Rate, burst: u64) -> Self {
        let period = rate.per.as_nanos();
        let count = u128::from(rate.count);
        // Enough to fit a burst into 32 bits, too.
        let unit = (FINEST * count / period).max(u128::from(burst) >> 31).max(1);
        let interval = (period * unit).div_ceil(count);
        let burst = (u128::from(burst) / unit).clamp(1, u128::from(u32::MAX));
        Self {
            interval: Duration::from_nanos(u64::try_from(interval).unwrap_or(u64::MAX)),
            burst: NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX))
                .unwrap_or(NonZeroU32::MIN),
            unit: u64::try_from(unit).unwrap_or(u64::MAX),
        }
    }

    /// Units that a cost comes to; `None` when it is more than may ever come at once.
    pub(super) fn units(&self, cost: u64) -> Option<NonZeroU32> {
        let units = u32::try_from(cost.div_ceil(self.unit).max(1)).ok()?;
        NonZeroU32::new(units).filter(|units| *units <= self.burst)
    }
}

/// The allowances of all keys of one rule.
#[derive(Debug)]
pub(super) struct Bucket<C: Clock> {
    limiter: RateLimiter<u64, Shared, C, NoOpMiddleware<C::Instant>>,
    keys: Arc<Keys>,
    interval: Duration,
}

impl<C: Clock> Bucket<C> {
    pub(super) fn new(pace: &Pace, max_keys: usize, clock: C) -> Self {
        let keys = Arc::new(Keys {
            states: DashMap::default(),
            held: AtomicUsize::new(0),
            most: max_keys,
            overflow: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
        });
        let quota = Quota::with_period(pace.interval)
            .expect("an interval is at least a nanosecond")
            .allow_burst(pace.burst);
        let limiter = RateLimiter::new(quota, Shared(keys.clone()), clock);
        Self { limiter, keys, interval: pace.interval }
    }

    /// Takes `units` from the allowance of `key`, or nothing. `units` is at most the burst.
    pub(super) fn check(&self, key: u64, units: NonZeroU32) -> Decision {
        match self.limiter.check_key_n(&key, units) {
            Ok(Ok(())) => Decision::Admitted,
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(self.limiter.clock().now());
                let missing = wait.as_nanos().div_ceil(self.interval.as_nanos().max(1));
                let missing = u32::try_from(missing).unwrap_or(u32::MAX);
                Decision::Limited { wait, remaining: units.get().saturating_sub(missing) }
            }
            // The caller has checked against the burst.
            Err(_) => Decision::Limited { wait: self.interval, remaining: 0 },
        }
    }

    /// Forgets keys whose allowance is full again and gives memory back.
    pub(super) fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// Keys that have a state of their own.
    pub(super) fn held(&self) -> usize {
        self.keys.held.load(Ordering::Relaxed)
    }

    /// Checks that went to the shared allowance for want of room.
    pub(super) fn overflowed(&self) -> u64 {
        self.keys.overflowed.load(Ordering::Relaxed)
    }
}

/// States by key, at most `most` of them; all other keys share one.
#[derive(Debug)]
struct Keys {
    states: DashMap<u64, AtomicU64, BuildHasherDefault<Already>>,
    /// Number of states, kept apart: asking the map takes all its locks.
    held: AtomicUsize,
    most: usize,
    overflow: AtomicU64,
    overflowed: AtomicU64,
}

/// A handle that governor may own.
#[derive(Debug)]
struct Shared(Arc<Keys>);

impl StateStore for Shared {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let keys = &self.0;
        if let Some(state) = keys.states.get(key) {
            return replace(&state, decide);
        }
        if keys.held.fetch_add(1, Ordering::Relaxed) >= keys.most {
            keys.held.fetch_sub(1, Ordering::Relaxed);
            keys.overflowed.fetch_add(1, Ordering::Relaxed);
            return replace(&keys.overflow, decide);
        }
        match keys.states.entry(*key) {
            Entry::Vacant(place) => replace(&place.insert(AtomicU64::new(0)), decide),
            // Another thread was faster.
            Entry::Occupied(place) => {
                keys.held.fetch_sub(1, Ordering::Relaxed);
                replace(place.get(), decide)
            }
        }
    }
}

impl ShrinkableKeyedStateStore<u64> for Shared {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut dropped = 0;
        self.0.states.retain(|_, state| {
            let keep = state.load(Ordering::Relaxed) > drop_below.as_u64();
            dropped += usize::from(!keep);
            keep
        });
        self.0.held.fetch_sub(dropped, Ordering::Relaxed);
    }

    fn shrink_to_fit(&self) {
        self.0.states.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Decides on the state and stores what comes of it, as one step against other threads.
fn replace<T, F, E>(state: &AtomicU64, decide: F) -> Result<T, E>
where
    F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
{
    let mut before = state.load(Ordering::Relaxed);
    loop {
        let known = (before != 0).then(|| Nanos::new(before));
        let (result, after) = decide(known)?;
        let swapped = state.compare_exchange_weak(
            before,
            after.as_u64(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        match swapped {
            Ok(_) => return Ok(result),
            Err(now) => before = now,
        }
    }
}
