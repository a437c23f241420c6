//! For tests and examples: small modules made from TorchScript source, so that no Python is
//! needed and no model file has to be kept.
//!
//! [`write_module`] compiles any source. A [`Fixture`] is a module together with its signature,
//! written as a version of a model repository; [`all`] lists the ready ones.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use engine::{DataType, Graph, TensorSpec};

use crate::ffi::{self, system};

mod models;

pub use models::{
    SECRET, add_sub, all, bad_digits, dict_out, drops_rows, echo, lookup, masked_sum, mlp, reduce,
    root, slow, spoils, throws, times, transpose,
};

/// FP32 values that a module holds as a buffer, `self.<name>` in its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    pub name: &'static str,
    pub shape: Vec<i64>,
    /// Row-major, as many as the shape has elements.
    pub values: Vec<f32>,
}

/// A module with its signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Fixture {
    /// The model's name, hence its folder's.
    pub name: String,
    /// 0 for a model that does not batch.
    pub max_batch_size: usize,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub graph: Graph,
    /// TorchScript: `def forward(self, …): …`.
    pub source: String,
    pub weights: Vec<Weights>,
}

/// Compiles TorchScript source (`def forward(self, x: Tensor) -> Tensor: …`) and saves it as a
/// module file at `path`.
///
/// The module has the attribute `training`, as those that Python exports have.
///
/// # Errors
/// When the source does not compile or the file cannot be written.
pub fn write_module(source: &str, path: &Path) -> io::Result<()> {
    write_module_with(source, &[], path)
}

/// [`write_module`] with buffers that the source finds in `self`.
///
/// # Errors
/// When the source does not compile or the file cannot be written.
///
/// # Panics
/// When values do not fill their shape.
pub fn write_module_with(source: &str, weights: &[Weights], path: &Path) -> io::Result<()> {
    let names: Vec<_> = weights.iter().map(|weights| system::c_text(weights.name)).collect();
    let buffers: Vec<_> = weights
        .iter()
        .zip(&names)
        .map(|(weights, name)| ffi::Buffer { name, shape: &weights.shape, values: &weights.values })
        .collect();
    let path = path.to_str().ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
    ffi::write_module(&system::c_text(source), &buffers, &system::c_text(path))
        .map_err(|failure| io::Error::other(failure.text))
}

impl Fixture {
    /// Writes `<repository>/<name>/model.toml` and `<repository>/<name>/<version>/model.pt`.
    ///
    /// # Errors
    /// When the source does not compile or a file cannot be written.
    pub fn write(&self, repository: &Path, version: u32) -> io::Result<()> {
        let folder = repository.join(&self.name);
        let version = folder.join(version.to_string());
        fs::create_dir_all(&version)?;
        fs::write(folder.join("model.toml"), self.model_toml())?;
        self.write_module(&version.join("model.pt"))
    }

    /// Writes the module file alone.
    ///
    /// # Errors
    /// When the source does not compile or the file cannot be written.
    pub fn write_module(&self, path: &Path) -> io::Result<()> {
        write_module_with(&self.source, &self.weights, path)
    }

    /// The text of the model's `model.toml`.
    #[must_use]
    pub fn model_toml(&self) -> String {
        let mut text =
            format!("platform = \"torchscript\"\nmax_batch_size = {}\n", self.max_batch_size);
        for input in &self.inputs {
            describe(&mut text, "input", input);
        }
        for output in &self.outputs {
            describe(&mut text, "output", output);
            let floating = [DataType::Fp32, DataType::Fp64].contains(&output.datatype);
            if floating {
                text.push_str("tolerance = 1e-5\n");
            }
        }
        let graph = self.graph.name();
        writeln!(text, "\n[engine]\ndevice = \"cpu\"\ngraph = \"{graph}\"")
            .expect("a String takes any text");
        text
    }
}

fn describe(text: &mut String, section: &str, spec: &TensorSpec) {
    let TensorSpec { name, datatype, shape } = spec;
    write!(text, "\n[[{section}]]\nname = \"{name}\"\ndtype = \"{datatype}\"\nshape = {shape:?}\n")
        .expect("a String takes any text");
}
