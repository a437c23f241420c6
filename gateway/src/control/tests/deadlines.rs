//! Deadlines and callers that go away, from the pipeline down to the scripted engine.

use tokio::time::Instant;

use super::*;
use crate::error::Kind;
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
        let refused = rig.pipeline.infer(rig.aged(age, timeout)).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::DeadlineExceeded, "{age:?} {timeout:?}");
    }
    assert_eq!(rig.stub.batches().len(), before);
    rig.pipeline.infer(rig.aged(3 * SECOND, Some(4 * SECOND + 59 * SECOND))).await.unwrap();
}
