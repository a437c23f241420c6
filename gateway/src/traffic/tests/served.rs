//! Decisions carried out on models: whether arms fit each other, and upstreams that go.

use std::fs;

use engine::StubEngine;

use super::*;
use crate::config::{Config, Upstream};
use crate::control::Control;
use crate::limits::Limiter;
use crate::models::{Loader, Repository};
use crate::snapshot::SnapshotCell;
use crate::upstream::Upstreams;

/// Versions 1 and 2 of `m` and 1 of `other`, which gives something else.
struct Models {
    _folder: TempDir,
    control: Arc<Control>,
    traffic: Arc<Traffic>,
}

fn upstreams(text: &str) -> Vec<Upstream> {
    crate::config::parse(&format!("version = 1\n{text}"), std::path::Path::new(""))
        .unwrap()
        .upstreams
}

const FLEET: &str = "[[upstream]]\nname = 'fleet'\nendpoints = ['127.0.0.1:1']\n\
                     [upstream.health]\nevery = 'off'\n";

impl Models {
    async fn new(routes: Vec<Route>) -> Self {
        let folder = TempDir::new().unwrap();
        for (model, output) in [("m", "y"), ("other", "z")] {
            let inside = folder.path().join(model);
            for version in ["1", "2"] {
                fs::create_dir_all(inside.join(version)).unwrap();
                fs::write(inside.join(version).join("model.pt"), "1").unwrap();
            }
            let manifest = format!(
                "platform = 'stub'\nmax_batch_size = 4\n[[input]]\nname = 'x'\ndtype = 'UINT8'\n\
                 shape = [-1, 1]\n[[output]]\nname = '{output}'\ndtype = 'UINT8'\n\
                 shape = [-1, 1]\n[versions]\npolicy = 'all'\n"
            );
            fs::write(inside.join("model.toml"), manifest).unwrap();
        }
        let mut config = Config::for_repository(folder.path());
        config.engine.cpu_threads = 1;
        let engines: Vec<Arc<dyn engine::Engine>> = vec![Arc::new(StubEngine::default())];
        let loader = Loader::new(engines, config.engine, config.limits);
        let repository = Repository::open(folder.path()).unwrap();
        let control =
            Arc::new(Control::new(repository, loader, SnapshotCell::new(), config.repository));
        control.sync().await.unwrap();
        let target = Arc::new(Served { control: control.clone() });
        let state = config::State::default();
        let traffic = Traffic::start(target, &state, routes, String::new()).await.unwrap();
        Self { _folder: folder, control, traffic }
    }

    async fn apply(&self, routes: Vec<Route>) -> Result<Outcome, Refused> {
        self.traffic.apply_file(routes, String::new(), None, by()).await
    }

    fn settings(&self, text: &str) -> Settings {
        let breaker = config::Breaker { consecutive: 1, ..config::Breaker::default() };
        let before = self.control.snapshot().routing().upstreams.clone();
        let upstreams = Upstreams::start_with(&upstreams(text), &breaker, Some(&before)).unwrap();
        Settings { limiter: Arc::new(Limiter::default()), breaker, upstreams, log: None }
    }

    async fn reload(&self, routes: Vec<Route>, text: &str) -> Result<Outcome, Refused> {
        let settings = Some(self.settings(text));
        self.traffic.apply_file(routes, String::new(), settings, by()).await
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        let _ended = self.control.close(Duration::from_secs(5));
    }
}

fn to_other(mut route: Route, arm: usize) -> Route {
    let version = VersionChoice::Number(Version(1));
    route.arms[arm].target = config::Target::Local { model: "other".parse().unwrap(), version };
    route
}

#[tokio::test]
async fn an_arm_that_does_not_fit_is_found_whichever_of_them_changed() {
    let models = Models::new(vec![route("a", 500)]).await;
    for changed in [0, 1] {
        let refused = models.apply(vec![to_other(route("a", 500), changed)]).await.unwrap_err();
        let place = ["route[a].arm[stable].version", "route[a].arm[canary].version"][changed];
        assert_eq!(refused.problems.len(), 1, "{refused:?}");
        assert_eq!(refused.problems[0].path, place);
        assert!(refused.problems[0].message.starts_with("does not fit arm '"), "{refused:?}");
    }
    let both = to_other(to_other(route("a", 500), 0), 1);
    models.apply(vec![both.clone()]).await.unwrap();
    // A shadow too, when it is an arm that changes beside it.
    let shadow = config::Shadow {
        name: "next".parse().unwrap(),
        target: both.arms[0].target.clone(),
        sample: Share::ALL,
        max_in_flight: 1,
        max_bytes: 1,
        timeout: Duration::from_secs(1),
    };
    models.apply(vec![Route { shadows: vec![shadow.clone()], ..both }]).await.unwrap();
    let away = Route { shadows: vec![shadow], ..route("a", 500) };
    let refused = models.apply(vec![away]).await.unwrap_err();
    assert!(refused.problems[0].message.contains("shadow 'next'"), "{refused:?}");
}

#[tokio::test]
async fn callers_may_leave_an_arm_that_does_not_fit() {
    // It was so at the start, which refuses nothing.
    let models = Models::new(vec![to_other(route("a", 500), 1)]).await;
    let set = |share| models.traffic.set("a".parse().unwrap(), given(&[("canary", share)]), by());
    set("6%").await.unwrap_err();
    set("0%").await.unwrap();
}

#[tokio::test]
async fn an_upstream_stays_for_as_long_as_a_route_changed_by_hand_names_it() {
    let mut remote = route("a", 500);
    let upstream = config::Target::Upstream {
        upstream: "fleet".into(),
        model: "m".parse().unwrap(),
        version: None,
    };
    remote.arms[1].target = upstream;
    let models = Models::new(vec![route("b", 500)]).await;
    models.reload(vec![remote.clone(), route("b", 500)], FLEET).await.unwrap();
    models.reload(vec![route("b", 500)], FLEET).await.unwrap();
    // Back beside the file, which no longer has that route.
    models.traffic.rollback(None, by()).await.unwrap();
    for routes in [vec![route("b", 500)], vec![route("b", 700)]] {
        let refused = models.reload(routes, "").await.unwrap_err();
        assert_eq!(refused.rejection.kind(), Kind::InvalidInput);
        let problem = &refused.problems[0];
        assert_eq!(problem.path, "route[a].arm[canary].upstream");
        assert!(problem.message.contains("by hand"), "{problem}");
        let snapshot = models.control.snapshot();
        assert!(snapshot.routing().upstreams.get("fleet").is_some());
    }
    models.traffic.drop_overlay("a".parse().unwrap(), by()).await.unwrap();
    models.reload(vec![route("b", 500)], "").await.unwrap();
}
