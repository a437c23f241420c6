//! What the prediction log is told of calls: how each ended, what ran it, and why there.
//!
//! A row is handed over when the record of its call is dropped; that of a durable call, and of its
//! repeats, before the answer is, and what becomes of the answer is a second row that amends it. Calls that were
//! refused before they were decoded (nobody known, unreadable, over a limit at the head) have no
//! rows: there is nothing to say of them that their metrics do not.

mod repeats;
mod words;

use std::sync::Arc;

use engine::Tensor;
use tokio::time::Instant;

pub(super) use repeats::{Origin, Repeated};
use words::{NO_TENSORS, NO_TIME, Runner, ended, engine_us, micros, names, routed, shortened};

use super::attempt::Ran;
use super::record::Record;
use super::{Given, Pipeline};
use crate::config::Guarantee;
use crate::error::{Kind, Rejection};
use crate::predictions::{About, Notes, Of, Refusal, RowRef, Sides, Ticket};
use crate::snapshot::{Assigned, Backend, Shadow, Snapshot, StandIn};
use crate::telemetry::Outcome;
use crate::types::{AnsweredBy, Call, Deadline, Inputs, PredictionId, Signature, Timings};

/// What is kept for the row of a call.
#[derive(Debug)]
pub(super) struct Logged {
    notes: Notes,
    place: Place,
    outputs: Vec<Tensor>,
    /// Of what gave the outputs.
    signature: Option<Arc<Signature>>,
    /// Of what would have taken the inputs, where it did not run.
    takes: Option<Backend>,
    /// Items that the inputs have, by what the caller says.
    claimed: usize,
    answered_by: Option<AnsweredBy>,
    /// Whether a row says already that the call was answered.
    is_handed_over: bool,
    /// Whether that row is written.
    is_committed: bool,
}

/// Where a route put a call.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    revision: u64,
    bucket: Option<u32>,
}

/// What the row of a shadow needs of the call that it saw.
#[derive(Debug)]
pub(super) struct Watched {
    notes: Notes,
    place: Place,
    assigned: Assigned,
}

/// What the snapshot that a call met says of its row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    revision: u64,
    /// What the route of its name says, also of calls that go past it.
    guarantee: Option<Guarantee>,
}

impl Said {
    pub(super) fn of(snapshot: &Snapshot, called: &str) -> Self {
        let route = snapshot.route(called);
        let guarantee = route.and_then(|route| route.plan.route.log);
        Self { revision: snapshot.routing().revision, guarantee }
    }
}

impl Pipeline {
    /// Begins the row of a call whose destination is known.
    pub(super) fn note(&self, call: &Call, record: &Record, said: Said) -> Option<Box<Logged>> {
        let log = self.log.as_ref()?;
        let route = record.assigned.as_ref().map(|assigned| &assigned.route);
        let about = About {
            prediction: record.prediction,
            guarantee: said.guarantee,
            sticky_key: route.and_then(|route| route.key(call)),
        };
        let notes = Notes::take(log, call, about)?;
        let bucket = route.map(|route| u32::from(route.bucket(call, record.prediction)));
        Some(Box::new(Logged {
            notes,
            place: Place { revision: said.revision, bucket },
            outputs: Vec::new(),
            signature: None,
            takes: None,
            claimed: 0,
            answered_by: None,
            is_handed_over: false,
            is_committed: false,
        }))
    }

    /// Records a call that leads nowhere, or that another one's end is told to.
    pub(super) fn record_lost(
        &self,
        call: &Call,
        (prediction, said): (PredictionId, Option<Said>),
        outcome: (Outcome, Option<Kind>),
    ) {
        let Some(log) = &self.log else { return };
        let said = said.unwrap_or_else(|| Said::of(&self.snapshots.load(), &call.model));
        let about = About { prediction, guarantee: said.guarantee, sticky_key: None };
        let Some(notes) = Notes::take(log, call, about) else { return };
        let (status, error) = ended(outcome.0);
        let row = RowRef {
            called: shortened(&call.model),
            draw: "direct",
            revision: said.revision,
            status,
            error: outcome.1.map_or(error, Kind::label),
            total_us: micros(call.arrived.elapsed()),
            ..RowRef::default()
        };
        notes.record(row, None, NO_TENSORS);
    }
}

impl Record {
    /// Whether the call may run, as far as the log goes.
    pub(super) fn admit(&self) -> Result<(), Rejection> {
        match &self.logged {
            Some(logged) if logged.notes.is_durable() => logged.notes.log().admit(),
            _ => Ok(()),
        }
    }

    /// Keeps the inputs as they were sent.
    pub(super) fn keep_inputs(&mut self, inputs: &Inputs) {
        if let Some(logged) = &mut self.logged {
            logged.notes.keep_inputs(inputs);
            let batches = |backend: &Backend| backend.signature().max_batch_size > 0;
            let has_items = self.backend.as_ref().is_none_or(batches);
            logged.claimed = if has_items { inputs.rows() } else { 1 };
        }
    }

    /// Notes what would have taken the inputs, before something that takes none stands in for it.
    pub(super) fn keep_taker(&mut self) {
        let Some(logged) = &mut self.logged else { return };
        let known = || self.assigned.as_ref().and_then(|assigned| assigned.route.known());
        logged.takes = self.backend.clone().or_else(known);
    }

    /// What rows of repeats need.
    pub(super) fn origin(&self) -> Option<Origin> {
        let logged = self.logged.as_ref()?;
        let mut digits = itoa::Buffer::new();
        let ran = Runner::of(self.backend.as_ref(), &mut digits);
        Some(Origin { model: ran.model.into(), guarantee: logged.notes.guarantee() })
    }

    /// Keeps what the call came to.
    pub(super) fn keep_outputs(&mut self, given: &Given) {
        if let Some(logged) = &mut self.logged {
            let Ran { outputs, answered_by, .. } = &given.ran;
            logged.outputs.clone_from(outputs);
            logged.signature = Some(given.signature.clone());
            logged.answered_by = Some(answered_by.clone());
        }
    }

    /// Waits until the row of a durable call is written.
    pub(super) async fn commit(&mut self, deadline: Option<Deadline>) -> Result<(), Rejection> {
        let Some(logged) = self.logged.take_if(|logged| logged.notes.is_durable()) else {
            return Ok(());
        };
        let (log, until) = (logged.notes.log().clone(), logged.notes.commit_until(deadline));
        // Its notes are back in the record whenever the caller leaves.
        let mut kept = Kept { record: self, logged: Some(logged) };
        let committed = log.commit(until, || kept.hand_over()).await;
        if let Some(logged) = &mut kept.logged {
            logged.is_committed = committed.is_ok();
        }
        committed
    }

    /// Records how the call ended.
    pub(super) fn log(&self, now: Instant) {
        let Some(logged) = &self.logged else { return };
        if logged.is_committed && self.outcome == Outcome::Answered {
            return;
        }
        let has_tensors = !logged.is_handed_over;
        logged.with_row(self, (self.outcome, now), |row, of, sides| {
            let sides = if has_tensors { sides } else { NO_TENSORS };
            logged.notes.record(row, of, sides);
        });
    }

    /// What the rows of shadows need of the call.
    pub(super) fn watched(&self) -> Option<Arc<Watched>> {
        let (logged, assigned) = (self.logged.as_ref()?, self.assigned.clone()?);
        let notes = logged.notes.unhurried();
        Some(Arc::new(Watched { notes, place: logged.place, assigned }))
    }

    /// The arm that answers.
    fn arm(&self) -> &str {
        let Some(assigned) = &self.assigned else { return "" };
        match (&assigned.route.fallback, self.fallback) {
            (StandIn::Answer(_), Some(_)) => "static",
            (StandIn::Arm(index), Some(_)) => assigned.route.arms[*index].name.as_str(),
            _ => assigned.arm().name.as_str(),
        }
    }
}

/// Puts the notes of a durable call back into its record, however waiting for them ends.
struct Kept<'a> {
    record: &'a mut Record,
    logged: Option<Box<Logged>>,
}

impl Kept<'_> {
    fn hand_over(&mut self) -> Result<Ticket, Refusal> {
        let Some(logged) = &mut self.logged else { return Err(Refusal::Stopping) };
        let at = (Outcome::Answered, Instant::now());
        let ticket =
            logged.with_row(self.record, at, |row, of, sides| logged.notes.push(row, of, sides))?;
        logged.is_handed_over = true;
        Ok(ticket)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if let Some(logged) = self.logged.take() {
            self.record.logged = Some(logged);
        }
    }
}

impl Logged {
    /// Puts together what a row says beside what the notes hold.
    fn with_row<T>(
        &self,
        record: &Record,
        (outcome, now): (Outcome, Instant),
        take: impl FnOnce(RowRef<'_>, Option<Of<'_>>, Sides<'_>) -> T,
    ) -> T {
        let mut digits = itoa::Buffer::new();
        let mut ran = Runner::of(record.backend.as_ref(), &mut digits);
        match &self.answered_by {
            Some(AnsweredBy::Remote(version)) => ran.version = version,
            Some(AnsweredBy::Declared) => ran.version = "static",
            Some(AnsweredBy::Version(_)) | None => {}
        }
        let assigned = record.assigned.as_ref();
        let (status, error) = ended(outcome);
        let row = RowRef {
            called: record.called.as_str(),
            model: ran.model,
            version: ran.version,
            file_hash: ran.file_hash,
            device: ran.device,
            arm: record.arm(),
            fallback: record.fallback.map_or("", Kind::label),
            status,
            error,
            queue_us: micros(record.timings.queue),
            engine_us: engine_us(&record.timings),
            total_us: micros(now.duration_since(record.arrived)),
            batch_size: record.timings.batch,
            items: u32::try_from(record.rows.max(self.claimed)).unwrap_or(u32::MAX),
            amends: self.is_handed_over,
            ..routed(assigned, self.place)
        };
        let takes = record.backend.as_ref().or(self.takes.as_ref());
        let inputs = takes.map(Backend::signature).or(self.signature.as_ref());
        let names = || names(takes, assigned);
        let of = inputs.map(|inputs| Of {
            model: takes.map_or("", Backend::model),
            inputs,
            outputs: self.signature.as_ref().unwrap_or(inputs),
            names: &names,
        });
        take(row, of, Sides { has_inputs: true, outputs: &self.outputs })
    }
}

impl Watched {
    /// Records what a shadow made of the call: its outputs, or why it gave none. The inputs are
    /// in the row of the live call, which has the same prediction.
    pub(super) fn record(
        &self,
        (shadow, backend): (&Shadow, &Backend),
        result: Result<(&[Tensor], &Timings), Kind>,
        items: usize,
    ) {
        let mut digits = itoa::Buffer::new();
        let ran = Runner::of(Some(backend), &mut digits);
        let outcome = result.map_or_else(Outcome::Refused, |_| Outcome::Answered);
        let (outputs, timings) = result.unwrap_or((&[], &NO_TIME));
        let (status, error) = ended(outcome);
        let row = RowRef {
            called: self.assigned.route.name().as_str(),
            model: ran.model,
            version: ran.version,
            file_hash: ran.file_hash,
            device: ran.device,
            shadow: shadow.name.as_str(),
            status,
            error,
            queue_us: micros(timings.queue),
            engine_us: engine_us(timings),
            total_us: micros(timings.queue) + engine_us(timings),
            batch_size: timings.batch,
            items: u32::try_from(items).unwrap_or(u32::MAX),
            ..routed(Some(&self.assigned), self.place)
        };
        let signature = backend.signature();
        let names = || names(Some(backend), Some(&self.assigned));
        let of = Of { model: ran.model, inputs: signature, outputs: signature, names: &names };
        self.notes.record(row, Some(of), Sides { has_inputs: true, outputs });
    }
}
