//! What has to be delivered: a note for each segment that was converted, on the disk before the
//! segment goes, off it when every file of the segment has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::{error, warn};

use super::retention::{scan, segment_of};

/// The notes of a folder. They take little of the memory beside what their files take of the disk,
/// which bounds them.
#[derive(Debug)]
pub(super) struct Outbox {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Files of each note that have not arrived.
    notes: BTreeMap<u64, usize>,
    /// Every file that has not arrived.
    paths: BTreeSet<String>,
    /// Those of them that nobody delivers right now: what failed least goes first, then in order.
    queue: BTreeMap<(u32, u64), Item>,
    /// Those that somebody delivers, by their order.
    in_hand: BTreeMap<u64, Item>,
    next: u64,
    /// When the oldest file was noted, by note.
    since: BTreeMap<u64, SystemTime>,
}

/// A file to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    note: u64,
    order: u64,
    failures: u32,
    /// In the log's folder, with `/`.
    pub(super) path: String,
}

#[derive(Serialize, Deserialize)]
struct Note {
    files: Vec<String>,
}

impl Outbox {
    /// Takes up what was left.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let (mut state, mut unreadable) = (State::default(), vec![]);
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let Some(number) = number_of(&path) else {
                // A note that was cut off: its segment is still there.
                if path.extension().is_some_and(|extension| extension == "tmp") {
                    fs::remove_file(&path)?;
                }
                continue;
            };
            match read(&path) {
                Ok(note) => state.take_in(number, note.files, path.metadata()?.modified()?),
                Err(error) => {
                    let note = path.display();
                    error!(%note, %error, "cannot read which files are to be delivered: all that are here of its segment are");
                    unreadable.push(number);
                }
            }
        }
        if !unreadable.is_empty() {
            let log = folder.parent().unwrap_or(&folder);
            for file in scan(log, SystemTime::now(), false).files {
                if let Some(number) = segment_of(&file.path).filter(|of| unreadable.contains(of)) {
                    state.take_in(number, vec![file.path], file.until);
                }
            }
        }
        Ok(Self { folder, state: Mutex::new(state), changed: Notify::new() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the files of a segment; once it returns they are not forgotten.
    ///
    /// # Errors
    /// When the disk does not take the note.
    pub(super) fn add(&self, number: u64, files: &[String]) -> io::Result<()> {
        let path = self.path(number);
        let mut all = match read(&path) {
            Ok(note) => note.files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
            Err(error) => {
                let note = path.display();
                warn!(%note, %error, "a note that cannot be read is written anew");
                self.state().of(number)
            }
        };
        all.extend(files.iter().cloned());
        all.sort_unstable();
        all.dedup();
        write(&path, &Note { files: all })?;
        self.state().take_in(number, files.to_vec(), SystemTime::now());
        self.changed.notify_one();
        Ok(())
    }

    /// Waits until there are files to deliver; takes up to `most` of them.
    pub(super) async fn next(&self, most: usize) -> Vec<Item> {
        loop {
            let taken = self.state().hand_out(most);
            if !taken.is_empty() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    /// The note that is to be removed before [`delivered`](Self::delivered) is told of this file:
    /// all others of its segment have arrived.
    pub(super) fn completed_by(&self, item: &Item) -> Option<PathBuf> {
        let left = self.state().notes.get(&item.note).copied();
        (left == Some(1)).then(|| self.path(item.note))
    }

    /// The file has arrived.
    pub(super) fn delivered(&self, item: &Item) {
        let mut state = self.state();
        state.in_hand.remove(&item.order);
        state.paths.remove(&item.path);
        let Some(left) = state.notes.get_mut(&item.note) else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            state.notes.remove(&item.note);
            state.since.remove(&item.note);
        }
    }

    /// The file has not arrived: others go first.
    pub(super) fn failed(&self, mut item: Item) {
        item.failures = item.failures.saturating_add(1);
        let mut state = self.state();
        state.in_hand.remove(&item.order);
        state.queue.insert((item.failures, item.order), item);
    }

    /// Nobody delivers anything any more: what was in hand is to be handed out again.
    pub(super) fn take_back(&self) {
        let mut state = self.state();
        for (order, item) in std::mem::take(&mut state.in_hand) {
            state.queue.insert((item.failures, order), item);
        }
    }

    /// Whether a file has not arrived yet.
    pub(super) fn holds(&self, path: &str) -> bool {
        self.state().paths.contains(path)
    }

    /// How many files have not arrived, and since when the oldest of them waits.
    pub(super) fn figures(&self) -> (usize, Option<SystemTime>) {
        let state = self.state();
        (state.paths.len(), state.since.values().min().copied())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.json"))
    }
}

impl State {
    fn take_in(&mut self, note: u64, files: Vec<String>, since: SystemTime) {
        for path in files {
            if !self.paths.insert(path.clone()) {
                continue;
            }
            let order = self.next;
            self.next += 1;
            self.queue.insert((0, order), Item { note, order, failures: 0, path });
            *self.notes.entry(note).or_default() += 1;
            self.since.entry(note).or_insert(since);
        }
    }

    fn hand_out(&mut self, most: usize) -> Vec<Item> {
        let taken = std::iter::from_fn(|| self.queue.pop_first()).take(most);
        let taken: Vec<_> = taken.map(|(_, item)| item).collect();
        self.in_hand.extend(taken.iter().map(|item| (item.order, item.clone())));
        taken
    }

    /// Files of a segment that have not arrived.
    fn of(&self, number: u64) -> Vec<String> {
        self.paths.iter().filter(|path| segment_of(path) == Some(number)).cloned().collect()
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

fn read(path: &Path) -> io::Result<Note> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Beside, onto the disk, under its name, and the name onto the disk.
fn write(path: &Path, note: &Note) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(note)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
