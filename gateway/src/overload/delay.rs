//! How long calls stand in a queue, by rank: the measure that tells a standing queue from a burst.
//!
//! After CoDel (Nichols, Jacobson 2012): what counts is the *shortest* delay of an interval. A
//! burst that drains in between leaves it small, and only a queue that never empties raises it.
//! It falls with the first call that waited less, so that recovery takes no interval.

use std::time::Duration;

use tokio::time::Instant;

/// When calls are refused for the delay of their queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shedding {
    /// A delay that no call is refused for.
    pub target: Duration,
    pub interval: Duration,
}

impl Shedding {
    /// The delay that a call may stand which has so long to its deadline, where a batch takes
    /// `batch`. A batcher at work always has a delay of about a batch, and a caller that waits
    /// for seconds does not mind one of some milliseconds.
    #[must_use]
    pub fn allowance(&self, left: Duration, batch: Duration) -> Duration {
        self.target.max(batch * 2).max(left / 4)
    }
}

/// What is known of `N` ranks, the most urgent first.
#[derive(Debug)]
pub struct Delays<const N: usize> {
    interval: Duration,
    ranks: [Option<Rank>; N],
}

/// What is known of one rank.
#[derive(Debug, Clone, Copy)]
struct Rank {
    /// The beginning of the interval, and the shortest delay in it so far.
    since: Instant,
    shortest: Duration,
    /// The shortest delay of the last whole interval, or of a call since then.
    standing: Duration,
    /// The last call.
    seen: Instant,
}

impl<const N: usize> Delays<N> {
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, ranks: [None; N] }
    }

    /// Notes a call of a rank that left the queue after so long.
    pub fn note(&mut self, rank: usize, delay: Duration, now: Instant) {
        let fresh = Rank { since: now, shortest: delay, standing: Duration::ZERO, seen: now };
        let forgotten = |known: &Rank| now.duration_since(known.seen) > self.interval * 2;
        let Some(slot) = self.ranks.get_mut(rank) else { return };
        let known = slot.take_if(|known| !forgotten(known)).unwrap_or(fresh);
        let shortest = known.shortest.min(delay);
        let standing = known.standing.min(delay);
        *slot = Some(if now.duration_since(known.since) < self.interval {
            Rank { shortest, standing, seen: now, ..known }
        } else {
            Rank { since: now, shortest: delay, standing: shortest, seen: now }
        });
    }

    /// How long a call of each rank stands at least: as long as those before it do.
    #[must_use]
    pub fn standing(&self, now: Instant) -> [Duration; N] {
        let mut longest = Duration::ZERO;
        self.ranks.map(|rank| {
            let known = rank.filter(|known| now.duration_since(known.seen) <= self.interval * 2);
            longest = longest.max(known.map_or(Duration::ZERO, |known| known.standing));
            longest
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// The standing delays of three ranks after these calls: rank, delay and time.
    fn after(calls: &[(usize, u64, u64)], at: u64) -> [u128; 3] {
        let start = Instant::now();
        let mut delays = Delays::<3>::new(INTERVAL);
        for &(rank, delay, at) in calls {
            delays.note(rank, millis(delay), start + millis(at));
        }
        delays.standing(start + millis(at)).map(|delay| delay.as_millis())
    }

    #[test]
    fn a_queue_stands_once_no_call_of_an_interval_waited_less() {
        let slow = [(1, 30, 0), (1, 20, 50), (1, 40, 99)];
        assert_eq!(after(&slow, 99), [0, 0, 0], "not yet");
        assert_eq!(after(&[&slow[..], &[(1, 50, 100)]].concat(), 100), [0, 20, 20]);
        let burst = [(1, 30, 0), (1, 0, 50), (1, 40, 100)];
        assert_eq!(after(&burst, 100), [0, 0, 0]);
    }

    #[test]
    fn one_call_that_waited_less_ends_it() {
        let calls = [(1, 30, 0), (1, 30, 100), (1, 3, 110)];
        assert_eq!(after(&calls, 110), [0, 3, 3]);
    }

    #[test]
    fn who_stands_behind_others_stands_at_least_as_long() {
        let calls = [(0, 50, 0), (2, 10, 0), (0, 50, 100), (2, 10, 100)];
        assert_eq!(after(&calls, 100), [50, 50, 50]);
        let calls = [(0, 1, 0), (2, 90, 0), (0, 1, 100), (2, 90, 100)];
        assert_eq!(after(&calls, 100), [1, 1, 90]);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let calls = [(1, 30, 0), (1, 30, 100)];
        assert_eq!(after(&calls, 300), [0, 30, 30]);
        assert_eq!(after(&calls, 301), [0, 0, 0]);
        // A call after a pause begins anew.
        assert_eq!(after(&[&calls[..], &[(1, 70, 500)]].concat(), 500), [0, 0, 0]);
    }
}
