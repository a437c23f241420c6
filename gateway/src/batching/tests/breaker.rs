//! What the breaker of a version hears of its batches, and what it keeps from the engine.

use engine::EngineError;
use engine::error::Fault;
use tokio::time::Instant;

use super::*;
use crate::breaker::{Breaker, Reason, State};
use crate::config;
use crate::telemetry::BreakerMetrics;
use crate::types::{OutputSpec, Signature};

mod shadows;
mod trials;

/// A rig whose calls pass a breaker.
struct Guarded {
    rig: Rig,
    breaker: Arc<Breaker>,
}

fn guarded(settings: config::Breaker) -> Guarded {
    guarded_as(settings, DataType::Uint8, false, false)
}

fn guarded_as(
    settings: config::Breaker,
    datatype: DataType,
    finite: bool,
    watch_nan: bool,
) -> Guarded {
    guard(rig(8, 100), settings, (datatype, finite), watch_nan)
}

fn guard(
    rig: Rig,
    settings: config::Breaker,
    (datatype, finite): (DataType, bool),
    watch_nan: bool,
) -> Guarded {
    let breaker = Breaker::seeded("m/1", settings, BreakerMetrics::new("m", "1"), 7);
    let spec = engine::TensorSpec { name: "y".into(), datatype, shape: vec![-1, 1] };
    let input = engine::TensorSpec { name: "x".into(), ..spec.clone() };
    let output = OutputSpec { spec, labels: vec![], tolerance: 0.0, finite };
    let signature =
        Signature { inputs: vec![input], outputs: vec![output], max_batch_size: 8, splits: true };
    rig.queue.guard_with(Guard {
        breaker: breaker.clone(),
        signature: Arc::new(signature),
        watch_nan: vec![watch_nan],
    });
    Guarded { rig, breaker }
}

const LONE: config::Breaker = config::Breaker {
    enabled: true,
    window: Duration::from_secs(10),
    min_samples: 1000,
    failure_rate: 0.5,
    consecutive: 1000,
    slow_call: None,
    slow_rate: 0.8,
    nan_answers: Some(4),
    open_time: Duration::from_secs(1000),
    max_open_time: Duration::from_secs(10_000),
    probe_timeout: Duration::from_secs(5),
    probes: 1,
    reset_after: Duration::from_secs(60),
};

const FIRST_FAILURE: config::Breaker = config::Breaker { consecutive: 1, ..LONE };

impl Guarded {
    /// Failed and all batches so far.
    fn counts(&self) -> (u32, u32) {
        let counts = self.breaker.status().counts;
        (counts.failed, counts.samples)
    }

    fn fail(&self, fault: Fault) {
        self.rig.stub.push(StubStep::Fail(EngineError::new(fault, "scripted")));
    }

    fn call(&self, values: &[u8]) -> Result<Done, Failure> {
        self.rig.submit(values).blocking_recv().unwrap()
    }

    fn floats(&self, values: &[f32]) -> Receiver {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new(DataType::Fp32, vec![values.len(), 1], data.into()).unwrap();
        self.rig.queue.submit(vec![tensor], values.len(), Schedule::default()).unwrap()
    }
}

#[test]
fn a_failed_batch_is_one_failure_however_many_callers_and_reruns_it_had() {
    let guarded = guarded(LONE);
    let first = guarded.rig.block();
    let waiting: Vec<_> = (1..=8).map(|value| guarded.rig.submit(&[value])).collect();
    for _ in 0..15 {
        guarded.rig.stub.push(StubStep::Panic);
    }
    guarded.rig.stub.release();
    answer(first);
    for call in waiting {
        assert_eq!(call.blocking_recv().unwrap().unwrap_err(), Failure::Panicked);
    }
    assert_eq!(guarded.rig.stub.batches().len(), 16);
    assert_eq!(guarded.counts(), (1, 2));
    assert_eq!(guarded.breaker.status().consecutive, 1);
}

#[test]
fn a_batch_with_few_bad_calls_is_a_success() {
    let guarded = guarded(LONE);
    let first = guarded.rig.block();
    guarded.rig.stub.poison(66);
    let waiting: Vec<_> =
        [66, 1, 2, 3].into_iter().map(|value| guarded.rig.submit(&[value])).collect();
    guarded.rig.stub.release();
    answer(first);
    let ended = waiting.into_iter().map(|call| call.blocking_recv().unwrap().is_ok());
    assert_eq!(ended.collect::<Vec<_>>(), [false, true, true, true]);
    assert_eq!(guarded.counts(), (0, 2));
}

#[test]
fn faults_of_callers_and_of_memory_count_for_nothing() {
    let guarded = guarded(FIRST_FAILURE);
    guarded.rig.queue.probe_with(Batch::single(&rows(&[1]), 1));
    guarded.rig.stub.poison(66);
    for _ in 0..10 {
        assert!(matches!(guarded.call(&[66]), Err(Failure::Input(_))));
    }
    guarded.fail(Fault::Memory);
    assert!(matches!(guarded.call(&[1]), Err(Failure::Engine(_))));
    assert_eq!(guarded.counts(), (0, 0));
    assert_eq!(guarded.breaker.state(), State::Closed);
}

#[test]
fn a_model_that_fails_on_its_own_inputs_counts() {
    let guarded = guarded(FIRST_FAILURE);
    guarded.rig.stub.poison(66);
    assert!(matches!(guarded.call(&[66]), Err(Failure::Engine(_))));
    let refused = guarded.rig.queue.submit(rows(&[1]), 1, Schedule::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::CircuitOpen);
    assert_eq!(guarded.rig.stub.batches(), [1], "nothing more reached the engine");
}

#[test]
fn outputs_that_break_the_signature_count() {
    let guarded = guarded(FIRST_FAILURE);
    guarded.rig.stub.push(StubStep::OneRow);
    let failed = guarded.call(&[1, 2]).unwrap_err();
    assert!(matches!(&failed, Failure::Outputs(text) if text.contains("'y'")), "{failed:?}");
    assert_eq!(guarded.breaker.status().reason, Some(Reason::Consecutive));
}

#[test]
fn a_fault_of_the_device_opens_the_breaker_at_once() {
    let guarded = guarded(LONE);
    guarded.fail(Fault::Device);
    assert!(guarded.call(&[1]).is_err());
    assert_eq!(guarded.breaker.status().reason, Some(Reason::DeviceFault));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_hangs_counts_though_its_caller_has_gone_and_what_waits_behind_it_is_refused() {
    let guarded = guarded(FIRST_FAILURE);
    drop(guarded.rig.block());
    let waiting: Vec<_> = (1..=3).map(|value| guarded.rig.submit(&[value])).collect();
    tokio::time::advance(LIMIT * 100).await;
    guarded.rig.pool.watch();
    assert_eq!(guarded.breaker.status().reason, Some(Reason::Consecutive));
    for call in waiting {
        let failure = call.await.unwrap().unwrap_err();
        assert!(matches!(failure, Failure::CircuitOpen(after) if !after.is_zero()), "{failure:?}");
    }
    assert_eq!(guarded.rig.stub.batches(), [1], "the model was not run again");
    guarded.rig.stub.release();
}

#[test]
fn one_trial_at_a_time_reaches_the_engine_and_is_waited_for_though_its_caller_leaves() {
    let soon = config::Breaker {
        open_time: Duration::from_millis(1),
        probe_timeout: Duration::from_nanos(1),
        ..FIRST_FAILURE
    };
    let guarded = guarded(soon);
    guarded.rig.stub.push(StubStep::Panic);
    assert!(guarded.call(&[1]).is_err());
    until(|| guarded.breaker.state() == State::HalfOpen);
    guarded.rig.stub.push(StubStep::Hang);
    let trial = guarded.rig.submit(&[2]);
    guarded.rig.stub.wait_hanging(1);
    let refused = || guarded.rig.queue.submit(rows(&[3]), 1, Schedule::default()).unwrap_err();
    assert_eq!(refused().kind(), Kind::CircuitOpen);
    drop(trial);
    assert_eq!(refused().kind(), Kind::CircuitOpen);
    guarded.rig.stub.release();
    until(|| guarded.breaker.state() == State::Closed);
    assert!(guarded.call(&[4]).is_ok());
}

#[test]
fn a_trial_whose_caller_leaves_the_queue_or_that_finds_no_room_is_given_back() {
    let soon = config::Breaker { open_time: Duration::from_millis(1), ..FIRST_FAILURE };
    let guarded = guarded(soon);
    let other = Guarded { rig: self::rig(8, 1), breaker: guarded.breaker.clone() };
    other.rig.queue.guard_with(Guard {
        breaker: guarded.breaker.clone(),
        signature: guarded.rig.queue.shared.guard.get().unwrap().signature.clone(),
        watch_nan: vec![],
    });
    let (first, _second) = (other.rig.block(), other.rig.submit(&[1]));
    guarded.rig.stub.push(StubStep::Panic);
    assert!(guarded.call(&[1]).is_err());
    until(|| guarded.breaker.state() == State::HalfOpen);
    let refused = other.rig.queue.submit(rows(&[1]), 1, Schedule::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    // Behind a busy thread, so that it leaves before it runs.
    let neighbour = Queue::new(
        guarded.rig.queue.shared.settings.clone(),
        Box::new(guarded.rig.stub.clone()),
        Arc::new(guarded.rig.stub.clone()),
        Arc::new(VersionMetrics::new("other", "1")),
        &guarded.rig.pool,
    );
    guarded.rig.stub.push(StubStep::Hang);
    let busy = neighbour.submit(rows(&[0]), 1, Schedule::default()).unwrap();
    guarded.rig.stub.wait_hanging(1);
    drop(guarded.rig.submit(&[2]));
    guarded.rig.stub.release();
    answer(busy);
    // It is given back by the thread that finds it abandoned.
    let again = || guarded.rig.queue.submit(rows(&[4]), 1, Schedule::default());
    until(|| again().is_ok_and(|receiver| receiver.blocking_recv().unwrap().is_ok()));
    assert_eq!(guarded.breaker.state(), State::Closed);
    other.rig.stub.release();
    answer(first);
}

#[test]
fn answers_with_nan_to_finite_inputs_open_the_breaker_and_are_answered_until_then() {
    let guarded = guarded_as(LONE, DataType::Fp32, false, true);
    for _ in 0..10 {
        // Who sends NaN gets it back.
        assert!(guarded.floats(&[f32::NAN]).blocking_recv().unwrap().is_ok());
    }
    assert_eq!(guarded.breaker.status().nan_answers, 0);
    for turn in 0..4 {
        assert_eq!(guarded.breaker.state(), State::Closed, "{turn}");
        guarded.rig.stub.push(StubStep::Nan);
        assert!(guarded.floats(&[1.0]).blocking_recv().unwrap().is_ok());
    }
    assert_eq!(guarded.breaker.status().reason, Some(Reason::NanStorm));
}

#[test]
fn nan_of_a_model_that_answers_its_own_inputs_without_is_of_the_callers_inputs() {
    for finite in [false, true] {
        let guarded = guarded_as(FIRST_FAILURE, DataType::Fp32, finite, true);
        let one = Tensor::new(DataType::Fp32, vec![1, 1], vec![0; 4].into()).unwrap();
        guarded.rig.queue.probe_with(Batch::single(&[one], 1));
        for _ in 0..10 {
            guarded.rig.stub.push(StubStep::Nan);
            let ended = guarded.floats(&[1.0]).blocking_recv().unwrap();
            assert_eq!(ended.is_err(), finite);
        }
        assert_eq!(guarded.breaker.state(), State::Closed);
        assert_eq!(guarded.breaker.status().nan_answers, 0);
    }
}

#[test]
fn nan_for_the_models_own_inputs_too_is_of_the_model() {
    let guarded = guarded_as(FIRST_FAILURE, DataType::Fp32, true, true);
    let one = Tensor::new(DataType::Fp32, vec![1, 1], vec![0; 4].into()).unwrap();
    guarded.rig.queue.probe_with(Batch::single(&[one], 1));
    guarded.rig.stub.push(StubStep::Nan);
    guarded.rig.stub.push(StubStep::Nan);
    assert!(guarded.floats(&[1.0]).blocking_recv().unwrap().is_err());
    assert_eq!(guarded.breaker.state(), State::Open);
}

#[test]
fn nan_that_the_model_gave_when_it_was_loaded_is_no_news() {
    let guarded = guarded_as(LONE, DataType::Fp32, false, false);
    for _ in 0..50 {
        guarded.rig.stub.push(StubStep::Nan);
        assert!(guarded.floats(&[1.0]).blocking_recv().unwrap().is_ok());
    }
    assert_eq!((guarded.breaker.state(), guarded.counts()), (State::Closed, (0, 50)));
}

#[test]
fn an_output_that_promises_numbers_fails_only_the_calls_whose_rows_hold_none() {
    let guarded = guarded_as(LONE, DataType::Fp32, true, false);
    guarded.rig.stub.push(StubStep::Hang);
    let first = guarded.floats(&[0.0]);
    guarded.rig.stub.wait_hanging(1);
    let (good, odd) = (guarded.floats(&[1.0]), guarded.floats(&[2.0, f32::INFINITY]));
    guarded.rig.stub.release();
    assert!(first.blocking_recv().unwrap().is_ok());
    assert!(good.blocking_recv().unwrap().is_ok());
    let failure = odd.blocking_recv().unwrap().unwrap_err();
    assert!(matches!(failure, Failure::Input(_)), "who sends it is to blame: {failure:?}");
    assert_eq!(guarded.counts(), (0, 2));
    guarded.rig.stub.push(StubStep::Nan);
    let failure = guarded.floats(&[1.0]).blocking_recv().unwrap().unwrap_err();
    assert!(matches!(&failure, Failure::Outputs(text) if text.contains("'y'")), "{failure:?}");
    assert_eq!(guarded.counts(), (1, 3));
}

#[test]
fn slow_is_what_takes_long_on_the_engine_and_not_in_the_queue() {
    let slow = config::Breaker {
        slow_call: Some(Duration::from_millis(200)),
        min_samples: 1,
        slow_rate: 1.0,
        ..LONE
    };
    let guarded = guarded(slow);
    let first = guarded.rig.block();
    let waits = guarded.rig.submit(&[1]);
    let since = Instant::now();
    until(|| since.elapsed() > Duration::from_millis(250));
    guarded.rig.stub.release();
    answer(first);
    assert_eq!(guarded.breaker.status().reason, Some(Reason::SlowRate));
    assert!(matches!(waits.blocking_recv().unwrap(), Err(Failure::CircuitOpen(_))));
}

#[test]
fn a_panic_while_a_thread_is_prepared_fails_its_calls_and_counts() {
    let guarded = guarded(FIRST_FAILURE);
    guarded.rig.stub.panic_preparing(1);
    assert_eq!(guarded.call(&[1]).unwrap_err(), Failure::Panicked);
    assert_eq!(guarded.rig.stuck.panics(), 1);
    assert_eq!(guarded.breaker.state(), State::Open);
    guarded.breaker.reset();
    assert!(guarded.call(&[2]).is_ok());
}
