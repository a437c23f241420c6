//! The blocking part of a load: the engine's own work and the first, slow runs.

use std::sync::Arc;

use engine::{Batch, Engine, Model, ModelSource, Tensor, TensorSpec};
use tracing::debug;

use super::failure::{LoadFailure, describe};
use super::padding;
use crate::batching::Failure;
use crate::codec::finite;
use crate::models::manifest::Manifest;

/// A model that the engine has.
pub(super) struct Loaded {
    pub(super) model: Box<dyn Model>,
    /// By output: whether it is free of NaN so far, so that NaN in it would be news.
    pub(super) watch_nan: Vec<bool>,
}

pub(super) fn note_nan(watch: &mut [bool], outputs: &[Tensor]) {
    for (watch, output) in watch.iter_mut().zip(outputs) {
        *watch &= !finite::has_nan(output);
    }
}

/// A load as a thread of its own does it.
pub(super) struct LoadWork {
    pub(super) label: String,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) file: Vec<u8>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) samples: Vec<Batch>,
}

impl LoadWork {
    pub(super) fn run(&self) -> Result<Loaded, LoadFailure> {
        let Self { label, engine, file, manifest, samples } = self;
        engine.prepare_thread();
        let signature = &manifest.signature;
        let outputs: Vec<TensorSpec> =
            signature.outputs.iter().map(|output| output.spec.clone()).collect();
        let model = engine.load(&ModelSource {
            label,
            file,
            inputs: &signature.inputs,
            outputs: &outputs,
            device: &manifest.device,
            options: manifest.options,
            samples,
            tolerance: manifest.tolerance(),
        })?;
        let mut watch_nan: Vec<bool> =
            outputs.iter().map(|output| finite::has_floats(output.datatype)).collect();
        for batch in samples {
            let run = model.run(batch).map_err(|error| {
                let failure = Failure::Engine(error);
                describe(&format!("first run with {} rows", batch.rows()), failure)
            })?;
            signature
                .check_outputs(&run.outputs, batch.rows())
                .map_err(|rejection| LoadFailure::new(rejection.to_string()))?;
            note_nan(&mut watch_nan, &run.outputs);
        }
        padding::check(&*model, manifest)?;
        debug!(model = label, "the engine has the model");
        Ok(Loaded { model, watch_nan })
    }
}
