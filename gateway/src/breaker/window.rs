//! What the last seconds brought: a ring of ten buckets, so that what is counted leaves the
//! window in steps of a tenth of it and no time has to be kept for each batch.

use std::time::Duration;

use tokio::time::Instant;

const BUCKETS: u8 = 10;

/// Batches, and how many of them failed or were slow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub samples: u32,
    pub failed: u32,
    pub slow: u32,
}

/// Counts over the last `10 × width`, at least nine tenths of it.
#[derive(Debug)]
pub(super) struct Window {
    start: Instant,
    width: Duration,
    /// Number of the bucket that `start` + `at` × `width` begins; the newest one.
    at: u64,
    buckets: [Counts; BUCKETS as usize],
    sum: Counts,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.failed = self.failed.saturating_add(other.failed);
        self.slow = self.slow.saturating_add(other.slow);
    }

    /// Whether `part` is at least this share of all.
    pub(super) fn reaches(&self, part: u32, rate: f64) -> bool {
        part > 0 && f64::from(part) >= rate * f64::from(self.samples)
    }
}

impl Window {
    pub(super) fn new(start: Instant, window: Duration) -> Self {
        let width = (window / u32::from(BUCKETS)).max(Duration::from_nanos(1));
        Self { start, width, at: 0, buckets: Default::default(), sum: Counts::default() }
    }

    /// Counts one batch; returns what the window holds then.
    pub(super) fn add(&mut self, now: Instant, one: Counts) -> Counts {
        self.advance(now);
        self.bucket(self.at).add(one);
        self.sum.add(one);
        self.sum
    }

    /// What the window holds.
    pub(super) fn counts(&mut self, now: Instant) -> Counts {
        self.advance(now);
        self.sum
    }

    pub(super) fn clear(&mut self) {
        self.buckets = Default::default();
        self.sum = Counts::default();
    }

    fn bucket(&mut self, number: u64) -> &mut Counts {
        let index = usize::try_from(number % u64::from(BUCKETS)).unwrap_or_default();
        &mut self.buckets[index]
    }

    /// Drops what has grown too old.
    fn advance(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_nanos();
        let at = u64::try_from(since / self.width.as_nanos()).unwrap_or(u64::MAX);
        if at <= self.at {
            // Clocks of several threads are read before the lock is taken.
            return;
        }
        if at - self.at >= u64::from(BUCKETS) {
            self.clear();
        } else {
            for old in self.at + 1..=at {
                *self.bucket(old) = Counts::default();
            }
            self.sum = Counts::default();
            for bucket in self.buckets {
                self.sum.add(bucket);
            }
        }
        self.at = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Counts = Counts { samples: 1, failed: 1, slow: 0 };

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_window_is_forgotten_bucket_by_bucket() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut window = Window::new(start, Duration::from_secs(10));
        for second in 0..10 {
            assert_eq!(window.add(at(second * 1000), FAILED).failed as u64, second + 1);
        }
        assert_eq!(window.counts(at(9_999)).failed, 10);
        assert_eq!(window.counts(at(10_000)).failed, 9);
        assert_eq!(window.counts(at(12_500)).failed, 7);
        assert_eq!(window.counts(at(3_000)).failed, 7, "a late reader of the clock moves nothing");
        assert_eq!(window.counts(at(1_000_000)), Counts::default());
        assert_eq!(window.add(at(1_000_001), FAILED).samples, 1);
    }
}
