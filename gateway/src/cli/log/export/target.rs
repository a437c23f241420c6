//! The file that is written: there once it is whole, and never in the place of another one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::super::bytes;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(500);

/// A file under another name until it is whole.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    /// Absent where the target is no plain file, but a pipe for one: that is written to as it is.
    temporary: Option<PathBuf>,
    file: File,
    replaces: bool,
}

impl Target {
    pub(super) fn begin(path: &Path, replaces: bool) -> anyhow::Result<Self> {
        let cannot = || format!("cannot write {}", path.display());
        let (path, there) = (path.to_owned(), fs::metadata(path));
        if there.as_ref().is_ok_and(|there| !there.is_file()) {
            let file = File::options().write(true).open(&path).with_context(cannot)?;
            return Ok(Self { path, temporary: None, file, replaces });
        }
        if fs::symlink_metadata(&path).is_ok() && !replaces {
            bail!("{} exists: --force overwrites it", path.display());
        }
        let mut name = path.file_name().with_context(cannot)?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).with_context(cannot)?;
        Ok(Self { path, temporary: Some(temporary), file, replaces })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let named = self.file.sync_all().and_then(|()| match self.replaces {
            true => fs::rename(temporary, &self.path),
            false => rename_to_new(temporary, &self.path),
        });
        named.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It is gone where it got its name.
            let _gone = fs::remove_file(temporary);
        }
    }
}

/// Somebody may have made a file of the name meanwhile: a link fails then, a rename does not.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists && !to.exists() => {
            // A file system without links.
            fs::rename(from, to)
        }
        linked => linked,
    }
}

/// Tells people at a terminal how much has been written.
#[derive(Debug)]
pub(super) struct Counted<W> {
    inner: W,
    bytes: u64,
    told: Option<Instant>,
    is_broken: bool,
}

impl<W: Write> Counted<W> {
    pub(super) fn new(inner: W) -> Self {
        let told = io::stderr().is_terminal().then(Instant::now);
        Self { inner, bytes: 0, told, is_broken: false }
    }

    /// Whether the reader has gone.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Takes away what was told.
    pub(super) fn end(&self) {
        if self.told.is_some() {
            eprint!("\r\x1b[K");
        }
    }

    fn tell(&mut self) {
        if self.told.is_some_and(|told| told.elapsed() >= TICK) {
            self.told = Some(Instant::now());
            eprint!("\r\x1b[K{} written", bytes(self.bytes));
        }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(data);
        match &written {
            Ok(count) => self.bytes += *count as u64,
            Err(error) => self.is_broken |= error.kind() == ErrorKind::BrokenPipe,
        }
        self.tell();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.is_broken |=
            flushed.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        flushed
    }
}
