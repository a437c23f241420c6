//! Numbers and texts mean what `serde_json` says they mean, in both directions.

use engine::{DataType, Tensor};
use proptest::prelude::*;

use super::super::{oracle, parse_data, write_data};

fn assert_parsed_alike(text: &str, datatype: DataType, shape: &[usize]) {
    let ours = parse_data(text, datatype, shape.to_vec());
    assert_eq!(ours, oracle::parse_data(text, datatype, shape.to_vec()), "{text} as {datatype}");
}

fn assert_written_alike(tensor: &Tensor) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let results = [write_data(tensor, &mut ours), oracle::write_data(tensor, &mut theirs)];
    assert_eq!(results[0], results[1]);
    if results[0].is_ok() {
        assert_eq!(String::from_utf8(ours), String::from_utf8(theirs));
    }
}

/// Values whose text lies between two floats, at the ends of the range, or of extreme length.
#[test]
fn hard_numbers_are_rounded_as_doubles_first() {
    for number in [
        // Halfway between two singles but for a digit that doubles cannot hold: rounding once
        // would go up, rounding the double goes to the even neighbour.
        "1.00000005960464477540",
        "1.000000059604644775390625",
        "1.000000059604644775390624999999999999",
        "0.1",
        "-0",
        "-0.0",
        "0e999999999999",
        "1e-400",
        "4.9e-324",
        "2.4703282292062327e-324",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "1e308",
        "1e309",
        "3.4028235e38",
        "3.4028236e38",
        "3.4028235677973366e38",
        "1.17549421069244107548702944484928734882705242874589333385717453057158887047561890426550235133618116378784179687500e-38",
        "7.2057594037927933e16",
        "9007199254740993",
        "9007199254740993.0",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "65519",
        "65520",
        "65504.00001",
        "3.3895314e38",
        "3.4e38",
        "0.30000000000000004",
        "1e-7",
        "6.631236846766476e-316",
        "100000000000000000000000000000000000000000000000000000000000000000000e-60",
        "00",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e+",
        "-",
        "--1",
        "1_0",
        "0x1",
        "1.e1",
        "inf",
        "nan",
    ] {
        for datatype in DataType::ALL {
            assert_parsed_alike(&format!("[{number}]"), datatype, &[1]);
            assert_parsed_alike(number, datatype, &[]);
        }
    }
    let parsed = parse_data("[1.00000005960464477540]", DataType::Fp32, vec![1]).unwrap();
    assert_eq!(parsed.data()[..], 1.0_f32.to_le_bytes());
}

#[test]
fn every_half_float_is_written_alike() {
    let data: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for datatype in [DataType::Fp16, DataType::Bf16, DataType::Uint16, DataType::Int16] {
        for element in data.chunks(2) {
            let data = element.to_vec().into();
            assert_written_alike(&Tensor::new(datatype, vec![1], data).unwrap());
        }
    }
}

proptest! {
    #[test]
    fn any_number_is_parsed_alike(number in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?") {
        for datatype in DataType::ALL {
            assert_parsed_alike(&format!("[{number}]"), datatype, &[1]);
        }
    }

    #[test]
    fn numbers_near_singles_are_parsed_alike(bits in any::<u32>(), offset in -3_i64..4) {
        let single = f64::from(f32::from_bits(bits));
        prop_assume!(single.is_finite() && single != 0.0);
        // The doubles around the midpoint to the next single: where rounding twice shows.
        let midpoint = single.to_bits() + (1 << 28);
        let value = f64::from_bits(midpoint.saturating_add_signed(offset));
        prop_assume!(value.is_finite());
        assert_parsed_alike(&format!("[{value:e}]"), DataType::Fp32, &[1]);
        assert_parsed_alike(&format!("[{value:.40e}1]"), DataType::Fp32, &[1]);
    }

    #[test]
    fn any_bits_are_written_alike(data in prop::collection::vec(any::<u8>(), 0..9)) {
        let data: Vec<u8> = data.iter().flat_map(|byte| byte.wrapping_mul(37).to_le_bytes().repeat(8)).collect();
        for datatype in DataType::ALL.into_iter().filter(|datatype| *datatype != DataType::Bool) {
            if let Some(size) = datatype.size() {
                let tensor = Tensor::new(datatype, vec![data.len() / size], data.clone().into());
                assert_written_alike(&tensor.unwrap());
            }
        }
    }

    #[test]
    fn any_floats_are_written_alike(singles in prop::collection::vec(any::<u32>(), 1..9), doubles in prop::collection::vec(any::<u64>(), 1..9)) {
        let data: Vec<u8> = singles.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        assert_written_alike(&Tensor::new(DataType::Fp32, vec![singles.len()], data.into()).unwrap());
        let data: Vec<u8> = doubles.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        assert_written_alike(&Tensor::new(DataType::Fp64, vec![doubles.len()], data.into()).unwrap());
    }

    #[test]
    fn any_bytes_are_written_alike(elements in prop::collection::vec(prop_oneof![prop::collection::vec(any::<u8>(), 0..20), "[ -~\"\\\\]{0,30}".prop_map(String::into_bytes), ".{0,20}".prop_map(String::into_bytes)], 0..4)) {
        assert_written_alike(&Tensor::from_strings(vec![elements.len()], &elements).unwrap());
    }
}
