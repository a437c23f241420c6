//! Which batch size makes the most items a second: on processors whose caches a large batch
//! leaves, that is not the largest one.
//!
//! The time of one row is averaged by size class, each class up to a power of two. Batches end
//! at the best class once a larger one has shown to be slower. Smaller classes that the load does
//! not make by itself are tried out, and now and then a batch is as large as it can be, so that a
//! new truth is noticed.

use std::time::Duration;

/// Classes up to 2^15 rows; what is larger counts with the last.
const CLASSES: usize = 16;
/// What is left of a run's weight after the next one of its class.
const FADE: f64 = 0.9;
/// Runs before a class is judged.
const ENOUGH: u32 = 8;
/// A larger class has to be slower by this factor before it is given up.
const SLOWER: f64 = 1.05;
/// What a batch costs outside its run, in seconds: an engine and an I/O thread that wake, choosing,
/// answering. Where runs are as short as this, it decides.
const AROUND: f64 = 60e-6;
/// Classes below the largest that are tried out.
const NEAR: usize = 3;
/// One batch in so many may be as large as it can.
const LOOK_AGAIN: u32 = 64;

/// What rows take in batches of different sizes.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes {
    classes: [Class; CLASSES],
    batches: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Class {
    runs: u32,
    /// Batches that should have been of this class and may have been too large: a single call may
    /// have more rows.
    tries: u32,
    /// Seconds.
    row: f64,
}

impl Class {
    fn is_unknown(&self) -> bool {
        self.runs < ENOUGH && self.tries < 2 * ENOUGH
    }
}

impl Sizes {
    pub(super) fn learn(&mut self, rows: usize, time: Duration) {
        let class = &mut self.classes[class_of(rows)];
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let row = (time.as_secs_f64() + AROUND) / rows.max(1) as f64;
        class.row = if class.runs == 0 { row } else { row + FADE * (class.row - row) };
        class.runs = class.runs.saturating_add(1);
    }

    /// Rows that the next batch should have at most; `None` leaves it to the model's maximum.
    pub(super) fn next_limit(&mut self) -> Option<usize> {
        self.batches = self.batches.wrapping_add(1);
        if self.batches.is_multiple_of(LOOK_AGAIN) {
            return None;
        }
        // Callers that wait for each other's batches may never make the sizes between.
        let (top, _) = self.judged().next_back()?;
        let mut near = (top.saturating_sub(NEAR)..top).rev();
        if let Some(unknown) = near.find(|&at| self.classes[at].is_unknown()) {
            self.classes[unknown].tries += 1;
            return Some(1 << unknown);
        }
        self.best()
    }

    /// The best size, if a larger one has shown to be slower.
    pub(super) fn best(&self) -> Option<usize> {
        let (best, class) = self.judged().min_by(|(_, a), (_, b)| a.row.total_cmp(&b.row))?;
        let mut larger = self.judged().filter(|(at, _)| *at > best);
        larger.any(|(_, other)| other.row > SLOWER * class.row).then(|| 1 << best)
    }

    fn judged(&self) -> impl DoubleEndedIterator<Item = (usize, &Class)> {
        self.classes.iter().enumerate().filter(|(_, class)| class.runs >= ENOUGH)
    }
}

fn class_of(rows: usize) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was asked for in so many batches, of which each runs as large as it may.
    fn limits(sizes: &mut Sizes, time: impl Fn(usize) -> u64) -> Vec<Option<usize>> {
        for rows in [1, 4, 8, 16, 32].repeat(10) {
            sizes.learn(rows, Duration::from_micros(time(rows)));
        }
        (0..2 * LOOK_AGAIN).map(|_| sizes.next_limit()).collect()
    }

    #[test]
    fn batches_end_where_larger_ones_are_slower_by_the_row() {
        // 8 rows take 100 µs each, 16 take 120 and 32 take 150.
        let time = |rows: usize| match rows {
            1 => 200,
            4 => 110 * 4,
            8 => 100 * 8,
            16 => 120 * 16,
            _ => 150 * rows as u64,
        };
        let limits = limits(&mut Sizes::default(), time);
        assert_eq!(limits.iter().filter(|limit| **limit == Some(8)).count(), 126);
        assert_eq!(limits.iter().filter(|limit| limit.is_none()).count(), 2);
    }

    #[test]
    fn the_largest_batches_are_taken_where_they_are_as_fast() {
        let limits = limits(&mut Sizes::default(), |rows| 100 * rows as u64);
        assert!(limits.iter().all(Option::is_none));
    }

    #[test]
    fn nothing_is_limited_before_sizes_are_known() {
        let mut sizes = Sizes::default();
        for rows in [1, 2, 64] {
            sizes.learn(rows, Duration::from_millis(rows as u64 * rows as u64));
        }
        assert_eq!(sizes.next_limit(), None);
    }

    #[test]
    fn sizes_that_the_load_does_not_make_are_tried_out() {
        let mut sizes = Sizes::default();
        let mut seen = Vec::new();
        for waiting in [2, 14].into_iter().cycle().take(200) {
            let rows = sizes.next_limit().map_or(waiting, |limit| limit.min(waiting));
            sizes.learn(rows, Duration::from_micros(100 * rows as u64 + (rows / 9 * 500) as u64));
            seen.push(rows);
        }
        let last = &seen[150..];
        assert!(last.iter().filter(|rows| **rows == 8).count() > 20, "{last:?}");
    }

    #[test]
    fn sizes_below_that_of_every_call_are_not_tried_for_ever() {
        let mut sizes = Sizes::default();
        for _ in 0..200 {
            let rows = sizes.next_limit().map_or(64, |limit| limit.max(16));
            sizes.learn(rows, Duration::from_micros(100 + rows as u64));
        }
        assert_eq!(sizes.next_limit(), None);
    }

    #[test]
    fn a_larger_size_that_became_fast_is_found_again() {
        let mut sizes = Sizes::default();
        limits(&mut sizes, |rows| if rows > 8 { 300 * rows as u64 } else { 100 * rows as u64 });
        let mut in_a_row = 0;
        for _ in 0..100 * LOOK_AGAIN {
            let limit = sizes.next_limit();
            in_a_row = if limit.is_none() { in_a_row + 1 } else { 0 };
            let rows = limit.unwrap_or(32);
            sizes.learn(rows, Duration::from_micros(100 * rows as u64));
            if in_a_row == 2 {
                return;
            }
        }
        panic!("still limited");
    }
}
