//! Configurations in force in a gateway without models.

use std::path::Path;

use http::{HeaderMap, HeaderValue};
use tempfile::TempDir;

use super::*;
use crate::config;
use crate::control::Control;
use crate::error::Kind;
use crate::limits::{Demand, Limiter};
use crate::models::{Loader, Repository};
use crate::snapshot::{Routing, SnapshotCell};
use crate::traffic::{Served, Traffic};
use crate::types::Caller;

struct Gateway {
    folder: TempDir,
    snapshots: SnapshotCell,
    text: Arc<Mutex<String>>,
    reloader: Reloader,
}

impl Gateway {
    async fn new(start: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let text = Arc::new(Mutex::new(String::new()));
        let held = text.clone();
        *text.lock().unwrap() = format!("{START}{start}");
        let source = Source::of(move || Ok(held.lock().unwrap().clone().into_bytes()));
        let found = source.read();
        let config = source.config(&found).unwrap();
        let snapshots = SnapshotCell::new();
        let loader = Loader::new(vec![], config.engine.clone(), config.limits.clone());
        let repository = Repository::open(folder.path()).unwrap();
        let settings = config.repository.clone();
        let control = Arc::new(Control::new(repository, loader, snapshots.clone(), settings));
        let limiter = Limiter::start(&config.rates, None).unwrap();
        control.commit_routing(Routing::default(), Some(limiter));
        let target = Arc::new(Served { control: control.clone() });
        let state = config::State {
            path: Some(folder.path().join("data/state")),
            is_needed: false,
            ..config::State::default()
        };
        let traffic = Traffic::start(target, &state, vec![], String::new()).await.unwrap();
        let reloader =
            Reloader::new(source, config, found, Box::new(Live { control, traffic, log: None }));
        Self { folder, snapshots, text, reloader }
    }

    async fn reload(&self, text: &str) -> Result<Reloaded, Vec<Problem>> {
        *self.text.lock().unwrap() = format!("{START}{text}");
        self.reloader.reload(&Asked::by_signal()).await
    }
}

/// One call from its head to its end, under one limiter.
async fn call(limiter: &Limiter, team: &'static str) -> Result<(), Kind> {
    let mut headers = HeaderMap::new();
    headers.insert("x-team", HeaderValue::from_static(team));
    let mut caller = Caller::local();
    limiter.mark(&mut caller, &headers);
    limiter.at_head(&caller).await.map_err(|rejection| rejection.kind())?;
    let demand = Demand { caller: &caller, model: "m", rows: 1, bytes: 1 };
    limiter.admit(&demand).await.map(drop).map_err(|rejection| rejection.kind())
}

const BY_TEAM: &str = "[[rate_limit]]\nname = 'teams'\nkey = 'header:x-team'\nrate = '1/h'\n";

#[tokio::test]
async fn changing_a_file_gives_nobody_a_fresh_allowance() {
    let gateway = Gateway::new(BY_TEAM).await;
    assert_eq!(call(&gateway.snapshots.limiter(), "a").await, Ok(()));
    // Another header before that of the rule: the callers' marks are in another order.
    let other = "[[quota]]\nname = 'q'\nkey = 'header:x-job'\nmax_in_flight = 9\n\
                 [[rate_limit]]\nname = 'jobs'\nkey = 'header:x-job'\nrate = '9/h'\n";
    let done = gateway.reload(&format!("{other}{BY_TEAM}")).await.unwrap();
    assert_eq!(done.diff, ["rate_limit.jobs: added", "quota.q: added"]);
    // No route has changed.
    assert_eq!(done.revision, gateway.snapshots.load().routing().revision);
    let now = gateway.snapshots.limiter();
    assert_eq!(call(&now, "a").await, Err(Kind::RateLimited));
    assert_eq!(call(&now, "b").await, Ok(()));
}

#[tokio::test]
async fn a_call_that_came_before_a_reload_meets_what_it_came_under() {
    let gateway = Gateway::new("").await;
    let before = gateway.snapshots.limiter();
    gateway.reload(BY_TEAM).await.unwrap();
    for _ in 0..3 {
        assert_eq!(call(&before, "a").await, Ok(()));
    }
    let now = gateway.snapshots.limiter();
    assert_eq!(call(&now, "a").await, Ok(()), "nothing of those was counted");
    assert_eq!(call(&now, "a").await, Err(Kind::RateLimited));
}

#[tokio::test]
async fn limits_that_cannot_be_had_leave_everything_as_it_was() {
    let gateway = Gateway::new(BY_TEAM).await;
    let before = gateway.snapshots.limiter();
    let missing = Path::new("/nonexistent/secret").display().to_string();
    let shared = format!(
        "[breaker]\nconsecutive = 9\n[redis]\npassword_file = '{missing}'\n\
         [[rate_limit]]\nname = 'shared'\nkey = 'tenant'\nrate = '1/s'\nstore = 'redis'\n"
    );
    let problems = gateway.reload(&shared).await.unwrap_err();
    assert!(problems[0].path == "redis" && problems[0].message.contains(&missing), "{problems:?}");
    assert!(Arc::ptr_eq(&before, &gateway.snapshots.limiter()));
    assert_eq!(gateway.reloader.status().problems, problems);
}

/// A route to another server, which nothing is loaded for.
const ROUTE: &str = "[[upstream]]\nname = 'fleet'\nendpoints = ['127.0.0.1:9']\n\
                     [[route]]\nname = 'digits'\n\
                     [[route.arm]]\nname = 'stable'\nupstream = 'fleet'\nmodel = 'm'\n";

fn audit(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_first_route_that_comes_with_a_reload_is_kept_with_what_was_before() {
    let gateway = Gateway::new("").await;
    let state = gateway.folder.path().join("data/state");
    gateway.reload("[breaker]\nconsecutive = 9\n").await.unwrap();
    assert!(!state.exists(), "nothing needs it yet");
    let done = gateway.reload(ROUTE).await.unwrap();
    assert_eq!(done.revision, 2);
    for number in ["00000001", "00000002"] {
        assert!(state.join(format!("revisions/{number}.json")).exists(), "{number}");
    }
    assert_eq!(audit(&state).len(), 1);
    let Gateway { folder, reloader, .. } = gateway;
    drop(reloader);
    let settings = config::State { path: Some(state), is_needed: true, ..config::State::default() };
    let store = crate::revisions::Store::open(&settings).unwrap();
    assert_eq!(store.newest().unwrap().unwrap().number, 2);
    drop(folder);
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_used_refuses_the_change_and_says_so() {
    let gateway = Gateway::new("").await;
    let blocked = gateway.folder.path().join("data");
    std::fs::write(&blocked, "no folder").unwrap();
    let problems = gateway.reload(ROUTE).await.unwrap_err();
    assert_eq!(problems[0].path, "state.path");
    assert!(problems[0].message.contains("data/state: "), "{problems:?}");
    assert_eq!(gateway.snapshots.load().routing().plans.len(), 0);
    std::fs::remove_file(blocked).unwrap();
    assert_eq!(gateway.reload(ROUTE).await.unwrap().revision, 2);
}

#[tokio::test]
async fn a_file_that_nobody_asks_for_is_refused_in_the_audit_log_once() {
    let gateway = Gateway::new(ROUTE).await;
    gateway.reload(&ROUTE.replace("'stable'", "'other'")).await.unwrap();
    let state = gateway.folder.path().join("data/state");
    let before = audit(&state).len();
    let missing = "[[route]]\nname = 'a'\n[[route.arm]]\nname = 'x'\nmodel = 'm'\nversion = '7'\n";
    *gateway.text.lock().unwrap() = format!("{START}{missing}");
    for (asked, lines) in [
        (Asked::by_file(), 1),
        (Asked::by_file(), 1),
        (Asked::by_signal(), 2),
        (Asked::by_file(), 2),
    ] {
        gateway.reloader.reload(&asked).await.unwrap_err();
        assert_eq!(audit(&state).len(), before + lines, "{asked:?}");
    }
}

#[tokio::test]
async fn a_preview_tells_what_is_not_there_and_loads_nothing() {
    let gateway = Gateway::new("").await;
    let arm = |rest: &str| {
        format!("{START}[[route]]\nname = 'a'\n[[route.arm]]\nname = 'x'\nmodel = 'm'\n{rest}")
    };
    let model = gateway.folder.path().join("m");
    std::fs::create_dir_all(model.join("1")).unwrap();
    let manifest = "platform = 'identity'\nmax_batch_size = 8\n[[input]]\nname = 'x'\n\
                    dtype = 'FP32'\nshape = [-1, 2]\n[[output]]\nname = 'x'\n\
                    dtype = 'FP32'\nshape = [-1, 2]\n[labels]\nstable = 1\n";
    std::fs::write(model.join("model.toml"), manifest).unwrap();
    for (version, problem) in [
        ("1", None),
        ("stable", None),
        ("7", Some("m/7 does not serve: the folder has no version 7")),
        ("canary", Some("m/canary does not serve: the model has no label 'canary'")),
    ] {
        let preview = gateway.reloader.preview(&arm(&format!("version = '{version}'\n"))).await;
        let told: Vec<_> = preview.problems.iter().map(|found| found.message.as_str()).collect();
        assert_eq!(told, problem.into_iter().collect::<Vec<_>>(), "{version}");
        if problem.is_none() {
            assert_eq!(preview.diff, [format!("route 'a': added: x 100% (m/{version})")]);
        } else {
            assert_eq!(preview.problems[0].path, "route[a].arm[x].version");
        }
    }
    assert!(gateway.snapshots.load().model("m").is_none());
}
