//! How much of the disk is free, and whether rows may be written.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing::{error, info};

/// Told why rows are not to be written, or `None` when they may be again.
pub type Hold = Box<dyn Fn(Option<String>) + Send + Sync>;

/// Has rows held back before the disk is full.
pub(super) struct Space {
    hold: Hold,
    is_open: AtomicBool,
    /// As of the last look.
    free: AtomicU64,
    /// Bytes; 0: never.
    min_free: u64,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hold: _, is_open, free: _, min_free } = self;
        f.debug_struct("Space").field("is_open", is_open).field("min_free", min_free).finish()
    }
}

impl Space {
    pub(super) fn new(hold: Hold, min_free: usize) -> Self {
        Self {
            hold,
            is_open: AtomicBool::new(true),
            free: AtomicU64::new(0),
            min_free: min_free as u64,
        }
    }

    /// Has rows held back, or written, for so many free bytes. Once held they wait for an eighth
    /// more, so that it does not flutter.
    pub(super) fn judge(&self, free: u64) {
        self.free.store(free, Ordering::Relaxed);
        let min_free = self.min_free;
        let was_open = self.is_open();
        let is_open = match was_open {
            true => free >= min_free,
            false => free >= min_free.saturating_add(min_free / 8),
        };
        if is_open == was_open {
            return;
        }
        self.is_open.store(is_open, Ordering::Release);
        if is_open {
            info!(free, min_free, "there is room again: rows of the prediction log are written");
            (self.hold)(None);
        } else {
            error!(
                free,
                min_free,
                "prediction_log.min_free: the disk is short of space, no rows are written and \
                 durable calls are refused"
            );
            (self.hold)(Some("less than prediction_log.min_free is free".to_owned()));
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }
}

/// Bytes that are free for this process on the file system of a folder.
///
/// # Errors
/// When the folder is not there.
pub(super) fn free(folder: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(folder)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn told() -> (Hold, Arc<Mutex<Vec<bool>>>) {
        let said = Arc::new(Mutex::new(vec![]));
        let heard = said.clone();
        (Box::new(move |why| said.lock().unwrap().push(why.is_some())), heard)
    }

    #[test]
    fn rows_are_held_below_the_bound_and_written_again_well_above() {
        let (hold, heard) = told();
        let space = Space::new(hold, 800);
        let mut seen = vec![];
        for free in [1000, 800, 799, 800, 899, 900, 800, 0, 900] {
            space.judge(free);
            seen.push(space.is_open());
        }
        assert_eq!(seen, [true, true, false, false, false, true, true, false, true]);
        assert_eq!(*heard.lock().unwrap(), [true, false, true, false]);
    }

    #[test]
    fn without_a_bound_no_rows_are_held() {
        let (hold, heard) = told();
        Space::new(hold, 0).judge(0);
        assert!(heard.lock().unwrap().is_empty());
    }

    #[test]
    fn the_system_knows_what_is_free() {
        assert!(free(Path::new("/")).unwrap() > 0);
        assert!(free(Path::new("/there/is/none")).is_err());
    }
}
