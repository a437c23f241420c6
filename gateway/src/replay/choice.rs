//! Which recorded calls can be asked again, and why the others cannot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use engine::{DataType, Tensor};
use predlog::calls::{Missing, Recorded, Why};
use predlog::feedback::parse_id;
use predlog::{Row, Schema, State, Status, TensorValue};
use serde::Serialize;

use super::Replay;
use super::fit::{self, Recording};
use crate::shadow::Answer;
use crate::types::{NamedTensor, PredictionId, REPLAYED, Signature};

/// Different causes with their fields that are told apart.
const MOST_CAUSES: usize = 1000;
/// Schemas with what is missing of them that are kept.
const MOST_RECORDINGS: usize = 1024;
/// What answered where nothing ran.
const DECLARED: &str = "static";

/// Calls that were not replayed, or outputs that were not compared, for one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub cause: &'static str,
    /// `in.NAME` or `out.NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is different about the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub calls: u64,
}

/// Counts by cause.
#[derive(Debug, Default)]
pub(super) struct Causes(BTreeMap<(&'static str, String, String), u64>);

/// A call that can be asked again, with what was answered then.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) prediction: PredictionId,
    pub(super) caller_id: String,
    pub(super) inputs: Vec<NamedTensor>,
    /// Without times: those of a batch then and now are not to be compared.
    pub(super) recorded: Answer,
    /// Whether the same file ran it under the same name.
    pub(super) ran_by: RanBy,
    pub(super) inclusion: f64,
    pub(super) bytes: usize,
}

/// What ran a call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RanBy {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) file_hash: String,
    pub(super) device: String,
}

/// Decides call by call.
#[derive(Debug)]
pub(super) struct Choice {
    signature: Arc<Signature>,
    /// Inputs that the target needs, by name.
    required: Vec<String>,
    route: Option<String>,
    tolerance: Option<f64>,
    recordings: HashMap<(u64, Vec<Missing>), Arc<Recording>>,
    pub(super) skipped: Causes,
    /// Calls behind `skipped`, which may name several fields of one.
    pub(super) skipped_calls: u64,
    /// Outputs without which calls were replayed.
    pub(super) not_compared: Causes,
}

/// Why a call is not replayed: the cause, and fields with what is wrong with them.
type Reason = (&'static str, Vec<(String, String)>);

impl Causes {
    pub(super) fn add(&mut self, cause: &'static str, field: &str, detail: &str) {
        let key = (cause, field.to_owned(), detail.to_owned());
        let is_known = self.0.contains_key(&key) || self.0.len() < MOST_CAUSES;
        // What callers and files say does not take memory without end.
        let key = if is_known { key } else { (cause, String::new(), String::new()) };
        *self.0.entry(key).or_default() += 1;
    }

    pub(super) fn list(&self) -> Vec<Skipped> {
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let skipped = self.0.iter().map(|((cause, field, detail), calls)| Skipped {
            cause,
            field: text(field),
            detail: text(detail),
            calls: *calls,
        });
        let mut skipped: Vec<_> = skipped.collect();
        skipped.sort_by_key(|skipped| std::cmp::Reverse(skipped.calls));
        skipped
    }
}

impl Choice {
    pub(super) fn new(
        (signature, required): (Arc<Signature>, Vec<String>),
        replay: &Replay,
    ) -> Self {
        Self {
            signature,
            required,
            route: replay.route.clone(),
            tolerance: replay.tolerance,
            recordings: HashMap::new(),
            skipped: Causes::default(),
            skipped_calls: 0,
            not_compared: Causes::default(),
        }
    }

    /// The call as it is asked again; `None`, and counted, where that cannot be.
    pub(super) fn choose(&mut self, call: Recorded) -> Option<Ready> {
        if self.route.as_ref().is_some_and(|route| *route != call.row.route) {
            return None;
        }
        match self.ready(call) {
            Ok(ready) => Some(ready),
            Err((cause, fields)) => {
                self.skipped_calls += 1;
                if fields.is_empty() {
                    self.skipped.add(cause, "", "");
                }
                fields.iter().for_each(|(field, detail)| self.skipped.add(cause, field, detail));
                None
            }
        }
    }

    fn ready(&mut self, call: Recorded) -> Result<Ready, Reason> {
        if let Some(cause) = not_answered(&call.row) {
            return Err((cause, vec![]));
        }
        if call.lost_items > 0 {
            return Err(("items_lost", vec![]));
        }
        lacking(&call.missing)?;
        let Recorded { row, schema, mut missing, .. } = call;
        let schema = schema.ok_or(("schema_unknown", vec![]))?;
        // The same set has the same recording, in whichever order it was found.
        missing.sort_unstable();
        let recording = self.recording((row.schema, missing.clone()), &schema);
        if !recording.differing.is_empty() {
            return Err(("schema_differs", recording.differing.clone()));
        }
        if row.inputs.is_empty() && !self.signature.inputs.is_empty() {
            return Err(("input_missing", vec![]));
        }
        let tensor = |value: &TensorValue, side: &str| {
            let broken = || ("unreadable", vec![(format!("{side}.{}", value.name), String::new())]);
            tensor(value).ok_or_else(broken)
        };
        let inputs = row.inputs.iter().map(|value| {
            Ok(NamedTensor { name: value.name.clone(), tensor: tensor(value, "in")? })
        });
        let inputs = inputs.collect::<Result<Vec<_>, Reason>>()?;
        let outputs = recording.signature.outputs.iter().map(|output| {
            let name = &output.spec.name;
            let value = row.outputs.iter().find(|value| value.name == *name);
            let none = || ("output_missing", vec![(format!("out.{name}"), String::new())]);
            tensor(value.ok_or_else(none)?, "out")
        });
        let outputs = outputs.collect::<Result<Vec<_>, Reason>>()?;
        if outputs.is_empty() {
            return Err(("no_output", lost(&missing)));
        }
        for missing in missing.iter().filter(|missing| !missing.is_input) {
            self.not_compared.add(word(missing.why, false), &field(missing), "");
        }
        let bytes = inputs.iter().map(|input| &input.tensor).chain(&outputs);
        let bytes = bytes.map(|tensor| tensor.data().len()).sum();
        let signature = recording.signature.clone();
        let id: Option<[u8; 16]> = row.prediction.as_ref().try_into().ok();
        Ok(Ready {
            prediction: PredictionId::from_bytes(id.ok_or(("unreadable", vec![]))?),
            caller_id: row.caller_id,
            inputs,
            recorded: Answer { signature, outputs, time: std::time::Duration::ZERO },
            ran_by: RanBy {
                model: row.model,
                version: row.version,
                file_hash: row.file_hash,
                device: row.device,
            },
            inclusion: row.inclusion,
            bytes,
        })
    }

    /// What a schema, without what is missing, is beside the target.
    fn recording(&mut self, key: (u64, Vec<Missing>), schema: &Schema) -> Arc<Recording> {
        if let Some(known) = self.recordings.get(&key) {
            return known.clone();
        }
        if self.recordings.len() >= MOST_RECORDINGS {
            self.recordings.clear();
        }
        let recording = Arc::new(fit::recording(
            (schema, &key.1),
            (&self.signature, &self.required),
            self.tolerance,
        ));
        self.recordings.insert(key, recording.clone());
        recording
    }
}

/// Why a row is no call that a version answered for a caller.
fn not_answered(row: &Row) -> Option<&'static str> {
    if !row.shadow.is_empty() {
        return Some("shadow");
    }
    if row.amends {
        return Some("amendment");
    }
    if row.caller_id.strip_prefix(REPLAYED).and_then(parse_id).is_some() {
        return Some("replay");
    }
    match row.status() {
        Status::Answered if row.arm == DECLARED && row.version == DECLARED => Some("declared"),
        Status::Answered => None,
        Status::Replayed => Some("repeat"),
        Status::Refused => Some("refused"),
        Status::Failed => Some("failed"),
        Status::Cancelled => Some("cancelled"),
        Status::Unknown => Some("unreadable"),
    }
}

/// Refuses a call of which an input is not held; all inputs of the first cause are named.
fn lacking(missing: &[Missing]) -> Result<(), Reason> {
    let inputs = || missing.iter().filter(|missing| missing.is_input);
    let Some(why) = inputs().map(|missing| missing.why).max() else { return Ok(()) };
    let fields = inputs().filter(|missing| missing.why == why);
    Err((word(why, true), fields.map(|missing| (field(missing), String::new())).collect()))
}

fn lost(missing: &[Missing]) -> Vec<(String, String)> {
    let outputs = missing.iter().filter(|missing| !missing.is_input);
    outputs.map(|missing| (field(missing), word(missing.why, false).to_owned())).collect()
}

fn field(missing: &Missing) -> String {
    format!("{}.{}", if missing.is_input { "in" } else { "out" }, missing.tensor)
}

fn word(why: Why, is_input: bool) -> &'static str {
    match (why, is_input) {
        (Why::LeftOut, true) => "input_left_out",
        (Why::Redacted, true) => "input_redacted",
        (Why::Unfit, true) => "input_unfit",
        (Why::LeftOut, false) => "output_left_out",
        (Why::Redacted, false) => "output_redacted",
        (Why::Unfit, false) => "output_unfit",
    }
}

fn tensor(value: &TensorValue) -> Option<Tensor> {
    if value.state != State::Whole as i32 {
        return None;
    }
    let datatype: DataType = value.datatype.parse().ok()?;
    let shape = value.shape.iter().map(|size| usize::try_from(*size).ok());
    Tensor::new(datatype, shape.collect::<Option<_>>()?, value.data.clone()).ok()
}
