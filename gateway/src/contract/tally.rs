//! What calls broke: counted for the metrics, and named to the caller where values are flagged.

use std::sync::{Arc, OnceLock};

use ::metrics::Counter;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Action, Rule};
use crate::telemetry::metrics;

/// What a caller reads about flagged values: `input[feature].rule=count`, separated by commas.
pub type Flags = Arc<str>;

/// Features of one input with a label of their own; those beyond share `other`.
const MOST_FEATURES: usize = 64;

/// Longest text about flagged values, in bytes: it goes into a header.
const LONGEST_FLAGS: usize = 1024;

/// What names keep of themselves in a header.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'+');

const ACTIONS: usize = Action::NAMES.len();
const RULES: [Rule; Rule::COUNT] =
    [Rule::Missing, Rule::Finite, Rule::Range, Rule::Category, Rule::Length];

/// Inputs and features as metrics name them; the index of one is its label.
#[derive(Debug, Default)]
pub(super) struct Labels(Vec<Label>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    input: String,
    /// Empty for what is about no single feature.
    feature: String,
}

impl Labels {
    /// The label of an input, or of one of its features.
    pub(super) fn add(&mut self, input: &str, feature: &str) -> usize {
        let own = |label: &&Label| label.input == input && !label.feature.is_empty();
        let is_full = !feature.is_empty() && self.0.iter().filter(own).count() >= MOST_FEATURES;
        let feature = if is_full { "other" } else { feature };
        let label = Label { input: input.to_owned(), feature: feature.to_owned() };
        self.0.iter().position(|known| *known == label).unwrap_or_else(|| {
            self.0.push(label);
            self.0.len() - 1
        })
    }
}

/// Counters of one version by label, rule and action; a series appears with its first value.
#[derive(Debug)]
pub(super) struct Counters {
    names: (String, String),
    counters: Vec<OnceLock<Counter>>,
}

impl Counters {
    pub(super) fn new(model: &str, version: &str, labels: &Labels) -> Self {
        let slots = labels.0.len() * Rule::COUNT * ACTIONS;
        let counters = std::iter::repeat_with(OnceLock::new).take(slots).collect();
        Self { names: (model.to_owned(), version.to_owned()), counters }
    }

    fn count(&self, slot: usize, labels: &Labels, values: u64) {
        let (label, rule, action) = parts(slot);
        let Label { input, feature } = &labels.0[label];
        let (model, version) = &self.names;
        let counter = self.counters[slot].get_or_init(|| {
            let values = [model, version, input, feature, rule.label(), action.label()];
            metrics::VIOLATIONS.counter(&values)
        });
        counter.increment(values);
    }
}

fn slot(label: usize, rule: Rule, action: Action) -> usize {
    (label * Rule::COUNT + rule as usize) * ACTIONS + action as usize
}

fn parts(slot: usize) -> (usize, Rule, Action) {
    let (rest, action) = (slot / ACTIONS, Action::NAMES[slot % ACTIONS].1);
    (rest / Rule::COUNT, RULES[rest % Rule::COUNT], action)
}

/// Values of one call that break a rule, by slot. Takes memory with the first one only.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<u64>);

impl Tally {
    pub(super) fn add(&mut self, label: usize, rule: Rule, action: Action) {
        let slot = slot(label, rule, action);
        if slot >= self.0.len() {
            self.0.resize(slot + 1, 0);
        }
        self.0[slot] += 1;
    }

    /// Counts what the call broke; says what was flagged.
    pub(super) fn settle(self, labels: &Labels, counters: &Counters) -> Option<Flags> {
        let mut flags = String::new();
        for (slot, values) in self.0.into_iter().enumerate().filter(|(_, values)| *values > 0) {
            counters.count(slot, labels, values);
            let (label, rule, action) = parts(slot);
            if action == Action::Flag {
                flag(&mut flags, &labels.0[label], rule, values);
            }
        }
        (!flags.is_empty()).then(|| flags.into())
    }
}

fn flag(flags: &mut String, Label { input, feature }: &Label, rule: Rule, values: u64) {
    const MORE: &str = ",more";
    if flags.ends_with(MORE) {
        return;
    }
    let input = utf8_percent_encode(input, PLAIN);
    let feature = match feature.as_str() {
        "" => String::new(),
        name => format!("[{}]", utf8_percent_encode(name, PLAIN)),
    };
    let comma = if flags.is_empty() { "" } else { "," };
    let text = format!("{comma}{input}{feature}.{}={values}", rule.label());
    let fits = flags.len() + text.len() + MORE.len() <= LONGEST_FLAGS;
    *flags += if fits { &text } else { MORE };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_capped_whatever_a_file_lists() {
        let mut labels = Labels::default();
        labels.add("x", "");
        for index in 0..1000 {
            labels.add("x", &index.to_string());
        }
        labels.add("z", "7");
        assert_eq!(labels.0.len(), 1 + MOST_FEATURES + 1 + 1);
        assert_eq!(labels.0[1 + MOST_FEATURES].feature, "other");
    }

    #[test]
    fn flags_are_short_plain_text_whatever_names_are() {
        let mut labels = Labels::default();
        let mut tally = Tally::default();
        for index in 0..60 {
            let label = labels.add("ü, =\n", &format!("{index}{}", "n".repeat(20)));
            tally.add(label, Rule::Range, Action::Flag);
            tally.add(label, Rule::Finite, Action::Impute);
        }
        let counters = Counters::new("m", "1", &labels);
        let flags = tally.settle(&labels, &counters).unwrap();
        assert!(flags.len() <= LONGEST_FLAGS && flags.ends_with(",more"), "{flags}");
        assert!(flags.starts_with("%C3%BC%2C%20%3D%0A[0nnn"), "{flags}");
        assert!(flags.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
