//! What is written from borrowed values reads as the same row.

use proptest::prelude::*;
use prost::Message;

use super::*;

fn decoded(row: &RowRef<'_>) -> Row {
    let mut bytes = Vec::new();
    row.encode(&mut bytes);
    Row::decode(bytes.as_slice()).unwrap()
}

#[test]
fn an_empty_row_takes_little_and_reads_as_nothing() {
    let row = decoded(&RowRef::default());
    assert_eq!(row, Row { prediction: vec![0; 16].into(), ..Row::default() });
}

#[test]
fn what_is_nought_is_told_from_what_is_not_there() {
    let row = RowRef { bucket: Some(0), propensity: Some(0.0), ..RowRef::default() };
    assert_eq!((decoded(&row).bucket, decoded(&row).propensity), (Some(0), Some(0.0)));
    assert_eq!(decoded(&RowRef::default()).bucket, None);
}

proptest! {
    #[test]
    fn a_row_reads_as_it_was_written(
        texts in prop::collection::vec("\\PC{0,20}", 18),
        prediction: [u8; 16],
        numbers: [u64; 5],
        small: [u32; 3],
        (arrived_us, bucket, propensity, inclusion, amends) in
            (any::<i64>(), any::<Option<u32>>(), any::<Option<f32>>(), 0.0..1.0f64, any::<bool>()),
        shape in prop::collection::vec(0usize..1 << 40, 0..5),
        data in prop::collection::vec(any::<u8>(), 0..300),
        state in prop::sample::select(vec![State::Whole, State::LeftOut, State::Redacted]),
    ) {
        let propensity = propensity.map(f64::from).filter(|value| !value.is_nan());
        let tensor = TensorRef { name: &texts[16], datatype: "FP32", shape: &shape, data: &data, state };
        let value = TensorValue {
            name: texts[16].clone(),
            datatype: "FP32".to_owned(),
            shape: shape.iter().map(|size| *size as u64).collect(),
            data: data.clone().into(),
            state: state as i32,
        };
        let row = decoded(&RowRef {
            prediction, arrived_us, caller_id: &texts[0], idempotency_key: &texts[1],
            protocol: &texts[2], called: &texts[3], model: &texts[4], version: &texts[5],
            file_hash: &texts[6], route: &texts[7], assigned_arm: &texts[8], arm: &texts[9],
            fallback: &texts[10], draw: &texts[11], bucket, propensity, sticky_key: &texts[12],
            revision: numbers[0], status: Status::Failed as i32, error: &texts[13],
            queue_us: numbers[1], engine_us: numbers[2], total_us: numbers[3],
            batch_size: small[0], items: small[1], device: &texts[14], identity: &texts[15],
            slices: &[("region", &texts[17]), ("", "")], inclusion, stratum: "all",
            schema: numbers[4], shadow: "next", amends, inputs: &[tensor, tensor], outputs: &[tensor],
        });
        let slice = |name: &str, value: &str| Slice { name: name.into(), value: value.into() };
        let mut texts = texts.into_iter();
        let mut next = || texts.next().unwrap();
        let expected = Row {
            prediction: prediction.to_vec().into(), arrived_us, caller_id: next(),
            idempotency_key: next(), protocol: next(), called: next(), model: next(),
            version: next(), file_hash: next(), route: next(), assigned_arm: next(), arm: next(),
            fallback: next(), draw: next(), bucket, propensity, sticky_key: next(),
            revision: numbers[0], status: Status::Failed as i32, error: next(),
            queue_us: numbers[1], engine_us: numbers[2], total_us: numbers[3],
            batch_size: small[0], items: small[1], device: next(), identity: next(),
            slices: { next(); vec![slice("region", &next()), slice("", "")] }, inclusion,
            stratum: "all".into(), schema: numbers[4], shadow: "next".into(), amends,
            inputs: vec![value.clone(), value.clone()], outputs: vec![value],
        };
        prop_assert_eq!(row, expected);
    }
}
