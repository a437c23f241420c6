//! Tensors and texts as JSON.

use engine::{DataType, Tensor};
use half::{bf16, f16};

use super::reader::plain_length;

/// Bytes set aside for each number: most take fewer, and a few that take more do no harm.
const NUMBER: usize = 12;

/// Writes the elements as one flat JSON list. Floats are the shortest text that reads back as
/// the same value.
///
/// # Errors
/// When JSON cannot hold an element: NaN, infinity, bytes that are no UTF-8.
pub fn write_data(tensor: &Tensor, out: &mut Vec<u8>) -> Result<(), String> {
    let data = tensor.data();
    out.reserve(match tensor.datatype().size() {
        Some(size) => data.len() / size * NUMBER + 2,
        None => data.len() + 2,
    });
    out.push(b'[');
    match tensor.datatype() {
        DataType::Bool => list(data, out, |[byte]| *byte != 0, boolean),
        DataType::Uint8 => list(data, out, |[byte]| *byte, integer),
        DataType::Int8 => list(data, out, |bytes| i8::from_le_bytes(*bytes), integer),
        DataType::Uint16 => list(data, out, |bytes| u16::from_le_bytes(*bytes), integer),
        DataType::Uint32 => list(data, out, |bytes| u32::from_le_bytes(*bytes), integer),
        DataType::Uint64 => list(data, out, |bytes| u64::from_le_bytes(*bytes), integer),
        DataType::Int16 => list(data, out, |bytes| i16::from_le_bytes(*bytes), integer),
        DataType::Int32 => list(data, out, |bytes| i32::from_le_bytes(*bytes), integer),
        DataType::Int64 => list(data, out, |bytes| i64::from_le_bytes(*bytes), integer),
        DataType::Fp64 => list(data, out, |bytes| f64::from_le_bytes(*bytes), float),
        DataType::Fp32 => list(data, out, |bytes| f32::from_le_bytes(*bytes), float),
        DataType::Fp16 => list(data, out, |bytes| f16::from_le_bytes(*bytes).to_f32(), float),
        DataType::Bf16 => list(data, out, |bytes| bf16::from_le_bytes(*bytes).to_f32(), float),
        DataType::Bytes => texts(tensor, out),
    }?;
    out.push(b']');
    Ok(())
}

/// Writes a JSON string.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    if plain_length(text.as_bytes()) < text.len() {
        serde_json::to_writer(out, text).expect("memory takes every byte");
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Writes each element with a comma behind it, and takes the last comma back.
fn list<const N: usize, T>(
    data: &[u8],
    out: &mut Vec<u8>,
    read: impl Fn(&[u8; N]) -> T,
    write: impl Fn(T, &mut Vec<u8>) -> Option<()>,
) -> Result<(), String> {
    let elements = data.as_chunks::<N>().0;
    for (index, bytes) in elements.iter().enumerate() {
        write(read(bytes), out)
            .ok_or_else(|| format!("element {index} is NaN or infinite, which JSON cannot hold"))?;
        out.push(b',');
    }
    if !elements.is_empty() {
        out.pop();
    }
    Ok(())
}

fn texts(tensor: &Tensor, out: &mut Vec<u8>) -> Result<(), String> {
    for (index, element) in tensor.strings().enumerate() {
        let text = std::str::from_utf8(element)
            .map_err(|_| format!("element {index} is no UTF-8, which JSON needs"))?;
        if index > 0 {
            out.push(b',');
        }
        write_text(text, out);
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "as the writers of floats, which can fail")]
fn boolean(value: bool, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(if value { b"true" } else { b"false" });
    Some(())
}

#[expect(clippy::unnecessary_wraps, reason = "as the writers of floats, which can fail")]
fn integer<T: itoa::Integer>(value: T, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    Some(())
}

fn float<T: zmij::Float + Into<f64>>(value: T, out: &mut Vec<u8>) -> Option<()> {
    if !value.into().is_finite() {
        return None;
    }
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    Some(())
}
