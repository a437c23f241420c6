//! Deadlines and callers that go away, from the pipeline down to the scripted engine.

use tokio::time::Instant;

use super::*;
use crate::error::{Kind, Rejection};
use crate::types::Deadline;

const SECOND: Duration = Duration::from_secs(1);

impl Rig {
    /// A call that arrived so long ago and asks for an answer within `timeout` of that.
    fn aged(&self, age: Duration, timeout: Option<Duration>) -> Call {
        let arrived = Instant::now().checked_sub(age).unwrap();
        let deadline = timeout.and_then(|timeout| Deadline::after(arrived, timeout));
        Call { arrived, schedule: Schedule { deadline, ..Schedule::default() }, ..self.call(None) }
    }
}

#[tokio::test]
async fn a_call_whose_deadline_has_passed_on_its_way_is_not_run() {
    let rig = Rig::new(&[1], "[deadline]\ndefault = '2s'\nmax = '5s'").await;
    let before = rig.stub.batches().len();
    for (age, timeout) in
        [(SECOND, Some(SECOND)), (2 * SECOND, None), (5 * SECOND, Some(9 * SECOND))]
    {
        let refused = rig.infer(rig.aged(age, timeout)).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::DeadlineExceeded, "{age:?} {timeout:?}");
    }
    assert_eq!(rig.stub.batches().len(), before);
    rig.infer(rig.aged(3 * SECOND, Some(4 * SECOND + 59 * SECOND))).await.unwrap();
}

/// A call under way, and the time that it has run into.
fn spawn(rig: &Rig, call: Call) -> tokio::task::JoinHandle<Result<(), Rejection>> {
    let pipeline = rig.pipeline.clone();
    #[expect(clippy::disallowed_methods, reason = "the test needs its result")]
    tokio::spawn(async move { pipeline.infer(call, &Arc::default()).await.map(drop) })
}

#[tokio::test]
async fn a_deadline_that_passes_is_answered_at_once_and_says_where_it_passed() {
    let rig = Rig::new(&[1], "").await;
    let served = rig.pipeline.snapshots.load().find("m", None).unwrap().clone();
    rig.stub.push(StubStep::Hang);
    let running = spawn(&rig, rig.aged(Duration::ZERO, Some(SECOND)));
    tokio::task::yield_now().await;
    rig.stub.wait_hanging(1);
    let waiting = spawn(&rig, rig.aged(Duration::ZERO, Some(2 * SECOND)));
    tokio::task::yield_now().await;
    assert_eq!(served.queue.pending(), 1);
    // The engine hangs all the time: only the deadlines can end the calls.
    tokio::time::pause();
    let refused = running.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), Kind::DeadlineExceeded);
    assert!(refused.public_message().ends_with("during the run"), "{refused}");
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), Kind::DeadlineExceeded);
    assert!(refused.public_message().ends_with("before there was an answer"), "{refused}");
    assert_eq!(served.queue.pending(), 0, "it does not keep its room until its turn comes");
    rig.stub.release();
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_queue() {
    let rig = Rig::new(&[1], "").await;
    let served = rig.pipeline.snapshots.load().find("m", None).unwrap().clone();
    rig.stub.push(StubStep::Hang);
    let running = spawn(&rig, rig.call(None));
    tokio::task::yield_now().await;
    rig.stub.wait_hanging(1);
    let waiting = spawn(&rig, rig.call(None));
    tokio::task::yield_now().await;
    assert_eq!(served.queue.pending(), 1);
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert_eq!(served.queue.pending(), 0);
    rig.stub.release();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn while_memory_is_short_calls_of_low_priority_are_refused_and_the_others_answered() {
    let rig = Rig::new(&[1], "").await;
    let call = |level| {
        let priority = crate::types::Priority::of(level);
        Call { schedule: Schedule { priority, ..Schedule::default() }, ..rig.call(None) }
    };
    rig.pipeline.overload.memory().note(90, 100);
    for (level, is_refused) in [(1, false), (0, false), (6, false), (7, true), (9, true)] {
        let answer = rig.infer(call(level)).await;
        let kind = answer.as_ref().err().map(Rejection::kind);
        assert_eq!(kind, is_refused.then_some(Kind::Overloaded), "{level}");
    }
    rig.pipeline.overload.memory().note(10, 100);
    rig.infer(call(9)).await.unwrap();
}
