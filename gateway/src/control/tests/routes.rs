//! Calls of routes through the whole pipeline, against a scripted engine.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::config::{Arm, Fallback, Route, Shadow, StaticOutput, Sticky, Target, VersionChoice};
use crate::models::ServedVersion;
use crate::routing::{RoutePlan, Seed, Source};
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
pub(super) fn route(canary: &str) -> Route {
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
        log: None,
    }
}

impl Rig {
    async fn routed(routes: Vec<Route>) -> Self {
        let rig = Self::new(&[1, 2], "latest = 2").await;
        rig.route(1, routes);
        rig
    }

    pub(super) fn route(&self, revision: u64, routes: Vec<Route>) {
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

/// One output of `size` bytes.
fn declared(size: usize) -> Fallback {
    Fallback::Static(vec![StaticOutput {
        name: "y".into(),
        datatype: "UINT8".into(),
        shape: vec![size],
        data: vec![1.0; size],
    }])
}

impl Rig {
    /// A call whose only input has this shape.
    fn shaped(&self, shape: &[usize]) -> Call {
        let data = vec![7; shape.iter().product()].into();
        let tensor = engine::Tensor::new(engine::DataType::Uint8, shape.to_vec(), data).unwrap();
        let inputs = Inputs::Named(vec![NamedTensor { name: "x".into(), tensor }]);
        Call { inputs, ..self.call(None) }
    }

    fn served(&self, model: &str, version: &str) -> Arc<ServedVersion> {
        self.pipeline.snapshots.load().find(model, Some(version)).unwrap().clone()
    }

    /// Answered and refused calls of a version.
    fn stats(&self, model: &str, version: &str) -> (u64, u64) {
        let served = self.served(model, version);
        (served.stats.success.count(), served.stats.fail.count())
    }

    /// The next call fails alone, and so does the probe that tells a broken model from it.
    fn fail_a_call(&self) {
        for _ in 0..2 {
            self.stub.push(StubStep::Fail(EngineError::new(Fault::Run, "broken")));
        }
    }

    /// Adds a model `n`, like `m` but for what its input and its file say in the end.
    async fn add_other(&self, contract: &str, rest: &str) {
        let folder = self.folder.path().join("n");
        fs::create_dir_all(folder.join("1")).unwrap();
        fs::write(folder.join("1/model.pt"), "1").unwrap();
        let input = "shape = [-1, 1]\n[[output]]";
        let with = format!("shape = [-1, 1]\n{contract}\n[[output]]");
        let manifest = format!("{}{rest}\n", MANIFEST.replace(input, &with));
        fs::write(folder.join("model.toml"), manifest).unwrap();
        self.sync().await;
        assert!(self.pipeline.snapshots.load().find("n", None).is_ok());
    }
}

/// The model `n`.
fn other() -> Target {
    let version = VersionChoice::Number(Version(1));
    Target::Local { model: "n".parse().unwrap(), version }
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
    reply.encoded();
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

#[tokio::test]
async fn a_declared_answer_has_bounds_whatever_a_call_says_of_its_items() {
    let mut route = route("100%");
    route.arms[1] = arm("canary", VersionChoice::Number(Version(9)), "100%");
    route.fallback = declared(4096);
    let rig = Rig::routed(vec![route.clone()]).await;
    let huge = [1_000_000_000_000, 0];
    // The other arm says what a call looks like.
    let refused = rig.infer(rig.shaped(&huge)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InvalidInput);
    assert!(refused.to_string().contains("the model takes [-1, 1]"), "{refused}");
    // Nobody does.
    route.arms[0] = arm("stable", VersionChoice::Number(Version(8)), "0%");
    rig.route(2, vec![route]);
    let refusal = async |shape: &[usize]| rig.infer(rig.shaped(shape)).await.unwrap_err();
    for shape in [&huge[..], &[10_001, 0], &[0, 1]] {
        let refused = refusal(shape).await;
        assert_eq!(refused.kind(), Kind::InvalidInput, "{shape:?}");
        assert!(refused.to_string().contains("from 1 to 10000"), "{refused}");
    }
    assert_eq!(refusal(&[4097, 0]).await.kind(), Kind::TooLarge);
    let most = rig.infer(rig.shaped(&[4096, 0])).await.unwrap();
    assert_eq!(most.answer.outputs[0].1.shape(), [4096, 4096]);
}

#[tokio::test]
async fn a_failed_call_is_the_failure_of_its_version_whoever_answers() {
    let mut route = route("100%");
    route.fallback = declared(1);
    let rig = Rig::routed(vec![route.clone()]).await;
    rig.fail_a_call();
    let reply = rig.infer(rig.call(None)).await.unwrap();
    assert_eq!(reply.answer.version, AnsweredBy::Declared);
    assert_eq!(reply.answer.routed.as_ref().unwrap().arm(), "static");
    reply.encoded();
    assert_eq!((rig.stats("m", "2"), rig.counts(1)), ((0, 1), (1, 1)));
    route.fallback = Fallback::Arm("stable".parse().unwrap());
    let rig = Rig::routed(vec![route]).await;
    rig.fail_a_call();
    rig.infer(rig.call(None)).await.unwrap().encoded();
    assert_eq!((rig.stats("m", "2"), rig.stats("m", "1")), ((0, 1), (1, 0)));
    assert_eq!((rig.counts(0), rig.counts(1)), ((0, 0), (1, 1)));
}

#[tokio::test]
async fn a_fallback_that_fails_is_not_asked_again() {
    let mut route = route("100%");
    route.arms[1] = arm("canary", VersionChoice::Number(Version(9)), "100%");
    route.fallback = Fallback::Arm("stable".parse().unwrap());
    let rig = Rig::routed(vec![route]).await;
    rig.fail_a_call();
    assert_eq!(rig.infer(rig.call(None)).await.unwrap_err().kind(), Kind::EngineFailed);
    assert_eq!((rig.stats("m", "1"), rig.counts(1)), ((0, 1), (1, 1)));
}

#[tokio::test]
async fn a_fallback_gets_the_inputs_as_sent_and_checks_them_itself() {
    let rig = Rig::new(&[], "latest = 1").await;
    let clamps = "contract = { range = [0, 5], action = 'impute' }";
    rig.add_other(clamps, "").await;
    rig.add(1, "1");
    rig.sync().await;
    let mut route = route("100%");
    route.arms[1].target = other();
    route.fallback = Fallback::Arm("stable".parse().unwrap());
    rig.route(1, vec![route.clone()]);
    rig.fail_a_call();
    let reply = rig.infer(rig.call(None)).await.unwrap();
    assert_eq!(reply.answer.outputs[0].1.data().as_ref(), [7]);
    // The other way round: the contract of the fallback holds for what it answers.
    route.arms.swap(0, 1);
    for (arm, share) in route.arms.iter_mut().zip(["0%", "100%"]) {
        arm.share = share.parse().unwrap();
    }
    route.fallback = Fallback::Arm("canary".parse().unwrap());
    rig.route(2, vec![route]);
    rig.fail_a_call();
    let reply = rig.infer(rig.call(None)).await.unwrap();
    assert!(reply.answer.routed.as_ref().unwrap().is_fallback);
    assert_eq!(reply.answer.outputs[0].1.data().as_ref(), [5]);
}

#[tokio::test]
async fn a_caller_reads_why_its_arm_failed_where_the_fallback_cannot_take_the_call() {
    let late = "[deadline]\ndefault = '1s'\nmax = '1s'";
    for (contract, rest) in [("contract = { range = [0, 5] }", ""), ("", late)] {
        let rig = Rig::new(&[2], "latest = 1").await;
        rig.add_other(contract, rest).await;
        let mut route = route("100%");
        route.arms[0].target = other();
        route.fallback = Fallback::Arm("stable".parse().unwrap());
        rig.route(1, vec![route]);
        rig.fail_a_call();
        // Late for the fallback, whose calls may take a second; in time for the arm.
        let arrived = rig.call(None).arrived.checked_sub(Duration::from_secs(2)).unwrap();
        let refused = rig.infer(Call { arrived, ..rig.call(None) }).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::EngineFailed, "{refused}");
        assert_eq!((rig.stats("n", "1"), rig.stats("m", "2")), ((0, 0), (0, 1)));
        assert_eq!(rig.counts(1), (1, 0));
    }
}

#[tokio::test]
async fn a_shadow_checks_calls_itself_and_is_not_to_blame_for_what_it_does_not_take() {
    let rig = Rig::new(&[1, 2], "latest = 2").await;
    rig.add_other("contract = { range = [0, 5] }", "").await;
    let mut route = route("0%");
    route.shadows = vec![Shadow {
        name: "candidate".parse().unwrap(),
        target: other(),
        sample: Share::ALL,
        max_in_flight: 4,
        max_bytes: 1000,
        timeout: Duration::from_secs(5),
    }];
    rig.route(1, vec![route]);
    let reply = rig.infer(rig.call(None)).await.unwrap();
    assert_eq!(reply.answer.outputs[0].1.data().as_ref(), [7]);
    let route = rig.pipeline.snapshots.load().route("m").unwrap().clone();
    let lane = &route.shadows[0].watch.lane;
    for _ in 0..1000 {
        if lane.counts().in_flight == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let counts = lane.counts();
    assert_eq!((counts.sampled, counts.failed, counts.in_flight), (1, 0, 0));
    assert_eq!(counts.dropped.into_iter().collect::<Vec<_>>(), [("unfit", 1)]);
}

#[tokio::test]
async fn each_shadow_sees_what_its_own_sample_says() {
    let mut route = route("0%");
    let samples = ["0%", "30%", "60%"].map(|sample| sample.parse::<Share>().unwrap());
    let shadow = |sample: Share| Shadow {
        name: format!("takes-{}", sample.buckets()).parse().unwrap(),
        // It is enough that they would see a call.
        target: other(),
        sample,
        max_in_flight: 4,
        max_bytes: 1000,
        timeout: Duration::from_secs(5),
    };
    route.shadows = samples.into_iter().map(shadow).collect();
    let rig = Rig::routed(vec![route]).await;
    let keys: Vec<_> = (0..40).map(|index| index.to_string()).collect();
    for key in &keys {
        rig.infer(rig.call_of(&[("penstock-key", key)])).await.unwrap();
    }
    let route = rig.pipeline.snapshots.load().route("m").unwrap().clone();
    let seen: Vec<_> = route.shadows.iter().map(|s| s.watch.lane.counts().sampled).collect();
    let seed = Seed::of("m", "s");
    let expected = samples
        .map(|sample| keys.iter().filter(|key| seed.lot(key.as_bytes()).is_in(sample)).count());
    assert!(expected[0] == 0 && 0 < expected[1] && expected[1] < expected[2], "{expected:?}");
    assert_eq!(seen, expected.map(|count| count as u64));
}

#[tokio::test]
async fn forced_calls_do_not_count_for_the_division_and_keyless_ones_say_so() {
    let rig = Rig::routed(vec![route("100%")]).await;
    for forced in [&[("penstock-arm", "canary")][..], &[("penstock-arm", "stable")]] {
        let reply = rig.infer(rig.call_of(forced)).await.unwrap();
        assert!(!reply.answer.routed.as_ref().unwrap().is_keyless);
    }
    drop(rig.infer(rig.call(Some("canary"))).await.unwrap());
    assert_eq!((rig.counts(0), rig.counts(1)), ((0, 0), (0, 0)));
    let is_keyless = async |headers| {
        let reply = rig.infer(rig.call_of(headers)).await.unwrap();
        reply.answer.routed.unwrap().is_keyless
    };
    assert!(is_keyless(&[]).await);
    assert!(!is_keyless(&[("x-user", "a")]).await);
    assert!(!is_keyless(&[("penstock-key", "a")]).await);
    assert_eq!(rig.counts(1), (3, 0));
    // A route that keeps nobody has nothing to say.
    rig.route(2, vec![Route { sticky: Sticky::Off, ..route("100%") }]);
    assert!(!is_keyless(&[]).await);
}

#[tokio::test]
async fn an_arm_without_callers_is_the_testers_own_however_it_is_named() {
    let rig = Rig::routed(vec![route("0%")]).await;
    let named = |name: &str, version| Call { caller: called(name), ..rig.call(Some(version)) };
    let refused = rig.infer(named("user", "canary")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::PermissionDenied);
    assert_eq!(version_of(&rig.infer(named("qa-1", "canary")).await.unwrap()), 2);
    assert_eq!(version_of(&rig.infer(named("user", "stable")).await.unwrap()), 1);
    // A label is a name of the version, with or without a route.
    let mut labelled = route("0%");
    labelled.arms[1].target = Target::Local {
        model: "m".parse().unwrap(),
        version: VersionChoice::Label("canary".into()),
    };
    rig.route(2, vec![labelled]);
    let not_there = rig.infer(named("user", "canary")).await.unwrap_err();
    assert_eq!(not_there.kind(), Kind::NotReady);
}

#[tokio::test]
async fn a_call_that_names_two_arms_is_refused() {
    let rig = Rig::routed(vec![route("10%")]).await;
    let both = |version, arm: &str| {
        let call = rig.call_of(&[("penstock-arm", arm)]);
        Call { version: Some(String::from(version)), ..call }
    };
    for (version, arm) in [("canary", "stable"), ("1", "stable"), ("nobody", "canary")] {
        let refused = rig.infer(both(version, arm)).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::InvalidInput, "{version} {arm}");
    }
    assert_eq!(version_of(&rig.infer(both("canary", "canary")).await.unwrap()), 2);
}
