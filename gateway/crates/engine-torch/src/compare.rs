//! When two forms of one model answer alike.

use engine::{DataType, Tensor};
use half::{bf16, f16};

/// Outputs smaller than this are compared as if they were this large: below it, differences are
/// what is left of larger numbers that cancelled out.
const SMALLEST_SCALE: f64 = 1e-3;

/// Where `other` differs from `plain` by more than allowed, in words; `None` where it does not.
///
/// Whole numbers and BOOL must be equal. Of floating-point numbers, the same ones must be NaN or
/// the same infinity, and no other may differ by more than `tolerance` times the output's largest
/// finite magnitude, or times 0.001 where all are smaller. Two units in the last place of that
/// magnitude are always allowed, since FP16 and BF16 cannot do better; a tolerance of 0 asks for
/// the same bytes.
pub(crate) fn difference(plain: &Tensor, other: &Tensor, tolerance: f64) -> Option<String> {
    if plain.shape() != other.shape() {
        return Some(format!("has shape {:?} instead of {:?}", other.shape(), plain.shape()));
    }
    if plain.data() == other.data() {
        return None;
    }
    let (true, Some(expected), Some(actual)) = (tolerance > 0.0, decode(plain), decode(other))
    else {
        return Some("is not the same, bit for bit".to_owned());
    };
    let largest = expected
        .iter()
        .filter(|value| value.is_finite())
        .fold(SMALLEST_SCALE, |largest, value| largest.max(value.abs()));
    let allowed = largest * tolerance.max(2.0 * epsilon(plain.datatype()));
    let mut worst = 0.0_f64;
    for (&expected, &actual) in expected.iter().zip(&actual) {
        if expected.is_finite() && actual.is_finite() {
            worst = worst.max((expected - actual).abs());
        } else if !same_non_finite(expected, actual) {
            return Some(format!("holds {actual} instead of {expected}"));
        }
    }
    (worst > allowed).then(|| format!("differs by {worst:.2e}, allowed are {allowed:.2e}"))
}

#[expect(clippy::float_cmp, reason = "infinities of one sign are equal exactly")]
fn same_non_finite(expected: f64, actual: f64) -> bool {
    expected.is_nan() && actual.is_nan() || expected == actual
}

fn epsilon(datatype: DataType) -> f64 {
    match datatype {
        DataType::Fp16 => f16::EPSILON.to_f64(),
        DataType::Bf16 => bf16::EPSILON.to_f64(),
        DataType::Fp32 => f64::from(f32::EPSILON),
        _ => f64::EPSILON,
    }
}

/// The numbers of a floating-point tensor; `None` for every other type.
fn decode(tensor: &Tensor) -> Option<Vec<f64>> {
    let data = tensor.data();
    match tensor.datatype() {
        DataType::Fp16 => Some(numbers(data, |bytes| f16::from_le_bytes(bytes).to_f64())),
        DataType::Bf16 => Some(numbers(data, |bytes| bf16::from_le_bytes(bytes).to_f64())),
        DataType::Fp32 => Some(numbers(data, |bytes| f64::from(f32::from_le_bytes(bytes)))),
        DataType::Fp64 => Some(numbers(data, f64::from_le_bytes)),
        _ => None,
    }
}

fn numbers<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn fp32(values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DataType::Fp32, vec![values.len()], data.into()).unwrap()
    }

    #[test]
    fn tolerance_is_relative_to_the_largest_value() {
        let plain = fp32(&[1000.0, 0.0]);
        assert_eq!(difference(&plain, &fp32(&[1000.005, 0.005]), 1e-5), None);
        assert!(difference(&plain, &fp32(&[1000.0, 0.02]), 1e-5).is_some());
        assert!(difference(&fp32(&[1.0]), &fp32(&[1.0001]), 1e-5).is_some());
    }

    #[test]
    fn tiny_outputs_are_not_held_to_their_own_size() {
        assert_eq!(difference(&fp32(&[0.0]), &fp32(&[5e-9]), 1e-5), None);
        assert!(difference(&fp32(&[0.0]), &fp32(&[5e-8]), 1e-5).is_some());
    }

    #[test]
    fn non_finite_values_must_stand_in_the_same_places() {
        let plain = fp32(&[f32::NAN, f32::INFINITY, 1.0]);
        assert_eq!(difference(&plain, &fp32(&[-f32::NAN, f32::INFINITY, 1.0]), 1e-5), None);
        for other in [
            [f32::NAN, f32::NEG_INFINITY, 1.0],
            [0.0, f32::INFINITY, 1.0],
            [f32::NAN, f32::INFINITY, f32::NAN],
        ] {
            assert!(difference(&plain, &fp32(&other), 1e-5).is_some(), "{other:?}");
        }
    }

    #[test]
    fn a_tolerance_of_zero_asks_for_the_same_bytes() {
        let next = f32::from_bits(1.0_f32.to_bits() + 1);
        assert!(difference(&fp32(&[1.0]), &fp32(&[next]), 0.0).is_some());
        assert_eq!(difference(&fp32(&[1.0]), &fp32(&[next]), 1e-9), None);
    }

    #[test]
    fn whole_numbers_must_be_equal() {
        let tensor = |value: i64| {
            let data = Bytes::copy_from_slice(&value.to_le_bytes());
            Tensor::new(DataType::Int64, vec![1], data).unwrap()
        };
        assert_eq!(difference(&tensor(1 << 60), &tensor(1 << 60), 0.5), None);
        assert!(difference(&tensor(1 << 60), &tensor((1 << 60) + 1), 0.5).is_some());
    }

    #[test]
    fn half_precision_gets_the_room_it_needs() {
        let tensor = |value: f32| {
            let data = Bytes::copy_from_slice(&bf16::from_f32(value).to_le_bytes());
            Tensor::new(DataType::Bf16, vec![1], data).unwrap()
        };
        assert_eq!(difference(&tensor(1.0), &tensor(1.0078125), 1e-5), None);
        assert!(difference(&tensor(1.0), &tensor(1.03125), 1e-5).is_some());
    }
}
