//! What the arguments of `penstock log export` mean, and what becomes of files.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, UNIX_EPOCH};

use clap::Parser;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn arguments(words: &[&str]) -> Arguments {
    Line::parse_from([&["export"], words].concat()).arguments
}

#[test]
fn a_range_of_time_counts_from_now_where_it_says_so() {
    let now = UNIX_EPOCH + Duration::from_secs(7200);
    let query = arguments(&["--from", "-1h", "--to", "1970-01-01T01:30:00Z"]).rows.at(now).unwrap();
    assert_eq!((query.from_us, query.until_us), (Some(3_600_000_000), Some(5_400_000_000)));
    let error = arguments(&["--from=-1h", "--to=-2h"]).rows.at(now).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--from 1970-01-01T01:00:00Z is not before --to 1970-01-01T00:00:00Z"
    );
}

#[test]
fn columns_are_a_list() {
    let columns = arguments(&["--columns", "prediction_id,in_x"]).rows.columns;
    assert_eq!(columns, ["prediction_id", "in_x"]);
}

#[test]
fn the_name_of_a_file_says_what_is_written() {
    let of = |name: &str| Written::of(Path::new(name));
    assert_eq!(of("a/b.parquet"), Some(Written::Parquet));
    assert_eq!(of("b.csv"), Some(Written::Csv));
    assert_eq!([of("b.jsonl"), of("b.ndjson")], [Some(Written::Jsonl); 2]);
    assert_eq!([of("b.txt"), of("-"), of("csv")], [None; 3]);
}

#[test]
fn a_file_is_there_once_it_is_whole_and_never_in_the_place_of_another_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.csv");
    let names = || -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let write = |target: &Target, text: &str| target.file().write_all(text.as_bytes()).unwrap();

    let given_up = Target::begin(&path, false).unwrap();
    write(&given_up, "half");
    assert!(!path.exists());
    drop(given_up);
    assert!(names().is_empty());

    let target = Target::begin(&path, false).unwrap();
    write(&target, "one");
    target.finish().unwrap();
    assert_eq!(names(), ["rows.csv"]);
    let error = Target::begin(&path, false).unwrap_err().to_string();
    assert_eq!(error, format!("{} exists: --force overwrites it", path.display()));

    let target = Target::begin(&path, true).unwrap();
    write(&target, "two");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    target.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");

    // Somebody else makes the file meanwhile.
    fs::remove_file(&path).unwrap();
    let target = Target::begin(&path, false).unwrap();
    write(&target, "three");
    fs::write(&path, "theirs").unwrap();
    target.finish().unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    assert_eq!(names(), ["rows.csv"]);
}

#[test]
fn what_is_no_plain_file_is_written_to_as_it_is() {
    let target = Target::begin(Path::new("/dev/null"), true).unwrap();
    target.file().write_all(b"gone").unwrap();
    target.finish().unwrap();
    let folder = TempDir::new().unwrap();
    let error = Target::begin(folder.path(), true).unwrap_err().to_string();
    assert_eq!(error, format!("cannot write {}", folder.path().display()));
}

#[test]
fn a_reader_that_has_gone_is_noticed() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut stream = Counted::new(Gone);
    assert!(!stream.is_broken());
    stream.write_all(b"x").unwrap_err();
    assert!(stream.is_broken());
}
