//! Shadows on threads of their own: whatever they do, live calls do not notice.

use super::side::Side;
use super::*;

const SHADOW: Schedule = Schedule { priority: None, deadline: None, shadow: true };
/// A byte that makes a batch hang.
const HANGS: u8 = 99;
const NOW: Duration = Duration::from_secs(1);

/// One live thread and one for shadows.
fn rig_beside(settings: QueueSettings) -> Rig {
    let rig = rig_of(Threads { live: 1, shadow: 1 }, settings);
    rig.stub.hang_on(HANGS);
    rig
}

fn beside() -> Rig {
    rig_beside(QueueSettings { max_rows: 100, ..QueueSettings::new("m/1", 8) })
}

impl Rig {
    fn shadow(&self, values: &[u8]) -> Receiver {
        self.submit_as(values, SHADOW)
    }
}

#[test]
fn a_shadow_that_never_comes_back_delays_no_live_call() {
    let rig = beside();
    let shadow = rig.shadow(&[HANGS]);
    rig.stub.wait_hanging(1);
    for value in 1..=20 {
        assert_eq!(answer(rig.submit(&[value])), [value]);
    }
    rig.stub.release();
    assert_eq!(answer(shadow), [HANGS]);
}

#[test]
fn shadows_run_aside_on_threads_that_the_first_one_starts() {
    let rig = beside();
    assert_eq!(answer(rig.submit(&[1])), [1]);
    assert_eq!(rig.pool.shadow_threads(), 0);
    assert_eq!(answer(rig.shadow(&[2])), [2]);
    assert_eq!(answer(rig.shadow(&[3])), [3]);
    assert_eq!((rig.pool.shadow_threads(), rig.pool.threads()), (1, (1, 1)));
    let threads = rig.stub.threads();
    assert_eq!(threads[0], "engine-cpu-0");
    assert_eq!(threads[1..], ["shadow-cpu-1", "shadow-cpu-1"]);
}

#[test]
fn shadows_wait_while_live_calls_wait_and_run_once_none_does() {
    let rig = beside();
    // With the thread awake before, it is no late start that keeps the shadow waiting.
    answer(rig.shadow(&[1]));
    until(|| rig.pool.sleeping_on(Side::Shadow) == 1);
    let first = rig.submit(&[HANGS]);
    rig.stub.wait_hanging(1);
    let waits = rig.submit(&[HANGS]);
    let shadow = rig.shadow(&[2]);
    // Woken for nothing it would take the shadow now, if it did not look at live calls.
    rig.pool.wake_all();
    until(|| rig.pool.sleeping_on(Side::Shadow) == 1);
    assert_eq!(rig.stub.batches(), [1, 1]);
    rig.stub.release();
    answer(first);
    rig.stub.wait_hanging(1);
    assert_eq!(answer(shadow), [2], "nothing waits for the busy thread any more");
    rig.stub.release();
    answer(waits);
}

#[test]
fn live_calls_that_leave_make_way_for_shadows() {
    let rig = beside();
    answer(rig.shadow(&[1]));
    let first = rig.submit(&[HANGS]);
    rig.stub.wait_hanging(1);
    let leaves = rig.submit(&[2]);
    until(|| rig.pool.sleeping_on(Side::Shadow) == 1);
    let shadow = rig.shadow(&[3]);
    drop(leaves);
    rig.stub.release();
    answer(first);
    assert_eq!(answer(shadow), [3]);
}

#[test]
fn shadows_take_no_place_in_live_batches() {
    let rig = beside();
    let first = rig.submit(&[HANGS]);
    rig.stub.wait_hanging(1);
    let (live, shadow) = (rig.submit(&[1]), rig.shadow(&[2]));
    rig.stub.release();
    answer(first);
    assert_eq!((answer(live), answer(shadow)), (vec![1], vec![2]));
    assert_eq!(rig.stub.batches(), [1, 1, 1]);
}

#[test]
fn a_flood_of_shadows_is_no_pressure_for_live_calls() {
    let settings = QueueSettings { max_rows: 5, refuse_late: true, ..QueueSettings::new("m/1", 1) };
    let rig = rig_beside(settings);
    rig.queue.shared.load(Side::Shadow).set_times(NOW * 60, NOW * 60);
    let running = rig.shadow(&[HANGS]);
    rig.stub.wait_hanging(1);
    let waiting: Vec<_> = (0..5).map(|_| rig.shadow(&[1])).collect();
    let refused = rig.queue.submit(rows(&[2]), 1, SHADOW).unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    let pressure = rig.queue.pressure();
    assert_eq!((pressure.wait, pressure.threads), (Duration::ZERO, 1));
    assert_eq!((rig.queue.retry_after(), rig.queue.pending()), (NOW, 5));
    let deadline = crate::types::Deadline::after(tokio::time::Instant::now(), NOW * 30);
    let live = rig.submit_as(&[3], Schedule { deadline, ..Schedule::default() });
    assert_eq!(answer(live), [3]);
    rig.stub.release();
    answer(running);
    assert_eq!(waiting.into_iter().flat_map(answer).collect::<Vec<_>>(), [1; 5], "none gave way");
}

#[test]
fn what_shadows_take_teaches_nothing_about_live_batches() {
    let rig = beside();
    for _ in 0..5 {
        answer(rig.shadow(&[1]));
    }
    until(|| rig.pool.sleeping_on(Side::Shadow) == 1);
    assert!(rig.queue.shared.load.batch_time().is_zero());
    for _ in 0..5 {
        answer(rig.submit(&[1]));
    }
    until(|| rig.pool.sleeping() == 1);
    assert!(!rig.queue.shared.load.batch_time().is_zero());
}

#[test]
fn a_shadow_that_runs_takes_no_instance_of_live_calls() {
    let settings = QueueSettings { instances: 1, ..QueueSettings::new("m/1", 8) };
    let rig = rig_of(Threads { live: 1, shadow: 2 }, settings);
    rig.stub.hang_on(HANGS);
    let shadow = rig.shadow(&[HANGS]);
    rig.stub.wait_hanging(1);
    for value in 1..=3 {
        assert_eq!(answer(rig.submit(&[value])), [value]);
    }
    // Nor do live calls take one of theirs; among themselves each side keeps to the bound.
    let live = rig.submit(&[HANGS]);
    rig.stub.wait_hanging(2);
    let (live_waits, shadow_waits) = (rig.submit(&[4]), rig.shadow(&[5]));
    rig.pool.wake_all();
    until(|| rig.pool.sleeping_on(Side::Shadow) == 1);
    assert_eq!(rig.stub.batches().len(), 5);
    rig.stub.release();
    rig.stub.release();
    assert_eq!((answer(shadow), answer(live)), (vec![HANGS], vec![HANGS]));
    assert_eq!((answer(live_waits), answer(shadow_waits)), (vec![4], vec![5]));
}

#[test]
fn a_version_runs_its_own_inputs_before_its_first_shadow() {
    let rig = beside();
    rig.queue.probe_with(Batch::single(&rows(&[7]), 1));
    assert_eq!((answer(rig.shadow(&[1])), answer(rig.shadow(&[2]))), (vec![1], vec![2]));
    assert_eq!(answer(rig.submit(&[3])), [3]);
    assert_eq!(rig.stub.seen(), [[7], [1], [2], [3]]);
}

#[tokio::test]
async fn a_load_does_not_wait_for_shadows() {
    let rig = beside();
    let shadow = rig.shadow(&[HANGS]);
    rig.stub.wait_hanging(1);
    assert_eq!(rig.queue.warm(&Batch::single(&rows(&[1]), 1), LIMIT).await, Ok(()));
    rig.stub.release();
    assert!(shadow.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn stuck_shadows_cost_threads_of_their_own_and_not_many() {
    let rig = beside();
    for _ in 0..2 {
        let hangs = rig.shadow(&[HANGS]);
        rig.stub.wait_hanging(1 + rig.stuck_shadows());
        tokio::time::advance(LIMIT * 100).await;
        rig.pool.watch();
        assert_eq!(hangs.await.unwrap().unwrap_err(), Failure::TimedOut(LIMIT));
    }
    assert_eq!((rig.stuck.count(), rig.stuck.abandoned()), (0, 2), "liveness holds");
    assert_eq!((rig.pool.shadow_threads(), rig.pool.threads()), (0, (1, 1)), "no third one");
    let waits = rig.shadow(&[1]);
    assert!(rig.submit(&[2]).await.unwrap().is_ok());
    // One comes back, and a fresh thread takes the place.
    rig.stub.release();
    until(|| rig.stuck_shadows() < 2);
    rig.pool.watch();
    assert!(waits.await.unwrap().is_ok());
    rig.stub.release();
}

impl Rig {
    fn stuck_shadows(&self) -> usize {
        self.pool.lost_shadows()
    }
}

#[test]
fn a_shadow_thread_survives_panics() {
    let rig = beside();
    rig.stub.panic_preparing(1);
    let failed = rig.shadow(&[1]).blocking_recv().unwrap();
    assert_eq!(failed.unwrap_err(), Failure::Panicked);
    rig.stub.push(StubStep::Panic);
    let failed = rig.shadow(&[1]).blocking_recv().unwrap();
    assert_eq!(failed.unwrap_err(), Failure::Panicked);
    assert_eq!(answer(rig.shadow(&[2])), [2]);
    assert_eq!((rig.stuck.panics(), rig.pool.shadow_threads()), (2, 1));
}

#[test]
fn a_shadow_thread_that_dies_is_replaced() {
    let rig = beside();
    assert_eq!(answer(rig.submit(&[1])), [1]);
    until(|| rig.pool.sleeping() == 1);
    rig.pool.break_next();
    let waits = rig.shadow(&[2]);
    until(|| rig.stuck.panics() == 1 && rig.pool.shadow_threads() == 0);
    rig.pool.watch();
    assert_eq!(answer(waits), [2]);
    assert_eq!(rig.pool.threads(), (1, 1));
}

#[test]
fn a_closing_pool_runs_no_more_shadows() {
    let rig = beside();
    let shadow = rig.shadow(&[HANGS]);
    let live = rig.submit(&[HANGS]);
    rig.stub.wait_hanging(2);
    let (waits, live_waits) = (rig.shadow(&[1]), rig.submit(&[2]));
    rig.pool.close();
    assert_eq!(waits.blocking_recv().unwrap().unwrap_err(), Failure::Stopping);
    assert_eq!(rig.queue.submit(rows(&[3]), 1, SHADOW).unwrap_err().kind(), Kind::NotReady);
    rig.stub.release();
    rig.stub.release();
    assert_eq!((answer(shadow), answer(live)), (vec![HANGS], vec![HANGS]));
    assert_eq!(answer(live_waits), [2]);
    assert!(rig.pool.wait_ended(Duration::from_secs(60)));
    assert_eq!(rig.queue.pending(), 0);
}
