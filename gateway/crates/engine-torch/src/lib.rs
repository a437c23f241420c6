//! The libtorch engine: runs TorchScript modules on CPU and CUDA behind the `engine` traits.
//!
//! This is the only crate with unsafe code and with C++, and no type of libtorch leaves it.
//! Reading order: [`process`] (what must happen before anything else), [`TorchEngine`], then the
//! private `module` (a file becomes a checked module), `graph` (which form of it runs, with
//! `verify`, `race`, `choice` and `picker`), `compare` (when two answers agree), `run` (one batch)
//! and `ffi` (the border to C++).
//! [`fixtures`] writes small modules for tests and examples, [`bare`] is what benches compare with.

mod archive;
pub mod bare;
mod choice;
mod clock;
mod compare;
mod datatype;
mod engine;
mod ffi;
mod graph;
mod module;
mod picker;
mod race;
mod run;
mod verify;
pub mod fixtures;
pub mod process;

pub use crate::engine::TorchEngine;
pub use crate::process::{Prepared, prepare_process};

#[cfg(test)]
mod tests;
