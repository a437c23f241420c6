//! One call on its way through the batcher.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::{EngineError, Tensor};
use tokio::time::Instant;

use super::load::Place;
use super::reply::Reply;
use crate::breaker::Permit;
use crate::types::{Deadline, Priority, Timings};

/// A waiting call.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) inputs: Vec<Tensor>,
    pub(super) ticket: Ticket,
}

/// Waiting calls, the most urgent one first.
pub(super) type Jobs = BTreeMap<Urgency, Job>;

/// What is known of a call besides its inputs.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) rows: usize,
    /// Size of the variable dimension; 0 where there is none.
    pub(super) length: usize,
    pub(super) urgency: Urgency,
    pub(super) level: u8,
    pub(super) enqueued: Instant,
    pub(super) deadline: Option<Deadline>,
    pub(super) reply: Reply,
    /// What its breaker let it pass with.
    pub(super) permit: Permit,
    /// Its room in the queue, given back when it leaves.
    pub(super) place: Option<Place>,
}

/// Waiting for this long makes a call as urgent as one of the next level that has just come.
pub(super) const AGEING: Duration = Duration::from_millis(100);

/// Where a call stands in its bucket: smaller is sooner. It never changes while the call waits;
/// a call ages because those that come later get a later window, so none waits for ever behind
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency {
    pub(super) shadow: bool,
    /// Arrival in steps of [`AGEING`], plus the level of priority.
    window: u64,
    pub(super) due: Due,
    /// Order of arrival at the pool, given there.
    pub(super) sequence: u64,
}

/// When an answer is due; what is due earlier is smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    At(Deadline),
    Never,
}

/// Who gives way to whom where not all can be served: live calls by their level, shadows last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u8);

/// How many ranks there are.
pub(super) const RANKS: usize = Priority::LEAST as usize + 2;

impl Rank {
    /// The last one.
    pub(super) const SHADOW: Self = Self(Priority::LEAST + 1);

    pub(super) fn new(shadow: bool, level: u8) -> Self {
        if shadow { Self::SHADOW } else { Self(level.min(Priority::LEAST)) }
    }

    /// The word for it in metrics.
    pub(super) fn class(self) -> &'static str {
        match Priority::of(u64::from(self.0)) {
            _ if self == Self::SHADOW => "shadow",
            Some(priority) => priority.class(),
            None => "high",
        }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Ticket {
    pub(super) fn rank(&self) -> Rank {
        Rank::new(self.urgency.shadow, self.level)
    }
}

impl Urgency {
    /// `since_start` is the time of arrival on the pool's own scale.
    pub(super) fn new(
        shadow: bool,
        level: u8,
        since_start: Duration,
        deadline: Option<Deadline>,
    ) -> Self {
        let window = since_start.as_millis() / AGEING.as_millis() + u128::from(level);
        let window = u64::try_from(window).unwrap_or(u64::MAX);
        Self { shadow, window, due: deadline.map_or(Due::Never, Due::At), sequence: 0 }
    }
}

/// The outputs of one call and what they cost.
#[derive(Debug)]
pub struct Done {
    pub outputs: Vec<Tensor>,
    pub timings: Timings,
}

/// Why a call got no outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The engine said so, and inputs that it once could run fail too.
    Engine(EngineError),
    /// The engine said so of this call alone.
    Input(EngineError),
    /// The run broke the time limit.
    TimedOut(Duration),
    /// The engine panicked.
    Panicked,
    /// The outputs do not fit the batch that was run.
    Outputs(String),
    /// Its deadline passed while it waited.
    Expired,
    /// Its deadline passed while it ran; the run goes on, for nobody.
    Overdue,
    /// Its caller went away while it waited.
    Cancelled,
    /// A more urgent call took its place in a full queue.
    Displaced,
    /// The gateway is stopping.
    Stopping,
    /// The breaker opened while it waited; try again after so long.
    CircuitOpen(Duration),
}
