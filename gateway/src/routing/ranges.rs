//! Sets of buckets, as few ranges as they can be written with.

use serde::{Deserialize, Serialize};

use crate::types::BUCKETS;

/// The buckets of one arm: half-open ranges, sorted, without overlap, and no two that touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u16, u16)>", into = "Vec<(u16, u16)>")]
pub struct Ranges(Vec<(u16, u16)>);

impl Ranges {
    /// No bucket.
    pub const NONE: Self = Self(Vec::new());

    /// Every bucket.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![(0, BUCKETS)])
    }

    /// Sorts ranges and joins those that touch.
    ///
    /// # Errors
    /// For a range that is empty, backward or beyond the last bucket, and for a bucket in two.
    pub fn new(mut pairs: Vec<(u16, u16)>) -> Result<Self, String> {
        if let Some((from, to)) = pairs.iter().find(|(from, to)| from >= to || *to > BUCKETS) {
            return Err(format!("[{from}, {to}] is no range of buckets from 0 to {BUCKETS}"));
        }
        pairs.sort_unstable();
        let mut joined = Joined::default();
        for (from, to) in pairs {
            if joined.end() > Some(from) {
                return Err(format!("bucket {from} is in two ranges"));
            }
            joined.push(from, to);
        }
        Ok(Self(joined.0))
    }

    /// The ranges, in order.
    #[must_use]
    pub fn pairs(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// How many buckets these are.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn contains(&self, bucket: u16) -> bool {
        let next = self.0.partition_point(|(from, _)| *from <= bucket);
        next.checked_sub(1).is_some_and(|index| bucket < self.0[index].1)
    }

    /// The buckets that are in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut pairs = [self.pairs(), other.pairs()].concat();
        pairs.sort_unstable();
        let mut joined = Joined::default();
        for (from, to) in pairs {
            joined.push(from, to);
        }
        Self(joined.0)
    }

    /// The buckets that are in `self` and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.0.len());
        for &(mut from, to) in &self.0 {
            let first = other.0.partition_point(|(_, end)| *end <= from);
            for &(taken, end) in other.0[first..].iter().take_while(|(taken, _)| *taken < to) {
                if from < taken {
                    left.push((from, taken));
                }
                from = end;
            }
            if from < to {
                left.push((from, to));
            }
        }
        Self(left)
    }

    /// The lowest `count` buckets, and the rest.
    #[must_use]
    pub fn split(&self, count: u16) -> (Self, Self) {
        let (mut low, mut high, mut missing) = (Vec::new(), Vec::new(), count);
        for &(from, to) in &self.0 {
            let middle = from + missing.min(to - from);
            missing -= middle - from;
            low.extend((from < middle).then_some((from, middle)));
            high.extend((middle < to).then_some((middle, to)));
        }
        (Self(low), Self(high))
    }
}

/// Ranges in order of their starts, joined where they touch or overlap.
#[derive(Default)]
struct Joined(Vec<(u16, u16)>);

impl Joined {
    fn end(&self) -> Option<u16> {
        self.0.last().map(|(_, to)| *to)
    }

    fn push(&mut self, from: u16, to: u16) {
        match self.0.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => self.0.push((from, to)),
        }
    }
}

impl TryFrom<Vec<(u16, u16)>> for Ranges {
    type Error = String;

    fn try_from(pairs: Vec<(u16, u16)>) -> Result<Self, String> {
        Self::new(pairs)
    }
}

impl From<Ranges> for Vec<(u16, u16)> {
    fn from(ranges: Ranges) -> Self {
        ranges.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Buckets of a small space, so that ranges touch and overlap often.
    fn set() -> impl Strategy<Value = BTreeSet<u16>> {
        prop::collection::btree_set(0..40_u16, 0..30)
    }

    fn ranges(buckets: &BTreeSet<u16>) -> Ranges {
        Ranges::new(buckets.iter().map(|bucket| (*bucket, bucket + 1)).collect()).unwrap()
    }

    #[test]
    fn ranges_are_sorted_and_joined_and_what_is_none_is_refused() {
        let ranges = Ranges::new(vec![(5, 7), (0, 2), (2, 3)]).unwrap();
        assert_eq!(ranges.pairs(), [(0, 3), (5, 7)]);
        for wrong in [vec![(3, 3)], vec![(4, 3)], vec![(0, 10_001)], vec![(0, 5), (4, 6)]] {
            assert!(Ranges::new(wrong.clone()).is_err(), "{wrong:?}");
        }
        let stored = serde_json::to_string(&ranges).unwrap();
        assert_eq!(stored, "[[0,3],[5,7]]");
        assert_eq!(serde_json::from_str::<Ranges>(&stored).unwrap(), ranges);
        assert!(serde_json::from_str::<Ranges>("[[0,5],[4,6]]").is_err());
    }

    proptest! {
        #[test]
        fn ranges_are_the_sets_that_they_stand_for(one in set(), two in set(), count in 0..40_u16) {
            let (a, b) = (ranges(&one), ranges(&two));
            prop_assert_eq!(usize::from(a.len()), one.len());
            prop_assert_eq!(a.is_empty(), one.is_empty());
            for bucket in 0..41 {
                prop_assert_eq!(a.contains(bucket), one.contains(&bucket));
            }
            prop_assert_eq!(a.union(&b), ranges(&(&one | &two)));
            prop_assert_eq!(a.without(&b), ranges(&(&one - &two)));
            let low: BTreeSet<u16> = one.iter().copied().take(count.into()).collect();
            prop_assert_eq!(a.split(count), (ranges(&low), ranges(&(&one - &low))));
        }
    }
}
