//! A shadow of a route: what sees its calls, its budget, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use super::backend::Seat;
use crate::config;
use crate::shadow::{Lane, Ledger, Report};
use crate::types::{ArmName, ModelName, Share};

/// A shadow in effect.
#[derive(Debug)]
pub struct Shadow {
    pub name: ArmName,
    pub seat: Seat,
    pub sample: Share,
    pub timeout: Duration,
    pub watch: Arc<Watch>,
}

/// What a shadow may have under way, and what its answers were like. It goes on over commits that
/// leave the shadow as it is.
#[derive(Debug)]
pub struct Watch {
    pub lane: Arc<Lane>,
    pub ledger: Arc<Ledger>,
    settings: config::Shadow,
}

impl Shadow {
    /// The shadow as the models of this moment let it be; `before` is the same one in the
    /// snapshot before.
    pub(super) fn new(
        route: &ModelName,
        settings: &config::Shadow,
        seat: Seat,
        before: Option<&Self>,
    ) -> Self {
        let same = before.filter(|old| old.watch.settings == *settings && old.seat.is_same(&seat));
        let fresh = || {
            let (lane, ledger) = (Lane::new(route, settings), Arc::new(Ledger::new()));
            Arc::new(Watch { lane, ledger, settings: settings.clone() })
        };
        Self {
            name: settings.name.clone(),
            seat,
            sample: settings.sample,
            timeout: settings.timeout,
            watch: same.map_or_else(fresh, |old| old.watch.clone()),
        }
    }
}

impl Watch {
    /// What is known about the shadow.
    #[must_use]
    pub fn report(&self) -> Report {
        self.ledger.report().with_lane(self.lane.counts())
    }

    /// Forgets what was learnt.
    pub fn reset(&self) {
        self.ledger.reset();
        self.lane.reset();
    }

    /// Brings the gauges up to date; called before they are rendered.
    pub fn publish(&self) {
        self.lane.publish(&self.ledger);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.lane.retire(&self.ledger);
    }
}
