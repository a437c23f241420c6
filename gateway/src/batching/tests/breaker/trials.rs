//! Trials in parts, calls that come back, and looks at the model's own inputs.

use super::*;

const TWO_TRIALS: config::Breaker =
    config::Breaker { open_time: Duration::from_millis(1), probes: 2, ..FIRST_FAILURE };

/// Two threads, batches of two, and a breaker that waits for a trial.
fn half_open() -> Guarded {
    let settings = QueueSettings { max_rows: 100, ..QueueSettings::new("m/1", 2) };
    let guarded = guard(rig_with(2, settings), TWO_TRIALS, (DataType::Uint8, false), false);
    guarded.rig.stub.push(StubStep::Panic);
    assert!(guarded.call(&[1]).is_err());
    until(|| guarded.breaker.state() == State::HalfOpen);
    guarded
}

#[test]
fn a_trial_larger_than_a_batch_is_answered_whole_and_counts_once() {
    let guarded = half_open();
    let values = [1, 2, 3, 4, 5];
    assert_eq!(answer(guarded.rig.submit(&values)), values);
    assert_eq!(guarded.breaker.state(), State::HalfOpen, "one trial is not two");
    assert_eq!(answer(guarded.rig.submit(&values)), values);
    assert_eq!(guarded.breaker.state(), State::Closed);
}

#[test]
fn the_parts_of_a_trial_run_one_after_the_other() {
    let guarded = half_open();
    guarded.rig.stub.push(StubStep::Hang);
    let trial = guarded.rig.submit(&[1, 2, 3, 4, 5, 6]);
    guarded.rig.stub.wait_hanging(1);
    until(|| guarded.rig.pool.sleeping() == 1);
    assert_eq!(guarded.rig.stub.batches(), [1, 2], "the other thread took no part");
    guarded.rig.stub.release();
    assert_eq!(answer(trial), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_back_from_a_thread_that_hangs_is_refused_by_the_open_breaker() {
    let guarded = guarded(FIRST_FAILURE);
    let first = guarded.rig.block();
    let (hangs, waits) = (guarded.rig.submit(&[1]), guarded.rig.submit(&[2]));
    guarded.fail(Fault::Run);
    guarded.rig.stub.push(StubStep::Hang);
    guarded.rig.stub.release();
    assert!(first.await.unwrap().is_ok());
    guarded.rig.stub.wait_hanging(1);
    tokio::time::advance(LIMIT * 100).await;
    guarded.rig.pool.watch();
    assert_eq!(hangs.await.unwrap().unwrap_err(), Failure::TimedOut(LIMIT));
    let failure = waits.await.unwrap().unwrap_err();
    assert!(matches!(failure, Failure::CircuitOpen(_)), "{failure:?}");
    assert_eq!(guarded.rig.stub.batches(), [1, 2, 1]);
    guarded.rig.stub.release();
}

#[test]
fn a_look_at_the_models_own_inputs_is_a_run_of_its_own_that_says_nothing_about_time() {
    let slow = config::Breaker {
        slow_call: Some(Duration::from_millis(200)),
        min_samples: 1,
        slow_rate: 1.0,
        ..LONE
    };
    let guarded = guarded_as(slow, DataType::Fp32, false, true);
    let one = Tensor::new(DataType::Fp32, vec![1, 1], vec![0; 4].into()).unwrap();
    guarded.rig.queue.probe_with(Batch::single(&[one], 1));
    guarded.rig.stub.push(StubStep::Nan);
    guarded.rig.stub.push(StubStep::Hang);
    let call = guarded.floats(&[1.0]);
    guarded.rig.stub.wait_hanging(1);
    let since = Instant::now();
    until(|| since.elapsed() > Duration::from_millis(250));
    guarded.rig.stub.release();
    assert!(call.blocking_recv().unwrap().is_ok());
    assert_eq!((guarded.breaker.state(), guarded.counts()), (State::Closed, (0, 1)));
    until(|| guarded.rig.pool.sleeping() == 1);
    assert!(guarded.rig.queue.shared.load.row_time().is_zero(), "no batch took that long");
}

#[test]
fn a_look_at_the_models_own_inputs_has_the_whole_limit_of_a_run() {
    let guarded = guarded_as(LONE, DataType::Fp32, false, true);
    let one = Tensor::new(DataType::Fp32, vec![1, 1], vec![0; 4].into()).unwrap();
    guarded.rig.queue.probe_with(Batch::single(&[one], 1));
    guarded.rig.stub.push(StubStep::Hang);
    guarded.rig.stub.push(StubStep::Hang);
    let call = guarded.floats(&[f32::NAN]);
    guarded.rig.stub.wait_hanging(1);
    let since = Instant::now();
    until(|| since.elapsed() > LIMIT);
    guarded.rig.stub.release();
    until(|| guarded.rig.stub.batches() == [1, 1]);
    guarded.rig.pool.watch();
    assert_eq!(guarded.rig.stuck.count(), 0, "it has only begun");
    guarded.rig.stub.release();
    assert!(call.blocking_recv().unwrap().is_ok());
}

#[test]
fn a_trial_whose_caller_leaves_is_given_back_while_it_waits() {
    let guarded = half_open();
    let (stub, other) = threads::neighbour(&guarded.rig, QueueSettings::new("other/1", 1));
    let busy = [1, 2].map(|value| {
        stub.push(StubStep::Hang);
        other.submit(rows(&[value]), 1, Schedule::default()).unwrap()
    });
    stub.wait_hanging(2);
    let refused = || guarded.rig.queue.submit(rows(&[1]), 1, Schedule::default()).unwrap_err();
    for values in [&[1][..], &[1, 2, 3, 4, 5]] {
        let trial = guarded.rig.submit(values);
        assert_eq!(refused().kind(), Kind::CircuitOpen);
        drop(trial);
    }
    // No thread has looked at any of them.
    let trial = guarded.rig.submit(&[7]);
    stub.release();
    stub.release();
    busy.into_iter().for_each(|call| drop(answer(call)));
    assert_eq!(answer(trial), [7]);
}

#[test]
fn a_trial_that_runs_is_not_given_back_by_its_caller() {
    let guarded = half_open();
    guarded.rig.stub.push(StubStep::Hang);
    // The first part runs, the others wait.
    let trial = guarded.rig.submit(&[1, 2, 3, 4]);
    guarded.rig.stub.wait_hanging(1);
    drop(trial);
    let refused = guarded.rig.queue.submit(rows(&[1]), 1, Schedule::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::CircuitOpen);
    guarded.rig.stub.release();
    until(|| guarded.breaker.admit(Instant::now(), None).is_ok());
}
