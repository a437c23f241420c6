//! How long calls stand in a queue, by rank: the measure that tells a standing queue from a burst.
//!
//! After CoDel (Nichols, Jacobson 2012): what counts is the *shortest* delay of an interval. A
//! burst that drains in between leaves it small, and only a queue that never empties raises it.
//! While a queue stands, how much of it is left and how fast it drains tell what the next call
//! will wait; the delays of calls that leave tell what those of some time ago did.

use std::time::Duration;

use tokio::time::Instant;

/// Intervals for which a queue is watched that stood: all who stood in it may leave together, and
/// as many may come again. Nobody is refused while it is short.
const HOLD: u8 = 10;

/// When calls are refused for the delay of their queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shedding {
    /// A delay that no call is refused for.
    pub target: Duration,
    pub interval: Duration,
}

impl Shedding {
    /// The delay from which a queue stands whose batches take so long: a batcher at work always
    /// has one of about a batch.
    #[must_use]
    pub fn threshold(&self, batch: Duration) -> Duration {
        self.target.max(batch * 2)
    }

    /// The delay that a call may have which has so long to its deadline: a caller that waits for
    /// seconds does not mind one of some milliseconds.
    #[must_use]
    pub fn allowance(&self, left: Duration, batch: Duration) -> Duration {
        self.threshold(batch).max(left / 4)
    }
}

/// What is known of the queue of `N` ranks, the most urgent first.
#[derive(Debug)]
pub struct Delays<const N: usize> {
    shedding: Shedding,
    /// The beginning of the interval; the shortest delays and the items since then.
    since: Option<Instant>,
    shortest: [Option<Duration>; N],
    rows: u32,
    /// Intervals until the queue of a rank is taken for one that does not stand.
    held: [u8; N],
    view: View<N>,
}

/// What those need who bring calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<const N: usize> {
    /// The shortest delay of the last interval, or of a call since then.
    pub standing: [Duration; N],
    /// Whether that of one of the last intervals was beyond the threshold.
    pub stands: [bool; N],
    /// The time in which the queue drains by one item.
    pub drain: Duration,
}

impl<const N: usize> Delays<N> {
    #[must_use]
    pub fn new(shedding: Shedding) -> Self {
        let view =
            View { standing: [Duration::ZERO; N], stands: [false; N], drain: Duration::ZERO };
        Self { shedding, since: None, shortest: [None; N], rows: 0, held: [0; N], view }
    }

    /// Notes items of a rank that left the queue after so long.
    pub fn note(&mut self, rank: usize, rows: usize, delay: Duration) {
        let (Some(shortest), Some(standing)) =
            (self.shortest.get_mut(rank), self.view.standing.get_mut(rank))
        else {
            return;
        };
        *shortest = Some(shortest.map_or(delay, |other| other.min(delay)));
        *standing = (*standing).min(delay);
        self.rows = self.rows.saturating_add(u32::try_from(rows).unwrap_or(u32::MAX));
    }

    /// Notes that nobody waits any more: what stood is gone. Says whether that changes the view.
    pub fn emptied(&mut self) -> bool {
        self.shortest = [Some(Duration::ZERO); N];
        let stood = self.view.standing != [Duration::ZERO; N];
        self.view.standing = [Duration::ZERO; N];
        stood
    }

    /// Ends the interval if it is over. Batches take `batch`, and of some ranks calls wait.
    pub fn roll(&mut self, now: Instant, batch: Duration, waits: impl Fn(usize) -> bool) {
        let since = *self.since.get_or_insert(now);
        let time = now.saturating_duration_since(since);
        if time < self.shedding.interval {
            return;
        }
        let threshold = self.shedding.threshold(batch);
        let mut longest = Duration::ZERO;
        for rank in 0..N {
            // A rank that waits and has seen none of its calls leave waits for as long at least.
            let starved = || if waits(rank) { time } else { Duration::ZERO };
            let own = self.shortest[rank].take().unwrap_or_else(starved);
            // Whoever stands behind others stands as long as they do.
            longest = longest.max(own);
            let stands = longest > threshold;
            let passed = time.as_nanos() / self.shedding.interval.as_nanos().max(1);
            let passed = u8::try_from(passed).unwrap_or(u8::MAX);
            self.held[rank] = if stands { HOLD } else { self.held[rank].saturating_sub(passed) };
            self.view.standing[rank] = longest;
            self.view.stands[rank] = self.held[rank] > 0;
        }
        // What leaves a queue that does not stand says how much comes, not how fast it drains.
        if longest > threshold {
            self.view.drain = time / self.rows.max(1);
        }
        (self.since, self.rows) = (Some(now), 0);
    }

    #[must_use]
    pub fn view(&self) -> &View<N> {
        &self.view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// What three ranks see after these calls: rank, delay and time. The last rank waits.
    fn after(calls: &[(usize, u64, u64)]) -> ([u128; 3], [bool; 3]) {
        let start = Instant::now();
        let shedding = Shedding { target: millis(5), interval: millis(100) };
        let mut delays = Delays::<3>::new(shedding);
        for &(rank, delay, at) in calls {
            delays.note(rank, 1, millis(delay));
            delays.roll(start + millis(at), millis(10), |rank| rank == 2);
        }
        let View { standing, stands, .. } = *delays.view();
        (standing.map(|delay| delay.as_millis()), stands)
    }

    #[test]
    fn a_queue_stands_once_no_call_of_an_interval_waited_less() {
        let slow = [(2, 30, 0), (2, 25, 50), (2, 40, 99)];
        assert_eq!(after(&slow), ([0, 0, 0], [false; 3]), "not yet");
        let interval = after(&[&slow[..], &[(2, 50, 100)]].concat());
        assert_eq!(interval, ([0, 0, 25], [false, false, true]));
        let burst = [(2, 30, 0), (2, 0, 50), (2, 40, 100)];
        assert_eq!(after(&burst), ([0, 0, 0], [false; 3]));
        // Two batches are no queue that stands.
        let batches = [(2, 20, 0), (2, 20, 100)];
        assert_eq!(after(&batches), ([0, 0, 20], [false; 3]));
    }

    #[test]
    fn one_call_that_waited_less_lowers_it_at_once() {
        assert_eq!(after(&[(2, 30, 0), (2, 30, 100), (2, 3, 101)]).0, [0, 0, 3]);
    }

    #[test]
    fn who_stands_behind_others_stands_at_least_as_long() {
        let calls = [(0, 50, 0), (2, 10, 0), (0, 50, 100)];
        assert_eq!(after(&calls), ([50, 50, 50], [true; 3]));
        let calls = [(0, 1, 0), (2, 90, 0), (0, 1, 100)];
        assert_eq!(after(&calls), ([1, 1, 90], [false, false, true]));
    }

    #[test]
    fn a_rank_that_gets_no_turn_stands() {
        let calls = [(0, 1, 0), (0, 1, 100)];
        assert_eq!(after(&calls), ([1, 1, 100], [false, false, true]));
    }

    #[test]
    fn draining_is_measured_in_items() {
        let start = Instant::now();
        let shedding = Shedding { target: millis(5), interval: millis(100) };
        let mut delays = Delays::<1>::new(shedding);
        delays.roll(start, Duration::ZERO, |_| false);
        delays.note(0, 30, millis(6));
        delays.note(0, 20, millis(7));
        delays.roll(start + millis(100), Duration::ZERO, |_| false);
        assert_eq!(delays.view().drain, millis(2));
        // An idle queue does not drain slowly.
        delays.note(0, 1, Duration::ZERO);
        delays.roll(start + millis(200), Duration::ZERO, |_| false);
        assert_eq!(delays.view().drain, millis(2));
    }

    #[test]
    fn what_stood_is_forgotten_once_nobody_waits() {
        let start = Instant::now();
        let mut delays = Delays::<2>::new(Shedding { target: millis(5), interval: millis(100) });
        for at in [0, 100] {
            delays.note(1, 1, millis(50));
            delays.roll(start + millis(at), Duration::ZERO, |_| true);
        }
        delays.note(1, 1, millis(50));
        assert_eq!((delays.view().standing[1], delays.view().stands[1]), (millis(50), true));
        assert!(delays.emptied() && !delays.emptied());
        assert_eq!((delays.view().standing[1], delays.view().stands[1]), (millis(0), true));
        // It is watched for some time, whether anybody comes or not.
        delays.note(0, 1, millis(0));
        delays.roll(start + Duration::from_secs(3600), Duration::ZERO, |_| false);
        assert_eq!(delays.view().stands, [false; 2]);
    }

    #[test]
    fn a_queue_that_stood_is_watched_for_some_intervals() {
        let start = Instant::now();
        let mut delays = Delays::<1>::new(Shedding { target: millis(5), interval: millis(100) });
        let mut stands = |interval: u64, delay| {
            delays.note(0, 1, millis(delay));
            delays.roll(start + millis(100 * interval), Duration::ZERO, |_| false);
            delays.view().stands[0]
        };
        assert!(!stands(0, 50) && stands(1, 50));
        let mut after = (2..20).map(|interval| stands(interval, 0));
        assert_eq!(after.position(|stands| !stands), Some(usize::from(HOLD) - 1));
    }
}
