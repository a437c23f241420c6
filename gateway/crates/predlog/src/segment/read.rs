//! Reading a segment.

use std::fs::File;
use std::io;
use std::path::Path;

use prost::{DecodeError, Message};

use super::frames::{Frame, Frames};
use super::{CLOSED, Damage, Head, Kind, OPEN, Reason, Record};
use crate::{Feedback, Row, Schema, SchemaId};

/// The whole records of a segment, in the order in which they were written. One that is being
/// written is read as far as it went when it was opened.
#[derive(Debug)]
pub struct Reader {
    frames: Frames<File>,
    head: Head,
    /// Whether the file has its last name, and so must have its last record.
    is_closed: bool,
    /// Records of kinds that only a later version knows.
    unknown: u64,
}

impl Reader {
    /// One that was closed since it was listed as open is read under its last name.
    ///
    /// # Errors
    ///
    /// What the file system gives; [`Unsupported`](io::ErrorKind::Unsupported) for a format of a
    /// later version. A damaged file is no error: see [`gaps`](Self::gaps).
    pub fn open(path: &Path) -> io::Result<Self> {
        let has = |extension: &str| path.extension().is_some_and(|of| of == extension);
        let (file, is_closed) = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && has(OPEN) => {
                (File::open(path.with_extension(CLOSED))?, true)
            }
            file => (file?, !has(OPEN)),
        };
        let frames = Frames::new(file)?;
        let head = frames.head().unwrap_or_default();
        Ok(Self { frames, head, is_closed, unknown: 0 })
    }

    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What tells this segment from all others, whatever their numbers and instances are: where
    /// folders were copied, those are the same. 0 where too much of it is damaged.
    pub(crate) fn tag(&self) -> u32 {
        let hash = |key: u64| xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes());
        self.frames.key().map_or(0, |key| (hash(key) >> 32) as u32)
    }

    /// Records so far of kinds that only a later version knows.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The next whole record; `None` at the end of the file. Records of kinds that only a later
    /// version knows are passed over. Takes the memory of one record, at most
    /// [`LONGEST`](super::LONGEST).
    ///
    /// # Errors
    ///
    /// What the file system gives.
    #[expect(clippy::should_implement_trait, reason = "`?` inside the loop reads better")]
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        while let Some(frame) = self.frames.next()? {
            match decode(&frame) {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => self.unknown += 1,
                Err(_) => {
                    let length = self.frames.end().unwrap_or(frame.at) - frame.at;
                    self.frames.gap(frame.at, length, Reason::Unreadable);
                }
            }
        }
        if !self.is_closed {
            self.frames.forgive_end();
        } else if !self.frames.has_ended() {
            self.is_closed = false;
            self.frames.gap(self.frames.length(), 0, Reason::Cut);
        }
        Ok(None)
    }

    /// What could not be read of the part that was: after the end, of the whole file. From the
    /// thousandth gap on, one stands for all that follow and the records between them.
    #[must_use]
    pub fn gaps(&self) -> &[Damage] {
        self.frames.gaps()
    }

    /// The first of the [`gaps`](Self::gaps).
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        self.gaps().first().copied()
    }
}

fn decode(frame: &Frame) -> Result<Option<Record>, DecodeError> {
    let payload = frame.payload.clone();
    Ok(match frame.kind {
        kind if kind == Kind::Schema as u8 => {
            let id = SchemaId::of(&payload);
            Some(Record::Schema(id, Schema::decode(payload)?))
        }
        kind if kind == Kind::Row as u8 => Some(Record::Row(Row::decode(payload)?)),
        kind if kind == Kind::Feedback as u8 => Some(Record::Feedback(Feedback::decode(payload)?)),
        _ => None,
    })
}
