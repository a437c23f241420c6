//! Says when the next call goes out. It reads no clock and holds no socket: time is an argument.
//!
//! In an open loop a call is due at its moment, whatever the server does; one that cannot go out
//! then goes out late and keeps its moment, from which its latency counts. So a stall of the
//! server shows in every call that was due meanwhile (no coordinated omission).

use std::collections::VecDeque;
use std::time::Duration;

use crate::arrivals::Schedule;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Send a call that was due at this moment, from the start of the stage.
    Send(Duration),
    /// Nothing before this moment; `None`: before an answer.
    Wait(Option<Duration>),
}

/// The pace of one stage on one thread.
#[derive(Debug)]
pub enum Pacer {
    Closed(Closed),
    Open(Open),
}

/// Callers that wait for their answers.
#[derive(Debug)]
pub struct Closed {
    from: usize,
    to: usize,
    duration: Duration,
    /// Until when callers pause after a failure, in order.
    resting: VecDeque<Duration>,
}

/// Calls that are due.
#[derive(Debug)]
pub struct Open {
    schedule: Schedule,
    bound: usize,
    /// A call that could not go out for so long is given up.
    patience: Duration,
    dropped: u64,
}

// === impl Pacer ===

impl Pacer {
    /// What to do at a moment of the stage with so many calls in flight.
    pub fn turn(&mut self, now: Duration, in_flight: usize) -> Turn {
        match self {
            Self::Closed(closed) => closed.turn(now, in_flight),
            Self::Open(open) => open.turn(now, in_flight),
        }
    }

    /// A call failed: its caller pauses until this moment, so that a dead server is not hammered.
    /// An open loop goes on regardless.
    pub fn pause(&mut self, until: Duration) {
        if let Self::Closed(closed) = self {
            closed.resting.push_back(until);
        }
    }

    /// Calls that were due before the end and never sent.
    pub fn unsent(self, end: Duration) -> u64 {
        let Self::Open(mut open) = self else { return 0 };
        while open.schedule.next().is_some_and(|due| due < end) {
            open.dropped += 1;
            open.schedule.advance();
        }
        open.dropped
    }
}

// === impl Closed ===

impl Closed {
    /// Callers from one number to another over a time.
    #[must_use]
    pub fn new(from: usize, to: usize, duration: Duration) -> Self {
        Self { from, to, duration, resting: VecDeque::new() }
    }

    fn turn(&mut self, now: Duration, in_flight: usize) -> Turn {
        while self.resting.front().is_some_and(|until| *until <= now) {
            self.resting.pop_front();
        }
        if in_flight + self.resting.len() < self.callers(now) {
            return Turn::Send(now);
        }
        let rested = self.resting.front().copied();
        let joined = self.next_caller(now);
        Turn::Wait(rested.into_iter().chain(joined).min())
    }

    /// How many there are at a moment.
    #[expect(clippy::cast_possible_truncation, reason = "between two numbers of callers")]
    #[expect(clippy::cast_sign_loss, reason = "between two numbers of callers")]
    #[expect(clippy::cast_precision_loss, reason = "callers are far below 2^53")]
    fn callers(&self, now: Duration) -> usize {
        if self.from == self.to {
            return self.from;
        }
        let part = (now.as_secs_f64() / self.duration.as_secs_f64()).min(1.0);
        (self.from as f64 + (self.to as f64 - self.from as f64) * part).round() as usize
    }

    /// When the next one joins.
    #[expect(clippy::cast_precision_loss, reason = "callers are far below 2^53")]
    fn next_caller(&self, now: Duration) -> Option<Duration> {
        if self.to <= self.from {
            return None;
        }
        let next = self.callers(now) as f64 + 0.5;
        let part = (next - self.from as f64) / (self.to - self.from) as f64;
        let moment = self.duration.mul_f64(part);
        (moment < self.duration).then_some(moment + Duration::from_micros(1))
    }
}

// === impl Open ===

impl Open {
    #[must_use]
    pub fn new(schedule: Schedule, bound: usize, patience: Duration) -> Self {
        Self { schedule, bound, patience, dropped: 0 }
    }

    fn turn(&mut self, now: Duration, in_flight: usize) -> Turn {
        loop {
            let Some(due) = self.schedule.next() else { return Turn::Wait(None) };
            if due > now {
                return Turn::Wait(Some(due));
            }
            if now - due > self.patience {
                self.dropped += 1;
                self.schedule.advance();
                continue;
            }
            if in_flight >= self.bound {
                return Turn::Wait(None);
            }
            self.schedule.advance();
            return Turn::Send(due);
        }
    }
}

#[cfg(test)]
mod tests;
