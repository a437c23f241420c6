//! One batch through one module: bytes in, forward, checked bytes out.

use std::num::NonZeroUsize;

use engine::error::Fault;
use engine::{Batch, DataType, EngineError, ModelSource, Precision, Run, Tensor, TensorSpec};

use crate::clock::Stopwatch;
use crate::datatype::{datatype, scalar_type};
use crate::ffi::{Answer, Cause, Failure, Inputs, Module, Output};

/// Why a run gave no answer.
#[derive(Debug)]
pub(crate) enum RunError {
    /// libtorch or the model failed.
    Native(Failure),
    /// The answer is not what the signature declares; the text is fit for a caller.
    Signature(String),
    /// The batch cannot be given to this model; the text is fit for a caller.
    Input(String),
}

impl From<Failure> for RunError {
    fn from(failure: Failure) -> Self {
        if failure.cause == Cause::Answer {
            Self::Signature(failure.text)
        } else {
            Self::Native(failure)
        }
    }
}

impl From<RunError> for EngineError {
    fn from(error: RunError) -> Self {
        let failure = match error {
            RunError::Signature(text) => return Self::new(Fault::Output, text),
            RunError::Input(text) => return Self::new(Fault::Input, text),
            RunError::Native(failure) => failure,
        };
        let (fault, message) = match failure.cause {
            Cause::Memory => (Fault::Memory, "memory ran out while the model ran"),
            Cause::Device => (Fault::Device, "the device failed while the model ran"),
            Cause::Raised => (Fault::Run, "the model raised an error on this input"),
            Cause::Failed | Cause::Answer => (Fault::Run, "the model failed on this input"),
        };
        Self::new(fault, message).with_detail(failure.text)
    }
}

/// What a run needs to know of its model.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) inputs: usize,
    pub(crate) outputs: Vec<TensorSpec>,
    /// Whether the model computes in BF16, so that its outputs become the declared types.
    pub(crate) reduced: bool,
    /// Whether the calling thread does all the work of a run.
    pub(crate) on_caller: bool,
}

impl Shape {
    pub(crate) fn of(source: &ModelSource<'_>) -> Self {
        Self {
            inputs: source.inputs.len(),
            outputs: source.outputs.to_vec(),
            reduced: source.options.precision == Precision::Bf16,
            on_caller: source.device == "cpu" && source.options.threads == NonZeroUsize::MIN,
        }
    }
}

/// Runs `batch` on the calling thread and checks the answer against the declared outputs.
///
/// The inputs' types and shapes are the gateway's to check; whatever they are, memory stays safe
/// and the module answers or fails.
pub(crate) fn run(module: &Module, shape: &Shape, batch: &Batch) -> Result<Run, RunError> {
    let (expected, given) = (shape.inputs, batch.inputs().len());
    if given != expected {
        return Err(RunError::Input(format!("the model takes {expected} inputs, got {given}")));
    }
    let run = timed(module, shape, batch);
    if let Err(RunError::Native(Failure { cause: Cause::Memory, .. })) = &run {
        // The batcher goes on with less; what lies unused must not stand in its way.
        module.relieve();
    }
    run
}

fn timed(module: &Module, shape: &Shape, batch: &Batch) -> Result<Run, RunError> {
    let mut watch = Stopwatch::start();
    let arguments = fill(module, batch)?;
    let input = watch.lap();
    let answer = module.forward(arguments)?;
    let infer = watch.lap();
    let outputs = collect(answer, shape, batch.rows())?;
    Ok(Run { outputs, input, infer, output: watch.lap() })
}

/// Runs `batch` and takes whatever comes, with the model's own names.
pub(crate) fn probe(
    module: &Module,
    batch: &Batch,
) -> Result<Vec<(Option<String>, Tensor)>, RunError> {
    let mut answer = module.forward(fill(module, batch)?)?;
    (0..answer.len())
        .map(|index| {
            let name = answer.name(index);
            let output = answer.output(index, None)?;
            let Some(datatype) = datatype(output.scalar_type) else {
                let text = format!("output {index} is of a type that the protocol lacks");
                return Err(RunError::Signature(text));
            };
            let tensor = Tensor::new(datatype, output.shape, output.data)
                .map_err(|error| RunError::Signature(format!("output {index}: {error}")))?;
            Ok((name, tensor))
        })
        .collect()
}

/// Copies the batch into libtorch's memory, each piece once.
pub(crate) fn fill(module: &Module, batch: &Batch) -> Result<Inputs, RunError> {
    let mut arguments = Inputs::with_capacity(batch.inputs().len())?;
    for input in batch.inputs() {
        let Some(scalar_type) = scalar_type(input.datatype()) else {
            let text = format!("a TorchScript model takes no {} input", input.datatype());
            return Err(RunError::Input(text));
        };
        arguments.push(scalar_type, input, module)?;
    }
    arguments.move_to(module)?;
    Ok(arguments)
}

/// Puts the answer's tensors in the signature's order: a dict's by name, others by position.
fn collect(mut answer: Answer, shape: &Shape, rows: usize) -> Result<Vec<Tensor>, RunError> {
    let specs = &shape.outputs;
    let named = answer.is_named();
    if !named && answer.len() != specs.len() {
        return Err(RunError::Signature(format!(
            "the model answers with {} tensors, its signature declares {} outputs",
            answer.len(),
            specs.len()
        )));
    }
    let mut tensors = Vec::with_capacity(specs.len());
    for (position, spec) in specs.iter().enumerate() {
        let index = if named { answer.find(&spec.name) } else { Some(position) };
        let Some(index) = index else {
            let text = format!("the model's answer has no output named '{}'", spec.name);
            return Err(RunError::Signature(text));
        };
        let wanted = scalar_type(spec.datatype).filter(|_| shape.reduced);
        let output = answer.output(index, wanted)?;
        tensors.push(checked(output, spec, rows).map_err(RunError::Signature)?);
    }
    Ok(tensors)
}

/// The output as a tensor, if it is what the signature declares.
fn checked(output: Output, spec: &TensorSpec, rows: usize) -> Result<Tensor, String> {
    let name = &spec.name;
    let actual = datatype(output.scalar_type);
    if actual != Some(spec.datatype) {
        let actual = actual.map_or("of a type that the protocol lacks", DataType::name);
        return Err(format!("output '{name}' is {actual}, the signature says {}", spec.datatype));
    }
    if !spec.fits(&output.shape) {
        return Err(format!(
            "output '{name}' has shape {:?}, the signature says {:?}",
            output.shape, spec.shape
        ));
    }
    // Only a batching model is ever given more than one row.
    if rows > 1 && output.shape.first() != Some(&rows) {
        return Err(format!(
            "output '{name}' has shape {:?} for a batch of {rows}; its first dimension must be \
             the batch",
            output.shape
        ));
    }
    Tensor::new(spec.datatype, output.shape, output.data)
        .map_err(|error| format!("output '{name}' is not valid: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_bool_never_leave() {
        let spec = TensorSpec { name: "y".into(), datatype: DataType::Bool, shape: vec![-1] };
        let output =
            |data: &'static [u8]| Output { scalar_type: 11, shape: vec![2], data: data.into() };
        assert!(checked(output(&[0, 1]), &spec, 2).is_ok());
        assert_eq!(
            checked(output(&[0, 7]), &spec, 2).unwrap_err(),
            "output 'y' is not valid: BOOL element 1 is 7, only 0 and 1 are valid"
        );
    }
}
