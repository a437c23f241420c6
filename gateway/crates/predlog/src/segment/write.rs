//! Writing a segment.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::append::Appender;
use super::frame::HEAD;
use super::{Head, closed_path, open_path, sync_folder};

/// A segment that is being written. One that is dropped unclosed is left for
/// [`recover`](super::recover).
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    number: u64,
    file: Appender<fs::File>,
    /// Whether it has its last name.
    is_renamed: bool,
}

impl Writer {
    /// Begins a segment in a folder.
    ///
    /// # Errors
    ///
    /// What the file system gives; nothing is left behind then. A number that is taken is
    /// [`AlreadyExists`](ErrorKind::AlreadyExists).
    pub fn create(folder: &Path, number: u64, created_us: i64, instance: u64) -> io::Result<Self> {
        if closed_path(folder, number).try_exists()? {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "the segment's number is taken"));
        }
        let path = open_path(folder, number);
        // Rows hold what callers sent: nobody but the gateway and its group reads them.
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o640).open(&path)?;
        // Keyed with random numbers of the system.
        let key = RandomState::new().hash_one(number);
        let head = Head::new(created_us, instance, key).bytes();
        let written = file.write_all(&head).and_then(|()| sync_folder(folder));
        if let Err(error) = written {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        let file = Appender::new(file, key, HEAD as u64);
        Ok(Self { folder: folder.to_owned(), number, file, is_renamed: false })
    }

    /// Seals and appends whole records, as [`frame`](super::frame()) writes them: all of them or
    /// none. What it returns is safe from the end of the process, and from the end of the machine once it
    /// is synced.
    ///
    /// # Errors
    ///
    /// What the file system gives, a full disk for one. The file then ends with its last whole
    /// record, or the error says that it could not be cut there; either way the next call first
    /// sees to that, so the same records may be tried again. Bytes that are no whole records are
    /// [`InvalidInput`](ErrorKind::InvalidInput).
    pub fn append(&mut self, framed: &mut [u8]) -> io::Result<()> {
        self.file.append(framed)
    }

    /// Bytes of the file, all of them whole records.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.file.position()
    }

    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Makes what was appended survive a power cut (`fdatasync`).
    ///
    /// # Errors
    ///
    /// What the file system gives. What was appended since the last sync may then be lost, and no
    /// later sync of this segment succeeds: the system tells of what it could not write once.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Takes back what no sync has confirmed, for those who write it to another segment.
    ///
    /// # Errors
    ///
    /// What the file system gives; the records may then still be here.
    pub fn forget_unsynced(&mut self) -> io::Result<()> {
        self.file.forget_unsynced()
    }

    /// Ends the segment, syncs it and gives it its last name; its path. This may take long, and
    /// may be done on another thread while the next segment is being written.
    ///
    /// # Errors
    ///
    /// What the file system gives; it may be tried again. A sync that failed is not: what the
    /// system could not write shows when the segment is read. [`NotFound`](ErrorKind::NotFound)
    /// where somebody has taken the file away.
    pub fn close(&mut self) -> io::Result<PathBuf> {
        let closed = closed_path(&self.folder, self.number);
        if !self.is_renamed {
            self.file.end()?;
            if !self.file.is_lost() {
                self.file.sync()?;
            }
            fs::rename(open_path(&self.folder, self.number), &closed)?;
            self.is_renamed = true;
        }
        sync_folder(&self.folder)?;
        Ok(closed)
    }
}
