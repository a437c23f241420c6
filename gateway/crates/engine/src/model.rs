//! The traits that every engine implements.

use std::fmt::Debug;
use std::time::Duration;

use crate::batch::Batch;
use crate::datatype::DataType;
use crate::error::{EngineError, Fault};
use crate::options::EngineOptions;
use crate::tensor::Tensor;

/// Name, type and shape of one input or output; `-1` stands for any size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: DataType,
    /// As on the wire: with the batch dimension where the model batches.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether a tensor of this shape may stand where this is declared.
    #[must_use]
    pub fn fits(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(&declared, &size)| declared == -1 || usize::try_from(declared) == Ok(size))
    }
}

/// Everything an engine needs to load one version of a model.
#[derive(Debug)]
pub struct ModelSource<'a> {
    /// `name/version`, for messages.
    pub label: &'a str,
    /// The model file; empty for engines that need none.
    pub file: &'a [u8],
    pub inputs: &'a [TensorSpec],
    pub outputs: &'a [TensorSpec],
    /// `cpu` or `cuda:N`.
    pub device: &'a str,
    pub options: EngineOptions,
    /// Batches to try the loaded model on, in the sizes that will run: every other form than the
    /// exported one must agree with it on each of them within `tolerance`, and is measured on them.
    pub samples: &'a [Batch],
    /// Relative tolerance of that comparison.
    pub tolerance: f64,
}

/// Loads models of one platform.
pub trait Engine: Debug + Send + Sync {
    /// The word for this engine in `model.toml`.
    fn platform(&self) -> &'static str;

    /// Whether a version has a model file to load.
    fn needs_file(&self) -> bool;

    /// Settings of the calling thread; called once at the top of every thread that loads or
    /// runs models of this engine.
    fn prepare_thread(&self);

    /// Checks that `device` exists and answers now.
    ///
    /// Not only for loads: this is also the health probe of a device. After a run or a load has
    /// failed with [`Fault::Device`], an error here means that the failure has stayed (a sticky
    /// CUDA error fails every later call of the process), so that the device must take no more
    /// work and only a restart helps; success means that it was that one call's.
    /// It does a little work on the device, on the calling thread, and waits for that alone. It
    /// may block as long as the device is busy, and for seconds when it is the first to use it:
    /// call it off the request path.
    ///
    /// # Errors
    /// With [`Fault::Device`] and a reason fit for an operator.
    fn check_device(&self, device: &str) -> Result<(), EngineError>;

    /// Loads one version. May take long: call it off the request path.
    ///
    /// # Errors
    /// When the file is no model of this platform, the signature does not fit or the device is
    /// missing. Never panics on any file content.
    fn load(&self, source: &ModelSource<'_>) -> Result<Box<dyn Model>, EngineError>;

    /// Loads a model whose outputs nobody has described yet and runs it once on `batch`: each
    /// output with the model's own name for it, if it has one. `source.outputs` is ignored.
    ///
    /// # Errors
    /// As [`Engine::load`] and [`Model::run`]; engines without model files have nothing to probe.
    fn probe(
        &self,
        source: &ModelSource<'_>,
        batch: &Batch,
    ) -> Result<Vec<(Option<String>, Tensor)>, EngineError> {
        let _ = batch;
        let text = format!("the platform of {} has no model file to inspect", source.label);
        Err(EngineError::new(Fault::Load, text))
    }

    /// Gives memory back to the system after a model was dropped.
    fn trim_memory(&self) {}

    /// What of a device's own memory is in use; `None` for the CPU and where nobody counts.
    fn device_memory(&self, device: &str) -> Option<DeviceMemory> {
        let _ = device;
        None
    }
}

/// Memory of one device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In use by this process's tensors.
    pub allocated: u64,
    /// Held by this process, for tensors in use and to come.
    pub reserved: u64,
    /// Free for anybody.
    pub free: u64,
    pub total: u64,
}

/// A loaded version. `run` may be called by several threads at once.
pub trait Model: Debug + Send + Sync {
    /// Runs one batch to the end on the calling thread.
    ///
    /// # Errors
    /// When the model throws or answers with tensors other than its signature says.
    fn run(&self, batch: &Batch) -> Result<Run, EngineError>;

    /// What the engine decided at load, one fact a line (`graph: frozen`).
    fn notes(&self) -> &[String];

    /// Memory of its device that the model took when it was loaded and tried, in bytes; `None` on
    /// the CPU. Loads beside it on the same device blur the figure.
    fn device_bytes(&self) -> Option<u64> {
        None
    }
}

/// What one run gave, and what it spent.
#[derive(Debug, Clone)]
pub struct Run {
    /// In the order of the signature; dimension 0 is the batch where the model batches.
    pub outputs: Vec<Tensor>,
    /// Copying the inputs into the engine's memory. On a device of its own the way from there is
    /// only begun in this time.
    pub input: Duration,
    /// The forward pass, until its result is there.
    pub infer: Duration,
    /// What copying the outputs out took longer.
    pub output: Duration,
}

impl Run {
    /// A run that answers its inputs.
    ///
    /// # Errors
    /// As [`BatchInput::joined`](crate::BatchInput::joined).
    pub fn echo(batch: &Batch) -> Result<Self, EngineError> {
        let joined = batch.inputs().iter().map(|input| {
            input.joined().map_err(|error| EngineError::new(Fault::Run, error.to_string()))
        });
        Ok(Self::instant(joined.collect::<Result<_, _>>()?))
    }

    /// A run whose parts took no time worth measuring.
    #[must_use]
    pub fn instant(outputs: Vec<Tensor>) -> Self {
        Self { outputs, input: Duration::ZERO, infer: Duration::ZERO, output: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_shapes_leave_room_only_where_they_say_so() {
        let fits = |declared: &[i64], shape: &[usize]| {
            let spec =
                TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: declared.into() };
            spec.fits(shape)
        };
        assert!(fits(&[-1, 4], &[3, 4]));
        assert!(fits(&[], &[]));
        assert!(fits(&[-1, 4], &[0, 4]));
        assert!(!fits(&[-1, 4], &[3, 5]));
        assert!(!fits(&[-1, 4], &[3]));
        assert!(!fits(&[-1, 4], &[3, 4, 1]));
    }
}
