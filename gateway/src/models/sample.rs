//! Inputs for warm-up: generated from the signature, or taken from a sample file.

use bytes::Bytes;
use engine::{Batch, DataType, Tensor, TensorSpec};
use half::{bf16, f16};
use serde::Deserialize;

use super::manifest::Manifest;
use crate::codec::tensors::JsonTensor;
use crate::types::Signature;

/// Largest generated tensor; a shape in a file may ask for any size.
const LARGEST: usize = 1 << 30;

#[derive(Deserialize)]
struct SampleFile<'a> {
    #[serde(borrow)]
    inputs: Vec<JsonTensor<'a>>,
}

/// One batch per warm-up size.
///
/// # Errors
/// What is wrong with the sample file.
pub fn batches(manifest: &Manifest, sample: Option<&[u8]>) -> Result<Vec<Batch>, String> {
    let signature = &manifest.signature;
    let inputs = match sample {
        Some(text) => from_file(signature, text).map_err(|e| format!("warmup.sample: {e}"))?,
        None => signature
            .inputs
            .iter()
            .map(|spec| {
                let rows = (signature.max_batch_size > 0).then_some(1);
                generated(spec, rows, manifest.warmup.variable)
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(manifest.warmup.batch_sizes.iter().map(|&size| repeated(signature, &inputs, size)).collect())
}

/// One generated item whose variable length is this.
///
/// # Errors
/// As [`generated`].
pub fn of_length(manifest: &Manifest, length: usize) -> Result<Vec<Tensor>, String> {
    let axis = manifest.batching.variable.as_ref().map(|variable| variable.axis);
    let inputs = manifest.signature.inputs.iter().map(|spec| {
        let mut spec = spec.clone();
        if let Some(size) = axis.and_then(|axis| spec.shape.get_mut(axis))
            && *size == -1
        {
            *size = i64::try_from(length).unwrap_or(i64::MAX);
        }
        generated(&spec, Some(1), manifest.warmup.variable)
    });
    inputs.collect()
}

/// A batch of one item for each bucket of a model of variable length.
///
/// # Errors
/// As [`generated`].
pub fn lengths(manifest: &Manifest) -> Result<Vec<Batch>, String> {
    let variable = manifest.batching.variable.iter();
    let lengths = variable.flat_map(|variable| &variable.buckets);
    lengths.map(|&length| Ok(Batch::single(&of_length(manifest, length)?, 1))).collect()
}

fn from_file(signature: &Signature, text: &[u8]) -> Result<Vec<Tensor>, String> {
    let file: SampleFile<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let given = file.inputs.iter().map(JsonTensor::decode).collect::<Result<_, _>>()?;
    let ordered = signature.order(given).map_err(|rejection| rejection.to_string())?;
    // Only the first row is used, so that it can be repeated to every size.
    let first_row = |tensor: Tensor| match signature.max_batch_size {
        0 => tensor,
        _ => {
            let rest = tensor.rows() - 1;
            tensor.split_rows(&[1, rest]).swap_remove(0)
        }
    };
    Ok(ordered.tensors.into_iter().map(first_row).collect())
}

/// Stacks one row `size` times; a model that does not batch runs its sample as it is.
fn repeated(signature: &Signature, inputs: &[Tensor], size: usize) -> Batch {
    if signature.max_batch_size == 0 {
        return Batch::single(inputs, 1);
    }
    Batch::stack(&vec![inputs; size])
}

/// A tensor of ones, with `rows` for the batch dimension, if there is one, and `variable` for
/// every other dimension of any size. Ones are in range for probabilities, counts, masks and
/// most vocabularies; zeros would warm up less.
///
/// # Errors
/// When so many elements do not fit in memory.
pub fn generated(
    spec: &TensorSpec,
    rows: Option<usize>,
    variable: usize,
) -> Result<Tensor, String> {
    let shape: Vec<usize> = spec
        .shape
        .iter()
        .enumerate()
        .map(|(axis, &dimension)| match usize::try_from(dimension) {
            Ok(size) => size,
            Err(_) if axis == 0 => rows.unwrap_or(variable),
            Err(_) => variable,
        })
        .collect();
    let count = engine::tensor::element_count(&shape).map_err(|error| error.to_string())?;
    let size = spec.datatype.size().unwrap_or(5);
    if count.checked_mul(size).is_none_or(|bytes| bytes > LARGEST) {
        return Err(format!(
            "input '{}': a generated sample of shape {shape:?} is too large, set warmup.sample or \
             warmup.variable",
            spec.name
        ));
    }
    let one: Vec<u8> = match spec.datatype {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => vec![1],
        DataType::Uint16 | DataType::Int16 => 1_u16.to_le_bytes().into(),
        DataType::Uint32 | DataType::Int32 => 1_u32.to_le_bytes().into(),
        DataType::Uint64 | DataType::Int64 => 1_u64.to_le_bytes().into(),
        DataType::Fp16 => f16::ONE.to_le_bytes().into(),
        DataType::Bf16 => bf16::ONE.to_le_bytes().into(),
        DataType::Fp32 => 1_f32.to_le_bytes().into(),
        DataType::Fp64 => 1_f64.to_le_bytes().into(),
        DataType::Bytes => engine::tensor::frame_strings(&["1"]).into(),
    };
    Tensor::new(spec.datatype, shape, Bytes::from(one.repeat(count)))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(extra: &str) -> Manifest {
        let text = format!(
            "platform = 'identity'\nmax_batch_size = 4\n\
             [[input]]\nname = 'a'\ndtype = 'INT64'\nshape = [-1, -1]\n\
             [[input]]\nname = 'b'\ndtype = 'BYTES'\nshape = [-1, 2]\n\
             [[output]]\nname = 'y'\ndtype = 'INT64'\nshape = [-1, -1]\n[warmup]\n{extra}"
        );
        Manifest::parse(&text).unwrap()
    }

    #[test]
    fn generated_samples_fit_the_signature_at_every_size() {
        let batches = batches(&manifest("batch_sizes = [1, 3]\nvariable = 5"), None).unwrap();
        let shapes: Vec<_> = batches
            .iter()
            .map(|batch| (batch.rows(), batch.inputs()[0].shape().to_vec()))
            .collect();
        assert_eq!(shapes, [(1, vec![1, 5]), (3, vec![3, 5])]);
        assert!(batches[1].inputs()[1].joined().is_ok());
    }

    #[test]
    fn a_sample_that_no_memory_holds_is_an_error() {
        for size in [1_000_000_000_000_000_i64, 2_000_000_000_000_000_000] {
            let spec =
                TensorSpec { name: "x".into(), datatype: DataType::Fp64, shape: vec![-1, size] };
            assert!(generated(&spec, Some(1), 16).unwrap_err().contains("too large"));
        }
    }

    #[test]
    fn a_sample_file_is_checked_against_the_signature() {
        let text = br#"{"inputs":[{"name":"a","datatype":"INT64","shape":[1,1],"data":[7]}]}"#;
        let error = batches(&manifest(""), Some(text)).unwrap_err();
        assert!(error.contains("input 'b' is missing"), "{error}");
    }
}
