//! A run over time: what was answered in each interval, and how fast. Intervals grow so that a run
//! of any length has a few hundred at most.

use std::time::Duration;

/// Intervals beyond this number are joined, two and two.
const MOST: usize = 240;
/// The first length of an interval.
const SHORTEST: Duration = Duration::from_millis(100);
/// Latencies by size: eight steps for each doubling, from 1 µs to over two minutes.
const STEPS: u32 = 8;
const SIZES: usize = 8 * 28;

/// What came of the calls of a run, interval by interval.
#[derive(Debug, Clone)]
pub struct Timeline {
    interval: Duration,
    points: Vec<Point>,
}

/// One interval.
#[derive(Debug, Clone)]
pub struct Point {
    pub answered: u64,
    pub failed: u64,
    sizes: Box<[u32; SIZES]>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { interval: SHORTEST, points: Vec::new() }
    }
}

impl Timeline {
    /// Counts a call that ended at a moment of the run, with its latency where it was answered.
    pub fn record(&mut self, moment: Duration, latency: Option<Duration>) {
        let point = self.point(moment);
        match latency {
            None => point.failed += 1,
            Some(latency) => {
                point.answered += 1;
                point.sizes[size(latency)] += 1;
            }
        }
    }

    fn point(&mut self, moment: Duration) -> &mut Point {
        loop {
            let index = moment.as_nanos() / self.interval.as_nanos();
            match usize::try_from(index).ok().filter(|index| *index < MOST) {
                None => self.join_pairs(),
                Some(index) => {
                    if self.points.len() <= index {
                        self.points.resize_with(index + 1, Point::default);
                    }
                    return &mut self.points[index];
                }
            }
        }
    }

    fn join_pairs(&mut self) {
        self.interval *= 2;
        let pairs = std::mem::take(&mut self.points);
        for pair in pairs.chunks(2) {
            let mut joined = pair[0].clone();
            pair[1..].iter().for_each(|other| joined.add(other));
            self.points.push(joined);
        }
    }

    /// Adds what another thread saw of the same run.
    pub fn merge(&mut self, mut other: Self) {
        while self.interval < other.interval {
            self.join_pairs();
        }
        while other.interval < self.interval {
            other.join_pairs();
        }
        if self.points.len() < other.points.len() {
            self.points.resize_with(other.points.len(), Point::default);
        }
        for (mine, others) in self.points.iter_mut().zip(&other.points) {
            mine.add(others);
        }
    }

    /// The length of an interval.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }
}

impl Default for Point {
    fn default() -> Self {
        Self { answered: 0, failed: 0, sizes: Box::new([0; SIZES]) }
    }
}

impl Point {
    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        for (mine, others) in self.sizes.iter_mut().zip(other.sizes.iter()) {
            *mine += others;
        }
    }

    /// The latency in microseconds below which that part of the answers stayed, within a tenth;
    /// 0 without any.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
    pub fn quantile(&self, part: f64) -> f64 {
        let mut left = part * self.answered as f64;
        for (size, count) in self.sizes.iter().enumerate() {
            left -= f64::from(*count);
            if *count > 0 && left <= 0.0 {
                return ((size as f64 + 0.5) / f64::from(STEPS)).exp2();
            }
        }
        0.0
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a logarithm is small")]
#[expect(clippy::cast_sign_loss, reason = "it is at least that of 1")]
fn size(latency: Duration) -> usize {
    let micros = (latency.as_secs_f64() * 1e6).max(1.0);
    ((micros.log2() * f64::from(STEPS)) as usize).min(SIZES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn calls_count_where_they_ended() {
        let mut timeline = Timeline::default();
        timeline.record(ms(50), Some(ms(1)));
        timeline.record(ms(250), Some(ms(4)));
        timeline.record(ms(299), None);
        let counts: Vec<_> = timeline.points().iter().map(|p| (p.answered, p.failed)).collect();
        assert_eq!(counts, [(1, 0), (0, 0), (1, 1)]);
        let median = timeline.points()[2].quantile(0.5);
        assert!((median / 4000.0 - 1.0).abs() < 0.1, "{median}");
    }

    #[test]
    fn a_long_run_keeps_every_call_in_few_intervals() {
        let mut timeline = Timeline::default();
        for second in 0..3600 {
            timeline.record(Duration::from_secs(second), Some(ms(2)));
        }
        assert!(timeline.points().len() <= MOST);
        assert_eq!(timeline.points().iter().map(|point| point.answered).sum::<u64>(), 3600);
        let mut short = Timeline::default();
        short.record(ms(0), Some(ms(2)));
        short.merge(timeline.clone());
        assert_eq!(short.interval(), timeline.interval());
        assert_eq!(short.points()[0].answered, timeline.points()[0].answered + 1);
    }
}
