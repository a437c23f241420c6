//! Wakes the thread that writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Whoever rings does not wait, and rings once however many do.
#[derive(Debug, Default)]
pub(super) struct Bell {
    has_rung: AtomicBool,
    /// Whether the one that listens sleeps until somebody rings.
    is_asleep: AtomicBool,
    lock: Mutex<()>,
    ringing: Condvar,
}

impl Bell {
    /// There is something to do at once.
    pub(super) fn ring(&self) {
        if !self.has_rung.swap(true, Ordering::SeqCst) {
            // Between its look at the flag and its sleep the listener holds the lock.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.ringing.notify_one();
        }
    }

    /// There is something to do, in a while.
    pub(super) fn nudge(&self) {
        if self.is_asleep.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// Waits for a ring. With `limit` no longer than that; without, a nudge will do.
    pub(super) fn wait(&self, limit: Option<Duration>) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = |(): &mut ()| !self.has_rung.load(Ordering::SeqCst);
        match limit {
            Some(limit) => drop(self.ringing.wait_timeout_while(guard, limit, is_quiet)),
            None => drop(self.ringing.wait_while(guard, is_quiet)),
        }
        self.is_asleep.store(false, Ordering::SeqCst);
        self.has_rung.store(false, Ordering::SeqCst);
    }

    /// From now on a nudge rings. Whoever listens looks once more before it waits.
    pub(super) fn fall_asleep(&self) {
        self.is_asleep.store(true, Ordering::SeqCst);
    }
}
