//! Which calls are kept where not all are: by strata, each with a probability that the row tells,
//! so that whoever counts rows can weigh them (Horvitz and Thompson, 1952).

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::LogSampling;

/// Another one than those by which callers are divided, so that the sample has some of each arm.
const SEED: u64 = 0x7072_6564_6c6f_6721;

/// The stratum of calls that nothing else fits.
pub(super) const REST: &str = "rest";

/// From how full a queue on which part of what is asked for is kept.
const STEPS: &[(f64, f64)] = &[(0.95, 0.0625), (0.875, 0.125), (0.75, 0.25), (0.5, 0.5)];

/// What decides, of one call.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Facts {
    pub(super) is_refused: bool,
    pub(super) total: Duration,
    pub(super) is_unsure: bool,
    /// The share of the caller's arm, as a part of 1.
    pub(super) propensity: Option<f64>,
}

/// That a call is kept, and how likely that was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Kept {
    pub(super) inclusion: f64,
    pub(super) stratum: &'static str,
}

/// Where a key stands among all: the same one always at the same place.
pub(super) fn place(key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, SEED)
}

/// Whether a call is kept, whose key is at `place`, while the queue is so full.
pub(super) fn decide(terms: &LogSampling, place: u64, facts: &Facts, fill: f64) -> Option<Kept> {
    let (asked, stratum) = stratum(terms, facts);
    let step = STEPS.iter().find(|(from, _)| fill >= *from);
    let part = step.filter(|_| terms.adaptive).map_or(1.0, |(_, part)| *part);
    let inclusion = asked * part;
    is_below(place, inclusion).then_some(Kept { inclusion, stratum })
}

/// The largest part that is asked for of calls like this one, and why.
fn stratum(terms: &LogSampling, facts: &Facts) -> (f64, &'static str) {
    let strata = [
        (true, terms.rate, REST),
        (facts.is_refused, terms.refusals, "refused"),
        (terms.slow_than.is_some_and(|limit| facts.total > limit), terms.slow, "slow"),
        (facts.is_unsure, terms.low_confidence, "unsure"),
        (
            facts.propensity.is_some_and(|share| share < terms.small_arms_below),
            terms.small_arms,
            "small_arm",
        ),
    ];
    let fitting = strata.into_iter().filter(|(fits, ..)| *fits);
    fitting.fold(
        (0.0, REST),
        |best, (_, part, name)| {
            if part > best.0 { (part, name) } else { best }
        },
    )
}

#[expect(clippy::cast_precision_loss, reason = "53 bits tell places apart well enough")]
fn is_below(place: u64, part: f64) -> bool {
    /// 2^53: every whole number below is a float.
    const PLACES: f64 = 9_007_199_254_740_992.0;
    ((place >> 11) as f64) < part * PLACES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms() -> LogSampling {
        LogSampling {
            rate: 0.1,
            refusals: 1.0,
            slow: 0.5,
            slow_than: Some(Duration::from_secs(1)),
            low_confidence: 0.75,
            small_arms: 0.25,
            small_arms_below: 0.05,
            adaptive: true,
            ..LogSampling::default()
        }
    }

    #[test]
    fn a_call_is_kept_with_the_largest_part_that_fits_it() {
        let facts = Facts::default();
        let of = |facts: Facts| stratum(&terms(), &facts);
        assert_eq!(of(facts), (0.1, "rest"));
        let small = Facts { propensity: Some(0.01), ..facts };
        assert_eq!(of(small), (0.25, "small_arm"));
        let slow = Facts { total: Duration::from_secs(2), ..small };
        assert_eq!(of(slow), (0.5, "slow"));
        let unsure = Facts { is_unsure: true, ..slow };
        assert_eq!(of(unsure), (0.75, "unsure"));
        assert_eq!(of(Facts { is_refused: true, ..unsure }), (1.0, "refused"));
        assert_eq!(of(Facts { propensity: Some(0.05), ..facts }), (0.1, "rest"));
    }

    #[test]
    fn all_or_nothing_is_kept_where_that_is_asked_for() {
        for place in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(is_below(place, 1.0));
            assert!(!is_below(place, 0.0));
        }
    }

    #[test]
    fn pressure_keeps_less_and_rows_say_so() {
        let all = LogSampling { rate: 1.0, ..terms() };
        let kept = |fill, terms: &LogSampling| decide(terms, 0, &Facts::default(), fill);
        for (fill, part) in [(0.0, 1.0), (0.49, 1.0), (0.5, 0.5), (0.8, 0.25), (1.0, 0.0625)] {
            assert_eq!(kept(fill, &all).unwrap().inclusion.to_bits(), f64::to_bits(part), "{fill}");
        }
        let steady = LogSampling { adaptive: false, ..all };
        assert_eq!(kept(1.0, &steady).unwrap().inclusion.to_bits(), 1.0_f64.to_bits());
        // What is kept under pressure would be kept without.
        for place in (0..1000).map(|index: u64| super::place(&index.to_le_bytes())) {
            let of = |fill| decide(&terms(), place, &Facts::default(), fill).is_some();
            assert!(!of(0.9) || of(0.0));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_key_is_always_decided_alike_and_rows_tell_how_likely_they_were(
            rate in 0.0..=1.0, salt: u32, fill in 0.0..1.0,
        ) {
            const KEYS: u32 = 20_000;
            let terms = LogSampling { rate, ..terms() };
            let facts = Facts::default();
            let mut kept = 0_u32;
            let mut told = None;
            for index in 0..KEYS {
                let key = format!("{salt}-{index}");
                let decision = decide(&terms, place(key.as_bytes()), &facts, fill);
                prop_assert_eq!(decision, decide(&terms, place(key.as_bytes()), &facts, fill));
                if let Some(decision) = decision {
                    kept += 1;
                    prop_assert!(told.replace(decision.inclusion).is_none_or(|p| p.total_cmp(&decision.inclusion).is_eq()));
                }
            }
            if let Some(inclusion) = told {
                let expected = inclusion * f64::from(KEYS);
                // Five standard deviations of a binomial distribution, and one for rounding.
                let bound = 5.0 * (expected * (1.0 - inclusion)).sqrt() + 1.0;
                prop_assert!((f64::from(kept) - expected).abs() <= bound, "{kept} of {KEYS} at {inclusion}");
            } else {
                prop_assert!(rate * f64::from(KEYS) < 30.0 / 0.0625);
            }
        }
    }
}
