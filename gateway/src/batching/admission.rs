//! Who gets into a queue, and who has to give way.

use std::sync::Arc;
use std::time::Duration;

use engine::Tensor;
use tokio::time::Instant;

use super::job::Rank;
use super::load::{Full, Load, Place};
use super::queue::Shared;
use crate::error::{Kind, Rejection};
use crate::types::Schedule;

impl Shared {
    /// Refuses a call whose answer would come after its deadline.
    pub(super) fn refuse_late(
        &self,
        rows: usize,
        schedule: Schedule,
        now: Instant,
    ) -> Result<(), Rejection> {
        let Some(deadline) = schedule.deadline else { return Ok(()) };
        let run = self.load.row_time() * u32::try_from(rows).unwrap_or(u32::MAX);
        let wait = self.pool.wait();
        if now + wait + run <= deadline.0 {
            return Ok(());
        }
        self.metrics.refused_late.increment(1);
        let text = format!(
            "{} would answer after the deadline: {wait:.1?} of work stand before the call",
            self.settings.label
        );
        Err(Rejection::new(Kind::DeadlineExceeded, text).with_retry_after(self.retry_after()))
    }

    /// Takes room for a call or says what is full.
    pub(super) fn admit(
        self: &Arc<Self>,
        inputs: &[Tensor],
        rows: usize,
        schedule: Schedule,
    ) -> Result<Place, Rejection> {
        let bytes = inputs.iter().map(|tensor| tensor.data().len()).sum();
        let bounds = (self.settings.max_rows, self.settings.max_bytes);
        let rank = Rank::new(schedule.shadow, self.level(schedule));
        let mut taken = Load::take(&self.load, rows, bytes, bounds);
        if taken.is_err() && self.load.may_have_behind(rank.index()) {
            self.pool.displace(self, rank, || self.load.fits(rows, bytes, bounds));
            taken = Load::take(&self.load, rows, bytes, bounds);
        }
        taken.map_err(|full| {
            let what = match full {
                Full::Rows => "too many items wait",
                Full::Bytes => "too many bytes wait",
            };
            let text = format!("the queue of {} is full: {what}", self.settings.label);
            Rejection::new(Kind::Overloaded, text).with_retry_after(self.retry_after())
        })
    }

    pub(super) fn level(&self, schedule: Schedule) -> u8 {
        schedule.priority.unwrap_or(self.settings.priority).level()
    }

    /// When what waits now will have run, in whole seconds as HTTP says them.
    pub(super) fn retry_after(&self) -> Duration {
        Duration::from_secs(self.pool.wait().as_secs().saturating_add(1).min(60))
    }
}
