//! Which batch of a device runs next.
//!
//! Live before shadow; then priority, where waiting raises a call by a level every
//! [`AGEING`]; then, among the versions that are not ahead of their share of engine time, the
//! earliest deadline; then whoever had the least. Shares follow start-time fair queueing (Goyal,
//! Vin, Cheng 1996): each version's clock advances by the engine time it used, divided by its
//! weight, and one that was idle starts where the busy ones are.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::{Bucket, Key, Ripe, Taken};
use super::cost::Costs;
use super::job::{AGEING, Failure, Job, RANKS, Rank, Ticket, Urgency};
use super::queue::Shared;
use super::reply::Post;
use super::settings::QueueSettings;
use super::side::Side;
use super::variable::VariableLength;
use crate::overload::delay::Delays;
use crate::telemetry::{Closed, Dropped, Shed};

/// Versions whose clocks are this close, in seconds, share alike: deadlines decide among them.
const QUANTUM: f64 = 0.02;

/// Everything that waits on one side of a device.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    side: Side,
    queues: HashMap<u64, Waiting>,
    /// The clock of the version that was served last: where those begin that had nothing to do.
    now_served: f64,
}

/// What waits for one version, and what it had.
#[derive(Debug, Default)]
struct Waiting {
    /// Keeps the version alive while calls wait for it.
    queue: Option<Arc<Shared>>,
    buckets: BTreeMap<Key, Bucket>,
    costs: Costs,
    /// How long its calls waited, where anybody asks.
    delays: Option<Delays<RANKS>>,
    /// Batches of this side that run now.
    running: usize,
    /// Those of them that are trials of the breaker.
    trials: usize,
    /// Engine seconds used, divided by the weight.
    clock: f64,
}

/// A batch to be run.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) queue: Arc<Shared>,
    pub(super) jobs: Vec<Job>,
    pub(super) run: RunKey,
    pub(super) closed: Closed,
}

/// What a finished run is remembered by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RunKey {
    pub(super) side: Side,
    pub(super) queue: u64,
    pub(super) key: Key,
    pub(super) rows: usize,
    pub(super) is_trial: bool,
}

/// What a batch cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub(super) time: Duration,
    /// Whether other batches of this size will take as long; one that failed says nothing.
    pub(super) is_typical: bool,
}

/// What a look at the queues leaves to be done without the lock.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    /// Calls that left without a run.
    pub(super) dropped: Vec<(Arc<Shared>, Ticket, Failure)>,
    /// Versions that nothing waits for any more: the last handle may be among them.
    pub(super) spent: Vec<Arc<Shared>>,
}

/// What a free thread finds.
#[derive(Debug)]
pub(super) enum Next {
    Run(Box<Picked>),
    /// Nothing yet, but something at this moment.
    At(Instant),
    Nothing,
}

/// A bucket that may run now.
struct Candidate<'a> {
    queue: u64,
    key: &'a Key,
    urgency: Urgency,
    level: u64,
    clock: f64,
    why: Closed,
}

/// The bucket that runs next.
#[derive(Debug)]
struct Choice {
    queue: u64,
    key: Key,
    shadow: bool,
    why: Closed,
}

impl Candidate<'_> {
    fn choice(&self) -> Choice {
        let Self { queue, urgency, why, .. } = *self;
        Choice { queue, key: self.key.clone(), shadow: urgency.shadow, why }
    }
}

impl Scheduler {
    pub(super) fn new(side: Side) -> Self {
        Self { side, ..Self::default() }
    }

    /// Adds a call; says when its bucket may run, as far as a thread would take it now.
    pub(super) fn push(
        &mut self,
        queue: &Arc<Shared>,
        key: Key,
        job: Job,
        now: Instant,
    ) -> Option<Ripe> {
        let waiting = self.queues.entry(queue.id).or_default();
        if waiting.queue.is_none() {
            waiting.queue = Some(queue.clone());
            // Idle time is no credit.
            if waiting.running == 0 {
                waiting.clock = waiting.clock.max(self.now_served);
            }
        }
        let settings = &queue.settings;
        let bucket = waiting.buckets.entry(key.clone()).or_insert_with(|| Bucket::new(now));
        queue.load(self.side).has_rank(job.ticket.rank().index());
        bucket.push(job);
        let bucket = waiting.buckets.get(&key).filter(|_| queue.may_run_more(self.side))?;
        Some(waiting.ripe(&key, bucket, now, settings))
    }

    /// Takes the calls of a version out that need not run any more.
    pub(super) fn sweep(&mut self, queue: &Arc<Shared>, now: Instant, cleared: &mut Cleared) {
        let Some(waiting) = self.queues.get_mut(&queue.id) else { return };
        let mut dropped = Vec::new();
        waiting.buckets.retain(|_, bucket| {
            bucket.sweep(now, &mut dropped);
            !bucket.is_empty()
        });
        cleared.dropped.extend(dropped.into_iter().map(|(t, f)| (queue.clone(), t, f)));
        cleared.spent.extend(waiting.spent());
    }

    /// Takes out the waiting call of a version that is the first to give way to one of `rank`;
    /// says whether it found one before it had looked at `steps` calls and buckets, which it
    /// counts down.
    pub(super) fn displace(
        &mut self,
        queue: &Arc<Shared>,
        (rank, steps): (Rank, &mut usize),
        cleared: &mut Cleared,
    ) -> bool {
        let Some(waiting) = self.queues.get_mut(&queue.id) else { return false };
        let mut least = None;
        for (key, bucket) in &waiting.buckets {
            let found = bucket.least(rank, steps);
            least = least.max(found.map(|(rank, urgency)| (rank, urgency, key)));
            if *steps == 0 {
                break;
            }
        }
        let Some((_, urgency, key)) = least else {
            // Those that were not looked at may be behind.
            if *steps > 0 {
                queue.load(self.side).has_none_behind(rank.index());
            }
            return false;
        };
        let key = key.clone();
        let Some(bucket) = waiting.buckets.get_mut(&key) else { return false };
        let job = bucket.remove(&urgency);
        if bucket.is_empty() {
            waiting.buckets.remove(&key);
        }
        cleared.spent.extend(waiting.spent());
        let displaced = job.map(|job| (queue.clone(), job.ticket, Failure::Displaced));
        cleared.dropped.extend(displaced);
        true
    }

    /// Takes the most urgent batch, if one may run. `hurry`: no delays, the pool is closing.
    pub(super) fn next(&mut self, now: Instant, hurry: bool, cleared: &mut Cleared) -> Next {
        loop {
            let (best, soonest) = self.choose(now, hurry);
            let Some(choice) = best else {
                return soonest.map_or(Next::Nothing, Next::At);
            };
            if let Some(picked) = self.take(choice, now, cleared) {
                return Next::Run(Box::new(picked));
            }
            // Only calls that had left were there.
        }
    }

    /// When a thread would find a batch: now, later, or never by itself.
    pub(super) fn outlook(&self, now: Instant) -> Option<Instant> {
        let (best, soonest) = self.choose(now, false);
        if best.is_some() { Some(now) } else { soonest }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let buckets = self.queues.values().flat_map(|waiting| waiting.buckets.values());
        buckets.map(Bucket::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.values().all(|waiting| waiting.queue.is_none())
    }

    /// Takes everything out, for good.
    pub(super) fn end(&mut self, cleared: &mut Cleared) {
        for waiting in self.queues.values_mut() {
            let Some(queue) = &waiting.queue else { continue };
            for bucket in std::mem::take(&mut waiting.buckets).into_values() {
                let tickets = bucket.into_jobs().map(|job| job.ticket);
                cleared.dropped.extend(tickets.map(|t| (queue.clone(), t, Failure::Stopping)));
            }
            cleared.spent.extend(waiting.spent());
        }
    }

    /// A run has ended or was given up. Returns what such a batch takes, where that is known.
    pub(super) fn finished(
        &mut self,
        run: &RunKey,
        queue: &Shared,
        used: Used,
    ) -> Option<Duration> {
        queue.note_run_ended(self.side);
        let waiting = self.queues.get_mut(&run.queue)?;
        waiting.running = waiting.running.saturating_sub(1);
        waiting.trials = waiting.trials.saturating_sub(usize::from(run.is_trial));
        waiting.clock += used.time.as_secs_f64() / queue.settings.weight;
        if !used.is_typical {
            return None;
        }
        waiting.costs.learn(&run.key, run.rows, run.key.length, used.time);
        waiting.costs.predict(&run.key, run.rows, run.key.length)
    }

    pub(super) fn forget(&mut self, queue: u64) {
        self.queues.remove(&queue);
    }

    /// The most urgent bucket that may run now, and when the next one will if none may.
    fn choose(&self, now: Instant, hurry: bool) -> (Option<Choice>, Option<Instant>) {
        let mut soonest: Option<Instant> = None;
        let mut candidates = Vec::new();
        for (&id, waiting) in &self.queues {
            let Some(queue) = &waiting.queue else { continue };
            if !queue.may_run_more(self.side) {
                continue;
            }
            // Within a version nothing but urgency counts: what waits long comes before deadlines.
            let mut first: Option<Candidate<'_>> = None;
            for (key, bucket) in &waiting.buckets {
                let Some(head) = bucket.head() else { continue };
                // Nor do the parts of a trial run beside each other: a model that hangs shall
                // cost one thread.
                if waiting.trials > 0 && head.ticket.permit.is_on_trial() {
                    continue;
                }
                let why = match waiting.ripe(key, bucket, now, &queue.settings) {
                    Ripe::Now(why) => why,
                    Ripe::At(_) if hurry => Closed::Idle,
                    Ripe::At(at) => {
                        soonest = Some(soonest.map_or(at, |other| other.min(at)));
                        continue;
                    }
                };
                let urgency = head.ticket.urgency;
                if first.as_ref().is_none_or(|first| urgency < first.urgency) {
                    let (level, clock) = (aged(&head.ticket, now), waiting.clock);
                    first = Some(Candidate { queue: id, key, urgency, level, clock, why });
                }
            }
            candidates.extend(first);
        }
        let best = most_urgent(&candidates);
        (best.map(|best| best.choice()), soonest)
    }

    fn take(
        &mut self,
        Choice { queue: id, key, shadow, why }: Choice,
        now: Instant,
        cleared: &mut Cleared,
    ) -> Option<Picked> {
        let waiting = self.queues.get_mut(&id)?;
        let queue = waiting.queue.clone()?;
        let expected = queue.load(self.side).batch_time();
        let mut taken = Taken::new(shadow, &key, &mut waiting.costs, expected);
        let stopped = waiting.take_into(&mut taken, &key, &queue, now);
        let dropped = std::mem::take(&mut taken.dropped);
        cleared.dropped.extend(dropped.into_iter().map(|(t, f)| (queue.clone(), t, f)));
        cleared.spent.extend(waiting.spent());
        if taken.jobs.is_empty() {
            return None;
        }
        // How long shadows wait behind live calls says nothing about what those have to expect.
        if self.side == Side::Live {
            waiting.note_delays(&queue, &taken.jobs, now);
        }
        waiting.running += 1;
        queue.note_run(self.side);
        self.now_served = self.now_served.max(waiting.clock);
        // What a delay or a deadline closed was not full, whatever it then took.
        let closed = match (why, stopped) {
            (Closed::Delay | Closed::Deadline, None) => why,
            (_, Some(reason)) => reason,
            (_, None) if taken.rows >= queue.settings.max_batch => Closed::Full,
            _ => Closed::Idle,
        };
        // Padded calls ran at a length that none of them may have.
        let key = Key { rest: key.rest, length: taken.size(&queue.settings) };
        let is_trial = taken.jobs.iter().any(|job| job.ticket.permit.is_on_trial());
        waiting.trials += usize::from(is_trial);
        let run = RunKey { side: self.side, queue: id, key, rows: taken.rows, is_trial };
        Some(Picked { queue, jobs: taken.jobs, run, closed })
    }
}

impl Waiting {
    /// Notes how long the calls of a batch waited, for those that come.
    fn note_delays(&mut self, queue: &Shared, jobs: &[Job], now: Instant) {
        let Some(shedding) = queue.settings.shedding else { return };
        let delays = self.delays.get_or_insert_with(|| Delays::new(shedding));
        for Job { ticket, .. } in jobs {
            let delay = now.saturating_duration_since(ticket.enqueued);
            delays.note(ticket.rank().index(), ticket.rows, delay);
        }
        let buckets = &self.buckets;
        delays.roll(now, queue.load.batch_time(), |rank| {
            buckets.values().any(|bucket| bucket.has_rank(rank))
        });
        queue.standing.set(delays.view());
    }

    /// Lets go of the version once nothing waits for it.
    fn spent(&mut self) -> Option<Arc<Shared>> {
        if !self.buckets.is_empty() {
            return None;
        }
        let queue = self.queue.take()?;
        if let Some(delays) = &mut self.delays
            && delays.emptied()
        {
            queue.standing.set(delays.view());
        }
        Some(queue)
    }

    fn ripe(&self, key: &Key, bucket: &Bucket, now: Instant, settings: &QueueSettings) -> Ripe {
        // What would be padded to one length fills a batch together. Without a delay nobody asks.
        let variable = settings.variable.as_ref().filter(|_| settings.max_delay > Duration::ZERO);
        let rows = match variable.and_then(|variable| variable.bucket(key.length)) {
            Some(size) if key.length > 0 => {
                let of_length = |length| Key { rest: key.rest.clone(), length };
                let alike = self.buckets.range(of_length(1)..=of_length(size));
                alike.map(|(_, bucket)| bucket.rows()).sum()
            }
            _ => bucket.rows(),
        };
        bucket.ripe((key, rows), now, settings, &self.costs)
    }

    /// Fills a batch from a bucket and, where lengths may differ, from others that it is worth
    /// padding for.
    fn take_into(
        &mut self,
        taken: &mut Taken,
        key: &Key,
        queue: &Shared,
        now: Instant,
    ) -> Option<Closed> {
        let mut stopped = None;
        for key in self.kindred(key, queue.settings.variable.as_ref()) {
            if let Some(bucket) = self.buckets.get_mut(&key) {
                stopped = bucket.take_into(taken, now, &queue.settings);
                if bucket.is_empty() {
                    self.buckets.remove(&key);
                }
            }
            if stopped.is_some() || taken.jobs.is_empty() {
                break;
            }
        }
        stopped
    }

    /// Buckets whose calls may join those of the first, the longest first up to the length that
    /// it would be padded to anyway, then those that are longer than that.
    fn kindred(&self, first: &Key, variable: Option<&VariableLength>) -> Vec<Key> {
        let mut keys = vec![first.clone()];
        if let Some(size) = variable.and_then(|variable| variable.bucket(first.length))
            && first.length > 0
        {
            let of_length = |length| Key { rest: first.rest.clone(), length };
            let (shortest, size, longest) = (of_length(1), of_length(size), of_length(usize::MAX));
            let fit = self.buckets.range(&shortest..=&size).rev();
            let above = self.buckets.range((Bound::Excluded(&size), Bound::Included(&longest)));
            let others = fit.chain(above).map(|(key, _)| key).filter(|key| *key != first);
            keys.extend(others.cloned());
        }
        keys
    }
}

impl Cleared {
    pub(super) fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.spent.is_empty()
    }

    /// Ends the calls that left, and lets go of versions that nothing waits for.
    pub(super) fn settle(self) {
        let mut post = Post::default();
        for (queue, ticket, failure) in self.dropped {
            if failure == Failure::Displaced {
                queue.metrics.shed(Shed::Displaced, ticket.rank().class());
            }
            queue.metrics.dropped(match failure {
                Failure::Expired => Dropped::Expired,
                Failure::Displaced => Dropped::Displaced,
                Failure::Stopping => Dropped::Stopping,
                _ => Dropped::Cancelled,
            });
            ticket.reply.send(Err(failure), &mut post);
        }
    }
}

/// The level of a call now: waiting makes it more urgent, down to 0.
fn aged(ticket: &Ticket, now: Instant) -> u64 {
    let steps = now.saturating_duration_since(ticket.enqueued).as_millis() / AGEING.as_millis();
    u64::from(ticket.level).saturating_sub(u64::try_from(steps).unwrap_or(u64::MAX))
}

fn most_urgent<'c, 'a>(candidates: &'c [Candidate<'a>]) -> Option<&'c Candidate<'a>> {
    let rank = candidates.iter().map(|c| (c.urgency.shadow, c.level)).min()?;
    let alike = || candidates.iter().filter(|c| (c.urgency.shadow, c.level) == rank);
    let least = alike().map(|c| c.clock).min_by(f64::total_cmp)?;
    alike().filter(|c| c.clock <= least + QUANTUM).min_by(|a, b| {
        let by_due = a.urgency.due.cmp(&b.urgency.due);
        let by_clock = by_due.then(a.clock.total_cmp(&b.clock));
        by_clock.then(a.urgency.sequence.cmp(&b.urgency.sequence))
    })
}

#[cfg(test)]
mod tests;
