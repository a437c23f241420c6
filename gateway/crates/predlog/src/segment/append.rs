//! Appending to a file so that what fails leaves no half record behind.

use std::fs::File;
use std::io::{self, ErrorKind, Write};

use super::frame::{Mark, first};

/// Bytes between two marks, give or take a record: what a damaged length may spoil.
pub(super) const MARK_EVERY: u64 = 64 << 10;

/// What is appended to; writes go to its end.
pub(super) trait Storage: Write {
    fn cut(&mut self, length: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Storage for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file of whole records.
#[derive(Debug)]
pub(super) struct Appender<S> {
    storage: S,
    marker: u64,
    /// Where the last whole record ends.
    position: u64,
    /// The part of it that survives the end of the machine.
    synced: u64,
    /// Bytes since the last mark.
    unmarked: u64,
    /// Whether there may be bytes behind the last whole record.
    is_torn: bool,
    has_ended: bool,
    /// Whether a sync failed: the system may have dropped what it could not write, and would not
    /// say so again.
    is_lost: bool,
}

impl<S: Storage> Appender<S> {
    /// Goes on behind what `storage` holds, the first `position` bytes of which are whole.
    pub(super) fn new(storage: S, marker: u64, position: u64) -> Self {
        Self {
            storage,
            marker,
            position,
            synced: position,
            unmarked: MARK_EVERY,
            is_torn: true,
            has_ended: false,
            is_lost: false,
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Appends whole records, all or none.
    pub(super) fn append(&mut self, framed: &[u8]) -> io::Result<()> {
        if self.has_ended {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the segment is closed"));
        }
        self.all_or_nothing(|appender| appender.write(framed))
    }

    /// Ends the file; once is enough.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if !self.has_ended {
            self.all_or_nothing(|appender| appender.mark(appender.position, true))?;
            self.has_ended = true;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.is_lost {
            return Err(io::Error::other("an earlier sync of the segment failed"));
        }
        self.storage.sync().inspect_err(|_| self.is_lost = true)?;
        self.synced = self.position;
        Ok(())
    }

    /// Whether a sync failed, so that no other one is worth trying.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Takes back what no sync has confirmed.
    pub(super) fn forget_unsynced(&mut self) -> io::Result<()> {
        (self.is_torn, self.position) = (true, self.synced);
        // Whatever marks there were may be behind that.
        self.unmarked = MARK_EVERY;
        self.mend()
    }

    /// Cuts the file behind its last whole record, where that may be needed.
    pub(super) fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.storage.cut(self.position)?;
            self.is_torn = false;
        }
        Ok(())
    }

    fn all_or_nothing(
        &mut self,
        write: impl FnOnce(&mut Self) -> io::Result<u64>,
    ) -> io::Result<()> {
        self.mend()?;
        let unmarked = self.unmarked;
        self.is_torn = true;
        match write(self) {
            Ok(position) => {
                self.position = position;
                self.is_torn = false;
                Ok(())
            }
            Err(error) => {
                self.unmarked = unmarked;
                self.mend().map_err(|cut| {
                    let both = format!("{error}; the half record could not be cut off: {cut}");
                    io::Error::new(error.kind(), both)
                })?;
                Err(error)
            }
        }
    }

    /// Writes records, and marks where they are due; says where the file then ends.
    fn write(&mut self, framed: &[u8]) -> io::Result<u64> {
        let (mut rest, mut at) = (framed, self.position);
        while !rest.is_empty() {
            if self.unmarked >= MARK_EVERY {
                at = self.mark(at, false)?;
            }
            let part = part(rest, MARK_EVERY - self.unmarked)?;
            self.storage.write_all(&rest[..part])?;
            rest = &rest[part..];
            at += part as u64;
            self.unmarked += part as u64;
        }
        Ok(at)
    }

    fn mark(&mut self, at: u64, is_end: bool) -> io::Result<u64> {
        let bytes = Mark { marker: self.marker, at, is_end }.bytes();
        self.storage.write_all(&bytes)?;
        self.unmarked = 0;
        Ok(at + bytes.len() as u64)
    }
}

/// Bytes of the first records that together reach `most`, or of all.
fn part(framed: &[u8], most: u64) -> io::Result<usize> {
    let mut end = 0;
    while end < framed.len() && (end as u64) < most {
        end += first(&framed[end..]).ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidInput, "what is appended is no whole record")
        })?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests;
