//! Words of the system that something near the configuration file happened. They may be missing,
//! late or about other files: they only say when to look.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::warn;

use crate::tasks;

/// Watches the folders that decide what stands at a path: that of the path, which sees renames and
/// new links, and that of the file which the links lead to, which sees it written.
pub struct Hints {
    bell: Arc<Notify>,
    path: PathBuf,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Folders that cannot be watched, and that the log has named.
    told: BTreeSet<PathBuf>,
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl Hints {
    /// Hints about the file at `path`. Where the system has none to give, the log says so and
    /// only polling finds changes.
    #[must_use]
    pub fn about(path: &Path) -> Self {
        let mut hints = Self::silent(path);
        let ring = hints.bell.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // What went wrong may have been a hint that is lost now.
            if event.map_or(true, |event| is_change(event.kind)) {
                ring.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|error| warn!(%error, "no hints of changed files, polling finds them"));
        hints.watcher = watcher.ok();
        hints
    }

    fn silent(path: &Path) -> Self {
        Self {
            bell: Arc::new(Notify::new()),
            path: path.to_owned(),
            watcher: None,
            watched: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    /// Waits until something happened since the last time.
    pub async fn next(&self) {
        self.bell.notified().await;
    }

    /// Takes aim at the folders that decide now: links may have changed, and a folder may have
    /// been made anew under its name.
    pub async fn aim(&mut self) {
        if self.watcher.is_none() {
            return;
        }
        let path = self.path.clone();
        let wanted = tasks::blocking(move || folders(&path)).await;
        let Some(watcher) = &mut self.watcher else { return };
        for old in self.watched.difference(&wanted) {
            // One that was removed is not watched any more anyway.
            drop(watcher.unwatch(old));
        }
        self.told.retain(|folder| wanted.contains(folder));
        self.watched.clear();
        for folder in wanted {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.told.remove(&folder);
                    self.watched.insert(folder);
                }
                Err(error) => {
                    if self.told.insert(folder.clone()) {
                        let folder = folder.display();
                        warn!(%folder, %error, "no hints of changed files, polling finds them");
                    }
                }
            }
        }
    }
}

/// Whether an event can mean another content: reading a file, as looks do, is none.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let folder = |path: &Path| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).to_owned()
    };
    let target = path.canonicalize().ok();
    std::iter::once(folder(path)).chain(target.as_deref().map(folder)).collect()
}

#[cfg(test)]
impl Hints {
    /// Hints that a test gives.
    pub(super) fn by_hand() -> (Self, Arc<Notify>) {
        let hints = Self::silent(Path::new(""));
        let bell = hints.bell.clone();
        (hints, bell)
    }
}
