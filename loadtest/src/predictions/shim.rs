//! A disk that is full, stalls or fails while the trial says so: a small library in C, compiled
//! when it is needed, that the gateway is started with.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

const SOURCE: &str = include_str!("shim.c");
const COMPILER: &str = "cc";
/// Bytes of what both sides share, and where the number of calls stands that met the mood.
const SIZE: usize = 16;
const MET: u64 = 4;

/// How the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Mood {
    Well = 0,
    /// Nothing can be written: ENOSPC.
    Full = 1,
    /// Whoever writes waits.
    Stalled = 2,
    /// What was written cannot be brought to the disk: EIO.
    Unsynced = 3,
}

impl Mood {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Full => "full",
            Self::Stalled => "stalled",
            Self::Unsynced => "not synced",
        }
    }
}

/// The library, and what it is told through.
#[derive(Debug)]
pub(super) struct Shim {
    library: PathBuf,
    control: PathBuf,
    /// What it is about.
    folder: PathBuf,
}

impl Shim {
    /// Compiles it into `place`, for files below `folder`, which is there already.
    ///
    /// # Errors
    /// When there is no C compiler, or it fails.
    pub(super) async fn build(place: &Path, folder: &Path) -> anyhow::Result<Self> {
        let at = |name: &str| place.join(name);
        let (source, library, control) = (at("shim.c"), at("shim.so"), at("shim.control"));
        fs::write(&source, SOURCE)?;
        fs::write(&control, [0; SIZE])?;
        let mut command = Command::new(COMPILER);
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.with_context(|| format!("cannot start the C compiler '{COMPILER}'"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{COMPILER} cannot make a library: {errors}");
        // As the system tells paths of open files.
        let folder = folder.canonicalize()?;
        Ok(Self { library, control, folder })
    }

    /// What a process is started with that is to have it.
    pub(super) fn environment(&self) -> Vec<(&'static str, &Path)> {
        vec![
            ("LD_PRELOAD", &self.library),
            ("PENSTOCK_TRIAL_FOLDER", &self.folder),
            ("PENSTOCK_TRIAL_CONTROL", &self.control),
        ]
    }

    /// Has the disk be as said, from now on; forgets how many calls met what it was before.
    ///
    /// # Errors
    /// When the file that says so is gone.
    pub(super) fn be(&self, mood: Mood) -> anyhow::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(&self.control)?;
        file.write_all_at(&0_u32.to_ne_bytes(), MET)?;
        Ok(file.write_all_at(&(mood as u32).to_ne_bytes(), 0)?)
    }

    /// How many calls of the process met the disk as it is.
    ///
    /// # Errors
    /// As [`be`](Self::be).
    pub(super) fn met(&self) -> anyhow::Result<u32> {
        let mut bytes = [0; 4];
        fs::File::open(&self.control)?.read_exact_at(&mut bytes, MET)?;
        Ok(u32::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a shell can write a word to a file.
    async fn write(shim: &Shim, to: &Path) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", "echo word >\"$0\""]).arg(to).stderr(Stdio::null());
        command.envs(shim.environment()).status().await.unwrap().success()
    }

    #[tokio::test]
    async fn a_disk_is_full_below_a_folder_alone_and_then_has_room() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("log");
        fs::create_dir(&folder).unwrap();
        let shim = Shim::build(place.path(), &folder).await.unwrap();
        assert!(write(&shim, &folder.join("a")).await);
        shim.be(Mood::Full).unwrap();
        assert!(!write(&shim, &folder.join("b")).await);
        assert!(shim.met().unwrap() > 0);
        assert!(write(&shim, &place.path().join("beside")).await);
        shim.be(Mood::Well).unwrap();
        assert!(write(&shim, &folder.join("c")).await);
        assert_eq!(shim.met().unwrap(), 0);
    }
}
