//! Feedback is stored before it is answered, once, or not at all, and told what became of it.

use std::path::Path;

use predlog::segment::{self, Reader, Record};
use tempfile::TempDir;

use super::*;
use crate::predictions::reading::start;

fn told(id: &str) -> Told {
    Told {
        caller_id: Some(format!("order-{id}")),
        label: Some(Given::Text("cat".into())),
        id: Some(id.into()),
        ..Told::default()
    }
}

/// All feedback in the segments of a log that has ended.
fn stored(path: &Path) -> Vec<Feedback> {
    let mut found = vec![];
    for (_, path) in segment::list(&path.join("segments")).unwrap() {
        let mut reader = Reader::open(&path).unwrap();
        while let Some(record) = reader.next().unwrap() {
            if let Record::Feedback(told) = record {
                found.push(told);
            }
        }
    }
    found
}

fn intake(path: &Path, lines: &str) -> (Arc<Intake>, Arc<PredictionLog>) {
    let log = start(path, lines);
    let config = crate::predictions::reading::terms(path, lines);
    (Intake::start(log.clone(), &config), log)
}

async fn outcomes(intake: &Intake, batch: Vec<Told>) -> Vec<Outcome> {
    let settled = intake.take(batch).await.unwrap();
    settled.into_iter().map(|one| one.outcome).collect()
}

#[tokio::test]
async fn what_is_answered_is_stored_and_told_again_it_is_a_duplicate() {
    let folder = TempDir::new().unwrap();
    let (intake, log) = intake(folder.path(), "");
    let batch = vec![told("1"), told("2"), told("1")];
    let expected = [Outcome::Stored, Outcome::Stored, Outcome::Duplicate];
    assert_eq!(outcomes(&intake, batch).await, expected);
    assert_eq!(outcomes(&intake, vec![told("2")]).await, [Outcome::Duplicate]);
    let labels = Labels::read(folder.path(), &Range::default()).unwrap();
    assert_eq!((labels.len(), labels.told_again()), (2, 0), "before the log ends");
    assert!(log.stop(Duration::from_secs(10)));
    let all = stored(folder.path());
    assert_eq!(all.iter().map(|told| told.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(all[0].caller_id, "order-1");
}

#[tokio::test]
async fn a_batch_with_anything_wrong_is_refused_whole_and_all_of_it_is_named() {
    let folder = TempDir::new().unwrap();
    let (intake, log) = intake(folder.path(), "");
    let wrong = Told { label: None, ..told("2") };
    let batch = vec![told("1"), wrong, Told { item: Some(-1), ..told("3") }];
    let Err(Refusal::Wrong(found)) = intake.take(batch).await else { panic!("it was taken") };
    let places: Vec<_> = found.iter().map(|wrong| (wrong.index, wrong.field.as_str())).collect();
    assert_eq!(places, [(1, "label"), (2, "item")]);
    assert_eq!(outcomes(&intake, vec![told("1")]).await, [Outcome::Stored], "not told before");
    let many = vec![told("4"); MOST + 1];
    let Err(Refusal::Rejected(rejection)) = intake.take(many).await else { panic!("taken") };
    assert_eq!(rejection.kind(), Kind::TooLarge);
    let Err(Refusal::Wrong(all)) = intake.take(vec![Told::default(); MOST]).await else {
        panic!("it was taken");
    };
    assert_eq!(all.len(), MOST_WRONG);
    assert!(log.stop(Duration::from_secs(10)));
    assert_eq!(stored(folder.path()).len(), 1);
}

#[tokio::test]
async fn while_nothing_can_be_written_nothing_is_answered_or_known() {
    let folder = TempDir::new().unwrap();
    let (intake, log) = intake(folder.path(), "commit_timeout = '50ms'\n");
    log.hold(Some("no space".into()));
    let Err(Refusal::Rejected(rejection)) = intake.take(vec![told("1")]).await else {
        panic!("it was taken");
    };
    assert_eq!(rejection.kind(), Kind::Overloaded);
    log.hold(None);
    let again = loop {
        // The writer looks again after a pause.
        if let Ok(settled) = intake.take(vec![told("1")]).await {
            break settled;
        }
    };
    assert_eq!(again[0].outcome, Outcome::Stored, "what was refused was not told before");
    assert!(log.stop(Duration::from_secs(10)));
    let labels = Labels::read(folder.path(), &Range::default()).unwrap();
    assert_eq!(labels.len(), 1, "and counts once, however often it was written");
}

#[tokio::test]
async fn ids_of_callers_are_hashed_as_rows_have_them_or_refused_where_none_are_kept() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "a key of sixteen bytes").unwrap();
    let path = folder.path().join("log");
    let rule = |how: &str| {
        let key = key.display();
        format!(
            "hash_key = 'file:{key}'\n[[prediction_log.redact]]\nfield = 'caller_id'\nhow = '{how}'\n"
        )
    };
    let (intake, log) = intake(&path, &rule("hash"));
    assert_eq!(outcomes(&intake, vec![told("1")]).await, [Outcome::Stored]);
    log.reload(&rule("drop"));
    let Err(Refusal::Wrong(found)) = intake.take(vec![told("2")]).await else { panic!("taken") };
    assert_eq!(found[0].field, "caller_id");
    assert!(log.stop(Duration::from_secs(10)));
    let all = stored(&path);
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].caller_id.len(), all[0].caller_id.contains("order")), (32, false));
}

#[tokio::test]
async fn what_was_told_before_a_restart_is_known_after_it() {
    let folder = TempDir::new().unwrap();
    let (first, log) = intake(folder.path(), "");
    assert_eq!(outcomes(&first, vec![told("1")]).await, [Outcome::Stored]);
    assert!(log.stop(Duration::from_secs(10)));
    drop((first, log));
    let (second, log) = intake(folder.path(), "");
    let key = stored(folder.path())[0].key();
    while !second.seen.holds(key, Instant::now()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(outcomes(&second, vec![told("1")]).await, [Outcome::Duplicate]);
    assert!(log.stop(Duration::from_secs(10)));
}

#[tokio::test]
async fn what_is_not_remembered_is_early_late_or_unmatched_by_the_age_of_its_prediction() {
    let folder = TempDir::new().unwrap();
    let lines = "[prediction_log.feedback]\nhorizon = '1h'\n";
    let (intake, log) = intake(folder.path(), lines);
    let id = |seconds_ago: i64, version: u8| {
        let ms = (log.now_us() / 1000 - seconds_ago * 1000).to_be_bytes();
        let mut id = [7; 16];
        id[..6].copy_from_slice(&ms[2..]);
        id[6] = version << 4;
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Some(parts.join("-"))
    };
    let of = |prediction_id, id: &str| Told { prediction_id, caller_id: None, ..told(id) };
    let batch = vec![
        of(id(1, 7), "a"),
        of(id(600, 7), "b"),
        of(id(2 * 3600, 7), "c"),
        of(id(-600, 7), "d"),
        of(id(1, 4), "e"),
        told("f"),
    ];
    use Outcome::{Early, Late, Stored, Unmatched};
    // What was predicted before the gateway started is not remembered.
    let expected = [Early, Stored, Late, Unmatched, Unmatched, Unmatched];
    assert_eq!(outcomes(&intake, batch).await, expected);
    assert!(log.stop(Duration::from_secs(10)));
}
