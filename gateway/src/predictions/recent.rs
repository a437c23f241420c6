//! Predictions of the last while, so that feedback about them counts as soon as it comes.
//!
//! A bounded table from the id of a prediction, and from that which its caller gave it, to what
//! answered it and which classes that said. Feedback that comes first waits here for its
//! prediction. What is forgotten is joined when the log is read.

mod classes;
mod series;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::Tensor;
use predlog::{Label, RowRef, Status};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use classes::Classes;
use series::AllSeries;

use crate::config::Memory;
use crate::types::{PredictionId, Signature};

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 64;
/// As a part of all entries: feedback that waits for its prediction.
const EARLY: usize = 8;
/// Tells ids of callers from those of predictions.
const OF_CALLER: u64 = 0x63_616c_6c65_7269;

/// The table.
#[derive(Debug)]
pub struct Recent {
    shards: Box<[Mutex<Shard>]>,
    series: AllSeries,
    horizon: Duration,
    /// Entries of a shard.
    most: usize,
    /// Feedback that waits, in all shards.
    early: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    known: HashMap<u128, Known>,
    /// As they came; some have come again since.
    order: VecDeque<(u128, Instant)>,
    early: HashMap<u128, Vec<Word>>,
    early_order: VecDeque<(u128, Instant)>,
}

/// A prediction.
#[derive(Debug, Clone)]
struct Known {
    since: Instant,
    series: u32,
    classes: Classes,
}

/// What feedback says, as far as metrics go.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// `None`: all of them.
    pub item: Option<u32>,
    pub label: Option<Label>,
    pub reward: Option<f64>,
}

/// What feedback met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// Its prediction, and was counted for it.
    Prediction,
    /// Its prediction, which has no such item.
    NoItem,
    /// Nothing that is remembered.
    Nothing,
}

/// What feedback is about.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    Prediction([u8; 16]),
    /// The id that the caller gave the request, as rows have it.
    Caller(&'a str),
}

/// What is remembered of a row that is about to be handed over.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    of: (&'a str, &'a str, &'a str),
    signature: Option<&'a Arc<Signature>>,
    outputs: &'a [Tensor],
    items: u32,
}

impl<'a> Seen<'a> {
    /// `None` for rows that are no prediction of their own: those of shadows and repeats, and
    /// second ones.
    pub(super) fn of(
        row: &RowRef<'a>,
        signature: Option<&'a Arc<Signature>>,
        outputs: &'a [Tensor],
    ) -> Option<Self> {
        let is_own = row.shadow.is_empty() && !row.amends && row.status != Status::Replayed as i32;
        let of = (row.model, row.version, row.arm);
        is_own.then_some(Self { of, signature, outputs, items: row.items })
    }
}

impl Recent {
    pub(super) fn new(memory: &Memory) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            series: AllSeries::default(),
            horizon: memory.horizon,
            most: memory.entries.div_ceil(SHARDS),
            early: AtomicUsize::new(0),
        }
    }

    /// Remembers a prediction, and counts feedback that came before it.
    pub(super) fn remember(&self, prediction: PredictionId, caller_id: &str, seen: &Seen<'_>) {
        let (series, output) = self.series.of(seen.of, seen.signature);
        let classes = Classes::of(output, seen.outputs, seen.items);
        let known = Known { since: Instant::now(), series, classes };
        if !caller_id.is_empty() {
            self.insert(Target::Caller(caller_id).key(), known.clone());
        }
        self.insert(Target::Prediction(*prediction.as_bytes()).key(), known);
    }

    fn insert(&self, key: u128, known: Known) {
        let (since, early) = (known.since, &self.early);
        let mut shard = self.shard(key);
        let waiting = match early.load(Ordering::Relaxed) {
            0 => None,
            _ => shard.early.remove(&key),
        };
        let counted = waiting.as_ref().map(|_| known.clone());
        shard.known.insert(key, known);
        shard.order.push_back((key, since));
        // A little more than comes in, so that nobody ever has much to forget.
        for _ in 0..2 {
            shard.forget(since, self.horizon, self.most);
        }
        drop(shard);
        if let (Some(words), Some(known)) = (waiting, counted) {
            early.fetch_sub(words.len(), Ordering::Relaxed);
            for word in &words {
                self.count(&known, word);
            }
        }
    }

    /// Joins feedback with its prediction. Where that is not known, and `waits`, it is counted
    /// when the prediction comes.
    pub fn tell(&self, about: Target<'_>, word: Word, waits: bool) -> Met {
        let key = about.key();
        let now = Instant::now();
        let mut shard = self.shard(key);
        let known = shard.known.get(&key).cloned();
        match known.filter(|known| now.duration_since(known.since) <= self.horizon) {
            Some(known) => {
                drop(shard);
                if self.count(&known, &word) { Met::Prediction } else { Met::NoItem }
            }
            None => {
                if waits {
                    self.early.fetch_add(1, Ordering::Relaxed);
                    shard.early.entry(key).or_default().push(word);
                    shard.early_order.push_back((key, now));
                    let given_up = shard.give_up(now, self.horizon, self.most.div_ceil(EARLY));
                    self.early.fetch_sub(given_up, Ordering::Relaxed);
                }
                Met::Nothing
            }
        }
    }

    /// Counts what was said; false where there is no such item.
    fn count(&self, known: &Known, word: &Word) -> bool {
        // A call that was refused before its items were counted is one line too.
        let items = known.classes.items().max(1);
        let concerned = match word.item {
            None => 0..items,
            Some(item) if item < items => item..item + 1,
            Some(_) => return false,
        };
        let series = self.series.at(known.series);
        if let Some(label) = &word.label {
            for item in concerned {
                series.count_label(known.classes.at(item), label);
            }
        }
        if let Some(reward) = word.reward {
            series.count_reward(reward);
        }
        true
    }

    fn shard(&self, key: u128) -> MutexGuard<'_, Shard> {
        // The last bits of ids are drawn, and those of hashes are as good.
        let index = usize::from(key.to_le_bytes()[0]) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Forgets the oldest, if it is too old or one too many.
    fn forget(&mut self, now: Instant, horizon: Duration, most: usize) {
        let is_over = |(_, since): &(u128, Instant)| now.duration_since(*since) > horizon;
        if (self.order.len() > most || self.order.front().is_some_and(is_over))
            && let Some((key, since)) = self.order.pop_front()
            && self.known.get(&key).is_some_and(|known| known.since == since)
        {
            self.known.remove(&key);
        }
    }

    /// Lets feedback go that has waited too long, or is too much; how much that was.
    fn give_up(&mut self, now: Instant, horizon: Duration, most: usize) -> usize {
        let is_over = |(_, since): &(u128, Instant)| now.duration_since(*since) > horizon;
        let mut given_up = 0;
        while self.early_order.len() > most || self.early_order.front().is_some_and(is_over) {
            let Some((key, _)) = self.early_order.pop_front() else { break };
            if let Some(words) = self.early.get_mut(&key) {
                words.remove(0);
                given_up += 1;
                if words.is_empty() {
                    self.early.remove(&key);
                }
            }
        }
        given_up
    }
}

impl Target<'_> {
    fn key(self) -> u128 {
        match self {
            Self::Prediction(id) => u128::from_be_bytes(id),
            Self::Caller(text) => xxh3_128_with_seed(text.as_bytes(), OF_CALLER),
        }
    }
}

#[cfg(test)]
mod tests;
