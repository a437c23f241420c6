//! What feedback is counted by: model, version and arm.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use predlog::Label;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::classes::output_of;
use crate::telemetry::FeedbackSeries;
use crate::types::Signature;

/// Names that are told apart in metrics; what comes later is `other`.
const MOST_NAMES: usize = 1023;
/// Loads of versions that are known at a time: beyond that all are looked at anew.
const MOST: usize = 1 << BITS;
const BITS: u32 = 12;

/// All of them, each known by its place.
#[derive(Debug, Default)]
pub(super) struct AllSeries(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    /// By a hash of the names and of the signature's address, which nobody who calls chooses.
    places: HashMap<u64, u32>,
    all: Vec<Arc<Series>>,
    /// How often they were all forgotten: places are of one such time.
    begun: u32,
    /// By a hash of the names alone.
    named: HashMap<u64, Arc<FeedbackSeries>>,
    other: Option<Arc<FeedbackSeries>>,
}

/// What feedback about the answers of one load of a version through one arm counts for.
#[derive(Debug)]
pub(super) struct Series {
    /// The output that says classes.
    output: Option<usize>,
    /// What it is of, with the names of classes: another load of the version may have others. It
    /// keeps its address from becoming that of another one.
    signature: Option<Arc<Signature>>,
    metrics: Arc<FeedbackSeries>,
}

impl AllSeries {
    /// The series of a model, version and arm, and the output that says classes.
    pub(super) fn of(
        &self,
        names: (&str, &str, &str),
        signature: Option<&Arc<Signature>>,
    ) -> (u32, Option<usize>) {
        let names = [names.0, names.1, names.2];
        let address = signature.map_or(0, |signature| Arc::as_ptr(signature).addr() as u64);
        let hash = hash_of(names, address);
        {
            let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = table.places.get(&hash) {
                return (*place, table.at(*place).and_then(|series| series.output));
            }
        }
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if table.all.len() >= MOST {
            table.places.clear();
            table.all.clear();
            table.begun = table.begun.wrapping_add(1);
        }
        let output = signature.and_then(|signature| output_of(signature));
        let metrics = table.metrics(names);
        let index = u32::try_from(table.all.len()).unwrap_or_default();
        let place = table.begun << BITS | index;
        table.all.push(Arc::new(Series { output, signature: signature.cloned(), metrics }));
        table.places.insert(hash, place);
        (place, output)
    }

    /// `None` where it is forgotten.
    pub(super) fn at(&self, place: u32) -> Option<Arc<Series>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).at(place).cloned()
    }
}

impl Table {
    fn at(&self, place: u32) -> Option<&Arc<Series>> {
        let is_of_now = place >> BITS == self.begun << BITS >> BITS;
        self.all.get(place as usize % MOST).filter(|_| is_of_now)
    }

    fn metrics(&mut self, names: [&str; 3]) -> Arc<FeedbackSeries> {
        let (hash, is_full) = (hash_of(names, 0), self.named.len() >= MOST_NAMES);
        let series = |names| Arc::new(FeedbackSeries::new(names));
        match self.named.get(&hash) {
            Some(known) => known.clone(),
            None if is_full => self.other.get_or_insert_with(|| series(["other"; 3])).clone(),
            None => self.named.entry(hash).or_insert_with(|| series(names)).clone(),
        }
    }
}

fn hash_of(names: [&str; 3], seed: u64) -> u64 {
    names.iter().fold(seed, |hash, name| xxh3_64_with_seed(name.as_bytes(), hash))
}

impl Series {
    /// Counts a label beside the class that was said.
    pub(super) fn count_label(&self, class: Option<u32>, label: &Label) {
        let names = self.names();
        let name = |class: u32| names.get(class as usize);
        // A number names a class as its name does where names are numbers, else by its place. So
        // does a text that is one and no name: tables have `4.0` where something is missing in a
        // column of numbers.
        let is_number = |class: u32, number: f64| {
            let name = name(class).and_then(|name| name.parse().ok());
            number.total_cmp(&name.unwrap_or(f64::from(class))).is_eq()
        };
        let agrees = class.map(|class| match label {
            Label::Number(number) => is_number(class, *number),
            Label::Text(text) => match text.parse() {
                Ok(number) if !names.contains(text) => is_number(class, number),
                _ => name(class) == Some(text),
            },
        });
        self.metrics.label(agrees, 1);
    }

    /// Of the classes, by their place.
    fn names(&self) -> &[String] {
        let output = || self.signature.as_ref()?.outputs.get(self.output?);
        output().map_or(&[], |output| &output.labels)
    }

    /// Counts a label of so many items of which no class was said.
    pub(super) fn count_unknown(&self, items: usize) {
        self.metrics.label(None, items as u64);
    }

    pub(super) fn count_reward(&self, reward: f64) {
        self.metrics.reward(reward);
    }
}
