//! Whether the gateway lives and is ready; every protocol asks here.

use std::sync::Arc;

use tokio::sync::watch;

use super::Api;

/// Set once everything was loaded, cleared when the gateway stops. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    open: Arc<watch::Sender<bool>>,
}

impl Health {
    /// Not ready yet.
    #[must_use]
    pub fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)) }
    }

    /// Says that the gateway takes calls, or no longer should be given any.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Tells when that changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Api {
    /// Whether a restart would not help.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.control.loader().is_alive()
    }

    /// Whether every model that should serve does, and the gateway is not stopping.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.health.open.borrow() && self.is_live() && self.pipeline.snapshots.load().is_ready()
    }

    /// Whether a call to this model would be taken.
    #[must_use]
    pub fn is_model_ready(&self, model: &str, version: Option<&str>) -> bool {
        self.is_live() && self.pipeline.snapshots.load().find(model, version).is_ok()
    }
}
