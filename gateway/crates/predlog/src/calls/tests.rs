//! Calls are read back as they were written, from segments and from files, in order and once.

use std::path::Path;

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::testing::{START, begin, floats, row, schema, segment, slice, spec, texts, value};
use crate::{Options, Query, State, Status, TensorSpec, TensorValue, convert};

fn read(log: &Path, query: &Query) -> Vec<Recorded> {
    calls(log, query.clone()).unwrap().map(Result::unwrap).collect()
}

/// What the log has while its segment is there, and once it is files alone.
fn both(schemas: &[&Schema], rows: &[Row]) -> (Vec<Recorded>, Vec<Recorded>) {
    let log = tempfile::tempdir().unwrap();
    let path = segment(log.path(), 1, schemas, rows);
    let early = read(log.path(), &Query::default());
    let options = Options { row_group_bytes: 4096, ..Options::default() };
    convert(&path, log.path(), &options).unwrap();
    assert_eq!(read(log.path(), &Query::default()), early);
    std::fs::remove_file(path).unwrap();
    (early, read(log.path(), &Query::default()))
}

fn ids(calls: &[Recorded]) -> Vec<u8> {
    calls.iter().map(|call| call.row.prediction[0]).collect()
}

/// Numbers as files keep them: NaN of 16 bits is quiet.
fn kept(datatype: engine::DataType, data: Vec<u8>) -> Vec<u8> {
    let halves = |number: fn([u8; 2]) -> [u8; 2]| {
        data.as_chunks::<2>().0.iter().flat_map(|bytes| number(*bytes)).collect()
    };
    match datatype {
        engine::DataType::Bool => data.iter().map(|byte| byte & 1).collect(),
        engine::DataType::Fp16 => {
            halves(|bytes| f16::from_f32(f16::from_le_bytes(bytes).to_f32()).to_le_bytes())
        }
        engine::DataType::Bf16 => {
            halves(|bytes| bf16::from_f32(bf16::from_le_bytes(bytes).to_f32()).to_le_bytes())
        }
        _ => data,
    }
}

/// A tensor's declaration, and one of its values for so many items.
fn tensor(items: u64) -> impl Strategy<Value = (TensorSpec, TensorValue)> {
    let sizes = prop::collection::vec((0u64..4, any::<bool>()), 0..3);
    let kind = prop::sample::select(engine::DataType::ALL.to_vec());
    (kind, sizes, any::<bool>(), any::<bool>()).prop_flat_map(
        move |(kind, sizes, batched, text)| {
            let own: Vec<u64> = sizes.iter().map(|(size, _)| *size).collect();
            let shape: Vec<i64> = sizes
                .iter()
                .map(|(size, is_fixed)| if *is_fixed { i64::try_from(*size).unwrap() } else { -1 })
                .collect();
            let batched = batched || items > 1;
            let whole: Vec<u64> = batched.then_some(items).into_iter().chain(own).collect();
            let count = usize::try_from(whole.iter().product::<u64>()).unwrap();
            let spec = TensorSpec { is_batched: batched, ..spec("x", kind.name(), &shape) };
            let element = move || match kind.size() {
                Some(size) => prop::collection::vec(any::<u8>(), size).boxed(),
                None if text => "\\PC{0,5}".prop_map(String::into_bytes).boxed(),
                None => prop::collection::vec(any::<u8>(), 0..6).boxed(),
            };
            prop::collection::vec(element(), count).prop_map(move |elements| {
                let value = match kind.size() {
                    Some(_) => value("x", kind.name(), &whole, kept(kind, elements.concat())),
                    None => {
                        let elements: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
                        texts("x", &whole, &elements)
                    }
                };
                (spec.clone(), value)
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever type and shape: what was sent is what is read, from a segment and from a file.
    #[test]
    fn tensors_are_read_bit_for_bit((items, (input, sent), (output, given)) in (1u64..5)
        .prop_flat_map(|items| (Just(items), tensor(items), tensor(items))))
    {
        let schema = schema(vec![input], vec![output]);
        let call = |id| Row {
            inputs: vec![sent.clone()],
            outputs: vec![given.clone()],
            slices: vec![slice("region", "eu")],
            bucket: Some(7),
            ..row(id, u32::try_from(items).unwrap(), &schema)
        };
        let (early, late) = both(&[&schema], &[call(1), call(2)]);
        prop_assert_eq!(&early[0].row, &call(1));
        prop_assert_eq!(early, late.clone());
        prop_assert!(late[1].missing.is_empty() && late[1].lost_items == 0);
    }
}

#[test]
fn the_words_of_a_call_are_read_back() {
    let schema = schema(vec![spec("x", "FP32", &[2])], vec![]);
    let call = Row {
        caller_id: "c".into(),
        route: "r".into(),
        arm: "a".into(),
        propensity: Some(0.25),
        inclusion: 0.5,
        queue_us: 3,
        total_us: 9,
        batch_size: 4,
        error: "none".into(),
        inputs: vec![floats("x", &[1, 2], &[f32::NAN, -0.0])],
        ..row(1, 1, &schema)
    };
    let (early, late) = both(&[&schema], std::slice::from_ref(&call));
    assert_eq!(early[0].row, call);
    assert_eq!(late[0].row, call);
    assert_eq!(late[0].schema.as_deref(), Some(&schema));
}

#[test]
fn what_is_not_held_is_named_with_its_reason() {
    let schema = schema(
        vec![spec("a", "FP32", &[1]), spec("b", "FP32", &[1]), spec("c", "FP32", &[1])],
        vec![spec("y", "FP32", &[1]), spec("z", "INT8", &[1])],
    );
    let with = |state: State, tensor: TensorValue| TensorValue { state: state as i32, ..tensor };
    let call = Row {
        inputs: vec![
            with(State::LeftOut, value("a", "FP32", &[1, 1], vec![])),
            with(State::Redacted, floats("b", &[1, 1], &[5.0])),
            value("c", "FP32", &[1, 2], vec![0; 8]),
        ],
        outputs: vec![
            with(State::Redacted, texts("y", &[1, 1], &[b"hash"])),
            value("q", "INT8", &[1], vec![0]),
        ],
        ..row(1, 1, &schema)
    };
    let (early, late) = both(&[&schema], &[call]);
    let named = |tensor: &str, is_input, why| Missing { is_input, tensor: tensor.into(), why };
    let expected = [
        named("a", true, Why::LeftOut),
        named("b", true, Why::Redacted),
        named("c", true, Why::Unfit),
        named("y", false, Why::Redacted),
        named("q", false, Why::Unfit),
    ];
    assert_eq!(early[0].missing, expected);
    assert_eq!(late[0].missing, expected);
    let states: Vec<_> = late[0].row.inputs.iter().map(|tensor| tensor.state).collect();
    assert_eq!(states, [State::LeftOut as i32, State::Redacted as i32, State::LeftOut as i32]);
    assert_eq!(late[0].row.inputs[1].data, floats("b", &[1, 1], &[5.0]).data);
    // Never sent, and not named.
    assert!(late[0].row.outputs.iter().all(|tensor| tensor.name != "z"));
}

#[test]
fn calls_come_by_arrival_whatever_order_and_place_they_are_in() {
    let schema = schema(vec![spec("x", "FP32", &[1])], vec![]);
    let log = tempfile::tempdir().unwrap();
    let at = |id: u8, seconds: i64| Row {
        arrived_us: START + seconds * 1_000_000,
        version: if id.is_multiple_of(2) { "1".into() } else { "2".into() },
        inputs: vec![floats("x", &[1, 1], &[f32::from(id)])],
        ..row(id, 1, &schema)
    };
    // Two segments that overlap, hours that change, one segment that is still written.
    let first = segment(log.path(), 1, &[&schema], &[at(3, 3), at(1, 1), at(2, 2), at(9, 7200)]);
    segment(log.path(), 2, &[&schema], &[at(6, 6), at(4, 2), at(5, 5)]);
    let _open = begin(log.path(), 3, &[&schema], &[at(10, 7300), at(8, 3600)]);
    convert(&first, log.path(), &Options::default()).unwrap();
    let in_order = [1, 2, 4, 3, 5, 6, 8, 9, 10];
    assert_eq!(ids(&read(log.path(), &Query::default())), in_order);
    std::fs::remove_file(&first).unwrap();
    let mut calls = calls(log.path(), Query::default()).unwrap();
    let found: Vec<_> = calls.by_ref().map(Result::unwrap).collect();
    assert_eq!(ids(&found), in_order);
    assert_eq!(calls.counts(), &Counts::default());
    let query = Query {
        from_us: Some(START + 2_000_000),
        until_us: Some(START + 7_200_000_000),
        version: Some("1".into()),
        ..Query::default()
    };
    assert_eq!(ids(&read(log.path(), &query)), [2, 4, 6, 8]);
}

#[test]
fn a_call_comes_once_and_its_shadow_and_amendment_beside_it() {
    let schema = schema(vec![spec("x", "FP32", &[1])], vec![]);
    let log = tempfile::tempdir().unwrap();
    let rows = [
        row(1, 1, &schema),
        Row { shadow: "next".into(), ..row(1, 1, &schema) },
        Row { amends: true, status: Status::Cancelled as i32, ..row(1, 1, &schema) },
    ];
    segment(log.path(), 1, &[&schema], &rows);
    segment(log.path(), 2, &[&schema], &rows[..1]);
    let mut calls = calls(log.path(), Query::default()).unwrap();
    assert_eq!(calls.by_ref().map(Result::unwrap).count(), 3);
    assert_eq!(calls.counts().repeats, 1);
}

#[test]
fn a_segment_that_is_converted_while_it_is_read_loses_nothing() {
    let schema = schema(vec![spec("x", "FP32", &[1])], vec![]);
    let log = tempfile::tempdir().unwrap();
    let path = segment(log.path(), 1, &[&schema], &[row(1, 1, &schema), row(2, 1, &schema)]);
    let calls = calls(log.path(), Query::default()).unwrap();
    convert(&path, log.path(), &Options::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let found: Vec<_> = calls.map(Result::unwrap).collect();
    assert_eq!(ids(&found), [1, 2]);
}

#[test]
fn lines_that_are_not_there_are_counted() {
    let schema = schema(vec![spec("x", "INT64", &[1])], vec![]);
    let values: Vec<u8> = (0..3i64).flat_map(i64::to_le_bytes).collect();
    let call = |id, items, lost: usize| Row {
        inputs: vec![value("x", "INT64", &[items, 1], values[lost * 8..].to_vec())],
        items: u32::try_from(items).unwrap(),
        ..row(id, 3, &schema)
    };
    let (_, late) = both(&[&schema], &[call(1, 3, 0)]);
    assert_eq!((late[0].lost_items, &late[0].row.inputs[0].data[..]), (0, &values[..]));
    // A file that somebody filtered: three items are said, two are there.
    let log = tempfile::tempdir().unwrap();
    let path = segment(log.path(), 1, &[&schema], &[call(1, 3, 0), call(2, 3, 0)]);
    let converted = convert(&path, log.path(), &Options::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    without_lines(&converted.files[0].path, &[1, 3]);
    let found = read(log.path(), &Query::default());
    let lost: Vec<_> = found.iter().map(|call| (call.row.prediction[0], call.lost_items)).collect();
    assert_eq!(lost, [(1, 1), (2, 1)]);
}

/// Writes a file again without some of its lines.
fn without_lines(path: &Path, lost: &[usize]) {
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    let file = std::fs::File::open(path).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let metadata = builder.metadata().file_metadata().key_value_metadata().cloned();
    // Of what it was.
    let is_sum = |entry: &KeyValue| entry.key.starts_with("penstock.crc32");
    let metadata = metadata.map(|all| all.into_iter().filter(|entry| !is_sum(entry)).collect());
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    let [batch] = &batches[..] else { panic!("{} batches", batches.len()) };
    let properties = WriterProperties::builder().set_key_value_metadata(metadata).build();
    let out = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties)).unwrap();
    for line in (0..batch.num_rows()).filter(|line| !lost.contains(line)) {
        writer.write(&batch.slice(line, 1)).unwrap();
    }
    writer.close().unwrap();
}
