//! Segments as they are on the disk.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use predlog::{Folder, segment};

use super::writer::{Segment, Sink};

/// Microseconds since 1970, UTC. It follows the clock that people set: nothing is put in order or
/// measured by it.
pub(super) fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Sink for Folder {
    type Segment = segment::Writer;

    fn begin(&mut self) -> io::Result<segment::Writer> {
        self.create(wall_us())
    }
}

impl Segment for segment::Writer {
    fn append(&mut self, framed: &mut [u8]) -> io::Result<()> {
        Self::append(self, framed)
    }

    fn position(&self) -> u64 {
        Self::position(self)
    }

    fn sync(&mut self) -> io::Result<()> {
        Self::sync(self)
    }

    fn forget_unsynced(&mut self) -> io::Result<()> {
        Self::forget_unsynced(self)
    }

    fn close(&mut self) -> io::Result<u64> {
        Self::close(self)?;
        Ok(self.number())
    }
}
