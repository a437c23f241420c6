//! When the file is looked at, and when a change of it counts.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::warn;

use super::{Hints, Reloader, Text};

/// What could not be applied is tried again after so long, then after twice that, and so on.
const FIRST_RETRY: Duration = Duration::from_secs(5 * 60);
const LAST_RETRY: Duration = Duration::from_secs(3600);

/// How patiently a file is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often it is looked at without any hint.
    pub poll: Duration,
    /// A change counts once nothing has happened for so long.
    pub settle: Duration,
    /// After so long it need not be quiet, as long as it stays the same from look to look.
    pub limit: Duration,
}

impl Timing {
    /// The usual patience with a file that is polled so often.
    #[must_use]
    pub fn polling(poll: Duration) -> Self {
        Self { poll, settle: Duration::from_millis(500), limit: Duration::from_secs(5) }
    }
}

impl Reloader {
    /// Applies what the file says whenever it has changed; for ever.
    ///
    /// A text counts once two looks have found it with nothing happening in between: editors and
    /// copying programs write in several steps. What could not be applied is tried again now and
    /// then, for what it needs may come, but is told again only when the problem is another.
    pub async fn follow(&self, mut hints: Hints, timing: Timing) -> Infallible {
        let mut polls = interval(timing.poll);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = Retry::default();
        loop {
            let is_poll = tokio::select! {
                _ = polls.tick() => true,
                () = hints.next() => false,
            };
            // Aimed before each look: what happens after it is heard.
            hints.aim().await;
            let found = self.look().await;
            match self.has_tried(&found) {
                Some(false) if is_poll && retry.is_due() => self.take_found(found).await,
                // Others may be busy in the same folder: it is looked at so often at most.
                Some(_) => sleep(timing.settle).await,
                None => {
                    let settled = self.settle(found, &mut hints, timing).await;
                    if self.has_tried(&settled).is_none() {
                        self.take_found(settled).await;
                        retry = Retry::default();
                    }
                }
            }
        }
    }

    /// Waits until two looks in a row have found the same: with nothing happening in between, or
    /// with some time in between where it never stops.
    async fn settle(&self, mut found: Text, hints: &mut Hints, timing: Timing) -> Text {
        let until = Instant::now() + timing.limit;
        let mut was_told = false;
        loop {
            if Instant::now() >= until {
                sleep(timing.settle).await;
            } else if timeout(timing.settle, hints.next()).await.is_ok() {
                continue;
            }
            hints.aim().await;
            let next = self.look().await;
            if next == found {
                return next;
            }
            found = next;
            if Instant::now() >= until && !was_told {
                was_told = true;
                let path = self.path().display();
                warn!(%path, "the file keeps changing: it counts once it stays as it is");
            }
        }
    }
}

/// When what could not be applied is tried again.
#[derive(Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { at: Instant::now() + FIRST_RETRY, pause: FIRST_RETRY }
    }
}

impl Retry {
    /// Whether it is time; then the next time is later.
    fn is_due(&mut self) -> bool {
        let is_due = Instant::now() >= self.at;
        if is_due {
            self.pause = (2 * self.pause).min(LAST_RETRY);
            self.at = Instant::now() + self.pause;
        }
        is_due
    }
}
