//! Versions that routes name, against the folder's policy and the repository API.

use super::*;
use crate::config::{Target, VersionChoice};

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
