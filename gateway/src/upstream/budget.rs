//! How many retries there may be: a part of the calls of the last ten seconds, and a few each
//! second whatever that is. Retries help against single faults; against an outage they are more
//! load on what is left.

use tokio::time::Instant;

use crate::config::Retry;

/// Seconds that are remembered.
const WINDOW: usize = 10;

/// Calls and retries of the last seconds.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    min_per_second: u32,
    started: Instant,
    seconds: [Second; WINDOW],
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    /// Which one since the start.
    number: usize,
    calls: u32,
    retries: u32,
}

impl Budget {
    pub(super) fn new(settings: &Retry, now: Instant) -> Self {
        let (share, min_per_second) = (settings.budget, settings.min_per_second);
        Self { share, min_per_second, started: now, seconds: <_>::default() }
    }

    /// A call came.
    pub(super) fn count(&mut self, now: Instant) {
        self.second(now).calls += 1;
    }

    /// Takes one retry, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let current = *self.second(now);
        let recent = self.seconds.iter().filter(|second| second.number + WINDOW > current.number);
        let (calls, retries) = recent.fold((0_u64, 0_u64), |(calls, retries), second| {
            (calls + u64::from(second.calls), retries + u64::from(second.retries))
        });
        #[expect(clippy::cast_precision_loss, reason = "counts of ten seconds")]
        let is_within = (retries + 1) as f64 <= self.share * calls as f64;
        let may = is_within || current.retries < self.min_per_second;
        self.second(now).retries += u32::from(may);
        may
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        let number = now.saturating_duration_since(self.started).as_secs();
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let second = &mut self.seconds[number % WINDOW];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn retries_are_given_as_the_last_ten_seconds_allow(
            steps in prop::collection::vec((0_u64..3000, 0_usize..20, 0_usize..20), 1..60),
            budget in 0.0..0.5_f64, min_per_second in 0_u32..5,
        ) {
            let start = Instant::now();
            let mut now = start;
            let settings = Retry { budget, min_per_second, ..Retry::default() };
            let mut given = Budget::new(&settings, now);
            // The second of each call and of each retry.
            let (mut calls, mut retries) = (Vec::new(), Vec::new());
            for (wait, comes, fails) in steps {
                now += Duration::from_millis(wait);
                let second = now.duration_since(start).as_secs();
                for _ in 0..comes {
                    given.count(now);
                    calls.push(second);
                }
                for _ in 0..fails {
                    let recent = |all: &[u64]| all.iter().filter(|s| **s + 10 > second).count();
                    let in_second = retries.iter().filter(|s| **s == second).count();
                    let expected = in_second < min_per_second as usize
                        || (recent(&retries) + 1) as f64 <= budget * recent(&calls) as f64;
                    prop_assert_eq!(given.take(now), expected);
                    if expected {
                        retries.push(second);
                    }
                }
            }
        }
    }

    #[test]
    fn an_outage_adds_a_fifth_of_the_calls_at_most() {
        let now = Instant::now();
        let mut budget = Budget::new(&Retry { min_per_second: 0, ..Retry::default() }, now);
        for _ in 0..1000 {
            budget.count(now);
        }
        assert_eq!((0..1000).filter(|_| budget.take(now)).count(), 200);
        let later = now + Duration::from_secs(20);
        assert!(!budget.take(later), "what nobody used is not kept");
    }
}
