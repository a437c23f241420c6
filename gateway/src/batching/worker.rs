//! What an engine thread does: take a batch, run it, hand out the rows; halve a batch that
//! failed until the call that breaks it stands alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use engine::error::Fault;
use engine::{Batch, Run, Tensor};
use metrics::Gauge;
use tokio::time::Instant;
use tracing::error;

use super::assembly::{batch_of, pieces, with_all_rows};
use super::job::{Done, Failure, Job, Ticket};
use super::judge::{self, Finding, Judge, Look};
use super::pool::{Ended, Pool, Warmup, Work};
use super::queue::Shared;
use super::reply::Post;
use super::runner::Runner;
use super::running::{Groups, Running, Slot, Waiters};
use super::scheduler::{Picked, RunKey, Used};
use super::side::Side;
use crate::types::Timings;

/// The body of an engine thread.
pub(super) fn run(pool: &Pool, (id, side): (usize, Side), slot: &Slot, mut runner: Runner) {
    let mut ended = None;
    while let Some(work) = pool.next_work((id, side), ended.take()) {
        let queue = match &work {
            Work::Batch(picked) => picked.queue.clone(),
            Work::Warmup(warmup) => warmup.queue.clone(),
        };
        let run = if let Work::Batch(picked) = &work { Some(picked.run.clone()) } else { None };
        let started = Instant::now();
        if !runner.prepare(&queue) {
            give_up(pool, work);
            continue;
        }
        let body = AssertUnwindSafe(|| match work {
            Work::Batch(picked) => run_batch(*picked, slot, &mut runner),
            Work::Warmup(warmup) => run_warmup(warmup, slot, &runner),
        });
        match catch_unwind(body) {
            Ok(Some(used)) => ended = run.map(|run| Ended { queue, run, used }),
            Ok(None) => {
                pool.recovered(side);
                return;
            }
            Err(_) => {
                error!(model = queue.settings.label, "batching panicked");
                queue.pool.panicked("run");
                let used = Used { time: started.elapsed(), is_typical: false };
                let rest = slot.end().map(|running| running.fail(&Failure::Panicked));
                // Before and after a run there is nothing in the slot, either.
                if rest.is_none() && pool.has_given_up(id) {
                    pool.recovered(side);
                    return;
                }
                if let Some(run) = run {
                    pool.requeue(&queue, &run, used, rest.unwrap_or_default());
                }
            }
        }
    }
}

/// Fails work that no run was begun for.
fn give_up(pool: &Pool, work: Work) {
    match work {
        Work::Batch(picked) => {
            let Picked { queue, jobs, run, .. } = *picked;
            let (jobs, mut judge) = judge::open(&queue, jobs);
            judge.failed(jobs.len(), &Failure::Panicked);
            judge.settle(&queue);
            Waiters::Calls(jobs.into_iter().map(|job| job.ticket).collect())
                .fail(&Failure::Panicked);
            let used = Used { time: Duration::ZERO, is_typical: false };
            pool.requeue(&queue, &run, used, Groups::new());
        }
        // The load that asked may have been given up.
        Work::Warmup(warmup) => drop(warmup.reply.send(Err(Failure::Panicked))),
    }
}

/// Runs the calls as one batch, or in halves where it fails. `None`: the watchdog gave this
/// thread up meanwhile.
fn run_batch(picked: Picked, slot: &Slot, runner: &mut Runner) -> Option<Used> {
    let Picked { queue, jobs, run, closed } = picked;
    let (jobs, judge) = judge::open(&queue, jobs);
    if jobs.is_empty() {
        return Some(Used { time: Duration::ZERO, is_typical: false });
    }
    queue.metrics.closed(closed);
    let _counted = Counted::new(&queue.metrics.running);
    let own_inputs = runner.is_new_to(&queue).then(|| queue.probe.get()).flatten();
    let own_inputs = own_inputs.map(|probe| probe.batch().clone());
    let runner = &*runner;
    let mut hand = Hand { queue, run, runner, own_inputs, groups: vec![jobs], judge };
    let mut was_short_of_memory = false;
    let mut used = Used { time: Duration::ZERO, is_typical: true };
    while let Some(jobs) = hand.groups.pop() {
        let (time, result) = hand.run_group(jobs, slot)?;
        used.time += time;
        used.is_typical &= matches!(result, Ok(Answered { is_typical: true }));
        let Err(Failed { tickets, inputs, failure }) = result else { continue };
        if matches!(&failure, Failure::Engine(error) if error.fault() == Fault::Memory)
            && std::mem::replace(&mut was_short_of_memory, true)
        {
            // Halves did not fit either; trying ever smaller ones would keep others waiting.
            Waiters::Calls(tickets).fail(&failure);
            continue;
        }
        hand.queue.metrics.reruns.increment(1);
        let mut jobs: Vec<Job> = tickets
            .into_iter()
            .zip(inputs)
            .map(|(ticket, inputs)| Job { inputs, ticket })
            .collect();
        debug_assert!(jobs.len() > 1, "{failure:?} of one call is final");
        let second = jobs.split_off(jobs.len() / 2);
        hand.groups.push(second);
        hand.groups.push(jobs);
    }
    hand.judge.settle(&hand.queue);
    Some(used)
}

/// Counts a batch while it is in a thread's hands.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// A batch in a thread's hands.
struct Hand<'r> {
    queue: Arc<Shared>,
    run: RunKey,
    runner: &'r Runner,
    /// What the model is to run first on this thread, where that was not warmed up.
    own_inputs: Option<Batch>,
    /// What waits for its run, the next one last.
    groups: Groups,
    judge: Judge,
}

/// A group whose callers have their answers.
struct Answered {
    /// Whether the model ran it, and nothing else in the same time.
    is_typical: bool,
}

/// A group that failed and can be told apart by running its halves.
struct Failed {
    tickets: Vec<Ticket>,
    inputs: Vec<Vec<Tensor>>,
    failure: Failure,
}

impl Hand<'_> {
    /// Runs one group to its end, or gives it back when it has to be halved.
    fn run_group(
        &mut self,
        mut jobs: Vec<Job>,
        slot: &Slot,
    ) -> Option<(Duration, Result<Answered, Failed>)> {
        let inputs: Vec<Vec<Tensor>> =
            jobs.iter_mut().map(|job| std::mem::take(&mut job.inputs)).collect();
        let tickets: Vec<Ticket> = jobs.into_iter().map(|job| job.ticket).collect();
        let (batch, padded) = batch_of(&self.queue, &inputs, &tickets);
        let started = Instant::now();
        let limit = self.queue.settings.run_timeout;
        self.judge.begin(started, limit);
        slot.begin(Running {
            since: started,
            limit,
            queue: self.queue.clone(),
            run: Some(self.run.clone()),
            waiters: Waiters::Calls(tickets),
            // Where the watchdog finds them, should this run never end.
            rest: std::mem::take(&mut self.groups),
            judge: std::mem::take(&mut self.judge),
        });
        let warmed = self.own_inputs.take().map(|own| {
            // What is wrong with the model the calls will show.
            drop(self.runner.run(&self.queue, &own));
            slot.begin_anew(Instant::now());
        });
        let Checked { result, time, probed } = self.checked_run(&batch, inputs.len(), slot);
        let probed = probed || warmed.is_some();
        let Some(Running { waiters: Waiters::Calls(tickets), rest, judge, .. }) = slot.end() else {
            return None;
        };
        (self.groups, self.judge) = (rest, judge);
        Some((
            started.elapsed(),
            match result {
                Ok(run) => {
                    // What waits in the other groups is not to be lost with this one.
                    let calls = (tickets, inputs, padded);
                    let body = || self.answer(&batch, run, calls, (started, time));
                    if catch_unwind(AssertUnwindSafe(body)).is_err() {
                        error!(model = self.queue.settings.label, "answering a batch panicked");
                    }
                    Ok(Answered { is_typical: !probed })
                }
                Err(failure) if tickets.len() > 1 && may_be_one_call(&failure) => {
                    Err(Failed { tickets, inputs, failure })
                }
                Err(failure) => {
                    self.fail(tickets, &failure);
                    Ok(Answered { is_typical: false })
                }
            },
        ))
    }

    /// Runs a group of so many calls. Looks at the model's own inputs are runs of their own.
    fn checked_run(&self, batch: &Batch, calls: usize, slot: &Slot) -> Checked {
        let (queue, runner) = (&self.queue, self.runner);
        let started = Instant::now();
        let mut result = runner.run(queue, batch);
        let time = started.elapsed();
        let mut probed = false;
        let mut probe = |batch: &Batch| {
            probed = true;
            slot.begin_anew(Instant::now());
            runner.run(queue, batch).ok()
        };
        if calls > 1 {
            result = result.and_then(|run| with_all_rows(run, batch));
        }
        if let Some(guard) = queue.guard.get() {
            result = result.and_then(|run| guard.check(&run.outputs, batch.rows()).map(|()| run));
        }
        let result = match result {
            Ok(run) => {
                let look = judge::look(queue, &run.outputs, probe);
                Ok((run, look))
            }
            Err(failure) if calls == 1 => Err(judged(queue, failure, |own| probe(own).is_some())),
            Err(failure) => Err(failure),
        };
        Checked { result, time, probed }
    }

    /// Ends the calls of a run that failed for good.
    fn fail(&mut self, mut tickets: Vec<Ticket>, failure: &Failure) {
        if is_of_the_model(&self.queue, failure) {
            // The others would fail alike, one by one.
            let alike = self.groups.drain(..).flatten();
            tickets.extend(alike.map(|job| job.ticket));
        }
        self.judge.failed(tickets.len(), failure);
        self.settle_last();
        Waiters::Calls(tickets).fail(failure);
    }

    /// Counts the batch before its last callers hear of it.
    fn settle_last(&mut self) {
        if self.groups.is_empty() {
            self.judge.settle(&self.queue);
        }
    }

    /// Hands out the rows of a run.
    #[expect(clippy::cast_precision_loss, reason = "batches are far smaller than 2^52")]
    fn answer(
        &mut self,
        batch: &Batch,
        (run, look): (Run, Look),
        (tickets, inputs, padded): (Vec<Ticket>, Vec<Vec<Tensor>>, Option<usize>),
        (started, time): (Instant, Duration),
    ) {
        let queue = self.queue.clone();
        queue.count_execution(batch.rows(), &run);
        queue.metrics.batch_rows.record(batch.rows() as f64);
        let pieces = pieces(&queue, &run.outputs, &tickets, padded);
        let findings = judge::findings(&queue, look, &inputs, &pieces);
        self.judge.answered(tickets.len(), (&findings, look), time);
        self.settle_last();
        let Run { input, infer, output, .. } = run;
        let items = u32::try_from(batch.rows()).unwrap_or(u32::MAX);
        let mut findings = findings.into_iter();
        let mut post = Post::default();
        for (ticket, outputs) in tickets.into_iter().zip(pieces) {
            let ending = match findings.next().flatten() {
                Some(Finding::Failed(failure)) => Err(failure),
                Some(Finding::Nan) | None => {
                    let waited = started.duration_since(ticket.enqueued);
                    let timings = Timings { queue: waited, input, infer, output, batch: items };
                    Ok(Done { outputs, timings })
                }
            };
            ticket.reply.send(ending, &mut post);
        }
    }
}

/// A run and what is to be thought of it.
struct Checked {
    /// What it gave and what its outputs look like, or why it failed.
    result: Result<(Run, Look), Failure>,
    /// How long it took.
    time: Duration,
    /// Whether the model's own inputs were run, too.
    probed: bool,
}

/// Whether the model has failed on its own inputs, too.
fn is_of_the_model(queue: &Shared, failure: &Failure) -> bool {
    let is_judged = queue.probe.get().is_some();
    is_judged && matches!(failure, Failure::Engine(error) if may_be_judged(error.fault()))
}

fn may_be_judged(fault: Fault) -> bool {
    matches!(fault, Fault::Run | Fault::Input)
}

fn run_warmup(warmup: Warmup, slot: &Slot, runner: &Runner) -> Option<Used> {
    let Warmup { queue, batch, limit, reply } = warmup;
    slot.begin(Running {
        since: Instant::now(),
        limit,
        queue: queue.clone(),
        run: None,
        waiters: Waiters::Warmup(reply),
        rest: Groups::new(),
        judge: Judge::default(),
    });
    let result = runner.run(&queue, &batch);
    match slot.end() {
        Some(Running { waiters: Waiters::Warmup(reply), .. }) => {
            // The load that asked may have been given up.
            drop(reply.send(result.map(drop)));
            Some(Used::default())
        }
        _ => None,
    }
}

/// A broken device is nobody's row; everything else may be.
fn may_be_one_call(failure: &Failure) -> bool {
    match failure {
        Failure::Engine(error) => {
            matches!(error.fault(), Fault::Run | Fault::Output | Fault::Memory | Fault::Input)
        }
        Failure::Panicked | Failure::Outputs(_) => true,
        _ => false,
    }
}

/// Whose fault the failure of a lone call is: its own, unless the model fails on inputs that it
/// could run before. Without such inputs nobody can tell, and the model answers for it.
fn judged(queue: &Shared, failure: Failure, run: impl FnOnce(&Batch) -> bool) -> Failure {
    match failure {
        Failure::Engine(error) if may_be_judged(error.fault()) => {
            let is_well = queue.probe.get().is_some_and(|probe| probe.is_well(run));
            if is_well { Failure::Input(error) } else { Failure::Engine(error) }
        }
        other => other,
    }
}
