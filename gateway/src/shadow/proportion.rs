//! So many out of so many, and what that says about the rest.

use serde::Serialize;

/// The 97.5 % quantile of the normal distribution: two sides of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A count with its share and the 95 % interval of Wilson (1927, "Probable inference, the law of
/// succession, and statistical inference"), which is good for few observations and for shares
/// near 0 and 1. It takes what was observed as independent and its number as fixed beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Proportion {
    pub count: u64,
    pub of: u64,
    pub share: f64,
    pub low: f64,
    pub high: f64,
}

impl Proportion {
    /// `None` of nothing.
    #[must_use]
    pub fn new(count: u64, of: u64) -> Option<Self> {
        if of == 0 {
            return None;
        }
        let (n, share) = (of as f64, count as f64 / of as f64);
        let middle = share + Z * Z / (2.0 * n);
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let whole = 1.0 + Z * Z / n;
        // Rounding must not move the interval off what was seen.
        let low = ((middle - half) / whole).clamp(0.0, share);
        let high = ((middle + half) / whole).clamp(share, 1.0);
        Some(Self { count, of, share, low, high })
    }
}

/// A share as people read it, never rounded to nothing or everything that it is not.
pub(super) fn percent(share: f64) -> String {
    let rounded = (share * 1000.0).round() / 10.0;
    if share > 0.0 && rounded <= 0.0 {
        return "under 0.1 %".to_owned();
    }
    if share < 1.0 && rounded >= 100.0 {
        return "over 99.9 %".to_owned();
    }
    format!("{rounded} %")
}

impl std::fmt::Display for Proportion {
    /// `92.4 % of 450 rows` is written around it: `92.4 % (90.1–94.3 %)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = (self.low * 100.0, self.high * 100.0);
        write!(f, "{} ({low:.1}–{high:.1} %)", percent(self.share))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_interval_is_that_of_the_literature() {
        // Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (count, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let found = Proportion::new(count, of).unwrap();
            assert!((found.low - low).abs() < 5e-5, "{found:?}");
            assert!((found.high - high).abs() < 5e-5, "{found:?}");
        }
        assert_eq!(Proportion::new(0, 0), None);
    }

    #[test]
    fn shares_are_never_rounded_to_all_or_nothing() {
        for (share, text) in [
            (0.0, "0 %"),
            (1e-6, "under 0.1 %"),
            (0.924, "92.4 %"),
            (0.12, "12 %"),
            (0.999_99, "over 99.9 %"),
            (1.0, "100 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }

    proptest! {
        // The ends of the interval are the roots of |p̂ − p| = z √(p (1 − p) / n).
        #[test]
        fn the_ends_are_as_likely_as_the_quantile_says(of in 1_u64..100_000, part in 0_u64..=100) {
            let count = of * part / 100;
            let found = Proportion::new(count, of).unwrap();
            prop_assert!(found.low <= found.share && found.share <= found.high);
            for end in [found.low, found.high] {
                let spread = (end * (1.0 - end) / of as f64).sqrt();
                let distance = (found.share - end).abs();
                prop_assert!((distance - Z * spread).abs() < 1e-9, "{found:?}");
            }
        }
    }
}
