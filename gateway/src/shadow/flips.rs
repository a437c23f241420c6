//! Which labels turn into which, in bounded memory.

use std::collections::HashMap;

/// Different flips that are counted: all that 64 classes can have.
pub(super) const MOST: usize = 64 * 64;

/// Flips from the live class to the shadow's. Where there are more different ones than have room,
/// the rarest makes room and the new one takes over its count (the space-saving algorithm of
/// Metwally, Agrawal and El Abbadi, 2005): the frequent ones stay, and a count is too high by at
/// most what was taken over.
#[derive(Debug, Default)]
pub(super) struct FlipTable {
    counts: HashMap<(u32, u32), Count>,
    total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) count: u64,
    /// Part of the count that may be of others.
    pub(super) error: u64,
}

impl FlipTable {
    pub(super) fn add(&mut self, live: u32, shadow: u32) {
        self.total += 1;
        if let Some(known) = self.counts.get_mut(&(live, shadow)) {
            known.count += 1;
            return;
        }
        let mut error = 0;
        if self.counts.len() >= MOST {
            let rarest = self.counts.iter().min_by_key(|(flip, count)| (count.count, **flip));
            if let Some((&flip, &Count { count, .. })) = rarest {
                self.counts.remove(&flip);
                error = count;
            }
        }
        self.counts.insert((live, shadow), Count { count: error + 1, error });
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Different flips known.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// The most frequent ones, the first of equals in the order of classes.
    pub(super) fn most(&self, count: usize) -> Vec<((u32, u32), Count)> {
        let mut all: Vec<_> = self.counts.iter().map(|(flip, count)| (*flip, *count)).collect();
        all.sort_by_key(|(flip, count)| (std::cmp::Reverse(count.count), *flip));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_classes_are_counted_exactly() {
        let mut table = FlipTable::default();
        for times in 1..=3 {
            for flip in 0..64 * 64 {
                table.add(flip / 64, (flip + times) % 64);
            }
        }
        assert!(table.most(MOST).iter().all(|(_, count)| count.error == 0));
        assert_eq!(table.most(MOST).iter().map(|(_, count)| count.count).sum::<u64>(), table.total);
    }

    #[test]
    fn frequent_flips_outlive_a_flood_of_rare_ones() {
        let mut table = FlipTable::default();
        for rare in 0..2 * 64 * 64_u32 {
            table.add(rare, rare + 1);
            if rare % 8 == 0 {
                table.add(7, 1);
            }
        }
        assert_eq!(table.len(), MOST);
        let (flip, Count { count, error }) = table.most(1)[0];
        let truth = MOST as u64 / 4;
        assert_eq!(flip, (7, 1));
        assert!(count - error <= truth && truth <= count, "{count} ± {error}, truth {truth}");
    }
}
