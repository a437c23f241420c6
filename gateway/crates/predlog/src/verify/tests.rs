//! What is wrong with a log is named, and what is not is not.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::convert::{Options, convert};
use crate::testing::{HOUR, START, begin, floats, row, schema, segment, spec, told};
use crate::{Row, Schema};

fn numbers() -> Schema {
    schema(vec![spec("x", "FP32", &[2])], vec![])
}

fn call(id: u8) -> Row {
    let x = floats("x", &[1, 2], &[f32::from(id), 1.0 / f32::from(id)]);
    Row { inputs: vec![x], arrived_us: START + i64::from(id), ..row(id, 1, &numbers()) }
}

/// Segments 1 and 2 are files, 5 waits.
fn log() -> TempDir {
    let log = TempDir::new().unwrap();
    fs::write(log.path().join("instance"), "00000000 5\n").unwrap();
    let late = |row: Row| Row { arrived_us: row.arrived_us + HOUR, ..row };
    for (number, rows) in
        [(1, (1..100).map(call).collect::<Vec<_>>()), (2, vec![call(101), late(call(102))])]
    {
        let segment = segment(log.path(), number, &[&numbers()], &rows);
        convert(&segment, log.path(), &Options::default()).unwrap();
        fs::remove_file(segment).unwrap();
    }
    segment(log.path(), 5, &[&numbers()], &[call(1), call(2)]);
    log
}

#[test]
fn a_log_that_is_whole_is_called_so_and_missing_numbers_are_named() {
    let log = log();
    let verification = verify(log.path()).unwrap();
    assert!(verification.is_whole(), "{verification:?}");
    assert_eq!(verification.files.iter().map(|file| file.rows).collect::<Vec<_>>(), [99, 1, 1]);
    assert_eq!(verification.segments[0].rows, 2);
    assert_eq!(verification.missing, [3..=4]);
}

#[test]
fn numbers_that_are_missing_at_either_end_are_named_and_are_no_damage() {
    let log = log();
    let note = |text: &str| fs::write(log.path().join("instance"), text).unwrap();
    let missing = || {
        let verification = verify(log.path()).unwrap();
        assert!(verification.is_whole(), "{verification:?}");
        verification.missing
    };
    note("00000000 8\n");
    assert_eq!(missing(), [3..=4, 6..=8]);
    // A note that is behind or cannot be read hides nothing.
    for noted in ["00000000 2\n", "00000000", ""] {
        note(noted);
        assert_eq!(missing(), [3..=4], "{noted}");
    }
    note("00000000 6\n");
    assert_eq!(missing(), [3..=4, 6..=6]);
    assert!(!is_here(log.path(), 0, 6).unwrap());
    drop(crate::testing::begin(log.path(), 6, &[&numbers()], &[call(1)]));
    assert!(is_here(log.path(), 0, 6).unwrap());
    assert_eq!(missing(), [3..=4], "it is being written");
    let first = files(log.path()).unwrap()[0].1.clone();
    assert!(is_here(log.path(), 0, 1).unwrap() && !is_here(log.path(), 7, 1).unwrap());
    fs::remove_file(first).unwrap();
    assert_eq!(missing(), [1..=1, 3..=4]);
    // All was delivered.
    fs::remove_dir_all(log.path().join("files")).unwrap();
    fs::remove_dir_all(log.path().join("segments")).unwrap();
    assert_eq!(missing(), [1..=6]);
}

#[test]
fn a_byte_that_changed_anywhere_in_a_file_is_noticed() {
    let log = log();
    let path = verify(log.path()).unwrap().files[0].path.clone();
    let whole = fs::read(&path).unwrap();
    let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap());
    let covered = whole.len() - 8 - footer as usize;
    assert!(covered > 1000);
    for at in (0..covered).step_by(97).chain([covered - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).unwrap();
        let verification = verify(log.path()).unwrap();
        let problem = verification.files[0].problem.clone();
        assert_eq!(problem.as_deref(), Some("it does not match its checksum"), "byte {at}");
        assert!(!verification.is_whole() && verification.files[1].problem.is_none());
    }
    // The footer has no checksum of its own: most of what changes there cannot be read, and
    // nothing brings the process down.
    for at in (covered..whole.len()).step_by(41) {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).unwrap();
        verify(log.path()).unwrap();
    }
}

#[test]
fn a_file_that_is_cut_is_named() {
    let log = log();
    let path = verify(log.path()).unwrap().files[0].path.clone();
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let problem = verify(log.path()).unwrap().files[0].problem.clone();
        assert!(
            problem.is_some_and(|text| text.starts_with("its footer cannot be read")),
            "{length}"
        );
    }
}

#[test]
fn a_damaged_segment_is_named_with_what_can_be_read_of_it() {
    let log = log();
    let path = log.path().join("segments/00000005.segment");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 60;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let verification = verify(log.path()).unwrap();
    assert!(!verification.is_whole());
    assert_eq!((verification.segments[0].rows, verification.segments[0].gaps.len()), (1, 1));
}

#[test]
fn a_record_that_is_being_written_is_no_damage() {
    let log = log();
    let closed = log.path().join("segments/00000005.segment");
    let open = closed.with_extension("open");
    fs::rename(&closed, &open).unwrap();
    let bytes = fs::read(&open).unwrap();
    // Into the last record of all, and into that of the last call.
    for (cut, rows) in [(3, 2), (100, 1)] {
        fs::write(&open, &bytes[..bytes.len() - cut]).unwrap();
        let verification = verify(log.path()).unwrap();
        assert!(verification.is_whole(), "{verification:?}");
        assert_eq!(verification.segments[0].rows, rows);
    }
    // What is damaged before is.
    let mut damaged = bytes[..bytes.len() - 3].to_vec();
    damaged[40] ^= 1;
    fs::write(&open, damaged).unwrap();
    assert!(!verify(log.path()).unwrap().is_whole());
}

#[test]
fn a_segment_that_was_put_aside_is_named_with_its_damage() {
    let log = log();
    let [path, aside] =
        ["segment", "damaged"].map(|of| log.path().join("segments/00000005").with_extension(of));
    let bytes = fs::read(path).unwrap();
    // It ends before the record with which it was closed.
    fs::write(&aside, &bytes[..bytes.len() - 40]).unwrap();
    let verification = verify(log.path()).unwrap();
    assert!(!verification.is_whole());
    let [whole, damaged] = &verification.segments[..] else { panic!("{verification:?}") };
    assert!(!whole.is_aside && whole.gaps.is_empty());
    assert!(damaged.is_aside && damaged.path == aside && !damaged.gaps.is_empty());
}

#[test]
fn statistics_are_told_of_all_files_but_those_that_cannot_be_read() {
    let log = log();
    let path = files(log.path()).unwrap()[0].1.clone();
    let before = stats(log.path()).unwrap();
    let whole = fs::read(&path).unwrap();
    let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap());
    // Cut, emptied, and damaged wherever that may be in a footer.
    let cut = [0, 7, whole.len() / 2].map(|length| whole[..length].to_vec());
    let damaged = (whole.len() - 8 - footer as usize..whole.len()).step_by(61).map(|at| {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        damaged
    });
    for bytes in cut {
        fs::write(&path, bytes).unwrap();
        let found = stats(log.path()).unwrap();
        assert_eq!((found[0].files, found[0].rows, found[0].unreadable), (1, 1, 1));
        assert_eq!(found[1], before[1]);
    }
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        stats(log.path()).unwrap();
    }
}

#[test]
fn records_of_a_later_version_are_named() {
    let log = log();
    let mut writer = crate::testing::begin(log.path(), 6, &[&numbers()], &[call(1)]);
    let mut framed = crate::testing::feedback(&[crate::testing::told(1)]);
    framed[8] = 9;
    writer.append(&mut framed).unwrap();
    let verification = verify(log.path()).unwrap();
    let check = verification.segments.iter().find(|check| check.number == 6).unwrap();
    assert_eq!(check.problem.as_deref(), Some("1 records are of a later version"));
    assert!(!verification.is_whole());
}

#[test]
fn statistics_come_from_metadata() {
    let log = log();
    let stats = stats(log.path()).unwrap();
    let of = |of: &Stats| (of.partition.hour, of.files, of.rows, of.first_us, of.last_us);
    let hour = START / HOUR;
    let expected = [
        (hour, 2, 100, START + 1, START + 101),
        (hour + 1, 1, 1, START + HOUR + 102, START + HOUR + 102),
    ];
    assert_eq!(stats.iter().map(of).collect::<Vec<_>>(), expected);
    let bytes: u64 =
        files(log.path()).unwrap().iter().map(|(_, path)| path.metadata().unwrap().len()).sum();
    assert_eq!(stats.iter().map(|of| of.bytes).sum::<u64>(), bytes);
    let segment = log.path().join("segments/00000005.segment");
    assert_eq!(waiting(log.path()).unwrap(), (1, segment.metadata().unwrap().len()));
}

#[test]
fn feedback_is_read_and_counted_like_rows() {
    let log = TempDir::new().unwrap();
    fs::write(log.path().join("instance"), "00000000 2\n").unwrap();
    for number in [1, 2] {
        let mut writer = begin(log.path(), number, &[], &[]);
        writer.append(&mut crate::testing::feedback(&[told(1), told(2)])).unwrap();
        let segment = writer.close().unwrap();
        if number == 1 {
            convert(&segment, log.path(), &Options::default()).unwrap();
            fs::remove_file(segment).unwrap();
        }
    }
    let verification = verify(log.path()).unwrap();
    assert!(verification.is_whole() && verification.missing.is_empty(), "{verification:?}");
    assert_eq!((verification.feedback[0].rows, verification.segments[0].feedback), (2, 2));
    let path = verification.feedback[0].path.clone();
    let (files, lines, bytes) = feedback_stats(log.path()).unwrap();
    assert_eq!((files, lines, bytes), (1, 2, path.metadata().unwrap().len()));
    let mut damaged = fs::read(&path).unwrap();
    damaged[20] ^= 4;
    fs::write(&path, damaged).unwrap();
    let verification = verify(log.path()).unwrap();
    assert!(!verification.is_whole() && verification.feedback[0].problem.is_some());
}
