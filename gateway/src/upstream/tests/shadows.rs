//! Calls of shadows: nobody's room, nobody's retries, nobody's failures.

use super::*;
use crate::types::REPLAYED;

async fn shadow(model: &RemoteModel) -> Result<RemoteAnswer, Rejection> {
    let (signature, tensors) = (model.signature().unwrap(), [floats(1, 1.0)]);
    let call = RemoteCall { shadow: true, ..checked(&signature, &tensors) };
    model.infer(call).await.map_err(|unanswered| unanswered.rejection)
}

#[tokio::test]
async fn what_shadows_meet_teaches_nothing_and_is_not_tried_again() {
    for (protocol, status) in [(Http, 503), (Http, 500), (Grpc, 14)] {
        let (one, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
        let (upstreams, model) = double(&settings(protocol, &[&one, &other])).await;
        shadow(&model).await.unwrap();
        assert!(!one.last().0.contains_key("idempotency-key"), "it must not get the live answer");
        one.be(Mood::Says(status, "no"));
        other.be(Mood::Says(status, "no"));
        for _ in 0..40 {
            assert_eq!(shadow(&model).await.unwrap_err().kind(), Kind::ArmFailed);
        }
        assert_eq!(one.calls() + other.calls(), 41);
        for endpoint in &upstreams.status()[0].endpoints {
            assert_eq!(endpoint.state, EndpointState::Ready);
            assert_eq!((endpoint.attempts, endpoint.failures), (0, 0));
            assert!(endpoint.latency_seconds.is_none());
        }
        assert!(model.is_ready(), "its breaker is closed");
    }
}

#[tokio::test]
async fn shadows_keep_to_half_of_the_room_and_take_none_of_live_calls() {
    let fake = Fake::start(Grpc).await;
    let bounded = config::Upstream { max_in_flight: 4, ..settings(Grpc, &[&fake]) };
    let (_upstreams, model) = double(&bounded).await;
    fake.be(Mood::Hangs);
    let kind = |result: Result<RemoteAnswer, Rejection>| result.unwrap_err().kind();
    let (first, second) = (shadow(&model), shadow(&model));
    let rest = async {
        until("two are under way", || fake.calls() == 2).await;
        assert_eq!(kind(shadow(&model).await), Kind::Overloaded);
        let live = || call(&model, 1.0, None);
        let last = async {
            until("all live calls are under way", || fake.calls() == 6).await;
            assert_eq!(kind(live().await), Kind::Overloaded);
        };
        tokio::select! {
            _ = futures_util::future::join4(live(), live(), live(), live()) => panic!("it hangs"),
            () = last => {}
        }
    };
    tokio::select! {
        _ = first => panic!("nobody answers"),
        _ = second => panic!("nobody answers"),
        () = rest => {}
    }
    fake.be(Mood::Well);
    shadow(&model).await.unwrap();
}

#[tokio::test]
async fn shadows_leave_a_model_alone_whose_breaker_is_open() {
    let fake = Fake::start(Http).await;
    let (_upstreams, model) = double(&settings(Http, &[&fake])).await;
    model.breaker().hold_open();
    assert_eq!(shadow(&model).await.unwrap_err().kind(), Kind::CircuitOpen);
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn a_recorded_call_says_that_it_is_one_and_shows_what_it_is_given() {
    for protocol in [Http, Grpc] {
        let fake = Fake::start(protocol).await;
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", http::HeaderValue::from_static("Bearer t"));
        let upstream = Upstream::alone(settings(protocol, &[&fake]), headers).unwrap();
        let model = upstream.model("double", None);
        while model.signature().is_none() {
            tokio::task::yield_now().await;
        }
        let signature = model.signature().unwrap();
        let tensors = [floats(1, 1.0)];
        let call = RemoteCall { shadow: true, replay: true, ..checked(&signature, &tensors) };
        let prediction = call.prediction;
        model.infer(call).await.unwrap();
        let (headers, id) = fake.last();
        assert_eq!(id, format!("{REPLAYED}{prediction}"));
        assert_eq!(headers["penstock-replay"], prediction.to_string());
        assert_eq!(headers["authorization"], "Bearer t");
    }
}
