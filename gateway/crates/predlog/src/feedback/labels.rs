//! What is known of predictions by feedback.
//!
//! Whatever the order in which feedback came and however often it was told, the same is known:
//! - Of feedback with the same [key](Feedback::key), the one that was received first counts.
//! - Of several about an item, the one with the latest event time says the label, and the one with
//!   the latest event time that has a reward says the reward; of the same event time the one that
//!   was received last.
//! - Feedback about all items of a prediction is about each.

use std::cmp::Ordering;
use std::path::Path;

use super::{Feedback, Label, files};
use crate::convert::day;
use crate::read::ReadError;

/// Which feedback to read.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Received then or later. Microseconds since 1970, UTC.
    pub from_us: Option<i64>,
    /// Received before.
    pub until_us: Option<i64>,
    /// More than so many are refused, not read: all are held in memory, of about 250 bytes each
    /// beside their texts.
    pub most: usize,
}

impl Default for Range {
    fn default() -> Self {
        Self { from_us: None, until_us: None, most: 5_000_000 }
    }
}

impl Range {
    fn takes(&self, told: &Feedback) -> bool {
        self.from_us.is_none_or(|from| from <= told.received_us)
            && self.until_us.is_none_or(|until| told.received_us < until)
    }

    fn takes_day(&self, number: i64) -> bool {
        self.from_us.is_none_or(|from| day(from) <= number)
            && self.until_us.is_none_or(|until| number <= day(until.saturating_sub(1)))
    }
}

/// Feedback by what it is about, each once.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// By prediction or caller's id, then the latest first.
    by_prediction: Vec<Feedback>,
    by_caller: Vec<Feedback>,
    told_again: usize,
    damage: Vec<String>,
}

/// What is known of an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joined<'a> {
    /// The latest that says anything of it.
    pub latest: &'a Feedback,
    /// Of the latest that has one.
    pub label: Option<&'a Label>,
    /// Of the latest that has one.
    pub reward: Option<f64>,
    /// How many say something of it.
    pub count: usize,
}

impl Labels {
    /// Reads the feedback of a log: of its files, and of segments that are not converted yet. A
    /// live gateway may go on writing, converting and deleting.
    ///
    /// # Errors
    ///
    /// What reading gives; [`ReadError::TooMany`] where more is in the range than it allows.
    pub fn read(log: &Path, range: &Range) -> Result<Self, ReadError> {
        let mut told = Vec::new();
        let damaged = files::each(
            log,
            |day| range.takes_day(day),
            |feedback| {
                if !range.takes(&feedback) {
                    return Ok(());
                }
                if told.len() >= range.most {
                    return Err(ReadError::TooMany(range.most));
                }
                told.push(feedback);
                Ok(())
            },
        )?;
        let damage = damaged.iter().map(ToString::to_string).collect();
        Ok(Self { damage, ..Self::of_all(told) })
    }

    /// Files that could not be read, and why: what they say is not known.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// What is known by this feedback.
    #[must_use]
    pub fn of_all(told: Vec<Feedback>) -> Self {
        let mut keyed: Vec<(u128, Feedback)> =
            told.into_iter().map(|feedback| (feedback.key(), feedback)).collect();
        let count = keyed.len();
        keyed.sort_unstable_by(|(a, one), (b, other)| {
            a.cmp(b).then_with(|| one.cmp_received(other))
        });
        keyed.dedup_by_key(|(key, _)| *key);
        let told_again = count - keyed.len();
        let (mut by_prediction, mut by_caller): (Vec<_>, Vec<_>) = keyed
            .into_iter()
            .map(|(_, feedback)| feedback)
            .partition(|feedback| !feedback.prediction.is_empty());
        let latest_first = |a: &Feedback, b: &Feedback| b.cmp_events(a);
        by_prediction.sort_unstable_by(|a, b| {
            a.prediction.cmp(&b.prediction).then_with(|| latest_first(a, b))
        });
        by_caller.sort_unstable_by(|a, b| {
            a.caller_id.cmp(&b.caller_id).then_with(|| latest_first(a, b))
        });
        Self { by_prediction, by_caller, told_again, damage: vec![] }
    }

    /// What is known of an item of a prediction, or of its call, whose caller gave it this id as
    /// the log has it; an empty id is none.
    #[must_use]
    pub fn of(&self, prediction: &[u8], caller_id: &str, item: u32) -> Option<Joined<'_>> {
        let mut joined: Option<Joined<'_>> = None;
        for (_, feedback) in self.about(prediction, caller_id, item) {
            let known = joined.get_or_insert(Joined {
                latest: feedback,
                label: None,
                reward: None,
                count: 0,
            });
            known.label = known.label.or(feedback.label.as_ref());
            known.reward = known.reward.or(feedback.reward);
            known.count += 1;
        }
        joined
    }

    /// All that is said of an item, the latest first, each with its place among
    /// [all](Self::iter).
    pub(crate) fn about<'a>(
        &'a self,
        prediction: &[u8],
        caller_id: &str,
        item: u32,
    ) -> impl Iterator<Item = (usize, &'a Feedback)> + use<'a> {
        let of_item = move |(_, told): &(usize, &Feedback)| told.item.is_none_or(|own| own == item);
        let first = part(&self.by_prediction, |told| told.prediction.as_ref().cmp(prediction));
        let second = if caller_id.is_empty() {
            0..0
        } else {
            part(&self.by_caller, |told| told.caller_id.as_str().cmp(caller_id))
        };
        let behind = self.by_prediction.len();
        let mut ones = first.map(|at| (at, &self.by_prediction[at])).filter(of_item).peekable();
        let mut others =
            second.map(move |at| (behind + at, &self.by_caller[at])).filter(of_item).peekable();
        std::iter::from_fn(move || match (ones.peek(), others.peek()) {
            (Some((_, one)), Some((_, other))) if one.cmp_events(other).is_lt() => others.next(),
            (Some(_), _) => ones.next(),
            (None, _) => others.next(),
        })
    }

    /// All of it, each once.
    pub fn iter(&self) -> impl Iterator<Item = &Feedback> {
        self.by_prediction.iter().chain(&self.by_caller)
    }

    /// How much there is, each counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_prediction.len() + self.by_caller.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often something was told again.
    #[must_use]
    pub fn told_again(&self) -> usize {
        self.told_again
    }
}

/// Where those are, in a sorted list, that compare equal.
fn part(sorted: &[Feedback], compare: impl Fn(&Feedback) -> Ordering) -> std::ops::Range<usize> {
    let start = sorted.partition_point(|told| compare(told).is_lt());
    let length = sorted[start..].partition_point(|told| compare(told).is_eq());
    start..start + length
}

#[cfg(test)]
mod tests;
