//! Versions that routes name, against the folder's policy and the repository API.

use tokio::time::Instant;

use super::*;
use crate::config::{Target, VersionChoice};
use crate::routing::{RoutePlan, Source};
use crate::snapshot::Routing;

/// What a revision of the routes names of the model.
fn pins(revisions: &[(u64, &[u64])]) -> Pins {
    let mut pins = Pins::default();
    for (revision, versions) in revisions {
        for version in *versions {
            pins.add_target(*revision, &target(VersionChoice::Number(Version(*version))));
        }
    }
    pins
}

fn target(version: VersionChoice) -> Target {
    Target::Local { model: "m".parse().unwrap(), version }
}

impl Rig {
    /// Replaces the pins and waits until the model is in step.
    async fn pin(&self, pins: Pins) {
        self.control.pin(pins);
        // What brings it in step is a task of its own; this one comes to the same end.
        self.sync().await;
    }
}

#[tokio::test]
async fn a_version_that_routes_name_is_loaded_beside_those_of_the_policy() {
    let rig = Rig::new(&[1, 2, 3], "latest = 1").await;
    assert_eq!(rig.serving(), [3]);
    rig.control.hold(&pins(&[(7, &[1])])).await.unwrap();
    assert_eq!(rig.serving(), [1, 3]);
    rig.sync().await;
    assert_eq!(rig.serving(), [1, 3]);
    // A load by name brings the policy back, and keeps what routes name.
    rig.control.load("m", LoadCall::default()).await.unwrap();
    assert_eq!(rig.serving(), [1, 3]);
    // No longer named, it goes; what holds had come to no other end.
    rig.pin(Pins::default()).await;
    assert_eq!(rig.serving(), [3]);
}

#[tokio::test]
async fn a_version_that_routes_name_cannot_be_unloaded_and_the_refusal_names_the_revision() {
    let rig = Rig::new(&[1, 2], "policy = 'all'").await;
    rig.pin(pins(&[(6, &[1]), (7, &[1])])).await;
    for version in [None, Some(Version(1))] {
        let refused = rig.control.unload("m", version).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Conflict);
        let expected = "version 1 of model 'm' stays: revision 7 of the routes names it";
        assert_eq!(refused.public_message(), expected);
    }
    assert_eq!(rig.serving(), [1, 2]);
    rig.control.unload("m", Some(Version(2))).await.unwrap();
    rig.pin(Pins::default()).await;
    rig.control.unload("m", None).await.unwrap();
    assert!(rig.serving().is_empty());
}

#[tokio::test]
async fn taking_away_files_takes_away_nothing_that_callers_are_sent_to() {
    let rig = Rig::new(&[1, 2], "policy = 'all'").await;
    rig.pin(pins(&[(7, &[1])])).await;
    fs::remove_dir_all(rig.path("1")).unwrap();
    rig.sync().await;
    assert_eq!(rig.serving(), [1, 2]);
    // The whole model too, look by look, and without loading it anew when it comes back.
    let revision = || rig.pipeline.snapshots.load().revision;
    let away = rig.folder.path().join(".away");
    fs::rename(rig.path(""), &away).unwrap();
    rig.sync().await;
    assert_eq!(rig.serving(), [1]);
    let before = revision();
    rig.sync().await;
    assert_eq!((rig.serving(), revision()), (vec![1], before));
    rig.pin(Pins::default()).await;
    assert!(rig.serving().is_empty());
}

#[tokio::test]
async fn a_version_set_by_hand_stands_beside_what_routes_name() {
    let rig = Rig::new(&[1, 2, 3], "latest = 1").await;
    let only = |version| LoadCall { version: Some(Version(version)), upload: None };
    rig.control.load("m", only(2)).await.unwrap();
    rig.control.unload("m", Some(Version(3))).await.unwrap();
    rig.control.hold(&pins(&[(7, &[1])])).await.unwrap();
    rig.sync().await;
    assert_eq!(rig.serving(), [1, 2]);
    rig.pin(Pins::default()).await;
    assert_eq!(rig.serving(), [2]);
}

#[tokio::test]
async fn what_cannot_be_held_says_why_and_leaves_what_serves() {
    let rig = Rig::new(&[1, 2], "latest = 1").await;
    rig.break_loads();
    let mut wanted = pins(&[(7, &[1, 9])]);
    wanted.add_target(7, &target(VersionChoice::Label("stable".into())));
    wanted.add_target(7, &target(VersionChoice::Latest));
    let missing = rig.control.hold(&wanted).await.unwrap_err();
    let words: Vec<_> = missing.iter().map(|m| (m.name.as_str(), m.reason.as_str())).collect();
    let expected = [
        ("m/1", "a broken file"),
        ("m/9", "it is not loaded, and its files are not in the repository"),
        ("m/stable", "no label of that name is in the model's model.toml"),
    ];
    assert_eq!(words, expected);
    assert_eq!(rig.answering_version().await, 2);
    // Given up, it leaves no trace.
    rig.pin(Pins::default()).await;
    assert_eq!(rig.states(), [(Some(2), "READY", String::new())]);
}

impl Rig {
    fn label(&self, stable: Option<u64>) {
        let labels = stable.map(|number| format!("[labels]\nstable = {number}\n"));
        self.manifest(&format!("latest = 1\n{}", labels.unwrap_or_default()));
    }

    /// A route whose one arm goes to the label, with its versions pinned.
    fn route_to_label(&self) {
        let arm = config::Arm {
            name: "only".parse().unwrap(),
            target: target(VersionChoice::Label("stable".into())),
            share: crate::types::Share::ALL,
            buckets: None,
        };
        let route = config::Route {
            name: "r".parse().unwrap(),
            sticky: config::Sticky::Off,
            salt: "s".into(),
            fallback: config::Fallback::Refuse,
            testers: vec![],
            arms: vec![arm],
            shadows: vec![],
            log: None,
        };
        let plan = Arc::new(RoutePlan::new(route, None, Source::File).unwrap());
        let mut pins = Pins::default();
        pins.add(1, &plan);
        let routing = Routing { revision: 1, plans: vec![plan], ..Routing::default() };
        self.control.commit_routing(routing, None);
        self.control.pin(pins);
    }

    async fn by_route(&self) -> u64 {
        let call = Call { model: "r".into(), ..self.call(None) };
        version_of(&self.infer(call).await.unwrap())
    }
}

#[tokio::test]
async fn a_label_that_moves_keeps_its_version_until_the_new_one_serves() {
    let rig = Rig::new(&[1, 3], "latest = 1").await;
    rig.label(Some(1));
    rig.route_to_label();
    rig.sync().await;
    assert_eq!((rig.by_route().await, rig.serving()), (1, vec![1, 3]));
    // The new version is not there.
    rig.label(Some(2));
    rig.sync().await;
    rig.sync().await;
    assert_eq!((rig.by_route().await, rig.serving()), (1, vec![1, 3]));
    let refused = rig.control.unload("m", Some(Version(1))).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict);
    // It is broken; a change of other arms goes on all the same.
    rig.break_loads();
    rig.add(2, "1");
    rig.sync().await;
    rig.sync().await;
    assert_eq!((rig.by_route().await, rig.serving()), (1, vec![1, 3]));
    let mut pinned = Pins::default();
    pinned.add_target(2, &target(VersionChoice::Label("stable".into())));
    assert!(rig.control.missing(&pinned).is_empty());
    // It is slow to load.
    rig.stub.fail_loads(None);
    rig.stub.push(StubStep::Hang);
    rig.add(2, "mended");
    let look = async {
        let stub = rig.stub.clone();
        tasks::blocking(move || stub.wait_hanging(1)).await;
        assert_eq!(rig.by_route().await, 1);
        rig.stub.release();
    };
    tokio::join!(rig.sync(), look);
    assert_eq!((rig.by_route().await, rig.serving()), (2, vec![2, 3]));
    // Dropped by the manifest, it goes on for as long as routes name it.
    rig.label(None);
    rig.sync().await;
    rig.sync().await;
    assert_eq!((rig.by_route().await, rig.serving()), (2, vec![2, 3]));
    rig.control.commit_routing(Routing::default(), None);
    rig.pin(Pins::default()).await;
    assert_eq!(rig.serving(), [3]);
    assert!(rig.control.snapshot().model("m").unwrap().labels.is_empty());
}

#[tokio::test]
async fn what_is_pinned_between_two_looks_at_the_pins_is_not_taken_away() {
    let rig = Rig::new(&[1, 2], "policy = 'all'").await;
    // Held up where it first looks at the pins.
    let mut held = rig.control.held();
    let control = rig.control.clone();
    let unload = std::thread::spawn(move || {
        let model: ModelName = "m".parse().unwrap();
        let lock = control.lock_of(&model);
        let mut intent = lock.try_lock().unwrap();
        control.keep_only(&model, &BTreeSet::from([Version(2)]), &mut intent);
    });
    // It holds the commit lock by then, behind which pins are added, so it finds them all.
    let limit = Instant::now() + Duration::from_secs(60);
    while rig.control.commit.try_lock().is_ok() {
        assert!(Instant::now() < limit, "it looks before it holds the commit lock");
        std::thread::yield_now();
    }
    held.pins.add_all(&pins(&[(7, &[1])]));
    drop(held);
    unload.join().unwrap();
    assert_eq!(rig.serving(), [1, 2]);
}
