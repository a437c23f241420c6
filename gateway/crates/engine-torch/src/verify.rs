//! Whether another form of a module answers as the exported one does.

use engine::error::Fault;
use engine::{Batch, EngineError, ModelSource, Precision, Tensor};

use crate::compare::{difference, reduced_difference};
use crate::ffi::{Cause, Module};
use crate::run::{RunError, Shape, run};

/// A sample and the exported module's answer to it.
pub(crate) struct Reference<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) outputs: Vec<Tensor>,
}

/// Runs the samples on the exported module. What contradicts the signature fails the load; a
/// sample that the model itself refuses proves nothing, since samples are made up, and is left
/// out.
pub(crate) fn answers<'a>(
    exported: &Module,
    source: &ModelSource<'a>,
    shape: &Shape,
) -> Result<(Vec<Reference<'a>>, Vec<String>), EngineError> {
    let mut references = Vec::with_capacity(source.samples.len());
    let mut notes = Vec::new();
    for (index, batch) in source.samples.iter().enumerate() {
        match run(exported, shape, batch) {
            Ok(run) => references.push(Reference { batch, outputs: run.outputs }),
            Err(RunError::Signature(text) | RunError::Input(text)) => {
                return Err(EngineError::new(Fault::Load, text));
            }
            Err(RunError::Native(failure)) => {
                if matches!(failure.cause, Cause::Memory | Cause::Device) {
                    return Err(RunError::Native(failure).into());
                }
                notes.push(format!("sample {}: the model fails on it, left out", index + 1));
                let model = source.label;
                tracing::debug!(model, detail = failure.text, "the model fails on a sample");
            }
        }
    }
    Ok((references, notes))
}

/// Runs every sample on `module` and compares.
///
/// # Errors
/// The first difference, in words for an operator.
pub(crate) fn agrees(
    module: &Module,
    source: &ModelSource<'_>,
    shape: &Shape,
    references: &[Reference<'_>],
) -> Result<(), String> {
    let compare = match source.options.precision {
        Precision::Fp32 => difference,
        Precision::Bf16 => reduced_difference,
    };
    for reference in references {
        let run = run(module, shape, reference.batch).map_err(|error| {
            let detail = match error {
                RunError::Native(failure) => failure.text,
                RunError::Signature(text) | RunError::Input(text) => text,
            };
            tracing::debug!(model = source.label, detail, "a form of the model fails on a sample");
            "it fails on a sample that the model as exported answers".to_owned()
        })?;
        for ((expected, actual), spec) in
            reference.outputs.iter().zip(&run.outputs).zip(source.outputs)
        {
            if let Some(difference) = compare(expected, actual, source.tolerance) {
                return Err(format!("output '{}' {difference}", spec.name));
            }
        }
    }
    Ok(())
}
