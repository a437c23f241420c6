//! The files of the prediction log: rows as bytes, segments that survive crashes, and Parquet.
//!
//! This crate knows nothing of tokio, clocks or the gateway; it reads and writes files. Reading
//! order: [`row`], [`schema`], [`feedback`], [`segment`], [`folder`].
#![forbid(unsafe_code)]

pub mod row;
pub mod schema;
pub mod feedback;
pub mod segment;
pub mod folder;

pub use feedback::{Feedback, Label};
pub use folder::Folder;
pub use row::{Row, RowRef, State, Status, TensorRef, TensorValue};
pub use schema::{Schema, SchemaId, TensorSpec};
