//! How much of the disk is free, and whether rows may be written.

use std::io;
use std::path::Path;

use tracing::{error, info};

use crate::predictions::Gate;

/// Closes the gate before the disk is full.
#[derive(Debug)]
pub(super) struct Space {
    gate: Gate,
    /// Bytes; 0: never.
    min_free: u64,
}

impl Space {
    pub(super) fn new(gate: Gate, min_free: usize) -> Self {
        Self { gate, min_free: min_free as u64 }
    }

    /// Opens or closes the gate for so many free bytes. Once closed it opens an eighth later, so
    /// that it does not flutter.
    pub(super) fn judge(&self, free: u64) {
        let open = match self.gate.is_open() {
            true => free >= self.min_free,
            false => free >= self.min_free.saturating_add(self.min_free / 8),
        };
        if !self.gate.set_open(open) {
            return;
        }
        let min_free = self.min_free;
        if open {
            info!(free, min_free, "there is room again: rows of the prediction log are written");
        } else {
            error!(
                free,
                min_free,
                "prediction_log.min_free: the disk is short of space, no rows are written; durable calls are refused"
            );
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.gate.is_open()
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
    use super::*;

    #[test]
    fn it_closes_below_its_bound_and_opens_well_above() {
        let gate = Gate::default();
        let space = Space::new(gate.clone(), 800);
        let mut seen = vec![];
        for free in [1000, 800, 799, 800, 899, 900, 800, 0, 900] {
            space.judge(free);
            seen.push(gate.is_open());
        }
        assert_eq!(seen, [true, true, false, false, false, true, true, false, true]);
    }

    #[test]
    fn without_a_bound_it_never_closes() {
        let gate = Gate::default();
        Space::new(gate.clone(), 0).judge(0);
        assert!(gate.is_open());
    }

    #[test]
    fn the_system_knows_what_is_free() {
        assert!(free(Path::new("/")).unwrap() > 0);
        assert!(free(Path::new("/there/is/none")).is_err());
    }
}
