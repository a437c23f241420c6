//! `[prediction_log]`: what is kept of calls.

mod disk;
mod store;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use disk::Disk;
pub use store::{LogStore, Scheme};

use super::reader::Section;

/// What is kept of calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PredictionLog {
    pub path: PathBuf,
    #[serde(flatten)]
    pub disk: Disk,
    pub store: Option<LogStore>,
}

impl PredictionLog {
    pub(super) fn read(mut section: Section<'_>, base: &Path) -> Self {
        let path = section.or("path", "penstock-data/predictions".to_owned());
        let log = Self {
            path: base.join(path),
            disk: Disk::read(&mut section),
            store: LogStore::read(&mut section, base),
        };
        section.finish();
        log
    }
}
