//! How numbers are spread, in bounded memory: a histogram whose buckets grow with the numbers,
//! so that quantiles are within 3.2 % of the truth wherever they lie.

use super::report::Quantiles;

/// Buckets for each doubling, as a power of two.
const FINENESS: u32 = 4;
/// Bits of an `f64` below those that choose the bucket.
const BELOW: u32 = f64::MANTISSA_DIGITS - 1 - FINENESS;
/// What is smaller counts as 0: 2⁻³², a quarter of a nanosecond in seconds.
const LOWEST: f64 = 1.0 / (1_u64 << 32) as f64;
/// What is larger counts as this: 2¹⁶, 18 hours in seconds.
const HIGHEST: f64 = (1_u64 << 16) as f64;
const BUCKETS: usize = 48 << FINENESS;

/// Counts of numbers from 0. Takes its 6 KiB with the first one.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// The first is for 0.
    buckets: Box<[u64]>,
    count: u64,
}

impl Spread {
    /// Counts a number; NaN is none.
    pub(super) fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS + 2].into();
        }
        self.buckets[bucket(value)] += 1;
        self.count += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The number that a part of all numbers do not exceed; `None` of nothing.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let rank = (part * self.count as f64).ceil().max(1.0);
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += count;
            seen as f64 >= rank
        });
        reached.map(middle)
    }

    pub(super) fn quantiles(&self) -> Option<Quantiles> {
        Some(Quantiles { median: self.quantile(0.5)?, p90: self.quantile(0.9)? })
    }
}

/// The place of the leading bits of a number among those of `LOWEST` and after.
fn bucket(value: f64) -> usize {
    if value < LOWEST {
        return 0;
    }
    let place = (value.min(HIGHEST).to_bits() >> BELOW) - (LOWEST.to_bits() >> BELOW);
    usize::try_from(place).map_or(BUCKETS, |place| place.min(BUCKETS)) + 1
}

fn middle(bucket: usize) -> f64 {
    let Some(place) = bucket.checked_sub(1) else { return 0.0 };
    let first = LOWEST.to_bits() >> BELOW;
    let start = |place: usize| f64::from_bits((first + place as u64) << BELOW);
    f64::midpoint(start(place), start(place + 1)).min(HIGHEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_out_of_range_is_kept_at_its_ends() {
        let mut spread = Spread::default();
        assert_eq!(spread.quantile(0.5), None);
        for value in [0.0, -1.0, f64::NEG_INFINITY, 1e-300, f64::INFINITY, f64::MAX, f64::NAN] {
            spread.add(value);
        }
        assert_eq!(spread.count(), 6);
        assert_eq!(spread.quantile(0.0), Some(0.0));
        assert_eq!(spread.quantile(1.0), Some(HIGHEST));
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_numbers(
            logs in prop::collection::vec(-20.0_f64..10.0, 1..200), percent in 0_usize..=100,
        ) {
            let mut values: Vec<f64> = logs.iter().map(|log| log.exp()).collect();
            let mut spread = Spread::default();
            values.iter().for_each(|value| spread.add(*value));
            values.sort_by(f64::total_cmp);
            // A quarter of a percent more, so that no rounding decides about a whole rank.
            let rank = (values.len() * (4 * percent + 1)).div_ceil(400).clamp(1, values.len());
            let part = (percent as f64 + 0.25) / 100.0;
            let expected = values[rank - 1];
            let found = spread.quantile(part.min(1.0)).unwrap();
            prop_assert!((found / expected - 1.0).abs() <= 1.0 / 31.0, "{found} is not {expected}");
        }
    }
}
