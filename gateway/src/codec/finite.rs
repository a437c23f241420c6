//! Looks for NaN and infinities in tensors: loops without a way out inside a block, which
//! compile to vector instructions, so that a look costs a fraction of copying the tensor once.

use engine::{DataType, Tensor};

/// Bytes looked at before the first finding ends the search.
const BLOCK: usize = 4096;

/// Whether elements of this type can be NaN or infinite at all.
#[must_use]
pub fn has_floats(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
}

/// Whether any element is NaN.
#[must_use]
pub fn has_nan(tensor: &Tensor) -> bool {
    let data = tensor.data();
    match tensor.datatype() {
        DataType::Fp16 => holds(data, |bytes| magnitude(bytes) > 0x7c00),
        DataType::Bf16 => holds(data, |bytes| magnitude(bytes) > 0x7f80),
        DataType::Fp32 => holds(data, |bytes| f32::from_le_bytes(bytes).is_nan()),
        DataType::Fp64 => holds(data, |bytes| f64::from_le_bytes(bytes).is_nan()),
        _ => false,
    }
}

/// Whether no element is NaN or infinite.
#[must_use]
pub fn is_finite(tensor: &Tensor) -> bool {
    let data = tensor.data();
    let found = match tensor.datatype() {
        DataType::Fp16 => holds(data, |bytes| magnitude(bytes) >= 0x7c00),
        DataType::Bf16 => holds(data, |bytes| magnitude(bytes) >= 0x7f80),
        DataType::Fp32 => holds(data, |bytes| !f32::from_le_bytes(bytes).is_finite()),
        DataType::Fp64 => holds(data, |bytes| !f64::from_le_bytes(bytes).is_finite()),
        _ => false,
    };
    !found
}

/// A number of two bytes without its sign. Signed, for vector units compare nothing else.
fn magnitude(bytes: [u8; 2]) -> i16 {
    i16::from_le_bytes(bytes) & i16::MAX
}

fn holds<const N: usize>(data: &[u8], is: impl Fn([u8; N]) -> bool) -> bool {
    data.chunks(BLOCK)
        .any(|block| block.as_chunks::<N>().0.iter().fold(false, |found, &bytes| found | is(bytes)))
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;

    fn tensor(datatype: DataType, data: Vec<u8>) -> Tensor {
        let count = data.len() / datatype.size().unwrap();
        Tensor::new(datatype, vec![count], data.into()).unwrap()
    }

    proptest! {
        #[test]
        fn findings_are_those_of_the_numbers_themselves(
            bits in prop::collection::vec(prop_oneof![any::<u64>(), Just(f64::NAN.to_bits()),
                Just(f64::INFINITY.to_bits()), Just(0x7c00_7f80_7c01_7f81)], 0..40),
            clean in 0_usize..1200,
        ) {
            let mut data = vec![0; clean * 8];
            data.extend(bits.iter().flat_map(|bits| bits.to_le_bytes()));
            let (halves, words, longs) =
                (data.as_chunks::<2>().0, data.as_chunks::<4>().0, data.as_chunks::<8>().0);
            let expected = [
                (DataType::Fp16, halves.iter().any(|&b| f16::from_le_bytes(b).is_nan()),
                 halves.iter().all(|&b| f16::from_le_bytes(b).is_finite())),
                (DataType::Bf16, halves.iter().any(|&b| bf16::from_le_bytes(b).is_nan()),
                 halves.iter().all(|&b| bf16::from_le_bytes(b).is_finite())),
                (DataType::Fp32, words.iter().any(|&b| f32::from_le_bytes(b).is_nan()),
                 words.iter().all(|&b| f32::from_le_bytes(b).is_finite())),
                (DataType::Fp64, longs.iter().any(|&b| f64::from_le_bytes(b).is_nan()),
                 longs.iter().all(|&b| f64::from_le_bytes(b).is_finite())),
                (DataType::Int64, false, true),
            ];
            for (datatype, nan, finite) in expected {
                let tensor = tensor(datatype, data.clone());
                prop_assert_eq!((has_nan(&tensor), is_finite(&tensor)), (nan, finite));
            }
        }
    }
}
