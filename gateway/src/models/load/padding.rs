//! Before calls of different lengths may share batches: padding must not change answers.

use engine::{Batch, Model, Tensor};

use super::failure::{LoadFailure, describe};
use crate::batching::{Failure, VariableLength};
use crate::codec::numbers;
use crate::models::Manifest;
use crate::models::sample;

/// Runs a short call alone, and beside one as long as each bucket; its answers must agree within
/// each output's tolerance.
///
/// # Errors
/// Which output padding changes, and by how much.
pub(super) fn check(model: &dyn Model, manifest: &Manifest) -> Result<(), LoadFailure> {
    let Some(variable) = &manifest.batching.variable else { return Ok(()) };
    let mut lengths: Vec<usize> = variable.buckets.clone();
    // A first bucket of 1 has nothing shorter to be padded.
    let short = lengths[0].div_ceil(2);
    lengths.retain(|&length| length > short);
    let alone = sample::of_length(manifest, short)?;
    let expected = run(model, &Batch::single(&alone, 1))?;
    for length in lengths {
        let beside = sample::of_length(manifest, length)?;
        let (batch, padded) = variable.batch(&[&alone, &beside], &[short, length]);
        let outputs = run(model, &batch)?;
        let first = outputs.iter().map(|output| output.split_rows(&[1, output.rows() - 1]));
        let first = first.filter_map(|pieces| pieces.into_iter().next()).collect();
        compare(manifest, variable, &expected, (first, padded, short))?;
    }
    Ok(())
}

fn run(model: &dyn Model, batch: &Batch) -> Result<Vec<Tensor>, LoadFailure> {
    let run = model.run(batch).map_err(Failure::Engine);
    let outputs = run.map_err(|failure| describe("a run to check padding", failure))?.outputs;
    match outputs.iter().find(|output| output.rows() != batch.rows()) {
        None => Ok(outputs),
        Some(output) => Err(LoadFailure::new(format!(
            "a run to check padding: an output has {} rows for {}",
            output.rows(),
            batch.rows()
        ))),
    }
}

fn compare(
    manifest: &Manifest,
    variable: &VariableLength,
    expected: &[Tensor],
    (outputs, padded, length): (Vec<Tensor>, usize, usize),
) -> Result<(), LoadFailure> {
    let outputs = variable.cut(outputs, padded, length);
    for ((spec, expected), output) in manifest.signature.outputs.iter().zip(expected).zip(&outputs)
    {
        numbers::compare(expected, output, spec.tolerance).map_err(|difference| {
            LoadFailure::new(format!(
                "batching.variable: padding from {length} to {padded} changes output '{}', it \
                 {difference}; the model has to ignore what is padded, and 'mask' to name its mask",
                spec.spec.name
            ))
        })?;
    }
    Ok(())
}
