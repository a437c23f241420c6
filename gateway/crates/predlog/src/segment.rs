//! Segments: append-only files of records that survive crashes and name their damage.
//!
//! ```text
//! head    "PENSTOCK" | u32 version | i64 created (µs) | u64 instance | u64 key | u32 crc32
//! record  u32 length of payload | u32 crc32 of payload | u8 kind | u64 seal | payload
//! ```
//!
//! All numbers are little-endian. `NNNNNNNN.open` is being written; closing ends it with a record
//! that says so and calls it `NNNNNNNN.segment`. A schema stands before its first row in every
//! segment, so that each reads alone.
//!
//! The seal is the XXH3 of what stands before it in the record's head, under a key that is drawn
//! for the file and that no caller sees. Payloads hold what callers sent, which may look like
//! records, but none that is sealed. So behind damage, or where bytes are missing, the next record
//! is looked for at every byte, and whatever is whole is read. The key stands in the head, and once
//! more in the record that closes the file: where both are lost, nothing is. What is missing between
//! whole records shows at that record.

mod append;
mod frame;
mod frames;
mod read;
mod recover;
mod write;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{fmt, io};

pub use frame::{HEADER, LONGEST, frame};
pub use read::Reader;
pub use recover::{Recovered, recover};
pub use write::Writer;

use crate::{Feedback, Row, Schema, SchemaId};

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    Schema = 1,
    Row = 2,
    Feedback = 3,
}

/// A record, as it is read.
#[expect(clippy::large_enum_variant, reason = "nearly all records are rows")]
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Schema(SchemaId, Schema),
    Row(Row),
    Feedback(Feedback),
}

/// What the head of a segment says; nought where the head is damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Microseconds since 1970, UTC.
    pub created_us: i64,
    /// The gateway that wrote it.
    pub instance: u64,
    /// What its records are sealed with.
    key: u64,
}

/// A part of a file that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Damage {
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// Bytes of the file that it spoils; 0: they are missing.
    pub length: u64,
    pub reason: Reason,
}

/// What is wrong with a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The head of the file is not what was written.
    Head,
    /// The head of a record is not what was written.
    RecordHead,
    /// The payload of a record is not what was written.
    Payload,
    /// A record is what was written, and cannot be understood.
    Unreadable,
    /// The file ends inside a record.
    Torn,
    /// The file ends before the record with which it was closed.
    Cut,
    /// Bytes before this place were taken away or put in.
    Displaced,
    /// The disk or its file system cannot read it.
    Disk,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "the head of the file does not match its checksum",
            Self::RecordHead => "the head of a record does not match its checksum",
            Self::Payload => "a record does not match its checksum",
            Self::Unreadable => "a record cannot be understood",
            Self::Torn => "the file ends inside a record",
            Self::Cut => "the file ends before its last record",
            Self::Displaced => "bytes before this place were taken away or put in",
            Self::Disk => "the disk cannot read it",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes from byte {})", self.reason, self.length, self.offset)
    }
}

const OPEN: &str = "open";
const CLOSED: &str = "segment";
const ASIDE: &str = "damaged";

fn open_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.{OPEN}"))
}

fn closed_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.{CLOSED}"))
}

/// Closed segments, by number.
///
/// # Errors
///
/// What reading the folder gives.
pub fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    numbered(folder, CLOSED)
}

/// Segments that were not closed, by number: the one that is being written, or what a crash left.
///
/// # Errors
///
/// What reading the folder gives.
pub fn list_open(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    numbered(folder, OPEN)
}

/// Closed segments that were put aside by this name because parts of them could not be read; what
/// could is in files. By number.
///
/// # Errors
///
/// What reading the folder gives.
pub fn list_aside(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    numbered(folder, ASIDE)
}

fn numbered(folder: &Path, extension: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|of| of == extension))
        {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes what was created, renamed or removed in a folder survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
