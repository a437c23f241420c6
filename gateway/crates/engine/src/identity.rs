//! The `identity` engine: every output is the input of the same position.
//!
//! It carries every datatype, BYTES included, bit for bit. Clients use it to test their wire
//! code, operators to measure the gateway without a model.

use crate::batch::Batch;
use crate::error::{EngineError, Fault};
use crate::model::{Engine, Model, ModelSource, Run};

/// Loads identity models; needs no file.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdentityEngine;

/// A loaded identity model.
#[derive(Debug)]
struct Identity;

impl Engine for IdentityEngine {
    fn platform(&self) -> &'static str {
        "identity"
    }

    fn needs_file(&self) -> bool {
        false
    }

    fn prepare_thread(&self) {}

    fn check_device(&self, device: &str) -> Result<(), EngineError> {
        if device == "cpu" {
            return Ok(());
        }
        Err(EngineError::new(Fault::Device, format!("identity runs on cpu only, not on {device}")))
    }

    fn load(&self, source: &ModelSource<'_>) -> Result<Box<dyn Model>, EngineError> {
        self.check_device(source.device)?;
        let same = source.inputs.len() == source.outputs.len()
            && source.inputs.iter().zip(source.outputs).all(|(input, output)| {
                input.datatype == output.datatype && input.shape == output.shape
            });
        if same {
            return Ok(Box::new(Identity));
        }
        Err(EngineError::new(
            Fault::Load,
            "an identity model needs one output per input, with the same datatype and shape",
        ))
    }
}

impl Model for Identity {
    fn run(&self, batch: &Batch) -> Result<Run, EngineError> {
        Run::echo(batch)
    }

    fn notes(&self) -> &[String] {
        &[]
    }
}
