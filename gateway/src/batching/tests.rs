//! The batcher against a scripted engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::{Batch, DataType, StubEngine, StubStep, Tensor};

use super::*;
use crate::error::Kind;
use crate::telemetry::VersionMetrics;
use crate::types::Schedule;

mod breaker;
mod leaving;
mod overload;
mod schedules;
mod shadows;
mod threads;

const LIMIT: Duration = Duration::from_secs(1);

struct Rig {
    stub: StubEngine,
    pool: Pool,
    queue: Queue,
    stuck: StuckThreads,
}

fn rig(max_batch: usize, max_rows: usize) -> Rig {
    rig_with(1, QueueSettings { max_rows, ..QueueSettings::new("m/1", max_batch) })
}

fn rig_with(threads: usize, settings: QueueSettings) -> Rig {
    rig_of(Threads { live: threads, shadow: 0 }, settings)
}

fn rig_of(threads: Threads, settings: QueueSettings) -> Rig {
    let settings = QueueSettings { max_bytes: 1 << 20, run_timeout: LIMIT, ..settings };
    let stuck = StuckThreads::default();
    let pool = Pool::start(Device("cpu".into()), threads, stuck.clone()).unwrap();
    let stub = StubEngine::default();
    let metrics = Arc::new(VersionMetrics::new("m", "1"));
    let queue =
        Queue::new(settings, Box::new(stub.clone()), Arc::new(stub.clone()), metrics, &pool);
    Rig { stub, pool, queue, stuck }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.pool.close();
    }
}

fn rows(values: &[u8]) -> Vec<Tensor> {
    let data = Bytes::copy_from_slice(values);
    vec![Tensor::new(DataType::Uint8, vec![values.len(), 1], data).unwrap()]
}

type Receiver = Waiting;

impl Rig {
    fn submit(&self, values: &[u8]) -> Receiver {
        self.submit_as(values, Schedule::default())
    }

    fn submit_as(&self, values: &[u8], schedule: Schedule) -> Receiver {
        self.queue.submit(rows(values), values.len(), schedule).unwrap()
    }

    /// Keeps the engine busy, so that what is submitted next has to wait.
    fn block(&self) -> Receiver {
        self.stub.push(StubStep::Hang);
        let receiver = self.submit(&[0]);
        self.stub.wait_hanging(1);
        receiver
    }
}

/// Waits for what other threads are about to do, and leaves them the processor meanwhile: those
/// of shadows get it only when nobody else wants it.
fn until(is: impl Fn() -> bool) {
    // Some clocks of these tests stand still; this one does not.
    for _ in 0..60_000 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it did not happen");
}

fn answer(receiver: Receiver) -> Vec<u8> {
    receiver.blocking_recv().unwrap().unwrap().outputs[0].data().to_vec()
}

#[test]
fn calls_that_wait_together_run_together() {
    let rig = rig(8, 100);
    let first = rig.block();
    let waiting: Vec<_> = (1..=10).map(|value| rig.submit(&[value])).collect();
    rig.stub.release();
    answer(first);
    for (value, receiver) in (1..=10).zip(waiting) {
        let done = receiver.blocking_recv().unwrap().unwrap();
        assert_eq!(done.outputs[0].data()[..], [value]);
        assert_eq!(done.timings.batch, if value <= 8 { 8 } else { 2 });
    }
    assert_eq!(rig.stub.batches(), [1, 8, 2]);
}

#[test]
fn calls_of_other_shapes_wait_for_their_own_batch() {
    let rig = rig(8, 100);
    let first = rig.block();
    let narrow = rig.submit(&[1]);
    let data = Bytes::from_static(&[2, 3]);
    let wide = vec![Tensor::new(DataType::Uint8, vec![1, 2], data).unwrap()];
    let wide = rig.queue.submit(wide, 1, Schedule::default()).unwrap();
    rig.stub.release();
    assert_eq!((answer(first), answer(narrow), answer(wide)), (vec![0], vec![1], vec![2, 3]));
    assert_eq!(rig.stub.batches(), [1, 1, 1]);
}

#[test]
fn a_full_queue_refuses_and_says_so() {
    let rig = rig(8, 2);
    let first = rig.block();
    // One call may wait alone even beyond the bound.
    let second = rig.submit(&[1, 2, 4]);
    let refused = rig.queue.submit(rows(&[3]), 1, Schedule::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    assert!(refused.retry_after().is_some());
    rig.stub.release();
    answer(first);
    assert_eq!(answer(second), [1, 2, 4]);
}

#[test]
fn calls_whose_caller_left_cost_no_slot() {
    let rig = rig(8, 100);
    let first = rig.block();
    drop(rig.submit(&[1]));
    let stays = rig.submit(&[2]);
    drop(rig.submit(&[3]));
    rig.stub.release();
    answer(first);
    assert_eq!(answer(stays), [2]);
    assert_eq!(rig.stub.batches(), [1, 1]);
    assert_eq!(rig.queue.pending(), 0);
}

#[test]
fn one_bad_row_hurts_only_its_caller() {
    let rig = rig(8, 100);
    rig.stub.poison(66);
    let first = rig.block();
    let waiting: Vec<_> = [1, 2, 66, 3, 4].map(|value| (value, rig.submit(&[value]))).into();
    rig.stub.release();
    answer(first);
    for (value, receiver) in waiting {
        let result = receiver.blocking_recv().unwrap();
        match value {
            66 => assert!(matches!(result, Err(Failure::Engine(_)))),
            _ => assert_eq!(result.unwrap().outputs[0].data().to_vec(), [value]),
        }
    }
}

#[test]
fn a_call_that_fails_alone_is_blamed_while_the_model_runs_its_own_inputs() {
    let rig = rig(8, 100);
    rig.queue.probe_with(Batch::single(&rows(&[1]), 1));
    rig.stub.poison(66);
    let failed = rig.submit(&[66]).blocking_recv().unwrap();
    assert!(matches!(failed, Err(Failure::Input(_))), "{failed:?}");
    assert_eq!(rig.stub.batches().len(), 2, "the call and the probe");
    // Another one within the second does not double the work.
    let again = rig.submit(&[66]).blocking_recv().unwrap();
    assert!(matches!(again, Err(Failure::Input(_))));
    assert_eq!(rig.stub.batches().len(), 3);
}

#[test]
fn a_model_that_fails_on_its_own_inputs_takes_the_blame() {
    let rig = rig(8, 100);
    rig.queue.probe_with(Batch::single(&rows(&[66]), 1));
    rig.stub.poison(66);
    let failed = rig.submit(&[66]).blocking_recv().unwrap();
    assert!(matches!(failed, Err(Failure::Engine(_))), "{failed:?}");
}

#[test]
fn a_batch_that_comes_back_without_all_its_rows_is_run_in_halves() {
    let rig = rig(8, 100);
    let first = rig.block();
    rig.stub.push(StubStep::OneRow);
    let waiting: Vec<_> = (1..=4).map(|value| rig.submit(&[value])).collect();
    rig.stub.release();
    answer(first);
    for (value, receiver) in (1..=4).zip(waiting) {
        assert_eq!(answer(receiver), [value]);
    }
    assert_eq!(rig.stub.batches(), [1, 4, 2, 2]);
}

#[test]
fn memory_that_stays_short_is_not_asked_for_again_and_again() {
    let rig = rig(8, 100);
    let first = rig.block();
    let short = || engine::EngineError::new(engine::error::Fault::Memory, "no memory");
    rig.stub.push(StubStep::Fail(short()));
    rig.stub.push(StubStep::Fail(short()));
    let waiting: Vec<_> = (1..=8).map(|value| rig.submit(&[value])).collect();
    rig.stub.release();
    answer(first);
    let endings: Vec<_> =
        waiting.into_iter().map(|call| call.blocking_recv().unwrap().is_ok()).collect();
    assert_eq!(endings, [false, false, false, false, true, true, true, true]);
    assert_eq!(rig.stub.batches(), [1, 8, 4, 4]);
}

#[test]
fn a_model_that_fails_on_its_own_inputs_is_not_run_for_every_call() {
    let rig = rig(8, 100);
    rig.queue.probe_with(Batch::single(&rows(&[0]), 1));
    let first = rig.block();
    rig.stub.poison(0);
    let waiting: Vec<_> = (1..=8).map(|_| rig.submit(&[0])).collect();
    rig.stub.release();
    answer(first);
    for receiver in waiting {
        let failure = receiver.blocking_recv().unwrap().unwrap_err();
        assert!(matches!(failure, Failure::Engine(_)), "{failure:?}");
    }
    // Halved to the first call, then its own inputs, and no more.
    assert_eq!(rig.stub.batches(), [1, 8, 4, 2, 1, 1]);
}

#[test]
fn memory_that_runs_out_halves_the_batch_and_the_thread_goes_on() {
    let rig = rig(8, 100);
    let first = rig.block();
    let waiting: Vec<_> = (1..=4).map(|value| rig.submit(&[value])).collect();
    let failure = engine::EngineError::new(engine::error::Fault::Memory, "no memory");
    rig.stub.push(StubStep::Fail(failure));
    rig.stub.release();
    answer(first);
    for (value, receiver) in (1..=4).zip(waiting) {
        assert_eq!(answer(receiver), [value]);
    }
    assert_eq!(rig.stub.batches(), [1, 4, 2, 2]);
}

#[test]
fn a_device_that_does_not_recover_is_taken_out_of_service() {
    let rig = rig(8, 100);
    let failure = || engine::EngineError::new(engine::error::Fault::Device, "the device is lost");
    rig.stub.push(StubStep::Fail(failure()));
    assert!(rig.submit(&[1]).blocking_recv().unwrap().is_err());
    assert_eq!(rig.queue.device_failure(), None, "one failure may pass");
    rig.stub.lose_device(failure());
    rig.stub.push(StubStep::Fail(failure()));
    assert!(rig.submit(&[1]).blocking_recv().unwrap().is_err());
    assert_eq!(rig.queue.device_failure(), Some("the device is lost"));
    let refused = rig.queue.submit(rows(&[1]), 1, Schedule::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::NotReady);
}

#[test]
fn a_call_larger_than_a_batch_runs_in_parts_and_comes_back_whole() {
    let rig = rig(4, 100);
    let values: Vec<u8> = (0..11).collect();
    let done = rig.submit(&values).blocking_recv().unwrap().unwrap();
    assert_eq!(done.outputs[0].data()[..], values);
    assert_eq!(done.timings.batch, 4);
    assert_eq!(rig.stub.batches(), [4, 4, 3]);
}

#[test]
fn one_failed_part_fails_the_whole_call_once_and_the_rest_is_not_run() {
    let rig = rig(2, 100);
    let first = rig.block();
    rig.stub.poison(66);
    let large = rig.submit(&[66, 1, 2, 3, 4, 5]);
    rig.stub.release();
    answer(first);
    assert!(matches!(large.blocking_recv().unwrap(), Err(Failure::Engine(_))));
    assert_eq!(answer(rig.submit(&[9])), [9]);
    assert_eq!(rig.stub.batches(), [1, 2, 1]);
    assert_eq!(rig.queue.pending(), 0);
}

#[test]
fn a_large_call_that_is_left_alone_leaves_no_part_behind() {
    let rig = rig(2, 100);
    let first = rig.block();
    drop(rig.submit(&[1, 2, 3, 4, 5]));
    let stays = rig.submit(&[9]);
    rig.stub.release();
    answer(first);
    assert_eq!(answer(stays), [9]);
    assert_eq!(rig.stub.batches(), [1, 1]);
}

#[tokio::test]
async fn calls_of_an_attached_thread_are_handed_over_together() {
    let rig = rig(64, 100);
    attach();
    tokio::task::yield_now().await;
    let receivers: Vec<_> = (0..10).map(|value| rig.submit(&[value])).collect();
    for (value, receiver) in (0..10).zip(receivers) {
        assert_eq!(receiver.await.unwrap().unwrap().outputs[0].data().as_ref(), [value]);
    }
    assert_eq!(rig.stub.batches(), [10]);
}

#[test]
fn a_version_that_leaves_with_its_last_caller_does_not_stop_the_threads() {
    let rig = rig(8, 100);
    let first = rig.block();
    // Another version on the same thread: its caller gives up, then it is swapped out.
    let stub = rig.stub.clone();
    let metrics = Arc::new(VersionMetrics::new("other", "1"));
    let settings = rig.queue.shared.settings.clone();
    let other = Queue::new(settings, Box::new(stub.clone()), Arc::new(stub), metrics, &rig.pool);
    drop(other.submit(rows(&[1]), 1, Schedule::default()).unwrap());
    drop(other);
    rig.stub.release();
    answer(first);
    assert_eq!(answer(rig.submit(&[2])), [2]);
}

#[test]
fn a_closed_pool_finishes_what_waits_and_ends() {
    let rig = rig(1, 100);
    let first = rig.block();
    let second = rig.submit(&[2]);
    rig.pool.close();
    assert_eq!(
        rig.queue.submit(rows(&[3]), 1, Schedule::default()).unwrap_err().kind(),
        Kind::NotReady
    );
    assert!(!rig.pool.wait_ended(Duration::ZERO));
    rig.stub.release();
    assert_eq!((answer(first), answer(second)), (vec![0], vec![2]));
    assert!(rig.pool.wait_ended(Duration::from_secs(60)));
}

#[test]
fn a_panic_in_the_engine_fails_its_call_and_the_thread_goes_on() {
    let rig = rig(8, 100);
    rig.stub.push(StubStep::Panic);
    let failed = rig.submit(&[1]).blocking_recv().unwrap();
    assert_eq!(failed.unwrap_err(), Failure::Panicked);
    assert_eq!(answer(rig.submit(&[2])), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_thread_stuck_in_native_code_is_replaced_and_counted() {
    let rig = rig(8, 100);
    let stuck = rig.block();
    let behind = rig.submit(&[7]);
    // Far beyond the limit: the engine thread reads the real clock, which may run ahead.
    tokio::time::advance(LIMIT * 100).await;
    rig.pool.watch();
    assert_eq!(stuck.await.unwrap().unwrap_err(), Failure::TimedOut(LIMIT));
    assert_eq!(rig.stuck.count(), 1);
    let done = behind.await.unwrap().unwrap();
    assert_eq!(done.outputs[0].data().to_vec(), [7]);
    rig.stub.release();
}

#[test]
fn a_thread_that_dies_of_a_panic_outside_of_a_run_is_replaced_and_counted() {
    let rig = rig(8, 100);
    until(|| rig.pool.sleeping() > 0);
    rig.pool.break_next();
    // The thread panics as it comes back for more.
    assert_eq!(answer(rig.submit(&[1])), [1]);
    until(|| rig.pool.threads() == (0, 1));
    let waiting = rig.submit(&[2]);
    rig.pool.watch();
    assert_eq!(answer(waiting), [2]);
    assert_eq!((rig.pool.threads(), rig.stuck.panics(), rig.stuck.count()), ((1, 1), 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_other_half_of_a_split_batch_outlives_a_thread_that_hangs() {
    let rig = rig(8, 100);
    let first = rig.block();
    let (hangs, waits) = (rig.submit(&[1]), rig.submit(&[2]));
    let failure = engine::EngineError::new(engine::error::Fault::Run, "one of two");
    rig.stub.push(StubStep::Fail(failure));
    rig.stub.push(StubStep::Hang);
    rig.stub.release();
    assert!(first.await.unwrap().is_ok());
    rig.stub.wait_hanging(1);
    tokio::time::advance(LIMIT * 100).await;
    rig.pool.watch();
    assert_eq!(hangs.await.unwrap().unwrap_err(), Failure::TimedOut(LIMIT));
    assert_eq!(waits.await.unwrap().unwrap().outputs[0].data().to_vec(), [2]);
    rig.stub.release();
}

#[tokio::test]
async fn warm_up_runs_on_every_thread_and_reports_failures() {
    let rig = rig(8, 100);
    rig.queue.warm(&Batch::single(&rows(&[1]), 1), LIMIT).await.unwrap();
    assert_eq!(rig.stub.batches(), [1]);
    rig.stub.push(StubStep::Panic);
    let failed = rig.queue.warm(&Batch::single(&rows(&[1]), 1), LIMIT).await;
    assert_eq!(failed, Err(Failure::Panicked));
}
