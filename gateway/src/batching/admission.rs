//! Who gets into a queue, and who has to give way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use engine::Tensor;
use tokio::time::Instant;

use super::job::{RANKS, Rank};
use super::load::{Full, Load, Place};
use super::queue::Shared;
use super::side::Side;
use crate::error::{Kind, Rejection};
use crate::overload::delay::View;
use crate::telemetry::Shed;
use crate::types::Schedule;

/// How the queue stands, as whoever took a batch last saw it, for whoever brings a call.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// In nanoseconds.
    delays: [AtomicU64; RANKS],
    /// A bit for each rank whose queue stands.
    stands: AtomicUsize,
    /// Nanoseconds in which the queue drains by one item.
    drain: AtomicU64,
}

impl Standing {
    pub(super) fn set(&self, view: &View<RANKS>) {
        for (slot, delay) in self.delays.iter().zip(&view.standing) {
            slot.store(nanos(*delay), Ordering::Relaxed);
        }
        let bits =
            view.stands.iter().rev().fold(0, |bits, &stands| bits << 1 | usize::from(stands));
        self.stands.store(bits, Ordering::Relaxed);
        self.drain.store(nanos(view.drain), Ordering::Relaxed);
    }

    fn stands(&self, rank: Rank) -> bool {
        self.stands.load(Ordering::Relaxed) >> rank.index() & 1 == 1
    }

    fn delay(&self, rank: Rank) -> Duration {
        Duration::from_nanos(self.delays[rank.index()].load(Ordering::Relaxed))
    }

    /// How long so many items take to drain.
    fn drains(&self, rows: usize) -> Duration {
        let row = self.drain.load(Ordering::Relaxed);
        Duration::from_nanos(row.saturating_mul(rows as u64))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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
        let side = self.pool.side(schedule.shadow);
        let load = self.load(side);
        if side == Side::Live {
            self.check_delay(rank, schedule, now)?;
        }
        let mut taken = Load::take(load, rows, bytes, bounds);
        // Shadows among themselves give way to nobody.
        if taken.is_err() && load.may_have_behind(rank.index()) {
            self.pool.displace(self, rank, || load.fits(rows, bytes, bounds));
            taken = Load::take(load, rows, bytes, bounds);
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
        // What stood there before an empty queue stands no more.
        let rows = self.load.rows();
        if rows == 0 || !self.standing.stands(rank) {
            return Ok(());
        }
        let delay = self.standing.delay(rank).max(self.standing.drains(rows));
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
        if self.load.calls() == 0 { Duration::ZERO } else { self.standing.delay(Rank::SHADOW) }
    }

    pub(super) fn level(&self, schedule: Schedule) -> u8 {
        schedule.priority.unwrap_or(self.settings.priority).level()
    }

    /// When what waits now will have run, in whole seconds as HTTP says them.
    pub(super) fn retry_after(&self) -> Duration {
        Duration::from_secs(self.pool.wait().as_secs().saturating_add(1).min(60))
    }
}
