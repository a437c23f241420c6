//! How data was parsed and written with `serde_json` alone: what the reader and the writer are
//! compared with.

use std::fmt;

use bytes::Bytes;
use engine::tensor::element_count;
use engine::{DataType, Tensor};
use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

/// Memory set aside before the first element is seen: a shape may promise what never comes.
const MAX_RESERVE: usize = 1 << 20;

/// Parses the JSON text of `data`.
///
/// # Errors
/// What is wrong, in words fit for the caller; the caller of this function adds the name.
pub(crate) fn parse_data(
    text: &str,
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
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Level { sink: &mut sink, depth: 0 }
        .deserialize(&mut deserializer)
        .map_err(|error| describe(&error))?;
    deserializer.end().map_err(|error| describe(&error))?;
    if sink.elements != expected {
        return Err(format!(
            "data has {} elements, shape {shape:?} needs {expected}",
            sink.elements
        ));
    }
    let out = std::mem::take(&mut sink.out);
    Tensor::new(datatype, shape, Bytes::from(out)).map_err(|error| error.to_string())
}

/// `serde_json` appends a position within `data`, which would not match the whole body.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => format!("data: {message}"),
        None => format!("data: {text}"),
    }
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
    fn begin_element<E: serde::de::Error>(&mut self, depth: usize) -> Result<(), E> {
        let known = *self.leaf_depth.get_or_insert(depth);
        if known != depth || !(depth == 1 || depth == self.shape.len().max(1)) {
            return Err(E::custom(format!(
                "must be a flat list or nested as shape {:?}",
                self.shape
            )));
        }
        if self.elements == self.expected {
            return Err(E::custom(format!(
                "more than the {} elements of shape {:?}",
                self.expected, self.shape
            )));
        }
        self.elements += 1;
        Ok(())
    }

    fn wrong<E: serde::de::Error>(&self, what: &dyn fmt::Display) -> E {
        E::custom(format!("element {} is {what}, not {}", self.elements - 1, self.datatype))
    }

    /// Any JSON integer; 128 bits hold both `u64` and `i64`.
    fn integer<E: serde::de::Error>(&mut self, value: i128) -> Result<(), E> {
        macro_rules! narrow {
            ($type:ty) => {
                match <$type>::try_from(value) {
                    Ok(value) => self.out.extend_from_slice(&value.to_le_bytes()),
                    Err(_) => return Err(self.wrong(&value)),
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
            DataType::Bool | DataType::Bytes => return Err(self.wrong(&value)),
            #[expect(clippy::cast_precision_loss, reason = "a float input rounds, as JSON does")]
            _ => return self.float(value as f64),
        }
        Ok(())
    }

    fn float<E: serde::de::Error>(&mut self, value: f64) -> Result<(), E> {
        #[expect(clippy::cast_possible_truncation, reason = "rounding is what FP32 means")]
        let single = value as f32;
        let finite = match self.datatype {
            DataType::Fp64 => {
                self.out.extend_from_slice(&value.to_le_bytes());
                true
            }
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
            _ => return Err(self.wrong(&value)),
        };
        if finite { Ok(()) } else { Err(self.wrong(&format_args!("{value}, out of range"))) }
    }
}

/// One list of the nesting, or an element of it.
struct Level<'s, 'a> {
    sink: &'s mut Sink<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.sink.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        let mut count = 0_usize;
        while items.next_element_seed(Level { sink: self.sink, depth })?.is_some() {
            count += 1;
        }
        // Flat data is counted at the end; nested data has to follow the shape at every level.
        let nested = self.sink.leaf_depth.unwrap_or(depth) > 1;
        match self.sink.shape.get(self.depth) {
            Some(&wanted) if nested && wanted != count => Err(A::Error::custom(format!(
                "a list at depth {depth} has {count} items, shape {:?} needs {wanted}",
                self.sink.shape
            ))),
            _ => Ok(()),
        }
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.sink.begin_element(self.depth)?;
        if self.sink.datatype != DataType::Bool {
            return Err(self.sink.wrong(&value));
        }
        self.sink.out.push(u8::from(value));
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.sink.begin_element(self.depth)?;
        self.sink.integer(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.sink.begin_element(self.depth)?;
        self.sink.integer(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.sink.begin_element(self.depth)?;
        self.sink.float(value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.sink.begin_element(self.depth)?;
        if self.sink.datatype != DataType::Bytes {
            return Err(self.sink.wrong(&"text"));
        }
        let length = u32::try_from(value.len()).map_err(|_| E::custom("text beyond 4 GiB"))?;
        self.sink.out.extend_from_slice(&length.to_le_bytes());
        self.sink.out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.sink.begin_element(self.depth)?;
        Err(self.sink.wrong(&"null"))
    }
}

/// Writes the elements as one flat JSON list.
///
/// # Errors
/// When JSON cannot hold an element: NaN, infinity, bytes that are no UTF-8.
pub(crate) fn write_data(tensor: &Tensor, out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'[');
    let data = tensor.data();
    match tensor.datatype() {
        DataType::Bool => list(out, data.iter().map(|byte| Ok(*byte != 0)))?,
        DataType::Uint8 => list(out, data.iter().map(|byte| Ok(*byte)))?,
        DataType::Int8 => list(out, data.iter().map(|byte| Ok(i8::from_le_bytes([*byte]))))?,
        DataType::Uint16 => list(out, words(data, u16::from_le_bytes))?,
        DataType::Uint32 => list(out, words(data, u32::from_le_bytes))?,
        DataType::Uint64 => list(out, words(data, u64::from_le_bytes))?,
        DataType::Int16 => list(out, words(data, i16::from_le_bytes))?,
        DataType::Int32 => list(out, words(data, i32::from_le_bytes))?,
        DataType::Int64 => list(out, words(data, i64::from_le_bytes))?,
        DataType::Fp64 => list(out, finite(words(data, f64::from_le_bytes), f64::is_finite))?,
        DataType::Fp32 => list(out, finite(words(data, f32::from_le_bytes), f32::is_finite))?,
        DataType::Fp16 => {
            let values = words(data, |bytes| f16::from_le_bytes(bytes).to_f32());
            list(out, finite(values, f32::is_finite))?;
        }
        DataType::Bf16 => {
            let values = words(data, |bytes| bf16::from_le_bytes(bytes).to_f32());
            list(out, finite(values, f32::is_finite))?;
        }
        DataType::Bytes => {
            let texts = tensor.strings().enumerate().map(|(index, element)| {
                std::str::from_utf8(element)
                    .map_err(|_| format!("element {index} is no UTF-8, which JSON needs"))
            });
            list(out, texts)?;
        }
    }
    out.push(b']');
    Ok(())
}

fn words<const N: usize, T>(
    data: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> impl Iterator<Item = Result<T, String>> {
    data.as_chunks::<N>().0.iter().map(move |bytes| Ok(read(*bytes)))
}

fn finite<T: Copy>(
    values: impl Iterator<Item = Result<T, String>>,
    is_finite: fn(T) -> bool,
) -> impl Iterator<Item = Result<T, String>> {
    values.enumerate().map(move |(index, value)| {
        let value = value?;
        if is_finite(value) {
            return Ok(value);
        }
        Err(format!("element {index} is NaN or infinite, which JSON cannot hold"))
    })
}

fn list<T: serde::Serialize>(
    out: &mut Vec<u8>,
    values: impl Iterator<Item = Result<T, String>>,
) -> Result<(), String> {
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, &value?).map_err(|error| error.to_string())?;
    }
    Ok(())
}
