//! Medians and spreads over interleaved rounds.

use serde::{Deserialize, Serialize};

/// One figure over the rounds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    /// The smallest and the largest of the rounds.
    pub low: f64,
    pub high: f64,
    pub rounds: usize,
}

impl Spread {
    /// Of samples that are all numbers; `None` when one is not, or when there are none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        if samples.iter().any(|sample| !sample.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        Some(Self { median: median_of_sorted(&sorted)?, low, high, rounds: sorted.len() })
    }

    /// Of what a function gives for each pair of samples of one round.
    #[must_use]
    pub fn paired(left: &[f64], right: &[f64], figure: impl Fn(f64, f64) -> f64) -> Option<Self> {
        if left.len() != right.len() {
            return None;
        }
        let figures: Vec<f64> =
            left.iter().zip(right).map(|(left, right)| figure(*left, *right)).collect();
        Self::of(&figures)
    }

    /// Of the ratios of samples of the same round: what disturbs a round hits both.
    #[must_use]
    pub fn ratio(over: &[f64], under: &[f64]) -> Option<Self> {
        Self::paired(over, under, |over, under| over / under)
    }
}

/// The middle of samples that are all numbers.
#[must_use]
pub fn median(samples: &[f64]) -> Option<f64> {
    Spread::of(samples).map(|spread| spread.median)
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_figure_that_is_no_number_is_no_result() {
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::ratio(&[1.0, 2.0], &[1.0, 0.0]), None);
        assert_eq!(Spread::ratio(&[1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The second round met a machine half as fast: the ratio is the same.
        let ratio = Spread::ratio(&[10.0, 20.0, 12.0], &[5.0, 10.0, 4.0]).unwrap();
        assert_eq!(ratio, Spread { median: 2.0, low: 2.0, high: 3.0, rounds: 3 });
    }

    proptest! {
        #[test]
        fn half_of_the_samples_lie_on_either_side(
            samples in prop::collection::vec(-1e9..1e9_f64, 1..50)
        ) {
            let spread = Spread::of(&samples).unwrap();
            let below = samples.iter().filter(|sample| **sample <= spread.median).count();
            let above = samples.iter().filter(|sample| **sample >= spread.median).count();
            prop_assert!(below * 2 >= samples.len() && above * 2 >= samples.len());
            prop_assert!(spread.low <= spread.median && spread.median <= spread.high);
        }
    }
}
