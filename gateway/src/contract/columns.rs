//! Rules by place in the last dimension, for every kind of values alike.

use engine::DataType;

use super::tally::Labels;
use super::terms::{InputTerms, LAST_FEATURE, Report, Terms};

/// Where rules hold: in a message behind the name of the input, and in metrics.
#[derive(Debug, Clone, Default)]
pub(super) struct Spot {
    pub(super) place: String,
    pub(super) label: usize,
}

/// The rules of one input.
#[derive(Debug)]
pub(super) struct Columns<S> {
    pub(super) wide: S,
    /// By place in the last dimension, up to the last one that has rules of its own.
    pub(super) own: Vec<S>,
}

/// Builds the rules of the input of this name, each by `build` from its terms; what is wrong with
/// them is reported under the given prefix.
pub(super) fn columns<S: Clone>(
    (name, datatype): (&str, DataType),
    terms: &InputTerms,
    (labels, report): (&mut Labels, &mut Report),
    build: impl Fn(&Terms, Spot, (&str, &mut Report)) -> S,
) -> Columns<S> {
    let before = report.0.len();
    let spot = Spot { place: String::new(), label: labels.add(name, "") };
    let wide = build(&terms.wide, spot, ("", report));
    // What is wrong for the whole input is said once.
    let is_sound = report.0.len() == before;
    let mut own: Vec<S> = Vec::new();
    for (position, feature) in terms.features.iter().enumerate() {
        let prefix = format!("feature[{position}].");
        let mut found = Report::default();
        let merged = terms.of(feature, datatype);
        let spot = Spot { place: feature.place(), label: labels.add(name, &feature.label()) };
        let scope = build(&merged, spot, (&prefix, &mut found));
        if is_sound {
            report.0.append(&mut found.0);
        }
        // An index beyond the input is a problem, not a reason to take memory.
        if feature.index <= LAST_FEATURE {
            own.resize(own.len().max(feature.index + 1), wide.clone());
            own[feature.index] = scope;
        }
    }
    Columns { wide, own }
}
