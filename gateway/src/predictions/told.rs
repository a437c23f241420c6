//! Feedback on its way to the disk.

use std::ops::Range;
use std::sync::Arc;

use predlog::Feedback;
use predlog::segment::{Kind, frame};
use prost::Message;
use tokio::time::Instant;

use super::PredictionLog;
use super::notes::noted;
use super::recent::Recent;
use super::segments::wall_us;
use crate::error::Rejection;
use crate::tasks;

/// Predictions that are not taken in on a thread that answers calls: that would hold them up.
const MUCH: usize = 2048;

impl PredictionLog {
    /// Writes feedback, all of it together, and waits until it is written, as for a durable row.
    ///
    /// # Errors
    /// `Overloaded` when that is not done in time; it may be written later all the same.
    pub async fn commit_feedback(&self, all: &[Feedback]) -> Result<(), Rejection> {
        if all.is_empty() {
            return Ok(());
        }
        self.admit()?;
        let mut framed = Vec::new();
        for told in all {
            // It has at most a few kilobytes.
            let _fits = frame(Kind::Feedback, &mut framed, |out| {
                // A vector takes all that is written to it.
                let _written = told.encode(out);
            });
        }
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let until = Instant::now() + self.settings().commit_timeout;
        let lanes = &self.shared.lanes;
        self.commit(until, || lanes.push_feedback(&framed, count).map(|(ticket, _)| ticket)).await
    }

    /// Takes in what was predicted meanwhile; on a thread of its own where that is much.
    pub async fn catch_up(self: &Arc<Self>) {
        match self.recent() {
            Some(recent) if recent.behind() > MUCH => {
                let log = self.clone();
                tasks::blocking(move || log.recent().map(Recent::catch_up)).await;
            }
            Some(recent) => recent.catch_up(),
            None => {}
        }
    }

    /// Counts feedback that came before its prediction, if that has come since; called before
    /// metrics are rendered.
    pub async fn settle_early(self: &Arc<Self>) {
        if self.recent().is_some_and(Recent::has_early) {
            self.catch_up().await;
        }
    }

    /// Microseconds since 1970, UTC, as rows have their times.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        wall_us()
    }

    /// The id of a caller's request as rows have it; `None` where the log's rules keep none.
    #[must_use]
    pub fn kept_caller_id(&self, given: &str) -> Option<String> {
        let settings = self.settings();
        let mut kept = String::new();
        let Range { start, end } = noted(&mut kept, &settings.caller_id, Some(given));
        (start < end).then_some(kept)
    }
}
