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

/// The stage of the process, and whether an operator has turned calls away from it. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
}

/// What [`Health`] watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub stage: Stage,
    /// Not ready by an operator's wish, whatever the stage.
    pub drain: bool,
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

    /// Whether the process is about to end.
    #[must_use]
    pub const fn is_ending(self) -> bool {
        matches!(self, Self::Stopping | Self::Draining)
    }
}

impl Health {
    /// A gateway that is starting.
    #[must_use]
    pub fn new() -> Self {
        let state = State { stage: Stage::Starting, drain: false };
        Self { state: Arc::new(watch::Sender::new(state)) }
    }

    /// Enters a stage.
    pub fn enter(&self, stage: Stage) {
        self.state.send_modify(|state| state.stage = stage);
    }

    /// Where the process is now, and what its operator wants.
    #[must_use]
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Reports not ready while calls are answered as before, or takes that back. A wish of its
    /// own beside the stage: taking it back never opens a gateway that stops.
    ///
    /// # Errors
    /// The stage, when it is taken back in a process that is about to end.
    pub fn set_drain(&self, on: bool) -> Result<State, Stage> {
        let mut result = Ok(());
        self.state.send_if_modified(|state| {
            if !on && state.stage.is_ending() {
                result = Err(state.stage);
                return false;
            }
            std::mem::replace(&mut state.drain, on) != on
        });
        result.map(|()| self.state())
    }

    /// Tells when anything changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Waits until what is open has to end; streams that would outlast every call ask here.
    pub async fn draining(&self) {
        let mut states = self.changes();
        // The sender lives as long as `self`.
        drop(states.wait_for(|state| state.stage == Stage::Draining).await);
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
        let open = self.health.state() == State { stage: Stage::Open, drain: false };
        let devices = self.control.loader().failed_device().is_none();
        open && self.is_live() && devices && self.control.is_serving()
    }

    /// Whether a call to this model would be taken.
    #[must_use]
    pub fn is_model_ready(&self, model: &str, version: Option<&str>) -> bool {
        let snapshot = self.pipeline.snapshots.load();
        self.is_live() && snapshot.is_ready(model, version).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_taken_back_while_the_gateway_is_open() {
        let health = Health::new();
        health.enter(Stage::Open);
        assert_eq!(health.set_drain(true), Ok(State { stage: Stage::Open, drain: true }));
        assert_eq!(health.set_drain(true), Ok(State { stage: Stage::Open, drain: true }));
        assert_eq!(health.set_drain(false), Ok(State { stage: Stage::Open, drain: false }));
    }

    #[test]
    fn a_drain_that_is_taken_back_does_not_open_a_gateway_that_stops() {
        for stage in [Stage::Stopping, Stage::Draining] {
            let health = Health::new();
            health.enter(Stage::Open);
            health.set_drain(true).unwrap();
            health.enter(stage);
            assert_eq!(health.set_drain(false), Err(stage));
            assert_eq!(health.state().stage, stage);
        }
    }

    #[test]
    fn a_drain_wished_for_during_the_start_holds_when_it_is_over() {
        let health = Health::new();
        health.set_drain(true).unwrap();
        health.enter(Stage::Open);
        assert_eq!(health.state(), State { stage: Stage::Open, drain: true });
    }
}
