//! New ranges out of the previous ones and new shares.

use super::Ranges;
use crate::types::{ArmName, Share};

/// Divides the buckets by `shares`, moving as few as the shares demand: an arm that shrinks gives
/// up its highest buckets, an arm that grows keeps all it has and takes the lowest that are free,
/// in the order of `shares`. Arms of `before` that have no share any more give up everything.
///
/// It depends on nothing else, so replicas that begin alike stay alike. Shares that add up to
/// less than everything leave buckets in no arm.
#[must_use]
pub fn rebalance(
    before: &[(ArmName, Ranges)],
    shares: &[(ArmName, Share)],
) -> Vec<(ArmName, Ranges)> {
    let mut free = Ranges::all();
    let mut after = Vec::with_capacity(shares.len());
    for (arm, share) in shares {
        let had = before.iter().find(|(name, _)| name == arm).map(|(_, ranges)| ranges);
        // A bucket that two arms had, which no plan says, stays with the first.
        let had = had.map(|ranges| ranges.without(&Ranges::all().without(&free)));
        let (kept, _) = had.unwrap_or_default().split(share.buckets());
        free = free.without(&kept);
        after.push((arm.clone(), kept));
    }
    for ((_, ranges), (_, share)) in after.iter_mut().zip(shares) {
        let (taken, left) = free.split(share.buckets() - ranges.len());
        (*ranges, free) = (ranges.union(&taken), left);
    }
    after
}

/// How many buckets belong to another arm than before.
#[must_use]
pub fn moved(before: &[(ArmName, Ranges)], after: &[(ArmName, Ranges)]) -> u16 {
    let gained = |(arm, ranges): &(ArmName, Ranges)| {
        let had = before.iter().find(|(name, _)| name == arm);
        had.map_or(ranges.len(), |(_, had)| ranges.without(had).len())
    };
    after.iter().map(gained).sum()
}
