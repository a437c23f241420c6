//! What tests of files share: rows, segments, and lines as JSON.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use serde_json::Value;

use crate::read::printable;
use crate::row::Slice;
use crate::segment::{Kind, Writer, frame};
use crate::{Feedback, Label, Row, Schema, State, Status, TensorSpec, TensorValue};

/// 2026-01-01 00:00 UTC.
pub(crate) const START: i64 = 1_767_225_600_000_000;
pub(crate) const HOUR: i64 = 3_600_000_000;

pub(crate) fn spec(name: &str, datatype: &str, shape: &[i64]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        is_batched: true,
        features: vec![],
    }
}

pub(crate) fn schema(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Schema {
    Schema { model: "m".into(), inputs, outputs }
}

pub(crate) fn value(name: &str, datatype: &str, shape: &[u64], data: Vec<u8>) -> TensorValue {
    TensorValue {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        data: data.into(),
        state: State::Whole as i32,
    }
}

pub(crate) fn floats(name: &str, shape: &[u64], values: &[f32]) -> TensorValue {
    value(name, "FP32", shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub(crate) fn texts(name: &str, shape: &[u64], values: &[&[u8]]) -> TensorValue {
    let framed = |value: &&[u8]| {
        let length = u32::try_from(value.len()).unwrap().to_le_bytes();
        [&length, *value].concat()
    };
    value(name, "BYTES", shape, values.iter().flat_map(framed).collect())
}

/// A call that was answered, with this number in its id.
pub(crate) fn row(id: u8, items: u32, schema: &Schema) -> Row {
    Row {
        prediction: vec![id; 16].into(),
        arrived_us: START,
        model: "m".into(),
        version: "1".into(),
        status: Status::Answered as i32,
        inclusion: 1.0,
        items,
        schema: schema.id().0,
        ..Row::default()
    }
}

pub(crate) fn slice(name: &str, value: &str) -> Slice {
    Slice { name: name.into(), value: value.into() }
}

/// Feedback about the call with this number in its id.
pub(crate) fn told(id: u8) -> Feedback {
    Feedback {
        prediction: vec![id; 16].into(),
        id: id.to_string(),
        label: Some(Label::Text(id.to_string())),
        reward: Some(f64::from(id)),
        event_us: START + i64::from(id),
        received_us: START,
        source: "test".into(),
        ..Feedback::default()
    }
}

/// Feedback as segments have it.
pub(crate) fn feedback(all: &[Feedback]) -> Vec<u8> {
    let mut records = vec![];
    for told in all {
        assert!(frame(Kind::Feedback, &mut records, |out| out.extend(told.encode_to_vec())));
    }
    records
}

/// A closed segment in the folder of a log.
pub(crate) fn segment(log: &Path, number: u64, schemas: &[&Schema], rows: &[Row]) -> PathBuf {
    let mut writer = begin(log, number, schemas, rows);
    writer.close().unwrap()
}

/// A segment that is still being written.
pub(crate) fn begin(log: &Path, number: u64, schemas: &[&Schema], rows: &[Row]) -> Writer {
    let folder = log.join("segments");
    std::fs::create_dir_all(&folder).unwrap();
    let mut writer = Writer::create(&folder, number, START, 0).unwrap();
    let mut records = vec![];
    for schema in schemas {
        assert!(frame(Kind::Schema, &mut records, |out| out.extend(schema.encode_to_vec())));
    }
    for row in rows {
        assert!(frame(Kind::Row, &mut records, |out| out.extend(row.encode_to_vec())));
    }
    writer.append(&mut records).unwrap();
    writer
}

/// Lines as JSON; what is null is not there.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<Value> {
    let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
    batches.iter().for_each(|batch| writer.write(&printable(batch).unwrap()).unwrap());
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of a Parquet file.
pub(crate) fn contents(path: &Path) -> Vec<Value> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    lines(&batches)
}

/// The first byte of the ids of lines, by which tests tell calls apart.
pub(crate) fn ids(lines: &[Value]) -> Vec<u8> {
    let mut ids: Vec<u8> = lines
        .iter()
        .map(|line| u8::from_str_radix(&line["prediction_id"].as_str().unwrap()[..2], 16).unwrap())
        .collect();
    ids.sort_unstable();
    ids
}
