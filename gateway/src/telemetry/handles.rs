//! Metric handles resolved when a version is loaded, so that a call pays for atomics only.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram};

use super::metrics;
use crate::error::Kind;
use crate::types::{Protocol, Timings};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// Given the outcome of an earlier call with the same idempotency key.
    Replayed,
    Refused(Kind),
}

impl Outcome {
    /// The value of the `outcome` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Replayed => "replayed",
            Self::Refused(kind) => kind.label(),
        }
    }

    /// How many there are.
    pub(super) const COUNT: usize = Kind::ALL.len() + 2;

    pub(super) fn index(self) -> usize {
        match self {
            Self::Answered => 0,
            Self::Replayed => 1,
            Self::Refused(kind) => kind as usize + 2,
        }
    }
}

/// Why a batch took no more calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It had the most items, or the next call had too many.
    Full,
    /// An engine thread was free, and nothing more waited.
    Idle,
    /// The longest delay was over.
    Delay,
    /// A call could not wait any longer.
    Deadline,
    /// More calls would have meant too much padding or too many positions.
    Bucket,
}

impl Closed {
    /// The value of the `closed` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Idle => "idle",
            Self::Delay => "delay",
            Self::Deadline => "deadline",
            Self::Bucket => "bucket",
        }
    }
}

/// Why a call left the queue without a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    Cancelled,
    Expired,
    Displaced,
    Stopping,
    /// Its version failed too often while it waited.
    CircuitOpen,
}

impl Dropped {
    /// The value of the `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Displaced => "displaced",
            Self::Stopping => "stopping",
            Self::CircuitOpen => "circuit_open",
        }
    }
}

/// Why a call was refused for overload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// It would have waited too long.
    Delay,
    /// The queue was full.
    Full,
    /// It was in a full queue when a more urgent one came.
    Displaced,
    /// Too many calls in flight in the process.
    Calls,
    /// Too many bytes in flight in the process.
    Bytes,
    Memory,
}

impl Shed {
    /// The value of the `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Full => "full",
            Self::Displaced => "displaced",
            Self::Calls => "calls",
            Self::Bytes => "bytes",
            Self::Memory => "memory",
        }
    }
}

/// Counters by outcome; a series appears with its first event.
#[derive(Debug)]
struct Outcomes {
    model: String,
    version: String,
    protocol: Protocol,
    counters: [OnceLock<Counter>; Outcome::COUNT],
}

impl Outcomes {
    fn new(model: &str, version: &str, protocol: Protocol) -> Self {
        let counters = std::array::from_fn(|_| OnceLock::new());
        Self { model: model.to_owned(), version: version.to_owned(), protocol, counters }
    }

    fn count(&self, outcome: Outcome) {
        let counter = self.counters[outcome.index()].get_or_init(|| {
            metrics::REQUESTS.counter(&[
                &self.model,
                &self.version,
                self.protocol.label(),
                outcome.label(),
            ])
        });
        counter.increment(1);
    }
}

/// Handles of one model version.
#[derive(Debug)]
pub struct VersionMetrics {
    outcomes: [Outcomes; 2],
    request: [Histogram; 2],
    decode: Histogram,
    queue: Histogram,
    input: Histogram,
    infer: Histogram,
    output: Histogram,
    pub encode: Histogram,
    pub batch_rows: Histogram,
    pub reruns: Counter,
    pub refused_late: Counter,
    pub nan_answers: Counter,
    pub running: Gauge,
    closed: [OnceLock<Counter>; 5],
    failed_over: [OnceLock<Counter>; Kind::ALL.len()],
    names: (String, String),
    pub queue_delay: Gauge,
    pub queue_rows: Gauge,
    pub queue_bytes: Gauge,
}

impl VersionMetrics {
    #[must_use]
    pub fn new(model: &str, version: &str) -> Self {
        let phase = |phase| metrics::PHASE_SECONDS.histogram(&[model, version, phase]);
        let protocols = [Protocol::Http, Protocol::Grpc];
        Self {
            outcomes: protocols.map(|protocol| Outcomes::new(model, version, protocol)),
            request: protocols.map(|protocol| {
                metrics::REQUEST_SECONDS.histogram(&[model, version, protocol.label()])
            }),
            decode: phase("decode"),
            queue: phase("queue"),
            input: phase("input"),
            infer: phase("infer"),
            output: phase("output"),
            encode: phase("encode"),
            batch_rows: metrics::BATCH_ROWS.histogram(&[model, version]),
            reruns: metrics::BATCH_RERUNS.counter(&[model, version]),
            refused_late: metrics::REFUSED_LATE.counter(&[model, version]),
            nan_answers: metrics::NAN_ANSWERS.counter(&[model, version]),
            running: metrics::BATCHES_RUNNING.gauge(&[model, version]),
            closed: std::array::from_fn(|_| OnceLock::new()),
            failed_over: std::array::from_fn(|_| OnceLock::new()),
            names: (model.to_owned(), version.to_owned()),
            queue_delay: metrics::QUEUE_DELAY.gauge(&[model, version]),
            queue_rows: metrics::QUEUE_ROWS.gauge(&[model, version]),
            queue_bytes: metrics::QUEUE_BYTES.gauge(&[model, version]),
        }
    }

    /// Counts how a call for this version ended.
    pub fn count(&self, protocol: Protocol, outcome: Outcome) {
        self.outcomes[protocol as usize].count(outcome);
    }

    /// Counts a call that this version failed and that something else answers.
    pub fn failed_over(&self, reason: Kind) {
        let (model, version) = &self.names;
        let counter = self.failed_over[reason as usize]
            .get_or_init(|| metrics::FAILED_OVER.counter(&[model, version, reason.label()]));
        counter.increment(1);
    }

    /// Counts a batch by why it took no more calls; a series appears with its first batch.
    pub fn closed(&self, reason: Closed) {
        let (model, version) = &self.names;
        let counter = self.closed[reason as usize]
            .get_or_init(|| metrics::BATCHES.counter(&[model, version, reason.label()]));
        counter.increment(1);
    }

    /// Counts a call that left the queue without a run.
    pub fn dropped(&self, reason: Dropped) {
        let (model, version) = &self.names;
        metrics::DROPPED.counter(&[model, version, reason.label()]).increment(1);
    }

    /// Counts a call that was refused for overload, by the class of its priority.
    pub fn shed(&self, reason: Shed, class: &str) {
        let (model, version) = &self.names;
        metrics::SHED.counter(&[model, version, reason.label(), class]).increment(1);
    }

    /// Counts the positions of a batch of variable length.
    pub fn padded(&self, sent: u64, padding: u64) {
        let (model, version) = &self.names;
        metrics::BATCH_CELLS.counter(&[model, version, "sent"]).increment(sent);
        metrics::BATCH_CELLS.counter(&[model, version, "padding"]).increment(padding);
    }

    /// Records where the time of an answered call went, up to the engine.
    pub fn record_phases(&self, decode: Duration, timings: &Timings) {
        self.decode.record(decode);
        self.queue.record(timings.queue);
        self.input.record(timings.input);
        self.infer.record(timings.infer);
        self.output.record(timings.output);
    }

    /// Records the encoding and the whole of an answered call.
    pub fn record_answer(&self, protocol: Protocol, encode: Duration, total: Duration) {
        self.encode.record(encode);
        self.request[protocol as usize].record(total);
    }
}

/// Handles of one circuit breaker.
#[derive(Debug)]
pub struct BreakerMetrics {
    pub state: Gauge,
    pub refused: Counter,
    names: (String, String),
}

impl BreakerMetrics {
    #[must_use]
    pub fn new(model: &str, version: &str) -> Self {
        Self {
            state: metrics::BREAKER_STATE.gauge(&[model, version]),
            refused: metrics::BREAKER_REFUSED.counter(&[model, version]),
            names: (model.to_owned(), version.to_owned()),
        }
    }

    /// Counts a change of state; a series appears with the first.
    pub fn changed(&self, to: &str, reason: &str) {
        let (model, version) = &self.names;
        metrics::BREAKER_TRANSITIONS.counter(&[model, version, to, reason]).increment(1);
    }
}

/// Calls that never reached a version: unknown models, unreadable requests.
#[derive(Debug)]
pub struct WireMetrics {
    outcomes: [Outcomes; 2],
}

impl WireMetrics {
    #[must_use]
    pub fn new() -> Self {
        Self { outcomes: [Protocol::Http, Protocol::Grpc].map(|p| Outcomes::new("", "", p)) }
    }

    /// Counts a call that was refused for overload before it was read.
    pub fn shed(&self, reason: Shed) {
        metrics::SHED.counter(&["", "", reason.label(), ""]).increment(1);
    }

    pub fn count(&self, protocol: Protocol, outcome: Outcome) {
        self.outcomes[protocol as usize].count(outcome);
    }
}

impl Default for WireMetrics {
    fn default() -> Self {
        Self::new()
    }
}
