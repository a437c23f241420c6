//! Rows of calls that get the answer of another one.

use std::sync::Arc;

use tokio::time::Instant;

use super::words::{NO_TENSORS, ended, micros};
use crate::config::Guarantee;
use crate::error::Rejection;
use crate::pipeline::Pipeline;
use crate::pipeline::answer::Answer;
use crate::predictions::{About, Notes, PredictionLog, RowRef};
use crate::telemetry::Outcome;
use crate::types::{AnsweredBy, ArmName, Call, Deadline};

/// What the row of a repeat needs.
#[derive(Debug)]
pub(in crate::pipeline) struct Repeated {
    notes: Notes,
    /// Whether a row says already that it was answered.
    is_handed_over: bool,
    /// Whether that row is written.
    is_committed: bool,
    arrived: Instant,
    called: Box<str>,
    model: Arc<str>,
    version: AnsweredBy,
    arm: Option<ArmName>,
}

/// What rows of repeats have from the call that ran.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Origin {
    pub(super) model: Arc<str>,
    pub(super) guarantee: Guarantee,
}

impl Pipeline {
    /// Begins the row of a call that gets the answer of another one.
    pub(in crate::pipeline) fn note_repeat(
        &self,
        call: &Call,
        answer: &Answer,
        origin: Option<&Origin>,
    ) -> Option<Repeated> {
        let (log, origin): (&Arc<PredictionLog>, _) = (self.log.as_ref()?, origin?);
        let snapshot = self.snapshots.load();
        let route = answer.routed.as_ref().and_then(|_| snapshot.route(&call.model));
        let about = About {
            prediction: answer.prediction,
            guarantee: Some(origin.guarantee),
            sticky_key: route.and_then(|route| route.key(call)),
        };
        Some(Repeated {
            notes: Notes::take(log, call, about)?,
            is_handed_over: false,
            is_committed: false,
            arrived: call.arrived,
            called: answer.model.as_str().into(),
            model: origin.model.clone(),
            version: answer.version.clone(),
            arm: answer.routed.as_ref().and_then(|routed| routed.arm.clone()),
        })
    }
}

impl Repeated {
    /// Whether it is answered only once its row is written.
    pub(in crate::pipeline) fn is_durable(&self) -> bool {
        self.notes.is_durable()
    }

    /// Waits until its row is written.
    pub(in crate::pipeline) async fn commit(
        &mut self,
        deadline: Option<Deadline>,
    ) -> Result<(), Rejection> {
        let (log, until) = (self.notes.log().clone(), self.notes.commit_until(deadline));
        let hand_over = || {
            let ticket =
                self.with_row(Outcome::Replayed, |row| self.notes.push(row, None, NO_TENSORS))?;
            self.is_handed_over = true;
            Ok(ticket)
        };
        log.commit(until, hand_over).await?;
        self.is_committed = true;
        Ok(())
    }

    /// Records how the repeat ended.
    pub(in crate::pipeline) fn record(&self, outcome: Outcome) {
        if !self.is_committed || outcome != Outcome::Replayed {
            self.with_row(outcome, |row| self.notes.record(row, None, NO_TENSORS));
        }
    }

    fn with_row<T>(&self, outcome: Outcome, take: impl FnOnce(RowRef<'_>) -> T) -> T {
        let (status, error) = ended(outcome);
        let version = self.version.to_string();
        take(RowRef {
            called: &self.called,
            model: &self.model,
            version: &version,
            arm: self.arm.as_ref().map_or("", ArmName::as_str),
            status,
            error,
            total_us: micros(self.arrived.elapsed()),
            amends: self.is_handed_over,
            ..RowRef::default()
        })
    }
}
