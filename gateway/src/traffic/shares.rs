//! New shares of some arms, and what that leaves for the others.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::config::Arm;
use crate::types::{ArmName, BUCKETS, Share};

/// Gives the named arms these shares; the others divide the rest in proportion to what they have.
/// Buckets that this does not divide evenly go to the largest remainders, the first arms first.
///
/// # Errors
/// For an arm that is not there, shares beyond everybody or short of it, and a rest that nobody
/// can be given in proportion.
pub(super) fn divide(arms: &[Arm], given: &BTreeMap<ArmName, Share>) -> Result<Vec<Share>, String> {
    if let Some(unknown) = given.keys().find(|name| !arms.iter().any(|arm| arm.name == **name)) {
        let names: Vec<_> = arms.iter().map(|arm| arm.name.as_str()).collect();
        return Err(format!("there is no arm '{unknown}'; the arms are {}", names.join(", ")));
    }
    let sum: u32 = given.values().map(|share| u32::from(share.buckets())).sum();
    let Some(rest) = u32::from(BUCKETS).checked_sub(sum) else {
        return Err("the shares are more than 100%".to_owned());
    };
    let others = || arms.iter().enumerate().filter(|(_, arm)| !given.contains_key(&arm.name));
    let had: u32 = others().map(|(_, arm)| u32::from(arm.share.buckets())).sum();
    match others().count() {
        0 if rest > 0 => return Err("the shares are less than 100%".to_owned()),
        2.. if rest > 0 && had == 0 => {
            return Err("the other arms have no callers to go by: name their shares too".to_owned());
        }
        _ => {}
    }
    let exact = |arm: &Arm| rest * u32::from(arm.share.buckets());
    let floor = |arm: &Arm| exact(arm).checked_div(had);
    let mut remainders: Vec<_> = others()
        .map(|(index, arm)| (Reverse(exact(arm).checked_rem(had).unwrap_or(0)), index))
        .collect();
    remainders.sort_unstable();
    let even: u32 = others().filter_map(|(_, arm)| floor(arm)).sum();
    // With no callers before, there is a single other arm, which takes the whole rest.
    let odd = if had == 0 { 0 } else { rest - even };
    remainders.truncate(odd as usize);
    let share = |(index, arm): (usize, &Arm)| {
        let extra = u32::from(remainders.iter().any(|(_, lucky)| *lucky == index));
        let rest = || floor(arm).unwrap_or(rest) + extra;
        let rest = || u16::try_from(rest()).ok().and_then(Share::of_buckets).unwrap_or_default();
        given.get(&arm.name).copied().unwrap_or_else(rest)
    };
    Ok(arms.iter().enumerate().map(share).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::traffic::tests::arm;

    fn arms(shares: &[u16]) -> Vec<Arm> {
        let arm = |(index, share): (usize, &u16)| arm(&format!("a{index}"), 1, *share);
        shares.iter().enumerate().map(arm).collect()
    }

    fn divided(shares: &[u16], given: &[(&str, u16)]) -> Result<Vec<u16>, String> {
        let given = given
            .iter()
            .map(|(name, share)| (name.parse().unwrap(), Share::of_buckets(*share).unwrap()))
            .collect();
        let shares = divide(&arms(shares), &given)?;
        Ok(shares.into_iter().map(Share::buckets).collect())
    }

    #[test]
    fn arms_that_are_not_named_share_the_rest_in_proportion() {
        assert_eq!(divided(&[9500, 500], &[("a1", 1000)]), Ok(vec![9000, 1000]));
        assert_eq!(divided(&[6000, 3000, 1000], &[("a2", 4000)]), Ok(vec![4000, 2000, 4000]));
        assert_eq!(divided(&[3334, 3333, 3333], &[("a0", 1)]), Ok(vec![1, 5000, 4999]));
        assert_eq!(divided(&[10_000, 0], &[("a0", 0)]), Ok(vec![0, 10_000]));
    }

    #[test]
    fn shares_that_leave_somebody_out_are_refused_and_say_why() {
        for (shares, given, expected) in [
            (vec![9500, 500], vec![("a7", 1)], "no arm 'a7'; the arms are a0, a1"),
            (vec![9500, 500], vec![("a0", 6000), ("a1", 6000)], "more than 100%"),
            (vec![9500, 500], vec![("a0", 6000), ("a1", 1000)], "less than 100%"),
            (vec![10_000, 0, 0], vec![("a0", 5000)], "name their shares too"),
        ] {
            let problem = divided(&shares, &given).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_are_everybody(cuts in prop::collection::vec(0..=BUCKETS, 0..6), to in 0..=BUCKETS) {
            let mut cuts = cuts;
            cuts.extend([0, BUCKETS]);
            cuts.sort_unstable();
            let shares: Vec<u16> = cuts.windows(2).map(|pair| pair[1] - pair[0]).collect();
            if let Ok(after) = divided(&shares, &[("a0", to)]) {
                prop_assert_eq!(after.iter().sum::<u16>(), BUCKETS);
                prop_assert_eq!(after[0], to);
            } else {
                prop_assert!(to < BUCKETS && shares[1..].iter().all(|share| *share == 0));
            }
        }
    }
}
