//! The folder of a log, which one process owns at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::segment::{self, Recovered, Writer, sync_folder};

const LOCK: &str = "lock";
const INSTANCE: &str = "instance";
const TEMPORARY: &str = "instance.tmp";

/// A folder that this process owns.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    instance: u32,
    /// The highest number that a segment of this instance had.
    last: u64,
    lock: Arc<Lock>,
}

/// Keeps other processes away from a folder until the last one who holds it lets go. The system
/// gives it back when the process ends, however.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Folder {
    /// Takes a folder, and makes what it lacks.
    ///
    /// # Errors
    ///
    /// [`ResourceBusy`](ErrorKind::ResourceBusy) while another process owns it; else what the file
    /// system gives. Either names the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::take(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn take(path: &Path) -> io::Result<Self> {
        make(path)?;
        let lock = Arc::new(Lock { _file: lock(&path.join(LOCK))? });
        let mut folder = Self { path: path.to_owned(), instance: 0, last: 0, lock };
        for part in [folder.segments(), folder.files(), folder.feedback()] {
            make(&part)?;
        }
        let segments = folder.segments();
        let held = [segment::list(&segments)?, segment::list_open(&segments)?].concat();
        let highest = held.iter().map(|(number, _)| *number).max().unwrap_or(0);
        if let Some((instance, last)) = noted(&path.join(INSTANCE))? {
            folder.instance = instance;
            folder.last = last.max(highest);
        } else {
            // Hashed with keys that the system draws.
            let [a, b, c, d, ..] = RandomState::new().hash_one(path).to_le_bytes();
            folder.instance = u32::from_le_bytes([a, b, c, d]);
            folder.write(highest)?;
        }
        Ok(folder)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For those who go on with the folder's files when this is dropped.
    #[must_use]
    pub fn lock(&self) -> &Arc<Lock> {
        &self.lock
    }

    /// Segments: those that are written, and those that await conversion.
    #[must_use]
    pub fn segments(&self) -> PathBuf {
        self.path.join("segments")
    }

    /// Files that segments were converted to.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    #[must_use]
    pub fn feedback(&self) -> PathBuf {
        self.path.join("feedback")
    }

    /// What tells the files of this folder from those of others, where they come together: 32
    /// random bits, drawn once. Texts have it as 8 hex digits.
    #[must_use]
    pub fn instance(&self) -> u32 {
        self.instance
    }

    /// Closes what a crash left open; to be called before the first segment is begun.
    ///
    /// # Errors
    ///
    /// As [`segment::recover`].
    pub fn recover(&mut self) -> io::Result<Vec<Recovered>> {
        let recovered = segment::recover(&self.segments())?;
        let numbers = segment::list(&self.segments())?;
        self.last = numbers.iter().map(|(number, _)| *number).fold(self.last, u64::max);
        Ok(recovered)
    }

    /// Begins the next segment. Its number was never used before in this folder under its
    /// instance, though all segments before it may be gone: names of files follow from it.
    /// `created_us`: microseconds since 1970, UTC.
    ///
    /// # Errors
    ///
    /// What the file system gives; it may be tried again.
    pub fn create(&mut self, created_us: i64) -> io::Result<Writer> {
        let number = self.last + 1;
        self.write(number)?;
        Writer::create(&self.segments(), number, created_us, self.instance.into())
    }

    /// Notes that a number is used: the old note or the new one is there, whatever happens.
    fn write(&mut self, last: u64) -> io::Result<()> {
        let temporary = self.path.join(TEMPORARY);
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        writeln!(file, "{:08x} {last}", self.instance)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path.join(INSTANCE))?;
        sync_folder(&self.path)?;
        self.last = last;
        Ok(())
    }
}

/// The instance and the highest number that it used; `None` where that was never noted, or is not
/// to be read any more: what is written from then on has names of another instance.
pub(crate) fn noted(path: &Path) -> io::Result<Option<(u32, u64)>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&bytes);
    let words = text.strip_suffix('\n').and_then(|line| line.split_once(' '));
    Ok(words.and_then(|(instance, last)| {
        let instance = Some(instance).filter(|digits| digits.len() == 8)?;
        Some((u32::from_str_radix(instance, 16).ok()?, last.parse().ok()?))
    }))
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}

fn lock(path: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    let mut file =
        open.read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            drop(file.take(32).read_to_string(&mut holder));
            let text = format!("in use by another gateway (process {})", holder.trim());
            return Err(io::Error::new(ErrorKind::ResourceBusy, text));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // For people only: the lock is what counts. A full disk is no reason to stay away.
    drop(file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state/predictions");
        let folder = Folder::open(&path).unwrap();
        let refused = Folder::open(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
        let named = format!("in use by another gateway (process {})", std::process::id());
        assert!(refused.to_string().contains(&named), "{refused}");
        let held = folder.lock().clone();
        drop(folder);
        assert!(Folder::open(&path).is_err(), "somebody is still at work there");
        drop(held);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn numbers_are_never_used_twice_though_segments_go() {
        let place = tempfile::tempdir().unwrap();
        let (mut numbers, mut instances) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let mut folder = Folder::open(place.path()).unwrap();
            folder.recover().unwrap();
            instances.push(folder.instance());
            for _ in 0..2 {
                let mut writer = folder.create(0).unwrap();
                numbers.push(writer.number());
                fs::remove_file(writer.close().unwrap()).unwrap();
            }
        }
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        assert!(instances.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn without_its_note_a_folder_is_another_instance_and_keeps_what_it_holds() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(place.path()).unwrap();
        let first = folder.instance();
        folder.create(0).unwrap().close().unwrap();
        drop(folder);
        for damaged in ["", "12345678", "12345678 x\n", "1234 7\n", "12345678 7"] {
            fs::write(place.path().join(INSTANCE), damaged).unwrap();
            let mut folder = Folder::open(place.path()).unwrap();
            assert_ne!(folder.instance(), first);
            assert_ne!(folder.instance(), 0x1234_5678);
            let number = folder.create(0).unwrap().number();
            fs::remove_file(folder.segments().join(format!("{number:08}.open"))).unwrap();
            assert_eq!(number, 2);
        }
    }

    #[test]
    fn a_number_that_recovery_gave_is_not_given_again() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(place.path()).unwrap();
        let mut writer = folder.create(0).unwrap();
        let mut framed = Vec::new();
        segment::frame(segment::Kind::Feedback, &mut framed, |_| {});
        writer.append(&mut framed).unwrap();
        // Somebody put a file there by hand.
        fs::write(folder.segments().join("00000001.segment"), "mine").unwrap();
        let recovered = folder.recover().unwrap();
        assert_eq!(recovered[0].path, folder.segments().join("00000002.segment"));
        assert_eq!(fs::read(folder.segments().join("00000001.segment")).unwrap(), b"mine");
        assert_eq!(folder.create(0).unwrap().number(), 3);
    }
}
