//! What a run does over time: stages of callers that wait for their answers, or of calls that
//! arrive at a rate, each for a time or a number of calls.

use std::time::Duration;

use anyhow::ensure;

use crate::arrivals::{Arrivals, Ramp};

/// The most callers or calls in flight that one run may have.
const MOST_CALLERS: usize = 65_536;
/// The highest rate that one run may offer.
const HIGHEST_RATE: f64 = 10_000_000.0;

/// When a stage ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Time(Duration),
    Requests(u64),
    /// When it is told to.
    Stop,
}

/// What drives the calls of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Drive {
    /// Callers that each wait for an answer before they send again; their number may change
    /// along a straight line.
    Closed { from: usize, to: usize },
    /// Calls that are due whatever became of those before; so many may be in flight.
    Open { from: f64, to: f64, arrivals: Arrivals, bound: usize },
}

/// A part of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadStage {
    pub name: String,
    pub drive: Drive,
    pub limit: Limit,
    /// Its calls are sent and not counted.
    pub warm_up: bool,
}

// === impl Limit ===

impl Limit {
    /// How long it takes, where that is known beforehand.
    #[must_use]
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Time(duration) => Some(duration),
            Self::Requests(_) | Self::Stop => None,
        }
    }
}

// === impl Drive ===

impl Drive {
    /// The same callers all the time.
    #[must_use]
    pub const fn callers(number: usize) -> Self {
        Self::Closed { from: number, to: number }
    }

    /// The most calls in flight.
    #[must_use]
    pub fn most(&self) -> usize {
        match self {
            Self::Closed { from, to } => *from.max(to),
            Self::Open { bound, .. } => *bound,
        }
    }

    /// The rate over a stage of this length.
    #[must_use]
    pub fn ramp(&self, limit: Limit) -> Option<Ramp> {
        let Self::Open { from, to, .. } = self else { return None };
        let duration = limit.duration().unwrap_or(Duration::MAX);
        Some(Ramp { from: *from, to: *to, duration })
    }

    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Closed { from, to } if from == to => format!("{from} callers"),
            Self::Closed { from, to } => format!("{from} to {to} callers"),
            Self::Open { from, to, arrivals, bound } => {
                let rate = if (from - to).abs() > 0.0 {
                    format!("{from} to {to}")
                } else {
                    from.to_string()
                };
                format!("{rate} calls/s ({}), at most {bound} in flight", arrivals.name())
            }
        }
    }
}

// === impl LoadStage ===

impl LoadStage {
    /// Checks that its figures make sense together.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self) -> anyhow::Result<()> {
        let most = self.drive.most();
        ensure!(most > 0, "there must be a caller");
        ensure!(most <= MOST_CALLERS, "{most} callers are more than {MOST_CALLERS}");
        match self.limit {
            Limit::Time(duration) => ensure!(!duration.is_zero(), "the duration is 0"),
            Limit::Requests(count) => ensure!(count > 0, "there must be a request"),
            Limit::Stop => {}
        }
        let timed = matches!(self.limit, Limit::Time(_));
        match self.drive {
            Drive::Closed { from, to } => {
                ensure!(from == to || timed, "a ramp needs a duration");
            }
            Drive::Open { from, to, .. } => {
                let sound = |rate: f64| rate.is_finite() && (0.0..=HIGHEST_RATE).contains(&rate);
                ensure!(
                    sound(from) && sound(to) && from.max(to) > 0.0,
                    "a rate lies above 0 and at most at {HIGHEST_RATE} a second"
                );
                ensure!((from - to).abs() <= 0.0 || timed, "a ramp needs a duration");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(drive: Drive, limit: Limit) -> LoadStage {
        LoadStage { name: "s".to_owned(), drive, limit, warm_up: false }
    }

    fn open(from: f64, to: f64, bound: usize) -> Drive {
        Drive::Open { from, to, arrivals: Arrivals::Poisson, bound }
    }

    #[test]
    fn stages_that_make_no_sense_are_refused() {
        let second = Limit::Time(Duration::from_secs(1));
        for (drive, limit) in [
            (Drive::callers(0), second),
            (Drive::callers(100_000), second),
            (Drive::callers(1), Limit::Time(Duration::ZERO)),
            (Drive::callers(1), Limit::Requests(0)),
            (Drive::Closed { from: 1, to: 9 }, Limit::Requests(5)),
            (open(0.0, 0.0, 1), second),
            (open(f64::NAN, 1.0, 1), second),
            (open(-1.0, 1.0, 1), second),
            (open(1.0, 2.0, 1), Limit::Stop),
            (open(1.0, 1.0, 0), second),
        ] {
            let stage = stage(drive, limit);
            assert!(stage.check().is_err(), "{stage:?}");
        }
        assert!(stage(open(0.0, 5.0, 1), second).check().is_ok());
        assert!(stage(Drive::callers(1), Limit::Stop).check().is_ok());
    }

    #[test]
    fn drives_are_told_in_words() {
        assert_eq!(Drive::Closed { from: 1, to: 8 }.describe(), "1 to 8 callers");
        let words = open(100.0, 100.0, 64).describe();
        assert_eq!(words, "100 calls/s (poisson), at most 64 in flight");
    }
}
