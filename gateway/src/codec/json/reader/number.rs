//! Numbers of JSON: the grammar here, the value of decimals by a library that rounds correctly.

use super::fault::words;
use super::{Fault, Reader};

/// Digits that a `u64` always holds.
const SAFE_DIGITS: usize = 19;

/// Those that a double holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

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
    /// All digits as one integer, the point left out; wrong beyond [`SAFE_DIGITS`].
    significand: u64,
    digits: usize,
    form: Form,
}

enum Form {
    Integer,
    /// With so many digits behind the point, and no exponent.
    Decimal(usize),
    Exponent,
}

impl Reader<'_> {
    /// Reads the number whose first byte was peeked at.
    #[inline]
    pub(in crate::codec::json) fn number(&mut self) -> Result<Number, Fault> {
        let start = self.at;
        let scanned = self.scan_number(words::EOF_VALUE)?;
        let token = &self.text[start..self.at];
        let known = match scanned.form {
            Form::Integer => integer(token, &scanned),
            Form::Decimal(behind) => decimal(token, &scanned, behind),
            Form::Exponent => None,
        };
        if let Some(number) = known {
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
        let start = self.at + usize::from(text[self.at] == b'-');
        let (mut at, mut significand) = (start, 0_u64);
        while let Some(digit) = digit(text, at) {
            significand = significand.wrapping_mul(10).wrapping_add(digit);
            at += 1;
        }
        let mut digits = at - start;
        if digits == 0 || (digits > 1 && text[start] == b'0') {
            return Err(self.no_integer(start, digits, at_end));
        }
        let mut form = Form::Integer;
        if text.get(at) == Some(&b'.') {
            let fraction = at + 1;
            (at, significand) = many_digits(text, fraction, significand);
            if at == fraction {
                self.at = at;
                let message = if at < text.len() { words::NUMBER } else { at_end };
                return Err(self.fault_here(message));
            }
            form = Form::Decimal(at - fraction);
            digits += at - fraction;
        }
        if let Some(b'e' | b'E') = text.get(at) {
            form = Form::Exponent;
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
        Ok(Scanned { significand, digits, form })
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

/// Consumes digits, of which there are often many: eight at a time where eight stand together.
#[inline]
fn many_digits(text: &[u8], mut at: usize, mut significand: u64) -> (usize, u64) {
    while let Some((eight, _)) = text[at..].split_first_chunk::<8>()
        && let Some(value) = eight_digits(u64::from_le_bytes(*eight))
    {
        significand = significand.wrapping_mul(100_000_000).wrapping_add(value);
        at += 8;
    }
    while let Some(digit) = digit(text, at) {
        significand = significand.wrapping_mul(10).wrapping_add(digit);
        at += 1;
    }
    (at, significand)
}

/// The value of eight digits in one word, the first in the lowest byte: pairs of digits, of
/// pairs and of those are joined in three steps. After Lemire, "Number Parsing at a Gigabyte per
/// Second", 2021, section 9.
#[inline]
fn eight_digits(word: u64) -> Option<u64> {
    let digits = word.wrapping_sub(0x3030_3030_3030_3030);
    let above_nine = word.wrapping_add(0x4646_4646_4646_4646);
    if (digits | above_nine) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some(low.wrapping_add(high) >> 32)
}

/// The decimal with so many digits `behind` its point, if a double holds its digits and the
/// power of ten: one division then rounds correctly (Clinger, "How to Read Floating Point
/// Numbers Accurately", 1990, section 3).
#[inline]
#[expect(clippy::cast_precision_loss, reason = "a double holds the significand")]
fn decimal(token: &[u8], scanned: &Scanned, behind: usize) -> Option<Number> {
    let power = POWERS_OF_TEN.get(behind)?;
    if scanned.digits > SAFE_DIGITS || scanned.significand > 1 << f64::MANTISSA_DIGITS {
        return None;
    }
    let value = scanned.significand as f64 / power;
    Some(Number::Float(if token[0] == b'-' { -value } else { value }))
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
