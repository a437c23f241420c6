//! Calls with idempotency keys through the whole pipeline, against a scripted engine.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use super::*;
use crate::pipeline::{Keys, Reply};
use crate::types::{Deadline, IdempotencyKey};

impl Rig {
    /// The same gateway with keys switched on.
    async fn keyed() -> Self {
        let mut rig = Self::new(&[1], "latest = 1").await;
        let settings = Config::for_repository(rig.folder.path()).idempotency;
        rig.pipeline.keys = Some(Keys::new(settings));
        rig
    }

    fn call_with(&self, key: &str) -> Call {
        let key = IdempotencyKey::read(key.as_bytes(), 255).unwrap();
        Call { key: Some(key), ..self.call(None) }
    }

    async fn answer(&self, key: &str) -> Result<Reply, Rejection> {
        self.infer(self.call_with(key)).await
    }

    fn runs(&self) -> usize {
        self.stub.batches().len()
    }

    async fn hanging(&self) {
        let stub = self.stub.clone();
        tasks::blocking(move || stub.wait_hanging(1)).await;
    }
}

fn start(call: &mut std::pin::Pin<&mut impl Future>) {
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn repeats_get_the_first_answer_even_from_a_version_that_has_left() {
    let rig = Rig::keyed().await;
    let first = rig.answer("a").await.unwrap();
    assert!(!first.is_replayed && first.answer.version == Version(1));
    let outputs = first.answer.outputs.clone();
    first.encoded();
    let runs = rig.runs();
    rig.add(2, "1");
    rig.sync().await;
    let runs_of_the_swap = rig.runs() - runs;
    let again = rig.answer("a").await.unwrap();
    assert!(again.is_replayed && again.answer.version == Version(1));
    assert_eq!(again.answer.outputs, outputs);
    assert_eq!(rig.runs(), runs + runs_of_the_swap);
    assert_eq!(rig.answer("b").await.unwrap().answer.version, Version(2));
}

#[tokio::test]
async fn a_run_that_failed_is_told_to_repeats_and_a_refusal_before_it_is_not() {
    let rig = Rig::keyed().await;
    rig.stub.push(StubStep::Panic);
    let failed = rig.answer("a").await.unwrap_err();
    assert!(failed.kind() == Kind::EngineFailed && !failed.is_replayed());
    let runs = rig.runs();
    let again = rig.answer("a").await.unwrap_err();
    assert!(again.is_replayed() && again.public_message() == failed.public_message());
    assert_eq!(rig.runs(), runs);
    rig.control.unload("m", None).await.unwrap();
    assert!(!rig.answer("b").await.unwrap_err().is_replayed());
    rig.control.load("m", LoadCall::default()).await.unwrap();
    assert!(!rig.answer("b").await.unwrap().is_replayed);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused_also_while_the_first_one_runs() {
    let rig = Rig::keyed().await;
    let other = || Call { outputs: vec!["y".into()], ..rig.call_with("a") };
    rig.stub.push(StubStep::Hang);
    let mut first = pin!(rig.answer("a"));
    start(&mut first);
    rig.hanging().await;
    let refused = rig.infer(other()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::IdempotencyMismatch);
    rig.stub.release();
    first.await.unwrap().encoded();
    let refused = rig.infer(other()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::IdempotencyMismatch);
    assert!(!refused.public_message().contains("'a'"), "the key is not repeated");
}

#[tokio::test]
async fn a_first_caller_that_leaves_does_not_take_the_run_from_its_repeats() {
    let rig = Rig::keyed().await;
    rig.stub.push(StubStep::Hang);
    let runs = rig.runs();
    let mut repeat = pin!(rig.answer("a"));
    {
        let mut first = pin!(rig.answer("a"));
        start(&mut first);
        rig.hanging().await;
        start(&mut repeat);
    }
    rig.stub.release();
    let reply = repeat.await.unwrap();
    assert!(reply.is_replayed);
    assert_eq!(rig.runs(), runs + 1);
}

#[tokio::test]
async fn a_repeat_with_more_time_than_the_first_call_runs_by_itself() {
    let rig = Rig::keyed().await;
    rig.stub.push(StubStep::Hang);
    // Keeps the only thread busy, so that the first call of the key waits in the queue.
    let mut busy = pin!(rig.infer(rig.call(None)));
    start(&mut busy);
    rig.hanging().await;
    let soon = Duration::from_millis(20);
    let mut hurried = rig.call_with("a");
    hurried.schedule.deadline = Deadline::after(tokio::time::Instant::now(), soon);
    let mut first = pin!(rig.infer(hurried));
    start(&mut first);
    let mut repeat = pin!(rig.answer("a"));
    start(&mut repeat);
    assert_eq!(first.await.unwrap_err().kind(), Kind::DeadlineExceeded);
    start(&mut repeat);
    rig.stub.release();
    assert!(!repeat.await.unwrap().is_replayed, "it has become the first one");
}

#[tokio::test]
async fn a_repeat_waits_no_longer_than_the_model_lets_it_run() {
    let rig = Rig::keyed().await;
    rig.manifest("latest = 1\n[deadline]\ndefault = '2s'");
    rig.sync().await;
    rig.stub.push(StubStep::Hang);
    let mut patient = rig.call_with("a");
    let minute = Duration::from_secs(60);
    patient.schedule.deadline = Deadline::after(tokio::time::Instant::now(), minute);
    let mut first = pin!(rig.infer(patient));
    start(&mut first);
    rig.hanging().await;
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    let refused = rig.answer("a").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::DeadlineExceeded);
    assert!(before.elapsed() < 3 * Duration::from_secs(1), "not the minute of the first one");
    rig.stub.release();
}

#[tokio::test]
async fn a_repeat_runs_by_itself_when_the_first_call_met_an_overload() {
    let rig = Rig::keyed().await;
    rig.stub.push(StubStep::Hang);
    rig.stub.push(StubStep::Fail(EngineError::new(Fault::Memory, "no memory")));
    // Keeps the only thread busy, so that the first call of the key waits in the queue.
    let mut busy = pin!(rig.infer(rig.call(None)));
    start(&mut busy);
    rig.hanging().await;
    let mut first = pin!(rig.answer("a"));
    start(&mut first);
    let mut repeat = pin!(rig.answer("a"));
    start(&mut repeat);
    rig.stub.release();
    assert_eq!(first.await.unwrap_err().kind(), Kind::Overloaded);
    assert!(!repeat.await.unwrap().is_replayed, "it has become the first one");
}

#[tokio::test]
async fn a_kept_answer_holds_no_memory_of_its_batch() {
    let rig = Rig::keyed().await;
    let first = rig.answer("a").await.unwrap();
    let again = rig.answer("a").await.unwrap();
    let data = |reply: &Reply| reply.answer.outputs[0].1.data().clone();
    assert_eq!(data(&first), data(&again));
    assert_ne!(data(&first).as_ptr(), data(&again).as_ptr());
}
