//! Idempotency keys: the table of calls that carry one. Within the window a repeat gets how the
//! first call ended, also while that one still runs; nothing runs twice for one key.
//!
//! What a call is, how it runs and how it ends is the pipeline's: the table is generic over the
//! running future's output `O` and over what is kept of it, `K`. Semantics follow
//! draft-ietf-httpapi-idempotency-key-header.

mod digest;

pub use digest::{Digest, body, name};

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::{Instant, sleep};

use crate::config;
use crate::telemetry::{IdempotencyMetrics, KeyedCall};

/// What one key costs beside its answer, in bytes: the entry, its place in the order of age and
/// small allocations of the answer.
const OVERHEAD: usize = 512;

/// Expired entries that one call clears away: more than one, so that the table shrinks.
const CLEARED_BY_A_CALL: usize = 4;
/// And those that are cleared under one lock in the background.
const CLEARED_AT_ONCE: usize = 256;
const UPKEEP: Duration = Duration::from_secs(1);

/// A call under way: whoever waits for it drives it, and when nobody waits any more it is dropped.
pub type Flight<O> = Shared<BoxFuture<'static, O>>;

/// The table; cheap to clone.
#[derive(Debug)]
pub struct Table<K, O>(Arc<Inner<K, O>>);

#[derive(Debug)]
struct Inner<K, O> {
    settings: config::Idempotency,
    state: Mutex<State<K, O>>,
    metrics: IdempotencyMetrics,
}

#[derive(Debug)]
struct State<K, O> {
    entries: HashMap<Digest, Entry<K, O>>,
    /// Kept entries, oldest first: the window is the same for all, so the oldest expires first.
    ages: VecDeque<(Digest, u64)>,
    bytes: usize,
    /// Of the next entry: tells entries of the same key apart.
    number: u64,
}

#[derive(Debug)]
struct Entry<K, O> {
    number: u64,
    body: Digest,
    stage: Stage<K, O>,
}

#[derive(Debug)]
enum Stage<K, O> {
    /// Held by those who wait; the entry only knows it.
    Running(WeakShared<BoxFuture<'static, O>>),
    Kept {
        value: K,
        size: usize,
        until: Instant,
    },
}

/// How a call stands to those before it.
#[derive(Debug)]
pub enum Entered<K, O> {
    /// The first one: its run.
    First(Flight<O>),
    /// A repeat while the first one runs.
    Joined(Flight<O>),
    /// A repeat: how the first one ended.
    Replayed(K),
}

/// Why a call with a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The first call with this key had another body.
    Mismatch,
    /// As many calls with keys as may be are under way.
    Full,
}

/// The right of a run to say how it ended. Dropping it frees the key.
#[derive(Debug)]
pub struct Claim<K, O> {
    table: Arc<Inner<K, O>>,
    name: Digest,
    number: u64,
}

impl<K: Clone, O: Clone> Table<K, O> {
    #[must_use]
    pub fn new(settings: config::Idempotency) -> Self {
        let state = State { entries: HashMap::new(), ages: VecDeque::new(), bytes: 0, number: 0 };
        let metrics = IdempotencyMetrics::default();
        Self(Arc::new(Inner { settings, state: Mutex::new(state), metrics }))
    }

    /// Longest key, in bytes.
    #[must_use]
    pub fn max_key_length(&self) -> usize {
        self.0.settings.max_key_length
    }

    /// Enters a call under its `name`. Only for the first one `run` is asked for the future that
    /// runs it; it must not touch the table.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn enter(
        &self,
        name: Digest,
        body: &Digest,
        run: impl FnOnce(Claim<K, O>) -> BoxFuture<'static, O>,
    ) -> Result<Entered<K, O>, Refusal> {
        // Values and runs that are let go of here are dropped after the lock, which their own
        // drop may take.
        let (mut cleared, joined);
        let mut state = self.0.lock();
        let now = Instant::now();
        cleared = state.clear(now, CLEARED_BY_A_CALL);
        let result = match state.entries.get(&name).map(|entry| (entry, &entry.stage)) {
            Some((entry, Stage::Kept { value, until, .. })) if *until > now => {
                if entry.body == *body {
                    Ok(Entered::Replayed(value.clone()))
                } else {
                    Err(Refusal::Mismatch)
                }
            }
            Some((entry, Stage::Running(flight))) => {
                joined = flight.upgrade();
                match &joined {
                    Some(flight) if entry.body == *body => Ok(Entered::Joined(flight.clone())),
                    Some(_) => Err(Refusal::Mismatch),
                    None => self.start(&mut state, (name, body), run, &mut cleared),
                }
            }
            _ => self.start(&mut state, (name, body), run, &mut cleared),
        };
        self.0.show(&state);
        drop(state);
        self.0.metrics.count(match &result {
            Ok(Entered::First(_)) => KeyedCall::Executed,
            Ok(Entered::Joined(_)) => KeyedCall::Joined,
            Ok(Entered::Replayed(_)) => KeyedCall::Replayed,
            Err(Refusal::Mismatch) => KeyedCall::Mismatch,
            Err(Refusal::Full) => KeyedCall::Full,
        });
        result
    }

    fn start(
        &self,
        state: &mut State<K, O>,
        (name, body): (Digest, &Digest),
        run: impl FnOnce(Claim<K, O>) -> BoxFuture<'static, O>,
        cleared: &mut Vec<K>,
    ) -> Result<Entered<K, O>, Refusal> {
        while state.entries.len() >= self.0.settings.max_keys {
            let Some(value) = state.forget_oldest() else { return Err(Refusal::Full) };
            self.0.metrics.evicted.increment(1);
            cleared.push(value);
        }
        let number = state.number;
        state.number += 1;
        let flight = run(Claim { table: self.0.clone(), name, number }).shared();
        let known = flight.downgrade().expect("nobody has driven it yet");
        // An expired answer, or a run that nobody waits for any more, makes room.
        let entry = Entry { number, body: *body, stage: Stage::Running(known) };
        cleared.extend(state.replace(name, entry));
        Ok(Entered::First(flight))
    }

    /// Clears away what has expired, for ever.
    pub async fn upkeep(self) -> Infallible {
        loop {
            sleep(UPKEEP).await;
            while self.clear() == CLEARED_AT_ONCE {}
        }
    }

    fn clear(&self) -> usize {
        let mut state = self.0.lock();
        let cleared = state.clear(Instant::now(), CLEARED_AT_ONCE);
        self.0.show(&state);
        drop(state);
        cleared.len()
    }
}

impl<K, O> Clone for Table<K, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, O> Inner<K, O> {
    fn lock(&self) -> MutexGuard<'_, State<K, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn show(&self, state: &State<K, O>) {
        self.metrics.bytes.set(state.bytes as f64);
        self.metrics.keys.set(state.entries.len() as f64);
    }
}

impl<K, O> Claim<K, O> {
    /// Ends the run with what repeats get, of so many bytes. Too large a value is not asked for,
    /// and the key is free.
    pub fn keep(self, bytes: usize, value: impl FnOnce() -> K) {
        let Inner { settings, metrics, .. } = &*self.table;
        let size = bytes.saturating_add(OVERHEAD);
        if bytes > settings.max_answer || size > settings.max_bytes {
            metrics.too_large.increment(1);
            return;
        }
        let value = value();
        let mut cleared = Vec::new();
        let mut state = self.table.lock();
        while state.bytes + size > settings.max_bytes {
            let Some(value) = state.forget_oldest() else { break };
            metrics.evicted.increment(1);
            cleared.push(value);
        }
        let until = Instant::now() + settings.window;
        let State { entries, ages, bytes, .. } = &mut *state;
        if let Some(entry) = entries.get_mut(&self.name).filter(|e| e.number == self.number) {
            entry.stage = Stage::Kept { value, size, until };
            ages.push_back((self.name, self.number));
            *bytes += size;
        }
        self.table.show(&state);
        drop(state);
    }
}

impl<K, O> Drop for Claim<K, O> {
    fn drop(&mut self) {
        let mut state = self.table.lock();
        let is_own = |entry: &Entry<K, O>| {
            entry.number == self.number && matches!(entry.stage, Stage::Running(_))
        };
        if state.entries.get(&self.name).is_some_and(is_own) {
            state.entries.remove(&self.name);
            self.table.show(&state);
        }
    }
}

impl<K, O> State<K, O> {
    /// Takes out entries that have expired, oldest first, at most so many.
    fn clear(&mut self, now: Instant, most: usize) -> Vec<K> {
        let mut cleared = Vec::new();
        while cleared.len() < most {
            match self.ages.front().map(|(name, number)| self.entries.get(name).zip(Some(number))) {
                Some(Some((Entry { number, stage: Stage::Kept { until, .. }, .. }, aged)))
                    if number == aged && *until > now =>
                {
                    break;
                }
                Some(_) => cleared.extend(self.forget_front()),
                None => break,
            }
        }
        cleared
    }

    /// Takes out the oldest kept entry.
    fn forget_oldest(&mut self) -> Option<K> {
        while !self.ages.is_empty() {
            if let Some(value) = self.forget_front() {
                return Some(value);
            }
        }
        None
    }

    /// Takes out the entry at the front of the order, if it was not replaced since.
    fn forget_front(&mut self) -> Option<K> {
        let (name, number) = self.ages.pop_front()?;
        self.entries.get(&name).filter(|entry| entry.number == number)?;
        self.entries.remove(&name).and_then(|entry| self.value_of(entry))
    }

    fn replace(&mut self, name: Digest, entry: Entry<K, O>) -> Option<K> {
        self.entries.insert(name, entry).and_then(|old| self.value_of(old))
    }

    fn value_of(&mut self, entry: Entry<K, O>) -> Option<K> {
        let Stage::Kept { value, size, .. } = entry.stage else { return None };
        self.bytes -= size;
        Some(value)
    }
}

#[cfg(test)]
mod tests;
