//! How one call ended: written when it is dropped, so that refusals, cancellations and panics are
//! counted like answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::logged::Logged;
use crate::error::Kind;
use crate::limits::Permits;
use crate::snapshot::{Assigned, Backend, Destination, Draw};
use crate::telemetry::{Outcome, WireMetrics};
use crate::types::{Call, ModelName, PredictionId, Protocol, Timings};

/// How one call ended; written on drop.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) prediction: PredictionId,
    /// The name that was called: that of a route or a model.
    pub(super) called: ModelName,
    /// What ran it last; `None` while nothing did, and for a declared answer.
    pub(super) backend: Option<Backend>,
    /// The arm that the caller belongs to; what becomes of the call counts for it, whoever
    /// answers.
    pub(super) assigned: Option<Assigned>,
    /// Why somebody else had to answer.
    pub(super) fallback: Option<Kind>,
    pub(super) computed: Instant,
    pub(super) rows: usize,
    pub(super) timings: Timings,
    pub(super) outcome: Outcome,
    /// Room in quotas, until the call has ended.
    pub(super) permits: Permits,
    /// What the prediction log keeps of the call; `None` where it keeps nothing.
    pub(super) logged: Option<Box<Logged>>,
    pub(super) arrived: Instant,
    wire: Arc<WireMetrics>,
    protocol: Protocol,
    decoded: Instant,
}

impl Record {
    pub(super) fn open(
        (prediction, destination): (PredictionId, Destination),
        call: &Call,
        wire: Arc<WireMetrics>,
    ) -> Self {
        let backend = destination.backend();
        let (called, assigned) = match destination {
            Destination::Direct(served) => (served.model.clone(), None),
            Destination::Assigned(assigned) => (assigned.route.name().clone(), Some(assigned)),
        };
        let now = Instant::now();
        Self {
            prediction,
            called,
            backend,
            assigned,
            fallback: None,
            computed: now,
            rows: 0,
            timings: Timings::default(),
            // Whoever drops the call without a word has cancelled it.
            outcome: Outcome::Refused(Kind::Cancelled),
            permits: Permits::default(),
            logged: None,
            wire,
            protocol: call.protocol,
            arrived: call.arrived,
            decoded: now,
        }
    }
}

impl Record {
    /// Turns to what stands in for the arm (`None`: a declared answer), and notes why. A version
    /// that failed the call shows that; how the call ends is counted for what comes now.
    pub(super) fn turn_to(&mut self, next: Option<Backend>, reason: Kind) {
        if let Some(failed) = &self.backend {
            failed.metrics().failed_over(reason);
            if let Some(served) = failed.local() {
                served.stats.refused(reason, Instant::now().duration_since(self.arrived));
            }
        }
        self.backend = next;
        self.fallback = Some(reason);
    }

    fn count_for_arm(&self, assigned: &Assigned) {
        let metrics = &assigned.arm().metrics;
        match assigned.draw {
            Draw::Forced => return metrics.forced(),
            Draw::Keyless => metrics.keyless(),
            Draw::Divided => {}
        }
        metrics.count(self.outcome);
        if let Some(reason) = self.fallback {
            metrics.fell_back(reason);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(assigned) = &self.assigned {
            self.count_for_arm(assigned);
        }
        let now = Instant::now();
        self.log(now);
        let Some(backend) = &self.backend else {
            self.wire.count(self.protocol, self.outcome);
            return;
        };
        let total = now.duration_since(self.arrived);
        let metrics = backend.metrics();
        metrics.count(self.protocol, self.outcome);
        let stats = backend.local().map(|served| &served.stats);
        match self.outcome {
            Outcome::Answered => {
                if let Some(stats) = stats {
                    stats.answered(self.rows, total, &self.timings);
                }
                let decode: Duration = self.decoded.duration_since(self.arrived);
                metrics.record_phases(decode, &self.timings);
                let encode = now.duration_since(self.computed);
                metrics.record_answer(self.protocol, encode, total);
            }
            Outcome::Replayed => {}
            Outcome::Refused(kind) => {
                if let Some(stats) = stats {
                    stats.refused(kind, total);
                }
            }
        }
    }
}
