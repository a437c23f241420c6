//! When the file is looked at, and when a change of it counts.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::{Asked, Hints, Reloader, Text};

/// How patiently a file is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often it is looked at without any hint.
    pub poll: Duration,
    /// A change counts once nothing has happened for so long.
    pub settle: Duration,
    /// A file that never settles is taken as it is after so long.
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
    /// copying programs write in several steps. What could not be applied is tried again with
    /// every poll, for what it needs may come, but is told again only when the problem is another.
    pub async fn follow(&self, mut hints: Hints, timing: Timing) -> Infallible {
        let mut polls = interval(timing.poll);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_poll = tokio::select! {
                _ = polls.tick() => true,
                () = hints.next() => false,
            };
            // Aimed before each look: what happens after it is heard.
            hints.aim().await;
            let found = self.look().await;
            match self.has_tried(&found) {
                Some(false) if is_poll => drop(self.take(found, &Asked::by_file()).await),
                // Others may be busy in the same folder: it is looked at so often at most.
                Some(_) => sleep(timing.settle).await,
                None => {
                    let settled = self.settle(found, &mut hints, timing).await;
                    if self.has_tried(&settled).is_none() {
                        drop(self.take(settled, &Asked::by_file()).await);
                    }
                }
            }
        }
    }

    /// Waits until a text is there to stay, or until it has been waited for too long.
    async fn settle(&self, mut found: Text, hints: &mut Hints, timing: Timing) -> Text {
        let until = Instant::now() + timing.limit;
        loop {
            let was_quiet = timeout(timing.settle, hints.next()).await.is_err();
            let is_late = Instant::now() >= until;
            if !was_quiet && !is_late {
                continue;
            }
            hints.aim().await;
            let next = self.look().await;
            if is_late || next == found {
                return next;
            }
            found = next;
        }
    }
}
