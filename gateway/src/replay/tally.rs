//! What replayed answers are beside the recorded ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::Tensor;
use predlog::feedback::Labels;

use super::choice::{Causes, Choice, RanBy, Ready};
use super::report::{About, Asked, Example, NotReplayed, Ran, Report, Sameness, Sampling};
use super::truth::{Sides, Truth};
use super::{Replay, Target};
use crate::codec::numbers;
use crate::error::{Kind, Rejection};
use crate::shadow::{Answer, Judged, Ledger, Pair};
use crate::types::Signature;

/// Different files that ran recorded calls which are told apart.
const MOST_RAN: usize = 256;

/// Gathers what a report says.
#[derive(Debug)]
pub(super) struct Tally {
    target: Asked,
    signature: Arc<Signature>,
    ledger: Ledger,
    sameness: Sameness,
    examples: usize,
    ran: BTreeMap<RanBy, u64>,
    sampling: Sampling,
    truth: Option<Truth>,
    /// Calls that say nothing about the target: it had no room or no time.
    unanswered: Causes,
    unanswered_calls: u64,
}

impl Tally {
    pub(super) fn new(
        replay: &Replay,
        target: &Target,
        labels: Option<Labels>,
    ) -> anyhow::Result<Self> {
        let signature = target.signature().clone();
        let output = replay.label_output.as_deref();
        let labels = labels.filter(|labels| !labels.is_empty());
        let truth = labels.map(|labels| Truth::new(labels, &signature, output)).transpose()?;
        Ok(Self {
            target: target.asked(),
            signature,
            ledger: Ledger::new(),
            sameness: Sameness::default(),
            examples: replay.examples,
            ran: BTreeMap::new(),
            sampling: Sampling::default(),
            truth,
            unanswered: Causes::default(),
            unanswered_calls: 0,
        })
    }

    pub(super) fn take(&mut self, ready: Ready, result: Result<Vec<Tensor>, Rejection>) {
        let replayed = match result {
            Err(rejection) if says_nothing(rejection.kind()) => {
                self.unanswered_calls += 1;
                self.unanswered.add("not_answered", "", rejection.kind().label());
                return;
            }
            Err(rejection) => Err(rejection),
            Ok(outputs) => {
                Ok(Answer { signature: self.signature.clone(), outputs, time: Duration::ZERO })
            }
        };
        self.count_origin(&ready);
        let words = replayed.as_ref().err().map(|error| error.public_message().to_owned());
        let Ready { prediction, caller_id, recorded, ran_by, inclusion, .. } = ready;
        let pair =
            Pair { prediction, live: recorded, shadow: replayed.map_err(|error| error.kind()) };
        let judged = self.ledger.judge(&pair);
        let is_same = pair.shadow.as_ref().is_ok_and(|shadow| is_identical(&pair.live, shadow));
        self.count(&pair, &ran_by, (judged, is_same), words);
        if let Some(truth) = &mut self.truth {
            let shadow = pair.shadow.as_ref().ok();
            let sides = Sides { recorded: &pair.live, replayed: shadow, is_same };
            truth.count((prediction.as_bytes(), &caller_id), &sides, inclusion);
        }
    }

    fn count_origin(&mut self, ready: &Ready) {
        if self.ran.contains_key(&ready.ran_by) || self.ran.len() < MOST_RAN {
            *self.ran.entry(ready.ran_by.clone()).or_default() += 1;
        }
        let inclusion = ready.inclusion;
        if inclusion > 0.0 && inclusion < 1.0 {
            self.sampling.sampled_calls += 1;
            let least = self.sampling.least_inclusion.get_or_insert(1.0);
            *least = least.min(inclusion);
        }
    }

    fn count(
        &mut self,
        pair: &Pair,
        ran_by: &RanBy,
        (judged, is_same): (Judged, bool),
        words: Option<String>,
    ) {
        let Judged { error, off } = judged;
        let sameness = &mut self.sameness;
        sameness.calls += 1;
        let has_to_be = self.target.is_bound_to(ran_by);
        sameness.had_to_be_identical += u64::from(has_to_be);
        sameness.not_identical += u64::from(has_to_be && !is_same);
        let distance = match &pair.shadow {
            Ok(shadow) if !is_same => largest(&pair.live, shadow),
            _ => 0.0,
        };
        sameness.largest_difference = sameness.largest_difference.max(distance);
        match (error, &off) {
            (Some(_), _) => sameness.failed += 1,
            (None, _) if is_same => sameness.identical += 1,
            (None, None) => sameness.within_tolerance += 1,
            (None, Some(_)) => sameness.beyond_tolerance += 1,
        }
        let differs = error.is_some() || (!is_same && (off.is_some() || has_to_be));
        if !differs || sameness.first.len() >= self.examples {
            return;
        }
        let (output, row, summary) = match (error, off) {
            (Some(error), _) => (None, None, words.unwrap_or_else(|| error.replace('_', " "))),
            (None, Some(off)) => (Some(off.output), Some(off.row), off.summary),
            (None, None) => {
                (None, None, format!("not bit for bit, largest difference {distance:.3e}"))
            }
        };
        sameness.first.push(Example {
            prediction: pair.prediction.to_string(),
            recorded: format!("{}/{}", ran_by.model, ran_by.version),
            output,
            row,
            summary,
        });
    }

    pub(super) fn report(mut self, about: About, choice: Choice) -> Report {
        let mut causes = choice.skipped.list();
        causes.extend(self.unanswered.list());
        let ran = self.ran.into_iter().map(|(RanBy { model, version, file_hash, .. }, calls)| {
            let sha256 = Some(file_hash).filter(|hash| !hash.is_empty());
            Ran { model, version, sha256, calls }
        });
        let is_sampled = self.sampling.sampled_calls > 0;
        self.sampling.metrics_are_weighted = is_sampled && self.truth.is_some();
        let mut comparison = self.ledger.report();
        // Batches then and now are others.
        comparison.latency = None;
        Report {
            target: self.target,
            recorded: ran.collect(),
            sameness: self.sameness,
            comparison,
            metrics: self.truth.map(|truth| truth.report(is_sampled)),
            not_replayed: NotReplayed {
                calls: choice.skipped_calls + self.unanswered_calls,
                causes,
            },
            not_compared: choice.not_compared.list(),
            sampling: self.sampling,
            log: about.log,
            seconds: about.seconds.as_secs_f64(),
            lag_seconds: about.lag.as_secs_f64(),
        }
    }
}

impl Asked {
    /// Whether an answer has to be what it was, bit for bit.
    fn is_bound_to(&self, ran_by: &RanBy) -> bool {
        self.deterministic == Some(true)
            && self.model == ran_by.model
            && self.version.as_deref() == Some(ran_by.version.as_str())
            && self.sha256.as_deref().unwrap_or_default() == ran_by.file_hash
            && self.device.as_deref() == Some(ran_by.device.as_str())
    }
}

/// Whether a refusal is about the moment, not about the version.
fn says_nothing(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Overloaded
            | Kind::RateLimited
            | Kind::DeadlineExceeded
            | Kind::CircuitOpen
            | Kind::NotReady
            | Kind::Cancelled
    )
}

/// The outputs of both sides with the same name.
fn both<'a>(
    recorded: &'a Answer,
    replayed: &'a Answer,
) -> impl Iterator<Item = (&'a Tensor, Option<&'a Tensor>)> {
    let specs = recorded.signature.outputs.iter().zip(&recorded.outputs);
    specs.map(|(output, tensor)| {
        let all = &replayed.signature.outputs;
        let place = all.iter().position(|other| other.spec.name == output.spec.name);
        (tensor, place.and_then(|place| replayed.outputs.get(place)))
    })
}

fn is_identical(recorded: &Answer, replayed: &Answer) -> bool {
    both(recorded, replayed).all(|(one, other)| other.is_some_and(|other| one == other))
}

/// The largest difference of two finite numbers.
fn largest(recorded: &Answer, replayed: &Answer) -> f64 {
    let mut largest = 0.0_f64;
    for (one, other) in both(recorded, replayed) {
        let Some(other) = other.filter(|other| other.shape() == one.shape()) else { continue };
        let (one, other) = (numbers::to_f64(one), numbers::to_f64(other));
        let distances = one.iter().zip(&other).map(|(one, other)| (one - other).abs());
        largest = distances.filter(|distance| distance.is_finite()).fold(largest, f64::max);
    }
    largest
}
