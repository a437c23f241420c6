//! What was recorded beside what is asked now: which tensors they have in common.

use std::sync::Arc;

use predlog::calls::Missing;
use predlog::{Schema, TensorSpec as Declared};

use crate::types::{OutputSpec, Signature};

/// Of outputs that the target does not have, and of models without a manifest.
const TOLERANCE: f64 = 1e-5;

/// A schema of the log, for one target.
#[derive(Debug)]
pub(super) struct Recording {
    /// Of the recorded outputs that are held, with labels and tolerances of the target's.
    pub(super) signature: Arc<Signature>,
    /// Inputs that the target does not take as they are, and why.
    pub(super) differing: Vec<(String, String)>,
}

pub(super) fn recording(
    (schema, missing): (&Schema, &[Missing]),
    (target, required): (&Signature, &[String]),
    tolerance: Option<f64>,
) -> Recording {
    let is_recorded = |name: &String| schema.inputs.iter().any(|input| input.name == *name);
    let unrecorded = required
        .iter()
        .filter(|name| !is_recorded(name))
        .map(|name| (format!("in.{name}"), "was not recorded".to_owned()));
    let differing = schema
        .inputs
        .iter()
        .filter_map(|input| Some((format!("in.{}", input.name), different(input, target)?)))
        .chain(unrecorded);
    let is_held = |output: &&Declared| {
        !missing.iter().any(|missing| !missing.is_input && missing.tensor == output.name)
    };
    let outputs = schema.outputs.iter().filter(is_held).filter_map(|output| {
        let own = target.outputs.iter().find(|own| own.spec.name == output.name);
        let datatype = output.datatype.parse().ok()?;
        let spec = engine::TensorSpec { name: output.name.clone(), datatype, shape: shape(output) };
        Some(OutputSpec {
            spec,
            labels: own.map(|own| own.labels.clone()).unwrap_or_default(),
            tolerance: tolerance.or(own.map(|own| own.tolerance)).unwrap_or(TOLERANCE),
            finite: false,
        })
    });
    let is_batched = schema.outputs.iter().any(|output| output.is_batched);
    let signature = Signature {
        inputs: vec![],
        outputs: outputs.collect(),
        max_batch_size: usize::from(is_batched),
        splits: false,
    };
    Recording { signature: Arc::new(signature), differing: differing.collect() }
}

/// With that of the batch.
fn shape(declared: &Declared) -> Vec<i64> {
    declared.is_batched.then_some(-1).into_iter().chain(declared.shape.iter().copied()).collect()
}

/// Why the target does not take an input as it was recorded.
fn different(input: &Declared, target: &Signature) -> Option<String> {
    let Some(own) = target.inputs.iter().find(|own| own.name == input.name) else {
        return Some("the version has no such input".to_owned());
    };
    if own.datatype.name() != input.datatype {
        return Some(format!("is {}, the version takes {}", input.datatype, own.datatype));
    }
    let recorded = shape(input);
    // What is variable on one side may fit, which each call shows.
    let may_fit = recorded.len() == own.shape.len()
        && recorded
            .iter()
            .zip(&own.shape)
            .all(|(one, other)| one == other || *one < 0 || *other < 0);
    (!may_fit).then(|| format!("has shape {recorded:?}, the version takes {:?}", own.shape))
}
