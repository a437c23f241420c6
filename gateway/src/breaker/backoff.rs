//! How long a breaker stays open: doubling from trip to trip, spread at random so that breakers
//! that opened together do not try again together.

use std::time::Duration;

/// Open times vary by this share in both directions.
const JITTER: f64 = 0.2;

/// Open times that double up to a bound, with a random source of their own.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// Trips since it was last reset.
    trips: u32,
    state: u64,
}

impl Backoff {
    /// Times of these bounds; the seed is of its random source.
    #[must_use]
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, trips: 0, state: seed }
    }

    /// The next time: `first × 2ⁿ ± 20 %`, and never more than `longest`.
    pub fn wait(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(self.trips).unwrap_or(u32::MAX));
        self.trips = self.trips.saturating_add(1);
        // Below the bound by as much as the spread may add, lest all meet at the bound.
        let middle = doubled.min(self.longest.div_f64(1.0 + JITTER));
        middle.mul_f64(1.0 - JITTER + 2.0 * JITTER * self.fraction())
    }

    /// Other bounds from the next open time on.
    pub(super) fn bound(&mut self, first: Duration, longest: Duration) {
        (self.first, self.longest) = (first, longest);
    }

    /// Begins with the first time again.
    pub fn reset(&mut self) {
        self.trips = 0;
    }

    pub(super) fn trips(&self) -> u32 {
        self.trips
    }

    /// From 0 to 1. SplitMix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
    /// generators", 2014.
    fn fraction(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        f64::from((z >> 32) as u32) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn open_times_double_within_their_spread_and_their_bound(
            first in 1_u64..10_000, longest in 1_u64..100_000, seed in any::<u64>(),
        ) {
            let (first, longest) = (Duration::from_millis(first), Duration::from_millis(longest));
            let mut backoff = Backoff::new(first, longest, seed);
            for trip in 0..40 {
                let time = backoff.wait();
                prop_assert!(time <= longest, "{time:?}");
                let middle = first.saturating_mul(1 << trip.min(30)).min(longest.div_f64(1.2));
                prop_assert!(time >= middle.mul_f64(0.799) && time <= middle.mul_f64(1.201),
                    "{time:?} around {middle:?}");
            }
            backoff.reset();
            prop_assert!(backoff.wait() <= first.mul_f64(1.201));
        }
    }

    #[test]
    fn breakers_that_open_together_do_not_try_again_together() {
        let times: std::collections::HashSet<_> = (0..100)
            .map(|seed| Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed).wait())
            .collect();
        assert!(times.len() > 95, "{}", times.len());
    }
}
