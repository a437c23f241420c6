//! Typed contents of gRPC tensors as bytes: what clients and servers without raw contents send.

use bytes::Bytes;
use engine::DataType;
use engine::tensor::frame_strings;
use proto::inference::InferTensorContents;

/// Typed contents as wire bytes. Only the field of the datatype may be filled.
///
/// # Errors
/// Names the field or the element that does not fit.
pub fn typed(datatype: DataType, contents: InferTensorContents) -> Result<Bytes, String> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let filled = [
        ("bool_contents", bool_contents.len()),
        ("int_contents", int_contents.len()),
        ("int64_contents", int64_contents.len()),
        ("uint_contents", uint_contents.len()),
        ("uint64_contents", uint64_contents.len()),
        ("fp32_contents", fp32_contents.len()),
        ("fp64_contents", fp64_contents.len()),
        ("bytes_contents", bytes_contents.len()),
    ];
    let field = match datatype {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => {
            return Err(format!("{datatype} needs raw_input_contents"));
        }
    };
    if let Some((other, _)) = filled.iter().find(|(name, count)| *name != field && *count > 0) {
        return Err(format!("{datatype} belongs in {field}, found {other}"));
    }
    Ok(match datatype {
        DataType::Bool => bool_contents.into_iter().map(u8::from).collect(),
        DataType::Int8 => {
            narrow(&int_contents, datatype, |v| i8::try_from(v).map(i8::to_le_bytes))?
        }
        DataType::Int16 => {
            narrow(&int_contents, datatype, |v| i16::try_from(v).map(i16::to_le_bytes))?
        }
        DataType::Int32 => bytes(&int_contents, i32::to_le_bytes),
        DataType::Int64 => bytes(&int64_contents, i64::to_le_bytes),
        DataType::Uint8 => {
            narrow(&uint_contents, datatype, |v| u8::try_from(v).map(u8::to_le_bytes))?
        }
        DataType::Uint16 => {
            narrow(&uint_contents, datatype, |v| u16::try_from(v).map(u16::to_le_bytes))?
        }
        DataType::Uint32 => bytes(&uint_contents, u32::to_le_bytes),
        DataType::Uint64 => bytes(&uint64_contents, u64::to_le_bytes),
        DataType::Fp32 => bytes(&fp32_contents, f32::to_le_bytes),
        DataType::Fp64 => bytes(&fp64_contents, f64::to_le_bytes),
        _ => frame_strings(&bytes_contents),
    })
}

fn bytes<T: Copy, const N: usize>(values: &[T], write: fn(T) -> [u8; N]) -> Bytes {
    values.iter().flat_map(|value| write(*value)).collect()
}

fn narrow<T: Copy + std::fmt::Display, E, const N: usize>(
    values: &[T],
    datatype: DataType,
    write: impl Fn(T) -> Result<[u8; N], E>,
) -> Result<Bytes, String> {
    let mut out = Vec::with_capacity(values.len() * N);
    for (index, value) in values.iter().enumerate() {
        let written =
            write(*value).map_err(|_| format!("element {index} is {value}, not {datatype}"))?;
        out.extend_from_slice(&written);
    }
    Ok(out.into())
}
