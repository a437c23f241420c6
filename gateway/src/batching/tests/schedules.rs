//! Who runs next, and what holds whatever is asked: priorities, deadlines, delays and laws.

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::types::{Deadline, Priority};

fn priority(level: u64) -> Schedule {
    Schedule { priority: Priority::of(level), ..Schedule::default() }
}

fn due_in(time: Duration) -> Schedule {
    Schedule { deadline: Deadline::after(Instant::now(), time), ..Schedule::default() }
}

const FAR: Duration = Duration::from_secs(3600);

/// The order in which calls of one item each ran that waited together.
fn order(rig: &Rig, schedules: &[Schedule]) -> Vec<u8> {
    let first = rig.block();
    let receivers: Vec<_> = (1_u8..)
        .zip(schedules)
        .map(|(value, schedule)| rig.submit_as(&[value], *schedule))
        .collect();
    rig.stub.release();
    answer(first);
    receivers.into_iter().for_each(|receiver| drop(answer(receiver)));
    rig.stub.seen().into_iter().skip(1).map(|batch| batch[0]).collect()
}

#[test]
fn priority_comes_before_deadline_and_deadline_before_arrival() {
    let rig = rig(1, 100);
    let near = due_in(FAR / 2);
    let schedules = [Schedule::default(), due_in(FAR), near, priority(9), priority(1)];
    assert_eq!(order(&rig, &schedules), [5, 3, 2, 1, 4]);
}

#[test]
fn shadows_wait_for_all_live_calls() {
    let rig = rig(1, 100);
    let shadow = Schedule { shadow: true, ..priority(1) };
    assert_eq!(order(&rig, &[shadow, priority(9), shadow, Schedule::default()]), [4, 2, 1, 3]);
}

#[test]
fn an_expired_call_costs_no_slot_and_is_told() {
    let rig = rig(8, 100);
    let first = rig.block();
    let late = rig.submit_as(&[1], due_in(Duration::ZERO));
    let stays = rig.submit_as(&[2], due_in(FAR));
    rig.stub.release();
    answer(first);
    assert_eq!(answer(stays), [2]);
    assert_eq!(late.blocking_recv().unwrap().unwrap_err(), Failure::Expired);
    assert_eq!(rig.stub.batches(), [1, 1]);
}

#[test]
fn a_delay_ends_as_soon_as_the_batch_is_full() {
    let settings = QueueSettings { max_delay: FAR, ..QueueSettings::new("m/1", 3) };
    let rig = rig_with(1, settings);
    let receivers = [1, 2, 3].map(|value| rig.submit(&[value]));
    for (value, receiver) in [1, 2, 3].into_iter().zip(receivers) {
        assert_eq!(answer(receiver), [value]);
    }
    assert_eq!(rig.stub.batches(), [3]);
}

#[tokio::test]
async fn a_delay_ends_on_an_idle_thread_while_another_is_busy() {
    let settings =
        QueueSettings { max_delay: Duration::from_millis(1), ..QueueSettings::new("m/1", 2) };
    let rig = rig_with(2, settings);
    until(|| rig.pool.sleeping() == 2);
    // All three arrive at once: two fill a batch, which hangs, whichever batch runs first.
    rig.stub.hang_on(1);
    attach();
    let [first, second, third] = [1, 2, 3].map(|value| rig.submit(&[value]));
    assert_eq!(third.await.unwrap().unwrap().outputs[0].data()[..], [3]);
    rig.stub.release();
    for receiver in [first, second] {
        assert!(receiver.await.unwrap().is_ok());
    }
    let mut batches = rig.stub.batches();
    batches.sort_unstable();
    assert_eq!(batches, [1, 2]);
}

#[test]
fn a_closing_pool_does_not_wait_for_delays() {
    let settings = QueueSettings { max_delay: FAR, ..QueueSettings::new("m/1", 8) };
    let rig = rig_with(1, settings);
    let patient = rig.submit(&[1]);
    rig.pool.close();
    assert_eq!(answer(patient), [1]);
}

#[test]
fn instances_bound_what_one_version_holds() {
    let settings = QueueSettings { instances: 1, ..QueueSettings::new("m/1", 1) };
    let rig = rig_with(2, settings);
    let first = rig.block();
    let second = rig.submit(&[1]);
    // Another version passes on the free thread while the second call has to wait.
    let stub = StubEngine::default();
    let metrics = Arc::new(VersionMetrics::new("other", "1"));
    let settings = QueueSettings::new("other/1", 1);
    let other = Queue::new(settings, Box::new(stub.clone()), Arc::new(stub), metrics, &rig.pool);
    assert_eq!(answer(other.submit(rows(&[7]), 1, Schedule::default()).unwrap()), [7]);
    assert_eq!(rig.stub.batches(), [1]);
    rig.stub.release();
    assert_eq!((answer(first), answer(second)), (vec![0], vec![1]));
}

#[test]
fn a_call_that_would_come_late_is_refused_once_the_cost_is_known() {
    let settings = QueueSettings { refuse_late: true, ..QueueSettings::new("m/1", 1) };
    let rig = rig_with(1, settings);
    let soon = Duration::from_secs(1);
    assert!(rig.queue.submit(rows(&[1]), 1, due_in(FAR)).is_ok(), "nothing is known yet");
    let first = rig.block();
    rig.queue.shared.load.set_times(FAR, FAR);
    let refused = rig.queue.submit(rows(&[1]), 1, due_in(soon)).unwrap_err();
    assert_eq!(refused.kind(), Kind::DeadlineExceeded);
    let fits = rig.queue.submit(rows(&[1]), 1, due_in(FAR * 2)).unwrap();
    let behind = rig.queue.submit(rows(&[1]), 1, due_in(FAR * 3 / 2)).unwrap_err();
    assert!(behind.public_message().contains("of work stand before"), "{behind}");
    drop(fits);
    assert!(rig.queue.submit(rows(&[1]), 1, due_in(FAR * 3 / 2)).is_ok(), "its time is free again");
    rig.stub.release();
    answer(first);
}

#[test]
fn the_last_call_runs_however_long_runs_took_before() {
    for max_batch in [0, 1, 8] {
        let rig = rig(max_batch, 100);
        rig.queue.shared.load.set_times(FAR, FAR);
        assert_eq!(answer(rig.submit_as(&[1], due_in(FAR / 2))), [1], "{max_batch}");
    }
}

#[test]
fn runs_that_fail_teach_nothing_about_cost() {
    let rig = rig_with(1, QueueSettings::new("m/1", 1));
    rig.stub.poison(9);
    for _ in 0..5 {
        assert!(rig.submit(&[9]).blocking_recv().unwrap().is_err());
    }
    // A thread notes what it ran before it takes this.
    let blocked = rig.block();
    assert_eq!(rig.queue.shared.load.row_time(), Duration::ZERO);
    rig.stub.release();
    answer(blocked);
    for _ in 0..5 {
        answer(rig.submit(&[1]));
    }
    let blocked = rig.block();
    assert!(rig.queue.shared.load.row_time() > Duration::ZERO);
    rig.stub.release();
    answer(blocked);
}

#[test]
fn calls_of_different_lengths_share_a_padded_batch() {
    let variable = VariableLength {
        axis: 1,
        buckets: vec![4, 8],
        fills: vec![Some(vec![0])],
        outputs: vec![true],
        max_waste: 4.0,
        max_cells: 1000,
    };
    let settings = QueueSettings { variable: Some(variable), ..QueueSettings::new("m/1", 8) };
    let rig = rig_with(1, settings);
    let first = rig.block();
    let call = |length: usize| {
        let data = vec![u8::try_from(length).unwrap(); length];
        let input = Tensor::new(DataType::Uint8, vec![1, length], data.into()).unwrap();
        rig.queue.submit(vec![input], 1, Schedule::default()).unwrap()
    };
    let receivers = [7, 2, 3, 12].map(|length| (length, call(length)));
    rig.stub.release();
    answer(first);
    for (length, receiver) in receivers {
        let outputs = receiver.blocking_recv().unwrap().unwrap().outputs;
        assert_eq!(outputs[0].shape(), [1, length]);
        assert!(outputs[0].data().iter().all(|&byte| usize::from(byte) == length));
    }
    // The longest is beyond the last bucket and runs alone.
    let mut batches = rig.stub.batches();
    batches.sort_unstable();
    assert_eq!(batches, [1, 1, 3]);
}

/// One call of a random mix.
#[derive(Debug, Clone)]
struct Asked {
    values: Vec<u8>,
    level: u64,
    leaves: bool,
    /// Whether it has a deadline, and whether that is still far.
    due: Option<bool>,
    shadow: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let due = prop::option::weighted(0.4, any::<bool>());
    let values = prop::collection::vec(0_u8..50, 1..20);
    let often = || prop::bool::weighted(0.2);
    (values, 0_u64..12, often(), due, often()).prop_map(|(values, level, leaves, due, shadow)| {
        Asked { values, level, leaves, due, shadow }
    })
}

impl Asked {
    fn schedule(&self) -> Schedule {
        let time = |far| if far { FAR } else { Duration::ZERO };
        Schedule {
            priority: Priority::of(self.level),
            deadline: self.due.and_then(|far| Deadline::after(Instant::now(), time(far))),
            shadow: self.shadow,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_caller_gets_exactly_its_own_rows(
        calls in prop::collection::vec(asked(), 1..40),
        max_batch in 1_usize..12,
        (threads, shadow) in (1_usize..4, 0_usize..3),
        delay in 0_u64..3,
        poison in 45_u8..60,
    ) {
        let settings = QueueSettings {
            max_delay: Duration::from_millis(delay),
            instances: threads,
            ..QueueSettings::new("m/1", max_batch)
        };
        let rig = rig_of(Threads { live: threads, shadow }, settings);
        rig.queue.probe_with(Batch::single(&rows(&[0]), 1));
        rig.stub.poison(poison);
        let receivers: Vec<_> = calls
            .iter()
            .filter_map(|call| {
                let receiver = rig.submit_as(&call.values, call.schedule());
                (!call.leaves).then_some((call, receiver))
            })
            .collect();
        for (call, receiver) in receivers {
            // Exactly one ending, and none waits for ever.
            match receiver.blocking_recv().unwrap() {
                Ok(done) => {
                    prop_assert_eq!(done.outputs[0].data(), &call.values);
                    prop_assert!(!call.values.contains(&poison));
                    prop_assert!(call.due != Some(false));
                }
                Err(Failure::Expired) => prop_assert_eq!(call.due, Some(false)),
                Err(Failure::Input(_)) => prop_assert!(call.values.contains(&poison)),
                Err(other) => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert!(rig.stub.batches().iter().all(|rows| *rows <= max_batch));
        // Calls whose caller left may still be on their way out.
        rig.pool.close();
        prop_assert!(rig.pool.wait_ended(Duration::from_secs(60)));
        prop_assert_eq!(rig.queue.pending(), 0);
    }
}
