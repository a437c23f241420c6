//! When the calls of an open loop are due: at even distances or at random, at a rate that may
//! climb or fall. Nothing that a server does moves these moments.

use std::time::Duration;

use crate::random::Random;

/// How calls arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Independent of each other, as from many people
    Poisson,
    /// At even distances
    Constant,
}

impl Arrivals {
    /// As on the command line and in scenarios.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Constant => "constant",
        }
    }
}

/// A rate over time, a second: from one to another, along a straight line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ramp {
    pub from: f64,
    pub to: f64,
    /// How long it takes; a rate that stays may go on for ever.
    pub duration: Duration,
}

/// The moments of calls, one after the other.
#[derive(Debug, Clone)]
pub struct Schedule {
    ramp: Ramp,
    arrivals: Arrivals,
    random: Random,
    /// How many calls the rate adds up to until the next one.
    position: f64,
    next: Option<Duration>,
}

// === impl Ramp ===

impl Ramp {
    /// The rate at a moment.
    #[must_use]
    pub fn rate(&self, moment: Duration) -> f64 {
        self.from + self.slope() * moment.min(self.duration).as_secs_f64()
    }

    /// When the rate has added up to so many calls; `None` when it does not within its time.
    #[must_use]
    pub fn moment(&self, calls: f64) -> Option<Duration> {
        // calls = from·t + slope·t²/2, solved in the form that is stable for small slopes.
        let root = (self.from * self.from + 2.0 * self.slope() * calls).sqrt();
        let seconds = if calls > 0.0 { 2.0 * calls / (self.from + root) } else { 0.0 };
        let moment = Duration::try_from_secs_f64(seconds).ok()?;
        (moment < self.duration).then_some(moment)
    }

    fn slope(&self) -> f64 {
        // A rate that stays is exact, whatever the duration.
        let climb = self.to - self.from;
        if climb.abs() > 0.0 { climb / self.duration.as_secs_f64() } else { 0.0 }
    }
}

// === impl Schedule ===

impl Schedule {
    /// The calls of one of several threads, which share the rate evenly: `share` of it, shifted
    /// by a `phase` from 0 to 1 so that even distances stay even over all threads.
    #[must_use]
    pub fn new(ramp: Ramp, arrivals: Arrivals, (share, phase): (f64, f64), seed: u64) -> Self {
        let ramp = Ramp { from: ramp.from * share, to: ramp.to * share, ..ramp };
        let mut random = Random::new(seed);
        let position = match arrivals {
            Arrivals::Constant => phase,
            Arrivals::Poisson => random.exponential(),
        };
        let next = ramp.moment(position);
        Self { ramp, arrivals, random, position, next }
    }

    /// When the next call is due, from the start; `None` after the last.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Goes on to the call after the next.
    pub fn advance(&mut self) {
        self.position += match self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => self.random.exponential(),
        };
        self.next = self.ramp.moment(self.position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(ramp: Ramp, arrivals: Arrivals, share: (f64, f64)) -> Vec<f64> {
        let mut schedule = Schedule::new(ramp, arrivals, share, 3);
        let mut moments = Vec::new();
        while let Some(moment) = schedule.next() {
            moments.push(moment.as_secs_f64());
            schedule.advance();
        }
        moments
    }

    fn steady(rate: f64, seconds: u64) -> Ramp {
        Ramp { from: rate, to: rate, duration: Duration::from_secs(seconds) }
    }

    #[test]
    fn constant_arrivals_keep_even_distances() {
        let moments = moments(steady(200.0, 10), Arrivals::Constant, (1.0, 0.0));
        assert_eq!(moments.len(), 2000);
        for pair in moments.windows(2) {
            assert!((pair[1] - pair[0] - 0.005).abs() < 1e-8, "{pair:?}");
        }
    }

    #[test]
    fn threads_share_even_distances() {
        let mut all = moments(steady(100.0, 1), Arrivals::Constant, (0.5, 0.0));
        all.extend(moments(steady(100.0, 1), Arrivals::Constant, (0.5, 0.5)));
        all.sort_by(f64::total_cmp);
        assert_eq!(all.len(), 100);
        assert!(all.windows(2).all(|pair| (pair[1] - pair[0] - 0.01).abs() < 1e-8));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_chance() {
        let moments = moments(steady(1000.0, 50), Arrivals::Poisson, (1.0, 0.0));
        // The number of arrivals has the variance of its mean: five deviations are 1118.
        assert!(moments.len().abs_diff(50_000) < 1118, "{}", moments.len());
        let waits: Vec<f64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        #[expect(clippy::cast_precision_loss, reason = "a test's mean")]
        let count = waits.len() as f64;
        let mean = waits.iter().sum::<f64>() / count;
        let deviation = (waits.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / count).sqrt();
        assert!((deviation / mean - 1.0).abs() < 0.03, "{deviation} of {mean}");
        // Of independent waits as many as e^-2 are longer than twice the mean.
        let long = waits.iter().filter(|wait| **wait > 2.0 * mean).count();
        #[expect(clippy::cast_precision_loss, reason = "a test's share")]
        let share = long as f64 / count;
        assert!((share - (-2.0_f64).exp()).abs() < 0.01, "{share}");
    }

    #[test]
    fn a_ramp_adds_up_to_the_area_below_it() {
        let ramp = Ramp { from: 100.0, to: 300.0, duration: Duration::from_secs(10) };
        let moments = moments(ramp, Arrivals::Constant, (1.0, 0.0));
        assert_eq!(moments.len(), 2000);
        // Half of the time holds 100·5 + 20·25/2 = 750 calls.
        assert_eq!(moments.iter().filter(|moment| **moment < 5.0).count(), 750);
        assert!((ramp.rate(Duration::from_secs(5)) - 200.0).abs() < 1e-9);
    }

    #[test]
    fn a_rate_may_fall_to_nothing() {
        let ramp = Ramp { from: 100.0, to: 0.0, duration: Duration::from_secs(2) };
        let moments = moments(ramp, Arrivals::Constant, (1.0, 0.0));
        assert!((99..=100).contains(&moments.len()), "{}", moments.len());
    }
}
