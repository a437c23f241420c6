//! What a batch of a given size will take, learnt from the batches that ran.
//!
//! For each bucket a straight line `time = fixed + slope · rows`, fitted by least squares over
//! runs whose weight fades by 3 % with each new one, plus their mean deviation from it. Until a
//! bucket has runs of its own, a line over `rows · length` of the whole version stands in.

use std::collections::HashMap;
use std::time::Duration;

use super::bucket::Key;
use super::size::Sizes;

/// What is left of a run's weight after the next one.
const FADE: f64 = 0.97;
/// Runs before a line is trusted.
const ENOUGH: u32 = 3;
/// Runs before padding is judged by them.
const SURE: u32 = 16;
/// Buckets that have a line of their own; calls of ever new shapes share the general one.
const MOST_LINES: usize = 256;

/// The lines of one model version.
#[derive(Debug, Default)]
pub(super) struct Costs {
    general: Line,
    buckets: HashMap<Key, Learnt>,
}

/// What is known of one bucket.
#[derive(Debug, Default)]
struct Learnt {
    line: Line,
    sizes: Sizes,
}

/// One fitted line.
#[derive(Debug, Clone, Default)]
struct Line {
    runs: u32,
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    deviation: f64,
}

impl Costs {
    /// Learns from a run of `rows` items, each `length` long (1 where length means nothing).
    pub(super) fn learn(&mut self, key: &Key, rows: usize, length: usize, time: Duration) {
        let seconds = time.as_secs_f64();
        self.general.learn(count(rows * length.max(1)), seconds);
        if self.buckets.len() < MOST_LINES || self.buckets.contains_key(key) {
            let learnt = self.buckets.entry(key.clone()).or_default();
            learnt.line.learn(count(rows), seconds);
            learnt.sizes.learn(rows, time);
        }
    }

    /// How long a run of `rows` items takes, deviation included; `None` before the first runs.
    pub(super) fn predict(&self, key: &Key, rows: usize, length: usize) -> Option<Duration> {
        let own = self.buckets.get(key).and_then(|learnt| learnt.line.predict(count(rows)));
        let seconds = own.or_else(|| self.general.predict(count(rows * length.max(1))))?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Rows that the next batch of a bucket should have at most, where fewer are faster.
    pub(super) fn next_limit(&mut self, key: &Key) -> Option<usize> {
        self.buckets.get_mut(key)?.sizes.next_limit()
    }

    /// The size that makes the most items a second, where that is known not to be the largest.
    pub(super) fn best_size(&self, key: &Key) -> Option<usize> {
        self.buckets.get(key)?.sizes.best()
    }

    /// Positions whose time is that of a run's fixed part: padding more than these to spare a
    /// run is a loss. `None`: not known, or time does not grow with positions.
    pub(super) fn worth_padding(&self) -> Option<f64> {
        let line = Some(&self.general).filter(|line| line.runs >= SURE && line.has_seen_sizes())?;
        let (fixed, slope) = line.fit();
        (slope > 0.0).then(|| fixed / slope)
    }

    /// The share of a run's time that does not grow with its rows: what a larger batch can save.
    /// `None` until batches of different sizes have run, which alone can tell.
    pub(super) fn fixed_share(&self, key: &Key, rows: usize) -> Option<f64> {
        let line = self.buckets.get(key).map(|learnt| &learnt.line)?;
        if !line.has_seen_sizes() {
            return None;
        }
        let whole = line.predict(count(rows))?;
        Some((line.fit().0 / whole.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0))
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}

impl Line {
    fn learn(&mut self, x: f64, y: f64) {
        // What a line of one size alone says of others is a guess: that it fails is no news.
        if let Some(expected) =
            self.predict_mean(x).filter(|_| self.has_seen_sizes() || self.is_mean(x))
        {
            let off = (y - expected).abs();
            self.deviation += (1.0 - FADE) * (off - self.deviation);
        }
        for (sum, new) in [
            (&mut self.weight, 1.0),
            (&mut self.x, x),
            (&mut self.y, y),
            (&mut self.xx, x * x),
            (&mut self.xy, x * y),
        ] {
            *sum = *sum * FADE + new;
        }
        self.runs = self.runs.saturating_add(1);
    }

    fn predict(&self, x: f64) -> Option<f64> {
        self.predict_mean(x).map(|mean| mean + self.deviation)
    }

    fn predict_mean(&self, x: f64) -> Option<f64> {
        if self.runs < ENOUGH {
            return None;
        }
        let (fixed, slope) = self.fit();
        Some(fixed + slope * x)
    }

    fn variance(&self) -> f64 {
        let mean = self.x / self.weight;
        self.xx / self.weight - mean * mean
    }

    fn has_seen_sizes(&self) -> bool {
        let mean = self.x / self.weight;
        self.variance() > 1e-6 * mean * mean
    }

    fn is_mean(&self, x: f64) -> bool {
        let mean = self.x / self.weight;
        (x - mean).abs() <= 1e-3 * mean
    }

    /// Fixed part and slope, neither of them negative.
    fn fit(&self) -> (f64, f64) {
        let (mean_x, mean_y) = (self.x / self.weight, self.y / self.weight);
        let variance = self.variance();
        // Where all batches have had one size, nothing tells the parts apart: the whole is taken
        // to grow with the rows, which is never too little for a larger batch.
        if !self.has_seen_sizes() {
            return (0.0, mean_y / mean_x.max(f64::MIN_POSITIVE));
        }
        let slope = (self.xy / self.weight - mean_x * mean_y) / variance;
        if slope <= 0.0 {
            return (mean_y, 0.0);
        }
        let fixed = mean_y - slope * mean_x;
        if fixed < 0.0 { (0.0, mean_y / mean_x) } else { (fixed, slope) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micros(value: f64) -> Duration {
        Duration::from_secs_f64(value * 1e-6)
    }

    #[test]
    fn nothing_is_predicted_from_too_few_runs() {
        let mut costs = Costs::default();
        let key = Key::default();
        assert_eq!(costs.predict(&key, 1, 1), None);
        for _ in 0..ENOUGH {
            costs.learn(&key, 4, 1, micros(40.0));
        }
        assert!(costs.predict(&key, 4, 1).is_some());
    }

    #[test]
    fn what_a_larger_batch_saves_is_unknown_while_all_have_one_size() {
        let mut costs = Costs::default();
        let key = Key::default();
        for _ in 0..10 {
            costs.learn(&key, 1, 1, micros(40.0));
        }
        assert_eq!(costs.fixed_share(&key, 1), None);
        costs.learn(&key, 4, 1, micros(160.0));
        assert!(costs.fixed_share(&key, 1).unwrap() < 0.05);
    }

    #[test]
    fn padding_is_worth_as_much_as_the_run_that_it_spares() {
        let mut costs = Costs::default();
        let key = Key::default();
        for (rows, length) in [(1, 8), (2, 16), (4, 32), (8, 8)].into_iter().cycle().take(20) {
            assert_eq!(costs.worth_padding(), None);
            costs.learn(&key, rows, length, micros(500.0 + 10.0 * count(rows * length)));
            if costs.general.runs >= SURE {
                break;
            }
        }
        let worth = costs.worth_padding().unwrap();
        assert!((worth - 50.0).abs() < 0.1, "{worth}");
    }

    #[test]
    fn a_new_bucket_borrows_from_the_others_by_length() {
        let mut costs = Costs::default();
        let seen = Key { rest: vec![], length: 16 };
        for rows in [1, 2, 4, 8, 16] {
            costs.learn(&seen, rows, 16, micros(100.0 + 10.0 * count(rows * 16)));
        }
        let unseen = Key { rest: vec![], length: 32 };
        let predicted = costs.predict(&unseen, 4, 32).unwrap().as_secs_f64() * 1e6;
        assert!((predicted - 1380.0).abs() < 1.0, "{predicted}");
    }

    #[test]
    fn what_was_guessed_from_one_size_owes_nothing_for_the_first_of_another() {
        let mut costs = Costs::default();
        let key = Key::default();
        for rows in [2, 2, 2, 22, 1] {
            costs.learn(&key, rows, 1, micros(232.29 + 0.1 * count(rows)));
        }
        let predicted = costs.predict(&key, 32, 1).unwrap().as_secs_f64() * 1e6;
        assert!((predicted - 235.49).abs() < 0.1, "{predicted}");
    }

    #[test]
    fn an_old_truth_is_forgotten() {
        let mut costs = Costs::default();
        let key = Key::default();
        for round in 0..400_usize {
            let rows = 1 + round % 8;
            let slope = if round < 100 { 100.0 } else { 10.0 };
            costs.learn(&key, rows, 1, micros(slope * count(rows)));
        }
        let predicted = costs.predict(&key, 8, 1).unwrap().as_secs_f64() * 1e6;
        assert!((predicted - 80.0).abs() < 2.0, "{predicted}");
    }

    proptest! {
        #[test]
        fn a_true_line_is_found(
            fixed in 1.0_f64..1000.0, slope in 0.1_f64..100.0,
            rows in prop::collection::vec(1_usize..64, 8..60),
        ) {
            prop_assume!(rows.iter().any(|r| *r != rows[0]));
            let mut costs = Costs::default();
            let key = Key::default();
            for &rows in &rows {
                costs.learn(&key, rows, 1, micros(fixed + slope * count(rows)));
            }
            let expected = fixed + slope * 32.0;
            let predicted = costs.predict(&key, 32, 1).unwrap().as_secs_f64() * 1e6;
            prop_assert!((predicted - expected).abs() < 0.05 * expected, "{predicted} {expected}");
            let share = costs.fixed_share(&key, 1).unwrap();
            prop_assert!((0.0..=1.0).contains(&share));
        }

        #[test]
        fn predictions_are_finite_and_not_negative(
            runs in prop::collection::vec((1_usize..100, 0_u64..10_000), 3..50), rows in 1_usize..1000,
        ) {
            let mut costs = Costs::default();
            let key = Key::default();
            for (rows, time) in runs {
                costs.learn(&key, rows, 1, Duration::from_micros(time));
            }
            prop_assert!(costs.predict(&key, rows, 1).is_some());
        }
    }
}
