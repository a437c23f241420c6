//! The laws of dividing callers: exact shares, least movement, even and independent hashing.

use proptest::prelude::*;

use super::*;
use crate::config::{Arm, Fallback, Route, Sticky, Target, VersionChoice};
use crate::types::{ArmName, BUCKETS, Share};

type Division = Vec<(ArmName, Ranges)>;
type Shares = Vec<(ArmName, Share)>;

const KEYS: u32 = 1_000_000;

fn name(text: &str) -> ArmName {
    text.parse().unwrap()
}

fn share(buckets: u16) -> Share {
    Share::of_buckets(buckets).unwrap()
}

/// Shares of the arms at `cuts` of all buckets, in order.
fn shares_of(arms: Vec<ArmName>, mut cuts: Vec<u16>) -> Shares {
    cuts.truncate(arms.len() - 1);
    cuts.extend([0, BUCKETS]);
    cuts.sort_unstable();
    arms.into_iter().zip(cuts.windows(2).map(|pair| share(pair[1] - pair[0]))).collect()
}

/// A split between some of six arms, in any order, now and then with an arm of nobody.
fn split() -> impl Strategy<Value = Shares> {
    let names = ["a", "b", "c", "d", "e", "f"].map(name).to_vec();
    let arms = prop::sample::subsequence(names, 1..=6).prop_shuffle();
    let cut = prop_oneof![0..=BUCKETS, prop::sample::select(vec![0, 1, 5000, 9999, BUCKETS])];
    (arms, prop::collection::vec(cut, 5)).prop_map(|(arms, cuts)| shares_of(arms, cuts))
}

fn of_arm(division: &Division, arm: &ArmName) -> Ranges {
    let found = division.iter().find(|(name, _)| name == arm);
    found.map_or(Ranges::NONE, |(_, ranges)| ranges.clone())
}

proptest! {
    #[test]
    fn every_edit_of_a_split_moves_no_more_than_its_shares_demand(
        edits in prop::collection::vec(split(), 1..12),
    ) {
        let mut before = Division::new();
        for shares in edits {
            let after = rebalance(&before, &shares);
            prop_assert!(Table::new(&after).is_ok());
            let mut growth = 0;
            for ((arm, ranges), (_, share)) in after.iter().zip(&shares) {
                let had = of_arm(&before, arm);
                prop_assert_eq!(ranges.len(), share.buckets());
                growth += ranges.len().saturating_sub(had.len());
                if ranges.len() >= had.len() {
                    prop_assert!(had.without(ranges).is_empty(), "someone left '{}'", arm);
                } else {
                    prop_assert!(ranges.without(&had).is_empty(), "someone came to '{}'", arm);
                }
            }
            let really: Vec<u16> = (0..BUCKETS)
                .filter(|bucket| {
                    let arm = after.iter().find(|(_, ranges)| ranges.contains(*bucket)).unwrap();
                    !of_arm(&before, &arm.0).contains(*bucket)
                })
                .collect();
            prop_assert_eq!(really.len(), usize::from(growth));
            prop_assert_eq!(moved(&before, &after), growth);
            prop_assert_eq!(&rebalance(&after, &shares), &after);
            before.reverse();
            prop_assert_eq!(&rebalance(&before, &shares), &after);
            before = after;
        }
    }

    #[test]
    fn a_ramp_of_any_arm_never_moves_a_caller_out_of_it(
        start in split(), which in any::<prop::sample::Index>(), keys in 1..u64::MAX,
    ) {
        let seed = Seed::of("digits", "salt");
        let ramped = which.index(start.len());
        let mut division = rebalance(&[], &start);
        let mut inside: Vec<u64> = Vec::new();
        for step in [100, 500, 2500, 5000, BUCKETS] {
            let others = start.len() - 1;
            // The others share the rest as evenly as it goes; alone, an arm has everything.
            let rest = BUCKETS - step;
            let mut shares = start.clone();
            let mut left = rest;
            for (index, (_, share)) in shares.iter_mut().enumerate() {
                if index == ramped {
                    continue;
                }
                let part = rest.div_ceil(u16::try_from(others).unwrap()).min(left);
                *share = self::share(part);
                left -= part;
            }
            shares[ramped].1 = share(if others == 0 { BUCKETS } else { step });
            let had = of_arm(&division, &shares[ramped].0);
            division = rebalance(&division, &shares);
            if had.len() <= step {
                let table = Table::new(&division).unwrap();
                let arm_of = |key: &u64| table.arm_of(seed.bucket(&key.to_le_bytes()));
                prop_assert!(inside.iter().all(|key| arm_of(key) == ramped));
                let keys = (0..500).map(|index| keys.wrapping_mul(index));
                inside = keys.filter(|key| arm_of(key) == ramped).collect();
            }
        }
        prop_assert_eq!(inside.len(), 500);
    }

    #[test]
    fn a_table_knows_the_arm_of_every_bucket(first in split(), second in split()) {
        let division = rebalance(&rebalance(&[], &first), &second);
        let table = Table::new(&division).unwrap();
        for bucket in 0..BUCKETS {
            prop_assert!(division[table.arm_of(bucket)].1.contains(bucket));
        }
    }
}

#[test]
fn a_table_takes_every_bucket_exactly_once() {
    let table = |one: Vec<(u16, u16)>, two: Vec<(u16, u16)>| {
        let ranges = |pairs| Ranges::new(pairs).unwrap();
        Table::new(&[(name("a"), ranges(one)), (name("b"), ranges(two))]).err()
    };
    assert_eq!(table(vec![(0, 4), (9, 10_000)], vec![(4, 9)]), None);
    let missing = |bucket: u16| Some(format!("bucket {bucket} is in no arm"));
    assert_eq!(table(vec![], vec![]), missing(0));
    assert_eq!(table(vec![(1, 10_000)], vec![]), missing(0));
    assert_eq!(table(vec![(0, 4)], vec![(5, 10_000)]), missing(4));
    assert_eq!(table(vec![(0, 4)], vec![(4, 9_999)]), missing(9_999));
    let twice = table(vec![(0, 5)], vec![(4, 10_000)]);
    assert_eq!(twice, Some("bucket 4 is in 'b' and in another arm".to_owned()));
}

/// Keys as callers have them: names that count up, numbers, and ids with most bits alike.
fn key_kinds() -> [fn(u32) -> Vec<u8>; 3] {
    [
        |index| format!("user-{index}").into_bytes(),
        |index| u64::from(index).to_le_bytes().to_vec(),
        |index| [&[0x01, 0x97, 0x70, 0x9c][..], &u128::from(index).to_be_bytes()[4..]].concat(),
    ]
}

#[test]
fn a_million_keys_fall_into_each_arm_as_often_as_its_share_says() {
    let shares = ["a", "b", "c", "d"].map(name).into_iter().zip([9000, 949, 50, 1].map(share));
    let shares: Shares = shares.collect();
    let table = Table::new(&rebalance(&[], &shares)).unwrap();
    for key in key_kinds() {
        for route in ["digits", "other"] {
            let seed = Seed::of(route, "salt");
            let mut counts = [0_u32; 4];
            for index in 0..KEYS {
                counts[table.arm_of(seed.bucket(&key(index)))] += 1;
            }
            for (count, (arm, share)) in counts.into_iter().zip(&shares) {
                let (n, p) = (f64::from(KEYS), share.part());
                // 99.9 % of a normal distribution lie within 3.29 deviations.
                let most = 3.29 * (n * p * (1.0 - p)).sqrt();
                let off = (f64::from(count) - n * p).abs();
                assert!(off <= most, "{arm} got {count}, {off} off where {most} is the most");
            }
        }
    }
}

/// The statistic of χ² for counts that ought to be alike.
fn chi_square(counts: &[u32], expected: &[f64]) -> f64 {
    let terms = counts.iter().zip(expected).map(|(count, e)| (f64::from(*count) - e).powi(2) / e);
    terms.sum()
}

#[test]
fn routes_of_other_names_or_salts_divide_callers_independently() {
    // The 99.9 % quantile for 99 degrees of freedom.
    const MOST: f64 = 148.23;
    let seeds = [("digits", "1"), ("digits", "2"), ("digit", "s1"), ("letters", "1")];
    let seeds = seeds.map(|(route, salt)| Seed::of(route, salt));
    for key in key_kinds() {
        for (index, one) in seeds.iter().enumerate() {
            for other in &seeds[..index] {
                let mut counts = [0; 100];
                for index in 0..200_000 {
                    let key = key(index);
                    let (row, column) = (one.bucket(&key) / 1000, other.bucket(&key) / 1000);
                    counts[usize::from(row * 10 + column)] += 1;
                }
                let statistic = chi_square(&counts, &[2000.0; 100]);
                assert!(statistic < MOST, "{statistic}");
            }
        }
    }
}

#[test]
fn who_is_sampled_has_nothing_to_do_with_the_arm() {
    // The 99.9 % quantile for 19 degrees of freedom.
    const MOST: f64 = 43.82;
    let seed = Seed::of("digits", "salt");
    let sample = share(3000);
    for key in key_kinds() {
        let mut counts = [0; 20];
        for index in 0..KEYS {
            let key = key(index);
            let seen = seed.lot(&key).is_in(sample);
            counts[usize::from(seed.bucket(&key) / 1000) * 2 + usize::from(seen)] += 1;
        }
        let expected: Vec<f64> = (0..20).map(|cell| [70_000.0, 30_000.0][cell % 2]).collect();
        let statistic = chi_square(&counts, &expected);
        assert!(statistic < MOST, "{statistic}");
    }
}

#[test]
fn a_smaller_sample_is_part_of_a_larger_one() {
    let seed = Seed::of("digits", "salt");
    for index in 0..10_000_u32 {
        let key = index.to_le_bytes();
        let seen = [0, 1, 500, 5000, BUCKETS].map(|buckets| seed.lot(&key).is_in(share(buckets)));
        assert!(seen.is_sorted() && !seen[0] && seen[4], "{seen:?}");
    }
}

/// Other builds, and other gateways before the same callers, must agree with this one.
#[test]
fn the_bucket_of_a_key_is_the_same_for_ever() {
    let seed = Seed::of("digits", "digits-1");
    let buckets =
        ["", "a", "ada", "user-1", "user-12345678", "0197709c-5a4e-7b7e-8000-7f2c9d1e0a11"]
            .map(|key| seed.bucket(key.as_bytes()));
    assert_eq!(buckets, [3736, 4531, 3563, 9463, 174, 586]);
}

type ArmTerms = (&'static str, u16, Option<Vec<(u16, u16)>>);

fn route(arms: &[ArmTerms]) -> Route {
    let arm = |(arm, buckets, pins): &ArmTerms| Arm {
        name: name(arm),
        target: Target::Local { model: "digits".parse().unwrap(), version: VersionChoice::Latest },
        share: share(*buckets),
        buckets: pins.clone(),
    };
    Route {
        name: "digits".parse().unwrap(),
        sticky: Sticky::Off,
        salt: "digits".into(),
        fallback: Fallback::Refuse,
        testers: vec![],
        arms: arms.iter().map(arm).collect(),
        shadows: vec![],
        log: None,
    }
}

#[test]
fn a_plan_starts_from_what_was_and_keeps_the_order_of_the_route() {
    let plan = |arms, before| RoutePlan::new(route(arms), before, Source::File).unwrap();
    let first = plan(&[("stable", 9500, None), ("canary", 500, None)], None);
    assert_eq!(first.ranges[1].pairs(), [(9500, 10_000)]);
    let second = plan(&[("canary", 1000, None), ("stable", 9000, None)], Some(&first.divided()));
    assert_eq!(second.ranges[0].pairs(), [(9000, 10_000)]);
    assert_eq!(second.table().unwrap().arm_of(9_000), 0);
    assert_eq!(second.table().unwrap().arm_of(8_999), 1);
    let stored = serde_json::to_string(&second).unwrap();
    assert_eq!(serde_json::from_str::<RoutePlan>(&stored).unwrap(), second);
}

#[test]
fn pinned_ranges_are_what_takes_effect_or_nothing_does() {
    let plan = |arms: &[_], before: Option<&[_]>| RoutePlan::new(route(arms), before, Source::File);
    let pinned = [("a", 9000, Some(vec![(1000, 10_000)])), ("b", 1000, Some(vec![(0, 1000)]))];
    let before = plan(&[("a", 9000, None), ("b", 1000, None)], None).unwrap().divided();
    let found = plan(&pinned, Some(&before)).unwrap();
    assert_eq!(found.ranges[1].pairs(), [(0, 1000)]);
    let refused = |arms: &[_]| plan(arms, None).unwrap_err();
    let [a, b] = pinned;
    assert_eq!(
        refused(&[("a", 8000, a.2.clone()), b.clone()]),
        "arm 'a' has 9000 buckets, its share of 80% is 8000"
    );
    assert_eq!(refused(&[a.clone(), ("b", 1000, None)]), "arm 'b' has no pinned buckets");
    assert_eq!(
        refused(&[("a", 9000, Some(vec![(0, 9000)])), ("b", 1000, Some(vec![(5000, 6000)]))]),
        "bucket 5000 is in 'b' and in another arm"
    );
    assert_eq!(refused(&[("a", 9000, None), ("b", 900, None)]), "bucket 9900 is in no arm");
    assert!(refused(&[("a", 9500, None), ("b", 1000, None)]).starts_with("arm 'b' has 500"));
}

#[test]
fn another_salt_or_another_key_divides_callers_anew() {
    let old = route(&[("a", BUCKETS, None)]);
    let mut new = route(&[("a", 5000, None), ("b", 5000, None)]);
    assert!(!reshuffles(&old, &new));
    new.salt = "digits-2".into();
    assert!(reshuffles(&old, &new));
    let new = Route { sticky: Sticky::Identity, ..old.clone() };
    assert!(reshuffles(&old, &new));
}
