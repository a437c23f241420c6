//! The whole way of a call through the breaker of its version.

use engine::StubStep;

use super::*;
use crate::breaker::State;
use crate::error::Kind;

async fn kind(rig: &Rig) -> Option<Kind> {
    match rig.infer(rig.call(None)).await {
        Ok(reply) => {
            reply.encoded();
            None
        }
        Err(rejection) => Some(rejection.kind()),
    }
}

async fn break_it(rig: &Rig) {
    for _ in 0..5 {
        rig.stub.push(StubStep::Panic);
        assert_eq!(kind(rig).await, Some(Kind::EngineFailed));
    }
}

#[tokio::test]
async fn five_failures_open_the_breaker_and_a_new_version_starts_closed() {
    let rig = Rig::new(&[1], "latest = 1").await;
    break_it(&rig).await;
    let refused = rig.infer(rig.call(None)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::CircuitOpen);
    assert!(refused.retry_after().is_some_and(|after| !after.is_zero()));
    {
        let snapshot = rig.pipeline.snapshots.load();
        let served = snapshot.ready().next().unwrap();
        assert!(!served.is_ready(), "the model is not ready");
    }
    assert!(rig.control.is_serving(), "the process still is");
    let reason = "its circuit breaker is open: consecutive_failures".to_owned();
    assert_eq!(rig.states(), [(Some(1), "READY", reason)]);
    rig.add(2, "1");
    rig.sync().await;
    assert_eq!(kind(&rig).await, None);
}

#[tokio::test]
async fn what_runs_before_a_version_serves_is_not_counted() {
    let rig = Rig::new(&[1], "latest = 1").await;
    let snapshot = rig.pipeline.snapshots.load();
    let served = snapshot.ready().next().unwrap();
    let status = served.breaker.status();
    assert_eq!((status.counts.samples, status.state), (0, State::Closed));
    assert!(!rig.stub.batches().is_empty(), "the warm-up ran");
    assert_eq!(kind(&rig).await, None);
    assert_eq!(served.breaker.status().counts.samples, 1);
}

#[tokio::test]
async fn a_model_may_have_a_breaker_of_its_own_kind() {
    let rig = Rig::new(&[1], "latest = 1\n[breaker]\nenabled = false").await;
    break_it(&rig).await;
    break_it(&rig).await;
    assert_eq!(kind(&rig).await, None);
}

#[tokio::test]
async fn other_settings_reach_every_breaker_that_its_model_leaves_to_the_gateway() {
    let rig = Rig::new(&[1], "latest = 2\n[breaker]\nwindow = '30s'").await;
    break_it(&rig).await;
    let state = |version: u64| {
        let snapshot = rig.pipeline.snapshots.load();
        let served = snapshot.ready().find(|served| served.version.0 == version).unwrap();
        served.breaker.state()
    };
    assert_eq!(state(1), State::Open);
    let set = |breaker| rig.control.commit_breaker(breaker);
    set(config::Breaker { consecutive: 2, ..config::Breaker::default() });
    assert_eq!(state(1), State::Open, "what is open stays open");
    rig.control.unload("m", Some(Version(1))).await.unwrap();
    rig.control.load("m", LoadCall { version: Some(Version(1)), upload: None }).await.unwrap();
    for _ in 0..2 {
        assert_eq!(state(1), State::Closed);
        rig.stub.push(StubStep::Panic);
        assert_eq!(kind(&rig).await, Some(Kind::EngineFailed));
    }
    assert_eq!(state(1), State::Open, "what loads later has them too");
    let off = config::Breaker { enabled: false, ..config::Breaker::default() };
    let revision = 7;
    let routing = crate::snapshot::Routing { revision, ..Default::default() };
    rig.control.commit_file(routing, Arc::default(), off);
    assert_eq!(rig.pipeline.snapshots.load().routing().revision, revision);
    assert_eq!(kind(&rig).await, None, "they change with the routes");
}

#[tokio::test]
async fn what_a_model_says_of_its_breaker_stands_above_other_settings() {
    let rig = Rig::new(&[1], "latest = 1\n[breaker]\nenabled = false").await;
    let settings = config::Breaker { consecutive: 1, ..config::Breaker::default() };
    rig.control.commit_breaker(settings);
    break_it(&rig).await;
    assert_eq!(kind(&rig).await, None);
}
