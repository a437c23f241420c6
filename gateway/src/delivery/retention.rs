//! Which files go: whole files, those with the oldest rows first, and never one that has not been
//! delivered.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::config::Disk;

/// Folders that have been empty for so long are not about to be used.
const EMPTY: Duration = Duration::from_secs(3600);

/// Folders of files, in that of the log.
const ROOTS: [&str; 3] = ["files", "feedback", "segments"];

/// A file that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// In the log's folder, with `/`.
    pub(super) path: String,
    /// No row in it is younger, by the clock that was right last.
    pub(super) until: SystemTime,
    pub(super) bytes: u64,
}

/// Why a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Age,
    Size,
}

impl Reason {
    /// The value of the `reason` label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
        }
    }
}

/// What was found in a log's folder, and what could not be looked at.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<Kept>,
    pub(super) problems: Vec<(String, io::Error)>,
}

/// Every Parquet file of a log, and segments that were put aside as damaged. Folders that have been
/// empty for a while go on the way, and so do files that were never finished if `leftovers` says so.
/// What cannot be read holds up nothing else.
pub(super) fn scan(folder: &Path, now: SystemTime, leftovers: bool) -> Found {
    let mut walk = Walk { now, leftovers, found: Found::default() };
    for root in ROOTS {
        walk.folder(&folder.join(root), root, None);
    }
    walk.found
}

struct Walk {
    now: SystemTime,
    leftovers: bool,
    found: Found,
}

impl Walk {
    /// `date` as the folders above say.
    fn folder(&mut self, folder: &Path, name: &str, date: Option<&str>) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.problem(name, error),
        };
        for entry in entries {
            match entry {
                Ok(entry) => self.entry(&entry, name, date),
                Err(error) => return self.problem(name, error),
            }
        }
    }

    fn entry(&mut self, entry: &DirEntry, name: &str, date: Option<&str>) {
        let Ok(own) = entry.file_name().into_string() else { return };
        let path = format!("{name}/{own}");
        // Gone since: uploads delete files too.
        let Ok(about) = entry.metadata() else { return };
        if about.is_dir() {
            let date = own.strip_prefix("date=").or(date);
            let hour = own.strip_prefix("hour=").and_then(|hour| Some(format!("{}T{hour}", date?)));
            self.folder(&entry.path(), &path, hour.as_deref().or(date));
            self.drop_empty(entry);
        } else if self.leftovers && own.ends_with(".tmp") {
            if let Err(error) = fs::remove_file(entry.path()) {
                self.problem(&path, error);
            }
        } else if own.ends_with(".parquet") || own.ends_with(".damaged") {
            match about.modified() {
                Ok(written) => {
                    let until = self.until(date, written);
                    self.found.files.push(Kept { path, until, bytes: about.len() });
                }
                Err(error) => self.problem(&path, error),
            }
        }
    }

    /// When a file had its last row, as its folder says, and when it was written.
    fn until(&self, date: Option<&str>, written: SystemTime) -> SystemTime {
        match date.and_then(span_of) {
            // A clock that was behind has its rows in hours long ago,
            Some((start, end)) if start <= self.now => end.max(written),
            // and one that was ahead in hours to come.
            Some(_) | None => written,
        }
    }

    fn problem(&mut self, path: &str, error: io::Error) {
        self.found.problems.push((path.to_owned(), error));
    }

    /// Fails where it is not empty, which is as good.
    fn drop_empty(&self, folder: &DirEntry) {
        let changed = folder.metadata().and_then(|about| about.modified());
        let since = changed.ok().and_then(|changed| self.now.duration_since(changed).ok());
        if since.is_some_and(|since| since > EMPTY) {
            drop(fs::remove_dir(folder.path()));
        }
    }
}

/// Start and end of `2026-11-22` or of the hour `2026-11-22T07`, UTC.
fn span_of(date: &str) -> Option<(SystemTime, SystemTime)> {
    let (day, first, last) = match date.split_once('T') {
        Some((day, hour)) => (day, hour, hour),
        None => (date, "00", "23"),
    };
    let at = |hour: &str| humantime::parse_rfc3339(&format!("{day}T{hour}:00:00Z")).ok();
    Some((at(first)?, at(last)? + Duration::from_secs(3600)))
}

/// What goes, and why. `is_held` says which files have not been delivered.
pub(super) fn choose(
    mut files: Vec<Kept>,
    disk: &Disk,
    now: SystemTime,
    is_held: impl Fn(&Kept) -> bool,
) -> Vec<(Kept, Reason)> {
    files.sort_unstable_by(|a, b| (a.until, &a.path).cmp(&(b.until, &b.path)));
    let mut total: u64 = files.iter().map(|file| file.bytes).sum();
    let bound = disk.keep_size.map_or(u64::MAX, |bytes| bytes as u64);
    let mut gone = vec![];
    for file in files {
        let age = now.duration_since(file.until).unwrap_or_default();
        let reason = match disk.keep {
            Some(keep) if age >= keep => Reason::Age,
            _ if total > bound => Reason::Size,
            _ => continue,
        };
        if !is_held(&file) {
            total -= file.bytes;
            gone.push((file, reason));
        }
    }
    gone
}

/// The segment that a file was made from, as its name says.
pub(super) fn segment_of(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.split('-').nth(1)?.parse().ok()
}
