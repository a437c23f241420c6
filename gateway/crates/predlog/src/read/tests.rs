//! A log is read as one, each row once, whatever is converted or removed meanwhile.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::convert::{Options, convert};
use crate::testing::{HOUR, START, begin, floats, ids, lines, row, schema, segment, slice, spec};
use crate::{Row, Schema};

fn numbers() -> Schema {
    schema(vec![spec("x", "FP32", &[1])], vec![])
}

fn call(id: u8) -> Row {
    Row { inputs: vec![floats("x", &[1, 1], &[f32::from(id)])], ..row(id, 1, &numbers()) }
}

/// Two segments that are converted, one that waits, and one that is being written.
fn log() -> (TempDir, crate::segment::Writer) {
    let log = TempDir::new().unwrap();
    fs::write(log.path().join("instance"), "000000ab 4\n").unwrap();
    for (number, ids) in [(1, [1, 2]), (2, [3, 4])] {
        let rows = ids.map(|id| Row { arrived_us: START + i64::from(id) * HOUR / 2, ..call(id) });
        let segment = segment(log.path(), number, &[&numbers()], &rows);
        to_files(log.path(), &segment);
        fs::remove_file(segment).unwrap();
    }
    segment(log.path(), 3, &[&numbers()], &[call(5), Row { model: "other".into(), ..call(6) }]);
    let open = begin(
        log.path(),
        4,
        &[&numbers()],
        &[Row { slices: vec![slice("region", "eu")], ..call(7) }],
    );
    (log, open)
}

fn to_files(log: &Path, segment: &Path) {
    let options = Options { instance: 0xab, ..Options::default() };
    convert(segment, log, &options).unwrap();
}

fn read(log: &Path, query: Query) -> Vec<Value> {
    let batches: Vec<_> = scan(log, query).unwrap().map(Result::unwrap).collect();
    lines(&batches)
}

#[test]
fn files_and_segments_are_read_as_one() {
    let (log, _open) = log();
    let lines = read(log.path(), Query::default());
    assert_eq!(ids(&lines), [1, 2, 3, 4, 5, 6, 7]);
    for line in &lines {
        let id = ids(std::slice::from_ref(line))[0];
        assert_eq!(line["in_x"], f64::from(id));
        assert_eq!(line["model"], if id == 6 { "other" } else { "m" });
        assert_eq!((&line["version"], line["slice_region"] == "eu"), (&json!("1"), id == 7));
    }
}

#[test]
fn a_segment_that_is_converted_and_not_removed_yet_is_read_once() {
    let (log, _open) = log();
    to_files(log.path(), &log.path().join("segments/00000003.segment"));
    assert_eq!(ids(&read(log.path(), Query::default())), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_segment_that_is_converted_and_removed_while_a_log_is_read_is_read_once() {
    let (log, _open) = log();
    let scan = scan(log.path(), Query::default()).unwrap();
    let segment = log.path().join("segments/00000003.segment");
    to_files(log.path(), &segment);
    fs::remove_file(segment).unwrap();
    let batches: Vec<_> = scan.map(Result::unwrap).collect();
    assert_eq!(ids(&lines(&batches)), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_segment_that_is_closed_while_a_log_is_read_is_read_once() {
    let (log, mut open) = log();
    let scan = scan(log.path(), Query::default()).unwrap();
    open.close().unwrap();
    let batches: Vec<_> = scan.map(Result::unwrap).collect();
    assert_eq!(ids(&lines(&batches)), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn files_whose_time_is_over_while_a_log_is_read_are_passed_over() {
    let (log, _open) = log();
    let scan = scan(log.path(), Query::default()).unwrap();
    fs::remove_dir_all(log.path().join("files")).unwrap();
    let batches: Vec<_> = scan.map(Result::unwrap).collect();
    assert_eq!(ids(&lines(&batches)), [5, 6, 7]);
}

#[test]
fn what_cannot_be_read_is_named_and_everything_else_is_read() {
    let (log, _open) = log();
    let hour = |hour: &str| {
        let folder = format!("files/model=m/version=1/date=2026-01-01/hour={hour}");
        let mut entries = fs::read_dir(log.path().join(folder)).unwrap();
        entries.next().unwrap().unwrap().path()
    };
    // A footer that is gone, a page that is damaged, a file of somebody else, and a segment of a
    // later version.
    let (cut, foreign) = (hour("00"), hour("00").with_file_name("foreign.parquet"));
    fs::write(&cut, "PAR1").unwrap();
    let batch = RecordBatch::try_from_iter([("x", Arc::new(StringArray::from(vec!["a"])) as _)]);
    let batch = batch.unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(File::create(&foreign).unwrap(), batch.schema(), None)
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let later = log.path().join("segments/00000009.segment");
    let mut head = fs::read(log.path().join("segments/00000003.segment")).unwrap();
    head[8] = 2;
    let sum = crc32fast::hash(&head[..36]).to_le_bytes();
    head[36..40].copy_from_slice(&sum);
    fs::write(&later, head).unwrap();
    let query = Query { from_us: Some(0), ..Query::default() };
    let scan = scan(log.path(), query).unwrap();
    scan.schema().unwrap();
    let (batches, problems): (Vec<_>, Vec<_>) = scan.partition(Result::is_ok);
    let batches: Vec<_> = batches.into_iter().map(Result::unwrap).collect();
    let named: Vec<_> =
        problems.into_iter().map(|problem| problem.unwrap_err().to_string()).collect();
    assert_eq!(named.len(), 3, "{named:?}");
    for path in [&cut, &foreign, &later] {
        let path = path.to_str().unwrap();
        assert!(named.iter().any(|text| text.starts_with(path)), "{path}: {named:?}");
    }
    assert!(named.iter().any(|text| text.contains("no times of arrival")), "{named:?}");
    assert_eq!(ids(&lines(&batches)), [2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_damaged_file_costs_no_other_wherever_its_damage_is() {
    let (log, _open) = log();
    let path = files(log.path()).unwrap()[0].1.clone();
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(37) {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).unwrap();
        let scan = scan(log.path(), Query { from_us: Some(0), ..Query::default() }).unwrap();
        scan.schema().unwrap();
        let batches: Vec<_> = scan.flatten().collect();
        let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert!(read >= 6, "byte {at}");
    }
}

#[test]
fn a_segment_of_more_versions_than_are_gathered_at_a_time_is_read_whole() {
    let log = TempDir::new().unwrap();
    let rows: Vec<Row> =
        (0..200).map(|id| Row { version: (id % 50).to_string(), ..call(id) }).collect();
    segment(log.path(), 1, &[&numbers()], &rows);
    assert_eq!(ids(&read(log.path(), Query::default())), (0..200).collect::<Vec<u8>>());
}

#[test]
fn a_query_takes_times_models_versions_and_columns() {
    let (log, _open) = log();
    let of = |query| ids(&read(log.path(), query));
    let from_us = Some(START + HOUR);
    assert_eq!(of(Query { from_us, ..Query::default() }), [2, 3, 4]);
    assert_eq!(of(Query { from_us, until_us: Some(START + 2 * HOUR), ..Query::default() }), [2, 3]);
    assert_eq!(of(Query { until_us: Some(START + 1), ..Query::default() }), [5, 6, 7]);
    assert_eq!(of(Query { model: Some("other".into()), ..Query::default() }), [6]);
    assert_eq!(of(Query { version: Some("9".into()), ..Query::default() }), [0u8; 0]);
    let columns = ["slice_region", "prediction_id", "nowhere", "model"].map(str::to_owned).to_vec();
    let query = Query { columns, from_us, ..Query::default() };
    let batches: Vec<_> = scan(log.path(), query).unwrap().map(Result::unwrap).collect();
    let names: Vec<_> =
        batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["prediction_id", "model"]);
}

#[test]
fn the_columns_of_all_batches_are_known_before_the_first() {
    let (log, _open) = log();
    let other = schema(vec![spec("x", "BYTES", &[1])], vec![spec("y", "INT8", &[-1])]);
    segment(log.path(), 5, &[&other], &[row(8, 1, &other)]);
    let scan = scan(log.path(), Query::default()).unwrap();
    let union = scan.schema().unwrap();
    for batch in scan {
        for field in batch.unwrap().schema().fields() {
            union.field_with_name(field.name()).unwrap();
        }
    }
    let kind = |name: &str| union.field_with_name(name).unwrap().data_type().clone();
    assert_eq!(kind("in_x"), DataType::Utf8, "numbers and texts are texts together");
    assert!(kind("out_y").is_nested());
    assert_eq!(kind("slice_region"), DataType::Utf8);
}

#[test]
fn a_folder_that_is_no_log_holds_nothing() {
    let folder = TempDir::new().unwrap();
    assert_eq!(read(folder.path(), Query::default()), [Value::Null; 0]);
}
