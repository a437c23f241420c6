//! What a replay tells; its field names are those of `penstock replay --json`.

use std::time::Duration;

use predlog::calls::Counts;
use serde::Serialize;

use super::choice::Skipped;
use crate::shadow;

/// Files that cannot be read which are named.
const MOST_DAMAGE: usize = 20;

/// What a replay has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub target: Asked,
    /// What ran the calls when they were recorded.
    pub recorded: Vec<Ran>,
    pub sameness: Sameness,
    /// Live is what was recorded, shadow what was replayed. It counts calls as they are in the
    /// log, whatever their probability to be there.
    pub comparison: shadow::Report,
    /// Where labels are known.
    pub metrics: Option<Metrics>,
    /// Calls that could not be asked again, by cause and field.
    pub not_replayed: NotReplayed,
    /// Outputs that are not held, of calls that were compared without them.
    pub not_compared: Vec<Skipped>,
    pub sampling: Sampling,
    pub log: LogRead,
    pub seconds: f64,
    /// How far the replay was behind the recorded pace at most.
    pub lag_seconds: f64,
}

/// What answered.
#[derive(Debug, Clone, Serialize)]
pub struct Asked {
    /// `here`, or `gateway`.
    pub place: &'static str,
    pub model: String,
    pub version: Option<String>,
    pub sha256: Option<String>,
    /// What it runs on; unknown of a gateway.
    pub device: Option<String>,
    /// Whether equal calls get equal bytes; unknown of a gateway.
    pub deterministic: Option<bool>,
}

/// Calls that one file ran.
#[derive(Debug, Clone, Serialize)]
pub struct Ran {
    pub model: String,
    pub version: String,
    pub sha256: Option<String>,
    pub calls: u64,
}

/// How many calls were answered as they were recorded.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sameness {
    /// Calls that were answered by both.
    pub calls: u64,
    /// Bit for bit.
    pub identical: u64,
    /// Not bit for bit, and no further off than the tolerance of the outputs.
    pub within_tolerance: u64,
    pub beyond_tolerance: u64,
    /// Recorded answers for which the replay has none, or one without the same outputs.
    pub failed: u64,
    /// Calls that had to be the same bit for bit: the same file ran them, and it is deterministic.
    pub had_to_be_identical: u64,
    /// Those of them that are not.
    pub not_identical: u64,
    /// The largest difference of two numbers.
    pub largest_difference: f64,
    /// The first calls that differ by more than they may.
    pub first: Vec<Example>,
}

/// A call that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    pub prediction: String,
    /// Model and version that it was recorded of.
    pub recorded: String,
    pub output: Option<String>,
    pub row: Option<usize>,
    /// Recorded → replayed.
    pub summary: String,
}

/// Calls that could not be asked again.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NotReplayed {
    pub calls: u64,
    /// A call may lack several fields, and is in each of their lines.
    pub causes: Vec<Skipped>,
}

/// Which part of all calls the log has.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sampling {
    /// Compared calls that were in the log with a probability below 1.
    pub sampled_calls: u64,
    pub least_inclusion: Option<f64>,
    /// Whether metrics count each call by the inverse of its probability.
    pub metrics_are_weighted: bool,
    /// Never: the comparison is of what is in the log.
    pub comparison_is_weighted: bool,
}

/// How good both answers are, where it is known what they should have been.
#[derive(Debug, Clone, Serialize)]
pub struct Metrics {
    /// Which output labels were held against.
    pub output: String,
    /// Items with a label.
    pub labelled_items: u64,
    pub accuracy: Option<Accuracy>,
    pub mean_absolute_error: Option<Errors>,
    /// By label, the most frequent first.
    pub confusion: Vec<Confusion>,
    pub reward: Option<Rewards>,
}

/// Answers that are what the label says.
#[derive(Debug, Clone, Serialize)]
pub struct Accuracy {
    pub recorded: Option<shadow::Proportion>,
    pub replayed: Option<shadow::Proportion>,
    /// Estimates for all calls, where only some are in the log.
    pub recorded_weighted: Option<f64>,
    pub replayed_weighted: Option<f64>,
}

/// Distances of numbers from the label, on average; by weight where calls were sampled.
#[derive(Debug, Clone, Serialize)]
pub struct Errors {
    pub items: u64,
    pub recorded: Option<f64>,
    pub replayed: Option<f64>,
}

/// Items of one label.
#[derive(Debug, Clone, Serialize)]
pub struct Confusion {
    pub label: String,
    pub items: u64,
    /// What was answered, the most frequent first.
    pub recorded: Vec<Count>,
    pub replayed: Vec<Count>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    pub answer: String,
    pub items: u64,
}

/// Rewards are of the recorded answers: what others would have got is not known.
#[derive(Debug, Clone, Serialize)]
pub struct Rewards {
    pub items: u64,
    pub mean: Option<f64>,
    /// Of those to which the replay gave the same answer.
    pub same_items: u64,
    pub mean_where_same: Option<f64>,
}

/// How the log was read.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LogRead {
    /// Rows of calls, those of shadows and amendments included.
    pub calls: u64,
    /// Rows that came once more.
    pub repeats: u64,
    /// Calls that were not in the order of arrival.
    pub late: u64,
    /// Files whose time was over before they were read.
    pub gone: u64,
    /// Parts of segments that cannot be read.
    pub gaps: u64,
    /// Files that cannot be read; the first of them are named.
    pub damaged: u64,
    pub damage: Vec<String>,
}

/// What there is to say of a replay beside what it compared.
#[derive(Debug)]
pub(super) struct About {
    pub(super) seconds: Duration,
    pub(super) lag: Duration,
    pub(super) log: LogRead,
}

impl LogRead {
    /// Whether all of the log that was asked for could be read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.gaps == 0 && self.damaged == 0
    }

    pub(super) fn add_damage(&mut self, text: String) {
        self.damaged += 1;
        if self.damage.len() < MOST_DAMAGE {
            self.damage.push(text);
        }
    }

    pub(super) fn end(&mut self, counts: &Counts) {
        let Counts { repeats, late, gone, gaps } = *counts;
        (self.repeats, self.late, self.gone, self.gaps) = (repeats, late, gone, gaps);
    }
}

impl Report {
    /// Whether answers are what they were, within what they may differ, and there are any.
    #[must_use]
    pub fn is_same(&self) -> bool {
        let Sameness { calls, beyond_tolerance, failed, not_identical, .. } = self.sameness;
        calls > 0 && beyond_tolerance + failed + not_identical == 0
    }
}
