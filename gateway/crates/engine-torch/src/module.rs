//! From a file to a checked module: load, compare with the signature, choose the graph.

use engine::error::Fault;
use engine::{Batch, DataType, EngineError, Model, ModelSource, Run, Tensor, TensorSpec};

use crate::ffi::{Argument, Cause, Failure, Module};
use crate::graph::Forms;
use crate::run::Shape;
use crate::{archive, graph, run};

/// A loaded TorchScript module.
#[derive(Debug)]
pub(crate) struct TorchModel {
    forms: Forms,
    shape: Shape,
    notes: Vec<String>,
    device_bytes: Option<u64>,
}

impl TorchModel {
    /// Loads `source` onto the CPU, or onto the CUDA device of this index.
    pub(crate) fn load(source: &ModelSource<'_>, cuda: Option<u8>) -> Result<Self, EngineError> {
        check_types(source)?;
        let allocated = || crate::engine::memory(cuda).map_or(0, |memory| memory.allocated);
        let before = allocated();
        let exported = read(source, cuda)?;
        check_arguments(&exported.arguments(), source.inputs)?;
        let shape = Shape::of(source);
        let (forms, mut notes) = graph::prepare(exported, source, &shape)?;
        let threads = source.options.threads.get();
        if threads > 1 {
            notes.push(format!("threads: {threads}"));
        }
        let device_bytes = cuda.map(|_| allocated().saturating_sub(before));
        Ok(Self { forms, shape, notes, device_bytes })
    }
}

impl Model for TorchModel {
    fn run(&self, batch: &Batch) -> Result<Run, EngineError> {
        Ok(self.forms.run(&self.shape, batch)?)
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn device_bytes(&self) -> Option<u64> {
        self.device_bytes
    }
}

/// Loads `source` as it is and runs it once; its outputs come with the names the model has.
pub(crate) fn probe(
    source: &ModelSource<'_>,
    cuda: Option<u8>,
    batch: &Batch,
) -> Result<Vec<(Option<String>, Tensor)>, EngineError> {
    check_types(source)?;
    let module = read(source, cuda)?;
    check_arguments(&module.arguments(), source.inputs)?;
    Ok(run::probe(&module, batch)?)
}

fn read(source: &ModelSource<'_>, cuda: Option<u8>) -> Result<Module, EngineError> {
    Module::load(source.file, cuda, source.options.threads)
        .map_err(|failure| refused(failure, source))
}

fn check_types(source: &ModelSource<'_>) -> Result<(), EngineError> {
    let bytes =
        source.inputs.iter().chain(source.outputs).find(|spec| spec.datatype == DataType::Bytes);
    match bytes {
        Some(spec) => Err(EngineError::new(
            Fault::Load,
            format!("'{}' is BYTES, which no TorchScript model takes or gives", spec.name),
        )),
        None => Ok(()),
    }
}

/// Says why the file was refused; libtorch's own text goes to the log.
fn refused(failure: Failure, source: &ModelSource<'_>) -> EngineError {
    let (fault, message) = match failure.cause {
        Cause::Memory => (Fault::Memory, "memory ran out while the model was loaded"),
        Cause::Device => (Fault::Device, "the device failed while the model was loaded"),
        _ if failure.text.contains("Method 'forward' is not defined") => {
            (Fault::Load, "the TorchScript module has no forward method")
        }
        _ => (Fault::Load, archive::explain(source.file)),
    };
    EngineError::new(fault, message).with_detail(failure.text)
}

/// Every input of the signature must have its argument, and every other argument a default.
fn check_arguments(arguments: &[Argument], inputs: &[TensorSpec]) -> Result<(), EngineError> {
    let required = arguments.iter().filter(|argument| !argument.has_default).count();
    if inputs.len() < required || inputs.len() > arguments.len() {
        let takes = if required == arguments.len() {
            format!("{required}")
        } else {
            format!("{required} to {}", arguments.len())
        };
        let names: Vec<_> = arguments.iter().map(|argument| argument.name.as_str()).collect();
        return Err(EngineError::new(
            Fault::Load,
            format!(
                "the model's forward takes {takes} inputs ({}), the signature declares {}",
                names.join(", "),
                inputs.len()
            ),
        ));
    }
    let odd = arguments.iter().zip(inputs).find(|(argument, _)| !argument.takes_tensor);
    match odd {
        Some((argument, input)) => Err(EngineError::new(
            Fault::Load,
            format!(
                "input '{}' belongs to forward's argument '{}', which takes no tensor",
                input.name, argument.name
            ),
        )),
        None => Ok(()),
    }
}
