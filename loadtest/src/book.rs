//! What a load thread writes down of its calls. Nothing here is shared with other threads but a
//! few counters that are only added to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::answer;
use crate::check::Judge;
use crate::failure::{self, Failure};
use crate::payload::Wire;
use crate::recorder::{Phase, record};
use crate::recording::Recording;
use crate::timeline::Timeline;
use crate::wire::Response;

/// Which answers are read as a whole, rather than by status, length and version alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    All,
    /// Every so-manieth.
    Sample(u64),
}

/// What all threads of a run see.
#[derive(Debug, Default)]
pub struct Shared {
    pub stop: AtomicBool,
    /// The number of the next request.
    pub next: AtomicU64,
    /// Beginnings and ends of changes of the server, see [`Phase::between`].
    pub changes: AtomicU64,
    /// For someone who watches.
    pub answered: AtomicU64,
    pub failed: AtomicU64,
}

/// A call under way.
#[derive(Debug)]
pub struct Ticket {
    pub number: u64,
    /// When it was due, from the start of the run: its latency counts from here.
    pub due: Duration,
    pub stage: usize,
    pub first_row: usize,
    /// The number of its key, where it has one.
    pub key: Option<u64>,
    /// Changes of the server until it was sent.
    pub changes: u64,
}

/// The books of one thread.
#[derive(Debug)]
pub struct Book {
    pub shared: Arc<Shared>,
    judge: Arc<Judge>,
    rows: u64,
    check: Check,
    /// When each stage that has begun did so, and ended.
    pub spans: Vec<(Duration, Option<Duration>)>,
    pub stages: Vec<Recording>,
    pub timeline: Timeline,
    pub in_flight: usize,
    /// Calls that failed since someone looked.
    pub failures: usize,
}

impl Book {
    #[must_use]
    pub fn new(shared: Arc<Shared>, judge: Arc<Judge>, rows: u64, check: Check) -> Self {
        Self {
            shared,
            judge,
            rows,
            check,
            spans: Vec::new(),
            stages: Vec::new(),
            timeline: Timeline::default(),
            in_flight: 0,
            failures: 0,
        }
    }

    /// Opens the page of a stage.
    pub fn begin_stage(&mut self, now: Duration, open: bool) {
        self.spans.push((now, None));
        let mut recording = Recording::default();
        recording.sending.open = open;
        self.stages.push(recording);
    }

    /// A call goes out.
    pub fn sent(&mut self, ticket: &Ticket, now: Duration) {
        self.in_flight += 1;
        let sending = &mut self.stages[ticket.stage].sending;
        sending.sent += 1;
        if sending.open {
            record(&mut sending.lag, now.saturating_sub(ticket.due));
        }
    }

    /// A call has ended.
    pub fn ended(
        &mut self,
        wire: Wire,
        now: Duration,
        ticket: Ticket,
        outcome: Result<Response<'_>, Failure>,
    ) {
        self.in_flight -= 1;
        let latency = now.saturating_sub(ticket.due);
        let (start, _) = self.spans[ticket.stage];
        let recording = &mut self.stages[ticket.stage];
        recording.elapsed = recording.elapsed.max(now.saturating_sub(start));
        let good = self.count(wire, latency, &ticket, outcome);
        self.timeline.record(now, good.then_some(latency));
        if good {
            self.shared.answered.fetch_add(1, Ordering::Relaxed);
            self.answered_within(now);
        } else {
            self.shared.failed.fetch_add(1, Ordering::Relaxed);
            self.failures += 1;
        }
    }

    /// Counts an answer for the stage that it came in.
    fn answered_within(&mut self, now: Duration) {
        if let (Some(recording), Some((_, end))) = (self.stages.last_mut(), self.spans.last())
            && end.is_none_or(|end| now < end)
        {
            recording.sending.answered_within += 1;
        }
    }

    /// Counts a call; says whether it was answered.
    fn count(
        &mut self,
        wire: Wire,
        latency: Duration,
        ticket: &Ticket,
        outcome: Result<Response<'_>, Failure>,
    ) -> bool {
        let changes = self.shared.changes.load(Ordering::Relaxed);
        let phase = Phase::between(ticket.changes, changes);
        let tally = self.stages[ticket.stage].recorder.of(phase);
        let answer = match outcome {
            Ok(answer) => answer,
            Err(Failure { kind, message }) => {
                tally.fail(kind, || message);
                return false;
            }
        };
        if answer.is_refusal() {
            record(&mut tally.refused, latency);
        }
        let (body, json_length) = match answer {
            Response::Http { status: 200, json_length, body } => (body, json_length),
            Response::Grpc { status: 0, body, .. } => (body, None),
            Response::Http { status, body, .. } => {
                tally.fail(failure::http_kind(status), || failure::http_text(body));
                return false;
            }
            Response::Grpc { status, message, .. } => {
                tally.fail(failure::grpc_kind(status), || message.into_owned());
                return false;
            }
        };
        let json = body.get(..json_length.unwrap_or(body.len()));
        let Some(json) = json.filter(|json| !json.is_empty() || wire == Wire::Grpc) else {
            tally.fail("malformed answer".into(), || "it is shorter than it says".to_owned());
            return false;
        };
        let whole = match self.check {
            Check::All => true,
            Check::Sample(every) => ticket.number.is_multiple_of(every),
        };
        if whole {
            let bytes = Bytes::copy_from_slice(body);
            let read = match wire {
                Wire::Grpc => answer::from_grpc(bytes),
                Wire::HttpJson | Wire::HttpBinary => answer::from_http(&bytes, json_length),
            };
            match read {
                Ok(answer) => {
                    tally.answer(latency, self.rows, &answer.version);
                    tally.judge(self.judge.judge(answer, ticket.first_row, ticket.key));
                }
                Err(Failure { kind, message }) => {
                    tally.fail(kind, || message);
                    return false;
                }
            }
        } else {
            let version = match wire {
                Wire::Grpc => answer::version_in_message(body),
                Wire::HttpJson | Wire::HttpBinary => answer::version_in_json(json),
            };
            tally.answer(latency, self.rows, version);
        }
        true
    }
}
