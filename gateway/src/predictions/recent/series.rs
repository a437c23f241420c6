//! What feedback is counted by: model, version and arm.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use predlog::Label;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::classes::output_of;
use crate::telemetry::FeedbackSeries;
use crate::types::Signature;

/// Series that are told apart; what comes later counts for the last one, which is `other`.
const MOST: usize = 1024;

/// All of them, each known by its index.
#[derive(Debug, Default)]
pub(super) struct AllSeries(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    /// By a hash of the names, which nobody who calls chooses.
    places: HashMap<u64, u32>,
    all: Vec<Arc<Series>>,
}

/// What feedback about the answers of one version through one arm counts for.
#[derive(Debug)]
pub(super) struct Series {
    names: [String; 3],
    /// The output that says classes.
    output: Option<usize>,
    /// What it is of, with the names of classes: another load of the version may have others.
    signature: Option<Arc<Signature>>,
    /// Appears with the first feedback.
    metrics: OnceLock<FeedbackSeries>,
}

impl AllSeries {
    /// The series of a model, version and arm, and the output that says classes.
    pub(super) fn of(
        &self,
        (model, version, arm): (&str, &str, &str),
        signature: Option<&Arc<Signature>>,
    ) -> (u32, Option<usize>) {
        let address = signature.map_or(0, |signature| Arc::as_ptr(signature).addr() as u64);
        let names = [model, version, arm];
        let hash =
            names.iter().fold(address, |hash, name| xxh3_64_with_seed(name.as_bytes(), hash));
        {
            let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = table.places.get(&hash) {
                return (*place, table.all[*place as usize].output);
            }
        }
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_last = table.all.len() + 1 >= MOST;
        let names = if is_last { ["other"; 3] } else { [model, version, arm] };
        let output = signature.and_then(|signature| output_of(signature)).filter(|_| !is_last);
        let place = if table.all.len() < MOST {
            let names = names.map(ToOwned::to_owned);
            let metrics = OnceLock::new();
            table.all.push(Arc::new(Series {
                names,
                output,
                signature: signature.cloned(),
                metrics,
            }));
            table.all.len() - 1
        } else {
            MOST - 1
        };
        let place = u32::try_from(place).unwrap_or_default();
        if !is_last {
            table.places.insert(hash, place);
        }
        (place, output)
    }

    pub(super) fn at(&self, place: u32) -> Arc<Series> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).all[place as usize].clone()
    }
}

impl Series {
    /// Counts a label beside the class that was said.
    pub(super) fn count_label(&self, class: Option<u32>, label: &Label) {
        let agrees = class.map(|class| match label {
            // A number names a class as its name does where names are numbers, else by its place.
            Label::Number(number) => {
                let name = self.name_of(class).and_then(|name| name.parse().ok());
                number.total_cmp(&name.unwrap_or(f64::from(class))).is_eq()
            }
            Label::Text(text) => match self.name_of(class) {
                Some(name) if !name.is_empty() => name == text,
                _ => text.parse() == Ok(class),
            },
        });
        self.metrics().label(agrees, 1);
    }

    fn name_of(&self, class: u32) -> Option<&String> {
        self.signature.as_ref()?.outputs.get(self.output?)?.labels.get(class as usize)
    }

    /// Counts a label of so many items of which no class was said.
    pub(super) fn count_unknown(&self, items: usize) {
        self.metrics().label(None, items as u64);
    }

    pub(super) fn count_reward(&self, reward: f64) {
        self.metrics().reward(reward);
    }

    fn metrics(&self) -> &FeedbackSeries {
        let [model, version, arm] = &self.names;
        self.metrics.get_or_init(|| FeedbackSeries::new([model, version, arm]))
    }
}
