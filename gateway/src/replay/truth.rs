//! How good recorded and replayed answers are, where feedback says what they should have been.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Context, bail};
use engine::{DataType, Tensor};
use predlog::Label;
use predlog::feedback::Labels;

use super::report::{Accuracy, Confusion, Count, Errors, Metrics, Rewards};
use crate::codec::{finite, numbers};
use crate::shadow::{Answer, Proportion};
use crate::types::Signature;

/// Labels, and answers to each, that are told apart; all others are one.
const MOST: usize = 100;
const OTHERS: &str = "(others)";

/// The answers to a call.
#[derive(Debug)]
pub(super) struct Sides<'a> {
    pub(super) recorded: &'a Answer,
    pub(super) replayed: Option<&'a Answer>,
    pub(super) is_same: bool,
}

/// Counts answers against labels.
#[derive(Debug)]
pub(super) struct Truth {
    labels: Labels,
    output: String,
    /// Names of its classes.
    classes: Vec<String>,
    items: u64,
    right: [Right; 2],
    errors: [Mean; 2],
    reward: Mean,
    reward_where_same: Mean,
    confusion: BTreeMap<String, Answers>,
}

/// What one item was answered.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Class(usize),
    Number(f64),
    Whole(i128),
    Text(String),
    Nothing,
}

#[derive(Debug, Default, Clone, Copy)]
struct Right {
    count: u64,
    of: u64,
    weighted: Mean,
}

/// Hájek's estimator (1971): both sums are over what is in the sample, by inverse probability.
#[derive(Debug, Default, Clone, Copy)]
struct Mean {
    sum: f64,
    weight: f64,
    count: u64,
}

#[derive(Debug, Default)]
struct Answers {
    items: u64,
    given: [BTreeMap<String, u64>; 2],
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
        self.count += 1;
    }

    fn report(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.weight)
    }
}

impl Right {
    fn add(&mut self, is_right: bool, weight: f64) {
        self.count += u64::from(is_right);
        self.of += 1;
        self.weighted.add(f64::from(u8::from(is_right)), weight);
    }
}

impl Truth {
    /// For an output of the target; the first one where none is named.
    pub(super) fn new(
        labels: Labels,
        signature: &Signature,
        output: Option<&str>,
    ) -> anyhow::Result<Self> {
        let found = match output {
            None => signature.outputs.first().context("the version has no output")?,
            Some(name) => match signature.outputs.iter().find(|of| of.spec.name == name) {
                Some(found) => found,
                None => bail!("the version has no output '{name}'"),
            },
        };
        Ok(Self {
            labels,
            output: found.spec.name.clone(),
            classes: found.labels.clone(),
            items: 0,
            right: Default::default(),
            errors: Default::default(),
            reward: Mean::default(),
            reward_where_same: Mean::default(),
            confusion: BTreeMap::new(),
        })
    }

    /// Counts a call, which is known by its prediction and its caller's name for it.
    pub(super) fn count(
        &mut self,
        (prediction, caller_id): (&[u8; 16], &str),
        sides: &Sides<'_>,
        inclusion: f64,
    ) {
        let weight = if inclusion > 0.0 { 1.0 / inclusion } else { 1.0 };
        let recorded = sides.recorded;
        let Some(tensor) = output(recorded, &self.output) else { return };
        let is_batched = recorded.signature.max_batch_size > 0;
        let items = if is_batched { tensor.rows() } else { 1 };
        // Answers are looked at where something is known of them alone.
        let mut said: Option<[Vec<Said>; 2]> = None;
        for item in 0..items {
            let number = u32::try_from(item).unwrap_or(u32::MAX);
            let Some(known) = self.labels.of(prediction, caller_id, number) else { continue };
            let (label, reward) = (known.label.cloned(), known.reward);
            if let Some(reward) = reward {
                self.reward.add(reward, weight);
                if sides.is_same {
                    self.reward_where_same.add(reward, weight);
                }
            }
            let Some(label) = label else { continue };
            let said = said.get_or_insert_with(|| {
                let replayed = sides.replayed.and_then(|answer| output(answer, &self.output));
                [Some(tensor), replayed]
                    .map(|tensor| tensor.map(|tensor| answers(tensor, items)).unwrap_or_default())
            });
            self.items += 1;
            let said = [0, 1].map(|side| said[side].get(item).cloned().unwrap_or(Said::Nothing));
            self.label(&label, &said, weight);
        }
    }

    fn label(&mut self, label: &Label, said: &[Said; 2], weight: f64) {
        let is_class = said.iter().any(|said| matches!(said, Said::Class(_)));
        let text = match label {
            Label::Text(text) => match number_of(text, &self.classes).filter(|_| is_class) {
                Some(number) => class_name(number, &self.classes),
                None => text.clone(),
            },
            Label::Number(number) if is_class => class_name(*number, &self.classes),
            Label::Number(number) => number.to_string(),
        };
        for (side, said) in said.iter().enumerate() {
            if let Some(is_right) = said.is(label, &self.classes) {
                self.right[side].add(is_right, weight);
            }
            if let (Label::Number(label), Some(number)) = (label, said.number()) {
                self.errors[side].add((number - label).abs(), weight);
            }
        }
        let is_counted = said.iter().any(|said| said.is(label, &self.classes).is_some());
        if !is_counted {
            return;
        }
        let entry = bounded(&mut self.confusion, text);
        entry.items += 1;
        for (given, said) in entry.given.iter_mut().zip(said) {
            *bounded(given, said.text(&self.classes)) += 1;
        }
    }

    pub(super) fn report(self, is_sampled: bool) -> Metrics {
        let [recorded, replayed] = self.right;
        let weighted = |right: &Right| right.weighted.report().filter(|_| is_sampled);
        let accuracy = (recorded.of > 0).then(|| Accuracy {
            recorded: Proportion::new(recorded.count, recorded.of),
            replayed: Proportion::new(replayed.count, replayed.of),
            recorded_weighted: weighted(&recorded),
            replayed_weighted: weighted(&replayed),
        });
        let [recorded, replayed] = self.errors;
        let errors = (recorded.count > 0).then(|| Errors {
            items: recorded.count,
            recorded: recorded.report(),
            replayed: replayed.report(),
        });
        let mut confusion: Vec<_> = self
            .confusion
            .into_iter()
            .map(|(label, answers)| {
                let [recorded, replayed] = answers.given.map(counts);
                Confusion { label, items: answers.items, recorded, replayed }
            })
            .collect();
        confusion.sort_by_key(|confusion| Reverse(confusion.items));
        let reward = (self.reward.count > 0).then(|| Rewards {
            items: self.reward.count,
            mean: self.reward.report(),
            same_items: self.reward_where_same.count,
            mean_where_same: self.reward_where_same.report(),
        });
        Metrics {
            output: self.output,
            labelled_items: self.items,
            accuracy,
            mean_absolute_error: errors,
            confusion,
            reward,
        }
    }
}

impl Said {
    /// Whether it is what the label says; `None` where it is a measure, which is near or far.
    fn is(&self, label: &Label, classes: &[String]) -> Option<bool> {
        let same = |one: f64, other: f64| one.total_cmp(&other).is_eq();
        Some(match (self, label) {
            (Self::Number(_), Label::Number(_)) => return None,
            (Self::Nothing, _) => false,
            (Self::Class(class), Label::Text(text)) => match number_of(text, classes) {
                Some(number) => return self.is(&Label::Number(number), classes),
                None => classes.get(*class) == Some(text),
            },
            // A number names a class as its name does where names are numbers, else by its place.
            (Self::Class(class), Label::Number(number)) => {
                let name = classes.get(*class).and_then(|name| name.parse::<f64>().ok());
                same(name.unwrap_or(*class as f64), *number)
            }
            (Self::Text(said), Label::Text(text)) => said == text,
            (Self::Text(said), Label::Number(number)) => {
                said.parse().is_ok_and(|said| same(said, *number))
            }
            (Self::Number(said), Label::Text(text)) => {
                text.parse().is_ok_and(|text| same(*said, text))
            }
            (Self::Whole(said), Label::Text(text)) => text.parse() == Ok(*said),
            (Self::Whole(said), Label::Number(number)) => same(*said as f64, *number),
        })
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number).filter(|number| number.is_finite()),
            Self::Whole(number) => Some(*number as f64),
            _ => None,
        }
    }

    fn text(&self, classes: &[String]) -> String {
        match self {
            Self::Class(class) => {
                let name = classes.get(*class).filter(|name| !name.is_empty());
                name.cloned().unwrap_or_else(|| class.to_string())
            }
            Self::Number(number) => number.to_string(),
            Self::Whole(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Nothing => "(none)".to_owned(),
        }
    }
}

/// The number that a text is which is no class's name: tables have `4.0` where something is missing
/// in a column of numbers.
fn number_of(text: &str, classes: &[String]) -> Option<f64> {
    let is_name = classes.iter().any(|name| name == text);
    text.parse().ok().filter(|_| !is_name)
}

/// The class that a number names by its place, by its name, so that what was told of it as text
/// is told apart no more. Where names are numbers it is such a name itself.
fn class_name(number: f64, classes: &[String]) -> String {
    let mut places = classes.iter().zip(0_u32..);
    let found = places.find(|(_, place)| f64::from(*place).total_cmp(&number).is_eq());
    let name = found.map(|(name, _)| name);
    let is_text = |name: &&String| !name.is_empty() && name.parse::<f64>().is_err();
    name.filter(is_text).map_or_else(|| number.to_string(), Clone::clone)
}

fn output<'a>(answer: &'a Answer, name: &str) -> Option<&'a Tensor> {
    let place = answer.signature.outputs.iter().position(|output| output.spec.name == name)?;
    answer.outputs.get(place)
}

/// What each item was answered: its only value, or of several numbers the place of the largest.
fn answers(tensor: &Tensor, items: usize) -> Vec<Said> {
    let each = tensor.elements().checked_div(items).unwrap_or(0);
    if each == 0 {
        return vec![];
    }
    if tensor.datatype() == DataType::Bytes {
        let texts =
            tensor.strings().map(|text| Said::Text(String::from_utf8_lossy(text).into_owned()));
        return if each == 1 { texts.collect() } else { vec![] };
    }
    if !finite::has_floats(tensor.datatype()) && each == 1 {
        return numbers::to_integers(tensor).into_iter().flatten().map(Said::Whole).collect();
    }
    let values = numbers::to_f64(tensor);
    values
        .chunks(each)
        .map(|values| match values {
            [one] => Said::Number(*one),
            several if several.iter().any(|value| value.is_nan()) => Said::Nothing,
            several => {
                // The first of the largest, as shadows have it.
                let best = (1..several.len()).fold(0, |best, index| {
                    if several[index] > several[best] { index } else { best }
                });
                Said::Class(best)
            }
        })
        .collect()
}

/// The entry of a key, or that of all others where there are enough.
fn bounded<T: Default>(map: &mut BTreeMap<String, T>, key: String) -> &mut T {
    let is_known = map.contains_key(&key) || map.len() < MOST;
    map.entry(if is_known { key } else { OTHERS.to_owned() }).or_default()
}

fn counts(given: BTreeMap<String, u64>) -> Vec<Count> {
    let mut counts: Vec<_> =
        given.into_iter().map(|(answer, items)| Count { answer, items }).collect();
    counts.sort_by_key(|count| Reverse(count.items));
    counts
}

#[cfg(test)]
mod tests;
