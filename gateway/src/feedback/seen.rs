//! Which feedback was told before.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Keys of feedback of the last while, so many at most.
#[derive(Debug)]
pub(super) struct Seen {
    state: Mutex<State>,
    horizon: Duration,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<u128, Instant>,
    order: VecDeque<u128>,
}

impl Seen {
    pub(super) fn new(horizon: Duration, most: usize) -> Self {
        Self { state: Mutex::default(), horizon, most }
    }

    /// Whether it was told.
    pub(super) fn holds(&self, key: u128, now: Instant) -> bool {
        let state = self.lock();
        state.keys.get(&key).is_some_and(|since| now.duration_since(*since) <= self.horizon)
    }

    /// Notes that it was told; whether that is news.
    pub(super) fn note(&self, key: u128, now: Instant) -> bool {
        let mut state = self.lock();
        let is_over = |since: &Instant| now.duration_since(*since) > self.horizon;
        while let Some(oldest) = state.order.front().copied() {
            let is_due = state.keys.get(&oldest).is_none_or(is_over);
            if !is_due && state.order.len() < self.most {
                break;
            }
            state.order.pop_front();
            state.keys.remove(&oldest);
        }
        // What is known keeps its first time: in that order they are forgotten.
        let is_news = !state.keys.contains_key(&key);
        if is_news {
            state.keys.insert(key, now);
            state.order.push_back(key);
        }
        is_news
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_told_is_known_for_the_horizon_and_within_the_bound() {
        let seen = Seen::new(Duration::from_secs(10), 3);
        let start = Instant::now();
        assert!(seen.note(1, start) && !seen.note(1, start));
        let later = start + Duration::from_secs(10);
        assert!(seen.holds(1, later) && !seen.holds(2, later));
        assert!(!seen.holds(1, later + Duration::from_millis(1)));
        for key in 2..5 {
            assert!(seen.note(key, later));
        }
        assert_eq!([1, 2, 3, 4].map(|key| seen.holds(key, later)), [false, true, true, true]);
        assert!(seen.lock().keys.len() <= 3 && seen.lock().order.len() <= 3);
    }
}
