//! Routes under changes, faults and restarts.

use std::collections::{BTreeSet, HashMap};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::config::{Arm, Fallback, Sticky, VersionChoice};
use crate::revisions::{Fault, Step};
use crate::routing::{RoutePlan, Source};
use crate::types::{BUCKETS, Version};

mod laws;
mod served;

pub(super) fn arm(name: &str, version: u64, buckets: u16) -> Arm {
    Arm {
        name: name.parse().unwrap(),
        target: config::Target::Local {
            model: "m".parse().unwrap(),
            version: VersionChoice::Number(Version(version)),
        },
        share: Share::of_buckets(buckets).unwrap(),
        buckets: None,
    }
}

/// Two arms, versions 1 and 2 of a model.
fn route(name: &str, canary: u16) -> Route {
    Route {
        name: name.parse().unwrap(),
        sticky: Sticky::Off,
        salt: name.to_owned(),
        fallback: Fallback::Refuse,
        testers: vec![],
        arms: vec![arm("stable", 1, BUCKETS - canary), arm("canary", 2, canary)],
        shadows: vec![],
        log: None,
    }
}

/// Notes what it is told; versions named in `broken` cannot be loaded.
#[derive(Debug, Default)]
struct Double {
    broken: Mutex<BTreeSet<String>>,
    loaded: Mutex<BTreeSet<String>>,
    committed: Mutex<Vec<(u64, Vec<Arc<RoutePlan>>)>>,
    pins: Mutex<Pins>,
    /// Loads of this version wait until they are let go.
    slow: Mutex<Option<String>>,
    begun: Notify,
    go: Notify,
}

impl Double {
    fn named(incoming: &[Incoming]) -> Vec<(String, String)> {
        let named = |coming: &Incoming| {
            let name = coming.plan.route.name.clone();
            let arms = coming.arms.iter().map(|index| coming.plan.route.arms[*index].clone());
            arms.map(|arm| (format!("route[{name}].arm[{}]", arm.name), target_text(&arm.target)))
                .collect::<Vec<_>>()
        };
        incoming.iter().flat_map(named).collect()
    }

    fn break_version(&self, name: &str) {
        self.broken.lock().unwrap().insert(name.to_owned());
        self.loaded.lock().unwrap().remove(name);
    }
}

impl Target for Double {
    fn prepare<'a>(
        &'a self,
        _: &'a [Arc<RoutePlan>],
        incoming: &'a [Incoming],
        _: Option<&'a Settings>,
    ) -> BoxFuture<'a, Result<(), Vec<Problem>>> {
        let broken = self.broken.lock().unwrap().clone();
        let named = Self::named(incoming);
        let problems: Vec<_> = named
            .iter()
            .filter(|(_, version)| broken.contains(version))
            .map(|(path, version)| Problem::new(path, format!("{version} is broken")))
            .collect();
        if problems.is_empty() {
            self.loaded.lock().unwrap().extend(named.into_iter().map(|(_, version)| version));
        }
        let slow = self.slow.lock().unwrap().clone();
        let waits = slow.is_some_and(|slow| Self::named(incoming).iter().any(|(_, v)| *v == slow));
        async move {
            if waits {
                self.begun.notify_one();
                self.go.notified().await;
            }
            if problems.is_empty() { Ok(()) } else { Err(problems) }
        }
        .boxed()
    }

    fn look<'a>(
        &'a self,
        _: &'a [Incoming],
        _: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Vec<Problem>> {
        std::future::ready(vec![]).boxed()
    }

    fn needs_load(&self, incoming: &[Incoming]) -> Vec<String> {
        let loaded = self.loaded.lock().unwrap();
        let named: BTreeSet<_> = Self::named(incoming).into_iter().map(|(_, v)| v).collect();
        named.into_iter().filter(|version| !loaded.contains(version)).collect()
    }

    fn commit(&self, revision: u64, plans: &[Arc<RoutePlan>], _: Option<Settings>) {
        self.committed.lock().unwrap().push((revision, plans.to_vec()));
    }

    fn pin(&self, pins: Pins) {
        *self.pins.lock().unwrap() = pins;
    }
}

struct Rig {
    folder: TempDir,
    settings: config::State,
    target: Arc<Double>,
    traffic: Arc<Traffic>,
}

impl Rig {
    async fn new(routes: Vec<Route>) -> Self {
        let folder = TempDir::new().unwrap();
        let path = Some(folder.path().to_owned());
        let settings = config::State { path, ..config::State::default() };
        let target = Arc::new(Double::default());
        let traffic = Traffic::start(target.clone(), &settings, routes, "h1".into()).await.unwrap();
        Self { folder, settings, target, traffic }
    }

    /// Another process with the same folder and this file.
    async fn restart(self, routes: Vec<Route>) -> Self {
        let Self { folder, settings, traffic, .. } = self;
        drop(Arc::into_inner(traffic).expect("no change is under way"));
        let target = Arc::new(Double::default());
        let traffic = Traffic::start(target.clone(), &settings, routes, "h2".into()).await.unwrap();
        Self { folder, settings, target, traffic }
    }

    async fn set(&self, route: &str, shares: &[(&str, &str)]) -> Result<Outcome, Refused> {
        self.traffic.set(route.parse().unwrap(), given(shares), by()).await
    }

    async fn apply(&self, routes: Vec<Route>) -> Result<Outcome, Refused> {
        self.traffic.apply_file(routes, "h2".into(), None, by()).await
    }

    /// Shares as callers meet them.
    fn shares(&self, route: &str) -> Vec<String> {
        let committed = self.target.committed.lock().unwrap();
        let (number, plans) = committed.last().unwrap();
        let current = self.traffic.current();
        assert_eq!((*number, plans), (current.number, &current.plans));
        let plan = current.plan(route).into_iter().flat_map(|plan| plan.route.arms.clone());
        plan.map(|arm| arm.share.to_string()).collect()
    }

    fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn given(shares: &[(&str, &str)]) -> BTreeMap<ArmName, Share> {
    shares.iter().map(|(arm, share)| (arm.parse().unwrap(), share.parse().unwrap())).collect()
}

fn by() -> By {
    By { author: "ada".into(), from: "test".into(), reason: "why".into(), ..By::default() }
}

fn expecting(revision: u64) -> By {
    By { expect_revision: Some(revision), ..by() }
}

#[tokio::test]
async fn a_share_is_set_beside_the_file_as_a_revision_with_its_diff() {
    let rig = Rig::new(vec![route("a", 500), route("b", 500)]).await;
    let outcome = rig.set("a", &[("canary", "10%")]).await.unwrap();
    assert_eq!((outcome.revision, outcome.changed), (2, true));
    let expected = [
        "route 'a': stable 95% -> 90%",
        "route 'a': canary 5% -> 10%",
        "route 'a': 5% of its callers change arms",
        "route 'a': differs from the file now",
    ];
    assert_eq!(outcome.diff, expected);
    assert_eq!(rig.shares("a"), ["90%", "10%"]);
    let current = rig.traffic.current();
    assert_eq!((current.author.as_str(), current.reason.as_str()), ("ada", "why"));
    assert_eq!(current.plan("a").unwrap().source, Source::Overlay);
    assert_eq!(current.overlay["a"].file, Some(route("a", 500)));
    let same = rig.set("a", &[("canary", "10%")]).await.unwrap();
    assert_eq!((same.revision, same.changed), (2, false));
    // Who sets what the file says gives the route back to it.
    let back = rig.set("a", &[("canary", "5%")]).await.unwrap();
    assert_eq!(back.diff.last().unwrap(), "route 'a': as the file says again");
    assert!(rig.traffic.current().overlay.is_empty());
}

#[tokio::test]
async fn what_was_set_by_hand_outlives_restarts_until_the_file_says_otherwise_of_that_route() {
    let rig = Rig::new(vec![route("a", 500), route("b", 500)]).await;
    rig.set("a", &[("canary", "10%")]).await.unwrap();
    let rig = rig.restart(vec![route("a", 500), route("b", 500)]).await;
    assert_eq!(rig.traffic.current().number, 2);
    assert_eq!(rig.shares("a"), ["90%", "10%"]);
    let outcome = rig.apply(vec![route("a", 500), route("b", 700)]).await.unwrap();
    assert_eq!(rig.shares("a"), ["90%", "10%"]);
    assert!(outcome.diff.iter().all(|line| line.starts_with("route 'b'")), "{:?}", outcome.diff);
    let outcome = rig.apply(vec![route("a", 800), route("b", 700)]).await.unwrap();
    assert_eq!(rig.shares("a"), ["92%", "8%"]);
    assert!(outcome.diff[0].contains("by hand is dropped"), "{:?}", outcome.diff);
    rig.set("a", &[("canary", "1%")]).await.unwrap();
    // The same over a restart.
    let rig = rig.restart(vec![route("a", 900)]).await;
    let current = rig.traffic.current();
    assert_eq!((&current.cause, current.number), (&Cause::Start, 6));
    assert_eq!(rig.shares("a"), ["91%", "9%"]);
    assert!(current.diff.contains(&"route 'b': removed".to_owned()), "{:?}", current.diff);
}

#[tokio::test]
async fn a_rollback_brings_back_routes_and_ranges_exactly_as_a_new_revision() {
    let rig = Rig::new(vec![route("a", 500), route("gone", 100)]).await;
    for share in ["30%", "10%", "20%"] {
        rig.set("a", &[("canary", share)]).await.unwrap();
    }
    let wanted = rig.traffic.current();
    rig.apply(vec![route("a", 700), route("new", 100)]).await.unwrap();
    let outcome = rig.traffic.rollback(None, by()).await.unwrap();
    assert_eq!((outcome.revision, outcome.restored), (6, Some(4)));
    let current = rig.traffic.current();
    let divided = |revision: &Revision| -> Vec<_> {
        revision.plans.iter().map(|p| (p.route.clone(), p.ranges.clone())).collect()
    };
    assert_eq!(divided(&current), divided(&wanted));
    let held: Vec<_> = current.overlay.keys().map(ModelName::as_str).collect();
    assert_eq!(held, ["a", "gone", "new"]);
    // It holds against the file it was made against, and over a restart.
    let rig = rig.restart(vec![route("a", 700), route("new", 100)]).await;
    assert_eq!(divided(&rig.traffic.current()), divided(&wanted));
    assert_eq!(rig.traffic.current().number, 6);
    let outcome = rig.traffic.drop_overlay("new".parse().unwrap(), by()).await.unwrap();
    assert_eq!(outcome.diff.len(), 1, "{:?}", outcome.diff);
    assert_eq!(rig.shares("new"), ["99%", "1%"]);
    let unknown = rig.traffic.drop_overlay("none".parse().unwrap(), by()).await.unwrap_err();
    assert_eq!(unknown.rejection.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_stale_revision_is_refused_with_the_current_one() {
    let rig = Rig::new(vec![route("a", 500)]).await;
    let set = |share, by| rig.traffic.set("a".parse().unwrap(), given(&[("canary", share)]), by);
    set("6%", expecting(1)).await.unwrap();
    let refused = set("7%", expecting(1)).await.unwrap_err();
    assert_eq!((refused.rejection.kind(), refused.revision), (Kind::Conflict, 2));
    assert_eq!(refused.to_string(), "revision 2 is current, not 1");
    // Of many at once that expect the same, one gets it.
    let all = ["8%", "9%", "10%", "11%"].map(|share| set(share, expecting(2)));
    let results = futures_util::future::join_all(all).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
}

#[tokio::test]
async fn without_an_overlay_the_file_is_the_only_source() {
    let mut rig = Rig::new(vec![route("a", 500)]).await;
    rig.set("a", &[("canary", "10%")]).await.unwrap();
    rig.settings.overlay = false;
    let rig = rig.restart(vec![route("a", 500)]).await;
    assert_eq!(rig.shares("a"), ["95%", "5%"]);
    assert!(rig.traffic.current().diff[0].contains("state.overlay is off"));
    let set = rig.set("a", &[("canary", "10%")]).await.unwrap_err();
    let back = rig.traffic.rollback(Some(2), by()).await.unwrap_err();
    assert_eq!([set.rejection.kind(), back.rejection.kind()], [Kind::Conflict; 2]);
    rig.apply(vec![route("a", 600)]).await.unwrap();
}

#[tokio::test]
async fn an_arm_that_cannot_serve_refuses_what_sends_callers_to_it_and_nothing_else() {
    let rig = Rig::new(vec![route("a", 500), route("b", 500)]).await;
    rig.target.break_version("m/2");
    let refused = rig.set("a", &[("canary", "10%")]).await.unwrap_err();
    assert_eq!(refused.rejection.kind(), Kind::Conflict);
    assert_eq!(refused.problems[0].path, "route[a].arm[canary]");
    // Whoever takes callers from a broken arm is not held up by it.
    rig.set("a", &[("canary", "0%")]).await.unwrap();
    rig.target.break_version("m/3");
    let mut dangling = route("c", 0);
    dangling.arms[0] = arm("stable", 3, BUCKETS);
    let refused = rig.apply(vec![route("a", 500), route("b", 600), dangling]).await.unwrap_err();
    assert_eq!(refused.rejection.kind(), Kind::InvalidInput);
    assert_eq!(rig.shares("b"), ["95%", "5%"]);
    let refused = rig.traffic.rollback(Some(1), by()).await.unwrap_err();
    assert_eq!((refused.rejection.kind(), refused.revision), (Kind::Conflict, 2));
}

#[tokio::test]
async fn an_arm_that_cannot_serve_is_no_reason_not_to_start() {
    let target = Arc::new(Double::default());
    target.break_version("m/2");
    let settings = config::State::default();
    let traffic = Traffic::start(target.clone(), &settings, vec![route("a", 500)], "h".into());
    assert_eq!(traffic.await.unwrap().current().plans.len(), 1);
}

#[tokio::test]
async fn every_change_and_every_refusal_is_in_the_audit_log() {
    let rig = Rig::new(vec![route("a", 500)]).await;
    rig.set("a", &[("canary", "10%")]).await.unwrap();
    rig.set("a", &[("other", "10%")]).await.unwrap_err();
    rig.traffic.store.set_fault(Fault::Fails(Step::Sync));
    let failed = rig.traffic.rollback(Some(1), by()).await.unwrap_err();
    assert_eq!(failed.rejection.kind(), Kind::Internal);
    let lines = rig.audit();
    let words: Vec<_> = lines
        .iter()
        .map(|line| (line["event"].as_str().unwrap(), line["what"].as_str().unwrap()))
        .collect();
    let expected = [
        ("accepted", "start with the file's routes"),
        ("accepted", "set a canary=10%"),
        ("refused", "set a other=10%"),
        ("accepted", "roll back to 1"),
        ("failed", "roll back to 1"),
    ];
    assert_eq!(words, expected);
    assert_eq!((&lines[1]["before"], &lines[1]["after"]), (&1.into(), &2.into()));
    assert!(lines[2]["problem"].as_str().unwrap().contains("no arm 'other'"));
}

#[tokio::test]
async fn a_change_goes_on_when_whoever_asked_goes_away() {
    let rig = Rig::new(vec![route("a", 500)]).await;
    let asked = rig.set("a", &[("canary", "10%")]).now_or_never();
    assert!(asked.is_none(), "the disk is slower than that");
    // The next change waits for its turn behind the first.
    rig.set("a", &[("canary", "11%")]).await.unwrap();
    assert_eq!(rig.traffic.current().number, 3);
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_the_old_split_or_the_new_and_never_a_third() {
    let file = || vec![route("a", 500), route("b", 500)];
    for step in [Step::Create, Step::Write, Step::Sync, Step::Rename, Step::SyncFolder, Step::Done]
    {
        for crash in [Fault::Crashes(step), Fault::Fails(step)] {
            let rig = Rig::new(file()).await;
            rig.set("a", &[("canary", "7%")]).await.unwrap();
            let old = rig.traffic.current();
            rig.traffic.store.set_fault(crash);
            rig.set("a", &[("canary", "70%")]).await.unwrap_err();
            assert_eq!(rig.shares("a"), ["93%", "7%"], "until the process ends");
            let rig = rig.restart(file()).await;
            let current = rig.traffic.current();
            let is_new = matches!(crash, Fault::Crashes(Step::SyncFolder | Step::Done));
            assert_eq!(rig.shares("a")[1], if is_new { "70%" } else { "7%" }, "{crash:?}");
            assert_eq!(current.plan("b"), old.plan("b"));
            assert!(is_new || current == old);
        }
    }
}

fn pins(revisions: &[(u64, &Revision)]) -> Pins {
    let mut pins = Pins::default();
    for (number, revision) in revisions {
        revision.plans.iter().for_each(|plan| pins.add(*number, plan));
    }
    pins
}

#[tokio::test(start_paused = true)]
async fn the_previous_revision_stays_warm_for_its_time_or_until_memory_is_short() {
    // Paused clocks do not wait for disks.
    let rig = Rig::new(vec![route("a", 500)]).await;
    let first = rig.traffic.current();
    let mut next = route("a", 500);
    next.arms[1] = arm("canary", 3, 500);
    rig.apply(vec![next.clone()]).await.unwrap();
    let second = rig.traffic.current();
    let both = pins(&[(1, &first), (2, &second)]);
    rig.traffic.release(false).await;
    assert_eq!(*rig.target.pins.lock().unwrap(), both);
    tokio::time::advance(rig.settings.keep_warm).await;
    rig.traffic.release(false).await;
    assert_eq!(*rig.target.pins.lock().unwrap(), pins(&[(2, &second)]));
    rig.target.loaded.lock().unwrap().remove("m/2");
    let preview = rig.traffic.preview_rollback(None).await.unwrap();
    assert_eq!((preview.needs_load, preview.restored), (vec!["m/2".to_owned()], Some(1)));
    assert_eq!(rig.traffic.current().number, 2);
    let outcome = rig.traffic.rollback(None, by()).await.unwrap();
    assert_eq!(outcome.needs_load, ["m/2"]);
    // The way back again is warm, until memory is short.
    let third = rig.traffic.current();
    assert_eq!(*rig.target.pins.lock().unwrap(), pins(&[(2, &second), (3, &third)]));
    rig.traffic.release(true).await;
    assert_eq!(*rig.target.pins.lock().unwrap(), pins(&[(3, &third)]));
}

#[tokio::test]
async fn a_change_that_is_refused_pins_nothing() {
    let rig = Rig::new(vec![route("a", 500)]).await;
    let before = rig.target.pins.lock().unwrap().clone();
    rig.target.break_version("m/9");
    let mut next = route("a", 500);
    next.arms[1] = arm("canary", 9, 500);
    rig.target.pin(Pins::default());
    rig.apply(vec![next]).await.unwrap_err();
    assert_eq!(*rig.target.pins.lock().unwrap(), before);
}

#[tokio::test]
async fn a_preview_says_what_would_change_and_changes_nothing() {
    let rig = Rig::new(vec![route("a", 500)]).await;
    let mut next = route("a", 500);
    next.salt = "other".into();
    let lines = rig.traffic.preview(vec![next, route("b", 1)], &[]).await.unwrap();
    let expected = [
        "route 'a': salt 'a' -> 'other'",
        "route 'a': warning: all callers are divided anew",
        "route 'b': added: stable 99.99% (m/1), canary 0.01% (m/2)",
    ];
    assert_eq!(lines, expected);
    assert_eq!(rig.traffic.current().number, 1);
    let mut wrong = route("a", 500);
    wrong.arms.pop();
    assert_eq!(rig.traffic.preview(vec![wrong], &[]).await.unwrap_err()[0].path, "route[a]");
}

#[tokio::test]
async fn a_thousand_routes_are_applied_and_rolled_back_in_one_go() {
    let routes = |canary: u16| (0..1000).map(|n| route(&format!("r{n}"), canary)).collect();
    let rig = Rig::new(routes(500)).await;
    let began = Instant::now();
    let outcome = rig.apply(routes(600)).await.unwrap();
    let applied = began.elapsed();
    assert_eq!(outcome.diff.len(), 501);
    assert_eq!(outcome.diff[500], "… and 2500 more lines");
    let began = Instant::now();
    rig.traffic.rollback(None, by()).await.unwrap();
    println!("1000 routes: applied in {applied:?}, rolled back in {:?}", began.elapsed());
    assert_eq!(rig.shares("r7"), ["95%", "5%"]);
    let few = Rig::new(vec![route("a", 500)]).await;
    few.set("a", &[("canary", "10%")]).await.unwrap();
    let began = Instant::now();
    few.traffic.rollback(None, by()).await.unwrap();
    println!("one route: rolled back in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_rollback_does_not_wait_for_what_a_changed_file_loads() {
    let rig = Rig::new(vec![route("a", 500), route("b", 500)]).await;
    rig.set("a", &[("canary", "10%")]).await.unwrap();
    *rig.target.slow.lock().unwrap() = Some("m/9".into());
    let mut next = route("b", 500);
    next.arms[1] = arm("canary", 9, 500);
    let meanwhile = async {
        rig.target.begun.notified().await;
        let back = rig.traffic.rollback(None, by()).await.unwrap();
        assert_eq!((back.revision, back.restored), (3, Some(1)));
        assert_eq!(rig.shares("a"), ["95%", "5%"]);
        // What the file needs stays, whoever comes first.
        let mut wanted = Pins::default();
        wanted.add_target(0, &arm("canary", 9, 500).target);
        let pins = rig.target.pins.lock().unwrap().clone();
        assert!(pins != Pins::default() && pins.contains(&wanted), "{pins:?}");
        *rig.target.slow.lock().unwrap() = None;
        rig.target.go.notify_one();
    };
    let (applied, ()) = tokio::join!(rig.apply(vec![route("a", 500), next]), meanwhile);
    let applied = applied.unwrap();
    assert_eq!((applied.revision, applied.needs_load), (4, vec!["m/9".to_owned()]));
    // Decided anew on top of the rollback, which it keeps.
    assert_eq!(rig.shares("a"), ["95%", "5%"]);
    assert!(applied.diff.iter().all(|line| line.starts_with("route 'b'")), "{:?}", applied.diff);
    assert!(rig.traffic.preparing.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_a_change_loaded_for_nothing_is_let_go_when_it_turns_out_stale() {
    let rig = Rig::new(vec![route("a", 500), route("b", 500)]).await;
    *rig.target.slow.lock().unwrap() = Some("m/2".into());
    let meanwhile = async {
        rig.target.begun.notified().await;
        rig.apply(vec![route("a", 500)]).await.unwrap();
        rig.target.go.notify_one();
    };
    let set = rig.traffic.set("a".parse().unwrap(), given(&[("canary", "9%")]), expecting(1));
    let (refused, ()) = tokio::join!(set, meanwhile);
    let refused = refused.unwrap_err();
    assert_eq!((refused.stale, refused.revision), (true, 2));
    let (current, previous) = (rig.traffic.current(), rig.traffic.standing().previous.unwrap());
    let expected = pins(&[(1, &previous), (2, &current)]);
    assert_eq!(*rig.target.pins.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_start_that_cannot_write_its_state_names_the_folder_and_the_cause() {
    let folder = TempDir::new().unwrap();
    // Nothing fits there.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("audit.jsonl")).unwrap();
    let path = Some(folder.path().to_owned());
    let settings = config::State { path, ..config::State::default() };
    let target = Arc::new(Double::default());
    let start = Traffic::start(target.clone(), &settings, vec![route("a", 500)], "h".into());
    let problem = start.await.unwrap_err();
    let place = format!("state.path: {}: the audit log: ", folder.path().display());
    assert!(problem.starts_with(&place) && problem.contains("No space left"), "{problem}");
    std::fs::remove_file(folder.path().join("audit.jsonl")).unwrap();
    std::fs::create_dir(folder.path().join("audit.jsonl")).unwrap();
    let start = Traffic::start(target, &settings, vec![route("a", 500)], "h".into());
    let problem = start.await.unwrap_err();
    assert!(problem.starts_with(&place), "{problem}");
}

#[tokio::test]
async fn a_file_that_changes_no_route_has_one_line_and_one_that_is_tried_again_no_more() {
    let rig = Rig::new(vec![route("a", 500)]).await;
    let before = rig.audit().len();
    let settings = Settings {
        limiter: Arc::default(),
        breaker: config::Breaker::default(),
        upstreams: Arc::default(),
        log: None,
    };
    let apply =
        |routes, by| rig.traffic.apply_file(routes, "h3".into(), Some(settings.clone()), by);
    apply(vec![route("a", 500)], by()).await.unwrap();
    rig.target.break_version("m/9");
    let mut broken = route("a", 500);
    broken.arms[1] = arm("canary", 9, 500);
    let unasked = By { unasked: true, ..by() };
    for _ in 0..3 {
        apply(vec![broken.clone()], unasked.clone()).await.unwrap_err();
        rig.traffic.note_refused_file("h4", By { unasked: false, ..by() }, "no".into()).await;
        apply(vec![broken.clone()], unasked.clone()).await.unwrap_err();
    }
    let lines = rig.audit().split_off(before);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["accepted", "refused", "refused", "refused", "refused"], "{lines:#?}");
    assert_eq!(lines[0]["what"], "apply the file, which changes no route");
    let hash = || rig.traffic.standing().config_hash;
    assert_eq!(hash(), "h3");
    rig.traffic.set_config_hash("h5".into()).await;
    assert_eq!(hash(), "h5");
    rig.set("a", &[("canary", "10%")]).await.unwrap();
    assert_eq!(rig.traffic.current().config_hash, "h5");
}
