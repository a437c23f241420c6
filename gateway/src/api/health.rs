//! Whether the gateway lives and is ready; every protocol asks here.

use std::sync::Arc;

use tokio::sync::watch;

use super::Api;

/// Where the process is between start and stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Models are being loaded for the first time.
    Starting,
    Open,
    /// Still answers, but should be given no new work.
    Stopping,
    /// Ends what is open.
    Draining,
}

/// The stage of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    stage: Arc<watch::Sender<Stage>>,
}

impl Stage {
    /// Its word for operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Open => "open",
            Self::Stopping => "stopping",
            Self::Draining => "draining",
        }
    }
}

impl Health {
    /// A gateway that is starting.
    #[must_use]
    pub fn new() -> Self {
        Self { stage: Arc::new(watch::Sender::new(Stage::Starting)) }
    }

    /// Enters a stage.
    pub fn enter(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Where the process is now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Reports not ready while calls are answered as before, or takes that back.
    ///
    /// # Errors
    /// The stage, when the process is starting or about to end.
    pub fn set_draining(&self, on: bool) -> Result<Stage, Stage> {
        let (from, to) = match on {
            true => (Stage::Open, Stage::Stopping),
            false => (Stage::Stopping, Stage::Open),
        };
        self.stage.send_if_modified(|stage| {
            let fits = *stage == from;
            if fits {
                *stage = to;
            }
            fits
        });
        let now = self.stage();
        if now == to { Ok(now) } else { Err(now) }
    }

    /// Tells when the stage changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Waits until what is open has to end; streams that would outlast every call ask here.
    pub async fn draining(&self) {
        let mut stages = self.changes();
        // The sender lives as long as `self`.
        drop(stages.wait_for(|stage| *stage == Stage::Draining).await);
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

    /// Whether calls should be sent here: open, alive, no device lost, and serving something if
    /// anything is there to be served. Single models have a readiness of their own.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let open = *self.health.stage.borrow() == Stage::Open;
        let devices = self.control.loader().failed_device().is_none();
        open && self.is_live() && devices && self.control.is_serving()
    }

    /// Whether a call to this model would be taken.
    #[must_use]
    pub fn is_model_ready(&self, model: &str, version: Option<&str>) -> bool {
        let snapshot = self.pipeline.snapshots.load();
        let runs = snapshot.find(model, version).is_ok_and(|served| served.is_ready());
        self.is_live() && runs
    }
}
