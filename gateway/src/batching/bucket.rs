//! The waiting calls of one version that may share a batch, and the batch that is taken out of
//! them.

use std::time::Duration;

use tokio::time::Instant;

use super::cost::Costs;
use super::job::{Due, Failure, Job, Jobs, RANKS, Rank, Ticket, Urgency};
use super::settings::QueueSettings;
use crate::telemetry::Closed;
use crate::types::Deadline;

/// What calls have in common that share a batch without padding: every dimension but the
/// batch's. Empty for models whose shapes leave no choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) rest: Vec<usize>,
    /// The variable dimension, counted apart; 0 where there is none.
    pub(super) length: usize,
}

/// Waiting calls that may share a batch.
#[derive(Debug)]
pub(super) struct Bucket {
    jobs: Jobs,
    rows: usize,
    /// Calls of each rank.
    ranks: [usize; RANKS],
    /// Arrival of the oldest call.
    opened: Instant,
    /// The earliest deadline.
    tightest: Option<Deadline>,
}

/// When a batch may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ripe {
    Now(Closed),
    At(Instant),
}

/// A batch in the making.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) jobs: Vec<Job>,
    pub(super) rows: usize,
    longest: usize,
    shortest: usize,
    /// `rows · length` as the callers sent it.
    cells: usize,
    /// Rows at most, where a smaller batch than the model's maximum is faster.
    limit: Option<usize>,
    /// Positions of padding that sparing one run is worth, where that is known.
    worth: Option<f64>,
    /// How long the last batch took, where that is known: calls that have less are doomed.
    expected: Duration,
    /// Whether a batch of shadows alone is due; else live calls of another version may be.
    may_be_shadow: bool,
    /// Calls that left on the way: their caller has gone or their deadline has passed.
    pub(super) dropped: Vec<(Ticket, Failure)>,
}

/// Less than this share of a run saved by a larger batch is not worth waiting for.
const WORTH_WAITING: f64 = 0.05;
/// Time between the end of a run and its calls' deadline, for timers that ring late, threads that
/// wake slowly and the way of the answer.
const SLACK: Duration = Duration::from_millis(5);

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        let ranks = [0; RANKS];
        Self { jobs: Jobs::new(), rows: 0, ranks, opened: now, tightest: None }
    }

    pub(super) fn push(&mut self, job: Job) {
        if self.jobs.is_empty() || job.ticket.enqueued < self.opened {
            self.opened = job.ticket.enqueued;
        }
        self.tightest = Deadline::earlier(self.tightest, job.ticket.deadline);
        self.rows += job.ticket.rows;
        self.ranks[job.ticket.rank().index()] += 1;
        self.jobs.insert(job.ticket.urgency, job);
    }

    pub(super) fn head(&self) -> Option<&Job> {
        self.jobs.first_key_value().map(|(_, job)| job)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// When its calls may run: at once, unless the model asks for patience and something could
    /// still be won by it. `rows` counts those that could join, too.
    pub(super) fn ripe(
        &self,
        (key, rows): (&Key, usize),
        now: Instant,
        settings: &QueueSettings,
        costs: &Costs,
    ) -> Ripe {
        if !settings.stacks() || rows >= settings.max_batch {
            return Ripe::Now(Closed::Full);
        }
        if settings.max_delay == Duration::ZERO {
            return Ripe::Now(Closed::Idle);
        }
        if costs.best_size(key).is_some_and(|best| rows >= best) {
            return Ripe::Now(Closed::Full);
        }
        if costs.fixed_share(key, self.rows).is_some_and(|share| share < WORTH_WAITING) {
            return Ripe::Now(Closed::Idle);
        }
        let delayed = self.opened + settings.max_delay;
        let needed = costs.predict(key, self.rows, key.length).unwrap_or_default() + SLACK;
        let latest = self.tightest.map(|deadline| deadline.0.checked_sub(needed).unwrap_or(now));
        match latest {
            Some(latest) if latest <= now => Ripe::Now(Closed::Deadline),
            _ if delayed <= now => Ripe::Now(Closed::Delay),
            Some(latest) => Ripe::At(delayed.min(latest)),
            None => Ripe::At(delayed),
        }
    }

    /// Moves calls into the batch, the most urgent first, until one does not fit; says what
    /// stopped it, or `None` when the bucket is empty.
    pub(super) fn take_into(
        &mut self,
        taken: &mut Taken,
        now: Instant,
        settings: &QueueSettings,
    ) -> Option<Closed> {
        let stopped = loop {
            let Some(job) = self.head() else { break None };
            // Nothing is lost by dropping it as long as others fill the batch. The last one runs:
            // only runs teach how long they take.
            let has_others = self.rows >= job.ticket.rows + settings.max_batch.max(1);
            let soonest = if has_others { now + taken.expected } else { now };
            if let Some(failure) = left(&job.ticket, now).or(doomed(&job.ticket, soonest)) {
                if let Some(job) = self.pop() {
                    taken.dropped.push((job.ticket, failure));
                }
                continue;
            }
            // What a batch says about its model is what live calls or shadows say, never both.
            let shadow = job.ticket.urgency.shadow;
            let fits = match taken.jobs.first() {
                None => taken.may_be_shadow || !shadow,
                Some(first) => first.ticket.urgency.shadow == shadow,
            };
            if !fits {
                break None;
            }
            if let Some(reason) = taken.refuses(&job.ticket, settings) {
                break Some(reason);
            }
            if let Some(job) = self.pop() {
                taken.add(job);
            }
        };
        // Only a model with a delay asks for these again.
        if settings.max_delay > Duration::ZERO {
            let tickets = || self.jobs.values().map(|job| &job.ticket);
            self.tightest = tickets().filter_map(|ticket| ticket.deadline).min();
            self.opened = tickets().map(|ticket| ticket.enqueued).min().unwrap_or(now);
        }
        stopped
    }

    pub(super) fn has_rank(&self, rank: usize) -> bool {
        self.ranks[rank] > 0
    }

    /// Of the calls behind `rank` one that would have run last: of the last rank, the newest.
    /// Looks at `steps` calls at most and counts them down.
    pub(super) fn least(&self, rank: Rank, steps: &mut usize) -> Option<(Rank, Urgency)> {
        *steps = steps.saturating_sub(1);
        let last = (rank.index() + 1..RANKS).rev().find(|&rank| self.ranks[rank] > 0)?;
        let mut jobs = self.jobs.values().rev().map(|job| &job.ticket);
        let ticket = jobs.find(|ticket| {
            *steps = steps.saturating_sub(1);
            *steps == 0 || ticket.rank().index() == last
        })?;
        if ticket.rank() <= rank {
            return None;
        }
        Some((ticket.rank(), ticket.urgency))
    }

    /// Takes one call out.
    pub(super) fn remove(&mut self, urgency: &Urgency) -> Option<Job> {
        let job = self.jobs.remove(urgency)?;
        Some(self.removed(job))
    }

    pub(super) fn into_jobs(self) -> impl Iterator<Item = Job> {
        self.jobs.into_values()
    }

    /// Takes out the calls that need not run any more.
    pub(super) fn sweep(&mut self, now: Instant, dropped: &mut Vec<(Ticket, Failure)>) {
        let dead = self.jobs.extract_if(.., |_, job| left(&job.ticket, now).is_some());
        for job in dead.map(|(_, job)| job).collect::<Vec<_>>() {
            let failure = left(&job.ticket, now).unwrap_or(Failure::Cancelled);
            dropped.push((self.removed(job).ticket, failure));
        }
    }

    fn pop(&mut self) -> Option<Job> {
        let (_, job) = self.jobs.pop_first()?;
        Some(self.removed(job))
    }

    fn removed(&mut self, mut job: Job) -> Job {
        self.rows -= job.ticket.rows;
        self.ranks[job.ticket.rank().index()] -= 1;
        job.ticket.place = None;
        job
    }
}

/// Whether a call that ends no sooner than this would end in time.
fn doomed(ticket: &Ticket, soonest: Instant) -> Option<Failure> {
    matches!(ticket.urgency.due, Due::At(deadline) if deadline.has_passed(soonest))
        .then_some(Failure::Expired)
}

/// Why a call need not run any more.
fn left(ticket: &Ticket, now: Instant) -> Option<Failure> {
    match ticket.urgency.due {
        Due::At(deadline) if deadline.has_passed(now) => Some(Failure::Expired),
        _ if ticket.reply.is_gone() => Some(Failure::Cancelled),
        _ => None,
    }
}

impl Taken {
    pub(super) fn new(
        may_be_shadow: bool,
        key: &Key,
        costs: &mut Costs,
        expected: Duration,
    ) -> Self {
        let (limit, worth) = (costs.next_limit(key), costs.worth_padding());
        Self { may_be_shadow, limit, worth, expected, ..Self::default() }
    }

    /// The length that its calls are padded to.
    pub(super) fn size(&self, settings: &QueueSettings) -> usize {
        size(self.shortest, self.longest, settings)
    }

    fn add(&mut self, job: Job) {
        let Ticket { rows, length, .. } = job.ticket;
        self.rows += rows;
        self.longest = self.longest.max(length);
        self.shortest = if self.jobs.is_empty() { length } else { self.shortest.min(length) };
        self.cells += rows * length;
        self.jobs.push(job);
    }

    /// Why a call cannot join; the first one always can.
    fn refuses(&self, ticket: &Ticket, settings: &QueueSettings) -> Option<Closed> {
        if self.jobs.is_empty() {
            return None;
        }
        let rows = self.rows + ticket.rows;
        let largest = settings.max_batch.min(self.limit.unwrap_or(usize::MAX));
        if !settings.stacks() || rows > largest {
            return Some(Closed::Full);
        }
        let variable = settings.variable.as_ref()?;
        let (shortest, longest) =
            (self.shortest.min(ticket.length), self.longest.max(ticket.length));
        let padded = rows * size(shortest, longest, settings);
        let own = ticket.rows * ticket.length;
        let cells = self.cells + own;
        let more = padded.saturating_sub(self.rows * self.size(settings) + own);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (waste, more) = (padded as f64 / cells.max(1) as f64, more as f64);
        let is_too_much = padded > variable.max_cells
            || waste > variable.max_waste
            || self.worth.is_some_and(|worth| more > worth);
        is_too_much.then_some(Closed::Bucket)
    }
}

/// The length of a batch of calls from `shortest` to `longest`.
fn size(shortest: usize, longest: usize, settings: &QueueSettings) -> usize {
    match &settings.variable {
        Some(variable) if shortest < longest => variable.bucket(longest).unwrap_or(longest),
        _ => longest,
    }
}
