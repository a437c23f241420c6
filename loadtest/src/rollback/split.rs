//! How the callers of a route are divided, and what a change of it may make of that.

use crate::admin::{Arm, Route};
use crate::random::Random;

/// Buckets of callers; one is 0.01 % of them.
const BUCKETS: u16 = 10_000;

/// A share for the canary that has not been there before, for the first 9,998 numbers, with what
/// is left for the other arm.
pub(super) fn shares(number: u64) -> (String, String) {
    // 37 has no common factor with 9998.
    let canary = 1 + number * 37 % 9998;
    (percent(u64::from(BUCKETS) - canary), percent(canary))
}

fn percent(buckets: u64) -> String {
    format!("{}.{:02}%", buckets / 100, buckets % 100)
}

/// Each bucket's owner, by number of its arm; an error where one has none, or two.
fn owners(route: &Route) -> Option<Vec<usize>> {
    let mut owners = vec![usize::MAX; usize::from(BUCKETS)];
    for (index, Arm { buckets, .. }) in route.arms.iter().enumerate() {
        for (from, to) in buckets {
            for owner in owners.get_mut(usize::from(*from)..usize::from(*to))? {
                if std::mem::replace(owner, index) != usize::MAX {
                    return None;
                }
            }
        }
    }
    owners.iter().all(|owner| *owner != usize::MAX).then_some(owners)
}

/// Whether one split became the other by giving an arm this share: it has as many buckets, every
/// bucket has one owner, and of two arms the one that grew lost nobody.
pub(super) fn is_moved(before: &Route, after: &Route, (arm, share): (&str, &str)) -> bool {
    let (Some(owned), Some(owns)) = (owners(before), owners(after)) else { return false };
    let at = after.arms.iter().position(|known| known.name == arm);
    let (Some(at), Some(wanted)) = (at, buckets(share)) else { return false };
    let had = owned.iter().filter(|owner| **owner == at).count();
    let has = owns.iter().filter(|owner| **owner == at).count();
    let mut moves = owned.iter().zip(&owns).filter(|(old, new)| old != new);
    let one_way = if has >= had {
        moves.all(|(_, new)| *new == at)
    } else {
        moves.all(|(old, _)| *old == at)
    };
    has == wanted && one_way
}

/// The buckets of a share written with two digits behind the point.
fn buckets(share: &str) -> Option<usize> {
    let (whole, part) = share.strip_suffix('%')?.split_once('.')?;
    Some(whole.parse::<usize>().ok()? * 100 + part.parse::<usize>().ok()?)
}

/// A moment from 0 to twice what something takes.
pub(super) fn around(typical: std::time::Duration, random: &mut Random) -> std::time::Duration {
    typical.mul_f64(2.0 * random.unit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(stable: &[(u16, u16)], canary: &[(u16, u16)]) -> Route {
        let arm = |name: &str, buckets: &[(u16, u16)]| Arm {
            name: name.to_owned(),
            share: String::new(),
            buckets: buckets.to_vec(),
        };
        Route { name: "r".to_owned(), arms: vec![arm("stable", stable), arm("canary", canary)] }
    }

    #[test]
    fn shares_do_not_repeat() {
        let mut all: Vec<_> = (0..9998).map(shares).collect();
        assert_eq!(all[0], ("99.99%".to_owned(), "0.01%".to_owned()));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9998);
    }

    #[test]
    fn a_split_that_moved_anybody_else_is_another_one() {
        let before = route(&[(0, 9500)], &[(9500, 10_000)]);
        let grown = route(&[(0, 9000)], &[(9000, 10_000)]);
        assert!(is_moved(&before, &grown, ("canary", "10.00%")));
        assert!(!is_moved(&before, &grown, ("canary", "5.00%")));
        assert!(is_moved(&grown, &before, ("canary", "5.00%")));
        let elsewhere = route(&[(1000, 10_000)], &[(0, 1000)]);
        assert!(!is_moved(&before, &elsewhere, ("canary", "10.00%")));
        let twice = route(&[(0, 9500)], &[(9000, 10_000)]);
        assert!(!is_moved(&before, &twice, ("canary", "10.00%")));
        let gap = route(&[(0, 8999)], &[(9000, 10_000)]);
        assert!(!is_moved(&before, &gap, ("canary", "10.00%")));
    }
}
