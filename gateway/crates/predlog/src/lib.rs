//! The files of the prediction log: rows as bytes, segments that survive crashes, and Parquet.
//!
//! This crate knows nothing of tokio, clocks or the gateway; it reads and writes files. Reading
//! order: [`row`], [`schema`], [`feedback`], [`segment`], [`folder`], [`mod@convert`], [`read`],
//! [`calls`], [`mod@verify`], [`mod@export`], [`join`].
#![forbid(unsafe_code)]

pub mod row;
pub mod schema;
pub mod feedback;
pub mod segment;
pub mod folder;
mod columns;
#[cfg(test)]
mod testing;
pub mod convert;
pub mod read;
pub mod calls;
pub mod verify;
pub mod export;
pub mod join;

pub use convert::{ConvertError, Converted, Options, Written, convert};
pub use export::{ExportError, Format, export};
pub use feedback::{Feedback, Label, Labels};
pub use folder::Folder;
pub use read::{Query, ReadError, scan};
pub use row::{Row, RowRef, State, Status, TensorRef, TensorValue};
pub use schema::{Schema, SchemaId, TensorSpec};
pub use verify::{Stats, Verification, stats, verify};
