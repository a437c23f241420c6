//! What the log keeps of a call until it has ended, and the row that becomes of it.

mod inputs;
mod parts;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use engine::Tensor;
use predlog::feedback::parse_id;
use predlog::{RowRef, Status};
use tokio::time::Instant;

use parts::{List, most_bytes};

use super::recent;
use super::redact::{self, Hasher};
use super::sample::{self, Facts};
use super::schema::{Known, Plan, fits};
use super::segments::wall_us;
use super::settings::{Rule, Settings};
use super::{PredictionLog, Refusal, Ticket};
use crate::codec::numbers;
use crate::config::{Guarantee, SliceSource};
use crate::types::{Call, Deadline, Inputs, PredictionId, REPLAY_HEADER, REPLAYED, Signature};

/// Longest part of a text that a caller chose, in bytes.
const LONGEST_TEXT: usize = 1024;

/// What is kept of a call. Whatever it holds has gone through the log's rules, but for tensors,
/// which do so when the row is made.
#[derive(Debug)]
pub struct Notes {
    log: Arc<PredictionLog>,
    settings: Arc<Settings>,
    guarantee: Guarantee,
    prediction: PredictionId,
    arrived_us: i64,
    protocol: &'static str,
    /// Where the call stands among all that sampling chooses from.
    place: u64,
    text: String,
    caller_id: Range<usize>,
    idempotency_key: Range<usize>,
    sticky_key: Range<usize>,
    identity: Range<usize>,
    /// By index in the settings.
    slices: Vec<(usize, Range<usize>)>,
    inputs: Option<Inputs>,
}

/// What the log is told about a call at its beginning.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub prediction: PredictionId,
    /// What the route of the name that was called says; `None`: nothing.
    pub guarantee: Option<Guarantee>,
    /// What keeps the caller with its arm.
    pub sticky_key: Option<&'a [u8]>,
}

/// Names of the scalars of each input and of each output; empty where they have none.
pub type Names = [Vec<Vec<String>>; 2];

/// What ran a call, for the schema of its row.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    /// What took the inputs, or would have: its rules hold for them whoever answers.
    pub model: &'a str,
    /// What declares the inputs.
    pub inputs: &'a Arc<Signature>,
    /// What declares the outputs: another one where the answer is not from what took the inputs.
    pub outputs: &'a Arc<Signature>,
    /// Asked once for each schema.
    pub names: &'a dyn Fn() -> Names,
}

impl std::fmt::Debug for Of<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Of").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Which tensors a row has.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    pub has_inputs: bool,
    /// In the signature's order.
    pub outputs: &'a [Tensor],
}

impl Notes {
    /// Takes down what a call is; `None` where it is not to be in the log.
    #[must_use]
    pub fn take(log: &Arc<PredictionLog>, call: &Call, about: About<'_>) -> Option<Self> {
        let settings = log.settings();
        let guarantee = about.guarantee.unwrap_or(settings.guarantee);
        if guarantee == Guarantee::Off {
            return None;
        }
        let waited = i64::try_from(call.arrived.elapsed().as_micros()).unwrap_or(i64::MAX);
        let mut text = String::new();
        let identity = call.caller.identity.known_name().map(str::as_bytes);
        let key = call.key.as_ref().map(|key| key.as_str());
        // Replays are told from calls of callers by this, which holds nothing of theirs.
        let of_caller = if is_replay(call) { &Rule::KEEP } else { &settings.caller_id };
        let mut kept = |rule: &Rule, value: Option<&str>| noted(&mut text, rule, value);
        let caller_id = kept(of_caller, call.id.as_deref());
        let idempotency_key = kept(&settings.idempotency_key, key);
        let slices = settings.slices.iter().enumerate().filter_map(|(index, (slice, rule))| {
            let value = match &slice.source {
                SliceSource::Header(name) => call.headers.get(name)?.to_str().ok(),
                SliceSource::Parameter(name) => call.parameter(name),
            };
            let range = kept(rule, value);
            (!range.is_empty()).then_some((index, range))
        });
        let slices = slices.collect();
        let mut hashed = |hasher: Option<&Hasher>, value: Option<&[u8]>| {
            let start = text.len();
            if let (Some(hasher), Some(value)) = (hasher, value) {
                hasher.write(value, &mut text);
            }
            start..text.len()
        };
        let sticky_key = hashed(settings.sticky_key.as_ref(), about.sticky_key);
        let identity = hashed(settings.identity.as_ref(), identity);
        let prediction = about.prediction;
        Some(Self {
            log: log.clone(),
            guarantee,
            prediction,
            arrived_us: wall_us().saturating_sub(waited),
            protocol: call.protocol.label(),
            place: sample::place(about.sticky_key.unwrap_or_else(|| prediction.as_bytes())),
            text,
            caller_id,
            idempotency_key,
            sticky_key,
            identity,
            slices,
            inputs: None,
            settings,
        })
    }

    /// Whether the call is answered only once its row is written.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.guarantee == Guarantee::Durable
    }

    #[must_use]
    pub fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    #[must_use]
    pub fn log(&self) -> &Arc<PredictionLog> {
        &self.log
    }

    /// Until when the call waits for its row.
    #[must_use]
    pub fn commit_until(&self, deadline: Option<Deadline>) -> Instant {
        let latest = Instant::now() + self.settings.commit_timeout;
        deadline.map_or(latest, |Deadline(at)| at.min(latest))
    }

    /// Keeps the inputs as the caller sent them.
    pub fn keep_inputs(&mut self, inputs: &Inputs) {
        self.inputs = Some(inputs.clone());
    }

    /// The same for a row that nobody waits for: what a shadow makes of the call.
    /// Where calls are sampled it has the inputs, too: the row of the live call may be left out.
    #[must_use]
    pub fn unhurried(&self) -> Self {
        let guarantee = match self.guarantee {
            Guarantee::Durable => Guarantee::Lossy,
            other => other,
        };
        Self {
            log: self.log.clone(),
            settings: self.settings.clone(),
            guarantee,
            text: self.text.clone(),
            caller_id: self.caller_id.clone(),
            idempotency_key: self.idempotency_key.clone(),
            sticky_key: self.sticky_key.clone(),
            identity: self.identity.clone(),
            slices: self.slices.clone(),
            inputs: self.inputs.clone().filter(|_| guarantee == Guarantee::Sampled),
            ..*self
        }
    }

    /// Records a call that has ended. What finds no room is dropped and counted.
    pub fn record(&self, row: RowRef<'_>, of: Option<Of<'_>>, mut sides: Sides<'_>) {
        let Some(row) = self.sampled(row, of, sides) else {
            return self.log.shared.metrics.unsampled.increment(1);
        };
        // The live call is kept by the same part, with its inputs.
        sides.has_inputs &= row.shadow.is_empty() || row.stratum != sample::REST;
        match self.push(row, of, sides) {
            Ok(_) => {}
            Err(refusal) => self.log.lost(refusal),
        }
    }

    /// Puts a row into the lane of this thread. All that the notes hold is filled in. It is
    /// remembered for feedback, where that is so configured.
    ///
    /// # Errors
    /// Why it is not there.
    pub fn push(
        &self,
        row: RowRef<'_>,
        of: Option<Of<'_>>,
        sides: Sides<'_>,
    ) -> Result<Ticket, Refusal> {
        let Some(recent) = self.log.recent() else { return self.push_row(row, of, sides) };
        let seen = recent::Seen::of(&row, of.map(|of| of.outputs), sides.outputs);
        let ticket = self.push_row(row, of, sides)?;
        if let Some(seen) = seen {
            recent.remember(self.prediction, &self.text[self.caller_id.clone()], &seen);
        }
        Ok(ticket)
    }

    fn push_row(
        &self,
        row: RowRef<'_>,
        of: Option<Of<'_>>,
        sides: Sides<'_>,
    ) -> Result<Ticket, Refusal> {
        let known = of.map(|of| self.known(of));
        let slices: Vec<_> = self
            .slices
            .iter()
            .map(|(index, range)| {
                (self.settings.slices[*index].0.name(), &self.text[range.clone()])
            })
            .collect();
        let mut row = self.filled(row);
        row.slices = &slices;
        let Some(known) = &known else { return self.hand_over(&row, None) };
        row.schema = known.id.0;
        let (given, unfit) = match sides.has_inputs {
            true => self.given(&known.inputs),
            false => (vec![], vec![]),
        };
        let mut outputs = Vec::with_capacity(sides.outputs.len());
        let specs = known.outputs.outputs.iter().map(|output| &output.spec);
        for (index, (spec, tensor)) in specs.zip(sides.outputs).enumerate() {
            if fits(spec, tensor) {
                outputs.push((index, tensor));
            }
        }
        let given: Vec<_> = given.iter().map(|(index, tensor)| (*index, tensor.as_ref())).collect();
        let changed = [self.changed(known, 0, &given), self.changed(known, 1, &outputs)];
        let total: usize = given.iter().chain(&outputs).map(|(_, t)| t.data().len()).sum();
        let limit = match total > self.settings.row_limit {
            true => 0,
            false => self.settings.tensor_limit,
        };
        let specs = &known.inputs.inputs;
        let inputs =
            List::new(&given, |index| &specs[index], (&known.rules[0], &changed[0]), limit)
                .with(&unfit);
        let specs = &known.outputs.outputs;
        let outputs =
            List::new(&outputs, |index| &specs[index].spec, (&known.rules[1], &changed[1]), limit);
        let row = RowRef { inputs: inputs.all(), outputs: outputs.all(), ..row };
        self.hand_over(&row, Some(known))
    }

    /// The row with what the notes hold.
    fn filled<'a>(&'a self, row: RowRef<'a>) -> RowRef<'a> {
        let text = |range: &Range<usize>| &self.text[range.clone()];
        let is_sampled = !row.stratum.is_empty();
        RowRef {
            prediction: *self.prediction.as_bytes(),
            arrived_us: self.arrived_us,
            protocol: self.protocol,
            caller_id: text(&self.caller_id),
            idempotency_key: text(&self.idempotency_key),
            sticky_key: text(&self.sticky_key),
            identity: text(&self.identity),
            inclusion: if is_sampled { row.inclusion } else { 1.0 },
            stratum: if is_sampled { row.stratum } else { "all" },
            ..row
        }
    }

    fn hand_over(&self, row: &RowRef<'_>, known: Option<&Arc<Known>>) -> Result<Ticket, Refusal> {
        let shared = &self.log.shared;
        let is_owed = row.amends && self.is_durable();
        let taken = shared.lanes.push((self.guarantee, known), (most_bytes(row), is_owed), |out| {
            row.encode(out);
        });
        let (ticket, is_full) = taken?;
        if is_full {
            shared.bell.ring();
        } else {
            shared.bell.nudge();
        }
        Ok(ticket)
    }

    /// The row, if sampling keeps it, with how likely that was.
    fn sampled<'a>(
        &self,
        mut row: RowRef<'a>,
        of: Option<Of<'_>>,
        sides: Sides<'_>,
    ) -> Option<RowRef<'a>> {
        if self.guarantee != Guarantee::Sampled {
            return Some(row);
        }
        let answered = [Status::Answered as i32, Status::Replayed as i32];
        let facts = Facts {
            is_refused: !answered.contains(&row.status),
            total: Duration::from_micros(row.total_us),
            is_unsure: of.is_some_and(|of| self.is_unsure(of.outputs, sides.outputs)),
            propensity: row.propensity,
        };
        let fill = self.log.shared.lanes.room.fill();
        let kept = sample::decide(&self.settings.sampling, self.place, &facts, fill)?;
        (row.inclusion, row.stratum) = (kept.inclusion, kept.stratum);
        Some(row)
    }

    /// Whether the largest element of any item is below what makes an answer sure.
    fn is_unsure(&self, signature: &Signature, outputs: &[Tensor]) -> bool {
        let Some(confidence) = &self.settings.sampling.confidence else { return false };
        let Ok(index) = signature.output_index(&confidence.output) else { return false };
        let Some(tensor) = outputs.get(index) else { return false };
        let rows = if signature.max_batch_size > 0 { tensor.rows() } else { 1 };
        let elements = numbers::to_f64(tensor);
        let size = (elements.len() / rows.max(1)).max(1);
        let largest = |item: &[f64]| item.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        elements.chunks(size).any(|item| largest(item) < confidence.below)
    }

    fn known(&self, of: Of<'_>) -> Arc<Known> {
        self.settings.schemas.of(of, &self.settings.tensors)
    }

    /// What becomes of the tensors of a side that rules change, in their order; nothing where no
    /// rule changes any.
    fn changed(
        &self,
        known: &Known,
        side: usize,
        given: &[(usize, &Tensor)],
    ) -> Vec<Option<Vec<u8>>> {
        if !known.has_rules() {
            return vec![];
        }
        let name = |index: usize| match side {
            0 => format!("in.{}", known.inputs.inputs[index].name),
            _ => format!("out.{}", known.outputs.outputs[index].spec.name),
        };
        let change = |(index, tensor): &(usize, &Tensor)| match &known.rules[side][*index] {
            Plan::Keep => None,
            plan => {
                let hasher = self.settings.hasher.as_ref().map(|hasher| hasher.of(&name(*index)));
                redact::tensor(plan, tensor, hasher.as_ref()).map(Cow::into_owned)
            }
        };
        given.iter().map(change).collect()
    }
}

/// Whether a call is one that was recorded and is sent anew: it is called after that prediction,
/// and says so.
fn is_replay(call: &Call) -> bool {
    let Some(of) = call.headers.get(REPLAY_HEADER).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let id = call.id.as_deref().and_then(|id| id.strip_prefix(REPLAYED));
    id == Some(of) && parse_id(of).is_some()
}

/// Keeps a text behind what `out` holds, as a rule leaves it; where.
pub(super) fn noted(out: &mut String, rule: &Rule, value: Option<&str>) -> Range<usize> {
    let start = out.len();
    if let Some(value) = value {
        let value = &value[..value.floor_char_boundary(LONGEST_TEXT)];
        if !redact::text(rule.how, value, rule.hasher.as_ref(), out) {
            out.truncate(start);
        }
    }
    start..out.len()
}

#[cfg(test)]
mod tests;
