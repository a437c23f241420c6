//! Loading, swapping and unloading against a scripted engine and a real folder.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use engine::error::Fault;
use engine::{EngineError, StubEngine, StubStep};
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::overload::Overload;
use crate::pipeline::{Pipeline, Reply};
use crate::shadow::Comparer;
use crate::telemetry::WireMetrics;
use crate::types::{AnsweredBy, Call, Caller, Inputs, NamedTensor, Patience, Protocol, Schedule};

mod breaker;
mod deadlines;
mod keyed;
mod logged;
mod routes;
mod pins;

const MANIFEST: &str = "platform = 'stub'\nmax_batch_size = 4\n\
    [[input]]\nname = 'x'\ndtype = 'UINT8'\nshape = [-1, 1]\n\
    [[output]]\nname = 'y'\ndtype = 'UINT8'\nshape = [-1, 1]\n";

/// Number of the version that answered.
fn version_of(reply: &Reply) -> u64 {
    match reply.answer.version {
        AnsweredBy::Version(version) => version.0,
        ref other => panic!("answered by {other}"),
    }
}

struct Rig {
    folder: TempDir,
    stub: StubEngine,
    control: Arc<Control>,
    pipeline: Pipeline,
}

impl Rig {
    async fn new(versions: &[u64], policy: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let stub = StubEngine::default();
        let mut config = Config::for_repository(folder.path());
        config.engine.cpu_threads = 1;
        config.engine.load_timeout = Duration::from_secs(5);
        let snapshots = SnapshotCell::new();
        let engines: Vec<Arc<dyn engine::Engine>> = vec![Arc::new(stub.clone())];
        let wire = Arc::new(WireMetrics::new());
        let overload = Overload::new(&config.limits, &config.overload, wire.clone());
        let loader = Loader::new(engines, config.engine, config.limits);
        let repository = Repository::open(folder.path()).unwrap();
        let control =
            Arc::new(Control::new(repository, loader, snapshots.clone(), config.repository));
        let comparer = Comparer::start().unwrap();
        let timeouts = Patience::default();
        let (keys, log) = (None, None);
        let pipeline = Pipeline { snapshots, wire, overload, keys, log, comparer, timeouts };
        let rig = Self { folder, stub, control, pipeline };
        rig.manifest(policy);
        for version in versions {
            rig.add(*version, "1");
        }
        rig.sync().await;
        rig
    }

    /// One call that no limits hold up.
    async fn infer(&self, call: Call) -> Result<Reply, Rejection> {
        self.pipeline.infer(call, &Arc::default()).await
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.folder.path().join("m").join(rest)
    }

    fn manifest(&self, policy: &str) {
        fs::create_dir_all(self.path("")).unwrap();
        fs::write(self.path("model.toml"), format!("{MANIFEST}[versions]\n{policy}\n")).unwrap();
    }

    fn add(&self, version: u64, content: &str) {
        fs::create_dir_all(self.path(&version.to_string())).unwrap();
        fs::write(self.path(&format!("{version}/model.pt")), content).unwrap();
    }

    async fn sync(&self) {
        self.control.sync().await.unwrap();
    }

    fn serving(&self) -> Vec<u64> {
        let snapshot = self.pipeline.snapshots.load();
        snapshot.ready().map(|served| served.version.0).collect()
    }

    fn states(&self) -> Vec<(Option<u64>, &'static str, String)> {
        let entries = self.control.index(false).into_iter();
        entries
            .map(|e| (e.version.map(|v| v.0), e.state.map_or("", State::name), e.reason))
            .collect()
    }

    fn call(&self, version: Option<&str>) -> Call {
        let tensor =
            engine::Tensor::new(engine::DataType::Uint8, vec![1, 1], vec![7].into()).unwrap();
        Call {
            caller: Caller::local(),
            id: None,
            model: "m".into(),
            version: version.map(ToOwned::to_owned),
            inputs: Inputs::Named(vec![NamedTensor { name: "x".into(), tensor }]),
            outputs: vec![],
            schedule: Schedule::default(),
            key: None,
            protocol: Protocol::Http,
            arrived: tokio::time::Instant::now(),
            headers: Arc::default(),
            parameters: vec![],
        }
    }

    async fn answering_version(&self) -> u64 {
        version_of(&self.infer(self.call(None)).await.unwrap())
    }

    /// The same gateway with uploads of up to 1000 bytes switched on.
    fn with_uploads(&self) -> Arc<Control> {
        let mut config = Config::for_repository(self.folder.path());
        config.repository.uploads = config::Uploads { enabled: true, max_bytes: 1000 };
        let engines: Vec<Arc<dyn engine::Engine>> = vec![Arc::new(self.stub.clone())];
        let loader = Loader::new(engines, config.engine, config.limits);
        let repository = Repository::open(self.folder.path()).unwrap();
        let snapshots = self.pipeline.snapshots.clone();
        Arc::new(Control::new(repository, loader, snapshots, config.repository))
    }

    fn break_loads(&self) {
        self.stub.fail_loads(Some(EngineError::new(Fault::Load, "a broken file")));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Threads that hang on purpose are left behind.
        let _ended = self.control.close(Duration::ZERO);
    }
}

/// Lets everything else run until something holds, whatever the clock of the test does.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    panic!("it did not happen");
}

#[tokio::test]
async fn the_policy_decides_which_versions_serve() {
    let rig = Rig::new(&[1, 2, 3], "latest = 2").await;
    assert_eq!(rig.serving(), [2, 3]);
    assert_eq!(rig.answering_version().await, 3);
    rig.manifest("policy = 'specific'\nspecific = [1]");
    rig.sync().await;
    assert_eq!(rig.serving(), [1]);
}

#[tokio::test]
async fn the_folder_is_followed() {
    let rig = Rig::new(&[1], "latest = 1").await;
    assert_eq!(rig.serving(), [1]);
    rig.add(2, "1");
    rig.sync().await;
    assert_eq!(rig.serving(), [2]);
    fs::remove_dir_all(rig.path("2")).unwrap();
    rig.sync().await;
    assert_eq!(rig.serving(), [1]);
    fs::remove_dir_all(rig.path("")).unwrap();
    rig.sync().await;
    assert!(rig.serving().is_empty());
    let error = rig.infer(rig.call(None)).await.unwrap_err();
    assert_eq!(error.to_string(), "Request for unknown model: 'm' is not found");
}

#[tokio::test]
async fn a_changed_file_is_loaded_and_an_unchanged_one_is_not() {
    let rig = Rig::new(&[1], "latest = 1").await;
    let before = rig.pipeline.snapshots.load();
    rig.sync().await;
    assert_eq!(rig.pipeline.snapshots.load().revision, before.revision);
    rig.add(1, "longer");
    rig.sync().await;
    let after = rig.pipeline.snapshots.load();
    let hash = |snapshot: &crate::snapshot::Snapshot| {
        snapshot.find("m", None).unwrap().sha256.clone().unwrap()
    };
    assert_ne!(hash(&before), hash(&after));
}

#[tokio::test]
async fn a_failed_load_leaves_the_old_version_serving_and_shows_why() {
    let rig = Rig::new(&[1], "latest = 1").await;
    rig.break_loads();
    rig.add(2, "1");
    rig.sync().await;
    assert_eq!(rig.answering_version().await, 1);
    assert_eq!(
        rig.states(),
        [(Some(1), "READY", String::new()), (Some(2), "UNAVAILABLE", "a broken file".to_owned())]
    );
    let error = rig.infer(rig.call(Some("2"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotReady);
    // The same broken file is not tried at every look.
    let revision = rig.pipeline.snapshots.load().revision;
    rig.sync().await;
    assert_eq!(rig.pipeline.snapshots.load().revision, revision);
    rig.stub.fail_loads(None);
    rig.control.load("m", LoadCall::default()).await.unwrap();
    assert_eq!(rig.serving(), [2]);
}

#[tokio::test]
async fn a_model_that_never_loaded_can_leave() {
    let rig = Rig::new(&[], "latest = 1").await;
    rig.break_loads();
    rig.add(1, "1");
    rig.sync().await;
    assert!(!rig.control.is_serving());
    fs::remove_dir_all(rig.path("")).unwrap();
    rig.sync().await;
    assert!(rig.control.is_serving());
    assert_eq!(rig.infer(rig.call(None)).await.unwrap_err().kind(), Kind::NotFound);
}

fn upload(content: &str) -> LoadCall {
    let manifest = crate::models::Manifest::parse(MANIFEST).unwrap();
    let files = vec![("7/model.pt".to_owned(), content.as_bytes().to_vec())];
    LoadCall { version: None, upload: Some(Upload::new(manifest, files).unwrap()) }
}

#[tokio::test]
async fn uploads_replace_the_folder_until_they_are_unloaded() {
    let rig = Rig::new(&[1], "latest = 1").await;
    let refused = rig.control.load("m", upload("x")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::PermissionDenied);
    let mut rig = rig;
    rig.control = rig.with_uploads();
    rig.sync().await;
    rig.control.load("m", upload("x")).await.unwrap();
    rig.sync().await;
    assert_eq!(rig.serving(), [7]);
    let hash =
        |rig: &Rig| rig.pipeline.snapshots.load().find("m", None).unwrap().sha256.clone().unwrap();
    let before = hash(&rig);
    rig.control.load("m", upload("y")).await.unwrap();
    assert_ne!(hash(&rig), before);
    let too_large = rig.control.load("m", upload(&"z".repeat(2000))).await.unwrap_err();
    assert_eq!(too_large.kind(), Kind::TooLarge);
    rig.control.load("m", LoadCall::default()).await.unwrap();
    assert_eq!(rig.serving(), [1]);
}

#[tokio::test]
async fn earlier_failures_stay_in_sight_until_their_files_leave() {
    let rig = Rig::new(&[1], "policy = 'all'").await;
    rig.break_loads();
    rig.add(2, "1");
    rig.sync().await;
    rig.stub.fail_loads(None);
    rig.add(3, "1");
    rig.sync().await;
    assert_eq!(rig.serving(), [1, 3]);
    let error = rig.infer(rig.call(Some("2"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotReady);
    assert_eq!(rig.states()[1], (Some(2), "UNAVAILABLE", "a broken file".to_owned()));
    fs::remove_dir_all(rig.path("2")).unwrap();
    rig.sync().await;
    assert_eq!(rig.states().len(), 2);
    let error = rig.infer(rig.call(Some("2"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn unloading_a_model_that_failed_forgets_the_failure() {
    let rig = Rig::new(&[], "latest = 1").await;
    rig.break_loads();
    rig.add(1, "1");
    rig.sync().await;
    assert!(!rig.control.is_serving());
    rig.control.unload("m", None).await.unwrap();
    assert!(rig.control.is_serving());
}

#[tokio::test]
async fn a_version_that_is_loaded_again_stays_ready_meanwhile() {
    let rig = Rig::new(&[1], "latest = 1").await;
    rig.stub.push(StubStep::Hang);
    rig.add(1, "replaced");
    let reload = async { rig.sync().await };
    let look = async {
        let stub = rig.stub.clone();
        tasks::blocking(move || stub.wait_hanging(1)).await;
        assert!(rig.control.is_serving());
        assert_eq!(rig.states()[0].1, "READY");
        rig.stub.release();
    };
    tokio::join!(reload, look);
    assert_eq!(rig.serving(), [1]);
}

#[tokio::test]
async fn a_call_keeps_only_its_own_version_in_memory() {
    let rig = Rig::new(&[1, 2], "policy = 'all'").await;
    rig.stub.push(StubStep::Hang);
    let running = rig.infer(rig.call(Some("1")));
    let leave = async {
        let stub = rig.stub.clone();
        tasks::blocking(move || stub.wait_hanging(1)).await;
        rig.control.unload("m", Some(Version(2))).await.unwrap();
        assert_eq!(rig.states()[1], (Some(2), "UNAVAILABLE", "unloaded".to_owned()));
        rig.stub.release();
    };
    let (reply, ()) = tokio::join!(running, leave);
    assert_eq!(reply.unwrap().answer.version, AnsweredBy::Version(Version(1)));
}

#[tokio::test]
async fn figures_survive_a_reload_under_the_same_number() {
    let rig = Rig::new(&[1], "latest = 1").await;
    crate::telemetry::metrics::recorder();
    let counted = || {
        let text = crate::telemetry::metrics::recorder().render();
        let line = "nv_inference_request_success{model=\"m\",version=\"1\"} ";
        text.lines().find_map(|l| l.strip_prefix(line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = counted();
    for _ in 0..3 {
        rig.infer(rig.call(None)).await.unwrap().encoded();
    }
    rig.add(1, "replaced");
    rig.sync().await;
    rig.infer(rig.call(None)).await.unwrap().encoded();
    for served in rig.pipeline.snapshots.load().ready() {
        served.publish_stats();
    }
    // Other tests of this process count under the same name, but none takes away.
    assert!(counted() >= before + 4, "{} after {before}", counted());
}

#[tokio::test]
async fn a_failed_upload_changes_nothing() {
    let rig = Rig::new(&[1], "latest = 1").await;
    let mut rig = rig;
    rig.control = rig.with_uploads();
    rig.sync().await;
    rig.break_loads();
    assert!(rig.control.load("m", upload("x")).await.is_err());
    assert_eq!(rig.answering_version().await, 1);
    rig.stub.fail_loads(None);
    rig.add(2, "1");
    rig.sync().await;
    assert_eq!(rig.serving(), [2]);
    rig.control.unload("m", Some(Version(2))).await.unwrap();
}

#[tokio::test]
async fn a_bad_replacement_of_a_serving_file_is_noted_beside_its_state() {
    let rig = Rig::new(&[1], "latest = 1").await;
    rig.break_loads();
    rig.add(1, "replaced");
    rig.sync().await;
    assert_eq!(rig.answering_version().await, 1);
    assert_eq!(rig.states(), [(Some(1), "READY", "a broken file".to_owned())]);
}

#[tokio::test]
async fn a_broken_manifest_leaves_what_serves() {
    let rig = Rig::new(&[1], "latest = 1").await;
    fs::write(rig.path("model.toml"), "platform = 3").unwrap();
    rig.sync().await;
    assert_eq!(rig.answering_version().await, 1);
    let states = rig.states();
    assert_eq!(states[0], (Some(1), "READY", String::new()));
    assert!(states[1].2.contains("platform: must be text"), "{states:?}");
}

#[tokio::test]
async fn single_versions_load_and_unload_beside_the_others() {
    let rig = Rig::new(&[1, 2], "policy = 'specific'\nspecific = [1]").await;
    let only = |version| LoadCall { version: Some(Version(version)), upload: None };
    rig.control.load("m", only(2)).await.unwrap();
    assert_eq!(rig.serving(), [1, 2]);
    rig.control.unload("m", Some(Version(1))).await.unwrap();
    assert_eq!(rig.serving(), [2]);
    // What was asked for explicitly outlives a look at the folder.
    rig.sync().await;
    assert_eq!(rig.serving(), [2]);
    rig.control.unload("m", None).await.unwrap();
    rig.sync().await;
    assert!(rig.serving().is_empty());
    rig.control.load("m", LoadCall::default()).await.unwrap();
    assert_eq!(rig.serving(), [1]);
    let missing = rig.control.load("m", only(9)).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_pinned_hash_refuses_a_changed_file() {
    let rig = Rig::new(&[], "latest = 1").await;
    rig.manifest(&format!("latest = 1\n[version.1]\nsha256 = '{}'", "0".repeat(64)));
    rig.add(1, "1");
    rig.sync().await;
    assert!(rig.serving().is_empty());
    assert!(rig.states()[0].2.contains("model.toml pins 0000"), "{:?}", rig.states());
}

#[tokio::test]
async fn golden_requests_must_pass_before_a_version_serves() {
    let rig = Rig::new(&[], "latest = 1").await;
    rig.add(1, "1");
    let golden = |expected: u8| {
        format!(
            r#"{{"requests":[{{"inputs":[{{"name":"x","datatype":"UINT8","shape":[1,1],"data":[5]}}],
                "outputs":[{{"name":"y","datatype":"UINT8","shape":[1,1],"data":[{expected}]}}]}}]}}"#
        )
    };
    fs::write(rig.path("1/golden.json"), golden(6)).unwrap();
    rig.sync().await;
    assert!(rig.serving().is_empty());
    assert!(rig.states()[0].2.contains("golden request 0: output 'y'"), "{:?}", rig.states());
    fs::write(rig.path("1/golden.json"), format!("{} ", golden(5))).unwrap();
    rig.sync().await;
    assert_eq!(rig.serving(), [1]);
}

#[tokio::test]
async fn a_model_that_throws_or_panics_in_warm_up_does_not_serve() {
    let rig = Rig::new(&[], "latest = 1").await;
    rig.stub.push(StubStep::Fail(EngineError::new(Fault::Run, "no")));
    rig.add(1, "1");
    rig.sync().await;
    assert!(rig.states()[0].2.contains("first run with 1 rows: no"), "{:?}", rig.states());
    rig.stub.push(StubStep::Panic);
    rig.add(1, "22");
    rig.sync().await;
    assert!(rig.states()[0].2.contains("panicked while loading"), "{:?}", rig.states());
    assert!(rig.serving().is_empty());
}

#[tokio::test]
async fn a_caller_in_flight_is_answered_by_the_version_it_reached() {
    let rig = Rig::new(&[1, 2], "policy = 'specific'\nspecific = [1]").await;
    rig.stub.push(StubStep::Hang);
    let pipeline = rig.pipeline.clone();
    let call = rig.call(None);
    let running = async move { version_of(&pipeline.infer(call, &Arc::default()).await.unwrap()) };
    let swap = async {
        let stub = rig.stub.clone();
        tasks::blocking(move || stub.wait_hanging(1)).await;
        rig.control.unload("m", None).await.unwrap();
        assert_eq!(rig.states()[0].1, "UNLOADING");
        rig.stub.release();
    };
    let (version, ()) = tokio::join!(running, swap);
    assert_eq!(version, 1);
    // The engine thread lets go of the version a moment after its answer.
    until(|| rig.states()[0].1 != "UNLOADING").await;
    assert_eq!(rig.states()[0], (Some(1), "UNAVAILABLE", "unloaded".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_hangs_is_given_up_and_counted() {
    let rig = Rig::new(&[], "latest = 1").await;
    rig.stub.push(StubStep::Hang);
    rig.add(1, "1");
    rig.sync().await;
    assert!(rig.states()[0].2.contains("took longer than 5s"), "{:?}", rig.states());
    assert!(rig.control.loader().is_alive());
    for content in ["22", "333"] {
        rig.stub.push(StubStep::Hang);
        rig.add(1, content);
        rig.sync().await;
    }
    assert!(!rig.control.loader().is_alive());
    rig.stub.release();
    rig.stub.release();
    rig.stub.release();
    until(|| rig.control.loader().is_alive()).await;
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nothing_that_serves_and_its_load_is_given_up() {
    let rig = Rig::new(&[1], "latest = 1").await;
    rig.add(2, "2");
    let folder = rig.control.repository.model(&"m".parse().unwrap()).unwrap();
    let (answers, hangs) = std::sync::mpsc::sync_channel(0);
    *rig.control.repository.disk.lock().unwrap() = Some(hangs);
    tokio::time::pause();
    let change = super::change::Change {
        folder: &folder,
        targets: [crate::types::Version(2)].into(),
        upload: None,
        anew: false,
    };
    let name = "m".parse().unwrap();
    let mut intent = super::Intent::default();
    let loading = rig.control.change(&name, change, &mut intent);
    let calling = async {
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(rig.answering_version().await, 1);
        tokio::time::advance(Duration::from_secs(2)).await;
    };
    let (failures, ()) = tokio::join!(loading, calling);
    assert!(failures[0].contains("reading the files took longer than 5s"), "{failures:?}");
    assert_eq!(rig.answering_version().await, 1);
    drop(answers);
    tokio::time::resume();
    // Nobody has to help: a failure that may pass is tried again.
    rig.sync().await;
    assert_eq!(rig.answering_version().await, 2);
}

#[tokio::test]
async fn a_lost_device_ends_readiness_until_the_process_starts_again() {
    let rig = Rig::new(&[1], "latest = 1").await;
    let lost = || EngineError::new(Fault::Device, "the device is lost");
    rig.stub.push(engine::StubStep::Fail(lost()));
    rig.stub.lose_device(lost());
    let refused = rig.infer(rig.call(None)).await.unwrap_err();
    assert_eq!(refused.kind(), crate::error::Kind::EngineFailed);
    assert!(rig.control.loader().failed_device().is_some());
    let snapshot = rig.pipeline.snapshots.load();
    assert!(snapshot.ready().all(|served| !served.is_ready()));
    let refused = rig.infer(rig.call(None)).await.unwrap_err();
    assert_eq!(refused.kind(), crate::error::Kind::NotReady);
}

#[tokio::test]
async fn limits_and_models_are_replaced_without_each_other() {
    let rig = Rig::new(&[1], "latest = 2").await;
    let (snapshots, before) = (&rig.pipeline.snapshots, rig.pipeline.snapshots.load());
    let other = Arc::new(Limiter::default());
    assert!(!Arc::ptr_eq(&snapshots.limiter(), &other));
    rig.control.commit_routing(Routing::default(), Some(other.clone()));
    assert!(Arc::ptr_eq(&snapshots.limiter(), &other));
    assert_eq!((snapshots.load().revision, rig.serving()), (before.revision + 1, vec![1]));
    rig.add(2, "2");
    rig.sync().await;
    assert_eq!(rig.serving(), [1, 2]);
    assert!(Arc::ptr_eq(&snapshots.limiter(), &other));
}
