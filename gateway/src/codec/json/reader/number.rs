//! Numbers of JSON: the grammar here, the value of decimals by a library that rounds correctly.

use super::fault::words;
use super::{Fault, Reader};

/// Digits that a `u64` always holds.
const SAFE_DIGITS: usize = 19;

/// A number as far as JSON tells: integers are exact where 64 bits hold them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    /// With a fraction or an exponent, `-0`, or beyond 64 bits; finite.
    Float(f64),
}

impl Number {
    /// The nearest double.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "a float input rounds, as JSON does")]
    pub(in crate::codec::json) fn rounded(self) -> f64 {
        match self {
            Self::Unsigned(value) => value as f64,
            Self::Negative(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// The shape of a number that was consumed.
pub(super) struct Scanned {
    /// Of the integer part; wrong beyond [`SAFE_DIGITS`].
    significand: u64,
    digits: usize,
    is_integer: bool,
}

impl Reader<'_> {
    /// Reads the number whose first byte was peeked at.
    #[inline]
    pub(in crate::codec::json) fn number(&mut self) -> Result<Number, Fault> {
        let start = self.at;
        let scanned = self.scan_number(words::EOF_VALUE)?;
        let token = &self.text[start..self.at];
        if scanned.is_integer
            && let Some(number) = integer(token, &scanned)
        {
            return Ok(number);
        }
        // The grammar was checked, so the library takes it.
        match fast_float2::parse::<f64, _>(token) {
            Ok(value) if value.is_finite() => Ok(Number::Float(value)),
            _ => Err(self.fault_behind(words::RANGE)),
        }
    }

    /// Consumes a number; `at_end` are the words for a text that ends within it.
    #[inline]
    pub(super) fn scan_number(&mut self, at_end: &'static str) -> Result<Scanned, Fault> {
        let text = self.text;
        let mut at = self.at + usize::from(text[self.at] == b'-');
        let start = at;
        let mut significand = 0_u64;
        while let Some(digit) = digit(text, at) {
            significand = significand.wrapping_mul(10).wrapping_add(digit);
            at += 1;
        }
        let digits = at - start;
        if digits == 0 || (digits > 1 && text[start] == b'0') {
            return Err(self.no_integer(start, digits, at_end));
        }
        let mut is_integer = true;
        if text.get(at) == Some(&b'.') {
            is_integer = false;
            at += 1;
            let fraction = at;
            while digit(text, at).is_some() {
                at += 1;
            }
            if at == fraction {
                self.at = at;
                let message = if at < text.len() { words::NUMBER } else { at_end };
                return Err(self.fault_here(message));
            }
        }
        if let Some(b'e' | b'E') = text.get(at) {
            is_integer = false;
            at += 1;
            if let Some(b'+' | b'-') = text.get(at) {
                at += 1;
            }
            let exponent = at;
            while digit(text, at).is_some() {
                at += 1;
            }
            if at == exponent {
                return Err(self.no_digit(at, at_end));
            }
        }
        self.at = at;
        Ok(Scanned { significand, digits, is_integer })
    }

    #[cold]
    fn no_integer(&mut self, start: usize, digits: usize, at_end: &'static str) -> Fault {
        if digits == 0 {
            return self.no_digit(start, at_end);
        }
        // A zero in front of other digits.
        self.at = start + 1;
        self.fault_here(words::NUMBER)
    }

    #[cold]
    fn no_digit(&mut self, at: usize, at_end: &'static str) -> Fault {
        self.at = (at + 1).min(self.text.len());
        let message = if at < self.text.len() { words::NUMBER } else { at_end };
        self.fault_behind(message)
    }
}

#[inline]
fn digit(text: &[u8], at: usize) -> Option<u64> {
    let digit = text.get(at)?.wrapping_sub(b'0');
    (digit < 10).then_some(u64::from(digit))
}

/// The integer, if 64 bits hold it and it is not `-0`.
#[inline]
fn integer(token: &[u8], scanned: &Scanned) -> Option<Number> {
    let negative = token[0] == b'-';
    let significand = if scanned.digits <= SAFE_DIGITS {
        scanned.significand
    } else {
        std::str::from_utf8(&token[usize::from(negative)..]).ok()?.parse().ok()?
    };
    if !negative {
        return Some(Number::Unsigned(significand));
    }
    match 0_i64.checked_sub_unsigned(significand)? {
        0 => None,
        value => Some(Number::Negative(value)),
    }
}
