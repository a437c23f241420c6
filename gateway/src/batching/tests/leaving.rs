//! Callers that go away, calls that give way, and room that is never lost.

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::types::{Deadline, Priority};

fn level(level: u64) -> Schedule {
    Schedule { priority: Priority::of(level), ..Schedule::default() }
}

const SHADOW: Schedule = Schedule { priority: None, deadline: None, shadow: true };

/// What takes room now: calls, items and bytes.
fn room(rig: &Rig) -> (usize, usize, usize) {
    let load = &rig.queue.shared.load;
    (load.calls(), load.rows(), load.bytes())
}

#[test]
fn a_queue_full_of_callers_that_left_takes_the_next_one() {
    let rig = rig(8, 3);
    let first = rig.block();
    let leaving: Vec<_> = (1..=3).map(|value| rig.submit(&[value])).collect();
    assert!(rig.queue.submit(rows(&[4]), 1, Schedule::default()).is_err());
    drop(leaving);
    assert_eq!(room(&rig), (0, 0, 0));
    let stays: Vec<_> = (5..=7).map(|value| rig.submit(&[value])).collect();
    assert_eq!(room(&rig), (3, 3, 3));
    rig.stub.release();
    answer(first);
    let answers: Vec<_> = stays.into_iter().flat_map(answer).collect();
    assert_eq!(answers, [5, 6, 7]);
    assert_eq!(room(&rig), (0, 0, 0));
}

#[test]
fn a_caller_of_a_large_call_that_leaves_gives_the_room_of_all_parts_back() {
    let rig = rig(2, 100);
    let first = rig.block();
    let large = rig.submit(&[1, 2, 3, 4, 5]);
    assert_eq!(room(&rig), (3, 5, 5));
    drop(large);
    assert_eq!(room(&rig), (0, 0, 0));
    rig.stub.release();
    answer(first);
}

#[test]
fn calls_that_died_waiting_do_not_pile_up_behind_a_busy_engine() {
    let rig = rig(8, 10);
    let first = rig.block();
    let memory = Bytes::from(vec![7]);
    for _ in 0..1000 {
        let input = Tensor::new(DataType::Uint8, vec![1, 1], memory.clone()).unwrap();
        drop(rig.queue.submit(vec![input], 1, Schedule::default()).unwrap());
    }
    let held = rig.queue.shared.pool.waiting();
    assert!(held <= 65, "{held} dead calls are kept");
    rig.stub.release();
    answer(first);
}

#[test]
fn a_call_knows_whether_it_ever_left_the_queue() {
    let rig = rig(1, 100);
    let running = rig.block();
    let waiting = rig.submit(&[1]);
    assert!(running.has_started() && !waiting.has_started());
    rig.stub.release();
    answer(running);
    answer(waiting);
}

#[test]
fn in_a_full_queue_the_newest_of_the_least_urgent_calls_gives_way() {
    let rig = rig(1, 4);
    let first = rig.block();
    let [old, new, low, shadow] = [(1, level(7)), (2, level(7)), (3, level(6)), (4, SHADOW)]
        .map(|(value, schedule)| rig.submit_as(&[value], schedule));
    // Nobody gives way to a call that is no more urgent.
    assert!(rig.queue.submit(rows(&[5]), 1, SHADOW).is_err());
    let urgent = [6, 7].map(|value| rig.submit_as(&[value], level(1)));
    for displaced in [shadow, new] {
        assert_eq!(displaced.blocking_recv().unwrap().unwrap_err(), Failure::Displaced);
    }
    let refused = rig.queue.submit(rows(&[8]), 1, level(7)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    assert_eq!(room(&rig), (4, 4, 4));
    rig.stub.release();
    answer(first);
    let answers: Vec<_> = urgent.into_iter().chain([low, old]).flat_map(answer).collect();
    assert_eq!(answers, [6, 7, 3, 1]);
    assert_eq!(rig.stub.seen().concat(), [0, 6, 7, 3, 1]);
}

#[test]
fn a_large_urgent_call_displaces_as_many_as_it_needs_and_no_more() {
    let rig = rig(4, 6);
    let first = rig.block();
    let waiting: Vec<_> = (1..=6).map(|value| rig.submit_as(&[value], level(5))).collect();
    let urgent = rig.submit_as(&[7, 8, 9, 10], level(4));
    assert_eq!(room(&rig), (3, 6, 6));
    let endings = waiting.into_iter();
    rig.stub.release();
    answer(first);
    assert_eq!(answer(urgent), [7, 8, 9, 10]);
    let stayed: Vec<bool> = endings.map(|call| call.blocking_recv().unwrap().is_ok()).collect();
    assert_eq!(stayed, [true, true, false, false, false, false]);
}

/// One step of a random schedule.
#[derive(Debug, Clone)]
enum Step {
    Submit {
        rows: u8,
        level: u64,
        expired: bool,
        shadow: bool,
    },
    /// One of the callers goes away.
    Leave(usize),
    /// The engine runs what it finds, or stops in the middle of a run.
    Run,
    Block,
}

fn step() -> impl Strategy<Value = Step> {
    let submit = (1_u8..9, 1_u64..10, prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let submit = submit.prop_map(|(rows, level, expired, shadow)| Step::Submit {
        rows,
        level,
        expired,
        shadow,
    });
    prop_oneof![
        6 => submit,
        3 => any::<usize>().prop_map(Step::Leave),
        1 => Just(Step::Run),
        1 => Just(Step::Block),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn room_is_never_lost_and_never_exceeded(
        steps in prop::collection::vec(step(), 1..120),
        max_rows in 1_usize..20,
        max_batch in 1_usize..6,
    ) {
        let rig = rig(max_batch, max_rows);
        let (mut callers, mut hangs) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Submit { rows: count, level: priority, expired, shadow } => {
                    let time = Duration::from_secs(if expired { 0 } else { 3600 });
                    let deadline = Deadline::after(Instant::now(), time);
                    let schedule = Schedule { deadline, shadow, ..level(priority) };
                    let values = vec![1; usize::from(count)];
                    let alone = rig.queue.pending() == 0;
                    match rig.queue.submit(rows(&values), values.len(), schedule) {
                        Ok(waiting) => callers.push(waiting),
                        Err(refused) => {
                            prop_assert_eq!(refused.kind(), Kind::Overloaded);
                            prop_assert!(!alone, "an empty queue takes any call");
                        }
                    }
                }
                Step::Leave(which) if !callers.is_empty() => {
                    drop(callers.swap_remove(which % callers.len()));
                }
                Step::Block => {
                    rig.stub.push(StubStep::Hang);
                    hangs += 1;
                }
                Step::Run | Step::Leave(_) => {
                    // One that comes before its run lets that pass.
                    if hangs > 0 {
                        hangs -= 1;
                        rig.stub.release();
                    }
                }
            }
            prop_assert!(room(&rig).1 <= max_rows.max(8), "{:?}", room(&rig));
        }
        (0..hangs).for_each(|_| rig.stub.release());
        for caller in callers {
            let ended = caller.blocking_recv();
            prop_assert!(ended.is_ok(), "every caller is told");
        }
        rig.pool.close();
        prop_assert!(rig.pool.wait_ended(Duration::from_secs(60)));
        prop_assert_eq!(room(&rig), (0, 0, 0));
        prop_assert!(!rig.queue.shared.load.needs_sweep(0), "no dead call is kept");
    }
}
