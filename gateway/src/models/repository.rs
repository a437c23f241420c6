//! The folder of models: `<model>/model.toml` and `<model>/<version>/model.pt`.
//!
//! Names come from the network as well as from the folder, so every path is checked to stay
//! inside the repository, links included.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::{Manifest, VersionPolicy};
use crate::types::{ModelName, Version};

/// File name of a model's manifest.
pub const MANIFEST: &str = "model.toml";
/// File name of a version's model.
pub const MODEL_FILE: &str = "model.pt";
/// File name of a version's golden requests.
pub const GOLDEN_FILE: &str = "golden.json";

/// A model repository on a local disk.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
    /// The next read waits for a word on it: a disk that does not answer, in tests.
    #[cfg(test)]
    pub(crate) disk: std::sync::Arc<std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>>>,
}

/// A model found in the repository.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    pub name: ModelName,
    pub manifest: Manifest,
    pub versions: BTreeMap<Version, Stamp>,
}

/// What tells that a version has to be loaded anew, without reading its files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stamp {
    /// Name, size and time of each file.
    files: Vec<(String, u64, Option<SystemTime>)>,
    /// What the manifest says about this version: neither the policy nor other versions.
    manifest: Option<Box<Manifest>>,
}

/// The files of one version, read.
#[derive(Debug, Clone, Default)]
pub struct VersionFiles {
    pub model: Option<Vec<u8>>,
    pub golden: Option<Vec<u8>>,
    pub sample: Option<Vec<u8>>,
}

impl Repository {
    /// Opens a repository.
    ///
    /// # Errors
    /// When the folder is not there or cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = path.canonicalize()?;
        root.read_dir()?;
        Ok(Self {
            root,
            #[cfg(test)]
            disk: std::sync::Arc::default(),
        })
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every model in the folder, or why it cannot be served. Hidden entries and plain files
    /// are no models.
    ///
    /// # Errors
    /// When the folder itself cannot be read.
    pub fn scan(&self) -> io::Result<BTreeMap<ModelName, Result<ModelFolder, String>>> {
        let mut models = BTreeMap::new();
        for entry in self.root.read_dir()? {
            let entry = entry?;
            let Ok(file_name) = entry.file_name().into_string() else { continue };
            if file_name.starts_with('.') || !entry.path().is_dir() {
                continue;
            }
            let Ok(name) = file_name.parse::<ModelName>() else {
                tracing::debug!(folder = file_name, "the folder's name is no model name, skipped");
                continue;
            };
            let model = self.model(&name);
            models.insert(name, model);
        }
        Ok(models)
    }

    /// Reads one model's manifest and finds its versions.
    ///
    /// # Errors
    /// Why it cannot be served; fit for the repository index.
    pub fn model(&self, name: &ModelName) -> Result<ModelFolder, String> {
        let folder = self.inside(&self.root.join(name.as_str()))?;
        let numbers = versions_in(&folder).map_err(|e| format!("cannot read the folder: {e}"))?;
        let Some(text) = self.read_file(&folder.join(MANIFEST))? else {
            let version = numbers.last().map_or_else(|| "1".to_owned(), ToString::to_string);
            return Err(format!(
                "no {MANIFEST}: write one, or run `penstock inspect {name}/{version}/{MODEL_FILE} \
                 --input NAME=DTYPE[SHAPE]` in the repository's folder"
            ));
        };
        let text =
            String::from_utf8(text).map_err(|_| format!("{MANIFEST}: is not valid UTF-8"))?;
        let manifest = Manifest::parse(&text).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            format!("{MANIFEST}: {}", lines.join("; "))
        })?;
        let versions = numbers
            .into_iter()
            .map(|version| (version, stamp(&folder, version, &manifest)))
            .collect();
        Ok(ModelFolder { name: name.clone(), manifest, versions })
    }

    /// Reads the files of one version.
    ///
    /// # Errors
    /// Which file cannot be read, and why.
    pub fn read(
        &self,
        name: &ModelName,
        version: Version,
        manifest: &Manifest,
        needs_model: bool,
    ) -> Result<VersionFiles, String> {
        let folder = self.root.join(name.as_str());
        let version_folder = folder.join(version.to_string());
        let model = self.read_file(&version_folder.join(MODEL_FILE))?;
        if needs_model && model.is_none() {
            return Err(format!("no {MODEL_FILE} in version {version}"));
        }
        let golden = self.read_file(&version_folder.join(GOLDEN_FILE))?;
        let sample = match &manifest.warmup.sample {
            Some(file) => {
                let read = self.read_file(&folder.join(file))?;
                Some(read.ok_or_else(|| format!("warmup.sample: no file '{file}'"))?)
            }
            None => None,
        };
        Ok(VersionFiles { model, golden, sample })
    }

    fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let name = path.file_name().map_or_else(String::new, |n| n.display().to_string());
        let inside = self.inside(path)?;
        // A pipe or device would be read for ever.
        if !inside.is_file() {
            return Err(format!("{name} is not a regular file"));
        }
        #[cfg(test)]
        if let Some(hanging) = self.disk.lock().unwrap().take() {
            let _word = hanging.recv();
        }
        std::fs::read(inside).map(Some).map_err(|error| format!("cannot read {name}: {error}"))
    }

    /// Resolves links and refuses what lies outside the repository.
    fn inside(&self, path: &Path) -> Result<PathBuf, String> {
        let name = path.file_name().map_or_else(String::new, |n| n.display().to_string());
        let real = path.canonicalize().map_err(|e| format!("cannot open '{name}': {e}"))?;
        if real.starts_with(&self.root) {
            return Ok(real);
        }
        Err(format!("'{name}' is a link out of the repository, which is refused"))
    }
}

/// Folders whose name is the one spelling of a version number.
fn versions_in(folder: &Path) -> io::Result<BTreeSet<Version>> {
    let mut versions = BTreeSet::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let version = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(version) = version
            && entry.path().is_dir()
        {
            versions.insert(version);
        }
    }
    Ok(versions)
}

fn stamp(folder: &Path, version: Version, manifest: &Manifest) -> Stamp {
    let version_folder = folder.join(version.to_string());
    let mut paths = vec![version_folder.join(MODEL_FILE), version_folder.join(GOLDEN_FILE)];
    paths.extend(manifest.warmup.sample.as_ref().map(|file| folder.join(file)));
    let files = paths
        .into_iter()
        .filter_map(|path| {
            let metadata = path.metadata().ok()?;
            let name = path.file_name()?.display().to_string();
            Some((name, metadata.len(), metadata.modified().ok()))
        })
        .collect();
    let mut manifest = manifest.clone();
    manifest.policy = VersionPolicy::All;
    manifest.labels.clear();
    manifest.versions.retain(|other, _| *other == version);
    Stamp { files, manifest: Some(Box::new(manifest)) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const MANIFEST_TEXT: &str = "platform = 'identity'\n\
        [[input]]\nname = 'x'\ndtype = 'BYTES'\nshape = [-1]\n\
        [[output]]\nname = 'y'\ndtype = 'BYTES'\nshape = [-1]\n";

    fn repository() -> (tempfile::TempDir, Repository) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("repo/echo/1")).unwrap();
        fs::write(folder.path().join("repo/echo/model.toml"), MANIFEST_TEXT).unwrap();
        let repository = Repository::open(&folder.path().join("repo")).unwrap();
        (folder, repository)
    }

    fn name() -> ModelName {
        "echo".parse().unwrap()
    }

    #[test]
    fn folders_with_leading_zeros_and_files_are_no_versions() {
        let (folder, repository) = repository();
        for entry in ["02", "3", "latest"] {
            fs::create_dir(folder.path().join("repo/echo").join(entry)).unwrap();
        }
        fs::write(folder.path().join("repo/echo/4"), "").unwrap();
        let model = repository.model(&name()).unwrap();
        assert_eq!(model.versions.keys().copied().collect::<Vec<_>>(), [Version(1), Version(3)]);
    }

    #[test]
    fn links_out_of_the_repository_are_refused() {
        let (folder, repository) = repository();
        fs::write(folder.path().join("secret"), "x").unwrap();
        symlink("../../../secret", folder.path().join("repo/echo/1/model.pt")).unwrap();
        let manifest = repository.model(&name()).unwrap().manifest;
        let error = repository.read(&name(), Version(1), &manifest, true).unwrap_err();
        assert!(error.contains("link out of the repository"), "{error}");
        symlink("..", folder.path().join("repo/out")).unwrap();
        let error = repository.model(&"out".parse().unwrap()).unwrap_err();
        assert!(error.contains("link out of the repository"), "{error}");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let (folder, repository) = repository();
        let manifest = folder.path().join("repo/echo/model.toml");
        fs::remove_file(&manifest).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&manifest).unwrap();
        let error = repository.model(&name()).unwrap_err();
        assert!(error.contains("model.toml is not a regular file"), "{error}");
    }

    #[test]
    fn a_folder_without_manifest_says_what_to_run() {
        let (folder, repository) = repository();
        fs::create_dir_all(folder.path().join("repo/bare/7")).unwrap();
        let models = repository.scan().unwrap();
        let error = models[&"bare".parse::<ModelName>().unwrap()].as_ref().unwrap_err();
        assert!(error.contains("penstock inspect"), "{error}");
        assert!(error.contains("bare/7/model.pt"), "{error}");
    }

    #[test]
    fn a_stamp_changes_with_the_files_and_with_what_the_manifest_says_of_the_version() {
        let (folder, repository) = repository();
        let before = repository.model(&name()).unwrap().versions;
        assert_eq!(before, repository.model(&name()).unwrap().versions);
        fs::write(folder.path().join("repo/echo/1/golden.json"), "{}").unwrap();
        let golden = repository.model(&name()).unwrap().versions;
        assert_ne!(before, golden);
        let stamps_with = |more: &str| {
            let text = format!("{MANIFEST_TEXT}{more}");
            fs::write(folder.path().join("repo/echo/model.toml"), text).unwrap();
            repository.model(&name()).unwrap().versions
        };
        assert_eq!(golden, stamps_with("[versions]\npolicy = 'all'\n[version.2]\n"));
        assert_ne!(golden, stamps_with("[warmup]\nruns = 1\n"));
    }
}
