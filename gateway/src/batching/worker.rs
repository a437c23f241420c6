//! What an engine thread does: take work, run it, hand out the rows; halve a batch that failed
//! until the call that breaks it stands alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use engine::error::Fault;
use engine::{Batch, Run, Tensor};
use tokio::time::Instant;
use tracing::error;

use super::job::{Done, Failure, Job};
use super::pool::{Pool, Warmup, Work};
use super::queue::Shared;
use super::running::{Rest, Running, Slot, Waiter, Waiters};
use crate::types::Timings;

/// The body of an engine thread.
pub(super) fn run(pool: &Pool, id: usize, slot: &Slot) {
    // Thread settings belong to an engine, and models of several engines share a device.
    let mut prepared: Vec<&'static str> = Vec::new();
    while let Some(work) = pool.next_work(id) {
        let queue = match &work {
            Work::Batch(queue, _) => queue,
            Work::Warmup(warmup) => &warmup.queue,
        };
        if !prepared.contains(&queue.platform()) {
            queue.prepare_thread();
            prepared.push(queue.platform());
        }
        let label = queue.settings.label.clone();
        let run = AssertUnwindSafe(|| match work {
            Work::Batch(queue, jobs) => run_batch(&queue, jobs, slot),
            Work::Warmup(warmup) => run_warmup(warmup, slot),
        });
        match catch_unwind(run) {
            Ok(true) => {}
            Ok(false) => {
                pool.recovered();
                return;
            }
            Err(_) => {
                error!(model = label, "batching panicked");
                if let Some(running) = slot.end() {
                    running.waiters.fail(&Failure::Panicked);
                    pool.requeue(running.rest);
                }
            }
        }
    }
}

/// Runs the calls as one batch. `false`: the watchdog gave this thread up meanwhile.
fn run_batch(queue: &Arc<Shared>, jobs: Vec<Job>, slot: &Slot) -> bool {
    let mut groups = vec![jobs];
    while let Some(mut jobs) = groups.pop() {
        let inputs: Vec<Vec<Tensor>> =
            jobs.iter_mut().map(|job| std::mem::take(&mut job.inputs)).collect();
        let batch = batch_of(&inputs, jobs.iter().map(|job| job.rows).sum());
        let started = Instant::now();
        slot.begin(Running {
            since: started,
            limit: queue.settings.run_timeout,
            label: queue.settings.label.clone(),
            waiters: Waiters::Calls(jobs.into_iter().map(|job| waiter(job, started)).collect()),
            // Where the watchdog finds them, should this run never end.
            rest: Rest { queue: Some(queue.clone()), groups: std::mem::take(&mut groups) },
        });
        let result = guarded_run(queue, &batch);
        let Some(Running { waiters: Waiters::Calls(waiters), rest, .. }) = slot.end() else {
            return false;
        };
        groups = rest.groups;
        match result {
            Ok(run) => scatter(queue, &batch, run, waiters),
            Err(failure) if waiters.len() > 1 && may_be_one_call(&failure) => {
                queue.metrics.reruns.increment(1);
                let mut rest = rebuild(waiters, inputs, started);
                let second = rest.split_off(rest.len() / 2);
                groups.push(second);
                groups.push(rest);
            }
            Err(failure) => Waiters::Calls(waiters).fail(&failure),
        }
    }
    true
}

fn run_warmup(warmup: Warmup, slot: &Slot) -> bool {
    slot.begin(Running {
        since: Instant::now(),
        limit: warmup.limit,
        label: warmup.queue.settings.label.clone(),
        waiters: Waiters::Warmup(warmup.reply),
        rest: Rest::default(),
    });
    let result = guarded_run(&warmup.queue, &warmup.batch);
    match slot.end() {
        Some(Running { waiters: Waiters::Warmup(reply), .. }) => {
            // The load that asked may have been given up.
            drop(reply.send(result.map(drop)));
            true
        }
        _ => false,
    }
}

fn batch_of(inputs: &[Vec<Tensor>], rows: usize) -> Batch {
    match inputs {
        [only] => Batch::single(only, rows),
        several => Batch::stack(&several.iter().map(Vec::as_slice).collect::<Vec<_>>()),
    }
}

fn waiter(job: Job, started: Instant) -> Waiter {
    let queued = started.duration_since(job.enqueued);
    Waiter { rows: job.rows, queued, reply: job.reply }
}

/// Makes calls out of waiters again, for another run.
fn rebuild(waiters: Vec<Waiter>, inputs: Vec<Vec<Tensor>>, started: Instant) -> Vec<Job> {
    waiters
        .into_iter()
        .zip(inputs)
        .map(|(waiter, inputs)| Job {
            inputs,
            rows: waiter.rows,
            bytes: 0,
            enqueued: started.checked_sub(waiter.queued).unwrap_or(started),
            reply: waiter.reply,
        })
        .collect()
}

/// A broken device or broken outputs are nobody's row; everything else may be.
fn may_be_one_call(failure: &Failure) -> bool {
    match failure {
        Failure::Engine(error) => {
            matches!(error.fault(), Fault::Run | Fault::Memory | Fault::Input)
        }
        Failure::Panicked => true,
        Failure::TimedOut(_) | Failure::Outputs(_) => false,
    }
}

fn guarded_run(queue: &Shared, batch: &Batch) -> Result<Run, Failure> {
    match catch_unwind(AssertUnwindSafe(|| queue.model().run(batch))) {
        Ok(Ok(run)) => Ok(run),
        Ok(Err(error)) => Err(Failure::Engine(error)),
        Err(_) => {
            error!(model = queue.settings.label, "the engine panicked");
            Err(Failure::Panicked)
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "batches are far smaller than 2^52")]
fn scatter(queue: &Shared, batch: &Batch, run: Run, waiters: Vec<Waiter>) {
    queue.count_execution(batch.rows(), &run);
    queue.metrics.batch_rows.record(batch.rows() as f64);
    let timings = |waiter: &Waiter| Timings {
        queue: waiter.queued,
        input: run.input,
        infer: run.infer,
        output: run.output,
    };
    if let [_] = waiters.as_slice() {
        for waiter in waiters {
            let timings = timings(&waiter);
            let outputs = run.outputs.clone();
            drop(waiter.reply.send(Ok(Done { outputs, timings })));
        }
        return;
    }
    if let Some(tensor) = run.outputs.iter().find(|tensor| tensor.rows() != batch.rows()) {
        let text = format!(
            "an output has {} rows for a batch of {}; a model with max_batch_size gives one row \
             per item",
            tensor.rows(),
            batch.rows()
        );
        Waiters::Calls(waiters).fail(&Failure::Outputs(text));
        return;
    }
    let rows: Vec<usize> = waiters.iter().map(|waiter| waiter.rows).collect();
    let mut pieces: Vec<_> =
        run.outputs.iter().map(|tensor| tensor.split_rows(&rows).into_iter()).collect();
    for waiter in waiters {
        let outputs = pieces.iter_mut().filter_map(Iterator::next).collect();
        let timings = timings(&waiter);
        drop(waiter.reply.send(Ok(Done { outputs, timings })));
    }
}
