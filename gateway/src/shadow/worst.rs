//! The predictions that disagree most: by name, never by what was asked.

use super::report::WorstPair;
use crate::types::PredictionId;

/// Predictions kept.
pub(super) const MOST: usize = 20;

/// How far a shadow is off for one prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Deviation {
    /// 2: not finite where live is; 1 and more: another label or value; below 1: the difference
    /// as a part of the largest live magnitude.
    pub(super) score: f64,
    pub(super) row: usize,
    pub(super) what: What,
}

impl Deviation {
    /// As reports have it; `labels` are the names of the output's classes.
    pub(super) fn about(
        self,
        prediction: PredictionId,
        output: &str,
        labels: &[String],
    ) -> WorstPair {
        let Self { score, row, what } = self;
        let (prediction, summary) = (prediction.to_string(), what.summary(labels));
        WorstPair { prediction, output: output.to_owned(), row, score, summary }
    }
}

/// In which way it is off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    NotFinite,
    Label { live: u32, shadow: Option<u32>, difference: f64 },
    Difference { largest: f64, relative: f64 },
    Unequal,
    Value { live: i128, shadow: i128 },
}

#[derive(Debug)]
struct Entry {
    prediction: PredictionId,
    output: usize,
    deviation: Deviation,
}

/// The worst ones, the worst first.
#[derive(Debug, Default)]
pub(super) struct Worst(Vec<Entry>);

impl Worst {
    /// Keeps a prediction if it is among the worst.
    pub(super) fn offer(&mut self, prediction: PredictionId, output: usize, found: Deviation) {
        let is_worse = |entry: &Entry| {
            let order = found.score.total_cmp(&entry.deviation.score);
            order.then(entry.prediction.cmp(&prediction)).is_gt()
        };
        let place = self.0.iter().position(is_worse).unwrap_or(self.0.len());
        if place < MOST {
            self.0.insert(place, Entry { prediction, output, deviation: found });
            self.0.truncate(MOST);
        }
    }

    /// As the report has them; `name` gives the output's name and the names of its classes.
    pub(super) fn report<'a>(
        &self,
        name: impl Fn(usize) -> (&'a str, &'a [String]),
    ) -> Vec<WorstPair> {
        let entries = self.0.iter().map(|entry| {
            let (output, labels) = name(entry.output);
            entry.deviation.about(entry.prediction, output, labels)
        });
        entries.collect()
    }
}

/// What a class is called: its declared name, or its number.
pub(super) fn class_name(labels: &[String], class: u32) -> String {
    let declared = usize::try_from(class).ok().and_then(|class| labels.get(class));
    declared.filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| class.to_string())
}

impl What {
    fn summary(self, labels: &[String]) -> String {
        match self {
            Self::NotFinite => "NaN or infinity where live is finite".to_owned(),
            Self::Label { live, shadow, difference } => {
                let shadow =
                    shadow.map_or_else(|| "none".to_owned(), |class| class_name(labels, class));
                let live = class_name(labels, live);
                format!("{live} → {shadow}, largest difference {difference:.3e}")
            }
            Self::Difference { largest, relative } => {
                format!("largest difference {largest:.3e}, {relative:.3e} of the magnitude")
            }
            Self::Unequal => "not equal".to_owned(),
            Self::Value { live, shadow } => format!("{live} → {shadow}"),
        }
    }
}
