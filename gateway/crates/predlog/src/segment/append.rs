//! Appending to a file so that what fails leaves no half record behind.

use std::fs::File;
use std::io::{self, ErrorKind, Write};

use super::frame::{End, seal};

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
    key: u64,
    /// Where the last whole record ends.
    position: u64,
    /// The part of it that survives the end of the machine.
    synced: u64,
    /// Whether there may be bytes behind the last whole record.
    is_torn: bool,
    has_ended: bool,
    /// Whether a sync failed: the system may have dropped what it could not write, and would not
    /// say so again.
    is_lost: bool,
}

impl<S: Storage> Appender<S> {
    /// Goes on behind what `storage` holds, the first `position` bytes of which are whole.
    pub(super) fn new(storage: S, key: u64, position: u64) -> Self {
        Self {
            storage,
            key,
            position,
            synced: position,
            is_torn: true,
            has_ended: false,
            is_lost: false,
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Seals and appends whole records, all or none.
    pub(super) fn append(&mut self, framed: &mut [u8]) -> io::Result<()> {
        let invalid = |text| Err(io::Error::new(ErrorKind::InvalidInput, text));
        match () {
            () if self.has_ended => invalid("the segment is closed"),
            () if !seal(framed, self.key) => invalid("what is appended is no whole record"),
            () => self.all_or_nothing(framed),
        }
    }

    /// Ends the file; once is enough.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if !self.has_ended {
            let end = End { key: self.key, at: self.position };
            self.all_or_nothing(&end.bytes())?;
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

    fn all_or_nothing(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.mend()?;
        self.is_torn = true;
        if let Err(error) = self.storage.write_all(bytes) {
            self.mend().map_err(|cut| {
                let both = format!("{error}; the half record could not be cut off: {cut}");
                io::Error::new(error.kind(), both)
            })?;
            return Err(error);
        }
        self.position += bytes.len() as u64;
        self.is_torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
