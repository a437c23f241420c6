//! Predictions of the last while, so that feedback about them counts as soon as it comes.
//!
//! Whoever records a prediction puts it into a list of its thread, one behind the other, which is
//! all that calls pay for. Whoever has feedback catches up: it moves what came meanwhile into a
//! bounded table from the id of a prediction, and from that which its caller gave it, to what
//! answered it and which classes that said. Feedback that comes first waits there for its
//! prediction. What is forgotten is joined when the log is read.

mod classes;
mod series;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::Tensor;
use predlog::{Label, RowRef, Status};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use classes::Classes;
use series::AllSeries;

use super::lane::own;
use crate::config::Memory;
use crate::types::{PredictionId, Signature};

/// Lists of threads.
const LANES: usize = 64;
/// Entries of a full list.
const CHUNK: usize = 1024;
/// As a part of all entries: feedback that waits for its prediction.
const EARLY: usize = 8;
/// Tells ids of callers from those of predictions.
const OF_CALLER: u64 = 0x63_616c_6c65_7269;

/// What is remembered.
#[derive(Debug)]
pub struct Recent {
    lanes: Box<[Mutex<Vec<Entry>>]>,
    /// The oldest first.
    full: Mutex<VecDeque<Vec<Entry>>>,
    table: Mutex<Table>,
    series: AllSeries,
    horizon: Duration,
    /// Entries of the table, and of full lists.
    most: usize,
    /// Feedback that waits.
    early: AtomicUsize,
}

type Entry = (u128, Known);

#[derive(Debug, Default)]
struct Table {
    known: HashMap<u128, Known>,
    /// As they came; some have come again since.
    order: VecDeque<(u128, Instant)>,
    /// Feedback that waits, with its number.
    early: HashMap<u128, Early>,
    /// By number, as it came.
    early_order: BTreeMap<u64, (u128, Instant)>,
    next_early: u64,
}

type Early = VecDeque<(u64, Word)>;

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
        // What a refused call claims to hold is no number of items.
        let items = if row.status == Status::Answered as i32 { row.items } else { 1 };
        is_own.then_some(Self { of, signature, outputs, items })
    }
}

impl Recent {
    pub(super) fn new(memory: &Memory) -> Self {
        Self {
            lanes: (0..LANES).map(|_| Mutex::default()).collect(),
            full: Mutex::default(),
            table: Mutex::default(),
            series: AllSeries::default(),
            horizon: memory.horizon,
            most: memory.entries,
            early: AtomicUsize::new(0),
        }
    }

    /// Remembers a prediction.
    pub(super) fn remember(&self, prediction: PredictionId, caller_id: &str, seen: &Seen<'_>) {
        let (series, output) = self.series.of(seen.of, seen.signature);
        let classes = Classes::of(output, seen.outputs, seen.items);
        let known = Known { since: Instant::now(), series, classes };
        let mut lane = lock(&self.lanes[own(LANES)]);
        if !caller_id.is_empty() {
            lane.push((Target::Caller(caller_id).key(), known.clone()));
        }
        lane.push((Target::Prediction(*prediction.as_bytes()).key(), known));
        if lane.len() >= CHUNK {
            let list = std::mem::replace(&mut *lane, Vec::with_capacity(CHUNK + 1));
            drop(lane);
            let mut full = lock(&self.full);
            full.push_back(list);
            if full.len() * CHUNK > self.most.max(CHUNK) {
                let oldest = full.pop_front();
                drop(full);
                drop(oldest);
            }
        }
    }

    /// Entries that catching up takes in, roughly.
    pub fn behind(&self) -> usize {
        lock(&self.full).len() * CHUNK
    }

    /// Takes in what was recorded since the last time, and counts feedback that came before its
    /// prediction.
    pub fn catch_up(&self) {
        loop {
            let Some(list) = lock(&self.full).pop_front() else { break };
            self.take_in(list);
        }
        for lane in &self.lanes {
            let list = std::mem::take(&mut *lock(lane));
            self.take_in(list);
        }
    }

    /// Takes one list in: others that want the table wait no longer than that.
    fn take_in(&self, list: Vec<Entry>) {
        if list.is_empty() {
            return;
        }
        let mut table = lock(&self.table);
        for (key, known) in list {
            let words = table.insert(key, &known, self.horizon, self.most);
            self.early.fetch_sub(words.len(), Ordering::Relaxed);
            for (_, word) in &words {
                self.count(&known, word);
            }
        }
    }

    /// Whether feedback waits for its prediction.
    pub(super) fn has_early(&self) -> bool {
        self.early.load(Ordering::Relaxed) > 0
    }

    /// Joins feedback with its prediction, as of the last time that somebody caught up. Where that
    /// is not known, and `waits`, it is counted when the prediction comes.
    pub fn tell(&self, about: Target<'_>, word: Word, waits: bool) -> Met {
        let key = about.key();
        let now = Instant::now();
        let mut table = lock(&self.table);
        let known = table.known.get(&key).cloned();
        match known.filter(|known| now.duration_since(known.since) <= self.horizon) {
            Some(known) => {
                drop(table);
                if self.count(&known, &word) { Met::Prediction } else { Met::NoItem }
            }
            None => {
                if waits {
                    self.early.fetch_add(1, Ordering::Relaxed);
                    table.wait(key, word, now);
                    let given_up = table.give_up(now, self.horizon, self.most.div_ceil(EARLY));
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
        // Of a load that was forgotten among thousands since.
        let Some(series) = self.series.at(known.series) else { return true };
        match (&word.label, &known.classes) {
            (None, _) => {}
            (Some(_), Classes::None(_)) => series.count_unknown(concerned.len()),
            (Some(label), classes) => {
                concerned.for_each(|item| series.count_label(classes.at(item), label));
            }
        }
        if let Some(reward) = word.reward {
            series.count_reward(reward);
        }
        true
    }
}

impl Table {
    /// Takes a prediction in, and forgets what is too old or too much. Returns the feedback that
    /// has waited for it.
    fn insert(&mut self, key: u128, known: &Known, horizon: Duration, most: usize) -> Early {
        let since = known.since;
        // Lists of threads come in any order.
        if self.known.get(&key).is_none_or(|before| before.since <= since) {
            self.known.insert(key, known.clone());
            self.order.push_back((key, since));
        }
        while let Some((oldest, at)) = self.order.front().copied() {
            if self.order.len() <= most && since.saturating_duration_since(at) <= horizon {
                break;
            }
            self.order.pop_front();
            if self.known.get(&oldest).is_some_and(|known| known.since == at) {
                self.known.remove(&oldest);
            }
        }
        if self.early.is_empty() {
            return Early::new();
        }
        let words = self.early.remove(&key).unwrap_or_default();
        for (number, _) in &words {
            self.early_order.remove(number);
        }
        words
    }

    /// Has feedback wait for its prediction.
    fn wait(&mut self, key: u128, word: Word, now: Instant) {
        let number = self.next_early;
        self.next_early += 1;
        self.early.entry(key).or_default().push_back((number, word));
        self.early_order.insert(number, (key, now));
    }

    /// Lets feedback go that has waited too long, or is too much; how much that was.
    fn give_up(&mut self, now: Instant, horizon: Duration, most: usize) -> usize {
        let mut given_up = 0;
        while let Some((_, (key, since))) = self.early_order.first_key_value() {
            let (key, since) = (*key, *since);
            if self.early_order.len() <= most && now.duration_since(since) <= horizon {
                break;
            }
            self.early_order.pop_first();
            given_up += 1;
            // It is the first that waits for its prediction, too.
            if let Some(words) = self.early.get_mut(&key) {
                words.pop_front();
                if words.is_empty() {
                    self.early.remove(&key);
                }
            }
        }
        given_up
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
