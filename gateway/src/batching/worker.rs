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

use super::job::{Done, Failure, Job, Ticket};
use super::pool::{Ended, Pool, Warmup, Work};
use super::queue::Shared;
use super::reply::Post;
use super::running::{Groups, Running, Slot, Waiters};
use super::scheduler::{Picked, RunKey, Used};
use crate::types::Timings;

/// The body of an engine thread.
pub(super) fn run(pool: &Pool, id: usize, slot: &Slot) {
    // Thread settings belong to an engine, and models of several engines share a device.
    let mut prepared: Vec<&'static str> = Vec::new();
    let mut ended = None;
    while let Some(work) = pool.next_work(id, ended.take()) {
        let queue = match &work {
            Work::Batch(picked) => picked.queue.clone(),
            Work::Warmup(warmup) => warmup.queue.clone(),
        };
        let platform = queue.engine().platform();
        if !prepared.contains(&platform) {
            queue.engine().prepare_thread();
            prepared.push(platform);
        }
        let run = if let Work::Batch(picked) = &work { Some(picked.run.clone()) } else { None };
        let started = Instant::now();
        let body = AssertUnwindSafe(|| match work {
            Work::Batch(picked) => run_batch(*picked, slot),
            Work::Warmup(warmup) => run_warmup(warmup, slot),
        });
        match catch_unwind(body) {
            Ok(Some(used)) => ended = run.map(|run| Ended { queue, run, used }),
            Ok(None) => {
                pool.recovered();
                return;
            }
            Err(_) => {
                error!(model = queue.settings.label, "batching panicked");
                let used = Used { time: started.elapsed(), is_typical: false };
                if let Some(Running { waiters, rest, run: Some(run), .. }) = slot.end() {
                    waiters.fail(&Failure::Panicked);
                    pool.requeue(&queue, &run, used, rest);
                } else if let Some(run) = run {
                    pool.requeue(&queue, &run, used, vec![]);
                }
            }
        }
    }
}

/// Runs the calls as one batch, or in halves where it fails. `None`: the watchdog gave this
/// thread up meanwhile.
fn run_batch(picked: Picked, slot: &Slot) -> Option<Used> {
    let Picked { queue, jobs, run, closed } = picked;
    queue.metrics.closed(closed);
    let _counted = Counted::new(&queue.metrics.running);
    let mut groups = vec![jobs];
    let mut was_short_of_memory = false;
    let mut used = Used { time: Duration::ZERO, is_typical: true };
    while let Some(jobs) = groups.pop() {
        let rest = std::mem::take(&mut groups);
        let (time, result) = run_group(&queue, jobs, (&run, rest), slot)?;
        used.time += time;
        used.is_typical &= matches!(result, Ok(Answered { ran: true, .. }));
        let Failed { tickets, inputs, failure, rest } = match result {
            Ok(answered) => {
                groups = answered.rest;
                continue;
            }
            Err(failed) => failed,
        };
        groups = rest;
        if matches!(&failure, Failure::Engine(error) if error.fault() == Fault::Memory)
            && std::mem::replace(&mut was_short_of_memory, true)
        {
            // Halves did not fit either; trying ever smaller ones would keep others waiting.
            Waiters::Calls(tickets).fail(&failure);
            continue;
        }
        queue.metrics.reruns.increment(1);
        let mut jobs: Vec<Job> = tickets
            .into_iter()
            .zip(inputs)
            .map(|(ticket, inputs)| Job { inputs, ticket })
            .collect();
        debug_assert!(jobs.len() > 1, "{failure:?} of one call is final");
        let second = jobs.split_off(jobs.len() / 2);
        groups.push(second);
        groups.push(jobs);
    }
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

/// A group whose callers have their answers, and the groups that wait.
struct Answered {
    /// Whether the model ran it.
    ran: bool,
    rest: Groups,
}

/// A group that failed and can be told apart by running its halves.
struct Failed {
    tickets: Vec<Ticket>,
    inputs: Vec<Vec<Tensor>>,
    failure: Failure,
    rest: Groups,
}

/// Runs one group to its end, or gives it back when it has to be halved.
fn run_group(
    queue: &Arc<Shared>,
    mut jobs: Vec<Job>,
    (run, rest): (&RunKey, Groups),
    slot: &Slot,
) -> Option<(Duration, Result<Answered, Failed>)> {
    let inputs: Vec<Vec<Tensor>> =
        jobs.iter_mut().map(|job| std::mem::take(&mut job.inputs)).collect();
    let tickets: Vec<Ticket> = jobs.into_iter().map(|job| job.ticket).collect();
    let (batch, padded) = batch_of(queue, &inputs, &tickets);
    let started = Instant::now();
    slot.begin(Running {
        since: started,
        limit: queue.settings.run_timeout,
        queue: queue.clone(),
        run: Some(run.clone()),
        waiters: Waiters::Calls(tickets),
        // Where the watchdog finds them, should this run never end.
        rest,
    });
    let mut result = guarded_run(queue, &batch);
    if inputs.len() > 1 {
        result = result.and_then(|run| with_all_rows(run, &batch));
    }
    if let Err(failure) = &result
        && inputs.len() == 1
    {
        result = Err(judged(queue, failure.clone()));
    }
    let Some(Running { waiters: Waiters::Calls(tickets), rest, .. }) = slot.end() else {
        return None;
    };
    let time = started.elapsed();
    Some((
        time,
        match result {
            Ok(run) => {
                // What waits in the other groups is not to be lost with this one.
                let body = || scatter(queue, &batch, run, (tickets, started, padded));
                if catch_unwind(AssertUnwindSafe(body)).is_err() {
                    error!(model = queue.settings.label, "answering a batch panicked");
                }
                Ok(Answered { ran: true, rest })
            }
            Err(failure) if tickets.len() > 1 && may_be_one_call(&failure) => {
                Err(Failed { tickets, inputs, failure, rest })
            }
            Err(failure) => {
                let (alike, rest) = if is_of_the_model(queue, &failure) {
                    // The others would fail alike, one by one.
                    (rest, Groups::new())
                } else {
                    (Groups::new(), rest)
                };
                let alike = alike.into_iter().flatten().map(|job| job.ticket);
                Waiters::Calls(tickets.into_iter().chain(alike).collect()).fail(&failure);
                Ok(Answered { ran: false, rest })
            }
        },
    ))
}

/// Whether the model has failed on its own inputs, too.
fn is_of_the_model(queue: &Shared, failure: &Failure) -> bool {
    let is_judged = queue.probe.get().is_some();
    is_judged && matches!(failure, Failure::Engine(error) if may_be_judged(error.fault()))
}

fn may_be_judged(fault: Fault) -> bool {
    matches!(fault, Fault::Run | Fault::Input)
}

/// The run, if its outputs can be cut into the rows of several callers.
fn with_all_rows(run: Run, batch: &Batch) -> Result<Run, Failure> {
    match run.outputs.iter().find(|tensor| tensor.rows() != batch.rows()) {
        None => Ok(run),
        Some(tensor) => Err(Failure::Outputs(format!(
            "an output has {} rows for a batch of {}; a model with max_batch_size gives one row \
             per item",
            tensor.rows(),
            batch.rows()
        ))),
    }
}

fn run_warmup(warmup: Warmup, slot: &Slot) -> Option<Used> {
    let Warmup { queue, batch, limit, reply } = warmup;
    slot.begin(Running {
        since: Instant::now(),
        limit,
        queue: queue.clone(),
        run: None,
        waiters: Waiters::Warmup(reply),
        rest: Groups::new(),
    });
    let result = guarded_run(&queue, &batch);
    match slot.end() {
        Some(Running { waiters: Waiters::Warmup(reply), .. }) => {
            // The load that asked may have been given up.
            drop(reply.send(result.map(drop)));
            Some(Used::default())
        }
        _ => None,
    }
}

/// The batch, and the length that calls were padded to, if they were.
fn batch_of(queue: &Shared, inputs: &[Vec<Tensor>], tickets: &[Ticket]) -> (Batch, Option<usize>) {
    let rows = tickets.iter().map(|ticket| ticket.rows).sum();
    if let [only] = inputs {
        return (Batch::single(only, rows), None);
    }
    let calls: Vec<_> = inputs.iter().map(Vec::as_slice).collect();
    match &queue.settings.variable {
        Some(variable) if tickets[0].length > 0 => {
            let lengths: Vec<_> = tickets.iter().map(|ticket| ticket.length).collect();
            let (batch, size) = variable.batch(&calls, &lengths);
            let sent: usize = tickets.iter().map(|ticket| ticket.rows * ticket.length).sum();
            queue.metrics.padded(sent as u64, (rows * size - sent) as u64);
            (batch, Some(size))
        }
        _ => (Batch::stack(&calls), None),
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
fn judged(queue: &Shared, failure: Failure) -> Failure {
    match failure {
        Failure::Engine(error) if may_be_judged(error.fault()) => {
            let is_well = queue
                .probe
                .get()
                .is_some_and(|probe| probe.is_well(|batch| guarded_run(queue, batch).is_ok()));
            if is_well { Failure::Input(error) } else { Failure::Engine(error) }
        }
        other => other,
    }
}

fn guarded_run(queue: &Shared, batch: &Batch) -> Result<Run, Failure> {
    match catch_unwind(AssertUnwindSafe(|| queue.model().run(batch))) {
        Ok(Ok(run)) => Ok(run),
        Ok(Err(error)) => {
            if error.fault() == Fault::Device {
                check_device(queue);
            }
            Err(Failure::Engine(error))
        }
        Err(_) => {
            error!(model = queue.settings.label, "the engine panicked");
            Err(Failure::Panicked)
        }
    }
}

/// After a failure of the device: takes it out of service if it does not recover by itself.
fn check_device(queue: &Shared) {
    if let Err(error) = queue.engine().check_device(&queue.pool.device().0) {
        queue.pool.fail(error.message());
    }
}

#[expect(clippy::cast_precision_loss, reason = "batches are far smaller than 2^52")]
fn scatter(
    queue: &Shared,
    batch: &Batch,
    run: Run,
    (tickets, started, padded): (Vec<Ticket>, Instant, Option<usize>),
) {
    queue.count_execution(batch.rows(), &run);
    queue.metrics.batch_rows.record(batch.rows() as f64);
    let Run { outputs, input, infer, output } = run;
    let timings = |ticket: &Ticket| {
        let queue = started.duration_since(ticket.enqueued);
        Timings { queue, input, infer, output }
    };
    let mut post = Post::default();
    if tickets.len() == 1 {
        for ticket in tickets {
            let timings = timings(&ticket);
            let outputs = outputs.clone();
            ticket.reply.send(Ok(Done { outputs, timings }), &mut post);
        }
        return;
    }
    let rows: Vec<usize> = tickets.iter().map(|ticket| ticket.rows).collect();
    let mut pieces: Vec<_> =
        outputs.iter().map(|tensor| tensor.split_rows(&rows).into_iter()).collect();
    for ticket in tickets {
        let mut outputs = pieces.iter_mut().filter_map(Iterator::next).collect();
        if let (Some(variable), Some(padded)) = (&queue.settings.variable, padded) {
            outputs = variable.cut(outputs, padded, ticket.length);
        }
        let timings = timings(&ticket);
        ticket.reply.send(Ok(Done { outputs, timings }), &mut post);
    }
}
