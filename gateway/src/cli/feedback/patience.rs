//! How long a gateway is waited for that has no room: as long as it asks for, and longer from time
//! to time, spread at random so that senders that were told the same come back one by one.

use std::time::Duration;

use crate::breaker::Backoff;

/// The first wait where the gateway names none; it doubles up to the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Waits that the gateway names are longer by up to this share.
const SPREAD: f64 = 0.2;

/// Waits, and how much of them is left until the gateway is given up.
#[derive(Debug)]
pub(super) struct Patience {
    most: Duration,
    left: Duration,
    backoff: Backoff,
    waits: u64,
    waited: Duration,
}

impl Patience {
    /// For so much in all since the gateway took something last.
    pub(super) fn new(most: Duration) -> Self {
        let backoff = Backoff::new(FIRST, LONGEST, fastrand::u64(..));
        Self { most, left: most, backoff, waits: 0, waited: Duration::ZERO }
    }

    /// How long to wait until the next try, no less than the gateway asks for; `None` where that
    /// is more than is left.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let asked = asked.unwrap_or_default();
        if self.left.is_zero() || asked > self.left {
            return None;
        }
        let spread = asked.mul_f64(1.0 + SPREAD * fastrand::f64());
        let wait = self.backoff.wait().max(spread).min(self.left);
        self.left -= wait;
        self.waited += wait;
        self.waits += 1;
        Some(wait)
    }

    /// The gateway took something.
    pub(super) fn renew(&mut self) {
        self.left = self.most;
        self.backoff.reset();
    }

    /// How often was waited, and how long in all.
    pub(super) fn spent(&self) -> (u64, Duration) {
        (self.waits, self.waited)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_asked_for_and_all_are_as_long_as_patience(
            most in 0_u64..600_000,
            asked in prop::collection::vec(prop::option::of(0_u64..60_000), 1..200),
        ) {
            let most = Duration::from_millis(most);
            let mut patience = Patience::new(most);
            let mut all = Duration::ZERO;
            for asked in asked {
                let asked = asked.map(Duration::from_millis);
                let Some(wait) = patience.next(asked) else {
                    let left = most - all;
                    prop_assert!(left.is_zero() || asked.is_some_and(|asked| asked > left));
                    continue;
                };
                prop_assert!(wait >= asked.unwrap_or_default() && !wait.is_zero());
                prop_assert!(wait <= LONGEST.max(asked.unwrap_or_default().mul_f64(1.2)));
                all += wait;
            }
            prop_assert!(all <= most);
            prop_assert_eq!(patience.spent().1, all);
            patience.renew();
            prop_assert_eq!(patience.next(None).is_some(), !most.is_zero());
        }
    }

    #[test]
    fn a_gateway_that_asks_for_more_than_there_is_patience_for_is_given_up_at_once() {
        let mut patience = Patience::new(Duration::from_secs(10));
        for asked in [Duration::from_secs(11), Duration::MAX] {
            assert_eq!(patience.next(Some(asked)), None);
        }
        let wait = patience.next(Some(Duration::from_secs(9))).unwrap();
        assert!(wait >= Duration::from_secs(9) && wait <= Duration::from_secs(10));
        assert_eq!(patience.spent(), (1, wait));
    }
}
