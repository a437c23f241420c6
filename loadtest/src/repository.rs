//! A copy of a model repository in a temporary folder, to be changed as an operator would change
//! the real one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use toml::{Table, Value};

/// The copy; removed when dropped.
#[derive(Debug)]
pub struct RepositoryCopy {
    folder: TempDir,
}

impl RepositoryCopy {
    /// Copies every file of a repository.
    ///
    /// # Errors
    /// When it cannot be read or the copy not be written.
    pub fn of(source: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-loadtest-").tempdir()?;
        let copy = Self { folder };
        copy_folder(source, &copy.path())
            .with_context(|| format!("cannot copy {}", source.display()))?;
        Ok(copy)
    }

    /// A repository without a model.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn empty() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-loadtest-").tempdir()?;
        let copy = Self { folder };
        fs::create_dir(copy.path())?;
        Ok(copy)
    }

    /// A repository with one model of the name, which answers its input of so many numbers: every
    /// build of the gateway runs it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn of_identity(model: &str, numbers: u32) -> anyhow::Result<Self> {
        let copy = Self::empty()?;
        let own = copy.path().join(model);
        fs::create_dir_all(own.join("1"))?;
        let side =
            |name: &str| format!("name = '{name}'\ndtype = 'FP32'\nshape = [-1, {numbers}]\n");
        let text = format!(
            "platform = 'identity'\nmax_batch_size = 64\n[[input]]\n{}[[output]]\n{}",
            side("x"),
            side("y")
        );
        fs::write(own.join("model.toml"), text)?;
        Ok(copy)
    }

    /// The folder to serve.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// A file beside the repository.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes into a model's manifest that exactly these versions are to serve.
    ///
    /// # Errors
    /// When the manifest cannot be read or written.
    pub fn serve_only(&self, model: &str, versions: &[u64]) -> anyhow::Result<()> {
        let path = self.path().join(model).join("model.toml");
        let mut manifest = self.manifest(model)?;
        let numbers = versions
            .iter()
            .map(|version| Ok(Value::Integer(i64::try_from(*version)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let policy = Table::from_iter([
            ("policy".to_owned(), Value::from("specific")),
            ("specific".to_owned(), Value::Array(numbers)),
        ]);
        manifest.insert("versions".to_owned(), policy.into());
        // In one step, as a reader may look at any time.
        let draft = self.beside("model.toml.draft");
        fs::write(&draft, toml::to_string(&manifest)?)?;
        fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds a version whose model file is the first half of another version's.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn add_truncated(&self, model: &str, like: u64, version: u64) -> anyhow::Result<()> {
        let folder = self.path().join(model);
        let whole = fs::read(folder.join(like.to_string()).join("model.pt"))?;
        let draft = self.beside("version.draft");
        fs::create_dir(&draft)?;
        fs::write(draft.join("model.pt"), &whole[..whole.len() / 2])?;
        Ok(fs::rename(&draft, folder.join(version.to_string()))?)
    }

    /// Adds a model from another repository.
    ///
    /// # Errors
    /// When its folder is not there or cannot be copied.
    pub fn add_model(&self, source: &Path, model: &str) -> anyhow::Result<()> {
        let from = source.join(model);
        copy_folder(&from, &self.path().join(model))
            .with_context(|| format!("cannot copy {}", from.display()))
    }

    /// How many rows of how many a version had right when it was exported, by its lineage.
    ///
    /// # Errors
    /// When the manifest cannot be read or does not say.
    pub fn recorded_accuracy(&self, model: &str, version: u64) -> anyhow::Result<(u64, u64)> {
        let manifest = self.manifest(model)?;
        let metrics = ["version", &version.to_string(), "lineage", "metrics"]
            .iter()
            .try_fold(&Value::Table(manifest), |value, key| value.get(key))
            .cloned()
            .with_context(|| format!("{model} {version}: the manifest records no metrics"))?;
        let count = |key: &str| {
            let count = metrics.get(key).and_then(Value::as_integer);
            count.and_then(|count| u64::try_from(count).ok()).with_context(|| {
                format!("{model} {version}: the manifest's metrics have no '{key}'")
            })
        };
        Ok((count("correct")?, count("total")?))
    }

    fn manifest(&self, model: &str) -> anyhow::Result<Table> {
        let path = self.path().join(model).join("model.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.parse().with_context(|| path.display().to_string())
    }
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    ensure!(from.is_dir(), "{} is no folder", from.display());
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> TempDir {
        let source = tempfile::tempdir().unwrap();
        let version = source.path().join("m/2");
        fs::create_dir_all(&version).unwrap();
        fs::write(version.join("model.pt"), "abcdef").unwrap();
        let manifest = "platform = 'identity'\n[versions]\npolicy = 'latest'\nlatest = 2\n\
            [version.2.lineage]\nmetrics = { correct = 9, total = 10 }\n";
        fs::write(source.path().join("m/model.toml"), manifest).unwrap();
        source
    }

    #[test]
    fn a_policy_is_replaced_whole_and_the_rest_stays() {
        let source = source();
        let copy = RepositoryCopy::of(source.path()).unwrap();
        copy.serve_only("m", &[1, 9]).unwrap();
        let manifest = copy.manifest("m").unwrap();
        assert_eq!(
            manifest["versions"].to_string(),
            "{ policy = \"specific\", specific = [1, 9] }"
        );
        assert_eq!(copy.recorded_accuracy("m", 2).unwrap(), (9, 10));
        assert!(copy.recorded_accuracy("m", 1).is_err());
        let untouched = fs::read_to_string(source.path().join("m/model.toml")).unwrap();
        assert!(untouched.contains("latest"));
    }

    #[test]
    fn a_model_that_answers_its_input_is_written_without_a_source() {
        let copy = RepositoryCopy::of_identity("same", 3).unwrap();
        let manifest = copy.manifest("same").unwrap();
        assert_eq!(manifest["output"][0]["shape"].to_string(), "[-1, 3]");
        assert!(copy.path().join("same/1").is_dir());
    }

    #[test]
    fn a_truncated_version_is_half_of_another() {
        let source = source();
        let copy = RepositoryCopy::of(source.path()).unwrap();
        copy.add_truncated("m", 2, 9).unwrap();
        assert_eq!(fs::read(copy.path().join("m/9/model.pt")).unwrap(), b"abc");
    }
}
