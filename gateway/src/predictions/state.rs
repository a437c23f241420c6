//! How the writing goes, as everybody else sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use super::bell::Bell;
use super::lane::Lanes;
use crate::telemetry::PredictionMetrics;

/// What the thread that writes shares with those that record.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) lanes: Lanes,
    pub(super) bell: Bell,
    pub(super) health: Health,
    pub(super) metrics: PredictionMetrics,
    /// The number of the last segment that was closed.
    pub(super) closed: watch::Sender<u64>,
    /// Until when all must be written, once the end has begun.
    pub(super) stop: Mutex<Option<Instant>>,
    /// When the oldest row came that the thread holds.
    pub(super) in_hand: Mutex<Option<Instant>>,
}

/// What keeps the writing from going on.
#[derive(Debug, Default)]
pub(super) struct Health {
    is_troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when, and what was told last.
    trouble: Option<(Instant, String)>,
    /// When the work began that is still going on.
    at_work: Option<Instant>,
    /// Why nothing may be written.
    held: Option<String>,
}

impl Health {
    /// Notes that nothing can be written, and tells it once.
    pub(super) fn fails(&self, now: Instant, text: &str) {
        let mut state = self.lock();
        state.at_work = None;
        let is_news = state.trouble.as_ref().is_none_or(|(_, known)| known != text);
        let since = state.trouble.as_ref().map_or(now, |(since, _)| *since);
        state.trouble = Some((since, text.to_owned()));
        self.is_troubled.store(true, Ordering::Relaxed);
        drop(state);
        if is_news {
            error!(cause = text, "the prediction log cannot be written: rows wait");
        }
    }

    /// Notes that everything is written.
    pub(super) fn works(&self, now: Instant) {
        if !self.is_troubled.load(Ordering::Relaxed) {
            return;
        }
        let trouble = self.lock().trouble.take();
        self.is_troubled.store(false, Ordering::Relaxed);
        if let Some((since, _)) = trouble {
            let after = now.saturating_duration_since(since);
            info!(?after, "the prediction log is written again");
        }
    }

    /// Whether what does not fit is lost because nothing is written.
    pub(super) fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::Relaxed)
    }

    pub(super) fn works_since(&self, now: Option<Instant>) {
        self.lock().at_work = now;
    }

    /// Whether nothing has been written for so long: the disk refused it for longer than
    /// `refused`, or one step has taken longer than `stalled`.
    pub(super) fn stands_still(&self, now: Instant, refused: Duration, stalled: Duration) -> bool {
        let state = self.lock();
        let has_lasted = |since: Option<Instant>, limit| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        };
        has_lasted(state.trouble.as_ref().map(|(since, _)| *since), refused)
            || has_lasted(state.at_work, stalled)
    }

    pub(super) fn hold(&self, why: Option<String>) {
        self.lock().held = why;
    }

    pub(super) fn held(&self) -> Option<String> {
        self.lock().held.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) fn stop_at(&self) -> Option<Instant> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, oldest: Option<Instant>) {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    /// When the oldest row came that is not written.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let in_hand = *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        in_hand.into_iter().chain(self.lanes.oldest()).min()
    }
}
