//! Numbers of every datatype, as they are compared with the bounds of a contract.

use half::{bf16, f16};

use crate::config::value::Scalar;

/// A value of a numeric datatype, of `N` bytes.
pub(super) trait Element<const N: usize>:
    Copy + PartialOrd + std::fmt::Debug + Send + Sync + 'static
{
    /// Below and above every value but NaN.
    const LOWEST: Self;
    const HIGHEST: Self;
    /// The finite ones.
    const LEAST: Self;
    const GREATEST: Self;

    fn read(bytes: [u8; N]) -> Self;
    fn write(self) -> [u8; N];

    /// The value for a number in a file; `None` where the type has no such value. Floats round,
    /// so that a bound is what the same text means as a value.
    fn exact(number: &Scalar) -> Option<Self>;

    /// The values nearest to both ends that lie between them.
    fn between(low: &Scalar, high: &Scalar) -> Option<(Self, Self)>;

    fn is_nan(self) -> bool {
        false
    }

    /// Whether the value lies between the two; NaN never does. Written without a branch, for
    /// loops over many values.
    fn within(self, low: Self, high: Self) -> bool {
        (self >= low) & (self <= high)
    }

    /// For messages.
    fn show(self) -> String;
}

macro_rules! integers {
    ($($type:ty: $size:literal),*) => {$(
        impl Element<$size> for $type {
            const LOWEST: Self = Self::MIN;
            const HIGHEST: Self = Self::MAX;
            const LEAST: Self = Self::MIN;
            const GREATEST: Self = Self::MAX;

            fn read(bytes: [u8; $size]) -> Self {
                Self::from_le_bytes(bytes)
            }

            fn write(self) -> [u8; $size] {
                self.to_le_bytes()
            }

            fn exact(number: &Scalar) -> Option<Self> {
                let whole = whole(number, f64::trunc)?;
                let is_whole = !matches!(number, Scalar::Float(float) if float.fract() != 0.0);
                Self::try_from(whole).ok().filter(|_| is_whole)
            }

            fn between(low: &Scalar, high: &Scalar) -> Option<(Self, Self)> {
                let (least, greatest) = (i128::from(Self::MIN), i128::from(Self::MAX));
                let low = whole(low, f64::ceil)?.max(least);
                let high = whole(high, f64::floor)?.min(greatest);
                (low <= high).then_some((Self::try_from(low).ok()?, Self::try_from(high).ok()?))
            }

            fn show(self) -> String {
                self.to_string()
            }
        }
    )*};
}

integers!(u8: 1, u16: 2, u32: 4, u64: 8, i8: 1, i16: 2, i32: 4, i64: 8);

/// The whole number that a number in a file stands for.
#[expect(clippy::cast_possible_truncation, reason = "saturates at what no datatype holds")]
fn whole(number: &Scalar, round: fn(f64) -> f64) -> Option<i128> {
    match number {
        Scalar::Integer(number) => Some(i128::from(*number)),
        Scalar::Float(number) => Some(round(*number) as i128),
        Scalar::Flag(_) | Scalar::Text(_) => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "floats round")]
fn float(number: &Scalar) -> Option<f64> {
    match number {
        Scalar::Integer(number) => Some(*number as f64),
        Scalar::Float(number) => Some(*number),
        Scalar::Flag(_) | Scalar::Text(_) => None,
    }
}

/// Both ends as floats of a type; one beyond its greatest value becomes that value.
fn floats<T: PartialOrd + Copy>(
    (low, high): (&Scalar, &Scalar),
    (least, greatest): (T, T),
    narrow: fn(f64) -> T,
    widen: fn(T) -> f64,
) -> Option<(T, T)> {
    let (low, high) = (float(low)?, float(high)?);
    let is_out = low > high || low > widen(greatest) || high < widen(least);
    let clamped = |number: f64| narrow(number.clamp(widen(least), widen(greatest)));
    (!is_out).then(|| (clamped(low), clamped(high)))
}

impl Element<4> for f32 {
    const LOWEST: Self = Self::NEG_INFINITY;
    const HIGHEST: Self = Self::INFINITY;
    const LEAST: Self = Self::MIN;
    const GREATEST: Self = Self::MAX;

    fn read(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }

    fn write(self) -> [u8; 4] {
        self.to_le_bytes()
    }

    fn exact(number: &Scalar) -> Option<Self> {
        float(number).map(narrow).filter(|value| value.is_finite())
    }

    fn between(low: &Scalar, high: &Scalar) -> Option<(Self, Self)> {
        floats((low, high), (Self::MIN, Self::MAX), narrow, f64::from)
    }

    fn is_nan(self) -> bool {
        self.is_nan()
    }

    fn show(self) -> String {
        format!("{self:?}")
    }
}

#[expect(clippy::cast_possible_truncation, reason = "floats round")]
fn narrow(number: f64) -> f32 {
    number as f32
}

impl Element<8> for f64 {
    const LOWEST: Self = Self::NEG_INFINITY;
    const HIGHEST: Self = Self::INFINITY;
    const LEAST: Self = Self::MIN;
    const GREATEST: Self = Self::MAX;

    fn read(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }

    fn write(self) -> [u8; 8] {
        self.to_le_bytes()
    }

    fn exact(number: &Scalar) -> Option<Self> {
        float(number)
    }

    fn between(low: &Scalar, high: &Scalar) -> Option<(Self, Self)> {
        floats((low, high), (Self::MIN, Self::MAX), |number| number, |number| number)
    }

    fn is_nan(self) -> bool {
        self.is_nan()
    }

    fn show(self) -> String {
        format!("{self:?}")
    }
}

/// FP16, compared by its bits: the processor would convert each value first.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Half(f16);

/// BF16: the upper half of an FP32.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Brain(bf16);

/// A number with the order of the FP16 that has these bits. -0 counts as 0, and NaN lies outside
/// of both infinities.
fn ordered(bits: u16) -> i16 {
    let magnitude = (bits & 0x7fff).cast_signed();
    let negative = (bits.cast_signed()) >> 15;
    (magnitude ^ negative) - negative
}

impl Element<2> for Half {
    const LOWEST: Self = Self(f16::NEG_INFINITY);
    const HIGHEST: Self = Self(f16::INFINITY);
    const LEAST: Self = Self(f16::MIN);
    const GREATEST: Self = Self(f16::MAX);

    fn read(bytes: [u8; 2]) -> Self {
        Self(f16::from_le_bytes(bytes))
    }

    fn write(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }

    fn exact(number: &Scalar) -> Option<Self> {
        float(number).map(f16::from_f64).filter(|value| value.is_finite()).map(Self)
    }

    fn between(low: &Scalar, high: &Scalar) -> Option<(Self, Self)> {
        let (low, high) = floats((low, high), (f16::MIN, f16::MAX), f16::from_f64, f16::to_f64)?;
        Some((Self(low), Self(high)))
    }

    fn is_nan(self) -> bool {
        self.0.is_nan()
    }

    fn within(self, low: Self, high: Self) -> bool {
        let (low, high) = (ordered(low.0.to_bits()), ordered(high.0.to_bits()));
        let value = ordered(self.0.to_bits());
        (value >= low) & (value <= high)
    }

    fn show(self) -> String {
        format!("{:?}", self.0.to_f32())
    }
}

/// Widening is exact: the bits below are zeros.
fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

impl Element<2> for Brain {
    const LOWEST: Self = Self(bf16::NEG_INFINITY);
    const HIGHEST: Self = Self(bf16::INFINITY);
    const LEAST: Self = Self(bf16::MIN);
    const GREATEST: Self = Self(bf16::MAX);

    fn read(bytes: [u8; 2]) -> Self {
        Self(bf16::from_le_bytes(bytes))
    }

    fn write(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }

    fn exact(number: &Scalar) -> Option<Self> {
        float(number).map(bf16::from_f64).filter(|value| value.is_finite()).map(Self)
    }

    fn between(low: &Scalar, high: &Scalar) -> Option<(Self, Self)> {
        let ends = (bf16::MIN, bf16::MAX);
        let (low, high) = floats((low, high), ends, bf16::from_f64, bf16::to_f64)?;
        Some((Self(low), Self(high)))
    }

    fn is_nan(self) -> bool {
        self.0.is_nan()
    }

    fn within(self, low: Self, high: Self) -> bool {
        let value = widened(self.0);
        (value >= widened(low.0)) & (value <= widened(high.0))
    }

    fn show(self) -> String {
        format!("{:?}", widened(self.0))
    }
}

/// BOOL: 0 or 1, which the tensor's own check has made sure of.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Bool(u8);

impl Element<1> for Bool {
    const LOWEST: Self = Self(0);
    const HIGHEST: Self = Self(1);
    const LEAST: Self = Self(0);
    const GREATEST: Self = Self(1);

    fn read([byte]: [u8; 1]) -> Self {
        Self(byte)
    }

    fn write(self) -> [u8; 1] {
        [self.0]
    }

    fn exact(number: &Scalar) -> Option<Self> {
        match number {
            Scalar::Flag(flag) => Some(Self(u8::from(*flag))),
            other => u8::exact(other).filter(|value| *value <= 1).map(Self),
        }
    }

    fn between(_: &Scalar, _: &Scalar) -> Option<(Self, Self)> {
        None
    }

    fn show(self) -> String {
        (self.0 == 1).to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn between<T: Element<N>, const N: usize>(low: f64, high: f64) -> Option<(T, T)> {
        T::between(&Scalar::Float(low), &Scalar::Float(high))
    }

    #[test]
    fn bounds_become_values_of_the_type() {
        assert_eq!(between::<u8, 1>(-3.5, 300.0), Some((0, 255)));
        assert_eq!(between::<i8, 1>(-3.5, 7.9), Some((-3, 7)));
        assert_eq!(between::<u8, 1>(0.2, 0.8), None);
        assert_eq!(between::<u8, 1>(300.0, 400.0), None);
        assert_eq!(between::<f32, 4>(0.0, 0.1), Some((0.0, 0.1)));
        assert_eq!(between::<f32, 4>(0.0, 1e60), Some((0.0, f32::MAX)));
        assert_eq!(between::<f32, 4>(1e60, 1e61), None);
        let most = (Half(f16::ZERO), Half(f16::MAX));
        assert_eq!(between::<Half, 2>(0.0, 1e6), Some(most));
        let largest = i64::MAX - 1;
        let bounds = u64::between(&Scalar::Integer(largest), &Scalar::Integer(largest));
        assert_eq!(bounds, Some((largest.cast_unsigned(), largest.cast_unsigned())));
    }

    #[test]
    fn only_values_of_the_type_are_exact() {
        assert_eq!(u8::exact(&Scalar::Integer(256)), None);
        assert_eq!(u8::exact(&Scalar::Float(2.5)), None);
        assert_eq!(u8::exact(&Scalar::Float(2.0)), Some(2));
        assert_eq!(f32::exact(&Scalar::Float(1e60)), None);
        assert_eq!(f32::exact(&Scalar::Text("1".into())), None);
        assert_eq!(Bool::exact(&Scalar::Flag(true)), Some(Bool(1)));
        assert_eq!(Bool::exact(&Scalar::Integer(2)), None);
    }

    proptest! {
        #[test]
        fn half_floats_compare_as_the_numbers_they_are(bits: [u16; 3]) {
            let [value, low, high] = bits.map(f16::from_bits);
            prop_assume!(!low.is_nan() && !high.is_nan());
            let is_within = value.to_f32() >= low.to_f32() && value.to_f32() <= high.to_f32();
            prop_assert_eq!(Half(value).within(Half(low), Half(high)), is_within);
            let [value, low, high] = bits.map(bf16::from_bits);
            let is_within = value.to_f32() >= low.to_f32() && value.to_f32() <= high.to_f32();
            prop_assert_eq!(Brain(value).within(Brain(low), Brain(high)), is_within);
        }
    }
}
