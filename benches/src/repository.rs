//! A copy of models in a folder of the run's own, to be changed as an operator would.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use toml::{Table, Value};

/// The copy; its folder goes with the run's.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// An empty one in a folder that does not exist yet.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder })
    }

    /// The folder to serve.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Copies a model out of another repository.
    ///
    /// # Errors
    /// When it is not there.
    pub fn add(&self, source: &Path, model: &str) -> anyhow::Result<()> {
        copy(&source.join(model), &self.folder.join(model))
    }

    /// The model file of a version.
    #[must_use]
    pub fn file(&self, model: &str, version: u64) -> PathBuf {
        self.folder.join(model).join(version.to_string()).join("model.pt")
    }

    /// Has exactly one version of a model serve from the next load on.
    ///
    /// # Errors
    /// When its manifest cannot be read or written.
    pub fn serve_only(&self, model: &str, version: i64) -> anyhow::Result<()> {
        self.edit(model, |manifest| {
            let policy = Table::from_iter([
                ("policy".to_owned(), Value::from("specific")),
                ("specific".to_owned(), Value::from(vec![version])),
            ]);
            manifest.insert("versions".to_owned(), policy.into());
        })
    }

    /// Changes a model's manifest, in one step, as a reader may look at any time.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn edit(&self, model: &str, change: impl FnOnce(&mut Table)) -> anyhow::Result<()> {
        let path = self.folder.join(model).join("model.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut manifest = text.parse().with_context(|| path.display().to_string())?;
        change(&mut manifest);
        let draft = self.folder.with_extension("draft");
        fs::write(&draft, toml::to_string(&manifest)?)?;
        fs::rename(&draft, &path).with_context(|| path.display().to_string())
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    ensure!(from.is_dir(), "{} is no folder", from.display());
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_model_is_changed_and_its_source_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("m/1")).unwrap();
        fs::write(source.join("m/1/model.pt"), "module").unwrap();
        let manifest = "max_batch_size = 8\n[versions]\npolicy = 'latest'\nlatest = 2\n";
        fs::write(source.join("m/model.toml"), manifest).unwrap();
        let copy = Repository::new(folder.path().join("copy")).unwrap();
        copy.add(&source, "m").unwrap();
        copy.serve_only("m", 1).unwrap();
        let changed = fs::read_to_string(copy.path().join("m/model.toml")).unwrap();
        let changed: Table = changed.parse().unwrap();
        assert_eq!(changed["versions"].to_string(), "{ policy = \"specific\", specific = [1] }");
        assert_eq!(changed["max_batch_size"].as_integer(), Some(8));
        assert_eq!(fs::read_to_string(copy.file("m", 1)).unwrap(), "module");
        assert_eq!(fs::read_to_string(source.join("m/model.toml")).unwrap(), manifest);
    }

    #[test]
    fn a_model_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let copy = Repository::new(folder.path().join("copy")).unwrap();
        let error = copy.add(folder.path(), "absent").unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
    }
}
