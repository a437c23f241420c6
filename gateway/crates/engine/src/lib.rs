//! What an engine is: the traits every engine implements, the tensors and batches that cross
//! them, and the two engines that need no native library (`identity` and the scripted stub).
//!
//! This crate knows nothing of tokio, HTTP or libtorch, so it can sit below all of them.
//! Reading order: [`datatype`], [`tensor`], [`batch`], [`options`], [`model`], then an engine.
#![forbid(unsafe_code)]

pub mod datatype;
pub mod error;
pub mod tensor;
pub mod batch;
pub mod options;
pub mod model;
pub mod identity;
pub mod stub;

pub use batch::{Batch, BatchInput, Pad};
pub use datatype::DataType;
pub use error::EngineError;
pub use identity::IdentityEngine;
pub use model::{DeviceMemory, Engine, Model, ModelSource, Run, TensorSpec};
pub use options::{EngineOptions, Graph, Precision};
pub use stub::{StubEngine, StubStep};
pub use tensor::{Tensor, TensorError};
