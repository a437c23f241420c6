//! Models that come with a load call: a model configuration and the files of its versions, kept
//! in memory and never written into the repository.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Uploads;
use crate::error::{Kind, Rejection};
use crate::models::repository::{MODEL_FILE, Stamp};
use crate::models::{Manifest, ModelFolder, VersionFiles};
use crate::types::{ModelName, Version};

/// A model brought by its caller.
#[derive(Debug, Clone)]
pub struct Upload {
    pub manifest: Manifest,
    files: BTreeMap<Version, VersionFiles>,
}

impl Upload {
    /// Takes files by their path in a model folder (`1/model.pt`).
    ///
    /// # Errors
    /// `InvalidInput` for a path that is no version's file.
    pub fn new(manifest: Manifest, files: Vec<(String, Vec<u8>)>) -> Result<Self, Rejection> {
        let mut by_version: BTreeMap<Version, VersionFiles> = BTreeMap::new();
        for (path, bytes) in files {
            let parsed = path
                .split_once('/')
                .and_then(|(version, file)| Some((version.parse::<Version>().ok()?, file)));
            let Some((version, MODEL_FILE)) = parsed else {
                let shown: String = path.chars().take(80).collect();
                return Err(Rejection::invalid(format!(
                    "'file:{shown}' is not of the form file:<version>/{MODEL_FILE}"
                )));
            };
            by_version.entry(version).or_default().model = Some(bytes);
        }
        Ok(Self { manifest, files: by_version })
    }

    /// Holds an upload to the configuration.
    ///
    /// # Errors
    /// `PermissionDenied` where uploads are off, `TooLarge` beyond the limit.
    pub fn check_size(&self, uploads: Uploads) -> Result<(), Rejection> {
        if !uploads.enabled {
            return Err(Rejection::new(
                Kind::PermissionDenied,
                "model files in a load call are off: repository.uploads switches them on",
            ));
        }
        let total: usize =
            self.files.values().filter_map(|files| files.model.as_ref()).map(Vec::len).sum();
        if total > uploads.max_bytes {
            return Err(Rejection::new(
                Kind::TooLarge,
                format!(
                    "the model files have {total} bytes, at most {} may come",
                    uploads.max_bytes
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn folder(&self, name: &ModelName) -> Result<ModelFolder, Rejection> {
        let available: BTreeSet<Version> = self.files.keys().copied().collect();
        if available.is_empty() {
            return Err(Rejection::invalid(format!(
                "the load call brings no file:<version>/{MODEL_FILE}"
            )));
        }
        let versions = available.into_iter().map(|version| (version, Stamp::default())).collect();
        Ok(ModelFolder { name: name.clone(), manifest: self.manifest.clone(), versions })
    }

    pub(super) fn files(&self, version: Version) -> VersionFiles {
        self.files.get(&version).cloned().unwrap_or_default()
    }
}
