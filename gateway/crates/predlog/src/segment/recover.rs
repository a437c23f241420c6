//! Closing what a crash left open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::append::Appender;
use super::frame::HEAD;
use super::frames::{Frames, is_unreadable};
use super::{Damage, Kind, Reason, closed_path, list, list_open, sync_folder};

/// A segment that a crash left open, now closed unless there is a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub path: PathBuf,
    /// Whole rows in it.
    pub rows: u64,
    /// What was cut off its end. Damage before that stays in the file, and readers name it; so
    /// does a file without anything whole, which is left as it is.
    pub damage: Option<Damage>,
    /// Why it was left as it is: a later version wrote it, or the disk does not let us.
    pub problem: Option<String>,
}

/// Cuts the open segments of a folder behind their last whole records and closes them. No segment
/// of the folder may be being written. Cut off itself, it does the rest when it is called again.
/// A segment that cannot be dealt with holds up no other.
///
/// # Errors
///
/// What the file system gives, with the path.
pub fn recover(folder: &Path) -> io::Result<Vec<Recovered>> {
    let mut recovered = Vec::new();
    for (number, path) in list_open(folder)? {
        match recover_one(folder, number, &path) {
            Ok(one) => recovered.extend(one),
            Err(error) if error.kind() == ErrorKind::Unsupported || is_unreadable(&error) => {
                let problem = Some(error.to_string());
                recovered.push(Recovered { path, rows: 0, damage: None, problem });
            }
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
        }
    }
    Ok(recovered)
}

/// `None`: it never held a record, and is gone.
fn recover_one(folder: &Path, number: u64, path: &Path) -> io::Result<Option<Recovered>> {
    let mut frames = Frames::new(File::open(path)?)?;
    let mut rows = 0;
    while let Some(frame) = frames.next()? {
        rows += u64::from(frame.kind == Kind::Row as u8);
    }
    let length = frames.length();
    if length <= HEAD as u64 {
        fs::remove_file(path)?;
        sync_folder(folder)?;
        return Ok(None);
    }
    let end = frames.end().unwrap_or(length);
    let last = frames.gaps().last().filter(|_| end < length);
    let damage = last.map(|gap| Damage { offset: end, length: length - end, ..*gap });
    // What a disk cannot read today may be whole: it is not cut off, and readers name it.
    if damage.is_none_or(|damage| damage.reason != Reason::Disk) {
        end_at(path, &frames, end)?;
    }
    let closed = free(folder, number)?;
    fs::rename(path, &closed)?;
    sync_folder(folder)?;
    Ok(Some(Recovered { path: closed, rows, damage, problem: None }))
}

/// Cuts a file behind its last whole record and closes it there.
fn end_at(path: &Path, frames: &Frames<File>, end: u64) -> io::Result<()> {
    let file = OpenOptions::new().append(true).open(path)?;
    let mut appender = Appender::new(file, frames.key().unwrap_or_default(), end);
    appender.mend()?;
    if !frames.has_ended() && frames.end().is_some() && appender.end().is_err() {
        // A disk so full that not even this fits: readers then say that the end is missing.
        appender.mend()?;
    }
    appender.sync()
}

/// The last name of a segment: by its number, or by the next one that is free where people copied
/// files about.
fn free(folder: &Path, number: u64) -> io::Result<PathBuf> {
    let path = closed_path(folder, number);
    if !path.try_exists()? {
        return Ok(path);
    }
    let highest = [list(folder)?, list_open(folder)?].concat().iter().map(|(of, _)| *of).max();
    Ok(closed_path(folder, highest.unwrap_or(number) + 1))
}
