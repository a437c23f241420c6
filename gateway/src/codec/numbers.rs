//! Tensors as plain numbers: for comparing outputs and finding the largest ones.

use engine::{DataType, Tensor};
use half::{bf16, f16};

/// The elements as `f64`; integers beyond 2^53 are rounded. Empty for BYTES.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "ranking and comparing need no last digit")]
pub fn to_f64(tensor: &Tensor) -> Vec<f64> {
    let data = tensor.data();
    match tensor.datatype() {
        DataType::Bool | DataType::Uint8 => data.iter().map(|byte| f64::from(*byte)).collect(),
        DataType::Int8 => data.iter().map(|byte| f64::from(i8::from_le_bytes([*byte]))).collect(),
        DataType::Uint16 => words(data, |bytes| f64::from(u16::from_le_bytes(bytes))),
        DataType::Int16 => words(data, |bytes| f64::from(i16::from_le_bytes(bytes))),
        DataType::Uint32 => words(data, |bytes| f64::from(u32::from_le_bytes(bytes))),
        DataType::Int32 => words(data, |bytes| f64::from(i32::from_le_bytes(bytes))),
        DataType::Uint64 => words(data, |bytes| u64::from_le_bytes(bytes) as f64),
        DataType::Int64 => words(data, |bytes| i64::from_le_bytes(bytes) as f64),
        DataType::Fp16 => words(data, |bytes| f16::from_le_bytes(bytes).to_f64()),
        DataType::Bf16 => words(data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
        DataType::Fp32 => words(data, |bytes| f64::from(f32::from_le_bytes(bytes))),
        DataType::Fp64 => words(data, f64::from_le_bytes),
        DataType::Bytes => vec![],
    }
}

/// The elements exactly, where the type is an integer one or BOOL.
#[must_use]
pub fn to_integers(tensor: &Tensor) -> Option<Vec<i128>> {
    let data = tensor.data();
    Some(match tensor.datatype() {
        DataType::Bool | DataType::Uint8 => data.iter().map(|byte| i128::from(*byte)).collect(),
        DataType::Int8 => data.iter().map(|byte| i128::from(i8::from_le_bytes([*byte]))).collect(),
        DataType::Uint16 => words(data, |bytes| i128::from(u16::from_le_bytes(bytes))),
        DataType::Int16 => words(data, |bytes| i128::from(i16::from_le_bytes(bytes))),
        DataType::Uint32 => words(data, |bytes| i128::from(u32::from_le_bytes(bytes))),
        DataType::Int32 => words(data, |bytes| i128::from(i32::from_le_bytes(bytes))),
        DataType::Uint64 => words(data, |bytes| i128::from(u64::from_le_bytes(bytes))),
        DataType::Int64 => words(data, |bytes| i128::from(i64::from_le_bytes(bytes))),
        _ => return None,
    })
}

fn words<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

/// Compares two tensors: floats within `tolerance` times the largest finite magnitude that is
/// expected (single elements near zero carry the rounding of their large neighbours), everything
/// else exactly.
///
/// # Errors
/// The first difference, with the index of the element.
pub fn compare(expected: &Tensor, actual: &Tensor, tolerance: f64) -> Result<(), String> {
    if expected.datatype() != actual.datatype() || expected.shape() != actual.shape() {
        return Err(format!(
            "is {} {:?}, expected {} {:?}",
            actual.datatype(),
            actual.shape(),
            expected.datatype(),
            expected.shape()
        ));
    }
    let is_float = matches!(
        expected.datatype(),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64
    );
    if !is_float {
        return if expected.data() == actual.data() {
            Ok(())
        } else {
            Err("differs from what is expected".to_owned())
        };
    }
    let expected = to_f64(expected);
    let largest = expected
        .iter()
        .map(|value| value.abs())
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    // Where only zeros are expected there is no magnitude to relate to.
    let allowed = tolerance * if largest > 0.0 { largest } else { 1.0 };
    for (index, (want, have)) in expected.into_iter().zip(to_f64(actual)).enumerate() {
        let close = (want - have).abs() <= allowed;
        // Equal infinities have no difference, and two NaN are the same answer.
        let same = want.to_bits() == have.to_bits() || (want.is_nan() && have.is_nan());
        if !close && !same {
            return Err(format!("element {index} is {have}, expected {want} within {allowed:e}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn singles(values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DataType::Fp32, vec![values.len()], data.into()).unwrap()
    }

    #[test]
    fn the_tolerance_is_relative_to_the_largest_value() {
        let expected = singles(&[1000.0, 0.0]);
        assert!(compare(&expected, &singles(&[1000.5, 0.5]), 1e-3).is_ok());
        assert!(compare(&expected, &singles(&[1002.0, 0.0]), 1e-3).is_err());
        assert!(compare(&singles(&[0.001]), &singles(&[0.0011]), 1e-3).is_err());
        assert!(compare(&singles(&[0.0]), &singles(&[0.0005]), 1e-3).is_ok());
    }

    #[test]
    fn nan_and_infinity_equal_only_themselves() {
        let expected = singles(&[f32::NAN, f32::INFINITY]);
        assert!(compare(&expected, &expected, 0.0).is_ok());
        assert!(compare(&expected, &singles(&[f32::NAN, f32::NEG_INFINITY]), 1.0).is_err());
        assert!(compare(&expected, &singles(&[0.0, f32::INFINITY]), 1.0).is_err());
    }
}
