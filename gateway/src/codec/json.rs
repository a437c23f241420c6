//! The `data` of a tensor in JSON: parsed straight into typed bytes, without a tree, and written
//! flat.
//!
//! Accepted are flat lists and lists nested as deep as the shape; integers are read exactly up
//! to 64 bits; FP16 and BF16 are accepted as numbers, which other servers refuse.

pub mod reader;
mod write;

use std::fmt;

use bytes::Bytes;
use engine::tensor::element_count;
use engine::{DataType, Tensor};
use half::{bf16, f16};

use reader::{Fault, MAX_DEPTH, Number, Reader};

pub use write::{write_data, write_text};

/// Memory set aside before the first element is seen: a shape may promise what never comes.
const MAX_RESERVE: usize = 1 << 20;

/// Parses the JSON text of `data`.
///
/// # Errors
/// What is wrong, in words fit for the caller; the caller of this function adds the name.
pub fn parse_data(text: &str, datatype: DataType, shape: Vec<usize>) -> Result<Tensor, String> {
    let mut reader = Reader::new(text.as_bytes());
    let tensor = read_data(&mut reader, datatype, shape)?;
    reader.end().map_err(|fault| describe(&fault))?;
    Ok(tensor)
}

/// Reads `data` where it stands.
///
/// # Errors
/// As [`parse_data`]; the reader is then somewhere within the data.
pub fn read_data(
    reader: &mut Reader<'_>,
    datatype: DataType,
    shape: Vec<usize>,
) -> Result<Tensor, String> {
    let expected = element_count(&shape).map_err(|error| error.to_string())?;
    let size = datatype.size().unwrap_or(8);
    let mut sink = Sink {
        datatype,
        shape: &shape,
        out: Vec::with_capacity(expected.saturating_mul(size).min(MAX_RESERVE)),
        elements: 0,
        expected,
        leaf_depth: None,
    };
    sink.value(reader, 0).map_err(|fault| describe(&fault))?;
    if sink.elements != expected {
        return Err(format!(
            "data has {} elements, shape {shape:?} needs {expected}",
            sink.elements
        ));
    }
    let out = std::mem::take(&mut sink.out);
    Tensor::new(datatype, shape, Bytes::from(out)).map_err(|error| error.to_string())
}

/// Without a position: one within `data` would not match the whole body.
fn describe(fault: &Fault) -> String {
    format!("data: {}", fault.message())
}

/// Collects the elements of one tensor.
struct Sink<'a> {
    datatype: DataType,
    shape: &'a [usize],
    out: Vec<u8>,
    elements: usize,
    expected: usize,
    /// Depth at which elements stand: 1 for flat data, the rank for nested data.
    leaf_depth: Option<usize>,
}

impl Sink<'_> {
    /// Reads a list of the nesting, or an element; `depth` lists are open around it.
    #[inline]
    fn value(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<(), Fault> {
        match reader.peek() {
            Some(b'-' | b'0'..=b'9') => {
                let number = reader.number()?;
                self.begin_element(reader, depth)?;
                self.number(reader, number)
            }
            Some(b'[') => self.list(reader, depth + 1),
            _ => self.other(reader, depth),
        }
    }

    fn list(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(reader.too_deep());
        }
        reader.advance();
        let mut count = 0_usize;
        while reader.has_item(count == 0)? {
            self.value(reader, depth)?;
            count += 1;
        }
        reader.advance();
        // Flat data is counted at the end; nested data has to follow the shape at every level.
        let nested = self.leaf_depth.unwrap_or(depth) > 1;
        match self.shape.get(depth - 1) {
            Some(&wanted) if nested && wanted != count => Err(reader.fault_behind(format!(
                "a list at depth {depth} has {count} items, shape {:?} needs {wanted}",
                self.shape
            ))),
            _ => Ok(()),
        }
    }

    /// Reads what is neither a list nor a number.
    #[inline(never)]
    fn other(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<(), Fault> {
        match reader.peek() {
            Some(b'"') => {
                let text = reader.quoted()?;
                self.begin_element(reader, depth)?;
                if self.datatype != DataType::Bytes {
                    return Err(self.wrong(reader, &"text"));
                }
                let length = u32::try_from(text.len())
                    .map_err(|_| reader.fault_behind("text beyond 4 GiB"))?;
                self.out.extend_from_slice(&length.to_le_bytes());
                self.out.extend_from_slice(text.as_bytes());
                Ok(())
            }
            Some(b't' | b'f') => {
                let value = reader.boolean()?;
                self.begin_element(reader, depth)?;
                if self.datatype != DataType::Bool {
                    return Err(self.wrong(reader, &value));
                }
                self.out.push(u8::from(value));
                Ok(())
            }
            Some(b'n') => {
                reader.null()?;
                self.begin_element(reader, depth)?;
                Err(self.wrong(reader, &"null"))
            }
            _ => Err(reader.wrong_type(&format!("a list of {}", self.datatype))),
        }
    }

    #[inline]
    fn begin_element(&mut self, reader: &Reader<'_>, depth: usize) -> Result<(), Fault> {
        let known = *self.leaf_depth.get_or_insert(depth);
        if known != depth || !(depth == 1 || depth == self.shape.len().max(1)) {
            return Err(reader
                .fault_behind(format!("must be a flat list or nested as shape {:?}", self.shape)));
        }
        if self.elements == self.expected {
            return Err(reader.fault_behind(format!(
                "more than the {} elements of shape {:?}",
                self.expected, self.shape
            )));
        }
        self.elements += 1;
        Ok(())
    }

    #[cold]
    fn wrong(&self, reader: &Reader<'_>, what: &dyn fmt::Display) -> Fault {
        let index = self.elements - 1;
        reader.fault_behind(format!("element {index} is {what}, not {}", self.datatype))
    }

    #[inline]
    fn number(&mut self, reader: &Reader<'_>, number: Number) -> Result<(), Fault> {
        match self.datatype {
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
                self.float(reader, number.rounded())
            }
            _ => match number {
                Number::Unsigned(value) => self.integer(reader, value.into()),
                Number::Negative(value) => self.integer(reader, value.into()),
                Number::Float(value) => Err(self.wrong(reader, &value)),
            },
        }
    }

    /// Any JSON integer; 128 bits hold both `u64` and `i64`.
    fn integer(&mut self, reader: &Reader<'_>, value: i128) -> Result<(), Fault> {
        macro_rules! narrow {
            ($type:ty) => {
                match <$type>::try_from(value) {
                    Ok(value) => self.out.extend_from_slice(&value.to_le_bytes()),
                    Err(_) => return Err(self.wrong(reader, &value)),
                }
            };
        }
        match self.datatype {
            DataType::Uint8 => narrow!(u8),
            DataType::Uint16 => narrow!(u16),
            DataType::Uint32 => narrow!(u32),
            DataType::Uint64 => narrow!(u64),
            DataType::Int8 => narrow!(i8),
            DataType::Int16 => narrow!(i16),
            DataType::Int32 => narrow!(i32),
            DataType::Int64 => narrow!(i64),
            // What takes no numbers is named with the integer, not with its rounding.
            _ => return Err(self.wrong(reader, &value)),
        }
        Ok(())
    }

    /// Narrower floats are rounded from the double: that is what a client gets that reads the
    /// same JSON into doubles, as all do, and makes its tensor of them. Rounding the text at
    /// once would differ from them in the last bit of some values halfway between two.
    #[inline]
    fn float(&mut self, reader: &Reader<'_>, value: f64) -> Result<(), Fault> {
        #[expect(clippy::cast_possible_truncation, reason = "rounding is what FP32 means")]
        let single = value as f32;
        let finite = match self.datatype {
            DataType::Fp32 => {
                self.out.extend_from_slice(&single.to_le_bytes());
                single.is_finite()
            }
            DataType::Fp16 => {
                let value = f16::from_f64(value);
                self.out.extend_from_slice(&value.to_le_bytes());
                value.is_finite()
            }
            DataType::Bf16 => {
                let value = bf16::from_f64(value);
                self.out.extend_from_slice(&value.to_le_bytes());
                value.is_finite()
            }
            _ => {
                self.out.extend_from_slice(&value.to_le_bytes());
                true
            }
        };
        if finite {
            return Ok(());
        }
        Err(self.wrong(reader, &format_args!("{value}, out of range")))
    }
}

#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;
