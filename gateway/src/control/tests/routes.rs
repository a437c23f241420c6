//! Calls of routes through the whole pipeline, against a scripted engine.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::config::{Arm, Fallback, Route, StaticOutput, Sticky, Target, VersionChoice};
use crate::routing::{RoutePlan, Source};
use crate::snapshot::Routing;
use crate::types::{ArmName, Identity, Role, Share};

fn arm(name: &str, version: VersionChoice, share: &str) -> Arm {
    let model = "m".parse().unwrap();
    Arm {
        name: name.parse().unwrap(),
        target: Target::Local { model, version },
        share: share.parse().unwrap(),
        buckets: None,
    }
}

/// The route `m` with version 1 as `stable` and version 2 as `canary`.
fn route(canary: &str) -> Route {
    let canary: Share = canary.parse().unwrap();
    let stable = Share::of_buckets(Share::ALL.buckets() - canary.buckets()).unwrap();
    Route {
        name: "m".parse().unwrap(),
        sticky: Sticky::Header(HeaderName::from_static("x-user")),
        salt: "s".into(),
        fallback: Fallback::Refuse,
        testers: vec!["qa-*".into()],
        arms: vec![
            arm("stable", VersionChoice::Number(Version(1)), &stable.to_string()),
            arm("canary", VersionChoice::Number(Version(2)), &canary.to_string()),
        ],
        shadows: vec![],
    }
}

impl Rig {
    async fn routed(routes: Vec<Route>) -> Self {
        let rig = Self::new(&[1, 2], "latest = 2").await;
        rig.route(1, routes);
        rig
    }

    fn route(&self, revision: u64, routes: Vec<Route>) {
        let plan = |route| Arc::new(RoutePlan::new(route, None, Source::File).unwrap());
        let plans = routes.into_iter().map(plan).collect();
        self.control.commit_routing(Routing { revision, plans, ..Routing::default() }, None);
    }

    fn call_of(&self, headers: &[(&'static str, &str)]) -> Call {
        let named = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let headers = Arc::new(headers.iter().map(named).collect::<HeaderMap>());
        Call { headers, ..self.call(None) }
    }

    /// The arm that answers a call with these headers.
    async fn arm(&self, headers: &[(&'static str, &str)]) -> Result<String, Rejection> {
        let reply = self.infer(self.call_of(headers)).await?;
        Ok(reply.answer.routed.unwrap().arm().to_owned())
    }

    fn counts(&self, arm: usize) -> (u64, u64) {
        let snapshot = self.pipeline.snapshots.load();
        snapshot.route("m").unwrap().arms[arm].metrics.counts()
    }
}

/// A caller without the rights of an operator.
fn called(name: &str) -> Caller {
    let identity = Identity {
        name: name.to_owned(),
        ..Identity::anonymous([Role::Predict].into_iter().collect())
    };
    Caller { identity: Arc::new(identity), ..Caller::local() }
}

#[tokio::test]
async fn callers_keep_their_arm_and_raising_a_share_moves_nobody_out_of_it() {
    let rig = Rig::routed(vec![route("30%")]).await;
    let (mut before, mut canaries) = (Vec::new(), 0);
    for user in 0..200 {
        let arm = rig.arm(&[("x-user", &user.to_string())]).await.unwrap();
        assert_eq!(rig.arm(&[("x-user", &user.to_string())]).await.unwrap(), arm);
        canaries += usize::from(arm == "canary");
        before.push(arm);
    }
    assert!((35..=85).contains(&canaries), "{canaries} of 200");
    let divided = {
        let snapshot = rig.pipeline.snapshots.load();
        snapshot.route("m").unwrap().plan.divided()
    };
    let plan = RoutePlan::new(route("60%"), Some(&divided), Source::Overlay).unwrap();
    let routing = Routing { revision: 2, plans: vec![Arc::new(plan)], ..Routing::default() };
    rig.control.commit_routing(routing, None);
    for (user, before) in before.iter().enumerate() {
        let arm = rig.arm(&[("x-user", &user.to_string())]).await.unwrap();
        assert!(before == "stable" || arm == "canary", "user {user}");
    }
}

#[tokio::test]
async fn answers_name_the_route_the_arm_and_the_version_behind_it() {
    let rig = Rig::routed(vec![route("0%")]).await;
    let reply = rig.infer(rig.call(None)).await.unwrap();
    assert_eq!((reply.answer.model.as_str(), version_of(&reply)), ("m", 1));
    let routed = reply.answer.routed.unwrap();
    assert_eq!((routed.arm(), routed.is_fallback), ("stable", false));
    // By its number a version is reached past the route.
    let direct = rig.infer(rig.call(Some("2"))).await.unwrap();
    assert_eq!((version_of(&direct), direct.answer.routed), (2, None));
    // A name in the place of the version is an arm.
    let named = rig.infer(rig.call(Some("canary"))).await.unwrap();
    assert_eq!(named.answer.routed.unwrap().arm(), "canary");
    let unknown = rig.infer(rig.call(Some("nobody"))).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_key_of_the_caller_stands_above_what_the_route_reads() {
    let rig = Rig::routed(vec![route("50%")]).await;
    let one = rig.arm(&[("penstock-key", "k"), ("x-user", "a")]).await.unwrap();
    for user in 0..20 {
        let headers = [("penstock-key", "k"), ("x-user", &*user.to_string())];
        assert_eq!(rig.arm(&headers).await.unwrap(), one);
    }
    let mut by_parameter = route("50%");
    by_parameter.sticky = Sticky::Parameter("user".into());
    rig.route(2, vec![by_parameter]);
    let mut call = rig.call(None);
    call.parameters = vec![("user".into(), "k".into())];
    let reply = rig.infer(call).await.unwrap();
    assert_eq!(reply.answer.routed.unwrap().arm(), one);
}

#[tokio::test]
async fn calls_without_a_key_are_divided_one_by_one() {
    let rig = Rig::routed(vec![route("50%")]).await;
    let mut canaries = 0;
    for _ in 0..100 {
        canaries += usize::from(rig.arm(&[]).await.unwrap() == "canary");
    }
    assert!((20..=80).contains(&canaries), "{canaries} of 100");
}

#[tokio::test]
async fn only_testers_and_operators_may_name_an_arm() {
    let rig = Rig::routed(vec![route("0%")]).await;
    assert_eq!(rig.arm(&[("penstock-arm", "canary")]).await.unwrap(), "canary");
    let unknown = rig.arm(&[("penstock-arm", "nobody")]).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::InvalidInput);
    let forced =
        |name: &str| Call { caller: called(name), ..rig.call_of(&[("penstock-arm", "canary")]) };
    assert_eq!(rig.infer(forced("user")).await.unwrap_err().kind(), Kind::PermissionDenied);
    let tester = rig.infer(forced("qa-1")).await.unwrap();
    assert_eq!(tester.answer.routed.unwrap().arm(), "canary");
    rig.route(2, vec![]);
    let no_route = rig.arm(&[("penstock-arm", "canary")]).await.unwrap_err();
    assert_eq!(no_route.kind(), Kind::InvalidInput);
}

#[tokio::test]
async fn an_arm_that_is_not_loaded_is_stood_in_for_and_counts_for_it() {
    let mut route = route("100%");
    route.arms[1] = arm("canary", VersionChoice::Number(Version(9)), "100%");
    let rig = Rig::routed(vec![route.clone()]).await;
    let refused = rig.infer(rig.call(None)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NotReady);
    assert_eq!(refused.to_string(), "arm 'canary' of route 'm' is not ready");
    assert_eq!(rig.counts(1), (1, 0));
    route.fallback = Fallback::Arm("stable".parse::<ArmName>().unwrap());
    rig.route(2, vec![route.clone()]);
    let reply = rig.infer(rig.call(None)).await.unwrap();
    assert_eq!(version_of(&reply), 1);
    let routed = reply.answer.routed.clone().unwrap();
    assert_eq!((routed.arm(), routed.is_fallback), ("stable", true));
    drop(reply.encoded());
    // What was counted before the route changed goes on.
    assert_eq!((rig.counts(0), rig.counts(1)), ((0, 0), (2, 1)));
    // The version comes: the arm answers for itself, without a new revision.
    rig.add(9, "1");
    rig.manifest("latest = 3");
    rig.sync().await;
    assert_eq!(rig.answering_version().await, 9);
}

#[tokio::test]
async fn a_run_that_fails_is_stood_in_for_with_the_same_inputs() {
    let mut route = route("100%");
    route.fallback = Fallback::Arm("stable".parse().unwrap());
    let rig = Rig::routed(vec![route]).await;
    // The call alone, then the probe that tells a broken model from a broken call.
    for _ in 0..2 {
        rig.stub.push(StubStep::Fail(EngineError::new(Fault::Run, "broken")));
    }
    let reply = rig.infer(rig.call(None)).await.unwrap();
    assert_eq!(version_of(&reply), 1);
    assert_eq!(reply.answer.outputs[0].1.data().as_ref(), [7]);
    assert!(reply.answer.routed.as_ref().unwrap().is_fallback);
    drop(reply);
    assert_eq!(rig.counts(1), (1, 1));
}

#[tokio::test]
async fn a_declared_answer_is_repeated_for_every_row() {
    let mut route = route("100%");
    route.arms[1] = arm("canary", VersionChoice::Number(Version(9)), "100%");
    let output = StaticOutput {
        name: "y".into(),
        datatype: "UINT8".into(),
        shape: vec![2],
        data: vec![1.0, 2.0],
    };
    route.fallback = Fallback::Static(vec![output]);
    let rig = Rig::routed(vec![route]).await;
    let mut call = rig.call(None);
    let tensor =
        engine::Tensor::new(engine::DataType::Uint8, vec![3, 1], vec![7; 3].into()).unwrap();
    call.inputs = Inputs::Named(vec![NamedTensor { name: "x".into(), tensor }]);
    let reply = rig.infer(call).await.unwrap();
    let (_, tensor) = &reply.answer.outputs[0];
    assert_eq!((tensor.shape(), tensor.data().as_ref()), (&[3, 2][..], &[1, 2, 1, 2, 1, 2][..]));
    assert_eq!(reply.answer.version, AnsweredBy::Declared);
    assert_eq!(reply.answer.routed.unwrap().arm(), "static");
}

#[tokio::test]
async fn the_callers_own_faults_are_never_stood_in_for() {
    let mut route = route("100%");
    route.fallback = Fallback::Arm("stable".parse().unwrap());
    let rig = Rig::routed(vec![route]).await;
    let call = Call { outputs: vec!["nothing".into()], ..rig.call(None) };
    assert_eq!(rig.infer(call).await.unwrap_err().kind(), Kind::InvalidInput);
    assert_eq!(rig.counts(1), (1, 0));
}
