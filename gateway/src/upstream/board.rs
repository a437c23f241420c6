//! Which endpoint gets the next call: what is known about each, without clock, lock or socket.
//!
//! Of two endpoints drawn at random the one with the smaller expected time × (calls under way + 1)
//! gets the call (power of two choices). Endpoints that fail one call after the other are ejected
//! for a while, as Envoy's outlier detection does; those that say they are not well are left out
//! until they are.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::latency::Latency;
use crate::config::{Ejection, HealthCheck};

/// Times of ejections vary by this part in both directions.
const JITTER: f64 = 0.2;
/// A call that was given up after so long…
const HANGS_AFTER: Duration = Duration::from_secs(1);
/// …and so many times the usual time says something about the endpoint, not about its caller.
const HANGS_TIMES: u32 = 10;

/// How an attempt ended, as far as the endpoint is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Answered,
    Failed,
    /// It failed this call, which says nothing about others: no reason for an ejection.
    Faulted,
    /// It has had enough; others may not.
    Throttled,
    /// The caller was to blame: says nothing.
    Neutral,
    /// The caller left, or its deadline passed.
    GivenUp,
}

impl Verdict {
    /// Its place among the results of attempts that are counted.
    pub(super) const fn result(self) -> usize {
        match self {
            Self::Answered => 0,
            Self::Failed | Self::Faulted => 1,
            Self::Throttled => 2,
            Self::Neutral => 3,
            Self::GivenUp => 4,
        }
    }
}

/// Two numbers from 0 up to 1, at random.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dice(pub(super) f64, pub(super) f64);

impl Dice {
    pub(super) fn roll() -> Self {
        Self(fastrand::f64(), fastrand::f64())
    }
}

/// What holds for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    Ready,
    /// Its health checks fail.
    Unhealthy,
    /// Its calls failed.
    Ejected,
}

impl EndpointState {
    pub(super) const ALL: [Self; 3] = [Self::Ready, Self::Unhealthy, Self::Ejected];

    /// The value of the `state` label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
        }
    }
}

/// What is known about one endpoint.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) in_flight: usize,
    pub(super) latency: Latency,
    pub(super) attempts: u64,
    pub(super) failures: u64,
    /// Failures in a row.
    pub(super) consecutive: u32,
    /// Ejections in a row.
    pub(super) ejections: u32,
    /// End of the last ejection.
    pub(super) until: Option<Instant>,
    is_unhealthy: bool,
    /// Health checks in a row that contradict `is_unhealthy`.
    contrary: u32,
    was_checked: bool,
    /// What the last failed health check said.
    pub(super) trouble: Option<String>,
}

/// What is known about all endpoints of an upstream.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) seats: Vec<Seat>,
    ejection: Ejection,
    health: HealthCheck,
}

impl Seat {
    pub(super) fn state(&self, now: Instant) -> EndpointState {
        match (self.is_unhealthy, self.until) {
            (true, _) => EndpointState::Unhealthy,
            (false, Some(until)) if now < until => EndpointState::Ejected,
            _ => EndpointState::Ready,
        }
    }

    /// Whether a call that its caller gave up says that the endpoint hangs.
    fn hangs(&self, took: Duration) -> bool {
        let limit = self.latency.usual().map(|usual| usual.saturating_mul(HANGS_TIMES));
        limit.is_some_and(|limit| took >= limit.max(HANGS_AFTER))
    }
}

impl Board {
    pub(super) fn new(endpoints: usize, ejection: Ejection, health: HealthCheck) -> Self {
        Self { seats: (0..endpoints).map(|_| Seat::default()).collect(), ejection, health }
    }

    /// The endpoint for a call: `fits` says which serve its model. An ejection is a guess, so
    /// ejected ones are better than none; unhealthy ones have said so themselves.
    pub(super) fn pick(
        &self,
        now: Instant,
        fits: impl Fn(usize) -> bool,
        dice: Dice,
    ) -> Option<usize> {
        let with = |state| {
            self.draw(now, |index| fits(index) && self.seats[index].state(now) == state, dice)
        };
        with(EndpointState::Ready).or_else(|| with(EndpointState::Ejected))
    }

    fn draw(&self, now: Instant, fits: impl Fn(usize) -> bool, dice: Dice) -> Option<usize> {
        let candidates = || (0..self.seats.len()).filter(|&index| fits(index));
        let count = candidates().count();
        let first = place(dice.0, count)?;
        let Some(mut second) = place(dice.1, count - 1) else { return candidates().next() };
        second += usize::from(second >= first);
        let (first, second) = (candidates().nth(first)?, candidates().nth(second)?);
        Some(if self.is_better(second, first, now) { second } else { first })
    }

    #[expect(clippy::cast_precision_loss, reason = "calls under way are few")]
    fn is_better(&self, one: usize, other: usize, now: Instant) -> bool {
        let (one, other) = (&self.seats[one], &self.seats[other]);
        let calls = |seat: &Seat| (seat.in_flight + 1) as f64;
        match (one.latency.expected(now), other.latency.expected(now)) {
            (Some(time), Some(other_time)) => time * calls(one) < other_time * calls(other),
            // A time that nobody knows is as good as the other one's.
            _ => calls(one) < calls(other),
        }
    }

    /// A call goes to an endpoint.
    pub(super) fn begin(&mut self, index: usize) {
        let seat = &mut self.seats[index];
        seat.in_flight += 1;
        seat.attempts += 1;
    }

    /// A call has ended; returns for how long its endpoint is ejected, if it is now.
    pub(super) fn end(
        &mut self,
        index: usize,
        started: Instant,
        now: Instant,
        verdict: Verdict,
    ) -> Option<Duration> {
        let took = now.saturating_duration_since(started);
        let time = self.ejection.time;
        let seat = &mut self.seats[index];
        seat.in_flight -= 1;
        let hangs = verdict == Verdict::GivenUp && seat.hangs(took);
        // What began before the end of an ejection is part of why there was one.
        let is_old = seat.until.is_some_and(|until| started < until);
        match verdict {
            Verdict::Answered => seat.latency.answered(now, took),
            Verdict::Failed if is_old => {}
            Verdict::Failed | Verdict::Faulted | Verdict::Throttled => {
                seat.latency.failed(now, took);
            }
            Verdict::GivenUp => seat.latency.waited(now, took),
            Verdict::Neutral => {}
        }
        seat.failures += u64::from(matches!(verdict, Verdict::Failed | Verdict::Faulted) || hangs);
        if is_old {
            return None;
        }
        if verdict == Verdict::Answered {
            seat.consecutive = 0;
            if seat.until.is_some_and(|until| now >= until + time) {
                seat.ejections = 0;
            }
        } else if verdict == Verdict::Failed || hangs {
            seat.consecutive = seat.consecutive.saturating_add(1);
            // An endpoint that comes back has one call to show that it is well again.
            if seat.consecutive >= self.ejection.consecutive && self.may_eject(index, now) {
                return Some(self.eject(index, now, fastrand::f64()));
            }
        }
        None
    }

    /// Whether so many may be out, those included that say they are not well.
    fn may_eject(&self, index: usize, now: Instant) -> bool {
        let others = self.seats.iter().enumerate().filter(|(other, _)| *other != index);
        let out = others.filter(|(_, seat)| seat.state(now) != EndpointState::Ready).count() + 1;
        #[expect(clippy::cast_precision_loss, reason = "endpoints are few")]
        let (out_part, all) = (out as f64, self.seats.len() as f64);
        out < self.seats.len() && out_part <= self.ejection.max_part * all + 1e-9
    }

    /// Time × ejections in a row, spread so that endpoints do not come back together, and never
    /// beyond the longest.
    fn eject(&mut self, index: usize, now: Instant, random: f64) -> Duration {
        let Ejection { time, max_time, .. } = self.ejection;
        let seat = &mut self.seats[index];
        seat.ejections = seat.ejections.saturating_add(1);
        let middle = time.saturating_mul(seat.ejections).min(max_time.div_f64(1.0 + JITTER));
        let time = middle.mul_f64(1.0 - JITTER + 2.0 * JITTER * random);
        seat.until = Some(now + time);
        // Its failures count as long times, which would keep it out for longer than is said here.
        seat.latency.forget();
        time
    }

    /// A health check has ended; returns whether that changes what holds.
    pub(super) fn checked(&mut self, index: usize, result: Result<(), String>) -> bool {
        let seat = &mut self.seats[index];
        let needed = match (result.is_ok(), seat.was_checked) {
            // The first check decides: nothing was known before.
            (_, false) => 1,
            (true, _) => self.health.healthy_after,
            (false, _) => self.health.unhealthy_after,
        };
        seat.was_checked = true;
        let is_contrary = result.is_ok() == seat.is_unhealthy;
        if let Err(trouble) = result {
            seat.trouble = Some(trouble);
        }
        seat.contrary = if is_contrary { seat.contrary + 1 } else { 0 };
        let changes = seat.contrary >= needed.max(1);
        if changes {
            seat.is_unhealthy = !seat.is_unhealthy;
            seat.contrary = 0;
            seat.latency.forget();
        }
        if !seat.is_unhealthy && seat.contrary == 0 {
            seat.trouble = None;
        }
        changes
    }

    /// How many endpoints are in each state.
    pub(super) fn counts(&self, now: Instant) -> [usize; EndpointState::ALL.len()] {
        EndpointState::ALL
            .map(|state| self.seats.iter().filter(|seat| seat.state(now) == state).count())
    }
}

/// One of `count` places by a number from 0 up to 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "endpoints are few, and a part of their number is no more than it"
)]
fn place(random: f64, count: usize) -> Option<usize> {
    (count > 0).then(|| ((random * count as f64) as usize).min(count - 1))
}

#[cfg(test)]
mod tests;
