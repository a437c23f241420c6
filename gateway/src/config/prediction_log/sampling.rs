//! `[prediction_log.sampling]`: which part of the calls is kept where not all are.

use std::time::Duration;

use serde::Serialize;

use crate::config::reader::Section;
use crate::config::value::Percent;

/// Parts of the calls that are kept, from 0 to 1. A call that several fit is kept with the
/// largest.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LogSampling {
    /// Of calls that nothing else fits.
    pub rate: f64,
    /// Of calls that were not answered.
    pub refusals: f64,
    /// Of calls that took longer than `slow_than`.
    pub slow: f64,
    pub slow_than: Option<Duration>,
    /// Of calls whose answer is not sure, as `confidence` says.
    pub low_confidence: f64,
    pub confidence: Option<Confidence>,
    /// Of calls of arms that have fewer callers than `small_arms_below`.
    pub small_arms: f64,
    /// A part of the callers, from 0 to 1.
    pub small_arms_below: f64,
    /// Whether less is kept while the queue is more than half full.
    pub adaptive: bool,
}

/// An answer is not sure where the largest element of an item of this output is smaller.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Confidence {
    pub output: String,
    pub below: f64,
}

impl LogSampling {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let part = |section: &mut Section<'_>, key, default| section.or(key, Percent(default)).0;
        let (output, below) =
            (section.take::<String>("confidence_output"), section.take("confidence_below"));
        let confidence = match (output, below) {
            (Some(output), Some(below)) => Some(Confidence { output, below }),
            (None, None) => None,
            (Some(_), None) => {
                section.problem("confidence_below", "is missing beside confidence_output");
                None
            }
            (None, Some(_)) => {
                section.problem("confidence_output", "is missing beside confidence_below");
                None
            }
        };
        if section.has("slow") && !section.has("slow_than") {
            section.problem("slow_than", "is missing beside slow");
        }
        if section.has("low_confidence") && confidence.is_none() {
            section.problem("confidence_output", "is missing beside low_confidence");
        }
        if confidence.as_ref().is_some_and(|confidence| !confidence.below.is_finite()) {
            section.problem("confidence_below", "must be a finite number");
        }
        let sampling = Self {
            rate: part(&mut section, "rate", 0.1),
            refusals: part(&mut section, "refusals", 1.0),
            slow: part(&mut section, "slow", 1.0),
            slow_than: section.take("slow_than"),
            low_confidence: part(&mut section, "low_confidence", 1.0),
            confidence,
            small_arms: part(&mut section, "small_arms", 1.0),
            small_arms_below: part(&mut section, "small_arms_below", 0.05),
            adaptive: section.or("adaptive", true),
        };
        section.finish();
        sampling
    }
}
