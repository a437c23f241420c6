//! Upstreams that go on under other settings.

use super::*;

#[tokio::test]
async fn other_breakers_are_no_reason_to_start_anew_and_hold_for_all_models() {
    let fake = Fake::start(Grpc).await;
    let settings = settings(Grpc, &[&fake]);
    let (first, model) = double(&settings).await;
    let off = config::Breaker { enabled: false, ..config::Breaker::default() };
    let second = Upstreams::start_with(&[settings], &off, Some(&first)).unwrap();
    let fleet = second.get("fleet").unwrap();
    assert!(Arc::ptr_eq(first.get("fleet").unwrap(), fleet));
    second.reconfigure(off);
    fake.be(Mood::Says(13, "broken"));
    let later = fleet.model("double", Some("7"));
    until("it is known", || later.is_ready()).await;
    for model in [&model, &later] {
        let refused = calls(model, 30, 1).await;
        assert!(refused.iter().all(|refused| refused.kind() == Kind::ArmFailed), "{refused:?}");
        assert_eq!(refused.len(), 30);
    }
}

#[tokio::test]
async fn what_is_known_of_models_outlives_a_change_of_settings() {
    for protocol in [Http, Grpc] {
        let (old, new) = (Fake::start(protocol).await, Fake::start(protocol).await);
        let before = settings(protocol, &[&old]);
        let (first, model) = double(&before).await;
        let both = settings(protocol, &[&new, &old]);
        let second = Upstreams::start(std::slice::from_ref(&both), Some(&first)).unwrap();
        let again = second.get("fleet").unwrap().model("double", None);
        assert!(!Arc::ptr_eq(&model, &again) && again.is_ready());
        assert_eq!(again.signature(), model.signature());
        let reason = again.status().reason;
        assert!(reason.starts_with(&new.address) && !reason.contains(&old.address), "{reason}");
        call(&again, 1.0, None).await.unwrap();
        // Nothing is known of models that nobody had.
        assert!(!second.get("fleet").unwrap().model("double", Some("7")).is_ready());
        // What is taken over is asked for all the same.
        old.change(|face| face.shape = vec![-1, 3]);
        new.change(|face| face.shape = vec![-1, 3]);
        until("it is confirmed or not", || again.signature().unwrap().inputs[0].shape == [-1, 3])
            .await;
    }
}
