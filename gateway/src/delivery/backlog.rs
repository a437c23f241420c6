//! Closed segments that wait to be converted: which there are, and who works on which.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// First and longest pause before a segment that could not be converted is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The closed segments of a folder. There are as many as the disk has.
#[derive(Debug)]
pub(super) struct Backlog {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    is_over: bool,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    closed: SystemTime,
    /// When this process first saw it.
    seen: Instant,
    is_claimed: bool,
    failures: u32,
    not_before: Option<Instant>,
}

/// A segment that one thread works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

impl Backlog {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, state: Mutex::default(), changed: Condvar::new() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees what is new and what is gone. Nobody waits for the disk meanwhile.
    pub(super) fn look(&self) -> io::Result<()> {
        let listed: BTreeMap<u64, PathBuf> =
            predlog::segment::list(&self.folder)?.into_iter().collect();
        let new = listed.iter().filter(|(number, _)| !self.holds(**number));
        let seen = Instant::now();
        let mut found = vec![];
        for (number, path) in new {
            let closed = match path.metadata() {
                Ok(about) => about.modified()?,
                // Another thread was done with it since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let (is_claimed, failures, not_before) = (false, 0, None);
            let path = path.clone();
            found.push((*number, Segment { path, closed, seen, is_claimed, failures, not_before }));
        }
        let mut state = self.state();
        state.segments.retain(|number, segment| segment.is_claimed || listed.contains_key(number));
        for (number, segment) in found {
            state.segments.entry(number).or_insert(segment);
        }
        Ok(())
    }

    /// The oldest segment that nobody works on and that has waited for at least `patience` since
    /// it was first seen.
    pub(super) fn claim(&self, patience: Duration) -> Option<Claim> {
        let now = Instant::now();
        let mut state = self.state();
        let (number, segment) = state.segments.iter_mut().find(|(_, segment)| {
            !segment.is_claimed
                && segment.not_before.is_none_or(|time| time <= now)
                && now.duration_since(segment.seen) >= patience
        })?;
        segment.is_claimed = true;
        Some(Claim { number: *number, path: segment.path.clone() })
    }

    /// The segment is gone.
    pub(super) fn done(&self, claim: &Claim) {
        self.state().segments.remove(&claim.number);
    }

    /// The segment stays, and waits for a while; returns for how long.
    pub(super) fn failed(&self, claim: &Claim) -> Duration {
        let mut state = self.state();
        let Some(segment) = state.segments.get_mut(&claim.number) else { return FIRST_PAUSE };
        let factor = 1_u32.checked_shl(segment.failures).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
        segment.failures = segment.failures.saturating_add(1).min(16);
        segment.not_before = Some(Instant::now() + pause);
        segment.is_claimed = false;
        pause
    }

    /// Whether a segment of this number is still there.
    pub(super) fn holds(&self, number: u64) -> bool {
        self.state().segments.contains_key(&number)
    }

    /// How many wait or are worked on, and when the oldest of them was closed.
    pub(super) fn figures(&self) -> (usize, Option<SystemTime>) {
        let state = self.state();
        (state.segments.len(), state.segments.values().map(|segment| segment.closed).min())
    }

    /// Waits for [`wake`](Self::wake), at most for `limit`; `false` when it is over.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let state = self.state();
        if state.is_over {
            return false;
        }
        let waited = self.changed.wait_timeout(state, limit);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// Has everybody look at once.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Lets everybody who waits end.
    pub(super) fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }
}
