//! The batcher against a scripted engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::{Batch, DataType, StubEngine, StubStep, Tensor};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::error::Kind;
use crate::telemetry::VersionMetrics;

const LIMIT: Duration = Duration::from_secs(1);

struct Rig {
    stub: StubEngine,
    pool: Pool,
    queue: Queue,
    stuck: StuckThreads,
}

fn rig(max_batch: usize, max_rows: usize) -> Rig {
    let stuck = StuckThreads::default();
    let pool = Pool::start(Device("cpu".into()), 1, stuck.clone()).unwrap();
    let stub = StubEngine::default();
    let settings = QueueSettings {
        label: "m/1".into(),
        max_batch,
        max_rows,
        max_bytes: 1 << 20,
        run_timeout: LIMIT,
    };
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

type Receiver = oneshot::Receiver<Result<Done, Failure>>;

impl Rig {
    fn submit(&self, values: &[u8]) -> Receiver {
        self.queue.submit(rows(values), values.len()).unwrap()
    }

    /// Keeps the engine busy, so that what is submitted next has to wait.
    fn block(&self) -> Receiver {
        self.stub.push(StubStep::Hang);
        let receiver = self.submit(&[0]);
        self.stub.wait_hanging(1);
        receiver
    }
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
        assert_eq!(answer(receiver), [value]);
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
    let wide = rig.queue.submit(wide, 1).unwrap();
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
    let refused = rig.queue.submit(rows(&[3]), 1).unwrap_err();
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
fn a_version_that_leaves_with_its_last_caller_does_not_stop_the_threads() {
    let rig = rig(8, 100);
    let first = rig.block();
    // Another version on the same thread: its caller gives up, then it is swapped out.
    let stub = rig.stub.clone();
    let metrics = Arc::new(VersionMetrics::new("other", "1"));
    let settings = rig.queue.shared.settings.clone();
    let other = Queue::new(settings, Box::new(stub.clone()), Arc::new(stub), metrics, &rig.pool);
    drop(other.submit(rows(&[1]), 1).unwrap());
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
    assert_eq!(rig.queue.submit(rows(&[3]), 1).unwrap_err().kind(), Kind::NotReady);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_caller_gets_exactly_its_own_rows(
        calls in prop::collection::vec((prop::collection::vec(0_u8..50, 1..4), any::<bool>()), 1..30),
        max_batch in 4_usize..12,
        poison in 40_u8..60,
    ) {
        let rig = rig(max_batch, 1000);
        let first = rig.block();
        rig.stub.poison(poison);
        let receivers: Vec<_> = calls
            .iter()
            .filter_map(|(values, leaves)| {
                let receiver = rig.submit(values);
                (!leaves).then_some((values, receiver))
            })
            .collect();
        rig.stub.release();
        answer(first);
        for (values, receiver) in receivers {
            let result = receiver.blocking_recv().unwrap();
            if values.contains(&poison) {
                prop_assert!(result.is_err());
            } else {
                let done = result.unwrap();
                prop_assert_eq!(done.outputs[0].data(), values);
            }
        }
        prop_assert!(rig.stub.batches().iter().all(|rows| *rows <= max_batch));
    }
}
