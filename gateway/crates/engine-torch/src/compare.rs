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

/// How far a row may lie from where it was when the arithmetic is BF16, as a share of its length.
///
/// Rows that near have a cosine of at least 0.999 and lengths within 4.5 % of each other.
const REDUCED: f64 = 0.0447;

/// [`difference`] for a model that computes in BF16, which has three decimal digits: a row of a
/// floating-point output may also lie within [`REDUCED`] of its length, but what is declared as a
/// whole number must still be equal.
pub(crate) fn reduced_difference(plain: &Tensor, other: &Tensor, tolerance: f64) -> Option<String> {
    let strict = difference(plain, other, tolerance)?;
    let (Some(expected), Some(actual)) = (decode(plain), decode(other)) else {
        return Some(strict);
    };
    if plain.shape() != other.shape() {
        return Some(strict);
    }
    let width = expected.len() / plain.rows().max(1);
    let rows = expected.chunks(width.max(1)).zip(actual.chunks(width.max(1)));
    for (row, (expected, actual)) in rows.enumerate() {
        let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
        let length = squares(&mut expected.iter().copied()).sqrt().max(SMALLEST_SCALE);
        let apart = squares(&mut expected.iter().zip(actual).map(|(a, b)| a - b)).sqrt();
        let share = apart / length;
        // A NaN is no number that is small enough.
        if share.partial_cmp(&REDUCED).is_none_or(std::cmp::Ordering::is_gt) {
            return Some(format!(
                "differs in row {row} by {share:.3} of its length, allowed are {REDUCED}"
            ));
        }
    }
    None
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
    fn a_model_in_bf16_may_turn_its_rows_a_little() {
        let tensor = |rows: usize, values: &[f32]| {
            let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let shape = vec![rows, values.len() / rows];
            Tensor::new(DataType::Fp32, shape, data.into()).unwrap()
        };
        let plain = tensor(2, &[100.0, 0.0, 0.01, 0.0]);
        let near = tensor(2, &[101.0, 4.0, 0.01, 0.0001]);
        assert!(difference(&plain, &near, 1e-5).is_some());
        assert_eq!(reduced_difference(&plain, &near, 1e-5), None);
        // Each row stands for itself: the small one is not hidden by the large one.
        let far = tensor(2, &[100.0, 0.0, 0.01, 0.001]);
        let text = reduced_difference(&plain, &far, 1e-5).unwrap();
        assert_eq!(text, "differs in row 1 by 0.100 of its length, allowed are 0.0447");
        let shorter = tensor(2, &[90.0, 0.0, 0.01, 0.0]);
        assert!(reduced_difference(&plain, &shorter, 1e-5).is_some(), "a cosine alone would pass");
        assert_eq!(reduced_difference(&plain, &shorter, 0.2), None, "what is declared holds too");
        let broken = tensor(2, &[100.0, f32::NAN, 0.01, 0.0]);
        assert!(reduced_difference(&plain, &broken, 1e-5).is_some());
        assert!(reduced_difference(&plain, &fp32(&[100.0, 0.0]), 1.0).is_some());
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
