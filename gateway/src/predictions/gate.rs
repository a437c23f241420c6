//! Whether rows may be written: closed while the disk is short of space.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by who watches the disk and who writes to it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<AtomicBool>);

impl Default for Gate {
    /// An open one.
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Gate {
    /// Whether rows may be written.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Opens or closes it; returns whether that changed anything.
    pub fn set_open(&self, open: bool) -> bool {
        self.0.swap(open, Ordering::AcqRel) != open
    }
}
