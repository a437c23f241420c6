//! The admin API of routes, revisions and the file: statuses, bodies, and what is written down.

use std::collections::BTreeSet;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use penstock::config::{
    Arm, Fallback, Problem, Route, Shadow, State, Sticky, Target as Leads, VersionChoice,
};
use penstock::control::{Control, Pins};
use penstock::identity::digest;
use penstock::reload::{Live, Reloader, Source};
use penstock::routing::RoutePlan;
use penstock::snapshot::Routing;
use penstock::traffic::{Incoming, Settings, Target, Traffic};
use penstock::types::{ArmName, Share};
use serde_json::{Value, json};

use super::*;

const KEY: &str = "the-key-of-somebody-who-operates";
const OTHER: &str = "the-key-of-somebody-who-calls";

/// Takes every plan but those with an arm that is broken, whether there are models for it or not.
#[derive(Debug)]
struct Double {
    control: Arc<Control>,
    broken: Mutex<BTreeSet<String>>,
}

impl Target for Double {
    fn prepare<'a>(
        &'a self,
        _: &'a [Arc<RoutePlan>],
        incoming: &'a [Incoming],
        _: Option<&'a Settings>,
    ) -> BoxFuture<'a, Result<(), Vec<Problem>>> {
        let broken = self.broken.lock().unwrap();
        let arms = incoming.iter().flat_map(|coming| &coming.plan.route.arms);
        let problems: Vec<_> = arms
            .filter(|arm| broken.contains(arm.name.as_str()))
            .map(|arm| Problem::new(format!("arm[{}]", arm.name), "does not load"))
            .collect();
        ready(if problems.is_empty() { Ok(()) } else { Err(problems) }).boxed()
    }

    fn look<'a>(
        &'a self,
        _: &'a [Incoming],
        _: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Vec<Problem>> {
        std::future::ready(vec![]).boxed()
    }

    fn needs_load(&self, _: &[Incoming]) -> Vec<String> {
        vec!["floats/2".to_owned()]
    }

    fn commit(&self, revision: u64, plans: &[Arc<RoutePlan>], _: Option<Settings>) {
        let routing = Routing { revision, plans: plans.to_vec(), ..Routing::default() };
        self.control.commit_routing(routing, None);
    }

    fn pin(&self, _: Pins) {}
}

fn name(text: &str) -> ArmName {
    text.parse().unwrap()
}

fn leads(version: u64) -> Leads {
    let version = VersionChoice::Number(version.to_string().parse().unwrap());
    Leads::Local { model: "floats".parse().unwrap(), version }
}

/// Two arms and a shadow.
fn route() -> Route {
    let arm = |text: &str, version, share: &str| Arm {
        name: name(text),
        target: leads(version),
        share: share.parse::<Share>().unwrap(),
        buckets: None,
    };
    Route {
        name: "floats".parse().unwrap(),
        sticky: Sticky::Identity,
        salt: "floats".to_owned(),
        fallback: Fallback::Arm(name("stable")),
        testers: vec![],
        arms: vec![arm("stable", 1, "95%"), arm("canary", 2, "5%")],
        shadows: vec![Shadow {
            name: name("next"),
            target: leads(3),
            sample: Share::ALL,
            max_in_flight: 1,
            max_bytes: 1,
            timeout: LIMIT,
        }],
        log: None,
    }
}

/// A gateway whose routes are in a folder of their own and lead to a double.
struct Desk {
    rig: Rig,
    double: Arc<Double>,
    api: Api,
    admin: Router,
    state: TempDir,
}

impl Desk {
    fn new(more: &str, overlay: bool) -> Self {
        let rig = Rig::start_with(more, |_| {});
        let control = rig.api().control;
        let double = Arc::new(Double { control, broken: Mutex::default() });
        let state = TempDir::new().unwrap();
        let settings = State { path: Some(state.path().to_owned()), overlay, ..State::default() };
        let started = Traffic::start(double.clone(), &settings, vec![route()], String::new());
        let traffic = rig.runtime.block_on(started).unwrap();
        let api = Api { traffic, ..rig.api() };
        Self { admin: admin::router(api.clone()), api, rig, double, state }
    }

    fn with_key(&self, call: &str, body: &str, key: Option<&str>) -> (u16, Value) {
        let (method, path) = call.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path).extension(peer());
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (status, bytes) = self.rig.runtime.block_on(async {
            let answer = self.admin.clone().oneshot(request).await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.into_body().collect().await.unwrap().to_bytes())
        });
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    fn call(&self, call: &str, body: &str) -> (u16, Value) {
        self.with_key(call, body, None)
    }

    /// What a call answers that is carried out.
    fn done(&self, call: &str, body: &str) -> Value {
        let (status, answer) = self.call(call, body);
        assert_eq!(status, 200, "{call}: {answer}");
        answer
    }

    fn share(&self, arm: usize) -> Value {
        self.done("GET /v1/routes/floats", "")["arms"][arm]["share"].clone()
    }

    fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_route_is_shown_with_where_its_arms_lead_and_how_they_stand() {
    let desk = Desk::new("", true);
    let all = desk.done("GET /v1/routes", "");
    assert_eq!((all["revision"].clone(), all["overlay"].clone()), (json!(1), json!(true)));
    let shown = desk.done("GET /v1/routes/floats", "");
    assert_eq!(all["routes"], json!([shown]));
    let arm = |name, version, share, buckets, (state, reason): (&str, &str)| {
        json!({ "name": name, "target": { "model": "floats", "version": version }, "share": share,
                "buckets": [buckets], "state": state, "reason": reason, "requests": 0,
                "fallbacks": 0 })
    };
    let (ready, gone) = (("ready", ""), ("not_ready", "version 2 of model 'floats' is not ready"));
    let expected = json!({
        "name": "floats", "sticky": "identity", "salt": "floats", "fallback": "stable",
        "source": "file", "revision": 1,
        "arms": [arm("stable", "1", "95%", [0, 9500], ready),
                 arm("canary", "2", "5%", [9500, 10_000], gone)],
        "shadows": [{ "name": "next", "sample": "100%", "state": "not_ready",
                      "target": { "model": "floats", "version": "3" } }],
    });
    assert_eq!(shown, expected);
    let report = desk.done("GET /v1/routes/floats/report", "");
    assert_eq!(
        (report["route"].clone(), report["shadows"][0]["name"].clone()),
        (json!("floats"), json!("next"))
    );
    assert_eq!(report["shadows"][0]["lane"]["sampled"], 0, "{report}");
    assert_eq!(desk.done("GET /v1/upstreams", ""), json!({ "upstreams": [] }));
}

#[test]
fn shares_are_set_and_taken_back() {
    let desk = Desk::new("", true);
    let wish = r#"{"shares": {"canary": "10%"}, "expect_revision": 1, "reason": "it is good"}"#;
    let changed = desk.done("PATCH /v1/routes/floats", wish);
    assert_eq!((changed["revision"].clone(), changed["changed"].clone()), (json!(2), json!(true)));
    assert!(!changed["diff"].as_array().unwrap().is_empty(), "{changed}");
    assert_eq!((desk.share(0), desk.share(1)), (json!("90%"), json!("10%")));
    assert_eq!(desk.done("GET /v1/routes/floats", "")["source"], "overlay");

    let restored = desk.done("POST /v1/rollback", r#"{"author": "ada"}"#);
    assert_eq!((restored["revision"].clone(), restored["restored"].clone()), (json!(3), json!(1)));
    assert!(restored["needs_load"].is_array(), "{restored}");
    assert_eq!(desk.share(1), "5%");

    desk.done("PATCH /v1/routes/floats", r#"{"shares": {"canary": "20%"}}"#);
    let reset = desk.done("DELETE /v1/routes/floats/overlay?reason=enough&expect_revision=4", "");
    assert_eq!(reset["revision"], 5);
    assert_eq!(desk.share(1), "5%");

    let listed = desk.done("GET /v1/revisions?limit=4", "");
    let of = |key: &str| -> Vec<Value> {
        listed["revisions"].as_array().unwrap().iter().map(|one| one[key].clone()).collect()
    };
    assert_eq!(of("revision"), [5, 4, 3, 2]);
    assert_eq!(of("cause"), ["reset", "set", "rollback", "set"]);
    assert_eq!(of("author"), ["local", "local", "ada", "local"]);
    assert_eq!(of("reason"), ["enough", "", "", "it is good"]);
    assert!(of("time").iter().all(|time| time.as_str().unwrap().ends_with('Z')));
    let one = desk.done("GET /v1/revisions/2", "");
    assert_eq!(one["routes"][0]["arms"][1]["share"], "10%");
}

#[test]
fn what_was_decided_on_another_revision_is_refused_with_the_current_one() {
    let desk = Desk::new("", true);
    let wishes = [
        ("PATCH /v1/routes/floats", r#"{"shares": {"canary": "9%"}, "expect_revision": 7}"#),
        ("POST /v1/rollback", r#"{"to": 1, "expect_revision": 7}"#),
        ("DELETE /v1/routes/floats/overlay?expect_revision=7", ""),
    ];
    for (call, body) in wishes {
        let (status, answer) = desk.call(call, body);
        assert_eq!((status, answer["revision"].clone()), (409, json!(1)), "{call}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains('7'), "{answer}");
        assert_eq!(answer["stale"], true, "{answer}");
    }
    assert_eq!(desk.share(1), "5%");
    let fixed = Desk::new("", false);
    let (status, answer) = fixed.call("PATCH /v1/routes/floats", r#"{"shares": {"canary": "9%"}}"#);
    assert_eq!((status, answer["revision"].clone()), (409, json!(1)), "{answer}");
}

#[test]
fn wrong_wishes_are_refused_and_change_nothing() {
    let desk = Desk::new("", true);
    for (call, body, status) in [
        ("PATCH /v1/routes/nobody", r#"{"shares": {"canary": "9%"}}"#, 404),
        ("PATCH /v1/routes/no%2Fbody", r#"{"shares": {"canary": "9%"}}"#, 404),
        ("DELETE /v1/routes/nobody/overlay", "", 404),
        ("GET /v1/routes/nobody", "", 404),
        ("GET /v1/routes/nobody/report", "", 404),
        ("DELETE /v1/routes/nobody/report", "", 404),
        ("GET /v1/revisions/99", "", 404),
        ("GET /v1/revisions/x", "", 404),
        ("POST /v1/rollback", r#"{"to": 99}"#, 404),
        ("PATCH /v1/routes/floats", "", 400),
        ("PATCH /v1/routes/floats", r#"{"shares": {}}"#, 400),
        ("PATCH /v1/routes/floats", r#"{"shares": {"nobody": "9%"}}"#, 400),
        ("PATCH /v1/routes/floats", r#"{"shares": {"canary": "9"}}"#, 400),
        ("PATCH /v1/routes/floats", r#"{"shares": {"canary": "9%", "canary": "8%"}}"#, 400),
        ("PATCH /v1/routes/floats", r#"{"shares": {"canary": "60%", "stable": "60%"}}"#, 400),
        ("PATCH /v1/routes/floats", r#"{"shares": {"canary": "9%"}, "force": true}"#, 400),
        ("DELETE /v1/routes/floats/overlay?force=1", "", 400),
        ("GET /v1/revisions?limit=-1", "", 400),
        ("POST /v1/rollback", r#"{"to": "1"}"#, 400),
        ("POST /v1/reload", "", 501),
        ("POST /v1/check", "", 501),
    ] {
        let (found, answer) = desk.call(call, body);
        assert_eq!(found, status, "{call} {body}: {answer}");
        assert!(answer["error"].is_string(), "{call} {body}: {answer}");
    }
    assert_eq!(desk.done("GET /v1/routes", "")["revision"], 1);
    assert_eq!(desk.share(1), "5%");
}

#[test]
fn an_arm_that_does_not_load_is_named() {
    let desk = Desk::new("", true);
    desk.double.broken.lock().unwrap().insert("canary".to_owned());
    let (status, answer) = desk.call("PATCH /v1/routes/floats", r#"{"shares": {"canary": "9%"}}"#);
    assert_eq!(status, 409, "{answer}");
    assert!(answer.get("stale").is_none(), "{answer}");
    assert_eq!(answer["problems"][0]["message"], "does not load", "{answer}");
    assert_eq!(desk.share(1), "5%");
}

#[test]
fn every_change_is_written_down_with_who_and_what_came_of_it() {
    let hash = |key: &str| digest(key.as_bytes());
    let more = format!(
        "[[auth.key]]\nname = 'ops'\nroles = ['operate']\nhashes = ['{}']\n\
         [[auth.key]]\nname = 'app'\nroles = ['predict']\nhashes = ['{}']\n",
        hash(KEY),
        hash(OTHER)
    );
    let desk = Desk::new(&more, true);
    let before = desk.audit().len();
    let wish = r#"{"shares": {"canary": "9%"}, "author": "somebody else", "reason": "try"}"#;
    let set = "PATCH /v1/routes/floats";
    let calls = [
        (set, wish, Some(KEY), 200),
        (set, wish, Some(KEY), 200),
        (set, r#"{"shares": {"nobody": "9%"}}"#, Some(KEY), 400),
        (set, "{", Some(KEY), 400),
        (set, wish, Some(OTHER), 403),
        (set, wish, Some("a-key-that-nobody-has"), 401),
        ("POST /v1/drain", r#"{"on": true}"#, Some(KEY), 200),
        ("POST /v1/breakers/floats/1/trip", "", Some(KEY), 200),
        ("DELETE /v1/routes/floats/report", "", Some(KEY), 200),
        ("GET /v1/routes", "", Some(OTHER), 403),
        ("POST /v1/check", "", Some(KEY), 501),
    ];
    for (call, body, key, status) in calls {
        let (found, answer) = desk.with_key(call, body, key);
        assert_eq!(found, status, "{call} {body}: {answer}");
    }
    let lines = desk.audit().split_off(before);
    let of = |key: &str| -> Vec<&str> {
        lines.iter().map(|line| line[key].as_str().unwrap_or("-")).collect()
    };
    let (accepted, refused) = ("accepted", "refused");
    assert_eq!(
        of("event"),
        [accepted, accepted, refused, refused, refused, refused, accepted, accepted, accepted],
        "{lines:#?}"
    );
    assert_eq!(of("author"), ["ops", "ops", "ops", "ops", "app", "unknown", "ops", "ops", "ops"]);
    assert_eq!(of("reason")[..2], ["try", "try"]);
    assert_eq!((lines[0]["before"].clone(), lines[0]["after"].clone()), (json!(1), json!(2)));
    assert!(lines[1]["after"].is_null(), "what was so already makes no revision: {}", lines[1]);
    assert_eq!(lines[6]["what"], "drain on");
    assert!(lines[7]["what"].as_str().unwrap().contains("floats/1/trip"), "{}", lines[7]);
    assert!(of("from").iter().all(|from| *from == "unix"));
    let text = fs::read_to_string(desk.state.path().join("audit.jsonl")).unwrap();
    for secret in [KEY, OTHER, "a-key-that-nobody-has"] {
        assert!(!text.contains(secret));
    }
}

#[test]
fn a_reload_has_one_line_whatever_comes_of_it() {
    let mut desk = Desk::new("", true);
    let path = desk.state.path().join("penstock.toml");
    let write = |text: &str| fs::write(&path, format!("version = 1\n{text}")).unwrap();
    write("");
    let source = Source::new(&path, |_| {});
    let text = source.read();
    let config = source.config(&text).unwrap();
    let (control, traffic) = (desk.api.control.clone(), desk.api.traffic.clone());
    let live = Live { control, traffic, log: None };
    let reloader = Reloader::new(source, config, text, Box::new(live));
    desk.api.reloader = Some(Arc::new(reloader));
    desk.admin = admin::router(desk.api.clone());
    for (text, status, event, what) in [
        ("[breaker]\nconsecutive = 9\n", 200, "accepted", "apply the file"),
        ("[breaker]\nconsecutive = 9\n", 200, "accepted", "reload /v1/reload"),
        ("[breaker]\nconsecutive = 0\n", 400, "refused", "apply the file"),
        ("[breaker", 400, "refused", "apply the file"),
    ] {
        let count = desk.audit().len();
        write(text);
        let (found, answer) = desk.call("POST /v1/reload", r#"{"reason": "try"}"#);
        assert_eq!(found, status, "{text}: {answer}");
        let lines = desk.audit().split_off(count);
        assert_eq!(lines.len(), 1, "{text}: {lines:#?}");
        assert_eq!((&lines[0]["event"], &lines[0]["reason"]), (&json!(event), &json!("try")));
        assert!(lines[0]["what"].as_str().unwrap().starts_with(what), "{}", lines[0]);
    }
}

#[test]
fn the_status_says_what_a_rollback_would_load() {
    let desk = Desk::new("", true);
    assert_eq!(desk.done("GET /v1/status", "")["rollback"], Value::Null);
    desk.done("PATCH /v1/routes/floats", r#"{"shares": {"canary": "9%"}}"#);
    let expected = json!({ "revision": 1, "needs_load": ["floats/2"] });
    assert_eq!(desk.done("GET /v1/status", "")["rollback"], expected);
    let fixed = Desk::new("", false);
    assert_eq!(fixed.done("GET /v1/status", "")["rollback"], Value::Null);
}

#[test]
fn loads_and_unloads_over_the_data_ports_are_written_down() {
    let desk = Desk::new("", true);
    let (before, http) = (desk.audit().len(), Http::new(desk.api.clone()));
    for (path, status) in [
        ("/v2/repository/models/floats/versions/1/unload", 200),
        ("/v2/repository/models/floats/load", 200),
        ("/v2/repository/models/nobody/load", 404),
    ] {
        let request = Request::post(path).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        assert_eq!(desk.rig.http(&http, request).status, status, "{path}");
    }
    let grpc = Grpc::new(&desk.api).unwrap();
    // Field 2 is the model's name.
    let path = "/inference.GRPCInferenceService/RepositoryModelUnload";
    desk.rig.grpc_status(&grpc, path, b"\x12\x05small");
    let lines = desk.audit().split_off(before);
    let what: Vec<_> = lines.iter().map(|line| line["what"].as_str().unwrap()).collect();
    let expected = ["unload floats/versions/1", "load floats", "load nobody", "unload small"];
    assert_eq!(what, expected);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["accepted", "accepted", "refused", "accepted"]);
}
