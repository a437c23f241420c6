//! Tests of the whole crate through its public API, against tch's own forward.

use std::path::PathBuf;

use engine::error::Fault;
use engine::{
    Batch, DataType, Engine, EngineError, EngineOptions, Graph, Model, ModelSource, Precision,
    Tensor, TensorSpec,
};
use tempfile::TempDir;

use crate::fixtures::{self, Fixture};
use crate::{TorchEngine, prepare_process};

mod answers;
mod failures;
mod graphs;
mod loads;
mod options;

/// A module file in a folder of its own.
struct File {
    _folder: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

fn file(fixture: &Fixture) -> File {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.pt");
    fixture.write_module(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    File { _folder: folder, path, bytes }
}

/// A fixture of one FP32 input and one FP32 output, `[-1, width]` each.
fn simple(source: &str, width: i64) -> Fixture {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: vec![-1, width],
    };
    Fixture {
        name: "simple".to_owned(),
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        source: source.to_owned(),
        ..fixtures::times(1)
    }
}

fn load_bytes(
    fixture: &Fixture,
    file: &[u8],
    samples: &[Batch],
) -> Result<Box<dyn Model>, EngineError> {
    let options = EngineOptions { graph: fixture.graph, ..EngineOptions::default() };
    load_as(fixture, file, options, samples)
}

fn load_as(
    fixture: &Fixture,
    file: &[u8],
    options: EngineOptions,
    samples: &[Batch],
) -> Result<Box<dyn Model>, EngineError> {
    prepare_process();
    TorchEngine.prepare_thread();
    TorchEngine.load(&ModelSource {
        label: "test/1",
        file,
        inputs: &fixture.inputs,
        outputs: &fixture.outputs,
        device: "cpu",
        options,
        samples,
        tolerance: 1e-5,
    })
}

fn load(fixture: &Fixture, samples: &[Batch]) -> Result<Box<dyn Model>, EngineError> {
    load_bytes(fixture, &file(fixture).bytes, samples)
}

fn fp32(shape: &[usize], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, shape.to_vec(), data.into()).unwrap()
}

fn int64(shape: &[usize], values: &[i64]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Int64, shape.to_vec(), data.into()).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Rows of numbers that repeat late enough to tell rows apart.
fn rows(rows: usize, width: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * width).map(|i| (i % 251) as f32 * 0.5 - 20.0).collect();
    fp32(&[rows, width], &values)
}

fn one(tensor: Tensor) -> Batch {
    let rows = tensor.rows();
    Batch::single(&[tensor], rows)
}
