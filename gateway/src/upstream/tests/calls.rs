//! What is said and heard while nothing is wrong, and what callers are told who are.

use http::HeaderValue;

use super::*;
use crate::types::Priority;

#[tokio::test]
async fn a_call_is_answered_with_what_the_endpoint_computes() {
    for protocol in [Http, Grpc] {
        for is_binary in [true, false] {
            let face = Face { is_binary, max_batch_size: None, ..Face::default() };
            let fake = Fake::with(protocol, face).await;
            let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
            let answer = call(&model, 1.5, None).await.unwrap();
            assert_eq!(&*answer.version, "7");
            assert_eq!(answer.outputs[0].shape(), [1, 2]);
            assert!(answer.timings.infer > Duration::ZERO);
            assert_eq!(model.signature().unwrap().inputs[0].name, "x");
        }
    }
}

#[tokio::test]
async fn a_call_of_megabytes_arrives_whole() {
    for protocol in [Http, Grpc] {
        let fake = Fake::start(protocol).await;
        let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
        let rows = 500_000;
        let tensors = [floats(rows, 3.0)];
        let signature = model.signature().unwrap();
        let call = RemoteCall {
            signature: &signature,
            tensors: &tensors,
            rows,
            deadline: None,
            priority: None,
            trace: None,
            prediction: PredictionId::new(),
            hops: 0,
            replay: false,
            shadow: false,
        };
        let answer = model.infer(call).await.unwrap();
        let expected = [6.0_f32.to_le_bytes(), 7.0_f32.to_le_bytes()].concat().repeat(rows);
        assert!(answer.outputs[0].data()[..] == expected[..]);
    }
}

#[tokio::test]
async fn the_deadline_the_trace_and_the_hops_go_with_a_call() {
    for protocol in [Http, Grpc] {
        let fake = Fake::start(protocol).await;
        let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
        let trace =
            HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let prediction = PredictionId::new();
        let tensors = [floats(1, 1.0)];
        let signature = model.signature().unwrap();
        let call = RemoteCall {
            signature: &signature,
            tensors: &tensors,
            rows: 1,
            deadline: Deadline::after(Instant::now(), Duration::from_secs(7)),
            priority: Priority::of(2),
            trace: Some(&trace),
            prediction,
            hops: 2,
            replay: false,
            shadow: false,
        };
        model.infer(call).await.unwrap();
        let (headers, id) = fake.last();
        assert_eq!(id, prediction.to_string());
        assert_eq!(headers["traceparent"], trace);
        assert_eq!(hops(&headers), 3);
        assert_eq!(headers["idempotency-key"], format!("penstock-{prediction}"));
        let left: u64 = headers["penstock-timeout"].to_str().unwrap().parse().unwrap();
        assert!((5_000..=7_000).contains(&left), "{left}");
        if protocol == Grpc {
            let text = headers["grpc-timeout"].to_str().unwrap();
            let micros: u64 = text.strip_suffix('u').unwrap().parse().unwrap();
            assert!((5_000_000..=7_000_000).contains(&micros), "{text}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_told_and_not_tried_again() {
    for (protocol, said, kind, words) in [
        (Http, (400, "x is\nbad"), Kind::InvalidInput, "x is bad"),
        (Http, (429, "enough"), Kind::Overloaded, "refuses more"),
        (Http, (401, "who?"), Kind::ArmFailed, "does not serve"),
        (Http, (404, "gone"), Kind::ArmFailed, "does not serve"),
        (Http, (500, "/secret/path"), Kind::ArmFailed, "failed"),
        (Grpc, (3, "x is bad"), Kind::InvalidInput, "x is bad"),
        (Grpc, (8, "enough"), Kind::Overloaded, "refuses more"),
        (Grpc, (16, "who?"), Kind::ArmFailed, "does not serve"),
        (Grpc, (13, "/secret/path"), Kind::ArmFailed, "failed"),
    ] {
        let (one, other) = (Fake::start(protocol).await, Fake::start(protocol).await);
        let (_upstreams, model) = double(&settings(protocol, &[&one, &other])).await;
        one.be(Mood::Says(said.0, said.1));
        other.be(Mood::Says(said.0, said.1));
        let rejection = call(&model, 1.0, None).await.unwrap_err();
        assert_eq!(rejection.kind(), kind, "{said:?}");
        let text = rejection.public_message();
        assert!(text.contains(words) && text.contains("'fleet'"), "{text}");
        assert!(!text.contains("secret") && !text.contains(&one.address), "{text}");
        assert_eq!(one.calls() + other.calls(), 1, "{said:?}");
    }
}

#[tokio::test]
async fn a_call_that_an_endpoint_ran_and_failed_is_told_from_one_that_nobody_ran() {
    for (protocol, status, has_run) in
        [(Http, 500, true), (Http, 503, false), (Grpc, 13, true), (Grpc, 14, false)]
    {
        let fake = Fake::start(protocol).await;
        let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
        fake.be(Mood::Says(status, "broken"));
        let (signature, tensors) = (model.signature().unwrap(), [floats(1, 1.0)]);
        let call = checked(&signature, &tensors);
        assert_eq!(model.infer(call).await.unwrap_err().has_run, has_run, "{protocol:?} {status}");
    }
}

#[tokio::test]
async fn an_answer_has_to_fit_what_its_call_was_checked_by() {
    for protocol in [Http, Grpc] {
        let fake = Fake::start(protocol).await;
        let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
        // As it was before the model was deployed anew.
        let mut before = (*model.signature().unwrap()).clone();
        before.outputs[0].spec.name = "z".into();
        let tensors = [floats(1, 1.0)];
        let unanswered = model.infer(checked(&before, &tensors)).await.unwrap_err();
        assert_eq!(unanswered.rejection.kind(), Kind::ArmFailed);
        assert_eq!(fake.calls(), 1);
    }
}

#[tokio::test]
async fn versions_that_are_no_short_words_are_not_told() {
    let long = "v".repeat(64);
    for protocol in [Http, Grpc] {
        let fake = Fake::start(protocol).await;
        let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
        let (longer, breaking) = (long.clone() + "v", "1\n2".to_owned());
        for (version, told) in
            [(long.clone(), &*long), (longer, ""), (breaking, ""), ("1.2-a_b".into(), "1.2-a_b")]
        {
            fake.change(|face| face.version = version);
            assert_eq!(&*call(&model, 1.0, None).await.unwrap().version, told);
        }
    }
}

#[tokio::test]
async fn calls_beyond_the_bound_are_refused_and_leave_nothing_behind() {
    let fake = Fake::start(Grpc).await;
    let bounded = config::Upstream { max_in_flight: 2, ..settings(Grpc, &[&fake]) };
    let (upstreams, model) = double(&bounded).await;
    fake.be(Mood::Hangs);
    let first = call(&model, 1.0, None);
    let second = call(&model, 1.0, None);
    let third = async {
        until("both are under way", || fake.calls() == 2).await;
        call(&model, 1.0, None).await
    };
    let refused = tokio::select! {
        _ = first => panic!("nobody answers"),
        _ = second => panic!("nobody answers"),
        refused = third => refused.unwrap_err(),
    };
    assert_eq!(refused.kind(), Kind::Overloaded);
    fake.be(Mood::Well);
    assert_eq!(upstreams.status()[0].in_flight, 0, "callers that left");
    assert_eq!(upstreams.status()[0].endpoints[0].in_flight, 0);
    call(&model, 2.0, None).await.unwrap();
}

#[tokio::test]
async fn a_model_is_not_ready_until_it_is_known_and_says_why() {
    for protocol in [Http, Grpc] {
        let face = Face { shape: vec![], ..Face::default() };
        let fake = Fake::with(protocol, face).await;
        let upstreams = Upstreams::start(&[settings(protocol, &[&fake])], None).unwrap();
        let fleet = upstreams.get("fleet").unwrap();
        let (model, other) = (fleet.model("double", None), fleet.model("treble", Some("3")));
        until("both were asked for", || {
            model.status().reason.contains("names no inputs")
                && other.status().reason.contains("no such model")
        })
        .await;
        let rejection = call(&model, 1.0, None).await.unwrap_err();
        assert_eq!(rejection.kind(), Kind::NotReady);
        assert!(!model.is_ready() && !other.is_ready());
        fake.change(|face| face.shape = vec![-1, 2]);
        until("it is known", || model.is_ready()).await;
        call(&model, 1.0, None).await.unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_with_another_signature_gets_no_calls_until_it_agrees() {
    let fakes = [Fake::start(Http).await, Fake::start(Http).await, Fake::start(Http).await];
    let (_upstreams, model) = double(&settings(Http, &[&fakes[0], &fakes[1], &fakes[2]])).await;
    fakes[1].change(|face| face.shape = vec![-1, 3]);
    until("it is left out", || model.status().reason.contains("differs")).await;
    assert!(model.status().reason.starts_with(&fakes[1].address));
    let before = fakes[1].calls();
    assert!(calls(&model, 100, 8).await.is_empty());
    assert_eq!(fakes[1].calls(), before);
    // Where most have another one, it is theirs.
    fakes[0].change(|face| face.shape = vec![-1, 3]);
    until("most have it", || model.signature().unwrap().inputs[0].shape == [-1, 3]).await;
    until("the last is left out", || model.status().reason.starts_with(&fakes[2].address)).await;
}

#[tokio::test]
async fn what_has_not_changed_goes_on_as_it_is_and_what_has_left_ends() {
    let (kept, left) = (Fake::start(Grpc).await, Fake::start(Grpc).await);
    let keep = settings(Grpc, &[&kept]);
    let leave = config::Upstream { name: "other".into(), ..settings(Grpc, &[&left]) };
    let first = Upstreams::start(&[keep.clone(), leave.clone()], None).unwrap();
    let model = first.get("fleet").unwrap().model("double", None);
    until("it is ready", || model.is_ready()).await;
    call(&model, 1.0, None).await.unwrap();
    let connections = kept.connections();
    let second = Upstreams::start(std::slice::from_ref(&keep), Some(&first)).unwrap();
    assert!(Arc::ptr_eq(first.get("fleet").unwrap(), second.get("fleet").unwrap()));
    assert!(second.get("other").is_none());
    let gone = Arc::downgrade(&first.get("other").unwrap().fleet);
    drop(first);
    until("its tasks have ended", || gone.strong_count() == 0).await;
    let again = second.get("fleet").unwrap().model("double", None);
    assert!(Arc::ptr_eq(&model, &again), "with what it has learnt");
    call(&again, 2.0, None).await.unwrap();
    assert_eq!(kept.connections(), connections);
    let changed = config::Upstream { max_in_flight: 7, ..keep };
    let third = Upstreams::start(&[changed], Some(&second)).unwrap();
    assert!(!Arc::ptr_eq(second.get("fleet").unwrap(), third.get("fleet").unwrap()));
    // Callers that hold a model of the old one are answered.
    drop(second);
    call(&again, 3.0, None).await.unwrap();
}

#[tokio::test]
async fn every_address_that_is_none_is_named() {
    let endpoints = ["a:1", "a", ":1", "http://a:1", "u@a:1", "a:1/x", "a:99999"];
    let endpoints = endpoints.map(ToOwned::to_owned).to_vec();
    let settings = config::Upstream::new("fleet", Http, endpoints);
    let problems = Upstreams::start(&[settings], None).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.clone()).collect();
    let expected: Vec<_> = (1..7).map(|i| format!("upstream[0].endpoints[{i}]")).collect();
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn an_event_loop_that_ends_takes_nobody_elses_connections_along() {
    for protocol in [Http, Grpc] {
        let fake = Fake::start(protocol).await;
        let (_upstreams, model) = double(&settings(protocol, &[&fake])).await;
        call(&model, 1.0, None).await.unwrap();
        let before = fake.connections();
        for _ in 0..2 {
            let model = model.clone();
            crate::tasks::blocking(move || {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let shard = builder.enable_all().build().unwrap();
                shard.block_on(call(&model, 2.0, None)).unwrap();
            })
            .await;
        }
        let opened = fake.connections();
        assert!(opened >= before + 2, "each event loop has its own");
        call(&model, 3.0, None).await.unwrap();
        assert_eq!(fake.connections(), opened, "the connection of this one still serves");
    }
}
