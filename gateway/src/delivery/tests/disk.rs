//! Which files go, and which never do.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::super::retention::{Kept, Reason, choose, scan};
use super::*;

fn at(hours: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(3600 * hours)
}

fn kept(name: &str, hours: u64, bytes: u64) -> Kept {
    Kept { path: name.to_owned(), until: at(hours), bytes }
}

fn disk(keep_hours: Option<u64>, keep_size: Option<usize>) -> Disk {
    let keep = keep_hours.map(|hours| Duration::from_secs(3600 * hours));
    Disk { keep, keep_size, min_free: 0 }
}

#[test]
fn files_go_when_their_youngest_row_is_too_old() {
    let files = vec![kept("c", 12, 1), kept("a", 10, 1), kept("b", 11, 1)];
    let gone = choose(files, &disk(Some(4), None), at(15), |_| false);
    assert_eq!(gone, [(kept("a", 10, 1), Reason::Age), (kept("b", 11, 1), Reason::Age)]);
}

#[test]
fn the_oldest_files_go_until_the_others_fit() {
    let files = vec![kept("c", 12, 40), kept("a", 10, 30), kept("b", 11, 50)];
    let gone = choose(files.clone(), &disk(None, Some(90)), at(15), |_| false);
    assert_eq!(gone, [(kept("a", 10, 30), Reason::Size)]);
    assert_eq!(choose(files, &disk(None, Some(120)), at(15), |_| false), []);
}

#[test]
fn how_old_a_file_is_follows_from_its_folder() {
    let folder = folder();
    let names = [
        "files/model=a/version=1/date=2025-11-22/hour=07/0000abcd-00000001-00.parquet",
        "feedback/date=2025-11-22/0000abcd-00000001.parquet",
        "segments/00000009.damaged",
        "segments/00000010.segment",
        "segments/00000011.open",
    ];
    for name in names {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "12345").unwrap();
        let written = UNIX_EPOCH + Duration::from_secs(1_763_769_600 + 60);
        fs::File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
    }
    let mut found = scan(folder.path(), SystemTime::now(), false).files;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: Vec<_> = found.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [names[1], names[0], names[2]]);
    let day = Duration::from_secs(1_763_769_600);
    assert_eq!(found[0].until, UNIX_EPOCH + day + Duration::from_secs(24 * 3600));
    assert_eq!(found[1].until, UNIX_EPOCH + day + Duration::from_secs(8 * 3600));
    assert!(found[2].until > UNIX_EPOCH + day);
    assert!(found.iter().all(|file| file.bytes == 5));
}

#[test]
fn rows_of_a_clock_that_was_behind_are_as_old_as_their_file() {
    let folder = folder();
    segment(&folder, 1, 3);
    let process = process(&folder, false);
    process.convert_all();
    // Its rows say that they came in November 2025.
    let found = scan(folder.path(), SystemTime::now(), false).files;
    assert!(found[0].until.elapsed().unwrap() < Duration::from_secs(3600));
    let keep = disk(Some(24), None);
    assert_eq!(choose(found, &keep, SystemTime::now(), |_| false), []);
}

#[test]
fn files_of_a_clock_that_was_ahead_are_as_old_as_they_were_written() {
    let folder = folder();
    let written = UNIX_EPOCH + Duration::from_secs(1_763_769_600 + 600);
    let file = |name: &str, written: SystemTime| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "12345").unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
    };
    let ahead = [
        "feedback/date=2026-11-22/0000abcd-00000001-00-feedback.parquet",
        "files/model=a/version=1/date=2026-11-22/hour=00/0000abcd-00000001-00.parquet",
    ];
    let today = "feedback/date=2025-11-22/0000abcd-00000002-00-feedback.parquet";
    let hour = "files/model=a/version=1/date=2025-11-22/hour=01/0000abcd-00000003-00.parquet";
    for name in ahead {
        file(name, written);
    }
    file(today, written + Duration::from_secs(1800));
    file(hour, written + Duration::from_secs(3600));
    let now = written + Duration::from_secs(3600);
    let found = scan(folder.path(), now, false).files;
    for of in &found {
        let end = UNIX_EPOCH + Duration::from_secs(1_763_769_600);
        let expected = match &*of.path {
            path if path == today => end + Duration::from_secs(24 * 3600),
            path if path == hour => end + Duration::from_secs(2 * 3600),
            _ => written,
        };
        assert_eq!(of.until, expected, "{}", of.path);
    }
    let gone = |disk, now| {
        let gone = choose(found.clone(), &disk, now, |_| false);
        gone.into_iter().map(|(file, _)| file.path).collect::<Vec<_>>()
    };
    // They are the first that go for their size, and do not stay for years.
    assert_eq!(gone(disk(None, Some(10)), now), ahead);
    assert_eq!(gone(disk(Some(24), None), written + Duration::from_secs(24 * 3600)), ahead);
}

#[test]
fn what_cannot_be_looked_at_is_named_and_holds_up_nothing_else() {
    let folder = folder();
    segment(&folder, 1, 3);
    process(&folder, false).convert_all();
    // A file where a folder should be.
    fs::write(folder.path().join("feedback"), "").unwrap();
    let found = scan(folder.path(), SystemTime::now(), false);
    assert_eq!(found.files.len(), 1);
    let named: Vec<_> = found.problems.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(named, ["feedback"]);
}

#[tokio::test(start_paused = true)]
async fn what_looks_at_the_disk_goes_on_after_a_panic() {
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let folder = folder();
    let process = process(&folder, false);
    let task = process.parts.every("disk", Duration::from_secs(1), |_| {
        assert_ne!(LOOKS.fetch_add(1, SeqCst), 0, "as asked");
    });
    while LOOKS.load(SeqCst) < 3 {
        sleep(Duration::from_millis(100)).await;
    }
    task.abort();
}

#[test]
fn what_is_not_delivered_stays_however_old_and_large_it_is() {
    let folder = folder();
    segment(&folder, 1, 3);
    segment(&folder, 2, 3);
    let process = process(&folder, true);
    let claims = [process.claim(), process.claim()];
    for claim in &claims {
        process.converter.make(claim).unwrap();
    }
    // The first is noted and its segment gone; of the second only the files are there.
    process.converter.work(&claims[0]);
    let before = parquet(&folder);
    assert_eq!(before.len(), 2);
    let strict = Parts {
        folder: process.parts.folder.clone(),
        disk: Disk { keep: Some(Duration::from_secs(1)), keep_size: Some(1), min_free: 0 },
        backlog: process.parts.backlog.clone(),
        outbox: process.parts.outbox.clone(),
        space: Space::new(Box::new(|_| {}), 0),
        metrics: Arc::default(),
    };
    strict.tidy(false);
    assert_eq!(parquet(&folder), before);
    // Delivered: nothing holds it any more.
    process.converter.work(&claims[1]);
    let outbox = process.parts.outbox.as_ref().unwrap();
    let items = futures_util::FutureExt::now_or_never(outbox.next(1)).unwrap();
    outbox.delivered(&items[0]);
    strict.tidy(false);
    let left = parquet(&folder);
    assert_eq!(left.len(), 1);
    assert!(outbox.holds(left.keys().next().unwrap()));
}

proptest! {
    #[test]
    fn the_oldest_that_may_go_do_and_no_other(
        files in prop::collection::vec((0..100_u64, 0..100_u64, any::<bool>()), 0..40),
        keep in prop::option::of(1..100_u64),
        size in prop::option::of(0..2000_usize),
    ) {
        let held = |file: &Kept| file.path.starts_with("held");
        let all: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(index, (hour, bytes, is_held))| {
                let name = if *is_held { "held" } else { "free" };
                kept(&format!("{name}{index}"), *hour, *bytes)
            })
            .collect();
        let disk = disk(keep, size);
        let gone = choose(all.clone(), &disk, at(100), held);
        prop_assert!(gone.iter().all(|(file, _)| !held(file)));
        let left: Vec<_> = all.iter().filter(|file| !gone.iter().any(|(other, _)| other == *file)).collect();
        let free = || left.iter().filter(|file| !held(file));
        // Whatever may go is young enough, and together they fit unless nothing else may go.
        prop_assert!(free().all(|file| keep.is_none_or(|keep| at(100).duration_since(file.until).unwrap() < Duration::from_secs(3600 * keep))));
        let total: u64 = left.iter().map(|file| file.bytes).sum();
        prop_assert!(size.is_none_or(|size| total <= size as u64) || free().next().is_none());
        // Nothing goes for its size while something older stays that may go.
        for (file, reason) in &gone {
            prop_assert!(*reason == Reason::Age || free().all(|other| other.until >= file.until));
        }
    }
}
