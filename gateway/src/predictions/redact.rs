//! What becomes of values that are not kept as they came. What a rule does not fit is dropped:
//! nothing is kept because somebody chose the wrong word.

use std::borrow::Cow;
use std::fmt::Write as _;

use engine::{DataType, Tensor};
use half::{bf16, f16};
use sha2::{Digest, Sha256};

use super::schema::Plan;
use crate::config::How;

/// Bytes of a hash that are kept.
const KEPT: usize = 16;
/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// A keyed hash (HMAC with SHA-256, RFC 2104), of which half is kept.
#[derive(Clone)]
pub(super) struct Hasher {
    inner: Sha256,
    outer: Sha256,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher(…)")
    }
}

impl Hasher {
    pub(super) fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        let digest = Sha256::digest(key);
        let key = if key.len() > BLOCK { &digest[..] } else { key };
        block[..key.len()].copy_from_slice(key);
        let state = |pad: u8| {
            let mut state = Sha256::new();
            state.update(block.map(|byte| byte ^ pad));
            state
        };
        Self { inner: state(0x36), outer: state(0x5c) }
    }

    /// The hasher of one field: whoever chooses the values of one and reads the log learns nothing
    /// of another.
    pub(super) fn of(&self, field: &str) -> Self {
        let mut own = self.clone();
        own.inner.update(field);
        own.inner.update([0]);
        own
    }

    pub(super) fn hash(&self, value: &[u8]) -> [u8; KEPT] {
        let mut inner = self.inner.clone();
        inner.update(value);
        let mut outer = self.outer.clone();
        outer.update(inner.finalize());
        let digest = outer.finalize();
        std::array::from_fn(|index| digest[index])
    }

    /// The hash as 32 hex digits, behind what `out` holds.
    pub(super) fn write(&self, value: &[u8], out: &mut String) {
        for byte in self.hash(value) {
            // A string takes all that is written to it.
            let _written = write!(out, "{byte:02x}");
        }
    }
}

/// Writes what is kept of a text behind what `out` holds; whether anything is.
pub(super) fn text(
    how: Option<How>,
    value: &str,
    hasher: Option<&Hasher>,
    out: &mut String,
) -> bool {
    match (how, hasher) {
        (None, _) => out.push_str(value),
        (Some(How::Hash), Some(hasher)) => hasher.write(value.as_bytes(), out),
        (Some(How::Truncate(count)), _) => out.extend(value.chars().take(count)),
        (Some(How::Bucket(width)), _) => match value.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => {
                let _written = write!(out, "{}", lower_end(number, width));
            }
            _ => return false,
        },
        (Some(How::Drop | How::Hash), _) => return false,
    }
    true
}

/// What is kept of a tensor's elements; `None`: they are dropped.
pub(super) fn tensor<'a>(
    plan: &Plan,
    tensor: &'a Tensor,
    hasher: Option<&Hasher>,
) -> Option<Cow<'a, [u8]>> {
    match plan {
        Plan::Keep => Some(Cow::Borrowed(tensor.data())),
        Plan::Whole(How::Drop) => None,
        Plan::Whole(how) if tensor.datatype() == DataType::Bytes => {
            framed(tensor.strings(), |_| Some(*how), hasher).map(Cow::Owned)
        }
        Plan::Whole(how) => {
            let mut data = tensor.data().to_vec();
            let size = tensor.datatype().size()?;
            let is_kept = data
                .chunks_exact_mut(size)
                .all(|bytes| number(tensor.datatype(), bytes, *how, hasher));
            is_kept.then_some(Cow::Owned(data))
        }
        Plan::Scalars(scalars, count) => {
            let rule = |index: usize| {
                let place = index % count;
                scalars.iter().find(|(known, _)| *known == place).map(|(_, how)| *how)
            };
            let Some(size) = tensor.datatype().size() else {
                return framed(tensor.strings(), rule, hasher).map(Cow::Owned);
            };
            let mut data = tensor.data().to_vec();
            for (index, bytes) in data.chunks_exact_mut(size).enumerate() {
                if let Some(how) = rule(index)
                    && !number(tensor.datatype(), bytes, how, hasher)
                {
                    blank(tensor.datatype(), bytes);
                }
            }
            Some(Cow::Owned(data))
        }
    }
}

/// Elements of BYTES, each as its rule leaves it; empty where that drops it.
fn framed<'a>(
    elements: impl Iterator<Item = &'a [u8]>,
    rule: impl Fn(usize) -> Option<How>,
    hasher: Option<&Hasher>,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut kept = String::new();
    for (index, element) in elements.enumerate() {
        kept.clear();
        let how = rule(index);
        let bytes = match (how, std::str::from_utf8(element)) {
            (None, _) => element,
            (Some(How::Hash), Err(_)) => {
                hasher?.write(element, &mut kept);
                kept.as_bytes()
            }
            (Some(_), Err(_)) => &[],
            (Some(how), Ok(value)) => {
                if !text(Some(how), value, hasher, &mut kept) {
                    kept.clear();
                }
                kept.as_bytes()
            }
        };
        out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
        out.extend_from_slice(bytes);
    }
    Some(out)
}

/// Changes one number in place; whether the rule fits it.
fn number(datatype: DataType, bytes: &mut [u8], how: How, hasher: Option<&Hasher>) -> bool {
    match (how, hasher) {
        (How::Hash, Some(hasher)) if matches!(datatype, DataType::Int64 | DataType::Uint64) => {
            let hash = hasher.hash(bytes);
            let size = bytes.len();
            bytes.copy_from_slice(&hash[..size]);
            true
        }
        (How::Bucket(width), _) => bucket(datatype, bytes, width),
        _ => false,
    }
}

/// Rounds one number down to a multiple of the width; whether it is one.
fn bucket(datatype: DataType, bytes: &mut [u8], width: f64) -> bool {
    macro_rules! each {
        ($($datatype:ident: $number:ty, $read:expr, $write:expr;)*) => {
            match datatype {
                $(DataType::$datatype => {
                    let Some(found) = bytes.first_chunk() else { return false };
                    let value: f64 = $read(<$number>::from_le_bytes(*found));
                    let written: $number = $write(lower_end(value, width));
                    bytes.copy_from_slice(&written.to_le_bytes());
                    true
                })*
                DataType::Bool | DataType::Bytes => false,
            }
        };
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a rounded number has the range of what it came from; beyond 2^53 it is rounded \
                  more"
    )]
    let done = each! {
        Uint8: u8, f64::from, |value| value as u8;
        Int8: i8, f64::from, |value| value as i8;
        Uint16: u16, f64::from, |value| value as u16;
        Int16: i16, f64::from, |value| value as i16;
        Uint32: u32, f64::from, |value| value as u32;
        Int32: i32, f64::from, |value| value as i32;
        Uint64: u64, |value| value as f64, |value| value as u64;
        Int64: i64, |value| value as f64, |value| value as i64;
        Fp16: f16, f16::to_f64, f16::from_f64;
        Bf16: bf16, bf16::to_f64, bf16::from_f64;
        Fp32: f32, f64::from, |value| value as f32;
        Fp64: f64, f64::from, f64::from;
    };
    done
}

fn lower_end(value: f64, width: f64) -> f64 {
    (value / width).floor() * width
}

/// What stands for a number that is not kept among others that are: NaN, or 0 where there is none.
fn blank(datatype: DataType, bytes: &mut [u8]) {
    match datatype {
        DataType::Fp16 => bytes.copy_from_slice(&f16::NAN.to_le_bytes()),
        DataType::Bf16 => bytes.copy_from_slice(&bf16::NAN.to_le_bytes()),
        DataType::Fp32 => bytes.copy_from_slice(&f32::NAN.to_le_bytes()),
        DataType::Fp64 => bytes.copy_from_slice(&f64::NAN.to_le_bytes()),
        _ => bytes.fill(0),
    }
}

#[cfg(test)]
mod tests;
