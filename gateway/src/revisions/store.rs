//! The revisions that are kept: in a folder that one process at a time may use, or in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use tracing::{error, warn};

use super::file::{self, Unusable};
use super::{Cause, Overlay, Revision, Summary};
use crate::config;
use crate::routing::RoutePlan;

/// The current revision and the one before are never pruned.
const FEWEST: usize = 2;
/// Most that revisions may take in the folder, in bytes: large files with many routes must not
/// fill the disk before their number says so.
const MOST_BYTES: u64 = 256 << 20;

/// A revision that is to be written.
#[derive(Debug, Clone)]
pub struct Draft {
    pub author: String,
    pub reason: String,
    pub cause: Cause,
    pub config_hash: String,
    /// In the order of names.
    pub plans: Vec<Arc<RoutePlan>>,
    pub overlay: Overlay,
    pub diff: Vec<String>,
}

/// Keeps revisions. Calls read and write files: keep them away from event loops.
#[derive(Debug)]
pub struct Store {
    /// Empty while everything is kept in memory.
    folder: OnceLock<Folder>,
    /// The folder that the first change of routes opens, where the start did not.
    later: Option<PathBuf>,
    keep: usize,
    most_bytes: u64,
    index: Mutex<Index>,
}

/// What there is. Files known to be torn or foreign are not in it.
#[derive(Debug, Default)]
struct Index {
    kept: BTreeMap<u64, Kept>,
    /// The last number that anybody used, be it for a file that could not be finished.
    last: u64,
}

#[derive(Debug)]
enum Kept {
    Memory(Arc<Revision>),
    File { bytes: u64 },
}

/// `<state.path>/revisions`.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Held for as long as the process lives.
    _lock: File,
    #[cfg(test)]
    fault: Mutex<Option<Fault>>,
}

/// Moments at which a write may be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Write,
    Sync,
    Rename,
    SyncFolder,
    /// Nothing is left to do on the disk.
    Done,
}

/// What happens at a step, in tests.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This step fails, once.
    Fails(Step),
    /// The process ends there: nothing that comes later happens.
    Crashes(Step),
    Crashed,
}

impl Store {
    /// Opens the folder of the settings, or keeps everything in memory without one. One that
    /// nothing needs yet is opened where it has been used before, and else by
    /// [`Self::begin`].
    ///
    /// # Errors
    /// When another process uses the folder, when it cannot be written, or when it holds
    /// revisions of which none is whole: to start as if there were none would undo silently what
    /// was changed by hand.
    pub fn open(settings: &config::State) -> Result<Self, String> {
        let keep = settings.revisions.max(FEWEST);
        let mut index = Index::default();
        let is_used = |path: &&PathBuf| settings.is_needed || path.join(REVISIONS).is_dir();
        let (folder, later) = (OnceLock::new(), settings.path.clone());
        if let Some(path) = settings.path.as_ref().filter(is_used) {
            let opened = Folder::open(path, &mut index);
            let opened =
                opened.map_err(|reason| format!("state.path: {}: {reason}", path.display()))?;
            drop(folder.set(opened));
        }
        let index = Mutex::new(index);
        let store = Self { folder, later, keep, most_bytes: MOST_BYTES, index };
        let last = store.lock().last;
        let newest = store.newest().map_err(|reason| format!("state.path: {reason}"))?;
        if last > 0 && newest.is_none() {
            let path = settings.path.as_deref().unwrap_or(Path::new("")).join(REVISIONS);
            return Err(format!(
                "state.path: no revision in {} is whole; move the folder away to start with the \
                 routes of the configuration file",
                path.display()
            ));
        }
        Ok(store)
    }

    /// The folder where it is open.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.later.as_deref().filter(|_| self.folder.get().is_some())
    }

    /// Where revisions are kept from now on: in the folder of the settings, opened unless it is,
    /// with what has been kept in memory until now. `None`: in memory, for there is no folder.
    ///
    /// # Errors
    /// When the folder cannot be used; everything is kept in memory still.
    pub fn begin(&self) -> Result<Option<&Path>, String> {
        let Some(path) = &self.later else { return Ok(None) };
        let mut index = self.lock();
        if self.folder.get().is_some() {
            return Ok(Some(path));
        }
        let wrong = |reason: String| format!("{}: {reason}", path.display());
        let mut found = Index::default();
        let folder = Folder::open(path, &mut found).map_err(wrong)?;
        if found.last > 0 {
            let text = "has revisions of another gateway: restart this one to go on from them";
            return Err(wrong(text.to_owned()));
        }
        let mut written = BTreeMap::new();
        for (number, kept) in &index.kept {
            if let Kept::Memory(revision) = kept {
                let bytes = folder.write(revision).map_err(|error| wrong(error.to_string()))?;
                written.insert(*number, Kept::File { bytes });
            }
        }
        index.kept.extend(written);
        drop(self.folder.set(folder));
        Ok(Some(path))
    }

    /// Writes a revision under the next number; on return it is on the disk. Prunes old ones.
    ///
    /// # Errors
    /// When it cannot be written; then there is no such revision.
    pub fn append(&self, draft: Draft) -> Result<Arc<Revision>, String> {
        let number = {
            let mut index = self.lock();
            index.last += 1;
            index.last
        };
        let revision = Arc::new(draft.into_revision(number));
        let kept = match self.folder.get() {
            None => Kept::Memory(revision.clone()),
            Some(folder) => Kept::File {
                bytes: folder.write(&revision).map_err(|error| {
                    format!("revision {number} cannot be written to the state folder: {error}")
                })?,
            },
        };
        let mut index = self.lock();
        index.kept.insert(number, kept);
        self.prune(&mut index);
        Ok(revision)
    }

    /// The newest whole revision.
    ///
    /// # Errors
    /// When a file cannot be read, which says nothing of what is in it.
    pub fn newest(&self) -> Result<Option<Arc<Revision>>, String> {
        self.find(|_| true).next().transpose()
    }

    /// The newest whole revision older than another.
    ///
    /// # Errors
    /// As [`Self::newest`].
    pub fn before(&self, number: u64) -> Result<Option<Arc<Revision>>, String> {
        self.find(|other| other < number).next().transpose()
    }

    /// One revision; `None` when there is none of that number any more, or it is not whole.
    ///
    /// # Errors
    /// As [`Self::newest`].
    pub fn get(&self, number: u64) -> Result<Option<Arc<Revision>>, String> {
        self.read(number)
    }

    /// At most so many, newest first. Files that are not whole are left out. One at a time is in
    /// memory: with many routes they are large.
    ///
    /// # Errors
    /// As [`Self::newest`].
    pub fn list(&self, limit: usize) -> Result<Vec<Summary>, String> {
        self.find(|_| true).take(limit).map(|found| found.map(|found| found.summary())).collect()
    }

    /// The number that the next revision gets, unless its write fails.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.lock().last + 1
    }

    /// What is wanted and whole, newest first, read as it is asked for.
    fn find(
        &self,
        wanted: impl Fn(u64) -> bool,
    ) -> impl Iterator<Item = Result<Arc<Revision>, String>> {
        let numbers: Vec<u64> =
            self.lock().kept.keys().rev().copied().filter(|n| wanted(*n)).collect();
        numbers.into_iter().filter_map(|number| self.read(number).transpose())
    }

    fn read(&self, number: u64) -> Result<Option<Arc<Revision>>, String> {
        match self.lock().kept.get(&number) {
            None => return Ok(None),
            Some(Kept::Memory(revision)) => return Ok(Some(revision.clone())),
            Some(Kept::File { .. }) => {}
        }
        let Some(folder) = self.folder.get() else { return Ok(None) };
        let path = folder.path.join(file::name(number));
        match file::read(&path, number) {
            Ok(revision) => Ok(Some(Arc::new(revision))),
            Err(Unusable::Spoilt(reason)) => {
                error!(path = %path.display(), reason, "a revision cannot be used, it is skipped");
                self.lock().kept.remove(&number);
                Ok(None)
            }
            // It may be there the next time: the disk, or too many open files.
            Err(Unusable::Unread(error)) => {
                Err(format!("{} cannot be read: {error}", path.display()))
            }
        }
    }

    fn prune(&self, index: &mut Index) {
        let size = |kept: &Kept| if let Kept::File { bytes } = kept { *bytes } else { 0 };
        let mut bytes: u64 = index.kept.values().map(size).sum();
        while index.kept.len() > self.keep || (bytes > self.most_bytes && index.kept.len() > FEWEST)
        {
            let Some((number, kept)) = index.kept.pop_first() else { return };
            bytes -= size(&kept);
            let Some(folder) = self.folder.get() else { continue };
            let path = folder.path.join(file::name(number));
            if let Err(error) = std::fs::remove_file(&path) {
                warn!(path = %path.display(), %error, "an old revision cannot be removed");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn set_fault(&self, fault: Fault) {
        *self.folder.get().unwrap().fault.lock().unwrap() = Some(fault);
    }

    #[cfg(test)]
    pub(crate) fn set_most_bytes(&mut self, bytes: u64) {
        self.most_bytes = bytes;
    }
}

impl Draft {
    fn into_revision(self, number: u64) -> Revision {
        let Self { author, reason, cause, config_hash, plans, overlay, diff } = self;
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let at = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Revision { number, at, author, reason, cause, config_hash, plans, overlay, diff }
    }
}

impl Folder {
    fn open(state: &Path, index: &mut Index) -> Result<Self, String> {
        let path = state.join(REVISIONS);
        let words = |error: io::Error| error.to_string();
        DirBuilder::new().recursive(true).mode(0o750).create(&path).map_err(words)?;
        let lock = lock(state)?;
        let mut foreign = BTreeSet::new();
        for entry in path.read_dir().map_err(words)? {
            let entry = entry.map_err(words)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match file::number(&name) {
                Some(number) => {
                    let bytes = entry.metadata().map_err(words)?.len();
                    index.kept.insert(number, Kept::File { bytes });
                    index.last = index.last.max(number);
                }
                // A write that was cut off.
                None if name.ends_with(TEMPORARY) => {
                    std::fs::remove_file(entry.path()).map_err(words)?;
                }
                None => drop(foreign.insert(name)),
            }
        }
        if !foreign.is_empty() {
            warn!(folder = %path.display(), ?foreign, "no revisions, left alone");
        }
        Ok(Self {
            path,
            _lock: lock,
            #[cfg(test)]
            fault: Mutex::default(),
        })
    }

    /// Returns the file's size. A file that is there under its name is whole and durable.
    fn write(&self, revision: &Revision) -> io::Result<u64> {
        let bytes = file::write(revision)?;
        let whole = self.path.join(file::name(revision.number));
        let temporary = self.path.join(format!("{}{TEMPORARY}", revision.number));
        let written = self.write_steps(&bytes, &temporary, &whole);
        if written.is_err() && self.is_alive() {
            // Whoever reads the folder next must not find what the caller was told is not there.
            drop(std::fs::remove_file(&temporary));
            drop(std::fs::remove_file(&whole));
        }
        written.map(|()| bytes.len() as u64)
    }

    fn write_steps(&self, bytes: &[u8], temporary: &Path, whole: &Path) -> io::Result<()> {
        self.at(Step::Create)?;
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create_new(true).mode(0o640).open(temporary)?;
        self.at(Step::Write)?;
        file.write_all(bytes)?;
        self.at(Step::Sync)?;
        file.sync_all()?;
        self.at(Step::Rename)?;
        std::fs::rename(temporary, whole)?;
        self.at(Step::SyncFolder)?;
        File::open(&self.path)?.sync_all()?;
        self.at(Step::Done)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests fail here")]
    fn at(&self, _step: Step) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn at(&self, step: Step) -> io::Result<()> {
        let mut fault = self.fault.lock().unwrap();
        match *fault {
            Some(Fault::Fails(at)) if at == step => *fault = None,
            Some(Fault::Crashes(at)) if at == step => *fault = Some(Fault::Crashed),
            Some(Fault::Crashed) => {}
            _ => return Ok(()),
        }
        Err(io::Error::other(format!("{step:?} failed")))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests end here")]
    fn is_alive(&self) -> bool {
        true
    }

    #[cfg(test)]
    fn is_alive(&self) -> bool {
        *self.fault.lock().unwrap() != Some(Fault::Crashed)
    }
}

const TEMPORARY: &str = ".tmp";
const REVISIONS: &str = "revisions";

/// Takes the folder for this process; the system gives it back when the process ends, however.
fn lock(state: &Path) -> Result<File, String> {
    let path = state.join("lock");
    let mut open = OpenOptions::new();
    let mut file = open
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(&path)
        .map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            drop(file.take(32).read_to_string(&mut holder));
            return Err(format!("is in use by another gateway (process {})", holder.trim()));
        }
        Err(TryLockError::Error(error)) => {
            return Err(format!("cannot lock {}: {error}", path.display()));
        }
    }
    // For people only: the lock is what counts.
    let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map(|()| file).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
