//! What comparing the answers of a shadow has shown so far, in bounded memory.
//!
//! Nothing here reads a clock but for the age of the figures, so the same pairs give the same
//! report, in whichever order they come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::Tensor;
use tokio::time::Instant;

use super::elements::Blocks;
use super::output::{Mismatch, OutputTally, Tensors};
use super::report::{Latency, Report, WorstPair};
use super::spread::Spread;
use super::worst::{Deviation, Worst};
use super::{Answer, Pair, Proportion, findings};
use crate::types::Signature;

/// Outputs that are compared, by name; those beyond are counted only.
const MOST_OUTPUTS: usize = 32;

/// The comparison of one shadow with what answers live.
///
/// A call with ten floats takes a fifth of a microsecond, a large tensor 3 to 6 ns for each
/// element (`cargo bench -p penstock-benches --bench shadow`), all of it under one lock:
/// compare on a thread that has time, such as that of a [`super::Comparer`].
#[derive(Debug)]
pub struct Ledger(Mutex<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    calls: u64,
    rows: u64,
    failed: u64,
    errors: BTreeMap<&'static str, u64>,
    ratio: Spread,
    live_time: Spread,
    shadow_time: Spread,
    outputs: Vec<OutputTally>,
    left_out: u64,
    worst: Worst,
    plan: Option<Plan>,
    blocks: Box<Blocks>,
}

/// Which outputs belong together, for two signatures.
#[derive(Debug)]
struct Plan {
    live: Arc<Signature>,
    shadow: Arc<Signature>,
    /// For each live output.
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    /// The place of the figures; none for an output too many.
    tally: Option<usize>,
    /// The place among the shadow's outputs.
    shadow: Option<usize>,
}

/// What comparing one pair has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Why there was no answer to compare, or what is first wrong with it.
    pub error: Option<&'static str>,
    /// The output and row that is furthest off, of those beyond the output's tolerance.
    pub off: Option<WorstPair>,
}

/// What is furthest off in a pair: the place of its output's figures, and how far.
type Off = Option<(usize, Deviation)>;

/// What the metrics show of a ledger.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gauges {
    /// The median of the shadow's time as a multiple of the live time.
    pub(super) ratio: Option<f64>,
    /// Name, agreement, mean relative difference.
    pub(super) outputs: Vec<(String, Option<f64>, Option<f64>)>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self(Mutex::new(State::new()))
    }
}

impl Ledger {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares a pair, matching outputs by name. Says whether the shadow answered at all, with
    /// every output that live has, in its shape and type.
    pub fn compare(&self, pair: &Pair) -> bool {
        self.lock().compare(pair).0.is_none()
    }

    /// As [`Ledger::compare`], and says what of this pair is furthest off.
    pub fn judge(&self, pair: &Pair) -> Judged {
        let mut state = self.lock();
        let (error, off) = state.compare(pair);
        let off = off.map(|(tally, found)| {
            let output = &state.outputs[tally];
            found.about(pair.prediction, &output.name, &output.labels)
        });
        Judged { error, off }
    }

    /// What is known so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().report()
    }

    /// Forgets everything.
    pub fn reset(&self) {
        *self.lock() = State::new();
    }

    pub(super) fn gauges(&self) -> Gauges {
        let state = self.lock();
        let outputs = state.outputs.iter().map(|output| {
            let (agreement, difference) = output.gauges();
            (output.name.clone(), agreement, difference)
        });
        Gauges { ratio: state.ratio.quantile(0.5), outputs: outputs.collect() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            calls: 0,
            rows: 0,
            failed: 0,
            errors: BTreeMap::new(),
            ratio: Spread::default(),
            live_time: Spread::default(),
            shadow_time: Spread::default(),
            outputs: vec![],
            left_out: 0,
            worst: Worst::default(),
            plan: None,
            blocks: Blocks::new(),
        }
    }

    fn compare(&mut self, pair: &Pair) -> (Option<&'static str>, Off) {
        self.calls += 1;
        let (error, off) = match &pair.shadow {
            Err(kind) => (Some(kind.label()), None),
            Ok(shadow) => {
                self.count_times(pair, shadow);
                self.compare_answers(pair, shadow)
            }
        };
        if let Some(error) = error {
            self.failed += 1;
            *self.errors.entry(error).or_default() += 1;
        }
        (error, off)
    }

    fn count_times(&mut self, pair: &Pair, shadow: &Answer) {
        let (live, shadow) = (pair.live.time.as_secs_f64(), shadow.time.as_secs_f64());
        self.live_time.add(live);
        self.shadow_time.add(shadow);
        // Without a time there is no ratio.
        if live > 0.0 && shadow > 0.0 {
            self.ratio.add(shadow / live);
        }
    }

    /// Compares output by output; what is first wrong with the shadow's answer.
    fn compare_answers(&mut self, pair: &Pair, shadow: &Answer) -> (Option<&'static str>, Off) {
        let live = &pair.live;
        let plan = match self.plan.take() {
            Some(plan) if plan.is_for(live, shadow) => plan,
            _ => self.plan(&live.signature, &shadow.signature),
        };
        let batches = live.signature.max_batch_size > 0;
        self.rows += live.outputs.first().map_or(0, |output| row_count(output, batches));
        let (mut error, mut off): (_, Off) = (None, None);
        for (index, (step, spec)) in plan.steps.iter().zip(&live.signature.outputs).enumerate() {
            let Some(tally) = step.tally else {
                self.left_out += 1;
                continue;
            };
            let Some(one) = live.outputs.get(index) else { continue };
            let Some(other) = step.shadow.and_then(|index| shadow.outputs.get(index)) else {
                error = error.or(Some("missing_output"));
                continue;
            };
            let tensors = Tensors { live: one, shadow: other, batches };
            match self.outputs[tally].compare(spec, tensors, &mut self.blocks) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    self.worst.offer(pair.prediction, tally, found);
                    if off.is_none_or(|(_, worst)| found.score > worst.score) {
                        off = Some((tally, found));
                    }
                }
                Err(Mismatch::Shape) => error = error.or(Some("wrong_shape")),
                Err(Mismatch::Datatype) => error = error.or(Some("wrong_datatype")),
            }
        }
        self.plan = Some(plan);
        (error, off)
    }

    fn plan(&mut self, live: &Arc<Signature>, shadow: &Arc<Signature>) -> Plan {
        let steps = live.outputs.iter().map(|output| {
            let name = &output.spec.name;
            let place = shadow.outputs.iter().position(|other| other.spec.name == *name);
            let known = self.outputs.iter().position(|tally| tally.name == *name);
            let tally = known.or_else(|| {
                (self.outputs.len() < MOST_OUTPUTS).then(|| {
                    self.outputs.push(OutputTally::new(output));
                    self.outputs.len() - 1
                })
            });
            if let Some((tally, place)) = tally.zip(place) {
                let labels = &shadow.outputs[place].labels;
                let both = !labels.is_empty() && !output.labels.is_empty();
                self.outputs[tally].labels_differ |= both && *labels != output.labels;
            }
            Step { tally, shadow: place }
        });
        let steps = steps.collect();
        Plan { live: live.clone(), shadow: shadow.clone(), steps }
    }

    fn report(&self) -> Report {
        let outputs: Vec<_> = self.outputs.iter().map(OutputTally::report).collect();
        let pairs = self.live_time.count();
        let latency = (pairs > 0).then(|| Latency {
            pairs,
            ratio: self.ratio.quantiles(),
            live_seconds: self.live_time.quantiles(),
            shadow_seconds: self.shadow_time.quantiles(),
        });
        let name = |index: usize| {
            let output: &OutputTally = &self.outputs[index];
            (output.name.as_str(), output.labels.as_slice())
        };
        let mut report = Report {
            verdict: super::Verdict::TooFew,
            findings: vec![],
            seconds: self.since.elapsed().as_secs_f64(),
            calls: self.calls,
            rows: self.rows,
            errors: self.errors.clone(),
            failed: Proportion::new(self.failed, self.calls),
            latency,
            outputs,
            outputs_left_out: self.left_out,
            worst: self.worst.report(name),
            lane: None,
        };
        findings::judge(&mut report);
        report
    }
}

impl Plan {
    fn is_for(&self, live: &Answer, shadow: &Answer) -> bool {
        Arc::ptr_eq(&self.live, &live.signature) && Arc::ptr_eq(&self.shadow, &shadow.signature)
    }
}

fn row_count(output: &Tensor, batches: bool) -> u64 {
    if batches { output.rows() as u64 } else { 1 }
}
