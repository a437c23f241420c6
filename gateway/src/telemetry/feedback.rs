//! Metric handles of feedback.

use std::sync::OnceLock;

use ::metrics::{Counter, Gauge};

use super::metrics;

/// What became of feedback when it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackOutcome {
    /// It met its prediction.
    Matched,
    /// Its prediction is so young that it may not be known yet.
    Early,
    /// Its prediction is older than what is remembered.
    Late,
    /// It was told before.
    Duplicate,
    /// No prediction, or item, that is remembered is the one it names.
    Unmatched,
    /// Nothing is remembered that it could meet.
    Stored,
    /// It is malformed, or could not be written.
    Refused,
}

impl FeedbackOutcome {
    pub const ALL: [Self; 7] = [
        Self::Matched,
        Self::Early,
        Self::Late,
        Self::Duplicate,
        Self::Unmatched,
        Self::Stored,
        Self::Refused,
    ];

    /// Its word in metrics and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Early => "early",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::Unmatched => "unmatched",
            Self::Stored => "stored",
            Self::Refused => "refused",
        }
    }
}

/// Counters of feedback by outcome.
#[derive(Debug)]
pub struct FeedbackMetrics([Counter; FeedbackOutcome::ALL.len()]);

impl FeedbackMetrics {
    #[must_use]
    pub fn new() -> Self {
        Self(FeedbackOutcome::ALL.map(|outcome| metrics::FEEDBACK.counter(&[outcome.word()])))
    }

    pub fn count(&self, outcome: FeedbackOutcome, times: usize) {
        self.0[outcome as usize].increment(times as u64);
    }
}

impl Default for FeedbackMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What feedback says of the answers of a version through an arm; each series appears with its
/// first value.
#[derive(Debug)]
pub struct FeedbackSeries {
    names: [String; 3],
    labels: [OnceLock<Counter>; 3],
    rewards: OnceLock<(Counter, Gauge)>,
}

impl FeedbackSeries {
    /// Of a model, version and arm.
    #[must_use]
    pub fn new(names: [&str; 3]) -> Self {
        Self {
            names: names.map(ToOwned::to_owned),
            labels: Default::default(),
            rewards: OnceLock::new(),
        }
    }

    /// Counts a label of so many items; `None` where the answer said no class.
    pub fn label(&self, agrees: Option<bool>, items: u64) {
        let (index, word) = match agrees {
            Some(true) => (0, "yes"),
            Some(false) => (1, "no"),
            None => (2, "unknown"),
        };
        let [model, version, arm] = &self.names;
        let series = || metrics::FEEDBACK_LABELS.counter(&[model, version, arm, word]);
        self.labels[index].get_or_init(series).increment(items);
    }

    pub fn reward(&self, reward: f64) {
        let [model, version, arm] = &self.names;
        let (count, sum) = self.rewards.get_or_init(|| {
            let names = [model.as_str(), version, arm];
            (metrics::FEEDBACK_REWARDS.counter(&names), metrics::FEEDBACK_REWARD_SUM.gauge(&names))
        });
        count.increment(1);
        sum.increment(reward);
    }
}
