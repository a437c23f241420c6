//! The audit log: one line of JSON for each change that anybody asked for, refused ones too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

/// Size at which a new file begins; one predecessor is kept. In bytes.
const LARGEST: u64 = 16 << 20;

/// Lines for those who ask later who did what. Without a state folder the process's own log is
/// all there is.
///
/// A change is noted before it is made, and is not made when that fails: nothing may happen that
/// nobody can find. It costs no availability, since the revision goes to the same disk. A line
/// says `accepted` and the number that the revision gets; should the write of the revision fail, the
/// next line says `failed`.
#[derive(Debug)]
pub struct Audit {
    log: OnceLock<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    largest: u64,
    file: Mutex<File>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry<'a> {
    pub event: Event,
    pub author: &'a str,
    /// Where it came from: an address, or what in the gateway asked.
    pub from: &'a str,
    pub what: &'a str,
    pub reason: &'a str,
    /// The revision that was current.
    pub before: u64,
    /// The number that its revision gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Why it was refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<&'a str>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Accepted,
    Refused,
    Failed,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

impl Audit {
    /// Opens the log in the state folder, which is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(state: Option<&Path>) -> io::Result<Self> {
        let audit = Self { log: OnceLock::new() };
        state.map_or(Ok(()), |folder| audit.begin(folder))?;
        Ok(audit)
    }

    /// Begins to keep lines in a state folder that is there; nothing where that has begun.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self, state: &Path) -> io::Result<()> {
        if self.log.get().is_none() {
            let log = Log::open(state.join("audit.jsonl"), LARGEST)?;
            // Of two that begin at once, one log is kept.
            drop(self.log.set(log));
        }
        Ok(())
    }

    /// Writes a line; one that says `accepted` is on the disk on return.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, entry: &Entry<'_>) -> io::Result<()> {
        let Some(log) = self.log.get() else { return Ok(()) };
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut line = serde_json::to_vec(&Line { time, entry })?;
        line.push(b'\n');
        log.write(&line, entry.event == Event::Accepted)
    }
}

impl Log {
    fn open(path: PathBuf, largest: u64) -> io::Result<Self> {
        let mut file = open(&path)?;
        // A line that was cut off must not swallow the next one.
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Self { path, largest, file: Mutex::new(file) })
    }

    fn write(&self, line: &[u8], durable: bool) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let size = file.metadata()?.len();
        if size > 0 && size + line.len() as u64 > self.largest {
            std::fs::rename(&self.path, self.path.with_extension("1.jsonl"))?;
            *file = open(&self.path)?;
        }
        let size = file.metadata()?.len();
        let written = file.write_all(line);
        if written.is_err() {
            // Half a line, from a disk that is full.
            drop(file.set_len(size));
        }
        written?;
        if durable { file.sync_data() } else { Ok(()) }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn entry(reason: &str) -> Entry<'_> {
        Entry {
            event: Event::Accepted,
            author: "ada",
            from: "127.0.0.1",
            what: "set digits canary=10%",
            reason,
            before: 3,
            after: Some(4),
            problem: None,
        }
    }

    fn lines(folder: &TempDir, name: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_says_who_did_what_when_and_how_it_went() {
        let folder = TempDir::new().unwrap();
        let audit = Audit::open(Some(folder.path())).unwrap();
        audit.write(&entry("two\nlines")).unwrap();
        let lines = lines(&folder, "audit.jsonl");
        assert_eq!(lines[0]["event"], "accepted");
        assert_eq!(lines[0]["reason"], "two\nlines");
        assert_eq!(lines[0]["after"], 4);
        assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
        assert!(lines[0].get("problem").is_none());
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_swallow_the_next() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("audit.jsonl");
        std::fs::write(&path, "{\"time\":").unwrap();
        Audit::open(Some(folder.path())).unwrap().write(&entry("")).unwrap();
        Audit::open(Some(folder.path())).unwrap().write(&entry("")).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let whole = text.lines().filter(|l| serde_json::from_str::<serde_json::Value>(l).is_ok());
        assert_eq!((text.lines().count(), whole.count()), (3, 2));
    }

    #[test]
    fn the_log_is_bounded_and_keeps_one_predecessor() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("audit.jsonl");
        let log = Log::open(path.clone(), 2000).unwrap();
        let audit = Audit { log: log.into() };
        for number in 0..100 {
            audit.write(&entry(&number.to_string())).unwrap();
        }
        let (old, new) = (lines(&folder, "audit.1.jsonl"), lines(&folder, "audit.jsonl"));
        assert_eq!(new.last().unwrap()["reason"], "99");
        let seam =
            |line: &serde_json::Value| line["reason"].as_str().unwrap().parse::<u32>().unwrap();
        assert_eq!(seam(old.last().unwrap()) + 1, seam(&new[0]));
        assert!(path.metadata().unwrap().len() <= 2000);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
