//! The engine `torchscript`: devices, thread settings and the way into `module`.

use std::num::NonZeroUsize;

use engine::error::Fault;
use engine::{Batch, DeviceMemory, Engine, EngineError, Model, ModelSource, Tensor};

use crate::ffi::system;
use crate::module::{self, TorchModel};
use crate::process;

/// Loads TorchScript modules.
#[derive(Debug, Clone, Copy, Default)]
pub struct TorchEngine;

impl Engine for TorchEngine {
    fn platform(&self) -> &'static str {
        "torchscript"
    }

    fn needs_file(&self) -> bool {
        true
    }

    fn prepare_thread(&self) {
        // One thread per operator: two on shared cores wait for each other a hundredfold. The
        // count is OpenMP's, which keeps one for each thread; a run of a model with another
        // count sets it anew.
        if let Err(failure) = system::set_threads(NonZeroUsize::MIN) {
            tracing::warn!(detail = failure.text, "libtorch keeps its own count of threads");
        }
        system::prepare_thread();
    }

    fn check_device(&self, device: &str) -> Result<(), EngineError> {
        let Some(index) = cuda_index(device)? else {
            return Ok(());
        };
        system::probe_device(index).map_err(|failure| {
            let text = format!("{device} does not answer: its last work failed");
            EngineError::new(Fault::Device, text).with_detail(failure.text)
        })
    }

    fn device_memory(&self, device: &str) -> Option<DeviceMemory> {
        memory(cuda_index(device).ok().flatten())
    }

    fn load(&self, source: &ModelSource<'_>) -> Result<Box<dyn Model>, EngineError> {
        let cuda = cuda_index(source.device)?;
        Ok(Box::new(TorchModel::load(source, cuda)?))
    }

    fn probe(
        &self,
        source: &ModelSource<'_>,
        batch: &Batch,
    ) -> Result<Vec<(Option<String>, Tensor)>, EngineError> {
        module::probe(source, cuda_index(source.device)?, batch)
    }

    fn trim_memory(&self) {
        system::trim_memory();
    }
}

/// What of a CUDA device's memory is in use; `None` for the CPU and before anything used it.
pub(crate) fn memory(cuda: Option<u8>) -> Option<DeviceMemory> {
    system::device_memory(cuda?).ok()
}

/// The index of a CUDA device that can be used; `None` for the CPU.
fn cuda_index(device: &str) -> Result<Option<u8>, EngineError> {
    if device == "cpu" {
        return Ok(None);
    }
    let unusable = |text: String| EngineError::new(Fault::Device, text);
    // libtorch numbers devices by a signed byte.
    let index = device.strip_prefix("cuda:").and_then(|index| index.parse::<u8>().ok());
    let Some(index) = index.filter(|&index| index < 128) else {
        return Err(unusable(format!("device '{device}' is not known; use cpu or cuda:0")));
    };
    process::cuda().map_err(|reason| unusable(format!("{device} cannot be used: {reason}")))?;
    let count = system::cuda_devices().map_err(|failure| {
        unusable(format!("{device} cannot be used: CUDA fails")).with_detail(failure.text)
    })?;
    if i32::from(index) >= count {
        let text = format!("{device} is not there: this machine has {count} CUDA devices");
        return Err(unusable(text));
    }
    Ok(Some(index))
}
