//! Endpoints that die, slow down, hang or answer nonsense while calls are under way.

use super::*;
use crate::config::{Ejection, Retry};

/// Calls while the first of two endpoints goes bad; returns attempts for each call.
async fn while_one_goes_bad(protocol: UpstreamProtocol, bad: impl FnOnce(&Fake)) -> f64 {
    let (one, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
    let mut patient = settings(protocol, &[&one, &other]);
    // On a slow machine the calls of the last ten seconds are too few for a budget.
    patient.retry.min_per_second = 100;
    let (upstreams, model) = double(&patient).await;
    assert!(calls(&model, 200, 16).await.is_empty());
    bad(&one);
    let refused = calls(&model, 400, 16).await;
    assert!(refused.is_empty(), "{refused:?}");
    let all = upstreams.status()[0].endpoints.iter().map(|e| e.attempts).sum::<u64>();
    assert!(other.calls() >= 200);
    f64::from(u32::try_from(all).unwrap()) / 600.0
}

#[tokio::test]
async fn an_endpoint_that_dies_under_load_fails_no_call() {
    for protocol in [Http, Grpc] {
        let attempts = while_one_goes_bad(protocol, Fake::die).await;
        assert!(attempts <= 1.2, "{attempts}");
    }
}

#[tokio::test]
async fn an_endpoint_that_answers_nonsense_under_load_fails_no_call() {
    for protocol in [Http, Grpc] {
        for garbage in Garbage::ALL {
            let bad = |fake: &Fake| fake.be(Mood::Garbage(garbage));
            let attempts = while_one_goes_bad(protocol, bad).await;
            assert!(attempts <= 1.2, "{garbage:?} {attempts}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_available_under_load_fails_no_call() {
    for (protocol, status) in [(Http, 503), (Http, 502), (Grpc, 14)] {
        let bad = |fake: &Fake| fake.be(Mood::Says(status, "not now"));
        let attempts = while_one_goes_bad(protocol, bad).await;
        assert!(attempts <= 1.2, "{attempts}");
    }
}

#[tokio::test]
async fn an_endpoint_that_slows_down_gets_few_calls() {
    for protocol in [Http, Grpc] {
        let (one, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
        let (_upstreams, model) = double(&settings(protocol, &[&one, &other])).await;
        assert!(calls(&model, 100, 8).await.is_empty());
        one.be(Mood::Slow(Duration::from_millis(300)));
        let before = one.calls();
        assert!(calls(&model, 400, 8).await.is_empty());
        let slow = one.calls() - before;
        assert!(slow <= 40, "{slow} of 400");
    }
}

#[tokio::test]
async fn nonsense_of_the_only_endpoint_is_a_failure_and_never_an_answer() {
    for protocol in [Http, Grpc] {
        for garbage in Garbage::ALL {
            let fake = Fake::start(protocol).await;
            let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
            fake.be(Mood::Garbage(garbage));
            let rejection = call(&model, 1.0, Some(PATIENCE)).await.unwrap_err();
            assert_eq!(rejection.kind(), Kind::ArmFailed, "{garbage:?}: {rejection}");
        }
    }
}

#[tokio::test]
async fn a_deadline_holds_whoever_never_answers() {
    for protocol in [Http, Grpc] {
        // Accepts connections, in the kernel, and says nothing on them.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake::start(protocol).await;
        let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
        fake.be(Mood::Hangs);
        let started = Instant::now();
        let limit = Duration::from_millis(200);
        let rejection = call(&model, 1.0, Some(limit)).await.unwrap_err();
        assert_eq!(rejection.kind(), Kind::DeadlineExceeded);
        let took = started.elapsed();
        assert!(took >= limit && took < limit * 5, "{took:?}");
        assert_eq!(fake.calls(), 1, "nobody waits for another attempt");
        // Nothing is known of the silent one, so it gets no calls at all.
        let mut both = settings(protocol, &[&fake]);
        both.endpoints.push(silent.local_addr().unwrap().to_string());
        both.health.timeout = Duration::from_millis(100);
        fake.be(Mood::Well);
        let upstreams = Upstreams::start(&[both], None).unwrap();
        let model = upstreams.get("fleet").unwrap().model("double", None);
        until("one is known, the other one is not well", || {
            let status = upstreams.status();
            model.is_ready() && status[0].endpoints[1].state == EndpointState::Unhealthy
        })
        .await;
        assert!(calls(&model, 50, 8).await.is_empty());
        assert_eq!(upstreams.status()[0].endpoints[1].attempts, 0);
    }
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_made_elsewhere_while_there_is_time() {
    for protocol in [Http, Grpc] {
        let (one, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
        let mut short = settings(protocol, &[&one, &other]);
        short.timeout = Duration::from_millis(500);
        let (_upstreams, model) = double(&short).await;
        one.be(Mood::Hangs);
        for first in 0..10_u8 {
            call(&model, f32::from(first), Some(PATIENCE)).await.unwrap();
        }
        assert!(one.calls() >= 1 && one.calls() <= 5, "{}", one.calls());
    }
}

#[tokio::test]
async fn an_outage_is_not_made_worse_by_retries() {
    for protocol in [Http, Grpc] {
        let (one, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
        let mut all = settings(protocol, &[&one, &other]);
        all.retry = Retry { min_per_second: 0, ..all.retry };
        // Nothing but the budget holds back.
        all.ejection = Ejection { max_part: 0.0, ..all.ejection };
        let breaker = config::Breaker { enabled: false, ..config::Breaker::default() };
        let upstreams = Upstreams::start_with(&[all], &breaker, None).unwrap();
        let model = upstreams.get("fleet").unwrap().model("double", None);
        until("it is ready", || model.status().ready && model.status().reason.is_empty()).await;
        let code = if protocol == Http { 503 } else { 14 };
        one.be(Mood::Says(code, "not now"));
        other.be(Mood::Says(code, "not now"));
        let refused = calls(&model, 500, 16).await;
        assert_eq!(refused.len(), 500);
        let attempts = one.calls() + other.calls();
        assert!(attempts > 550 && attempts <= 600, "{attempts}");
    }
}

#[tokio::test]
async fn the_only_endpoint_is_never_ejected_and_its_breaker_opens() {
    let fake = Fake::start(Http).await;
    let (upstreams, model) = double(&settings(Http, &[&fake])).await;
    fake.be(Mood::Says(500, "broken"));
    let refused = calls(&model, 20, 1).await;
    assert_eq!(refused.len(), 20);
    assert_eq!(upstreams.status()[0].endpoints[0].state, EndpointState::Ready);
    assert_eq!(refused.last().unwrap().kind(), Kind::CircuitOpen);
    assert!(!model.is_ready() && model.status().reason.contains("circuit breaker"));
    assert!(fake.calls() < 10);
}

#[tokio::test]
async fn endpoints_that_are_gone_are_noticed_and_taken_back() {
    let (one, other) = (Fake::start(Http).await, Fake::start(Http).await);
    let (upstreams, model) = double(&settings(Http, &[&one, &other])).await;
    one.change(|face| face.is_ready = false);
    let state = |index: usize| upstreams.status()[0].endpoints[index].state;
    until("one is out", || state(0) == EndpointState::Unhealthy).await;
    assert!(upstreams.status()[0].endpoints[0].reason.as_deref().unwrap().contains("503"));
    let before = one.calls();
    assert!(calls(&model, 50, 8).await.is_empty());
    assert_eq!(one.calls(), before);
    other.change(|face| face.is_ready = false);
    until("both are out", || state(1) == EndpointState::Unhealthy).await;
    assert_eq!(call(&model, 1.0, None).await.unwrap_err().kind(), Kind::NotReady);
    assert!(!model.is_ready());
    one.change(|face| face.is_ready = true);
    until("one is back", || model.is_ready()).await;
    call(&model, 1.0, None).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_that_the_only_endpoint_closed_fails_no_call() {
    for protocol in [Http, Grpc] {
        let fake = Fake::start(protocol).await;
        let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
        call(&model, 1.0, None).await.unwrap();
        fake.die();
        // Another server at the same address: all connections are broken.
        // The port is free once the old listener has gone.
        until("the port is free", || std::net::TcpListener::bind(&fake.address).is_ok()).await;
        let back = Fake::serve(protocol, Face::default(), &fake.address, None).await;
        call(&model, 2.0, Some(PATIENCE)).await.unwrap();
        assert_eq!(back.calls(), 1);
    }
}

#[tokio::test]
async fn calls_that_fail_for_what_they_are_eject_no_endpoint() {
    for (protocol, status) in [(Http, 500), (Http, 401), (Http, 404), (Grpc, 13), (Grpc, 16)] {
        let (one, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
        let (upstreams, model) = double(&settings(protocol, &[&one, &other])).await;
        upstreams.reconfigure(config::Breaker { enabled: false, ..config::Breaker::default() });
        one.be(Mood::Says(status, "no"));
        other.be(Mood::Says(status, "no"));
        assert_eq!(calls(&model, 40, 1).await.len(), 40);
        for endpoint in &upstreams.status()[0].endpoints {
            assert_eq!(endpoint.state, EndpointState::Ready, "{protocol:?} {status}");
            assert_eq!(endpoint.ejections_in_a_row, 0);
            assert_eq!(endpoint.failures, endpoint.attempts);
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_to_say_what_a_model_is_like_is_believed_for_a_while() {
    use super::failure::{Cause, Failure};
    let fake = Fake::start(Http).await;
    let mut quiet = settings(Http, &[&fake]);
    quiet.health.every = None;
    let (_upstreams, model) = double(&quiet).await;
    let says = |cause| model.learn(0, Err(Failure::new(cause, "stray")));
    for stray in [Cause::Unavailable, Cause::Failed, Cause::Garbage] {
        let described = model.upstream_fleet().wires[0].describe(model.name()).await;
        says(stray);
        says(stray);
        assert!(model.is_ready(), "{stray:?}");
        model.learn(0, described);
        says(stray);
        says(stray);
        assert!(model.is_ready(), "{stray:?}: an answer in between");
        says(stray);
        assert!(!model.is_ready() && model.status().reason.contains("stray"));
        model.learn(0, model.upstream_fleet().wires[0].describe(model.name()).await);
        assert!(model.is_ready());
    }
    for denial in [Cause::Unknown, Cause::Unready] {
        says(denial);
        assert!(!model.is_ready(), "{denial:?}");
        model.learn(0, model.upstream_fleet().wires[0].describe(model.name()).await);
    }
}

#[tokio::test]
async fn without_health_checks_an_endpoint_that_is_not_what_it_was_is_asked_again() {
    for mood in [Mood::Says(404, "gone"), Mood::Garbage(Garbage::Missing)] {
        let fake = Fake::start(Http).await;
        let mut quiet = settings(Http, &[&fake]);
        quiet.health.every = None;
        let (_upstreams, model) = double(&quiet).await;
        fake.be(mood);
        fake.change(|face| face.shape = vec![-1, 3]);
        call(&model, 1.0, None).await.unwrap_err();
        tokio::time::pause();
        tokio::time::advance(super::health::UNKNOWN).await;
        let is_known = || model.signature().unwrap().inputs[0].shape == [-1, 3];
        until("it is described anew", is_known).await;
        tokio::time::resume();
    }
}
