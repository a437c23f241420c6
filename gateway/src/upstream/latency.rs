//! How long an endpoint takes: the peak of what was measured, fading.
//!
//! Peak-EWMA with a penalty for failures, as Finagle and Linkerd weigh endpoints: an answer that is
//! slower than expected counts at once, a faster one little by little; and whoever fails fast does
//! not look fast. The penalty stands beside the times and is over after a second: as one of them it
//! would keep an endpoint that answers within a millisecond out for more than a minute. Those that
//! go on failing are ejected.

use std::time::Duration;

use tokio::time::Instant;

/// What was measured so long ago has faded to 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// What a failure counts as at first, in seconds, however fast it was…
const PENALTY: f64 = 5.0;
/// …and how long it takes to count for nothing.
const FORGIVEN: Duration = Duration::from_secs(1);
/// Part of a new answer in the usual time.
const NEWEST: f64 = 0.1;

/// What is known about the time of one endpoint's answers.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// Seconds, as they were at the time.
    peak: Option<(f64, Instant)>,
    /// Seconds that answers usually take.
    usual: Option<f64>,
    /// The last failure.
    failed: Option<Instant>,
}

impl Latency {
    /// The expected time in seconds; `None` while nothing is known.
    pub(super) fn expected(&self, now: Instant) -> Option<f64> {
        let peak = self.peak.map(|(peak, at)| peak * remains(at, now));
        let penalty = self.failed.map(|at| penalty(at, now));
        match (peak, penalty) {
            (Some(peak), Some(penalty)) => Some(peak + penalty),
            (one, other) => one.or(other),
        }
    }

    /// How long answers usually take.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.usual.map(Duration::from_secs_f64)
    }

    /// An answer came.
    pub(super) fn answered(&mut self, now: Instant, took: Duration) {
        let took = took.as_secs_f64();
        self.usual = Some(self.usual.map_or(took, |usual| usual + NEWEST * (took - usual)));
        self.take(now, took);
    }

    /// A call failed.
    pub(super) fn failed(&mut self, now: Instant, took: Duration) {
        self.waited(now, took);
        self.failed = Some(now);
    }

    /// What it was like says nothing any more: it is as good as others until it is measured anew.
    pub(super) fn forget(&mut self) {
        self.peak = None;
        self.failed = None;
    }

    /// Nobody waited any longer: an answer takes at least so long.
    pub(super) fn waited(&mut self, now: Instant, took: Duration) {
        let took = took.as_secs_f64();
        if self.peak.is_some_and(|(peak, at)| took > peak * remains(at, now)) {
            self.take(now, took);
        }
    }

    fn take(&mut self, now: Instant, took: f64) {
        let next = match self.peak {
            Some((peak, at)) if peak > took => {
                let weight = remains(at, now);
                peak * weight + took * (1.0 - weight)
            }
            _ => took,
        };
        self.peak = Some((next, now));
    }
}

/// Part of a value from `at` that counts at `now`.
fn remains(at: Instant, now: Instant) -> f64 {
    let age = now.saturating_duration_since(at).as_secs_f64();
    (-age / DECAY.as_secs_f64()).exp()
}

/// What is left of the penalty for a failure, in seconds.
fn penalty(at: Instant, now: Instant) -> f64 {
    let age = now.saturating_duration_since(at).as_secs_f64();
    PENALTY * (1.0 - age / FORGIVEN.as_secs_f64()).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fades() {
        let start = Instant::now();
        let mut latency = Latency::default();
        assert_eq!(latency.expected(start), None);
        latency.answered(start, Duration::from_millis(1));
        latency.answered(start, Duration::from_millis(500));
        let expected =
            |latency: &Latency, seconds| latency.expected(after(start, seconds)).unwrap();
        assert!((expected(&latency, 0) - 0.5).abs() < 1e-9);
        assert!((expected(&latency, 10) - 0.5 / std::f64::consts::E).abs() < 1e-9);
        // A fast answer at the same moment does not make it fast.
        latency.answered(start, Duration::from_millis(1));
        assert!((expected(&latency, 0) - 0.5).abs() < 1e-9);
        latency.answered(after(start, 60), Duration::from_millis(1));
        assert!(expected(&latency, 60) < 0.003);
    }

    #[test]
    fn a_fast_failure_does_not_look_fast() {
        let start = Instant::now();
        let mut latency = Latency::default();
        latency.answered(start, Duration::from_millis(1));
        latency.failed(start, Duration::from_micros(50));
        let expected = |latency: &Latency, millis| {
            latency.expected(start + Duration::from_millis(millis)).unwrap()
        };
        assert!(expected(&latency, 0) > 5.0 && expected(&latency, 500) > 2.5);
        assert!(expected(&latency, 1000) <= 0.001);
        assert!(latency.usual().unwrap() < Duration::from_millis(2));
        // How long a failure took is what an answer takes at least.
        latency.failed(start, Duration::from_secs(2));
        assert!(expected(&latency, 1000) > 1.8);
    }

    #[test]
    fn impatient_callers_make_an_endpoint_no_faster() {
        let start = Instant::now();
        let mut latency = Latency::default();
        latency.waited(start, Duration::from_millis(1));
        assert_eq!(latency.expected(start), None);
        latency.answered(start, Duration::from_millis(100));
        latency.waited(start, Duration::from_millis(1));
        assert!((latency.expected(start).unwrap() - 0.1).abs() < 1e-9);
        latency.waited(start, Duration::from_secs(2));
        assert!((latency.expected(start).unwrap() - 2.0).abs() < 1e-9);
    }
}
