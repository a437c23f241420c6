//! Exports hold every row with the columns of all, and read as what they are.

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::testing::{START, floats, row, schema, segment, spec, texts, value};
use crate::{Row, Schema};

fn first() -> Schema {
    schema(vec![spec("x", "FP32", &[1]), spec("t", "BYTES", &[1])], vec![])
}

/// `x` is a wider number, and there is a list.
fn second() -> Schema {
    schema(vec![spec("x", "FP64", &[1])], vec![spec("list", "INT8", &[-1])])
}

fn log() -> TempDir {
    let log = TempDir::new().unwrap();
    let inputs = vec![floats("x", &[1, 1], &[0.5]), texts("t", &[1, 1], &[b"a,\"b\"\n"])];
    let one = Row { inputs, ..row(1, 1, &first()) };
    let two = Row {
        arrived_us: START + 1,
        inputs: vec![value("x", "FP64", &[1, 1], 1e300f64.to_le_bytes().to_vec())],
        outputs: vec![value("list", "INT8", &[1, 2], vec![1, 255])],
        ..row(2, 1, &second())
    };
    segment(log.path(), 1, &[&first(), &second()], &[one, two]);
    log
}

fn columns(names: &[&str]) -> Query {
    Query { columns: names.iter().map(|name| (*name).to_owned()).collect(), ..Query::default() }
}

fn text(query: Query, format: Format) -> (u64, String) {
    let mut out = vec![];
    let rows = export(log().path(), query, format, &mut out).unwrap();
    (rows, String::from_utf8(out).unwrap())
}

#[test]
fn csv_has_one_line_of_names_and_the_columns_of_all_rows() {
    let query = columns(&["item", "in_x", "in_t", "out_list", "arrived"]);
    let (rows, text) = text(query, Format::Csv);
    let mut lines: Vec<&str> = text.trim_end().split("\n0,").collect();
    lines.sort_unstable();
    assert_eq!(rows, 2);
    assert_eq!(
        lines,
        [
            "0.5,\"a,\"\"b\"\"\n\",,2026-01-01T00:00:00Z",
            "1e300,,\"[1, -1]\",2026-01-01T00:00:00.000001Z",
            "item,in_x,in_t,out_list,arrived",
        ]
    );
}

#[test]
fn json_lines_are_objects_of_what_a_row_has() {
    let (rows, text) = text(Query::default(), Format::JsonLines);
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["prediction_id"].to_string());
    assert_eq!((rows, lines.len()), (2, 2));
    assert_eq!((&lines[0]["in_x"], &lines[0]["in_t"]), (&0.5.into(), &"a,\"b\"\n".into()));
    assert_eq!((&lines[1]["in_x"], &lines[1]["out_list"]), (&1e300.into(), &vec![1, -1].into()));
    assert!(lines[0].get("out_list").is_none());
}

#[test]
fn parquet_takes_the_wider_type_of_a_column() {
    let mut out = vec![];
    assert_eq!(export(log().path(), Query::default(), Format::Parquet, &mut out).unwrap(), 2);
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(out)).unwrap();
    let mut found: Vec<f64> = reader
        .build()
        .unwrap()
        .flat_map(|batch| {
            let batch = batch.unwrap();
            batch.column_by_name("in_x").unwrap().as_primitive::<Float64Type>().values().to_vec()
        })
        .collect();
    found.sort_by(f64::total_cmp);
    assert_eq!(found, [0.5, 1e300]);
}

#[test]
fn an_export_has_all_but_what_cannot_be_read_and_says_what_that_is() {
    for format in [Format::Csv, Format::JsonLines, Format::Parquet] {
        let log = log();
        let damaged = log.path().join("files/model=m/version=1/date=2026-01-01/hour=00/x.parquet");
        std::fs::create_dir_all(damaged.parent().unwrap()).unwrap();
        std::fs::write(&damaged, "PAR1").unwrap();
        let mut out = vec![];
        let error = export(log.path(), Query::default(), format, &mut out).unwrap_err();
        let ExportError::Incomplete { lines: 2, problems } = &error else { panic!("{error}") };
        assert_eq!(problems.len(), 1);
        assert!(error.to_string().contains(damaged.to_str().unwrap()), "{error}");
        if format == Format::Parquet {
            let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(out)).unwrap();
            assert_eq!(reader.metadata().file_metadata().num_rows(), 2, "it is whole");
        }
    }
}

#[test]
fn an_export_has_no_value_that_is_not_what_was_written_and_says_what_is_missing() {
    let log = log();
    let path = log.path().join("segments/00000001.segment");
    let whole = std::fs::read(&path).unwrap();
    let export = || export(log.path(), Query::default(), Format::Csv, vec![]).unwrap_err();
    let wrong = whole.windows(8).position(|bytes| bytes == 1e300f64.to_le_bytes()).unwrap();
    let mut bytes = whole.clone();
    bytes[wrong] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = export();
    assert!(matches!(&error, ExportError::Incomplete { lines: 1, .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("00000001.segment: 1 parts of it cannot be read, first a record"),
        "{text}"
    );

    std::fs::write(&path, &whole).unwrap();
    let made = crate::convert(&path, log.path(), &crate::Options::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    for file in &made.files {
        let mut bytes = std::fs::read(&file.path).unwrap();
        bytes[50] ^= 1;
        std::fs::write(&file.path, bytes).unwrap();
    }
    let error = export();
    assert!(matches!(&error, ExportError::Incomplete { lines: 0, .. }), "{error}");
    assert!(error.to_string().contains("does not match its checksum"), "{error}");
}

#[test]
fn an_export_of_nothing_has_the_names_that_are_known() {
    let query = Query { from_us: Some(START + 5), ..columns(&["item", "out_list"]) };
    assert_eq!(text(query, Format::Csv), (0, "item,out_list\n".to_owned()));
    let log = log();
    let segment = log.path().join("segments/00000001.segment");
    crate::convert(&segment, log.path(), &crate::Options::default()).unwrap();
    std::fs::remove_file(segment).unwrap();
    let query = Query { from_us: Some(START + 5), ..columns(&["item", "out_list"]) };
    let mut out = vec![];
    assert_eq!(export(log.path(), query, Format::Csv, &mut out).unwrap(), 0);
    assert_eq!(out, b"item,out_list\n");
}

#[test]
fn an_export_without_a_line_has_the_names_of_its_columns() {
    let heading = |log: &Path, query: Query| {
        let mut out = vec![];
        assert_eq!(export(log, query, Format::Csv, &mut out).unwrap(), 0);
        String::from_utf8(out).unwrap()
    };
    // Those of all times, where there is nothing in this one.
    let long_ago = |names: &[&str]| Query { until_us: Some(1), ..columns(names) };
    let filled = log();
    assert_eq!(heading(filled.path(), long_ago(&["out_list", "item"])), "out_list,item\n");
    let all = heading(filled.path(), long_ago(&[]));
    assert!(all.starts_with("model,version,prediction_id,item,"), "{all}");
    assert!(["in_x", "in_t", "out_list"].iter().all(|name| all.contains(name)), "{all}");
    // Those that each row has, and those that were asked for, where there is nothing.
    let other = Query { model: Some("other".into()), ..columns(&["arrived", "in_y"]) };
    assert_eq!(heading(filled.path(), other), "arrived,in_y\n");
    let empty = TempDir::new().unwrap();
    let all = heading(empty.path(), Query::default());
    assert!(all.starts_with("model,version,prediction_id,item,items,arrived,"), "{all}");
    assert!(all.ends_with(",amends,left_out\n") && !all.contains("in_"), "{all}");
    let mut out = vec![];
    assert_eq!(export(empty.path(), Query::default(), Format::Parquet, &mut out).unwrap(), 0);
    let read = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(out)).unwrap();
    assert_eq!(read.schema().fields().len(), all.split(',').count());
}
