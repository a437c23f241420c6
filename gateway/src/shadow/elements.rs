//! Elements of tensors as numbers, a block at a time: nothing is allocated, however large a
//! tensor is.

use engine::DataType;
use half::{bf16, f16};

/// Elements read together.
pub(super) const BLOCK: usize = 256;

/// Where the elements of both sides are read to.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) live: [f64; BLOCK],
    pub(super) shadow: [f64; BLOCK],
}

impl Blocks {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { live: [0.0; BLOCK], shadow: [0.0; BLOCK] })
    }
}

/// Reads at most a block of floats; what is no float leaves everything as it is.
pub(super) fn read<'a>(datatype: DataType, data: &[u8], into: &'a mut [f64; BLOCK]) -> &'a [f64] {
    let count = match datatype {
        DataType::Fp16 => fill(data, into, |bytes| f16::from_le_bytes(bytes).to_f64()),
        DataType::Bf16 => fill(data, into, |bytes| bf16::from_le_bytes(bytes).to_f64()),
        DataType::Fp32 => fill(data, into, |bytes| f64::from(f32::from_le_bytes(bytes))),
        DataType::Fp64 => fill(data, into, f64::from_le_bytes),
        _ => 0,
    };
    &into[..count]
}

fn fill<const N: usize>(
    data: &[u8],
    into: &mut [f64; BLOCK],
    read: impl Fn([u8; N]) -> f64,
) -> usize {
    let elements = data.as_chunks::<N>().0;
    for (slot, bytes) in into.iter_mut().zip(elements) {
        *slot = read(*bytes);
    }
    elements.len().min(BLOCK)
}
