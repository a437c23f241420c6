//! Revisions on a disk that is torn, full, shared or cut off.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config;

const STEPS: [Step; 6] =
    [Step::Create, Step::Write, Step::Sync, Step::Rename, Step::SyncFolder, Step::Done];

fn settings(folder: &Path, revisions: usize) -> config::State {
    config::State { path: Some(folder.to_owned()), revisions, ..config::State::default() }
}

fn open(folder: &TempDir) -> Store {
    Store::open(&settings(folder.path(), 1000)).unwrap()
}

fn draft(reason: &str) -> Draft {
    Draft {
        author: "ada".into(),
        reason: reason.into(),
        cause: Cause::File,
        config_hash: "sha256:0".into(),
        plans: vec![],
        overlay: Overlay::new(),
        diff: vec!["route 'a': added".into()],
    }
}

fn path(folder: &TempDir, number: u64) -> PathBuf {
    folder.path().join("revisions").join(file::name(number))
}

fn reasons(store: &Store) -> Vec<String> {
    store.list(usize::MAX).unwrap().iter().map(|revision| revision.reason.clone()).collect()
}

#[test]
fn revisions_outlive_the_process_and_are_listed_newest_first() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    assert!(store.newest().unwrap().is_none());
    let second =
        ["one", "two", "three"].map(|reason| store.append(draft(reason)).unwrap())[1].clone();
    drop(store);
    let store = open(&folder);
    assert_eq!(reasons(&store), ["three", "two", "one"]);
    assert_eq!(store.get(2), Ok(Some(second)));
    assert_eq!(store.before(3).unwrap().unwrap().number, 2);
    assert_eq!(store.list(1).unwrap().len(), 1);
    assert!(store.get(4).unwrap().is_none());
}

#[test]
fn without_a_folder_revisions_are_kept_in_memory() {
    let settings = config::State { path: None, revisions: 3, ..config::State::default() };
    let store = Store::open(&settings).unwrap();
    for number in 1..=5 {
        assert_eq!(store.append(draft(&number.to_string())).unwrap().number, number);
    }
    assert_eq!(reasons(&store), ["5", "4", "3"]);
}

#[test]
fn a_folder_belongs_to_one_process_and_whoever_comes_second_is_told_which() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder);
    let refused = Store::open(&settings(folder.path(), 1000)).unwrap_err();
    let expected = format!("in use by another gateway (process {})", std::process::id());
    assert!(refused.contains("state.path") && refused.contains(&expected), "{refused}");
    drop(first);
    open(&folder);
}

#[test]
fn a_clock_that_goes_backwards_does_not_reorder() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.append(draft("old")).unwrap();
    let future = Revision { at: u64::MAX, ..(*store.append(draft("future")).unwrap()).clone() };
    fs::write(path(&folder, 2), file::write(&future).unwrap()).unwrap();
    store.append(draft("new")).unwrap();
    drop(store);
    assert_eq!(reasons(&open(&folder)), ["new", "future", "old"]);
}

#[test]
fn a_torn_newest_revision_leaves_the_one_before_and_its_number_is_not_used_again() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.append(draft("old")).unwrap();
    store.append(draft("new")).unwrap();
    drop(store);
    let whole = fs::read(path(&folder, 2)).unwrap();
    for length in 0..whole.len() - 1 {
        fs::write(path(&folder, 2), &whole[..length]).unwrap();
        assert_eq!(open(&folder).newest().unwrap().unwrap().reason, "old", "{length} bytes");
    }
    let store = open(&folder);
    assert_eq!(store.append(draft("next")).unwrap().number, 3);
    assert_eq!(reasons(&store), ["next", "old"]);
}

#[test]
fn where_no_revision_is_whole_nothing_is_undone_silently() {
    let folder = TempDir::new().unwrap();
    open(&folder).append(draft("one")).unwrap();
    fs::write(path(&folder, 1), "").unwrap();
    let refused = Store::open(&settings(folder.path(), 1000)).unwrap_err();
    assert!(refused.contains("move the folder away"), "{refused}");
}

#[test]
fn foreign_files_and_later_formats_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.append(draft("one")).unwrap();
    drop(store);
    let inside = folder.path().join("revisions");
    let text = fs::read_to_string(path(&folder, 1)).unwrap();
    let later = text.replacen("\"format\":1", "\"format\":2", 1);
    let foreign = ["README", "1.json", "00000000.json", "0000000x.json"];
    for name in foreign {
        fs::write(inside.join(name), "{}").unwrap();
    }
    fs::write(path(&folder, 2), later).unwrap();
    // Under another's name.
    fs::copy(path(&folder, 1), path(&folder, 3)).unwrap();
    fs::write(inside.join("4.tmp"), "half").unwrap();
    let store = open(&folder);
    assert_eq!(reasons(&store), ["one"]);
    assert_eq!(store.append(draft("next")).unwrap().number, 4);
    assert!(foreign.iter().all(|name| inside.join(name).exists()));
    assert!(!inside.join("4.tmp").exists());
}

#[test]
fn old_revisions_are_pruned_by_number_and_by_bytes_but_never_the_last_two() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(&settings(folder.path(), 3)).unwrap();
    for number in 1..=5 {
        store.append(draft(&number.to_string())).unwrap();
    }
    assert_eq!(reasons(&store), ["5", "4", "3"]);
    assert!(!path(&folder, 2).exists());
    store.set_most_bytes(1);
    store.append(draft("6")).unwrap();
    assert_eq!(reasons(&store), ["6", "5"]);
    drop(store);
    let store = Store::open(&settings(folder.path(), 0)).unwrap();
    store.append(draft("7")).unwrap();
    assert_eq!(reasons(&store), ["7", "6"]);
}

#[test]
fn a_write_that_fails_leaves_no_trace_wherever_it_fails() {
    for step in STEPS {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        store.append(draft("old")).unwrap();
        store.set_fault(Fault::Fails(step));
        let failed = store.append(draft("new")).unwrap_err();
        assert!(failed.contains("revision 2 cannot be written"), "{failed}");
        assert_eq!(reasons(&store), ["old"]);
        assert_eq!(store.append(draft("next")).unwrap().number, 3);
        drop(store);
        assert_eq!(reasons(&open(&folder)), ["next", "old"], "{step:?}");
    }
}

#[test]
fn a_write_that_is_cut_off_is_there_whole_or_not_at_all() {
    let mut found = Vec::new();
    for step in STEPS {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        store.append(draft("old")).unwrap();
        store.set_fault(Fault::Crashes(step));
        store.append(draft("new")).unwrap_err();
        drop(store);
        found.push(open(&folder).newest().unwrap().unwrap().reason.clone());
    }
    assert_eq!(found, ["old", "old", "old", "old", "new", "new"]);
}

proptest! {
    #[test]
    fn a_file_that_was_changed_is_never_taken_for_another(at in 0_usize..4096, bit in 0_u8..8) {
        let folder = TempDir::new().unwrap();
        let revision = open(&folder).append(draft("one")).unwrap();
        let mut bytes = fs::read(path(&folder, 1)).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        fs::write(path(&folder, 1), bytes).unwrap();
        if let Ok(read) = file::read(&path(&folder, 1), 1) {
            prop_assert_eq!(&read, &*revision);
        }
    }
}

#[test]
fn a_revision_that_cannot_be_read_now_is_there_when_it_can() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let first = store.append(draft("one")).unwrap();
    store.append(draft("two")).unwrap();
    // Something that gives no bytes, and is not gone.
    let aside = folder.path().join("aside");
    fs::rename(path(&folder, 1), &aside).unwrap();
    fs::create_dir(path(&folder, 1)).unwrap();
    let refused = store.get(1).unwrap_err();
    assert!(refused.contains("00000001.json cannot be read"), "{refused}");
    store.before(2).unwrap_err();
    store.list(2).unwrap_err();
    assert_eq!(store.list(1).unwrap().len(), 1);
    fs::remove_dir(path(&folder, 1)).unwrap();
    fs::rename(&aside, path(&folder, 1)).unwrap();
    assert_eq!(store.get(1), Ok(Some(first)));
    // One that is gone is gone.
    fs::remove_file(path(&folder, 1)).unwrap();
    assert_eq!(store.get(1), Ok(None));
    drop(store);
    fs::remove_file(path(&folder, 2)).unwrap();
    fs::create_dir(path(&folder, 2)).unwrap();
    let refused = Store::open(&settings(folder.path(), 1000)).unwrap_err();
    assert!(refused.contains("state.path") && refused.contains("cannot be read"), "{refused}");
}
