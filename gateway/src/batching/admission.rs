//! Who gets into a queue, and who has to give way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::Tensor;
use tokio::time::Instant;

use super::job::{RANKS, Rank};
use super::load::{Full, Load, Place};
use super::queue::Shared;
use crate::error::{Kind, Rejection};
use crate::telemetry::Shed;
use crate::types::Schedule;

/// How long calls of each rank stand in the queue, in nanoseconds: written by whoever takes a batch,
/// read by whoever brings a call.
#[derive(Debug, Default)]
pub(super) struct Standing([AtomicU64; RANKS]);

impl Standing {
    pub(super) fn set(&self, delays: &[Duration; RANKS]) {
        for (slot, delay) in self.0.iter().zip(delays) {
            let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
            slot.store(nanos, Ordering::Relaxed);
        }
    }

    fn of(&self, rank: Rank) -> Duration {
        Duration::from_nanos(self.0[rank.index()].load(Ordering::Relaxed))
    }
}

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

    /// Takes room for a call or says why there is none.
    pub(super) fn admit(
        self: &Arc<Self>,
        inputs: &[Tensor],
        rows: usize,
        (schedule, now): (Schedule, Instant),
    ) -> Result<Place, Rejection> {
        let bytes = inputs.iter().map(|tensor| tensor.data().len()).sum();
        let bounds = (self.settings.max_rows, self.settings.max_bytes);
        let rank = Rank::new(schedule.shadow, self.level(schedule));
        self.check_delay(rank, schedule, now)?;
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
            self.metrics.shed(Shed::Full, rank.class());
            let text = format!("the queue of {} is full: {what}", self.settings.label);
            Rejection::new(Kind::Overloaded, text).with_retry_after(self.retry_after())
        })
    }

    /// Refuses a call that would stand in the queue for too large a part of its time. Whoever
    /// comes last and is the least urgent stands longest, so those are refused first.
    fn check_delay(&self, rank: Rank, schedule: Schedule, now: Instant) -> Result<(), Rejection> {
        let (Some(shedding), Some(deadline)) = (self.settings.shedding, schedule.deadline) else {
            return Ok(());
        };
        let delay = self.standing.of(rank);
        // What stood there before an empty queue stands no more.
        if delay <= shedding.target || self.load.calls() == 0 {
            return Ok(());
        }
        let left = deadline.0.saturating_duration_since(now);
        if delay <= shedding.allowance(left, self.load.batch_time()) {
            return Ok(());
        }
        self.metrics.shed(Shed::Delay, rank.class());
        let text = format!(
            "{} is overloaded: calls of this priority wait for {delay:.1?}",
            self.settings.label
        );
        Err(Rejection::new(Kind::Overloaded, text).with_retry_after(self.retry_after()))
    }

    /// How long the least urgent calls stand in the queue.
    pub(super) fn delay(&self) -> Duration {
        if self.load.calls() == 0 { Duration::ZERO } else { self.standing.of(Rank::SHADOW) }
    }

    pub(super) fn level(&self, schedule: Schedule) -> u8 {
        schedule.priority.unwrap_or(self.settings.priority).level()
    }

    /// When what waits now will have run, in whole seconds as HTTP says them.
    pub(super) fn retry_after(&self) -> Duration {
        Duration::from_secs(self.pool.wait().as_secs().saturating_add(1).min(60))
    }
}
