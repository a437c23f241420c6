//! Models on disk and in memory: [`manifest`] reads `model.toml`, [`repository`] finds models
//! and versions, [`load`] makes a version ready, [`version`] is one that serves.

pub mod manifest;
pub mod repository;
pub mod sample;
pub mod golden;
pub mod stats;
pub mod version;
pub mod load;
mod named;

pub use load::{LoadFailure, LoadRequest, Loader};
pub use manifest::{Batching, Lineage, Manifest, VersionPolicy};
pub use named::{Models, unknown_names};
pub use repository::{ModelFolder, Repository, VersionFiles};
pub use stats::Stats;
pub use version::ServedVersion;
