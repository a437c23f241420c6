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
use crate::snapshot::SnapshotCell;
use crate::traffic::{Served, Traffic};
use crate::types::Caller;

struct Gateway {
    _folder: TempDir,
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
        control.commit_limiter(Limiter::start(&config.rates, None).unwrap());
        let target = Arc::new(Served { control: control.clone() });
        let state = config::State::default();
        let traffic = Traffic::start(target, &state, vec![], String::new()).await.unwrap();
        let reloader = Reloader::new(source, config, found, Box::new(Live { control, traffic }));
        Self { _folder: folder, snapshots, text, reloader }
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
