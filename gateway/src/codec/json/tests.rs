//! Tensor data in JSON: what is accepted, what is refused, and that nothing changes on the way.

use proptest::prelude::*;

use super::*;

mod against_serde;

fn parse(text: &str, datatype: DataType, shape: &[usize]) -> Result<Tensor, String> {
    parse_data(text, datatype, shape.to_vec())
}

fn written(tensor: &Tensor) -> String {
    let mut out = Vec::new();
    write_data(tensor, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn flat_and_nested_lists_mean_the_same() {
    let flat = parse("[1, 2, 3, 4, 5, 6]", DataType::Int32, &[2, 3]).unwrap();
    let nested = parse("[[1,2,3],[4,5,6]]", DataType::Int32, &[2, 3]).unwrap();
    assert_eq!(flat, nested);
    assert_eq!(written(&flat), "[1,2,3,4,5,6]");
}

#[test]
fn ragged_and_half_nested_lists_are_refused() {
    for text in ["[[1,2],[3]]", "[1,[2,3]]", "[[1],2,3]", "[[[1],[2]],[[3],[4]]]", "[[1,2,3,4]]"] {
        assert!(parse(text, DataType::Int32, &[2, 2]).is_err(), "{text}");
    }
}

#[test]
fn element_counts_must_match_the_shape() {
    let few = parse("[1,2,3]", DataType::Fp32, &[2, 2]).unwrap_err();
    assert_eq!(few, "data has 3 elements, shape [2, 2] needs 4");
    let many = parse("[1,2,3,4,5]", DataType::Fp32, &[2, 2]).unwrap_err();
    assert_eq!(many, "data: more than the 4 elements of shape [2, 2]");
}

#[test]
fn integers_are_exact_up_to_64_bits() {
    let text = "[9007199254740993,18446744073709551615,0]";
    assert_eq!(written(&parse(text, DataType::Uint64, &[3]).unwrap()), text);
    let text = "[-9223372036854775808,9223372036854775807]";
    assert_eq!(written(&parse(text, DataType::Int64, &[2]).unwrap()), text);
    for (text, datatype) in [
        ("[18446744073709551616]", DataType::Uint64),
        ("[256]", DataType::Uint8),
        ("[-1]", DataType::Uint32),
        ("[-129]", DataType::Int8),
        ("[1.5]", DataType::Int32),
        ("[1e3]", DataType::Int32),
    ] {
        let error = parse(text, datatype, &[1]).unwrap_err();
        assert!(error.contains(&format!("not {datatype}")), "{text}: {error}");
    }
}

#[test]
fn what_is_no_element_of_the_type_is_named() {
    for (text, datatype, what) in [
        ("[\"1\"]", DataType::Fp32, "element 0 is text, not FP32"),
        ("[true]", DataType::Int8, "element 0 is true, not INT8"),
        ("[1]", DataType::Bool, "element 0 is 1, not BOOL"),
        ("[null]", DataType::Fp32, "element 0 is null, not FP32"),
        ("[1e39]", DataType::Fp32, "out of range, not FP32"),
        ("[70000]", DataType::Fp16, "out of range, not FP16"),
        ("[{}]", DataType::Fp32, "expected a list of FP32"),
        ("3", DataType::Fp32, "must be a flat list"),
    ] {
        let error = parse(text, datatype, &[1]).unwrap_err();
        assert!(error.contains(what), "{text}: {error}");
    }
}

#[test]
fn nan_and_infinity_are_refused_both_ways() {
    assert!(parse("[NaN]", DataType::Fp32, &[1]).is_err());
    assert!(parse("[Infinity]", DataType::Fp64, &[1]).is_err());
    for value in [f32::NAN, f32::INFINITY] {
        let data = Bytes::copy_from_slice(&value.to_le_bytes());
        let tensor = Tensor::new(DataType::Fp32, vec![1], data).unwrap();
        let error = write_data(&tensor, &mut Vec::new()).unwrap_err();
        assert!(error.contains("NaN or infinite"));
    }
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    let text = "[".repeat(100_000);
    assert!(parse(&text, DataType::Fp32, &[1]).is_err());
}

#[test]
fn a_shape_may_promise_more_than_it_sends_without_reserving_it() {
    assert!(parse("[1]", DataType::Fp64, &[1 << 40]).is_err());
}

#[test]
fn bytes_that_are_no_text_cannot_be_json() {
    let tensor = Tensor::from_strings(vec![1], &[[0xff, 0xfe]]).unwrap();
    assert!(write_data(&tensor, &mut Vec::new()).unwrap_err().contains("no UTF-8"));
}

proptest! {
    #[test]
    fn singles_survive_json_bit_for_bit(values in prop::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 0..20)) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new(DataType::Fp32, vec![values.len()], data.into()).unwrap();
        let text = written(&tensor);
        prop_assert_eq!(parse(&text, DataType::Fp32, &[values.len()]).unwrap(), tensor);
    }

    #[test]
    fn doubles_survive_json_bit_for_bit(values in prop::collection::vec(any::<f64>().prop_filter("finite", |v| v.is_finite()), 0..20)) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new(DataType::Fp64, vec![values.len()], data.into()).unwrap();
        let text = written(&tensor);
        prop_assert_eq!(parse(&text, DataType::Fp64, &[values.len()]).unwrap(), tensor);
    }

    #[test]
    fn decimals_are_rounded_as_by_the_standard_library(text in "-?(0|[1-9][0-9]{0,11})\\.[0-9]{1,24}") {
        let read = parse(&format!("[{text}]"), DataType::Fp64, &[1]).unwrap();
        prop_assert_eq!(&read.data()[..], text.parse::<f64>().unwrap().to_le_bytes());
    }

    #[test]
    fn text_survives_json(values in prop::collection::vec(".*", 0..6)) {
        let tensor = Tensor::from_strings(vec![values.len()], &values).unwrap();
        let text = written(&tensor);
        prop_assert_eq!(parse(&text, DataType::Bytes, &[values.len()]).unwrap(), tensor);
    }

    #[test]
    fn any_text_is_parsed_or_refused_without_panicking(text in ".{0,40}", rank in 0_usize..3) {
        for datatype in DataType::ALL {
            drop(parse(&text, datatype, &vec![2; rank]));
        }
    }
}
